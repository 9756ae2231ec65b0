"""What cannot be merged: one sentence, exit code 2, and nothing under the name of the result."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vocabgraft import cli
from vocabgraft.deployment.adapter import write_adapter
from vocabgraft.embedding.rows import Rows
from vocabgraft.models.headers import fingerprint
from vocabgraft.models.load import load_model
from vocabgraft.training import lora
from vocabgraft.training.graft import Graft, save_graft


@pytest.fixture(scope="module")
def whole(tied_world, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base` in two shards, `adapter`, and the base's `tokenizer`."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(tied_world.base, root / "base")
    weights = load_file(root / "base" / "model.safetensors")
    (root / "base" / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"model-1.safetensors": names[: len(names) // 2], "model-2.safetensors": names[len(names) // 2 :]}
    for shard, inside in shards.items():
        save_file({n: weights[n] for n in inside}, str(root / "base" / shard), metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {n: shard for shard, inside in shards.items() for n in inside}}
    (root / "base" / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    model = load_model(root / "base")
    graft = Graft(model, Rows(model, tied_world.ids))
    graft.adapters = lora.attach(model, rank=2, alpha=2, modules=["q_proj"], seed=0)
    (root / "state").mkdir()
    save_graft(graft, root / "state", None, ("input.new", "lora"))
    write_adapter(root / "base", tied_world.tokenizer, root / "state", tied_world.ids, root / "adapter")
    return root


@pytest.fixture
def place(whole: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    for name in ("base", "adapter"):
        shutil.copytree(whole / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def merge(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `vocabgraft merge base adapter out` there."""
    monkeypatch.chdir(place)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*more: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vocabgraft", "merge", "base", "adapter", "out", *more])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err[err.find("vocabgraft: ") :] if "vocabgraft: " in err else err

    yield run
    signal.signal(signal.SIGTERM, handler)


def change_json(path: Path, change: Callable[[dict], object]) -> None:
    raw = json.loads(path.read_text("utf-8"))
    change(raw)
    path.write_text(json.dumps(raw, ensure_ascii=False), "utf-8")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, str(path), metadata={"format": "pt"})


def stale_model_file(place: Path) -> None:
    shutil.copyfile(place / "base" / "tokenizer.model", place / "adapter" / "tokenizer.model")


def other_tokenizer(place: Path) -> None:
    def swap(raw: dict) -> None:
        vocabulary = raw["model"]["vocab"]
        a, b = list(vocabulary)[600:602]
        vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]

    change_json(place / "adapter" / "tokenizer.json", swap)


def more_tokens(place: Path) -> None:
    added = {"id": 99_999, "content": "<more>", "single_word": False, "lstrip": False, "rstrip": False}
    added |= {"normalized": False, "special": True}
    change_json(place / "adapter" / "tokenizer.json", lambda raw: raw["added_tokens"].append(added))


def untied(place: Path) -> None:
    """The base gets a head of its own, and the adapter is told that it is the one it was made for."""
    shard = place / "base/model-1.safetensors"
    rewrite(shard, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}))

    def point(index: dict) -> None:
        index["weight_map"]["lm_head.weight"] = shard.name

    change_json(place / "base/model.safetensors.index.json", point)
    change_json(place / "base/config.json", lambda c: c.update(tie_word_embeddings=False))
    change_json(place / "adapter/adapter.json", lambda a: a.update(fingerprint=fingerprint(place / "base")))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing shard": (lambda p: (p / "base/model-2.safetensors").unlink(), "model-2.safetensors: missing"),
    "shard cut short": (lambda p: cut(p / "base/model-1.safetensors"), "model-1.safetensors: cut short"),
    "no index": (lambda p: (p / "base/model.safetensors.index.json").unlink(), "neither model.safetensors nor"),
    "index of nothing": (lambda p: (p / "base/model.safetensors.index.json").write_text("[]"), "not a weight index"),
    "config not JSON": (lambda p: (p / "base/config.json").write_text("{"), "config.json: not JSON"),
    "config of other rows": (
        lambda p: change_json(p / "base/config.json", lambda c: c.update(vocab_size=5)),
        "config.json says 5 rows",
    ),
    "untied without a head": (
        lambda p: change_json(p / "base/config.json", lambda c: c.update(tie_word_embeddings=False)),
        "no lm_head.weight is there",
    ),
    "quantised": (
        lambda p: change_json(p / "base/config.json", lambda c: c.update(quantization_config={})),
        "its weights are quantised",
    ),
    "another base": (
        lambda p: rewrite(p / "base/model-1.safetensors", lambda t: next(iter(t.values())).view(-1)[:1].add_(1)),
        "not the base of this adapter",
    ),
    "no adapter": (lambda p: (p / "adapter/adapter.json").unlink(), "an adapter folder of vocabgraft is needed"),
    "adapter of a later format": (
        lambda p: change_json(p / "adapter/adapter.json", lambda a: a.update(version=2)),
        "this version reads 1",
    ),
    "adapter without ids": (
        lambda p: change_json(p / "adapter/adapter.json", lambda a: a.pop("ids")),
        "not the description of an adapter",
    ),
    "duplicate ids": (
        lambda p: change_json(p / "adapter/adapter.json", lambda a: a["ids"].__setitem__(1, a["ids"][0])),
        "has two new rows",
    ),
    "ids beyond the matrix": (
        lambda p: change_json(p / "adapter/adapter.json", lambda a: a["ids"].__setitem__(0, 99_999)),
        "a new row for id 99999",
    ),
    "rows cut short": (lambda p: cut(p / "adapter/new_rows.safetensors"), "new_rows.safetensors: cut short"),
    "rows of a tied base for an untied one": (untied, "no output.new, but base has a head of its own"),
    "fewer rows than ids": (
        lambda p: rewrite(p / "adapter/new_rows.safetensors", lambda t: t.update({"input.new": t["input.new"][1:]})),
        "this is another base",
    ),
    "wrong keys": (
        lambda p: rewrite(p / "adapter/new_rows.safetensors", lambda t: t.update({"rows": t.pop("input.new")})),
        "no input.new",
    ),
    "a key too much": (
        lambda p: rewrite(p / "adapter/new_rows.safetensors", lambda t: t.update({"rows": t["input.new"].clone()})),
        "'rows' is nothing that a stage learns",
    ),
    "an adapter's half": (
        lambda p: rewrite(p / "adapter/adapters.safetensors", lambda t: t.pop(next(iter(t)))),
        "without both halves",
    ),
    "an adapter of no layer": (
        lambda p: rewrite(
            p / "adapter/adapters.safetensors",
            lambda t: t.update({f"x.lora_{h}": torch.ones(1, 1) for h in "AB"}),
        ),
        "x.weight: 0 weights of this name",
    ),
    "an adapter of another width": (
        lambda p: rewrite(
            p / "adapter/adapters.safetensors", lambda t: t.update({k: v[:, 1:].contiguous() for k, v in t.items()})
        ),
        "not of this base's shape",
    ),
    "a stale tokenizer.model": (stale_model_file, "one file is stale"),
    "a tokenizer of another base": (other_tokenizer, "not the tokenizer of base: 2 of the base's tokens"),
    "a new piece that ends answers": (
        lambda p: (p / "base/generation_config.json").write_text(
            json.dumps({"eos_token_id": [1, json.loads((p / "adapter/adapter.json").read_text())["ids"][3]]})
        ),
        "which is a new piece",
    ),
    "more tokens than rows": (more_tokens, "tokens for matrices of"),
    "no tokenizer": (lambda p: (p / "adapter/tokenizer.json").unlink(), "tokenizer.json: missing"),
    "a result that exists": (lambda p: (p / "out").write_text("precious"), "out exists already"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_broken_is_one_sentence_and_leaves_nothing(
    place: Path, merge: Callable[..., tuple[int, str, str]], damage: str
) -> None:
    break_, told = DAMAGE[damage]
    break_(place)
    before = sorted(p.name for p in place.iterdir())
    code, out, err = merge()
    assert told in err
    assert (code, out) == (2, "")
    assert err.startswith("vocabgraft: ")
    assert err.count("\n") == 1
    assert sorted(p.name for p in place.iterdir()) == before


def test_a_good_merge_says_what_it_did(place: Path, merge: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = merge("--json")
    assert code == 0
    said = json.loads(out)
    assert said["model"] == "out"
    assert said["changed"] == 1 + 2
    assert sorted(p.name for p in (place / "out").glob("*.safetensors")) == [
        "model-1.safetensors",
        "model-2.safetensors",
    ]


def test_a_full_disk_leaves_nothing_under_the_name(place: Path) -> None:
    def stop_growing() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, resource.RLIM_INFINITY))

    found = subprocess.run(
        [sys.executable, "-m", "vocabgraft", "merge", "base", "adapter", "out"],
        cwd=place,
        capture_output=True,
        text=True,
        preexec_fn=stop_growing,
    )
    assert found.returncode == 2
    assert found.stderr.startswith("vocabgraft: out: cannot be written (")
    assert "check the path and the free disk space" in found.stderr
    assert sorted(p.name for p in place.iterdir()) == ["adapter", "base"]


def test_what_a_killed_merge_left_is_cleared_by_the_next(
    place: Path, merge: Callable[..., tuple[int, str, str]]
) -> None:
    (place / "out.partial").mkdir()
    (place / "out.partial" / "model-1.safetensors").write_bytes(b"half")
    assert merge()[0] == 0
    assert sorted(p.name for p in place.iterdir()) == ["adapter", "base", "out"]
