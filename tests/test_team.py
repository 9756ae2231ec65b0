"""Two processes train as one: the same losses, the same rows, one run folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vocabgraft.errors import MachineError
from vocabgraft.team import join

SCRIPT = """
import json, sys
import torch
from vocabgraft.corpus.mix import Mixture, Rows
from vocabgraft.embedding.rows import Rows as Live
from vocabgraft.models.load import load_model
from vocabgraft.team import join
from vocabgraft.training import lora
from vocabgraft.training.graft import Graft
from vocabgraft.training.loop import Schedule, train
import numpy as np

base, steps, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
team = join()
model = load_model(__import__("pathlib").Path(base), dtype="float32")
graft = Graft(model, Live(model, torch.arange(1500, 1600)))
graft.adapters = lora.attach(model, rank=4, alpha=8, modules=["q_proj", "down_proj"], seed=0)

def batch(step):
    rng = np.random.default_rng(step)
    tokens = rng.integers(5, 1600, (rows, 24))
    targets = np.concatenate([tokens[:, 1:], np.full((rows, 1), -100)], 1)
    return Rows(tokens, np.tile(np.arange(24), (rows, 1)), targets)

groups = ("input.old", "input.new", "output.old", "output.new", "lora")
plan = Schedule(groups, steps, lr_new=1e-3, lr_old=1e-4, lr_lora=1e-3)
done = train(graft, batch, plan, micro_batch=1, team=team)
if team.leads:
    print(json.dumps({"size": team.size, "losses": done.losses, "rows": graft.rows.new["input"].double().sum().item()}))
"""


def together(size: int, *command: str | Path, **more: str) -> list[subprocess.CompletedProcess[str]]:
    """Start a command in `size` processes as a launcher does; what each said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1", **more}
    running = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    said = [p.communicate(timeout=400) for p in running]
    return [subprocess.CompletedProcess(p.args, p.returncode, *s) for p, s in zip(running, said, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "apart"), [(2, 1e-6), (3, 1e-5)])
def test_two_processes_train_as_one(tied_world, tmp_path: Path, rows: int, apart: float) -> None:
    """Three rows are shared unevenly and summed in another order, which float32 and 200 steps of AdamW make visible."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, "utf-8")
    found = {}
    for size in (1, 2):
        done = together(size, script, tied_world.base, "200", str(rows))
        assert [p.returncode for p in done] == [0] * size, done[-1].stderr
        found[size] = json.loads(done[0].stdout.splitlines()[-1])
        assert found[size]["size"] == size
        assert all(not p.stdout for p in done[1:])
    assert max(abs(a - b) for a, b in zip(found[1]["losses"], found[2]["losses"], strict=True)) <= apart
    assert found[2]["rows"] == pytest.approx(found[1]["rows"], abs=1e-3)


@pytest.mark.slow
def test_a_team_makes_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = together(2, "-m", "vocabgraft", "run", "tiny-cpu", "--folder", folder, "--until", "41", "--json")
    assert [p.returncode for p in done] == [0, 0], [p.stderr[-800:] for p in done]
    assert json.loads(done[0].stdout)["done"][-1] == "41-instruct"
    assert done[1].stdout == ""
    again = together(1, "-m", "vocabgraft", "run", "tiny-cpu", "--folder", folder, "--until", "41")
    assert "nothing to do" in again[0].stdout


@pytest.mark.parametrize("switch", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_a_launcher_that_splits_weights_is_refused_with_the_reason(
    switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(switch, "true")
    with pytest.raises(MachineError, match="holds whole"):
        join()
