"""Comparing servers: what differs where nothing may, in a person's words.

``manifest`` lists what a server has and compares two lists. What may differ is
``ets.identity``'s to say. May import ``ets.host``, ``ets.plan``, ``ets.facts`` and what is pure.
"""
