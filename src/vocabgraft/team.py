"""Processes that train one model together, each on its rows of every batch (data parallel).

Gradients are summed over the processes before clipping, and each process makes the same update, so a team's losses are
those of one process up to the order of sums. Started by torchrun or `accelerate launch`; accelerate sets up gloo or
NCCL. Process 0 leads: it alone holds the run folder, writes, measures and reports; the others wait for a training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from vocabgraft.errors import MachineError

if TYPE_CHECKING:
    from torch import nn

    from vocabgraft.corpus.mix import Rows as Batch

_SPLITTING = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
_PATIENCE = timedelta(days=2)  # the others wait while the leader reads, measures and writes


@dataclass(frozen=True)
class Team:
    """This process among `size`."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def share(self, batch: Batch) -> Batch:
        """This process's rows of a batch; none when there are fewer rows than processes."""
        return batch if self.size == 1 else batch.take(list(range(self.rank, len(batch), self.size)))

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum gradients over the team, in place; a parameter that no row of this process touched counts as zero."""
        if self.size == 1:
            return
        import torch

        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)

    def total(self, *values: float) -> tuple[float, ...]:
        """Sums over the team."""
        if self.size == 1:
            return values
        import torch

        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        found = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(found)
        return tuple(found.tolist())

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            import torch

            torch.distributed.barrier()

    def tell(self, value: Any) -> Any:
        """The leader's value (of JSON types), on every process. torch's own way to send objects is pickle."""
        if self.size == 1:
            return value
        import torch

        raw = json.dumps(value).encode() if self.leads else b""
        (length,) = self.total(float(len(raw)))
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        sent = torch.zeros(int(length), dtype=torch.uint8, device=device)
        if self.leads:
            sent.copy_(torch.frombuffer(bytearray(raw), dtype=torch.uint8))
        torch.distributed.broadcast(sent, src=0)
        return json.loads(bytes(sent.tolist()))


ALONE = Team()


def join() -> Team:
    """This process's place in the team that a launcher started; sets up communication on first use.

    MachineError for a launcher that splits the model over processes: new rows are written through into the live matrix,
    which each process holds whole.
    """
    for switch, name in _SPLITTING.items():
        if os.environ.get(switch, "").lower() in ("1", "true"):
            raise MachineError(
                f"{switch} asks for {name}, which splits weights over processes; every stage here writes rows through "
                "into a matrix that each process holds whole. Launch without it (torchrun, or accelerate launch "
                "--multi_gpu); vocabgraft plan says what fits on one device"
            )
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
    return Team(state.process_index, state.num_processes)
