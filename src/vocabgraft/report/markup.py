"""Escaping and the few HTML shapes the report is made of. Nothing a run recorded reaches the page unescaped.

`html.escape` leaves control characters and lone surrogates alone; XML forbids them and UTF-8 cannot hold the
latter, so `escape` shows them as U+FFFD.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(value: object) -> str:
    """Text without characters that XML or UTF-8 cannot hold."""
    return _FORBIDDEN.sub("\ufffd", str(value))


def escape(value: object) -> str:
    """Text safe inside an element or a quoted attribute, in HTML and in XML."""
    return html.escape(clean(value), quote=True)


def section(title: str, *parts: str) -> str:
    """A titled part of the page; nothing at all when every part of it is empty."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def paragraph(text: str, kind: str = "") -> str:
    """Escaped running text; empty text gives no element."""
    attribute = f' class="{escape(kind)}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>" if text else ""


def table(head: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[int] = ()) -> str:
    """A table of escaped cells; columns in `numbers` are set right. No rows, no table."""
    if not rows:
        return ""
    top = "".join(f'<th scope="col"{_kind(i, numbers)}>{escape(cell)}</th>' for i, cell in enumerate(head))
    body = "\n".join(
        "<tr>" + "".join(f"<td{_kind(i, numbers)}>{escape(c)}</td>" for i, c in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _kind(column: int, numbers: Sequence[int]) -> str:
    return ' class="number"' if column in numbers else ""
