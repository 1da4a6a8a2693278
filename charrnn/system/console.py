"""The terminal: safe printing, also where it is closed, and the signals it sends."""

import os
import reprlib
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

ENDING = [each for each in signal.Signals if each.name in ("SIGINT", "SIGTERM", "SIGHUP")]
# the control characters of Unicode, spelled out; tab and newline stay
CONTROLS = {i: ascii(chr(i))[1:-1] for i in (*range(9), *range(11, 32), *range(127, 160))}


def escape_control_chars(text: str) -> str:
    """Return ``text`` with control characters spelled out, so that no terminal obeys them."""
    return text.translate(CONTROLS)


def brief(value: object) -> str:
    """Return the beginning of the ``repr`` of a value from a file in one line, for a message."""
    return escape_control_chars(reprlib.repr(value)[:40].replace("\n", " "))


def shell_name(path: str | os.PathLike) -> str:
    """Return a file's name for use on a command line: quoted, and never read as a flag."""
    name = os.fspath(path)
    return shlex.quote(f"./{name}" if name.startswith("-") else name)


class Terminal:
    """A text stream or None, on which printing never fails. If the stream is missing, closed, full
    or no longer read, messages are lost. Characters that its encoding lacks are spelled out."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError, AttributeError):  # AttributeError: no stream
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
        return getattr(self.stream, name)  # fileno and others


def say(line: str) -> None:
    """Print a line on stderr, with control characters spelled out. Never fails."""
    Terminal(sys.stderr).write(escape_control_chars(line) + "\n")


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Yield a list to which the first SIGINT, SIGTERM or SIGHUP is appended. A second one ends the
    process immediately.

    A signal that is ignored before, such as SIGHUP under nohup, stays ignored. Python delivers
    signals to the main thread only; in another thread the list stays empty.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def catch(number: int, _frame: object) -> None:
        caught.append(number)
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        say("\nfinishing this step and saving; a second signal stops at once")

    before = {n: signal.getsignal(n) for n in ENDING if signal.getsignal(n) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
