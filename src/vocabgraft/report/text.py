"""The result of a run in a screenful of plain text, for the terminal."""

from __future__ import annotations

import re

from vocabgraft.report import figures
from vocabgraft.report.ledger import Ledger
from vocabgraft.report.licences import base_terms, licence_bill
from vocabgraft.report.markup import clean


def summary(ledger: Ledger) -> str:
    """A few lines: headline figures, verdicts, freeze proofs, what a publisher must notice. Ends with a newline."""
    title = ledger.setting("title")
    lines = [f"{ledger.name}: {title}" if title else ledger.name]
    shown = figures.headlines(ledger)
    if not shown:
        lines.append("  no step is finished yet")
    labels = max((len(h.label) for h in shown), default=0)
    values = max((len(h.value) for h in shown), default=0)
    lines += [f"  {h.label:<{labels}}  {h.value:>{values}}  {h.note}".rstrip() for h in shown]
    for key in ("51-korean", "52-english"):
        if sentence := figures.verdict(ledger, key):
            lines.append(f"  {figures.step_title(ledger, key)}: {sentence}")
    lines += [f"  {line}" for line in (*_frozen(ledger), *_licences(ledger))]
    return "\n".join(clean(re.sub(r"[\t\r\n]", " ", line)) for line in lines) + "\n"


def _frozen(ledger: Ledger) -> list[str]:
    proofs = figures.freeze_proofs(ledger)
    broken = [proof.step for proof in proofs if proof.held is False]
    if broken:
        return [f"Freeze proof BROKEN in {', '.join(broken)}: frozen tensors moved"]
    checked = [proof for proof in proofs if proof.held]
    return [f"Freeze proofs: held in all {len(checked)} steps that freeze something"] if checked else []


def _licences(ledger: Ledger) -> list[str]:
    found = [terms.sentence for terms in base_terms(ledger)]
    return found + [f"{item.name}: {item.warning}" for item in licence_bill(ledger) if item.warning]
