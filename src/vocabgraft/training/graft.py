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

from vocabgraft.durable import write_json
from vocabgraft.embedding.rows import Rows, grow, grown, hash_tensor
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
    with temporary.open("rb") as f:
        os.fsync(f.fileno())
    temporary.replace(path)


def read(path: Path) -> dict[str, Tensor]:
    """Load a safetensors file."""
    from safetensors.torch import load_file

    return load_file(str(path))


def export_folder(
    base: Path,
    tokenizer: Path,
    state: Path,
    ids: Tensor,
    out: Path,
    *,
    scale: float = 1.0,
    size: int | None = None,
) -> dict[str, int]:
    """Merge everything learnt into a Hugging Face folder in the base's own precision.

    Works on tensors by name, so whatever else the base holds (a vision tower) is carried unchanged. scale: of the
    adapters (`AdapterSpec.scale`). size: as in `open_graft`. New rows that are untied over a tied base make the folder
    an untied one: a head is added. Returns how many tensors were changed or added and how many kept.
    """
    out.mkdir(parents=True, exist_ok=True)
    weights: dict[str, Tensor] = {}
    for file in sorted(base.glob("*.safetensors")):
        weights |= read(file)
    changed = _merged_rows(weights, state, ids, size)
    if (state / ADAPTERS).exists():
        changed |= lora.merge_into(weights, read(state / ADAPTERS), scale)
    kept = len(weights.keys() - changed.keys())
    untied = any(n.endswith("lm_head.weight") for n in changed.keys() - weights.keys())
    weights |= changed
    write(out / "model.safetensors", weights)
    for name in ("config.json", "generation_config.json"):
        if (base / name).exists():
            shutil.copyfile(base / name, out / name)
    if size is not None or untied:
        write_json(out / "config.json", _adapted(config_of(base), size, untied))
    for file in sorted(tokenizer.iterdir()):
        if file.suffix in {".model", ".json", ".jinja"} and file.name != "expansion.json":
            shutil.copyfile(file, out / file.name)
    return {"changed": len(changed), "kept": kept}


def _adapted(config: dict[str, Any], size: int | None, untied: bool) -> dict[str, Any]:
    """The configuration with another vocab_size and a head of its own, above and in text_config (multimodal models)."""
    text = config.get("text_config")
    if size is not None:
        if text is not None:
            text["vocab_size"] = size
        if "vocab_size" in config or text is None:
            config["vocab_size"] = size
    if untied:
        for part in (config, text):
            if part is not None:
                part["tie_word_embeddings"] = False
    return config


def _merged_rows(weights: dict[str, Tensor], state: Path, ids: Tensor, size: int | None) -> dict[str, Tensor]:
    learnt = read(state / NEW) | (read(state / OLD) if (state / OLD).exists() else {})
    (embedding,) = (n for n in weights if n.endswith("embed_tokens.weight"))
    heads = [n for n in weights if n.endswith("lm_head.weight")]
    changed = {}
    for route, name in {"input": embedding, "output": heads[0] if heads else _head_name(embedding)}.items():
        if f"{route}.new" not in learnt:
            continue
        base, block = (weights[name], f"{route}.old") if name in weights else (weights[embedding], "input.old")
        matrix = learnt.get(block, base).to(base.dtype)
        matrix = matrix.clone() if size is None or size <= len(matrix) else grown(matrix, size)
        matrix[ids] = learnt[f"{route}.new"].to(matrix.dtype)
        changed[name] = matrix
    return changed


def _head_name(embedding: str) -> str:
    """What a head is called that stands beside this embedding: Gemma 3's first multimodal files nest both."""
    return "language_model.lm_head.weight" if embedding.startswith("language_model.") else "lm_head.weight"


def config_of(folder: Path) -> dict[str, Any]:
    """config.json of a model folder."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return found


def tensor_ids(ids: Collection[int]) -> Tensor:
    """Ids as a tensor."""
    return torch.tensor(list(ids), dtype=torch.long)
