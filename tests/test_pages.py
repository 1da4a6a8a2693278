"""The pages against models set by hand, against values written out, and in a real browser."""

import importlib
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import charrnn
from charrnn import CharRNN, Vocabulary, evaluate, save_checkpoint
from charrnn import curves as curves_module
from charrnn import neurons as neurons_module
from charrnn.cli import run
from charrnn.page import SHADES, STYLE

evaluate_module = importlib.import_module("charrnn.evaluate")
charrnn.evaluate = evaluate  # the package's own name is the function
SCRIPT = "<script>document.title='hacked'</script>"
HOSTILE = (
    f"{SCRIPT}</div></title></style>{SCRIPT}<img src=x onerror=\"document.title='hacked'\">\n"
    "\" onmouseover=\"document.title='hacked'\" x=' &amp; &lt;b&gt; &#60;script&#62; <!-- ]]>\n\n"
    "\x1b[31m\x07\x7f\x85 a\rb tab\there \u202eback\u202c \u05e9\u05dc\u05d5\u05dd "
    "\u0645\u0631\u062d\u0628\u0627 e\u0301\u0323 \U0001f468\u200d\U0001f469 \u00a0\u2028\ufeff\n"
    'he said "yes" (or [no])\nand (again) \u201cquoted\u201d\n'
)
SPELLED = {"\r": "\\r", "\x1b": "\\x1b", "\x07": "\\x07", "\x7f": "\\x7f", "\x85": "\\x85"}
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


class Page(HTMLParser):
    """All elements as (tag, attributes), and the text of those in the path to each character."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []  # an element's own text, by its place in elements
        self.open: list[int] = []
        self.blocks: list[str] = []  # all text in each <div class="text">
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.texts.append("")
        if self.elements[-1] == ("div", {"class": "text"}):
            self.blocks.append("")
        if tag not in self.VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.elements[self.open.pop()][0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]] += data
        if any(self.elements[i] == ("div", {"class": "text"}) for i in self.open):
            self.blocks[-1] += data

    def named(self, tag: str) -> list[tuple[dict[str, str], str]]:
        both = zip(self.elements, self.texts, strict=True)
        return [(attrs, text) for (name, attrs), text in both if name == tag]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Call a program's main in an empty folder as ``python -m`` would; its exit status."""
    monkeypatch.chdir(tmp_path)

    def status_of(module: object, *args: str) -> int:
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *args])
        with pytest.raises(SystemExit) as left:
            run(module.main)
        return left.value.code or 0

    return status_of


def bigram_model(tokens: tuple[str, ...]) -> tuple[CharRNN, Tensor]:
    """A model that gives p[j] of token j after token i as set here, ``[V, V]``."""
    n = len(tokens)
    p = torch.rand(n, n, generator=torch.Generator().manual_seed(1)).pow(4).add(1e-3)
    p /= p.sum(dim=1, keepdim=True)
    model = CharRNN(tokens, n, 1, 0.0, "rnn")
    with torch.no_grad():  # h is 1 for the token read, -1 for all others
        for weight in model.lstm.parameters():
            weight.zero_()
        model.lstm.weight_ih_l0.copy_(40 * torch.eye(n))
        model.lstm.bias_ih_l0.fill_(-20)
        model.fc.weight.copy_(p.log().T / 2)
        model.fc.bias.copy_(p.log().sum(dim=0) / 2)
    return model, p


def hand_set_lstm(tokens: tuple[str, ...]) -> CharRNN:
    """Cell 2 is set by an opening quote and reset by a closing one, 5 so for brackets (downwards),
    7 grows along the line; all others do as they like."""
    torch.manual_seed(0)
    model = CharRNN(tokens, 9, 1, 0.0)
    lstm, n = model.lstm, 9
    weights = (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0)
    rules = ((2, "\u201c", "\u201d\n", 8.0), (5, "(", ")\n", -8.0), (7, tokens, "\n", 0.01))
    with torch.no_grad():
        for cell, opening, closing, change in rules:
            for weight in weights:
                weight[cell::n] = 0
            gates = zip(range(cell, 4 * n, n), (-20.0, 20.0, change, 20.0), strict=True)
            for row, bias in gates:  # input, forget, cell, output
                lstm.bias_ih_l0[row] = bias
            for char in opening:
                lstm.weight_ih_l0[cell, tokens.index(char)] = 40
            for char in closing:
                lstm.weight_ih_l0[n + cell, tokens.index(char)] = -40
    return model


def save(name: str, model: CharRNN, text: str) -> Tensor:
    """Leave ``name.net`` and ``name.txt``; the text's ids."""
    Path(f"{name}.txt").write_text(text, encoding="utf-8", newline="")
    save_checkpoint(f"{name}.net", model)
    return Vocabulary(tuple(model.unique_tokens)).encode(text)


def spelled(text: str) -> str:
    return "".join(SPELLED.get(char, char) for char in text)


def log_line(seconds: float, train: float | None, val: float | None) -> str:
    line = {"step": 1, "epoch": seconds / 50, "seconds": seconds, "train_loss": train}
    line |= {"val_loss": val, "val_bpc": None, "chars_per_second": 1, "lr": 0.1}
    return json.dumps(line | {"chars": int(seconds * 1e4), "skipped": 0}) + "\n"


def test_heatmap_shows_the_bits_and_guesses_of_a_known_model(call: Callable[..., int]) -> None:
    text = HOSTILE * 3
    tokens = (*sorted(set(text)), "\ud800", "\u0301")
    tokens = tuple(dict.fromkeys(tokens))
    model, p = bigram_model(tokens)
    ids = save("a", model, text).tolist()
    flags = ("--ckpt", "a.net", "--data", "a.txt", "--split", "all", "--device", "cpu")
    assert call(evaluate_module, *flags, "--heatmap", "a.html") == 0
    page = Page(Path("a.html").read_bytes().decode())
    assert page.blocks == [spelled(text)]
    cards = [attrs["data-g"].split("\n") for attrs, _ in page.named("i") if "data-g" in attrs]
    shades = [attrs["style"] for attrs, _ in page.named("i") if "data-g" in attrs]
    assert len(cards) == len(text) - 1
    for card, shade, before, after in zip(cards, shades, ids, ids[1:], strict=False):
        bits = -math.log2(p[before, after])
        found = re.search(r": (\d+\.\d+) bits, (\d+\.\d)%$", card[0])
        assert float(found[1]) == pytest.approx(bits, abs=0.006)
        assert float(found[2]) == pytest.approx(100 * p[before, after].item(), abs=0.06)
        assert int(shade.split()[1]) in {min(9, int(bits + error)) for error in (-1e-3, 1e-3)}
        guesses = [float(line.split("%")[0]) for line in card[2:]]
        best = sorted((100 * p[before]).tolist(), reverse=True)[:5]
        assert guesses == pytest.approx(best, abs=0.06)
    following = [tokens[i] for i in p[ids[0]].argsort(descending=True)[:5]]
    for char, line in zip(following, cards[0][2:], strict=True):
        assert char in line or re.search(r"% [a-z -]+$|% u\+[0-9a-f]+$|% \\ud800", line)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_heatmap_agrees_with_evaluate(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], cell: str
) -> None:
    torch.manual_seed(3)
    model = CharRNN(tuple("ab\n"), 12, 2, 0.5, cell).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 3  # so that it matters what came before
    text = "".join("ab\n"[i] for i in torch.randint(3, (4500,)))
    expected = evaluate(model, save("a", model, text))
    flags = ("--ckpt", "a.net", "--data", "a.txt", "--split", "all", "--device", "cpu")
    assert call(evaluate_module, *flags, "--heatmap", "a.html") == 0
    line = json.loads(capsys.readouterr().out)
    assert line["loss"] == pytest.approx(expected, abs=1e-6)
    cards = re.findall(r'data-g="[^:]*: ([\d.]+) bits', Path("a.html").read_text(encoding="utf-8"))
    bits = [float(card) for card in cards]
    assert len(bits) == line["chars"] == 4499
    assert np.mean(bits) == pytest.approx(line["bpc"], abs=1e-3)


def test_heatmap_of_a_long_text_is_cut(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_module, "SHOWN", 300)
    model, _ = bigram_model(tuple("ab"))
    loss = evaluate(model, save("a", model, "aab" * 1000))
    flags = ("--ckpt", "a.net", "--data", "a.txt", "--split", "all", "--device", "cpu")
    assert call(evaluate_module, *flags, "--heatmap", "a.html") == 0
    page = Page(Path("a.html").read_text(encoding="utf-8"))
    assert page.blocks == ["aab" * 100]
    (_, said), *_ = page.named("p")
    assert f"{loss:.4f} nats" in said and "3,000 characters" in said and "first 300" in said


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_states_are_those_of_the_last_layer(cell: str) -> None:
    torch.manual_seed(0)
    model = CharRNN(tuple("abcd"), 8, 2, 0.5, cell).eval()
    ids = torch.randint(4, (770,))
    found = neurons_module.states(model, ids)
    assert found.shape == (768, 8)  # three rows of 256
    hidden, expected = model.init_hidden(1), []
    with torch.no_grad():
        for i in ids[:768]:
            _, hidden = model(i.view(1, 1), hidden)
            expected.append(hidden[1][-1, 0].tanh() if cell == "lstm" else hidden[-1, 0])
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=0)


def test_cells_that_follow_are_found(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    generator = torch.Generator().manual_seed(1)
    text, quoted, bracketed = "", [], []
    for kind in torch.randint(6, (400,), generator=generator).tolist():
        word = ("to be ", "or not\n", "so\n\n", "\u201cyes, no", "(as it is", "that is ")[kind]
        closing = {3: "\u201d", 4: ")"}.get(kind, "")
        text += word + closing
        quoted += [kind == 3] * len(word) + [False] * len(closing)
        bracketed += [kind == 4] * len(word) + [False] * len(closing)
    model = hand_set_lstm(tuple(sorted(set(text))))
    ids = save("a", model, text)
    n = len(neurons_module.states(model, ids))
    assert len(text) - 64 < n <= len(text)
    columns = [i - text.rfind("\n", 0, i + 1) for i in range(n)]
    assert call(neurons_module, "--ckpt", "a.net", "--data", "a.txt", "--split", "all") == 0
    c, hidden = [], model.init_hidden(1)
    with torch.no_grad():
        for i in ids[:n]:
            _, hidden = model(i.view(1, 1), hidden)
            c.append(hidden[1][0, 0].tanh().numpy())
    cells = np.stack(c)
    printed = capsys.readouterr().out.splitlines()
    names = ("inside quotes", "place in the line", "inside brackets")
    follows = (quoted[:n], columns, bracketed[:n])
    for line, name, cell, followed in zip(printed, names, (2, 7, 5), follows, strict=True):
        r = [np.corrcoef(cells[:, k], np.array(followed, float))[0, 1] for k in range(9)]
        found = re.findall(r"cell (\d+) \(([+-][\d.]+)\)", line)
        assert line.startswith(f"{name}: cell {cell} ") and len(found) == 3
        assert [int(k) for k, _ in found] == sorted(range(9), key=lambda k: -abs(r[k]))[:3]
        for k, correlation in found:
            assert float(correlation) == pytest.approx(r[int(k)], abs=2e-3)
    assert abs(float(re.search(r"cell 5 \((.*?)\)", printed[2])[1])) > 0.95
    page = Page(Path("neurons.html").read_text(encoding="utf-8"))
    assert len(page.blocks) == 9 and all(block in text for block in page.blocks)


def test_shades_and_underlines_follow_the_cell(call: Callable[..., int]) -> None:
    text = "it (is so) or (not) \u201cnow\u201d\n" * 4
    model = hand_set_lstm(tuple(sorted(set(text))))
    save("a", model, text)
    assert call(neurons_module, "--ckpt", "a.net", "--data", "a.txt", "--split", "all") == 0
    page = Page(Path("neurons.html").read_text(encoding="utf-8"))
    chars = [item for item in page.named("i") if not re.fullmatch(r"[+-]\d\.\d", item[1])]
    brackets = chars[6 * len(text) : 7 * len(text)]  # the seventh block: the best cell
    assert "".join(char for _, char in brackets) == text
    inside = [text.count("(", 0, i + 1) > text.count(")", 0, i + 1) for i in range(len(text))]
    assert [attrs.get("class") == "u" for attrs, _ in brackets] == inside
    low = round(math.tanh(-1) * SHADES)  # the cell gate is tanh(-8), about -1
    assert [attrs["style"] for attrs, _ in brackets] == [
        f"--shade: {low if is_inside else 0}" for is_inside in inside
    ]


def test_text_without_quotes_or_brackets(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    save("a", bigram_model(tuple("ab\n"))[0], "abba\nba\n" * 100)
    assert call(neurons_module, "--ckpt", "a.net", "--data", "a.txt", "--split", "all") == 0
    out = capsys.readouterr().out
    page = Page(Path("neurons.html").read_text(encoding="utf-8"))
    for name in ("inside quotes", "inside brackets"):
        said = f"{name}: nothing to follow in this text"
        assert said in out and said in [text for _, text in page.named("h2")]
    assert len(page.blocks) == 3  # of the place in the line
    save("b", bigram_model(tuple("ab"))[0], "ab")
    assert call(neurons_module, "--ckpt", "b.net", "--data", "b.txt", "--split", "all") == 0


def test_blank_lines_end_quotes_and_brackets() -> None:
    text = 'a "b\n\nc (d\ne\n\n)f "g"'
    quotes, columns, brackets = neurons_module.properties(text).values()
    assert [text[i] for i in quotes.nonzero()[:, 0]] == list('"b\n"g')
    assert [text[i] for i in brackets.nonzero()[:, 0]] == list("(d\ne\n")
    assert columns.tolist() == [1, 2, 3, 4, 0, 0, 1, 2, 3, 4, 0, 1, 0, 0, 1, 2, 3, 4, 5, 6]


def marks(svg: list[tuple[dict[str, str], str]], fixed: str, at: str, along: str) -> Callable:
    """From the labels of two marks on an axis: coordinate -> value."""
    found = [(float(a[along]), float(t.replace(",", ""))) for a, t in svg if a.get(fixed) == at]
    (first, low), (last, high) = found[0], found[-1]
    assert len(found) >= 4
    return lambda place: low + (place - first) / (last - first) * (high - low)


def test_points_lie_where_their_values_say(call: Callable[..., int]) -> None:
    runs = {
        "one.jsonl": [(20, 2.5, 2.25), (40, None, 1.9), (60, 1.6, 1.7), (80, 1.5, None)],
        "two.jsonl": [(33.25, 3.75, 3.5)],
    }
    for name, lines in runs.items():
        Path(name).write_text("".join(log_line(*line) for line in lines))
    assert call(curves_module, *runs) == 0
    html = Path("curves.html").read_text(encoding="utf-8")
    figures = html.split("<svg")[1:]
    assert len(figures) == 3
    for figure, factor in zip(figures, (1, 1 / 50, 1e4), strict=True):
        page = Page("<svg" + figure)
        texts = page.named("text")
        x_of, y_of = marks(texts, "y", "398", "x"), marks(texts, "x", "40", "y")
        offset = 4  # a label's base line lies below its grid line
        expected, paths = [], []
        for lines in runs.values():
            for k in (1, 2):
                known = [(line[0], line[k]) for line in lines if line[k] is not None]
                expected += known
                broken = any(line[k] is None for line in lines[1:-1])
                paths.append("M" * (len(known) > 0) + ("M" if broken else "L") * (len(known) > 1))
                paths[-1] += "L" * (len(known) - 2)
        circles = [attrs for attrs, _ in page.named("circle")]
        assert len(circles) == len(expected)
        for circle, (seconds, loss) in zip(circles, expected, strict=True):
            assert x_of(float(circle["cx"])) == pytest.approx(seconds * factor, rel=1e-3)
            assert y_of(float(circle["cy"]) + offset) == pytest.approx(loss, abs=1e-3)
        drawn = [a["d"] for a, _ in page.named("path") if a["class"] != "grid"]
        assert [re.sub(r"[^ML]", "", d) for d in drawn] == paths
        places = [tuple(pair.split()) for d in drawn for pair in re.split("[ML]", d) if pair]
        assert places == [(circle["cx"], circle["cy"]) for circle in circles]
    assert [text for _, text in Page(html).named("bdi")] == ["one.jsonl", "two.jsonl"] * 3


@pytest.mark.parametrize(
    "lines",
    [
        [log_line(1, None, None)],
        [log_line(0, 1.0, 1.0)],
        [log_line(1, 1.0, 1.0), log_line(1, 1.0, 1.0)],
        [log_line(1, math.nan, math.inf), log_line(2, 1e300, -1e300)],
        [log_line(1e11, 1e11, -1e11)],
        [log_line(1, 1.0, 1.0).replace("1.0", "1" + "0" * 400)],
        [log_line(1, 1e-300, 0.0), log_line(1e-300, 5e-324, 0.0)],
    ],
)
def test_strange_numbers_are_drawn_or_left_out(call: Callable[..., int], lines: list[str]) -> None:
    Path("a.jsonl").write_text("".join(lines))
    assert call(curves_module, "a.jsonl") == 0
    html = Path("curves.html").read_text(encoding="utf-8")
    numbers = re.findall(r' (?:[xy]|c[xy])="(.*?)"|[MLHV ](-?[\w.]+)', html.split("<svg")[1])
    assert "nan" not in html and "inf" not in html and len(numbers) > 10


NO_LOGS = [b"", b"\n", b"{", b"[1]", b"3", b'"seconds"', b"{}", b"\xff\xfe", b"[" * 100_000]
NO_LOGS += [
    log_line(1, 1, 1).encode() + b'{"step": 1',
    log_line(1, 1, 1).replace("1,", '"x",').encode(),
]


@pytest.mark.parametrize("contents", NO_LOGS)
def test_what_is_no_log_is_one_line(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], contents: bytes
) -> None:
    Path("a.jsonl").write_bytes(contents)
    assert call(curves_module, "a.jsonl") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "a.jsonl: no log of train.py: line" in error
    assert [path.name for path in Path().iterdir()] == ["a.jsonl"]


def test_what_cannot_be_read_or_written_is_one_line(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    save("a", bigram_model(tuple("ab"))[0], "ab" * 50)
    Path("a.jsonl").write_text(log_line(1, 1, 1))
    Path("fixed.html").touch(0o444)
    before = sorted(Path().iterdir())
    model = ("--ckpt", "a.net", "--data", "a.txt")
    for module, *args in (
        (curves_module, "missing.jsonl"),
        (curves_module, "."),
        (curves_module,),
        (curves_module, "a.jsonl", "--out", "no/where.html"),
        (curves_module, "a.jsonl", "--out", "fixed.html"),
        (neurons_module, *model, "--out", "."),
        (neurons_module, "--ckpt", "missing.net", "--data", "a.txt"),
        (evaluate_module, *model, "--heatmap", "no/where.html"),
        (evaluate_module, *model, "--heatmap", ""),
    ):
        assert call(module, *args) == 2
        out, error = capsys.readouterr()
        assert error.count("\n") == 1 and not out
    assert sorted(Path().iterdir()) == before


def test_text_is_readable_on_every_shade() -> None:
    colours = re.findall(r"rgb\((\d+) (\d+) (\d+) / calc\(var\(--shade\) \* -?(\d+)%", STYLE)
    assert len(colours) == 2

    def luminance(rgb: list[float]) -> float:  # WCAG 2
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    for *colour, percent in colours:
        for back, ink in ((255, 0), (18, 255)):  # Canvas and CanvasText, light and dark
            for shade in range(SHADES + 1):
                a = shade * int(percent) / 100
                mixed = [(a * int(c) + (1 - a) * back) / 255 for c in colour]
                light, dark = sorted((luminance(mixed), luminance([ink / 255] * 3)), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5


def dumped(html: str, where: Path) -> Page:
    """The DOM that a real browser makes of a page, after its scripts."""
    page = where / "page.html"
    page.write_text(html, encoding="utf-8", newline="")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync --dump-dom"
    )
    result = subprocess.run(
        [BROWSER, *flags.split(), f"--user-data-dir={where / 'profile'}", page.as_uri()],
        capture_output=True,
        timeout=120,
    )
    return Page(result.stdout.decode("utf-8"))


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
@pytest.mark.parametrize("kind", ["heatmap", "neurons", "curves"])
def test_a_browser_runs_nothing_from_texts_and_names(call: Callable[..., int], kind: str) -> None:
    Path(f'"&amp;{SCRIPT.split("/")[0]}').mkdir()
    name = f'"&amp;{SCRIPT}\u202e\u05d0<img src=x onerror=x>'
    tokens = (*sorted(set(HOSTILE)), "\ud800")
    ids = save(name, bigram_model(tokens)[0], HOSTILE)
    assert len(ids) == len(HOSTILE)
    Path(f"{name}.jsonl").write_text(log_line(1, 2, 3) + log_line(2, 1, 2))
    flags = ("--ckpt", f"{name}.net", "--data", f"{name}.txt", "--split", "all", "--device", "cpu")
    module, *args = {
        "heatmap": (evaluate_module, *flags, "--heatmap", "a.html"),
        "neurons": (neurons_module, *flags, "--out", "a.html"),
        "curves": (curves_module, f"{name}.jsonl", "--out", "a.html"),
    }[kind]
    assert call(module, *args) == 0
    html = Path("a.html").read_bytes().decode()
    policy = re.search(r"<meta http-equiv.*>\n", html)[0]
    page = dumped(html.replace(policy, ""), Path.cwd())  # escaping must do without the policy
    title = "Losses" if kind == "curves" else f"{name}.net reading {name}.txt"
    assert next(text for _, text in page.named("title")) == title
    assert name in (page.named("bdi")[0][1] if kind == "curves" else page.named("h1")[0][1])
    assert not page.named("script") and not page.named("img")
    assert not [a for _, attrs in page.elements for a in attrs if a.startswith("on")]
    if kind != "curves":
        assert page.blocks and all(block == spelled(HOSTILE) for block in page.blocks)


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
def test_a_browser_switches_between_the_axes(call: Callable[..., int]) -> None:
    Path("a.jsonl").write_text(log_line(1, 2, 3) + log_line(2, 1, 2))
    assert call(curves_module, "a.jsonl") == 0
    html = Path("curves.html").read_text(encoding="utf-8")
    assert ["open" in attrs for attrs, _ in Page(html).named("details")] == [True, False, False]
    click = "<script>document.querySelectorAll('summary')[2].click()</script>"
    blocked = dumped(html + click, Path.cwd())  # the page's policy lets no script run
    assert ["open" in attrs for attrs, _ in blocked.named("details")] == [True, False, False]
    policy = re.search(r"<meta http-equiv.*>\n", html)[0]
    clicked = dumped(html.replace(policy, "") + click, Path.cwd())
    assert ["open" in attrs for attrs, _ in clicked.named("details")] == [False, False, True]
