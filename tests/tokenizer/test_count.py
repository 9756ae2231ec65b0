"""Counting words is exact: their tokens are the tokens of the corpus, for every family or the texts stay whole."""

from __future__ import annotations

import gc
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from vocabgraft.corpus.document import Tally, read_source
from vocabgraft.models.random_gemma3 import gemma_style_vocabulary
from vocabgraft.tokenizer import count
from vocabgraft.tokenizer.boundary import GPT2, LLAMA3, QWEN2, WordRule, word_rule
from vocabgraft.tokenizer.count import WordCounts, count_words, token_counts
from vocabgraft.tokenizer.vocabulary import write_json

TEXTS = [
    "혈압이 높은 환자 3명은  매일 약을 먹는다.\n\n① 제1항에 따라\t신고한다.\r\n그러나 don't stop!\n  - x = 1",
    "The patient's blood pressure was 140/90 mmHg.   He said: <b>no</b>\n</p> a> </b <|im_end|>\nuser",
    "같은 같은 같은 말▁ 말 ▁말",
]
FAMILIES = ("gemma", "gpt2", "llama3", "qwen2", "smollm2")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> dict[str, Tokenizer]:
    path = tmp_path_factory.mktemp("count") / "tokenizer.json"
    write_json(gemma_style_vocabulary(TEXTS * 3, normal=200, free_slots=10), path)
    split = pre_tokenizers.Split
    level = pre_tokenizers.ByteLevel
    pre = {
        "gpt2": level(add_prefix_space=False),
        "llama3": [split(Regex(LLAMA3), "isolated"), level(add_prefix_space=False, use_regex=False)],
        "qwen2": [split(Regex(QWEN2), "isolated"), level(add_prefix_space=False, use_regex=False)],
        "smollm2": [pre_tokenizers.Digits(individual_digits=True), level(add_prefix_space=False)],
    }
    made = {"gemma": Tokenizer.from_file(str(path))}
    for name, parts in pre.items():
        made[name] = byte_level(pre_tokenizers.Sequence(parts) if isinstance(parts, list) else parts, name)
    return made


def byte_level(pre, name: str) -> Tokenizer:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer, tok.decoder = pre, decoders.ByteLevel()
    if name == "qwen2":
        tok.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=["<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    tok.train_from_iterator(TEXTS * 3, trainer)
    return tok


def counted_by_hand(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    ids = [i for e in tokenizer.encode_batch(texts, add_special_tokens=False) for i in e.ids]
    return np.bincount(ids, minlength=max(tokenizer.get_vocab().values()) + 1).tolist()


def counted(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    return token_counts(tokenizer, count_words(texts, word_rule(tokenizer))).tolist()


LETTERS = "가힣나ab1 9'’.!?\n\r\t  \u00a0\u3000\u200b\u0085\u2028▁ᄀ\u0301é<>/|é中😀"
mixed = st.lists(st.text(LETTERS, max_size=30) | st.sampled_from(["<|im_end|>", "</p>", "> </", "▁▁"]), max_size=6)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=150, deadline=None)
@given(parts=mixed)
def test_tokens_of_the_words_are_the_tokens_of_the_text(tokenizers, family, parts):
    text = "".join(parts)
    assert counted(tokenizers[family], [text]) == counted_by_hand(tokenizers[family], [text])


@pytest.mark.parametrize("family", FAMILIES)
def test_known_families_are_cut(tokenizers, family):
    assert word_rule(tokenizers[family]).cuts
    assert counted(tokenizers[family], TEXTS) == counted_by_hand(tokenizers[family], TEXTS)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_white_space_and_control(tokenizers, family):
    odd = [
        chr(c) for c in range(0x10000) if not 0xD800 <= c < 0xE000 and (chr(c).isspace() or not chr(c).isprintable())
    ]
    texts = [t for c in odd for t in (f"a{c}b", f"a {c}b", f"a{c} b", f"a\n{c}b", f"!{c}\n나", f"{c}  {c}\n {c}")]
    assert counted(tokenizers[family], texts) == counted_by_hand(tokenizers[family], texts)


def test_a_piece_across_the_boundary_is_never_cut(tmp_path):
    vocabulary = gemma_style_vocabulary(TEXTS * 3, normal=200, free_slots=10)
    slot = next(i for i, p in enumerate(vocabulary.pieces) if p == "<unused99>")
    path = tmp_path / "tokenizer.json"
    write_json(vocabulary.put([slot], ["같은▁말"]), path)
    tokenizer = Tokenizer.from_file(str(path))
    rule = word_rule(tokenizer)
    assert rule.cuts
    assert "같은 말" in rule.reason
    text = "같은 같은 말 같은 말"
    assert counted(tokenizer, [text]) == counted_by_hand(tokenizer, [text])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Whitespace()), "pattern"),
        (lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)), "pattern"),
        (lambda t: t.add_tokens([added(" x", lstrip=True)]), "neighbours"),
        (lambda t: t.add_tokens([added("a b")]), "white space"),
    ],
)
def test_what_is_not_known_to_be_safe_is_not_cut(change, named):
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), "gpt2")
    change(tokenizer)
    rule = word_rule(tokenizer)
    assert not rule.cuts
    assert named in rule.reason
    assert counted(tokenizer, TEXTS) == counted_by_hand(tokenizer, TEXTS)


def added(text: str, **flags):
    from tokenizers import AddedToken

    return AddedToken(text, **flags)


def test_the_patterns_are_those_that_ship():
    """ByteLevel's own pattern is built in; that ours has the same matches is seen on what it does."""
    by_hand = pre_tokenizers.Split(Regex(GPT2), "isolated")
    built_in = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in TEXTS:
        assert [s for _, s in by_hand.pre_tokenize_str(text)] == [s for _, s in built_in.pre_tokenize_str(text)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("가나 ab\n", max_size=40), max_size=30), st.integers(1, 3))
def test_batches_threads_and_disk_change_nothing(texts, threads):
    rule = WordRule(r"[^ \n]+|[ \n]+", "")
    expected = count_words(texts, rule).frame
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(count, "_BATCH_CHARS", 20)
        patch.setattr(count, "_BATCH_TEXTS", 3)
        patch.setattr(count, "_ROWS_IN_MEMORY", 4)
        assert count_words(texts, rule, threads=threads).frame.equals(expected)
    assert expected["count"].sum() == sum(len(pl.Series([t]).str.extract_all(rule.pattern)[0]) for t in texts if t)


SPACED = WordRule(r"[^ ]+| +", "")


def small_shards(patch) -> list[int]:
    """Shards of 20 letters; the list grows by one with each batch that is counted."""
    counted: list[int] = []
    real = count._count_batch

    def counting(texts, pattern):
        counted.append(len(texts))
        return real(texts, pattern)

    patch.setattr(count, "_SHARD_CHARS", 20)
    patch.setattr(count, "_count_batch", counting)
    return counted


def cut_off(texts):
    yield from texts
    raise KeyboardInterrupt


def test_an_interrupted_count_goes_on_where_it_was(tmp_path, monkeypatch):
    texts = [f"가나 다{n} 라마바 사아" for n in range(30)]
    expected = count_words(texts, SPACED).frame
    batches = small_shards(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        count.count_shards(cut_off(texts[:21]), SPACED, tmp_path)
    assert len(batches) == 10
    assert count.count_shards(texts, SPACED, tmp_path, threads=2).frame.equals(expected)
    assert len(batches) == 15


def test_shards_of_other_texts_rules_or_of_a_half_written_file_are_not_taken(tmp_path, monkeypatch):
    batches = small_shards(monkeypatch)
    texts = ["가나 다라마 바사 아자차카 타파하"] * 2
    count.count_shards(texts, SPACED, tmp_path)
    for changed, rule in (
        ([texts[0], texts[1] + "!"], SPACED),
        ([texts[0] + texts[1]], SPACED),
        (texts, WordRule("[가-힣]", "")),
    ):
        before = len(batches)
        assert count.count_shards(changed, rule, tmp_path).frame.equals(count_words(changed, rule).frame)
        assert len(batches) == before + 2
    for path in tmp_path.glob("*.parquet"):
        path.rename(path.with_suffix(".partial")).write_bytes(b"PAR1")
    assert count.count_shards(texts, SPACED, tmp_path).frame.equals(count_words(texts, SPACED).frame)


HOSTILE = [
    "\ufeff혈압이 높다\r\n\r\n".encode(),
    b"\xff\xfe broken\n\n",
    "약\x00을\x00 먹는다\n\n".encode(),
    b"\xed\xa0\x80 half a pair\n\n",
    b"\r\n\r\n",
    b"a" * 100_000_000 + b"\n\n",
    "마지막\u2028줄".encode(),
]


def test_a_hostile_file_is_counted_or_dropped_by_reason(tokenizers, tmp_path):
    (tmp_path / "hostile.txt").write_bytes(b"".join(HOSTILE))
    tally = Tally()
    texts = [d.text for d in read_source(str(tmp_path / "hostile.txt"), language="ko", license="", tally=tally)]
    tally.check()
    assert len(texts) == tally.kept == 2
    assert dict(tally.dropped) == {"invalid UTF-8": 2, "NUL character": 1, "longer than 64 MiB": 1}
    for tokenizer in tokenizers.values():
        assert counted(tokenizer, texts) == counted_by_hand(tokenizer, texts)


def test_a_text_without_any_cut_is_counted_whole(tokenizers):
    texts = ["가나다" * 100_000, "\x00" * 50_000, "\n" * 1000, " " * 1000, "e\u0301" * 500]
    for tokenizer in tokenizers.values():
        assert counted(tokenizer, texts) == counted_by_hand(tokenizer, texts)


def test_nothing_to_count():
    assert len(count_words([], WordRule(None, ""))) == 0
    assert count_words(["", ""], WordRule(r"\S+", "")).total == 0


def test_counts_on_disk_are_used_like_others_and_go_when_they_are_no_longer_used(tmp_path, monkeypatch):
    monkeypatch.setattr(count, "_BATCH_CHARS", 20)
    monkeypatch.setattr(count, "_ROWS_IN_MEMORY", 4)
    monkeypatch.setattr(count, "_ENCODED_TOGETHER", 3)
    texts = [f"가{n} 나{n % 7} b{n % 3}" for n in range(40)]
    counts = count_words(texts, SPACED, scratch=tmp_path)
    assert list(tmp_path.rglob("whole-*.parquet"))
    assert len(counts) == len(counts.frame)
    assert counts.total == sum(counts.frame["count"])
    assert [w for words, _ in counts.batches() for w in words] == counts.frame["word"].to_list()
    counts.save(tmp_path / "saved.parquet")
    assert WordCounts.load(tmp_path / "saved.parquet").frame.equals(counts.frame)
    hangul = counts.having(r"\p{Hangul}")
    del counts
    gc.collect()
    assert [p.name for p in tmp_path.iterdir()] == ["saved.parquet"]
    assert len(hangul) == 47


def test_saved_and_loaded(tmp_path):
    counts = WordCounts.of({" 혈압이": 3, "가": 1})
    counts.save(tmp_path / "words.parquet")
    assert WordCounts.load(tmp_path / "words.parquet").frame.equals(counts.frame)
    assert json.loads(counts.frame.write_json()) == [{"word": " 혈압이", "count": 3}, {"word": "가", "count": 1}]


@given(parts=st.lists(mixed, max_size=4))
def test_plain_lines_are_cut_as_the_pattern_would(tokenizers, parts) -> None:
    texts, rule = ["".join(p) for p in parts], word_rule(tokenizers["gemma"])
    assert rule.odd
    found, by_pattern = (count_words(texts, r).frame for r in (rule, WordRule(rule.pattern, rule.reason)))
    assert found.equals(by_pattern)


@given(words=st.lists(st.sampled_from(["a", "b", "c", "가", "나"]), max_size=30))
def test_words_of_one_hash_are_told_apart(words) -> None:
    rule = WordRule(r"\S+", "by spaces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(count, "_HASH", pl.col("word").str.len_bytes().cast(pl.UInt64))
        found = dict(count_words([" ".join(words)] * 2, rule).frame.iter_rows())
    assert found == {word: 2 * words.count(word) for word in words}
