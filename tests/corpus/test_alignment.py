"""Phrases give pairs of words, each with the phrases that show it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocabgraft.corpus.alignment import MAX_PHRASE_WORDS, split_phrases, without_particles, words_of

LEXICON = {
    "chronic": "만성",
    "acute": "급성",
    "renal": "신장",
    "hepatic": "간",
    "failure": "부전",
    "inflammation": "염증",
    "left": "왼쪽",
    "recurrent": "재발성",
}
MODIFIERS, NOUNS = ["chronic", "acute", "left", "recurrent"], ["failure", "inflammation"]


def titles(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Two or three words, the target's in another order."""
    draw, found = random.Random(seed), []
    for _ in range(count):
        words = [*draw.sample(MODIFIERS, 1), draw.choice(["renal", "hepatic"]), draw.choice(NOUNS)]
        turned = [LEXICON[w] for w in draw.sample(words, 3)]
        found.append((" ".join(words), " ".join(turned)))
    return found


def pairs(phrases: list[tuple[str, str]], support: int = 3, **more) -> dict[str, str]:
    return {p.source: p.target for p in split_phrases(phrases, script="Hangul", support=support, **more)}


def test_words_are_found_whatever_their_order() -> None:
    assert pairs(titles(200)) == LEXICON


def test_each_pair_names_the_phrases_that_hold_both_its_words() -> None:
    phrases = titles(100)
    for pair in split_phrases(phrases, script="Hangul", support=3):
        assert len(pair.phrases) >= 3
        assert all(pair.source in phrases[n][0] and pair.target in phrases[n][1] for n in pair.phrases)


def test_one_word_may_stand_for_two_of_the_other_language() -> None:
    renal = [
        ("hearing loss", "청력소실"),
        ("renal failure", "신장 부전"),
        ("renal cyst", "신장 낭"),
        ("failure", "부전"),
    ]
    found = pairs([(f"{a} {s}", f"{b} {t}") for s, t in renal for a, b in (("acute", "급성"), ("left", "왼쪽"))] * 2)
    assert found["hearing loss"] == "청력소실"
    assert found["renal"] == "신장"


def test_a_function_word_at_its_edge_is_no_part_of_a_pair() -> None:
    found = pairs([("disorder of the ear", "귀장애"), ("disorder of the eye", "눈장애"), ("pain", "통증")] * 3)
    assert all(words_of(source)[-1] not in ("of", "the") for source in found)


def test_too_little_support_is_no_pair() -> None:
    assert pairs([("chronic pain", "만성 통증"), ("acute pain", "급성 통증")] * 2, support=5) == {}
    assert pairs(titles(40), support=41) == {}


def test_long_phrases_teach_nothing() -> None:
    long = " ".join(["renal"] * (MAX_PHRASE_WORDS + 1)), "신장"
    assert pairs([long] * 5) == {}
    assert pairs([]) == {}


def test_a_target_in_another_script_is_no_pair() -> None:
    assert pairs([("vitamin c", "비타민 c"), ("vitamin b", "비타민 b"), ("vitamin", "비타민")] * 4) == {
        "vitamin": "비타민"
    }


@settings(max_examples=20)
@given(order=st.permutations(titles(30)))
def test_the_order_of_the_phrases_changes_no_pair(order: list[tuple[str, str]]) -> None:
    assert pairs(list(order)) == pairs(titles(30))


@pytest.mark.parametrize(
    ("words", "known", "expected"),
    [
        (("신장의", "신장"), (), ("신장", "신장")),
        (("치조골의",), (), ("치조골",)),
        (("턱의",), ("턱",), ("턱",)),
        (("회의", "주치의"), ("주치의",), ("회의", "주치의")),
        (("감염에서의", "감염"), (), ("감염", "감염")),
        (("정신과",), (), ("정신과",)),
        (("명시된", "명시"), (), ("명시된", "명시")),
        (("농약", "에"), (), ("농약",)),
    ],
)
def test_particles_come_off_where_what_is_left_is_a_word(words, known, expected) -> None:
    assert without_particles([words], "Hangul", frozenset(known)) == [expected]


def test_other_scripts_have_no_particles() -> None:
    assert without_particles([("신장의", "नमकका")], "Devanagari") == [("신장의", "नमकका")]


def test_words_keep_their_marks_and_lose_punctuation() -> None:
    assert words_of("Crohn's disease [NOS], हिंदी (감염)") == ("crohn's", "disease", "nos", "हिंदी", "감염")
