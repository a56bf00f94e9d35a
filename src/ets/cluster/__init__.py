"""Which server serves whom, and what state a server is in: pure decisions, no I/O, no clock.
Imports ``ets.site`` only.
"""
