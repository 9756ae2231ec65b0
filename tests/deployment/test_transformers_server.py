"""The transformers engine: what it writes is what transformers writes, and what it cannot do it refuses."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vocabgraft.deployment.door import CHAT, COMPLETE, MODELS
from vocabgraft.deployment.generate import TokenText, Wish, write
from vocabgraft.deployment.transformers_server import TransformersBack

MESSAGES = [{"role": "user", "content": "고혈압이란?"}]


@pytest.fixture(scope="module")
def back(tied_world) -> TransformersBack:
    return TransformersBack(tied_world.base, name="tiny", context=256, dtype="float32")


def ask(back: TransformersBack, route: str, **body: Any) -> dict[str, Any]:
    status, reply = back.answer(route, body)
    assert status == 200, reply
    return reply


def test_greedy_text_is_what_generate_writes(back: TransformersBack, tied_world) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tied_world.base)
    model = AutoModelForCausalLM.from_pretrained(tied_world.base, dtype="float32").eval()
    for prompt in ("고혈압 환자는", "The patient has", "혈압 " * 40):  # the last one is longer than the sliding window
        ids = tokenizer(prompt, return_tensors="pt")
        wanted = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids.input_ids.shape[1] :]
        reply = ask(back, COMPLETE, prompt=prompt, max_tokens=12, temperature=0)
        assert reply["choices"][0]["text"] == tokenizer.decode(wanted, skip_special_tokens=True)
        assert reply["usage"]["completion_tokens"] == len(wanted)
        assert reply["usage"]["prompt_tokens"] == ids.input_ids.shape[1]


def test_a_seed_repeats_what_was_sampled_and_another_gives_something_else(back: TransformersBack) -> None:
    def text(seed: int) -> str:
        reply = ask(back, CHAT, messages=MESSAGES, max_tokens=12, temperature=1.2, top_p=0.95, seed=seed)
        return reply["choices"][0]["message"]["content"]

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(4)}) > 1


def test_nearly_all_of_top_p_left_out_is_greedy(back: TransformersBack) -> None:
    wish = {"prompt": "혈압", "max_tokens": 8}
    greedy = ask(back, COMPLETE, **wish, temperature=0)["choices"][0]["text"]
    assert ask(back, COMPLETE, **wish, temperature=1, top_p=1e-6)["choices"][0]["text"] == greedy


def test_log_probabilities_add_up_and_name_ids_or_texts(back: TransformersBack) -> None:
    wish = {"prompt": "혈압", "max_tokens": 2, "temperature": 0, "logprobs": 5}
    told = ask(back, COMPLETE, **wish)["choices"][0]["logprobs"]
    assert [len(place) for place in told["top_logprobs"]] == [5, 5]
    assert told["token_logprobs"][0] == max(told["top_logprobs"][0].values())
    assert sum(map(math.exp, told["top_logprobs"][0].values())) < 1
    by_id = ask(back, COMPLETE, **wish, return_tokens_as_token_ids=True)["choices"][0]["logprobs"]
    assert all(name.startswith("token_id:") for name in by_id["top_logprobs"][0])
    assert sorted(by_id["top_logprobs"][0].values()) == sorted(told["top_logprobs"][0].values())


def test_writing_stops_before_a_stop_text(back: TransformersBack) -> None:
    wish = {"prompt": "고혈압 환자는", "max_tokens": 10, "temperature": 0}
    whole = ask(back, COMPLETE, **wish)["choices"][0]
    middle = whole["text"][2:4]
    cut = ask(back, COMPLETE, **wish, stop=middle)["choices"][0]
    assert cut["text"] == whole["text"][: whole["text"].index(middle)]
    assert cut["finish_reason"] == "stop"
    assert ask(back, COMPLETE, **wish, stop=["never there"])["choices"][0]["text"] == whole["text"]


@contextmanager
def writing(back: TransformersBack, token: int) -> Iterator[None]:
    """The model as if it wanted to write nothing but `token`."""
    real = back._model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        out = real(*args, **kwargs)
        out.logits[..., token] = 1000.0
        return out

    back._model.forward = forward
    try:
        yield
    finally:
        del back._model.forward


def test_the_end_token_ends_the_answer_unless_it_is_ignored(back: TransformersBack) -> None:
    wish = {"prompt": "혈압", "max_tokens": 9, "temperature": 0}
    with writing(back, min(back._ends)):
        reply = ask(back, COMPLETE, **wish)
        longer = ask(back, COMPLETE, **wish, ignore_eos=True)
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["choices"][0]["text"] == ""
    assert reply["usage"]["completion_tokens"] == 1
    assert longer["usage"]["completion_tokens"] == 9


def test_marks_of_thinking_are_shown_and_other_control_pieces_are_not(back: TransformersBack) -> None:
    for piece, shown in (("<unused94>", "<unused94><unused94>"), ("<start_of_turn>", "")):
        with writing(back, back._tokenizer.token_to_id(piece)):
            reply = ask(back, CHAT, messages=MESSAGES, max_tokens=2, temperature=0)
        assert reply["choices"][0]["message"]["content"] == shown


@pytest.mark.parametrize(
    ("route", "body", "told"),
    [
        (CHAT, {"messages": MESSAGES, "tools": [{}]}, "tools"),
        (CHAT, {"messages": MESSAGES, "n": 2}, "n:"),
        (CHAT, {"messages": "hello"}, "messages"),
        (CHAT, {}, "messages"),
        (COMPLETE, {"prompt": ""}, "prompt"),
        (COMPLETE, {"prompt": ["a", "b"]}, "prompt"),
        (COMPLETE, {"prompt": "a", "echo": True}, "echo"),
        (COMPLETE, {"prompt": "a", "max_tokens": 0}, "max_tokens"),
        (COMPLETE, {"prompt": "a", "max_tokens": "9"}, "max_tokens"),
        (COMPLETE, {"prompt": "a", "max_tokens": 100_000}, "room"),
        (COMPLETE, {"prompt": "당 " * 300}, "room for 0"),
        (COMPLETE, {"prompt": "a", "temperature": -1}, "temperature"),
        (COMPLETE, {"prompt": "a", "logprobs": 1000}, "logprobs"),
        (COMPLETE, {"prompt": "a", "stop": 3}, "stop"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(back: TransformersBack, route: str, body: dict, told: str) -> None:
    status, reply = back.answer(route, body)
    assert status == 400
    assert told in reply["error"]["message"]


def test_what_changes_nothing_is_taken(back: TransformersBack) -> None:
    ask(back, CHAT, messages=MESSAGES, max_tokens=1, model="whatever", user="me", n=1, tools=None)
    assert ask(back, MODELS)["data"][0]["id"] == "tiny"


def test_answers_wait_for_each_other_and_do_not_mix(back: TransformersBack) -> None:
    def text(prompt: str) -> str:
        return ask(back, COMPLETE, prompt=prompt, max_tokens=6, temperature=0)["choices"][0]["text"]

    prompts = ["고혈압", "The patient", "당뇨병"]
    alone = [text(p) for p in prompts]
    found: dict[str, str] = {}
    threads = [threading.Thread(target=lambda p=p: found.update({p: text(p)})) for p in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[p] for p in prompts] == alone


def test_a_stream_given_up_frees_the_model(back: TransformersBack) -> None:
    events = back.answer(COMPLETE, {"prompt": "혈압", "max_tokens": 100, "stream": True})
    next(events)
    events.close()
    assert ask(back, COMPLETE, prompt="혈압", max_tokens=1)["usage"]["completion_tokens"] == 1


def test_letters_are_not_shown_by_halves(tied_world) -> None:
    from vocabgraft.tokenizer.measure import load_tokenizer

    tokenizer = load_tokenizer(tied_world.base)
    text = "a 😀쀏 b▁c\n\n 고혈압<b>"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    stream = TokenText(tokenizer, ())
    bits = [stream.add(i) for i in ids]
    assert "".join(bits) + stream.end() == tokenizer.decode(ids)
    assert not any("�" in bit for bit in bits)
    half = TokenText(tokenizer, ())
    (first, *_) = tokenizer.encode("쀏", add_special_tokens=False).ids
    assert half.add(first) == ""
    assert half.end() == "�"


def test_hidden_tokens_are_counted_and_not_shown(tied_world) -> None:
    from vocabgraft.tokenizer.measure import load_tokenizer

    tokenizer = load_tokenizer(tied_world.base)
    end = tokenizer.token_to_id("<end_of_turn>")
    ids = tokenizer.encode("혈압", add_special_tokens=False).ids
    stream = TokenText(tokenizer, {end})
    assert "".join(map(stream.add, [*ids, end])) == "혈압"


def test_writing_needs_the_model_once_a_token(tied_world, monkeypatch: pytest.MonkeyPatch) -> None:
    from vocabgraft.models.load import load_model

    model = load_model(Path(tied_world.base), dtype="float32")
    lengths, real = [], type(model).forward
    monkeypatch.setattr(
        type(model), "forward", lambda self, **k: lengths.append(k["input_ids"].shape[1]) or real(self, **k)
    )
    assert len(list(write(model, [2, 300, 301], Wish(4, ignore_eos=True), {1}))) == 4
    assert lengths == [3, 1, 1, 1]
