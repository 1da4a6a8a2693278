"""How much of a text stands in another: compared with a search for every substring."""

import json
from pathlib import Path

import numpy as np
import pytest
from runs import contents

from charrnn.eval import main
from charrnn.text.copied import RUN, Copied, find_copied
from charrnn.text.vocabulary import code_points


def compare(text: str, source: str, size: int = 1000) -> Copied:
    points = code_points(source)
    blocks = [points[i : i + size] for i in range(0, len(points), size)]
    return find_copied(code_points(text), lambda: blocks)


def naive(text: str, source: str) -> tuple[int, list[bool]]:
    """The length of the longest common substring; which characters are in one of RUN or more."""
    longest, marks = 0, [False] * len(text)
    for i in range(len(text)):
        while text[i : i + longest + 1] in source and i + longest < len(text):
            longest += 1
        if len(text) - i >= RUN and text[i : i + RUN] in source:
            marks[i : i + RUN] = [True] * RUN
    return longest, marks


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_what_a_search_for_every_substring_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = "".join(rng.choice(list("ab\n"), 3000))
    text = "".join(rng.choice(list("abc\n"), 100))
    for _ in range(rng.integers(4)):  # copies of all lengths, side by side or not
        at, length = rng.integers(len(source)), rng.integers(1, 200)
        text += source[at : at + length] + "x" * rng.integers(2)
    found = compare(text, source, size=int(rng.integers(1, 400)))
    longest, marks = naive(text, source)
    assert len(found.longest) == longest and found.longest in source and found.longest in text
    assert found.in_runs.tolist() == marks
    lines = [line for line in text.split("\n") if line]
    assert found.n_lines == len(lines)
    assert found.n_copied_lines == sum(line in set(source.split("\n")) for line in lines)


@pytest.mark.parametrize("text", ["", "a", "b" * RUN, "a" * RUN, "a" * (RUN - 1), "a" * 500])
@pytest.mark.parametrize("source", ["", "a", "a" * 29, "a" * 30, "a" * 400])
def test_edges(text: str, source: str) -> None:
    found = compare(text, source, size=7)
    longest, marks = naive(text, source)
    assert len(found.longest) == longest and found.in_runs.tolist() == marks


def test_a_name_is_copied_only_as_a_whole_line() -> None:
    found = compare("Ann\nAnna\nBo\n\nAnn", "Anna\nBob\nAnn\n")
    assert (found.n_lines, found.n_copied_lines) == (4, 3)
    assert found.longest == "Anna\nBo"


def test_the_program_says_how_much_of_a_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"name {i} of the list" for i in range(50)]
    Path("names.txt").write_text("\n".join(names), encoding="utf-8")
    Path("drawn.txt").write_text(f"{names[3]}\nanother name\n{names[7]}\n", encoding="utf-8")
    assert main(["--copied", "drawn.txt", "--data", "names.txt"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["lines"], found["copied_lines"], found["copied"]) == (3, 2, 0.0)
    assert found["longest_text"] in "\n".join(names) and found["longest"] >= len(names[3])
    Path("drawn.txt").write_bytes(b"x" + Path("names.txt").read_bytes()[5:105] + b"y")
    assert main(["--copied", "drawn.txt", "--data", "names.txt"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["copied"] == pytest.approx(100 / 102) and found["longest"] == 100
    before = contents(tmp_path)
    for flags in (["--copied", "drawn.txt"], ["--copied", "none.txt", "--data", "names.txt"]):
        assert main(flags) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and ("--data" in err or "none.txt" in err)
    assert contents(tmp_path) == before
