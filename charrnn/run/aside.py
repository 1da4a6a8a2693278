"""Set aside the files of an earlier run."""

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

from charrnn.system.files import (
    RUN_SUFFIXES,
)

try:
    import fcntl
except ImportError:  # on Windows; there an open file can be neither locked so nor removed
    fcntl = None


def free_number(paths: Iterable[Path]) -> int:
    """The lowest number under which none of ``paths`` has been set aside."""
    targets = [_where(path) for path in paths]
    for n in itertools.count(1):
        if not any(os.path.lexists(_numbered(target, n)) for target in targets):
            return n


def set_aside(paths: list[Path]) -> list[tuple[Path, Path]]:
    """Rename those of an earlier run's files that exist, all with one number: (old, new) names.

    ``rnn.net`` becomes ``rnn.1.net``, ``lr_0.01`` becomes ``lr_0.01.1``. A symbolic link stays and
    its target is renamed, where it lies. Raises OSError; never overwrites anything.
    """
    n = free_number(paths)
    moved = []
    for path in paths:
        if os.path.isfile(path):
            old, new = _where(path), _numbered(_where(path), n)
            with new.open("xb"):  # takes the name, or fails; not every file system has hard links
                pass
            try:
                os.replace(old, new)
            except OSError:
                new.unlink()
                raise
            moved.append((path, new))
    return moved


def _where(path: Path) -> Path:
    """The file itself, as the user named it unless that is a link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _numbered(path: Path, n: int) -> Path:
    if path.suffix in RUN_SUFFIXES:
        return path.with_suffix(f".{n}{path.suffix}")
    return path.with_name(f"{path.name}.{n}")
