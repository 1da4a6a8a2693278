"""The terminal: what may be printed there, when it may be gone, and the signals it sends."""

import os
import reprlib
import shlex
import signal
import sys
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


def escape_control_chars(text: str) -> str:
    """``text`` with control characters spelled out: a terminal would obey them."""
    return "".join(
        ascii(char)[1:-1] if unicodedata.category(char) == "Cc" and char not in "\n\t" else char
        for char in text
    )


def brief(value: object) -> str:
    """A value from a file for a message: the beginning of its ``repr``, in one line."""
    return escape_control_chars(reprlib.repr(value)[:40].replace("\n", " "))


def shell_name(path: str | os.PathLike) -> str:
    """A file's name as a command line takes it: quoted, and never like a flag."""
    name = os.fspath(path)
    return shlex.quote(f"./{name}" if name.startswith("-") else name)


class Terminal:
    """A stream to print on that may be closed, full or left by its reader: that loses messages, not
    the run. Characters that its encoding lacks are spelled out."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError, AttributeError):  # AttributeError: None, or replaced
            encoding = getattr(self.stream, "encoding", None) or "utf-8"
            self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            self.stream.flush()

    def isatty(self) -> bool:
        with suppress(OSError, ValueError, AttributeError):
            return self.stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)  # fileno and the like, where there are any


def say(line: str) -> None:
    """Print a line on stderr, control characters spelled out; never fails."""
    Terminal(sys.stderr).write(escape_control_chars(line) + "\n")


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """A list that receives SIGINT, SIGTERM or SIGHUP once; a second one ends the process at once.

    A signal that was ignored when this begins stays ignored, as SIGHUP under nohup. Only the main
    thread can be told of signals; elsewhere the list stays empty.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def catch(number: int, _frame: object) -> None:
        caught.append(number)
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        say("\nfinishing this step and saving; once more stops at once")

    handlers = {number: signal.getsignal(number) for number in ENDING}
    before = {n: handler for n, handler in handlers.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
