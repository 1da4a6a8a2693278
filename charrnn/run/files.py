"""The files that a run owns: its model, what it needs to go on, and its log."""

import hashlib
import json
import math
import os
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from charrnn.errors import UserError
from charrnn.network.checkpoint import build_model, load_dict, save_checkpoint, save_dict
from charrnn.network.model import CharRNN
from charrnn.run.aside import set_aside
from charrnn.run.board import Board
from charrnn.system.console import Terminal, brief, escape_control_chars
from charrnn.system.files import (
    RUN_SUFFIXES,
    atomic_file,
    check_output,
    reason,
    remove_leftovers,
    require_regular,
)
from charrnn.system.locks import locked
from charrnn.system.values import Number, check_fields
from charrnn.text.corpus import Corpus
from charrnn.training.batches import Batches
from charrnn.training.settings import Settings
from charrnn.training.state import Progress, TrainState

OF_THE_MACHINE = (
    "data",
    "ckpt",
    "init_from",
    "device",
    "prime",
    "keep",
    "tensorboard",
)  # what decides no number
LOSS, COUNT = Number(float, 0), Number(int, 0)
MOST_NAMES = 1 << 20  # characters of the names of texts in folders


class Trained(NamedTuple):
    """What a run leaves to whoever called it from Python."""

    model: CharRNN  # the best by held-out loss, in evaluation mode
    log: list[dict[str, Any]]  # the lines of the .jsonl
    status: int  # 0 at the end; 128 + its number where a signal ended it, with all saved


class RunFiles:
    """``NAME.net``, ``NAME.resume`` and ``NAME.jsonl``, and the lock on their name.

    Only ``.net`` is ever taken off the name given; anything else is appended to.
    """

    def __init__(
        self,
        ckpt: str,
        resume: str | None = None,
        is_main: bool = True,
        on_log: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        """``ckpt``: the model's name; or ``resume``: a .resume file, beside which all is written.
        ``is_main``: whether this process is the one of the run that writes. ``on_log`` is called
        with each line that the log gets.

        Raises UserError for names that the files of a run cannot have.
        """
        if on_log is not None and not callable(on_log):
            raise UserError(f"on_log is {brief(on_log)}, not a function of one line of the log")
        if resume is not None:
            if not resume.endswith(".resume"):
                raise UserError(f"--resume {resume}: its name does not end in .resume")
            if is_main:
                require_regular(resume, "a .resume file of train.py")
            ckpt = resume.removesuffix(".resume") + ".net"
        elif ckpt.endswith((".resume", ".jsonl", ".ids")):
            raise UserError(f"--ckpt {ckpt}: that name is for the run's own files; use .net")
        self.is_main, self.on_log = is_main, on_log
        name = ckpt.removesuffix(".net")
        if os.path.isdir(ckpt) or not os.path.basename(name):
            raise UserError(f"{ckpt}: cannot be written: it is a folder; name another file")
        if "\0" in ckpt:
            raise UserError(f"--ckpt {ckpt}: no name may have a zero byte in it")
        self.net_path, self.stem = Path(ckpt), Path(name).name
        self.kept_name = re.escape(self.stem) + r"\.step[0-9]+\.net"  # a pattern, for --keep all
        self.resume_path, self.log_path = Path(f"{name}.resume"), Path(f"{name}.jsonl")
        self.paths = [self.net_path, self.resume_path, self.log_path]
        self.inputs: list[Path] = []  # files of the text
        self.about: dict[str, Any] = {}  # what the model's file and the log say of the run
        self.saved_with: dict[str, Any] = {}  # what the .resume holds besides the state
        self.log: list[bytes] = []  # its lines
        self.board: Board | None = None
        self.save_errors: dict[Path, str] = {}  # of the run's own files whose last save failed
        self.best_step = 0  # of the model on disk, which may be newer than the .resume

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs from these names, and from files that they are links to; one process
        locks for all of this run. At the end TensorBoard's files are closed."""
        with ExitStack() as locks:
            locks.callback(lambda: self.board and self.board.close())
            if self.is_main:
                self.net_path.parent.mkdir(parents=True, exist_ok=True)
                real = (Path(os.path.realpath(path)) for path in self.paths)
                names = {
                    path.with_suffix("") if path.suffix in RUN_SUFFIXES else path for path in real
                }
                for name in sorted(names):
                    locks.enter_context(locked(name))
            yield

    def load_resume(self) -> dict[str, Any]:
        """What the .resume holds, all but the state checked, which ``TrainState`` does.

        Raises UserError.
        """
        saved, where = load_dict(self.resume_path), f"--resume {self.resume_path}"
        saved = {"files": ()} | saved  # an older one has none
        if saved.keys() != {"settings", "fingerprint", "files", "tokens", "run", "state"}:
            raise UserError(f"{where}: no interrupted run; give a .resume file of train.py")
        check_fields(Settings, saved["settings"], f"{where}, settings")
        settings = Settings(**saved["settings"])
        named = isinstance(saved["fingerprint"], str) and isinstance(saved["run"], str)
        named &= isinstance(saved["files"], tuple) and all(
            isinstance(name, str) for name in saved["files"]
        )
        if not named or not (settings.epochs or settings.minutes):
            raise UserError(f"{where}: no interrupted run; give a .resume file of train.py")
        state, size = saved["state"], {"n_hidden": settings.n_hidden, "n_layers": settings.n_layers}
        weights = state.get("model") if isinstance(state, dict) else None
        # before anything of a claimed size is built
        model = {**size, "cell": settings.cell, "tokens": saved["tokens"], "state_dict": weights}
        tokens = build_model(model, where).unique_tokens
        return saved | {"settings": settings, "tokens": tokens}

    def describe(
        self,
        settings: Settings,
        corpus: Corpus,
        tokens: tuple[str, ...],
        saved: dict[str, Any] | None = None,
    ) -> None:
        """What will be said of the run in its files; nothing is written yet. ``saved``: of the run
        that goes on."""
        self.inputs = [*corpus.paths]
        if settings.tensorboard and self.is_main:
            self.board = Board(settings.tensorboard)
        name = ", ".join(path.name for path in corpus.paths[:3]) or "python-docs"
        run = saved["run"] if saved else new_run_id(settings, corpus.fingerprint)
        self.saved_with = {
            "settings": asdict(settings),
            "fingerprint": corpus.fingerprint,
            # of folders' texts; too many would not be loaded again
            "files": corpus.files if sum(map(len, corpus.files)) < MOST_NAMES else (),
            "tokens": tokens,
            "run": run,
        }
        self.about = {
            "settings": decisive(settings),
            "text": {"name": name, "chars": len(corpus.ids)},
            "fingerprint": corpus.fingerprint,
            "val_frac": settings.val_frac,
            "torch": str(torch.__version__),
            "run": run,
        }

    def begin(self) -> list[str]:
        """For a new run: set aside what an earlier one left; returns what to say of it.

        Raises UserError if a name is that of a file which the run reads, or cannot be written.
        """
        if not self.is_main:
            return []
        self._claim_names()
        self._add(self.about)
        return _said_aside(set_aside([*self.paths, *self._all_kept()]))

    def _claim_names(self) -> None:
        """Check that all names can be written, and remove what killed writers left.

        Raises UserError for one that cannot be, or is that of a file of the text.
        """
        for path in [*self.paths, *self._all_kept()]:
            check_output(path, self.inputs)
        remove_leftovers(self.net_path.parent, self.kept_name)

    def _all_kept(self) -> list[Path]:
        """The models that ``--keep all`` left under this name."""
        folder = self.net_path.parent
        found = sorted(p for p in folder.iterdir() if re.fullmatch(self.kept_name, p.name))
        return [path for path in found if not _has_state(path)]

    def take_up(self, state: TrainState) -> list[str]:
        """For a run that goes on: its log up to this step, and its best loss; every process has to
        call it.

        What another run left under its names is set aside. Returns what to say of that.
        """
        notes = self._find_own(state.progress) if self.is_main else []
        state.share_best()
        return notes

    def _find_own(self, progress: Progress) -> list[str]:
        """Read the log and the model that lie there, if they are this run's; what to say of it."""
        self._claim_names()
        notes, run = [], self.about["run"]
        if self.log_path.exists():
            self.log = self.log_path.read_bytes().splitlines(keepends=True)
            if self.log and not self.log[-1].endswith((b"\n", b"\r")):
                self.log[-1] += b"\n"  # cut, or edited: what is added begins on a new line
            if self.log and _read(self.log[0]).get("run", run) != run:
                notes += _said_aside(set_aside([self.log_path]))
                self.log = []
        if strange := sum(not _read(line) for line in self.log):
            notes.append(f"{self.log_path}: {strange} lines that cannot be read stay as they are")
        if not self.log:
            self._add(self.about)
        self.forget_after(progress.step)
        net = self._own_model()
        if net is None and self.net_path.exists():
            notes += _said_aside(set_aside([self.net_path, *self._all_kept()]))
        if net is None and progress.best < math.inf:
            notes.append(f"{self.net_path}: the best model so far is gone; the next one is saved")
            progress.best = math.inf
        elif net is not None and net["val_chars"] == progress.val_chars:
            # saved just before the process was killed, when the state was not yet
            progress.best = min(progress.best, net["val_loss"])
            self.best_step = net["step"]
        return notes

    def _own_model(self) -> dict[str, Any] | None:
        """What the model's file holds, if it is there and of this run."""
        try:
            net = load_dict(self.net_path)
            build_model(net, self.net_path)
        except UserError:
            return None
        known = {"val_loss": LOSS, "val_chars": COUNT, "step": COUNT}
        good = all(net.get(name) in numbers for name, numbers in known.items())
        return net if good and net.get("run") == self.about["run"] else None

    def forget_after(self, step: int) -> None:
        """Drop the log's lines of later steps, and of the end: they will be made again."""
        lines = ((line, _read(line)) for line in self.log)
        self.log = [
            line
            for line, read in lines
            if not (read.get("step") in Number(int, step + 1) or read.get("final"))
        ]

    def log_line(
        self,
        progress: Progress,
        batches: Batches,
        lr: float | None,
        train_loss: float | None,
        val_loss: float | None = None,
        **changed: Any,
    ) -> None:
        """Add a line to the log, written at the next save. Losses in nats per character."""
        chars = progress.step * batches.batch_size * batches.seq_length
        line = {
            "step": progress.step,
            "epoch": round(progress.step / batches.per_epoch, 4),
            "seconds": round(progress.seconds, 3),
            "train_loss": train_loss,
            "val_loss": val_loss,
            "val_bpc": None if val_loss is None else val_loss / math.log(2),
            "chars_per_second": round(chars / max(progress.seconds, 1e-9)),
            "lr": lr,
            "chars": chars,
            "skipped": progress.skipped,
            "val_chars": None if val_loss is None else progress.val_chars,
        }
        self._add(line | changed)
        if self.board and not changed:
            curves = ("train_loss", "val_loss", "lr")
            self.board.add(progress.step, {name: line[name] for name in curves})

    def _add(self, contents: dict[str, Any]) -> None:
        self.log.append(_line(contents))
        if self.on_log and self.is_main:
            self.on_log(_read(self.log[-1]))

    def readable_log(self) -> list[dict[str, Any]]:
        """The lines of the log that can be read."""
        return list(filter(None, map(_read, self.log)))

    def save(self, state: TrainState) -> None:
        """Write the log and what the run needs to go on; every process has to call it.

        What the disk refuses leaves the old files whole, is said once, and is tried again.
        """
        contents = {**self.saved_with, "state": state.state_dict()}
        if self.is_main:
            self._try(self.log_path, self._write_log)
            self._try(self.resume_path, lambda: save_dict(self.resume_path, contents))

    def keep_if_best(self, model: CharRNN, val_loss: float, state: TrainState) -> None:
        """Write the model if none had a lower loss, and with ``--keep all`` in any case; every
        process has to call it."""
        progress = state.progress
        what = val_loss, progress.val_chars, progress.step
        better = val_loss < progress.best
        # what is evaluated again after a kill is no worse than the model that was saved then
        known = better or progress.step <= self.best_step
        progress.worse_in_a_row = 0 if known else progress.worse_in_a_row + 1
        if better and self.save_model(model, *what):
            progress.best = val_loss
        if self.saved_with["settings"]["keep"] == "all":
            self.save_model(model, *what, f"{self.stem}.step{progress.step:06}.net")
        state.share_best()

    def save_model(
        self, model: CharRNN, val_loss: float, val_chars: int, step: int, name: str | None = None
    ) -> bool:
        """Write the model, with its loss on so many characters; False where that fails, which is
        said. 0 characters: no candidate for the best when the run goes on. ``name``: of the file,
        beside the run's own, in which it is kept in any case."""
        figures = {"val_loss": val_loss, "val_bpc": val_loss / math.log(2), "val_chars": val_chars}
        contents = {**self.about, **figures, "step": step}
        path = self.net_path.with_name(name) if name else self.net_path
        if not self.is_main:
            return True
        if name and _has_state(path):
            _say_unsaved(f"{path}: is another run's; this one goes on without it")
            return False
        return self._try(path, lambda: save_checkpoint(path, model, **contents))

    def conclude(
        self, val_loss: float, val_chars: int, progress: Progress, batches: Batches
    ) -> None:
        """Write the run's figure, that of the best model on all of the held-out text, beside the
        model and as the log's last line."""
        net = load_dict(self.net_path)
        figure = {"val_loss": val_loss, "val_bpc": val_loss / math.log(2), "val_chars": val_chars}
        self._try(self.net_path, lambda: save_dict(self.net_path, net | figure))
        at = {"step": net["step"], "epoch": round(net["step"] / batches.per_epoch, 4)}
        more = {**at, "val_chars": val_chars, "final": True}
        self.log_line(progress, batches, None, None, val_loss, **more)

    def go_back(self, state: TrainState, lr: float) -> str:
        """Restore the state last saved, with half the learning rate; returns what to say.

        Raises UserError when three rates were not low enough. Every process has to call it.
        """
        progress = state.progress
        seconds, scale = progress.seconds, progress.lr_scale / 2
        bad = round(state.counters["bad_in_a_row"].item())
        if scale < 0.1:
            raise UserError(
                f"{bad} steps in a row gave no finite gradient, at three learning rates; lower "
                f"--lr (now {lr:g}) or --clip, or use --dtype float32"
            )
        saved = state.dist.from_main(self.load_resume)
        state.load_state_dict(saved["state"], str(self.resume_path))
        progress.seconds, progress.lr_scale = seconds, scale
        self.forget_after(progress.step)
        return (
            f"{bad} steps in a row gave no finite gradient: back to step {progress.step}, with "
            f"{scale:g} of the learning rate"
        )

    def require_saved(self) -> None:
        """Raises UserError where the last save failed."""
        for problem in self.save_errors.values():
            raise UserError(f"the last save failed: {problem}; older files are whole")

    def _write_log(self) -> None:
        with atomic_file(self.log_path) as file:
            file.writelines(self.log)

    def _try(self, path: Path, write: Callable[[], None]) -> bool:
        """Write a file; False where that fails, which is reported once."""
        try:
            write()
        except (OSError, UserError) as error:
            problem = f"{path}: {reason(error)}" if isinstance(error, OSError) else str(error)
            if path not in self.paths:  # a model kept on the way has only this one try
                _say_unsaved(f"{problem}; the run goes on without it")
                return False
            if not self.save_errors:
                _say_unsaved(f"{problem}; the run goes on, and tries again")
            self.save_errors[path] = problem
            return False
        self.save_errors.pop(path, None)
        return True


def _say_unsaved(problem: str) -> None:
    Terminal(sys.stdout).write(escape_control_chars(f"could not save: {problem}") + "\n")


def _has_state(net: Path) -> bool:
    """Whether a model has a .resume beside it: it is a run's own, not one kept on the way."""
    return net.with_suffix(".resume").exists()


def decisive(settings: Settings) -> dict[str, Any]:
    """The settings that decide the numbers: no names of this machine's files or devices."""
    return {k: v for k, v in asdict(settings).items() if k not in OF_THE_MACHINE}


def new_run_id(settings: Settings, fingerprint: str) -> str:
    """The same for runs that give the same bytes; by the clock no run is like another."""
    if settings.minutes:
        return uuid.uuid4().hex
    text = json.dumps([decisive(settings), fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _line(contents: dict[str, Any]) -> bytes:
    """As JSON, which knows no NaN."""
    plain = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in contents.items()
    }
    return json.dumps(plain).encode() + b"\n"


def _read(line: bytes) -> dict[str, Any]:
    """A line of the log; empty for what cannot be read."""
    try:
        contents = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return contents if isinstance(contents, dict) else {}


def _said_aside(moved: list[tuple[Path, Path]]) -> list[str]:
    """One sentence on what was set aside, if anything was."""
    if not moved:
        return []
    names = ", ".join(new.name for _, new in moved)
    return [f"what an earlier run left is set aside as {names}"]
