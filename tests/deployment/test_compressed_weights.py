"""What a compressed folder stores is read bit for bit, and nothing but layers of the decoder may be in few bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from vocabgraft.deployment.compressed_weights import compressed_weights, dequantised, put_compressed, unpack
from vocabgraft.errors import ModelError
from vocabgraft.models.load import load_model

Wide = Callable[[bool], Path]


def test_eight_numbers_of_four_bits_lie_in_one_word_lowest_first() -> None:
    # Nibbles 0, 1, … 7 from the lowest; each is stored with 8 added.
    word = torch.tensor([[0x76543210]], dtype=torch.int32)
    assert unpack(word, 4, 8).tolist() == [[-8, -7, -6, -5, -4, -3, -2, -1]]
    highest = torch.tensor([[-1]], dtype=torch.int32)  # all bits set: 15 in every nibble
    assert unpack(highest, 4, 8).tolist() == [[7] * 8]


def test_four_numbers_of_eight_bits_lie_in_one_word() -> None:
    word = torch.tensor([[0x04030280]], dtype=torch.int32)  # bytes 0x80, 2, 3, 4
    assert unpack(word, 8, 4).tolist() == [[0, 2 - 128, 3 - 128, 4 - 128]]


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=40))
def test_what_was_packed_comes_back(numbers: list[int]) -> None:
    words = [0] * (-(-len(numbers) // 8))
    for i, number in enumerate(numbers):
        words[i // 8] |= (number + 8) << (4 * (i % 8))
    packed = torch.tensor([[w - 2**32 if w >= 2**31 else w for w in words]], dtype=torch.int32)
    assert unpack(packed, 4, len(numbers)).tolist() == [numbers]


def test_a_weight_is_its_number_less_the_zero_point_times_the_scale_of_its_group() -> None:
    # Two rows of 16 columns in groups of 8; numbers of row 0: 0 … 7 twice, of row 1: all 7.
    words = torch.tensor([[0x76543210, 0x76543210], [-1, -1]], dtype=torch.int32)
    scale = torch.tensor([[1.0, 2.0], [0.5, 0.25]])
    # Zero points are packed along the rows: in a column's word row 0 is the lowest nibble. (-8, 0) and (7, 1).
    zero = torch.tensor([[0xF0, 0x98]], dtype=torch.int32)
    found = dequantised(words, scale, zero, bits=4, columns=16, group=8)
    assert found[0, :8].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert found[0, 8:].tolist() == [2.0 * (n - 8) for n in range(8)]
    assert found[1].tolist() == [0.0] * 8 + [0.25 * (7 - 1)] * 8
    plain = dequantised(words, scale, None, bits=4, columns=16, group=8)
    assert plain[1].tolist() == [3.5] * 8 + [1.75] * 8


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_every_tensor_is_put_into_the_live_model(
    wide: Wide, rounded: Callable[..., None], tmp_path: Path, tied: bool, bits: int
) -> None:
    rounded(wide(tied), tmp_path / "small", bits)
    live, full = load_model(wide(tied), dtype="float32"), load_model(wide(tied), dtype="float32")
    put_compressed(tmp_path / "small", live)
    moved = {n for (n, a), b in zip(live.named_parameters(), full.parameters(), strict=True) if not torch.equal(a, b)}
    assert moved == {n for n, _ in full.named_parameters() if n.endswith("_proj.weight")}
    for name, weight in full.named_parameters():
        # Rounding moves a number by at most half a step, of which there are 2**(bits-1) - 1 up to the largest.
        step = weight.abs().max() / (2 ** (bits - 1) - 1)
        assert (live.get_parameter(name) - weight).abs().max() <= 0.51 * step


def test_norms_that_awq_changed_are_put_in_too(wide: Wide, rounded: Callable[..., None], tmp_path: Path) -> None:
    rounded(wide(True), tmp_path / "small", 8)
    stored = load_file(tmp_path / "small" / "model.safetensors")
    name = "model.layers.0.pre_feedforward_layernorm.weight"
    stored[name] = torch.full_like(stored[name], 0.5)
    save_file(stored, tmp_path / "small" / "model.safetensors")
    live = load_model(wide(True), dtype="float32")
    put_compressed(tmp_path / "small", live)
    assert set(live.get_parameter(name).tolist()) == {0.5}


def _damaged(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    stored = load_file(folder / "model.safetensors")
    change(stored)
    save_file(stored, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.norm.weight"), r"lacks norm\.weight"),
        (lambda s: s.update({"model.new.weight": torch.ones(1)}), r"model\.new\.weight does not fit"),
        (lambda s: s.update({"model.norm.weight": torch.ones(3)}), r"model\.norm\.weight does not fit"),
        (lambda s: s.update({"lm_head.weight_packed": torch.ones(1, 1)}), r"lm_head must stay in 16 bit"),
        (
            lambda s: s.update({"vision_tower.encoder.layers.0.fc1.weight_packed": torch.ones(1, 1)}),
            r"vision_tower\.encoder\.layers\.0\.fc1 must stay in 16 bit",
        ),
    ],
)
def test_a_folder_of_another_model_is_refused(
    wide: Wide, rounded: Callable[..., None], tmp_path: Path, change: Callable[..., None], message: str
) -> None:
    rounded(wide(True), tmp_path / "small", 4)
    with pytest.raises(ModelError, match=message):
        put_compressed(_damaged(tmp_path / "small", change), load_model(wide(True), dtype="float32"))


@pytest.mark.parametrize(
    "found", [{}, {"format": "float-quantized", "config_groups": {}}, {"format": "pack-quantized"}]
)
def test_another_format_is_refused(wide: Wide, rounded: Callable[..., None], tmp_path: Path, found: object) -> None:
    rounded(wide(True), tmp_path / "small", 4)
    path = tmp_path / "small" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"quantization_config": found}), "utf-8")
    with pytest.raises(ModelError, match=r"config\.json: not one group of 4 or 8 bits"):
        list(compressed_weights(tmp_path / "small"))
