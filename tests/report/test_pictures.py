from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.report.figures import Accuracy, Start
from vocabgraft.report.pictures import STYLE, bits_plot, inline, interval_plot, norms_plot, starts_plot, token_chips

SVG = "{http://www.w3.org/2000/svg}"
BEFORE = ["▁", "당", "뇨", "병", "▁환", "자는", "<0xEB>", "<0x9D>"]
AFTER = ["▁당뇨병", "▁환자는"]


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_korean_token_chips_are_valid_xml_with_every_piece() -> None:
    shown = texts(token_chips(BEFORE, AFTER, "당뇨병 환자는"))
    assert [t for t in shown if "token" in t] == ["before: 8 tokens", "after: 2 tokens"]
    for piece in [*BEFORE, *AFTER]:
        assert piece.replace("▁", "·") in shown


def test_pictures_say_in_words_what_they_show() -> None:
    for svg, words in (
        (token_chips(BEFORE, AFTER, "제목"), "·당뇨병 | ·환자는"),
        (bits_plot([("base", 1.5, 0.9), ("final", 1.25, None)]), "target: base 1.500, final 1.250"),
        (interval_plot([Accuracy("final", 0.25, 0.2, 0.31, 80)], 0.2), "final: 25.0 % [20.0, 31.0], n = 80"),
        (norms_plot([0, 3, 900], 0.5, "Norms"), "from 0.50: 3; from 1.00: 900"),
        (
            starts_plot([Start("mean@1", 2.5, 2.25, None, None, 0.1)], 0.83),
            "mean@1: at once 2.500, after the probe 2.250",
        ),
    ):
        root = ElementTree.fromstring(svg)
        title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
        assert title is not None
        assert title.text
        assert desc is not None
        assert words in (desc.text or "")
        assert root.get("aria-labelledby") == f"{title.get('id')} {desc.get('id')}"


def test_long_texts_wrap_inside_the_picture() -> None:
    root = ElementTree.fromstring(token_chips(["고혈압"] * 60, ["x" * 5000], "long"))
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    chips = list(root.iter(f"{SVG}rect"))
    assert len({chip.get("y") for chip in chips}) > 2
    for chip in chips:
        assert float(chip.get("x", "")) + float(chip.get("width", "")) <= width
        assert float(chip.get("y", "")) + float(chip.get("height", "")) <= height


@given(st.lists(st.text(st.characters(), max_size=50), max_size=8), st.text(st.characters(), max_size=20))
def test_any_text_makes_valid_xml(pieces: list[str], title: str) -> None:
    """Control characters, lone surrogates, markup: vocabularies hold all of them."""
    svg = token_chips(pieces, pieces[::-1], title)
    ElementTree.fromstring(svg)
    svg.encode()


value = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 20)


@given(st.lists(st.tuples(st.text(max_size=10), value, value), max_size=11))
def test_any_measurements_can_be_drawn(points: list[tuple[str, float | None, float | None]]) -> None:
    svg = bits_plot(points)
    ElementTree.fromstring(svg)
    assert not re.search(r'="[^"]*\b(nan|inf)\b[^"]*"', re.sub(r"<text.*|<title.*|<desc.*", "", svg))


def test_a_point_that_is_not_finite_is_told_and_not_drawn() -> None:
    svg = bits_plot([("base", 1.0, None), ("stage 1", math.nan, None), ("stage 2", 1.2, None)])
    assert "stage 1 not finite" in svg
    assert len(list(ElementTree.fromstring(svg).iter(f"{SVG}circle"))) == 3  # two points and the legend


def test_the_chance_line_is_drawn_where_chance_is_known() -> None:
    rows = [Accuracy("base", 0.2), Accuracy("final", 0.9, 0.85, 0.95, 300)]
    assert "chance 20.0 %" in texts(interval_plot(rows, 0.2))
    assert not any("chance" in t for t in texts(interval_plot(rows, None)))


def test_an_inlined_picture_brings_no_namespace_and_no_second_style() -> None:
    svg = inline(token_chips(BEFORE, AFTER, "x"))
    assert "http:" not in svg
    assert STYLE not in svg


def test_bars_are_as_high_as_their_counts_and_the_median_is_marked() -> None:
    root = ElementTree.fromstring(norms_plot([0, 5, 10, 0], 0.5, "Norms"))
    heights = [float(bar.get("height", "")) for bar in root.iter(f"{SVG}rect")]
    assert heights == [70.0, 140.0]
    ElementTree.fromstring(norms_plot([], 0.5, "no rows"))


LEVEL = st.floats(0, 20)


@given(st.lists(st.tuples(st.text(max_size=20), LEVEL, LEVEL, st.none() | LEVEL), max_size=12), LEVEL)
def test_any_bakeoff_can_be_drawn(rows: list[tuple[str, float, float, float | None]], base: float) -> None:
    starts = [
        Start(name, once, after, low, after if low is not None else None, None) for name, once, after, low in rows
    ]
    root = ElementTree.fromstring(starts_plot(starts, base))
    width = float(root.get("width", "0"))
    for node in root.iter(f"{SVG}circle"):
        assert 0 <= float(node.get("cx", "")) <= width
