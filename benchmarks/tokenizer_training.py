"""Learning Korean pieces for Gemma 3 on all of ../shared/data/ko: time, memory, and what k pieces save per domain.

    python benchmarks/tokenizer_training.py             6,143 pieces, 300 MB; the curve; other methods beside
    python benchmarks/tokenizer_training.py --quick     the first 20 MB, at most 3 minutes

Documents are held out by hash (5 %) and every share is measured on these. `seconds` is counting and learning on two
threads, from texts in memory. Beside: the classic SentencePiece method at the same number of pieces, pieces across
words, and the stock trainer of `tokenizers` fed with the same runs (the same merges; it wants repeated text instead
of counts). Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bases import gemma, smollm2
from tokenizers import Tokenizer, models, trainers

from vocabgraft.audit import prose
from vocabgraft.corpus.document import Tally, held_out, read_source
from vocabgraft.corpus.script import script_pattern
from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer import korean
from vocabgraft.tokenizer.boundary import line_rule, word_rule
from vocabgraft.tokenizer.count import WordCounts, count_words, merged, token_counts
from vocabgraft.tokenizer.curve import SIZES, curve, knee
from vocabgraft.tokenizer.expand import expand_tokenizer
from vocabgraft.tokenizer.measure import changed_ids, load_tokenizer
from vocabgraft.tokenizer.select import Limits, select_pieces
from vocabgraft.tokenizer.train import Candidate, runs_of_script, train_pieces
from vocabgraft.tokenizer.train_sentencepiece import train_sentencepiece

DATA = Path("../shared/data/ko")
DOMAINS = {"law": "laws", "medical law": "medical_law", "nsmc": "nsmc_reviews", "ms docs": "msdocs"}
HANGUL = script_pattern("Hangul")
SLOTS = 6143


def corpora(limit: int) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Training and held-out texts by domain. Medical law is a part of the laws: its held-out part is theirs too."""
    train: dict[str, list[str]] = {}
    held: dict[str, list[str]] = {}
    for domain, name in DOMAINS.items():
        (file,) = DATA.glob(f"{name}.*")
        train[domain], held[domain] = [], []
        size = 0
        for document in read_source(str(file), language="ko", license="", tally=Tally()):
            side = held if held_out(document.text[:200], 0.05) else train
            side[domain].append(document.text)
            size += len(document.text.encode())
            if size > limit:
                break
    return train, held


_BEFORE: dict[str, int] = {}  # tokens of the base by domain: the same for every expansion


def tokens(tokenizer: Tokenizer, texts: list[str]) -> int:
    return int(token_counts(tokenizer, count_words(texts, word_rule(tokenizer), threads=2)).sum())


def shares(base: Tokenizer, expanded: Tokenizer, held: dict[str, list[str]]) -> dict[str, float]:
    """Fewer tokens by domain, measured with the tokenizer that was written, by its own boundaries."""
    found = {}
    for domain, texts in held.items():
        if domain not in _BEFORE:
            _BEFORE[domain] = tokens(base, texts)
        found[domain] = round(1 - tokens(expanded, texts) / _BEFORE[domain], 4)
    return found


def expanded(base: Path, pieces: list[Candidate]) -> Tokenizer:
    with TemporaryDirectory() as folder:
        expand_tokenizer(base, pieces, [0] * len(pieces), Path(folder))
        return Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 MB of each domain")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print(json.dumps({"skipped": f"{DATA} is not here; this benchmark needs the development data"}))
        return
    folder = gemma()
    base = load_tokenizer(folder)
    rule = word_rule(base)
    train, held_texts = corpora(5_000_000 if arguments.quick else 1 << 40)
    texts = [t for side in train.values() for t in side]
    size = sum(len(t.encode()) for t in texts) / 1e6

    began = time.monotonic()
    counts = count_words(texts, rule, threads=2)
    counted = time.monotonic()
    words = counts.having(HANGUL.pattern)
    candidates = train_pieces(base, words, script=HANGUL, size=max(SIZES), min_count=5)
    learnt_all = time.monotonic()
    first = train_pieces(base, words, script=HANGUL, size=SLOTS, min_count=5)
    seconds = counted - began + time.monotonic() - learnt_all
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"counted in {counted - began:.1f} s, learnt in {seconds - counted + began:.1f} s", file=sys.stderr)

    held = {domain: count_words(side, rule) for domain, side in held_texts.items()}
    chosen = select_pieces(folder, first, words, Limits(SLOTS))
    row: dict[str, Any] = {
        "pieces": len(chosen.pieces),
        "mb": round(size, 1),
        "seconds": round(seconds, 1),
        "counting_seconds": round(counted - began, 1),
        "peak_gb": round(peak, 2),
        "fewer_tokens": shares(base, expanded(folder, list(chosen.pieces)), held_texts),
        "prefix": first == candidates[: len(first)],
        "different_words": len(counts),
        "rare_share": round(chosen.rare_share, 4),
        "curve": curves(base, candidates, held),
        "knee": knee([c.count for c in candidates]),
    }
    print(json.dumps(row), file=sys.stderr)
    row["beside"] = beside(folder, base, words, train, held_texts)
    row["smollm2"] = smollm(train, held_texts)
    print(json.dumps(row, ensure_ascii=False))


def curves(base: Tokenizer, candidates: list[Candidate], held: dict[str, WordCounts]) -> dict[str, dict[int, float]]:
    """Share of tokens saved at each size, by domain and over all."""
    found = {}
    for domain, counts in {**held, "all": merged(list(held.values()))}.items():
        saved = curve(base, candidates, counts.having(HANGUL.pattern), HANGUL, cross_word=False).cumsum()
        total = int(token_counts(base, counts).sum())
        found[domain] = {k: round(float(saved[k - 1]) / total, 4) for k in SIZES if k <= len(saved)}
    return found


def beside(
    folder: Path, base: Tokenizer, words: WordCounts, train: dict[str, list[str]], held: dict[str, list[str]]
) -> dict[str, Any]:
    """Other ways to the same number of pieces."""
    began = time.monotonic()
    classic = train_sentencepiece(base, words, script=HANGUL, size=SLOTS, min_count=5)
    seconds = time.monotonic() - began
    chosen = select_pieces(folder, classic, words, Limits(SLOTS))
    found = {
        "sentencepiece 40,000, merged": {
            "seconds": round(seconds, 1),
            "pieces": len(chosen.pieces),
            "unreachable": len(chosen.dropped.get("unreachable", [])),
            "fewer_tokens": shares(base, expanded(folder, list(chosen.pieces)), held),
        }
    }
    law = train["medical law"]
    found["tokenizers' trainer, medical law alone"] = stock_trainer(base, count_words(law, word_rule(base)))
    found["bpe-continue, medical law alone"] = bpe_continue(base, law, held)
    lines = count_words(law, line_rule())
    for name, across in (("medical law alone", False), ("medical law alone, pieces across words", True)):
        counts = lines if across else count_words(law, word_rule(base))
        began = time.monotonic()
        pieces = train_pieces(base, counts, script=HANGUL, size=SLOTS, min_count=5, cross_word=across)
        seconds = time.monotonic() - began
        new = expanded(folder, pieces)
        found[name] = {"seconds": round(seconds, 1), "pieces": len(pieces), "fewer_tokens": shares(base, new, held)}
    return found | filtered(folder, base, law, held)


def filtered(folder: Path, base: Tokenizer, law: list[str], held: dict[str, list[str]]) -> dict[str, Any]:
    """Kiwi's filters, when it is installed: as many pieces, taken from twice as many candidates."""
    counts = count_words(law, word_rule(base))
    candidates = train_pieces(base, counts, script=HANGUL, size=2 * SLOTS, min_count=5)
    pieces = [c.piece for c in candidates]
    found = {}
    for name, tell in (("names", korean.names), ("glued particles", korean.glued_particles)):
        try:
            unwanted = tell(pieces)
        except TokenizerError as e:
            return {"filters": {"skipped": str(e)}}
        chosen = select_pieces(folder, candidates, counts, Limits(SLOTS, unwanted={name: unwanted}))
        found[f"medical law alone, without {name}"] = {
            "pieces": len(chosen.pieces),
            "dropped_among_the_first": len(unwanted & set(pieces[:SLOTS])),
            "fewer_tokens": shares(base, expanded(folder, list(chosen.pieces)), held),
        }
    return found


def stock_trainer(base: Tokenizer, counts: WordCounts) -> dict[str, Any]:
    """BpeTrainer of `tokenizers` on the same runs: ids as private letters, each run as often as it was counted."""
    ids, lengths, times = runs_of_script(base, counts, HANGUL)
    letters = {i: chr(0xF0000 + n) for n, i in enumerate(sorted(set(ids.tolist())))}
    text = "".join(letters[i] for i in ids.tolist())
    ends = lengths.cumsum()
    runs = [text[end - n : end] for end, n in zip(ends.tolist(), lengths.tolist(), strict=True)]
    began = time.monotonic()
    peer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=len(letters) + SLOTS, min_frequency=5, show_progress=False)
    peer.train_from_iterator((run for run, n in zip(runs, times.tolist(), strict=True) for _ in range(n)), trainer)
    seconds = time.monotonic() - began
    ours = train_pieces(base, counts, script=HANGUL, size=SLOTS, min_count=5)
    back = {letter: base.id_to_token(i) for i, letter in letters.items()}
    merges = json.loads(peer.to_str())["model"]["merges"]
    theirs = {"".join(back[c] for c in left + right) for left, right in merges}
    return {"seconds": round(seconds, 1), "same_pieces": round(len(theirs & {c.piece for c in ours}) / len(ours), 4)}


def bpe_continue(base: Tokenizer, texts: list[str], held: dict[str, list[str]]) -> dict[str, Any]:
    """The package of that name, when installed. Gemma has no pre-tokenizer, so it takes whole lines for words."""
    try:
        from bpe_continue import continue_training
    except ImportError:
        return {"skipped": "not installed: pip install bpe-continue"}
    size = base.get_vocab_size(with_added_tokens=True) + SLOTS
    lines = [line for text in texts for line in text.splitlines()]
    began = time.monotonic()
    try:
        new = continue_training(base, texts=lines, vocab_size=size, min_frequency=5, show_progress=False)
    except Exception as e:  # a peer may fail in any way; the benchmark goes on
        return {"failed": f"{type(e).__name__}: {e}"[:300]}
    seconds = time.monotonic() - began
    pieces = sorted(set(new.get_vocab()) - set(base.get_vocab()))
    mixed = sum(not all(HANGUL.fullmatch(c) for c in p.removeprefix("\u2581")) for p in pieces)
    english = [*prose("english"), (DATA.parent / "en/wikitext2_test.txt").read_text("utf-8")]
    return {
        "seconds": round(seconds, 1),
        "pieces": len(pieces),
        "pieces_not_of_the_script": mixed,
        "english_ids_changed": changed_ids(base, new, english),
        "fewer_tokens": shares(base, new, held),
    }


def smollm(train: dict[str, list[str]], held: dict[str, list[str]]) -> dict[str, Any]:
    """10,000 pieces after SmolLM2's ids: how many times fewer tokens by domain."""
    folder = smollm2()
    base = load_tokenizer(folder)
    rule = word_rule(base)
    counts = count_words((t for side in train.values() for t in side), rule, threads=2).having(HANGUL.pattern)
    began = time.monotonic()
    candidates = train_pieces(base, counts, script=HANGUL, size=10_000, min_count=5)
    seconds = time.monotonic() - began
    with TemporaryDirectory() as place:
        expand_tokenizer(folder, candidates, [0] * len(candidates), Path(place), place="append")
        new = Tokenizer.from_file(str(Path(place) / "tokenizer.json"))
    times = {}
    for domain, side in held.items():
        words = count_words(side, rule)
        times[domain] = round(float(token_counts(base, words).sum() / token_counts(new, words).sum()), 3)
    return {"pieces": len(candidates), "learning_seconds": round(seconds, 1), "times_fewer_tokens": times}


if __name__ == "__main__":
    main()
