"""The parts of the HTML page, one function each. A part whose numbers are missing is the empty string."""

from __future__ import annotations

import re
from typing import Any

from vocabgraft.report import figures, numbers, pictures
from vocabgraft.report.ledger import Ledger, bits_path, final_on_other_text, number, stages
from vocabgraft.report.licences import base_terms, licence_bill
from vocabgraft.report.markup import escape, paragraph, section, table

_MOST_SAMPLES = 5
_TELLING_EVENT = re.compile(r"aside|fail|error|resum|interrupt|redo|warn|skip|unreadable|guard|stop|stale")
_BULKY = ("time", "step", "event", "recipe", "metrics")
_SIDES = ("target", "replay")


def headline_cards(ledger: Ledger) -> str:
    """The first screen: a handful of figures with what they were before."""
    cards = [
        f'<div class="card"><dt>{escape(h.label)}</dt><dd class="value">{escape(h.value)}</dd>'
        f"<dd>{escape(h.note)}</dd></div>"
        for h in figures.headlines(ledger)
    ]
    return f'<dl class="cards">{"".join(cards)}</dl>' if cards else ""


def tokens(ledger: Ledger) -> str:
    """The same text in tokens before and after."""
    sample = ledger.find("13-expand-tokenizer", "sample")
    drawn = []
    for item in (sample if isinstance(sample, list) else [])[:_MOST_SAMPLES]:
        before, after = _texts(item, "before"), _texts(item, "after")
        if before and after:
            drawn.append(_figure(pictures.token_chips(before, after, str(item.get("text", "")))))
    how = "Each chip is one token, · is a space; outlined chips are tokens the base did not use here." if drawn else ""
    counts = [numbers.whole(ledger.find("13-expand-tokenizer", "tokens", when)) for when in ("before", "after")]
    total = f"All measured text of the target language: {counts[0]} tokens before, {counts[1]} after."
    return section("Tokens", paragraph(how), *drawn, paragraph(total if all(counts) else ""))


def new_rows(ledger: Ledger) -> str:
    """Where the new rows came from and what they look like beside the base's."""
    found, drawn = ledger.find("22-initialise", "norm_histogram"), []
    counts = found.get("counts") if isinstance(found, dict) else None
    width = number(found.get("width")) if isinstance(found, dict) else None
    for route, bars in sorted(counts.items()) if isinstance(counts, dict) and width else []:
        if isinstance(bars, list) and all(isinstance(n, int) for n in bars) and width:
            drawn.append(_figure(pictures.norms_plot(bars, width, f"Norms of new {route} rows before training")))
    taken = numbers.decimal(ledger.find("22-initialise", "english_kl"), 5)
    told = f"Before training they take {taken} nats a token from replay text." if taken else ""
    examples = ledger.find("22-initialise", "examples")
    rows = [
        (e.get("piece", ""), e.get("method", ""), " ".join(_texts(e, "parts")), ", ".join(_texts(e, "nearest")))
        for e in (examples if isinstance(examples, list) else [])
        if isinstance(e, dict)
    ]
    head = ("piece", "by", "used to be", "nearest base rows")
    return section("New rows", paragraph(told), *drawn, table(head, rows))


def bakeoff(ledger: Ledger) -> str:
    """Starts side by side, if they were tried on this run."""
    rows, base = figures.starts(ledger), number(ledger.bakeoff.get("base_bpb"))
    if not rows or base is None:
        return ""
    decimal = numbers.decimal
    cells = [(r.name, decimal(r.at_once), decimal(r.after), decimal(r.english_kl, 5)) for r in rows]
    head = ("start", "bits per byte at once", "after the probe", "English KL, nats a token")
    best = str(ledger.bakeoff.get("best", ""))
    told = f"Best after the probe: {best}; the recipe takes {ledger.bakeoff.get('default', '')}." if best else ""
    plot = _figure(pictures.starts_plot(rows, base))
    return section("Starts side by side", plot, table(head, cells, (1, 2, 3)), paragraph(told))


def bits(ledger: Ledger) -> str:
    """Bits per byte along the run, drawn and in figures."""
    points = bits_path(ledger)
    if not points:
        return ""
    apart = final_on_other_text(ledger)
    drawn = [p for p in points if not (apart and p[0] == "final")]
    rows = [_bits_row(label, (target, replay), drawn[0]) for label, target, replay in drawn]
    if apart and (final := [p for p in points if p[0] == "final"]):
        base = [number(ledger.find(key, "bits_per_byte", "base")) for key in ("51-korean", "52-english")]
        start = ("base", base[0], base[1])
        rows.append(_bits_row("base, on the text of the final evaluation", start[1:], start))
        rows.append(_bits_row("final, on the text of the final evaluation", final[0][1:], start))
    how = (
        "Bits of surprise per byte of held-out text, whatever the tokenizer: lower is better. Replay is text of the "
        "base's own language, which must not get worse."
    )
    other = "The final evaluation read more text than the probe after each step; compare it with its own base row."
    head = ("after", "target", "against base", "replay", "against base")
    picture = _figure(pictures.bits_plot(drawn)) if drawn else ""
    return section(
        "Bits per byte", paragraph(how), picture, paragraph(other if apart else ""), table(head, rows, (1, 2, 3, 4))
    )


def questions(ledger: Ledger) -> str:
    """Multiple choice, with intervals, chance and the evaluation's own verdict."""
    parts = []
    for key in ("51-korean", "52-english"):
        rows = figures.accuracies(ledger, key)
        told = figures.verdict(ledger, key)
        if rows:
            parts.append(f"<h3>{escape(figures.step_title(ledger, key))}</h3>")
            parts.append(_figure(pictures.interval_plot(rows, number(ledger.find(key, "choices", "chance")))))
        parts.append(paragraph(told, "verdict"))
        tellers = (figures.sets, figures.robustness, figures.written, figures.leak_gate)
        parts += [paragraph(tell(ledger, key)) for tell in tellers]
    return section("Questions", *parts)


def training(ledger: Ledger) -> str:
    """What each training step moved, and the proof that it moved nothing else."""
    proofs = {proof.step: proof for proof in figures.freeze_proofs(ledger)}
    started = [("22-initialise", "start")] if "22-initialise" in proofs else []
    rows = []
    for key, label in [*started, *stages(ledger)]:
        groups = ledger.find(key, "train")
        trained = ", ".join(str(g) for g in groups) if isinstance(groups, list) else ""
        ends = [numbers.decimal(ledger.find(key, end), 2) for end in ("loss_first", "loss_last")]
        loss = " → ".join(ends) if all(ends) else ""
        count = numbers.whole(ledger.find(key, "tokens"))
        speed = numbers.whole(ledger.find(key, "tokens_per_second"))
        named = ": ".join(text for text in (label, _stage_name(ledger, label)) if text)
        rows.append((named, trained, count, loss, speed, _proof(proofs.get(key))))
    how = "Loss is in nats per token, so it compares only within a step. Frozen: tensors that had to stay, by SHA-256."
    head = ("step", "trained", "tokens", "loss first → last", "tokens/s", "frozen tensors identical")
    return section("Training and freeze proofs", paragraph(how if rows else ""), table(head, rows, (2, 3, 4)))


def steps(ledger: Ledger) -> str:
    """Every finished step: time, memory, key figure."""
    rows = [
        (
            key,
            figures.step_title(ledger, key),
            numbers.duration(manifest.get("seconds")),
            numbers.decimal(manifest.get("peak_memory_gb"), 2),
            figures.key_figure(ledger, key),
        )
        for key, manifest in ledger.manifests.items()
    ]
    return section("Steps", table(("step", "", "time", "peak memory, GB", "key figure"), rows, (2, 3)))


def deployment(ledger: Ledger) -> str:
    """Files, and what quantising cost."""
    files = ledger.find("61-quantize", "files")
    entries = sorted(files.items()) if isinstance(files, dict) else []
    sizes = [(name, numbers.size(entry.get("bytes"))) for name, entry in entries if isinstance(entry, dict)]
    cost = []
    for side in _SIDES:
        full, small = (number(ledger.find("61-quantize", "bits_per_byte", w, side)) for w in ("full", "quantised"))
        if full is not None and small is not None:
            cost.append((side, numbers.decimal(full), numbers.decimal(small), numbers.change(full, small)))
    equal, prompts = (numbers.whole(ledger.find("61-quantize", "greedy", k)) for k in ("equal", "prompts"))
    greedy = f"Greedy answers equal to the full model: {equal} of {prompts}." if equal and prompts else ""
    near, asked = (number(ledger.find("61-quantize", "next_token", k)) for k in ("largest", "prompts"))
    if near is not None and asked is not None:
        greedy = (
            f"Log-probabilities of the five likeliest next tokens differ from transformers by at most {near:.3f} nats "
            f"on {asked:.0f} prompts. {greedy}"
        )
    head = ("bits per byte", "full", "quantised", "change")
    parts = [table(("file", "size"), sizes, (1,)), table(head, cost, (1, 2, 3)), paragraph(greedy)]
    return section("Files", *parts, _attempts(ledger), paragraph(figures.compressed(ledger)))


def _attempts(ledger: Ledger) -> str:
    """Every method that was tried for vLLM, beside plain rounding to 4 bits."""
    tried = ledger.find("61-quantize", "compressed", "attempts")
    found = [*(tried if isinstance(tried, list) else []), ledger.find("61-quantize", "compressed", "rounding")]
    rows = []
    for each in (a for a in found if isinstance(a, dict)):
        lost = each.get("losses")
        said = [str(x.get("sentence", "")) for x in (lost if isinstance(lost, list) else []) if isinstance(x, dict)]
        told = str(each.get("error") or "; ".join(said))
        row = (numbers.size(each.get("bytes")), numbers.duration(each.get("seconds")), told)
        rows.append((str(each.get("method", "")), *row))
    return table(("for vLLM, by", "weights", "time", "against the full model (95 % interval)"), rows, (1, 2))


def served(ledger: Ledger) -> str:
    """One question put to the served model. The label is a duty (Korean AI Basic Act) and stays."""
    question, answer = (ledger.find("62-serve", field) for field in ("question", "answer"))
    said = ""
    if isinstance(question, str) and isinstance(answer, str):
        said = (
            f'<div class="answer"><p class="label">AI-generated; not medical advice</p>'
            f"<p><strong>{escape(question)}</strong></p>\n<p>{escape(answer)}</p></div>"
        )
    routes = ledger.find("62-serve", "routes")
    rows = sorted((route, str(status)) for route, status in routes.items()) if isinstance(routes, dict) else []
    return section("Served", paragraph(figures.key_figure(ledger, "62-serve")), said, table(("route", "status"), rows))


def events(ledger: Ledger) -> str:
    """What did not go straight: steps started twice, a changed recipe, warnings, results set aside."""
    rows: list[tuple[str, str, str, str]] = []
    open_steps: set[str] = set()
    recipes = 0
    for event in ledger.events:
        kind, step = str(event.get("event", "")), str(event.get("step") or "")
        told = kind if _TELLING_EVENT.search(kind.lower()) else ""
        if kind == "recipe":
            recipes += 1
            told = "recipe changed" if recipes > 1 else ""
        elif kind == "start":
            told = "was interrupted, started again" if step in open_steps else ""
            open_steps.add(step)
        elif kind == "done":
            open_steps.discard(step)
        if told:
            rows.append((numbers.moment(event.get("time")), step, told, _details(event)))
    rows += [("", step, "started and not finished", "") for step in sorted(open_steps)]
    return section("What happened on the way", table(("time", "step", "event", "details"), rows))


def licences(ledger: Ledger) -> str:
    """The bill of licences, addresses as text."""
    sentences = [paragraph(terms.sentence) for terms in base_terms(ledger)]
    rows = [
        (item.name, item.license or "unknown", item.url, "; ".join(t for t in (item.warning, item.note) if t))
        for item in licence_bill(ledger)
    ]
    return section("Licences", *sentences, table(("source", "licence", "address", "note"), rows))


def versions(ledger: Ledger) -> str:
    """Software and machine; several values where steps ran under different ones."""
    return section(
        "Versions and machine", *(table((kind, ""), _union(ledger, kind)) for kind in ("versions", "machine"))
    )


def _figure(svg: str) -> str:
    return f"<figure>{pictures.inline(svg)}</figure>"


def _texts(item: Any, field: str) -> list[str]:
    found = item.get(field) if isinstance(item, dict) else None
    return [str(text) for text in found] if isinstance(found, list) else []


def _bits_row(
    label: str, values: tuple[float | None, float | None], start: tuple[str, float | None, float | None]
) -> tuple[str, ...]:
    base = start[1:] if start[0] == "base" and not label.startswith("base") else (None, None)
    cells = [label]
    for value, before in zip(values, base, strict=True):
        cells += [numbers.decimal(value), numbers.change(before, value)]
    return tuple(cells)


def _stage_name(ledger: Ledger, label: str) -> str:
    """What the recipe calls "stage 3"; empty for instruction tuning."""
    recorded, place = ledger.recipe.get("stage"), label.removeprefix("stage ")
    if not isinstance(recorded, list) or not place.isdigit() or not 0 < int(place) <= len(recorded):
        return ""
    entry = recorded[int(place) - 1]
    return str(entry.get("name", "")) if isinstance(entry, dict) else ""


def _proof(proof: figures.FreezeProof | None) -> str:
    if proof is None:
        return "not recorded"
    if proof.held is None:
        return "nothing was frozen"
    return f"{'✓' if proof.held else '✗ BROKEN:'} {proof.identical:,} of {proof.checked:,}"


def _details(event: dict[str, Any]) -> str:
    return ", ".join(f"{k}: {v}" for k, v in sorted(event.items()) if k not in _BULKY)


def _union(ledger: Ledger, kind: str) -> list[tuple[str, str]]:
    values: dict[str, set[str]] = {}
    for manifest in ledger.manifests.values():
        for name, value in manifest.get(kind, {}).items():
            values.setdefault(str(name), set()).add(str(value))
    return [(name, " / ".join(sorted(found))) for name, found in sorted(values.items())]
