"""What a run shows in the terminal, and the signals it receives there."""

import signal
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager


def visible(text: str) -> str:
    """``text`` with control characters spelled out: a terminal would obey them."""
    return "".join(
        ascii(char)[1:-1] if unicodedata.category(char) == "Cc" and char not in "\n\t" else char
        for char in text
    )


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
