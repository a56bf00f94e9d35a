"""What becomes of a join: from open to done, every change with its reason.

Pure. Invariants:

1. nobody is let in for a transcript that was not approved: by the token, by a code that the
   administrator typed, or unattended for a card;
2. a token approves one transcript, ever; a typed code the one that it was typed for;
3. an approval moves to another machine in two cases only: the administrator typed its code, or the
   join is unattended and the same card asks with new keys (it lost power before it could keep its
   first ones);
4. what has ended stays ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ets.clone.protocol import CODE_BITS, Request, code, normal, plain, proves, well_formed

#: seconds after which a newcomer that says nothing any more has lost its approval
SILENCE = 3600.0

State = Literal["open", "approved", "copying", "copied", "done", "refused", "expired", "cancelled"]
#: the states in which the newcomer may come in
ADMITTED: frozenset[State] = frozenset({"approved", "copying", "copied"})
ENDED: frozenset[State] = frozenset({"done", "expired", "cancelled"})


@dataclass(frozen=True, slots=True)
class Approval:
    """Who may come in, by what: ``how`` is token, code or unattended. ``serial`` is that of the
    certificate, in hexadecimal."""

    how: Literal["token", "code", "unattended"]
    seen: str
    ssh: str
    mac: str
    at: float
    certificate: str = ""
    serial: str = ""


@dataclass(frozen=True, slots=True)
class Join:
    """A join as a server keeps it. Times are seconds since 1970 of that server's clock.

    ``mac`` None: any card. ``key`` is the token's (see ``token_key``), empty when there is none;
    ``used``: it has approved its machine. ``wanted`` is the code that an administrator typed.
    """

    name: str
    id: str
    opened: float
    until: float
    mac: str | None = None
    unattended: bool = False
    erase: bool = False
    rebuild: bool = False
    layout: str = "plain"
    mirror: bool = False
    key: str = ""
    used: bool = False
    wanted: str = ""
    wrong: int = 0
    state: State = "open"
    reason: str = "waiting for a machine"
    approval: Approval | None = None
    stage: str = ""
    text: str = ""
    done: float | None = None
    heard: float = 0.0
    count: int = 0

    @property
    def ended(self) -> bool:
        """Nothing more can become of it."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Answer:
    """What a newcomer that asks is told, and the join after it. ``state`` is ``approved``,
    ``open`` (ask again) or ``refused``, with the reason in words."""

    state: State
    why: str
    join: Join


def expire(join: Join, now: float) -> Join:
    """The join at ``now``: an open one ends at its time, an approved one when the newcomer has
    been silent for ``SILENCE`` and its time is over."""
    if join.ended:
        return join
    last = max(join.until, join.heard + SILENCE if join.approval else 0.0)
    if now < last:
        return join
    if join.approval is None:
        reason = "no machine was approved in time"
    else:
        reason = f"the machine said nothing for {SILENCE / 60:.0f} minutes (last: {join.stage})"
    return replace(join, state="expired", reason=reason)


def ask(join: Join, request: Request, seen: str, given: object, now: float) -> Answer:
    """What becomes of a newcomer's request. ``given`` is its proof of the token, if any.

    An approved newcomer that asks again is told the same again: its answer may have been lost.
    """
    join = expire(join, now)
    mine = join.approval
    if mine is not None and mine.seen == seen and join.state != "cancelled":
        # what is done stays approved: its last report may have to be sent again
        state: State = "approved" if join.state in {*ADMITTED, "done"} else "refused"
        return Answer(state, join.reason, join)
    if join.ended:
        return Answer("refused", f"the join of {join.name} is {join.state}: {join.reason}", join)
    if join.mac is not None and request.mac != join.mac:
        why = f"the join of {join.name} is for the card {join.mac}, not {request.mac[:17]}"
        return Answer("refused", why, join)
    if join.wanted and join.wanted == code(seen):
        return _approve(replace(join, wanted=""), "code", request, seen, now)
    if given is not None:
        return _with_token(join, request, seen, given, now)
    if join.unattended and join.mac is not None:
        return _approve(join, "unattended", request, seen, now)
    if mine is not None:
        why = f"another machine was approved as {join.name}; {_by_code(join, seen)}"
        return Answer("open", why, join)
    return Answer("open", _by_code(join, seen), join)


def _with_token(join: Join, request: Request, seen: str, given: object, now: float) -> Answer:
    if not join.key:
        why = f"the join of {join.name} has no token; {_by_code(join, seen)}"
        return Answer("refused", why, join)
    if not proves(given, join.key, "newcomer", seen):
        return Answer("refused", "the token is wrong", replace(join, wrong=join.wrong + 1))
    if join.used:
        why = "the token was used already, by another machine or by this one with other keys; "
        return Answer("refused", why + _by_code(join, seen), join)
    return _approve(replace(join, used=True), "token", request, seen, now)


def _by_code(join: Join, seen: str) -> str:
    return f"to approve this machine, run: ets join --approve {join.name} {code(seen)}"


def _approve(
    join: Join,
    how: Literal["token", "code", "unattended"],
    request: Request,
    seen: str,
    now: float,
) -> Answer:
    reason = f"approved by {how}" if how != "unattended" else "unattended: approved by its card"
    approval = Approval(how, seen, request.ssh, request.mac, now)
    changed = replace(
        join, state="approved", reason=reason, approval=approval,
        stage="approved", text="", done=None, heard=now, count=0,
    )  # fmt: skip
    return Answer("approved", reason, changed)


class Stale(ValueError):
    """A report that was here before, or one that a later one has overtaken."""


def reported(join: Join, content: Mapping[str, object], now: float) -> Join:
    """The join after a report whose signature was found right. Raises ValueError for one that is
    malformed or of a join that takes none, Stale for an old one."""
    count, stage = content.get("count"), content.get("stage")
    text: object = content.get("text", "")
    done: object = content.get("done")
    if type(count) is not int or not isinstance(stage, str) or not isinstance(text, str):
        raise ValueError("a report has a count, a stage and a text")
    part = None
    if isinstance(done, int | float) and 0 <= done <= 1:
        part = float(done)
    elif done is not None:
        raise ValueError("done is a number from 0 to 1")
    if join.state not in ADMITTED:
        raise ValueError(f"the join of {join.name} is {join.state}")
    if count <= join.count:
        raise Stale("a report that was here before")
    stage, text = plain(stage, 40), plain(text, 400)
    state: State = "copying"
    if stage == "done":
        state = "done"
    elif stage == "copied" or join.state == "copied":
        state = "copied"
    return replace(
        join, state=state, reason=f"{stage}: {text}" if text else stage, stage=stage, text=text,
        done=part, heard=now, count=count,
    )  # fmt: skip


def in_service(join: Join, serial: str, now: float) -> Join:
    """The join when the site's servers agree that ``join.name`` is in service with the certificate
    of that number: its last report may have been lost."""
    if join.state != "copied" or join.approval is None or join.approval.serial != serial:
        return join
    return replace(join, state="done", stage="done", reason="done: seen in service", heard=now)


def approve_code(join: Join, typed: str) -> Join:
    """The administrator's word for the machine that shows ``typed``. Raises ValueError when that
    is no code, or the join is at its end."""
    if not well_formed(typed, CODE_BITS):
        raise ValueError(f"{plain(typed, 60)!r} is no code: five groups of four, as on the screen")
    if join.ended:
        raise ValueError(f"the join of {join.name} is {join.state}: {join.reason}")
    return replace(join, wanted=normal(typed))


def cancel(join: Join, why: str) -> Join:
    """The join, ended by the administrator."""
    return join if join.ended else replace(join, state="cancelled", reason=why)
