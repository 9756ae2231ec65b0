"""Where a run stops itself: what must not move moved, a start or a result is out of bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from vocabgraft.errors import ProofError, RunError
from vocabgraft.recipe_sections import Init
from vocabgraft.steps import deployment, embedding
from vocabgraft.steps.deployment import quantised_file
from vocabgraft.training.graft import prove_frozen

HASHES = {"input.old": "a", "input.new": "b", "output.old": "c", "output.new": "d", "body": "e", "lora": "f"}


@pytest.mark.parametrize("moved", sorted(HASHES))
def test_what_a_stage_does_not_name_must_not_move(moved: str) -> None:
    after = {**HASHES, moved: "moved"}
    groups = [g for g in HASHES if g not in (moved, "body")]
    with pytest.raises(ProofError, match=rf"^{moved} moved while training only .*nothing was published"):
        prove_frozen(HASHES, after, groups, free=groups)
    if moved != "body":
        proof = prove_frozen(HASHES, after, [moved], free=[moved])
        assert (proof["checked"], proof["names"]) == (5, sorted(set(HASHES) - {moved}))


def test_on_a_tied_matrix_either_route_moves_the_one_value() -> None:
    before = {"input.old": "a", "input.new": "b", "body": "e"}
    assert prove_frozen(before, {**before, "input.new": "x"}, ["output.new"], free={"input.new"})["identical"]
    with pytest.raises(ProofError, match=r"^input\.old moved while training only output\.new"):
        prove_frozen(before, {**before, "input.old": "x"}, ["output.new"], free={"input.new"})


def test_a_bad_start_is_refused() -> None:
    init = Init(max_rise=2.0, max_kl=0.01)
    assert embedding._bad_start({"base": 1.0, "initialised": 2.0}, 0.01, init) == []
    told = embedding._bad_start({"base": 1.0, "initialised": 2.1}, 0.02, init)
    assert len(told) == 2
    with pytest.raises(
        ProofError, match=r"start at 2\.10 times .*init\.max_rise allows 2\.0.*subword-mean.*\n.*0\.0200 nats"
    ):
        embedding._gate(told)


def test_a_quantised_model_that_lost_too_much_is_refused() -> None:
    full = {"target": 1.0, "replay": 2.0}
    deployment._gate({"full": full, "quantised": {"target": 1.1, "replay": 2.2}}, 0.11)
    with pytest.raises(ProofError, match=r"raises bits per byte on replay text by 15\.0%.*allows 11\.0%.*q8_0"):
        deployment._gate({"full": full, "quantised": {"target": 1.0, "replay": 2.3}}, 0.11)


def test_a_gguf_file_that_says_something_else_is_refused() -> None:
    deployment._gate_agreement({"largest": 0.1, "worst": "혈압"})
    with pytest.raises(ProofError, match=r"differ by up to 0\.31 nats \(allowed: 0\.1\), most after '혈압'"):
        deployment._gate_agreement({"largest": 0.31, "worst": "혈압"})


def test_a_quantised_file_is_the_one_beside_the_full_one(tmp_path: Path) -> None:
    (tmp_path / "model-f16.gguf").touch()
    with pytest.raises(RunError, match="0 quantised files, one is needed"):
        quantised_file(tmp_path)
    (tmp_path / "model-q4_1.gguf").touch()
    assert quantised_file(tmp_path).name == "model-q4_1.gguf"
    (tmp_path / "model-q8_0.gguf").touch()
    with pytest.raises(RunError, match="2 quantised files, one is needed"):
        quantised_file(tmp_path)
