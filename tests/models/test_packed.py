"""A model in which packed documents see each other is refused before anything trains."""

from __future__ import annotations

import pytest

from vocabgraft.errors import ModelError
from vocabgraft.models.load import decoder_of, load_model
from vocabgraft.models.packed import prove_isolated


@pytest.mark.parametrize("body", ["bf16", "nf4"])
def test_documents_of_a_row_stay_apart(world, body: str) -> None:
    prove_isolated(load_model(world.base, body=body))


@pytest.mark.parametrize("broken", ["positions dropped", "a full mask"])
def test_a_model_that_mixes_them_is_refused(world, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    model = load_model(world.base)
    decoder = decoder_of(model)
    real = decoder.forward

    def forward(**kwargs):
        if broken == "positions dropped":
            kwargs["position_ids"] = None
        else:
            kwargs["attention_mask"] = kwargs["inputs_embeds"].new_ones(kwargs["inputs_embeds"].shape[:2])
        return real(**kwargs)

    monkeypatch.setattr(decoder, "forward", forward)
    with pytest.raises(ModelError, match="documents packed into one row see each other"):
        prove_isolated(model)
