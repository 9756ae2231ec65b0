"""Who owns what in the exported weights: the base model's terms and one licence per source.

Gemma models come under the Gemma Terms of Use, MedGemma under the Health AI Developer Foundations (HAI-DEF)
terms; Gemma 4 is Apache-2.0. Both terms ask (section 3.1) that a derivative carries a Notice file with one fixed
sentence, passes the use restrictions on, gives a copy of the terms and marks changed files. Not legal advice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from vocabgraft.report.ledger import Ledger, stages


@dataclass(frozen=True)
class Terms:
    """Terms of a base model that a derivative must pass on; `sentence` must stand in NOTICE word for word."""

    name: str
    title: str
    link: str
    sentence: str


HAI_DEF = Terms(
    "health-ai-developer-foundations",
    "Health AI Developer Foundations Terms of Use",
    "https://developers.google.com/health-ai-developer-foundations/terms",
    "HAI-DEF is provided under and subject to the Health AI Developer Foundations Terms of Use found at "
    "https://developers.google.com/health-ai-developer-foundations/terms",
)
GEMMA = Terms(
    "gemma",
    "Gemma Terms of Use",
    "https://ai.google.dev/gemma/terms",
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
)

_HAI_DEF_WORDS = re.compile(r"medgemma|hai-def|health ai developer", re.IGNORECASE)
_GEMMA_4 = re.compile(r"gemma-?4(?![\db])", re.IGNORECASE)  # Apache-2.0; but gemma-4b is a size
ASKED = "questions: evaluation"
_NON_COMMERCIAL = re.compile(r"\bnc\b|non-?commercial", re.IGNORECASE)
_NO_DERIVATIVES = re.compile(r"\bnd\b|no-?deriv", re.IGNORECASE)
_SHARE_ALIKE = re.compile(r"\bsa\b|share-?alike", re.IGNORECASE)
_UNKNOWN = re.compile(r"\s*|unknown\b.*|see each source", re.IGNORECASE)


@dataclass(frozen=True)
class Licence:
    """One line of the bill: what was used, on which licence, in which steps."""

    name: str
    license: str
    url: str
    note: str
    steps: tuple[str, ...]

    @property
    def warning(self) -> str:
        """What a publisher must notice; empty when nothing."""
        if _UNKNOWN.fullmatch(self.license):
            return "unknown licence: find out before you publish"
        if self.note == ASKED:
            return ""  # being asked a question binds no weights
        found = [name for name, pattern in _KINDS.items() if pattern.search(self.license)]
        return ", ".join(found)


_KINDS = {"non-commercial": _NON_COMMERCIAL, "no derivatives": _NO_DERIVATIVES, "share alike": _SHARE_ALIKE}
_CONSEQUENCES = {
    "non-commercial": "forbids commercial use: do not use these weights commercially without leave of its owners",
    "no derivatives": "forbids derivatives: ask its owners before you publish weights that were trained on it",
    "share alike": "asks that derivatives come under the same licence",
    "unknown licence": "has no known licence: find out before you publish",
}


def consequences(ledger: Ledger) -> list[str]:
    """What the bill means for whoever publishes or uses the weights, a sentence for each kind of licence in it."""
    told = []
    for kind, meaning in _CONSEQUENCES.items():
        names = [item.name for item in licence_bill(ledger) if kind in item.warning]
        if names:
            told.append(f"Trained on or made from {', '.join(names)}, which {meaning}.")
    return told


def base_terms(ledger: Ledger) -> list[Terms]:
    """The terms the exported weights come under, from the base's name, its source and every licence recorded."""
    words = [ledger.setting("base", "license"), *(item.license for item in licence_bill(ledger))]
    if ledger.setting("base", "kind") != "random-gemma3":  # random weights of that shape are nobody's derivative
        words += [ledger.setting("base", field) for field in ("name", "source")]
        words += [] if ledger.setting("base", "name") else [ledger.setting("name"), ledger.setting("base")]
    found = [terms for text in words if (terms := _terms(text))]
    return [terms for terms in (HAI_DEF, GEMMA) if terms in found]


def base_name(ledger: Ledger) -> str:
    """The base model as a person would call it."""
    return ledger.setting("base", "name") or ledger.setting("base") or "the base model"


def licence_bill(ledger: Ledger) -> list[Licence]:
    """Every licence the steps recorded, each once, by name; the base model is always among them."""
    steps: dict[tuple[str, str, str, str], list[str]] = {}
    for key, manifest in ledger.manifests.items():
        for entry in manifest.get("licences", []):
            if isinstance(entry, dict):
                steps.setdefault(_fields(entry), []).append(key)
    base = ledger.setting("base", "name")
    if base and all(name != base for name, *_ in steps):
        steps[(base, ledger.setting("base", "license"), ledger.setting("base", "license_url"), "base model")] = []
    return [Licence(*fields, steps=tuple(used)) for fields, used in sorted(steps.items())]


def changed_files(ledger: Ledger) -> list[tuple[str, str, str]]:
    """(path, bytes, SHA-256) of the newest model the run wrote: the export, else the last training step."""
    steps = ["13-expand-tokenizer", *(key for key, _ in stages(ledger)), "61-quantize"]
    for key in reversed(steps):
        outputs = [o for o in ledger.manifests.get(key, {}).get("outputs", []) if isinstance(o, dict)]
        if outputs:
            return sorted(
                (f"{key}/{o.get('path', '')}", str(o.get("bytes", "")), str(o.get("sha256", ""))) for o in outputs
            )
    return []


def _fields(entry: dict[str, Any]) -> tuple[str, str, str, str]:
    name, license_, url, note = (str(entry.get(f) or "").strip() for f in ("name", "license", "url", "note"))
    return name, license_, url, note


def _terms(text: str) -> Terms | None:
    if _HAI_DEF_WORDS.search(text):
        return HAI_DEF
    return GEMMA if "gemma" in text.lower() and not _GEMMA_4.search(text) else None
