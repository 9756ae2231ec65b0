"""A whole run, written by hand: every number in it is found again in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vocabgraft.report.ledger import Ledger, read_ledger

BEFORE = ["▁", "당", "뇨", "병", "▁환", "자는", "▁혈", "당을", "▁재", "<0xEB>", "<0x9D>", "<0xBC>"]
AFTER = ["▁당뇨병", "▁환자는", "▁혈당을", "▁재라"]
LAW = {"name": "korean-law", "license": "public domain", "url": "https://law.go.kr", "note": "art. 7"}
EXAM = {"name": "KorMedMCQA", "license": "CC-BY-NC-2.0", "url": "", "note": ""}


GPTQ_LOST = "target bits per byte +1.2 % lost (+0.9 to +1.5; 1.5 allowed): within"


def step_metrics() -> dict[str, dict[str, Any]]:
    """Metrics of a run that went through all measured steps."""
    trained = {
        "train": ["input.new"],
        "tokens": 4096,
        "steps": 4,
        "loss_first": 5.5,
        "loss_last": 4.25,
        "frozen": {"checked": 236, "identical": 236},
        "tokens_per_second": 512.0,
    }
    choices = {
        "base": {"accuracy": 0.2125, "n": 80, "low": 0.137, "high": 0.315},
        "final": {"accuracy": 0.2375, "n": 80, "low": 0.158, "high": 0.342},
        "chance": 0.2,
        "rotations": {
            "base": {"orders": 5, "mean": 0.2, "worst": 0.1, "always_right": 0.0, "consistent": 0.025},
            "final": {"orders": 5, "mean": 0.23, "worst": 0.15, "always_right": 0.05, "consistent": 0.1},
        },
        "verdict": "Not distinguishable from chance (p = 0.4, n = 80).",
    }
    return {
        "00-environment": {},
        "02-collect": {"target": {"read": 1234, "kept": 1100, "dropped": {"too short": 100, "wrong script": 34}}},
        "04-preprocess": {
            "target": {"documents": 1000, "bytes": 5_600_000, "held_out_documents": 150, "dropped": {"duplicate": 99}}
        },
        "13-expand-tokenizer": {
            "new_pieces": 1024,
            "first_new_id": 256001,
            "tokens_per_word": {"before": 3.21, "after": 1.98},
            "tokens": {"before": 32100, "after": 19800},
            "english_ids_changed": 0,
            "sample": [{"text": "당뇨병 환자는 혈당을 재라", "before": BEFORE, "after": AFTER}],
        },
        "21-resize": {"rows": 262144, "tied": True, "shape_changed": False},
        "22-initialise": {
            "methods": {"subword-mean": 1000, "wechsel": 24},
            "bits_per_byte": {
                "target": {"base": 1.511, "initialised": 1.877},
                "replay": {"base": 0.911, "initialised": 0.912},
            },
            "train": ["input.new", "output.new"],
            "frozen": {"checked": 2, "identical": True},
            "english_kl": 0.00021,
            "norm_histogram": {"width": 0.05, "counts": {"input": [0] * 14 + [3, 900, 121] + [0] * 23}},
            "examples": [
                {"piece": "▁혈압", "method": "subword-mean", "parts": ["▁혈", "압"], "nearest": ["▁혈", "血"]}
            ],
        },
        "31-stage1": {**trained, "bits_per_byte": {"target": 1.699, "replay": 0.913}},
        "32-stage2": {**trained, "train": ["output.new"], "bits_per_byte": {"target": 1.622, "replay": 0.914}},
        "41-instruct": {**trained, "train": ["lora"], "bits_per_byte": {"target": 1.401, "replay": 0.915}},
        "51-korean": {
            "bits_per_byte": {"base": 1.533, "final": 1.444},
            "choices": choices,
            "written": {
                "base": {"n": 20, "right": 4, "extracted": 0.5, "stopped": 0.25, "in_language": None},
                "final": {"n": 20, "right": 5, "extracted": 0.8, "stopped": 0.95, "in_language": 1.0},
            },
            "leak_gate": {
                "items": 1280,
                "too_short": 1,
                "documents_dropped": {"target": 3, "replay": 0},
                "examples_dropped": 2,
            },
        },
        "52-english": {"bits_per_byte": {"base": 0.922, "final": 0.933}, "choices": {"chance": 0.2}},
        "61-quantize": {
            "files": {"model-q4_1.gguf": {"bytes": 241_000_000}},
            "bits_per_byte": {
                "full": {"target": 1.401, "replay": 0.915},
                "quantised": {"target": 1.466, "replay": 0.955},
            },
            "next_token": {"prompts": 50, "top": 5, "largest": 0.0214, "mean": 0.003, "worst": "혈압이"},
            "greedy": {"prompts": 20, "equal": 17},
            "compressed": {
                "method": "gptq",
                "attempts": [
                    {"method": "awq", "error": "the compressor failed"},
                    {"method": "gptq", "bytes": 388_000_000, "seconds": 64.0, "losses": [{"sentence": GPTQ_LOST}]},
                ],
                "rounding": {"method": "rtn", "bytes": 388_000_000, "seconds": 8.5, "losses": []},
                "verdict": f"Shipped: gptq: {GPTQ_LOST}.",
            },
        },
        "62-serve": {
            "engine": "llama.cpp",
            "question": "고혈압 환자에게 권장되는 생활 습관은?",
            "answer": "싱겁게 먹고 걷습니다.",
            "routes": {"/health": 200, "/v1/models": 401},
            "tokens_per_second": 31.4,
        },
    }


def make_ledger(metrics: dict[str, dict[str, Any]], base: dict[str, str] | None = None) -> Ledger:
    """A ledger around given metrics; the base is Gemma 3 270M unless told otherwise."""
    manifests = {
        key: {
            "step": key,
            "title": f"title of {key}",
            "seconds": 12.3,
            "peak_memory_gb": 1.875,
            "versions": {"torch": "2.13.0"},
            "machine": {"device": "cpu"},
            "licences": [LAW, EXAM] if key == "02-collect" else [],
            "outputs": [{"path": "model/model.safetensors", "bytes": 77, "sha256": "ab" * 32}],
            "metrics": values,
        }
        for key, values in metrics.items()
    }
    gemma = {"name": "gemma-3-270m", "kind": "pypi-gguf", "source": "gemma3_270m", "license": "Gemma Terms of Use"}
    recipe = {
        "name": "korean-gemma-270m",
        "title": "Korean for Gemma 3 270M",
        "base": gemma if base is None else base,
        "data": {"language": "ko"},
        "stage": [{"name": "new input rows"}, {"name": "new output rows"}],
    }
    events = [{"time": 1795302481.0, "event": "start", "step": "00-environment"}]
    return Ledger("my-run", recipe, manifests, events, BAKEOFF)


BAKEOFF = {
    "rows": [
        {
            "name": "subword-mean@0",
            "bpb_step0": {"mean": 1.32, "low": 1.32, "high": 1.32},
            "bpb_probe": {"mean": 1.216, "low": 1.21, "high": 1.222},
            "english_kl": {"mean": 3e-5, "low": None, "high": None},
        },
        {"name": "mean@0.75", "bpb_step0": {"mean": 2.48}, "bpb_probe": {"mean": 2.35}},
        {"name": "not measured"},
    ],
    "base_bpb": 0.83,
    "best": "subword-mean@0",
    "default": "hybrid@0.75",
}


@pytest.fixture
def metrics() -> dict[str, dict[str, Any]]:
    return step_metrics()


@pytest.fixture
def make() -> Callable[..., Ledger]:
    return make_ledger


@pytest.fixture
def ledger() -> Ledger:
    return make_ledger(step_metrics())


@pytest.fixture
def run_folder(tmp_path: Path, ledger: Ledger) -> Path:
    """The same run as a folder on disk."""
    folder = tmp_path / "my-run"
    for key, manifest in ledger.manifests.items():
        (folder / key).mkdir(parents=True)
        (folder / key / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    (folder / "recipe.resolved.json").write_text(json.dumps(ledger.recipe), "utf-8")
    (folder / "bakeoff.json").write_text(json.dumps(ledger.bakeoff), "utf-8")
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in ledger.events), "utf-8")
    assert read_ledger(folder) == ledger
    return folder


@pytest.fixture
def hostile() -> Ledger:
    """A run whose every text tries to leave its place."""
    return make_ledger(_poison(step_metrics()), {"name": EVIL, "license": EVIL, "source": EVIL})


EVIL = "</text></svg><script src='http://evil.example/x.js'>\"'&|`]( \x00\x1b[2J\ud800"


def _poison(value: Any) -> Any:
    if isinstance(value, dict):
        return {(k if k.isidentifier() or "-" in k else EVIL): _poison(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_poison(v) for v in value]
    return EVIL + value if isinstance(value, str) else value
