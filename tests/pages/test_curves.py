"""The page of losses: points where their values say, and what a browser makes of it."""

import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from browser import Browser, needs_browser, running_browser  # noqa: F401
from page_cases import Page, log_line, plain

from charrnn import curves

RUNS = {
    "one.jsonl": [(20, 2.5, 2.25), (40, None, 1.9), (60, 1.6, 1.7), (80, 1.5, None)],
    "two.jsonl": [(33.25, 2.75, 2.5)],
}


def write_runs() -> None:
    for name, lines in RUNS.items():
        Path(name).write_text("".join(log_line(*line) for line in lines))


def marks(page: Page, kind: str, along: str) -> Callable[[float], float]:
    """From the first and last label of an axis: coordinate -> value."""
    labels = [(float(a[along]), t) for a, t in page.named("text") if a.get("class") == kind]
    found = [(at, float(t.replace(",", ""))) for at, t in labels if re.fullmatch(r"[\d.,]+", t)]
    (first, low), (last, high) = found[0], found[-1]
    return lambda place: low + (place - first) / (last - first) * (high - low)


def test_points_lie_where_their_values_say() -> None:
    write_runs()
    assert curves.main([*RUNS]) == 0
    figures = Path("curves.html").read_text(encoding="utf-8").split("<svg")[1:]
    assert len(figures) == 6
    factors = [factor for factor in (1, 1 / 50, 1e4) for _ in ("full", "phone")]
    for figure, factor in zip(figures, factors, strict=True):
        page = Page("<svg" + figure)
        x_of = marks(page, "x", "x")
        rate = [(a, t) for a, t in page.named("text") if t == "0.1"][-1]
        figure_only = figure.replace(f'y="{rate[0]["y"]}">0.1', f'y="{rate[0]["y"]}">')
        page = Page("<svg" + figure_only)
        y_of, bits_of = marks(page, "y", "y"), marks(page, "bits", "y")
        drawn = {kind: [] for kind in ("train_loss", "val_loss")}
        for attrs, _ in page.named("path"):
            if attrs.get("class") in drawn:
                pairs = [
                    tuple(map(float, p.split())) for p in re.findall(r"[ML]([^ML]+)", attrs["d"])
                ]
                drawn[attrs["class"]].append(pairs)
        for k, kind in ((1, "train_loss"), (2, "val_loss")):
            for lines, pairs in zip(RUNS.values(), drawn[kind], strict=True):
                expected = [(line[0] * factor, line[k]) for line in lines if line[k] is not None]
                assert len(pairs) == len(expected)
                for (x, y), (at, loss) in zip(pairs, expected, strict=True):
                    assert x_of(x) == pytest.approx(at, rel=2e-3)
                    assert y_of(y + 4) == pytest.approx(loss, abs=2e-3)
                    assert bits_of(y + 4) == pytest.approx(loss / math.log(2), abs=4e-3)
        best = [a for a, _ in page.named("circle") if a["class"] == "dot best"]
        assert [round(y_of(float(a["cy"]) + 4), 2) for a in best] == [1.7, 2.5]
        assert [t for a, t in page.named("text") if a.get("class") == "name"] == ["two", "one"]


def test_table_has_the_best_of_each_run() -> None:
    first = {"settings": {"cell": "gru", "n_hidden": 128, "n_layers": 2}, "run": "ab"}
    first["text"] = {"name": "my.txt", "chars": 5}
    lines = [log_line(60, 2.0, 1.5), log_line(120, 1.0, 1.25), log_line(180, 0.9, 1.375)]
    Path("a.jsonl").write_text(json.dumps(first) + "\n" + "".join(lines))
    assert curves.main(["a.jsonl"]) == 0
    said = plain("curves.html")
    assert "gru 128 \u00d7 2" in said and "my.txt" in said
    cells = dict((a["data-head"], t) for a, t in Page(Path("curves.html").read_text()).named("td"))
    assert cells["best nats"] == "1.2500" and cells["bits"] == "1.8034"
    assert cells["at step"] == "120" and cells["minutes"] == "3.0" and cells["chars/s"] == "10,000"
    # a finished run's figure, on all of the held-out text, counts; it is no point of a line
    with open("a.jsonl", "a") as file:
        file.write(log_line(180, None, 1.3125, step=120, final=True))
    assert curves.main(["a.jsonl"]) == 0
    page = Page(Path("curves.html").read_text())
    cells = dict((a["data-head"], t) for a, t in page.named("td"))
    assert cells["best nats"] == "1.3125" and cells["at step"] == "120"
    assert len(page.named("circle")) == 6 * 3


def test_an_early_outlier_is_marked_and_flattens_nothing() -> None:
    lines = [log_line(1, 16.7, 16.0)]
    lines += [log_line(i, 1.5 + 1 / i, 1.6 + 1 / i if i % 5 == 0 else None) for i in range(2, 50)]
    Path("a.jsonl").write_text("".join(lines))
    assert curves.main(["a.jsonl"]) == 0
    for figure in Path("curves.html").read_text().split("<svg")[1:]:
        page = Page("<svg" + figure)
        labels = [t for a, t in page.named("text") if a.get("class") == "y"]
        assert max(float(t) for t in labels) < 3
        marked = [t for a, t in page.named("text") if a.get("class") == "outlier"]
        assert marked == ["16.7"]  # one for marks so near to each other
        assert len([a for a, _ in page.named("path") if a.get("class") == "outlier"]) == 2


@pytest.mark.parametrize(
    "lines",
    [
        [log_line(1, None, None)],
        [log_line(0, 1.0, 1.0)],
        [log_line(1, 1.0, 1.0), log_line(1, 1.0, 1.0)],
        [log_line(1, math.nan, math.inf), log_line(2, 1e300, -1e300)],
        [log_line(1e11, 1e11, -1e11)],
        [log_line(1, 1.0, 1.0), log_line(1, 1.0, 1.0).replace("1.0", "1" + "0" * 400)],
        [log_line(1, 1e-300, 0.0), log_line(1e-300, 5e-324, 0.0)],
        [log_line(5, 1.0, 1.0), log_line(2, 1.0, 1.0, lr=None)],
        [log_line(5, 1.0, 1.0, lr=-1.0), log_line(2, -3.0, -1.0, step=None)],
    ],
)
def test_strange_numbers_are_drawn_or_left_out(lines: list[str]) -> None:
    Path("a.jsonl").write_text("".join(lines))
    assert curves.main(["a.jsonl"]) == 0
    source = Path("curves.html").read_text(encoding="utf-8")
    for svg in source.split("<svg")[1:]:
        numbers = re.findall(r' (?:[xy]|c[xy])="(.*?)"|[MLHV ](-?[\w.]+)', svg.split("</svg>")[0])
        assert "nan" not in svg and "inf" not in svg and len(numbers) > 10


NO_LOGS = [b"", b"\n", b"{", b"[1]", b"3", b'"seconds"', b"{}", b"\xff\xfe", b"[" * 100_000]
NO_LOGS += [b'{"settings": {}}\n', log_line(1, 1, 1).replace("1,", '"x",').encode()]


@pytest.mark.parametrize("contents", NO_LOGS)
def test_what_is_no_log_is_one_line(capsys: pytest.CaptureFixture[str], contents: bytes) -> None:
    Path("a.jsonl").write_bytes(contents)
    assert curves.main(["a.jsonl"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "a.jsonl: no log of train.py: " in error
    assert [path.name for path in Path().iterdir()] == ["a.jsonl"]


def test_lines_that_cannot_be_read_are_left_out_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = [log_line(10, 2.0, 1.9).encode(), log_line(20, 1.75, 1.5).encode()]
    bad = [contents.replace(b"\n", b"") + b"\n" for contents in NO_LOGS[2:9]]
    Path("a.jsonl").write_bytes(b"".join([bad[0], good[0], *bad[1:], b"\n", good[1], b'{"st']))
    assert curves.main(["a.jsonl"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("a.jsonl: 8 lines cannot be read and are left out\ncurves.html: ")
    assert "8 lines could not be read" in plain("curves.html")
    assert len(Page(Path("curves.html").read_text()).named("circle")) == 6 * 2


def log_of(name: str, value: float, text: str = "a.txt", **settings: object) -> str:
    """Leave a log of one evaluation; its path."""
    first = {"settings": settings, "text": {"name": text, "chars": 1000}}
    Path(f"{name}.jsonl").write_text(json.dumps(first) + "\n" + log_line(9, None, value))
    return f"{name}.jsonl"


def test_what_the_runs_were_told_differently_is_shown() -> None:
    logs = [log_of("a", 1.5, lr=0.1, cell="gru", seed=1), log_of("b", 1.6, lr=0.1, cell="lstm")]
    assert curves.main(logs) == 0
    said = plain("curves.html")
    assert "What differs a cell gru, seed 1 b cell lstm, seed \u2013" in said
    assert "do not compare" not in said
    assert curves.main([log_of("a", 1.5, lr=0.1), log_of("b", 1.6, "b.txt", lr=0.1)]) == 0
    said = plain("curves.html")
    assert "Their held-out texts differ: such losses do not compare." in said
    assert "a text a.txt of 1,000 characters b text b.txt of 1,000 characters" in said
    assert curves.main([log_of("a", 1.5, lr=0.1), log_of("b", 1.6, lr=0.1)]) == 0
    assert "differ" not in plain("curves.html")


@pytest.mark.parametrize("values", [(1.5, 1.52, 1.51, 1.9), [1.5 + i % 7 / 100 for i in range(30)]])
def test_names_stand_in_the_order_of_the_ends(values: list[float]) -> None:
    logs = [log_of(f"r{i:02d}", value) for i, value in enumerate(values)]
    assert curves.main(logs) == 0
    for figure in Path("curves.html").read_text().split("<svg")[1:]:
        texts = Page("<svg" + figure).named("text")
        heights = {t: float(a["y"]) for a, t in texts if a.get("class") == "name"}
        ends = dict(zip((f"r{i:02d}" for i in range(len(values))), values, strict=True))
        names = sorted(heights, key=heights.__getitem__)
        assert [ends[name] for name in names] == sorted(values, reverse=True)
        y = sorted(heights.values())
        assert y[0] > 30 and y[-1] < 350 and min(b - a for a, b in pairwise(y)) > 6


def test_runs_of_the_same_file_name_are_told_apart_by_their_paths() -> None:
    logs = ("a/rnn.jsonl", "b/rnn.jsonl", "other.jsonl")
    for path in logs:
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(log_line(10, 2.0, 1.5))
    assert curves.main([*logs]) == 0
    page = Page(Path("curves.html").read_text())
    names = [text for a, text in page.named("text") if a.get("class") == "name"]
    assert set(names) == {"a/rnn.jsonl", "b/rnn.jsonl", "other"}


def test_the_legend_names_what_is_there() -> None:
    Path("a.jsonl").write_text(log_line(1, 2.0, None) + log_line(2, 1.9, None))
    assert curves.main(["a.jsonl"]) == 0
    said = plain("curves.html")
    assert "Thin:" in said and not any(w in said for w in ("Thick:", "\u25cb", "\u25b2"))
    assert curves.main([log_of("b", 1.5)]) == 0
    said = plain("curves.html")
    assert "Thick:" in said and "\u25cb" in said and "Thin:" not in said and "\u25b2" not in said


@needs_browser
@pytest.mark.parametrize("width", [1000, 390])
def test_in_a_browser_no_name_lies_on_another(browser: Browser, width: int) -> None:
    lines = [log_line(i, 1.5 + 1 / i, 1.6 + 1 / i if i % 9 == 0 else None) for i in range(1, 99)]
    for k in range(4):  # four runs that end at the same place
        Path(f"run-{k}.jsonl").write_text("".join(lines))
    assert curves.main([f"run-{k}.jsonl" for k in range(4)]) == 0
    with browser.open(Path("curves.html"), width, 900) as tab:
        boxes = tab.evaluate(
            """[...document.querySelectorAll("svg text.name")].map(e => e.getBoundingClientRect())
              .filter(r => r.width).map(r => [r.left, r.top, r.right, r.bottom])"""
        )
        assert len(boxes) == 4
        for i, (left, top, right, bottom) in enumerate(boxes):
            assert left >= 0 and right <= width
            assert all(bottom <= b[1] + 4 or b[3] <= top + 4 for b in boxes[:i])


@needs_browser
def test_in_a_browser_one_switch_chooses_the_axis(browser: Browser) -> None:
    write_runs()
    assert curves.main([*RUNS]) == 0
    seen = """[...document.querySelectorAll("figure > div")].filter(e => e.offsetParent)
      .map(e => e.className)"""
    with browser.open(Path("curves.html"), 1000) as tab:
        assert tab.evaluate(seen) == ["seconds full"]
        tab.press("Tab")
        tab.press("ArrowRight")
        assert tab.evaluate(seen) == ["epoch full"]
        assert tab.evaluate("document.activeElement.id") == "by-epoch"
        outline = "getComputedStyle(document.activeElement.nextElementSibling).outlineStyle"
        assert tab.evaluate(outline) == "solid"
        tab.click("label[for=by-chars]")
        assert tab.evaluate(seen) == ["chars full"]
    with browser.open(Path("curves.html"), 390) as tab:
        assert tab.evaluate(seen) == ["seconds phone"]


def test_seeds_of_one_setting_are_their_mean_and_range() -> None:
    losses = {"a": (1, [2.0, 1.5]), "b": (2, [2.25, 1.75]), "c": (3, [2.5, 1.25]), "d": (3, [2, 1])}
    for name, (seed, values) in losses.items():
        about = {"seed": seed, "n_hidden": 8 if name == "d" else 16}
        first = json.dumps({"settings": about, "text": {"name": "t", "chars": 9}}) + "\n"
        lines = "".join(log_line(10 * i, None, value) for i, value in enumerate(values, 1))
        Path(f"{name}.jsonl").write_text(first + lines)
    logs = [f"{name}.jsonl" for name in losses]
    Path("b.jsonl").write_text(Path("b.jsonl").read_text() + "{cut")
    assert curves.main(logs) == 0
    assert "a and 2 more seeds: 1 lines could not be read" in plain("curves.html")
    page = Page(Path("curves.html").read_text())
    assert len(page.named("tr")) == 3  # the head, three seeds as one, another size
    said = plain("curves.html")
    assert "a and 2 more seeds" in said and "seed 1, 2, 3" in said
    assert "1.5000 (1.2500 to 1.7500)" in said and "the band is from lowest to highest" in said
    bands = [a["d"] for a, _ in page.named("path") if a.get("class") == "band"]
    assert len(bands) == 6  # a figure for each axis and width, held-out losses only
    curve = next(a["d"] for a, _ in page.named("path") if a.get("class") == "val_loss")
    heights = [[float(p.split()[1]) for p in re.findall(r"[ML]([^MLZ]+)", d)] for d in bands]
    means = [float(p.split()[1]) for p in re.findall(r"[ML]([^ML]+)", curve)]
    upper, lower = heights[0][:2], heights[0][:1:-1]
    assert all(u < m < low for u, m, low in zip(upper, means, lower, strict=True))
    # 2.25 lies half way between 2 and 2.5, 1.5 between 1.25 and 1.75
    assert [(u + low) / 2 for u, low in zip(upper, lower, strict=True)] == pytest.approx(means)
    assert curves.main([*logs[:1], logs[3]]) == 0
    assert "seeds" not in plain("curves.html")
