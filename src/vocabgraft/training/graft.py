"""A model under graft: base folder + what has been learnt so far (new rows, old rows, adapters).

What is learnt is saved on its own, as three safetensors files; the base is never copied. An unchanged file is
carried to the next stage as a hard link, so seven stages cost the disk of what they changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vocabgraft.embedding.rows import Rows, grow, hash_tensor
from vocabgraft.errors import ProofError
from vocabgraft.models.load import load_model
from vocabgraft.models.packed import prove_isolated
from vocabgraft.training import lora
from vocabgraft.training.lora import AdapterSpec
from vocabgraft.training.objective import Workspace

NEW, OLD, ADAPTERS = "new_rows.safetensors", "old_rows.safetensors", "adapters.safetensors"


@dataclass
class Graft:
    """A live model, its rows, and its adapters (empty before stage 6)."""

    model: Any
    rows: Rows
    adapters: dict[str, nn.Parameter] = field(default_factory=dict)
    workspace: Workspace = field(default_factory=Workspace)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the old and new rows, the body and the adapters, as they stand."""
        body = hashlib.sha256()
        matrices = {w.data_ptr() for w in self.rows.live.values()}
        adapted = {p.data_ptr() for p in self.adapters.values()}
        for name, tensor in sorted(self.model.state_dict().items()):
            if isinstance(tensor, Tensor) and tensor.data_ptr() not in matrices | adapted:
                body.update(f"{name}:{hash_tensor(tensor.reshape(-1))}".encode())
        found = {**self.rows.hashes(), "body": body.hexdigest()}
        if self.adapters:
            each = (f"{n}:{hash_tensor(p)}" for n, p in self.adapters.items())
            found["lora"] = hashlib.sha256("".join(each).encode()).hexdigest()
        return found


def prove_frozen(
    before: dict[str, str], after: dict[str, str], groups: Collection[str], *, free: Collection[str]
) -> dict[str, Any]:
    """Compare hashes of what must not move (all that `free` does not name); ProofError names what did."""
    kept = sorted(name for name in before if name not in free)
    moved = [name for name in kept if before[name] != after[name]]
    if moved:
        raise ProofError(f"{', '.join(moved)} moved while training only {', '.join(groups)}: nothing was published")
    return {
        "checked": len(kept),
        "names": kept,
        "identical": True,
        "hashes": {name: after[name] for name in sorted(after)},
    }


def open_graft(
    base: Path,
    ids: Tensor,
    state: Path | None,
    *,
    spec: AdapterSpec | None,
    seed: int,
    device: str = "cpu",
    size: int | None = None,
    untie: bool = False,
) -> Graft:
    """Load the base and put the learnt state on top; with a spec, adapters are attached (and loaded when saved).

    size: rows that the matrices must have (`Expansion.rows`), None for as many as the base has. untie: as in `Rows`;
    a state says for itself.
    """
    model = load_model(base, device=device, body=spec.body if spec else "bf16")
    grow(model, size)
    graft = Graft(model, _rows(model, ids, state, untie))
    if spec is not None:
        graft.adapters = lora.attach(
            model, rank=spec.rank, alpha=spec.alpha, modules=spec.modules, seed=seed, kind=spec.kind
        )
        if state is not None and (state / ADAPTERS).exists():
            lora.load(graft.adapters, read(state / ADAPTERS))
    prove_isolated(model)
    return graft


def _rows(model: Any, ids: Tensor, state: Path | None, untie: bool) -> Rows:
    """Rows with what a state learnt; its files, as large as the matrix, are let go before anything else is loaded."""
    learnt = [read(state / name) for name in (OLD, NEW) if state is not None and (state / name).exists()]
    rows = Rows(model, ids, untie=untie or any("output.new" in each for each in learnt))
    for each in learnt:
        rows.load(each)
    return rows


def save_graft(graft: Graft, out: Path, previous: Path | None, trained: Collection[str]) -> None:
    """Write what `trained` moved; carry the rest over from `previous`."""
    rows = graft.rows.state()
    blocks = {
        NEW: {k: v for k, v in rows.items() if k.endswith(".new")},
        OLD: {k: v for k, v in rows.items() if k.endswith(".old")},
        ADAPTERS: {k: v.detach() for k, v in graft.adapters.items()},
    }
    moved = {NEW: ".new", OLD: ".old", ADAPTERS: "lora"}
    for name, tensors in blocks.items():
        changed = any(g.endswith(moved[name]) for g in trained)
        if not changed and previous is not None and (previous / name).exists():
            carry(previous / name, out / name)
        elif tensors:
            write(out / name, tensors)


def carry(source: Path, goal: Path) -> None:
    """Hard link, or copy where links are not to be had."""
    goal.unlink(missing_ok=True)
    try:
        os.link(source, goal)
    except OSError:
        shutil.copyfile(source, goal)


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Save tensors as safetensors, atomically. A full disk is an OSError with its number, not a Rust error."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    temporary = path.with_name(path.name + ".tmp")
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    try:
        save_file(plain, str(temporary), metadata={"format": "pt"})
    except SafetensorError as e:
        number = re.search(r"os error (\d+)", str(e))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from e
    temporary.chmod(0o644)  # the library leaves it to its owner alone, and some of these files ship
    with temporary.open("rb") as f:
        os.fsync(f.fileno())
    temporary.replace(path)


def read(path: Path) -> dict[str, Tensor]:
    """Load a safetensors file."""
    from safetensors.torch import load_file

    return load_file(str(path))


def config_of(folder: Path) -> dict[str, Any]:
    """config.json of a model folder."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return found


def tensor_ids(ids: Collection[int]) -> Tensor:
    """Ids as a tensor."""
    return torch.tensor(list(ids), dtype=torch.long)
