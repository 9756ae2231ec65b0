"""The door before every engine: HTTP on this machine only, a key on every route, a short list of routes.

Engines leave routes open: llama.cpp `/health`, `/v1/health`, `/` and any OPTIONS request, vLLM everything outside `/v1`
and a few more (its own guide asks for a proxy with an allow-list). So an engine listens where only we know its key, or
has no port at all, and the door alone is told to people:

    with Door(back, key=new_key(), port=8080) as door:
        door.url        # http://127.0.0.1:8080

Who has no key gets 401 whatever was asked, so that a stranger cannot even learn which routes exist. Nothing is
logged: a request may hold somebody's questions.
"""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import urlsplit

from vocabgraft.deployment.thinking import part_events, part_reply
from vocabgraft.errors import MachineError, VocabgraftError

HOST = "127.0.0.1"
HEALTH, MODELS, CHAT, COMPLETE = "/health", "/v1/models", "/v1/chat/completions", "/v1/completions"
ROUTES = {HEALTH: "GET", MODELS: "GET", CHAT: "POST", COMPLETE: "POST"}
"""All that can be asked, and how."""

BODY_LIMIT = 4 << 20
"""Bytes of a request; a million Hangul syllables are 3 MB."""

Reply = tuple[int, dict[str, Any]]


class Back(Protocol):
    """What stands behind the door: an engine that answers the routes."""

    def answer(self, route: str, body: dict[str, Any]) -> Reply | Iterator[dict[str, Any]]:
        """HTTP status and JSON, or the events of a stream. Closing the iterator must stop the work."""
        ...

    def close(self) -> None:
        """Break off what is under way; nothing is asked after that."""
        ...


class Door:
    """A running front for `back`; a context manager. `port=0` takes a free one.

    Raises MachineError for an empty key or a port that is taken.
    """

    def __init__(self, back: Back, *, key: str, port: int = 0) -> None:
        if not key:
            raise MachineError("the API key is empty, which would let everyone in; use new_key()")
        self.back, self.key, self.port = back, key, port

    def __enter__(self) -> Door:
        try:
            self._server = _Server((HOST, self.port), _Handler)
        except OSError as e:
            raise MachineError(f"{HOST}:{self.port} cannot be used ({e.strerror}); choose another port or 0") from e
        self._server.back, self._server.key = self.back, self.key.encode()
        self.url = f"http://{HOST}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self.back.close()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    back: Back
    key: bytes

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Write nothing: who goes away in the middle of a request is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds that a silent connection may last
    server: _Server

    def __getattr__(self, name: str) -> Any:
        # The base class looks for do_GET, do_PUT, …: every method, known or not, goes through the one check.
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        data = self._read()
        if not self._has_key():
            self._say(401, "no valid API key: send the header 'Authorization: Bearer KEY'", "invalid_api_key")
            return
        if isinstance(data, str):
            self._say(413 if "bytes" in data else 400, data)
            return
        route = urlsplit(self.path).path
        if ROUTES.get(route) != self.command:
            self._say(404, f"{self.command} {route}: not served here; there are {', '.join(sorted(ROUTES))}")
            return
        body = _parsed(data) if self.command == "POST" else {}
        if body is None:
            self._say(400, "the request's body is no JSON object")
            return
        try:
            self._give(route, self.server.back.answer(route, body))
        except VocabgraftError as e:
            self._say(502, str(e), "engine_error")

    def _has_key(self) -> bool:
        given = self.headers.get("Authorization", "").encode("latin-1")  # as the header was read
        return hmac.compare_digest(given, b"Bearer " + self.server.key)  # a wrong key takes as long as the right one

    def _read(self) -> bytes | str:
        """The body, or what is wrong with it. Read even when the request is refused: a connection closed with
        unread bytes loses the answer."""
        if self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            return "send the body in one piece, with Content-Length"
        stated = self.headers.get("Content-Length", "0")
        if not (stated.isascii() and stated.isdigit()):
            self.close_connection = True
            return f"Content-Length {stated!r} is no number"
        if int(stated) > BODY_LIMIT:
            self.close_connection = True
            return f"the body has {stated} bytes; at most {BODY_LIMIT} are read"
        return self.rfile.read(int(stated))

    def _give(self, route: str, answer: Reply | Iterator[dict[str, Any]]) -> None:
        if isinstance(answer, tuple):
            status, value = answer
            self._send(status, part_reply(value) if route == CHAT else value)
        else:
            self._stream(part_events(answer) if route == CHAT else answer, answer)

    def _stream(self, events: Iterator[dict[str, Any]], work: Any) -> None:
        """Server-sent events in chunks; a listener who goes away stops the work."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            try:
                for event in events:
                    self._chunk(json.dumps(event, ensure_ascii=False))
            except VocabgraftError as e:
                self._chunk(json.dumps({"error": {"message": str(e), "type": "engine_error"}}))
            self._chunk("[DONE]")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True
        finally:
            work.close()

    def _chunk(self, data: str) -> None:
        line = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    def _say(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        self._send(status, {"error": {"message": message, "type": kind, "code": status}})

    def _send(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value, ensure_ascii=False).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)
        except OSError:
            self.close_connection = True

    def version_string(self) -> str:
        """No versions for strangers."""
        return "vocabgraft"

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""


def _parsed(data: bytes | str) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
