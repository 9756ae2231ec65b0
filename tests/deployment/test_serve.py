"""llama.cpp in this process: it reads text as sentencepiece does, continues it as transformers does, and ends."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vocabgraft.deployment.agreement import CLOSE, Reference, greedy_agreement, next_token_agreement
from vocabgraft.deployment.gguf_export import export_gguf
from vocabgraft.deployment.serve import LlamaServer, new_key
from vocabgraft.errors import MachineError, ModelError

pytest.importorskip("xllamacpp")

PROMPTS = ["hello 고혈압", "ab  a\n당<b>", "혈압 혈압"]


@pytest.fixture(scope="module")
def gguf_file(tied_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    export_gguf(tied_folder, out, quantization="f16")
    return out


@pytest.fixture(scope="module")
def server(gguf_file: Path) -> Iterator[LlamaServer]:
    with LlamaServer(gguf_file, key=new_key(), context=256, threads=1) as running:
        yield running


@pytest.fixture(scope="module")
def sentencepiece_model(tied_folder: Path):
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(tied_folder / "tokenizer.model"))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=st.lists(
        st.sampled_from(["hello", "고혈압", " ", "  ", "\n", "<b>", "<0x0A>", "<bos>", "😀"])
        | st.characters(codec="utf-8"),
        max_size=12,
    ).map("".join)
)
def test_llama_cpp_reads_text_as_sentencepiece_does(text: str, server: LlamaServer, sentencepiece_model) -> None:
    # A literal ▁ beside a space is a run of spaces to sentencepiece only; no text of ours holds one.
    text = text.replace("▁", "")
    assert server.tokenize(text) == sentencepiece_model.encode(text)


_STOP_AT_ONCE = """
import sys
from pathlib import Path
from vocabgraft.deployment.serve import LlamaServer
for _ in range(60):
    with LlamaServer(Path(sys.argv[1]), key="k", context=256, threads=1, warmup=False):
        pass
"""


def test_a_server_that_is_stopped_at_once_ends(gguf_file: Path) -> None:
    """In a process of its own: what hangs here hangs inside a C++ destructor."""
    subprocess.run([sys.executable, "-c", _STOP_AT_ONCE, str(gguf_file)], check=True, timeout=120)


def test_control_pieces_are_read_only_on_request(server: LlamaServer, vocabulary) -> None:
    assert server.tokenize("<end_of_turn>", special=True) == [vocabulary.ids["<end_of_turn>"]]
    assert vocabulary.ids["<end_of_turn>"] not in server.tokenize("<end_of_turn>")


def test_completion_gives_ids_and_repeats_itself(server: LlamaServer) -> None:
    first, second = (server.complete("고혈압", max_tokens=5) for _ in range(2))
    assert first["tokens"] == second["tokens"]
    assert 1 <= len(first["tokens"]) <= 5


def test_the_served_model_does_not_tell_its_path(server: LlamaServer, gguf_file: Path) -> None:
    import json
    import urllib.request

    request = urllib.request.Request(
        server.url + "/v1/models", headers={"Authorization": f"Bearer {server.key}", "Origin": "http://example.org"}
    )
    with urllib.request.urlopen(request) as response:
        assert not response.headers.get("Access-Control-Allow-Origin"), "web pages may not use it"
        assert json.loads(response.read())["data"][0]["id"] == "tiny"


def test_a_question_beyond_the_context_is_an_error_with_the_reason(server: LlamaServer) -> None:
    with pytest.raises(ModelError, match="HTTP 400"):
        server.complete("당 " * 400, max_tokens=1)


def test_greedy_continuations_agree_with_transformers(server: LlamaServer, tied_folder: Path) -> None:
    rows = greedy_agreement(Reference.load(tied_folder), server, PROMPTS, tokens=6)
    assert [row["prompt"] for row in rows] == PROMPTS
    for row in rows:
        assert row["equal"] or row["margin"] < 0.01, row


def test_a_difference_is_placed_and_weighed(tied_folder: Path) -> None:
    class Stubborn:
        def complete(self, prompt: str, *, max_tokens: int) -> dict:
            return {"text": "", "tokens": [7] * max_tokens}

        def next_tokens(self, prompt: str, *, top: int) -> dict:
            return {7: -0.5, 8: -20.0}

    (row,) = greedy_agreement(Reference.load(tied_folder), Stubborn(), ["hello"], tokens=3)
    assert not row["equal"]
    assert row["first_difference"] in (0, 1, 2)
    assert 0 <= row["margin"] <= 1
    # A token that is not named counts with the least that is: certainty elsewhere is a large difference.
    assert next_token_agreement(Reference.load(tied_folder), Stubborn(), ["hello"])["largest"] > 10


def test_next_tokens_agree_with_transformers_in_their_log_probabilities(server: LlamaServer, tied_folder: Path) -> None:
    found = next_token_agreement(Reference.load(tied_folder), server, PROMPTS)
    assert (found["prompts"], found["top"]) == (3, 5)
    assert 0 <= found["mean"] <= found["largest"] < CLOSE
    assert found["worst"] in PROMPTS


def test_the_server_is_gone_after_the_block(gguf_file: Path) -> None:
    with LlamaServer(gguf_file, key="k", context=64, threads=1) as running:
        port = int(running.url.rsplit(":", 1)[1])
        assert running.complete("a", max_tokens=1)["tokens"]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    with pytest.raises(MachineError, match="not running"):
        running.tokenize("a")


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(MachineError, match="empty"):
        LlamaServer(Path("m.gguf"), key="")


@pytest.mark.parametrize("content", [None, b"PK\x03\x04", b"GGUF and then nonsense"])
def test_a_file_that_is_no_model_is_a_model_error(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.gguf"), LlamaServer(path, key="k"):
        pass


def test_a_missing_package_says_what_to_install(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MachineError, match=r"pip install 'vocabgraft\[serve\]'"), LlamaServer(gguf_file, key="k"):
        pass


def test_keys_are_long_and_never_the_same() -> None:
    assert len({new_key() for _ in range(50)}) == 50
    assert len(new_key()) >= 40
