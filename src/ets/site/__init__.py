"""The site file: its model (frozen dataclasses), reading it, and what can be wrong with it.
Pure but for ``load.read`` (reads one file) and ``lock``. Imports no other room.
"""
