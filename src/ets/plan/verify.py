"""Is a server what it should be, and do its services answer? Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ets.errors import EXIT_DRIFT, EXIT_FAILED, EXIT_OK, CommandFailed, HostError
from ets.facts.observe import observe
from ets.host import ask
from ets.host.deadline import Deadline
from ets.host.transport import Host
from ets.plan import diff
from ets.plan.desired import Desired, Probe
from ets.plan.diff import Step
from ets.plan.journal import read_owned

#: how long a service may take to answer: daemons that were just restarted are still opening
#: their sockets
PROBE_SECONDS = 15.0
ASKED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a probe: ``said`` is what was seen last, ``seconds`` how long it took."""

    probe: Probe
    well: bool
    said: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Verified:
    """``drift`` is what a plan would do now, ``answers`` what the services said."""

    drift: tuple[Step, ...]
    answers: tuple[Answer, ...]

    @property
    def failed(self) -> tuple[Answer, ...]:
        """The probes that were not answered well."""
        return tuple(answer for answer in self.answers if not answer.well)

    @property
    def exit_code(self) -> int:
        """1 when a service does not answer, else 3 when there is drift, else 0."""
        if self.failed:
            return EXIT_FAILED
        return EXIT_DRIFT if self.drift else EXIT_OK


def verify(
    desired: Desired, probes: Sequence[Probe], host: Host, *, seconds: float = PROBE_SECONDS
) -> Verified:
    """Look at ``host`` again and ask its services, all at once, each for at most ``seconds``.

    Probes of the network are asked from this machine: run this on the server itself. Raises
    HostError when the host cannot be looked at, PlanError when something is in the way.
    """
    owned = read_owned(host)
    drift = diff.steps(desired, observe(host, desired, owned), owned)
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        answers = pool.map(lambda probe: answer(probe, host, seconds=seconds), probes)
        return Verified(drift, tuple(answers))


def answer(probe: Probe, host: Host, *, seconds: float) -> Answer:
    """Ask until it is answered well, at most ``seconds``; at least once."""
    begun, deadline = time.monotonic(), Deadline(seconds)
    while True:
        try:
            said, well = _ask(probe, host), True
        except CommandFailed as error:
            said, well = error.output or error.message, False
        except HostError as error:
            said, well = error.message, False
        if well or deadline.passed:
            return Answer(probe, well, said, time.monotonic() - begun)
        time.sleep(min(0.25, deadline.left))


def _ask(probe: Probe, host: Host) -> str:
    if probe.kind == "tcp":
        return ask.tcp(probe.address, probe.port)
    if probe.kind == "http":
        return ask.http_get(probe.address, probe.port, probe.path, expect=probe.expect)
    if probe.kind == "unix":
        return ask.unix(probe.path)
    host.run(probe.argv, deadline=10.0)
    return "exit status 0"
