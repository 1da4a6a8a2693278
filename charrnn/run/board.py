"""TensorBoard's files of a run, written by torch's own writer."""

import importlib
from typing import Any

from charrnn.errors import UserError
from charrnn.system.console import say


class Board:
    """The curves of a run for TensorBoard. Where its writer fails, points are missing; the run
    continues."""

    def __init__(self, folder: str) -> None:
        """``folder`` is made with the first point. Raises UserError without TensorBoard."""
        try:
            self.make = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        except ImportError:
            raise UserError(
                "--tensorboard: the package tensorboard is not installed; pip install tensorboard, "
                "or leave --tensorboard out and see python -m charrnn.curves"
            ) from None
        self.folder, self.has_failed = folder, False
        self.writer: Any = None

    def add(self, step: int, numbers: dict[str, float | None]) -> None:
        """Add a point to each of these curves whose number is not None."""
        try:
            self.writer = self.writer or self.make(self.folder)
            for name, number in numbers.items():
                if number is not None:
                    self.writer.add_scalar(name, number, step)
        except Exception as error:  # from the disk, or from the writer's own thread, of any kind
            self._lose(error)

    def close(self) -> None:
        """Write the points that the writer has not written yet."""
        try:
            if self.writer:
                self.writer.close()
        except Exception as error:
            self._lose(error)

    def _lose(self, error: Any) -> None:
        self.writer = None  # a writer that failed stays broken; the next point gets a new one
        if not self.has_failed:
            self.has_failed = True
            say(f"--tensorboard {self.folder}: points are missing: {error}; the run continues")
