"""What was learnt, apart from its base: new rows, old rows that moved, adapters and the tokenizer, in one small folder.

    adapter.json             which base (fingerprint of its weights), ids, rows, scale, licence; written last
    new_rows.safetensors     in the base's precision, as the merged model has them
    old_rows.safetensors     those old rows that differ from the base's, where some were trained
    adapters.safetensors     LoRA, rsLoRA or DoRA, in float32
    tokenizer.json …         the expanded tokenizer, template and processor

Base and adapter give the merged model, bit for bit: live with `load_adapter`, as a folder with `merge_adapter`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vocabgraft.deployment.carried import carried_files, prove_tokenizer
from vocabgraft.deployment.merge import OLD_IDS, Learnt, Plan, export_folder, plan_merge
from vocabgraft.durable import whole_folder, write_json
from vocabgraft.embedding.rows import grow, grown
from vocabgraft.errors import ModelError
from vocabgraft.models.headers import TensorPlace, fingerprint
from vocabgraft.models.load import load_model, quiet
from vocabgraft.models.safetensors_file import dtype_of, tensor_at
from vocabgraft.training.graft import ADAPTERS, NEW, OLD, carry, tensor_ids, write

INFO = "adapter.json"
_FORMAT, _VERSION = "vocabgraft adapter", 1


@dataclass(frozen=True)
class BaseModel:
    """The base as a person would find it again; empty where nobody said."""

    name: str = ""
    source: str = ""
    license: str = ""


@dataclass(frozen=True)
class AdapterInfo:
    """adapter.json. `size`: rows of the matrices, None where they keep their shape. `rows`: how they are tied."""

    base: BaseModel
    fingerprint: str
    ids: tuple[int, ...]
    size: int | None
    scale: float
    rows: str

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types, with format and version."""
        return {"format": _FORMAT, "version": _VERSION, **asdict(self), "ids": list(self.ids)}


def write_adapter(
    base: Path,
    tokenizer: Path,
    state: Path,
    ids: Tensor,
    out: Path,
    *,
    scale: float = 1.0,
    size: int | None = None,
    named: BaseModel | None = None,
) -> dict[str, int]:
    """Write `out` from what was learnt in `state` over `base`; arguments as of `export_folder`. Returns bytes by file.

    Files that are the same are hard links. Nothing is under `out` unless all is.
    """
    learnt = Learnt(state, ids, scale=scale, size=size)
    plan = plan_merge(base, learnt)
    prove_tokenizer(base, tokenizer, set(ids.tolist()), plan.rows)
    untied = "row-untied" if plan.head not in plan.stored else "untied"
    info = AdapterInfo(
        named or BaseModel(),
        fingerprint(base),
        tuple(ids.tolist()),
        size,
        scale,
        "tied" if plan.head == plan.embedding else untied,
    )
    with whole_folder(out) as folder:
        for name, source in carried_files(base, tokenizer).items():
            (folder / name).parent.mkdir(exist_ok=True)
            # A base may be a cache of symbolic links that is not ours to share: its files are copied.
            (carry if source.is_relative_to(tokenizer) else shutil.copyfile)(source.resolve(), folder / name)
        precision = dtype_of(plan.stored[plan.embedding], plan.embedding)
        write(folder / NEW, {n: learnt.get(n).to(precision) for n in learnt.places if n.endswith(".new")})
        moved = _moved_old_rows(plan, learnt)
        if moved:
            write(folder / OLD, moved)
        if learnt.adapters:
            carry(state / ADAPTERS, folder / ADAPTERS)
        write_json(folder / INFO, info.as_json())
    return {p.relative_to(out).as_posix(): p.stat().st_size for p in sorted(out.rglob("*")) if p.is_file()}


def read_adapter(folder: Path) -> AdapterInfo:
    """Read adapter.json. Raises ModelError for anything else than what `write_adapter` wrote."""
    path = folder / INFO
    try:
        raw = json.loads(path.read_text("utf-8"))
        if (raw["format"], raw["version"]) != (_FORMAT, _VERSION):
            raise ModelError(f"{path}: format {raw['format']!r} {raw['version']}; this version reads {_VERSION}")
        base = BaseModel(**raw["base"])
        size = None if raw["size"] is None else int(raw["size"])
        ids = tuple(int(i) for i in raw["ids"])
        return AdapterInfo(base, str(raw["fingerprint"]), ids, size, float(raw["scale"]), str(raw["rows"]))
    except OSError as e:
        raise ModelError(f"{path}: cannot be read ({e.strerror}); an adapter folder of vocabgraft is needed") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ModelError(f"{path}: not the description of an adapter ({type(e).__name__}: {e})") from e


def load_adapter(base: Path, adapter: Path, *, device: str = "cpu", dtype: str = "bfloat16") -> tuple[Any, Any]:
    """(model, tokenizer) of transformers: the base with the adapter merged in memory, as `merge_adapter` writes it.

    Raises ModelError for another base than the adapter was made for, and as `export_folder` does.
    """
    from transformers import AutoTokenizer

    learnt = _open(base, adapter)
    plan = plan_merge(base, learnt)
    prove_tokenizer(base, adapter, set(learnt.ids.tolist()), plan.rows)
    model = load_model(base, device=device, dtype=dtype)
    _put(plan, learnt, model)
    with quiet():
        return model, AutoTokenizer.from_pretrained(adapter)


def merge_adapter(base: Path, adapter: Path, out: Path) -> dict[str, int]:
    """Write the merged model of a base and an adapter; result and errors as of `export_folder` and `load_adapter`."""
    learnt = _open(base, adapter)
    return export_folder(base, adapter, adapter, learnt.ids, out, scale=learnt.scale, size=learnt.size)


def _open(base: Path, adapter: Path) -> Learnt:
    info = read_adapter(adapter)
    if fingerprint(base) != info.fingerprint:
        wanted = info.base.name or "another model"
        source = f" ({info.base.source})" if info.base.source else ""
        raise ModelError(
            f"{base}: not the base of this adapter: its weights differ. {adapter} was made for {wanted}{source}, in "
            "exactly the revision it was trained on"
        )
    return Learnt(adapter, tensor_ids(info.ids), scale=info.scale, size=info.size)


def _moved_old_rows(plan: Plan, learnt: Learnt) -> dict[str, Tensor]:
    """Of each block of old rows those that differ from the base's once rounded to its type, and their ids."""
    found: dict[str, Tensor] = {}
    for route, name in (("input", plan.embedding), ("output", plan.head)):
        if f"{route}.old" in learnt:
            matrix = _base_matrix(plan.stored[name], name, learnt.size)
            old = learnt.get(f"{route}.old").to(matrix.dtype)
            differs = (old != matrix).any(dim=1)
            differs[learnt.ids] = False
            ids = differs.nonzero()[:, 0]
            found |= {f"{route}.old": old[ids], f"{route}.{OLD_IDS}": ids} if len(ids) else {}
    return found


def _base_matrix(place: TensorPlace, name: str, size: int | None) -> Tensor:
    matrix = tensor_at(place, name)
    return matrix if size is None or size <= len(matrix) else grown(matrix, size)


@torch.no_grad()
def _put(plan: Plan, learnt: Learnt, model: Any) -> None:
    """Give a live base the merged tensors."""
    grow(model, learnt.size)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if plan.head != plan.embedding and plan.head not in plan.stored:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
    live = {plan.embedding: embedding, plan.head: head}
    live |= {name: model.get_submodule(layer) for name, layer in plan.layers.items()}
    for name in plan.makers:
        live[name].weight.copy_(plan.made(name))
