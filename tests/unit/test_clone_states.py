"""What becomes of a join: who is let in, by what, once; and what ends it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ets.clone import protocol, states
from ets.clone.protocol import Request
from ets.clone.states import Join

SSH = "ssh-ed25519 " + "A" * 68
TOKEN = "0123-4567-89AB-CDEF"
MAC, OTHER_MAC = "52:54:00:99:00:01", "52:54:00:99:00:02"
NOW = 1_000_000.0
JOIN = Join("beta", "id", NOW, NOW + 7200, key=protocol.token_key(TOKEN))
FIRST, SECOND = "11" * 32, "22" * 32


def request(mac: str = MAC) -> Request:
    return Request("beta", mac, "ab" * 32, SSH, "CSR", {})


def proof(seen: str, token: str = TOKEN) -> str:
    return protocol.proof(protocol.token_key(token), "newcomer", seen)


def let_in(join: Join = JOIN, seen: str = FIRST) -> Join:
    answer = states.ask(join, request(), seen, proof(seen), NOW)
    assert answer.state == "approved"
    return answer.join


def test_without_a_word_it_waits_and_is_told_what_to_say() -> None:
    answer = states.ask(JOIN, request(), FIRST, None, NOW)
    assert answer.state == "open"
    assert f"ets join --approve beta {protocol.code(FIRST)}" in answer.why
    assert answer.join == JOIN


def test_a_token_approves_one_machine_ever() -> None:
    approved = let_in()
    assert approved.approval is not None
    assert (approved.approval.how, approved.approval.seen) == ("token", FIRST)
    second = states.ask(approved, request(), SECOND, proof(SECOND), NOW)
    assert second.state == "refused"
    assert "used already" in second.why
    assert second.join == approved
    # the first one asks again, because its answer was lost
    assert states.ask(approved, request(), FIRST, proof(FIRST), NOW).state == "approved"
    assert states.ask(approved, request(), FIRST, None, NOW).state == "approved"


def test_a_wrong_token_is_refused_and_counted_and_locks_nobody_out() -> None:
    join = JOIN
    for _ in range(100):
        answer = states.ask(join, request(), SECOND, proof(SECOND, "ZZZZ-ZZZZ-ZZZZ-ZZZZ"), NOW)
        assert (answer.state, answer.why) == ("refused", "the token is wrong")
        join = answer.join
    assert join.wrong == 100
    # a proof of another transcript is a replay
    assert states.ask(join, request(), SECOND, proof(FIRST), NOW).state == "refused"
    assert let_in(join).state == "approved"


def test_a_code_approves_the_machine_that_shows_it_and_no_other() -> None:
    join = states.approve_code(JOIN, protocol.code(SECOND).lower().replace("-", " "))
    assert states.ask(join, request(), FIRST, None, NOW).state == "open"
    answer = states.ask(join, request(), SECOND, None, NOW)
    assert answer.state == "approved"
    assert answer.join.wanted == ""
    other = states.ask(answer.join, request(), FIRST, None, NOW)
    assert other.state == "open"
    assert "another machine was approved" in other.why


def test_the_administrator_may_take_another_machine_after_all() -> None:
    join = states.approve_code(let_in(), protocol.code(SECOND))
    answer = states.ask(join, request(), SECOND, None, NOW)
    assert answer.state == "approved"
    assert states.ask(answer.join, request(), FIRST, None, NOW).state == "open"


def test_unattended_it_is_for_one_card_which_may_come_with_new_keys() -> None:
    join = replace(JOIN, key="", mac=MAC, unattended=True)
    stranger = states.ask(join, request(OTHER_MAC), FIRST, None, NOW)
    assert stranger.state == "refused"
    assert MAC in stranger.why
    first = states.ask(join, request(), FIRST, None, NOW)
    assert first.state == "approved"
    second = states.ask(first.join, request(), SECOND, None, NOW)
    assert second.state == "approved"
    assert second.join.approval is not None
    assert second.join.approval.seen == SECOND
    # without a card nobody is let in unattended
    assert states.ask(replace(join, mac=None), request(), FIRST, None, NOW).state == "open"


@pytest.mark.parametrize("how", ["cancelled", "expired", "done"])
def test_what_has_ended_stays_ended(how: str) -> None:
    approved = let_in()
    if how == "done":
        ended = states.reported(approved, {"count": 1, "stage": "done"}, NOW)
    else:
        ended = replace(approved, state=how, reason="over")  # type: ignore[arg-type]
    assert ended.ended
    assert states.ask(ended, request(), SECOND, proof(SECOND), NOW).state == "refused"
    again = states.ask(ended, request(), FIRST, proof(FIRST), NOW).state
    # who is done may have to hear so once more
    assert again == ("approved" if how == "done" else "refused")
    assert states.cancel(ended, "by hand") == ended
    assert states.expire(ended, NOW + 1e9) == ended
    with pytest.raises(ValueError, match=how):
        states.approve_code(ended, protocol.code(FIRST))
    with pytest.raises(ValueError, match=how):
        states.reported(ended, {"count": 9, "stage": "copying"}, NOW)


def test_it_expires_open_at_its_time_and_approved_only_when_silent() -> None:
    assert states.expire(JOIN, NOW + 7199) == JOIN
    late = states.ask(JOIN, request(), FIRST, proof(FIRST), NOW + 7201)
    assert late.state == "refused"
    assert late.join.state == "expired"
    assert "no machine was approved in time" in late.why
    copying = states.reported(let_in(), {"count": 1, "stage": "copying"}, NOW + 7000)
    assert states.expire(copying, NOW + 9000).state == "copying"
    silent = states.expire(copying, NOW + 7000 + states.SILENCE)
    assert silent.state == "expired"
    assert "said nothing for 60 minutes" in silent.reason


def test_reports_move_it_and_old_ones_do_not() -> None:
    join = let_in()
    join = states.reported(join, {"count": 3, "stage": "copying", "text": "x", "done": 0.5}, NOW)
    assert (join.state, join.reason, join.done) == ("copying", "copying: x", 0.5)
    for old in (3, 2, 0, -1):
        with pytest.raises(states.Stale):
            states.reported(join, {"count": old, "stage": "done"}, NOW)
    join = states.reported(join, {"count": 4, "stage": "copied"}, NOW)
    join = states.reported(join, {"count": 9, "stage": "first boot"}, NOW)
    assert join.state == "copied"
    assert states.reported(join, {"count": 10, "stage": "done"}, NOW).state == "done"
    # a new machine counts from the beginning
    moved = states.approve_code(join, protocol.code(SECOND))
    assert states.ask(moved, request(), SECOND, None, NOW).join.count == 0


@pytest.mark.parametrize(
    "report",
    [
        {}, {"count": "1", "stage": "x"}, {"count": True, "stage": "x"}, {"count": 1, "stage": 1},
        {"count": 1, "stage": "x", "text": None}, {"count": 1, "stage": "x", "done": 1.1},
        {"count": 1, "stage": "x", "done": "0.5"}, {"count": 1, "stage": "x", "done": float("nan")},
    ],
)  # fmt: skip
def test_a_report_of_another_form_is_refused(report: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        states.reported(let_in(), report, NOW)


def test_what_a_newcomer_says_is_fit_for_a_terminal() -> None:
    report = {"count": 1, "stage": "a\x1b[2J", "text": "b\n\x07" + "c" * 1000}
    join = states.reported(let_in(), report, NOW)
    assert (join.reason + join.stage + join.text).isprintable()
    assert len(join.text) == 400


@pytest.mark.parametrize("typed", ["", "0123-4567-89AB-CDEF", "x" * 200, "\x1b[2J"])
def test_what_is_no_code_is_said_so(typed: str) -> None:
    with pytest.raises(ValueError, match="is no code"):
        states.approve_code(JOIN, typed)


events = st.lists(
    st.tuples(
        st.sampled_from(["ask", "token", "wrong", "approve", "cancel", "report", "later", "done"]),
        st.sampled_from([FIRST, SECOND, "33" * 32]),
    ),
    max_size=20,
)


@given(events, st.booleans())
def test_whatever_happens_nobody_comes_in_unapproved(
    happenings: list[tuple[str, str]], unattended: bool
) -> None:
    """Invariants 1, 2 and 4 of ``ets.clone.states``."""
    join = replace(JOIN, unattended=unattended, mac=MAC if unattended else None)
    now, typed, by_token = NOW, set[str](), set[str]()
    for what, seen in happenings:
        before = join
        if what == "later":
            now += 3000
            join = states.expire(join, now)
        elif what == "cancel":
            join = states.cancel(join, "by hand")
        elif what == "approve" and not join.ended:
            join = states.approve_code(join, protocol.code(seen))
            typed.add(seen)
        elif what in {"report", "done"} and join.state in states.ADMITTED:
            stage = "done" if what == "done" else "copying"
            join = states.reported(join, {"count": join.count + 1, "stage": stage}, now)
        elif what in {"ask", "token", "wrong"}:
            given_proof = {"ask": None, "token": proof(seen), "wrong": "00" * 32}[what]
            join = states.ask(join, request(), seen, given_proof, now).join
        if before.ended:
            assert join == before
        mine = join.approval
        if mine is not None and mine != before.approval:
            if mine.how == "token":
                by_token.add(mine.seen)
                assert what == "token"
            if mine.how == "code":
                assert mine.seen in typed
            assert mine.how != "unattended" or unattended
            assert mine.seen == seen
    assert len(by_token) <= 1
