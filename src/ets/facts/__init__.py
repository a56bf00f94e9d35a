"""What a server is observed to be: one file per kind of fact, read without changing anything.
Imports ``ets.host`` and below.
"""
