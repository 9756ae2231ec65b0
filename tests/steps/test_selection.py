"""Documents that a rule does not want are dropped by its name, and only on the target side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vocabgraft.corpus.document import read_documents
from vocabgraft.errors import DataError
from vocabgraft.machine import detect
from vocabgraft.pipeline import execute
from vocabgraft.steps.sources import refused_sources

PROSE = (
    "{n}번째 환자는 혈압이 높아서 병원을 찾았다. 의사는 짜게 먹는 습관을 고치고 날마다 걷는 것을 먼저 권했다. "
    "한 달 뒤에 다시 재어 보니 혈압이 {n} 만큼 내려가 있었다. 약은 정해진 시간에 먹어야 하고 스스로 끊으면 위험하다. "
    "집에서 재는 혈압이 병원에서 재는 것보다 낮은 일도 흔하다. 그래서 의사는 {n}일 동안 아침마다 재어 적어 오라고 했다."
)


def written(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts), "utf-8")
    return str(path)


def test_a_quality_preset_drops_whole_documents_by_name(done, tmp_path: Path) -> None:
    pytest.importorskip("kiwipiepy")
    heads = ["\n".join(f"표 {n} 제목 {k} 줄입니다" for k in range(12)) for n in range(4)]
    source = written(tmp_path / "a.jsonl", [PROSE.format(n=n) for n in range(30)] + heads)
    run = done(f"data.target=['{source}']", "data.quality=fineweb2-kor_Hang", "data.near_duplicates=0")
    found = run.manifest("04-preprocess").metrics["target"]
    assert found["dropped"] == {"lines without an end": 4}
    assert found["examples"]["lines without an end"] == "a:31"
    assert found["read"] == 34
    assert run.manifest("04-preprocess").metrics["replay"]["dropped"].keys() & {"lines without an end"} == set()


def rows(path: Path) -> str:
    return written(path, [PROSE.format(n=n) for n in range(20)])


@pytest.mark.parametrize(
    ("source", "kind", "says"),
    [
        ("asan-healthinfo", "unknown terms", "source asan-healthinfo has no known terms"),
        ("kormedmcqa-train", "non-commercial", "source kormedmcqa-train is CC BY-NC 2.0"),
        ("kormedlawqa", "evaluation only", "source kormedlawqa is for evaluation"),
    ],
)
def test_terms_that_bind_the_model_are_refused_until_the_recipe_accepts_them(
    done, tmp_path: Path, source: str, kind: str, says: str
) -> None:
    target = f"data.target=['source:{source}={rows(tmp_path / 'a.jsonl')}', '{tmp_path}/gone.jsonl']"
    with pytest.raises(DataError, match="2 of the recipe's sources cannot be had") as error:
        done(target, until="01")
    assert says in str(error.value)
    assert f'data.accept = ["{kind}"]' in str(error.value)
    assert "gone.jsonl does not exist" in str(error.value)
    (tmp_path / "gone.jsonl").write_text((tmp_path / "a.jsonl").read_text("utf-8"), "utf-8")
    accepted = done(target, f"data.accept=['{kind}']", until="02")
    [licence] = [row for row in accepted.manifest("01-sources").licences if source in row.name]
    assert licence.url.startswith("https://huggingface.co/")
    assert licence.name == f"source:{source}"
    assert accepted.manifest("02-collect").metrics["target"]["kept"] == 40


@pytest.mark.parametrize(
    "source",
    ["hub:sean0042/KorMedMCQA#doctor:test", "hub:GBaker/MedQA-USMLE-4-options:test", "source:kormedlawqa"],
)
def test_what_a_benchmark_asks_is_never_training_text(recipe, source: str) -> None:
    every = "data.accept=['non-commercial', 'unknown terms', 'evaluation only']"
    [problem] = refused_sources(recipe(f"data.target=['{source}']", every))
    assert "text to train on cannot come from there" in problem
    assert refused_sources(recipe("data.target=['hub:GBaker/MedQA-USMLE-4-options:train']")) == []


def test_documents_on_other_topics_are_dropped_where_examples_are_given(done, tmp_path: Path) -> None:
    ills = [
        f"{n}번 환자는 고혈압 진단을 받고 약을 먹으며 증상을 의사와 상의한다. 혈압은 {n * 7}이다." for n in range(200)
    ]
    films = [f"{n}번 글은 영화 이야기이다. 친구와 표를 {n * 7}장 사서 보러 갔고 음악이 재미있었다." for n in range(200)]
    examples = written(tmp_path / "examples.jsonl", ills[:80])
    target = written(tmp_path / "target.jsonl", ills[80:100] + films)
    run = done(f"data.target=['{target}']", f"data.select.examples=['{examples}']", "data.near_duplicates=0")
    found = run.manifest("04-preprocess").metrics
    assert found["target"]["dropped"] == {"not on the topic": 200}
    assert found["selection"]["examples"] + found["selection"]["examples_held_out"] == 80
    assert (run.folder / "04-preprocess" / "topic.safetensors").is_file()
    written(tmp_path / "examples.jsonl", films[:80])
    execute(run, detect(tmp_path), from_step="01", until="04")
    parts = [run.path("04-preprocess", f"target.{split}.jsonl") for split in ("train", "held")]
    kept = [d.text for path in parts for d in read_documents(path)]
    assert kept
    assert all("영화" in text for text in kept)  # what the process learnt before is not used again


def test_rows_of_a_known_data_set_become_texts_as_it_says(done, tmp_path: Path) -> None:
    asked = [{"instruction": PROSE.format(n=n), "input": "", "output": f"{n}번 답은 이렇다."} for n in range(20)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in asked), "utf-8")
    run = done(f"data.target=['source:asan-healthinfo={path}']", "data.accept=['unknown terms']", until="02")
    texts = [d.text for d in read_documents(run.path("02-collect", "target.jsonl"))]
    assert texts == [f"{row['instruction']}\n{row['output']}" for row in asked]


def test_examples_that_are_not_there_are_told_with_the_sources(recipe) -> None:
    [problem] = refused_sources(recipe("data.select.examples=['gone.jsonl']"))
    assert "gone.jsonl does not exist" in problem
