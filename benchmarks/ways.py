"""Ways to train a stage, for `training_stages.py`: the usual ones and ours. Each runs steps and ticks after each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from bases import gemma

from vocabgraft.embedding.rows import Rows
from vocabgraft.models.load import load_model
from vocabgraft.training import lora
from vocabgraft.training.cached import build_cache
from vocabgraft.training.cached_passes import Setting, train_cached
from vocabgraft.training.graft import Graft
from vocabgraft.training.loop import Schedule, train

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK, MICRO = 16, 2
SETTINGS = tuple(Setting(lr) for lr in (1e-4, 3e-4, 1e-3, 3e-3))
BatchAt = Callable[[int], Any]
Tick = Callable[[], None]


def make_model(shape: str, device: str, *, nf4: bool) -> Any:
    """The real 270M, or random weights of MedGemma 4B's true text shape."""
    if shape == "gemma-3-270m":
        return load_model(gemma(), device=device, body="nf4" if nf4 else "bf16")
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=262_208,
        hidden_size=2560,
        intermediate_size=10_240,
        num_hidden_layers=34,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=1024,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    with TemporaryDirectory() as place, torch.device(device):
        model = Gemma3ForCausalLM(config).to(torch.bfloat16)
        if nf4:
            model.save_pretrained(place)
            del model
            model = load_model(Path(place), device=device, body="nf4")
    return model.eval().requires_grad_(False)


def run(
    way: str, groups: tuple[str, ...], model: Any, ids: torch.Tensor, batch_at: BatchAt, steps: int, tick: Tick
) -> None:
    """`steps` steps; tick() after each."""
    {"naive": naive, "mask": mask, "peft": peft, "ours": ours, "cached": cached}[way](
        groups, model, ids, batch_at, steps, tick
    )


def _loss(model: Any, batch: Any) -> torch.Tensor:
    """As the Trainer does it: whole logits, mean over all tokens; rows go through one by one to save memory."""
    device = model.get_input_embeddings().weight.device
    tokens, positions = (torch.from_numpy(a).to(device) for a in (batch.tokens, batch.positions))
    return model(input_ids=tokens, position_ids=positions, labels=tokens, use_cache=False).loss


def naive(groups: tuple[str, ...], model: Any, ids: Any, batch_at: BatchAt, steps: int, tick: Tick) -> None:
    """Forward and backward with a gradient for every weight; no optimiser."""
    model.train().requires_grad_(True)
    for n in range(steps):
        _loss(model, batch_at(n)).backward()
        model.zero_grad()
        tick()


def mask(groups: tuple[str, ...], model: Any, ids: Any, batch_at: BatchAt, steps: int, tick: Tick) -> None:
    """The whole matrix in AdamW, a hook that zeroes old rows' gradient; LoRA by PEFT where the stage trains it."""
    from peft import LoraConfig, inject_adapter_in_model

    if "lora" in groups:
        inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(MODULES)), model)
    matrix = model.get_input_embeddings().weight
    if any(g != "lora" for g in groups):
        matrix.requires_grad_(True)
        if not any(g.endswith(".old") for g in groups):
            keep = torch.zeros(len(matrix), 1, device=matrix.device, dtype=matrix.dtype)
            keep[ids] = 1
            matrix.register_hook(lambda gradient: gradient * keep)
    _steps(model, batch_at, steps, tick)


def peft(groups: tuple[str, ...], model: Any, ids: Any, batch_at: BatchAt, steps: int, tick: Tick) -> None:
    """Trainable tokens, or LoRA with the whole embedding saved beside it."""
    from peft import LoraConfig, TrainableTokensConfig, get_peft_model

    if "lora" not in groups:
        config: Any = TrainableTokensConfig(token_indices=ids.tolist(), target_modules=["embed_tokens"])
    else:
        saved = ["embed_tokens"] if len(groups) > 1 else None
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(MODULES), modules_to_save=saved)
    wrapped = get_peft_model(model, config)
    wrapped.get_input_embeddings = model.get_input_embeddings
    _steps(wrapped, batch_at, steps, tick)


def _steps(model: Any, batch_at: BatchAt, steps: int, tick: Tick) -> None:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.01)
    for n in range(steps):
        _loss(model, batch_at(n)).backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tick()


def graft_of(groups: tuple[str, ...], model: Any, ids: Any, *, untie: bool = False) -> Graft:
    """As the steps of a run make it."""
    graft = Graft(model, Rows(model, ids, untie=untie))
    if "lora" in groups:
        graft.adapters = lora.attach(model, rank=RANK, alpha=2 * RANK, modules=MODULES, seed=0)
    return graft


def ours(groups: tuple[str, ...], model: Any, ids: Any, batch_at: BatchAt, steps: int, tick: Tick) -> None:
    """The loop of the stages."""
    schedule = Schedule(groups, steps, lr_new=1e-4, lr_old=1e-6, lr_lora=1e-4)
    train(graft_of(groups, model, ids), batch_at, schedule, micro_batch=MICRO, on_step=lambda step, loss: tick())


def cached(groups: tuple[str, ...], model: Any, ids: Any, batch_at: BatchAt, steps: int, tick: Tick) -> None:
    """Later passes: stage 2 trains all SETTINGS side by side, stage 4 one."""
    graft = graft_of(groups, model, ids, untie=True)  # kept hidden states want it on a tied base
    with TemporaryDirectory() as place:
        cache = build_cache(graft, batch_at, steps + 1, Path(place), key="benchmark", micro_batch=MICRO)
        tick()  # what came before is not a pass
        if "output.old" in groups:
            schedule = Schedule(groups, steps, lr_new=1e-4, lr_old=1e-6)
            train(graft, batch_at, schedule, micro_batch=MICRO, cache=cache, on_step=lambda step, loss: tick())
        else:
            train_cached(cache, graft.rows.new["output"], SETTINGS, held_out=1, epochs=1, seed=0, on_batch=tick)
