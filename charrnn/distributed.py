"""Several processes as one run, as torchrun starts them; one process is a world of its own."""

import os
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from charrnn.errors import UserError


class World:
    """This process's place among those of the run: ``rank`` of ``size``."""

    def __init__(self, device: torch.device) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0))
        self.device = device
        if self.size > 1:
            if device.type == "cuda":
                self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
                torch.cuda.set_device(self.device)
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")

    def rows(self, batch_size: int) -> slice:
        """The rows of each batch that this process learns from. Raises UserError: uneven."""
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

    def largest(self, *numbers: float) -> list[float]:
        """Each number's largest value in any process, so that all decide alike."""
        values = torch.tensor(numbers, dtype=torch.float64)
        self._talk(dist.all_reduce, values, dist.ReduceOp.MAX)
        return values.tolist()

    def mean(self, number: Tensor) -> Tensor:
        """The mean over the processes of a number on the device."""
        total = number.clone()
        self._talk(dist.all_reduce, total)
        return total / self.size

    def gather(self, rows: Tensor) -> Tensor:
        """``[n_layers, rows of this process, n_hidden]`` -> the rows of all, in order."""
        rows = rows.contiguous()
        parts = [rows.clone() for _ in range(self.size)]
        self._talk(dist.all_gather, parts, rows)
        return torch.cat(parts, dim=1)

    def close(self) -> None:
        """Leave the group, as torch asks of every process before it exits."""
        if self.size > 1:
            dist.destroy_process_group()

    def _talk(self, talk: Callable[..., object], *what: object) -> None:
        """Let all processes take part in an exchange, if there are several."""
        if self.size == 1:
            return
        try:
            talk(*what)
        except RuntimeError:
            raise UserError("another process of this run has ended; go on with --resume") from None
