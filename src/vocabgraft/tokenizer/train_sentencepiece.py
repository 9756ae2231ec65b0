"""The classic way, made correct: train a SentencePiece model of the language, then take its pieces.

What is usually wrong with it (scores that interleave with the base's, pieces with Latin letters or digits, pieces
no merge can reach) cannot happen: only pieces of the script are taken, new pieces go below every base piece
(`vocabulary.put`), and selection drops and lists what is unreachable.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import regex
import sentencepiece
from tokenizers import Tokenizer

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.count import WordCounts
from vocabgraft.tokenizer.spelling import is_byte_level
from vocabgraft.tokenizer.train import Candidate
from vocabgraft.tokenizer.vocabulary import SPACE

VOCABULARY = 40_000
"""Size of the intermediate model, as in EEVE (arXiv 2402.14714, section 3.1)."""


def train_sentencepiece(
    base: Tokenizer, counts: WordCounts, *, script: regex.Pattern[str], size: int, min_count: int
) -> list[Candidate]:
    """Pieces of a SentencePiece BPE model of the words of the script, in its order, as candidates.

    Only pieces that occur `min_count` times in words are taken, at most `size` that the base does not have. Merges
    are not known, so this is for SentencePiece bases: TokenizerError for a byte-level one.
    """
    if is_byte_level(base):
        raise TokenizerError(
            'tokenizer.method: "sentencepiece" cannot be merged into a byte-level base; use "continued-bpe"'
        )
    only = regex.compile(rf"{SPACE}?(?:{script.pattern})+")
    words = _words(counts, script)
    if not words:
        raise TokenizerError("the corpus holds no word of the target script; check data.target and data.script")
    model = _fit(words)
    known = base.get_vocab(with_added_tokens=True)
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size()) if not model.is_control(i)]
    wanted = [p for p in pieces if p not in known and len(p.removeprefix(SPACE)) > 1 and only.fullmatch(p)]
    uses = _uses(model, words)
    wanted = [p for p in wanted if uses.get(p, 0) >= min_count][:size]
    texts = [p.replace(SPACE, " ") for p in wanted]
    encodings = base.encode_batch_fast(texts, add_special_tokens=False)
    return [Candidate(p, tuple(e.ids), count=uses[p]) for p, e in zip(wanted, encodings, strict=True)]


def _words(counts: WordCounts, script: regex.Pattern[str]) -> dict[str, int]:
    """Runs of the script in the counted words, with the space before them as ▁."""
    run = regex.compile(rf" ?(?:{script.pattern})+")
    found: dict[str, int] = {}
    for words, times in counts.batches():
        for word, n in zip(words.to_list(), times.tolist(), strict=True):
            for part in run.findall(word):
                key = part.replace(" ", SPACE)
                found[key] = found.get(key, 0) + n
    return found


def _fit(words: dict[str, int]) -> sentencepiece.SentencePieceProcessor:
    letters = len(set("".join(words)))
    out = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_rows(words),
        model_writer=out,
        input_format="tsv",
        model_type="bpe",
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,
        character_coverage=1.0 if letters < VOCABULARY // 2 else 0.9999,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_unicode_script=False,
        max_sentence_length=1 << 20,
        num_threads=1,  # the order of equal counts must not depend on threads
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


def _rows(words: dict[str, int]) -> Iterator[str]:
    return (f"{word}\t{n}" for word, n in sorted(words.items()))


def _uses(model: sentencepiece.SentencePieceProcessor, words: dict[str, int]) -> dict[str, int]:
    uses: dict[str, int] = {}
    keys = sorted(words)
    for key, pieces in zip(keys, model.encode(keys, out_type=str), strict=True):
        for piece in pieces:
            uses[piece] = uses.get(piece, 0) + words[key]
    return uses
