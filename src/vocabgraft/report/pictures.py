"""Pictures as plain SVG: token chips, bits per byte along the run, accuracies, norms of new rows, starts side by side.

Each stands alone as a file (a README can show it) and can be put inside a page: no script, no font, no request;
light and dark follow the reader's system through CSS variables; <title> and <desc> say in words what is drawn.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Callable, Sequence

from vocabgraft.report.figures import Accuracy, Start
from vocabgraft.report.markup import clean, escape
from vocabgraft.report.numbers import decimal, percent, whole

XMLNS = ' xmlns="http://www.w3.org/2000/svg"'
Point = tuple[str, float | None, float | None]

WIDTH = 760
STYLE = """
.vg{--vg-ink:#1f2328;--vg-dim:#59636e;--vg-line:#d1d9e0;--vg-target:#0969da;--vg-replay:#bc4c00;color:var(--vg-ink);
--vg-0:#cfe3ff;--vg-1:#ffe0c2;--vg-2:#d3f0d5;--vg-3:#ecd9ff;--vg-4:#ffd9e3;--vg-5:#fff0b3;
font:13px system-ui,"Noto Sans KR","Apple SD Gothic Neo","Malgun Gothic",sans-serif}
@media (prefers-color-scheme:dark){.vg{--vg-ink:#e6edf3;--vg-dim:#9198a1;--vg-line:#3d444d;--vg-target:#58a6ff;
--vg-replay:#f0883e;--vg-0:#12386b;--vg-1:#5c3310;--vg-2:#17492a;--vg-3:#43266b;--vg-4:#5e1f37;--vg-5:#4d4208}}
.vg text{fill:currentColor}.vg .dim{fill:var(--vg-dim)}.vg .grid{stroke:var(--vg-line)}
"""

_DIVERGED = 1e6  # bits per byte beyond this (or NaN) are told in words; drawn, they would flatten the rest
_CHIP_HEIGHT, _CHIP_GAP, _CHIP_PAD, _EM, _LONGEST = 26, 4, 7, 14, 40


def token_chips(text_before: list[str], after: list[str], title: str) -> str:
    """Draw one text cut into tokens before and after expansion; a chip not among those before is outlined."""
    known = set(text_before)
    body: list[str] = []
    y = 0.0
    for label, pieces in (("before", text_before), ("after", after)):
        heading = f"{label}: {len(pieces)} token{'' if len(pieces) == 1 else 's'}"
        body.append(f'<text class="dim" x="2" y="{y + 16:g}">{heading}</text>')
        y += 24
        for line in _lines(pieces):
            body += [_chip(x, y, width, index, piece, piece not in known) for x, width, index, piece in line]
            y += _CHIP_HEIGHT + _CHIP_GAP
        y += 8
    words = [" | ".join(_shown(piece) for piece in pieces) for pieces in (text_before, after)]
    told = f"{len(text_before)} tokens before: {words[0]}. {len(after)} tokens after: {words[1]}."
    return drawing(max(y, 1), title, told, body)


def bits_plot(points: Sequence[Point]) -> str:
    """Draw bits per byte of target and replay text along the run, lower is better; base level dashed."""
    finite = [v for _, *values in points for v in values if v is not None and abs(v) < _DIVERGED]
    if not finite:
        return drawing(40, "Bits per byte", "Nothing was measured.", ['<text x="2" y="24">not measured</text>'])
    left, right, top, bottom = 56.0, WIDTH - 24.0, 44.0, 300.0
    ticks = _ticks(min(finite), max(finite))
    step = (right - left) / max(len(points) - 1, 1)
    xs = [left + i * step if len(points) > 1 else (left + right) / 2 for i in range(len(points))]

    def height(value: float) -> float:
        return bottom - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (bottom - top)

    body = [_grid(height(tick), left, right, tick, ticks[1] - ticks[0]) for tick in ticks]
    for x, (label, *_) in zip(xs, points, strict=True):
        at = f'x="{x:.1f}" y="{bottom + 18:g}"'
        body.append(
            f'<text {at} text-anchor="end" transform="rotate(-30 {x:.1f} {bottom + 18:g})">{escape(label)}</text>'
        )
    told = []
    for column, side in ((1, "target"), (2, "replay")):
        values = [(x, v, p[0]) for x, p in zip(xs, points, strict=True) if isinstance(v := p[column], int | float)]
        tips = [(x, v, f"{label}: {side} {decimal(v)} bits per byte") for x, v, label in values]
        drawn = [(x, height(v), tip) for x, v, tip in tips if abs(v) < _DIVERGED]
        body += _line(drawn, side, right, is_base=bool(drawn) and drawn[0][2].startswith("base: "))
        told.append(f"{side}: " + ", ".join(f"{label} {decimal(v)}" for _, v, label in values) if values else "")
    body += _legend(left)
    return drawing(bottom + 74, "Bits per byte, lower is better", "; ".join(t for t in told if t), body)


def interval_plot(rows: Sequence[Accuracy], chance: float | None) -> str:
    """Draw accuracy with its 95 % interval, one row each, and the level of guessing as a dashed line."""
    left, right, pitch, top = 190.0, WIDTH - 190.0, 34.0, 30.0
    bottom = top + pitch * max(len(rows), 1)

    def across(share: float) -> float:
        return left + min(max(share, 0.0), 1.0) * (right - left)

    body, told = [], []
    for tick in range(0, 101, 20):
        x = across(tick / 100)
        body.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{bottom:g}"/>')
        body.append(f'<text class="dim" x="{x:.1f}" y="{bottom + 18:g}" text-anchor="middle">{tick} %</text>')
    for i, row in enumerate(rows):
        y = top + pitch * (i + 0.5)
        words = _accuracy_words(row)
        body.append(f'<text x="{left - 12:g}" y="{y + 4:g}" text-anchor="end">{escape(row.label)}</text>')
        body += _interval(row, across, y)
        body.append(f'<text x="{right + 10:g}" y="{y + 4:g}">{escape(words)}</text>')
        told.append(f"{row.label}: {words}")
    if chance is not None and math.isfinite(chance):
        x = across(chance)
        body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6:g}" y2="{bottom:g}" {_DASHED}/>')
        body.append(f'<text x="{x:.1f}" y="{top - 12:g}" text-anchor="middle">chance {percent(chance)}</text>')
        told.append(f"chance: {percent(chance)}")
    return drawing(bottom + 28, "Questions answered right, with 95 % intervals", "; ".join(told), body)


def norms_plot(counts: Sequence[int], width: float, title: str) -> str:
    """Draw how many new rows have which norm: bars of `width`, as a share of the base rows' median, which is marked."""
    left, right, top, bottom = 56.0, WIDTH - 24.0, 30.0, 170.0
    most, pitch = max(counts, default=0), (right - left) / max(len(counts), 1)
    body = [f'<line class="grid" x1="{left:g}" x2="{right:g}" y1="{bottom:g}" y2="{bottom:g}"/>']
    told = []
    for n, count in enumerate(counts):
        low = n * width
        if count:
            height, words = count / most * (bottom - top), f"from {low:.2f}: {whole(count)}"
            body.append(
                f'<rect x="{left + n * pitch + 1:.1f}" y="{bottom - height:.1f}" width="{pitch - 2:.1f}" '
                f'height="{height:.1f}" fill="var(--vg-target)"><title>{escape(words)}</title></rect>'
            )
            told.append(words)
        if n % 5 == 0:
            body.append(f'<text class="dim" x="{left + n * pitch:.1f}" y="{bottom + 18:g}">{low:.1f}</text>')
    x = left + pitch / width
    body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{bottom:g}" {_DASHED}/>')
    body.append(f'<text x="{x:.1f}" y="{top - 8:g}" text-anchor="middle">median of the base</text>')
    return drawing(bottom + 28, title, "; ".join(told), body)


def starts_plot(rows: Sequence[Start], base: float) -> str:
    """Draw bits per byte of each start at once (square) and after the probe (circle, with its interval over seeds),
    one row each; the base's level dashed."""
    left, right, pitch, top = 190.0, WIDTH - 120.0, 26.0, 52.0
    bottom = top + pitch * max(len(rows), 1)
    ticks = _ticks(min([base, *(r.after for r in rows)]), max([base, *(max(r.at_once, r.after) for r in rows)]))

    def across(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (right - left)

    body, told = [], [f"base {decimal(base)}"]
    for tick in ticks:
        x = across(tick)
        body.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{bottom:g}"/>')
        body.append(f'<text class="dim" x="{x:.1f}" y="{bottom + 18:g}" text-anchor="middle">{tick:.2f}</text>')
    body.append(f'<line x1="{across(base):.1f}" x2="{across(base):.1f}" y1="{top:g}" y2="{bottom:g}" {_DASHED}/>')
    for n, row in enumerate(rows):
        y = top + pitch * (n + 0.5)
        body.append(f'<text x="{left - 12:g}" y="{y + 4:g}" text-anchor="end">{escape(row.name)}</text>')
        if row.low is not None and row.high is not None:
            path = f"M{across(row.low):.1f} {y:g}H{across(row.high):.1f}"
            body.append(f'<path d="{path}" stroke="var(--vg-target)" stroke-width="2.5"/>')
        body += [_mark(across(row.at_once), y, "replay"), _mark(across(row.after), y, "target")]
        body.append(f'<text x="{right + 10:g}" y="{y + 4:g}">{decimal(row.after)}</text>')
        told.append(f"{row.name}: at once {decimal(row.at_once)}, after the probe {decimal(row.after)}")
    body += [
        _mark(left + 6, 16, "replay"),
        f'<text x="{left + 16:g}" y="20">at once</text>',
        _mark(left + 106, 16, "target"),
        f'<text x="{left + 116:g}" y="20">after the probe</text>',
        f'<line x1="{left + 240:g}" x2="{left + 270:g}" y1="16" y2="16" {_DASHED}/>',
        f'<text x="{left + 278:g}" y="20">base model</text>',
    ]
    return drawing(bottom + 28, "Starts of the new rows: bits per byte, lower is better", "; ".join(told), body)


def inline(svg: str) -> str:
    """The picture as part of an HTML page that carries `STYLE` once itself."""
    return svg.replace(XMLNS, "", 1).replace(f"<style>{STYLE}</style>\n", "", 1)


_DASHED = 'stroke="currentColor" stroke-width="1.2" stroke-dasharray="5 4"'


def drawing(height: float, title: str, description: str, body: Sequence[str]) -> str:
    """A picture of that height: its title and description in words, then what is drawn."""
    # Ids are unique per page and the same for the same picture, so that equal ledgers give equal bytes.
    tag = hashlib.sha256(clean(f"{title}\n{description}").encode()).hexdigest()[:10]
    return (
        f'<svg{XMLNS} class="vg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        f'role="img" aria-labelledby="t{tag} d{tag}">\n'
        f'<title id="t{tag}">{escape(title)}</title>\n<desc id="d{tag}">{escape(description)}</desc>\n'
        f"<style>{STYLE}</style>\n" + "\n".join(body) + "\n</svg>"
    )


def _shown(piece: str) -> str:
    text = clean(piece).replace("▁", "·").replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _piece_width(piece: str) -> float:
    """Pixels a piece needs: Hangul, Hanja and kana fill one em, other letters about 0.6, marks nothing."""
    shares = (
        0.0 if unicodedata.combining(c) else 1.0 if unicodedata.east_asian_width(c) in "WF" else 0.6
        for c in _shown(piece)
    )
    return max(sum(shares) * _EM, 6) + 2 * _CHIP_PAD


def _lines(pieces: Sequence[str]) -> list[list[tuple[float, float, int, str]]]:
    """Chips as (x, width, index, piece), broken into lines that fit."""
    lines: list[list[tuple[float, float, int, str]]] = [[]]
    x = 2.0
    for index, piece in enumerate(pieces):
        width = _piece_width(piece)
        if lines[-1] and x + width > WIDTH - 2:
            lines.append([])
            x = 2.0
        lines[-1].append((x, width, index, piece))
        x += width + _CHIP_GAP
    return [line for line in lines if line]


def _chip(x: float, y: float, width: float, index: int, piece: str, outlined: bool) -> str:
    edge = ' stroke="currentColor" stroke-width="1.5"' if outlined else ""
    return (
        f'<rect x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="{_CHIP_HEIGHT}" rx="5" '
        f'fill="var(--vg-{index % 6})"{edge}/>'
        f'<text x="{x + width / 2:.1f}" y="{y + 18:g}" font-size="{_EM}" text-anchor="middle">'
        f"{escape(_shown(piece))}</text>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Four to nine round values that enclose the range."""
    span = high - low if high - low > 1e-6 else max(abs(high), 1e-6)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if span / (m * power) <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def _grid(y: float, left: float, right: float, tick: float, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step))) + (1 if 2.4 < step / 10 ** math.floor(math.log10(step)) < 2.6 else 0)
    return (
        f'<line class="grid" x1="{left:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="dim" x="{left - 8:g}" y="{y + 4:.1f}" text-anchor="end">{tick:.{digits}f}</text>'
    )


def _line(drawn: Sequence[tuple[float, float, str]], side: str, right: float, is_base: bool) -> list[str]:
    if not drawn:
        return []
    colour = f"var(--vg-{side})"
    marks = []
    if is_base:
        x, y, _ = drawn[0]
        marks.append(
            f'<line x1="{x:.1f}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" '
            f'stroke-dasharray="5 4" opacity="0.7"/>'
        )
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in drawn)
    marks.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for x, y, words in drawn:
        marks.append(_mark(x, y, side, f"<title>{escape(words)}</title>"))
    return marks


def _mark(x: float, y: float, side: str, inside: str = "") -> str:
    """Target is a circle, replay a square: told apart without colour."""
    if side == "target":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="var(--vg-target)">{inside}</circle>'
    return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="var(--vg-replay)">{inside}</rect>'


def _legend(left: float) -> list[str]:
    return [
        _mark(left + 6, 16, "target"),
        f'<text x="{left + 16:g}" y="20">target language</text>',
        _mark(left + 146, 16, "replay"),
        f'<text x="{left + 156:g}" y="20">replay (what must be kept)</text>',
        f'<line x1="{left + 350:g}" x2="{left + 380:g}" y1="16" y2="16" {_DASHED}/>',
        f'<text x="{left + 388:g}" y="20">base model</text>',
    ]


def _interval(row: Accuracy, across: Callable[[float], float], y: float) -> list[str]:
    marks = []
    if row.low is not None and row.high is not None:
        x1, x2 = across(row.low), across(row.high)
        path = f"M{x1:.1f} {y:g}H{x2:.1f}M{x1:.1f} {y - 6:g}v12M{x2:.1f} {y - 6:g}v12"
        marks.append(f'<path d="{path}" stroke="var(--vg-target)" stroke-width="2.5"/>')
    return [*marks, _mark(across(row.share), y, "target")]


def _accuracy_words(row: Accuracy) -> str:
    words = percent(row.share)
    if row.low is not None and row.high is not None:
        words += f" [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    return words + (f", n = {whole(row.questions)}" if row.questions is not None else "")
