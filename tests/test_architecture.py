"""Imports point one way: the folders of charrnn/ show the architecture."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("system", "text", "network", "writing", "training", "run", "pages")  # lowest first
SHARED = ("errors", "before_torch")  # which any file may import
FILES = sorted((ROOT / "charrnn").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The full names of the modules and names that a file imports, wherever it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def folder_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "charrnn").parts
    return parts[0] if len(parts) > 1 else "programs"


def test_every_folder_has_its_place() -> None:
    folders = {folder_of(path) for path in FILES}
    assert folders == {*FOLDERS, "programs"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_arrow_points_up(path: Path) -> None:
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("charrnn.")}
    folder = folder_of(path)
    if folder in FOLDERS:
        allowed = {*FOLDERS[: FOLDERS.index(folder) + 1], *SHARED}
        assert ours <= allowed, f"{path} imports from {ours - allowed}"
    assert not {"train", "sample"} & imported(path)
    if folder == "system":
        assert not {name for name in imported(path) if name.split(".")[0] == "torch"}


def test_no_cycle() -> None:
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in FILES}
    arrows = {}
    for name, path in names.items():
        found = imported(path)
        arrows[name] = {other for other in names if any(_is_of(one, other) for one in found)}
    seen: list[str] = []

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a cycle: {' -> '.join((*way, name))}"
        if name not in seen:
            for other in arrows[name]:
                visit(other, (*way, name))
            seen.append(name)

    for name in names:
        visit(name, ())


def _is_of(imported_name: str, module: str) -> bool:
    """Whether this is a module, or a name in it."""
    return imported_name == module or imported_name.rpartition(".")[0] == module
