"""Byte-level BPE: the base's tokenizer.json is kept whole, new merges come last, and no token is renumbered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from vocabgraft.errors import ModelError, TokenizerError
from vocabgraft.models.smollm2 import write_smollm2_tokenizer
from vocabgraft.tokenizer.byte_level import graft_pieces, read_byte_level
from vocabgraft.tokenizer.expand import expand_tokenizer
from vocabgraft.tokenizer.measure import encode, load_tokenizer
from vocabgraft.tokenizer.room import free_ids
from vocabgraft.tokenizer.tokenizer_json import merges_of, put_pieces
from vocabgraft.tokenizer.train import Candidate

BYTE_LEVEL = ("llama3", "qwen", "smollm2")


def read(folder: Path) -> dict:
    return json.loads((folder / "tokenizer.json").read_text("utf-8"))


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_all_settings_of_the_base_are_kept(make_base, tmp_path: Path, name: str) -> None:
    base, pieces = make_base(name)
    expand_tokenizer(base, pieces, [1] * len(pieces), tmp_path / "out", place="append")
    before, after = read(base), read(tmp_path / "out")
    assert {k: v for k, v in after.items() if k != "model"} == {k: v for k, v in before.items() if k != "model"}
    for part in ("vocab", "merges"):
        before["model"].pop(part)
        after["model"].pop(part)
    assert after["model"] == before["model"]


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_new_merges_stand_at_the_end_in_the_spelling_of_the_file(make_base, tmp_path: Path, name: str) -> None:
    base, pieces = make_base(name)
    expand_tokenizer(base, pieces, [1] * len(pieces), tmp_path / "out", place="append")
    before, after = (read(f)["model"]["merges"] for f in (base, tmp_path / "out"))
    assert after[: len(before)] == before
    new = [" ".join(c.merge) if name == "smollm2" else list(c.merge) for c in pieces]
    assert after[len(before) :] == new


def test_added_tokens_are_renumbered_by_the_library_unless_they_are_in_the_vocabulary(make_base) -> None:
    """The trap itself: were it mended one day, the copies in the vocabulary could go."""
    base, pieces = make_base("llama3")
    raw = read(base)
    naive = read(base)
    slot = free_ids(base).free[0]
    naive["added_tokens"] = [t for t in naive["added_tokens"] if t["id"] != slot]
    naive["model"]["vocab"][pieces[0].piece] = slot
    moved = Tokenizer.from_str(json.dumps(naive)).token_to_id("<|begin_of_text|>")
    assert moved != raw["added_tokens"][0]["id"]
    ours = Tokenizer.from_str(json.dumps(graft_pieces(raw, pieces[:1], [slot])))
    assert ours.token_to_id("<|begin_of_text|>") == raw["added_tokens"][0]["id"]


def test_special_tokens_in_the_vocabulary_are_still_read_as_special(make_base, tmp_path: Path) -> None:
    """`ignore_merges` looks whole words up in the vocabulary, where the special tokens now are."""
    base, pieces = make_base("llama3")
    expand_tokenizer(base, pieces, [1] * len(pieces), tmp_path / "out")
    texts = ["<|eot_id|>", "a<|eot_id|>b", "<|eot_id", "x <|begin_of_text|>", "<|reserved_special_token_59|>"]
    before, after = (Tokenizer.from_file(str(f / "tokenizer.json")) for f in (base, tmp_path / "out"))
    assert encode(before, texts) == encode(after, texts)
    assert after.encode("a").ids == before.encode("a").ids
    after.encode_special_tokens = before.encode_special_tokens = True
    assert encode(before, texts) == encode(after, texts)


def test_the_name_of_a_slot_that_was_taken_is_plain_text(make_base, tmp_path: Path) -> None:
    base, pieces = make_base("llama3")
    found = expand_tokenizer(base, pieces, [1] * len(pieces), tmp_path / "out")
    after = load_tokenizer(tmp_path / "out")
    assert load_tokenizer(base).id_to_token(found.ids[0]) == "<|reserved_special_token_0|>"
    assert after.token_to_id("<|reserved_special_token_0|>") is None
    assert len(encode(after, ["<|reserved_special_token_0|>"])[0]) > 1


def test_text_that_nfc_changes_gives_the_same_pieces(make_base, tmp_path: Path) -> None:
    base, pieces = make_base("qwen")
    expand_tokenizer(base, pieces, [1] * len(pieces), tmp_path / "out")
    after = load_tokenizer(tmp_path / "out")
    jamo = "\u1112\u1167\u11af\u110b\u1161\u11b8"  # 혈압, letter by letter
    assert encode(after, [jamo]) == encode(after, ["혈압"])


def test_slow_files_are_only_written_where_the_base_has_them(make_base, tmp_path: Path) -> None:
    original, pieces = make_base("qwen")
    base = shutil.copytree(original, tmp_path / "base")
    (base / "vocab.json").unlink()
    (base / "merges.txt").unlink()
    expand_tokenizer(base, pieces, [1] * len(pieces), tmp_path / "out")
    assert not {"vocab.json", "merges.txt"} & {p.name for p in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(
    ("piece", "merge", "complaint"),
    [
        ("ab\u0101", ("", ""), "does not make it"),
        ("ab\u0101", ("ab", "c"), "does not make it"),
        ("ab\u0101", ("", "ab\u0101"), "does not make it"),
        ("ab\u0101\u0101", ("ab\u0101", "\u0101"), "neither in the base nor an earlier new piece"),
    ],
)
def test_a_piece_without_a_merge_that_makes_it_is_refused(make_base, piece: str, merge, complaint: str) -> None:
    raw = read_byte_level(make_base("qwen")[0])
    with pytest.raises(TokenizerError, match=complaint):
        graft_pieces(raw, [Candidate(piece, (), merge)], [free_ids(make_base("qwen")[0]).free[0]])


def test_a_piece_may_be_made_of_an_earlier_new_one(make_base) -> None:
    base, _ = make_base("qwen")
    letter = "\u0101"  # byte 01: no text of the base holds it
    pieces = [Candidate(letter * 2, (), (letter, letter)), Candidate(letter * 4, (), (letter * 2, letter * 2))]
    ids = free_ids(base).free[:2]
    tokenizer = Tokenizer.from_str(json.dumps(graft_pieces(read_byte_level(base), pieces, ids)))
    assert encode(tokenizer, ["\x01\x01\x01\x01\x01\x01"]) == [[ids[1], ids[0]]]


def test_words_with_an_ending_mark_are_refused(make_base, tmp_path: Path) -> None:
    base = shutil.copytree(make_base("smollm2")[0], tmp_path / "base")
    raw = read(base)
    raw["model"]["end_of_word_suffix"] = "</w>"
    (base / "tokenizer.json").write_text(json.dumps(raw), "utf-8")
    with pytest.raises(TokenizerError, match="end_of_word_suffix"):
        read_byte_level(base)


def test_merges_that_spelt_a_placeholder_go_with_it(make_base) -> None:
    raw = read(make_base("smollm2")[0])
    raw["model"]["vocab"] |= {"<unused": 5000, "<unused7>": 5001}
    raw["model"]["merges"] += ["<unused 7>", "<unused7> a"]
    assert merges_of(put_pieces(raw, {5001: "new"})) == merges_of(raw)[:-2]
    assert put_pieces(raw, {5002: "new"})["model"]["merges"] == raw["model"]["merges"]


# -- SmolLM2 from its GGUF file -------------------------------------------------------------------------------------


def write_gguf(path: Path, *, pre: str = "smollm") -> None:
    """A GGUF of a tokenizer of SmolLM2's kind: metadata and no tensor."""
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(8192)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"ab12 Ġ".replace(" ", ""), "ab", "Ġab", "<x>"]
    )
    writer.add_token_types([3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 4])
    writer.add_token_merges(["a b", "Ġ ab"])
    for name, i in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{name}_token_id")(i)
    writer.add_chat_template("{{ messages }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def test_a_gguf_tokenizer_of_smollm2_is_rebuilt(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf")
    write_smollm2_tokenizer(tmp_path / "a.gguf", tmp_path / "out")
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tokenizer.encode("<|im_start|>ab ab21<x>").tokens == ["<|im_start|>", "ab", "Ġab", "2", "1", "<x>"]
    assert [t.special for t in tokenizer.get_added_tokens_decoder().values()] == [True, True, True, False]
    config = json.loads((tmp_path / "out/tokenizer_config.json").read_text("utf-8"))
    names = {k: config[f"{k}_token"] for k in ("bos", "eos", "unk", "pad")}
    assert names == {"bos": "<|im_start|>", "eos": "<|im_end|>", "unk": "<|endoftext|>", "pad": "<|im_end|>"}
    assert (config["vocab_size"], config["model_max_length"]) == (11, 8192)


def test_a_gguf_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", pre="llama-bpe")
    with pytest.raises(ModelError, match="llama-bpe"):
        write_smollm2_tokenizer(tmp_path / "a.gguf", tmp_path / "out")


@pytest.mark.slow
def test_the_real_smollm2_tokenizer_gives_the_known_ids(smollm2_gguf: Path, tmp_path: Path) -> None:
    """Ids published with other ports of SmolLM2-135M-Instruct."""
    write_smollm2_tokenizer(smollm2_gguf, tmp_path)
    known = {
        "Hello, we can use": [19556, 28, 392, 416, 722],
        "The capital of France is": [504, 3575, 282, 4649, 314],
        "Hello world! 123": [19556, 905, 17, 216, 33, 34, 35],
        "Café déjà vu.": [51, 1939, 2756, 32564, 90, 16739, 386, 101, 30],
        "  multiple   spaces": [216, 2701, 256, 5600],
    }
    assert encode(load_tokenizer(tmp_path), list(known)) == list(known.values())
