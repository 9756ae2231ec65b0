"""Phase 1: learn merges, choose pieces, graft them, prove that nothing else changed."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from vocabgraft.corpus.script import script_pattern
from vocabgraft.durable import write_json
from vocabgraft.errors import ProofError
from vocabgraft.recipe_sections import Tokenizer
from vocabgraft.steps.context import Context, StepResult
from vocabgraft.steps.data import texts
from vocabgraft.steps.mixing import FILE as SOURCES
from vocabgraft.steps.mixing import source_sizes
from vocabgraft.tokenizer import measure
from vocabgraft.tokenizer.boundary import line_rule, word_rule
from vocabgraft.tokenizer.count import WordCounts, count_shards
from vocabgraft.tokenizer.expand import Expansion, expand_tokenizer
from vocabgraft.tokenizer.room import free_ids
from vocabgraft.tokenizer.select import Limits, Selection, select_pieces, unreachable, wrong_parts
from vocabgraft.tokenizer.train import Candidate, train_pieces
from vocabgraft.tokenizer.train_sentencepiece import train_sentencepiece
from vocabgraft.tokenizer.vocabulary import read_model

_PROOF_BYTES = 4_000_000  # of each side: what the proofs of 13-expand-tokenizer read


def train(context: Context) -> StepResult:
    """Count words of the target corpus and learn candidates for new pieces."""
    recipe, spec = context.recipe, context.recipe.tokenizer
    script = script_pattern(recipe.data.script)
    base = measure.load_tokenizer(context.base_folder())
    rule = line_rule() if spec.cross_word else word_rule(base)
    context.reporter.say(f"counting words ({rule.reason})")
    counts = count_shards(
        texts(context, "target", "train"),
        rule,
        context.scratch / "words",
        threads=context.machine.threads,
        scratch=context.scratch,
    ).having(script.pattern)
    floor = max(spec.min_count, math.ceil(spec.per_million * counts.total / 1e6))
    context.reporter.say(f"learning pieces over {len(counts):,} different words")
    if spec.method == "continued-bpe":
        candidates = train_pieces(
            base, counts, script=script, size=spec.pieces, min_count=floor, cross_word=spec.cross_word
        )
    else:
        candidates = train_sentencepiece(base, counts, script=script, size=spec.pieces, min_count=floor)
    write_json(context.out / "candidates.json", [[c.piece, list(c.parts), list(c.merge), c.count] for c in candidates])
    counts.save(context.out / "words.parquet")
    return StepResult(
        {
            "words": counts.total,
            "different_words": len(counts),
            "cut": rule.reason,
            "min_count": floor,
            "candidates": len(candidates),
        }
    )


def select(context: Context) -> StepResult:
    """Choose the pieces that go in; say what was left out and how well each is supported."""
    spec, base = context.recipe.tokenizer, context.base_folder()
    raw = context.read_json("11-train-tokenizer", "candidates.json")
    candidates = [Candidate(piece, tuple(parts), tuple(merge), count) for piece, parts, merge, count in raw]
    limits = Limits(spec.pieces, spec.rare_share, spec.stop_at_knee, _unwanted(spec, [c.piece for c in candidates]))
    free = free_ids(base, spec.reserved_slots)
    chosen = select_pieces(
        base,
        candidates,
        WordCounts.load(context.run.path("11-train-tokenizer", "words.parquet")),
        limits,
        place=spec.place,
        reserved_slots=spec.reserved_slots,
        room=len(free.free) if spec.place == "slots" else None,
    )
    rows = [[c.piece, list(c.parts), list(c.merge), n] for c, n in zip(chosen.pieces, chosen.uses, strict=True)]
    write_json(context.out / "pieces.json", rows)
    write_json(context.out / "dropped.json", chosen.dropped)
    return StepResult(_support(chosen) | {"room": free.describe()})


def _unwanted(spec: Tokenizer, pieces: list[str]) -> dict[str, Collection[str]]:
    from vocabgraft.tokenizer import korean

    found: dict[str, Collection[str]] = {}
    if spec.drop_names:
        found["a name"] = korean.names(pieces)
    if spec.drop_particles:
        found["a particle glued on"] = korean.glued_particles(pieces)
    return found


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
    pieces = [Candidate(piece, tuple(parts), tuple(merge)) for piece, parts, merge, _ in rows]
    spec = context.recipe.tokenizer
    context.reporter.say(f"placing {len(pieces):,} pieces ({spec.place})")
    expansion = expand_tokenizer(
        base_folder, pieces, [n for *_, n in rows], out, place=spec.place, reserved_slots=spec.reserved_slots
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
    sizes = source_sizes(context, out)
    write_json(context.out / SOURCES, sizes)
    return StepResult(
        _figures(base_folder, out, expansion, target) | {"english_ids_changed": changed, "sources": sizes}
    )


def prove(
    base_folder: Path, out: Path, expansion: Expansion, *, target: list[str], replay: list[str]
) -> dict[str, Any]:
    """What is wrong with an expansion, by proof; empty values mean proven. Byte-level tokenizers have one file only."""
    base, new = measure.load_tokenizer(base_folder), measure.load_tokenizer(out)
    lost_before = set(measure.not_restored(base, target))  # SmolLM2 has no piece for 21 bytes and drops them
    found = {
        "ids changed in text without the script": measure.changed_ids(base, new, replay),
        "unreachable new pieces": unreachable(new, expansion.pieces),
        "parts that do not spell their piece": wrong_parts(base, expansion.pieces, expansion.parts),
        "base tokens that moved": measure.moved_tokens(base, new, expansion.ids),
        "texts that no longer come back": len(set(measure.not_restored(new, target)) - lost_before),
    }
    if (out / "tokenizer.model").is_file():
        before, after = (read_model(folder / "tokenizer.model") for folder in (base_folder, out))
        found["base pieces that moved"] = measure.moved_pieces(before, after, expansion.ids)
        differing = measure.disagreements(out, target + replay)
        found["texts tokenizer.model and tokenizer.json read differently"] = len(differing)
    return found


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
