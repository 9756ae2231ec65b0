"""Load a Hugging Face folder as a live model: safetensors only, no remote code, body in bf16 or NF4."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vocabgraft.errors import ModelError

_FORBIDDEN = ("auto_map", "_attn_implementation_internal", "model_file", "custom_pipelines")


def load_model(folder: Path, *, device: str = "cpu", dtype: str = "bfloat16", body: str = "bf16") -> Any:
    """A causal language model with all parameters frozen, in eval mode.

    body 'nf4' holds the linear layers of the body in 4 bit (embedding and head stay in `dtype`). Raises
    ModelError for a folder without safetensors, or whose configuration would run code of its own.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from vocabgraft.models import bf16_products

    check_folder(folder)
    if device == "cpu":
        bf16_products.speed_up()
    extra: dict[str, Any] = {}
    if body == "nf4":
        extra = {"quantization_config": _nf4(dtype), "device_map": {"": device}}
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation="sdpa", use_safetensors=True, **extra
        )
    if body != "nf4":
        model.to(device)
    else:
        _keep_gradients_right(model)
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def check_folder(folder: Path) -> None:
    """Refuse a folder that is not a plain safetensors model."""
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(f"{folder}: no config.json; a Hugging Face model folder is needed")
    try:
        keys = json.loads(config.read_text("utf-8"))
    except ValueError as e:
        raise ModelError(f"{config}: not JSON ({e})") from e
    bad = [k for k in _FORBIDDEN if k in keys]
    if bad:
        raise ModelError(f"{config}: {', '.join(bad)} would run code that came with the model; remove it to go on")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder}: no .safetensors file; pickled weights are not read, convert them first")


def decoder_of(model: Any) -> Any:
    """The body: takes `inputs_embeds`, gives hidden states before the head."""
    return model.get_decoder()


def _nf4(dtype: str) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def _keep_gradients_right(model: Any) -> None:
    """Work around bitsandbytes 0.50 on CPU: one eval-mode forward repacks the 4-bit weights for a kernel without
    autograd, after which gradients are silently wrong. tests/models/test_load.py shows it."""
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back progress bars and chatter of the libraries below; errors still pass."""
    from transformers.utils import logging as hf_logging

    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    level = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)
        hf_logging.set_verbosity(level)
        hf_logging.enable_progress_bar()


def softcap_of(model: Any) -> float | None:
    """The bound of the model's logits, where it has one (Gemma 2)."""
    return getattr(model.config.get_text_config(), "final_logit_softcapping", None)
