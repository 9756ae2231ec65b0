"""The exported file holds the model: read back by our importer, tensor by tensor."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vocabgraft.deployment.gguf_export import export_gguf
from vocabgraft.deployment.quantize import put_stored, quantize
from vocabgraft.errors import MachineError, ModelError
from vocabgraft.models.gguf_import import import_gemma_gguf
from vocabgraft.models.load import load_model
from vocabgraft.tokenizer.vocabulary import UNKNOWN, read_model


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}


def read(path: Path) -> tuple[dict, dict[str, str]]:
    import gguf

    reader = gguf.GGUFReader(str(path))
    meta = {key: field.contents() for key, field in reader.fields.items()}
    return meta, {t.name: t.tensor_type.name for t in reader.tensors}


def half_step(original: torch.Tensor, levels: int, symmetric: bool) -> torch.Tensor:
    """The largest rounding error of each number: half a step of its block of 32, plus float16 and bfloat16."""
    blocks = original.reshape(-1, 32)
    top = blocks.abs().amax(1)
    span = 2 * top if symmetric else blocks.amax(1) - blocks.amin(1)
    return (0.5 * span / levels + top * 2.0**-7)[:, None].expand_as(blocks).reshape(original.shape)


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_f16_brings_back_the_very_weights(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(f"{kind}_folder")
    export_gguf(folder, tmp_path / "m.gguf", quantization="f16")
    import_gemma_gguf(tmp_path / "m.gguf", tmp_path / "back")
    before, after = weights(folder), weights(tmp_path / "back")
    assert before.keys() == after.keys()
    assert ("lm_head.weight" in after) == (kind == "untied")
    for name, original in before.items():
        torch.testing.assert_close(after[name], original, rtol=0, atol=2e-7, msg=name)
    assert read_model(tmp_path / "back/tokenizer.model") == read_model(folder / "tokenizer.model")


@pytest.mark.parametrize(
    ("method", "levels", "symmetric"), [("q4_1", 15, False), ("q4_0", 14, True), ("q8_0", 254, True)]
)
def test_quantised_weights_stay_within_half_a_step_of_their_block(
    method: str, levels: int, symmetric: bool, untied_folder: Path, tmp_path: Path
) -> None:
    quantize(untied_folder, tmp_path / "m.gguf", method)
    import_gemma_gguf(tmp_path / "m.gguf", tmp_path / "back")
    after = weights(tmp_path / "back")
    for name, original in weights(untied_folder).items():
        if original.ndim == 1:
            torch.testing.assert_close(after[name], original, rtol=0, atol=2e-7)
            continue
        if "embed" in name or "lm_head" in name:
            bound = half_step(original, 254, True)
        else:
            # Q4_0 gives its largest number the level -8 and clips the opposite end at +7: a whole step there.
            bound = half_step(original, levels, symmetric) * (2.3 if method == "q4_0" else 1)
        assert ((after[name] - original).abs() <= bound).all(), name


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_a_model_can_be_given_the_stored_weights(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(f"{kind}_folder")
    quantize(folder, tmp_path / "m.gguf", "q4_0")
    import_gemma_gguf(tmp_path / "m.gguf", tmp_path / "back")
    model = load_model(folder)
    put_stored(tmp_path / "m.gguf", model)
    live = {k: v.float() for k, v in model.state_dict().items()}
    for name, stored in weights(tmp_path / "back").items():
        assert torch.equal(live[name], stored), name


def test_stored_weights_of_another_model_are_refused(
    tied_folder: Path, untied_folder: Path, make_folder, tmp_path: Path
) -> None:
    quantize(tied_folder, tmp_path / "m.gguf", "q8_0")
    with pytest.raises(ModelError, match=r"m\.gguf: lacks lm_head"):
        put_stored(tmp_path / "m.gguf", load_model(untied_folder))
    deeper = make_folder(tmp_path / "deeper", num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"m\.gguf: lacks model\.layers\.2"):
        put_stored(tmp_path / "m.gguf", load_model(deeper))
    wider = make_folder(tmp_path / "wider", hidden_size=96)
    with pytest.raises(ModelError, match="does not fit"):
        put_stored(tmp_path / "m.gguf", load_model(wider))


def test_vocabulary_matrices_stay_at_eight_bits_beside_a_four_bit_body(untied_folder: Path, tmp_path: Path) -> None:
    result = export_gguf(untied_folder, tmp_path / "m.gguf", quantization="q4_1")
    types = read(tmp_path / "m.gguf")[1]
    assert types["token_embd.weight"] == types["output.weight"] == "Q8_0"
    assert types["blk.1.ffn_down.weight"] == types["blk.0.attn_q.weight"] == "Q4_1"
    assert types["blk.0.attn_q_norm.weight"] == types["output_norm.weight"] == "F32"
    assert result == {
        "bytes": (tmp_path / "m.gguf").stat().st_size,
        "tensors": {"F32": 13, "Q4_1": 14, "Q8_0": 2},
        "pre": "default",
        "normalises": None,
    }


def test_rows_that_do_not_divide_into_blocks_stay_f16(make_folder, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", hidden_size=48)
    export_gguf(folder, tmp_path / "m.gguf", quantization="q4_0")
    types = read(tmp_path / "m.gguf")[1]
    assert (types["blk.0.ffn_gate.weight"], types["blk.0.ffn_down.weight"]) == ("F16", "Q4_0")


def test_metadata_names_the_model_and_ends_turns(tied_folder: Path, vocabulary, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    export_gguf(tied_folder, out, quantization="q8_0", name="한국어", license_id="gemma")
    meta = read(out)[0]
    assert (meta["general.name"], meta["general.license"], meta["general.file_type"]) == ("한국어", "gemma", 7)
    assert meta["tokenizer.ggml.eot_token_id"] == vocabulary.ids["<end_of_turn>"]
    assert "<start_of_turn>" in meta["tokenizer.chat_template"]
    assert "  " in meta["tokenizer.ggml.tokens"], "user-defined pieces carry real spaces"
    assert "▁▁" not in meta["tokenizer.ggml.tokens"]
    assert meta["tokenizer.ggml.token_type"][vocabulary.unk_id] == UNKNOWN


def test_linear_rope_scaling_is_kept(make_folder, tmp_path: Path) -> None:
    rope = {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    export_gguf(make_folder(tmp_path / "model", rope_parameters=rope), tmp_path / "m.gguf", quantization="f16")
    meta = read(tmp_path / "m.gguf")[0]
    assert (meta["gemma3.rope.scaling.type"], meta["gemma3.rope.scaling.factor"]) == ("linear", 8.0)


def test_padding_rows_are_cut(make_folder, vocabulary, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", rows=len(vocabulary) + 10, tied=False)
    export_gguf(folder, tmp_path / "m.gguf", quantization="f16")
    import_gemma_gguf(tmp_path / "m.gguf", tmp_path / "back")
    before, after = weights(folder), weights(tmp_path / "back")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        torch.testing.assert_close(after[name], before[name][: len(vocabulary)], rtol=0, atol=2e-7)


def test_fewer_rows_than_pieces_are_refused(make_folder, vocabulary, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", rows=len(vocabulary) - 1)
    with pytest.raises(ModelError, match="rows for"):
        export_gguf(folder, tmp_path / "m.gguf", quantization="f16")


def test_the_language_half_of_a_sharded_multimodal_folder_is_written(tied_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "multimodal"
    folder.mkdir()
    for name in ("tokenizer.model", "chat_template.jinja"):
        (folder / name).write_bytes((tied_folder / name).read_bytes())
    text = json.loads((tied_folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}), "utf-8")
    state = {f"language_model.{k}": v for k, v in load_file(tied_folder / "model.safetensors").items()}
    state["vision_tower.patch.weight"] = torch.zeros(4, 4)
    shards = {"a.safetensors": dict(list(state.items())[:9]), "b.safetensors": dict(list(state.items())[9:])}
    for file, part in shards.items():
        save_file(part, folder / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    export_gguf(folder, tmp_path / "a.gguf", quantization="q4_0", name="m")
    export_gguf(tied_folder, tmp_path / "b.gguf", quantization="q4_0", name="m")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"query_pre_attn_scalar": 64}, "query_pre_attn_scalar"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    ],
)
def test_settings_that_llama_cpp_would_compute_differently_are_refused(
    settings: dict, named: str, make_folder, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=named):
        export_gguf(make_folder(tmp_path / "model", **settings), tmp_path / "m.gguf", quantization="f16")


def test_a_folder_without_a_model_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        export_gguf(tmp_path, tmp_path / "m.gguf", quantization="f16")


def test_a_missing_weight_is_named(tied_folder: Path, tmp_path: Path) -> None:
    folder = copy(tied_folder, tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    del state["model.norm.weight"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.norm\.weight"):
        export_gguf(folder, tmp_path / "m.gguf", quantization="f16")


@pytest.mark.parametrize("where", ["missing/m.gguf", "file/m.gguf"])
def test_a_place_that_cannot_be_written_is_a_machine_error(where: str, tied_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", "utf-8")
    with pytest.raises(MachineError, match="cannot be written"):
        export_gguf(tied_folder, tmp_path / where, quantization="f16")


@pytest.mark.parametrize("limit", [1_000, 100_000])
def test_a_full_disk_is_a_machine_error_and_leaves_nothing(limit: int, tied_folder: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(MachineError, match="cannot be written"):
            export_gguf(tied_folder, tmp_path / "m.gguf", quantization="f16")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_damaged_weights_leave_the_earlier_file_alone(tied_folder: Path, tmp_path: Path) -> None:
    folder = copy(tied_folder, tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    state["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
    save_file(state, folder / "model.safetensors")
    out = tmp_path / "out" / "m.gguf"
    out.parent.mkdir()
    out.write_bytes(b"earlier")
    with pytest.raises(ModelError, match="NaN"):
        export_gguf(folder, out, quantization="q4_1")
    assert [p.name for p in out.parent.iterdir()] == ["m.gguf"]
    assert out.read_bytes() == b"earlier"


def test_the_same_folder_gives_the_same_bytes(tied_folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_gguf(tied_folder, tmp_path / name, quantization="q4_1")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to
