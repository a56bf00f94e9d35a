"""A machine behind ssh."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ets.errors import CommandFailed, HostError
from ets.host.run import Completed
from ets.host.shell import ShellHost

#: never ask for a password, and give up on a machine that is away
OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5")
CONNECTION_FAILED = 255


class SshHost(ShellHost):
    """``target`` as for ssh(1) (``root@10.20.0.11``); ``options`` go before it (a key, a port, a
    control socket). The account there must be root's."""

    def __init__(
        self, target: str, *, options: Sequence[str] = (), name: str | None = None
    ) -> None:
        super().__init__(name or target)
        self._target = target
        self._options = tuple(options)

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """The ssh command line; the remote shell gets every argument as it is."""
        return ["ssh", *OPTIONS, *self._options, "--", self._target, shlex.join(argv)]

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        deadline: float = 60.0,
        check: bool = True,
        hint: str = "",
    ) -> Completed:
        """As ``ets.host.run.run``, there. Raises HostError when there is no connection."""
        done = super().run(argv, stdin=stdin, deadline=deadline, check=False, hint=hint)
        if done.status == CONNECTION_FAILED:
            said = done.stderr.decode(errors="replace").strip()
            raise HostError(
                f"cannot reach {self.name} by ssh: {said}",
                hint=f"try: ssh {self._target} true",
            )
        if check and done.status != 0:
            output = (done.stdout + done.stderr).decode(errors="replace")
            raise CommandFailed(done.command, done.status, output, hint=hint)
        return done
