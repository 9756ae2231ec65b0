"""Merge what was learnt into a Hugging Face folder like the base's: same precision, same shards, same other files.

Works on tensors by name, one after the other, so a model larger than memory is merged too, and whatever else the
base holds (a vision tower) is copied byte for byte. The folder appears under its name when it is whole.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from vocabgraft.deployment.carried import carried_files, prove_tokenizer
from vocabgraft.durable import whole_folder, write_json
from vocabgraft.embedding.rows import grown
from vocabgraft.errors import ModelError
from vocabgraft.models.headers import INDEX, TensorPlace, read_headers, whole_weights
from vocabgraft.models.load import check_folder
from vocabgraft.models.safetensors_file import tensor_at, write_tensors
from vocabgraft.training import lora
from vocabgraft.training.graft import ADAPTERS, NEW, OLD, config_of

OLD_IDS = "old_ids"
"""`input.old_ids` beside `input.old`: the rows stand for these ids alone; without it they are the whole matrix."""


class Learnt:
    """What was learnt, opened tensor by tensor: the files of a stage or of an adapter folder."""

    def __init__(self, folder: Path, ids: Tensor, *, scale: float = 1.0, size: int | None = None) -> None:
        """ids: (N,) of the new rows. scale: of the adapters (`AdapterSpec.scale`). size: rows of the matrices."""
        places, problems = read_headers(folder)
        if problems:
            raise ModelError(f"{folder}: what was learnt is not whole: {problems[0]}")
        self.folder, self.ids, self.scale, self.size = folder, ids, scale, size
        self.places = {n: p for n, p in places.items() if p.file.name in (NEW, OLD, ADAPTERS)}
        self.adapters = [n for n, p in self.places.items() if p.file.name == ADAPTERS]
        self._check()

    def _check(self) -> None:
        twice = [i for i, n in Counter(self.ids.tolist()).items() if n > 1]
        if twice:
            raise ModelError(f"{self.folder}: id {twice[0]} has two new rows; every id may be named once")
        if "input.new" not in self.places:
            raise ModelError(f"{self.folder}: no input.new in {NEW}; this is no folder of a stage or an adapter")
        known = {f"{r}.{b}" for r in ("input", "output") for b in ("new", "old", OLD_IDS)}
        wrong = sorted(self.places.keys() - known - set(self.adapters))
        if wrong:
            raise ModelError(f"{self.folder}: {wrong[0]!r} is nothing that a stage learns; the file is of another tool")

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def get(self, name: str) -> Tensor:
        """One tensor."""
        return tensor_at(self.places[name], name)

    def put_into(self, matrix: Tensor, route: str, old: str) -> Tensor:
        """The matrix (V, D) in its own type with the rows that were learnt: those of block `old`, and the new ones."""
        made = matrix.clone() if self.size is None or self.size <= len(matrix) else grown(matrix, self.size)
        if f"{old}_ids" in self:
            made[self.get(f"{old}_ids")] = self.get(old).to(made.dtype)
        elif old in self:
            made.copy_(self.get(old))
        made[self.ids] = self.get(f"{route}.new").to(made.dtype)
        return made

    def adapter_of(self, layer: str) -> dict[str, Tensor]:
        """The tensors of one layer's adapter."""
        return {n: self.get(n) for n in self.adapters if n.rpartition(".lora_")[0] == layer}


@dataclass(frozen=True)
class Plan:
    """What becomes of a base's tensors: where each is stored and what it will be like, how those that change are made.

    `layers` names the live layer of each adapted weight; `head` is the output matrix, the input one where it is tied.
    """

    stored: dict[str, TensorPlace]
    places: dict[str, TensorPlace]
    config: dict[str, Any]
    embedding: str
    head: str
    makers: dict[str, Callable[[], Tensor]] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of the matrices."""
        return self.places[self.embedding].shape[0]

    def made(self, name: str) -> Tensor | None:
        """A changed tensor in its stored type; None for one that stays as it is."""
        return self.makers[name]() if name in self.makers else None


def plan_merge(base: Path, learnt: Learnt) -> Plan:
    """Decide what changes, from the files' headers. Raises ModelError for a base that is not whole or does not fit."""
    check_folder(base)
    stored, config = whole_weights(base), config_of(base)
    if "quantization_config" in config:
        raise ModelError(f"{base}: its weights are quantised; merge into the model that it was quantised from")
    embedding, head = _matrices(base, stored, config)
    _check_shapes(base, config, stored[embedding], learnt)
    tied = head == embedding
    if tied:
        stored = {n: p for n, p in stored.items() if not n.endswith("lm_head.weight")}  # a copy that nobody reads
    elif "output.new" not in learnt:
        raise ModelError(f"{learnt.folder}: no output.new, but {base} has a head of its own; this is another base")
    places = dict(stored)
    if tied and "output.new" in learnt:
        head = _head_name(embedding)
        places[head] = stored[embedding]  # each new row has two values: the shared matrix becomes two
    makers: dict[str, Callable[[], Tensor]] = {}
    for route, name in {"input": embedding, "output": head}.items():
        if f"{route}.new" in learnt:
            source, old = places[name], "input.old" if tied else f"{route}.old"
            makers[name] = partial(_rows, source, embedding if tied else name, learnt, route, old)
            places[name] = _grown_place(source, learnt.size)
    layers = lora.adapted(places.keys(), learnt.adapters)
    makers |= {name: partial(_adapted, places[name], name, learnt, layer) for name, layer in layers.items()}
    _adapt_config(config, learnt.size, untied=tied and head != embedding)
    return Plan(stored, places, config, embedding, head, makers, layers)


def export_folder(
    base: Path,
    tokenizer: Path | None,
    state: Path,
    ids: Tensor,
    out: Path,
    *,
    scale: float = 1.0,
    size: int | None = None,
) -> dict[str, int]:
    """Write `out`: the base with everything learnt in `state`, and the tokenizer's files (None: without any).

    Memory: a few times the largest matrix, however large the model. New rows that are untied over a tied base make an
    untied folder: a head is added to the shard of the embedding. Returns how many tensors were changed or added and
    how many kept.
    Nothing is under `out` unless all is: raises ModelError, TokenizerError, or MachineError when it cannot be written.
    """
    learnt = Learnt(state, ids, scale=scale, size=size)
    plan = plan_merge(base, learnt)
    carried: dict[str, Path] = {}
    if tokenizer is not None:
        prove_tokenizer(base, tokenizer, set(ids.tolist()), plan.rows)
        carried = carried_files(base, tokenizer)
    with whole_folder(out) as folder:
        for name, source in carried.items():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, folder / name)
        write_json(folder / "config.json", plan.config)
        _write_weights(plan, folder)
    return {"changed": len(plan.makers), "kept": len(plan.places) - len(plan.makers)}


def _write_weights(plan: Plan, folder: Path) -> None:
    """One file for each of the base's, then their index."""
    shards: dict[str, dict[str, TensorPlace]] = {}
    for name, place in plan.places.items():
        shards.setdefault(place.file.name, {})[name] = place
    for shard, tensors in sorted(shards.items()):
        write_tensors(folder / shard, tensors, plan.made)
    if len(shards) > 1 or (plan.places[plan.embedding].file.parent / INDEX).is_file():
        weights = {name: place.file.name for name, place in sorted(plan.places.items())}
        size = sum(p.end - p.start for p in plan.places.values())
        numbers = sum(p.numbers for p in plan.places.values())
        write_json(
            folder / INDEX, {"metadata": {"total_parameters": numbers, "total_size": size}, "weight_map": weights}
        )


def _matrices(base: Path, places: dict[str, TensorPlace], config: dict[str, Any]) -> tuple[str, str]:
    """Names of the input and the output matrix; the same one where the base is tied."""
    embeddings = [n for n in places if n.endswith("embed_tokens.weight")]
    heads = [n for n in places if n.endswith("lm_head.weight")]
    if len(embeddings) != 1 or len(heads) > 1:
        raise ModelError(
            f"{base}: {len(embeddings)} tensors end in embed_tokens.weight and {len(heads)} in lm_head.weight; one and "
            "at most one are needed. Are these the weights of a decoder, named as transformers names them?"
        )
    flag = config.get("tie_word_embeddings", (config.get("text_config") or {}).get("tie_word_embeddings"))
    if flag is False and not heads:
        raise ModelError(f"{base}: config.json says tie_word_embeddings false, but no lm_head.weight is there")
    return embeddings[0], embeddings[0] if flag or not heads else heads[0]


def _head_name(embedding: str) -> str:
    """What a head is called that stands beside this embedding: Gemma 3's first multimodal files nest both."""
    return "language_model.lm_head.weight" if embedding.startswith("language_model.") else "lm_head.weight"


def _check_shapes(base: Path, config: dict[str, Any], matrix: TensorPlace, learnt: Learnt) -> None:
    stated = (config.get("text_config") or config).get("vocab_size", matrix.shape[0])
    if stated != matrix.shape[0]:
        raise ModelError(f"{base}: config.json says {stated:,} rows, the matrix has {matrix.shape[0]:,}")
    rows = max(matrix.shape[0], learnt.size or 0)
    beyond = [i for i in learnt.ids.tolist() if not 0 <= i < rows]
    if beyond:
        raise ModelError(f"{learnt.folder}: a new row for id {beyond[0]}, but the matrix of {base} has {rows:,} rows")
    fits = {"new": (len(learnt.ids), matrix.shape[1]), "old": (rows, matrix.shape[1])}
    for name, place in learnt.places.items():
        route, _, block = name.partition(".")
        wanted = fits.get(block)
        if f"{route}.{OLD_IDS}" in learnt and block == "old":
            wanted = (learnt.places[f"{route}.{OLD_IDS}"].shape[0], matrix.shape[1])
        if name not in learnt.adapters and wanted is not None and place.shape != wanted:
            raise ModelError(f"{learnt.folder}: {name} is {place.shape}, {base} needs {wanted}; this is another base")


def _grown_place(place: TensorPlace, size: int | None) -> TensorPlace:
    rows, *width = place.shape
    if size is None or size <= rows:
        return place
    return replace(place, shape=(size, *width), end=place.start + (place.end - place.start) // rows * size)


def _rows(place: TensorPlace, name: str, learnt: Learnt, route: str, old: str) -> Tensor:
    try:
        return learnt.put_into(tensor_at(place, name), route, old)
    except (IndexError, RuntimeError) as e:  # ids beyond the matrix, rows of another width
        raise ModelError(f"{learnt.folder}: its rows do not fit {name} of this base ({e})") from e


def _adapted(place: TensorPlace, name: str, learnt: Learnt, layer: str) -> Tensor:
    try:
        return lora.merge_into({name: tensor_at(place, name)}, learnt.adapter_of(layer), learnt.scale)[name]
    except RuntimeError as e:  # matrices that do not multiply
        raise ModelError(f"{learnt.folder}: the adapter of {layer} is not of this base's shape ({e})") from e


def _adapt_config(config: dict[str, Any], size: int | None, *, untied: bool) -> None:
    """Another vocab_size and a head of its own, above and in text_config (multimodal models)."""
    # Where none is said (models out of GGUF files), transformers 5 takes any large tokenizer for a Mistral with a wrong
    # pattern and tells people to "fix" it.
    config.setdefault("transformers_version", "5.0.0")
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
