"""Each quality rule on both sides of its threshold, and the presets as published."""

from __future__ import annotations

from typing import get_args

import pytest

from vocabgraft.corpus import quality
from vocabgraft.corpus.quality import QualityRules, Thresholds, presets
from vocabgraft.recipe_data import Data

PLAIN = Thresholds(
    name="test",
    title="",
    commit="",
    words="spaces",
    repeated_lines=0.5,
    top_runs=((2, 0.3),),
    repeated_runs=((3, 0.2),),
    language_score=0,
    line_ends=0.5,
    breaks_per_word=0.1,
    min_word_length=3,
    max_word_length=6,
    words_with_letters=0.8,
    stop_words=("the", "and"),
)


@pytest.fixture(autouse=True)
def _words_are_what_spaces_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "_splitter", lambda words: str.split)


def reason(text: str, **changes: object) -> str | None:
    return QualityRules(PLAIN.model_copy(update=changes)).reason_to_drop(text)


def words(count: int, size: int = 4) -> list[str]:
    """So many different words of letters, all of one size."""
    letters = "abcdefghij"
    return ["x" * (size - 3) + "".join(letters[int(d)] for d in f"{n:03}") for n in range(count)]


GOOD = " ".join(["the", "and", *words(60)]) + "."


def test_an_ordinary_text_is_kept() -> None:
    assert reason(GOOD) is None


def lines(*parts: str) -> str:
    """Lines, and enough words that line breaks are few."""
    return "\n".join([GOOD, *parts])


BOTH_SIDES = [
    ("no words", "\n \n", GOOD, {}),
    # 4 lines of 7 came before; 3 of 6 are half
    ("repeated lines", lines(*["a."] * 5, "b."), lines(*["a."] * 4, "b."), {"repeated_runs": ()}),
    ("lines without an end", lines("one", "two"), lines("one", "two", "three."), {}),
    ("letters in repeated lines", lines("y" * 20 + ".", "y" * 20 + ".", "y" * 20 + "."),
     lines("y" * 20 + ".", "y" * 20 + "."), {"repeated_lines": 1, "max_word_length": 99}),
    ("one run of words too often", f"{GOOD} " + "aa bb " * 60, f"{GOOD} " + "aa bb " * 20,
     {"repeated_runs": (), "min_word_length": 0, "line_ends": 0}),
    ("repeated runs of words", f"{GOOD} " + " ".join(words(30) + words(30)), f"{GOOD} " + " ".join(words(10)),
     {"line_ends": 0}),
    ("too many line breaks", "\n".join([GOOD, *(f"{w}." for w in words(9, 5))]),
     "\n".join([GOOD, *(f"{w}." for w in words(6, 5))]), {}),
    ("too few words", " ".join(["the", "and", *words(47)]) + ".", " ".join(["the", "and", *words(48)]) + ".", {}),
    ("words too short", " ".join(["the", "and", *["".join(p) for p in zip("abcdefghij" * 5, "klmnopqrst" * 5,
     strict=True)]]), " ".join(["the", "and", *words(60, 4)]),
     {"line_ends": 0, "top_runs": (), "repeated_runs": ()}),
    ("words too long", " ".join(["the", "and", *words(60, 7)]), " ".join(["the", "and", *words(60, 6)]),
     {"line_ends": 0}),
    ("too many hash signs", GOOD + "#######", GOOD + "######", {"line_ends": 0}),
    ("too many ellipses", "…" * 7 + " " + GOOD, "…" * 6 + " " + GOOD, {}),
    ("too many bullets", "\n".join(f"- {w} {w}y." for w in words(60)),
     "\n".join([*(f"- {w} {w}y." for w in words(60)), *(f"{w}." for w in words(9, 5))]),
     {"breaks_per_word": 1, "min_word_length": 0, "words_with_letters": 0, "stop_words": ("-", "xaaa")}),
    ("too many unfinished lines", lines("one…", "two…", "three."), lines("one…", "two.", "three.", "four."),
     {"line_ends": 0}),
    ("too few words with letters", GOOD + " 1234" * 16, GOOD + " 1234" * 15,
     {"line_ends": 0, "top_runs": (), "repeated_runs": ()}),
    ("too few stop words", " ".join(["the", "the", *words(60)]) + ".", GOOD, {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "dropped", "kept", "changes"), BOTH_SIDES, ids=[b[0] for b in BOTH_SIDES])
def test_a_rule_drops_beyond_its_threshold_and_keeps_what_is_on_it(
    name: str, dropped: str, kept: str, changes: dict[str, object]
) -> None:
    assert reason(dropped, **changes) == name
    assert reason(kept, **changes) in (None, "too few stop words" if name == "too many bullets" else None)


def test_a_text_of_more_words_than_a_book_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "MAX_WORDS", 62)
    assert reason(GOOD) is None
    assert reason("y" * 4 + " " + GOOD) == "too many words"


def test_every_rule_is_tested() -> None:
    source = quality.__loader__.get_source(quality.__name__)
    assert [b[0] for b in BOTH_SIDES if f'"{b[0]}"' not in source] == []


def test_the_recipe_knows_exactly_the_presets_of_the_table() -> None:
    assert get_args(Data.model_fields["quality"].annotation) == ("plain", *presets())


def test_the_korean_thresholds_are_the_published_ones() -> None:
    korean = presets()["fineweb2-kor_Hang"]
    assert (korean.line_ends, korean.min_word_length, korean.max_word_length) == (0.062, 1, 6)
    assert (korean.words_with_letters, korean.breaks_per_word, korean.repeated_lines) == (0.791, 0.196, 0.374)
    assert (len(korean.stop_words), korean.language_score) == (21, 0.842)


KOREAN = (
    "고혈압은 혈관 안의 압력이 정상보다 높은 상태를 말한다. 증상이 없는 사람이 많아서 재어 보기 전에는 모르고 지낸다. "
    "의사는 짜게 먹는 습관을 고치고 날마다 걷는 것을 먼저 권한다. 그래도 내려가지 않으면 약을 쓰기 시작한다. "
    "약은 정해진 시간에 먹어야 하고 스스로 끊으면 위험하다. 집에서 재는 혈압이 병원에서 재는 것보다 낮은 일도 흔하다."
)


@pytest.fixture
def korean(monkeypatch: pytest.MonkeyPatch) -> QualityRules:
    pytest.importorskip("kiwipiepy")
    monkeypatch.undo()
    return QualityRules(presets()["fineweb2-kor_Hang"])


def test_korean_prose_passes_and_what_is_no_prose_does_not(korean: QualityRules) -> None:
    assert korean.reason_to_drop(KOREAN) is None
    assert korean.reason_to_drop(KOREAN[: KOREAN.index("습관")] + ".") == "too few words"
    assert korean.reason_to_drop("\n".join(word for word in KOREAN.split())) == "too many line breaks"
    assert korean.reason_to_drop(" ".join(f"{n}.{n}" for n in range(100)) + ".") == "too few words with letters"
    assert korean.reason_to_drop(" ".join([KOREAN] * 3)) == "repeated runs of words"


def test_a_particle_is_a_word_of_its_own_and_a_long_number_none(korean: QualityRules) -> None:
    assert korean._split("환자는 " + "1" * 20 + " 약을") == ["환자", "는", "약", "을"]


def test_without_kiwi_the_preset_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from vocabgraft.errors import DataError

    monkeypatch.undo()
    quality._splitter.cache_clear()
    monkeypatch.setitem(sys.modules, "kiwipiepy", None)
    with pytest.raises(DataError, match=r"pip install 'vocabgraft\[korean\]'"):
        QualityRules(presets()["fineweb2-kor_Hang"])
