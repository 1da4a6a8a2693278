"""The files that a run writes: its model, its state to resume from, and its log."""

import hashlib
import json
import math
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from charrnn.errors import UserError
from charrnn.network.checkpoint import build_model, load_dict, save_checkpoint, save_dict
from charrnn.network.loaded import load_model
from charrnn.network.model import CharRNN
from charrnn.run.aside import bare, set_aside
from charrnn.run.board import Board
from charrnn.run.log import Log, OnLine, read_line
from charrnn.system.console import Terminal, brief, escape_control_chars
from charrnn.system.files import check_output, reason, remove_leftovers, require_regular
from charrnn.system.locks import locked
from charrnn.system.values import Number, check_fields
from charrnn.text.corpus import Corpus
from charrnn.training.batches import Batches
from charrnn.training.settings import LOCAL, Settings
from charrnn.training.state import Progress, TrainState

SAVING = 0.05  # of the time may go into .resume files on the way
QUICK = 0.2  # seconds; a file written faster is written at each evaluation
MOST_NAMES = 1 << 20  # characters of the names of texts in folders


class RunFiles:
    """``NAME.net``, ``NAME.resume`` and ``NAME.jsonl``, and the lock on their name.

    NAME is the model's name without ``.net``; any other ending is kept, and the suffix appended.
    """

    def __init__(self, ckpt: str, resume: str | None, is_main: bool, on_log: OnLine) -> None:
        """``ckpt`` is the model's name. ``resume`` is a .resume file instead, beside which all
        files are written. ``is_main`` is true in the one process of the run that writes. ``on_log``
        is called with each line that the log gets.

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
        self.is_main = is_main
        name = ckpt.removesuffix(".net")
        if os.path.isdir(ckpt) or not os.path.basename(name):
            raise UserError(f"{ckpt}: cannot be written: it is a folder; name another file")
        if "\0" in ckpt:
            raise UserError(f"--ckpt {ckpt}: no name may have a zero byte in it")
        self.paths = [Path(ckpt), Path(f"{name}.resume"), Path(f"{name}.jsonl")]
        self.net_path, self.resume_path, self.log_path = self.paths
        self.stem = self.resume_path.stem
        self.kept_name = re.escape(self.stem) + r"\.step[0-9]+\.net"  # a pattern, for --keep all
        self.inputs: list[Path] = []  # files of the text
        self.run_info: dict[str, Any] = {}  # in the model's file
        self.log_info: dict[str, Any] = {}  # the same and more, in the log's first line
        self.resume_fields: dict[str, Any] = {}  # in the .resume, besides the state
        self.log = Log(self.log_path, on_log if is_main else None)
        self.save_errors: dict[Path, str] = {}  # of the run's own files whose last save failed
        self.saved_at = self.save_seconds = 0.0  # when the .resume was, and how long it took
        self.best_step = 0  # of the model on disk, which may be newer than the .resume

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs from these names, and from the files that they link to. Close the log at
        the end. Only the main process locks, for all processes of the run."""
        with ExitStack() as locks:
            locks.callback(self.log.close)
            if self.is_main:
                self.net_path.parent.mkdir(parents=True, exist_ok=True)
                names = {bare(Path(os.path.realpath(path))) for path in self.paths}
                for name in sorted(names):
                    locks.enter_context(locked(name))
            yield

    def load_resume(self) -> dict[str, Any]:
        """Return what the .resume file holds, with ``settings`` as Settings and ``tokens`` as the
        model's.

        All but the state is checked; ``TrainState`` checks that. Raises UserError.
        """
        saved, where = load_dict(self.resume_path), f"--resume {self.resume_path}"
        saved = {"files": ()} | saved  # an older one has none
        keys = {"settings", "fingerprint", "files", "tokens", "run", "state"}
        if saved.keys() != keys or not isinstance(saved["files"], tuple):
            raise UserError(f"{where}: no interrupted run; give a .resume file of train.py")
        check_fields(Settings, saved["settings"], f"{where}, settings")
        settings = Settings(**saved["settings"])
        names = saved["fingerprint"], saved["run"], *saved["files"]
        named = all(isinstance(name, str) for name in names)
        if not named or not (settings.epochs or settings.minutes):
            raise UserError(f"{where}: no interrupted run; give a .resume file of train.py")
        state, size = saved["state"], {"n_hidden": settings.n_hidden, "n_layers": settings.n_layers}
        weights = state.get("model") if isinstance(state, dict) else None
        # checks the sizes, before anything of a claimed size is built
        model = {**size, "cell": settings.cell, "tokens": saved["tokens"], "state_dict": weights}
        tokens = build_model(model, where).unique_tokens
        return saved | {"settings": settings, "tokens": tokens}

    def describe(
        self,
        settings: Settings,
        corpus: Corpus,
        tokens: tuple[str, ...],
        held_out: list[str],
        saved: dict[str, Any] | None = None,
    ) -> None:
        """Set what the files will say of the run; nothing is written yet. ``held_out`` are the
        names of the files held out, for the log. ``saved`` is what ``load_resume`` returned, for a
        run that is resumed."""
        self.inputs = [*corpus.paths]
        if settings.tensorboard and self.is_main:
            self.log.board = Board(settings.tensorboard)
        name = ", ".join(path.name for path in corpus.paths[:3]) or "python-docs"
        all_settings = asdict(settings)
        reproducible = {name: value for name, value in all_settings.items() if name not in LOCAL}
        run = saved["run"] if saved else new_run_id(reproducible, corpus.fingerprint)
        self.resume_fields = {
            "settings": all_settings,
            "fingerprint": corpus.fingerprint,
            # of folders' texts; too many would not be loaded again
            "files": corpus.files if sum(map(len, corpus.files)) < MOST_NAMES else (),
            "tokens": tokens,
            "run": run,
        }
        self.run_info = {
            "settings": reproducible,
            "text": {"name": name, "chars": len(corpus.ids)},
            "fingerprint": corpus.fingerprint,
            "val_frac": settings.val_frac,
            "torch": str(torch.__version__),
            "run": run,
        }
        self.log_info = self.run_info | ({"held_out": held_out} if held_out else {})

    def begin(self) -> list[str]:
        """Set aside the files of an earlier run, for a new one; return sentences about that.

        Raises UserError if a name is that of a file which the run reads, or cannot be written.
        """
        if not self.is_main:
            return []
        self._claim_names()
        self.log.add(self.log_info)
        return _set_aside([*self.paths, *self._all_kept()])

    def resume(self, state: TrainState) -> list[str]:
        """Find the log and the best model of a run that is resumed, and set aside those of another
        run; return sentences about that. The best loss in ``state`` becomes that of the model.

        Every process has to call it. Raises UserError as ``begin`` does.
        """
        notes = []
        if self.is_main:
            self._claim_names()
            notes = self._find_log(state.progress.step) + self._find_model(state.progress)
        state.share_best()
        return notes

    def _claim_names(self) -> None:
        """Check that all names can be written, and remove what killed writers left.

        Raises UserError for one that cannot be, or is that of a file of the text.
        """
        for path in [*self.paths, *self._all_kept()]:
            check_output(path, self.inputs)
        remove_leftovers(self.net_path.parent, self.kept_name)

    def _all_kept(self) -> list[Path]:
        """Return the models that ``--keep all`` left under this name."""
        folder = self.net_path.parent
        found = sorted(p for p in folder.iterdir() if re.fullmatch(self.kept_name, p.name))
        return [path for path in found if not _has_state(path)]

    def _find_log(self, step: int) -> list[str]:
        """Load the run's log up to this step; return sentences about what was found instead."""
        self.log.load()
        lines, notes, run = self.log.lines, [], self.run_info["run"]
        if lines and read_line(lines[0]).get("run", run) != run:
            notes += _set_aside([self.log_path])
            self.log.lines = []
        if strange := len(self.log.lines) - len(self.log.readable()):
            notes.append(f"{self.log_path}: {strange} lines that cannot be read stay as they are")
        if not self.log.lines:
            self.log.add(self.log_info)
        self.log.forget_after(step)
        return notes

    def _find_model(self, progress: Progress) -> list[str]:
        """Set ``progress.best`` to the loss of the run's model on disk, if that is there; return
        sentences about what was found instead."""
        path, net = self.net_path, self._own_model()
        if net is not None:
            if net["val_chars"] == progress.val_chars:
                # a process killed between the two saves leaves a model newer than the state
                progress.best = min(progress.best, net["val_loss"])
                self.best_step = net["step"]
            return []
        notes = _set_aside([path, *self._all_kept()]) if path.exists() else []
        if progress.best < math.inf:
            notes.append(f"{path}: the best model so far is missing; the next one is saved")
            progress.best = math.inf
        return notes

    def _own_model(self) -> dict[str, Any] | None:
        """Return what the model's file holds, if it is there and of this run."""
        try:
            net = load_model(str(self.net_path), "cpu").checkpoint
        except UserError:
            return None
        known = {"val_loss": Number(float, 0), "val_chars": Number(int, 0), "step": Number(int, 0)}
        good = all(net.get(name) in numbers for name, numbers in known.items())
        return net if good and net.get("run") == self.run_info["run"] else None

    def save(self, state: TrainState) -> None:
        """Write the log and the .resume file; every process has to call it.

        Where that fails the old files stay whole, it is printed once, and the next save tries
        again.
        """
        began = time.perf_counter()
        contents = {**self.resume_fields, "state": state.state_dict()}
        if self.is_main:
            self._try(self.log_path, self.log.write)
            self._try(self.resume_path, lambda: save_dict(self.resume_path, contents))
        self.saved_at = time.perf_counter()
        self.save_seconds = self.saved_at - began

    def save_on_the_way(self, state: TrainState) -> None:
        """Save, but only the log while that is soon enough for a .resume file that takes long to
        write: a large model on a fast GPU would spend a quarter of its time on them.

        Every process has to call it.
        """
        soon = time.perf_counter() - self.saved_at < self.save_seconds / SAVING
        if state.dist.from_main(lambda: soon and self.save_seconds > QUICK):
            if self.is_main:
                self._try(self.log_path, self.log.write)
        else:
            self.save(state)

    def keep_if_best(self, model: CharRNN, val_loss: float, state: TrainState) -> None:
        """Write the model if none had a lower loss, and with ``--keep all`` in any case; every
        process has to call it."""
        progress = state.progress
        better = val_loss < progress.best
        # an evaluation repeated after a kill is no worse than the model that was saved then
        known = better or progress.step <= self.best_step
        progress.worse_in_a_row = 0 if known else progress.worse_in_a_row + 1
        if better and self.save_model(model, val_loss, progress.val_chars, progress.step):
            progress.best = val_loss
        if self.resume_fields["settings"]["keep"] == "all":
            name = f"{self.stem}.step{progress.step:06}.net"
            self.save_model(model, val_loss, progress.val_chars, progress.step, name)
        state.share_best()

    def save_model(
        self, model: CharRNN, val_loss: float, val_chars: int, step: int, name: str | None = None
    ) -> bool:
        """Write the model with its loss on ``val_chars`` characters; return False where that fails,
        which is printed.

        ``val_chars`` 0 marks a model saved without an evaluation: on --resume it does not count as
        the best so far. ``name`` is the file's name where it is not the run's own.
        """
        losses = {"val_loss": val_loss, "val_bpc": val_loss / math.log(2), "val_chars": val_chars}
        contents = {**self.run_info, **losses, "step": step}
        path = self.net_path.with_name(name) if name else self.net_path
        if not self.is_main:
            return True
        if name and _has_state(path):
            _print_unsaved(f"{path}: is another run's; this one continues without it")
            return False
        return self._try(path, lambda: save_checkpoint(path, model, **contents))

    def conclude(
        self, val_loss: float, val_chars: int, progress: Progress, batches: Batches
    ) -> None:
        """Write the loss of the best model on all of the held-out text, into the model's file and
        as the log's last line."""
        net = load_dict(self.net_path)
        losses = {"val_loss": val_loss, "val_bpc": val_loss / math.log(2), "val_chars": val_chars}
        self._try(self.net_path, lambda: save_dict(self.net_path, net | losses))
        at = {"step": net["step"], "epoch": round(net["step"] / batches.per_epoch, 4)}
        more = at | {"val_chars": val_chars, "final": True}
        self.log.add_figures(progress, batches, None, None, val_loss, **more)

    def go_back(self, state: TrainState, lr: float) -> str:
        """Restore the state last saved, with half the learning rate; return a sentence about it.

        Every process has to call it. Raises UserError when three rates were not low enough.
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
        self.log.forget_after(progress.step)
        return (
            f"{bad} steps in a row gave no finite gradient: back to step {progress.step}, with "
            f"{scale:g} of the learning rate"
        )

    def require_saved(self) -> None:
        """Raises UserError where the last save failed."""
        for problem in self.save_errors.values():
            raise UserError(f"the last save failed: {problem}; older files are whole")

    def _try(self, path: Path, write: Callable[[], None]) -> bool:
        """Write a file; return False where that fails, which is printed once."""
        try:
            write()
        except (OSError, UserError) as error:
            problem = f"{path}: {reason(error)}" if isinstance(error, OSError) else str(error)
            if path not in self.paths:  # a model kept on the way has only this one try
                _print_unsaved(f"{problem}; the run continues without it")
                return False
            if not self.save_errors:
                _print_unsaved(f"{problem}; the run continues, and tries again")
            self.save_errors[path] = problem
            return False
        self.save_errors.pop(path, None)
        return True


def _print_unsaved(problem: str) -> None:
    Terminal(sys.stdout).write(escape_control_chars(f"could not save: {problem}") + "\n")


def _has_state(net: Path) -> bool:
    """Return whether a model has a .resume file beside it: it is then a run's own model, not one
    kept on the way."""
    return net.with_suffix(".resume").exists()


def new_run_id(settings: dict[str, Any], fingerprint: str) -> str:
    """Return the same text for runs that give the same bytes; runs by the clock all differ.
    ``settings`` are those that decide the numbers."""
    if settings["minutes"]:
        return uuid.uuid4().hex
    text = json.dumps([settings, fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _set_aside(paths: list[Path]) -> list[str]:
    """Set these files aside; return one sentence about it, if any of them exists."""
    names = ", ".join(new.name for _, new in set_aside(paths))
    return [f"the files of an earlier run are set aside as {names}"] if names else []
