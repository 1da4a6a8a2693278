"""The loop: batches -> loss -> gradients -> better weights, evaluated and saved on the way."""

import json
import math
import shlex
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from charrnn.checkpoint import (
    atomic_file,
    check_writable,
    load_checkpoint,
    load_dict,
    locked,
    save_checkpoint,
    save_dict,
)
from charrnn.console import catch_signals, visible
from charrnn.corpus import Corpus
from charrnn.data import count_batches, get_batches, split_text
from charrnn.device import keep_freed_memory, pick_device, pick_dtype
from charrnn.errors import UserError
from charrnn.generation import default_prime, encode_prime, sample
from charrnn.model import CharRNN, Hidden, detach, evaluate, of_each, transplant
from charrnn.parallel import World
from charrnn.settings import Settings

WARM_UP = 0.02  # of the run, over which the learning rate rises to its peak
READ_EVERY = 10  # steps between two reads of the loss: each one waits for the device
MOST_BAD = 20  # steps in a row that were not finite, before the run goes back
SAMPLE_CHARS = 200
LONG_ROW = 1 << 17  # characters; longer rows are not read from end to end, but in pieces
PIECE = 64  # batches read on from one place of a long row


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0  # batches read, over all epochs
    seconds: float = 0.0  # spent so far, over all resumes
    evaluations: int = 0
    lr_scale: float = 1.0  # halved each time the loss stopped being a finite number
    best: float = math.inf  # lowest held-out loss, nats per character


class Run:
    """A model, its data and its optimizer, and where they stand: all that ``--resume`` restores."""

    def __init__(self, settings: Settings, corpus: Corpus, resumed: dict | None = None) -> None:
        keep_freed_memory()
        self.settings = settings
        self.world = World(pick_device(settings.device))
        self.device = self.world.device
        self.dtype = pick_dtype(settings.dtype, self.device)
        self.net = Path(settings.ckpt)
        check_writable(self.net)
        self.resume, self.log = self.net.with_suffix(".resume"), self.net.with_suffix(".jsonl")
        if self.net in (self.resume, self.log):
            raise UserError(f"--ckpt {self.net}: that name is for the run's own files; use .net")
        check_writable(self.resume)
        check_writable(self.log)

        self.corpus = corpus
        if resumed and resumed["sha256"] != corpus.sha256:
            raise UserError(f"--resume: {settings.data or 'the text'} is not the text of that run")
        tokens = tuple(resumed["tokens"]) if resumed else corpus.vocabulary.tokens
        source = None
        if settings.init_from and not resumed:
            source = load_checkpoint(settings.init_from)
            tokens = tuple(sorted({*tokens, *source.unique_tokens}))
        train_ids, self.val_ids = split_text(corpus.encode_for(tokens), settings.val_frac)
        size = (settings.batch_size, settings.seq_length)
        get_batches(train_ids, *size)  # raises if too short
        self.steps_per_epoch = count_batches(len(train_ids), *size)
        self.train_ids = train_ids.to(self.device)  # a batch is a slice of it
        is_long = len(train_ids) > LONG_ROW * settings.batch_size
        self.piece = PIECE if is_long else self.steps_per_epoch
        self.rows = self.world.rows(settings.batch_size)

        torch.manual_seed(settings.seed)
        shape = (settings.n_hidden, settings.n_layers, settings.drop_prob, settings.cell)
        self.model = CharRNN(tokens, *shape).to(self.device)
        if source is not None:
            new = transplant(source, self.model)
            if self.world.rank == 0:
                print(f"weights from {settings.init_from}; {new} characters are new to it")
        self.parallel = self.world.wrap(self.model)
        self.prime = settings.prime or default_prime(self.model)
        encode_prime(self.model, self.prime)  # raises for characters the model does not know
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.lr,
            betas=(0.9, settings.beta2),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.progress = Progress()
        self.zeros = self.model.init_hidden(self.rows.stop - self.rows.start)
        self.hidden = self.zeros
        # kept on the device, read now and then: since the last evaluation, and in a row
        names = ("loss", "steps", "skipped", "bad")
        self.tally = {name: torch.zeros((), device=self.device) for name in names}
        self.lines: list[dict[str, Any]] = []  # of the log
        self.trouble: str | None = None  # why the last save failed
        if resumed:
            if self.log.exists():
                self.lines = [json.loads(line) for line in self.log.read_text().splitlines()]
            self.restore(resumed)
        if self.world.rank:  # each process drops other units
            torch.manual_seed(settings.seed + self.world.rank + self.progress.step)

    def fraction_done(self) -> float:
        """How much of the run is over, 0 to 1: by steps or by the clock."""
        parts = []
        if self.settings.epochs:
            parts.append(self.progress.step / (self.settings.epochs * self.steps_per_epoch))
        if self.settings.minutes:
            parts.append(self.progress.seconds / (60 * self.settings.minutes))
        return min(1, max(parts))

    def chars(self) -> int:
        """How many characters were read so far, in all."""
        return self.progress.step * self.settings.batch_size * self.settings.seq_length

    def evaluations_due(self) -> int:
        """How many evaluations should have been made by now: one an epoch or minute, 5 at least."""
        planned = max(5, self.settings.epochs or 0, int(self.settings.minutes or 0))
        return int(self.fraction_done() * planned + 1e-9)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on exactly from here, as plain values and tensors."""
        on_cuda = self.device.type == "cuda"
        return {
            "settings": asdict(self.settings),
            "sha256": self.corpus.sha256,
            "tokens": self.model.unique_tokens,
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "hidden": of_each(self.world.gather, self.hidden),
            "tally": self.tally,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if on_cuda else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The opposite of ``state``."""
        vars(self.progress).update(state["progress"])
        self.lines = [line for line in self.lines if line["step"] <= self.progress.step]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.hidden = of_each(lambda h: h[:, self.rows].to(self.device), state["hidden"])
        self.tally = {name: state["tally"][name].to(self.device) for name in self.tally}
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)


def train(settings: Settings, corpus: Corpus, resumed: dict[str, Any] | None = None) -> int:
    """Train from the start, or from what ``load_resume`` gave; returns the exit status.

    0 at the end; 130 or 143 when Ctrl-C or SIGTERM ended it early, with everything saved.
    Raises UserError for settings that cannot work, before anything on disk is changed, and when
    the last save failed.
    """
    try:
        run = Run(settings, corpus, resumed)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if resumed is None or isinstance(error, UserError):
            raise
        raise UserError("--resume: the file does not hold a whole run; start a new one") from None
    first = run.world.rank == 0  # one process speaks and writes for all
    with locked(run.net) if first else nullcontext(), catch_signals() as caught:
        if first:
            print(describe(run), flush=True)
        save_run(run)
        with tqdm(
            total=100,  # per cent of the budget
            initial=100 * run.fraction_done(),
            bar_format="{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            disable=not first,
        ) as bar:
            learn(run, bar, caught)
        if any(run.world.largest(run.trouble is not None, bool(caught))):
            save_run(run)
    run.world.close()
    if run.trouble:
        raise UserError(f"the last save failed: {run.trouble}; older files were left as they were")
    best = run.progress.best
    if caught and first:
        resume = shlex.join(["--resume", str(run.resume)])
        print(f"stopped at step {run.progress.step}; go on with: python train.py {resume}")
    elif first:
        print(f"best held-out loss {best:.4f} nats/char ({best / math.log(2):.4f} bits): {run.net}")
        print(f"next: python sample.py {shlex.join(['--ckpt', str(run.net)])}")
    return 128 + caught[0] if caught else 0


def learn(run: Run, bar: tqdm, caught: list[int]) -> None:
    """The training loop, until the budget is spent or a signal was caught."""
    progress = run.progress
    began = time.perf_counter() - progress.seconds
    while run.fraction_done() < 1 and not caught:
        for x, y in batches(run):
            if progress.step % run.steps_per_epoch % run.piece == 0:
                run.hidden = run.zeros  # what was read before is not what comes before
            for group in run.optimizer.param_groups:
                group["lr"] = learning_rate(run)
            loss, run.hidden = train_step(run, x, y, detach(run.hidden))
            progress.step += 1
            seconds = time.perf_counter() - began
            progress.seconds, signal = run.world.largest(seconds, caught[0] if caught else 0)
            if signal and not caught:
                caught.append(int(signal))
            if progress.step % READ_EVERY == 0:
                show(run, bar, loss.item())
                if run.tally["bad"] >= MOST_BAD:
                    go_back(run)
                    break
            if run.evaluations_due() > progress.evaluations:
                report(run)
            if run.fraction_done() >= 1 or caught:
                break


def train_step(run: Run, x: Tensor, y: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
    """One update from ``x``, ``y`` (both ``[B, T]`` ids): (loss in nats per character, state).

    When the gradient is not finite, weights and optimizer stay as they are and the state is
    zeroed. The device decides that alone, so that nobody waits for it.
    """
    loss, after = forward(run, run.parallel, x, y, hidden)
    run.optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), run.settings.clip)
    bad = ~norm.isfinite()
    run.optimizer.found_inf = bad.float()  # what GradScaler sets to have a step skipped
    run.optimizer.step()
    run.tally["loss"] += loss.detach().where(~bad, 0)
    run.tally["steps"] += ~bad
    run.tally["skipped"] += bad
    run.tally["bad"].add_(1).mul_(bad)
    return loss.detach(), of_each(lambda h: h.where(~bad, 0), after)


def forward(
    run: Run, model: nn.Module, x: Tensor, y: Tensor, hidden: Hidden
) -> tuple[Tensor, Hidden]:
    """Cross-entropy of ``y`` after ``x`` in nats per character, and the new hidden state."""
    with torch.autocast(run.device.type, run.dtype, enabled=run.dtype != torch.float32):
        logits, hidden = model(x, hidden)
    return F.cross_entropy(logits.float(), y.long().flatten()), hidden


def learning_rate(run: Run) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov and Hutter 2017, eq. 5); or constant."""
    peak = run.settings.lr * run.progress.lr_scale
    if not run.settings.cosine:
        return peak
    done = run.fraction_done()
    return peak * min(1, done / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))


def batches(run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's rows of the batches that are left of the epoch.

    Later epochs than the first start anywhere that costs no batch, so that windows differ. Of a
    long text a short run reads only a part: its pieces come in random order, the last one last.
    """
    epoch, read = divmod(run.progress.step, run.steps_per_epoch)
    rows, length = run.settings.batch_size, run.settings.seq_length
    spare = len(run.train_ids) % (rows * (length + 1)) if epoch else 0
    generator = torch.Generator().manual_seed(run.settings.seed + epoch)
    start = int(torch.randint(spare + 1, (), generator=generator))
    whole, rest = divmod(run.steps_per_epoch, run.piece)
    pieces = torch.randperm(whole, generator=generator).tolist() + [whole] * (rest > 0)
    order = (i for p in pieces for i in range(run.steps_per_epoch)[p * run.piece :][: run.piece])
    left = get_batches(run.train_ids[start:], rows, length, islice(order, read, None))
    return ((x[run.rows], y[run.rows]) for x, y in left)


def go_back(run: Run) -> None:
    """Restore the state last saved, with half the learning rate. Raises UserError at the end."""
    scale, seconds = run.progress.lr_scale / 2, run.progress.seconds
    if scale < 0.1:
        raise UserError(
            f"{MOST_BAD} steps in a row gave no finite loss, at three learning rates; "
            f"lower --lr (now {run.settings.lr:g}) or --clip, or use --dtype float32"
        )
    run.restore(load_dict(run.resume))
    run.progress.lr_scale, run.progress.seconds = scale, seconds
    if run.world.rank == 0:
        tqdm.write(
            f"{MOST_BAD} steps in a row gave no finite loss: back to step {run.progress.step}, "
            f"with {scale:g} of the learning rate"
        )


def report(run: Run) -> None:
    """Evaluate on the held-out text, log, keep the best model, save the run, show a sample."""
    progress = run.progress
    train_loss = (run.world.mean(run.tally["loss"]) / run.tally["steps"]).item()
    # only the first process evaluates, as only its lines are written
    val_loss = math.nan if run.world.rank else evaluate(run.model, run.val_ids)
    line = {
        "step": progress.step,
        "epoch": round(progress.step / run.steps_per_epoch, 4),
        "seconds": round(progress.seconds, 3),
        "train_loss": train_loss,
        "val_loss": val_loss,
        "val_bpc": val_loss / math.log(2),
        "chars_per_second": round(run.chars() / progress.seconds),
        "lr": run.optimizer.param_groups[0]["lr"],
        "chars": run.chars(),
        "skipped": int(run.tally["skipped"]),
    }
    # JSON knows no NaN
    run.lines.append({key: value if math.isfinite(value) else None for key, value in line.items()})
    for name in ("loss", "steps", "skipped"):
        run.tally[name].zero_()
    progress.evaluations = run.evaluations_due()
    save_run(run)
    if run.world.rank == 0:
        generator = torch.Generator(run.device).manual_seed(run.settings.seed)
        text = sample(run.model, SAMPLE_CHARS, run.prime, top_k=5, generator=generator)
        tqdm.write(
            f"\nstep {progress.step}, epoch {line['epoch']:.2f}, {progress.seconds:.0f} s: train "
            f"{train_loss:.4f}, held out {val_loss:.4f} nats/char "
            f"({line['val_bpc']:.4f} bits)\n{visible(text)}\n"
        )


def save_run(run: Run) -> None:
    """Write the log, the model if it was just found to be the best yet, and the run's state.

    What the disk refuses leaves the old files whole, is said once, and is tried again next time.
    """
    state = run.state()  # every process holds a part of it
    if run.world.rank:
        return
    last = run.lines[-1] if run.lines else {"step": None}
    val_loss = last["val_loss"] if last["step"] == run.progress.step else None
    try:
        with atomic_file(run.log) as log:
            log.write("".join(json.dumps(line) + "\n" for line in run.lines).encode())
        if val_loss is not None and val_loss < run.progress.best:
            kept = {key: last[key] for key in ("step", "epoch", "val_loss", "val_bpc")}
            save_checkpoint(run.net, run.model, val_frac=run.settings.val_frac, **kept)
            run.progress.best = val_loss
        save_dict(run.resume, {**state, "progress": asdict(run.progress)})
        run.trouble = None
    except OSError as error:
        if run.trouble is None:
            tqdm.write(f"could not save: {error}; the run goes on, and tries again")
        run.trouble = str(error)


def describe(run: Run) -> str:
    """What was chosen and how long it will take."""
    settings = run.settings
    n_weights = sum(weight.numel() for weight in run.model.parameters())
    budget = [f"{settings.minutes:g} minutes"] if settings.minutes else []
    if settings.epochs:
        steps = settings.epochs * run.steps_per_epoch - run.progress.step
        budget.append(
            f"{settings.epochs} epochs of {run.steps_per_epoch} steps: {steps} steps to go, "
            f"about {steps * seconds_per_step(run) / 60:.1f} minutes"
        )
    return (
        f"preset {settings.preset} on {run.device}, {str(run.dtype).removeprefix('torch.')}: "
        f"{settings.cell.upper()} {settings.n_hidden} x {settings.n_layers}, dropout "
        f"{settings.drop_prob:g}, {n_weights:,} weights\n"
        f"text: {len(run.train_ids):,} characters to learn from, {len(run.val_ids):,} held out, "
        f"{len(run.model.unique_tokens)} distinct\n"
        f"batches of {settings.batch_size} x {settings.seq_length}, peak learning rate "
        f"{settings.lr:g}; {', or '.join(budget)}"
    )


def seconds_per_step(run: Run) -> float:
    """Time one forward and backward pass, leaving weights and random numbers as they were."""
    x, y = next(batches(run))
    with torch.random.fork_rng([run.device] if run.device.type == "cuda" else []):
        for _ in range(2):  # the first one also sets up the libraries
            began = time.perf_counter()
            loss, _ = forward(run, run.model, x, y, run.zeros)
            loss.backward()
            loss.item()  # waits for the device
    run.optimizer.zero_grad()
    return time.perf_counter() - began


def load_resume(path: str) -> tuple[Settings, dict[str, Any]]:
    """The settings of an interrupted run and the rest of its state, for ``train``.

    The run's files stay beside the resume file, wherever that is now. Raises UserError.
    """
    state = load_dict(path)
    try:
        settings = Settings(**state["settings"])
        beside = str(Path(path).parent / Path(settings.ckpt).name)
        Progress(**state["progress"])
        return replace(settings, ckpt=beside), state
    except (KeyError, TypeError):
        raise UserError(
            f"--resume {path}: no interrupted run; give a .resume file of train.py"
        ) from None


def show(run: Run, bar: tqdm, loss: float) -> None:
    """Move the bar; loss is the last batch's, in nats per character."""
    bar.set_postfix_str(
        f"loss {loss:.3f}, {loss / math.log(2):.3f} bits/char, "
        f"{run.chars() / run.progress.seconds:,.0f} chars/s",
        refresh=False,
    )
    bar.update(100 * run.fraction_done() - bar.n)
