"""What the head sees, kept on disk: while inputs and body stand still it is the same in every pass.

Stage 2 trains the new output rows alone (`cached_passes.py`). Of a token its loss wants only

    h       its hidden state
    old     log of what the old rows add to the softmax: log sum_v exp(h . w_v)
    target  the logit of its target, where that is an old row; else which new row it is

    loss = log(exp(old) + sum_n exp(h . r_n)) - target

so after one forward pass a pass over M tokens costs M x N x D for N new rows, not a body and M x V x D. This is exact
where new rows have an output value of their own: on untied bases, and row-untied. On a tied one the rows are looked up
too, and hidden states are those of the start. Stage 4 trains all output rows: it needs the whole head still, but no
body (`loop.train` with a cache).

Shards are written one by one (temporary, fsync, rename) and listed with their SHA-256, so an interrupted build goes
on, and a damaged shard is computed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vocabgraft.corpus.mix import NO_TARGET
from vocabgraft.corpus.mix import Rows as Batch
from vocabgraft.durable import sha256_file, write_json
from vocabgraft.errors import ModelError
from vocabgraft.models.load import softcap_of
from vocabgraft.models.packed import hidden_states
from vocabgraft.training.graft import Graft, read, write
from vocabgraft.training.objective import CHUNK, capped, chunks_of_logits

SHARD = 16_384  # tokens, or one batch when that is more: 21 MB at a width of 640 in bf16
_INDEX = "index.json"
_PARTS = ("hidden", "old", "target", "goal", "place")
_FP8_MOST = 448.0  # largest number of float8_e4m3fn
Kept = Literal["bf16", "fp8"]


@dataclass(frozen=True)
class Block:
    """What the head sees of one batch: hidden (M, D), old (M,), target (M,) logits, goal (M,) the target's id, place
    (M,) of the target among the new rows or -1."""

    hidden: Tensor
    old: Tensor
    target: Tensor
    goal: Tensor
    place: Tensor

    def __len__(self) -> int:
        return len(self.old)

    def part(self, chosen: slice, device: torch.device) -> Block:
        """Some of its tokens, on a device."""
        return Block(*(getattr(self, name)[chosen].to(device) for name in _PARTS))


@dataclass(frozen=True)
class Shard:
    """One file: its name, SHA-256, and the tokens of each batch in it."""

    file: str
    sha256: str
    tokens: tuple[int, ...]


class OutputCache:
    """Batches as the head sees them, in a folder. See `build_cache`."""

    def __init__(self, folder: Path, shards: tuple[Shard, ...], softcap: float | None) -> None:
        self.folder, self.shards, self.softcap = folder, shards, softcap
        self._at = [(s, n) for s in shards for n in range(len(s.tokens))]
        self._held: tuple[str, dict[str, Tensor]] = ("", {})

    def __len__(self) -> int:
        return len(self._at)

    @property
    def tokens(self) -> int:
        """Tokens with a target, of all batches."""
        return sum(sum(s.tokens) for s in self.shards)

    def shard_of(self, number: int) -> str:
        """The file that holds a batch."""
        return self._at[number][0].file

    def tokens_of(self, number: int) -> int:
        """Tokens of a batch that have a target."""
        shard, n = self._at[number]
        return shard.tokens[n]

    def block(self, number: int) -> Block:
        """Batch `number`; its shard stays in memory until another is asked for."""
        shard, n = self._at[number]
        if self._held[0] != shard.file:
            self._held = (shard.file, read(self.folder / shard.file))
        begin = sum(shard.tokens[:n])
        part = {k: v[begin : begin + shard.tokens[n]] for k, v in self._held[1].items()}
        hidden = part["hidden"]
        if "scale" in part:
            hidden = (hidden.float() * part["scale"][:, None]).to(torch.bfloat16)
        return Block(hidden, *(part[name] for name in _PARTS[1:]))


def build_cache(
    graft: Graft,
    batch_at: Callable[[int], Batch],
    batches: int,
    folder: Path,
    *,
    key: str,
    micro_batch: int,
    kept: Kept = "bf16",
    on_batch: Callable[[], None] = lambda: None,
) -> OutputCache:
    """One forward pass over the first `batches` batches; goes on where an earlier build of the same key stopped.

    key: what decides the content (hashes of the model, of the text, of the settings); a folder of another key is
    refused with ModelError. kept: 'bf16' (the live type, or float32 as it is) or 'fp8' (a scale for each token).
    """
    folder.mkdir(parents=True, exist_ok=True)
    softcap = softcap_of(graft.model)
    shards = _whole(folder, key)
    done = sum(len(s.tokens) for s in shards)
    for _ in range(done):
        on_batch()
    waiting: list[Block] = []
    for number in range(done, batches):
        waiting.append(_seen(graft, batch_at(number), micro_batch, softcap))
        on_batch()
        if sum(map(len, waiting)) >= SHARD or number + 1 == batches:
            shards.append(_save(folder, len(shards), waiting, kept))
            _list(folder, key, shards)
            waiting = []
    return OutputCache(folder, tuple(shards), softcap)


def _whole(folder: Path, key: str) -> list[Shard]:
    """Shards of an earlier build, up to the first that is damaged or missing."""
    index = folder / _INDEX
    if not index.exists():
        return []
    try:
        raw = json.loads(index.read_text("utf-8"))
        shards = [Shard(s["file"], s["sha256"], tuple(s["tokens"])) for s in raw["shards"]]
        of = raw["key"]
    except (ValueError, KeyError):
        return []
    if of != key:
        raise ModelError(f"{folder}: holds what another model or text gave; take another folder, or move it away")
    found = []
    for shard in shards:
        path = folder / shard.file
        if not path.exists() or sha256_file(path) != shard.sha256:
            break
        found.append(shard)
    return found


def _list(folder: Path, key: str, shards: list[Shard]) -> None:
    write_json(folder / _INDEX, {"key": key, "shards": [asdict(s) for s in shards]})


def _save(folder: Path, number: int, blocks: list[Block], kept: Kept) -> Shard:
    tensors = {name: torch.cat([getattr(b, name) for b in blocks]) for name in _PARTS}
    if kept == "fp8":
        hidden = tensors["hidden"].float()
        tensors["scale"] = hidden.abs().amax(1).clamp_min(1e-12) / _FP8_MOST
        tensors["hidden"] = (hidden / tensors["scale"][:, None]).to(torch.float8_e4m3fn)
    path = folder / f"shard-{number:05d}.safetensors"
    write(path, tensors)
    return Shard(path.name, sha256_file(path), tuple(map(len, blocks)))


@torch.no_grad()
def _seen(graft: Graft, batch: Batch, micro_batch: int, softcap: float | None) -> Block:
    parts = [
        _forward(graft, batch.take(range(at, min(at + micro_batch, len(batch)))), softcap)
        for at in range(0, len(batch), micro_batch)
    ]
    return Block(*(torch.cat([getattr(p, name) for p in parts]).cpu() for name in _PARTS))


def _forward(graft: Graft, part: Batch, softcap: float | None) -> Block:
    rows = graft.rows
    device = rows.live["output"].device
    tokens, positions, targets = (torch.from_numpy(a).to(device) for a in (part.tokens, part.positions, part.targets))
    counted = targets != NO_TARGET
    hidden = hidden_states(graft.model, rows.look_up(tokens), positions)[counted].to(rows.live["output"].dtype)
    goals = targets[counted]
    old, target = [], []
    chunks = chunks_of_logits(hidden, rows.live["output"], graft.workspace)
    for some, t in zip(chunks, goals.split(CHUNK), strict=True):
        logits = capped(some.float(), softcap)
        target.append(logits.gather(1, t[:, None])[:, 0])
        logits[:, rows.ids] = -torch.inf
        old.append(logits.logsumexp(1))
    place = rows.place[goals]
    logit = torch.cat(target) if target else hidden.new_zeros(0, dtype=torch.float32)
    return Block(
        hidden,
        torch.cat(old) if old else torch.zeros_like(logit),
        torch.where(place < 0, logit, 0.0),
        goals.to(torch.int32),
        place.to(torch.int32),
    )


def described(cache: OutputCache) -> dict[str, Any]:
    """Size for a manifest."""
    return {
        "batches": len(cache),
        "tokens": cache.tokens,
        "bytes": sum((cache.folder / s.file).stat().st_size for s in cache.shards),
    }
