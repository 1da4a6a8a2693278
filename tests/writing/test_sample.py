"""sample.py as a user types it, mostly called in this process."""

import io
import json
import os
import pty
import resource
import signal
import subprocess
import sys
import unicodedata
from itertools import islice
from pathlib import Path

import pytest
import torch
from forked import Forked, run_forked
from runs import ROOT

import sample
from charrnn import CharRNN, Vocabulary, load_checkpoint, save_checkpoint
from charrnn import sample as generate
from charrnn.errors import UserError
from charrnn.system.console import escape_control_chars
from charrnn.writing.conversation import Conversation

TOKENS = Vocabulary.from_text("\n abcdefghij:\u0301e").tokens
GREEDY = ("--temperature", "0", "--dtype", "float32")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a model whose every character depends on what came before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sample.py"])
    torch.manual_seed(2)
    model = CharRNN(TOKENS, 24, 2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)
    save_checkpoint("rnn.net", model)
    return tmp_path


class Program:
    """sample.main as the command line calls it, in ``folder``."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self.patch, self.capture, self.errors = folder, patch, capture, ""

    def call(self, args: tuple[str, ...], given: str) -> tuple[int, str]:
        self.patch.setattr(sys, "stdin", io.StringIO(given))
        status = sample.main([*args, "--device", "cpu"])
        captured = self.capture.readouterr()
        self.errors = captured.err
        return status, captured.out

    def __call__(self, *args: str, given: str = "") -> str:
        """What is written to stdout by a call that succeeds; ``errors`` is what stderr got."""
        status, text = self.call(args, given)
        assert status == 0, self.errors
        return text

    def refused(self, *args: str) -> str:
        """The line on stderr of a call that fails, and writes and changes nothing."""

        def files() -> dict[Path, object]:
            return {path: path.is_file() and path.read_bytes() for path in self.folder.iterdir()}

        before = files()
        assert self.call(args, "") == (2, "")
        assert self.errors.count("\n") == 1 and files() == before
        return self.errors


@pytest.fixture
def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    return Program(folder, monkeypatch, capsys)


def test_only_the_text_is_written(run: Program, folder: Path) -> None:
    command = ("--prime", "dhe cab", "--size", "50", "--seed", "1")
    text = run(*command)
    assert text.startswith("dhe cab") and len(text) == 7 + 50 + 1 and run.errors == ""
    assert run(*command) == text != run(*command[:-1], "2")
    assert run(*command, "--out", "out.txt") == ""
    assert (folder / "out.txt").read_text() == text
    assert len(run("--size", "3")) == 1 + 3 + 1  # from a newline


def test_a_replaced_stdout_will_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare:
        """As little as print needs."""

        written = ""

        def write(self, text: str) -> None:
            self.written += text

        def flush(self) -> None:
            pass

    texts = []
    for stream in (io.StringIO(), Bare(), io.TextIOWrapper(io.BytesIO(), encoding="ascii")):
        monkeypatch.setattr(sys, "stdout", stream)
        assert sample.main(["--prime", "\u0301", "--seed", "1", "--device", "cpu"]) == 0
        if isinstance(stream, io.TextIOWrapper):
            texts.append(stream.buffer.getvalue().decode())  # UTF-8 all the same
        else:
            texts.append(stream.written if isinstance(stream, Bare) else stream.getvalue())
    assert len(set(texts)) == 1 and len(texts[0]) == 1002


def test_stop_ends_a_text_before_its_first_occurrence(run: Program) -> None:
    flags = ("--prime", "a", "--seed", "3", "--top-k", "0", "--size", "300")
    new = run(*flags)[1:-1]
    first, second = new[120:123], new[60:62]
    for stops in ((first,), (first, second), (second, first, "\u0301\u0301\u0301\u0301")):
        given = [word for stop in stops for word in ("--stop", stop)]
        end = min(i for stop in stops if (i := new.find(stop)) >= 0)
        assert run(*flags, *given) == f"a{new[:end]}\n"
        assert len(new[:end]) < 121
    assert "\n" in new
    assert run(*flags, "--escapes", "--stop", r"\n") == f"a{new.partition(chr(10))[0]}\n"
    # what the prime ends with does not count
    assert run("--prime", "ab", "--stop", "ab", "--seed", "1").startswith("ab")


def test_stop_after_ends_a_text_after_its_first_occurrence(run: Program) -> None:
    flags = ("--prime", "a", "--seed", "3", "--top-k", "0", "--size", "300")
    new = run(*flags)[1:-1]
    earlier = new[20:22]
    # three characters that come for the first time after those of earlier, within a line
    threes = (new[i : i + 3] for i in range(new.find(earlier) + 2, 298))
    stop = next(x for x in threes if "\n" not in x and new.find(x) > new.find(earlier) + 1)
    expected = new[: new.find(stop) + 3]
    assert run(*flags, "--stop-after", stop) == f"a{expected}\n"
    both = ("--stop-after", stop, "--stop", earlier)
    assert run(*flags, *both) == f"a{new[: new.find(earlier)]}\n"
    assert run(*flags, "--stop-after", r"\n", "--escapes") == f"a{new[: new.find(chr(10)) + 1]}\n"
    talk = run("--interactive", *flags[2:], "--stop-after", stop, given="a\n")
    assert talk == f"a{expected}\n"
    assert "--stop-after: the model never saw 'Q'" in run.refused("--stop-after", "Q")


@pytest.mark.parametrize("n", [1, 3, 70])
@pytest.mark.parametrize("separator", ["", "\n", "-|-"])
def test_only_new_text_and_a_separator_alone(run: Program, n: int, separator: str) -> None:
    flags = ("--prime", "ab", "--size", "30", "--seed", "1", "--num-samples", str(n))
    lines = [json.loads(line) for line in run(*flags, "--json").splitlines()]
    texts = [line["text"] for line in lines]
    last = "" if texts[-1].endswith("\n") else "\n"
    between = (f"--separator={separator}",)
    assert run(*flags, "--only-new", *between) == separator.join(texts) + last
    assert run(*flags, *between) == separator.join("ab" + text for text in texts) + last
    whole = run(*flags)
    for text in texts:
        whole = whole.replace(f"ab{text}\n", f"{text}\n", 1)
    assert run(*flags, "--only-new") == whole


def test_texts_that_end_with_a_line_end_are_lines(run: Program, folder: Path) -> None:
    """Names come out one a line, whether the line ends are the model's or the separator's."""
    flags = ("--prime", r"\n", "--escapes", "--seed", "1", "--num-samples", "9")
    # else a text may have no line end at all
    flags += ("--top-k", "0", "--temperature", "3", "--only-new")
    own = run(*flags, "--stop-after", r"\n", "--separator", "")
    assert own == run(*flags, "--stop", r"\n", "--separator", r"\n")
    assert own.count("\n") == 9 and len(set(own.splitlines())) == 9
    assert run(*flags[:-1], "--separator", r"\u0000", "--size", "0") == "\0".join("\n" * 9)
    run("--separator", r"\n", "--size", "1")
    assert "--separator" in run.errors and "--escapes" in run.errors
    for flag in (("--only-new",), ("--separator", "")):
        assert "--json: leave out" in run.refused("--json", *flag)
        assert "--interactive: leave out" in run.refused("--interactive", *flag)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("", ""),
        (r"a\nb\tc\\nd", "a\nb\tc\\nd"),
        (r"\u00e9\u00E9", "\u00e9\u00e9"),
        (r"\ud83d\ude00", "\U0001f600"),
        ("\u00e9 \U0001f600", "\u00e9 \U0001f600"),
    ],
)
def test_escapes(typed: str, meant: str) -> None:
    assert sample.unescape(typed, "--prime") == meant


@pytest.mark.parametrize("typed", ["a\\", "\\x41", "\\u12", "\\u12gh", "\\N", "\\\n"])
def test_other_escapes_are_named(typed: str) -> None:
    with pytest.raises(UserError, match=r"(?s)--prime: \\.* is none of"):
        sample.unescape(typed, "--prime")


def test_primes_with_escapes_from_a_file_and_with_a_hyphen(run: Program, folder: Path) -> None:
    assert run("--prime", r"a\nb", "--escapes", "--size", "0") == "a\nb\n"
    assert run("--prime", r"a\nb", "--size", "0") == "ab\n"
    assert "--escapes" in run.errors
    assert r"\q is none of" in run.refused("--prime", r"a\q", "--escapes")
    assert "write --prime=-x" in run.refused("--prime", "-x")
    assert "'-' (U+002D HYPHEN-MINUS)" in run.refused("--prime=-X")
    (folder / "prime.txt").write_bytes("\ufeffab\r\ncd\n".encode())
    assert run("--prime-file", "prime.txt", "--size", "0") == "ab\ncd\n\n"
    assert "not allowed with" in run.refused("--prime-file", "prime.txt", "--prime", "a")
    (folder / "prime.txt").write_bytes(b"ab\xff")
    assert "prime.txt: not UTF-8 at byte 2" in run.refused("--prime-file", "prime.txt")
    (folder / "prime.txt").write_bytes(b"")
    assert "--prime-file is empty" in run.refused("--prime-file", "prime.txt")
    for name in ("missing.txt", ".", "/dev/zero"):
        assert name in run.refused("--prime-file", name)


def test_the_other_normal_form_is_used_and_said(run: Program) -> None:
    composed = "\u00e9"
    text = run("--prime", composed, "--size", "5")
    assert text.startswith(unicodedata.normalize("NFD", composed))
    assert run.errors.count("\n") == 1 and "other normal form" in run.errors
    run("--stop", composed, "--size", "5")
    assert "--stop" in run.errors
    assert "'\u00e8' (U+00E8" not in (line := run.refused("--stop", "\u00e9\u00e8Q"))
    assert "'\u0300' (U+0300 COMBINING GRAVE ACCENT), 'Q' (U+0051" in line


def test_unknown_characters_of_a_prime_are_left_out_and_said(run: Program) -> None:
    assert run("--prime", "QaBc\u2014", "--size", "0") == "ac\n"
    assert run.errors.count("\n") == 1 and run.errors.endswith("; left out\n")
    assert "'B' (U+0042 LATIN CAPITAL LETTER B), but 'b'," in run.errors
    assert "'Q' (U+0051 LATIN CAPITAL LETTER Q)," in run.errors  # neither case is known
    assert run("--interactive", "--size", "0", given="QaBc\n") == "ac\n"
    assert "the line: the model never saw" in run.errors
    model = CharRNN(tuple("ab'\u201d-"), 4, 1)
    save_checkpoint("quotes.net", model)
    run("--ckpt", "quotes.net", "--prime", 'a\u2019\u201c\u2014"', "--size", "0")
    assert 'QUOTATION MARK), but "\'",' in run.errors and "EM DASH), but '-'," in run.errors


def test_a_prime_from_stdin_or_a_fifo_is_read_once(folder: Path) -> None:
    os.mkfifo("fifo")
    for name in ("-", "fifo"):
        command = [sys.executable, ROOT / "sample.py", "--prime-file", name, "--size", "0"]
        with Forked(
            [*command, "--device", "cpu"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            if name == "-":
                process.stdin.write(b"ab\r\ncd")
            process.stdin.close()
            if name == "fifo":
                Path(name).write_bytes(b"ab\r\ncd")
            assert process.stdout.read() == b"ab\ncd\n"
        assert process.returncode == 0


def test_text_n_depends_on_the_seed_and_n_alone(run: Program) -> None:
    def texts(n: int, *flags: str) -> list[str]:
        command = ("--prime", "ab", "--seed", "5", "--num-samples", str(n), "--json", *flags)
        return [
            json.loads(line)["text"]
            for line in run(*command, "--dtype", "float32").split("\n")[:-1]
        ]

    whole = texts(70, "--size", "60")
    assert len(set(whole)) == 70
    for n in (1, 3, 6, 66):
        assert texts(n, "--size", "60") == whole[:n]
    assert texts(3, "--size", "20") == [text[:20] for text in whole[:3]]
    assert texts(5, "--size", "60", "--stop", "c") == [t.partition("c")[0] for t in whole[:5]]
    model = load_checkpoint("rnn.net")
    assert generate(model, 60, "ab", seed=5, dtype="float32") == "ab" + whole[0]
    four = generate(model, 60, "ab", seed=5, num_samples=4, dtype="float32")
    assert four == ["ab" + text for text in whole[:4]]


def test_each_line_of_primes_is_gone_on_from(run: Program, folder: Path) -> None:
    lines = ["ab", "a cab", "j", "ab"] + ["bad" * (i % 5 + 1) for i in range(66)]
    (folder / "primes.txt").write_text("\n".join(lines) + "\n")
    flags = ("--seed", "5", "--size", "30", "--dtype", "float32")
    many = ("--primes", "primes.txt", *flags)

    def texts(*flags: str) -> list[tuple[str, str]]:
        return [(line["prime"], line["text"]) for line in map(json.loads, run(*flags).splitlines())]

    found = texts(*many, "--json")
    assert [prime for prime, _ in found] == lines
    alone = texts("--prime", "ab", *flags, "--json", "--num-samples", "4")
    assert [found[0], found[3]] == [alone[0], alone[3]]  # text n of a prime, whatever the others
    alone = texts("--prime", "bad" * 5, *flags, "--json", "--num-samples", "69")
    assert found[68] == alone[68]  # of the second block
    plain = run(*many)
    for number, (prime, text) in enumerate(found, 1):
        rule = f"======== sample {number} of 70 ========\n" if number > 1 else ""
        assert plain.startswith(f"{rule}{prime}{text}\n")
        plain = plain.removeprefix(f"{rule}{prime}{text}\n")
    assert plain == "" and run(*many, "--out", "out.txt") == ""
    assert (folder / "out.txt").read_text() == run(*many)
    stopped = texts(*many, "--json", "--stop", "c")
    assert stopped == [(prime, text.partition("c")[0]) for prime, text in found]
    two_each = texts(*many, "--json", "--num-samples", "2")
    assert [prime for prime, _ in two_each] == [prime for prime in lines for _ in range(2)]
    assert two_each[:2] == texts("--prime", "ab", *flags, "--json", "--num-samples", "2")


def test_a_line_of_primes_that_cannot_be_read_is_named(run: Program, folder: Path) -> None:
    (folder / "primes.txt").write_bytes("\ufeffa\\nb\r\ncQd".encode())
    assert run("--primes", "primes.txt", "--escapes", "--size", "0").startswith("a\nb\n=")
    assert run.errors.count("\n") == 1 and "--primes, line 2: the model never saw 'Q'" in run.errors
    for text, reason in (("", "line 1 is empty"), ("a\n\nb", "line 2 is empty"), ("\nQ", "line 1")):
        (folder / "primes.txt").write_text(text)
        assert f"--primes, {reason}" in run.refused("--primes", "primes.txt")
    assert "missing.txt" in run.refused("--primes", "missing.txt")
    assert "same file as the input" in run.refused("--primes", "primes.txt", "--out", "primes.txt")
    assert "--interactive" in run.refused("--primes", "primes.txt", "--interactive")
    assert "not allowed with" in run.refused("--primes", "primes.txt", "--prime", "a")


def test_json_has_the_text_as_it_is_and_its_bits(run: Program) -> None:
    flags = ("--prime", "ab", "--size", "30", "--seed", "2", "--num-samples", "2", "--json")
    out = run(*flags)
    assert "\u0301" in out and "\\u" not in out
    model = load_checkpoint("rnn.net")
    for line in map(json.loads, out.splitlines()):
        ids = Vocabulary(TOKENS).encode("\nab" + line["text"])
        logits, _ = model(ids[None, :-1], model.init_hidden(1))
        p = logits.double().softmax(dim=1).gather(1, ids[1:, None])
        assert line["bits"] == pytest.approx(-p[2:].log2().sum().item(), abs=1e-3)


def test_top_p_alone_turns_the_default_top_k_off(run: Program) -> None:
    model = CharRNN(TOKENS, 4, 1)
    with torch.no_grad():
        for weight in model.fc.parameters():
            weight.zero_()  # all characters are equally likely
    save_checkpoint("even.net", model)
    command = ("--ckpt", "even.net", "--prime", "a", "--size", "600")
    assert len(set(run(*command)[1:-1])) == 5
    for p in ("0.99", "1"):
        assert set(run(*command, "--top-p", p)[1:-1]) == set(TOKENS)
    assert len(set(run(*command, "--top-p", "0.99", "--top-k", "3")[1:-1])) == 3
    for setting, distinct in ((":top-p 0.99", len(TOKENS)), (":top-k 3", 3), (":temp 0", 1)):
        reply = run(*command[:2], "--interactive", given=f":size 600\n{setting}\na\n")
        assert len(set(reply[1:601])) == distinct


@pytest.mark.parametrize("n", [2, 70])
def test_several_texts_are_told_apart(run: Program, n: int) -> None:
    flags = ("--prime", "ab", "--size", "40", "--seed", "1", "--num-samples", str(n))
    text = run(*flags)
    parts = [text]
    for i in range(2, n + 1):
        before, line, after = parts.pop().partition(f"\n======== sample {i} of {n} ========\n")
        assert line
        parts += [before, after]
    parts[-1] = parts[-1].removesuffix("\n")
    assert len(parts) == len(set(parts)) == n
    assert all(part.startswith("ab") and len(part) == 42 for part in parts)
    lines = [json.loads(line) for line in run(*flags, "--json").splitlines()]
    assert [line["prime"] + line["text"] for line in lines] == parts
    stopped = [json.loads(line) for line in run(*flags, "--json", "--stop", "c").splitlines()]
    assert [line["text"] for line in stopped] == [part[2:].partition("c")[0] for part in parts]


def test_the_line_between_texts_is_of_a_character_unknown_to_the_model() -> None:
    assert sample.title(CharRNN(TOKENS, 2, 1), 2, 3) == "======== sample 2 of 3 ========\n"
    assert "~~" in (line := sample.title(CharRNN(tuple("ab="), 2, 1), 2, 3)) and "=" not in line


def test_texts_without_number_take_no_memory() -> None:
    first = list(islice(sample.blocks(10**12, 1000), 5))
    assert [i for numbers in first for i in numbers] == list(range(1, sum(map(len, first)) + 1))
    assert max(map(len, first)) <= 64
    assert [len(numbers) for numbers in sample.blocks(3, 10**12)] == [1, 1, 1]
    assert sum(map(len, sample.blocks(130, 0))) == 130


def test_a_text_appears_as_it_is_drawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.StringIO):
        """Remembers how much had come when it was flushed."""

        seen = ()

        def flush(self) -> None:
            self.seen += (len(self.getvalue()),)

    for flags, n in (((), 1000), (("--interactive",), 300)):
        monkeypatch.setattr(sys, "stdout", stream := Slow())
        monkeypatch.setattr(sys, "stdin", io.StringIO("a\n"))
        prime = () if flags else ("--prime", "a")
        assert sample.main([*flags, *prime, "--device", "cpu"]) == 0
        assert set(range(1, n + 2)) <= set(stream.seen)


def test_a_conversation_remembers_and_takes_commands(run: Program) -> None:
    def talk(*lines: str, flags: tuple[str, ...] = ("--size", "30")) -> str:
        return run("--interactive", *flags, *GREEDY, given="".join(line + "\n" for line in lines))

    def whole(prime: str, size: int) -> str:
        return run("--prime", prime, "--size", str(size), *GREEDY)

    one, both = talk("a cab"), talk("a cab", "a cab")
    assert one == whole("a cab", 30)
    reply = one.removesuffix("\n")
    # the state goes on as if all had been one prime
    assert reply + both.removeprefix(one) == whole(reply + "a cab", 30)
    assert talk("a cab", ":reset", "a cab") == one + one
    assert talk("a cab", "", "").replace("\n", "") == whole("a cab", 90).replace("\n", "")
    assert talk("").replace("\n", "") == whole("\n", 30).replace("\n", "")  # nothing to go on from
    assert talk("::a", ":quit", "a cab") == whole(":a", 30)
    assert talk(":size 7", "a cab") == whole("a cab", 7)
    assert len(talk("a cab", flags=())) in (5 + 300, 5 + 301)
    stop = reply[20:22]
    stopped = "a cab" + reply.removeprefix("a cab").partition(stop)[0]
    line_end = "" if stopped.endswith("\n") else "\n"
    assert talk("a cab", flags=("--size", "30", "--stop", stop)) == stopped + line_end != one
    assert run("--interactive", "--prime", "a cab", "--size", "30", *GREEDY) == one
    assert talk(r"a\nb", flags=("--escapes", "--size", "0")) == "a\nb\n"


def test_the_first_prime_of_a_conversation_is_no_typed_line(run: Program) -> None:
    for prime in ("::a", ":"):
        flags = ("--interactive", "--prime", prime, "--size", "0")
        assert run(*flags) == f"{prime}\n"
    flags = ("--interactive", "--escapes", "--size", "0")
    assert run(*flags, "--prime", r"a\nb", given="a\n") == "a\nb\na\n"


def test_a_conversation_reads_the_stop_that_ended_a_reply(run: Program) -> None:
    """What the model reads: all that was typed and drawn, the stop too, which is not shown."""
    whole = run("--prime", "a cab", "--size", "60", *GREEDY)[5:-1]
    for stop in (whole[10:12], whole[20:23]):
        before = whole.partition(stop)[0]
        flags = ("--size", "60", "--stop", stop, *GREEDY)
        shown = run("--interactive", *flags, given="a cab\nbad\n")
        line_end = "" if before.endswith("\n") else "\n"
        prime = f"a cab{before}{stop}bad"
        reply = run("--prime", prime, *flags)[len(prime) - 3 :]
        assert shown == f"a cab{before}{line_end}{reply}"


def test_a_turn_stands_around_what_is_typed(run: Program) -> None:
    flags = ("--interactive", "--escapes", "--size", "20", *GREEDY)
    turn = ("--turn", r"a: {}\nb:")
    first = run(*flags, *turn, given="cab\n")
    prime = "a: cab\nb:"
    reply = run("--prime", prime, "--size", "20", *GREEDY)[:-1]
    assert first == reply + "\n"
    both = run(*flags, *turn, given="cab\ndad\n")
    line_end = "" if reply.endswith("\n") else "\n"  # a turn begins on a line of its own
    prime = f"{reply}{line_end}a: dad\nb:"
    assert both == first + run("--prime", prime, "--size", "20", *GREEDY)[len(prime) - 9 :]
    for bad in (("--turn", "a"), ("--turn", "{}{}")):
        assert "--turn" in run.refused("--interactive", *bad)
    assert "--turn" in run.refused("--turn", "a{}")
    assert "'Q'" in run.refused("--interactive", "--turn", "Q{}")


def test_a_turn_does_not_repeat_the_stop_that_was_read(folder: Path) -> None:
    model, written = load_checkpoint("rnn.net"), []
    options = {"size": 5, "stop": ["\na:"], "temperature": 0}
    talk = Conversation(model, options, written.append, str, ("a: ", "\nb:"))
    talk.unseen, talk.last = "\na:", ":"
    assert talk.unread("a: cab\nb:") == " cab\nb:"
    talk.unseen, talk.last = "\n", "\n"
    assert talk.unread("a: cab\nb:") == "a: cab\nb:"
    talk.unseen, talk.last = "", "c"
    assert talk.unread("a: cab\nb:") == "\na: cab\nb:"
    assert talk.unread("") == ""


def test_a_conversation_answers_mistakes_and_goes_on(run: Program) -> None:
    lines = (
        "Q",
        "\x1b",
        ":temp hot",
        ":top-p 0",
        ":size",
        ":seed -1",
        ":help",
        ":nonsense",
        "a cab",
    )
    flags = ("--interactive", "--size", "30")
    expected = run("--prime", "a cab", "--size", "30", *GREEDY)
    assert run(*flags, *GREEDY, given="\n".join(lines)) == expected
    for mistake in ("'Q' (U+0051", "temperature: 'hot' is not", "top_p: '0'", "size: ''", "seed:"):
        assert mistake in run.errors
    assert run.errors.count(":quit or Ctrl-D ends") == 2
    assert "\x1b" not in run.errors and "\\x1b" in run.errors
    seeded = [run(*flags, given=f":seed {seed}\na\n") for seed in (1, 1, 2)]
    assert seeded[0] == seeded[1] != seeded[2]


def test_the_prompt_stands_on_a_line_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CharRNN(TOKENS, 4, 1)
    with torch.no_grad():
        model.fc.bias[0] += 100  # nothing but newlines
    save_checkpoint("newlines.net", model)
    for ckpt in ("rnn.net", "newlines.net"):
        screen = io.StringIO()
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, screen)
        monkeypatch.setattr(sys, "stdin", io.StringIO("a\na\n:quit\n"))
        flags = ["--ckpt", ckpt, "--interactive", "--size", "3", *GREEDY]
        assert sample.main([*flags, "--device", "cpu"]) == 0
        help_, *replies, end = screen.getvalue().split("> ")
        assert help_.endswith("\n") and len(replies) == 2 and end == ""
        for reply in replies:
            assert reply.startswith("a") and reply.endswith("\n") and len(reply) in (4, 5)


def test_bad_input_is_one_line(run: Program) -> None:
    for args, reason in (
        (["--ckpt", "missing.net"], "missing.net"),
        (["--prime", ""], "--prime is empty"),
        (["--stop", ""], "--stop is empty"),
        (["--stop", "Q"], "--stop: the model never saw 'Q'"),
        (["--top-p", "0"], "--top-p"),
        (["--temperature", "-1"], "--temperature"),
        (["--temperature", "nan"], "--temperature"),
        (["--size", "ten"], "--size"),
        (["--size", "1" + "0" * 20], "--size"),
        (["--num-samples", "1" + "0" * 20], "--num-samples"),
        (["--num-samples", "0"], "--num-samples"),
        (["--interactive", "--json"], "--interactive"),
        (["--interactive", "--out", "a.txt"], "--interactive"),
        (["--interactive", "--num-samples", "2"], "--interactive"),
        (["--tempature"], "did you mean --temperature"),
        (["--out", "no/where.txt"], "no/where.txt"),
        (["--out", "."], "cannot be written"),
    ):
        assert reason in run.refused(*args), args


def test_what_is_read_is_never_written(run: Program, folder: Path) -> None:
    (folder / "prime.txt").write_text("ab")
    (folder / "link").symlink_to("rnn.net")
    os.link("rnn.net", "hard")
    for out in ("rnn.net", "./rnn.net", "link", "hard", str(folder / "rnn.net"), "prime.txt"):
        assert "same file as the input" in run.refused("--prime-file", "prime.txt", "--out", out)


def test_devices_and_links_are_written_to_as_they_are(run: Program, folder: Path) -> None:
    assert run("--out", os.devnull, "--size", "3") == ""
    assert Path(os.devnull).is_char_device()
    (folder / "target.txt").write_text("old")
    (folder / "link").symlink_to("target.txt")
    run("--out", "link", "--prime", "ab", "--size", "0")
    assert (folder / "link").is_symlink() and (folder / "target.txt").read_text() == "ab\n"


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_a_closed_stream_is_one_line(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, name, None)  # what Python puts there for <&- and >&-
    assert sample.main(["--interactive", "--device", "cpu"]) == 2
    assert f"{name} is closed" in capsys.readouterr().err


def test_input_that_is_not_utf8_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xff\n"), "utf-8"))
    assert sample.main(["--interactive", "--device", "cpu"]) == 2
    assert "stdin: not UTF-8" in capsys.readouterr().err


def command(*flags: str) -> list[str]:
    """For what needs a process of its own: signals, limits, terminals."""
    return [sys.executable, str(ROOT / "sample.py"), *flags, "--device", "cpu"]


def test_a_reader_that_leaves_ends_it_quietly(folder: Path) -> None:
    flags = ("--num-samples", "1000000", "--size", "3")
    with Forked(
        command(*flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(60) == 0


def test_a_full_disk_is_one_line(folder: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    result = run_forked(
        command("--out", "a.txt"), cwd=folder, capture_output=True, text=True, preexec_fn=limit
    )
    assert result.returncode == 2 and "File too large" in result.stderr
    assert result.stderr.count("\n") == 1 and not (folder / "a.txt").exists()


def test_control_characters_are_spelled_out_to_a_terminal(folder: Path) -> None:
    assert escape_control_chars("a\x1b[2J\x9b\x7f\r\n\té") == "a\\x1b[2J\\x9b\\x7f\\r\n\té"
    save_checkpoint("control.net", CharRNN(("\x1b", "\x07"), 4, 1))
    flags = ("--ckpt", "control.net", "--size", "20")
    plain = run_forked(command(*flags), cwd=folder, capture_output=True, check=True).stdout
    assert b"\x1b" in plain
    master, slave = pty.openpty()
    run_forked(command(*flags), cwd=folder, stdout=slave, check=True)
    os.close(slave)
    shown = os.read(master, 10_000)
    os.close(master)
    assert b"\x1b" not in shown and b"\\x1b" in shown


def test_nothing_is_loaded_that_is_not_needed() -> None:
    """Time to the first character is that of torch; text readers and bars would add to it."""
    code = "import sys, sample; print([name for name in sys.modules if name in sys.argv[1:]])"
    names = (
        "charrnn.text.corpus",
        "charrnn.training.settings",
        "charrnn.pages",
        "pydoc_data.topics",
        "readline",
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
