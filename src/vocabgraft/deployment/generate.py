"""Write text with a live transformers model, token by token: greedy or sampled, with log-probabilities, stoppable.

`model.generate` gives neither tokens with their log-probabilities as they come nor a way to stop in between; a
server wants both. The rest is transformers': the model with its cache, the warpers of temperature and top-p.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wish:
    """How to write: temperature 0 is greedy; `top` log-probabilities of each token; ignore_eos: exactly `tokens`."""

    tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    top: int = 0
    ignore_eos: bool = False


@dataclass(frozen=True)
class Written:
    """One token: what it was, its log-probability and the best of all (id, log-probability), before any warping."""

    id: int
    logprob: float = 0.0
    best: tuple[tuple[int, float], ...] = ()


def write(model: Any, ids: Sequence[int], wish: Wish, ends: Collection[int]) -> Iterator[Written]:
    """Tokens after `ids`, up to the first of `ends`, which is given as the last one."""
    import torch

    choose = _chooser(wish, model.device)
    seen = torch.tensor([list(ids)], device=model.device)
    cache = None
    forbidden = torch.tensor(sorted(ends), device=model.device) if wish.ignore_eos else None
    for _ in range(wish.tokens):
        with torch.inference_mode():
            out = model(input_ids=seen, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, logits = out.past_key_values, out.logits[0, -1].float()
            if forbidden is not None:
                logits[forbidden] = -torch.inf
            token = choose(logits)
            written = _weighed(logits, token, wish.top)
        yield written
        if token in ends:
            return
        seen = torch.tensor([[token]], device=model.device)


def _chooser(wish: Wish, device: Any) -> Any:
    import torch
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

    if wish.temperature <= 0:
        return lambda logits: int(logits.argmax())
    warp = LogitsProcessorList([TemperatureLogitsWarper(float(wish.temperature))])
    if wish.top_p < 1:
        warp.append(TopPLogitsWarper(float(wish.top_p)))
    generator = torch.Generator(device)
    if wish.seed is None:
        generator.seed()
    else:
        generator.manual_seed(wish.seed)

    def sample(logits: torch.Tensor) -> int:
        chances = warp(None, logits[None]).softmax(-1)
        return int(torch.multinomial(chances, 1, generator=generator))

    return sample


def _weighed(logits: Any, token: int, top: int) -> Written:
    if top == 0:
        return Written(token)
    logprobs = logits.log_softmax(-1)
    best = logprobs.topk(top)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Written(token, float(logprobs[token]), tuple(pairs))


class TokenText:
    """Turns ids into text as they come; letters of which only some bytes are there yet wait.

    The text of a token depends on those before it (spaces, bytes), so a short run of them is read again each time.
    """

    def __init__(self, tokenizer: Any, hidden: Collection[int]) -> None:
        self._tokenizer, self._hidden = tokenizer, hidden
        self._ids: list[int] = []
        self._start = self._read = 0

    def add(self, token: int) -> str:
        """The text that `token` completes, "" while a letter is unfinished and for what is not to be shown."""
        if token in self._hidden:
            return ""
        self._ids.append(token)
        before, now = self._text(self._read), self._text(len(self._ids))
        if now.endswith("�"):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return now[len(before) :]

    def end(self) -> str:
        """What never became a whole letter."""
        return self._text(len(self._ids))[len(self._text(self._read)) :]

    def _text(self, end: int) -> str:
        return str(self._tokenizer.decode(self._ids[self._start : end], skip_special_tokens=False))
