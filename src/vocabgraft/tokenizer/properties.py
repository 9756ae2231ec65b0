"""What must hold between a base tokenizer and an expansion of it, one function and one finding each.

The list is that of the Hindko-Tokenizer project's gates for continued BPE (https://github.com/junaidaslam2006/
Hindko-Tokenizer, tokenizer/trackb), with llama.cpp, GGUF files, chat templates and forms of writing added.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vocabgraft.deployment.gguf_tokenizer import GgufTokenizer
from vocabgraft.finding import Finding
from vocabgraft.tokenizer.compare import PLACEHOLDER
from vocabgraft.tokenizer.engines import Absent, Engine
from vocabgraft.tokenizer.fuzz import FORMS
from vocabgraft.tokenizer.sweep import Subject, Sweep, disagreements, is_coarser, shorten
from vocabgraft.tokenizer.vocabulary import BYTE, NORMAL, SPACE, UNUSED, USER_DEFINED, Vocabulary

CONVERSATION = (
    {"role": "user", "content": "What is hypertension? Answer in one sentence."},
    {"role": "assistant", "content": "Hypertension is blood pressure that stays above 140/90 mmHg."},
    {"role": "user", "content": "고혈압 환자에게 어떤 약을 쓰나요?"},
)
"""The conversation that is rendered through both chat templates."""


def pieces_in_script(subject: Subject, name: str | None) -> Finding:
    """Each new piece holds a letter of the script, so that text without the script cannot hold a new piece."""
    title = "script of the new pieces"
    special = {t.content for t in subject.expanded.get_added_tokens_decoder().values() if t.special}
    texts = {p: t for p, t in subject.new_texts.items() if p not in special}
    if name is None or not texts:
        return Finding(title, "warn", "no new piece holds a letter", "nothing may change then: see the texts")
    stray = [p for p, t in texts.items() if not subject.script.search(t)]
    parts = len(subject.new) - len(subject.new_texts)
    said = f"{name}: {len(texts) - len(stray):,} of {len(texts):,}" + (f"; {parts:,} parts of letters" if parts else "")
    if not stray:
        return Finding(title, "ok", said)
    fix = "such pieces change text of other languages: leave them out, or name the script with --script"
    return Finding(title, "fail", f"{said}; without it {_names(stray)}", fix)


def unchanged(sweep: Sweep, name: str) -> Finding:
    """Texts without the script keep every id."""
    title = f"ids unchanged: {name}"
    count = sweep.faults["changed"]
    apart = sweep.faults["changed for unassigned letters"]
    but = f" but {apart:,} with letters Unicode has not assigned" if apart else ""
    if not count:
        return Finding(title, "ok", f"all {sweep.without_script:,} texts without the script{but}")
    found = f"{count:,} of {sweep.without_script:,} texts without the script changed: {_examples(sweep, 'changed')}"
    return Finding(title, "fail", found, "what the base knows is spelt in the old ids: leave out the pieces that do it")


def coarser(sweep: Sweep, name: str) -> Finding:
    """Each new token is a run of base tokens, so no text gets longer."""
    title = f"runs of base tokens: {name}"
    count, longer = sweep.faults["no run of base tokens"], sweep.faults["longer"]
    if not count and not longer:
        return Finding(title, "ok", f"in all {sweep.texts:,} texts, none longer")
    found = f"not in {count:,} of {sweep.texts:,} texts, {longer:,} longer: {_examples(sweep, 'no run of base tokens')}"
    fix = "new rows cannot be built from base rows: learn merges over the base's own tokens (continued BPE)"
    return Finding(title, "fail", found, fix)


def restored(sweeps: Mapping[str, Sweep]) -> Finding:
    """What the base gives back after encode and decode, the expansion gives back too."""
    count, texts = (sum(s.faults["not restored"] for s in sweeps.values()), sum(s.texts for s in sweeps.values()))
    if not count:
        return Finding("round trip", "ok", f"{texts:,} texts come back as from the base")
    worst = max(sweeps.values(), key=lambda s: s.faults["not restored"])
    found = f"{count:,} of {texts:,} texts no longer come back: {_examples(worst, 'not restored')}"
    fix = "the decoder differs, or a new piece stands for other text than it is cut from"
    return Finding("round trip", "fail", found, fix)


def agreement(sweeps: Mapping[str, Sweep], engine: Engine | Absent) -> Finding:
    """An engine and tokenizers give the same ids."""
    title = f"{engine.name} = tokenizers"
    if isinstance(engine, Absent):
        return Finding(title, "warn", f"not checked: {engine.why}", "the certificate says nothing about this engine")
    texts = sum(s.texts for s in sweeps.values())
    count = sum(s.faults[engine.name] for s in sweeps.values())
    own = sum(s.own[engine.name] for s in sweeps.values())
    base = f"; {own:,} differ in the base too" if own else ""
    if not count:
        return Finding(title, "ok", f"same ids on {texts:,} texts{base}")
    worst = max(sweeps.values(), key=lambda s: s.faults[engine.name])
    found = f"{count:,} of {texts:,} texts differ: {_examples(worst, engine.name)}{base}"
    return Finding(title, "fail", found, "write all tokenizer files and the GGUF from one table, then compare again")


def reachable(subject: Subject, engine: Engine | Absent) -> Finding:
    """The text of each new piece gives that piece, alone or at the start of a line."""
    title = f"reachable in {engine.name}"
    if isinstance(engine, Absent):
        return Finding(title, "warn", f"not checked: {engine.why}", "the certificate says nothing about this engine")
    texts = {
        p: t for p, t in subject.new_texts.items() if engine.reads_specials or subject.new[p] not in subject.specials
    }
    lost = unreached(engine, texts, subject.new)
    if not lost:
        return Finding(title, "ok", f"all {len(texts):,} new pieces")
    fix = "their rows cannot train: add the merges that lead to them, or drop them (tokenizer.select)"
    return Finding(title, "fail", f"{len(lost):,} of {len(texts):,} are never produced: {_names(lost)}", fix)


def unreached(engine: Engine, texts: Mapping[str, str], ids: Mapping[str, int]) -> list[str]:
    """Pieces (piece -> text) that an engine does not give for their text, neither alone nor after a line end.

    The second try is for tokenizers that put a space before every text: there 'llo' exists only inside a word.
    """
    left = [p for p, found in zip(texts, engine.encode(list(texts.values())), strict=True) if found != [ids[p]]]
    (start,) = engine.encode(["\n"])
    after = engine.encode(["\n" + texts[p] for p in left])
    return [p for p, found in zip(left, after, strict=True) if found != [*start, ids[p]]]


def forms(subject: Subject) -> tuple[Finding, dict[str, list[int]]]:
    """Forms of writing: no more tokens than before, all engines agree; and tokens before and after by form."""
    base, expanded = subject.readers
    names, texts = list(FORMS), list(FORMS.values())
    before, after = base.encode(texts), expanded.encode(texts)
    table = {n: [len(a), len(b)] for n, a, b in zip(names, before, after, strict=True)}
    wrong = [n for n, a, b in zip(names, before, after, strict=True) if a != b and not is_coarser(subject.sizes, a, b)]
    for engine in subject.engines:
        differ = disagreements(subject, engine, texts, after).faults
        wrong += [f"{n} ({engine.name})" for n, t in FORMS.items() if any(d in t for d in differ)]
    if wrong:
        return Finding("forms of writing", "fail", ", ".join(wrong), "see the table of forms in the JSON"), table
    fewer = sum(b < a for a, b in table.values())
    return Finding("forms of writing", "ok", f"{len(table)} forms, {fewer} cheaper, none dearer, engines agree"), table


def conversation(subject: Subject, templates: Sequence[str], names: Mapping[str, str]) -> Finding | None:
    """The chat templates, as (base, expanded), render one conversation alike, and its turns keep their tokens.

    names: special tokens by their name in templates, e.g. bos_token. None when there is no template to render.
    """
    title = "conversation through the chat template"
    if not all(templates):
        return None
    try:
        rendered = [_render(template, names) for template in templates]
    except ImportError:
        return Finding(title, "warn", "not checked: jinja2 is not installed", "pip install 'vocabgraft[train]'")
    except Exception as e:  # a template is a program of its own, and may raise anything
        return Finding(title, "warn", f"not checked: the template cannot be rendered ({e})", "render it by hand")
    if rendered[0] != rendered[1]:
        return Finding(title, "fail", "rendered differently", "the base was tuned on its own template: use that one")
    ids = [subject.base.encode(rendered[0]).ids, subject.expanded.encode(rendered[0]).ids]
    specials = [[i for i in found if i in subject.specials] for found in ids]
    if specials[0] != specials[1] or not is_coarser(subject.sizes, *ids):
        return Finding(title, "fail", "other tokens than runs of the base's", "keep special tokens as they were")
    return Finding(
        title, "ok", f"same text, {len(specials[0])} special tokens, {len(ids[0])} ids before, {len(ids[1])} after"
    )


def _render(template: str, names: Mapping[str, str]) -> str:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda _: "21 Nov 2026"}
    return environment.from_string(template).render(messages=CONVERSATION, add_generation_prompt=True, **names)


def gguf_pieces(subject: Subject, gguf: GgufTokenizer, model: Vocabulary | None) -> Finding:
    """A GGUF file has the pieces of tokenizer.json, new ones as normal pieces, and merges them in the same order."""
    title = "pieces of the GGUF file"
    problems = [*_other_pieces(subject, gguf), *_other_types(subject, gguf, model), *_other_order(subject, gguf, model)]
    if problems:
        fix = "llama.cpp cuts words differently, in silence: export from the expanded tokenizer.model and clean configs"
        return Finding(title, "fail", "; ".join(problems), fix)
    return Finding(title, "ok", f"{len(gguf.pieces):,} pieces, types and order as in the folder")


def _other_pieces(subject: Subject, gguf: GgufTokenizer) -> list[str]:
    def spelt(i: int) -> set[str | None]:
        # llama.cpp keeps user-defined pieces with real spaces.
        piece = gguf.pieces[i]
        return {piece, piece.replace(" ", SPACE)} if gguf.types[i] == USER_DEFINED else {piece}

    missing = sum(i >= len(gguf.pieces) for i in subject.new.values())
    named = ((i, subject.expanded.id_to_token(i)) for i in range(len(gguf.pieces)) if gguf.types[i] != UNUSED)
    wrong = [(i, piece) for i, piece in named if piece not in spelt(i)]
    said = [f"{missing:,} new pieces beyond its {len(gguf.pieces):,}"] if missing else []
    if wrong:
        i, piece = wrong[0]
        said.append(f"{len(wrong):,} pieces differ, e.g. {i}: {gguf.pieces[i]!r}, tokenizer.json has {piece!r}")
    return said


def _other_types(subject: Subject, gguf: GgufTokenizer, model: Vocabulary | None) -> list[str]:
    added = subject.expanded.get_added_tokens_decoder()
    here = {p: i for p, i in subject.new.items() if i < len(gguf.types) and i not in added}
    wrong = [p for p, i in here.items() if gguf.types[i] != NORMAL]
    said = [f"{len(wrong):,} new pieces are no normal pieces, e.g. {wrong[0]!r}"] if wrong else []
    if model is not None:
        pairs = list(zip(model.types, gguf.types, strict=False))
        other = sum((a in (NORMAL, BYTE)) != (b in (NORMAL, BYTE)) for a, b in pairs) - len(wrong)
        said += [f"{other:,} other types differ from tokenizer.model"] if other > 0 else []
    return said


def _other_order(subject: Subject, gguf: GgufTokenizer, model: Vocabulary | None) -> list[str]:
    """SentencePiece merges by score: only the order counts, and pieces of one score are merged left to right."""
    if gguf.model != "llama":
        return _other_merges(subject, gguf)
    if model is None:
        scores = {gguf.scores[i] for i in subject.new.values() if i < len(gguf.scores)}
        return [f"all new pieces have the score {scores.pop():g}"] if len(scores) == 1 < len(subject.new) else []
    ids = [i for i, kind in enumerate(model.types[: len(gguf.scores)]) if kind == NORMAL]
    wanted, found = _ranks([model.scores[i] for i in ids]), _ranks([gguf.scores[i] for i in ids])
    wrong = [i for i, a, b in zip(ids, wanted, found, strict=True) if a != b]
    new = set(subject.new.values())
    if not wrong:
        return []
    example = next((i for i in wrong if i in new), wrong[0])
    return [
        f"{len(wrong):,} pieces ({len(new.intersection(wrong)):,} of them new) in another order of scores, "
        f"e.g. {model.pieces[example]!r} has {gguf.scores[example]:g}, tokenizer.model {model.scores[example]:g}"
    ]


def _ranks(scores: Sequence[float]) -> list[int]:
    place = {score: n for n, score in enumerate(sorted(set(scores), reverse=True))}
    return [place[score] for score in scores]


def _other_merges(subject: Subject, gguf: GgufTokenizer) -> list[str]:
    ours = json.loads(subject.expanded.to_str())["model"].get("merges", [])
    wanted = [m if isinstance(m, str) else " ".join(m) for m in ours]
    found = list(gguf.fields.get("tokenizer.ggml.merges", []))
    if wanted == found:
        return []
    at = next((n for n, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), min(len(wanted), len(found)))
    return [f"{len(found):,} merges, tokenizer.json has {len(wanted):,}; the first difference is at {at:,}"]


def same_rows(base: tuple[int | None, Any], expanded: tuple[int | None, Any]) -> Finding | None:
    """(rows, id of the image token) of both: rows are not fewer, the image token is where it was."""
    title = "rows and image token of the base"
    problems = []
    if base[0] is not None and expanded[0] is not None and expanded[0] < base[0]:
        problems.append(f"{expanded[0]:,} rows, the base has {base[0]:,}: padded rows were cut off")
    if base[1] is not None and expanded[1] is not None and base[1] != expanded[1]:
        problems.append(f"image token {expanded[1]}, was {base[1]}")
    if problems:
        return Finding(
            title, "fail", "; ".join(problems), "resize to the larger of old rows and tokens; move no special"
        )
    if base[0] is None or expanded[0] is None:
        return None
    return Finding(title, "ok", f"{base[0]:,} rows before, {expanded[0]:,} after" + _image(base[1]))


def _image(i: Any) -> str:
    return "" if i is None else f"; image token {i}"


def holes(subject: Subject) -> Finding | None:
    """Ids below the highest have a token: an id without one is a row that was skipped by mistake."""
    taken = set(subject.expanded.get_vocab(with_added_tokens=True).values())
    known = set(subject.base.get_vocab(with_added_tokens=True).values())
    empty = [i for i in range(max(taken, default=-1)) if i not in taken and (i in known or i > max(known))]
    if not empty:
        return None
    found = f"{len(empty):,} below the highest, first {empty[0]:,}"
    fix = "tools that count tokens give these rows to others: let new ids follow the last id of the base"
    return Finding("ids without a token", "warn" if _padded(subject, empty) else "fail", found, fix)


def _padded(subject: Subject, empty: Sequence[int]) -> bool:
    """Whether the empty ids were placeholders of the base, which nothing needs."""
    names = (subject.base.id_to_token(i) for i in empty)
    return all(n is not None and PLACEHOLDER.fullmatch(n) for n in names)


def _names(pieces: Sequence[str]) -> str:
    return f"{len(pieces):,}, e.g. {', '.join(map(repr, pieces[:3]))}"


def _examples(sweep: Sweep, kind: str) -> str:
    return ", ".join(repr(shorten(t, 30)) for t in sweep.examples.get(kind, [])[:2])
