from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from vocabgraft.report.html import render
from vocabgraft.report.ledger import Ledger

Metrics = dict[str, dict[str, Any]]
VOID = {"meta", "br", "line", "rect", "circle", "path", "polyline"}
REQUESTING = {"script", "link", "img", "iframe", "object", "embed", "audio", "video", "source", "image", "use", "a"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails on a tag that closes another."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID or "</" in (self.get_starttag_text() or ""):
            self.open.append(tag)
        if tag in ("rect", "circle") and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data + "\n"


@pytest.mark.parametrize(
    "figure",
    [
        "1.98",  # tokens per word
        "−38.3 %",
        "1,024",  # new pieces
        "1.699",  # bits per byte after stage 1
        "1.444",  # final, on its own text
        "23.8 %",
        "21.2 % [13.7, 31.5], n = 80",
        "chance 20.0 %",
        "Not distinguishable from chance (p = 0.4, n = 80).",
        "✓ 236 of 236",
        "wrong script",
        "34",
        "5.6 MB",
        "241.0 MB",
        "17 of 20",
        "stage 1: new input rows",
        "5.50 → 4.25",
        "12.3 s",
        "1.88",
        "AI-generated; not medical advice",
        "싱겁게 먹고 걷습니다.",
        "https://law.go.kr",
        "non-commercial",
        "2.13.0",
        "2026-11-21 23:08:01 UTC",
        "title of 13-expand-tokenizer",
        "Before training they take 0.00021 nats a token from replay text.",
        "▁혈, 血",
        "Best after the probe: subword-mean@0; the recipe takes hybrid@0.75.",
        "1.216",
        "0.00003",
    ],
)
def test_the_page_shows_what_was_measured(ledger: Ledger, figure: str) -> None:
    assert figure in Page(render(ledger)).words


def test_the_page_asks_for_nothing_from_outside(ledger: Ledger) -> None:
    page = Page(render(ledger))
    assert not REQUESTING & set(page.tags)
    assert not {"src", "href", "xlink:href", "srcset", "background"} & {name for name, _ in page.attributes}
    assert "http://" not in render(ledger)
    assert not re.search(r"url\(|@import", render(ledger))
    assert "default-src 'none'" in render(ledger)


def test_hostile_texts_stay_text(hostile: Ledger) -> None:
    html = render(hostile)
    page = Page(html)
    assert "script" not in page.tags
    assert "<script" not in html
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    assert "http://evil.example" in page.words
    html.encode()
    assert "\x00" not in html


@pytest.mark.parametrize(
    ("step", "heading"),
    [
        ("13-expand-tokenizer", "Tokens"),
        ("22-initialise", "New rows"),
        ("51-korean", "Questions"),
        ("61-quantize", "Files"),
        ("62-serve", "Served"),
    ],
)
def test_a_part_without_numbers_is_left_out(
    metrics: Metrics, make: Callable[..., Ledger], step: str, heading: str
) -> None:
    assert f"<h2>{heading}</h2>" in render(make(metrics))
    metrics[step] = {}
    assert f"<h2>{heading}</h2>" not in render(make(metrics))


def test_how_near_the_served_file_is_to_the_model_is_told(ledger: Ledger) -> None:
    told = Page(render(ledger)).words
    assert "differ from transformers by at most 0.021 nats on 50 prompts. Greedy answers equal" in told
    assert "17 of 20" in told


def test_every_method_that_was_tried_for_vllm_is_shown(ledger: Ledger) -> None:
    words = Page(render(ledger)).words
    assert "the compressor failed" in words
    assert "1 min 04 s" in words
    assert "Shipped: gptq: target bits per byte +1.2 % lost (+0.9 to +1.5; 1.5 allowed): within." in words


def test_any_single_missing_metric_leaves_a_page(metrics: Metrics, make: Callable[..., Ledger]) -> None:
    for step, values in metrics.items():
        for name in list(values):
            for replacement in (None, {}, [], "lost", 0):
                kept = values[name]
                values[name] = replacement
                Page(render(make(metrics)))
                values[name] = kept
        assert step in render(make(metrics))


def test_starts_that_were_not_tried_are_left_out(ledger: Ledger) -> None:
    assert "<h2>Starts side by side</h2>" in render(ledger)
    for found in ({}, {"rows": [], "base_bpb": 0.8}, {"rows": "lost"}, {"rows": ledger.bakeoff["rows"]}):
        assert "<h2>Starts side by side</h2>" not in render(replace(ledger, bakeoff=found))


def test_an_empty_run_gives_a_page() -> None:
    page = Page(render(Ledger("empty", {}, {}, [])))
    assert page.tags.count("h1") == 1
    assert "h2" not in page.tags


def test_a_broken_freeze_proof_is_loud(metrics: Metrics, make: Callable[..., Ledger]) -> None:
    metrics["32-stage2"]["frozen"] = {"checked": 236, "identical": 235}
    assert "✗ BROKEN: 235 of 236" in Page(render(make(metrics))).words


def test_interruptions_are_told(ledger: Ledger) -> None:
    ledger.events.append({"time": 1795302999.5, "event": "start", "step": "00-environment"})
    words = Page(render(ledger)).words
    assert "was interrupted, started again" in words
    assert "started and not finished" in words


def test_the_same_ledger_gives_the_same_bytes(ledger: Ledger) -> None:
    assert render(ledger) == render(ledger)
