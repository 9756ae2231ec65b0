"""Step 61 compresses for vLLM: the first method that loses little enough ships, or nothing does and it is said why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vocabgraft.corpus.document import read_documents
from vocabgraft.deployment import compress, compressor_environment
from vocabgraft.errors import ModelError, ProofError, RecipeError
from vocabgraft.run import Run
from vocabgraft.steps.compression import calibration, compressed_model
from vocabgraft.steps.instruct import tuning_pairs
from vocabgraft.steps.shipping import write_papers
from vocabgraft.tokenizer.measure import load_tokenizer

Wide = Callable[[bool], Path]
METHODS = 'deploy.compress.methods=["awq", "gptq", "w8a16"]'
SMALL = ("evaluate.final_bytes=6000", "evaluate.max_questions=4", "deploy.compress.samples=12")
SHAPE = ("base.shape.hidden=128", "base.shape.heads=4", "base.shape.intermediate=256")


@pytest.fixture
def prepared(done: Callable[..., Run], wide: Wide) -> Callable[..., Run]:
    """A run whose text is prepared, over a base that divides into groups."""

    def make(*settings: str) -> Run:
        return done(f"base.source={wide(True)}", *SHAPE, *SMALL, *settings)

    return make


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch, rounded: Callable[..., None]) -> list[str]:
    """Instead of llm-compressor's methods, rounding of our own: awq fails, gptq spoils the model, 8 bits are good."""
    tried: list[str] = []

    def method(model: Path, out: Path, name: str, **_: object) -> dict[str, object]:
        tried.append(name)
        if name == "awq":
            raise ModelError("awq of model: the compressor failed (no such layer)")
        rounded(model, out, 8 if name == "w8a16" else 4, spoil=name == "gptq")
        return {"bytes": (out / "model.safetensors").stat().st_size, "seconds": 0.1}

    monkeypatch.setattr(compress, "compress", method)
    monkeypatch.setattr(compressor_environment, "compressor_python", lambda *_: Path("/nowhere"))
    return tried


def events(run: Run) -> list[dict[str, object]]:
    lines = (run.folder / "events.jsonl").read_text("utf-8").splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == "compression"]


@pytest.mark.slow
def test_the_first_method_that_loses_little_enough_ships(prepared, context, wide: Wide, by_hand: list[str]) -> None:
    run = prepared(METHODS, "deploy.compress.max_accuracy_loss=100")
    step = context(run, "61-quantize")
    found = compressed_model(step, wide(True))
    assert by_hand == ["rtn", "awq", "gptq", "w8a16"]
    assert found["method"] == "w8a16"
    assert [(a["method"], a["passed"]) for a in found["attempts"]] == [("awq", False), ("gptq", False), ("w8a16", True)]
    assert found["attempts"][0]["error"] == "awq of model: the compressor failed (no such layer)"
    assert found["attempts"][1]["worse_than_rounding"] == ["target", "replay"]
    assert {(x["measure"], x["side"]) for x in found["attempts"][2]["losses"]} == {
        (measure, side) for measure in ("bits per byte", "accuracy") for side in ("target", "replay")
    }
    shipped = step.out / "compressed"
    assert [p.name for p in step.out.iterdir()] == ["compressed"], "what may not ship is gone"
    assert found["bytes"] == (shipped / "model.safetensors").stat().st_size
    write_papers(step, {"compressed": found})
    card = (shipped / "README.md").read_text("utf-8")
    assert "Compressed for vLLM: Shipped: w8a16: target bits per byte" in card
    assert (shipped / "NOTICE").is_file()
    told = {str(e["method"]): e["passed"] for e in events(run)}
    assert told == {"rtn": True, "awq": False, "gptq": False, "w8a16": True}


@pytest.mark.slow
def test_where_all_lose_too_much_nothing_is_left_and_every_figure_is_told(
    prepared, context, wide: Wide, by_hand: list[str]
) -> None:
    step = context(prepared('deploy.compress.methods=["awq", "gptq"]', "deploy.compress.max_accuracy_loss=100"))
    with pytest.raises(ProofError) as e:
        compressed_model(step, wide(True))
    said = str(e.value)
    assert said.startswith(
        "61-quantize: no method of deploy.compress.methods loses little enough; nothing was published"
    )
    for part in (
        "\n  awq: awq of model: the compressor failed (no such layer)\n",
        "\n  gptq: target bits per byte +",
        "1.5 allowed): too much",
        "loses more bits than plain rounding to 4 bits (rtn) on target and replay text",
        "\n  beside, rtn: target bits per byte",
        "ship GGUF alone (methods = [])",
    ):
        assert part in said
    assert list(step.out.iterdir()) == []


def test_no_method_means_no_work(prepared, context, by_hand: list[str]) -> None:
    step = context(prepared())
    assert compressed_model(step, Path("/nowhere")) == {}
    assert by_hand == []


def test_calibration_reads_what_was_trained_on_in_the_chat_format(prepared, context, wide: Wide) -> None:
    run = prepared(METHODS, "deploy.compress.window=64")
    step, tokenizer = context(run), load_tokenizer(wide(True))
    rows = calibration(step, wide(True))
    assert len(rows) == 12
    assert all(0 < len(ids) <= 64 and ids[0] == tokenizer.token_to_id("<bos>") for ids in rows)
    texts = [tokenizer.decode(ids, skip_special_tokens=False) for ids in rows]
    assert sum("<start_of_turn>user" in t for t in texts) == 6
    pairs, _ = tuning_pairs(run.recipe)
    for text in texts[:6]:
        assert any(text.removeprefix("<bos><start_of_turn>user\n")[:20] in question for question, _ in pairs)
    for side, chosen in (("target", texts[6:9]), ("replay", texts[9:])):
        split = {
            name: [d.text for d in read_documents(run.path("04-preprocess", f"{side}.{name}.jsonl"))]
            for name in ("train", "held")
        }
        for text in (t.removeprefix("<bos>")[:30] for t in chosen):
            assert any(text in t for t in split["train"])
            assert not any(text in t for t in split["held"])


def test_calibration_takes_what_there_is(prepared, context, wide: Wide) -> None:
    step = context(prepared("deploy.compress.samples=100000", "deploy.compress.window=64"))
    assert 100 < len(calibration(step, wide(True))) < 100_000


def test_a_base_whose_layers_do_not_divide_is_refused_with_the_recipe(recipe) -> None:
    with pytest.raises(RecipeError, match=r"hidden = 64 of base\.shape is no multiple of 128"):
        recipe(METHODS)
