"""The distinct characters of a text, and their ids."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from charrnn.errors import UserError

UNKNOWN = "\ufffd"  # stands for the rare characters of a text read with --min-count


def code_points(text: str) -> np.ndarray:
    """Return the Unicode code point of each character, ``[len(text)]`` uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def text_of(points: np.ndarray) -> str:
    """Return the text with these code points, uint32: the inverse of ``code_points``."""
    return points.tobytes().decode("utf-32-le", "surrogatepass")


@dataclass(frozen=True)
class Vocabulary:
    """The distinct characters a model knows; a character's id is its place in ``tokens``."""

    tokens: tuple[str, ...]

    @classmethod
    def from_text(cls, text: str) -> "Vocabulary":
        """Return the vocabulary of ``text``, in code-point order: the same in every process."""
        return cls(tuple(chr(point) for point in np.unique(code_points(text))))

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> Tensor:
        """Return the ids of the characters, ``[len(text)]`` int64.

        Raises UserError with the characters that are not in the vocabulary, unless it has U+FFFD,
        which then stands for them.
        """
        points = code_points(text)
        known = code_points("".join(self.tokens))
        order = np.argsort(known)
        place = np.searchsorted(known, points, sorter=order).clip(max=len(known) - 1)
        ids = order[place]
        strange = known[ids] != points
        if strange.any() and UNKNOWN in self.tokens:
            ids[strange] = self.tokens.index(UNKNOWN)
        elif strange.any():
            names = " ".join(ascii(chr(point)) for point in np.unique(points[strange])[:10])
            raise UserError(f"characters the model never saw: {names}; leave them out")
        return torch.from_numpy(ids.astype(np.int64))

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """Return the characters with these ids."""
        return "".join(self.tokens[i] for i in (ids.tolist() if isinstance(ids, Tensor) else ids))
