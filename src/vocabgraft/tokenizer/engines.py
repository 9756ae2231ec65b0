"""The programs that read a tokenizer in practice, behind one call: sentencepiece, tokenizers, llama.cpp.

Each reads its own file (tokenizer.model, tokenizer.json, GGUF) and each was seen to be the only one that was wrong.
llama.cpp tokenises through its own server with next to no weights: the smallest model with the real tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from vocabgraft.errors import TokenizerError, VocabgraftError

Encode = Callable[[Sequence[str]], list[list[int]]]
"""Ids of each text, without BOS and EOS."""


@dataclass(frozen=True)
class Engine:
    """One program with one tokenizer. `reads_specials`: whether `<bos>` in a text is the token."""

    name: str
    encode: Encode
    reads_specials: bool
    version: str


@dataclass(frozen=True)
class Absent:
    """An engine that could not be had, and why."""

    name: str
    why: str


def hugging_face(tokenizer: Tokenizer) -> Engine:
    """The engine of tokenizer.json."""
    import tokenizers

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    return Engine("tokenizers", encode, True, tokenizers.__version__)


def sentence_piece(folder: Path) -> Engine | Absent:
    """The engine of tokenizer.model; Absent when there is none."""
    import sentencepiece

    path, name = folder / "tokenizer.model", "sentencepiece"
    if not path.is_file():
        return Absent(name, "no tokenizer.model")
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError, ValueError) as e:
        return Absent(name, f"tokenizer.model cannot be read ({str(e).splitlines()[0][:80] if str(e) else type(e)})")

    def encode(texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = model.encode(list(texts))
        return found

    return Engine(name, encode, False, sentencepiece.__version__)


@contextmanager
def llama_cpp(folder: Path, gguf: Path | None = None) -> Iterator[Engine | Absent]:
    """llama.cpp with the tokenizer of a GGUF file, or without one with the tokenizer that our export would write.

    Absent when xllamacpp or gguf is not installed, or when the folder's tokenizer has no GGUF form.
    """
    name = "llama.cpp"
    try:
        import xllamacpp
    except ImportError:
        yield Absent(name, "xllamacpp is not installed: pip install 'vocabgraft[serve]'")
        return
    with TemporaryDirectory() as place:
        try:
            server = _server(folder, gguf, Path(place) / "tokenizer.gguf")
            entered = server.__enter__()
        except VocabgraftError as e:
            yield Absent(name, str(e))
            return
        try:
            yield Engine(name, entered.tokenize_all, True, str(getattr(xllamacpp, "__version__", "unknown")))
        finally:
            server.__exit__(None, None, None)


def _server(folder: Path, gguf: Path | None, place: Path) -> AbstractContextManager[Any]:
    from vocabgraft.deployment.gguf_tokenizer import copy_tokenizer, write_folder_tokenizer
    from vocabgraft.deployment.serve import LlamaServer, new_key

    if gguf is None:
        write_folder_tokenizer(folder, place)
    else:
        copy_tokenizer(gguf, place)
    return LlamaServer(place, key=new_key(), context=256, threads=1, warmup=False)


def find_gguf(folder: Path) -> Path | None:
    """The one GGUF file inside a folder; None without any. Raises TokenizerError for several."""
    found = sorted(p for p in folder.glob("*.gguf") if "mmproj" not in p.name)
    if len(found) > 1:
        raise TokenizerError(f"{folder}: {len(found)} GGUF files ({found[0].name}, …); say which one with --gguf FILE")
    return found[0] if found else None
