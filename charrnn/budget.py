"""How long a run lasts, and when on the way it logs and evaluates."""

import math
import time
from statistics import median

import torch
from torch.nn import functional as F

from charrnn.data import Batches
from charrnn.model import CharRNN, Hidden
from charrnn.settings import LENGTH, ROWS, Settings
from charrnn.train_state import Progress

LOG_LINES = 200  # a run, about
EVALUATING = 0.04  # of a run's forward and backward passes; of its time 5 % at most
STEP_PER_EVALUATION = 2.0  # how often training on a character costs what evaluating on it does
TIMED_SECONDS = 2.0  # of steps, before a size is chosen by them; a few can meet a slow moment


class Budget:
    """The epochs or minutes of a run, whichever end first."""

    def __init__(
        self, settings: Settings, batches: Batches, n_held_out: int, seconds_per_step: float
    ) -> None:
        """``n_held_out``: characters in all, of which each evaluation reads ``val_chars``, the same
        ones from their start: so many that all evaluations keep within ``EVALUATING``, when at the
        end one has read the whole."""
        self.epochs, self.minutes = settings.epochs, settings.minutes
        self.patience = settings.patience
        self.steps_per_epoch = batches.per_epoch
        self.n_evaluations = max(5, self.epochs or 0, int(self.minutes or 0))
        self.lines_per_evaluation = math.ceil(LOG_LINES / self.n_evaluations)
        by_clock = 60 * self.minutes / seconds_per_step if self.minutes else math.inf
        steps = min(by_clock, self.epochs * batches.per_epoch if self.epochs else math.inf)
        self.seconds = steps * seconds_per_step  # about
        chars = steps * batches.batch_size * batches.seq_length * STEP_PER_EVALUATION
        affordable = int((chars * EVALUATING - n_held_out) / self.n_evaluations)
        self.val_chars = min(n_held_out, max(2000, affordable))

    def fraction_done(self, progress: Progress) -> float:
        """How much is spent, 0 to 1: by steps or by the clock, whichever is further; 1 too when
        patience is at its end."""
        if self.patience and progress.worse_in_a_row >= self.patience:
            return 1.0
        steps = progress.step / (self.epochs * self.steps_per_epoch) if self.epochs else 0.0
        seconds = progress.seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(steps, seconds))

    def line_due(self, before: float, now: float) -> bool:
        """Whether the log gets a line between these fractions of the run."""
        return _passed(before, now, self.n_evaluations * self.lines_per_evaluation)

    def evaluation_due(self, before: float, now: float) -> bool:
        """Whether the model is evaluated between them; then the log gets a line, too."""
        return _passed(before, now, self.n_evaluations)


def _passed(before: float, now: float, parts: int) -> bool:
    """Whether the end of one of so many equal parts of 1 lies between, or at ``now``."""
    return int(now * parts + 1e-9) > int(before * parts + 1e-9)


def chars_per_minute(device: torch.device, dtype: torch.dtype) -> float:
    """How many characters one layer of 512 trains on in a minute there, by timing it."""
    model = CharRNN(tuple(map(chr, range(100))), 512, 1).to(device)
    batches = Batches(torch.randint(100, (ROWS * (LENGTH + 1),)), ROWS, LENGTH)
    hidden = model.init_hidden(ROWS)
    return 60 * ROWS * LENGTH / seconds_per_step(model, batches, hidden, dtype, TIMED_SECONDS)


def seconds_per_step(
    model: CharRNN, batches: Batches, hidden: Hidden, dtype: torch.dtype, at_least: float = 0.0
) -> float:
    """Median time of a forward and backward pass: of two, or of so many as take ``at_least``
    seconds. Weights and random numbers are left as they were."""
    device = model.fc.weight.device
    x, y = (ids.to(device, torch.long) for ids in batches[0])
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        seconds: list[float] = []
        while len(seconds) < 3 or sum(seconds) < at_least:
            began = time.perf_counter()
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                logits, _ = model(x, hidden)
            loss = F.cross_entropy(logits.float(), y.flatten())
            loss.backward()
            loss.item()  # waits for the device
            seconds.append(time.perf_counter() - began)
    model.zero_grad()
    return median(seconds[1:])  # the first one also set up the libraries
