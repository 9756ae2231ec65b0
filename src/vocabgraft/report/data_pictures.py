"""Pictures of the data: what was left of it step by step, who it is from, how long its texts are.

Drawn as `pictures.py` says. What is kept is filled and what is dropped is a dashed outline, so they differ without
colour; every bar has its figures written beside it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from vocabgraft.report.markup import escape
from vocabgraft.report.numbers import percent, size, whole
from vocabgraft.report.pictures import WIDTH, drawing

_PITCH, _BAR = 24.0, 15.0
_LEFT, _RIGHT = 250.0, WIDTH - 150.0
_MOST_BARS = 12
_WIDEST = 90.0  # a column of a histogram
_LONGEST = 17  # letters of Hangul beside a bar; others are about 0.6 as wide


@dataclass(frozen=True)
class Fall:
    """A line of the funnel: `count` documents, which leave `left` behind; dropped says that these are the ones gone."""

    label: str
    count: int
    left: int
    dropped: bool = False


def funnel_plot(falls: Sequence[Fall], title: str) -> str:
    """Draw documents from the first that was read to the last that is trained on; each reason takes its part away."""
    most = max((fall.count + (fall.left if fall.dropped else 0) for fall in falls), default=0) or 1
    scale = (_RIGHT - _LEFT) / most
    body, told = [], []
    for n, fall in enumerate(falls):
        y = 8 + n * _PITCH
        start = _LEFT + scale * fall.left if fall.dropped else _LEFT
        words = f"{'−' if fall.dropped and fall.count else ''}{whole(fall.count)} ({percent(fall.count / most)})"
        body += [_label(y, fall.label), _bar(start, y, scale * fall.count, fall.dropped), _value(y, words)]
        told.append(f"{fall.label}: {words}")
    return drawing(16 + _PITCH * len(falls), title, "; ".join(told), body)


def shares_plot(parts: Sequence[tuple[str, float]], title: str) -> str:
    """Draw who the text is from: a bar of bytes each, the largest first, beyond twelve put together."""
    ordered = sorted(parts, key=lambda part: (-part[1], part[0]))
    if len(ordered) > _MOST_BARS:
        rest = ordered[_MOST_BARS - 1 :]
        ordered = [*ordered[: _MOST_BARS - 1], (f"{len(rest)} others", sum(amount for _, amount in rest))]
    total = sum(amount for _, amount in ordered) or 1
    most = max((amount for _, amount in ordered), default=0) or 1
    body, told = [], []
    for n, (name, amount) in enumerate(ordered):
        y, words = 8 + n * _PITCH, f"{percent(amount / total)}, {size(amount)}"
        width = (_RIGHT - _LEFT) * amount / most
        body += [_label(y, name), _bar(_LEFT, y, width), _value(y, words)]
        told.append(f"{name}: {words}")
    return drawing(16 + _PITCH * len(ordered), title, "; ".join(told), body)


def lengths_plot(counts: Sequence[tuple[int, int]], title: str) -> str:
    """Draw how many texts have how many characters: (upper bound, count), the bounds powers of two."""
    left, right, top, bottom = 24.0, WIDTH - 24.0, 28.0, 170.0
    most = max((count for _, count in counts), default=0) or 1
    pitch = min(_WIDEST, (right - left) / max(len(counts), 1))
    body = [f'<line class="grid" x1="{left:g}" x2="{right:g}" y1="{bottom:g}" y2="{bottom:g}"/>']
    told = []
    for n, (bound, count) in enumerate(counts):
        height, x = count / most * (bottom - top), left + n * pitch
        words = f"up to {whole(bound)} characters: {whole(count)}"
        body.append(
            f'<rect x="{x + 2:.1f}" y="{bottom - height:.1f}" width="{max(pitch - 4, 1):.1f}" height="{height:.1f}" '
            f'fill="var(--vg-target)"><title>{escape(words)}</title></rect>'
        )
        middle = f'x="{x + pitch / 2:.1f}" text-anchor="middle"'
        body.append(f'<text {middle} y="{bottom - height - 5:.1f}" font-size="11">{whole(count)}</text>')
        body.append(f'<text class="dim" {middle} y="{bottom + 17:g}" font-size="11">{whole(bound)}</text>')
        told.append(words)
    return drawing(bottom + 26, title, "; ".join(told), body)


def _label(y: float, text: str) -> str:
    widths = accumulate(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.6 for c in text)
    room = sum(width <= _LONGEST for width in widths)
    shown = text if room == len(text) else text[: room - 1] + "…"
    return f'<text x="{_LEFT - 10:g}" y="{y + 12:g}" text-anchor="end">{escape(shown)}</text>'


def _bar(x: float, y: float, width: float, dropped: bool = False) -> str:
    look = 'fill="none" stroke="var(--vg-replay)" stroke-width="1.5" stroke-dasharray="3 2"'
    look = look if dropped else 'fill="var(--vg-target)"'
    return f'<rect x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="{_BAR:g}" {look}/>'


def _value(y: float, words: str) -> str:
    return f'<text x="{_RIGHT + 8:g}" y="{y + 12:g}">{escape(words)}</text>'
