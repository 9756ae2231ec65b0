"""What every engine is once it serves: an address and a key, the same questions, the same shapes of answers.

    with open_server("llama.cpp", Path("model.gguf"), key=new_key()) as server:     # deployment.engines
        server.chat([{"role": "user", "content": "안녕하세요"}], max_tokens=64)["text"]

Any OpenAI client can talk to `url`; this one also keeps time, and proves that strangers are refused.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vocabgraft.deployment.door import CHAT, COMPLETE, HEALTH, MODELS, ROUTES
from vocabgraft.deployment.serve import new_key
from vocabgraft.errors import MachineError, ModelError

_METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS")
_HELLO = {"messages": [{"role": "user", "content": "a"}], "prompt": "a", "content": "a", "max_tokens": 1}


@dataclass(frozen=True)
class Client:
    """A server that is up: `url` without `/v1`, its key, the engine's name, and every route the engine itself has."""

    url: str
    key: str
    engine: str
    routes: tuple[str, ...] = ()
    timeout: float = 600.0

    def chat(self, messages: list[dict[str, str]], *, max_tokens: int, temperature: float = 0.0) -> dict[str, Any]:
        """Answer a conversation: `{text, reasoning, tokens, seconds}`.

        `tokens` counts what was generated, thoughts included; `temperature=0` is greedy.
        """
        body = {"messages": messages, "max_tokens": max_tokens, "temperature": temperature}
        started = time.perf_counter()
        reply = self._ask(CHAT, body)
        message = reply["choices"][0]["message"]
        return {
            "text": message.get("content") or "",
            "reasoning": message.get("reasoning_content") or "",
            "tokens": int(reply["usage"]["completion_tokens"]),
            "seconds": time.perf_counter() - started,
        }

    def complete(self, prompt: str, *, max_tokens: int, top: int = 0, ignore_eos: bool = False) -> dict[str, Any]:
        """Continue `prompt` greedily: `{text, tokens, seconds, top}`; `tokens` is their number.

        `top` asks for the most likely tokens at each place: `top[i]` maps ids to log-probabilities. `ignore_eos` writes
        exactly `max_tokens`.
        """
        body: dict[str, Any] = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": ignore_eos}
        if top:
            body |= {"logprobs": top, "return_tokens_as_token_ids": True}
        started = time.perf_counter()
        reply = self._ask(COMPLETE, body)
        choice = reply["choices"][0]
        return {
            "text": choice["text"],
            "tokens": int(reply["usage"]["completion_tokens"]),
            "seconds": time.perf_counter() - started,
            "top": _top(choice.get("logprobs") or {}),
        }

    def next_tokens(self, prompt: str, *, top: int) -> dict[int, float]:
        """Log-probabilities in nats of the likeliest tokens after `prompt`, by id: `top`, at most 20, vLLM's limit.

        Empty where the engine tells nothing: llama.cpp does not while a letter of several tokens is unfinished.
        """
        return next(iter(self.complete(prompt, max_tokens=1, top=min(top, 20))["top"]), {})

    def stream(self, route: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of a streamed answer, as they come."""
        connection, response = self._open("POST", route, body | {"stream": True}, self.key)
        try:
            if response.status != 200:
                raise ModelError(f"{route} answered HTTP {response.status}: {_reason(response.read())}")
            for line in response:
                data = line.removeprefix(b"data:").strip()
                if line.startswith(b"data:") and data != b"[DONE]":
                    yield json.loads(data)
        finally:
            connection.close()

    def healthy(self) -> bool:
        """Whether the engine behind the door says that it is well."""
        return self.status("GET", HEALTH, self.key) == 200

    def model(self) -> str:
        """The name under which the model is served."""
        return str(self._ask(MODELS, None)["data"][0]["id"])

    def status(self, method: str, route: str, key: str | None, body: dict[str, Any] | None = None) -> int:
        """The HTTP status of one request."""
        connection, response = self._open(method, route, body, key)
        try:
            response.read()
            return response.status
        finally:
            connection.close()

    def refuses_without_key(self, routes: Sequence[str] = ()) -> dict[str, int]:
        """Ask every route by six methods, without a key and with a wrong one: route -> 401, or the status that told
        a stranger something. Asked are the door's routes, all that the engine has behind it, `routes`, and one that is
        nowhere."""
        found: dict[str, int] = {}
        for route in dict.fromkeys([*ROUTES, *self.routes, *routes, "/" + new_key()]):
            body = _HELLO if ROUTES.get(route) != "GET" else None
            statuses = [
                self.status(method, route, key, body if method in ("POST", "PUT") else None)
                for method in _METHODS
                for key in (None, "wrong-" + new_key())
            ]
            name = route if route in ROUTES or route in self.routes or route in routes else "any other route"
            found[name] = next((s for s in statuses if s != 401), 401)
        return found

    def _ask(self, route: str, body: dict[str, Any] | None) -> dict[str, Any]:
        connection, response = self._open("GET" if body is None else "POST", route, body, self.key)
        try:
            data = response.read()
        except (OSError, http.client.HTTPException) as e:
            raise MachineError(f"{self.url}{route}: the answer broke off ({type(e).__name__})") from e
        finally:
            connection.close()
        if response.status != 200:
            raise ModelError(f"{route} answered HTTP {response.status}: {_reason(data)}")
        value: dict[str, Any] = json.loads(data)
        return value

    def _open(
        self, method: str, route: str, body: dict[str, Any] | None, key: str | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=self.timeout)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        try:
            connection.request(method, route, None if body is None else json.dumps(body), headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as e:
            connection.close()
            raise MachineError(f"{self.url}{route}: no answer ({type(e).__name__}: {e})") from e


def _top(logprobs: dict[str, Any]) -> list[dict[int, float]]:
    """Id -> log-probability at each place, from OpenAI's shape with ids for names, or from llama.cpp's own."""
    if "content" in logprobs:
        return [{int(t["id"]): float(t["logprob"]) for t in c["top_logprobs"]} for c in logprobs["content"]]
    places = logprobs.get("top_logprobs") or []
    return [{int(name.removeprefix("token_id:")): float(p) for name, p in place.items()} for place in places]


def _reason(data: bytes) -> str:
    try:
        error = json.loads(data)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return "no reason given"
