"""Sources of a side by shares: counted before anything is encoded, packed apart, read as often as was said."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vocabgraft.corpus.document import read_documents
from vocabgraft.corpus.mix import NO_TARGET, Mixture, pack_documents
from vocabgraft.errors import DataError
from vocabgraft.machine import detect
from vocabgraft.pipeline import execute
from vocabgraft.recipe import load_recipe
from vocabgraft.run import Run
from vocabgraft.steps import mixing
from vocabgraft.steps.context import Context, Silent
from vocabgraft.steps.packing import corpus_mixture, rows_per_step, steps_for
from vocabgraft.steps.tokenizer import bos_of, load_expansion
from vocabgraft.tokenizer.measure import load_tokenizer

WORDS = ["혈압", "환자", "신장은", "진료", "기록", "검사를", "간호사", "약물", "처방", "증상이", "관찰", "회복"]
SIZES = {"laws": 90, "wiki": 40, "notes": 12}


def corpus(path: Path) -> str:
    """Korean documents of three sources, no two alike, as a setting."""
    lines = []
    for source, count in SIZES.items():
        for n in range(count):
            digest = hashlib.sha256(f"{source}{n}".encode()).digest()[:12]
            text = " ".join(WORDS[byte % 12] + str(byte // 12) for byte in digest)
            lines.append(json.dumps({"id": f"{source}-{n}", "text": text, "source": source}, ensure_ascii=False))
    path.write_text("\n".join(lines), "utf-8")
    return f"data.target=['{path}']"


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory, tied_world: Any) -> Run:
    """A run up to step 13, where the sources are counted."""
    folder = tmp_path_factory.mktemp("counted")
    settings = ["base.kind=folder", f"base.source={tied_world.base}", corpus(folder / "c.jsonl")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = Run.create(folder / "run", load_recipe("tiny-cpu", settings), "")
        execute(run, detect(folder), until="13")
    return run


@pytest.fixture
def told(counted: Run) -> Callable[..., Context]:
    """What a stage is given, with settings of stages and mixing: steps up to 13 read none of these."""

    def make(*settings: str) -> Context:
        run = Run(counted.folder, load_recipe("tiny-cpu", settings))
        return Context("31-stage1", (), run.recipe, run, run.folder, detect(run.folder), Silent())

    return make


def sources_drawn(context: Context, mixture: Mixture, steps: int) -> Counter[str]:
    """Rows of each source in so many steps, found again by what they hold."""
    _, folder = load_expansion(context)
    tokenizer = load_tokenizer(folder)
    owners: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for document in read_documents(context.run.path("04-preprocess", "target.train.jsonl")):
        ids = tokenizer.encode(document.text, add_special_tokens=False).ids
        for at in range(len(ids) - 7):
            owners[tuple(ids[at : at + 8])].add(document.source)
    found = Counter[str]()
    for step in range(steps):
        batch = mixture.batch(step)
        for tokens in batch.tokens:
            runs = [owners.get(tuple(tokens[at : at + 8].tolist()), ()) for at in range(len(tokens) - 7)]
            sources = {next(iter(names)) for names in runs if len(names) == 1} or {"too short to tell"}
            assert len(sources) == 1
            found.update(sources)
    return found


def test_without_shares_the_batches_are_those_of_documents_shuffled_and_packed_together(told) -> None:
    context = told()
    recipe, (_, folder) = context.recipe, load_expansion(context)
    tokenizer, window = load_tokenizer(folder), recipe.training.window
    packed = []
    for side, rows in (("target", 8), ("replay", 3)):
        documents = list(read_documents(context.run.path("04-preprocess", f"{side}.train.jsonl")))
        documents.sort(key=lambda d: hashlib.sha256(f"5:{d.id}".encode()).digest())
        ids, total = [], 0
        for document in documents:
            ids.append(tokenizer.encode(document.text, add_special_tokens=False).ids)
            total += len(ids[-1])
            if total >= rows * window:
                break
        packed.append(pack_documents(ids, window, bos_of(folder)[0]))
    expected, found = Mixture(*packed, 0.25, 5, 4), corpus_mixture(context, 0.25, 5, 8 * window)
    assert found.target_parts == found.replay_parts == ()
    for step in range(6):
        assert (found.batch(step).tokens == expected.batch(step).tokens).all()
        assert (found.batch(step).targets == expected.batch(step).targets).all()


def test_tokens_from_word_counts_are_those_of_encoding_everything(told) -> None:
    context = told()
    done, tokenizer = context.run, load_tokenizer(load_expansion(context)[1])
    sizes = json.loads(done.path("13-expand-tokenizer", "sources.json").read_text("utf-8"))
    assert done.manifest("13-expand-tokenizer").metrics["sources"] == sizes
    assert set(sizes["target"]) == set(SIZES)
    for side, by_name in sizes.items():
        encoded = dict.fromkeys(by_name, 0)
        for document in read_documents(done.path("04-preprocess", f"{side}.train.jsonl")):
            encoded[document.source] += len(tokenizer.encode(document.text, add_special_tokens=False).ids)
        assert {name: size["tokens"] for name, size in by_name.items()} == encoded


def test_sources_that_are_counted_in_several_goes_are_counted_the_same(told, monkeypatch) -> None:
    context = told()
    folder = load_expansion(context)[1]
    whole = mixing.source_sizes(context, folder)
    monkeypatch.setattr(mixing, "_COUNTED_TOGETHER", 500)
    assert mixing.source_sizes(context, folder) == whole


def test_a_mix_is_kept_to_the_row_and_told(told) -> None:
    context = told()
    mixture, steps = corpus_mixture(context, 0.0, 5, 5120, mix={"notes": 0.5}), steps_for(context.recipe, 5120)
    rows = steps * rows_per_step(context.recipe)
    found = sources_drawn(context, mixture, steps)
    assert abs(found["notes"] - rows / 2) < 1
    lines = mixing.told(context, mixture, steps)["target"]
    unknown = found.pop("too short to tell", 0)
    assert sum((Counter({name: line["rows"] for name, line in lines.items()}) - found).values()) == unknown <= 2
    assert sum(line["rows"] for line in lines.values()) == rows


def test_a_source_whose_share_is_nothing_is_not_read(told) -> None:
    mixture = corpus_mixture(told(), 0.0, 5, 4096, mix={"laws": 0.0})
    assert sources_drawn(told(), mixture, 8)["laws"] == 0


def test_epochs_are_those_of_the_text_that_was_read(told) -> None:
    context = told()
    tokens = mixing.tokens_of(context.run, "target")
    mixture = corpus_mixture(context, 0.0, 5, 40_960, mix={"notes": 0.5})
    (notes,) = [part for part in mixture.target_parts if part.name == "notes"]
    start = sum(p.rows for p in mixture.target_parts[: mixture.target_parts.index(notes)])
    targets = mixture.target.targets[start : start + notes.rows]
    assert int((targets != NO_TARGET).sum()) == tokens["notes"]
    line = mixing.told(context, mixture, 80)["target"]["notes"]
    assert line["epochs"] == pytest.approx(line["rows"] / notes.rows, abs=1e-4)
    assert line["epochs"] > 4


def test_documents_kept_apart_are_of_the_sources_that_are_mixed(told) -> None:
    context, mix = told(), {"laws": 0.6, "wiki": 0.0}
    training = corpus_mixture(context, 0.0, 5, 4096, mix=mix, apart=False)
    judging = corpus_mixture(context, 0.0, 5, 4096, mix=mix, apart=True)
    for mixture in (training, judging):
        assert {part.name: part.share for part in mixture.target_parts} == pytest.approx({"laws": 0.6, "notes": 0.4})
        assert sources_drawn(context, mixture, 8)["wiki"] == 0
    texts = [{tuple(row) for row in m.target.tokens.tolist()} for m in (training, judging)]
    assert not texts[0] & texts[1]


def test_a_temperature_lifts_small_sources_and_stops_at_the_most_epochs(told) -> None:
    context = told("data.temperature=5", "data.max_epochs=2")
    tokens = mixing.tokens_of(context.run, "target")
    for budget in (2048, 4096):
        steps = steps_for(context.recipe, budget)
        lines = mixing.told(context, corpus_mixture(context, 0.0, 5, budget), steps)["target"]
        natural = tokens["notes"] / sum(tokens.values())
        assert lines["notes"]["share"] > natural
        assert lines["notes"]["epochs"] <= 2.1  # and one row


def test_what_a_plan_says_is_what_a_stage_reads(told) -> None:
    context = told("data.temperature=3", "stage.0.mix={wiki=0.6}", "stage.0.tokens=8192", "stage.0.replay_share=0.25")
    recipe, stage = context.recipe, context.recipe.stage[0]
    rows = [row for row in mixing.planned(recipe, context.run) if row["stage"] == 1]
    mixture = corpus_mixture(context, 0.25, 5, stage.tokens, mix=stage.mix)
    lines = mixing.told(context, mixture, steps_for(recipe, stage.tokens))["target"]
    for row in (row for row in rows if row["side"] == "target"):
        assert lines[row["source"]]["share"] == pytest.approx(row["share"], abs=1 / 40)
        assert lines[row["source"]]["epochs"] <= row["epochs"] * 1.05 + 0.05  # it says the most
    assert sum(row["share"] for row in rows if row["side"] == "replay") == pytest.approx(1)
    assert mixing.plan_lines(rows)[0].startswith("stage 1, target: wiki 60% (")


def test_all_mixes_are_checked_at_the_first_stage_and_all_is_said_at_once(told) -> None:
    with pytest.raises(DataError) as wrong:
        mixing.check_mix(told("stage.0.mix={law=0.5}", "stage.6.mix={laws=0.7,wiki=0.6}"))
    assert "stage 1, mix: no source 'law'" in str(wrong.value)
    assert "stage 7, mix, target: shares of sources: 1.300 in all, more than 1" in str(wrong.value)
    assert "there are target: 'laws', 'notes', 'wiki'; replay: " in str(wrong.value)


def test_rows_with_a_source_each_cannot_be_mixed_by_source(told, monkeypatch) -> None:
    monkeypatch.setattr(mixing, "MOST_SOURCES", 2)
    context = told("data.temperature=2")
    sizes = mixing.source_sizes(context, load_expansion(context)[1])["target"]
    assert set(sizes) == {mixing.EVERY}
    assert sizes[mixing.EVERY]["tokens"] == sum(mixing.tokens_of(context.run, "target").values())
    with pytest.raises(DataError, match=r"data\.temperature: a side has more than 2 sources"):
        mixing.shares(context.recipe, {mixing.EVERY: 100}, 10, {})


@pytest.mark.slow
def test_a_stage_with_a_mix_records_what_it_read(done, tmp_path: Path) -> None:
    run = done(corpus(tmp_path / "c.jsonl"), "stage.0.mix={notes=0.25}", until="31")
    found = run.manifest("31-stage1").metrics["mix"]
    rows = steps_for(run.recipe, 1024) * rows_per_step(run.recipe)
    drawn = {side: sum(line["rows"] for line in lines.values()) for side, lines in found.items()}
    assert drawn == {"target": rows - int(rows * 0.2), "replay": int(rows * 0.2)}
    assert abs(found["target"]["notes"]["rows"] - drawn["target"] / 4) < 1
    assert set(found["replay"]) == {mixing.EVERY}
