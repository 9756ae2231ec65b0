"""Shares are what was asked, exact to one row at every moment, and the same every time."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.corpus.shares import tempered, turn
from vocabgraft.errors import DataError

SIZES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 10**9), min_size=1)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8).filter(any), st.integers(1, 400))
def test_every_source_has_its_due_up_to_one_turn_at_every_moment(weights: list[int], positions: int) -> None:
    shares, had = [w / sum(weights) for w in weights], Counter[int]()
    for position in range(positions):
        which, before = turn(shares, position)
        assert before == had[which]
        had[which] += 1
        assert all(abs(had[n] - share * (position + 1)) < 1 for n, share in enumerate(shares))


@given(st.integers(0, 3000))
def test_a_turn_depends_on_the_position_alone(position: int) -> None:
    shares = [0.5, 0.3, 0.2]
    asked_before = turn(shares, position)
    turn(shares, position + 100)
    assert turn(shares, position) == asked_before
    assert turn([0.0, 1.0], position) == (1, position)


@given(SIZES, st.floats(1, 20))
def test_shares_are_powers_of_the_sizes_and_make_one(sizes: dict[str, int], temperature: float) -> None:
    found = tempered(sizes, temperature)
    powers = {name: size ** (1 / temperature) for name, size in sizes.items()}
    assert sum(found.values()) == pytest.approx(1)
    assert found == pytest.approx({name: power / sum(powers.values()) for name, power in powers.items()})


@given(SIZES, st.floats(1, 20), st.integers(1, 10**10), st.floats(0.5, 8))
def test_no_source_is_read_too_often_while_another_has_text_left(
    sizes: dict[str, int], temperature: float, budget: int, most: float
) -> None:
    found = tempered(sizes, temperature, budget=budget, max_epochs=most)
    epochs = {name: share * budget / sizes[name] for name, share in found.items()}
    assert sum(found.values()) == pytest.approx(1)
    if budget <= most * sum(sizes.values()):
        assert max(epochs.values()) <= most * (1 + 1e-6)
    else:
        assert max(epochs.values()) == pytest.approx(min(epochs.values()))


@given(SIZES, st.floats(1, 20), st.floats(0, 1))
def test_a_given_share_is_as_given_and_the_others_divide_the_rest(
    sizes: dict[str, int], temperature: float, share: float
) -> None:
    sizes |= {"z": 77}
    found = tempered(sizes, temperature, given={"z": share})
    rest = tempered({name: size for name, size in sizes.items() if name != "z"}, temperature)
    assert found["z"] == share
    assert found == pytest.approx({name: part * (1 - share) for name, part in rest.items()} | {"z": share}, abs=1e-8)


def test_a_small_source_stops_at_its_most_and_leaves_the_rest_to_the_large() -> None:
    sizes = {"large": 1_000_000, "small": 100}
    assert tempered(sizes, 100.0)["small"] == pytest.approx(0.477, abs=0.001)
    assert tempered(sizes, 100.0, budget=100_000, max_epochs=4)["small"] == pytest.approx(0.004)


def test_an_empty_source_gets_nothing() -> None:
    assert tempered({"a": 10, "b": 0}, 3.0) == {"a": 1.0, "b": 0.0}
    assert tempered({"a": 10, "b": 10}, 1.0, given={"b": 0.0}) == {"a": 1.0, "b": 0.0}


def test_all_that_is_wrong_with_given_shares_is_said_at_once() -> None:
    with pytest.raises(DataError) as wrong:
        tempered({"a": 1, "b": 0}, 1.0, given={"c": 0.7, "b": 0.6})
    assert str(wrong.value) == (
        "shares of sources: no source 'c'; 'b' has no text; 1.300 in all, more than 1. There are 'a', 'b'"
    )
    with pytest.raises(DataError, match=r"0\.500 in all, and no other source has text for the rest"):
        tempered({"a": 1}, 1.0, given={"a": 0.5})
