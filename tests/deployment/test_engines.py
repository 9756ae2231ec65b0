"""Every engine behind the door: one address, one key, the same answers, through the `openai` client too."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import openai
import pytest

from vocabgraft.deployment.agreement import CLOSE, Reference, next_token_agreement
from vocabgraft.deployment.client import Client
from vocabgraft.deployment.engines import Engine, open_server
from vocabgraft.deployment.gguf_export import export_gguf
from vocabgraft.deployment.serve import new_key
from vocabgraft.errors import MachineError, ModelError
from vocabgraft.tokenizer.measure import load_tokenizer

pytest.importorskip("xllamacpp")

ENDLESS = 1 << 16
"""Tokens: a quick core writes 4,300 of these a second, so this many take a quarter of a minute and more."""

QUESTION = [{"role": "user", "content": "고혈압이란 무엇인가요?"}]


@pytest.fixture(scope="module")
def folder(tied_world) -> Path:
    return tied_world.base


@pytest.fixture(scope="module")
def gguf_file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    export_gguf(folder, out, quantization="f16")
    return out


@pytest.fixture(scope="module")
def endless_gguf(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with room for ENDLESS tokens, so that no machine is at the end of its answer soon."""
    long = Path(shutil.copytree(folder, tmp_path_factory.mktemp("endless") / "long"))
    config = json.loads((long / "config.json").read_text("utf-8"))
    (long / "config.json").write_text(json.dumps(config | {"max_position_embeddings": ENDLESS}), "utf-8")
    out = long.parent / "endless.gguf"
    export_gguf(long, out, quantization="f16")
    return out


@pytest.fixture(scope="module", params=["llama.cpp", "transformers"])
def server(request: pytest.FixtureRequest, folder: Path, gguf_file: Path) -> Iterator[Client]:
    model = gguf_file if request.param == "llama.cpp" else folder
    with open_server(request.param, model, key=new_key(), threads=1, context=512, dtype="float32") as running:
        yield running


@pytest.fixture
def client(server: Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as made:
        yield made


def test_every_route_of_door_and_engine_refuses_strangers(server: Client) -> None:
    found = server.refuses_without_key()
    assert set(found.values()) == {401}
    assert {"/health", "/v1/models", "/v1/chat/completions", "any other route"} <= set(found)
    assert server.engine != "llama.cpp" or {"/", "/v1/health", "/props", "/slots", "/tokenize"} <= set(found)


def test_the_openai_client_is_refused_with_a_wrong_key(server: Client) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as wrong:
        with pytest.raises(openai.AuthenticationError, match="API key"):
            wrong.models.list()
        with pytest.raises(openai.AuthenticationError):
            wrong.chat.completions.create(model="tiny", messages=QUESTION)


def test_the_openai_client_gets_an_answer_and_the_same_one_as_a_stream(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    wish = {"model": model.id, "messages": QUESTION, "max_tokens": 8, "temperature": 0}
    reply = client.chat.completions.create(**wish)
    assert reply.choices[0].message.content
    assert 1 <= reply.usage.completion_tokens <= 8
    events = list(client.chat.completions.create(**wish, stream=True))
    said = "".join(c.delta.content or "" for e in events for c in e.choices)
    assert said == reply.choices[0].message.content
    assert events[-1].choices[0].finish_reason == reply.choices[0].finish_reason


def test_a_plain_completion_comes_whole_and_as_a_stream(client: openai.OpenAI) -> None:
    wish = {"model": "any", "prompt": "고혈압 환자는", "max_tokens": 6, "temperature": 0}
    whole = client.completions.create(**wish)
    assert whole.choices[0].text
    assert "".join(c.text for e in client.completions.create(**wish, stream=True) for c in e.choices) == (
        whole.choices[0].text
    )


def test_a_conversation_tells_log_probabilities_when_asked(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="any", messages=QUESTION, max_tokens=3, temperature=0, logprobs=True, top_logprobs=4
    )
    first = reply.choices[0].logprobs.content[0]
    assert len(first.top_logprobs) == 4
    assert first.logprob == max(t.logprob for t in first.top_logprobs) < 0


def test_the_client_tells_answer_cost_and_health(server: Client) -> None:
    reply = server.chat(QUESTION, max_tokens=4)
    assert reply["text"]
    assert reply["reasoning"] == ""
    assert 1 <= reply["tokens"] <= 4
    assert reply["seconds"] > 0
    assert server.healthy()
    assert server.model() in ("tiny", "tied-slots")


def test_exactly_as_many_tokens_as_wished_are_written(server: Client) -> None:
    found = server.complete("혈압", max_tokens=40, ignore_eos=True)
    assert found["tokens"] == 40


def test_llama_cpp_shows_the_marks_of_thinking_though_they_are_control_pieces(folder: Path, gguf_file: Path) -> None:
    """A bias makes these weights write the mark; the other engine is asked in test_transformers_server.py."""
    mark = load_tokenizer(folder).token_to_id("<unused94>")
    body = {"messages": QUESTION, "max_tokens": 3, "temperature": 0, "logit_bias": [[mark, 100]]}
    with open_server("llama.cpp", gguf_file, key="k", threads=1, context=256) as server:
        deltas = [c["delta"] for e in server.stream("/v1/chat/completions", body) for c in e["choices"]]
    assert "".join(d.get("content") or "" for d in deltas) == ""
    assert "".join(d.get("reasoning_content") or "" for d in deltas) == "<unused94><unused94>"


def test_a_request_that_makes_no_sense_is_told_why(server: Client) -> None:
    with pytest.raises(ModelError, match="HTTP 400"):
        server.complete("당 " * 600, max_tokens=1)
    with pytest.raises(ModelError, match="HTTP 400"):
        server.chat("no list of messages", max_tokens=1)
    assert server.complete("당", max_tokens=1)["tokens"] == 1


def test_served_log_probabilities_are_those_of_transformers(server: Client, folder: Path, korean, english) -> None:
    prompts = list({" ".join(t.split()[4:n]) for t in [*korean[:25], *english[:10]] for n in (8, 10, 13)})
    found = next_token_agreement(Reference.load(folder), server, prompts)
    assert found["prompts"] >= 50
    assert found["prompts"] == len(prompts) or server.engine == "llama.cpp"
    assert found["largest"] < CLOSE


def test_a_model_that_is_another_is_noticed(server: Client, tmp_path: Path, tied_world) -> None:
    from vocabgraft.models.random_gemma3 import write_random_gemma3

    other = tmp_path / "other"
    write_random_gemma3(other, [*tied_world.english, *tied_world.korean[::3]], seed=5)
    prompts = ["고혈압 환자는", "The patient", "혈압", "당뇨병이", "A heart"]
    assert next_token_agreement(Reference.load(other), server, prompts)["largest"] > CLOSE


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("engine", ["llama.cpp", "transformers"])
def test_a_server_stops_while_it_writes(engine: Engine, stream: bool, folder: Path, endless_gguf: Path) -> None:
    model, most, said = (endless_gguf, ENDLESS - 100, list[object]()) if engine == "llama.cpp" else (folder, 2000, [])

    def ask(client: openai.OpenAI) -> None:
        try:
            wish = {"model": "m", "prompt": "혈압", "max_tokens": most, "temperature": 0, "stream": stream}
            found = client.completions.create(**wish, extra_body={"ignore_eos": True} if engine == "llama.cpp" else {})
            said.extend(found if stream else [found])
        except (openai.APIError, httpx.HTTPError) as e:
            said.append(e)

    place = {"threads": 1, "context": ENDLESS, "dtype": "float32"}
    with ExitStack() as stack:
        server = stack.enter_context(open_server(engine, model, key=new_key(), **place))
        client = stack.enter_context(openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0))
        asking = threading.Thread(target=ask, args=[client], daemon=True)
        asking.start()
        time.sleep(0.5)
        assert asking.is_alive(), str(said[-1:])[:300]
        stopping = threading.Thread(target=stack.close, daemon=True)
        stopping.start()
        stopping.join(20)
        assert not stopping.is_alive()


def test_an_unknown_engine_and_a_missing_model_are_said(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"llama\.cpp, transformers, vllm"), open_server("x", tmp_path, key="k"):
        pass
    for engine in ("llama.cpp", "transformers", "vllm"):
        with pytest.raises((ModelError, MachineError)), open_server(engine, tmp_path / "none", key="k"):
            pass
