"""Words encoded by chunks have the tokens of words encoded whole; only tokenizers that allow it are chunked."""

from __future__ import annotations

import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from vocabgraft.tokenizer.boundary import GPT2, LLAMA3, QWEN2
from vocabgraft.tokenizer.chunks import Chunks, can_chunk
from vocabgraft.tokenizer.measure import encode, load_tokenizer
from vocabgraft.tokenizer.spelling import LETTER_OF_BYTE

FAMILIES = ("gemma", "llama3", "qwen", "smollm2")
LETTERS = (
    "가힣나환자는혈압이각ab1 93.!?'\n\t\u3000▁ᄀ\u1161\u11a8\u0301\u0338<>=/|é中か\u3099กิا\u0651३Ⅷªſ😀\uffff\x00\x7f"
)
WHOLE = [
    "<bos>",
    "<end_of_turn>",
    " <b>",
    "<|im_end|>",
    "환자는",
    " 혈압이",
    "'s",
    "'ll가",
    "I'll",
    "1234",
    "각\u11a8",
    "3년",
]
ALIKE = "".join(chr(0xAC00 + 64 * n) for n in range(0, 160, 16))  # all end in byte 80: pieces of it and the next lead
WORD = st.lists(st.text(LETTERS, max_size=5) | st.text(ALIKE, max_size=5) | st.sampled_from(WHOLE), max_size=4).map(
    "".join
)
BATCHES = st.lists(st.lists(WORD, min_size=1, max_size=20), min_size=1, max_size=3)


def assert_the_same(tokenizer: Tokenizer, batches: list[list[str]]) -> None:
    assert can_chunk(tokenizer)
    chunks = Chunks(tokenizer)
    for words in batches:
        ids, lengths = chunks.encode(pl.Series(words, dtype=pl.String))
        whole = encode(tokenizer, words)
        assert ids.tolist() == [i for row in whole for i in row]
        assert lengths.tolist() == [len(row) for row in whole]


@given(batches=BATCHES)
def test_tokens_are_those_of_whole_words(tied_world, batches) -> None:
    for folder in (tied_world.base, tied_world.tokenizer):
        assert_the_same(load_tokenizer(folder), batches)


@pytest.mark.parametrize("family", FAMILIES)
@given(batches=BATCHES)
@settings(max_examples=60)
def test_tokens_are_those_of_whole_words_in_every_family(make_base, make_expanded, family, batches) -> None:
    assert_the_same(load_tokenizer(make_base(family)[0]), batches)
    assert_the_same(load_tokenizer(make_expanded(family, "append").out), batches)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_real_corpus_has_the_same_tokens(make_base, family, korean, english) -> None:
    words = [w for text in (*korean, *english) for w in text.split(" ")]
    assert_the_same(load_tokenizer(make_base(family)[0]), [words, [" " + w for w in words], [*korean, *english]])


def test_a_letter_stays_with_the_one_before_if_a_mark_can_change_it() -> None:
    """a and its accent become á, which a piece joins with the letter before; no piece joins that one with a."""
    tokenizer = Tokenizer(models.BPE())
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), plain])
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["가á"] * 3, trainer)
    tokenizer.normalizer, tokenizer.decoder = normalizers.NFC(), decoders.ByteLevel()
    assert len(tokenizer.encode("가a\u0301").ids) == 1
    assert_the_same(tokenizer, [["가a\u0301", "가a", "a\u0301가"]])


@pytest.fixture(scope="module", params=["gpt2", "llama3", "qwen2", "torn", "dropped"])
def rich(request) -> Tokenizer:
    """A byte-level tokenizer with pieces of everything in `WORD`.

    torn: with pieces of parts of letters (80 EA, 80 EA B0 …). dropped: as SmolLM2's, with a byte that has no piece, and
    pieces of what stands side by side when it is dropped.
    """
    draw, texts, letters = random.Random(0), [], dict(LETTER_OF_BYTE)
    for _ in range(2000):
        texts.append("".join(draw.choice(draw.choice([WHOLE, LETTERS, ALIKE])) for _ in range(8)))
    if request.param == "dropped":
        letters[0x80] = ""
    pattern = {"gpt2": GPT2, "qwen2": QWEN2}.get(request.param, LLAMA3)
    tokenizer = Tokenizer(models.BPE())
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    by_pattern = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), plain])
    torn = request.param in ("torn", "dropped")
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit() if torn else by_pattern
    size, alphabet = 600 if torn else 3000, [letter for letter in letters.values() if letter]
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((runs(text, letters) for text in texts) if torn else texts, trainer)
    tokenizer.pre_tokenizer, tokenizer.decoder = by_pattern, decoders.ByteLevel()
    return tokenizer


def runs(text: str, letters: dict[int, str]) -> str:
    """Runs of 2 to 5 bytes that begin behind the first byte of a letter, in byte-level letters."""
    data = text.encode()
    found = [data[i : i + 2 + i % 4] for i in range(len(data)) if data[i] & 0xC0 == 0x80]
    return " ".join("".join(letters[b] for b in run) for run in found)


@pytest.mark.parametrize("normalizer", [None, normalizers.NFC()], ids=["as-is", "nfc"])
@given(batches=BATCHES)
@settings(max_examples=300)
def test_tokens_are_those_of_whole_words_where_pieces_join_much(rich, normalizer, batches) -> None:
    rich.normalizer = normalizer
    assert_the_same(rich, batches)


def byte_level(make_base, **changes) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(make_base("llama3")[0] / "tokenizer.json"))
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return tokenizer


@given(batches=BATCHES)
@settings(max_examples=60)
def test_added_tokens_are_never_cut(make_base, batches) -> None:
    tokenizer = byte_level(make_base)
    tokenizer.add_special_tokens([AddedToken("a1b", normalized=False), AddedToken("b3.", normalized=False)])
    assert_the_same(tokenizer, [*batches, ["가a1b나", "ab3.", "a1", "b3가", "xa1b3."]])


def test_added_tokens_with_spaces_are_found_where_spaces_are_pieces(tied_world) -> None:
    tokenizer = Tokenizer.from_file(str(tied_world.base / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(" ab", normalized=False), AddedToken("나 다", normalized=False)])
    tokenizer.add_tokens([AddedToken("▁혈압", normalized=True), AddedToken("qqq", normalized=False)])
    assert tokenizer.encode("x ab", add_special_tokens=False).tokens[-1] == " ab"
    assert_the_same(tokenizer, [[" ab", "x ab", " a b", "나 다", "가나 다라", " 혈압", "가 혈압이", "qq", "xqqqy"]])


def test_fewer_chunks_than_words_are_encoded(tied_world, make_base) -> None:
    words = sorted({" " + word for text in tied_world.korean for word in text.split()})
    for folder in (tied_world.base, make_base("smollm2")[0]):
        chunks = Chunks(load_tokenizer(folder))
        chunks.encode(pl.Series(words))
        assert len(chunks._places) < len(words) / 2


def test_without_a_piece_for_each_byte_unknown_letters_may_join_and_words_stay_whole(tied_world) -> None:
    text = (tied_world.base / "tokenizer.json").read_text("utf-8")
    assert can_chunk(Tokenizer.from_str(text))
    assert not can_chunk(Tokenizer.from_str(text.replace('"<0xFE>"', '"<0xfe>"')))


def test_letters_that_a_normalizer_takes_apart_stay_together(make_base) -> None:
    assert can_chunk(byte_level(make_base, normalizer=normalizers.NFC()))
    for other in (normalizers.NFD(), normalizers.NFKC(), normalizers.Lowercase()):
        assert not can_chunk(byte_level(make_base, normalizer=other))


def test_a_model_that_looks_words_up_is_chunked_if_merges_find_the_same(make_base) -> None:
    tokenizer = byte_level(make_base)
    tokenizer.model.ignore_merges = True
    assert_the_same(tokenizer, [["환자는 혈압이", "가나다", "abc"]])
    raw = tokenizer.to_str().replace('"vocab":{', '"vocab":{"ab!!":999999,', 1)
    assert not can_chunk(Tokenizer.from_str(raw))
