"""Check that what is served says what the Hugging Face folder says: next tokens and greedy answers, side by side.

Tokenizer, weights and graph are all re-implemented in llama.cpp, so these comparisons cover the whole export. The
log-probabilities of the likeliest next tokens tell a fault from rounding; greedy answers show what it means in use, but
flip at near ties: there the margin between the two best probabilities at the first difference is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vocabgraft.errors import ModelError

CLOSE = 0.1
"""Nats by which log-probabilities of one model in two engines may differ: rounding to f16 stays far below."""

_SEEN = 10  # times as many tokens are asked for as are compared: near ties change their order


class Serves(Protocol):
    """What is asked of a server (`LlamaServer` and `Client` do it)."""

    def complete(self, prompt: str, *, max_tokens: int) -> dict[str, Any]:
        """Continue `prompt` greedily; the result has `text` and `tokens` (ids)."""
        ...

    def next_tokens(self, prompt: str, *, top: int) -> dict[int, float]:
        """Log-probabilities of the likeliest tokens after `prompt`, by id."""
        ...


@dataclass(frozen=True)
class Reference:
    """A Hugging Face folder in transformers, on the CPU in float32: what the server is compared with.

    ids: how many the tokenizer has. Rows behind them only pad the matrix and are not in a GGUF file.
    """

    tokenizer: Any
    model: Any
    ids: int

    @classmethod
    def load(cls, model_folder: Path) -> Reference:
        """Load tokenizer and weights; four bytes of memory a parameter."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from vocabgraft.models.load import quiet

        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(model_folder)
            model = AutoModelForCausalLM.from_pretrained(
                model_folder, dtype=torch.float32, attn_implementation="eager"
            ).eval()
        return cls(tokenizer, model, max(tokenizer.get_vocab().values()) + 1)

    def next_tokens(self, prompt: str, *, top: int) -> dict[int, float]:
        """Log-probabilities of the `top` likeliest tokens after `prompt`, by id, best first."""
        import torch

        with torch.no_grad():
            logits = self.model(**self.tokenizer(prompt, return_tensors="pt"), logits_to_keep=1).logits[0, -1]
        best = logits[: self.ids].double().log_softmax(-1).topk(top)
        return dict(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def next_token_agreement(
    reference: Reference, server: Serves, prompts: Sequence[str], *, top: int = 5
) -> dict[str, Any]:
    """Compare the log-probabilities of the reference's `top` likeliest next tokens, prompt by prompt.

    `largest` and `mean` difference in nats, over all of them, and `worst`, the prompt of the largest. A token that the
    server does not name among ten times as many counts with the least log-probability it does name. `prompts` counts
    those that it told anything of; ModelError where it never did.
    """
    differences: dict[str, list[float]] = {}
    for prompt in prompts:
        theirs = server.next_tokens(prompt, top=_SEEN * top)
        if not theirs:
            continue
        least = min(theirs.values())
        ours = reference.next_tokens(prompt, top=top)
        differences[prompt] = [abs(value - theirs.get(i, least)) for i, value in ours.items()]
    if not differences:
        raise ModelError("the server tells no log-probabilities; ask it for them on another engine")
    worst = max(differences, key=lambda p: max(differences[p]))
    each = [d for values in differences.values() for d in values]
    return {
        "prompts": len(differences),
        "top": top,
        "largest": max(each),
        "mean": sum(each) / len(each),
        "worst": worst,
    }


def greedy_agreement(
    reference: Reference, server: Serves, prompts: Sequence[str], *, tokens: int = 12
) -> list[dict[str, Any]]:
    """Compare greedy continuations of the reference and the server, prompt by prompt.

    Each row: `prompt`, `hf` and `gguf` (texts), `equal` (the same ids), `first_difference` (position in
    generated tokens, or None). A row that differs also has `margin`: the difference of transformers' two
    highest probabilities at that position, 0 to 1.
    """
    return [_compare(reference.model, reference.tokenizer, server, prompt, tokens) for prompt in prompts]


def _compare(model: Any, tokenizer: Any, server: Serves, prompt: str, tokens: int) -> dict[str, Any]:
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
