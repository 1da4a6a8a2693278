"""README and docs/ say what is so: names of tests, links, flags, keys of files, lengths."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch
from runs import ROOT, run_in

import sample
import train
from charrnn import curves, eval, neurons, share

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCS += sorted((ROOT / "benchmarks").rglob("*.md"))
PROGRAMS = (train, sample, eval, curves, neurons, share)
# flags of pip, torchrun, ruff and benchmarks.seeds that docs/ mentions
OTHERS = {"--dist", "--index-url", "--nproc-per-node", "--check", "--seeds", "--steps"}
MOST_WORDS = {"README.md": 1300, "benchmarks/README.md": 2000}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def headings(path: Path) -> set[str]:
    """The anchors that GitHub makes of a file's headings."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_every_link_leads_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", text, flags=re.MULTILINE))
    assert set(re.findall(r"\]\[([^\]]+)\]", text)) == named.keys(), name(path)
    for target in [*re.findall(r"\]\(([^)\s]+)\)", text), *named.values()]:
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{name(path)}: {target}"
        assert not anchor or anchor in headings(found), f"{name(path)}: {target}"


@pytest.mark.parametrize("path", MOST_WORDS)
def test_what_is_to_be_short_is_short(path: str) -> None:
    assert len((ROOT / path).read_text(encoding="utf-8").split()) <= MOST_WORDS[path]


def test_every_promise_names_tests_that_exist() -> None:
    tests = {
        f"{file.stem}::{node.name}"
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    rows = [
        line
        for line in (ROOT / "docs" / "promises.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and not line.startswith(("| what |", "|---"))
    ]
    assert len(rows) > 40
    for row in rows:
        named = re.findall(r"`(\w+::\w+)`", row)
        assert named, f"no test: {row}"
        assert set(named) <= tests, f"no such test: {set(named) - tests}"


def first_column(path: str, after: str) -> set[str]:
    """What stands in backquotes in the first column of the table below a heading."""
    text = (ROOT / path).read_text(encoding="utf-8").partition(after)[2]
    table = text[text.index("|---") :].partition("\n\n")[0]
    return {
        key for row in table.splitlines()[1:] for key in re.findall(r"`(\w+)`", row.split("|")[1])
    }


def test_flags_of_sample_and_their_defaults_are_those_of_the_docs() -> None:
    """train.py's are compared in test_settings.py, with the table of settings."""
    expected = {}
    for action in sample.parser()._actions:
        named = re.search(r"\(default: (.*)\)$", action.help or "")
        default = {None: "", False: "off"}.get(action.default, str(action.default))
        expected[action.option_strings[-1]] = named[1] if named else default.removesuffix(".0")
    del expected["--help"]
    text = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    table = text.partition("| `sample.py` |")[2].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        cells = row.split("|")
        flags, shown = re.findall(r"`(--[a-z-]+)", cells[1]), cells[-2].strip().replace("`", "")
        defaults = [expected.pop(flag) for flag in flags]  # KeyError: sample.py has no such flag
        assert defaults[0] == shown, flags
        assert {*defaults} <= {shown, ""}, flags
    assert not expected, "not in docs/flags.md"


def test_keys_of_a_runs_files_are_those_of_the_docs(tmp_path: Path) -> None:
    run_in(tmp_path, epochs=1)
    saved = torch.load(tmp_path / "rnn.net")
    assert first_column("docs/files.md", "## The model") == saved.keys()
    first, *lines = map(json.loads, (tmp_path / "rnn.jsonl").read_text().splitlines())
    fields = set().union(*lines)
    assert first_column("docs/files.md", "## The log") == fields
    first_line = first_column("docs/files.md", "### The first line")
    assert first_line == first.keys() | {"held_out"}  # this one only of a text in several files
    state = torch.load(tmp_path / "rnn.resume")
    assert first_column("docs/files.md", "## The state") == state.keys()


def test_every_flag_in_the_docs_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    for program in PROGRAMS:
        with pytest.raises(SystemExit):
            program.main(["--help"])
    known = set(re.findall(r"^ +(--[a-z-]+)", capsys.readouterr().out, flags=re.MULTILINE))
    assert {"--data", "--top-k", "--surprise", "--weights"} <= known
    for path in (path for path in DOCS if "benchmarks" not in path.parts):
        text = path.read_text(encoding="utf-8")
        unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - known - OTHERS
        assert unknown <= {"--help"}, name(path)
