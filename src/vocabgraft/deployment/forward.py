"""Behind the door: an engine with a port of its own on this machine, reached with a key that only we know."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from vocabgraft.deployment.door import CHAT, COMPLETE, HEALTH, MODELS, Reply
from vocabgraft.deployment.thinking import MARKERS
from vocabgraft.errors import MachineError

Answer = Reply | Iterator[dict[str, Any]]


class Forward:
    """Passes a request on as it is, with `extra` fields added to every body, and the answer back."""

    def __init__(self, url: str, key: str, *, extra: dict[str, Any] | None = None, timeout: float = 600.0) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.key, self.extra, self.timeout = key, extra or {}, timeout
        self._under_way = set[socket.socket]()

    def answer(self, route: str, body: dict[str, Any]) -> Answer:
        """See `door.Back`. Raises MachineError when the engine is gone."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        try:
            if route in (HEALTH, MODELS):
                connection.request("GET", route, headers=headers)
            else:
                connection.request("POST", route, json.dumps(body | self.extra), headers)
            # The response takes the socket over; kept here, it can be shut whoever reads from it.
            self._under_way.add(wire := connection.sock)
            try:
                response = connection.getresponse()
                if response.getheader("Content-Type", "").startswith("text/event-stream"):
                    return self._events(connection, response, wire)
                status, data = response.status, response.read()
            finally:
                self._under_way.discard(wire)
        except (OSError, http.client.HTTPException) as e:
            connection.close()
            raise MachineError(f"{route}: the engine does not answer ({type(e).__name__}); start it again") from e
        connection.close()
        return status, _object(data)

    def close(self) -> None:
        """Break off what is under way: llama.cpp does not stop while a request waits for its answer."""
        for wire in list(self._under_way):
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

    def _events(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, wire: socket.socket
    ) -> Iterator[dict[str, Any]]:
        """The events of a stream. Closing it closes the connection, at which engines stop their work."""
        self._under_way.add(wire)
        try:
            for line in response:
                data = line.removeprefix(b"data:").strip()
                if line.startswith(b"data:") and data != b"[DONE]":
                    yield _object(data)
        except (OSError, http.client.HTTPException) as e:
            raise MachineError(f"the engine broke off its answer ({type(e).__name__})") from e
        finally:
            self._under_way.discard(wire)
            response.close()
            connection.close()

    def wait(self, seconds: float, alive: Callable[[], bool] = lambda: True) -> bool:
        """Whether the engine says that it is well before the time is over, or it dies."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and alive():
            try:
                if self.answer(HEALTH, {})[0] == 200:  # type: ignore[index]
                    return True
            except MachineError:
                pass
            time.sleep(0.2)
        return False


class LlamaForward(Forward):
    """llama.cpp shows control pieces, and so marks of thinking, only where a plain completion asks to keep them: a
    conversation is put through its template there, then continued as text."""

    def answer(self, route: str, body: dict[str, Any]) -> Answer:
        """See `door.Back`. Tools and response formats keep to llama.cpp's own chat, where thoughts are not parted."""
        if route != CHAT or body.get("tools") or body.get("response_format"):
            return super().answer(route, body)
        opened = super().answer("/apply-template", {"messages": body.get("messages")})
        if not isinstance(opened, tuple) or opened[0] != 200:
            return opened
        plain = {k: v for k, v in body.items() if k not in ("messages", "max_completion_tokens", "top_logprobs")}
        plain |= {"prompt": opened[1]["prompt"], "preserved_tokens": [m for pair in MARKERS for m in pair]}
        if "max_completion_tokens" in body:
            plain["max_tokens"] = body["max_completion_tokens"]
        if body.get("logprobs"):
            plain["logprobs"] = max(1, body.get("top_logprobs") or 1)
        else:
            plain.pop("logprobs", None)
        answer = super().answer(COMPLETE, plain)
        if not isinstance(answer, tuple):
            return _chat_events(answer)
        return answer[0], _as_chat(answer[1], "message") if answer[0] == 200 else answer[1]


def _as_chat(reply: dict[str, Any], part: str) -> dict[str, Any]:
    """A plain completion in the shape of a conversation's; `part` is message, or delta for a stream."""
    reply["object"] = "chat.completion" if part == "message" else "chat.completion.chunk"
    for choice in reply.get("choices", []):
        choice[part] = {"role": "assistant", "content": choice.pop("text", "")}
    return reply


def _chat_events(events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        for event in events:
            yield _as_chat(event, "delta")
    finally:
        events.close()  # type: ignore[attr-defined]


def _object(data: bytes) -> dict[str, Any]:
    """The JSON object in an answer; {} for anything else, such as an empty one."""
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {"data": value}
