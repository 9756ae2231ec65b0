"""Rows on every kind of decoder: split as it was, merged as it was split, reloaded as it was merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vocabgraft.deployment.merge import export_folder
from vocabgraft.embedding.rows import Rows
from vocabgraft.models.load import load_model
from vocabgraft.training.graft import config_of, open_graft, save_graft

SIZE, WIDTH = 96, 32
TOKENS = torch.tensor([[2, 5, 90, 41, 7, 88, 3, 20, 61, 90]])
SCATTERED, LAST = (7, 20, 41, 88), (92, 93, 94, 95)
TEXT: dict[str, Any] = {
    "vocab_size": SIZE,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
KINDS = ("gemma3", "gemma3-multimodal", "llama", "qwen2", "qwen3", "phi3")


def config(kind: str, tied: bool) -> Any:
    import transformers as t

    gemma = TEXT | {"head_dim": 16, "sliding_window": 4, "query_pre_attn_scalar": 16, "tie_word_embeddings": tied}
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    plain = TEXT | {"tie_word_embeddings": tied}
    return {
        "gemma3": lambda: t.Gemma3TextConfig(**gemma),
        "gemma3-multimodal": lambda: t.Gemma3Config(
            text_config=gemma,
            vision_config=vision,
            mm_tokens_per_image=1,
            image_token_index=90,
            tie_word_embeddings=tied,
        ),
        "llama": lambda: t.LlamaConfig(**plain),
        "qwen2": lambda: t.Qwen2Config(**plain),
        "qwen3": lambda: t.Qwen3Config(head_dim=16, **plain),
        "phi3": lambda: t.Phi3Config(**plain),
    }[kind]()


@pytest.fixture(scope="module", params=[(k, t) for k in KINDS for t in (True, False)], ids=str)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of each kind in float32, tied and untied, as a folder."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind, tied = request.param
    torch.manual_seed(0)
    family = AutoModelForImageTextToText if kind.endswith("multimodal") else AutoModelForCausalLM
    model = family.from_config(config(kind, tied), dtype=torch.float32)
    folder: Path = tmp_path_factory.mktemp(f"{kind}-{tied}")
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def logits(model: Any, tokens: torch.Tensor = TOKENS) -> torch.Tensor:
    return model(input_ids=tokens, use_cache=False).logits.float()


def ways(base: Path) -> tuple[bool, ...]:
    """Row-untied or not, where there is a choice."""
    return (False, True) if config_of(base).get("tie_word_embeddings", True) else (False,)


@pytest.mark.parametrize("ids", [SCATTERED, LAST], ids=["scattered", "contiguous"])
def test_split_merged_and_reloaded_are_one_model(base: Path, ids: tuple[int, ...], tmp_path: Path) -> None:
    tokens = TOKENS if ids is SCATTERED else torch.tensor([[2, 5, 92, 41, 7, 95, 3, 93]])
    if "multimodal" in base.name:
        tokens = tokens.masked_fill(tokens == 90, 6)  # its image token
    original = logits(load_model(base, dtype="float32"), tokens)
    for untie in ways(base):
        model = load_model(base, dtype="float32")
        rows = Rows(model, torch.tensor(ids), untie=untie)
        assert torch.equal(logits(model, tokens), original), "splitting changes nothing"
        generator = torch.Generator().manual_seed(1)
        values = {k: v + 0.5 * torch.randn(v.shape, generator=generator) for k, v in rows.state().items()}
        rows.load(values)
        live = logits(model, tokens)
        assert not torch.allclose(live, original)

        state, out = tmp_path / f"state-{untie}", tmp_path / f"out-{untie}"
        state.mkdir()
        graft = open_graft(base, torch.tensor(ids), None, spec=None, seed=0, untie=untie)
        graft.rows.load(values)
        save_graft(graft, state, None, ("input.new", "output.new"))
        assert open_graft(base, torch.tensor(ids), state, spec=None, seed=0).rows.row_untied == untie
        export_folder(base, None, state, torch.tensor(ids), out, scale=1.0)
        assert torch.equal(logits(load_model(out, dtype="float32"), tokens), live)
        assert config_of(out)["tie_word_embeddings"] == (config_of(base)["tie_word_embeddings"] and not untie)
