"""Run llama.cpp's own server for a GGUF file in this process, through the package xllamacpp.

It has a key, and leaves some routes open all the same: what people talk to is the door before it (`engines`). Proofs
use it directly, for what only llama.cpp's own routes tell, ids above all:

    with LlamaServer(Path("model.gguf"), key=new_key()) as server:
        server.complete("고혈압은", max_tokens=8)["tokens"]
"""

from __future__ import annotations

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from vocabgraft.errors import MachineError, ModelError
from vocabgraft.machine import missing_extra
from vocabgraft.tokenizer.measure import together

_BETWEEN = -1  # no id: marks in a reply where one text ends
# The environment's proxy must not see requests to this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def new_key() -> str:
    """Return a fresh random API key (256 bits)."""
    return secrets.token_urlsafe(32)


class LlamaServer:
    """A running server for one GGUF file, on 127.0.0.1. Use as a context manager; `url` is set once it is up.

    `threads` above the free cores slows llama.cpp down many times over (its threads spin while they wait), so prefer
    one on a busy machine. Raises MachineError for an empty key or a missing package; ModelError for a file that
    llama.cpp cannot load.
    """

    url: str = ""

    def __init__(
        self,
        gguf: Path,
        *,
        key: str,
        context: int = 2048,
        threads: int = 2,
        verbose: bool = False,
        warmup: bool = True,
        start_timeout: float = 120.0,
        request_timeout: float = 600.0,
    ) -> None:
        if not key:
            raise MachineError("the API key is empty, which would let everyone in; use new_key()")
        self.gguf, self.key = Path(gguf), key
        self.context, self.threads, self.verbose, self.warmup = context, threads, verbose, warmup
        self.start_timeout, self.request_timeout = start_timeout, request_timeout
        self._server: Any = None

    def __enter__(self) -> LlamaServer:
        llama = _xllamacpp()
        _refuse_non_gguf(self.gguf)
        try:
            self._server = llama.Server(self._settings(llama))
        except RuntimeError as e:
            raise ModelError(
                f"{self.gguf}: llama.cpp could not load it ({e}). Start with verbose=True to see its reason."
            ) from e
        self.url = str(self._server.listening_address)
        try:
            self._wait_until_healthy()
        except MachineError:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server and free the model. Calling it again does nothing."""
        self._server = None
        self.url = ""

    def complete(self, prompt: str, *, max_tokens: int) -> dict[str, Any]:
        """Continue `prompt` greedily (BOS is put in front): `{text, tokens, seconds}`, `tokens` being ids."""
        # llama.cpp's own route: the OpenAI one does not return ids. No prompt cache: the same question must
        # be computed the same way whatever was asked before.
        body = {
            "prompt": prompt,
            "n_predict": max_tokens,
            "temperature": 0.0,
            "return_tokens": True,
            "cache_prompt": False,
        }
        started = time.perf_counter()
        reply = self._ask("/completion", body)
        return {
            "text": reply["content"],
            "tokens": [int(t) for t in reply["tokens"]],
            "seconds": time.perf_counter() - started,
        }

    def next_tokens(self, prompt: str, *, top: int) -> dict[int, float]:
        """Log-probability in nats of the `top` likeliest tokens after `prompt` (BOS is put in front), by id."""
        # llama.cpp says nothing where it chose half a letter. Probabilities are those before the choice: choose "a".
        whole = [[self.tokenize("a")[-1], 1e6]]
        body = {"prompt": prompt, "n_predict": 1, "n_probs": top, "logit_bias": whole, "cache_prompt": False}
        (first,) = self._ask("/completion", body)["completion_probabilities"][:1]
        return {int(t["id"]): float(t["logprob"]) for t in first["top_logprobs"]}

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of `text` without BOS; `special` reads control pieces (`<end_of_turn>`) as such."""
        reply = self._ask("/tokenize", {"content": text, "add_special": False, "parse_special": special})
        return [int(t) for t in reply["tokens"]]

    def tokenize_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, each on its own, no BOS, control pieces read as such; a megabyte and more a request."""
        found: list[list[int]] = []
        for some in together(texts):
            # The server takes texts and ids in one list, cuts each text alone and passes ids through.
            content = [part for text in some for part in (text, _BETWEEN)]
            reply = self._ask("/tokenize", {"content": content, "add_special": False, "parse_special": True})
            ids: list[int] = []
            for i in reply["tokens"]:
                if i == _BETWEEN:
                    found.append(ids)
                    ids = []
                else:
                    ids.append(int(i))
        return found

    def _settings(self, llama: Any) -> Any:
        params = llama.CommonParams()
        params.model.path = str(self.gguf)
        params.model_alias = {self.gguf.stem}  # otherwise /v1/models tells the path on this machine
        params.hostnames = ["127.0.0.1"]
        params.port = 0  # a free one
        params.api_keys = [self.key]
        params.n_ctx = self.context
        params.n_parallel = 1
        for cpu in (params.cpuparams, params.cpuparams_batch):
            cpu.n_threads = self.threads
            cpu.poll = 0  # sleep between requests instead of spinning
        params.warmup = self.warmup
        params.ui = False
        params.endpoint_slots = False  # it shows other people's prompts
        params.cors_origins = ""  # no web page may talk to it; the default mirrors any origin
        params.verbosity = 3 if self.verbose else -1
        return params

    def _wait_until_healthy(self) -> None:
        end = time.monotonic() + self.start_timeout
        while True:
            try:
                if self._request("/health", None, None)[0] == 200:
                    break
            except MachineError:
                if time.monotonic() > end:
                    raise
            if time.monotonic() > end:
                raise MachineError(f"{self.gguf}: the server was not ready after {self.start_timeout:.0f} s")
            time.sleep(0.1)
        # Healthy is said before the loop that does the work has begun, and a server stopped before its loop begins
        # never ends: its destructor waits for the loop. This route is answered by the loop.
        self._request("/lora-adapters", None, self.key)

    def _ask(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        status, reply = self._request(route, body, self.key)
        if status != 200:
            message = reply.get("error", {}).get("message", "no reason given")
            raise ModelError(f"{self.gguf.name}: {route} answered HTTP {status}: {message}")
        return reply

    def _request(self, route: str, body: dict[str, Any] | None, key: str | None) -> tuple[int, dict[str, Any]]:
        """One HTTP request; an HTTP error is a status, a connection error a MachineError."""
        if not self.url:
            raise MachineError("the server is not running; use it inside `with LlamaServer(...) as server:`")
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + route, data=data, headers=headers)  # noqa: S310 — http, ours
        try:
            with _OPENER.open(request, timeout=self.request_timeout) as response:
                return response.status, _json(response.read())
        except urllib.error.HTTPError as e:
            return e.code, _json(e.read())
        except OSError as e:
            raise MachineError(f"{self.url}{route}: no answer ({e})") from e


def _json(data: bytes) -> dict[str, Any]:
    """The JSON object in a reply; {} for anything else, such as a list or Prometheus text."""
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _xllamacpp() -> Any:
    try:
        import xllamacpp
    except ImportError as e:
        raise missing_extra("xllamacpp") from e
    return xllamacpp


def _refuse_non_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as e:
        raise ModelError(f"{path}: cannot be read ({e.strerror}); export a GGUF file first") from e
    if magic != b"GGUF":
        raise ModelError(f"{path}: not a GGUF file (it starts with {magic!r})")
