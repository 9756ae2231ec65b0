"""Memory and hours from a shape alone."""

import json

import pytest

from vocabgraft.cost import activation_bytes, adapter_numbers, body_numbers, flops_per_token
from vocabgraft.errors import MachineError
from vocabgraft.forecast import DEVICES, forecast, needs_recompute, verdict
from vocabgraft.recipe import Recipe, load_recipe, shipped_recipes


@pytest.fixture(scope="module")
def medgemma() -> Recipe:
    return load_recipe("korean-medgemma-4b")


def by_step(forecasts):
    return {f.step: f for f in forecasts}


def test_parameters_of_known_models_are_counted_right(medgemma):
    assert body_numbers(medgemma.base.shape) == pytest.approx(3.209e9, rel=1e-3)
    assert body_numbers(load_recipe("korean-medgemma-27b").base.shape) == pytest.approx(25.6e9, rel=1e-2)
    assert body_numbers(load_recipe("korean-gemma-270m").base.shape) == pytest.approx(100.3e6, rel=1e-3)
    assert adapter_numbers(medgemma.base.shape, 64, medgemma.lora.modules) == pytest.approx(119.2e6, rel=1e-3)


def test_activations_are_near_what_saved_tensors_were_counted_to_be():
    shape = load_recipe("korean-gemma-270m").base.shape
    modules = load_recipe("korean-gemma-270m").lora.modules
    unit = shape.layers * shape.hidden
    assert activation_bytes(shape, ["input.new"], ()) / unit == pytest.approx(51.8, rel=0.05)
    assert activation_bytes(shape, ["lora"], modules) / unit == pytest.approx(91.6, rel=0.05)


def test_flops_of_a_token_are_near_the_reference_table(medgemma):
    table = {("input.new",): 16.41e9, ("output.new",): 8.11e9, ("output.old", "output.new"): 9.40e9, ("lora",): 17.13e9}
    for train, wanted in table.items():
        found = flops_per_token(medgemma, train, adapted="lora" in train)
        assert found == pytest.approx(wanted, rel=0.07)  # attention scores are left out


def test_every_step_that_trains_is_forecast_in_order(medgemma):
    found = forecast(medgemma, "a6000")
    assert [f.step for f in found] == [*(f"3{n}-stage{n}" for n in range(1, 8)), "41-instruct"]
    assert [f.train for f in found[:7]] == [s.train for s in medgemma.stage]
    assert all(f.tokens > 0 and f.hours > 0 and f.memory_gb > 0 for f in found)


def test_tokens_are_whole_steps():
    recipe = load_recipe("tiny-cpu", ["stage.0.tokens=1300"])
    assert forecast(recipe, "cpu")[0].tokens == 1536


def test_an_output_stage_needs_less_memory_and_time_than_an_input_stage(medgemma):
    found = by_step(forecast(medgemma, "a6000"))
    assert found["32-stage2"].memory_gb < found["31-stage1"].memory_gb
    assert found["32-stage2"].hours < found["31-stage1"].hours


def test_4b_output_rows_cost_what_float32_adam_costs(medgemma):
    found = by_step(forecast(medgemma, "a6000", micro_batch=1))
    assert 16 < found["34-stage4"].memory_gb < 20
    assert 8 < found["32-stage2"].memory_gb < 10


def test_a_smaller_micro_batch_takes_less_memory_and_the_same_time(medgemma):
    one, four = forecast(medgemma, "h100", micro_batch=1), forecast(medgemma, "h100", micro_batch=4)
    assert all(a.memory_gb < b.memory_gb and a.hours == b.hours for a, b in zip(one, four, strict=True))


def test_an_untied_model_needs_more_memory(medgemma):
    untied = load_recipe("korean-medgemma-4b", ["base.tied=false"])
    pairs = zip(forecast(medgemma, "h100"), forecast(untied, "h100"), strict=True)
    assert all(a.memory_gb < b.memory_gb for a, b in pairs)


def test_old_rows_once_trained_are_held_by_later_stages(medgemma):
    settings = [f'stage.{n}.train=["{kind}.new"]' for n, kind in ((3, "output"), (4, "input"), (5, "input"))]
    never = by_step(forecast(load_recipe("korean-medgemma-4b", settings), "h100"))
    rows = medgemma.base.shape.vocabulary * medgemma.base.shape.hidden * 4 / 2**30
    now = by_step(forecast(medgemma, "h100"))
    assert now["37-stage7"].memory_gb - never["37-stage7"].memory_gb == pytest.approx(rows, abs=0.02)


def test_the_270m_demo_fits_where_the_doctor_says_it_does():
    found = forecast(load_recipe("korean-gemma-270m"), "cpu", memory_gb=8.0)
    assert all(f.fits for f in found)
    assert "fits in 8 GB (cpu)" in verdict(found)
    assert sum(f.hours for f in found) < 0.5


def test_a_device_that_is_too_small_gets_advice(medgemma):
    said = verdict(forecast(medgemma, "a5000", memory_gb=16))
    assert "does not fit in 16 GB" in said
    assert "35-stage5 (new input and all output rows) needs" in said
    assert "leave input.old and output.old out of 34-stage4, 35-stage5, 36-stage6 (" in said
    assert said.endswith("or use a5000")
    assert "use --micro-batch 1 (" in verdict(forecast(medgemma, "a5000", micro_batch=32))


def test_activations_that_do_not_fit_are_recomputed_and_only_they(medgemma):
    small, large = by_step(forecast(medgemma, "a5000")), by_step(forecast(medgemma, "a6000"))
    assert all(f.fits for f in small.values()), "all seven stages on 24 GB"
    assert not any(f.recomputed for f in large.values())
    again = {step for step, f in small.items() if f.recomputed}
    assert again == {step for step, f in large.items() if f.memory_gb > 24 * 0.95}
    for step in again:
        assert small[step].gflops_per_token > large[step].gflops_per_token
        assert "formed again" in small[step].note
    for step, f in small.items():
        needed = needs_recompute(medgemma, step, cpu=False, memory_gb=24, micro_batch=2)
        assert needed == f.recomputed


def test_a_tied_base_says_which_stages_move_the_same_values(medgemma):
    notes = [f.note for f in forecast(medgemma, "a6000")]
    assert ["stage 1 moved, by another route" in n for n in notes] == [False, True, True, *[False] * 5]
    apart = load_recipe("korean-medgemma-4b", ["init.row_untied=true"])
    assert not any(f.note for f in forecast(apart, "a6000"))
    moved = [f.trained for f in forecast(apart, "a6000")]
    assert moved[2] == moved[0] + moved[1]


def test_advice_is_given_where_no_device_is_large_enough():
    said = verdict(forecast(load_recipe("korean-medgemma-27b", ["training.window=262144"]), "h200", micro_batch=1))
    assert said.endswith("choose a smaller base, training.window or lora.rank")


def test_27b_names_the_device_that_holds_it():
    recipe = load_recipe("korean-medgemma-27b")
    assert "use h100" in verdict(forecast(recipe, "a6000", micro_batch=1))
    assert "fits in 80 GB (h100)" in verdict(forecast(recipe, "h100", micro_batch=1))


def test_an_unknown_device_is_named_with_the_nearest():
    recipe = load_recipe("tiny-cpu")
    with pytest.raises(MachineError, match="did you mean 'a6000'"):
        forecast(recipe, "a600")
    with pytest.raises(MachineError, match="known are cpu"):
        forecast(recipe, "zzz")


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
@pytest.mark.parametrize("gpu", sorted(DEVICES))
def test_every_shipped_recipe_has_a_verdict_on_every_device(name, gpu):
    found = forecast(load_recipe(name), gpu)
    assert verdict(found)
    json.dumps([f.as_json() for f in found])


def test_old_rows_by_few_numbers_take_a_fraction_of_the_memory(medgemma):
    low = load_recipe("korean-medgemma-4b", [
        'stage.5.train=["input.low","input.new","output.low","output.new","lora"]',
    ])  # fmt: skip
    whole, few = (by_step(forecast(r, "h100"))["36-stage6"] for r in (medgemma, low))
    old_rows = 262_208 * 2560
    assert whole.trained - few.trained == pytest.approx(old_rows, rel=0.03)
    assert whole.memory_gb - few.memory_gb == pytest.approx(12 * old_rows / 2**30, rel=0.03)
