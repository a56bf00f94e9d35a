"""``python3 -m ets``: the command."""

from ets.cli import main

main()
