"""Dictionaries merged: nothing is lost unsaid, and every pair knows where it is from."""

import random
from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.corpus.dictionary import Pair
from vocabgraft.corpus.word_pairs import SPLIT, UNSPLIT, Merged, covered, frequent_words, merge_pairs

WORDS = st.sampled_from(
    ["fever", "Fever", "열", "疾病", "신장", "chronic", "만성", "a b c d e", "가 나 다 라 마", "가 " * 40]
)
SOURCES = ("acute", "chronic", "left", "renal", "hepatic", "pain")
TARGETS = ("급성", "만성", "왼쪽", "신장", "간성", "통증")


def merge(pairs: list[Pair], support: int = 0, content: object = None) -> Merged:
    return merge_pairs(pairs, script="Hangul", support=support, content=content)  # type: ignore[arg-type]


def dropped(pairs: list[Pair], support: int = 0) -> dict[str, int]:
    return merge(pairs, support).tally.as_dict()["dropped"]


def titles(count: int, **fields: str) -> list[Pair]:
    """Phrases of four words out of a lexicon of six, and a number."""
    draw, found = random.Random(1), []
    for n in range(count):
        chosen = draw.sample(range(6), 4)
        source, target = (" ".join(words[i] for i in chosen) for words in (SOURCES, TARGETS))
        found.append(Pair(f"{source} {n}", f"{target} {n}", **fields))
    return found


def test_entries_are_filtered_for_script_length_and_repetition() -> None:
    pairs = [
        Pair("fever", "열"),
        Pair("Fever", "열"),
        Pair("disease", "疾病"),
        Pair("a b c d", "가 나 다 라"),
        Pair("a b c d e", "가"),
        Pair("a", "가 나 다 라 마"),
        Pair("열", "열"),
    ]
    assert merge(pairs).pairs == [pairs[0], pairs[3]]
    assert dropped(pairs) == {
        "duplicate": 1,
        "no target script": 1,
        "target script on both sides": 1,
        "too long": 2,
    }


@given(st.lists(st.builds(Pair, source=WORDS, target=WORDS), max_size=25), st.integers(0, 3))
def test_what_goes_in_comes_out_or_is_dropped_for_a_reason(pairs: list[Pair], support: int) -> None:
    merged = merge(pairs, support)
    assert merged.tally.read == len(pairs) == merged.tally.kept + merged.tally.dropped.total()
    assert len(merged.pairs) == merged.tally.kept + merged.new
    keys = [(p.source.casefold(), p.target.casefold()) for p in merged.pairs]
    assert len(set(keys)) == len(keys)


def test_a_phrase_gives_its_words_and_is_counted() -> None:
    odd = Pair("some words nobody says twice", "아무도 두 번 말하지 않는 낱말")
    merged = merge([*titles(30), odd], support=3)
    assert {(p.source, p.target) for p in merged.pairs} == set(zip(SOURCES, TARGETS, strict=True))
    assert merged.tally.as_dict()["dropped"] == {SPLIT: 30, UNSPLIT: 1}
    assert merged.tally.examples == {SPLIT: "pair:1", UNSPLIT: "pair:31"}
    assert (merged.new, merged.known) == (6, 0)


def test_without_support_phrases_are_left_out() -> None:
    assert dropped(titles(30)) == {"too long": 30}


def test_a_pair_of_phrases_has_the_licences_of_all_of_them() -> None:
    some = titles(40, license="CC0", origin="book", domain="medical")
    other = [Pair(p.source, p.target, "law", "GPL-3", "list") for p in titles(60)[40:]]
    found = {p.source: p for p in merge([*some, *other], support=3).pairs}
    assert {p.license for p in found.values()} == {"CC0 + GPL-3"}
    assert {p.origin for p in found.values()} == {"book + list"}
    assert {p.domain for p in found.values()} == {"medical"}


def test_a_licence_that_is_not_known_is_said_beside_the_others() -> None:
    some = [*titles(20, license="CC0"), *[Pair(p.source, p.target) for p in titles(40)[20:]]]
    assert {p.license for p in merge(some, support=3).pairs} == {"CC0 + unknown"}
    assert {p.license for p in merge(titles(20), support=3).pairs} == {""}


def test_an_entry_keeps_its_own_licence_when_phrases_show_it_too() -> None:
    entry = Pair("renal", "신장", license="CC BY", origin="wiki")
    merged = merge([entry, *titles(30, license="GPL-3")], support=3)
    assert merged.pairs[0] == entry
    assert (merged.new, merged.known) == (5, 1)


def test_several_translations_are_kept_and_counted() -> None:
    merged = merge([Pair("kidney", "신장"), Pair("kidney", "콩팥"), Pair("stature", "신장"), Pair("fever", "열")])
    assert merged.several() == {"source": 1, "target": 1}
    assert merged.tally.kept == 4


def test_parts_of_speech_are_taken_from_the_column_or_told() -> None:
    pairs = [
        Pair("fever", "열", pos="Noun"),
        Pair("Seoul", "서울", pos="name"),
        Pair("Busan", "부산"),
        Pair("eat", "먹다"),
    ]
    asked: list[Collection[str]] = []

    def content(words: Collection[str]) -> Collection[str]:
        asked.append(words)
        return {"먹다"}

    merged = merge(pairs, content=content)
    assert [p.source for p in merged.pairs] == ["fever", "eat"]
    assert asked == [["먹다", "부산"]]
    assert merged.tally.as_dict()["dropped"] == {"part of speech": 2}


def test_coverage_of_a_domain_grows_with_the_words_of_its_phrases() -> None:
    found = merge(titles(30, domain="medical"), support=3).domains["medical"]
    assert found == {"words": 6, "with_entry_before": 0, "with_entry": 6}


def test_frequent_words_are_counted_without_their_particles() -> None:
    counts = [(" 신장의", 3), ("신장", 2), (" 간염을 간염", 4), ("the", 100), ("이", 90)]
    assert frequent_words(counts, [Pair("kidney", "신장")], script="Hangul", most=5) == ["간염", "신장"]
    assert frequent_words(counts, [], script="Hangul", most=1) == ["간염"]


def test_a_word_is_covered_by_an_entry_of_its_own_alone() -> None:
    assert covered(["신장", "간", "열"], [Pair("kidney", "신장"), Pair("renal failure", "간 부전")]) == 1
