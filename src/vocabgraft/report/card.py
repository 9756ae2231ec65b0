"""Model card and NOTICE of the exported weights, written from the ledger so that no figure is typed by hand.

The card is a Hugging Face README.md: YAML metadata, then Markdown. Every YAML text is a JSON string (JSON is
YAML), so a language code `no` stays Norwegian and hostile text stays text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from vocabgraft.report import figures, numbers
from vocabgraft.report.ledger import Ledger, number
from vocabgraft.report.licences import base_name, base_terms, changed_files, consequences, licence_bill
from vocabgraft.report.markup import clean

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_GOOGLE = re.compile(r"(med)?gemma-[\w.-]+")  # Google's own names: google/gemma-3-270m, google/medgemma-4b-it
_USE = (
    "**Research; not for clinical use.** The model may be wrong, in either language. Do not use it, or what it writes, "
    "to diagnose, treat or advise anyone, and do not make it part of a medical device. Label what it writes as "
    "AI-generated."
)
_DUTIES = (
    "Whoever passes these weights on must pass on the use restrictions of section 3.2 of these terms as an enforceable "
    "condition, give a copy of the terms, keep the notices of changed files and keep this Notice file."
)
_CHANGED = (
    "The files of this model are modified files: its weights, tokenizer and configuration were changed from those of "
    "{base} with vocabgraft, which added new pieces to the vocabulary and trained the model on text of a further "
    "language."
)
_NOT_ADVICE = "This list was made from the records of the run. It is not legal advice."


def model_card(ledger: Ledger) -> str:
    """README.md for the exported model: metadata, results, intended use, licences, changed files, recipe."""
    title = ledger.setting("title") or ledger.name
    parts = [
        _metadata(ledger),
        f"# {_markdown(title)}",
        f"{_markdown(base_name(ledger))} with a vocabulary grafted on by vocabgraft (run `{_markdown(ledger.name)}`).",
        _part("Results", _results(ledger), *_verdicts(ledger)),
        _part("Intended use", _USE),
        _part("Training", _stages(ledger)),
        _part("Licences", *_terms(ledger), *map(_markdown, consequences(ledger)), _bill(ledger), _NOT_ADVICE),
        _part("Changed files", _CHANGED.format(base=_markdown(base_name(ledger))), _files(ledger)),
        _part("Recipe", _recipe(ledger)),
    ]
    return clean("\n\n".join(part for part in parts if part) + "\n")


def notice(ledger: Ledger) -> str:
    """NOTICE for the exported weights: the base's fixed sentences, duties, changes, a licence per source."""
    title = f"NOTICE for {ledger.name}"
    parts = [f"{title}\n{'=' * len(title)}", _CHANGED.format(base=base_name(ledger))]
    for terms in base_terms(ledger):
        parts.append(terms.sentence)  # alone on its line, word for word: the terms ask for it
    if base_terms(ledger):
        parts.append(_DUTIES)
    lines = []
    for item in licence_bill(ledger):
        address = f", {item.url}" if item.url else ""
        remarks = "".join(f" [{text}]" for text in (item.warning, item.note) if text)
        lines.append("- " + _one_line(f"{item.name}: {item.license or 'unknown'}{address}{remarks}"))
    if lines:
        parts.append("Licences of what went into these weights:\n" + "\n".join(lines))
    parts += [_one_line(told) for told in consequences(ledger)]
    parts.append(_NOT_ADVICE)
    return clean("\n\n".join(parts) + "\n")


def _terms(ledger: Ledger) -> list[str]:
    """The base's fixed sentences, where to read its terms, and what they ask of whoever passes the weights on."""
    found = base_terms(ledger)
    links = ", ".join(f"[{terms.title}]({terms.link})" for terms in found)
    return [*(terms.sentence for terms in found), *([f"Terms: {links}.", _DUTIES] if found else [])]


def _metadata(ledger: Ledger) -> str:
    terms = base_terms(ledger)
    lines = ["license: other"]
    if terms:
        lines += [f"license_name: {_yaml(terms[0].name)}", f"license_link: {_yaml(terms[0].link)}"]
    else:
        lines += ['license_name: "see-notice"', 'license_link: "NOTICE"']
    if base := _base_model(ledger):
        lines += [f"base_model: {_yaml(base)}"]
    lines += ["language:", *(f"- {_yaml(code)}" for code in _languages(ledger))]
    lines += ['library_name: "transformers"', 'pipeline_tag: "text-generation"']
    lines += ["tags:", *(f"- {_yaml(tag)}" for tag in ("vocabgraft", "vocabulary-expansion", "research"))]
    return "---\n" + "\n".join(lines) + "\n---"


def _base_model(ledger: Ledger) -> str:
    """The base's name on the hub, `owner/model`; empty for a folder or random weights."""
    name, kind = ledger.setting("base", "name"), ledger.setting("base", "kind")
    for candidate in (ledger.setting("base", "source").partition("@")[0], name):
        if kind not in ("folder", "random-gemma3") and _HUB_NAME.fullmatch(candidate):
            return candidate
    return f"google/{name}" if kind != "random-gemma3" and _GOOGLE.fullmatch(name) else ""


def _languages(ledger: Ledger) -> list[str]:
    target = ledger.setting("data", "language")
    return [target, "en"] if target and target != "en" else ["en"]


def _results(ledger: Ledger) -> str:
    fertility = [number(ledger.find("13-expand-tokenizer", "tokens_per_word", k)) for k in ("before", "after")]
    rows = [("tokens per word, target", *(numbers.decimal(v, 2) for v in fertility), numbers.change(*fertility))]
    for side in ("target", "replay"):
        before, after = figures.before_after(ledger, side)
        row = (numbers.decimal(before), numbers.decimal(after), numbers.change(before, after))
        rows.append((f"bits per byte, {side} (lower is better)", *row))
    for key in ("51-korean", "52-english"):
        found = {row.label: _accuracy(row) for row in figures.accuracies(ledger, key)}
        chance = numbers.percent(ledger.find(key, "choices", "chance"))
        remark = f"chance {chance}" if chance else ""
        label = f"{figures.step_title(ledger, key)}: questions right"
        rows.append((label, found.get("base", ""), found.get("final", ""), remark))
    quantised = [
        (side, number(ledger.find("61-quantize", "bits_per_byte", "quantised", side))) for side in ("target", "replay")
    ]
    for side, small in quantised:
        full = number(ledger.find("61-quantize", "bits_per_byte", "full", side))
        row = (numbers.decimal(full), numbers.decimal(small), numbers.change(full, small))
        rows.append((f"bits per byte, {side}: full, then quantised", *row))
    return _markdown_table(("", "before", "after", "change"), [row for row in rows if row[2]])


def _accuracy(row: figures.Accuracy) -> str:
    text = numbers.percent(row.share)
    if row.low is not None and row.high is not None:
        text += f" [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    return text + (f", n = {row.questions:,}" if row.questions is not None else "")


def _verdicts(ledger: Ledger) -> list[str]:
    tellers = (figures.verdict, figures.sets, figures.robustness, figures.written, figures.leak_gate)
    found = [
        (figures.step_title(ledger, key), " ".join(said for tell in tellers if (said := tell(ledger, key))))
        for key in ("51-korean", "52-english")
    ]
    found.append(("Compressed for vLLM", figures.compressed(ledger)))
    return [f"{_markdown(title)}: {_markdown(sentence)}" for title, sentence in found if sentence]


def _stages(ledger: Ledger) -> str:
    rows = []
    for key in ledger.manifests:
        groups = ledger.find(key, "train")
        if isinstance(groups, list):
            trained = ", ".join(str(group) for group in groups)
            rows.append((key, trained, numbers.whole(ledger.find(key, "tokens")), figures.key_figure(ledger, key)))
    return _markdown_table(("step", "trained", "tokens", "after it"), rows)


def _bill(ledger: Ledger) -> str:
    rows = [
        (item.name, item.license or "unknown", item.url, "; ".join(t for t in (item.warning, item.note) if t))
        for item in licence_bill(ledger)
    ]
    return _markdown_table(("source", "licence", "address", "note"), rows)


def _files(ledger: Ledger) -> str:
    return _markdown_table(("file", "bytes", "SHA-256"), changed_files(ledger))


def _recipe(ledger: Ledger) -> str:
    # Indented JSON: no line of it can start with the fence, whatever the texts hold.
    text = json.dumps(ledger.recipe, ensure_ascii=False, indent=2, sort_keys=True)
    return f"~~~json\n{text}\n~~~" if ledger.recipe else ""


def _part(title: str, *parts: str) -> str:
    body = "\n\n".join(part for part in parts if part)
    return f"## {title}\n\n{body}" if body else ""


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_markdown(cell) for cell in line) + " |" for line in lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _markdown(text: str) -> str:
    """Recorded text inside Markdown: one line, no HTML, no table bars, no links."""
    safe = _one_line(str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`|]|\]\()", r"\\\1", safe)


def _yaml(text: str) -> str:
    return json.dumps(clean(_one_line(text)), ensure_ascii=False)
