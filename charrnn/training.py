"""The loop: batches -> loss -> gradients -> better weights, evaluated and saved on the way."""

import hashlib
import json
import math
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from charrnn.checkpoint import atomic_file, check_writable, load_dict, save_checkpoint, save_dict
from charrnn.corpus import load_corpus
from charrnn.data import Vocabulary, count_batches, get_batches, split_text
from charrnn.device import pick_device, pick_dtype
from charrnn.errors import UserError
from charrnn.generation import default_prime, encode_prime, sample
from charrnn.model import CharRNN, Hidden, detach, evaluate
from charrnn.settings import Settings

WARM_UP = 0.02  # of the run, over which the learning rate rises to its peak
READ_EVERY = 10  # steps between two reads of the loss: each one waits for the device
SAMPLE_CHARS = 200


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0  # batches learned from, in all
    epoch: int = 0  # epochs completed
    batch: int = 0  # batches learned from in this epoch
    offset: int = 0  # characters skipped at the start of the text in this epoch
    seconds: float = 0.0  # spent so far, over all resumes
    evaluations: int = 0
    unreported: int = 0  # steps since the last evaluation
    best: float = math.inf  # lowest held-out loss, nats per character


class Run:
    """A model, its data and its optimizer, and where they stand: all that ``--resume`` restores."""

    def __init__(self, settings: Settings, resumed: dict[str, Any] | None = None) -> None:
        self.settings = settings
        self.device = pick_device(settings.device)
        self.dtype = pick_dtype(settings.dtype, self.device)
        self.net = Path(settings.ckpt)
        check_writable(self.net)
        self.resume, self.log = self.net.with_suffix(".resume"), self.net.with_suffix(".jsonl")
        if self.net in (self.resume, self.log):
            raise UserError(f"--ckpt {self.net}: that name is for the run's own files; use .net")
        check_writable(self.resume)
        check_writable(self.log)

        text = load_corpus(settings.data)
        self.text_sha256 = hashlib.sha256(text.encode("utf-8")).hexdigest()
        if resumed and resumed["text_sha256"] != self.text_sha256:
            raise UserError(f"--resume: {settings.data or 'the text'} is not the text of that run")
        vocabulary = Vocabulary.from_text(text)
        # the smallest type that holds every id, kept on the device: a batch is a slice of it
        small = torch.uint8 if len(vocabulary) <= 256 else torch.int32
        ids = vocabulary.encode(text).to(small)
        self.train_ids, self.val_ids = split_text(ids.to(self.device), settings.val_frac)
        get_batches(self.train_ids, settings.batch_size, settings.seq_length)  # raises if too short
        self.steps_per_epoch = count_batches(
            len(self.train_ids), settings.batch_size, settings.seq_length
        )

        torch.manual_seed(settings.seed)
        self.model = CharRNN(
            vocabulary.tokens, settings.n_hidden, settings.n_layers, settings.drop_prob
        ).to(self.device)
        self.prime = settings.prime or default_prime(self.model)
        encode_prime(self.model, self.prime)  # raises for characters the model does not know
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.lr,
            betas=(0.9, settings.beta2),
            weight_decay=settings.weight_decay,
            fused=self.device.type != "mps",
        )
        self.hidden = self.model.init_hidden(settings.batch_size)
        self.loss_sum = torch.zeros((), device=self.device)  # since the last evaluation
        self.progress = Progress()
        if resumed:
            self.restore(resumed)

    def fraction_done(self) -> float:
        """How much of the run is over, 0 to 1 (or a little more): by steps or by the clock."""
        parts = []
        if self.settings.epochs:
            parts.append(self.progress.step / (self.settings.epochs * self.steps_per_epoch))
        if self.settings.minutes:
            parts.append(self.progress.seconds / (60 * self.settings.minutes))
        return max(parts)

    def evaluations_due(self) -> int:
        """How many evaluations should have been made by now: one an epoch or minute, 5 at least."""
        planned = max(5, self.settings.epochs or 0, int(self.settings.minutes or 0))
        return int(min(self.fraction_done(), 1) * planned + 1e-9)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on exactly from here, as plain values and tensors."""
        cuda = self.device.type == "cuda"
        return {
            "settings": asdict(self.settings),
            "text_sha256": self.text_sha256,
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "hidden": self.hidden,
            "loss_sum": self.loss_sum,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if cuda else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The opposite of ``state``."""
        self.progress = Progress(**state["progress"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        h, c = state["hidden"]
        self.hidden = h.to(self.device), c.to(self.device)
        self.loss_sum = state["loss_sum"].to(self.device)
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)


def train(settings: Settings, resumed: dict[str, Any] | None = None) -> int:
    """Train from the start, or from what ``load_resume`` gave; returns the exit status.

    0 at the end; 130 or 143 when Ctrl-C or SIGTERM ended it early, with everything saved.
    Raises UserError for settings that cannot work, before anything on disk is changed.
    """
    run = Run(settings, resumed)
    print(describe(run), flush=True)
    start_log(run)
    with catch_signals() as caught, progress_bar(run) as bar:
        learn(run, bar, caught)
    if caught:
        save_dict(run.resume, run.state())
        resume = shlex.join(["--resume", str(run.resume)])
        print(f"stopped at step {run.progress.step}; go on with: python train.py {resume}")
        return 128 + caught[0]
    if run.progress.best == math.inf:
        raise UserError("the loss was never a finite number; lower --lr or --clip")
    best = run.progress.best
    print(f"best held-out loss {best:.4f} nats/char ({best / math.log(2):.4f} bits), in {run.net}")
    print(f"next: python sample.py {shlex.join(['--ckpt', str(run.net)])}")
    return 0


def learn(run: Run, bar: tqdm, caught: list[int]) -> None:
    """The training loop, until the budget is spent or a signal was caught."""
    settings, progress = run.settings, run.progress
    began = time.perf_counter() - progress.seconds
    while run.fraction_done() < 1 and not caught:
        if progress.batch == 0:  # row i's end is not row i + 1's beginning: start from zeros
            run.hidden = run.model.init_hidden(settings.batch_size)
            progress.offset = random_offset(run)
        text = run.train_ids[progress.offset :]
        batches = get_batches(text, settings.batch_size, settings.seq_length)
        for x, y in islice(batches, progress.batch, None):
            x, y = x.to(run.device), y.to(run.device)
            for group in run.optimizer.param_groups:
                group["lr"] = learning_rate(run)
            loss, run.hidden = train_step(run, x, y, detach(run.hidden))
            run.loss_sum += loss
            progress.unreported += 1
            progress.step += 1
            progress.batch += 1
            progress.seconds = time.perf_counter() - began
            if progress.step % READ_EVERY == 0:
                show(run, bar, loss.item())
            if run.evaluations_due() > progress.evaluations:
                report(run)
                progress.seconds = time.perf_counter() - began
            if run.fraction_done() >= 1 or caught:
                break
        if progress.batch == run.steps_per_epoch:
            progress.epoch += 1
            progress.batch = 0


def train_step(run: Run, x: Tensor, y: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
    """One update from ``x``, ``y`` (both ``[B, T]`` ids): (loss in nats per character, state)."""
    loss, hidden = forward(run, x, y, hidden)
    run.optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(run.model.parameters(), run.settings.clip)
    run.optimizer.step()
    return loss.detach(), hidden


def forward(run: Run, x: Tensor, y: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
    """Cross-entropy of ``y`` after ``x`` in nats per character, and the new hidden state."""
    with torch.autocast(run.device.type, run.dtype, enabled=run.dtype != torch.float32):
        logits, hidden = run.model(x, hidden)
    return F.cross_entropy(logits.float(), y.long().flatten()), hidden


def learning_rate(run: Run) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov and Hutter 2017, eq. 5); or constant."""
    if not run.settings.cosine:
        return run.settings.lr
    done = min(run.fraction_done(), 1)
    return run.settings.lr * min(1, done / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))


def random_offset(run: Run) -> int:
    """Where an epoch starts, so that windows differ: anywhere that costs no batch; 0 at first."""
    spare = len(run.train_ids) % (run.settings.batch_size * (run.settings.seq_length + 1))
    return int(torch.randint(spare + 1, ())) if run.progress.epoch else 0


def report(run: Run) -> None:
    """Evaluate on the held-out text, log, keep the best model, save the run, show a sample."""
    progress, settings = run.progress, run.settings
    train_loss = run.loss_sum.item() / progress.unreported
    run.loss_sum.zero_()
    progress.unreported = 0
    progress.evaluations = run.evaluations_due()
    val_loss = evaluate(run.model, run.val_ids)
    chars = progress.step * settings.batch_size * settings.seq_length
    line = {
        "step": progress.step,
        "epoch": round(progress.step / run.steps_per_epoch, 4),
        "seconds": round(progress.seconds, 3),
        "train_loss": train_loss,
        "val_loss": val_loss,
        "val_bpc": val_loss / math.log(2),
        "chars_per_second": round(chars / progress.seconds),
        "lr": run.optimizer.param_groups[0]["lr"],
    }
    with run.log.open("a") as log:
        log.write(json.dumps(line) + "\n")
    if val_loss < progress.best:
        progress.best = val_loss
        kept = ("step", "epoch", "val_loss", "val_bpc")
        extra = {key: line[key] for key in kept} | {"val_frac": settings.val_frac}
        save_checkpoint(run.net, run.model, **extra)
    save_dict(run.resume, run.state())

    generator = torch.Generator(run.device).manual_seed(settings.seed)
    text = sample(run.model, SAMPLE_CHARS, run.prime, top_k=5, generator=generator)
    tqdm.write(
        f"\nstep {progress.step}, epoch {line['epoch']:.2f}, {progress.seconds:.0f} s: "
        f"train {train_loss:.4f}, held out {val_loss:.4f} nats/char ({line['val_bpc']:.4f} bits)"
        f"\n{text}\n"
    )


def describe(run: Run) -> str:
    """What was chosen and how long it will take."""
    settings, n_train = run.settings, len(run.train_ids)
    n_weights = sum(weight.numel() for weight in run.model.parameters())
    budget = []
    if settings.minutes:
        budget.append(f"{settings.minutes:g} minutes")
    if settings.epochs:
        steps = settings.epochs * run.steps_per_epoch - run.progress.step
        minutes = steps * seconds_per_step(run) / 60
        budget.append(
            f"{settings.epochs} epochs of {run.steps_per_epoch} steps: {steps} steps to go, "
            f"about {minutes:.1f} minutes"
        )
    return (
        f"preset {settings.preset} on {run.device}, {str(run.dtype).removeprefix('torch.')}: "
        f"LSTM {settings.n_hidden} x {settings.n_layers}, dropout {settings.drop_prob:g}, "
        f"{n_weights:,} weights\n"
        f"text: {n_train:,} characters to learn from, {len(run.val_ids):,} held out, "
        f"{len(run.model.unique_tokens)} distinct\n"
        f"batches of {settings.batch_size} x {settings.seq_length}, peak learning rate "
        f"{settings.lr:g}; {', or '.join(budget)}"
    )


def seconds_per_step(run: Run) -> float:
    """Time one forward and backward pass, leaving weights and random numbers as they were."""
    settings = run.settings
    x, y = next(get_batches(run.train_ids, settings.batch_size, settings.seq_length))
    with torch.random.fork_rng([run.device] if run.device.type == "cuda" else []):
        for _ in range(2):  # the first one also sets up the libraries
            began = time.perf_counter()
            loss, _ = forward(run, x, y, run.hidden)
            loss.backward()
            loss.item()  # waits for the device
    run.optimizer.zero_grad()
    return time.perf_counter() - began


def start_log(run: Run) -> None:
    """Empty the log; on resume, drop what a later step of the interrupted run had added."""
    lines = []
    if run.progress.step and run.log.exists():
        with run.log.open() as log:
            lines = [line for line in log if json.loads(line)["step"] <= run.progress.step]
    with atomic_file(run.log) as log:
        log.write("".join(lines).encode())


def load_resume(path: str) -> tuple[Settings, dict[str, Any]]:
    """The settings of an interrupted run and the rest of its state, for ``train``.

    The run's files stay beside the resume file, wherever that is now. Raises UserError.
    """
    state = load_dict(path)
    if "settings" not in state or "text_sha256" not in state:
        raise UserError(f"--resume {path}: no interrupted run; give a .resume file of train.py")
    settings = Settings(**state["settings"])
    beside = Path(path).parent / Path(settings.ckpt).name
    return Settings(**{**state["settings"], "ckpt": str(beside)}), state


@contextmanager
def progress_bar(run: Run) -> Iterator[tqdm]:
    """A bar from 0 to 100 % of the budget."""
    with tqdm(
        total=100,
        initial=100 * run.fraction_done(),
        bar_format="{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
        file=sys.stderr,
    ) as bar:
        yield bar


def show(run: Run, bar: tqdm, loss: float) -> None:
    """Move the bar; loss is the last batch's, in nats per character."""
    settings, progress = run.settings, run.progress
    chars = progress.step * settings.batch_size * settings.seq_length
    bar.set_postfix_str(
        f"loss {loss:.3f}, {loss / math.log(2):.3f} bits/char, "
        f"{chars / progress.seconds:,.0f} chars/s",
        refresh=False,
    )
    bar.update(min(100 * run.fraction_done(), 100) - bar.n)


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """A list that receives SIGINT or SIGTERM once; a second one ends the process at once."""
    caught: list[int] = []

    def catch(number: int, _frame: object) -> None:
        caught.append(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        print("\nfinishing this step and saving; once more stops at once", file=sys.stderr)

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
