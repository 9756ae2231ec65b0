"""A control is the recipe with one thing taken out, under a name of its own."""

from __future__ import annotations

import pytest

from vocabgraft.errors import RecipeError
from vocabgraft.recipe import load_recipe, recipe_from_resolved, shipped_recipes
from vocabgraft.recipe_controls import CONTROLS


@pytest.mark.parametrize("name", shipped_recipes())
@pytest.mark.parametrize("control", CONTROLS)
def test_every_shipped_recipe_has_every_control(name: str, control: str) -> None:
    whole, found = load_recipe(name), load_recipe(name, [f"control={control}"])
    assert found.name == f"{whole.name}-{control}"
    assert found.title == f"{whole.title} (control: {control})"
    assert (found.base, found.data, found.evaluate) == (whole.base, whole.data, whole.evaluate)
    assert recipe_from_resolved(found.model_dump(mode="json"), "") == found


def test_the_old_tokenizer_reads_as_much_text_and_trains_no_new_row() -> None:
    whole, found = load_recipe("tiny-cpu"), load_recipe("tiny-cpu", ["control=old-tokenizer"])
    assert found.tokenizer.pieces == 0
    assert sum(s.tokens for s in found.stage) == sum(s.tokens for s in whole.stage)
    assert [s.train for s in found.stage] == [("input.old", "output.old", "lora"), ("lora",)]
    assert found.instruct.train == ("lora",)
    assert load_recipe("any-language", ["preset=lean", "init.row_untied=true", "control=old-tokenizer"]).stage


def test_random_rows_change_the_start_alone() -> None:
    whole, found = load_recipe("tiny-cpu"), load_recipe("tiny-cpu", ["control=random-rows"])
    assert found.init.method == "random"
    assert (found.stage, found.tokenizer, found.instruct) == (whole.stage, whole.tokenizer, whole.instruct)


def test_the_format_alone_is_learnt_from_answers_by_lot() -> None:
    found = load_recipe("tiny-cpu", ["control=format-only"])
    assert (found.stage, found.tokenizer.pieces) == ((), 0)
    assert (found.instruct.answers, found.instruct.instructions) == ("by lot", ())


def test_a_recipe_without_a_stage_or_with_rows_that_are_not_there_is_refused() -> None:
    with pytest.raises(RecipeError, match="stage: at least one"):
        load_recipe("tiny-cpu", ["stage=[]"])
    with pytest.raises(RecipeError, match=r"leaves no new row, but input\.new, output\.new would train"):
        load_recipe("tiny-cpu", ["tokenizer.pieces=0"])
    with pytest.raises(RecipeError, match="control"):
        load_recipe("tiny-cpu", ["control=placebo"])
