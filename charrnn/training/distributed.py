"""One run in several processes, as torchrun starts them. A single process is a group of one."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from charrnn.errors import UserError
from charrnn.system.console import say

QUIET = 5.0  # seconds to wait for the other processes before saying so


def read_environment() -> tuple[int, int, int]:
    """Return (rank, number of processes, rank on this machine) from the variables that a launcher
    set, or (0, 1, 0) without a launcher.

    Clusters set some of these variables in every shell. They are checked here, since torch would
    wait half an hour for processes that nobody started. Raises UserError that names them.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    env = {name: os.environ[name] for name in names if os.environ.get(name)}
    if not env.keys() & {"RANK", "WORLD_SIZE"}:
        return 0, 1, 0
    shown = ", ".join(f"{name}={value!r:.40}" for name, value in env.items())
    advice = "start with torchrun, or unset RANK and WORLD_SIZE to train alone"
    try:
        rank, size = int(env.get("RANK", 0)), int(env["WORLD_SIZE"])
        local = int(env.get("LOCAL_RANK", rank))
        port = int(env.get("MASTER_PORT", 1))
        valid = 0 <= rank < size < 2**31 and 0 <= local < size and 0 < port < 65536
    except (KeyError, ValueError):
        valid = False
    if not valid:
        raise UserError(f"the environment has {shown}, which is not a valid rank; {advice}")
    missing = [name for name in names if name not in env and name != "LOCAL_RANK"]
    if size > 1 and missing:
        raise UserError(f"the environment has {shown} but no {', '.join(missing)}; {advice}")
    return rank, size, local


class Distributed:
    """The group of the run's processes, in which this one is ``rank`` of ``size``."""

    def __init__(self) -> None:
        """Wait for the other processes, if there are any. Raises UserError if that fails."""
        self.rank, self.size, self.local_rank = read_environment()
        self.is_main = self.rank == 0  # the only one that prints and writes
        self.device = torch.device("cpu")
        if self.size == 1:
            return
        processes = "process" if self.size == 2 else "processes"
        others = f"waiting for {self.size - 1} more {processes}"
        reminder = threading.Timer(QUIET, say, [others])
        reminder.start()
        try:
            cuda = torch.cuda.is_available() and dist.is_nccl_available()
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
        except (RuntimeError, ValueError) as error:
            first = str(error).partition("\n")[0]
            raise UserError(f"the processes of this run could not connect: {first}") from None
        finally:
            reminder.cancel()

    def place(self, device: torch.device) -> torch.device:
        """Return the device that this process computes on. On a machine with several GPUs each
        process has its own.

        Raises UserError if there are fewer GPUs than processes on this machine.
        """
        if self.size > 1 and device.type == "cuda":
            if self.local_rank >= (count := torch.cuda.device_count()):
                raise UserError(
                    f"more processes than GPUs ({count}); start with --nproc-per-node {count}"
                )
            device = torch.device("cuda", self.local_rank)
            torch.cuda.set_device(device)
        self.device = device
        return device

    def rows(self, batch_size: int) -> slice:
        """Return the rows of each batch that this process trains on.

        Raises UserError if the rows cannot be divided evenly among the processes.
        """
        each, over = divmod(batch_size, self.size)
        if over:
            raise UserError(
                f"--batch-size {batch_size}: not divisible by {self.size} processes; use a multiple"
            )
        return slice(self.rank * each, (self.rank + 1) * each)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model as one whose gradients are averaged over all processes."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def agree(self, began: float, caught: list[int]) -> tuple[float, int]:
        """Return the seconds since ``began`` and the signal that any process ``caught``, or 0. All
        processes get the same numbers, so that they evaluate and end together."""
        signal = caught[0] if caught else 0
        largest = torch.tensor([time.perf_counter() - began, signal], dtype=torch.float64)
        self._collective(lambda: dist.all_reduce(largest, dist.ReduceOp.MAX))
        return largest[0].item(), int(largest[1])

    def all_reduce_mean(self, number: Tensor) -> Tensor:
        """Return the mean over all processes of a number on the device."""
        total = number.clone()
        self._collective(lambda: dist.all_reduce(total))
        return total / self.size

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, in order; ``rows`` is ``[n_layers, own, n_hidden]``."""
        rows = rows.contiguous()
        parts = [rows.clone() for _ in range(self.size)]
        self._collective(lambda: dist.all_gather(parts, rows))
        return torch.cat(parts, dim=1)

    def from_main(self, read: Callable[[], Any]) -> Any:
        """Return in every process what ``read`` returns in the main one, which alone calls it."""
        result = [read() if self.is_main else None]
        cpu = torch.device("cpu")
        self._collective(lambda: dist.broadcast_object_list(result, src=0, device=cpu))
        return result[0]

    def close(self) -> None:
        """Wait for all processes, then leave the group, as torch requires before the exit. If
        Python exits while a thread of torch is still in a collective, the process aborts."""
        if self.size > 1:
            self._collective(dist.barrier)
            dist.destroy_process_group()

    def _collective(self, communicate: Callable[[], object]) -> None:
        """Call a collective of torch.distributed if there are several processes; some builds of
        torch have none."""
        if self.size > 1:
            with self.together():
                communicate()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Use this around calls that communicate with the other processes, for example ``backward``
        of the wrapped model. Raises UserError if one of them has ended."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not re.search("gloo|nccl", str(error), re.IGNORECASE):
                raise
            raise UserError(
                "another process of this run has ended; continue with --resume"
            ) from None
