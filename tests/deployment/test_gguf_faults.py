"""Whatever is wrong with a folder or the disk: one sentence that names it, and no file that looks like a model."""

from __future__ import annotations

import json
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from vocabgraft.deployment.gguf_export import export_gguf
from vocabgraft.deployment.gguf_tokenizer import write_folder_tokenizer
from vocabgraft.errors import MachineError, TokenizerError, VocabgraftError
from vocabgraft.tokenizer.vocabulary import read_model, write_model

pytest.importorskip("gguf")


def change(path: Path, with_: Callable[[Any], Any]) -> None:
    raw = json.loads(path.read_text("utf-8"))
    with_(raw)
    path.write_text(json.dumps(raw, ensure_ascii=False), "utf-8")


def shard(folder: Path) -> None:
    """Two files and their index, in the place of one."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = {
        "model-1.safetensors": dict(list(state.items())[::2]),
        "model-2.safetensors": dict(list(state.items())[1::2]),
    }
    for name, part in halves.items():
        save_file(part, folder / name)
    places = {key: name for name, part in halves.items() for key in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), "utf-8")


def missing_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-2.safetensors").unlink()


def broken_index(folder: Path) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text("{", "utf-8")


def weight_in_no_shard(folder: Path) -> None:
    shard(folder)
    change(folder / "model.safetensors.index.json", lambda raw: raw["weight_map"].update(lost="model-1.safetensors"))


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def no_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\0" * 100)


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def not_a_number(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
    save_file(state, folder / "model.safetensors")


def too_few_rows(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    for key in [k for k in state if "embed_tokens" in k or "lm_head" in k]:
        state[key] = state[key][:-9].clone()
    save_file(state, folder / "model.safetensors")


def no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.model", "tokenizer.json"):
        (folder / name).unlink(missing_ok=True)


def piece_twice(folder: Path) -> None:
    table = read_model(folder / "tokenizer.model")
    write_model(replace(table, pieces=(*table.pieces[:-1], table.pieces[-2])), folder / "tokenizer.model")


def stale_model(folder: Path) -> None:
    """Expanded into slots and saved by transformers 5, which writes tokenizer.json alone."""

    def put(raw: Any) -> None:
        i = raw["model"]["vocab"].pop("<unused99>")
        raw["model"]["vocab"]["당뇨"] = i
        raw["added_tokens"] = [t for t in raw["added_tokens"] if t["id"] != i]

    change(folder / "tokenizer.json", put)


def stale_model_behind(folder: Path) -> None:
    """Appended, and saved likewise."""
    change(folder / "tokenizer.json", lambda raw: raw["model"]["vocab"].update(당뇨=len(raw["model"]["vocab"])))


def id_twice(folder: Path) -> None:
    def give(raw: Any) -> None:
        vocab = raw["model"]["vocab"]
        vocab[list(vocab)[-1]] = vocab[list(vocab)[-2]]

    change(folder / "tokenizer.json", give)


def piece_with_two_ids(folder: Path) -> None:
    def give(raw: Any) -> None:
        raw["added_tokens"].append({**raw["added_tokens"][0], "content": list(raw["model"]["vocab"])[40], "id": 9})

    change(folder / "tokenizer.json", give)


def unknown_cut(folder: Path) -> None:
    change(
        folder / "tokenizer.json", lambda raw: raw["pre_tokenizer"]["pretokenizers"][0].update(individual_digits=False)
    )


GEMMA: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing shard": (missing_shard, r"model-2\.safetensors: missing; download it"),
    "broken index": (broken_index, "not a weight index; download it again"),
    "weight in no shard": (weight_in_no_shard, "lost: in the index, in no file"),
    "truncated weights": (truncated, r"model\.safetensors: cut short: .* download it again"),
    "no header": (no_header, r"model\.safetensors: no header .* download it again"),
    "no weights": (no_weights, r"model\.safetensors: cannot be read as safetensors"),
    "NaN": (not_a_number, "up_proj.weight holds NaN"),
    "vocabulary larger than the matrix": (too_few_rows, r"rows for \d+ pieces of the tokenizer"),
    "no tokenizer": (no_tokenizer, r"tokenizer\.json: cannot be read .* a folder with tokenizer\.json is needed"),
    "duplicate piece": (piece_twice, r"tokenizer\.model: '.*' has the ids \d+ and \d+; take the file"),
    "tokenizer.model from before": (stale_model, "'<unused99>' has id 6 in tokenizer.model and none in tokenizer.json"),
    "tokenizer.model from before, appended": (
        stale_model_behind,
        r"1 pieces of tokenizer\.json, such as '당뇨', are not in",
    ),
}
SMOLLM2: dict[str, tuple[Callable[[Path], None], str]] = {
    "no tokenizer": (no_tokenizer, "cannot be read"),
    "duplicate id": (id_twice, r"tokenizer\.json: id \d+ is given to '.*' and to '.*'; take the file from its source"),
    "piece with two ids": (piece_with_two_ids, r"tokenizer\.json: (id 9 is given to|'.*' has the ids)"),
    "unknown pre-tokenizer": (
        unknown_cut,
        r"no llama\.cpp name known here \(gpt-2, smollm, .*serve the Hugging Face folder",
    ),
    "vocabulary larger than the matrix": (too_few_rows, "weights and tokenizer are not of the same model"),
    "truncated weights": (truncated, "cut short"),
}


def refused(folder: Path, out: Path) -> str:
    """What export says; it must be one sentence, and the file of before must be as it was, alone."""
    out.parent.mkdir()
    out.write_bytes(b"earlier")
    with pytest.raises(VocabgraftError) as told:
        export_gguf(folder, out, quantization="q4_1")
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    assert out.read_bytes() == b"earlier"
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize("fault", GEMMA)
def test_a_broken_gemma_is_one_sentence_and_no_file(fault: str, tied_folder: Path, tmp_path: Path) -> None:
    plant, told = GEMMA[fault]
    plant(shutil.copytree(tied_folder, tmp_path / "model"))
    assert re.search(told, refused(tmp_path / "model", tmp_path / "out" / "m.gguf"))


@pytest.mark.parametrize("fault", SMOLLM2)
def test_a_broken_byte_level_model_is_one_sentence_and_no_file(fault: str, decoder, tmp_path: Path) -> None:
    plant, told = SMOLLM2[fault]
    plant(shutil.copytree(decoder("smollm2"), tmp_path / "model"))
    assert re.search(told, refused(tmp_path / "model", tmp_path / "out" / "m.gguf"))


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes: what a full disk looks like to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("quantization", ["f16", "q4_k_m"])
@pytest.mark.parametrize("size", [1_000, 60_000])
def test_a_full_disk_leaves_nothing(quantization: str, size: int, decoder, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    folder = decoder("qwen2")
    with limited(size), pytest.raises(MachineError, match=r"m\.gguf: cannot be written .* the free space"):
        export_gguf(folder, tmp_path / "m.gguf", quantization=quantization)
    with limited(size), pytest.raises(MachineError, match=r"t\.gguf: cannot be written"):
        write_folder_tokenizer(folder, tmp_path / "t.gguf")
    assert list(tmp_path.iterdir()) == []


def test_pieces_named_twice_never_reach_llama_cpp(tied_folder: Path, tmp_path: Path) -> None:
    """It would end the whole process (GGML_ASSERT in llama-vocab.cpp)."""
    folder = shutil.copytree(tied_folder, tmp_path / "model")
    piece_twice(folder)
    with pytest.raises(TokenizerError, match="has the ids"):
        write_folder_tokenizer(folder, tmp_path / "t.gguf")
    assert not (tmp_path / "t.gguf").exists()


@pytest.mark.parametrize("missing", [1, 200, 1000, 4097])
def test_a_disk_that_lacks_the_last_bytes_leaves_nothing(missing: int, decoder, tmp_path: Path) -> None:
    writers: list[Callable[[Path], Any]] = [
        lambda out: export_gguf(decoder("qwen2"), out, quantization="f16"),
        lambda out: write_folder_tokenizer(decoder("qwen2"), out),
    ]
    for write in writers:
        whole = tmp_path / "whole.gguf"
        write(whole)
        size = whole.stat().st_size
        whole.unlink()
        with limited(size - missing), pytest.raises(MachineError, match="free space"):
            write(whole)
        assert list(tmp_path.iterdir()) == []
