"""The log of a run: lines of JSON, of which the first describes the run."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charrnn.run.board import Board
from charrnn.system.files import atomic_file
from charrnn.system.values import Number
from charrnn.training.batches import Batches
from charrnn.training.state import Progress

OnLine = Callable[[dict[str, Any]], object] | None
CURVES = ("train_loss", "val_loss", "lr")  # for TensorBoard


class Log:
    """The lines of a ``.jsonl`` file, kept in memory and written as a whole at each save.

    Lines that cannot be read, which a user may have added, stay as they are.
    """

    def __init__(self, path: Path, on_line: OnLine) -> None:
        """``on_line`` is called with each line that is added."""
        self.path, self.on_line = path, on_line
        self.lines: list[bytes] = []
        self.board: Board | None = None  # which gets the same figures

    def add(self, contents: dict[str, Any]) -> None:
        """Add a line."""
        self.lines.append(to_line(contents))
        if self.on_line:
            self.on_line(read_line(self.lines[-1]))

    def add_figures(
        self,
        progress: Progress,
        batches: Batches,
        lr: float | None,
        train_loss: float | None,
        val_loss: float | None,
        **of_the_end: Any,
    ) -> None:
        """Add a line about the run as it is now, and a point to TensorBoard's curves; losses are in
        nats per character. The run's last line has also, or instead, the figures ``of_the_end``,
        and is no point of a curve."""
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
        self.add(line | of_the_end)
        if self.board and not of_the_end:
            self.board.add(progress.step, {name: line[name] for name in CURVES})

    def load(self) -> None:
        """Read the lines that the file has, if there is one."""
        if self.path.exists():
            self.lines = self.path.read_bytes().splitlines(keepends=True)
        if self.lines and not self.lines[-1].endswith((b"\n", b"\r")):
            self.lines[-1] += b"\n"  # the file was cut or edited; a new line must not join its last

    def readable(self) -> list[dict[str, Any]]:
        """Return the contents of the lines that can be read."""
        return list(filter(None, map(read_line, self.lines)))

    def forget_after(self, step: int) -> None:
        """Drop the lines of later steps and of the run's end, which will be made again."""
        later = Number(int, step + 1)

        def is_kept(contents: dict[str, Any]) -> bool:
            return contents.get("step") not in later and not contents.get("final")

        self.lines = [line for line in self.lines if is_kept(read_line(line))]

    def write(self) -> None:
        """Replace the file. Raises OSError."""
        with atomic_file(self.path) as file:
            file.writelines(self.lines)

    def close(self) -> None:
        """Close TensorBoard's files."""
        if self.board:
            self.board.close()


def to_line(contents: dict[str, Any]) -> bytes:
    """Return a line of JSON, which has no NaN: null stands for numbers that are not finite."""
    plain = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in contents.items()
    }
    return json.dumps(plain).encode() + b"\n"


def read_line(line: bytes) -> dict[str, Any]:
    """Return the contents of a line of the log, empty for one that cannot be read."""
    try:
        contents = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return contents if isinstance(contents, dict) else {}
