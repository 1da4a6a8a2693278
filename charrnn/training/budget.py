"""How long a run lasts, and when it writes a line of the log and evaluates."""

import math
import time
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from charrnn.network.evaluation import CONTEXT, PIECES, SHORT_CONTEXT
from charrnn.network.model import CharRNN
from charrnn.training.batches import Batches
from charrnn.training.optimizer import EVERY, make_optimizers, step_unless
from charrnn.training.settings import Settings
from charrnn.training.state import Progress

LOG_LINES = 200  # a run, about
EVALUATING = 0.05  # of the time of a run may go into evaluations
STEP_PER_EVALUATION = 2.5  # training on a character takes this many times as long as evaluating it
TIMED_SECONDS = 1.5  # of steps, to choose dropout and learning rate by their speed
FEWEST_CHARS = 40_000  # of an evaluation, within 0.02 nats of one on the whole held-out text


class Budget:
    """The epochs or minutes of a run, whichever end first, and how its evaluations share them."""

    def __init__(
        self, settings: Settings, batches: Batches, n_held_out: int, seconds_per_step: float
    ) -> None:
        """Each evaluation scores only ``val_chars`` of the ``n_held_out`` characters: at least
        40,000, or all, and more in a long run. A very short run has fewer evaluations."""
        self.patience = settings.patience
        self.most_steps = (settings.epochs or math.inf) * batches.per_epoch
        self.most_seconds = 60 * (settings.minutes or math.inf)
        steps = min(self.most_steps, self.most_seconds / seconds_per_step)
        self.seconds = steps * seconds_per_step  # about
        chars = steps * batches.batch_size * batches.seq_length
        chars_affordable = chars * EVALUATING * STEP_PER_EVALUATION  # by all evaluations
        wanted = max(5, settings.epochs or 0, int(settings.minutes or 0))
        context = PIECES * SHORT_CONTEXT  # read by each, but not scored
        length = max(FEWEST_CHARS, int(chars_affordable / wanted) - context) // PIECES + 1
        self.val_chars = length * PIECES
        if n_held_out <= self.val_chars + context:
            self.val_chars, context = n_held_out, max(0, n_held_out // 2 - CONTEXT)
        most = 2 * chars_affordable / (self.val_chars + context)  # a tenth of the run
        self.n_evaluations = max(1, min(wanted, int(most)))
        self.lines_per_evaluation = math.ceil(LOG_LINES / self.n_evaluations)

    def fraction_done(self, progress: Progress) -> float:
        """Return the fraction of the run that is done, 0 to 1: by steps or by the clock, whichever
        is larger, and 1 when ``patience`` ends the run."""
        if progress.is_out_of(self.patience):
            return 1.0
        steps, seconds = progress.step / self.most_steps, progress.seconds / self.most_seconds
        return min(1.0, max(steps, seconds))

    def line_due(self, before: float, now: float) -> bool:
        """Return whether the log gets a line between these fractions of the run."""
        return _passed(before, now, self.n_evaluations * self.lines_per_evaluation)

    def evaluation_due(self, before: float, now: float) -> bool:
        """Return whether the model is evaluated between them. Then the log gets a line, too."""
        return _passed(before, now, self.n_evaluations)


def _passed(before: float, now: float, parts: int) -> bool:
    """Return whether one of ``parts`` equal parts of 1 ends after ``before`` and by ``now``."""
    return int(now * parts + 1e-9) > int(before * parts + 1e-9)


def seconds_per_step(
    n_tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    n_hidden: int,
    n_layers: int,
    cell: str,
    batch_size: int,
    seq_length: int,
    at_least: float = TIMED_SECONDS,
) -> float:
    """Return the median time in seconds of a training step of a model of this size on random ids.

    Steps are timed for ``at_least`` this many seconds. Torch's random numbers advance.
    """
    with torch.device("meta"):  # any weights will do; orthogonal ones take seconds to make
        model = CharRNN(tuple(map(chr, range(n_tokens))), n_hidden, n_layers, 0.1, cell)
    model = model.to_empty(device=device)
    for weight in model.parameters():
        nn.init.normal_(weight, std=n_hidden**-0.5)
    recipe: Any = SimpleNamespace(lr=0.0, weight_decay=0.0, muon_scale=1.0, beta2=0.99)
    optimizers = make_optimizers(model, recipe, dtype)
    x = torch.randint(n_tokens, (batch_size, seq_length), device=device)
    hidden = model.init_hidden(batch_size)

    def seconds_of(n_steps: int) -> float:
        began = time.perf_counter()
        for _ in range(n_steps):  # as in train_step of train.py
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                logits, _ = model(x, hidden)
            model.zero_grad()
            loss = F.cross_entropy(logits.float(), x.flatten())
            loss.backward()
            bad = ~nn.utils.clip_grad_norm_(model.parameters(), 1.0).isfinite()
            step_unless(bad, optimizers)
        loss.item()  # waits for the device
        return time.perf_counter() - began

    first = seconds_of(1)  # also sets up the libraries
    if first > at_least:
        return first
    # every fourth of Muon's steps takes longer, and the machine has slow moments
    windows: list[float] = []
    while sum(windows) < at_least or len(windows) < 3:
        windows.append(seconds_of(EVERY))
    return median(windows) / EVERY
