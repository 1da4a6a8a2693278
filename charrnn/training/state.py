"""Everything that changes while a run trains, saved and restored together."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from charrnn.errors import UserError
from charrnn.network.checkpoint import check_like
from charrnn.network.model import CharRNN, Hidden, map_hidden
from charrnn.system.values import Number, Rule, check_fields, one_of
from charrnn.training.distributed import Distributed
from charrnn.training.optimizer import step_unless

SUMMED = ("loss", "steps", "skipped")  # over the processes, until they are read
COUNTERS = (*SUMMED, "bad_in_a_row")
LOSS_OR_INF = Rule(lambda v: type(v) is float and v >= 0, "a loss of at least 0")


@dataclass
class Progress:
    """How far a run has come, in plain numbers."""

    val_chars: int = one_of(Number(int, 2))  # of the held-out text, scored by each evaluation
    step: int = one_of(Number(int, 0, 10**15), 0)  # steps made, over all epochs
    seconds: float = one_of(Number(float, 0, 1e10), 0.0)  # spent, over all resumed parts of the run
    lr_scale: float = one_of(Number(float, 0, 1, exclusive_min=True), 1.0)  # halved after bad steps
    best: float = one_of(LOSS_OR_INF, math.inf)  # lowest held-out loss, nats per character
    worse_in_a_row: int = one_of(Number(int, 0), 0)  # evaluations since the best one
    loss_sum: float = one_of(Number(float), 0.0)  # of the steps since the last evaluation
    loss_steps: int = one_of(Number(int, 0), 0)  # how many those are
    skipped: int = one_of(Number(int, 0), 0)  # further steps, without a finite gradient

    def is_out_of(self, patience: int | None) -> bool:
        """Return whether ``patience`` evaluations in a row were no better than the best one."""
        return patience is not None and self.worse_in_a_row >= patience


@dataclass
class TrainState:
    """A run's model, optimizers, hidden state, random numbers and counts."""

    model: CharRNN
    optimizers: list[torch.optim.Optimizer]
    hidden: Hidden  # of the rows that belong to this process
    dist: Distributed
    progress: Progress

    def __post_init__(self) -> None:
        self.device = self.dist.device
        # on the device, and read only now and then, since reading one waits for the device
        self.counters = {name: torch.zeros((), device=self.device) for name in COUNTERS}
        make_moments(self.optimizers)

    def count(self, loss: Tensor, bad: Tensor) -> None:
        """Count a step with this loss. ``bad`` is true if its gradient was not finite."""
        self.counters["loss"] += loss.where(~bad, 0)
        self.counters["steps"] += ~bad
        self.counters["skipped"] += bad
        self.counters["bad_in_a_row"] = (self.counters["bad_in_a_row"] + 1) * bad
        self.progress.step += 1

    def mean_loss(self) -> float:
        """Return the training loss in nats per character since the last call, NaN without a good
        step; every process has to call it."""
        loss, steps, skipped = (
            self.dist.all_reduce_mean(self.counters[name]).item() for name in SUMMED
        )
        for name in SUMMED:
            self.counters[name].zero_()
        self.progress.loss_sum += loss
        self.progress.loss_steps += round(steps)
        self.progress.skipped += round(skipped)
        return loss / steps if steps else math.nan

    def mean_loss_since_evaluation(self) -> float:
        """Return the mean training loss since the last call of this method, NaN if it has none.
        Steps are counted once ``mean_loss`` has read them."""
        progress = self.progress
        mean = progress.loss_sum / progress.loss_steps if progress.loss_steps else math.nan
        progress.loss_sum, progress.loss_steps = 0.0, 0
        return mean

    def share_best(self) -> None:
        """Copy the best loss and the number of worse ones from the main process to all. They decide
        when the run ends, and only the main process saves models and knows which are on disk."""
        own = self.progress
        own.best, own.worse_in_a_row = self.dist.from_main(lambda: (own.best, own.worse_in_a_row))

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values and tensors; every process has to call it. Tensors are
        float32 or integers, so that a run can be resumed in another precision or on another
        device."""
        on_cuda = self.device.type == "cuda"
        return {
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            # their param_groups follow from the settings
            "optimizers": [each.state_dict()["state"] for each in self.optimizers],
            "hidden": map_hidden(lambda h: self.dist.all_gather(h.detach().float()), self.hidden),
            "counters": self.counters,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if on_cuda else torch.empty(0),
        }

    def load_state_dict(self, saved: dict[str, Any], where: str) -> None:
        """Restore a saved ``state_dict``, after checking that it has the structure this run saves.

        ``where`` is the file it comes from, for messages. Raises UserError if the check fails.
        """
        saved = dict(saved) if isinstance(saved, dict) else {}
        numbers = saved.pop("progress", None)
        check_fields(Progress, numbers, f"{where}, progress")
        progress = Progress(**numbers)
        cuda_rng = saved.pop("cuda_rng", None)  # of another device, or empty
        expected = self.state_dict()
        del expected["progress"], expected["cuda_rng"]
        check_like(saved, expected, where)
        check_moments(saved["optimizers"], progress.step, where)
        try:
            if self.dist.is_main:  # whose state was saved; the others keep their own
                torch.set_rng_state(saved["rng"])
                if self.device.type == "cuda" and isinstance(cuda_rng, Tensor) and len(cuda_rng):
                    torch.cuda.set_rng_state(cuda_rng, self.device)
        except (RuntimeError, TypeError):
            raise UserError(f"{where}, rng: not the state of a random number generator") from None
        vars(self.progress).update(vars(progress))  # in place, since others refer to it
        self.model.load_state_dict(saved["model"])
        for optimizer, moments in zip(self.optimizers, saved["optimizers"], strict=True):
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": groups})
        own = map_hidden(lambda h: h.chunk(self.dist.size, 1)[self.dist.rank], saved["hidden"])
        self.hidden = map_hidden(lambda h: h.to(self.device).contiguous(), own)  # for cuDNN
        self.counters = {name: saved["counters"][name].to(self.device) for name in COUNTERS}


def check_moments(optimizers: list[dict], steps: int, where: str) -> None:
    """Check that the saved states of optimizers are possible after ``steps`` steps. Raises
    UserError."""
    for moments in (each for kept in optimizers for each in kept.values()):
        squares, step = moments.get("exp_avg_sq", torch.zeros(1)), moments["step"]
        if squares.min() < 0 or not 0 <= step <= steps:
            raise UserError(f"{where}, optimizers: not what this run would have saved")


def make_moments(optimizers: list[torch.optim.Optimizer]) -> None:
    """Make optimizers create their state for each weight, by a step in which they move none."""
    for optimizer in (each for each in optimizers if not each.state):
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        step_unless(torch.ones((), device=weights[0].device), [optimizer])
        optimizer.zero_grad()
