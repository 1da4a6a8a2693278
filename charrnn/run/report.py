"""Print what was chosen for a run, how it goes, and what to do next."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from charrnn.network.evaluation import Evaluation
from charrnn.network.model import CharRNN
from charrnn.run.files import RunFiles
from charrnn.system.console import Terminal, escape_control_chars, shell_name
from charrnn.text.split import unlikeness
from charrnn.training.batches import Batches
from charrnn.training.budget import Budget
from charrnn.training.settings import Settings
from charrnn.training.state import Progress
from charrnn.writing.generation import sample

SHORT = 20_000  # characters
SAMPLE = 200  # characters
UNLIKE = 0.3  # nats per character
LOST = 0.01  # nats per character
BAR = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
WARMED_UP = 0.2  # share of a run; earlier losses say nothing about the learning rate


def duration(seconds: float) -> str:
    """Return a time in words: ``30 seconds``, ``1 minute``, ``2.5 minutes``."""
    unit, number = ("minute", seconds / 60) if seconds >= 55 else ("second", seconds)
    text = f"{number:.1f}".removesuffix(".0")
    return f"{text} {unit}" + "s" * (text != "1")


def first_of(names: list[str], most: int = 5) -> str:
    """Return the first of these names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@dataclass
class Reporter:
    """The messages and the progress bar of a run. ``speaks`` is false in processes that print
    nothing.

    A terminal that is closed loses messages; the run continues.
    """

    speaks: bool
    settings: Settings
    model: CharRNN
    batches: Batches
    val_ids: Tensor
    budget: Budget
    progress: Progress

    def __post_init__(self) -> None:
        """Start the bar. It counts time and speed from now on, without those of earlier
        processes."""
        self.out = Terminal(sys.stdout if self.speaks else None)
        err = Terminal(sys.stderr)
        self.new_bar = partial(
            tqdm, total=100, file=err, bar_format=BAR, disable=not (self.speaks and err.isatty())
        )
        self.bar = self.new_bar(initial=100 * self.budget.fraction_done(self.progress))

    def close(self) -> None:
        """End the bar, which stays on the screen."""
        self.bar.close()

    def say(self, *lines: str) -> None:
        """Print lines above the bar."""
        self.bar.clear()
        for line in lines:
            self.out.write(escape_control_chars(line) + "\n")
        self.out.flush()
        self.bar.refresh()

    def header(self, held_out: list[str], dtype: torch.dtype) -> None:
        """Print what was chosen and how long it will take. ``held_out`` are the names of the files
        that are held out."""
        settings, model, progress = self.settings, self.model, self.progress
        batches, val_ids = self.batches, self.val_ids
        n_weights = sum(weight.numel() for weight in model.parameters())
        hiding = f", {model.hide.p:.0%} of the characters hidden" if model.hide.p else ""
        at = f"; resumed at step {progress.step:,}, after {duration(progress.seconds)}"
        lasts = [duration(60 * settings.minutes)] if settings.minutes else []
        if settings.epochs:
            lasts.append(f"{settings.epochs} epochs of {batches.per_epoch:,} steps")
        self.say(
            f"preset {settings.preset} on {model.fc.weight.device}, "
            f"{str(dtype).removeprefix('torch.')}: {model.cell.upper()} {model.n_hidden} x "
            f"{model.n_layers}, dropout {model.drop_prob:g}{hiding}, {n_weights:,} weights",
            f"text: {len(batches.ids):,} characters to learn from, {len(val_ids):,} held out, "
            f"{len(model.unique_tokens)} distinct",
            *([f"held out: {first_of(held_out)}"] if held_out else []),
            f"batches of {settings.batch_size} x {settings.seq_length}, peak learning rate "
            f"{settings.lr:g}, clip {settings.clip:g}, seed {settings.seed}",
            " or ".join(lasts)
            + (f": about {duration(self.budget.seconds)}" if settings.epochs else "")
            + (at if progress.step else ""),
        )
        if len(batches.ids) < SHORT:
            self.say("a text this short will be learned by heart; more text helps most")
        more = unlikeness(batches.ids, val_ids, len(model.unique_tokens))
        if abs(more) > UNLIKE:
            than, cost = ("harder", "more") if more > 0 else ("easier", "less")
            advice = "; --val-split lines, paragraphs or files holds out parts from all over it"
            self.say(
                f"the held-out text is {than} than the rest: its pairs of characters cost "
                f"{abs(more):.2f} nats {cost}{advice if settings.val_split == 'end' else ''}"
            )
        if self.budget.fraction_done(progress) >= 1:
            self.say(f"this run has already ended; {self.longer()} trains it further")

    def move_bar(self, loss: float, done: float) -> None:
        """Move the bar; ``loss`` is that of the last batch, in nats per character."""
        chars = self.progress.step * self.batches.batch_size * self.batches.seq_length
        speed = chars / self.progress.seconds
        figures = f"loss {loss:.3f}, {loss / math.log(2):.3f} bits/char, {speed:,.0f} chars/s"
        self.bar.set_postfix_str(figures, refresh=False)
        self.bar.update(100 * done - self.bar.n)

    def last_evaluation(self) -> Callable[[float], None]:
        """Start a new bar for the evaluation of the best model on all of the held-out text; return
        the function that moves it, called with the share that is done."""
        self.bar.update(100 - self.bar.n)
        self.bar.close()
        self.bar = self.new_bar(desc="evaluating the best model ")
        return lambda share: self.bar.update(100 * share - self.bar.n)

    def evaluating(self) -> None:
        """Show why the bar does not move."""
        self.bar.set_postfix_str("evaluating")

    def evaluation(self, train_loss: float, val_loss: float, prime: str, done: float) -> None:
        """Print an evaluation's losses, in nats per character, and a sample of the model as it is.
        ``done`` is the share of the run that is done."""
        if self.out.stream is None:
            return
        progress, seed = self.progress, self.settings.seed
        texts = sample(self.model, SAMPLE, prime, num_samples=1, seed=seed, dtype=torch.float32)
        n_read = progress.val_chars
        part = f" on {n_read:,} characters from all over it" if n_read < len(self.val_ids) else ""
        self.say(
            f"\nstep {progress.step}, epoch {progress.step / self.batches.per_epoch:.2f}, "
            f"{progress.seconds:.0f} s: train {train_loss:.4f}, held out {val_loss:.4f} nats/char "
            f"({val_loss / math.log(2):.4f} bits){part}",
            "".join(texts).rstrip("\n") + "\n",
        )
        guessing = math.log(len(self.model.unique_tokens))
        if val_loss > guessing > 0 and done >= WARMED_UP:
            self.say(
                f"the held-out loss is above {guessing:.2f}, that of guessing: the steps are too "
                "large; if the next evaluations are no better, lower --lr or --clip"
            )

    def end(self, files: RunFiles, final: Evaluation | None) -> None:
        """Print the run's final loss and what to type next. ``final`` is None where a signal ended
        the run."""
        net, resume, log = map(shell_name, files.paths)
        if final is None:
            step = self.progress.step
            self.say(f"stopped at step {step}; resume with: python train.py --resume {resume}")
            return
        bits = final.loss / math.log(2)
        if abs(final.cold_start_gap) > LOST:
            self.say(
                "the model loses its way where it starts in the middle of a text: characters there "
                f"cost {final.cold_start_gap:.2f} nats more than with all of the text before them; "
                "train it again with another --seed or a lower --lr"
            )
        self.say(
            f"best held-out loss {final.loss:.4f} nats/char ({bits:.4f} bits), on all of it: {net}",
            f"next: python sample.py --ckpt {net}",
            f"its curves: python -m charrnn.curves {log}; to share it: python -m charrnn.share "
            f"--ckpt {net}",
            f"to train longer: python train.py --resume {resume} {self.longer()}",
        )

    def longer(self) -> str:
        """Return the flags with which ``--resume`` trains an ended run for as long again."""
        settings = self.settings
        if settings.patience and self.progress.is_out_of(settings.patience):
            return f"--patience {2 * settings.patience}"
        flags = [f"--epochs {2 * settings.epochs}"] if settings.epochs else []
        if settings.minutes:
            flags.append(f"--minutes {2 * settings.minutes:g}")
        return " ".join(flags)
