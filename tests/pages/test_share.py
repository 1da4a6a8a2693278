"""The page that writes: its weights, its numbers against PyTorch's, its use in a real browser."""

import json
import math
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Browser, Tab, running_browser  # noqa: F401 (a fixture)
from page_cases import HOSTILE
from runs import ROOT
from torch import Tensor

from benchmarks.share_speed import read_page
from charrnn import CharRNN, Vocabulary, next_word_probabilities, save_checkpoint
from charrnn import share as share_module
from charrnn.share import main

CELLS = ("lstm", "gru", "rnn")
HACK = "document.title='hacked'"


def random_model(tokens: str, cell: str, n_layers: int, n_hidden: int = 21) -> CharRNN:
    """Weights so large that the state matters, and that no gate is linear."""
    torch.manual_seed(0)
    model = CharRNN(tuple(tokens), n_hidden, n_layers, 0.0, cell).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 1.5 / math.sqrt(n_hidden))
    return model


def make(folder: Path, model: CharRNN, *flags: str, **extra: object) -> Path:
    """The page of a model."""
    save_checkpoint(folder / "a.net", model, **extra)
    assert main(["--ckpt", str(folder / "a.net"), *flags]) == 0
    return folder / "a.html"


def logits_after(model: CharRNN, text: str, start: str = "\n") -> Tensor:
    """Scores of each next character after ``start`` and then each of ``text``, ``[T + 1, V]``."""
    ids = Vocabulary(tuple(model.unique_tokens)).encode(start + text)[None]
    with torch.no_grad():
        return model(ids, model.init_hidden(1))[0]


# Reads ids with the page's own engine: the logits after each
READ = """(ids => {
    const model = JSON.parse(document.getElementById('model').textContent);
    const weights = document.getElementById('weights').textContent;
    const decoder = new Decoder(model, unpack(model, weights));
    decoder.step(model.start);
    return ids.map(id => (decoder.step(id), Array.from(decoder.logits)));
})"""
STATUS = "document.getElementById('status').textContent"
TEXT = "document.getElementById('text').value"
READY = "document.querySelector('.guess .percent')?.textContent"
IDLE = "document.getElementById('write').textContent === 'Write'"
PERCENTS = "[...document.querySelectorAll('.percent')].map(e => parseFloat(e.textContent))"
NAMES = "[...document.querySelectorAll('.guess .char')].map(e => e.textContent)"


def put(tab: Tab, **values: object) -> None:
    """Set sliders and fields as a hand does: with an input event."""
    for name, value in values.items():
        tab.evaluate(
            f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('input')) }})"
            f"(document.getElementById('{name}'))"
        )


def type_in(tab: Tab, text: str) -> None:
    tab.evaluate("document.getElementById('text').focus()")
    tab.type(text)


def wait_for_guesses(tab: Tab, logits: Tensor) -> None:
    """Until the bars show the five likeliest by these logits."""
    best = (100 * logits.softmax(dim=0)).topk(min(5, len(logits))).values.tolist()
    near = f"{PERCENTS}.every((p, i) => Math.abs(p - {best}[i]) <= 0.0501)"
    tab.wait(f"{near} && {PERCENTS}.length === {len(best)}")


@pytest.mark.parametrize("weights", ["float16", "int8"])
@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_logits_are_those_of_pytorch(
    browser: Browser,
    tmp_path: Path,
    cell: str,
    n_layers: int,
    weights: str,
) -> None:
    model = random_model("\nabcdefghijk", cell, n_layers)
    page = make(tmp_path, model, "--weights", weights)
    ids = torch.randint(12, (200,), generator=torch.Generator().manual_seed(1)).tolist()
    with browser.open(page) as tab:
        found = torch.tensor(tab.evaluate(f"{READ}({ids})"))
        assert tab.errors == []
    text = "".join(model.unique_tokens[i] for i in ids)
    expected = logits_after(read_page(page), text)[1:]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    if weights == "float16":
        torch.testing.assert_close(found, logits_after(model, text)[1:], atol=1e-2, rtol=0)


@pytest.mark.parametrize(("weights", "error"), [("float16", 2**-11), ("int8", 1 / 254)])
def test_weights_are_rounded_by_no_more_than_their_precision(
    tmp_path: Path, weights: str, error: float
) -> None:
    model = random_model("ab\ncd", "gru", 2)
    with torch.no_grad():
        model.fc.weight[2] = 0  # a row without a scale
        model.fc.weight[3, 4] = 1e6  # more than float16 has: 65504
    rounded = read_page(make(tmp_path, model, "--weights", weights)).state_dict()
    for name, weight in model.state_dict().items():
        if weight.dim() == 1:
            assert torch.equal(rounded[name], weight)
            continue
        largest = weight.abs().amax(dim=1, keepdim=True)
        allowed = error * (weight.abs() if weights == "float16" else largest) + 1e-7
        wrong = (rounded[name] - weight).abs() > allowed
        assert wrong.nonzero().tolist() == ([[3, 4]] if "fc" in name and error < 1e-3 else [])
    assert rounded["fc.weight"][3, 4] in (65504, 1e6)


def test_float16_is_decoded_exactly(browser: Browser, tmp_path: Path) -> None:
    numbers = np.arange(65536, dtype=np.uint16).view(np.float16).astype(float)
    with browser.open(make(tmp_path, random_model("\na", "rnn", 1))) as tab:
        found = np.array(tab.evaluate("Array.from({length: 65536}, (_, bits) => half(bits))"))
    finite = np.isfinite(numbers)
    assert finite.sum() == 65536 - 2 * 1024 and (found == numbers)[finite].all()


def test_temperature_and_top_k_are_those_of_sample(browser: Browser, tmp_path: Path) -> None:
    page = make(tmp_path, random_model("\nabc", "rnn", 1))
    logits = [2.0, -1.0, 0.5, 2.5, -3.0, 1.0, 1.0]
    with browser.open(page) as tab:
        for temperature, top_k in ((1.0, 0), (0.5, 3), (2.0, 5), (1.0, 99), (0.7, 1)):
            kept = torch.tensor(logits).topk(min(top_k or 7, 7))
            p = torch.zeros(7).scatter(0, kept.indices, (kept.values / temperature).softmax(0))
            drawn = tab.evaluate(
                f"""(logits => {{ const random = randomNumbers(7), counts = Array(7).fill(0);
                for (let i = 0; i < 20000; i++)
                    counts[draw(logits, {temperature}, {top_k}, random)]++;
                return counts; }})(Float32Array.from({logits}))"""
            )
            for count, chance in zip(drawn, p.tolist(), strict=True):
                spread = math.sqrt(20000 * chance * (1 - chance))
                assert abs(count - 20000 * chance) <= 4 * spread
        greedy = f"draw(Float32Array.from({logits}), 0, 0, randomNumbers(1))"
        assert tab.evaluate(greedy) == 3


def test_writes_what_is_likeliest_at_temperature_0(browser: Browser, tmp_path: Path) -> None:
    model = random_model("\nabcdefgh", "lstm", 2)
    page = make(tmp_path, model, "--prime", "abba")
    rounded, expected = read_page(page), "abba"
    while len(expected) < 104:
        expected += model.unique_tokens[int(logits_after(rounded, expected)[-1].argmax())]
    with browser.open(page) as tab:
        tab.wait(READY)
        assert tab.evaluate(TEXT) == "abba"
        put(tab, temperature=0, length=100)
        tab.click("#write")
        tab.wait(f"{IDLE} && {TEXT}.length > 4")
        assert tab.evaluate(TEXT) == expected
        assert "Wrote 100 characters" in tab.evaluate(STATUS)


def test_the_same_seed_writes_the_same_text(browser: Browser, tmp_path: Path) -> None:
    page = make(tmp_path, random_model("\nabcdefgh", "gru", 1))
    texts = []
    with browser.open(page) as tab:
        tab.wait(READY)
        for seed in (5, 6, 5):
            type_in(tab, "" if texts else "bad ")
            put(tab, seed=seed, length=200)
            tab.click("#write")
            tab.wait(f"{IDLE} && {TEXT}.length === 204")
            texts.append(tab.evaluate(TEXT))
            tab.click("#back")
            assert tab.evaluate(TEXT) == "bad "
        assert texts[0] == texts[2] != texts[1]
        assert all(text.startswith("bad ") for text in texts)
        tab.evaluate("document.getElementById('fresh').click()")  # another each time
        seeds = set()
        for _ in range(3):
            tab.click("#write")
            tab.wait(f"{IDLE} && {TEXT}.length === 204")
            seeds.add(tab.evaluate("document.getElementById('seed').value"))
            tab.click("#back")
        assert len(seeds) == 3


def test_stop_stops(browser: Browser, tmp_path: Path) -> None:
    model = random_model("\nabcdefgh", "lstm", 1, n_hidden=768)  # slow: seconds for all of it
    page = make(tmp_path, model, "--prime", "abc")
    with browser.open(page) as tab:
        tab.wait(READY)
        put(tab, length=2000)
        tab.click("#write")
        tab.wait(f"{TEXT}.length > 50")  # characters appear while it writes
        assert not tab.evaluate(IDLE)
        tab.press("Escape")
        tab.wait(f"{IDLE} && {STATUS}.startsWith('Stopped after')")
        text = tab.evaluate(TEXT)
        wait_for_guesses(tab, logits_after(read_page(page), text[3:], "\nabc")[-1])
        assert tab.evaluate(TEXT) == text
        assert f"Stopped after {len(text) - 3} " in tab.evaluate(STATUS)
        text += "abcdefgh" * 20  # takes a while to read, and nothing else is read meanwhile
        tab.evaluate("document.getElementById('text').setSelectionRange(1e6, 1e6)")
        type_in(tab, "abcdefgh" * 20)
        wait_for_guesses(tab, logits_after(read_page(page), text)[-1])


def test_settings_count_at_once(browser: Browser, tmp_path: Path) -> None:
    model = random_model("\nabcdefgh", "lstm", 1, n_hidden=768)
    page = make(tmp_path, model)
    with browser.open(page) as tab:
        tab.wait(READY)
        put(tab, temperature=2, top_k=9, length=2000)
        tab.click("#write")
        tab.wait(f"{TEXT}.length > 20")
        put(tab, temperature=0)
        length = tab.evaluate(f"{TEXT}.length")
        tab.wait(f"{TEXT}.length > {length} + 400")
        tab.press("Escape")
        tab.wait(IDLE)
        text = tab.evaluate(TEXT)
    likeliest = logits_after(read_page(page), text)[:-1].argmax(dim=1)
    follows = likeliest == Vocabulary(tuple(model.unique_tokens)).encode(text)
    assert follows[length + 300 :].all() and not follows[:length].all()


def test_guesses_follow_each_key_and_can_be_chosen(browser: Browser, tmp_path: Path) -> None:
    model = random_model("\nabcdefg h", "gru", 2)
    page = make(tmp_path, model)
    rounded = read_page(page)
    names = {"\n": "newline", " ": "space"}
    with browser.open(page) as tab:
        tab.wait(READY)
        wait_for_guesses(tab, logits_after(rounded, "")[-1])  # as if a line began
        tab.evaluate("document.getElementById('text').focus()")
        text = ""
        for char in "bad head":
            tab.press(char)
            text += char
            logits = logits_after(rounded, text)[-1]
            wait_for_guesses(tab, logits)
            best = [model.unique_tokens[i] for i in logits.topk(5).indices]
            assert tab.evaluate(NAMES) == [names.get(char, char) for char in best]
        tab.click(".guesses li:nth-child(3) button")
        text += best[2]
        wait_for_guesses(tab, logits_after(rounded, text)[-1])
        tab.press("Enter")  # the button has the focus still
        text += model.unique_tokens[int(logits_after(rounded, text)[-1].topk(3).indices[2])]
        wait_for_guesses(tab, logits_after(rounded, text)[-1])
        assert tab.evaluate(TEXT) == text


def test_words_are_those_of_python_and_can_be_chosen(browser: Browser, tmp_path: Path) -> None:
    model = random_model("\n abcd", "lstm", 2)
    page = make(tmp_path, model)
    with browser.open(page) as tab:
        tab.wait(READY)
        type_in(tab, "ab ca")
        expected = next_word_probabilities(read_page(page), "ab ca", 6)
        expected = {word: p for word, p in expected.items() if word}
        words = "[...document.querySelectorAll('.word')].map(e => e.textContent)"
        tab.wait(f"{TEXT} === 'ab ca' && {words}.length > 0")
        assert len(expected) >= 3
        assert tab.evaluate(words) == [f"{word} {100 * p:.1f}%" for word, p in expected.items()]
        tab.click(".word")
        tab.wait(f"{TEXT} === 'ab ca{next(iter(expected))}'")


def test_a_change_anywhere_is_read_as_the_text_now_is(browser: Browser, tmp_path: Path) -> None:
    model = random_model("\nabcdefgh", "lstm", 2)
    with torch.no_grad():  # a long memory: forget little, take in little
        for name, weight in model.lstm.named_parameters():
            weight[: 2 * 21] *= 0.1
            if "bias_ih" in name:
                weight[:21], weight[21:42] = -2, 6
    page = make(tmp_path, model)
    rounded = read_page(page)
    text = "".join("abcdefgh"[i] for i in torch.randint(8, (130,)))
    one, other = (logits_after(rounded, text[: k + 1] + "a" * (129 - k))[-1] for k in (9, 10))
    assert (one.softmax(0) - other.softmax(0)).abs().max() > 0.005
    with browser.open(page) as tab:
        type_in(tab, text)
        wait_for_guesses(tab, logits_after(rounded, text)[-1])
        for place in (129, 100, 130, 20, 64):  # states are kept after 0, 64 and 128 characters
            tab.evaluate(f"document.getElementById('text').setSelectionRange({place}, {place} + 1)")
            tab.type("hh")
            text = text[:place] + "hh" + text[place + 1 :]
            wait_for_guesses(tab, logits_after(rounded, text)[-1])
            assert tab.evaluate(TEXT) == text


def test_surprise_is_the_loss_in_bits(browser: Browser, tmp_path: Path) -> None:
    model = random_model("\nabcdefgh", "rnn", 2)
    page = make(tmp_path, model, val_loss=2.0)
    text = "bad head\nhedge a bed abc".replace(" ", "")
    log_p = logits_after(read_page(page), text)[:-1].log_softmax(dim=1)
    ids = Vocabulary(tuple(model.unique_tokens)).encode(text)
    bits = -log_p.gather(1, ids[:, None])[:, 0] / math.log(2)
    with browser.open(page) as tab:
        type_in(tab, text)
        tab.click("#colour")
        tab.wait("document.getElementById('mean').textContent")
        said = tab.evaluate("document.getElementById('mean').textContent")
        assert re.findall(r"\d+\.\d\d", said) == [f"{bits.mean():.2f}", f"{2 / math.log(2):.2f}"]
        tab.wait("document.querySelectorAll('#marks i').length > 3")
        marked = tab.evaluate(
            "[...document.querySelectorAll('#marks > *')].map(e => [e.textContent, e.className])"
        )
        shades = [name for some, name in marked for _ in some]
        assert "".join(some for some, _ in marked) == text
        assert shades == [f"s{min(9, int(b))}" for b in bits]


@pytest.mark.parametrize("tokens", ["\nabc", "\nabc\ufffd"])
def test_unknown_characters_are_marked(browser: Browser, tmp_path: Path, tokens: str) -> None:
    model = random_model(tokens, "lstm", 1)
    page = make(tmp_path, model, "--prime", "ab\u0416\U0001f600c")
    read = "ab\ufffd\ufffdc" if "\ufffd" in tokens else "abc"
    with browser.open(page) as tab:
        tab.wait(READY)
        wait_for_guesses(tab, logits_after(read_page(page), read)[-1])
        strange = "document.querySelector('#marks .strange').textContent"
        assert tab.evaluate(strange) == "\u0416\U0001f600"
        said = tab.evaluate(STATUS)
        assert "\u0416 \U0001f600" in said
        assert ("reads as unknown" if "\ufffd" in tokens else "leaves out") in said
        tab.click("#write")
        tab.wait(f"{IDLE} && {TEXT}.length > 400")


class Scripts(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


def test_texts_are_never_markup(browser: Browser, tmp_path: Path) -> None:
    tokens = "".join(sorted(set(HOSTILE) | {"\ud800"}))
    model = random_model(tokens, "lstm", 1)
    flags = ("--title", HOSTILE, "--prime", HOSTILE + "\ud800")
    text = {"name": HOSTILE, "chars": HOSTILE}
    page = make(tmp_path, model, *flags, text=text, val_loss=1.0, val_bpc="</script>")
    html = page.read_text(encoding="utf-8")
    plain = tmp_path / "plain"
    plain.mkdir()
    innocent = Scripts(make(plain, model).read_text(encoding="utf-8"))
    found = Scripts(html)
    assert [tag for tag in found.tags if tag != "span" and tag != "bdi"] == [
        tag for tag in innocent.tags if tag != "span" and tag != "bdi"
    ]
    assert not [name for name in found.attributes if name.startswith("on") or name == "src"]
    assert "\u2028" not in html[html.index("application/json") :]
    with browser.open(page) as tab:
        tab.wait(READY)
        model_data = "JSON.parse(document.getElementById('model').textContent)"
        points = tab.evaluate(f"{model_data}.tokens.map(token => token.codePointAt(0))")
        assert points == [ord(token) for token in tokens]
        typed = tab.evaluate(f"[...{TEXT}].map(char => char.codePointAt(0))")
        seen = HOSTILE.replace("\r", "\u240d") + "\ufffd"
        assert typed == [ord(char) for char in seen]
        put(tab, temperature=2, top_k=31, length=1000)
        tab.click("#colour")
        tab.click("#write")
        tab.wait(f"{IDLE} && {TEXT}.length > 1000")
        tab.evaluate("document.querySelector('.guess').click()")
        tab.evaluate(
            "document.querySelectorAll('*').forEach(e => e.dispatchEvent(new Event('mouseover')))"
        )
        assert tab.evaluate("document.title").startswith("<script>document.title='hacked'</script>")
        assert tab.evaluate("document.querySelectorAll('img, script').length") == 4
        assert tab.errors == []


def test_no_request_leaves(browser: Browser, tmp_path: Path) -> None:
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    page = make(tmp_path, random_model("\nabc", "lstm", 1))
    tries = {
        "fetch": "fetch('{0}/fetch').then(() => 'left', () => 'refused')",
        "image": "new Promise(done => {{ const i = new Image(); i.onload = () => done('left'); "
        "i.onerror = () => done('refused'); i.src = '{0}/image'; }})",
        "script": "new Promise(done => {{ const s = document.createElement('script'); "
        "s.onload = () => done('left'); s.onerror = () => done('refused'); "
        "s.src = '{0}/script'; document.body.append(s); }})",
        "worker": "new Promise(done => {{ const w = new Worker(URL.createObjectURL(new Blob(["
        "\"fetch('{0}/worker').then(() => postMessage('left'), () => postMessage('refused'))\"])));"
        "w.onmessage = e => done(e.data); }})",
    }
    with browser.open(page) as tab:
        tab.wait(READY)
        tab.click("#write")
        tab.wait(f"{IDLE} && {TEXT}")
        assert [url for url in tab.requests if not url.startswith("blob:")] == []
        assert tab.errors == []
        for name, code in tries.items():
            assert tab.evaluate(code.format(address)) == "refused", name
        tab.evaluate(
            f'(s => {{ s.textContent = "{HACK}"; document.body.append(s) }})'
            "(document.createElement('script'))"
        )
        assert tab.evaluate("document.title") != "hacked"
    server.shutdown()
    server.server_close()
    assert asked == []


@pytest.mark.parametrize("width", [1280, 390])
def test_marks_lie_under_their_letters(browser: Browser, tmp_path: Path, width: int) -> None:
    words = "a long line of words to be broken where the field is narrow, and one " + "x" * 150
    text = f"{words}\n\n\tA\u0301 tab {words}   {words}\n"
    model = random_model("".join(sorted(set(text))), "lstm", 1)
    with browser.open(make(tmp_path, model, "--prime", text), width=width) as tab:
        tab.wait(READY)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.evaluate("document.getElementById('colour').click()")
        box = "(e => [e.scrollHeight, ...Object.values(e.getBoundingClientRect().toJSON())])"
        field, under = tab.evaluate(f"[text, marks].map({box})")
        assert field == under
        assert field[0] > (8 if width > 1000 else 20) * 20


def test_line_ends_of_two_characters_and_halves_of_pairs_stay_in_step(
    browser: Browser, tmp_path: Path
) -> None:
    """A text field joins them, so that every mark after them would lie under another letter."""
    model = random_model("\n\rab\ud83d\ude00", "lstm", 1)
    with browser.open(make(tmp_path, model, "--prime", "ab\r\na")) as tab:
        tab.wait(READY)
        put(tab, temperature=2, top_k=31, length=300)
        tab.click("#write")
        tab.wait(f"{IDLE} && [...{TEXT}].length === 305")
        assert {"\u240d\n", "\ufffd\ufffd"} <= {a + b for a, b in pairwise(tab.evaluate(TEXT))}
        tab.evaluate("document.getElementById('text').focus()")
        tab.type("ba")
        tab.wait(f"{IDLE} && [...{TEXT}].length === 307")
        marked = "[...marks.querySelectorAll('.written')].map(e => e.textContent).join('')"
        whole = tab.evaluate(TEXT)
        place = whole.index(written) if (written := tab.evaluate(marked)) in whole else -1
        assert len(written) == 300 and place in (5, 7)  # typed before or after it
        assert tab.evaluate("document.querySelectorAll('.strange').length") == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_all_can_be_reached_and_has_a_name(browser: Browser, tmp_path: Path, width: int) -> None:
    model = random_model("\nabcdefg", "gru", 1)
    with browser.open(make(tmp_path, model, "--prime", "abc"), width=width) as tab:
        tab.wait(f"{READY} && document.querySelector('.word')")
        n_words = tab.evaluate("document.querySelectorAll('.word').length")
        tab.call("Accessibility.enable")
        nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
        named = {}
        for node in nodes:
            properties = {p["name"]: p["value"].get("value") for p in node.get("properties", [])}
            if properties.get("focusable") and node["role"]["value"] != "RootWebArea":
                named.setdefault(node["role"]["value"], []).append(node["name"]["value"])
        assert all(name for names in named.values() for name in names)
        assert named["slider"] == ["Temperature", "Top-k", "Length"]
        assert {"Write", "Copy"} < set(named["button"]) and len(named["button"]) >= 7
        assert re.fullmatch(r"Add \w+, \d+\.\d%", named["button"][-1])
        assert "Your text" in named["textbox"] and named["spinbutton"] == ["Seed"]
        tab.evaluate("document.getElementById('text').focus()")
        reached = []
        for _ in range(14 + n_words):
            reached.append(
                tab.evaluate("document.activeElement.id || document.activeElement.className")
            )
            tab.press("Tab")
        assert reached[:4] == ["text", "write", "copy", "colour"]  # there is nothing to take back
        settings = ["temperature", "top_k", "length", "seed", "fresh"]
        assert reached[4:] == ["guess"] * 5 + ["word"] * n_words + settings
        tab.evaluate("document.getElementById('text').focus()")
        tab.press("Enter", 2)
        tab.wait(f"{IDLE} && {TEXT}.length === 503")
        values = "[...document.querySelectorAll('output')].map(e => e.textContent)"
        assert tab.evaluate(values) == ["1.00", "5", "500 characters"]
        tab.evaluate("document.getElementById('top_k').focus()")
        for _ in range(9):
            tab.press("ArrowRight")
        assert tab.evaluate(values)[1] == "all 8"


def test_copy_copies_what_is_there(browser: Browser, tmp_path: Path) -> None:
    page = make(tmp_path, random_model("\nab\u0416", "lstm", 1), "--prime", "ab\n\u0416ba")
    with browser.open(page) as tab:
        browser.call(
            "Browser.grantPermissions",
            permissions=["clipboardReadWrite"],
            browserContextId=tab.context,
        )
        tab.wait(READY)
        tab.click("#copy")
        tab.wait(f"{STATUS} === 'Copied 6 characters.'")
        assert tab.evaluate("navigator.clipboard.readText()") == "ab\n\u0416ba"


def test_works_offline_and_calmly(browser: Browser, tmp_path: Path) -> None:
    page = make(tmp_path, random_model("\nabc", "lstm", 1, n_hidden=768))
    with browser.open(page, dark=True, reduced_motion=True, offline=True) as tab:
        tab.wait(READY)
        style = "getComputedStyle(document.querySelector('.guess .bar'), '::before')"
        assert float(tab.evaluate(f"{style}.transitionDuration").rstrip("s")) == 0
        before = tab.evaluate(f"{PERCENTS}.join()")
        put(tab, length=2000)
        tab.click("#write")
        tab.wait(f"{TEXT}.length > 50")
        assert tab.evaluate(f"[{IDLE}, {PERCENTS}.join()]") == [False, before]  # no flicker
        tab.click("#write")
        tab.wait(IDLE)
        assert tab.errors == []


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path) -> None:
    page = make(tmp_path, random_model("\nabc", "lstm", 2), "--title", "A & B", "--prime", "ab")
    first = page.read_bytes()
    assert main(["--ckpt", str(tmp_path / "a.net"), "--title", "A & B", "--prime", "ab"]) == 0
    assert page.read_bytes() == first
    assert b"<title>A &amp; B</title>" in first


def test_only_an_earlier_page_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = make(tmp_path, random_model("\nabc", "lstm", 1))
    net = tmp_path / "a.net"
    model, its_page = net.read_bytes(), page.read_bytes()
    others = {"essay.txt": b"my only copy", "site.html": b"<!DOCTYPE html>\n<title>mine</title>"}
    (tmp_path / "link.html").symlink_to(net)
    for name, contents in others.items():
        (tmp_path / name).write_bytes(contents)
    for name in ("a.net", "./a.net", "link.html", *others):
        capsys.readouterr()
        assert main(["--ckpt", str(net), "--out", f"{tmp_path}/{name}"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and name in said
        assert ("not a page of charrnn" in said) == (name in others)  # else: it is the model
    assert net.read_bytes() == model
    assert all((tmp_path / name).read_bytes() == contents for name, contents in others.items())
    (tmp_path / "empty.html").touch()
    assert main(["--ckpt", str(net), "--out", f"{tmp_path}/empty.html"]) == 0
    assert (tmp_path / "empty.html").read_bytes() == its_page


def test_a_large_page_says_how_to_make_it_smaller(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model("\nabc", "lstm", 1)
    page = make(tmp_path, model)
    assert "int8" not in capsys.readouterr().err
    monkeypatch.setattr(share_module, "LARGE", page.stat().st_size // 2)
    make(tmp_path, model)
    said = capsys.readouterr()
    assert re.search(r": \d+ KB; open it", said.err) and said.out == ""
    assert "--weights int8" in said.err
    make(tmp_path, model, "--weights", "int8")
    assert "--weights int8" not in capsys.readouterr().err


def test_what_the_checkpoint_says_is_in_the_caption(tmp_path: Path) -> None:
    model = random_model("\nabc", "gru", 2)
    html = make(tmp_path, model, text={"name": "my <diary>", "chars": 9}, val_loss=1.25).read_text()
    assert "<h1>A network that writes like my &lt;diary&gt;</h1>" in html
    assert "held-out loss 1.250 nats (1.80 bits) per character" in html
    for text, loss in ((7, "1"), ({"name": 3}, math.nan), (None, None), ({}, 1e300)):
        html = make(tmp_path, model, text=text, val_loss=loss).read_text()
        assert (
            "<h1>A network that writes</h1>" in html and "held-out" not in html.split("<main>")[0]
        )


@pytest.mark.slow
def test_the_benchmark_prints_its_figures(browser: Browser, tmp_path: Path) -> None:
    text = "abc\n" * 200
    (tmp_path / "a.txt").write_text(text)
    make(tmp_path, random_model("\nabc", "gru", 1))
    flags = ("--sizes", "8x1", "8x2", "--length", "50", "--repeats", "1", "--cell", "gru")
    flags += ("--ckpt", f"{tmp_path}/a.net", "--data", f"{tmp_path}/a.txt")
    command = [sys.executable, "-m", "benchmarks.share_speed", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    speed = r"8x{}: [\d,]+ characters a second, a page of 0\.\d MB"
    patterns = [speed.format(1), speed.format(2), r"held-out loss: (\d\.\d+) nats.*"]
    patterns += [r"float16: (\d\.\d+) \([+-]0\.\d+\)", r"int8: (\d\.\d+) \([+-]0\.\d+\)"]
    lines = done.stdout.splitlines()[1:]
    assert [bool(re.fullmatch(*both)) for both in zip(patterns, lines, strict=True)] == [True] * 5
