"""Each line of the doctor, well and ill."""

import builtins
import importlib.metadata as metadata
import locale
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from vocabgraft import doctor
from vocabgraft.doctor import examine

GIB = 2**30


@pytest.fixture(autouse=True)
def own_places(monkeypatch, tmp_path):
    """No test looks at the real home, token or GPU."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)


@pytest.fixture
def look(tmp_path):
    """The finding of one name."""

    def find(name: str, folder: Path = tmp_path):
        (found,) = [f for f in examine(folder) if f.name == name]
        return found

    return find


@pytest.fixture
def nvidia(monkeypatch):
    """A machine whose nvidia-smi says this."""

    def say(stdout="", *, code=0, error=None, torch="2.13.0+cu130"):
        def run(command, **settings):
            assert command[0] == "nvidia-smi"
            if error:
                raise error
            return SimpleNamespace(stdout=stdout, stderr="" if code == 0 else "driver mismatch", returncode=code)

        real = metadata.version
        monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
        monkeypatch.setattr(doctor.subprocess, "run", run)
        monkeypatch.setattr(doctor.metadata, "version", lambda name: torch if name == "torch" else real(name))

    return say


def test_every_finding_has_a_name_of_its_own_and_every_ill_one_a_fix(tmp_path):
    found = examine(tmp_path / "not" / "there" / "yet")
    assert len({f.name for f in found}) == len(found)
    assert all(f.fix for f in found if f.status != "ok")
    assert all(set(f.as_json()) == {"name", "status", "found", "fix"} for f in found)


def test_nothing_is_created_by_looking(tmp_path):
    examine(tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_an_old_python_fails(monkeypatch, look):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 2))
    assert look("Python").status == "fail"


def test_the_packages_are_those_the_project_declares(tmp_path):
    names = {f.name for f in examine(tmp_path)}
    assert {"torch", "transformers", "peft", "bitsandbytes", "gguf", "xllamacpp", "datasets"} <= names
    assert not {"pytest", "numpy"} & names


@pytest.mark.parametrize(
    ("package", "version", "status"),
    [
        ("transformers", "5.16.0", "warn"),
        ("transformers", "5.16.1", "ok"),
        ("transformers", "5.17.0", "ok"),
        ("transformers", "5.18.0", "warn"),
        ("torch", "2.9.1", "warn"),
        ("torch", "2.10.0", "ok"),
        ("torch", "2.13.0+cpu", "ok"),
        ("torch", "2.15.0", "warn"),
    ],
)
def test_a_version_outside_the_tested_range_is_said_with_the_command(monkeypatch, look, package, version, status):
    real = metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: version if name == package else real(name))
    found = look(package)
    assert found.status == status
    assert version in found.found
    assert status == "ok" or f"pip install '{package}" in found.fix


@pytest.mark.parametrize(
    ("package", "status", "extra"),
    [("torch", "fail", "train"), ("xllamacpp", "warn", "serve"), ("datasets", "warn", "hub")],
)
def test_a_missing_package_names_its_extra(monkeypatch, look, package, status, extra):
    real = metadata.version

    def version(name):
        if name == package:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    found = look(package)
    assert (found.status, found.found) == (status, "not installed")
    assert f"pip install 'vocabgraft[{extra}]'" in found.fix


def test_a_project_that_is_not_installed_is_said(monkeypatch, look):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", requires)
    assert look("vocabgraft").status == "fail"


@pytest.mark.parametrize(("gb", "status"), [(4.0, "fail"), (6.5, "warn"), (16.0, "ok")])
def test_memory_is_measured_against_the_demo(monkeypatch, look, gb, status):
    monkeypatch.setattr(doctor, "memory_gb", lambda: gb)
    assert look("memory").status == status


@pytest.mark.parametrize("text", ["max\n", str(GIB), str(2**62)])
def test_a_limit_of_the_container_counts(monkeypatch, text):
    monkeypatch.setattr(doctor.Path, "read_text", lambda self, *a: text)
    whole = doctor.os.sysconf("SC_PAGE_SIZE") * doctor.os.sysconf("SC_PHYS_PAGES") / GIB
    assert doctor.memory_gb() == pytest.approx(1.0 if text == str(GIB) else whole)


@pytest.mark.parametrize(("free", "runs", "cache"), [(1, "fail", "fail"), (5, "fail", "ok"), (20, "ok", "ok")])
def test_disk_is_measured_where_it_is_used(monkeypatch, look, free, runs, cache):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: SimpleNamespace(free=free * GIB))
    assert look("disk for runs").status == runs
    assert look("disk for the cache").status == cache


def test_a_place_that_cannot_be_written_is_said(monkeypatch, look):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    found = look("write to the run folder")
    assert found.status == "fail"
    assert "Permission denied" in found.found
    assert "--folder" in found.fix


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("processor: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_bf16\n", "ok"),
        ("Features : fp asimd bf16 i8mm\n", "ok"),
        ("flags : fpu avx2\n", "warn"),
        ("", "ok"),
    ],
)
def test_the_processor_is_read_from_cpuinfo(monkeypatch, look, text, status):
    real = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, *a, **k: text if self.name == "cpuinfo" else real(self, *a, **k)
    )
    assert look("CPU bf16").status == status


def test_no_cpuinfo_is_no_fault(monkeypatch):
    def refuse(self, *a, **k):
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert doctor.cpu_flags() == set()


def test_no_gpu_is_fine_for_the_demo(look):
    found = look("GPU")
    assert (found.status, found.found) == ("ok", "CPU only: the demo runs, 4B does not")


def test_a_gpu_is_named_with_its_memory(nvidia, look):
    nvidia("NVIDIA RTX A6000, 49140\nNVIDIA GB10, [N/A]\n")
    found = look("GPU")
    assert (found.status, found.found) == ("ok", "NVIDIA RTX A6000, 48 GB; NVIDIA GB10, memory not stated")


def test_a_gpu_beside_a_torch_for_cpu_is_said(nvidia, look):
    nvidia("NVIDIA H100, 81559\n", torch="2.13.0+cpu")
    assert look("GPU").status == "warn"
    assert "CPU only" in look("GPU").found


@pytest.mark.parametrize(
    "ill", [{"code": 9}, {"stdout": ""}, {"error": subprocess.TimeoutExpired("x", 20)}, {"error": OSError()}]
)
def test_a_driver_that_fails_is_said(nvidia, look, ill):
    nvidia(**ill)
    found = look("GPU")
    assert found.status == "warn"
    assert "driver" in found.fix


def test_a_locale_without_utf8_is_said(monkeypatch, look):
    monkeypatch.setattr(locale, "getpreferredencoding", lambda do_setlocale=True: "ANSI_X3.4-1968")
    found = look("UTF-8")
    assert found.status == "warn"
    assert "PYTHONUTF8=1" in found.fix


@pytest.mark.parametrize("kept", ["environment", "file", "none"])
def test_a_token_is_looked_for_but_never_read_or_shown(monkeypatch, tmp_path, look, kept):
    secret = "hf_" + "x" * 30
    token = tmp_path / "cache" / "huggingface" / "token"
    if kept == "environment":
        monkeypatch.setenv("HF_TOKEN", secret)
    if kept == "file":
        token.parent.mkdir(parents=True)
        token.write_text(secret, "utf-8")
    real = builtins.open
    monkeypatch.setattr(
        builtins, "open", lambda file, *a, **k: pytest.fail("read") if file == token else real(file, *a, **k)
    )
    found = look("Hugging Face token")
    assert found.status == "ok"
    assert found.found.startswith("none" if kept == "none" else "present")
    assert secret not in str(found)
    assert "MedGemma is gated" in found.fix
