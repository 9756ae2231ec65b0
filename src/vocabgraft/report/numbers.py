"""Numbers as people read them: every one with its unit, and what is not finite says so instead of vanishing."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from vocabgraft.report.ledger import number

MINUS = "−"  # U+2212; a hyphen is easy to miss before a figure


def whole(value: object) -> str:
    """12345 -> 12,345."""
    found = number(value)
    return "" if found is None else f"{found:,.0f}" if math.isfinite(found) else "not finite"


def decimal(value: object, digits: int = 3) -> str:
    """1.23456 -> 1.235; empty for what is not a number."""
    found = number(value)
    return "" if found is None else f"{found:,.{digits}f}" if math.isfinite(found) else "not finite"


def percent(value: object) -> str:
    """0.234 -> 23.4 %."""
    found = number(value)
    return "" if found is None else f"{100 * found:.1f} %" if math.isfinite(found) else "not finite"


def size(value: object) -> str:
    """Bytes in decimal units: 1234567 -> 1.2 MB."""
    found = number(value)
    if found is None or not math.isfinite(found):
        return ""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(found) >= scale:
            return f"{found / scale:.1f} {unit}"
    return f"{found:.0f} bytes"


def duration(value: object) -> str:
    """Seconds: 12.3 s, 5 min 12 s, 2 h 05 min."""
    found = number(value)
    if found is None or not math.isfinite(found):
        return ""
    if found < 60:
        return f"{found:.1f} s"
    seconds = round(found)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    minutes = round(found / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def moment(value: object) -> str:
    """Seconds since 1970 as UTC, so that the page is the same wherever it is rendered; text stays as it is."""
    found = number(value)
    if found is None or not 0 <= found < 4e9:
        return value if isinstance(value, str) else ""
    return datetime.fromtimestamp(found, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def change(before: float | None, after: float | None) -> str:
    """Relative change, signed: +3.1 % or −38.0 %; empty where it cannot be told."""
    if before is None or after is None or not before or not math.isfinite(before) or not math.isfinite(after):
        return ""
    share = 100 * (after - before) / abs(before)
    return f"{MINUS if share < 0 else '+'}{abs(share):.1f} %"
