"""Graft pieces onto a base tokenizer: in place of `<unused>` slots, so that no id moves and no matrix grows.

Everything downstream (weights, image token, vLLM, llama.cpp, adapters) keeps its shape. New pieces get scores
below every base piece and hold only letters of the target script: text without that script keeps its ids.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenizers import Tokenizer

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.train import Candidate
from vocabgraft.tokenizer.vocabulary import read_model, slots, write_json, write_model


@dataclass(frozen=True)
class Expansion:
    """What was added: `ids[i]` is the id of `pieces[i]`, which the base spells as `parts[i]`."""

    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    parts: tuple[tuple[int, ...], ...]
    uses: tuple[int, ...]

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False), "utf-8")

    @classmethod
    def load(cls, path: Path) -> Expansion:
        """Read what `save` wrote."""
        raw = json.loads(path.read_text("utf-8"))
        parts = tuple(tuple(p) for p in raw["parts"])
        return cls(tuple(raw["ids"]), tuple(raw["pieces"]), parts, tuple(raw["uses"]))


def expand_tokenizer(
    base: Path, pieces: Sequence[Candidate], uses: Sequence[int], out: Path, *, reserved_slots: int = 99
) -> Expansion:
    """Write the expanded tokenizer of the base folder into `out`; `tokenizer.model` and `.json` agree.

    Other tokenizer files (configuration, chat template, processor) are copied unchanged, but a stale
    `added_tokens_decoder` that still names a re-used slot is corrected. Raises TokenizerError when there are
    fewer free slots than pieces.
    """
    vocabulary = read_model(base / "tokenizer.model")
    room = slots(vocabulary, reserved_slots)
    if len(pieces) > len(room):
        raise TokenizerError(
            f"{len(pieces):,} pieces for {len(room):,} free <unused> slots of {base}; lower tokenizer.pieces"
        )
    ids = room[: len(pieces)]
    expanded = vocabulary.put(ids, [c.piece for c in pieces])
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(base.iterdir()):
        if path.is_file() and path.suffix in {".json", ".jinja"} and not _is_weight_file(path.name):
            shutil.copyfile(path, out / path.name)
    write_model(expanded, out / "tokenizer.model")
    write_json(expanded, out / "tokenizer.json")
    _keep_added_tokens(base / "tokenizer.json", out / "tokenizer.json", len(vocabulary))
    _clean_config(out / "tokenizer_config.json", set(ids))
    return Expansion(tuple(ids), tuple(c.piece for c in pieces), tuple(c.parts for c in pieces), tuple(uses))


def _is_weight_file(name: str) -> bool:
    return (
        name in {"config.json", "generation_config.json", "sha256.json"}
        or ".safetensors" in name
        or name.startswith("tokenizer.")
    )


def _keep_added_tokens(base: Path, out: Path, pieces: int) -> None:
    """Carry tokens that only `tokenizer.json` knows (Gemma 3 4B: `<image_soft_token>`, id 262144) at their ids."""
    if not base.exists():
        return
    added = Tokenizer.from_file(str(base)).get_added_tokens_decoder()
    extra = [(i, added[i]) for i in sorted(added) if i >= pieces]
    if not extra:
        return
    tokenizer = Tokenizer.from_file(str(out))
    for i, token in extra:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
        if tokenizer.token_to_id(token.content) != i:
            raise TokenizerError(f"{base}: added token {token.content!r} has id {i}, which cannot be kept")
    tokenizer.save(str(out), pretty=False)


def _clean_config(path: Path, reused: set[int]) -> None:
    """Take re-used ids out of `added_tokens_decoder`: transformers would re-add them at the end and move others."""
    if not path.exists():
        return
    config = json.loads(path.read_text("utf-8"))
    added = config.get("added_tokens_decoder")
    if added:
        config["added_tokens_decoder"] = {k: v for k, v in added.items() if int(k) not in reused}
        path.write_text(json.dumps(config, ensure_ascii=False, indent=1), "utf-8")
