"""What the command lines share: checked numbers, and errors that are one line."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from charrnn.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors; a flag is taken only when it is spelled out."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists every flag)\n")


def number(
    kind: type, low: float = 0, high: float = float("inf"), above: bool = False, below: bool = False
) -> Callable[[str], float]:
    """An argparse type: a number from ``low`` (or strictly above) to ``high`` (or below)."""
    noun = "a whole number" if kind is int else "a number"
    bounds = f"{'above' if above else 'at least'} {low}"
    if high != float("inf"):
        bounds += f" and {'below' if below else 'at most'} {high}"

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        fits = (value > low if above else value >= low) and (
            value < high if below else value <= high
        )
        if not fits or value == float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun} {bounds}")
        return value

    return parse


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call ``main`` and leave: 2 and one line on stderr for what a user can mend."""
    sys.stdout.reconfigure(errors="backslashreplace")  # a console may not know every character
    try:
        status = main()
        sys.stdout.flush()
        sys.exit(status)
    except UserError as error:
        print(f"{os.path.basename(sys.argv[0])}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        name = os.path.basename(sys.argv[0])
        print(
            f"{name}: error: not enough memory; ask for a smaller model or batch, "
            "or for fewer samples",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
