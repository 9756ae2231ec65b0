"""The data part: every document read is found again, pictures say in words what they show, no run is too old for it."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.report.data_pictures import Fall, funnel_plot, lengths_plot, shares_plot
from vocabgraft.report.data_section import data, funnel
from vocabgraft.report.ledger import Ledger

SVG = "{http://www.w3.org/2000/svg}"
COUNT = st.integers(0, 10**9)
REASONS = st.dictionaries(st.text(min_size=1, max_size=12), st.integers(1, 1000), max_size=6)


def ledger(metrics: dict[str, dict[str, Any]]) -> Ledger:
    return Ledger("run", {}, {key: {"metrics": values} for key, values in metrics.items()}, [])


FULL = {
    "02-collect": {
        "target": {
            "read": 120,
            "kept": 100,
            "dropped": {"empty": 15, "invalid UTF-8": 5},
            "examples": {"empty": "laws.jsonl:7", "invalid UTF-8": "web.txt:12"},
        }
    },
    "03-dictionary": {
        "pairs": 12,
        "filter": {"kept": 10, "dropped": {"split into words": 40}},
        "from_phrases": {"new": 2},
        "domains": {"medical": {"words": 8, "with_entry": 6}},
    },
    "04-preprocess": {
        "target": {
            "read": 110,
            "documents": 80,
            "held_out_documents": 10,
            "dropped": {"near duplicate": 12, "too short": 8},
            "examples": {"near duplicate": "laws:3#0", "too short": "laws:9#0"},
            "near_duplicates": ["laws:3#0", "laws:1#0"],
            "privacy": {"phone": 4},
            "sources": {
                "laws": {"documents": 60, "bytes": 6_000_000, "license": "public domain"},
                "wiki": {"documents": 20, "bytes": 2_000_000, "license": "CC BY-SA"},
            },
            "licences": {"public domain": {"documents": 60, "bytes": 6_000_000}, "": {"documents": 20, "bytes": 7}},
            "lengths": {"128": 30, "1024": 9, "64": 41},
        }
    },
    "22-initialise": {"dictionary": {"new pieces": {"words": 100, "with_entry": 25}}},
    "31-stage1": {"mix": {"target": {"laws": {"rows": 30, "share": 0.75, "epochs": 1.5}}}},
}


def test_every_document_of_the_funnel_is_kept_or_has_its_reason() -> None:
    assert funnel(ledger(FULL), "target") == [
        Fall("read", 120, 120),
        Fall("empty", 15, 105, dropped=True),
        Fall("invalid UTF-8", 5, 100, dropped=True),
        Fall("kept by reading", 100, 100),
        Fall("after long ones were split", 110, 110),
        Fall("near duplicate", 12, 98, dropped=True),
        Fall("too short", 8, 90, dropped=True),
        Fall("kept by cleaning", 90, 90),
        Fall("trained on", 80, 80),
        Fall("held out, never trained on", 10, 10),
    ]


@given(REASONS, REASONS, st.integers(1, 1000), st.integers(1, 1000), st.integers(0, 99))
def test_what_a_funnel_begins_with_is_what_is_dropped_and_kept(
    reading: dict[str, int], cleaning: dict[str, int], kept: int, documents: int, held: int
) -> None:
    metrics = {
        "02-collect": {"target": {"kept": kept, "dropped": reading}},
        "04-preprocess": {"target": {"documents": documents, "held_out_documents": held, "dropped": cleaning}},
    }
    falls = funnel(ledger(metrics), "target")
    assert falls[0].count == kept + sum(reading.values())
    for before, fall in pairwise(falls):
        if fall.dropped:
            assert before.left - fall.count == fall.left


@pytest.mark.parametrize(
    "told",
    [
        '<td>near duplicate</td><td class="number">12</td><td>laws:3#0</td>',
        '<td>invalid UTF-8</td><td class="number">5</td><td>web.txt:12</td>',
        "Nearly the same, for example: laws:3#0 was left out, laws:1#0 stayed.",
        "phone 4",
        "Training text of target by source",
        "laws: 75.0 %, 6.0 MB",
        "Training text of target by licence",
        "not stated",
        "up to 64 characters: 41; up to 128 characters: 30; up to 1,024 characters: 9",
        "25.0 % of 100",
        "75.0 % of 8",
        "<td>stage 1</td><td>target</td><td>laws</td>",
        "1.50",
    ],
)
def test_the_page_tells_reasons_places_sources_licences_and_lengths(told: str) -> None:
    assert told in data(ledger(FULL))


def test_a_run_of_before_is_shown_without_what_it_did_not_record() -> None:
    old = {"04-preprocess": {"target": {"documents": 5, "held_out_documents": 1, "dropped": {"too short": 2}}}}
    page = data(ledger(old))
    assert "too short" in page
    assert "by source" not in page
    assert data(ledger({})) == ""


@pytest.mark.parametrize("broken", [None, 3, "x", [], {"laws": 3}, {"laws": {"bytes": "many"}}, {"64": None}])
def test_a_damaged_record_is_left_out(broken: object) -> None:
    fields = dict.fromkeys(("sources", "licences", "lengths", "near_duplicates", "privacy", "examples"), broken)
    data(ledger({"04-preprocess": {"target": {"documents": 5, "dropped": {"x": 1}, **fields}}}))


def bars(svg: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(svg)
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    found = list(root.iter(f"{SVG}rect"))
    for bar in found:
        assert 0 <= float(bar.get("x", "")) <= float(bar.get("x", "")) + float(bar.get("width", "")) <= width + 0.1
        assert 0 <= float(bar.get("y", "")) <= float(bar.get("y", "")) + float(bar.get("height", "")) <= height
    return found


@given(st.lists(st.tuples(st.text(max_size=60), COUNT), max_size=20))
def test_any_shares_can_be_drawn_and_are_told_in_words(parts: list[tuple[str, int]]) -> None:
    svg = shares_plot(parts, "by source")
    assert len(bars(svg)) == min(len(parts), 12)
    told = ElementTree.fromstring(svg).findtext(f"{SVG}desc") or ""
    assert sum(float(found) for found in re.findall(r"([\d.]+) %, [\d.,]+ (?:bytes|kB|MB|GB)(?:;|$)", told)) == (
        pytest.approx(100 if any(n for _, n in parts) else 0, abs=1) if parts else 0
    )


def test_a_long_name_is_cut_by_its_width_and_told_whole() -> None:
    svg = shares_plot([("가" * 40, 1), ("a" * 40, 1)], "by source")
    assert f">{'가' * 16}…<" in svg
    assert f">{'a' * 27}…<" in svg
    assert "가" * 40 in (ElementTree.fromstring(svg).findtext(f"{SVG}desc") or "")


@given(st.lists(st.tuples(st.integers(1, 10**6), COUNT), max_size=24))
def test_any_lengths_can_be_drawn(counts: list[tuple[int, int]]) -> None:
    assert len(bars(lengths_plot(counts, "lengths"))) == len(counts)


def test_what_is_dropped_is_an_outline_and_what_is_kept_is_filled() -> None:
    falls = funnel(ledger(FULL), "target")
    found = bars(funnel_plot(falls, "funnel"))
    assert [bar.get("fill") == "none" for bar in found] == [fall.dropped for fall in falls]
    before = float(found[0].get("x", "")) + float(found[0].get("width", ""))
    first = float(found[1].get("x", "")) + float(found[1].get("width", ""))
    assert first == pytest.approx(before, abs=0.2), "a reason takes away from the end of what was there"
    assert funnel_plot([], "nothing read")
