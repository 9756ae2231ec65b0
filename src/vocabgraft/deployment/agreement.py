"""Check that what is served says what the Hugging Face folder says: greedy continuations and log-probabilities.

Tokenizer, weights and graph are all re-implemented in llama.cpp, so this one comparison covers the whole
export. Quantised weights flip near ties; the margin between the two best probabilities at the first
difference tells a flip (small) from a fault (large).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class Completes(Protocol):
    """What is asked of a server: greedy completion with token ids (`LlamaServer` does)."""

    def complete(self, prompt: str, *, max_tokens: int) -> dict[str, Any]:
        """Continue `prompt`; the result has `text` and `tokens` (ids)."""
        ...


class Weighs(Protocol):
    """What is asked of a server: log-probabilities of the most likely next tokens (`client.Client` does)."""

    def complete(self, prompt: str, *, max_tokens: int, top: int) -> dict[str, Any]:
        """Continue `prompt`; the result has `top`: for each place, id -> log-probability."""
        ...


def greedy_agreement(
    model_folder: Path, server: Completes, prompts: Sequence[str], *, tokens: int = 12
) -> list[dict[str, Any]]:
    """Compare greedy continuations of transformers (float32, CPU) and the server, prompt by prompt.

    Each row: `prompt`, `hf` and `gguf` (texts), `equal` (the same ids), `first_difference` (position in
    generated tokens, or None). A row that differs also has `margin`: the difference of transformers' two
    highest probabilities at that position, 0 to 1.
    """
    model, tokenizer = _reference(model_folder)
    return [_compare(model, tokenizer, server, prompt, tokens) for prompt in prompts]


def top_agreement(model_folder: Path, server: Weighs, prompts: Sequence[str], *, top: int = 5) -> list[dict[str, Any]]:
    """Compare the next token's log-probabilities of transformers (float32, CPU) and the server, prompt by prompt.

    Each row: `prompt`, `difference`: the largest over the `top` tokens most likely to the server, in nats; `same`:
    whether they are also transformers' `top`. Near-ties change places, so the difference is what to judge by. Both are
    None where the server tells nothing: llama.cpp does not while a letter of several tokens is unfinished.
    """
    import torch

    model, tokenizer = _reference(model_folder)
    rows = []
    for prompt in prompts:
        with torch.inference_mode():
            logits = model(**tokenizer(prompt, return_tensors="pt"), logits_to_keep=1).logits[0, -1]
        ours = logits.float().log_softmax(-1)
        row: dict[str, Any] = {"prompt": prompt, "difference": None, "same": None}
        for theirs in server.complete(prompt, max_tokens=1, top=top)["top"]:
            row["difference"] = max(abs(float(ours[i]) - p) for i, p in theirs.items())
            row["same"] = set(ours.topk(top).indices.tolist()) == set(theirs)
        rows.append(row)
    return rows


def _reference(model_folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from vocabgraft.models.load import quiet

    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
        model = AutoModelForCausalLM.from_pretrained(
            model_folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    return model, tokenizer


def _compare(model: Any, tokenizer: Any, server: Completes, prompt: str, tokens: int) -> dict[str, Any]:
    eos = model.generation_config.eos_token_id
    ends = set(eos if isinstance(eos, list) else [eos])
    ids, margins = _continue(model, tokenizer, prompt, tokens)
    ours, theirs = _before(ends, ids), _before(ends, server.complete(prompt, max_tokens=tokens)["tokens"])
    row: dict[str, Any] = {
        "prompt": prompt,
        "hf": tokenizer.decode(ours, skip_special_tokens=False),
        "gguf": tokenizer.decode(theirs, skip_special_tokens=False),
        "equal": ours == theirs,
        "first_difference": None,
    }
    if ours != theirs:
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        row["first_difference"] = min(len(ours), len(theirs)) if at is None else at
        row["margin"] = margins[row["first_difference"]]
    return row


def _before(ends: set[int], ids: list[int]) -> list[int]:
    """The ids before the first end token: one side reports it, the other does not."""
    return next((ids[:i] for i, token in enumerate(ids) if token in ends), ids)


def _continue(model: Any, tokenizer: Any, prompt: str, tokens: int) -> tuple[list[int], list[float]]:
    """Greedy ids, and at each the difference of the two highest probabilities."""
    import torch

    inputs = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        result = model.generate(
            **inputs,
            max_new_tokens=tokens,
            do_sample=False,
            use_cache=True,
            output_scores=True,
            return_dict_in_generate=True,
        )
    top = torch.stack([s[0].softmax(-1).topk(2).values for s in result.scores])
    new = result.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    return new, (top[:, 0] - top[:, 1]).tolist()
