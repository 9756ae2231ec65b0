"""Checks of one model or tokenizer folder, from its files alone: no torch, no weights in memory.

Each check is one function of a `Folder` that says nothing (None) where it does not apply. What is checked is what
was seen to break models in public: two tokenizer files that drifted apart, a head dropped or invented in silence
(huggingface/transformers#43429, vllm-project/vllm#51063), added tokens that move ids, files cut short.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from vocabgraft.errors import TokenizerError
from vocabgraft.finding import Finding
from vocabgraft.models.headers import TensorPlace, look_alike, read_headers
from vocabgraft.tokenizer.compare import vocabulary_of
from vocabgraft.tokenizer.measure import disagreements, load_tokenizer

_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "tok_embeddings.weight")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_MODALITY = re.compile(r"((?:image|boi|eoi|audio|boa|eoa|video)\w*?)_token_(?:index|id)")


class Folder:
    """The files of one model or tokenizer. Weights are looked at by their headers, when a check asks."""

    def __init__(self, path: Path, texts: Sequence[str], *, needs_tokenizer: bool = True) -> None:
        """needs_tokenizer: raise TokenizerError when there is none; an adapter of PEFT may come without."""
        if not path.is_dir():
            raise TokenizerError(f"{path}: no such folder; name a folder with tokenizer.json")
        self.path = path
        self.texts = texts
        self.has_tokenizer = (path / "tokenizer.json").is_file()
        if needs_tokenizer:
            load_tokenizer(path)
        self.config = self.read_json("config.json")
        self.tokenizer_config = self.read_json("tokenizer_config.json")

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON object of the folder; empty when there is none."""
        path = self.path / name
        try:
            found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        except ValueError as e:
            raise TokenizerError(f"{path}: not JSON ({e}); restore the file") from e
        return found if isinstance(found, dict) else {}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of tokenizer.json."""
        return load_tokenizer(self.path)

    @property
    def text_config(self) -> dict[str, Any]:
        """The part of config.json about the language model, where it is nested (models that also see or hear)."""
        nested = (self.config.get(k) for k in ("text_config", "llm_config"))
        return next((c for c in nested if isinstance(c, dict)), {})

    @cached_property
    def headers(self) -> tuple[dict[str, TensorPlace], list[str]]:
        """Tensors by name, and what is wrong with their files."""
        return read_headers(self.path)

    @property
    def embedding(self) -> TensorPlace | None:
        """The input matrix."""
        return next((t for n, t in sorted(self.headers[0].items()) if n.endswith(_EMBEDDINGS)), None)

    @property
    def head(self) -> TensorPlace | None:
        """The output matrix, when it is stored on its own (quantised ones too)."""
        found = (t for n, t in sorted(self.headers[0].items()) if "lm_head." in n or n.endswith("embed_out.weight"))
        return next(found, None)

    @cached_property
    def tokens(self) -> int:
        """Highest id plus one."""
        return max(vocabulary_of(self.tokenizer).values(), default=-1) + 1

    @property
    def stated_rows(self) -> int | None:
        """What config.json says about the rows."""
        stated = self.text_config.get("vocab_size", self.config.get("vocab_size"))
        return int(stated) if stated is not None else None

    @property
    def rows(self) -> int | None:
        """Rows of the input matrix: of the weights, else as stated."""
        return self.embedding.shape[0] if self.embedding else self.stated_rows


def figures_of(folder: Folder) -> dict[str, Any]:
    """Counts of one folder; None where a file is not there to count."""
    tensors = folder.headers[0].values()
    return {
        "tokens": folder.tokens,
        "rows": folder.rows,
        "padded_rows": max(0, folder.rows - folder.tokens) if folder.rows is not None else None,
        "parameters": sum(t.numbers for t in tensors) or None,
        "weight_bytes": sum(t.end - t.start for t in tensors) or None,
    }


def two_files(folder: Folder) -> Finding | None:
    """tokenizer.model and tokenizer.json hold the same pieces and cut the same texts alike."""
    path = folder.path / "tokenizer.model"
    if not path.is_file():
        return None
    import sentencepiece

    name = "tokenizer.model = tokenizer.json"
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        different = disagreements(folder.path, folder.texts)
    except (RuntimeError, OSError, ValueError) as e:
        why = str(e).splitlines()[0][:80] if str(e) else type(e).__name__
        return Finding(name, "warn", f"tokenizer.model cannot be read as SentencePiece ({why})", "remove or restore it")
    added = folder.tokenizer.get_added_tokens_decoder()
    ids = [i for i in range(model.get_piece_size()) if model.id_to_piece(i) != folder.tokenizer.id_to_token(i)]
    pieces = [i for i in ids if i not in added]
    beyond = [i for i in range(model.get_piece_size(), folder.tokens) if i not in added]
    if different or pieces or beyond:
        said = [f"{len(different)} of {len(folder.texts)} sample texts differ"] if different else []
        said += [_pair(model, folder.tokenizer, pieces)] if pieces else []
        said += [f"{len(beyond):,} pieces are not in tokenizer.model, e.g. {beyond[0]}"] if beyond else []
        fix = "llama.cpp and others read tokenizer.model: write both files from one table (tokenizer.vocabulary)"
        return Finding(name, "fail", "; ".join(said), fix)
    if ids:
        return Finding(name, "warn", _pair(model, folder.tokenizer, ids), "special names differ: check the GGUF file")
    return Finding(name, "ok", f"same pieces, same ids on {len(folder.texts)} sample texts")


def _pair(model: Any, tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    first = ids[0]
    return f"{len(ids):,} ids differ, e.g. {first}: {model.id_to_piece(first)!r}, {tokenizer.id_to_token(first)!r}"


def rows_for_tokens(folder: Folder) -> Finding | None:
    """Every token has a row; rows without a token are said."""
    rows, tokens = folder.rows, folder.tokens
    if rows is None:
        return None
    name = "rows for tokens"
    if folder.embedding is not None and folder.stated_rows not in (None, rows):
        found = f"config.json says vocab_size {folder.stated_rows:,}, the weights have {rows:,} rows"
        return Finding(name, "fail", found, f"set vocab_size to {rows}")
    if tokens <= rows:
        padded = f"; {rows - tokens:,} padded rows" if tokens < rows else ""
        return Finding(name, "ok", f"{tokens:,} tokens, {rows:,} rows{padded}")
    added = folder.tokenizer.get_added_tokens_decoder()
    beyond = [i for i in range(rows, tokens) if i not in added]
    names = ", ".join(repr(folder.tokenizer.id_to_token(i)) for i in range(rows, min(tokens, rows + 3)))
    found = f"{tokens:,} tokens, {rows:,} rows: {names}{' …' if tokens > rows + 3 else ''} without a row"
    if beyond:
        return Finding(name, "fail", found, "such a token is an index error: resize the matrix, or drop the tokens")
    return Finding(name, "warn", found, "added tokens only: an index error when one is used")


def tying(folder: Folder) -> Finding | None:
    """The tie flag agrees with what is stored, at both levels of config.json."""
    outer, inner = folder.config.get("tie_word_embeddings"), folder.text_config.get("tie_word_embeddings")
    if not folder.config:
        return None
    name = "tied embeddings"
    if None not in (outer, inner) and outer != inner:
        return Finding(
            name, "fail", f"tie_word_embeddings: {outer} above, {inner} in text_config", "make both the same"
        )
    tied = inner if outer is None else outer
    if folder.embedding is None:
        return Finding(name, "ok", f"tie_word_embeddings: {tied}; no weights here to compare")
    if folder.head is None:
        if tied is False:
            fix = "the head would start at random: set the flag to true, or restore lm_head.weight"
            return Finding(name, "fail", "flag false, but no lm_head.weight", fix)
        if outer is None and inner:
            fix = "some readers look above only and start the head at random: say true there too"
            return Finding(name, "warn", "flag true in text_config only", fix)
        return Finding(name, "ok", "one matrix")
    if tied is False:
        return Finding(name, "ok", "two matrices")
    if look_alike(folder.embedding, folder.head):
        return Finding(name, "warn", "lm_head.weight is a copy of the input matrix", "leave it out: the flag says tied")
    said = "flag true" if tied else "no flag (readers may assume true)"
    fix = "the stored head is dropped in silence: set tie_word_embeddings to false"
    return Finding(name, "fail", f"{said}, but lm_head.weight differs from the input matrix", fix)


def stale_added_tokens(folder: Folder) -> Finding | None:
    """added_tokens_decoder and added_tokens.json name what tokenizer.json has at these ids."""
    decoder = folder.tokenizer_config.get("added_tokens_decoder") or {}
    named = [(int(i), t["content"] if isinstance(t, dict) else t) for i, t in decoder.items() if str(i).isdigit()]
    named += [(i, text) for text, i in folder.read_json("added_tokens.json").items()]
    if not named:
        return None
    wrong = [(i, text) for i, text in sorted(named) if folder.tokenizer.id_to_token(i) != text]
    name = "added tokens"
    if not wrong:
        return Finding(name, "ok", f"{len(named):,} entries agree with tokenizer.json")
    i, text = wrong[0]
    found = f"{len(wrong):,} stale, e.g. {i}: {text!r}, tokenizer.json has {folder.tokenizer.id_to_token(i)!r}"
    return Finding(name, "fail", found, "transformers adds them again and moves other ids: delete these entries")


def modality_tokens(folder: Folder) -> Finding | None:
    """Image and audio ids of config.json are the tokens the tokenizer means."""
    checked, wrong = 0, []
    for key, i in sorted(folder.config.items()):
        match = _MODALITY.fullmatch(key)
        if match is None or not isinstance(i, int):
            continue
        checked += 1
        wanted = folder.tokenizer_config.get(f"{match[1]}_token")
        here = folder.tokenizer.id_to_token(i)
        if here is None or (wanted and here != wanted) or i not in folder.tokenizer.get_added_tokens_decoder():
            wrong.append(f"{key} {i} is {here!r}" + (f", not {wanted!r}" if wanted and here != wanted else ""))
    if not checked:
        return None
    if wrong:
        fix = "images would land on another token: new pieces must not take or move this id"
        return Finding("image and audio tokens", "fail", "; ".join(wrong), fix)
    return Finding("image and audio tokens", "ok", f"{checked} ids agree")


def duplicates(folder: Folder) -> Finding:
    """No piece is written twice and no id has two pieces."""
    twice: list[str] = []

    def keep(rows: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(rows)
        if len(found) < len(rows):
            seen: set[str] = set()
            twice.extend(k for k, _ in rows if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        return found

    raw = json.loads((folder.path / "tokenizer.json").read_text("utf-8"), object_pairs_hook=keep)
    vocabulary = raw.get("model", {}).get("vocab", {})
    pairs = vocabulary.items() if isinstance(vocabulary, dict) else ((p, i) for i, (p, _) in enumerate(vocabulary))
    owner: dict[int, str] = {}
    shared: list[str] = []
    for piece, i in [*pairs, *((t["content"], t["id"]) for t in raw.get("added_tokens", []))]:
        if owner.setdefault(i, piece) != piece:
            shared.append(f"{i}: {owner[i]!r}, {piece!r}")
    if not twice and not shared:
        return Finding("duplicate pieces", "ok", f"{len(owner):,} ids, each with one piece")
    said = [f"{len(twice)} written twice, e.g. {twice[0]!r}"] if twice else []
    said += [f"{len(shared)} ids with two pieces, e.g. {shared[0]}"] if shared else []
    return Finding("duplicate pieces", "fail", "; ".join(said), "which one wins depends on the reader: keep one")


def foreign_code(folder: Folder) -> Finding | None:
    """No file asks the reader to run Python that came with the model."""
    files = {"config.json": folder.config, "tokenizer_config.json": folder.tokenizer_config}
    found = [name for name, content in files.items() if "auto_map" in content]
    if found:
        fix = "loading would run code that came with the model (vocabgraft refuses): remove auto_map"
        return Finding("foreign code", "fail", f"auto_map in {', '.join(found)}", fix)
    return Finding("foreign code", "ok", "none") if folder.config else None


def weight_files(folder: Folder) -> Finding | None:
    """Weights are safetensors and whole."""
    pickled = sorted(p.name for pattern in _PICKLED for p in folder.path.glob(pattern) if p.stem != "training_args")
    problems = folder.headers[1]
    if problems:
        return Finding(
            "weight files", "fail", "; ".join(problems[:3]), "load nothing from this folder until it is whole"
        )
    if folder.headers[0]:
        return Finding("weight files", "ok", f"{len(folder.headers[0]):,} tensors in safetensors, files whole")
    if pickled:
        fix = "pickle can run code when read: convert with save_pretrained(safe_serialization=True) in a sandbox"
        return Finding("weight files", "fail", f"only pickled weights: {', '.join(pickled[:3])}", fix)
    return None


def chat_template(folder: Folder) -> Finding:
    """There is a chat template."""
    if template_of(folder):
        return Finding("chat template", "ok", "present")
    fix = "chat and serving need one: copy chat_template.jinja from the instruction-tuned base"
    return Finding("chat template", "warn", "none", fix)


def template_of(folder: Folder) -> str:
    """The chat template, wherever it is kept; empty when there is none."""
    path = folder.path / "chat_template.jinja"
    if path.is_file():
        return path.read_text("utf-8")
    kept = folder.read_json("chat_template.json").get("chat_template") or folder.tokenizer_config.get("chat_template")
    return kept if isinstance(kept, str) else json.dumps(kept, sort_keys=True) if kept else ""


CHECKS: tuple[Callable[[Folder], Finding | None], ...] = (
    two_files,
    rows_for_tokens,
    tying,
    stale_added_tokens,
    modality_tokens,
    duplicates,
    foreign_code,
    weight_files,
    chat_template,
)
