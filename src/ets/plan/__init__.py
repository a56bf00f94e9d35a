"""How a change reaches a server: ``desired`` (data), ``diff`` and ``plan`` (pure), ``apply`` and
``verify`` (act, through ``ets.host``). Services are data for this room; it knows none of them.
"""
