"""The piece table of a SentencePiece BPE tokenizer, and the two files that must agree about it.

`tokenizer.model` (sentencepiece, llama.cpp, vLLM's GGUF path) merges by *score*; `tokenizer.json` (Hugging Face
tokenizers) merges by *rank in a list*. Both are written from this one table, so they cannot drift apart:
the merge list is every split of every normal piece, ordered by falling score (as in transformers'
`convert_slow_tokenizer.generate_merges`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vocabgraft.errors import TokenizerError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "▁"
_PLACEHOLDER = re.compile(r"<unused\d+>")


@dataclass(frozen=True)
class Vocabulary:
    """Pieces with scores and SentencePiece types, in id order. Immutable; `put` returns a new table."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[int, ...]
    unk_id: int = 3
    bos_id: int = 2
    eos_id: int = 1
    pad_id: int = 0

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def ids(self) -> dict[str, int]:
        """Piece -> id."""
        return {piece: i for i, piece in enumerate(self.pieces)}

    @property
    def lowest_score(self) -> float:
        """The lowest score of a normal piece: new pieces go below it, so no base merge ever changes."""
        return min(s for s, t in zip(self.scores, self.types, strict=True) if t == NORMAL)

    def put(self, at: list[int], pieces: list[str]) -> Vocabulary:
        """Place new normal pieces at given ids, in falling priority, below every piece that is there.

        Ids equal to `len(self)`, `len(self) + 1`, … append. Raises TokenizerError for a piece that exists
        already or an id that holds a piece in use.
        """
        known = set(self.pieces)
        new_p, new_s, new_t = list(self.pieces), list(self.scores), list(self.types)
        score = self.lowest_score
        for rank, (i, piece) in enumerate(zip(at, pieces, strict=True), start=1):
            if piece in known:
                raise TokenizerError(f"piece {piece!r} is already in the base vocabulary; select_pieces drops such")
            if i < len(new_p):
                if not _PLACEHOLDER.fullmatch(new_p[i]):
                    raise TokenizerError(f"id {i} holds {new_p[i]!r}, not an <unused> slot")
                new_p[i], new_s[i], new_t[i] = piece, score - rank, NORMAL
            elif i == len(new_p):
                new_p.append(piece)
                new_s.append(score - rank)
                new_t.append(NORMAL)
            else:
                raise TokenizerError(f"id {i} would leave a hole after {len(new_p)} pieces")
            known.add(piece)
        return replace(self, pieces=tuple(new_p), scores=tuple(new_s), types=tuple(new_t))

    def append_token(self, token: str, *, special: bool) -> Vocabulary:
        """The same table with one more piece at its end that is no text: a control or a user-defined piece."""
        kind = CONTROL if special else USER_DEFINED
        return replace(self, pieces=(*self.pieces, token), scores=(*self.scores, 0.0), types=(*self.types, kind))

    def merges(self, touching: Collection[str] | None = None) -> list[tuple[str, str]]:
        """Every (left, right) whose concatenation is a normal piece, best score first.

        With `touching`: only merges that make one of these pieces or take part of one.
        """
        mergeable = {p for p, t in zip(self.pieces, self.types, strict=True) if t in (NORMAL, USER_DEFINED)}
        ids = self.ids
        found: list[tuple[float, int, int, str, str]] = []
        for piece, score, kind in zip(self.pieces, self.scores, self.types, strict=True):
            if kind != NORMAL:
                continue
            wanted = touching is None or piece in touching
            for cut in range(1, len(piece)):
                left, right = piece[:cut], piece[cut:]
                if left in mergeable and right in mergeable and (wanted or _touches(touching, left, right)):
                    found.append((-score, ids[left], ids[right], left, right))
        found.sort()
        return [(left, right) for *_, left, right in found]

    def weave(self, ranked: Iterable[tuple[str, str]], added: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """`ranked`, an existing merge list, with each merge of `added` put in where its score belongs.

        `added` comes from `merges`. The order of `ranked` is kept. Merges of new pieces end up last; a merge that
        reaches an old piece by way of a new one gets the rank of the old piece, as sentencepiece gives it.
        """
        scores = {p: s for p, s, t in zip(self.pieces, self.scores, self.types, strict=True) if t == NORMAL}
        woven: list[tuple[str, str]] = []
        waiting = list(reversed(added))
        for left, right in ranked:
            here = scores.get(left + right)
            while waiting and here is not None and here < scores["".join(waiting[-1])]:
                woven.append(waiting.pop())
            woven.append((left, right))
        return woven + waiting[::-1]


def _touches(pieces: Collection[str] | None, left: str, right: str) -> bool:
    return pieces is not None and (left in pieces or right in pieces)


def read_model(path: Path) -> Vocabulary:
    """Read a SentencePiece BPE `tokenizer.model`. Unigram models are refused."""
    proto = _read_proto(path)
    spec = proto.trainer_spec
    return Vocabulary(
        pieces=tuple(p.piece for p in proto.pieces),
        scores=tuple(p.score for p in proto.pieces),
        types=tuple(p.type for p in proto.pieces),
        unk_id=spec.unk_id,
        bos_id=spec.bos_id,
        eos_id=spec.eos_id,
        pad_id=spec.pad_id,
    )


def _read_proto(path: Path) -> Any:
    from sentencepiece import sentencepiece_model_pb2 as pb

    proto = pb.ModelProto()
    try:
        proto.ParseFromString(Path(path).read_bytes())
    except OSError as e:
        raise TokenizerError(f"{path}: cannot be read ({e.strerror})") from e
    except Exception as e:
        raise TokenizerError(f"{path}: not a SentencePiece model ({e})") from e
    if proto.trainer_spec.model_type != pb.TrainerSpec.BPE:
        raise TokenizerError(f"{path}: a SentencePiece model of type BPE is needed; this one is unigram")
    return proto


def _fill(proto: Any, vocabulary: Vocabulary) -> None:
    del proto.pieces[:]
    for piece, score, kind in zip(vocabulary.pieces, vocabulary.scores, vocabulary.types, strict=True):
        row = proto.pieces.add(piece=piece, score=score)
        if kind != NORMAL:  # the default; sentencepiece does not write it either
            row.type = kind
    proto.trainer_spec.vocab_size = len(vocabulary)


def rewrite_model(base: Path, vocabulary: Vocabulary, path: Path) -> None:
    """Write the model file `base` with other pieces; its normalisation and all other settings stay."""
    proto = _read_proto(base)
    gone = {p.piece for p in proto.pieces}.difference(vocabulary.pieces)
    _fill(proto, vocabulary)
    spec = proto.trainer_spec
    for symbols in (spec.control_symbols, spec.user_defined_symbols):
        kept = [name for name in symbols if name not in gone]
        del symbols[:]
        symbols.extend(kept)
    Path(path).write_bytes(proto.SerializeToString(deterministic=True))


def write_model(vocabulary: Vocabulary, path: Path) -> None:
    """Write `tokenizer.model`: no normalisation, no dummy prefix, byte fallback (Gemma's settings)."""
    from sentencepiece import sentencepiece_model_pb2 as pb

    proto = pb.ModelProto()
    _fill(proto, vocabulary)
    spec = proto.trainer_spec
    spec.model_type = pb.TrainerSpec.BPE
    spec.byte_fallback = True
    spec.unk_id, spec.bos_id = vocabulary.unk_id, vocabulary.bos_id
    spec.eos_id, spec.pad_id = vocabulary.eos_id, vocabulary.pad_id
    names = vocabulary.pieces
    spec.unk_piece, spec.bos_piece = names[spec.unk_id], names[spec.bos_id]
    spec.eos_piece, spec.pad_piece = names[spec.eos_id], names[spec.pad_id]
    norm = proto.normalizer_spec
    norm.name = "identity"
    norm.add_dummy_prefix = False
    norm.remove_extra_whitespaces = False
    norm.escape_whitespaces = True
    Path(path).write_bytes(proto.SerializeToString(deterministic=True))


def write_json(vocabulary: Vocabulary, path: Path) -> None:
    """Write `tokenizer.json`: BPE over the whole text, spaces as ▁, byte fallback, BOS in front."""
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    names = vocabulary.pieces
    tok = Tokenizer(
        BPE(
            vocab=vocabulary.ids,
            merges=vocabulary.merges(),
            byte_fallback=True,
            fuse_unk=True,
            unk_token=names[vocabulary.unk_id],
        )
    )
    tok.normalizer = normalizers.Replace(" ", SPACE)
    tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tok.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    bos = names[vocabulary.bos_id]
    tok.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, vocabulary.bos_id)]
    )
    # Special ones first would reorder nothing: ids come from the vocabulary. Runs of spaces are matched after
    # normalisation (as ▁▁…), so that longest-match equals sentencepiece's, beyond 31 spaces too.
    added = [
        AddedToken(piece, special=kind in (CONTROL, UNKNOWN), normalized=set(piece) == {SPACE})
        for piece, kind in zip(names, vocabulary.types, strict=True)
        if kind in (CONTROL, UNKNOWN, USER_DEFINED)
    ]
    tok.add_special_tokens([t for t in added if t.special])
    tok.add_tokens([t for t in added if not t.special])
    if tok.get_vocab_size() != len(vocabulary):
        raise TokenizerError(f"{path}: {tok.get_vocab_size()} ids written for {len(vocabulary)} pieces")
    # Not tok.save: a full disk is to be an OSError, not a bare Exception out of Rust.
    Path(path).write_text(tok.to_str(pretty=False), "utf-8")


def slots(vocabulary: Vocabulary, reserved: int = 99) -> list[int]:
    """Ids that may be re-used: the `<unusedN>` pieces with N >= `reserved`, in id order.

    Gemma keeps `<unused0>`…`<unused98>` for itself (MedGemma 1.5 marks its thinking with 94 and 95).
    """
    return [
        i for i, piece in enumerate(vocabulary.pieces) if _PLACEHOLDER.fullmatch(piece) and int(piece[7:-1]) >= reserved
    ]


def write_config(vocabulary: Vocabulary, folder: Path, chat_template: str | None) -> None:
    """Write `tokenizer_config.json` (no added_tokens_decoder: a stale one silently moves the image token)."""
    names = vocabulary.pieces
    config: dict[str, Any] = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "spaces_between_special_tokens": False,
        "model_max_length": 32768,
        "bos_token": names[vocabulary.bos_id],
        "eos_token": names[vocabulary.eos_id],
        "unk_token": names[vocabulary.unk_id],
        "pad_token": names[vocabulary.pad_id],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1), "utf-8")
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template, "utf-8")


def write_tokenizer(vocabulary: Vocabulary, folder: Path, chat_template: str | None) -> None:
    """Write all tokenizer files of one vocabulary into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(vocabulary, folder / "tokenizer.model")
    write_json(vocabulary, folder / "tokenizer.json")
    write_config(vocabulary, folder, chat_template)


def iter_new(base: Vocabulary, expanded: Vocabulary) -> Iterator[tuple[int, str]]:
    """(id, piece) for every id whose piece differs from the base: the new rows."""
    for i, piece in enumerate(expanded.pieces):
        if i >= len(base) or base.pieces[i] != piece:
            yield i, piece
