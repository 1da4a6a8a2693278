"""Properties of texts, the units that follow them, and what is not called found."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Browser, needs_browser, running_browser  # noqa: F401
from page_cases import (
    HOSTILE,
    Page,
    bigram_model,
    hand_set_lstm,
    plain,
    save,
    spelled,
    text_with_turns,
)

from charrnn import CharRNN, neurons
from charrnn.pages import units, units_page
from charrnn.pages.properties import PROPERTIES, brackets, properties_of, quotations, within

READ = ("--ckpt", "a.net", "--data", "a.txt", "--device", "cpu")


def spans(text: str, of: Callable) -> list[str]:
    """What is inside, each with the mark that opens it."""
    return [text[start:end] for start, end in of(text)]


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ('a "b" c', ['"b']),
        ("\u201cb\u201d \u201ec\u201c", ["\u201cb", "\u201ec"]),
        ("\u00bbd\u00ab \u00abe\u00bb \u00ab f \u00bb g", ["\u00bbd", "\u00abe", "\u00ab f "]),
        ('f("a", b"c", {"d":"e"})', ['"a', '"c', '"d', '"e']),
        # one mark too many or too few spoils its own quotation, and no other
        ('a 6" b "c" d "e" f', ['"c', '"e']),
        ('"a b "c" d "e" f', ['"c', '"e']),
        ('a" b "c" d', ['"c']),
        ('"a\n\nb "c" d', ['"c']),
        ('"a\n\nb" c "d" e', ['"d']),
    ],
)
def test_quotations(text: str, inside: list[str]) -> None:
    assert spans(text, quotations) == inside
    assert within("abcd", iter([(1, 3)])).tolist() == [False, True, True, False]


def test_brackets() -> None:
    assert sorted(spans("a (b [c] d) e", brackets)) == ["(b [c] d", "[c"]
    assert sorted(spans("a) b (c) (d [e) f]", brackets)) == ["(c", "(d [e"]
    assert spans("(a\n\n(b)", brackets) == ["(b"]


def test_other_properties() -> None:
    text = "AB cd: 12\n\n  Xy z\n" + "go http://a.b/c <b>\n"
    of = {name: f(text).astype(int).tolist() for name, f in PROPERTIES.items()}
    picked = {name: "".join(c for c, x in zip(text, v, strict=True) if x) for name, v in of.items()}
    assert picked["first letter of a word"] == "AcXzghabcb"
    assert picked["last letter of a word"] == "Bdyzopabcb"
    assert picked["numbers"] == "12"
    assert picked["capitals"] == "AB"
    assert picked["speaker lines"] == "AB cd:"
    assert picked["links and markup"] == "http://a.b/c<b>"
    lines = [i - text.rfind("\n", 0, i + 1) for i in range(len(text))]
    assert of["place in the line"] == lines
    assert of["indentation"] == [0] * 11 + [1, 2] + [2] * 5 + [0] * 20
    paragraph = PROPERTIES["place in the paragraph"](text)
    assert paragraph[10] == 0 and paragraph[11] == pytest.approx(np.log(2))
    assert paragraph[-1] == pytest.approx(np.log1p(len(text) - 11))


def test_only_what_varies_is_a_property() -> None:
    assert list(properties_of("ab" * 100)) == []
    assert list(properties_of("ab\n" * 9)) == []  # too seldom to say anything
    some = properties_of("ab ba\n" * 50)
    assert list(some) == ["place in the line", "first letter of a word", "last letter of a word"]
    assert list(properties_of("")) == [] and list(properties_of("a")) == []


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_states_are_those_of_the_last_layer(cell: str) -> None:
    torch.manual_seed(0)
    model = CharRNN(tuple("abcd"), 8, 2, 0.5, cell).eval()
    ids = torch.randint(4, (772,))
    found = units.states(model, ids.to(torch.uint8))
    assert found.shape == (771, 8)  # three rows of 257
    hidden, expected = model.init_hidden(1), []
    with torch.no_grad():
        for i in ids[:771]:
            _, hidden = model(i.view(1, 1), hidden)
            expected.append(hidden[1][-1, 0].tanh() if cell == "lstm" else hidden[-1, 0])
    np.testing.assert_allclose(found, torch.stack(expected).numpy(), atol=1e-4)


def test_units_that_follow_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    text, quoted, bracketed = text_with_turns()
    model = hand_set_lstm(tuple(sorted(set(text))))
    ids = save("a", model, text, val_loss=1.25)
    cells = units.states(model, ids)
    n = len(cells)
    assert n == len(text) - 1
    columns = [i - text.rfind("\n", 0, i + 1) for i in range(n)]
    assert neurons.main([*READ]) == 0
    printed = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    follows = {"inside quotes": quoted, "place in the line": columns, "inside brackets": bracketed}
    for (name, followed), unit in zip(follows.items(), (2, 7, 5), strict=True):
        r = [np.corrcoef(cells[:, k], np.array(followed[:n], float))[0, 1] for k in range(9)]
        best = max(range(9), key=lambda k: abs(r[k]))
        assert best == unit and printed[name].startswith(f"unit {unit} ")
        found = float(re.search(r"\(([+-][\d.]+)\)", printed[name])[1])
        assert found == pytest.approx(r[unit], abs=2e-3)
        # chance: the same cells for the property moved to 20 other times
        shifted = []
        for k in range(1, 21):
            moved = np.roll(np.array(followed[:n], float), n * k // 21)
            shifted += [abs(np.corrcoef(cells[:, c], moved)[0, 1]) for c in range(9)]
        said = float(re.search(r"shifted ([\d.]+)", printed[name])[1])
        assert said == pytest.approx(max(shifted), abs=2e-3)
    said = plain("neurons.html")
    for sentence in (
        "Inside quotes: unit 2",
        "Inside brackets: unit 5",
        ": the unit is high (orange) where it holds.",
        ": the unit is low (blue) where it holds.",
        ": the unit is high (orange) where it is large.",
        "Underlined: where it holds, as a rule finds it in the text.",
        "Karpathy et al. 2015",
        "held-out loss 1.2500 nats",
    ):
        assert sentence in said
    page = Page(Path("neurons.html").read_text(encoding="utf-8"))
    assert page.blocks and all(block in text and len(block) <= 360 for block in page.blocks)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_of_an_untrained_model_nothing_is_called_found(
    capsys: pytest.CaptureFixture[str], cell: str
) -> None:
    text, *_ = text_with_turns()
    for seed in range(3):
        torch.manual_seed(seed)
        save("a", CharRNN(tuple(sorted(set(text))), 32, 1, 0.0, cell), text)
        assert neurons.main([*READ]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) > 4 and all(": no unit; " in line for line in lines)
        assert "No unit follows any of the properties" in plain("neurons.html")
        assert not Page(Path("neurons.html").read_text(encoding="utf-8")).blocks


def test_a_units_own_range_is_stretched_over_the_colours() -> None:
    cell = np.linspace(-0.35, -0.25, 1000)
    shades = units.shades_of(cell, np.arange(1000.0))
    assert shades.min() == -9 and shades.max() == 9 and abs(shades.mean()) < 0.1
    assert np.all(np.diff(shades) >= 0)
    assert units.shades_of(np.full(5, 0.7), np.arange(5.0)).tolist() == [0] * 5
    # what holds five times in a thousand characters counts as much as the rest
    seldom = np.zeros(1000)
    seldom[100:600:100] = 1
    shades = units.shades_of(np.where(seldom == 1, -1.0, cell), seldom)
    assert set(shades[seldom == 1]) == {-9} and shades[seldom == 0].min() > 5


def test_excerpts_show_where_the_property_changes() -> None:
    text = "no change here, only words and words\n" * 100
    values = np.zeros(len(text))
    for place in (5, 1000, 3000, len(text) - 3):
        values[place : place + 2] = 1
        found = units.excerpts(values, text)
        assert 1 <= len(found) <= 2 and all(part.start >= 0 for part in found)
    for part in units.excerpts(values[900:], text[900:]):
        assert values[900:][part].any() and part.stop - part.start == 360
        assert part.start == 0 or text[900:][part.start - 1] in "\n "


@pytest.mark.parametrize("longest", [3, 40, 5000])
def test_the_mean_is_drawn_for_each_value(longest: int) -> None:
    values = np.tile(np.arange(longest + 1.0), 20000 // longest)
    svg = units_page.average_figure(values, values / longest)
    (line,) = re.findall(r'class="mean" d="(.*?)"', svg)
    pairs = [tuple(map(float, pair.split())) for pair in re.split("[ML]", line) if pair]
    assert 3 < len(pairs) <= 49
    for x, y in pairs:  # a straight line from the lower left to the upper right
        assert (x - 40) / 300 == pytest.approx((84 - y) / 76, abs=0.04)


def test_shades_and_underlines_follow_the_unit() -> None:
    text, _, bracketed = text_with_turns()
    model = hand_set_lstm(tuple(sorted(set(text))))
    save("a", model, text)
    assert neurons.main([*READ]) == 0
    html = Path("neurons.html").read_text(encoding="utf-8")
    section = Page(re.search(r'(?s)<section id="inside-brackets">.*?</section>', html)[0])
    chars = [a.get("class", "").split() for a, _ in section.named("i")]
    block = section.blocks[0]
    chars = chars[7 : 7 + len(block)]  # after the key of seven colours
    start = text.find(block)
    assert start >= 0 and len(set(bracketed[start : start + len(block)])) == 2
    for names, inside in zip(chars, bracketed[start:], strict=False):
        assert ("u" in names) == inside
        assert names[0] == ("c9" if inside else "s9")  # the cell goes down in brackets


def test_what_the_text_has_not_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    save("a", bigram_model(tuple("ab \n"))[0], "ab ba\nba ab ab\n" * 100)
    assert neurons.main([*READ]) == 0
    said, printed = plain("neurons.html"), capsys.readouterr().out
    assert "inside quotes, inside brackets" in said.split("Not in this text")[1]
    assert "quotes" not in printed and "place in the line" in printed
    save("a", bigram_model(tuple("ab"))[0], "ab")  # as short as can be
    assert neurons.main([*READ]) == 0
    assert "Not in this text" in plain("neurons.html")


@needs_browser
def test_in_a_browser_colours_are_drawn_and_links_lead_to_sections(browser: Browser) -> None:
    text, *_ = text_with_turns()
    save("a", hand_set_lstm(tuple(sorted(set(text)))), text)
    assert neurons.main([*READ]) == 0
    with browser.open(Path("neurons.html")) as tab:
        # the most and the least of a unit differ
        colours = tab.evaluate(
            """["c9", "s9"].map(name => getComputedStyle(document.querySelector(
              `.text i.${name}`))).map(s => s.backgroundColor + s.backgroundImage)"""
        )
        assert colours[0] != colours[1]
        tab.press("Tab")
        assert tab.evaluate("document.activeElement.localName") == "a"
        target = tab.evaluate("document.activeElement.hash.slice(1)")
        tab.press("Enter")
        tab.wait("location.hash.length > 1")
        assert tab.evaluate(f"document.getElementById('{target}') !== null")


def test_hostile_texts_are_shown_as_they_are() -> None:
    text = HOSTILE * 20
    model = hand_set_lstm(tuple(sorted(set(text) | {"\u201c", "\u201d", "(", ")"})))
    save("a", model, text)
    assert neurons.main([*READ]) == 0
    page = Page(Path("neurons.html").read_text(encoding="utf-8"))
    assert page.blocks and all(block in spelled(text) for block in page.blocks)
    assert not page.named("script") and not page.named("img")
