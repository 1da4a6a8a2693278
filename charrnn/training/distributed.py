"""Several processes as one run, as torchrun starts them; a process alone is a group of one."""

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
    """(rank, processes, rank on this machine) from what a launcher set; (0, 1, 0) without one.

    Clusters set some of these variables in every shell, so they are checked before torch waits half
    an hour for processes that nobody started. Raises UserError that names them.
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
    except (KeyError, ValueError):
        rank, size, local, port = -1, 0, -1, 0
    if not (0 <= rank < size < 2**31 and 0 <= local < size and 0 < port < 65536):
        raise UserError(f"the environment has {shown}, which is no place in a run; {advice}")
    missing = [name for name in names if name not in env and name != "LOCAL_RANK"]
    if size > 1 and missing:
        raise UserError(f"the environment has {shown} but no {', '.join(missing)}; {advice}")
    return rank, size, local


class Distributed:
    """This process's place among those of the run: ``rank`` of ``size``."""

    def __init__(self) -> None:
        """Waits for the other processes, if there are any."""
        self.rank, self.size, self.local_rank = read_environment()
        self.is_main = self.rank == 0  # this one speaks and writes for all
        self.device = torch.device("cpu")
        if self.size == 1:
            return
        others = f"waiting for {self.size - 1} more process" + "es" * (self.size > 2)
        reminder = threading.Timer(QUIET, say, [others])
        reminder.daemon = True
        reminder.start()
        try:
            cuda = torch.cuda.is_available() and dist.is_nccl_available()
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
        except (RuntimeError, ValueError) as error:
            first = str(error).partition("\n")[0]
            raise UserError(f"the processes of this run did not find each other: {first}") from None
        finally:
            reminder.cancel()

    def place(self, device: torch.device) -> torch.device:
        """The device that this process computes on: of several GPUs each process has one.

        Raises UserError when there are fewer GPUs than processes on this machine.
        """
        if self.size > 1 and device.type == "cuda":
            if self.local_rank >= (count := torch.cuda.device_count()):
                raise UserError(
                    f"more processes than GPUs, which here are {count}; start with "
                    f"--nproc-per-node {count}"
                )
            device = torch.device("cuda", self.local_rank)
            torch.cuda.set_device(device)
        self.device = device
        return device

    def rows(self, batch_size: int) -> slice:
        """The rows of each batch that this process learns from.

        Raises UserError when the processes cannot have equally many.
        """
        each, over = divmod(batch_size, self.size)
        if over:
            raise UserError(
                f"--batch-size {batch_size}: {self.size} processes cannot share it evenly"
            )
        return slice(self.rank * each, (self.rank + 1) * each)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with its gradients averaged over all processes."""
        if self.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices)

    def all_reduce_max(self, *numbers: float) -> list[float]:
        """Each number's largest value in any process, so that all decide alike."""
        values = torch.tensor(numbers, dtype=torch.float64)
        self._collective(lambda: dist.all_reduce(values, dist.ReduceOp.MAX))
        return values.tolist()

    def agree(self, began: float, caught: list[int]) -> tuple[float, int]:
        """Seconds since ``began`` and the signal ``caught`` by any process, or 0, the same in all:
        they must evaluate and end together."""
        signal = caught[0] if caught else 0
        seconds, signal = self.all_reduce_max(time.perf_counter() - began, signal)
        return seconds, int(signal)

    def all_reduce_mean(self, number: Tensor) -> Tensor:
        """The mean over the processes of a number on the device."""
        total = number.clone()
        self._collective(lambda: dist.all_reduce(total))
        return total / self.size

    def all_gather(self, rows: Tensor) -> Tensor:
        """``[n_layers, rows of this process, n_hidden]`` -> the rows of all, in order."""
        rows = rows.contiguous()
        parts = [rows.clone() for _ in range(self.size)]
        self._collective(lambda: dist.all_gather(parts, rows))
        return torch.cat(parts, dim=1)

    def from_main(self, read: Callable[[], Any]) -> Any:
        """What ``read`` returns in the main process, in all of them: one of them reads the disk."""
        result = [read() if self.is_main else None]
        cpu = torch.device("cpu")
        self._collective(lambda: dist.broadcast_object_list(result, src=0, device=cpu))
        return result[0]

    def close(self) -> None:
        """Leave the group, as torch asks of every process before it exits; together, since a thread
        that still finishes an exchange while Python ends aborts the process."""
        if self.size > 1:
            self._collective(dist.barrier)
            dist.destroy_process_group()

    def _collective(self, exchange: Callable[[], object]) -> None:
        """Take part in an exchange of all processes, if there are several: some builds of torch
        have none."""
        if self.size > 1:
            with self.together():
                exchange()

    @contextmanager
    def together(self) -> Iterator[None]:
        """For what exchanges something with the other processes, as ``backward`` of the wrapped
        model does. Raises UserError where one of them has ended."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not re.search("gloo|nccl", str(error), re.IGNORECASE):
                raise
            raise UserError("another process of this run has ended; go on with --resume") from None
