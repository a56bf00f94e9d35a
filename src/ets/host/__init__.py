"""The only room that runs commands, writes files and talks to a machine.
Imports ``ets.errors``, ``ets.paths`` and nothing above it.
"""
