"""What holds for every page: one file that loads and runs nothing foreign, readable everywhere."""

import json
import re
import subprocess
import sys
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, needs_browser, running_browser  # noqa: F401
from page_cases import (
    HOSTILE,
    SCRIPT,
    Page,
    bigram_model,
    hand_set_lstm,
    log_line,
    plain,
    save,
    spelled,
    text_with_turns,
)

from charrnn import curves, neurons, share
from charrnn import eval as eval_program
from charrnn.__main__ import PROGRAMS
from charrnn.pages.chart import SERIES, scale, short_number, ticks
from charrnn.pages.page import SHADES, embed, page, page_file, write_page


def make(kind: str, name: str, text: str) -> None:
    """Leave a page of this kind about a text and a model of these names in a.html."""
    tokens = (*sorted(set(text)), "\ud800")
    save(name, bigram_model(tokens)[0], text)
    Path(f"{name}.jsonl").write_text(log_line(1, 2, 3) + log_line(2, 1, 2))
    flags = ("--ckpt", f"{name}.net", "--data", f"{name}.txt", "--device", "cpu")
    both = ("--ckpt", f"{name}.net", f"{name}.net", *flags[2:])
    program, *args = {
        "surprise": (eval_program, *flags, "--surprise", "a.html"),
        "two models": (eval_program, *both, "--surprise", "a.html"),
        "neurons": (neurons, *flags, "--out", "a.html"),
        "curves": (curves, f"{name}.jsonl", "--out", "a.html"),
        "units found": (neurons, *flags, "--out", "a.html"),
    }[kind]
    if kind == "units found":
        text, *_ = text_with_turns()
        save(name, hand_set_lstm(tuple(sorted(set(text)))), text)
    assert program.main(args) == 0


KINDS = ("surprise", "two models", "neurons", "curves")


def test_page_says_what_it_is_and_allows_nothing() -> None:
    html = page("A <b>", "How & why", ["m.net", "<i>"], "<p>body</p>")
    assert html.startswith("<!DOCTYPE html>")
    assert '<meta name="generator" content="charrnn">' in html
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', html)[1]
    assert policy.startswith("default-src 'none'") and "script-src" not in policy
    found = Page(html)
    assert [t for _, t in found.named("title")] == ["A <b>"] == [t for _, t in found.named("h1")]
    assert [t for _, t in found.named("bdi")] == ["m.net", "<i>"]
    assert not re.search(r"https?://|@import|url\(", html)
    assert html.isascii() or "utf-8" in html


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@needs_browser
def test_only_our_own_script_runs(browser: Browser, newline: str) -> None:
    script = newline.join(("document.title = 'ours \u00e9'", "window.ran = true"))
    html = page("t", "h", [], f"{SCRIPT}<img src=x onerror=\"document.title='x'\">", script=script)
    write_page("a.html", html)
    with browser.open(Path("a.html")) as tab:
        assert tab.evaluate("document.title") == "ours \u00e9" and tab.evaluate("ran")
        assert not [url for url in tab.requests if not url.startswith("file:")]


def test_lone_surrogates_are_spelled_out_and_devices_written_to() -> None:
    write_page("a.html", page("\ud800", "h", [], "b"))
    assert "\\ud800" in Path("a.html").read_text(encoding="utf-8")
    write_page("/dev/null", page("t", "h", [], "b"))
    assert not Path("/dev/null").is_file()


def test_embedded_data_cannot_end_its_element() -> None:
    hostile = ["</script><!--", "&amp;", "\u2028", "\ud800"]
    text = embed(hostile)
    assert text.isascii() and not set(text) & set("<>&")
    assert json.loads(text) == hostile


def test_scales_and_ticks() -> None:
    x_of = scale(10, 20, 0, 100)
    assert [x_of(x) for x in (10, 15, 20)] == [0, 50, 100]
    assert scale(3, 3, 5, 9)(3) == 5
    for low, high in ((0, 1), (1.2, 1.9), (-3, 12), (0, 1e9), (0, 7e-7), (999, 1001)):
        for most in (5, 8):
            found = ticks(low, high, most)
            assert 2 <= len(found) <= most + 1
            assert low <= found[0] + 1e-12 and found[-1] <= high * (1 + 1e-12)
            steps = {f"{b - a:.6e}"[0] for a, b in pairwise(found)}
            assert steps <= {"1", "2", "5", "9"}  # 9: 0.9999... of rounding
    assert ticks(2, 2) == [2]
    assert [short_number(x) for x in (0.5, 999_999, 2.5e6, 3e9)] == ["0.5", "999,999", "2.5M", "3G"]


def luminance(rgb: list[float]) -> float:
    """Of a colour with parts from 0 to 1 (WCAG 2)."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: list[float], other: list[float]) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def colours() -> dict[bool, dict[str, list[float]]]:
    """The colours that style.css names, light and dark."""
    light, dark = re.findall(r":root \{(.*?)\n *\}", page_file("style.css"), re.DOTALL)[:2]
    themes: dict[bool, dict[str, list[float]]] = {}
    for is_dark, block in ((False, light), (True, light + dark)):
        named = {n: h for n, h in re.findall(r"--([\w-]+): #([0-9a-f]{6});", block)}
        themes[is_dark] = {
            n: [int(h[i : i + 2], 16) / 255 for i in (0, 2, 4)] for n, h in named.items()
        }
        for name, parts in re.findall(r"--(hot|cold): (\d+ \d+ \d+);", block):
            themes[is_dark][name] = [int(part) / 255 for part in parts.split()]
    return themes


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_is_enough(dark: bool) -> None:
    named = colours()[dark]
    texts = ["ink", "muted", "accent", *(f"series-{i + 1}" for i in range(SERIES))]
    for text, ground in product(texts, ("paper", "raised")):
        assert contrast(named[text], named[ground]) >= 4.5, (text, ground)
    assert contrast(named["edge"], named["paper"]) >= 3
    steps = re.findall(r"var\(--shade, 0\) \* -?(\d+)%", page_file("style.css"))
    assert len(set(steps)) == 1
    for colour, shade in product(("hot", "cold"), range(SHADES + 1)):
        a = shade * int(steps[0]) / 100
        mixed = [a * c + (1 - a) * p for c, p in zip(named[colour], named["paper"], strict=True)]
        assert contrast(named["ink"], mixed) >= 4.5, (colour, shade)


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_shades_are_drawn_as_they_were_checked(browser: Browser, dark: bool) -> None:
    names = [f"{kind}{k}" for kind in "sc" for k in range(1, SHADES + 1)]
    body = "".join(f"<i class={name}>x</i>" for name in names)
    write_page("a.html", page("t", "h", [], body))
    with browser.open(Path("a.html"), dark=dark) as tab:
        drawn = tab.evaluate(
            """[...document.querySelectorAll("i")].map(e => getComputedStyle(e))
              .map(s => [s.backgroundColor, s.backgroundImage])"""
        )
        ground = tab.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    paper = [round(255 * part) for part in colours()[dark]["paper"]]
    assert [int(n) for n in re.findall(r"\d+", ground)] == paper
    for name, (flat, image) in zip(names, drawn, strict=True):
        shown, clear = (flat, image) if name[0] == "s" else (image, flat)
        alpha = re.findall(r"rgba\(\d+, \d+, \d+, ([\d.]+)\)", shown)[0]
        assert float(alpha) == pytest.approx(0.08 * int(name[1]), abs=0.005)
        assert {float(a) for a in re.findall(r", ([\d.]+)\)", clear)} <= {0.0}


@needs_browser
@pytest.mark.parametrize("kind", KINDS)
def test_a_browser_runs_nothing_from_texts_and_names(browser: Browser, kind: str) -> None:
    Path(f'"&amp;{SCRIPT.split("/")[0]}').mkdir()
    name = f'"&amp;{SCRIPT}\u202e\u05d0<img src=x onerror=x>'
    make(kind, name, HOSTILE * 12)
    html = Path("a.html").read_bytes().decode()
    policy = re.search(r"<meta http-equiv.*>\n", html)[0]
    Path("a.html").write_text(html.replace(policy, ""), encoding="utf-8")  # without it, too
    with browser.open(Path("a.html")) as tab:
        title = tab.evaluate("document.title")
        assert title == Page(html).named("title")[0][1] and "hacked" not in title
        assert not tab.requests and not tab.errors
        body = tab.evaluate("document.body.innerText")
        assert Path(name).name in body.replace("\n", "")
        tags = tab.evaluate(
            "[...new Set([...document.querySelectorAll('*')].map(e => e.localName))]"
        )
        assert "img" not in tags
        scripts = 2 if kind in ("surprise", "two models") else 0
        assert tab.evaluate("document.querySelectorAll('script').length") == scripts
        handlers = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
        assert not tab.evaluate(f"{handlers}.filter(a => a.startsWith('on'))")
        if kind in ("surprise", "two models"):
            shown = tab.evaluate("document.querySelector('.text').textContent")
            assert shown == spelled(HOSTILE * 12)
            tab.evaluate("document.querySelector('.text').focus()")
            for _ in range(12):
                tab.press("ArrowDown")
                tab.press("End")
            assert tab.evaluate("document.querySelectorAll('#card img, #card script').length") == 0
            assert tab.evaluate("document.title") == title and not tab.errors


@needs_browser
@pytest.mark.parametrize(("kind", "width"), [*product((*KINDS, "units found"), (1000, 390))])
def test_every_page_fits_is_large_enough_and_can_be_used_by_keyboard(
    browser: Browser, kind: str, width: int
) -> None:
    make(
        kind,
        "a" * 60,
        "a long line of text, again and again " * 40 + "\n" + "b" * 500 + "\nc\n" * 20,
    )
    for dark in (False, True):
        with browser.open(Path("a.html"), width, 800, dark=dark, reduced_motion=dark) as tab:
            assert not tab.requests and not tab.errors
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            ground, ink = tab.evaluate(
                "(s => [s.backgroundColor, s.color])(getComputedStyle(document.documentElement))"
            )
            assert ground != ink
            tab.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            sizes = tab.evaluate(
                """[...document.querySelectorAll("main *")].filter(e => e.getClientRects().length
                  && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e =>
                  parseFloat(getComputedStyle(e).fontSize)
                  * (e.ownerSVGElement ? e.getScreenCTM().a : 1))"""
            )
            assert len(sizes) > 20 and min(sizes) >= 12
            # each thing that can be used is reached by Tab, once, in the order of the page
            order = tab.evaluate(
                """(() => { window.found = [...document.querySelectorAll(
                  "a[href], button, summary, [tabindex='0'], input:checked")]
                  .filter(e => e.getClientRects().length); return found.length; })()"""
            )
            reached = []
            for _ in range(order + 1):  # one more: what scrolls can be reached, too
                if len({i for i in reached if i >= 0}) == order:
                    break
                tab.press("Tab")
                reached.append(tab.evaluate("found.indexOf(document.activeElement)"))
                if reached[-1] >= 0:  # and one sees where one is
                    outline = """(e => getComputedStyle(e.type === "radio" ?
                      e.nextElementSibling : e).outline)(document.activeElement)"""
                    assert "solid 3px" in tab.evaluate(outline)
            visible = [i for i in reached if i >= 0]
            assert visible == sorted(visible) and len(set(visible)) == order
            for tag, most in (("h1", 1), ("main", 1)):
                assert tab.evaluate(f"document.querySelectorAll('{tag}').length") == most
            behaviour = tab.evaluate("getComputedStyle(document.documentElement).scrollBehavior")
            assert behaviour == ("auto" if dark else "smooth")


READ = ("--ckpt", "a.net", "--data", "a.txt")
REFUSED = [
    (curves, "missing.jsonl"),
    (curves, "."),
    (curves, "/dev/zero"),
    (curves,),
    (curves, "a.jsonl", "--out", "no/where.html"),
    (curves, "a.jsonl", "--out", "a.jsonl"),
    (curves, "a.jsonl", "--out", "./link.jsonl"),
    (curves, "a.jsonl", "--out", "hard.html"),
    (curves, "a.jsonl", "--out", ""),
    (neurons, *READ, "--out", "a.net"),
    (neurons, *READ, "--out", "link.net"),
    (neurons, *READ, "--out", "texts"),
    (neurons, *READ, "--out", "a.txt"),
    (neurons, "--ckpt", "a.net", "--data", "texts", "--out", "texts/b.txt"),
    (neurons, "--ckpt", "missing.net", "--data", "a.txt"),
    (neurons, "--ckpt", "a.txt", "--data", "a.txt"),
    (eval_program, "--ckpt", "missing.net", "--data", "a.txt"),
    (eval_program, "--ckpt", "a.net", "a.net", "a.net", "--data", "a.txt", "--surprise", "x.html"),
    (eval_program, *READ, "--surprise", "no/where.html"),
    (eval_program, *READ, "--surprise", ""),
    (eval_program, *READ, "--surprise", "a.net"),
    (eval_program, *READ, "--surprise", "./a.txt"),
    (eval_program, "--ckpt", "a.net", "--data", "texts", "--surprise", "link.txt"),
    (eval_program, "--text", "ab", *READ),
    (eval_program, "--ckpt", "a.net", "--text", "ab", "--surprise", "x.html"),
    (eval_program, *READ, "--top", "5"),
    (eval_program, *READ, "--words", "5"),
    (eval_program, *READ, "--end"),
    (eval_program, "--ckpt", "a.net", "--text", "ab", "--top", "-1"),
    (eval_program, "--ckpt", "a.net", "--text", "ab", "--words", "0"),
    (share, "--ckpt", "missing.net"),
    (share, "--ckpt", "a.txt"),
    (share, "--ckpt", "a.net", "--out", "a.net"),
    (share, "--ckpt", "a.net", "--out", "link.net"),
    (share, "--ckpt", "a.net", "--out", "no/where.html"),
    (share, "--ckpt", "a.net", "--out", "a.txt"),
]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda args: " ".join(map(str, args[1:])))
def test_refusals_leave_all_as_it_was(
    refused: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    program, *args = refused
    save("a", bigram_model(tuple("ab"))[0], "ab" * 50)
    Path("a.jsonl").write_text(log_line(1, 1, 1))
    Path("texts").mkdir()
    Path("texts/b.txt").write_text("ab" * 50)
    for name, target in (
        ("link.jsonl", "a.jsonl"),
        ("link.net", "a.net"),
        ("link.txt", "texts/b.txt"),
    ):
        Path(name).symlink_to(target)
    Path("hard.html").hardlink_to("a.jsonl")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    device = ["--device", "cpu"] if program in (eval_program, neurons) else []
    assert program.main([*args, *device]) == 2
    out, error = capsys.readouterr()
    assert error.count("\n") == 1 and not out
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_programs_are_listed() -> None:
    folder = Path(curves.__file__).parent
    result = subprocess.run(
        [sys.executable, "-m", "charrnn"], capture_output=True, text=True, cwd=folder.parent
    )
    assert result.returncode == 0 and not result.stderr
    ours = [f.stem for f in folder.glob("*.py") if "\n@command\n" in f.read_text(encoding="utf-8")]
    for name in ours:
        if name != "train":
            assert f"python -m charrnn.{name} " in result.stdout
    assert all(line in result.stdout for line in PROGRAMS.values())


def test_caption_names_model_text_and_loss() -> None:
    make("surprise", "m", "ab ba\n" * 20)
    said = plain("a.html")
    assert "m.net: rnn 5 \u00d7 1" in said and "m.txt: all of it, 120 characters" in said
    assert re.search(r"\d\.\d{4} bits \(\d\.\d{4} nats\) per character", said)
