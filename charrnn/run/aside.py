"""Set aside the files of an earlier run."""

import os
from pathlib import Path

from charrnn.system.files import RUN_SUFFIXES


def free_number(paths: list[Path]) -> int:
    """Return the lowest number under which none of ``paths`` has been set aside."""
    n = 1
    while any(os.path.lexists(_numbered(path, n)) for path in paths):
        n += 1
    return n


def set_aside(paths: list[Path]) -> list[tuple[Path, Path]]:
    """Rename those of ``paths`` that exist, all with one number; return their (old, new) names.

    ``rnn.net`` becomes ``rnn.1.net``, ``lr_0.01`` becomes ``lr_0.01.1``. A symbolic link stays, and
    its target is renamed in its own folder. Nothing is ever overwritten. Raises OSError.
    """
    n = free_number(paths)
    moved = []
    for path in filter(os.path.isfile, paths):
        new = _numbered(path, n)
        new.touch(exist_ok=False)  # reserves the name; some file systems have no hard links
        try:
            os.replace(os.path.realpath(path), new)
        except OSError:
            new.unlink()
            raise
        moved.append((path, new))
    return moved


def bare(path: Path) -> Path:
    """Return a file's name without ``.net``, ``.resume`` or ``.jsonl``."""
    return path.with_suffix("") if path.suffix in RUN_SUFFIXES else path


def _numbered(path: Path, n: int) -> Path:
    """Return the new name of a file; where ``path`` is a link, of its target."""
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    ending = path.suffix if path.suffix in RUN_SUFFIXES else ""
    return path.with_name(f"{bare(path).name}.{n}{ending}")
