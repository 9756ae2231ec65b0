"""Gemma 3 270M with new Korean pieces and subword-mean rows, untrained: enough to measure speed, which asks for the
shapes and the tokenizer of an expanded model and not for its quality. Made once (two minutes), kept in the cache."""

from __future__ import annotations

import shutil
from pathlib import Path

from bases import say
from safetensors.torch import load_file, save_file

from vocabgraft.corpus.document import Tally, held_out, read_source
from vocabgraft.corpus.script import script_pattern
from vocabgraft.embedding.initialise import NewPieces, build_rows
from vocabgraft.machine import cache_folder
from vocabgraft.tokenizer.boundary import word_rule
from vocabgraft.tokenizer.count import count_words
from vocabgraft.tokenizer.expand import expand_tokenizer
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.tokenizer.select import Limits, select_pieces
from vocabgraft.tokenizer.train import train_pieces

DATA = Path("../shared/data/ko")
LAW = DATA / "medical_law.jsonl.zst"
PIECES, HELD_OUT = 6000, 0.15


def korean(source: str) -> tuple[list[str], list[str]]:
    """Texts of a source: to learn pieces from, and held out."""
    sides: tuple[list[str], list[str]] = ([], [])
    for document in read_source(source, language="ko", license="", tally=Tally()):
        sides[held_out(document.id, HELD_OUT)].append(document.text)
    return sides


def source() -> str:
    """Medical law where the development data is there, else the package's samples (fewer tokens saved)."""
    return str(LAW) if LAW.is_file() else "samples:korean"


def expanded(base: Path, name: str, texts: list[str]) -> Path:
    """The base folder with pieces learnt from `texts`."""
    out = cache_folder() / "models" / f"{base.name}-{name}-{PIECES}"
    if out.is_dir():
        return out
    say(f"making {out.name}")
    tokenizer = load_tokenizer(base)
    words = count_words(texts, word_rule(tokenizer))
    candidates = train_pieces(tokenizer, words, script=script_pattern("Hangul"), size=PIECES * 3 // 2, min_count=3)
    chosen = select_pieces(base, candidates, words, Limits(PIECES))
    place = out.with_suffix(".partial")
    shutil.rmtree(place, ignore_errors=True)
    expansion = expand_tokenizer(base, chosen.pieces, chosen.uses, place)
    weights = load_file(str(base / "model.safetensors"))
    (matrix,) = (w for n, w in weights.items() if n.endswith("embed_tokens.weight"))
    rows, _ = build_rows(matrix.float(), NewPieces(expansion.ids, expansion.pieces, expansion.parts))
    matrix[list(expansion.ids)] = rows.to(matrix)
    save_file(weights, str(place / "model.safetensors"), {"format": "pt"})
    for file in ("config.json", "generation_config.json"):
        shutil.copyfile(base / file, place / file)
    place.rename(out)
    return out
