"""What every server knows of open joins, from records that may be anything."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from ets.cluster import newcomers
from ets.cluster.newcomers import Newcomer

MAC = "52:54:00:99:00:01"
BETA = Newcomer("beta", IPv4Address("10.77.0.11"), MAC, "install")
GAMMA = Newcomer("gamma", IPv4Address("10.77.0.12"), None, "install")


def test_a_record_says_what_it_was_made_from_until_its_time() -> None:
    values: dict[str, object] = {
        "join/gamma": newcomers.record(GAMMA, 1000.0),
        "join/beta": newcomers.record(BETA, 2000.0),
        "server/alpha": {"state": "in service"},
        "join/delta": {},
    }
    assert newcomers.read(values, 999.0) == (BETA, GAMMA)
    assert newcomers.read(values, 1001.0) == (BETA,)
    assert newcomers.read(values, 2001.0) == ()
    assert newcomers.of_card((BETA, GAMMA), MAC) == BETA
    assert newcomers.of_card((BETA, GAMMA), "52:54:00:99:00:02") is None
    assert newcomers.for_anybody((BETA, GAMMA)) == (GAMMA,)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["address", "mac", "until", "boots"]), inner)
    ),
    max_leaves=8,
)


@given(json_values)
def test_whatever_a_record_holds_is_read_or_left_out(value: object) -> None:
    found = newcomers.read({"join/beta": value}, 0.0)
    assert all(isinstance(one.address, IPv4Address) for one in found)
