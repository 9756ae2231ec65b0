"""Near-duplicates: light edits are found, other text is kept, and the order of texts decides nothing."""

import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocabgraft.corpus.near_duplicates import near_duplicates, shingles_of, signatures
from vocabgraft.errors import DataError


def text(seed: int, words: int = 60) -> str:
    draw = random.Random(seed)
    return " ".join(
        "".join(chr(draw.randrange(0xAC00, 0xD7A4)) for _ in range(draw.randint(1, 4))) for _ in range(words)
    )


def edited(original: str, at: int = 30) -> str:
    words = original.split()
    return " ".join([*words[:at], "바뀜", *words[at + 1 :]])


@pytest.mark.parametrize(
    "change",
    [
        edited,
        lambda t: t.replace(" ", ""),
        lambda t: t.replace(" ", ",  "),
        lambda t: unicodedata.normalize("NFD", t),
        lambda t: "\n\n".join(t.split(" ")),
    ],
)
def test_a_text_lightly_changed_is_found_with_the_one_that_stays(change) -> None:
    texts = [text(n) for n in range(20)]
    found = near_duplicates([*texts, change(texts[7])], 0.8)
    assert [set(pair) for pair in found.items()] == [{7, 20}]


@pytest.mark.parametrize("change", [str.upper, lambda t: "".join(chr(ord(c) + 0xFEE0) if c != " " else c for c in t)])
def test_capitals_and_width_make_no_difference(change) -> None:
    english = "the quick brown fox jumps over the lazy dog and then goes home to sleep until the morning"
    assert len(near_duplicates([english, change(english)], 0.9)) == 1


def test_the_threshold_is_exact() -> None:
    one = text(1, 200)
    other = edited(edited(edited(one, 50), 100), 150)
    a, b = (set(shingles_of(t).tolist()) for t in (one, other))
    share = len(a & b) / len(a | b)
    assert 0.8 < share < 0.99
    assert len(near_duplicates([one, other], share - 0.001)) == 1
    assert near_duplicates([one, other], share + 0.001) == {}


def test_what_goes_first_is_never_left_out_for_what_comes_later() -> None:
    originals = [text(n) for n in range(30)]
    found = near_duplicates([*originals, *map(edited, originals)], 0.8, first=30)
    assert found == {n + 30: n for n in range(30)}


def test_texts_like_one_that_was_left_out_alone_stay() -> None:
    chain = [text(1, 100)]
    for step in range(12):
        words = chain[-1].split()
        chain.append(" ".join([*words[: step * 8], *text(step + 50, 5).split(), *words[step * 8 + 5 :]]))
    found = near_duplicates(chain, 0.7)
    assert 0 < len(found) < len(chain) - 1
    assert not set(found.values()) & set(found)


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(12)))
def test_the_order_of_texts_does_not_change_what_is_kept(order) -> None:
    texts = [t for n in range(4) for t in (text(n), edited(text(n)), edited(text(n), 10))]
    kept = {texts[n] for n in set(range(12)) - set(near_duplicates(texts, 0.7))}
    mixed = [texts[n] for n in order]
    assert {mixed[n] for n in set(range(12)) - set(near_duplicates(mixed, 0.7))} == kept
    assert len(kept) == 4


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=80), max_size=6))
def test_every_text_long_enough_is_a_near_duplicate_of_itself_and_none_is_lost(texts) -> None:
    found = near_duplicates([*texts, *texts], 0.8)
    stay = set(range(2 * len(texts))) - set(found)
    assert set(found.values()) <= stay
    for n, each in enumerate(texts):
        assert not len(shingles_of(each)) or not {n, n + len(texts)} <= stay


@pytest.mark.parametrize("texts", [[], [""], ["", "짧다", "...", "짧다"], [text(1)]])
def test_texts_too_short_to_tell_are_kept(texts) -> None:
    assert near_duplicates(texts, 0.8) == {}


def test_the_share_of_signatures_that_agree_estimates_the_share_of_runs_in_common() -> None:
    errors = []
    for n in range(60):
        one, other = text(n, 80), edited(edited(text(n, 80), 20), 60)
        a, b = (set(shingles_of(t).tolist()) for t in (one, other))
        _, (first, second) = signatures([one, other])
        errors.append(float((first == second).mean()) - len(a & b) / len(a | b))
    assert abs(np.mean(errors)) < 0.015
    assert np.std(errors) < 0.05


def test_signatures_do_not_depend_on_what_is_looked_at_together() -> None:
    texts = [text(n, 4000) for n in range(8)]
    known, together = signatures([*texts, ""])
    assert known.tolist() == list(range(8))
    assert all((signatures([t])[1][0] == row).all() for t, row in zip(texts, together, strict=True))


@pytest.mark.parametrize("threshold", [0, 1, -0.5, 80])
def test_a_threshold_that_is_no_share_is_refused(threshold) -> None:
    with pytest.raises(DataError, match="must be between 0 and 1"):
        near_duplicates(["a"], threshold)
