"""Two files, one table: sentencepiece and Hugging Face read every text alike."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.measure import disagreements, encode, load_tokenizer, not_restored
from vocabgraft.tokenizer.vocabulary import (
    CONTROL,
    NORMAL,
    USER_DEFINED,
    Vocabulary,
    iter_new,
    read_model,
    rewrite_model,
    slots,
    write_model,
    write_tokenizer,
)

# A literal ▁ beside a space is a run of spaces to sentencepiece only; no text of ours holds one.
CHARACTER = st.characters(codec="utf-8", exclude_characters="▁")
HANGUL = st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)
WORD = st.sampled_from(
    [
        "혈압",
        " 고혈압이",
        "있다",
        "the",
        " patient",
        "15mg",
        "😀",
        "👨‍👩‍👧",
        " ",
        "  ",
        " " * 31,
        "\n",
        "\n\n\n",
        "\t",
        "<0x0A>",
    ]
)
TEXT = st.lists(WORD | HANGUL | CHARACTER, max_size=20).map("".join)


@pytest.fixture(scope="module")
def gemma(make_expanded):
    return make_expanded("gemma", "slots")


@pytest.fixture(scope="module", params=["base", "expanded"])
def both(request: pytest.FixtureRequest, gemma):
    folder = gemma.base if request.param == "base" else gemma.out
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return model, load_tokenizer(folder)


@given(text=TEXT)
@example(" " * 32)
@example(" " * 100 + "가" + " " * 33 + "a")
@example("\n" * 9 + "\t\t \t  혈압\r\n")
def test_the_two_files_agree_on_any_text(both, text: str) -> None:
    model, tokenizer = both
    assert encode(tokenizer, [text]) == [model.encode(text)]


@given(text=TEXT)
@example(" " * 77)
def test_every_text_comes_back(both, text: str) -> None:
    assert not_restored(both[1], [text]) == []


def test_the_two_files_agree_on_all_sample_prose(gemma, korean, english) -> None:
    texts = [*korean, *english]
    assert disagreements(gemma.out, texts) == []
    assert not_restored(load_tokenizer(gemma.out), texts) == []


def test_a_special_name_in_a_text_is_not_counted_as_a_disagreement(gemma) -> None:
    assert disagreements(gemma.out, ["a <start_of_turn> b <unk> 혈압"]) == []


def test_transformers_reads_the_folder_as_tokenizers_does(gemma, korean, english) -> None:
    from transformers import AutoTokenizer

    texts = [*korean[:5], *english[:5], "a  b\n\n\tc 😀" + " " * 40]
    theirs = AutoTokenizer.from_pretrained(gemma.out)
    assert [theirs.encode(t, add_special_tokens=False) for t in texts] == encode(load_tokenizer(gemma.out), texts)
    assert theirs.encode("혈압")[0] == theirs.bos_token_id == 2


@pytest.fixture(scope="module")
def table() -> Vocabulary:
    rows = [("<pad>", 0.0, 3), ("<eos>", 0.0, 3), ("<bos>", 0.0, 3), ("<unk>", 0.0, 2), ("<unused0>", 0.0, 3)]
    rows += [("<unused99>", 0.0, 3), ("<unused100>", 0.0, 3), ("▁▁", 0.0, 4), ("혈", -1.0, 1), ("압", -2.0, 1)]
    pieces, scores, types = zip(*rows, strict=True)
    return Vocabulary(pieces, scores, types)


def test_slots_start_after_the_reserved_ones(table: Vocabulary) -> None:
    assert slots(table) == [5, 6]
    assert slots(table, reserved=0) == [4, 5, 6]


def test_new_pieces_stand_below_all_others_in_falling_order(table: Vocabulary) -> None:
    new = table.put([6, 5, 10], ["혈압", "압혈", "혈압혈"])
    assert [new.scores[i] for i in (6, 5, 10)] == [-3.0, -4.0, -5.0]
    assert {new.types[i] for i in (6, 5, 10)} == {NORMAL}
    assert list(iter_new(table, new)) == [(5, "압혈"), (6, "혈압"), (10, "혈압혈")]
    assert len(table) == 10, "the table itself is left as it was"


@pytest.mark.parametrize(
    ("at", "pieces", "complaint"),
    [
        ([8], ["혈압"], "id 8 holds '혈', not an <unused> slot"),
        ([2], ["혈압"], "id 2 holds '<bos>'"),
        ([5], ["혈"], "'혈' is already in"),
        ([5, 6], ["혈압", "혈압"], "'혈압' is already in"),
        ([5, 5], ["혈압", "압혈"], "id 5 holds '혈압'"),
        ([11], ["혈압"], "id 11 would leave a hole after 10 pieces"),
    ],
)
def test_pieces_are_put_only_where_nothing_is(table: Vocabulary, at: list[int], pieces: list[str], complaint) -> None:
    with pytest.raises(TokenizerError, match=complaint):
        table.put(at, pieces)


def test_what_is_written_is_read_back(gemma, tmp_path: Path) -> None:
    vocabulary = read_model(gemma.out / "tokenizer.model")
    write_model(vocabulary, tmp_path / "tokenizer.model")
    assert read_model(tmp_path / "tokenizer.model") == vocabulary


def test_two_writes_give_the_same_bytes(gemma, tmp_path: Path) -> None:
    vocabulary = read_model(gemma.out / "tokenizer.model")
    for name in ("a", "b"):
        write_tokenizer(vocabulary, tmp_path / name, "{{ bos_token }}")
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == ["chat_template.jinja", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_merges_come_best_score_first(table: Vocabulary) -> None:
    assert table.put([5, 6], ["압혈", "압혈압"]).merges() == [("압", "혈"), ("압혈", "압")]


def test_merges_that_touch_a_piece_make_it_or_take_it(table: Vocabulary) -> None:
    new = table.put([5, 6, 10], ["압혈", "압혈압", "혈혈"])
    assert new.merges(touching={"압혈"}) == [("압", "혈"), ("압혈", "압")]
    assert new.merges(touching={"혈혈"}) == [("혈", "혈")]
    assert new.merges(touching=set()) == []


def test_merges_are_woven_in_where_their_scores_belong(table: Vocabulary) -> None:
    old = table.put([5, 6], ["압혈", "혈혈혈"])  # nothing makes 혈혈혈 yet
    new = old.put([10], ["혈혈"])
    assert new.weave(old.merges(), new.merges(touching={"혈혈"})) == new.merges()
    assert new.weave([], new.merges()) == new.merges()
    assert new.weave(new.merges(), []) == new.merges()


def test_a_token_that_is_no_text_goes_to_the_end(table: Vocabulary) -> None:
    new = table.append_token("<image>", special=True).append_token("<tool>", special=False)
    assert (new.pieces[10:], new.types[10:]) == (("<image>", "<tool>"), (CONTROL, USER_DEFINED))
    assert new.lowest_score == table.lowest_score


def test_a_rewritten_model_keeps_every_setting_but_the_pieces(english, tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(english),
        model_writer=model,
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="nfkc",
        control_symbols=["<unused99>", "<turn>"],
        minloglevel=2,
    )
    (tmp_path / "base.model").write_bytes(model.getvalue())
    base = read_model(tmp_path / "base.model")
    new = base.put([base.ids["<unused99>"]], ["zzz"])
    rewrite_model(tmp_path / "base.model", base, tmp_path / "same.model")
    rewrite_model(tmp_path / "base.model", new, tmp_path / "new.model")
    assert (tmp_path / "same.model").read_bytes() == model.getvalue()
    assert read_model(tmp_path / "new.model") == new
    assert b"<unused99>" not in (tmp_path / "new.model").read_bytes()
    before, after = (
        sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / f"{n}.model")) for n in ("base", "new")
    )
    assert after.encode("The Ａ patient") == before.encode("The Ａ patient") == before.encode("The A patient")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    with pytest.raises(TokenizerError, match="cannot be read"):
        read_model(path)
    path.write_bytes(b"\xff\xfe no protobuf")
    with pytest.raises(TokenizerError, match="not a SentencePiece model"):
        read_model(path)


def test_a_unigram_model_is_refused(english, tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(english), model_writer=model, vocab_size=200, model_type="unigram", minloglevel=2
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    with pytest.raises(TokenizerError, match="type BPE is needed"):
        read_model(tmp_path / "tokenizer.model")


@pytest.mark.parametrize("content", [None, "not json", '{"model": 1}'])
def test_a_folder_without_a_readable_tokenizer_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content, "utf-8")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
