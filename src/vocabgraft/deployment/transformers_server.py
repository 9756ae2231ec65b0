"""An engine for any folder that transformers can load: the OpenAI routes over one live model, in this process.

For a machine without a GPU, a family llama.cpp does not know, and as the reference the other engines are compared with.
transformers' own `transformers serve` (5.17) refuses `logprobs` and loads any model a request names, so it is not used.
One answer is written at a time; the others wait. What cannot be had here is refused by name, never ignored.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vocabgraft.deployment.door import CHAT, HEALTH, MODELS, Reply
from vocabgraft.deployment.generate import TokenText, Wish, Written, write
from vocabgraft.deployment.thinking import MARKERS
from vocabgraft.errors import MachineError

_TAKEN = {
    "model", "user", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed",
    "stop", "stream", "stream_options", "logprobs", "top_logprobs", "ignore_eos", "return_tokens_as_token_ids",
}  # fmt: skip
_MOST_LOGPROBS = 20


class _Refused(Exception):
    """A request that is not answered; told to the asker as HTTP 400."""


class TransformersBack:
    """See `door.Back`. Loads `folder` when made, in `dtype`; `context` limits prompt and answer together."""

    def __init__(self, folder: Path, *, name: str, context: int, dtype: str = "bfloat16", device: str = "cpu") -> None:
        from transformers import AutoTokenizer

        from vocabgraft.models.load import load_model, quiet
        from vocabgraft.tokenizer.measure import load_tokenizer

        self.name = name
        self._model = load_model(folder, device=device, dtype=dtype)
        with quiet():
            self._chat = AutoTokenizer.from_pretrained(folder)
        self._tokenizer = load_tokenizer(folder)
        self._context = min(context, self._model.config.get_text_config().max_position_embeddings)
        end = self._model.generation_config.eos_token_id
        self._ends = frozenset(end if isinstance(end, list) else [] if end is None else [end])
        marks = {m for pair in MARKERS for m in pair}
        added = self._tokenizer.get_added_tokens_decoder().items()
        self._hidden = self._ends | {i for i, t in added if t.special and t.content not in marks}
        self._turn, self._closing = threading.Lock(), threading.Event()

    def close(self) -> None:
        """Break off what is under way."""
        self._closing.set()

    def answer(self, route: str, body: dict[str, Any]) -> Reply | Iterator[dict[str, Any]]:
        """HTTP status and JSON, or the events of a stream."""
        if route == HEALTH:
            return 200, {"status": "ok"}
        if route == MODELS:
            model = {"id": self.name, "object": "model", "created": 0, "owned_by": "vocabgraft"}
            return 200, {"object": "list", "data": [model]}
        try:
            ids = self._prompt(route, body)
            wish, stops = _wish(route, body, self._context - len(ids))
        except _Refused as e:
            return 400, {"error": {"message": str(e), "type": "invalid_request_error", "code": 400}}
        events = self._events(_Shape(route, self.name, body, self._text), ids, wish, stops)
        return events if body.get("stream") else (200, _whole(events, chat=route == CHAT))

    def _prompt(self, route: str, body: dict[str, Any]) -> list[int]:
        if unknown := sorted(k for k, v in body.items() if k not in _TAKEN and v is not None and (k, v) != ("n", 1)):
            raise _Refused(f"{', '.join(unknown)}: not to be had from the transformers engine")
        if route == CHAT:
            try:
                text = self._chat.apply_chat_template(body.get("messages"), tokenize=False, add_generation_prompt=True)
            except Exception as e:  # a template is somebody's code, and raises what it likes
                raise _Refused(f"messages: the chat template does not take them ({type(e).__name__}: {e})") from e
            return list(self._chat(text, add_special_tokens=False).input_ids)
        prompt = body.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise _Refused("prompt: one text is needed")
        return list(self._chat(prompt).input_ids)

    def _text(self, token: int) -> str:
        return str(self._tokenizer.decode([token], skip_special_tokens=False))

    def _events(self, shape: _Shape, ids: list[int], wish: Wish, stops: list[str]) -> Iterator[dict[str, Any]]:
        with self._turn:
            text, held, count, reason = TokenText(self._tokenizer, self._hidden), "", 0, "length"
            for written in write(self._model, ids, wish, self._ends):
                if self._closing.is_set():
                    raise MachineError("the server stops")
                count += 1
                held += text.add(written.id)
                said, held, stopped = _until(held, stops)
                if said or wish.top:
                    yield shape.event(said, written if wish.top else None)
                if stopped or written.id in self._ends:
                    reason = "stop"
                    break
            rest = "" if reason == "stop" and stops and not held else held + text.end()
        usage = {"prompt_tokens": len(ids), "completion_tokens": count, "total_tokens": len(ids) + count}
        yield shape.event(rest, reason=reason) | {"usage": usage}


class _Shape:
    """Writes events as OpenAI does: for a conversation, or for plain completion."""

    def __init__(self, route: str, model: str, body: dict[str, Any], text_of: Any) -> None:
        self.chat, self._text = route == CHAT, text_of
        self._by_id = bool(body.get("return_tokens_as_token_ids"))
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        self._head = {"id": f"cmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}

    def event(self, text: str, written: Written | None = None, reason: str | None = None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "logprobs": None}
        choice |= {"delta": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        if written is not None:
            choice["logprobs"] = self._chat_weights(written) if self.chat else self._weights(written)
        return self._head | {"choices": [choice]}

    def _name(self, token: int) -> str:
        return f"token_id:{token}" if self._by_id else self._text(token)

    def _weights(self, written: Written) -> dict[str, Any]:
        best = {self._name(i): p for i, p in written.best}
        return {"tokens": [self._name(written.id)], "token_logprobs": [written.logprob], "top_logprobs": [best]}

    def _chat_weights(self, written: Written) -> dict[str, Any]:
        def entry(token: int, logprob: float) -> dict[str, Any]:
            return {"token": self._name(token), "logprob": logprob, "bytes": list(self._text(token).encode())}

        best = [entry(*pair) for pair in written.best]
        return {"content": [entry(written.id, written.logprob) | {"top_logprobs": best}]}


def _wish(route: str, body: dict[str, Any], room: int) -> tuple[Wish, list[str]]:
    """How to write, and the texts at which to stop."""
    tokens = _number(body, "max_completion_tokens", None, 1, 1 << 30) or _number(body, "max_tokens", None, 1, 1 << 30)
    if room < 1 or (tokens or 1) > room:
        raise _Refused(f"the prompt leaves room for {max(room, 0)} tokens, {tokens or 1} are asked for")
    if route == CHAT:
        top = (_number(body, "top_logprobs", 0, 0, _MOST_LOGPROBS) or 1) if body.get("logprobs") else 0
    else:
        top = int(_number(body, "logprobs", 0, 0, _MOST_LOGPROBS))
    stops = body.get("stop") or []
    stops = [stops] if isinstance(stops, str) else stops
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops):
        raise _Refused("stop: a text or a list of texts is needed")
    wish = Wish(
        tokens=int(tokens or room),
        temperature=_number(body, "temperature", 1.0, 0, 10),
        top_p=_number(body, "top_p", 1.0, 1e-6, 1),
        seed=None if body.get("seed") is None else int(_number(body, "seed", 0, 0, 1 << 62)),
        top=int(top),
        ignore_eos=bool(body.get("ignore_eos")),
    )
    return wish, stops


def _number(body: dict[str, Any], name: str, default: Any, least: float, most: float) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise _Refused(f"{name}: {value!r} is not a number from {least:g} to {most:g}")
    return value


def _until(text: str, stops: list[str]) -> tuple[str, str, bool]:
    """(what can be said, what may be the beginning of a stop, whether one was met)."""
    at = min((i for i in (text.find(s) for s in stops) if i >= 0), default=-1)
    if at >= 0:
        return text[:at], "", True
    held = max((n for s in stops for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
    return text[: len(text) - held], text[len(text) - held :], False


def _whole(events: Iterator[dict[str, Any]], *, chat: bool) -> dict[str, Any]:
    """All events of a stream as one reply."""
    seen = list(events)
    choices = [e["choices"][0] for e in seen]
    text = "".join(c["delta"]["content"] if chat else c["text"] for c in choices)
    weights = [c["logprobs"] for c in choices if c["logprobs"]]
    joined = {k: [x for w in weights for x in w[k]] for k in weights[0]} if weights else None
    choice = {"index": 0, "finish_reason": choices[-1]["finish_reason"], "logprobs": joined}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    kind = "chat.completion" if chat else "text_completion"
    return seen[-1] | {"object": kind, "choices": [choice]}
