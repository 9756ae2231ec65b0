from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from vocabgraft.report.card import model_card, notice
from vocabgraft.report.ledger import Ledger

Metrics = dict[str, dict[str, Any]]
HAI_DEF = (
    "HAI-DEF is provided under and subject to the Health AI Developer Foundations Terms of Use found at "
    "https://developers.google.com/health-ai-developer-foundations/terms"
)
GEMMA = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
MEDGEMMA = {"name": "medgemma-4b-it", "kind": "hub", "source": "google/medgemma-4b-it@abc", "license": "HAI-DEF"}


def metadata(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_carries_figures_use_licences_and_changes(ledger: Ledger) -> None:
    card = model_card(ledger)
    for text in (
        "| tokens per word, target | 3.21 | 1.98 | −38.3 % |",
        "| bits per byte, target (lower is better) | 1.533 | 1.444 | −5.8 % |",
        "21.2 % [13.7, 31.5], n = 80",
        "Not distinguishable from chance (p = 0.4, n = 80).",
        "Compressed for vLLM: Shipped: gptq: target bits per byte +1.2 % lost (+0.9 to +1.5; 1.5 allowed): within.",
        "Research; not for clinical use.",
        "| KorMedMCQA | CC-BY-NC-2.0 |  | non-commercial |",
        "modified files",
        "ab" * 32,
        GEMMA,
    ):
        assert text in card


def test_the_metadata_is_what_the_hub_reads(ledger: Ledger, make: Callable[..., Ledger]) -> None:
    found = metadata(model_card(ledger))
    assert found["license"] == "other"
    assert found["license_name"] == "gemma"
    assert found["base_model"] == "google/gemma-3-270m"
    assert found["language"] == ["ko", "en"]
    assert "vocabulary-expansion" in found["tags"]
    medical = metadata(model_card(make({}, MEDGEMMA)))
    assert medical["base_model"] == "google/medgemma-4b-it"
    assert medical["license_name"] == "health-ai-developer-foundations"


def test_norwegian_stays_a_language(ledger: Ledger) -> None:
    """YAML reads a bare `no` as False."""
    ledger.recipe["data"]["language"] = "no"
    assert metadata(model_card(ledger))["language"] == ["no", "en"]


def test_hostile_texts_break_neither_metadata_nor_tables(hostile: Ledger) -> None:
    card = model_card(hostile)
    assert metadata(card)["license"] == "other"
    before_recipe = card.split("## Recipe")[0]
    assert "<script" not in before_recipe
    assert all(line.endswith(" |") for line in before_recipe.splitlines() if line.startswith("|"))
    card.encode()
    notice(hostile).encode()


@pytest.mark.parametrize(
    ("base", "sentences"),
    [
        ({"name": "gemma-3-270m", "license": "Gemma Terms of Use"}, [GEMMA]),
        (MEDGEMMA, [HAI_DEF]),
        ({"name": "mine", "kind": "folder", "source": "/models/MedGemma-27B", "license": ""}, [HAI_DEF]),
        ({"name": "gemma-4-12b", "license": "Apache-2.0"}, []),
        ({"name": "SmolLM2-135M", "license": "Apache-2.0"}, []),
        ({"name": "tiny-gemma3", "kind": "random-gemma3", "source": "7", "license": "Apache-2.0"}, []),
    ],
)
def test_the_notice_carries_the_sentences_word_for_word(
    make: Callable[..., Ledger], base: dict[str, str], sentences: list[str]
) -> None:
    lines = notice(make({}, base)).splitlines()
    assert [line for line in lines if line in (GEMMA, HAI_DEF)] == sentences
    assert any("section 3.2" in line for line in lines) == bool(sentences)


def test_the_notice_names_a_licence_per_source(ledger: Ledger) -> None:
    text = notice(ledger)
    assert "- korean-law: public domain, https://law.go.kr [art. 7]" in text
    assert "- KorMedMCQA: CC-BY-NC-2.0 [non-commercial]" in text
    assert "- gemma-3-270m: Gemma Terms of Use" in text
    assert "modified files" in text


def test_an_unknown_licence_is_a_warning(metrics: Metrics, make: Callable[..., Ledger]) -> None:
    ledger = make(metrics)
    ledger.manifests["02-collect"]["licences"] = [{"name": "scraped"}]
    assert "- scraped: unknown [unknown licence: find out before you publish]" in notice(ledger)


def test_an_empty_run_gives_a_card_without_results() -> None:
    card = model_card(Ledger("empty", {}, {}, []))
    assert "## Results" not in card
    assert "Research; not for clinical use." in card


def test_the_card_says_what_a_licence_means_for_the_weights(metrics: Metrics, make: Callable[..., Ledger]) -> None:
    ledger = make(metrics)
    ledger.manifests["02-collect"]["licences"] = [
        {"name": "KorMedMCQA", "license": "CC-BY-NC-2.0"},
        {"name": "KMMLU", "license": "CC-BY-ND-4.0"},
        {"name": "wiki", "license": "CC-BY-SA-4.0"},
        {"name": "asked", "license": "CC-BY-NC-4.0", "note": "questions: evaluation"},
    ]
    for text in (model_card(ledger), notice(ledger)):
        assert "KorMedMCQA, which forbids commercial use" in text
        assert "KMMLU, which forbids derivatives" in text
        assert "wiki, which asks that derivatives come under the same licence" in text
        assert "asked, which" not in text
        assert ", asked" not in text


def test_a_run_on_free_data_warns_of_nothing(make: Callable[..., Ledger]) -> None:
    assert "forbids" not in model_card(make({}))


def test_the_card_of_a_medgemma_names_its_terms_and_what_they_ask(make: Callable[..., Ledger]) -> None:
    card = model_card(make({}, MEDGEMMA))
    assert HAI_DEF in card
    assert "(https://developers.google.com/health-ai-developer-foundations/terms)" in card
    assert "section 3.2" in card
    assert "not for clinical use" in card
    assert "medical device" in card


def test_the_card_lists_what_ships(metrics: Metrics, make: Callable[..., Ledger]) -> None:
    assert "| 61-quantize/model/model.safetensors | 77 | " in model_card(make(metrics))
