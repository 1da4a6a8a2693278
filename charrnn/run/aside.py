"""Set aside the files of an earlier run."""

import os
from pathlib import Path

from charrnn.system.files import RUN_SUFFIXES


def free_number(paths: list[Path]) -> int:
    """Return the lowest number under which none of ``paths`` has been set aside."""
    n = 1
    while any(os.path.lexists(_numbered(_where(path), n)) for path in paths):
        n += 1
    return n


def set_aside(paths: list[Path]) -> list[tuple[Path, Path]]:
    """Rename those of ``paths`` that exist, all with one number; return their (old, new) names.

    ``rnn.net`` becomes ``rnn.1.net``, ``lr_0.01`` becomes ``lr_0.01.1``. A symbolic link stays, and
    its target is renamed in its own folder. Nothing is ever overwritten. Raises OSError.
    """
    n = free_number(paths)
    moved = []
    for path in paths:
        if os.path.isfile(path):
            old, new = _where(path), _numbered(_where(path), n)
            new.touch(exist_ok=False)  # reserves the name; some file systems have no hard links
            try:
                os.replace(old, new)
            except OSError:
                new.unlink()
                raise
            moved.append((path, new))
    return moved


def _where(path: Path) -> Path:
    """Return the file to rename: the target where ``path`` is a link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _numbered(path: Path, n: int) -> Path:
    if path.suffix in RUN_SUFFIXES:
        return path.with_suffix(f".{n}{path.suffix}")
    return path.with_name(f"{path.name}.{n}")
