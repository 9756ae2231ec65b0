"""The figures that matter most: headlines of the run, one figure per step.

HTML page, model card and terminal summary all take their figures from here, so they cannot disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from vocabgraft.report.ledger import Ledger, bits_path, number, stages
from vocabgraft.report.numbers import change, decimal, duration, percent, size, whole


@dataclass(frozen=True)
class Headline:
    """One figure of the first screen. `note` says what it was before and in which unit."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Accuracy:
    """Share of questions answered right, with its 95 % interval where there is one."""

    label: str
    share: float
    low: float | None = None
    high: float | None = None
    questions: int | None = None


@dataclass(frozen=True)
class FreezeProof:
    """Of the tensors a step must not move, how many are bit for bit what they were. `held` None: none to check."""

    step: str
    checked: int
    identical: int
    held: bool | None


def step_title(ledger: Ledger, key: str) -> str:
    """The step's own title, or its key without the number."""
    title = ledger.manifests.get(key, {}).get("title")
    return title if isinstance(title, str) and title else key.partition("-")[2]


def total_seconds(ledger: Ledger) -> float:
    """Time all recorded steps took."""
    return sum(number(m.get("seconds")) or 0.0 for m in ledger.manifests.values())


def peak_memory(ledger: Ledger) -> float | None:
    """The most memory any step used, GB."""
    return max(
        (v for m in ledger.manifests.values() if (v := number(m.get("peak_memory_gb"))) is not None), default=None
    )


def before_after(ledger: Ledger, side: str) -> tuple[float | None, float | None]:
    """Bits per byte of one side ("target" or "replay"), base and newest model, both on the same text.

    The final evaluation where it is there, else the probes of the training steps.
    """
    key = "51-korean" if side == "target" else "52-english"
    base, final = (number(ledger.find(key, "bits_per_byte", which)) for which in ("base", "final"))
    if base is not None and final is not None:
        return base, final
    column = 1 if side == "target" else 2
    probes = [point for point in bits_path(ledger) if point[0] != "final" and point[column] is not None]
    if len(probes) < 2 or probes[0][0] != "base":
        return None, None
    values = [number(p[column]) for p in probes]
    return values[0], values[-1]


@dataclass(frozen=True)
class Start:
    """One line of a bake-off: bits per byte at once and after the probe, the latter with its interval over seeds."""

    name: str
    at_once: float
    after: float
    low: float | None
    high: float | None
    english_kl: float | None


def starts(ledger: Ledger) -> list[Start]:
    """What `vocabgraft bakeoff` found on this run, best first; lines without figures are left out."""
    found = []
    rows = ledger.bakeoff.get("rows")
    for row in rows if isinstance(rows, list) else []:
        at_once, after, taken = (_mean(row, key) for key in ("bpb_step0", "bpb_probe", "english_kl"))
        if at_once[0] is not None and after[0] is not None:
            name = str(row.get("name", ""))
            found.append(Start(name, at_once[0], after[0], low=after[1], high=after[2], english_kl=taken[0]))
    return found


def _mean(row: Any, key: str) -> tuple[float | None, float | None, float | None]:
    value = row.get(key) if isinstance(row, dict) else None
    mean, low, high = (number(value.get(k)) if isinstance(value, dict) else None for k in ("mean", "low", "high"))
    return mean, low, high


def accuracies(ledger: Ledger, key: str) -> list[Accuracy]:
    """Base and final accuracy of one evaluation step, as far as measured."""
    rows = []
    for which in ("base", "final"):
        values = [number(ledger.find(key, "choices", which, f)) for f in ("accuracy", "low", "high", "n")]
        share, low, high, n = (v if v is not None and math.isfinite(v) else None for v in values)
        if share is None:
            continue
        rows.append(Accuracy(which, share, low, high, None if n is None else int(n)))
    return rows


def freeze_proofs(ledger: Ledger) -> list[FreezeProof]:
    """One proof per step that recorded one: where rows start, and where anything trains."""
    found = []
    for key in ledger.manifests:
        checked, raw = number(ledger.find(key, "frozen", "checked")), ledger.find(key, "frozen", "identical")
        identical = checked if raw is True else 0.0 if raw is False else number(raw)
        if checked is not None and identical is not None:
            held = identical == checked if checked else None
            found.append(FreezeProof(key, int(checked), int(identical), held))
    return found


def verdict(ledger: Ledger, key: str) -> str:
    """The sentence the evaluation itself wrote, word for word."""
    sentence = ledger.find(key, "choices", "verdict")
    return sentence if isinstance(sentence, str) else ""


def compressed(ledger: Ledger) -> str:
    """Which method ships for vLLM and what it lost, as the step wrote it; empty where none was asked for."""
    sentence = ledger.find("61-quantize", "compressed", "verdict")
    return sentence if isinstance(sentence, str) else ""


def sets(ledger: Ledger, key: str) -> str:
    """What was found of each of several benchmarks, sentence by sentence; empty where there was one."""
    found = ledger.find(key, "choices", "sets")
    told = found.items() if isinstance(found, dict) else ()
    return " ".join(f"{name}: {each['verdict']}" for name, each in told if isinstance(each, dict) and "verdict" in each)


def robustness(ledger: Ledger, key: str) -> str:
    """What other orders of the options did to the accuracy, in a sentence; empty where one order was asked."""
    told = []
    for which in ("base", "final"):
        mean, worst, same = (
            percent(ledger.find(key, "choices", "rotations", which, k)) for k in ("mean", "worst", "consistent")
        )
        if mean and worst and same:
            told.append(f"{which} {mean} right on average, {worst} in the worst, the same option in all for {same}")
    orders = number(ledger.find(key, "choices", "rotations", "final", "orders"))
    if not told or orders is None or orders < 2:
        return ""
    return f"Asked in {int(orders)} orders of the options: {'; '.join(told)}."


def written(ledger: Ledger, key: str) -> str:
    """What became of answers in writing, in a sentence; empty where none were asked for."""
    told = []
    for which in ("base", "final"):
        right, n = (number(ledger.find(key, "written", which, k)) for k in ("right", "n"))
        names = ("extracted", "stopped", "in_language")
        read, ended, language = (percent(ledger.find(key, "written", which, k)) for k in names)
        if right is not None and n:
            spoken = f", {language} in the language" if language else ""
            told.append(f"{which} {int(right)}/{int(n)} right, an answer in {read}, {ended} ended by itself{spoken}")
    form = ledger.find(key, "written_form")
    asked = "" if form in (None, "chat") else f", asked and read as lm-eval's {form}"
    return f"Answered in writing{asked}: {'; '.join(told)}." if told else ""


def leak_gate(ledger: Ledger, key: str) -> str:
    """How the training texts were kept free of the questions, in a sentence."""
    items = number(ledger.find(key, "leak_gate", "items"))
    documents = [number(ledger.find(key, "leak_gate", "documents_dropped", side)) or 0 for side in ("target", "replay")]
    examples = number(ledger.find(key, "leak_gate", "examples_dropped")) or 0
    if items is None:
        return ""
    short = number(ledger.find(key, "leak_gate", "too_short")) or 0
    aside = f" ({int(short)} too short to be looked for)" if short else ""
    return (
        f"Leak gate: {int(items):,} questions{aside} looked for in every training text; dropped for holding one: "
        f"{int(sum(documents)):,} documents, {int(examples):,} tuning examples."
    )


def headlines(ledger: Ledger) -> list[Headline]:
    """The figures of the first screen, most telling first."""
    found = [_fertility(ledger), _bits(ledger, "target"), _bits(ledger, "replay")]
    for key, label in (("51-korean", "Target-language questions right"), ("52-english", "English questions right")):
        found.append(_accuracy(ledger, key, label))
    pieces = ledger.find("13-expand-tokenizer", "new_pieces")
    kept = number(ledger.find("13-expand-tokenizer", "english_ids_changed"))
    if whole(pieces):
        note = "" if kept is None else f"token ids of English text changed: {whole(kept)}"
        found.append(Headline("New pieces", whole(pieces), note))
    memory = decimal(peak_memory(ledger), 1)
    if ledger.manifests:
        note = f"{len(ledger.manifests)} steps" + (f", peak memory {memory} GB" if memory else "")
        found.append(Headline("Time", duration(total_seconds(ledger)), note))
    return [headline for headline in found if headline]


def key_figure(ledger: Ledger, key: str) -> str:
    """The one figure that says what a step achieved; empty where nothing was measured."""
    trained = dict(stages(ledger))
    if key in trained:
        return _pair(ledger, key)
    parts = {
        "02-collect": lambda: _kept(ledger),
        "04-preprocess": lambda: _prepared(ledger),
        "13-expand-tokenizer": lambda: _expanded(ledger),
        "21-resize": lambda: _rows(ledger),
        "22-initialise": lambda: _initialised(ledger),
        "51-korean": lambda: _evaluated(ledger, key),
        "52-english": lambda: _evaluated(ledger, key),
        "61-quantize": lambda: _files(ledger),
        "62-serve": lambda: _served(ledger),
    }
    return parts[key]() if key in parts else ""


def _fertility(ledger: Ledger) -> Headline | None:
    before, after = (number(ledger.find("13-expand-tokenizer", "tokens_per_word", k)) for k in ("before", "after"))
    if after is None:
        return None
    note = f"{decimal(before, 2)} before ({change(before, after)})" if before is not None else ""
    return Headline("Tokens per word, target", decimal(after, 2), note)


def _bits(ledger: Ledger, side: str) -> Headline | None:
    before, after = before_after(ledger, side)
    if after is None:
        return None
    return Headline(f"Bits per byte, {side}", decimal(after), f"{decimal(before)} before ({change(before, after)})")


def _accuracy(ledger: Ledger, key: str, label: str) -> Headline | None:
    rows = {row.label: row for row in accuracies(ledger, key)}
    if "final" not in rows:
        return None
    base, chance = rows.get("base"), percent(ledger.find(key, "choices", "chance"))
    notes = [f"{percent(base.share)} before" if base else "", f"chance {chance}" if chance else ""]
    return Headline(label, percent(rows["final"].share), ", ".join(note for note in notes if note))


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _pair(ledger: Ledger, key: str) -> str:
    bits = [decimal(ledger.find(key, "bits_per_byte", side)) for side in ("target", "replay")]
    named = [f"{side} {value}" for side, value in zip(("target", "replay"), bits, strict=True) if value]
    return f"{', '.join(named)} bits per byte" if named else ""


def _kept(ledger: Ledger) -> str:
    found = []
    for side in ("target", "replay"):
        kept, read = (whole(ledger.find("02-collect", side, field)) for field in ("kept", "read"))
        found.append(f"{side}: kept {kept} of {read} documents" if kept and read else "")
    return _joined(*found)


def _prepared(ledger: Ledger) -> str:
    found = []
    for side in ("target", "replay"):
        documents, held = (whole(ledger.find("04-preprocess", side, f)) for f in ("documents", "held_out_documents"))
        volume = size(ledger.find("04-preprocess", side, "bytes"))
        parts = [f"{documents} documents" if documents else "", volume, f"{held} held out" if held else ""]
        text = ", ".join(part for part in parts if part)
        found.append(f"{side}: {text}" if text else "")
    return _joined(*found)


def _expanded(ledger: Ledger) -> str:
    pieces = whole(ledger.find("13-expand-tokenizer", "new_pieces"))
    before, after = (number(ledger.find("13-expand-tokenizer", "tokens_per_word", k)) for k in ("before", "after"))
    grown = f"{decimal(before, 2)} → {decimal(after, 2)} tokens per word" if before and after else ""
    return _joined(f"{pieces} new pieces" if pieces else "", grown)


def _rows(ledger: Ledger) -> str:
    rows = whole(ledger.find("21-resize", "rows"))
    tied = _said(ledger.find("21-resize", "tied"), "tied", "untied")
    shape = _said(ledger.find("21-resize", "shape_changed"), "shape changed", "shape unchanged")
    return _joined(f"{rows} rows" if rows else "", tied, shape)


def _said(value: object, yes: str, no: str) -> str:
    return yes if value is True else no if value is False else ""


def _initialised(ledger: Ledger) -> str:
    methods = ledger.find("22-initialise", "methods")
    counts = [f"{whole(n)} by {name}" for name, n in sorted(methods.items())] if isinstance(methods, dict) else []
    before, after = (
        number(ledger.find("22-initialise", "bits_per_byte", "target", k)) for k in ("base", "initialised")
    )
    start = f"target {decimal(before)} → {decimal(after)} bits per byte" if before and after else ""
    apart = "a value for each route" if ledger.find("22-initialise", "row_untied") is True else ""
    return _joined(", ".join(counts), apart, start)


def _evaluated(ledger: Ledger, key: str) -> str:
    base, final = (decimal(ledger.find(key, "bits_per_byte", which)) for which in ("base", "final"))
    right = " → ".join(percent(row.share) for row in accuracies(ledger, key))
    bits = f"{base} → {final} bits per byte" if base and final else ""
    return _joined(bits, f"{right} right" if right else "")


def _files(ledger: Ledger) -> str:
    files = ledger.find("61-quantize", "files")
    if not isinstance(files, dict):
        return ""
    sizes = [(name, size(f.get("bytes"))) for name, f in sorted(files.items()) if isinstance(f, dict)]
    return _joined(*(f"{name} {text}" for name, text in sizes if text))


def _served(ledger: Ledger) -> str:
    engine, speed = ledger.find("62-serve", "engine"), decimal(ledger.find("62-serve", "tokens_per_second"), 1)
    return _joined(engine if isinstance(engine, str) else "", f"{speed} tokens per second" if speed else "")
