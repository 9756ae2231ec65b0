"""One chat format for tuning, evaluation and serving; only answers are learnt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from vocabgraft.errors import ModelError
from vocabgraft.evaluation.questions import LETTERS, Question, answer_text, prompt
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.training.chat import ChatFormat

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="▁<"), min_size=1, max_size=40).filter(str.strip)


@pytest.fixture(scope="module")
def chat(tied_world) -> ChatFormat:
    return ChatFormat(tied_world.tokenizer)


@pytest.fixture(scope="module")
def tokenizer(tied_world) -> Tokenizer:
    return load_tokenizer(tied_world.tokenizer)


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def test_an_example_is_gemmas_turn_format(chat: ChatFormat, tokenizer: Tokenizer) -> None:
    example = chat.example(tokenizer, "<bos>", "혈압이 높아요.", "소금을 줄이세요.")
    whole = "<bos><start_of_turn>user\n혈압이 높아요.<end_of_turn>\n<start_of_turn>model\n소금을 줄이세요.<end_of_turn>"
    assert list(example.tokens) == ids(tokenizer, whole)


def test_only_the_answer_and_the_end_of_its_turn_are_learnt(chat: ChatFormat, tokenizer: Tokenizer) -> None:
    example = chat.example(tokenizer, "<bos>", "혈압이 높아요.", "소금을 줄이세요.")
    learnt = [t for t, learn in zip(example.tokens, example.learn, strict=True) if learn]
    assert learnt == ids(tokenizer, "소금을 줄이세요.<end_of_turn>")
    assert tokenizer.id_to_token(learnt[-1]) == "<end_of_turn>"
    first = example.learn.index(True)
    assert all(example.learn[first:])
    assert list(example.tokens[:first]) == chat.opening(tokenizer, "<bos>", "혈압이 높아요.")


@given(user=TEXT, answer=TEXT)
def test_the_two_parts_of_any_example_are_the_encoding_of_the_whole(
    chat: ChatFormat, tokenizer: Tokenizer, user: str, answer: str
) -> None:
    example = chat.example(tokenizer, "<bos>", user, answer)
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    whole = chat.render(turns, bos="<bos>", for_answer=False)
    assert list(example.tokens) == ids(tokenizer, whole.removesuffix("\n"))
    assert len(example.tokens) == len(example.learn)


def test_a_tuned_answer_begins_with_the_letter_that_evaluation_looks_for(
    chat: ChatFormat, tokenizer: Tokenizer
) -> None:
    for n, letter in enumerate(LETTERS):
        question = Question("1", "?", tuple(f"보기 {i}" for i in range(10)), n)
        example = chat.example(tokenizer, "<bos>", prompt(question), answer_text(question))
        assert [example.tokens[example.learn.index(True)]] == ids(tokenizer, letter)


def test_the_opening_ends_where_the_model_is_to_speak(chat: ChatFormat, tokenizer: Tokenizer) -> None:
    found = [tokenizer.id_to_token(i) for i in chat.opening(tokenizer, "<bos>", "왜?")]
    assert found[0] == "<bos>"
    assert found.count("<bos>") == 1
    assert found[-1] == "\n"


def test_a_system_text_goes_into_the_first_user_turn(chat: ChatFormat) -> None:
    messages = [{"role": "system", "content": "짧게."}, {"role": "user", "content": "왜?"}]
    assert chat.render(messages, bos="", for_answer=False) == "<start_of_turn>user\n짧게.\n\n왜?<end_of_turn>\n"


def test_our_template_renders_as_transformers_does(chat: ChatFormat, tied_world) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tied_world.tokenizer)
    messages = [{"role": "user", "content": " 왜? "}, {"role": "assistant", "content": "그래서."}]
    for for_answer in (False, True):
        expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=for_answer)
        assert chat.render(messages, bos="<bos>", for_answer=for_answer) == expected


def test_a_folder_without_a_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no chat_template\.jinja"):
        ChatFormat(tmp_path)


def test_a_template_that_changes_the_question_once_it_is_answered_is_refused(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages | length }}{{ messages[0]['content'] }}", "utf-8")
    with pytest.raises(ModelError, match="differently"):
        ChatFormat(tmp_path).example(tokenizer, "<bos>", "q", "a")


def test_a_template_cannot_reach_the_machine(tmp_path: Path, tied_world) -> None:
    from jinja2.exceptions import SecurityError

    shutil.copy(tied_world.tokenizer / "chat_template.jinja", tmp_path)
    attack = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    (tmp_path / "chat_template.jinja").write_text(attack, "utf-8")
    with pytest.raises(SecurityError):
        ChatFormat(tmp_path).render([], bos="", for_answer=True)
