"""The part of the page about data: the funnel, its reasons with a place each, sources, licences, lengths, shares read.

Places are 'file:line' or ids of documents; no text of the corpus is ever shown.
"""

from __future__ import annotations

from typing import Any

from vocabgraft.report import numbers, pictures
from vocabgraft.report.data_pictures import Fall, funnel_plot, lengths_plot, shares_plot
from vocabgraft.report.ledger import Ledger, number, stages
from vocabgraft.report.markup import paragraph, section, table

_SIDES = ("target", "replay")
_STEPS = ("02-collect", "04-preprocess")


def data(ledger: Ledger) -> str:
    """Everything that is known of each side's text."""
    parts = []
    for side in _SIDES:
        falls = funnel(ledger, side)
        if not falls:
            continue
        parts.append(f"<h3>{side}</h3>")
        parts.append(_figure(funnel_plot(falls, f"Documents of {side} text, from reading to training")))
        parts += [_reasons(ledger, side), _near_duplicates(ledger, side), _personal(ledger, side)]
        parts += _shares(ledger, side)
    return section("Data", *parts, _dictionary(ledger), _read_by_stages(ledger))


def funnel(ledger: Ledger, side: str) -> list[Fall]:
    """What was read, what each reason of each step took away, what is trained on and what is held out."""
    falls: list[Fall] = []
    for key in _STEPS:
        dropped = sorted(_counts(ledger.find(key, side, "dropped")).items(), key=lambda item: (-item[1], item[0]))
        ends = [ledger.find(key, side, name) for name in ("kept", "documents", "held_out_documents")]
        kept = sum(int(number(n) or 0) for n in ends)
        if not kept and not dropped:
            continue
        left = kept + sum(count for _, count in dropped)
        if not falls:
            falls.append(Fall("read", left, left))
        elif left != falls[-1].left:
            falls.append(Fall("after long ones were split", left, left))
        for reason, count in dropped:
            left -= count
            falls.append(Fall(reason, count, left, dropped=True))
        falls.append(Fall("kept by reading" if key == "02-collect" else "kept by cleaning", kept, kept))
    for label, name in (("trained on", "documents"), ("held out, never trained on", "held_out_documents")):
        if (found := number(ledger.find("04-preprocess", side, name))) is not None:
            falls.append(Fall(label, int(found), int(found)))
    return falls


def _reasons(ledger: Ledger, side: str) -> str:
    rows = []
    for key in _STEPS:
        places = ledger.find(key, side, "examples")
        for reason, count in sorted(_counts(ledger.find(key, side, "dropped")).items(), key=lambda item: -item[1]):
            place = places.get(reason, "") if isinstance(places, dict) else ""
            rows.append((key, reason, numbers.whole(count), place))
    return table(("step", "dropped, since", "documents", "the first of them"), rows, (2,))


def _near_duplicates(ledger: Ledger, side: str) -> str:
    pair = ledger.find("04-preprocess", side, "near_duplicates")
    if not isinstance(pair, list) or len(pair) != 2:
        return ""
    return paragraph(f"Nearly the same, for example: {pair[0]} was left out, {pair[1]} stayed.")


def _personal(ledger: Ledger, side: str) -> str:
    found = ledger.find("04-preprocess", side, "privacy")
    if not isinstance(found, dict) or not found:
        return ""
    told = ", ".join(f"{kind} {numbers.whole(count)}" for kind, count in found.items())
    return paragraph(f"Places of personal data found, by kind: {told}.")


def _shares(ledger: Ledger, side: str) -> list[str]:
    drawn = []
    for field, what in (("sources", "source"), ("licences", "licence")):
        found = ledger.find("04-preprocess", side, field)
        sizes = {name: _at(row, "bytes") for name, row in found.items()} if isinstance(found, dict) else {}
        if parts := [(name or "not stated", size) for name, size in sizes.items() if size]:
            drawn.append(_figure(shares_plot(parts, f"Training text of {side} by {what}")))
    lengths = _counts(ledger.find("04-preprocess", side, "lengths"))
    bounds = sorted((int(bound), count) for bound, count in lengths.items() if bound.isdecimal())
    if bounds:
        drawn.append(_figure(lengths_plot(bounds, f"Characters of the texts of {side}")))
    return drawn


def _dictionary(ledger: Ledger) -> str:
    dropped = _counts(ledger.find("03-dictionary", "filter", "dropped"))
    kept, new = (ledger.find("03-dictionary", *path) for path in (("filter", "kept"), ("from_phrases", "new")))
    if not number(kept):
        return ""
    rows = [("entries kept", numbers.whole(kept))]
    rows += [(reason, numbers.whole(-n)) for reason, n in sorted(dropped.items(), key=lambda item: -item[1])]
    rows.append(("pairs that phrases gave", numbers.whole(new)))
    for name, path in (("domains", ("03-dictionary", "domains")), ("dictionary", ("22-initialise", "dictionary"))):
        found = ledger.find(*path)
        for what, line in found.items() if isinstance(found, dict) else []:
            words, with_entry = _at(line, "words"), _at(line, "with_entry")
            if words:
                told = f"{what if name == 'dictionary' else f'words of domain {what}'} with an entry"
                rows.append((told, f"{numbers.percent(with_entry / words)} of {numbers.whole(words)}"))
    return "<h3>dictionary</h3>" + table(("", "pairs"), rows, (1,))


def _read_by_stages(ledger: Ledger) -> str:
    rows = []
    for key, label in stages(ledger):
        for side in _SIDES:
            found = ledger.find(key, "mix", side)
            for name, line in found.items() if isinstance(found, dict) else []:
                if _at(line, "rows"):
                    cells = (numbers.whole(line.get("rows")), numbers.percent(line.get("share")))
                    rows.append((label, side, name, *cells, numbers.decimal(line.get("epochs"), 2)))
    head = ("stage", "side", "source", "packed rows read", "of its side", "epochs")
    return ("<h3>read by the stages</h3>" if rows else "") + table(head, rows, (3, 4, 5))


def _figure(svg: str) -> str:
    return f"<figure>{pictures.inline(svg)}</figure>"


def _counts(value: Any) -> dict[str, int]:
    """Counts by name, as far as they are such."""
    found = value.items() if isinstance(value, dict) else []
    return {str(name): int(n) for name, count in found if (n := number(count)) is not None and n > 0}


def _at(line: Any, name: str) -> float:
    return (number(line.get(name)) if isinstance(line, dict) else None) or 0.0
