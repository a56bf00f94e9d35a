"""ETS, the Embedded Terminal Server: a terminal server for diskless workstations without a
single point of failure. The rooms are described in docs/design.md; each room's own
``__init__`` says what lives there and what it may import.
"""

__version__ = "0.1.0"
