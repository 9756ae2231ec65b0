"""An expanded tokenizer survives load, save, load, save, load in transformers 5, and in transformers 4."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vocabgraft.tokenizer.expand import Expansion, expand_tokenizer
from vocabgraft.tokenizer.measure import encode, load_tokenizer

PROGRAM = Path(__file__).with_name("round_trip.py")
TEXTS = [
    "고혈압 환자는 혈압이 높습니다.\n\n혈압  15mg",
    "The patient's 123 tablets  \t x",
    "def f(x):\n        return x",
    "take   3 tablets,   12 of them and   7",  # digits are cut off before spaces are, where the tokenizer says so
]
CHAT = [
    "<start_of_turn>user\nhi<end_of_turn>\n",
    "<|im_start|>user\nhi<|im_end|>",
    "a<|eot_id|>b",
    "x<image_soft_token>y",
]
CHAT += ["x<|image_pad|>y<tool_call>z"]
PLACES = {
    "gemma": "slots",
    "gemma-images": "append",
    "llama2": "append",
    "llama3": "slots",
    "qwen": "slots",
    "smollm2": "append",
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


def check(found: dict, folder: Path, expansion: Expansion, texts: list[str]) -> None:
    tokenizer = load_tokenizer(folder)
    expected = encode(tokenizer, texts)
    assert len({i for ids in expected for i in ids} & set(expansion.ids)) > 20  # some only occur within longer ones
    assert found["ids"] == [expected] * 3
    assert found["vocab"] == tokenizer.get_vocab(with_added_tokens=True)
    assert found["framed"] == [tokenizer.encode("a").ids] * 3
    assert set(found["length"]) == {tokenizer.get_vocab_size()}
    assert [found["vocab"][p] for p in expansion.pieces] == list(expansion.ids)
    assert not found["tokenizer_json_changed"]


def test_transformers_5_gives_the_same_ids_after_every_save(expanded, korean) -> None:
    spec = importlib.util.spec_from_file_location("round_trip", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    texts = [*TEXTS, *CHAT, *korean[:60]]
    found = module.round_trip(str(expanded.out), texts)
    check(found, expanded.out, expanded.expansion, texts)
    # transformers 5 writes no tokenizer.model: after a save, sentencepiece and llama.cpp have nothing to read.
    assert "tokenizer.model" not in found["names"]


@pytest.fixture(scope="session")
def transformers_4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with transformers 4.57; tokenizers need no torch."""
    folder = tmp_path_factory.mktemp("transformers4")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    wanted = ["transformers==4.57.*", "sentencepiece", "protobuf", "jinja2"]
    done = subprocess.run([python, "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True, check=False)
    if done.returncode and "Retrying (" in done.stderr:
        pytest.skip(f"pip cannot reach the registry: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.slow
def test_transformers_4_gives_the_same_ids_after_every_save(
    transformers_4: Path, make_expanded, korean, tmp_path
) -> None:
    made = [make_expanded(name, place) for name, place in PLACES.items()]
    texts = [*TEXTS, *CHAT, *korean[:60]]
    fast = {str(m.out): texts for m in made}
    slow = {str(m.out): [*TEXTS, *korean[:10]] for m in made if m.family.sentencepiece or m.name == "qwen"}
    (tmp_path / "asked.json").write_text(json.dumps({"fast": fast, "slow": slow}), "utf-8")
    command = [transformers_4, PROGRAM, tmp_path / "asked.json", tmp_path / "found.json"]
    subprocess.run(command, check=True, env=os.environ | OFFLINE)
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    for m in made:
        check(found["fast"][str(m.out)], m.out, m.expansion, texts)
    for folder, ids in found["slow"].items():
        assert ids == encode(load_tokenizer(Path(folder)), slow[folder]), folder


def test_a_class_that_cuts_words_its_own_way_gives_way(make_expanded, make_base, tmp_path: Path) -> None:
    def class_of(folder: Path) -> str:
        return json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["tokenizer_class"]

    assert class_of(make_expanded("smollm2", "append").out) == "PreTrainedTokenizerFast"
    assert class_of(make_expanded("qwen", "append").out) == "Qwen2Tokenizer"
    base, pieces = make_base("smollm2")
    plain = shutil.copytree(base, tmp_path / "plain")  # GPT-2 itself
    raw = json.loads((plain / "tokenizer.json").read_text("utf-8"))
    raw["pre_tokenizer"] = raw["pre_tokenizer"]["pretokenizers"][1]
    (plain / "tokenizer.json").write_text(json.dumps(raw), "utf-8")
    expand_tokenizer(plain, pieces, range(1, len(pieces) + 1), tmp_path / "out", place="append")
    assert class_of(tmp_path / "out") == "GPT2Tokenizer"
