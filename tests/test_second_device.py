"""What trains and measures on the host does so on a device that it must not be mixed with (`second_device.py`)."""

from __future__ import annotations

import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vocabgraft.machine import detect
from vocabgraft.pipeline import execute
from vocabgraft.recipe import load_recipe
from vocabgraft.run import Run
from vocabgraft.training.loop import Schedule, train

STAGES = (
    ("input.new",),
    ("output.new",),
    ("input.new", "output.new", "input.old", "output.old"),
    ("input.low", "output.low", "input.new", "output.new", "lora"),
)


def schedule(groups: tuple[str, ...], **changed: Any) -> Schedule:
    return Schedule(groups, 2, lr_new=1e-2, lr_old=1e-2, lr_lora=1e-2, **changed)


def test_the_device_refuses_what_a_gpu_refuses(second_device: None) -> None:
    there, here = torch.ones(2, 2, device="cuda"), torch.ones(2, 2)
    assert there.device.type == (there + there).device.type == torch.zeros_like(there).device.type == "cuda"
    with pytest.raises(RuntimeError, match="on cuda:0 and on cpu"):
        there + here
    with pytest.raises(RuntimeError, match="on cuda:0 and on cpu"):
        here @ there
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    assert (there + here.to(there)).cpu().numpy().sum() == 8


@pytest.mark.parametrize("untie", [False, True], ids=["shared", "row-untied"])
@pytest.mark.parametrize("groups", STAGES, ids="+".join)
def test_stages_train_there_as_here(
    tied_world: Any, groups: tuple[str, ...], untie: bool, request: pytest.FixtureRequest
) -> None:
    def losses(device: str) -> list[float]:
        graft = tied_world.graft(rank=4, untie=untie, device=device)
        wish = schedule(groups, retain=0.1 if "lora" in groups else 0.0)
        return train(graft, tied_world.mixture().batch, wish, micro_batch=2).losses

    here = losses("cpu")
    request.getfixturevalue("second_device")
    assert losses("cuda") == pytest.approx(here, abs=1e-4)


def test_a_stopped_training_goes_on_there(tied_world: Any, second_device: None, tmp_path: Path) -> None:
    from vocabgraft.training.checkpoint import Checkpoints

    def run(folder: str, *, stop: bool) -> str:
        def at(step: int) -> Any:
            if stop and step == 1:
                raise KeyboardInterrupt
            return tied_world.mixture().batch(step)

        graft = tied_world.graft(rank=4, device="cuda")
        kept = Checkpoints(tmp_path / folder, seconds=0.0)
        return train(graft, at, schedule(("input.new", "lora")), micro_batch=4, checkpoints=kept).optimizer

    with pytest.raises(KeyboardInterrupt):
        run("stopped", stop=True)
    assert run("stopped", stop=False) == run("whole", stop=False)


def test_output_rows_train_there_over_kept_states(tied_world: Any, second_device: None, tmp_path: Path) -> None:
    from vocabgraft.training.cached import build_cache
    from vocabgraft.training.cached_passes import Setting, train_cached

    graft = tied_world.graft(untie=True, device="cuda")
    batch_at = tied_world.mixture().batch
    cache = build_cache(graft, batch_at, 4, tmp_path, key="k", micro_batch=2, kept="fp8")
    settings = [Setting(1e-2), Setting(1e-3, pull=0.1)]
    outcome, _ = train_cached(
        cache, graft.rows.new["output"], settings, held_out=1, epochs=2, seed=0, dtype=torch.float32
    )
    assert outcome.trained[-1] < outcome.trained[0]
    graft.rows.load({"output.new": outcome.rows})
    train(graft, batch_at, schedule(("output.new", "output.old")), micro_batch=2, cache=cache)


def test_the_base_teaches_there(tied_world: Any, second_device: None) -> None:
    from vocabgraft.training.distill import Teacher

    graft = tied_world.graft(device="cuda")
    parts = dict(zip(tied_world.expansion.ids, tied_world.expansion.parts, strict=True))
    teacher = Teacher(graft.model, graft.rows, parts)
    wish = schedule(("input.new", "output.new"))
    train(graft, tied_world.mixture().batch, wish, micro_batch=2, teacher=teacher)


def test_a_model_there_is_measured_and_answers(
    tied_world: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from vocabgraft.deployment.door import COMPLETE
    from vocabgraft.deployment.transformers_server import TransformersBack
    from vocabgraft.evaluation.bits import bits_per_byte
    from vocabgraft.evaluation.likelihood import Endings, log_likelihoods
    from vocabgraft.models.load import load_model
    from vocabgraft.tokenizer.measure import load_tokenizer

    def measured(device: str) -> tuple[Any, ...]:
        model, tokenizer = load_model(tied_world.base, dtype="float32", device=device), load_tokenizer(tied_world.base)
        bits = bits_per_byte(model, tokenizer, [t[:200] for t in tied_world.korean[:3]], bos=2)
        scores = log_likelihoods(model, [Endings((2, 9, 40), ((7,), (8,))), Endings((2, 50), ((7, 9), (8, 9, 30)))])
        back = TransformersBack(tied_world.base, name="tiny", context=256, dtype="float32", device=device)
        _, reply = back.answer(COMPLETE, {"prompt": "고혈압", "max_tokens": 8, "temperature": 0, "logprobs": 2})
        return [*bits.bits], [x for text in scores for x in text], reply["choices"][0]["text"]

    bits, scores, text = measured("cpu")
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # such a wrapper has no version to give up
    request.getfixturevalue("second_device")
    found = measured("cuda")
    assert found[0] == pytest.approx(bits, rel=1e-5)
    assert found[1] == pytest.approx(scores, abs=1e-4)
    assert found[2] == text


@pytest.mark.slow
def test_a_run_goes_there_from_its_start_to_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The lean path, row-untied: teaching, kept states, adapters with self-distillation, tuning, both evaluations."""
    import peft  # noqa: F401 (looks for a GPU when imported, and then for its kernels)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = load_recipe("tiny-cpu", ["preset=lean", "init.row_untied=true", 'lora.body="bf16"'])
    machine = replace(detect(tmp_path), device="cuda")
    run = Run.create(tmp_path / "run", recipe, "")
    card = types.SimpleNamespace(total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    request.getfixturevalue("second_device")
    execute(run, machine, until="52-english")
    assert run.manifest("52-english") is not None
