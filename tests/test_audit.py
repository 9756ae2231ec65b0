"""Each finding of the audit, on a good folder and on one that was damaged in exactly that way."""

import json
import shutil
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from vocabgraft.audit import audit_folder, audit_pair
from vocabgraft.corpus.script import script_pattern
from vocabgraft.errors import TokenizerError
from vocabgraft.models.chat_templates import GEMMA
from vocabgraft.models.headers import read_headers
from vocabgraft.models.random_gemma3 import gemma_style_vocabulary
from vocabgraft.tokenizer.compare import boundaries
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.tokenizer.vocabulary import NORMAL, read_model, slots, write_json, write_model, write_tokenizer

HIDDEN = 4


@pytest.fixture(scope="session")
def vocabulary(korean, english):
    return gemma_style_vocabulary([*english, *korean[::3]], normal=900, free_slots=150)


@pytest.fixture(scope="session")
def good(vocabulary, tmp_path_factory):
    """A whole model folder: tokenizer files, config.json, one tied matrix."""
    folder = tmp_path_factory.mktemp("audit") / "base"
    write_tokenizer(vocabulary, folder, GEMMA)
    write_config(folder, vocab_size=len(vocabulary), tie_word_embeddings=True)
    write_weights(folder, rows=len(vocabulary))
    return folder


@pytest.fixture(scope="session")
def grafted(good, vocabulary, korean, tmp_path_factory):
    """The same with 100 Korean pieces in the free slots, each made of two base pieces."""
    folder = Path(shutil.copytree(good, tmp_path_factory.mktemp("audit") / "expanded"))
    base = load_tokenizer(good)
    pairs = neighbours(good, korean, script_pattern("Hangul").fullmatch)
    pieces = [a + b for a, b in pairs if base.encode(a + b, add_special_tokens=False).tokens == [a, b]]
    write_tokenizer(vocabulary.put(slots(vocabulary)[:100], list(dict.fromkeys(pieces))[:100]), folder, GEMMA)
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return Path(shutil.copytree(good, tmp_path / "model"))


@pytest.fixture
def expanded(grafted, tmp_path):
    return Path(shutil.copytree(grafted, tmp_path / "expanded"))


def write_config(folder, **settings):
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3_text"} | settings), "utf-8")


def write_weights(folder, *, rows, head=None):
    tensors = {"model.embed_tokens.weight": np.arange(rows * HIDDEN, dtype=np.float32).reshape(rows, HIDDEN)}
    if head == "copy":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    if head == "own":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, str(folder / "model.safetensors"))


def change_json(path, change):
    raw = json.loads(path.read_text("utf-8"))
    change(raw)
    path.write_text(json.dumps(raw, ensure_ascii=False), "utf-8")


def finding(audit, name):
    return {f.name: f for f in audit.findings}[name]


def status(folder, name):
    return finding(audit_folder(folder), name).status


def test_a_good_model_has_nothing_but_ok(good, vocabulary):
    audit = audit_folder(good)
    assert {f.status for f in audit.findings} == {"ok"}
    assert audit.status == "ok"
    assert audit.figures["tokens"] == audit.figures["rows"] == len(vocabulary)
    assert audit.figures["parameters"] == len(vocabulary) * HIDDEN


def test_a_good_graft_has_nothing_but_ok(good, grafted):
    audit = audit_pair(good, grafted)
    assert {f.status for f in audit.findings} == {"ok"}
    assert audit.figures["new_pieces"] == 100
    assert audit.figures["tokens_per_word_after"] < audit.figures["tokens_per_word_before"]


def test_an_audit_is_plain_json(good, grafted):
    raw = json.loads(json.dumps(audit_pair(good, grafted).as_json()))
    assert raw["status"] == "ok"
    assert set(raw["findings"][0]) == {"name", "status", "found", "fix"}


def test_a_tokenizer_alone_is_enough(good, tmp_path):
    shutil.copyfile(good / "tokenizer.json", tmp_path / "tokenizer.json")
    audit = audit_folder(tmp_path)
    assert [f.name for f in audit.findings] == ["duplicate pieces", "chat template", "tokenizer.model"]
    assert audit.figures["rows"] is None


@pytest.mark.parametrize("ill", ["no folder", "no tokenizer", "damaged"])
def test_what_holds_no_tokenizer_is_an_error_of_ours(tmp_path, ill):
    if ill == "damaged":
        (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(TokenizerError):
        audit_folder(tmp_path / "none" if ill == "no folder" else tmp_path)


def test_a_damaged_config_is_an_error_of_ours(folder):
    (folder / "config.json").write_text("{", "utf-8")
    with pytest.raises(TokenizerError, match=r"config\.json: not JSON"):
        audit_folder(folder)


def test_an_expansion_of_tokenizer_json_alone_is_found(good, expanded):
    shutil.copyfile(good / "tokenizer.model", expanded / "tokenizer.model")
    found = finding(audit_folder(expanded), "tokenizer.model = tokenizer.json")
    assert found.status == "fail"
    assert "100 ids differ" in found.found
    assert "sample texts differ" in found.found


def test_a_merge_that_one_file_has_not_is_found(folder):
    change_json(folder / "tokenizer.json", lambda raw: raw["model"]["merges"].__delitem__(slice(0, 40)))
    found = finding(audit_folder(folder), "tokenizer.model = tokenizer.json")
    assert found.status == "fail"
    assert "ids differ" not in found.found


def test_a_special_token_renamed_in_one_file_is_a_warning(folder):
    def rename(raw):
        raw["model"]["vocab"]["<tool>"] = raw["model"]["vocab"].pop("<unused5>")
        for token in raw["added_tokens"]:
            token["content"] = token["content"].replace("<unused5>", "<tool>")

    change_json(folder / "tokenizer.json", rename)
    assert status(folder, "tokenizer.model = tokenizer.json") == "warn"


def test_a_tokenizer_model_of_another_kind_is_a_warning(folder):
    (folder / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    assert status(folder, "tokenizer.model = tokenizer.json") == "warn"


def test_padded_rows_are_counted(folder, vocabulary):
    rows = len(vocabulary) + 63
    write_config(folder, vocab_size=rows, tie_word_embeddings=True)
    write_weights(folder, rows=rows)
    audit = audit_folder(folder)
    assert "63 padded rows" in finding(audit, "rows for tokens").found
    assert audit.figures["padded_rows"] == 63
    assert audit.status == "ok"


def test_ordinary_pieces_without_a_row_fail(folder, vocabulary):
    rows = len(vocabulary) - 200
    write_config(folder, vocab_size=rows, tie_word_embeddings=True)
    write_weights(folder, rows=rows)
    assert status(folder, "rows for tokens") == "fail"


def test_an_added_token_without_a_row_is_a_warning(folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens([AddedToken("<image_soft_token>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    found = finding(audit_folder(folder), "rows for tokens")
    assert found.status == "warn"
    assert "<image_soft_token>" in found.found


def test_a_configuration_of_other_rows_than_the_weights_fails(folder, vocabulary):
    write_config(folder, vocab_size=len(vocabulary) + 64, tie_word_embeddings=True)
    assert status(folder, "rows for tokens") == "fail"


def test_rows_of_a_nested_configuration_are_read(folder, vocabulary):
    write_config(folder, text_config={"vocab_size": len(vocabulary) + 1, "tie_word_embeddings": True})
    assert status(folder, "rows for tokens") == "fail"


@pytest.mark.parametrize(
    ("config", "head", "wanted", "said"),
    [
        ({"tie_word_embeddings": True}, None, "ok", "one matrix"),
        ({"tie_word_embeddings": False}, "own", "ok", "two matrices"),
        ({"tie_word_embeddings": True}, "copy", "warn", "a copy"),
        ({"tie_word_embeddings": True}, "own", "fail", "flag true, but lm_head.weight differs"),
        ({}, "own", "fail", "no flag"),
        ({"tie_word_embeddings": False}, None, "fail", "flag false, but no lm_head.weight"),
        ({"tie_word_embeddings": True, "text_config": {"tie_word_embeddings": False}}, None, "fail", "in text_config"),
        ({"text_config": {"tie_word_embeddings": True}}, None, "warn", "in text_config only"),
        ({"text_config": {"tie_word_embeddings": False}}, None, "fail", "flag false"),
    ],
)
def test_the_tie_flag_is_held_against_the_stored_head(folder, vocabulary, config, head, wanted, said):
    write_config(folder, **config)
    write_weights(folder, rows=len(vocabulary), head=head)
    found = finding(audit_folder(folder), "tied embeddings")
    assert found.status == wanted
    assert said in found.found


def test_a_stale_added_tokens_decoder_is_found(good, expanded):
    ids = load_tokenizer(good).get_added_tokens_decoder()
    stale = {str(i): {"content": t.content, "special": True} for i, t in ids.items()}
    change_json(expanded / "tokenizer_config.json", lambda raw: raw.update(added_tokens_decoder=stale))
    found = finding(audit_folder(expanded), "added tokens")
    assert found.status == "fail"
    assert "100 stale" in found.found
    assert "<unused99>" in found.found


def test_added_tokens_that_agree_are_ok_and_a_stale_side_file_is_found(folder):
    change_json(
        folder / "tokenizer_config.json", lambda raw: raw.update(added_tokens_decoder={"0": {"content": "<pad>"}})
    )
    assert status(folder, "added tokens") == "ok"
    (folder / "added_tokens.json").write_text(json.dumps({"<image>": 7}), "utf-8")
    assert status(folder, "added tokens") == "fail"


@pytest.mark.parametrize(
    ("i", "named", "wanted"),
    [
        (10, "<unused5>", "ok"),
        (10, None, "ok"),
        (10, "<unused6>", "fail"),
        (700, None, "fail"),
        (99_999, None, "fail"),
    ],
)
def test_an_image_id_is_held_against_the_tokenizer(folder, vocabulary, i, named, wanted):
    write_config(folder, vocab_size=len(vocabulary), tie_word_embeddings=True, image_token_index=i)
    if named:
        change_json(folder / "tokenizer_config.json", lambda raw: raw.update(image_token=named))
    assert status(folder, "image and audio tokens") == wanted


def test_a_piece_written_twice_is_found(folder):
    path = folder / "tokenizer.json"
    text = path.read_text("utf-8").replace('"<pad>":0', '"<pad>":5,"<pad>":0', 1)
    path.write_text(text, "utf-8")
    found = finding(audit_folder(folder), "duplicate pieces")
    assert found.status == "fail"
    assert "'<pad>'" in found.found


def test_an_id_with_two_pieces_is_found(folder):
    change_json(folder / "tokenizer.json", lambda raw: raw["model"]["vocab"].update({"another": 700}))
    found = finding(audit_folder(folder), "duplicate pieces")
    assert found.status == "fail"
    assert "700: " in found.found


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_the_model_is_found(folder, name):
    change_json(folder / name, lambda raw: raw.update(auto_map={"AutoModel": "modeling.Mine"}))
    found = finding(audit_folder(folder), "foreign code")
    assert found.status == "fail"
    assert name in found.found


def test_pickled_weights_alone_fail(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pytorch_model.bin" in finding(audit_folder(folder), "weight files").found
    assert status(folder, "weight files") == "fail"


def test_pickled_weights_beside_safetensors_do_no_harm(folder):
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert status(folder, "weight files") == "ok"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-10], "cut short"),
        (lambda data: data[:5], "no header"),
        (lambda data: struct.pack("<Q", 2**60) + data[8:], "no header"),
        (lambda data: data[:8] + b"x" + data[9:], "model.safetensors"),
        (lambda data: struct.pack("<Q", 12) + b'{"a": [1,2]}', "model.safetensors"),
    ],
)
def test_damaged_weights_fail(folder, damage, said):
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    found = finding(audit_folder(folder), "weight files")
    assert found.status == "fail"
    assert said in found.found


def test_a_missing_shard_is_found(folder):
    places = {
        "model.embed_tokens.weight": "model.safetensors",
        "model.norm.weight": "model-2.safetensors",
        "x": "model.safetensors",
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), "utf-8")
    found = finding(audit_folder(folder), "weight files").found
    assert "model-2.safetensors: missing" in found
    assert "x: in the index, in no file" in found
    (folder / "model.safetensors.index.json").write_text("[]", "utf-8")
    assert "not a weight index" in finding(audit_folder(folder), "weight files").found


def test_headers_read_by_hand_are_those_of_the_library(folder):
    from safetensors import safe_open

    tensors, problems = read_headers(folder)
    assert problems == []
    with safe_open(str(folder / "model.safetensors"), "np") as f:
        names = list(f.keys())
        assert {n: tuple(f.get_slice(n).get_shape()) for n in names} == {n: t.shape for n, t in tensors.items()}


def test_a_missing_chat_template_is_a_warning(folder):
    (folder / "chat_template.jinja").unlink()
    assert status(folder, "chat template") == "warn"
    change_json(folder / "tokenizer_config.json", lambda raw: raw.update(chat_template="{{ messages }}"))
    assert status(folder, "chat template") == "ok"


def rewrite(folder, change):
    """Write both tokenizer files of a folder from a changed table."""
    table = change(read_model(folder / "tokenizer.model"))
    write_model(table, folder / "tokenizer.model")
    write_json(table, folder / "tokenizer.json")


def swap(table, i, j):
    pieces = list(table.pieces)
    pieces[i], pieces[j] = pieces[j], pieces[i]
    return type(table)(tuple(pieces), table.scores, table.types)


def test_base_pieces_whose_id_moved_are_found(good, expanded):
    rewrite(expanded, lambda table: swap(table, 600, 601))
    found = finding(audit_pair(good, expanded), "ids of base pieces")
    assert found.status == "fail"
    assert found.found.startswith("2 moved or gone")


def test_a_base_piece_that_is_gone_is_found(good, expanded):
    def drop(table):
        pieces = list(table.pieces)
        pieces[600] = "한국말"
        return type(table)(tuple(pieces), table.scores, table.types)

    rewrite(expanded, drop)
    assert finding(audit_pair(good, expanded), "ids of base pieces").found.startswith("1 moved or gone")


def test_a_special_token_that_is_no_longer_special_is_found(good, expanded):
    def plain(raw):
        raw["added_tokens"] = [t for t in raw["added_tokens"] if t["content"] != "<end_of_turn>"]

    change_json(expanded / "tokenizer.json", plain)
    found = finding(audit_pair(good, expanded), "special tokens")
    assert found.status == "fail"
    assert "<end_of_turn>" in found.found


def test_a_pair_without_new_pieces_is_a_warning(good):
    audit = audit_pair(good, good)
    assert finding(audit, "new pieces").status == "warn"
    assert finding(audit, "cost of the texts").status == "warn"
    assert "reachable pieces" not in {f.name for f in audit.findings}


def test_pieces_put_in_as_added_tokens_are_found(good, folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["고혈압", "당뇨병"])
    tokenizer.save(str(folder / "tokenizer.json"))
    found = finding(audit_pair(good, folder), "new pieces")
    assert found.status == "warn"
    assert "2 are added tokens" in found.found


def test_pieces_without_merges_are_unreachable(good, expanded):
    change_json(expanded / "tokenizer.json", lambda raw: raw["model"]["merges"].__delitem__(slice(-40, None)))
    found = finding(audit_pair(good, expanded), "reachable pieces")
    assert found.status == "fail"
    assert "of 100 are never produced" in found.found


def put(folder, pieces):
    """Graft pieces into the free slots; scores high, so that they also win in English."""

    def change(table):
        rows = [i for i, p in enumerate(table.pieces) if p.startswith("<unused") and int(p[7:-1]) >= 99]
        names, scores, types = list(table.pieces), list(table.scores), list(table.types)
        for n, (i, piece) in enumerate(zip(rows, pieces, strict=False)):
            names[i], scores[i], types[i] = piece, 10.0 - n, NORMAL
        return type(table)(tuple(names), tuple(scores), tuple(types))

    rewrite(folder, change)


HANGUL = [f"{a}{b}" for a in "가나다라마바사" for b in "각낙닥락"]


def neighbours(folder, texts, wanted):
    """Pairs of base tokens that stand side by side in a text, hold only wanted letters and are no piece together."""
    tokenizer = load_tokenizer(folder)
    known = tokenizer.get_vocab()
    tokens = tokenizer.encode(" ".join(texts), add_special_tokens=False).tokens
    pairs = sorted(set(pairwise(tokens)))
    return [(a, b) for a, b in pairs if a + b not in known and all(wanted(c) for c in a + b)]


def test_new_pieces_that_change_english_are_found(good, folder, english):
    (a, b), *_ = neighbours(good, english, lambda c: "a" <= c <= "z")
    put(folder, [*HANGUL, a + b])
    found = finding(audit_pair(good, folder), "English and code")
    assert found.status == "fail"


def test_a_language_of_latin_letters_only_warns_about_english(good, folder, english):
    (a, b), *_ = neighbours(good, english, lambda c: "a" <= c <= "z")
    put(folder, [a + b])
    assert finding(audit_pair(good, folder), "English and code").status == "warn"


def test_tokens_that_are_no_runs_of_base_tokens_are_a_warning(good, folder, korean):
    known = load_tokenizer(good).get_vocab()
    pairs = neighbours(good, korean, script_pattern("Hangul").fullmatch)
    # 'ab' + 'c' becomes 'a' + 'bc': the new piece starts inside a base piece.
    x, y = next((x, y) for x, y in pairs if len(x) == 2 and len(y) == 1 and x[1] in known and x[1] + y not in known)
    put(folder, [x[1] + y])
    assert finding(audit_pair(good, folder, [x + y]), "runs of base tokens").status == "warn"


def test_another_beginning_of_a_text_is_found(good, expanded):
    change_json(expanded / "tokenizer.json", lambda raw: raw.update(post_processor=None))
    found = finding(audit_pair(good, expanded), "BOS and EOS")
    assert found.status == "fail"
    assert "<bos>" in found.found


def test_another_setting_for_bos_is_found(good, expanded):
    change_json(expanded / "tokenizer_config.json", lambda raw: raw.update(add_bos_token=False))
    assert "add_bos_token" in finding(audit_pair(good, expanded), "BOS and EOS").found


def test_another_chat_template_is_a_warning(good, expanded):
    (expanded / "chat_template.jinja").write_text("{{ messages }}", "utf-8")
    assert finding(audit_pair(good, expanded), "chat template of the base").status == "warn"


def byte_level(folder: Path, texts, size: int) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def append(source: Path, goal: Path, merges: list[tuple[str, str]]) -> Path:
    shutil.copytree(source, goal)

    def add(raw):
        vocabulary = raw["model"]["vocab"]
        for left, right in merges:
            vocabulary[left + right] = len(vocabulary)
            raw["model"]["merges"].append([left, right])

    change_json(goal / "tokenizer.json", add)
    return goal


@pytest.fixture(scope="module")
def spelt(tmp_path_factory, english):
    return byte_level(tmp_path_factory.mktemp("bytes") / "base", english, 600)


def letters_of(text: str) -> list[str]:
    return list(pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)[0][0])


def test_a_byte_level_tokenizer_can_be_audited_with_its_base(spelt, tmp_path):
    a, b, c = letters_of("혈")
    expanded = append(spelt, tmp_path / "expanded", [(a, b), (a + b, c)])
    audit = audit_pair(spelt, expanded, ["혈압 혈액"])
    assert {f.name: f.status for f in audit.findings if f.status != "ok"} == {"chat template": "warn"}
    assert audit.figures["new_pieces"] == 2


def test_an_unreachable_byte_level_piece_is_found(spelt, tmp_path):
    a, b, c = letters_of("혈")
    expanded = append(spelt, tmp_path / "expanded", [(a, b), (b, c), (a, b + c)])
    found = finding(audit_pair(spelt, expanded, ["혈압"]), "reachable pieces")
    assert found.status == "fail"


def test_boundaries_of_byte_level_and_byte_fallback_count_bytes(spelt, good):
    text = "a 혈🫀"
    for folder in (spelt, good):
        found = boundaries(load_tokenizer(folder), text)
        assert found[-1] == len(text.encode())
        assert found == sorted(set(found))


# -- what people meet when they serve an expanded model: one row a symptom, wrong and right ----------------------------


class Bench:
    """Folders to damage: `spm` a grafted Gemma style model, `bpe` a byte-level one; fresh for each test."""

    def __init__(self, place, good, grafted, spelt):
        self.place, self.good, self.spelt = place, good, spelt
        self.spm = Path(shutil.copytree(grafted, place / "spm"))

    def bpe(self, text):
        """A byte-level expansion by one piece, made letter by letter."""
        letters = letters_of(text)
        merges = [("".join(letters[:i]), letters[i]) for i in range(1, len(letters))]
        known = load_tokenizer(self.spelt).get_vocab()
        return append(self.spelt, self.place / "bpe", [m for m in merges if "".join(m) not in known])

    def config(self, **settings):
        change_json(self.spm / "config.json", lambda c: c.update(settings))
        return self.spm

    def adapter(self, *, rows=40_960, tensors=None, **settings):
        base, folder = self.place / "base", self.place / "adapter"
        base.mkdir()
        folder.mkdir()
        (base / "config.json").write_text(json.dumps({"vocab_size": rows}), "utf-8")
        named = {"base_model_name_or_path": str(base), "target_modules": ["q_proj", "v_proj"]}
        (folder / "adapter_config.json").write_text(json.dumps(named | settings), "utf-8")
        inside = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": np.ones((2, 4), np.float32)}
        save_file(inside | (tensors or {}), str(folder / "adapter_model.safetensors"))
        return folder

    def file(self, name, text):
        (self.spm / name).write_text(text, "utf-8")
        return self.spm

    def gguf(self, folder, *, kind=None, hole=None):
        """A GGUF file of the folder's tokenizer; `kind` and `hole` write what a wrong converter wrote."""
        from vocabgraft.deployment import gguf_tokenizer
        from vocabgraft.models.gguf_file import gguf_package, open_gguf

        gguf_tokenizer.write_folder_tokenizer(folder, self.place / "right.gguf")
        read = open_gguf(self.place / "right.gguf").fields
        writer = gguf_package().GGUFWriter(str(folder / "model.gguf"), "llama")
        writer.add_tokenizer_model(kind or read["tokenizer.ggml.model"].contents())
        pieces = read["tokenizer.ggml.tokens"].contents()
        writer.add_token_list([f"[PAD{i}]" if i == hole else p for i, p in enumerate(pieces)])
        writer.add_layer_norm_rms_eps(1e-6)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        return folder


def only_in_json(bench):
    def add(raw):
        vocabulary = raw["model"]["vocab"]
        vocabulary["고혈"] = len(vocabulary)
        raw["model"]["merges"].append(["고", "혈"])

    change_json(bench.spm / "tokenizer.json", add)
    return bench.spm


def without_model_file(bench):
    (bench.spm / "tokenizer.model").unlink()
    return bench.spm


def added_words(bench):
    tokenizer = Tokenizer.from_file(str(bench.spm / "tokenizer.json"))
    tokenizer.add_tokens(["고혈압약", "당뇨병약"])
    tokenizer.save(str(bench.spm / "tokenizer.json"))
    return bench.spm


def unnamed_cut(bench):
    folder = bench.bpe("혈")
    cut = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("q", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.pre_tokenizer = cut
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


HEAD = {"base_model.model.lm_head.lora_B.weight": np.ones((40_960, 2), np.float32)}
ROWS = {"base_model.model.model.embed_tokens.weight": np.ones((40_960, 2), np.float32)}
PACKED = {"quant_method": "compressed-tensors", "ignore": ["lm_head", "re:model.vision_tower.*"]}
MEDGEMMA = "---\nbase_model: google/medgemma-1.5-4b-it\n---\n"
STRIPS = "{{ m['content'].split('<unused95>')[-1] }}"

SYMPTOMS = [
    # symptom, finding, what is wrong, what is right, with its base
    ("GGUF of [PAD262145]", "tokenizer.model = tokenizer.json", only_in_json, lambda b: b.spm, False),
    ("GGUF of [PAD262145], the file", "GGUF files", lambda b: b.gguf(b.spm, hole=700), lambda b: b.gguf(b.spm), False),
    ("no tokenizer.model", "tokenizer.model", without_model_file, lambda b: b.spm, False),
    ("pre-tokenizer not recognized", "way to cut words", unnamed_cut, lambda b: b.bpe("혈"), False),
    ("pre-tokenizer not recognized, by its hash", "llama.cpp's converter", lambda b: b.bpe("ещ"),
     lambda b: b.bpe("혈"), True),
    ("vocab size mismatch", "one number of rows",
     lambda b: b.config(vocab_size=9, text_config={"vocab_size": 10}), lambda b: b.spm, False),
    ("tensor has wrong shape", "rows for tokens", lambda b: b.config(vocab_size=9), lambda b: b.spm, False),
    ("LoRA, vocab size must be", "PEFT adapter", lambda b: b.adapter(rows=262_208), lambda b: b.adapter(), False),
    ("modules_to_save", "PEFT adapter", lambda b: b.adapter(modules_to_save=["embed_tokens", "lm_head"]),
     lambda b: b.adapter(modules_to_save=None), False),
    ("trainable_tokens_delta", "PEFT adapter", lambda b: b.adapter(trainable_token_indices=[7]),
     lambda b: b.adapter(trainable_token_indices=None), False),
    ("expected target modules", "PEFT adapter", lambda b: b.adapter(tensors=HEAD), lambda b: b.adapter(), False),
    ("size mismatch on load", "base of the adapter", lambda b: b.adapter(rows=32_000, tensors=ROWS),
     lambda b: b.adapter(rows=40_960, tensors=ROWS), False),
    ("garbage in float16", "precision", lambda b: b.config(torch_dtype="float16"),
     lambda b: b.config(torch_dtype="bfloat16"), False),
    ("garbage from AWQ", "precision", lambda b: b.config(quantization_config={"quant_method": "awq"}),
     lambda b: b.config(quantization_config=PACKED), False),
    ("a quantised vision tower", "precision",
     lambda b: b.config(vision_config={}, quantization_config={"quant_method": "compressed-tensors"}),
     lambda b: b.config(vision_config={}, quantization_config=PACKED), False),
    ("<unused94>thought is shown", "thinking marks", lambda b: b.file("README.md", MEDGEMMA),
     lambda b: (b.file("README.md", MEDGEMMA), b.file("chat_template.jinja", STRIPS))[1], False),
    ("<unused94>thought is shown by Ollama", "thinking marks",
     lambda b: (b.file("chat_template.jinja", f"<unused94>{STRIPS}"), b.file("Modelfile", "TEMPLATE x"))[1],
     lambda b: (b.file("chat_template.jinja", f"<unused94>{STRIPS}"), b.file("Modelfile", STRIPS))[1], False),
    ("layer_norm_rms_epsilon not found", "Modelfile", lambda b: b.file("Modelfile", "FROM ."),
     lambda b: b.gguf(b.file("Modelfile", "FROM ./model.gguf")), False),
    ("Korean cut wrongly in GGUF", "GGUF files", lambda b: b.gguf(b.bpe("혈"), kind="llama"),
     lambda b: b.gguf(b.bpe("혈")), False),
    ("dangling ▁", "words as added tokens", added_words, lambda b: b.spm, False),
]  # fmt: skip


@pytest.fixture
def bench(tmp_path, good, grafted, spelt):
    return Bench(tmp_path, good, grafted, spelt)


def stands(bench, make, name, *, pair):
    folder = make(bench)
    audit = audit_pair(bench.spelt, folder, ["혈압"]) if pair else audit_folder(folder)
    return {f.name: f.status for f in audit.findings}.get(name, "ok")


@pytest.mark.parametrize(("symptom", "name", "wrong", "right", "pair"), SYMPTOMS, ids=[s[0] for s in SYMPTOMS])
def test_what_will_fail_when_it_is_served_is_told_before(bench, symptom, name, wrong, right, pair):
    assert stands(bench, wrong, name, pair=pair) in ("warn", "fail")


@pytest.mark.parametrize(("symptom", "name", "wrong", "right", "pair"), SYMPTOMS, ids=[s[0] for s in SYMPTOMS])
def test_what_is_done_right_is_not_complained_of(bench, symptom, name, wrong, right, pair):
    assert stands(bench, right, name, pair=pair) == "ok"


def test_an_adapter_is_held_against_the_base_it_is_given_with(good, grafted, tmp_path):
    adapter = Path(
        shutil.copytree(grafted, tmp_path / "adapter", ignore=shutil.ignore_patterns("model.safe*", "config*"))
    )
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}', "utf-8")
    assert finding(audit_pair(good, adapter), "base of the adapter").status == "ok"
    only_in_json(type("Bench", (), {"spm": adapter}))
    found = finding(audit_pair(good, adapter), "base of the adapter")
    assert found.status == "fail"
    assert "its tokenizer" in found.found


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"vocab_size": "many"}),
        ("config.json", {"vocab_size": [1]}),
        ("config.json", {"text_config": 3, "quantization_config": 4}),
        ("tokenizer_config.json", {"added_tokens_decoder": ["<pad>"]}),
        ("added_tokens.json", {"<pad>": "first"}),
        ("adapter_config.json", {"target_modules": 3}),
    ],
)
def test_files_of_another_form_are_findings_or_one_sentence(folder, name, content):
    (folder / name).write_text(json.dumps(content), "utf-8")
    try:
        audit_folder(folder)
    except TokenizerError as e:
        assert "another form" in str(e)  # noqa: PT017


def test_a_model_that_only_speaks_of_medgemma_is_not_one(bench):
    bench.file("README.md", "---\nbase_model: google/gemma-3-270m\n---\nThe small sibling of MedGemma.")
    assert "thinking marks" not in {f.name for f in audit_folder(bench.spm).findings}


def test_an_image_token_behind_the_pieces_of_a_gguf_file_is_not_missed(bench):
    folder = bench.gguf(bench.spm)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken("<image_soft_token>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    assert status(folder, "GGUF files") == "ok"
