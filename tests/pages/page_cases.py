"""What the tests of the pages share: models set by hand, hostile texts, and a reader of HTML."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import torch
from torch import Tensor

from charrnn import CharRNN, Vocabulary, save_checkpoint

SCRIPT = "<script>document.title='hacked'</script>"
HOSTILE = (
    f"{SCRIPT}</div></title></style>{SCRIPT}<img src=x onerror=\"document.title='hacked'\">\n"
    "\" onmouseover=\"document.title='hacked'\" x=' &amp; &lt;b&gt; &#60;script&#62; <!-- ]]>\n\n"
    "\x1b[31m\x07\x7f\x85 a\rb tab\there \u202eback\u202c \u05e9\u05dc\u05d5\u05dd "
    "\u0645\u0631\u062d\u0628\u0627 e\u0301\u0323 \U0001f468\u200d\U0001f469 \u00a0\u2028\ufeff\n"
    'he said "yes" (or [no])\nand (again) \u201cquoted\u201d\n'
    "</script></textarea><!-- <script> --> $model ${weights} \\u003c "
    "</script <!-- <script \n</script\n"
)
SPELLED = {"\r": "\\r", "\x1b": "\\x1b", "\x07": "\\x07", "\x7f": "\\x7f", "\x85": "\\x85"}


def spelled(text: str) -> str:
    """``text`` as a page shows it."""
    return "".join(SPELLED.get(char, char) for char in text)


class Page(HTMLParser):
    """All elements as (tag, attributes), the own text of each, and all text in each block."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []  # an element's own text, by its place in elements
        self.open: list[int] = []
        self.blocks: list[str] = []  # all text in each element of class "text"
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.texts.append("")
        if self.elements[-1][1].get("class") == "text":
            self.blocks.append("")
        if tag not in self.VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.elements[self.open.pop()][0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]] += data
        if any(self.elements[i][1].get("class") == "text" for i in self.open):
            self.blocks[-1] += data

    def named(self, tag: str) -> list[tuple[dict[str, str], str]]:
        """The elements of a name: attributes and own text."""
        both = zip(self.elements, self.texts, strict=True)
        return [(attrs, text) for (name, attrs), text in both if name == tag]


def plain(path: str | Path) -> str:
    """The words of a page, in one line."""
    source = Path(path).read_text(encoding="utf-8")
    source = re.sub(r"(?s)<(style|script).*?</\1>", " ", source)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", source)).split())


def bigram_model(tokens: tuple[str, ...], seed: int = 1) -> tuple[CharRNN, Tensor]:
    """A model that gives p[j] of token j after token i as returned, ``[V, V]``."""
    n = len(tokens)
    p = torch.rand(n, n, generator=torch.Generator().manual_seed(seed)).pow(4).add(1e-3)
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


def save(name: str, model: CharRNN, text: str, **extra: object) -> Tensor:
    """Leave ``name.net`` and ``name.txt``; the text's ids."""
    Path(f"{name}.txt").write_text(text, encoding="utf-8", newline="")
    save_checkpoint(f"{name}.net", model, **extra)
    return Vocabulary(tuple(model.unique_tokens)).encode(text)


def log_line(seconds: float, train: float | None, val: float | None, **more: object) -> str:
    """A line of a run's log."""
    line = {"step": int(seconds), "epoch": seconds / 50, "seconds": seconds, "train_loss": train}
    line |= {"val_loss": val, "val_bpc": None, "chars_per_second": 1, "lr": 0.1}
    return json.dumps(line | {"chars": int(seconds * 1e4), "skipped": 0} | more) + "\n"


def text_with_turns(n: int = 500) -> tuple[str, list[bool], list[bool]]:
    """Words, lines, quotations and brackets in an order that repeats nothing."""
    text, quoted, bracketed = "", [], []
    for kind in torch.randint(6, (n,), generator=torch.Generator().manual_seed(1)).tolist():
        word = ("to be ", "or not\n", "so\n\n", "\u201cyes, no", "(as it is", "that is ")[kind]
        closing = {3: "\u201d ", 4: ") "}.get(kind, "")
        text += word + closing
        quoted += [kind == 3] * len(word) + [False] * len(closing)
        bracketed += [kind == 4] * len(word) + [False] * len(closing)
    return text, quoted, bracketed


def hand_set_lstm(tokens: tuple[str, ...]) -> CharRNN:
    """Unit 2 is set by an opening quote and reset by a closing one, 5 so for brackets (downwards,
    and moving between -0.35 and -0.25 only), 7 grows along the line; the others do as they like."""
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
