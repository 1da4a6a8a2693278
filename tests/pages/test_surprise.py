"""eval's lines and its page of surprise, against models whose probabilities are known."""

import base64
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import Browser, needs_browser, running_browser  # noqa: F401
from page_cases import HOSTILE, Page, bigram_model, plain, save, spelled
from runs import ROOT

from charrnn import (
    CharRNN,
    evaluate,
    next_char_probabilities,
    next_word_probabilities,
    save_checkpoint,
)
from charrnn import eval as eval_program
from charrnn.pages import surprise
from charrnn.pages.surprise import predict, top_words, words_of


@pytest.fixture
def feed() -> Iterator[Callable[[bytes], None]]:
    """Puts these bytes in the place of standard input."""
    before = os.dup(0)

    def put(raw: bytes) -> None:
        read, write = os.pipe()
        os.write(write, raw)
        os.close(write)
        os.dup2(read, 0)
        os.close(read)

    yield put
    os.dup2(before, 0)
    os.close(before)


READ = ("--data", "a.txt", "--device", "cpu")


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    printed = capsys.readouterr().out.splitlines()
    return [json.loads(line, parse_constant=refuse) for line in printed]


def data_of(path: str) -> list[dict[str, Any]]:
    """The numbers that the page's script reads."""
    page = Page(Path(path).read_text(encoding="utf-8"))
    (data,) = (json.loads(text) for a, text in page.named("script") if a.get("id") == "data")
    for model in data:
        for key in ("came", "bits", "guesses", "p"):
            model[key] = np.frombuffer(base64.b64decode(model[key]), "<u2").astype(int)
    return data


def test_page_has_the_bits_and_guesses_of_a_known_model() -> None:
    text = HOSTILE * 3
    tokens = tuple(dict.fromkeys((*sorted(set(text)), "\ud800", "\u0301")))
    model, p = bigram_model(tokens)
    ids = save("a", model, text).tolist()
    assert eval_program.main(["--ckpt", "a.net", *READ, "--surprise", "a.html"]) == 0
    page = Page(Path("a.html").read_bytes().decode())
    assert page.blocks == [spelled(text)]
    (data,) = data_of("a.html")
    assert data["came"].tolist() == ids[1:]
    shades = [a.get("class", "").split() for a, _ in page.named("i") if a.get("class") != "at"]
    shades = shades[-len(text) :]
    guesses = data["guesses"].reshape(-1, 5)
    found = data["p"].reshape(-1, 5) / 65535
    for k, (before, after) in enumerate(pairwise(ids)):
        bits = -math.log2(p[before, after])
        assert data["bits"][k] / 512 == pytest.approx(bits, abs=2e-3)
        shade = int(next((s[1:] for s in shades[k + 1] if s[0] == "s"), 0))
        assert shade in {min(9, int(bits + error)) for error in (-1e-3, 1e-3)}
        best = p[before].sort(descending=True)
        assert found[k] == pytest.approx(best.values[:5].numpy(), abs=1e-4)
        assert found[k] == pytest.approx(p[before][guesses[k].tolist()].numpy(), abs=1e-4)
    lines = [int(a["data-n"]) for a, _ in page.named("div") if a.get("class") == "line"]
    assert lines == list(range(1, text.count("\n") + 1))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_page_agrees_with_evaluate(capsys: pytest.CaptureFixture[str], cell: str) -> None:
    torch.manual_seed(3)
    model = CharRNN(tuple("ab\n"), 12, 2, 0.5, cell).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 1.5  # so that it matters what came before
    text = "".join("ab\n"[i] for i in torch.randint(3, (6500,)))
    ids = save("a", model, text)
    assert eval_program.main(["--ckpt", "a.net", *READ, "--surprise", "a.html"]) == 0
    (line,) = lines_of(capsys)
    assert line["loss"] == pytest.approx(evaluate(model, ids), abs=1e-6)
    assert line | {"chars": 6499, "split": "all", "left_out": 0} == line
    bits = data_of("a.html")[0]["bits"] / 512
    assert len(bits) == 6499
    assert bits.mean() == pytest.approx(line["bpc"], abs=1e-3)
    with torch.no_grad():  # from end to end, without rows
        logits, _ = model(ids[None, :-1], model.init_hidden(1))
    expected = -logits.log_softmax(1).gather(1, ids[1:, None])[:, 0] / math.log(2)
    assert np.quantile(np.abs(bits - expected.numpy()), 0.99) < 5e-3


def test_a_histogram_says_each_of_its_marks_once() -> None:
    svg = surprise.histogram(np.arange(9.0), {"mean 4.00": 4.0, "no idea 6.29": 6.29}, 0.0, 1.0)
    assert 'aria-label="Histogram of the bits: mean 4.00, no idea 6.29"' in svg


def test_a_long_text_is_cut_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surprise, "SHOWN", 300)
    model, _ = bigram_model(tuple("ab"))
    loss = evaluate(model, save("a", model, "aab" * 1000))
    assert eval_program.main(["--ckpt", "a.net", *READ, "--surprise", "a.html"]) == 0
    assert Page(Path("a.html").read_text(encoding="utf-8")).blocks == ["aab" * 100]
    said = plain("a.html")
    assert f"{loss:.4f} nats" in said and "3,000 characters" in said and "first 300" in said


def test_words_add_up_their_bits_and_each_counts_once() -> None:
    text = "no, no: it's n\u00f6t no"
    bits = np.arange(len(text), dtype=float)
    words = words_of(text, bits)
    assert [(i, word) for i, word, _ in words] == [
        (0, "no"), (4, "no"), (8, "it's"), (13, "n\u00f6t"), (17, "no"),
    ]  # fmt: skip
    assert [b for _, _, b in words] == [1, 9, 38, 42, 35]
    assert [(i, word) for i, word, _ in top_words(words, 2)] == [(13, "n\u00f6t"), (8, "it's")]
    assert [(i, word) for i, word, _ in top_words(words, 9)][2] == (17, "no")


def test_two_models_are_coloured_by_their_difference(capsys: pytest.CaptureFixture[str]) -> None:
    text = "abcabcabd\nabcabc" * 40
    tokens = tuple(sorted(set(text)))
    one, p = bigram_model(tokens, 1)
    two, q = bigram_model((*tokens, "z"), 2)
    ids = save("a", one, text).tolist()
    save_checkpoint("b.net", two)
    assert eval_program.main(["--ckpt", "a.net", "b.net", *READ, "--surprise", "a.html"]) == 0
    first, second = lines_of(capsys)
    assert (first["ckpt"], second["ckpt"]) == ("a.net", "b.net")
    page = Page(Path("a.html").read_text(encoding="utf-8"))
    shades = [a.get("class", "").split() for a, _ in page.named("i")][-len(text) :]
    total = 0.0
    for before, after, names in zip(ids, ids[1:], shades[1:], strict=False):
        difference = math.log2(q[before, after]) - math.log2(p[before, after])  # bits of a - of b
        total += difference
        shade = next((name for name in names if name != "nl"), "s0")
        signed = int(shade[1:]) * (-1 if shade[0] == "c" else 1)
        assert signed == pytest.approx(max(-9, min(9, difference * 2)), abs=0.51)
    better = "b.net" if total > 0 else "a.net"
    said = plain("a.html")
    assert f"{better} expected this text better" in said and f"{abs(total):,.0f} bits fewer" in said
    assert len(data_of("a.html")) == 2


def test_lines_of_text_are_scored_and_the_likeliest_named(
    capsys: pytest.CaptureFixture[str], feed: Callable[[bytes], None]
) -> None:
    tokens = tuple("\nabcdefg")
    model, p = bigram_model(tokens)
    save_checkpoint("a.net", model)
    flags = ["--ckpt", "a.net", "--device", "cpu"]
    flags += ["--top", "5", "--words", "3"]
    assert eval_program.main([*flags, "--text", "abz", "--text", "g"]) == 0
    first, second = lines_of(capsys)
    bits = -math.log2(p[0, 1]) - math.log2(p[1, 2])  # a line begins after a newline
    with_z = bits - math.log2(p[2].min())  # as the least likely of those that the model knows
    assert first["bits"] == pytest.approx(with_z, abs=1e-3)
    assert first["loss"] == pytest.approx(with_z * math.log(2) / 3, abs=1e-3)
    assert (first["chars"], first["unknown"]) == (3, 1)
    assert list(first["top"].values()) == pytest.approx(
        p[2].sort(descending=True).values[:5].tolist(), abs=1e-4
    )
    assert list(second["top"]) == list(next_char_probabilities(model, "g"))[:5]
    assert first["words"] == next_word_probabilities(model, "ab", 3)  # z is not read
    assert second["words"] == next_word_probabilities(model, "g", 3)
    feed(b"ab\r\n\ng")
    assert eval_program.main([*flags[:4], "--text", "-"]) == 0
    ab, empty, g = lines_of(capsys)
    assert ab["bits"] == pytest.approx(bits, abs=1e-3) and not {"top", "words"} & set(ab)
    assert (empty["loss"], empty["bits"], empty["chars"]) == (None, 0, 0)
    assert g["bits"] == pytest.approx(second["bits"], abs=1e-6)


def test_every_model_scores_every_line(
    capsys: pytest.CaptureFixture[str], feed: Callable[[bytes], None]
) -> None:
    model, p = bigram_model(tuple("\nab"))
    save_checkpoint("a.net", model)
    other, q = bigram_model(tuple("\nab"), seed=2)
    save_checkpoint("b.net", other)
    both = ["--ckpt", "a.net", "b.net", "--device", "cpu"]
    feed(b"ab\nb\xff\n")  # a byte that is no text is a character that they never saw
    assert eval_program.main([*both, "--text", "-", "--end"]) == 0
    lines = lines_of(capsys)
    assert [line["ckpt"] for line in lines] == ["a.net", "b.net"] * 2
    assert [line["unknown"] for line in lines] == [0, 0, 1, 1]
    expected = [-math.log2(x[0, 1] * x[1, 2] * x[2, 0]) for x in (p, q)]
    expected += [-math.log2(x[0, 2] * x[2].min() * x[2, 0]) for x in (p, q)]
    assert [line["bits"] for line in lines] == pytest.approx(expected, abs=1e-3)
    assert eval_program.main([*both, "--text", "ab"]) == 0
    assert [line["ckpt"] for line in lines_of(capsys)] == ["a.net", "b.net"]


def test_text_and_data_read_the_same_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """U+FFFD stands for a character never seen, and the other normal form is tried."""
    model, p = bigram_model(tuple("\na\u00e9\ufffd"))
    save("a", model, "\nae\u0301X\u00e9")
    flags = ["--ckpt", "a.net", "--device", "cpu"]
    assert eval_program.main([*flags, "--data", "a.txt"]) == 0
    assert eval_program.main([*flags, "--text", "ae\u0301X\u00e9"]) == 0
    data, text = lines_of(capsys)
    bits = -math.log2(p[0, 1] * p[1, 2] * p[2, 3] * p[3, 2])
    assert data["bpc"] * 4 == pytest.approx(bits, abs=1e-3)
    assert text["bits"] == pytest.approx(bits, abs=1e-3)
    assert (data["left_out"], text["unknown"], data["chars"], text["chars"]) == (0, 1, 4, 4)


def test_a_line_of_unknown_characters_is_not_the_most_normal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, p = bigram_model(tuple("\nabc"))
    save_checkpoint("a.net", model)
    flags = ["--ckpt", "a.net", "--device", "cpu", "--top", "1"]
    assert eval_program.main([*flags, "--text", "XYZ", "--text", "aaa"]) == 0
    unknown, known = lines_of(capsys)
    assert unknown["bits"] == pytest.approx(-3 * math.log2(p[0].min()), abs=1e-3)
    assert (unknown["unknown"], known["unknown"]) == (3, 0)


def test_standard_input_that_is_closed_is_one_line(tmp_path: Path) -> None:
    save("a", bigram_model(tuple("\nab"))[0], "ab")
    command = f"{sys.executable} -m charrnn.eval --ckpt {tmp_path}/a.net --device cpu --text - <&-"
    result = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "--text -: cannot be read: Bad file descriptor" in result.stderr


def test_info_is_what_the_checkpoint_says(capsys: pytest.CaptureFixture[str]) -> None:
    about = {
        "settings": {"lr": 0.004, "seed": 7, "x": math.nan},
        "text": {"name": "\x1b[31mmy.txt", "chars": 123},
        "torch": "2.14.0",
        "odd": torch.zeros(2),
        "deep": [[[[[[[1]]]]]]],
    }
    save_checkpoint("a.net", bigram_model(tuple("ab"))[0], **about)
    assert eval_program.main(["--ckpt", "a.net", "--info", "--device", "cpu"]) == 0
    (line,) = lines_of(capsys)
    assert line["settings"] == {"lr": 0.004, "seed": 7, "x": "nan"}
    assert line["text"] == about["text"] and line["torch"] == "2.14.0"
    assert (line["cell"], line["n_hidden"], line["characters"]) == ("rnn", 2, 2)
    assert line["odd"] == "<Tensor>"


def test_a_loss_that_is_no_number_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = bigram_model(tuple("ab"))
    with torch.no_grad():
        model.fc.weight.copy_(torch.tensor([[3e38, -3e38], [-3e38, 3e38]]))
    save("a", model, "abab")
    for args in ((*READ, "--surprise", "a.html"), ("--text", "ab")):
        assert eval_program.main(["--ckpt", "a.net", "--device", "cpu", *args]) == 2
        out, error = capsys.readouterr()
        assert not out and error.count("\n") == 1 and "not a number" in error
    assert not Path("a.html").exists()


def test_words_longer_than_a_line_and_no_newline_at_all() -> None:
    model, _ = bigram_model(tuple("ab"))
    save("a", model, "ab" * 3000)
    assert eval_program.main(["--ckpt", "a.net", *READ, "--surprise", "a.html"]) == 0
    page = Page(Path("a.html").read_text(encoding="utf-8"))
    assert page.blocks == ["ab" * 3000]
    lines = [a.get("data-n") for a, _ in page.named("div") if a.get("class") == "line"]
    assert lines == ["1", None, None]


def test_short_texts() -> None:
    model, p = bigram_model(tuple("ab"))
    found = predict(model, torch.tensor([0, 1]))
    assert found.bits.tolist() == pytest.approx([-math.log2(p[0, 1])], abs=1e-3)
    save("a", model, "ab")
    assert eval_program.main(["--ckpt", "a.net", *READ, "--surprise", "a.html"]) == 0
    assert Page(Path("a.html").read_text(encoding="utf-8")).blocks == ["ab"]


WORDS = "it was the best of times, it was the worst of times\nand so on\n\n"
CARD = "document.getElementById('card')"


@pytest.fixture
def words_page() -> Path:
    """A page of 60 lines, of a model whose probabilities are known."""
    model, _ = bigram_model(tuple(sorted(set(WORDS))))
    save("a", model, WORDS * 20)
    assert eval_program.main(["--ckpt", "a.net", *READ, "--surprise", "a.html"]) == 0
    return Path("a.html")


@needs_browser
def test_card_by_keyboard(browser: Browser, words_page: Path) -> None:
    _, p = bigram_model(tuple(sorted(set(WORDS))))
    tokens = sorted(set(WORDS))
    with browser.open(words_page, 1000) as tab:
        for _ in range(30):
            tab.press("Tab")
            if tab.evaluate("document.activeElement.className") == "text":
                break
        assert tab.evaluate("document.activeElement.className") == "text"
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert tab.evaluate(outline) == "solid"
        tab.press("ArrowRight")
        assert "nothing was expected" in tab.evaluate(f"{CARD}.textContent")
        for place in range(1, 4):
            tab.press("ArrowRight")
            assert tab.evaluate("document.querySelectorAll('.at').length") == 1
            before, after = (tokens.index(c) for c in WORDS[place - 1 : place + 1])
            bits = -math.log2(p[before, after])
            assert f"{bits:.2f} bits" in tab.evaluate(f"{CARD}.querySelector('h3').textContent")
            bars = tab.evaluate(
                f"""[...{CARD}.querySelectorAll(".guess")].map(e => [
                  e.classList.contains("true"), e.querySelector("bdi").textContent,
                  e.querySelector(".percent").textContent,
                  e.querySelector(".bar").getBoundingClientRect().width,
                  parseFloat(getComputedStyle(e.querySelector(".bar"), "::before").width)])"""
            )
            shown = {"\n": "\u21b5", " ": "\u2423"}
            assert [name for is_true, name, *_ in bars if is_true] == [
                shown.get(WORDS[place], WORDS[place])
            ]
            best = p[before].argsort(descending=True)[:5].tolist()
            assert [name for _, name, *_ in bars[:5]] == [
                shown.get(tokens[k], tokens[k]) for k in best
            ]
            assert len(bars) == 5 + (after not in best)
            for k, (_, _, said, whole, drawn) in zip(best, bars, strict=False):
                expected = p[before, k].item()
                assert said == (f"{100 * expected:.1f} %" if expected >= 5e-4 else "< 0.1 %")
                assert drawn == pytest.approx(max(1, expected * whole), abs=0.6)
        tab.press("ArrowDown")  # the character as far along in the next line
        place = "indexOf(document.querySelector('.at'))"
        assert tab.evaluate(place) == WORDS.index("\n") + 1 + 3
        tab.press("ArrowUp")
        tab.press("Home")
        assert tab.evaluate(place) == 0
        tab.press("End")
        assert tab.evaluate(place) == WORDS.index("\n")
        tab.press("n")
        here = tab.evaluate(place)
        text = WORDS * 20
        pairs = [(tokens.index(a), tokens.index(b)) for a, b in pairwise(text)]
        far = [i for i, pair in enumerate(pairs, 1) if -math.log2(p[pair]) >= 6]
        assert here == min((i for i in far if i > WORDS.index("\n")), default=here)
        tab.press("Escape")
        assert tab.evaluate(f"{CARD}.hidden")
        assert not tab.errors and not tab.requests


@needs_browser
def test_words_are_links_and_the_mouse_shows_what_it_passes(
    browser: Browser, words_page: Path
) -> None:
    with browser.open(words_page, 1000) as tab:
        word = tab.evaluate("document.querySelector('aside ol a').textContent")
        tab.click("aside ol a")
        tab.wait(f"!{CARD}.hidden")
        at = tab.evaluate("indexOf(document.querySelector('.at'))")
        assert (WORDS * 20)[at:].startswith(word)
        assert tab.evaluate("document.activeElement.className") == "text"
        box = tab.evaluate(
            "(r => [r.top, r.bottom])(document.querySelector('.at').getClientRects()[0])"
        )
        assert box[0] >= 0 and box[1] <= 800
        tab.press("Escape")
        x, y = tab.evaluate(
            "(r => [r.x + 3, r.y + 5])(document.querySelectorAll('.text i')[5].getClientRects()[0])"
        )
        tab.evaluate("scrollTo(0, 0)")
        x, y = tab.evaluate(
            "(r => [r.x + 3, r.y + 5])(document.querySelectorAll('.text i')[5].getClientRects()[0])"
        )
        tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        assert tab.evaluate("indexOf(document.querySelector('.at'))") == 5
        tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=5, y=5)
        assert tab.evaluate(f"{CARD}.hidden")


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_a_word_far_down_has_its_card_beside_it(browser: Browser, width: int) -> None:
    model, _ = bigram_model(tuple(sorted(set(WORDS))))
    save("a", model, WORDS * 600)  # what is above the word is laid out only once it is in sight
    assert eval_program.main(["--ckpt", "a.net", *READ, "--surprise", "a.html"]) == 0
    with browser.open(Path("a.html"), width, 800) as tab:
        tab.evaluate("characterAt(37000).id = 'c37000'")
        tab.evaluate("document.querySelector('aside ol a').hash = '#c37000'")
        tab.click("aside ol a")
        distance = f"""(() => {{ const c = {CARD}.getBoundingClientRect(),
          t = document.querySelector('.at').getBoundingClientRect();
          return t.top < 0 || t.bottom > 800 ? 1e9 : Math.max(c.top - t.bottom, t.top - c.bottom);
          }})()"""
        tab.wait(f"!{CARD}.hidden")
        tab.evaluate("new Promise(done => setTimeout(done, 500))")  # until all is laid out
        assert 0 <= tab.evaluate(distance) < 20


@needs_browser
def test_n_and_p_work_before_a_click_into_the_text(browser: Browser, words_page: Path) -> None:
    with browser.open(words_page, 1000) as tab:
        tab.press("ArrowRight")  # scrolls, outside the text
        assert tab.evaluate(f"{CARD}.hidden")
        tab.press("n")
        first = tab.evaluate("at")
        bits = tab.evaluate("bitsAt(models[0], at)")
        assert first > 0 and bits >= 6 and not tab.evaluate(f"{CARD}.hidden")
        assert tab.evaluate("[...Array(at).keys()].slice(1).every(i => bitsAt(models[0], i) < 6)")
        tab.press("ArrowRight")  # the text has the focus now
        assert tab.evaluate("at") == first + 1


@needs_browser
def test_the_numbers_of_a_histogram_are_not_cut(browser: Browser, words_page: Path) -> None:
    with browser.open(words_page, 390) as tab:
        ends = tab.evaluate(
            """[...document.querySelectorAll("aside svg text")].map(e =>
              e.getBoundingClientRect().right - e.closest("svg").getBoundingClientRect().right)"""
        )
        assert len(ends) > 3 and max(ends) <= 0


def test_the_mean_of_a_part_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charrnn.pages.surprise.SHOWN", 50)
    model, _ = bigram_model(tuple(sorted(set(WORDS))))
    save("a", model, WORDS * 20)
    assert eval_program.main(["--ckpt", "a.net", *READ, "--surprise", "a.html"]) == 0
    assert "Characters by their bits, in the first 50 characters only. A mean" in plain("a.html")


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [*product((1000, 390), (False, True))])
def test_card_is_beside_its_character_and_in_the_window(
    browser: Browser, words_page: Path, width: int, dark: bool
) -> None:
    with browser.open(words_page, width, 800, dark=dark) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        for k in (4, 48, 700):
            tab.evaluate(f"document.querySelectorAll('.text i')[{k}].id = 'here'")
            if width == 390:
                centre = "{block: 'center', behavior: 'instant'}"
                tab.evaluate(f"document.querySelector('#here').scrollIntoView({centre})")
                x, y = tab.evaluate(
                    "(r => [r.x + 3, r.y + 5])(document.querySelector('#here').getClientRects()[0])"
                )
                tab.call("Emulation.setTouchEmulationEnabled", enabled=True)
                points = [{"x": x, "y": y}]
                tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=points)
                tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
            else:
                tab.click("#here")
            tab.wait(f"!{CARD}.hidden && document.querySelector('.at')?.id === 'here'", 5)
            left, top, right, bottom, char_top, char_bottom = tab.evaluate(
                f"""(() => {{ const c = {CARD}.getBoundingClientRect(),
                  t = document.querySelector('.at').getBoundingClientRect();
                  return [c.left, c.top, c.right, c.bottom, t.top, t.bottom]; }})()"""
            )
            assert left >= 0 and right <= width and top >= 0 and bottom <= 800
            assert 0 <= top - char_bottom < 20 or 0 <= char_top - bottom < 20
            tab.evaluate("document.querySelector('#here').id = ''")
        number = "getComputedStyle(document.querySelector('.line'), '::before')"
        assert tab.evaluate(f"parseFloat({number}.fontSize)") >= 12
        parts = "[...document.querySelectorAll('.part')]"
        assert tab.evaluate(f"Math.max(...{parts}.map(e => e.children.length))") <= 25
        assert tab.evaluate(f"getComputedStyle({parts}[0]).contentVisibility") == "auto"
