"""Phase 1: learn merges, choose pieces, graft them, prove that nothing else changed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from vocabgraft.corpus.script import script_pattern
from vocabgraft.durable import write_json
from vocabgraft.errors import ProofError
from vocabgraft.steps.context import Context, StepResult
from vocabgraft.steps.data import texts
from vocabgraft.tokenizer import measure
from vocabgraft.tokenizer.count import count_words
from vocabgraft.tokenizer.expand import Expansion, expand_tokenizer
from vocabgraft.tokenizer.select import Selection, select_pieces, unreachable
from vocabgraft.tokenizer.train import Candidate, train_pieces
from vocabgraft.tokenizer.vocabulary import read_model

_PROOF_BYTES = 4_000_000  # of each side: what the proofs of 13-expand-tokenizer read


def train(context: Context) -> StepResult:
    """Count words of the target corpus and learn new merges over the base segmentation."""
    recipe = context.recipe
    script = script_pattern(recipe.data.script)
    context.reporter.say("counting words")
    counts = count_words(texts(context, "target", "train"), script)
    base = measure.load_tokenizer(context.base_folder())
    context.reporter.say(f"learning merges over {len(counts):,} different words")
    candidates = train_pieces(
        base, counts, script=script, size=recipe.tokenizer.pieces, min_count=recipe.tokenizer.min_count
    )
    write_json(context.out / "candidates.json", [[c.piece, list(c.parts)] for c in candidates])
    write_json(context.out / "words.json", dict(sorted(counts.items())))
    return StepResult({"words": sum(counts.values()), "different_words": len(counts), "candidates": len(candidates)})


def select(context: Context) -> StepResult:
    """Choose the pieces that go in; say what was left out and how well each is supported."""
    spec = context.recipe.tokenizer
    raw = context.read_json("11-train-tokenizer", "candidates.json")
    counts = Counter(context.read_json("11-train-tokenizer", "words.json"))
    chosen = select_pieces(
        read_model(context.base_folder() / "tokenizer.model"),
        [Candidate(piece, tuple(parts)) for piece, parts in raw],
        counts,
        limit=spec.pieces,
        reserved_slots=spec.reserved_slots,
    )
    rows = [[c.piece, list(c.parts), n] for c, n in zip(chosen.pieces, chosen.uses, strict=True)]
    write_json(context.out / "pieces.json", rows)
    write_json(context.out / "dropped.json", chosen.dropped)
    return StepResult(_support(chosen))


def _support(chosen: Selection) -> dict[str, Any]:
    return {
        "selected": len(chosen.pieces),
        "dropped": {k: len(v) for k, v in chosen.dropped.items()},
        "unused": sum(n == 0 for n in chosen.uses),
        "used_less_than_20": sum(n < 20 for n in chosen.uses),
        "used_less_than_100": sum(n < 100 for n in chosen.uses),
    }


def expand(context: Context) -> StepResult:
    """Write the expanded tokenizer and prove it on held-out text; stops when a proof fails."""
    base_folder, out = context.base_folder(), context.out / "tokenizer"
    rows = context.read_json("12-select-pieces", "pieces.json")
    pieces = [Candidate(piece, tuple(parts)) for piece, parts, _ in rows]
    context.reporter.say(f"placing {len(pieces):,} pieces into unused slots")
    expansion = expand_tokenizer(
        base_folder, pieces, [n for *_, n in rows], out, reserved_slots=context.recipe.tokenizer.reserved_slots
    )
    expansion.save(out / "expansion.json")
    context.reporter.say("proving that nothing else changed")
    target = _some(context, "target", "held")
    replay = _some(context, "replay", "held") + _some(context, "replay", "train")
    proofs = prove(base_folder, out, expansion, target=target, replay=replay)
    write_json(context.out / "proofs.json", proofs)
    failed = [f"{name}: {found}" for name, found in proofs.items() if found]
    if failed:
        raise ProofError(f"{out}: the expanded tokenizer failed {len(failed)} proofs: {'; '.join(failed)[:500]}")
    changed = proofs["ids changed in text without the script"]
    return StepResult(_figures(base_folder, out, expansion, target) | {"english_ids_changed": changed})


def prove(
    base_folder: Path, out: Path, expansion: Expansion, *, target: list[str], replay: list[str]
) -> dict[str, Any]:
    """What is wrong with an expansion, by proof; empty values mean proven."""
    base, new = measure.load_tokenizer(base_folder), measure.load_tokenizer(out)
    moved = measure.moved_pieces(
        read_model(base_folder / "tokenizer.model"), read_model(out / "tokenizer.model"), expansion.ids
    )
    return {
        "ids changed in text without the script": measure.changed_ids(base, new, replay),
        "unreachable new pieces": unreachable(new, expansion.pieces),
        "parts that do not spell their piece": measure.wrong_parts(base, expansion.pieces, expansion.parts),
        "base pieces that moved": moved,
        "texts tokenizer.model and tokenizer.json read differently": len(measure.disagreements(out, target + replay)),
        "texts that do not come back": len(measure.not_restored(new, target)),
    }


def _some(context: Context, side: str, split: str) -> list[str]:
    chosen, total = [], 0
    for text in texts(context, side, split):
        total += len(text.encode())
        if total > _PROOF_BYTES and chosen:
            break
        chosen.append(text)
    return chosen


def _figures(base_folder: Path, out: Path, expansion: Expansion, target: list[str]) -> dict[str, Any]:
    base, new = measure.load_tokenizer(base_folder), measure.load_tokenizer(out)
    before, after = measure.fertility(base, target), measure.fertility(new, target)
    return {
        "new_pieces": len(expansion.ids),
        "first_new_id": expansion.ids[0] if expansion.ids else None,
        "tokens_per_word": {"before": round(before.tokens_per_word, 4), "after": round(after.tokens_per_word, 4)},
        "tokens": {"before": before.tokens, "after": after.tokens},
        "sample": [
            {
                "text": text,
                "before": base.encode(text, add_special_tokens=False).tokens,
                "after": new.encode(text, add_special_tokens=False).tokens,
            }
            for text in _sample_sentences(target)
        ],
    }


def _sample_sentences(texts_: list[str], count: int = 3) -> list[str]:
    """One sentence of a few held-out documents, for the picture in the report."""
    chosen = []
    for text in texts_[:count]:
        sentences = text.replace("\n", ". ").split(". ")
        chosen.append(next((s for s in sentences if 30 <= len(s) <= 80), sentences[0][:80]))
    return chosen


def load_expansion(context: Context) -> tuple[Expansion, Path]:
    """The expansion and the tokenizer folder of 13-expand-tokenizer."""
    folder = context.run.path("13-expand-tokenizer", "tokenizer")
    return Expansion.load(folder / "expansion.json"), folder


def bos_of(folder: Path) -> tuple[int, str]:
    """(id, piece) of the token that begins a text."""
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    token = config.get("bos_token") or "<bos>"
    piece = token["content"] if isinstance(token, dict) else token
    return measure.load_tokenizer(folder).token_to_id(piece), piece
