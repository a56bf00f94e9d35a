"""The clone: a running primary becomes an identical second server, and a lost one is rebuilt.

The newcomer drives and pulls: ``joining`` asks to be let in, ``disks``, ``layout`` and
``partition`` make room, ``pull`` copies what ``send`` gives out on the primary, ``rewrite`` makes
the copy a server of its own after the table in ``ets.identity``, ``bootloader`` makes it boot,
``finish`` lets it into service; ``install`` is the order of it all. ``joins`` and ``serve`` are the
primary's side. May import ``ets.audit``, ``ets.plan``, ``ets.facts``, ``ets.host`` and what is
pure.
"""
