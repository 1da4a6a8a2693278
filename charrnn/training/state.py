"""Everything that changes while a run trains, saved and restored as one."""

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

COUNTERS = ("loss", "steps", "skipped", "bad_in_a_row")
LOSS_OR_INF = Rule(lambda v: type(v) is float and v >= 0, "a loss of at least 0")


@dataclass
class Progress:
    """Where a run stands, in plain numbers."""

    val_chars: int = one_of(Number(int, 2))  # of the held-out text, read by each evaluation
    step: int = one_of(Number(int, 0, 10**15), 0)  # batches read, over all epochs
    seconds: float = one_of(Number(float, 0, 1e10), 0.0)  # spent, over all resumes
    lr_scale: float = one_of(Number(float, 0, 1, exclusive_min=True), 1.0)  # halved after bad steps
    best: float = one_of(LOSS_OR_INF, math.inf)  # lowest held-out loss, nats per character
    worse_in_a_row: int = one_of(Number(int, 0), 0)  # evaluations since the best one
    loss_sum: float = one_of(Number(float), 0.0)  # of the steps since the last evaluation
    loss_steps: int = one_of(Number(int, 0), 0)  # how many those are
    skipped: int = one_of(Number(int, 0), 0)  # how many more had no finite gradient

    def is_out_of(self, patience: int | None) -> bool:
        """Whether so many evaluations in a row were no better that ``--patience`` ends the run."""
        return patience is not None and self.worse_in_a_row >= patience


class TrainState:
    """A run's model, optimizers, hidden state, random numbers and counts."""

    def __init__(
        self,
        model: CharRNN,
        optimizers: list[torch.optim.Optimizer],
        hidden: Hidden,
        dist: Distributed,
        mine: slice,
        val_chars: int,
    ) -> None:
        """``mine``: the rows of the hidden state that belong to this process."""
        self.model, self.optimizers, self.hidden = model, optimizers, hidden
        self.dist, self.mine, self.device = dist, mine, dist.device
        self.progress = Progress(val_chars=val_chars)
        # kept on the device, and read now and then, since each reading waits for it
        self.counters = {name: torch.zeros((), device=self.device) for name in COUNTERS}
        make_moments(optimizers)

    def count(self, loss: Tensor, bad: Tensor) -> None:
        """Count a step with this loss; ``bad``: whether its gradient was not finite."""
        self.counters["loss"] += loss.where(~bad, 0)
        self.counters["steps"] += ~bad
        self.counters["skipped"] += bad
        self.counters["bad_in_a_row"] = (self.counters["bad_in_a_row"] + 1) * bad
        self.progress.step += 1

    def mean_loss(self) -> float:
        """Training loss in nats per character since the last call; NaN without a good step."""
        loss, steps, skipped = (
            self.dist.all_reduce_mean(self.counters[name]).item() for name in COUNTERS[:3]
        )
        for name in COUNTERS[:3]:
            self.counters[name].zero_()
        self.progress.loss_sum += loss
        self.progress.loss_steps += round(steps)
        self.progress.skipped += round(skipped)
        return loss / steps if steps else math.nan

    def mean_loss_since_evaluation(self) -> float:
        """The same since this was last called, of what ``mean_loss`` has counted."""
        progress = self.progress
        mean = progress.loss_sum / progress.loss_steps if progress.loss_steps else math.nan
        progress.loss_sum, progress.loss_steps = 0.0, 0
        return mean

    def share_best(self) -> None:
        """Give every process the main one's best loss and count of worse ones, which decide when
        the run ends: it alone saves models, and knows what is on disk."""
        mine = self.progress
        both = self.dist.from_main(lambda: (mine.best, mine.worse_in_a_row))
        mine.best, mine.worse_in_a_row = both

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain values and tensors; every process has to call it. Tensors are float32
        or integers, so that a run may go on in another precision or on another device."""
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

        ``where``: the file it comes from, for messages. Raises UserError for anything else.
        """
        saved = dict(saved) if isinstance(saved, dict) else {}
        check_fields(Progress, saved.get("progress"), f"{where}, progress")
        progress = Progress(**saved["progress"])
        expected = self.state_dict()
        cuda_rng = saved.pop("cuda_rng", None)  # the other device's, or none
        for name in ("progress", "cuda_rng"):
            expected.pop(name)
        check_like({k: v for k, v in saved.items() if k != "progress"}, expected, where)
        check_moments(saved["optimizers"], progress.step, where)
        try:
            if self.dist.is_main:  # whose it is; the others have their own
                torch.set_rng_state(saved["rng"])
                if self.device.type == "cuda" and isinstance(cuda_rng, Tensor) and len(cuda_rng):
                    torch.cuda.set_rng_state(cuda_rng, self.device)
        except (RuntimeError, TypeError):
            raise UserError(f"{where}, rng: no state of random numbers") from None
        for name, number in asdict(progress).items():
            setattr(self.progress, name, number)
        self.model.load_state_dict(saved["model"])
        for optimizer, moments in zip(self.optimizers, saved["optimizers"], strict=True):
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": groups})
        mine = map_hidden(lambda h: h[:, self.mine].contiguous(), saved["hidden"])  # for cuDNN
        self.hidden = map_hidden(lambda h: h.to(self.device), mine)
        self.counters = {name: saved["counters"][name].to(self.device) for name in COUNTERS}


def check_moments(optimizers: list[dict], steps: int, where: str) -> None:
    """Check that ``steps`` steps could leave what optimizers kept. Raises UserError."""
    for moments in (each for kept in optimizers for each in kept.values()):
        squares, step = moments.get("exp_avg_sq", torch.zeros(1)), moments["step"]
        if squares.min() < 0 or not 0 <= step <= steps:
            raise UserError(f"{where}, optimizers: not what this run would have saved")


def make_moments(optimizers: list[torch.optim.Optimizer]) -> None:
    """Have optimizers make what they keep of each weight, by a step that they are told to skip."""
    for optimizer in (each for each in optimizers if not each.state):
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        optimizer.found_inf = torch.ones((), device=weights[0].device)
        optimizer.step()
        optimizer.zero_grad()
