"""Hostile files, strange texts and odd flags: each works or gives one line; nothing is damaged."""

import contextlib
import io
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from memory import limit_memory
from runs import ROOT, contents, run_in
from torch import Tensor

import train
from charrnn import CharRNN, Vocabulary, get_batches, load_checkpoint, sample, save_checkpoint
from charrnn.errors import UserError
from charrnn.network.checkpoint import load_dict
from charrnn.run import report
from charrnn.text.corpus import load_corpus
from charrnn.text.split import split_text

# Every field of a .resume, a .net and a .jsonl, mutated

UGLY: list[Any] = [None, True, False, 0, -1, 1, 2, 3, 10**6, 2**31, 2**63, -(2**63), 10**400]
UGLY += [0.0, -0.0, -1.0, 0.5, 1.0, 1.5, 1e300, 1e-300, float("nan"), float("inf"), -float("inf")]
UGLY += ["", "a", "load", "\x1b[31mred", "a\nb", "\0", "\u2028", "\ud800", "x" * 200_000]
UGLY += [[], [1], ["/dev/zero"], ["/dev/null"], ["."], ["thesis.tex"], ["a", "b"], {}, {"a": 1}]
UGLY += [(), ("a",), torch.ones(()), torch.ones(3), torch.empty(0), torch.tensor(True)]
NESTED: list[Any] = []
for _ in range(900):
    NESTED = [NESTED]
UGLY.append(NESTED)

Change = Callable[[Any], Any]


def tensor_changes(tensor: Tensor) -> list[Any]:
    """What a tensor may be replaced by: of other sizes, types, layouts and with other numbers."""
    n, shape = tensor.numel(), tensor.shape
    flat = torch.zeros(2 * n + 50, dtype=tensor.dtype)
    one = flat[0]
    others: list[Any] = [flat[:0], flat[:1], flat[: n + 1], flat[: 2 * n], flat[:49], flat[5]]
    others += [one.expand(n), one.expand(shape), flat[: 2 * n : 2].view(shape)]
    others += [flat[1 : n + 1].view(shape), tensor[None], tensor.flatten()]
    if tensor.dim() == 2:
        others.append(tensor.T.clone().T)
    others += [tensor[:-1] if tensor.dim() else flat[:0], flat[: n * 2].view(2, *shape)]
    dtypes = (torch.int64, torch.int8, torch.uint8, torch.bool, torch.float16, torch.bfloat16)
    others += [tensor.to(dtype) for dtype in (*dtypes, torch.float32, torch.float64)]
    others += [
        tensor.to(torch.complex64),
        tensor.float().to("meta"),
        torch.nn.Parameter(torch.zeros(n)),
    ]
    others += [tensor.float().to_sparse() if tensor.dim() else None, tensor.tolist(), None, {}, 1]
    for number in (float("nan"), float("inf"), -float("inf"), 3e38, -1.0, 1e-45, 1e30, 255.0):
        if tensor.is_floating_point() or number == 255:
            others += [torch.full_like(tensor, number)]
    return others


def is_like(other: Any, tensor: Tensor) -> bool:
    """Whether one tensor could stand where another does."""
    if not isinstance(other, Tensor) or other.is_sparse or other.is_meta:
        return False
    like = (other.shape, other.dtype) == (tensor.shape, tensor.dtype) and other.is_contiguous()
    return like and bool(other.isfinite().all())


def changes(value: Any) -> Iterator[tuple[str, Any]]:
    """(what, other value): everything that a value may be replaced by, itself or within."""
    if isinstance(value, Tensor):
        for i, other in enumerate(tensor_changes(value)):
            yield f"{'tensor' if is_like(other, value) else 'misfit'} {i}", other
    elif isinstance(value, dict):
        for i, other in enumerate(UGLY[::7]):
            yield f"other {i}", other
        yield "one more", {**value, "more": 1}
        yield "keys as text", {str(k): v for k, v in value.items()} | {"0": 1}
        for key in value:
            yield f"no {key}", {k: v for k, v in value.items() if k != key}
            for what, other in changes(value[key]):
                yield f"{key}, {what}", value | {key: other}
    elif isinstance(value, tuple):
        for i, other in enumerate(UGLY[::3]):
            yield f"other {i}", other
        yield "twice", value + value
        yield "short", value[:-1]
        yield "reversed", value[::-1]
        for i in (0, len(value) - 1) if value else ():
            for what, other in changes(value[i]):
                yield f"{i}, {what}", (*value[:i], other, *value[i + 1 :])
    else:
        for i, other in enumerate(UGLY):
            yield f"ugly {i}", other


def log_changes(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """(what, other log)"""
    lines = raw.splitlines(keepends=True)
    yield from (("empty", b""), ("a blank line", b"\n"), ("cut", raw[:-20]), ("no end", raw[:-1]))
    yield from (("blank last", raw + b"\n"), ("CRLF", raw.replace(b"\n", b"\r\n")), ("NUL", b"\0"))
    yield from (("header only", lines[0]), ("no header", b"".join(lines[1:])), ("CR", b"\r" + raw))
    strange = (b"[1, 2]\n", b"\xe9\n", b"{", b"1e999\n", b'{"step": 1}\n', b"null\n", b"\xff\xfe\n")
    strange += (b"[" * 100_000, b"9" * 5000 + b"\n", b'{"val_loss": -1}\n', b'"\xe2\x80\xa8"\n')
    for i, line in enumerate(strange):
        yield from ((f"first {i}", line + raw), (f"last {i}", raw + line), (f"all {i}", line))
    for where in (0, len(lines) - 1):
        fields = json.loads(lines[where]) | {"settings": {}}
        for what, other in changes(fields):
            try:
                line = json.dumps(other, ensure_ascii=False).encode("utf-8", "surrogatepass")
            except (TypeError, ValueError):  # a tensor
                continue
            changed = [*lines[:where], line + b"\n", *lines[where + 1 :]]
            yield f"line {where}, {what}", b"".join(changed)


Case = tuple[str, str, Callable[[], bytes], list[str]]  # name, file, its bytes, the command

RESUME = ["--resume", "rnn.resume"]
FINE_TUNE = ["--init-from", "rnn.net", "--data", "a.txt", "--epochs", "1", "--batch-size", "2"]
FINE_TUNE += ["--seq-length", "20", "--device", "cpu", "--dtype", "float32", "--ckpt", "new.net"]


def saved(contents: Any) -> bytes:
    file = io.BytesIO()
    torch.save(contents, file)
    return file.getvalue()


def cases(folder: Path) -> Iterator[Case]:
    """All of them; of the many that differ little, every other or third one."""
    resume, net = load_dict(folder / "rnn.resume"), load_dict(folder / "rnn.net")
    for i, (what, other) in enumerate(changes(resume)):
        if what.startswith(("fingerprint", "run", "tokens")) and i % 3:
            continue
        must_refuse = what.startswith("state") and "misfit" in what and "cuda_rng" not in what
        name = "misfit" if must_refuse else "resume"
        yield f"{name}, {what}", "rnn.resume", lambda other=other: saved(other), RESUME
    for i, (what, other) in enumerate(changes(net)):
        if i % 2 and not what.startswith(("settings, ", "text, ")):  # those nothing reads
            command = FINE_TUNE if i % 3 == 0 else RESUME
            yield f"net, {what}", "rnn.net", lambda other=other: saved(other), command
    for i, (what, raw) in enumerate(log_changes((folder / "rnn.jsonl").read_bytes())):
        if i % 2 or not what.startswith("line"):
            yield f"log, {what}", "rnn.jsonl", lambda raw=raw: raw, RESUME
    chance = random.Random(1)
    for name in ("rnn.resume", "rnn.jsonl", "rnn.net"):
        whole = (folder / name).read_bytes()
        for i in range(100):
            raw = mutations(whole, chance)
            yield f"bytes of {name}, {i}", name, lambda raw=raw: raw, RESUME


def try_case(folder: Path, before: dict[str, bytes], case: Case) -> str:
    """What is wrong with how this case ended; empty where nothing is."""
    _, name, make, command = case
    try:
        (folder / name).write_bytes(make())
    except (RuntimeError, pickle.PicklingError, RecursionError, NotImplementedError):
        return ""  # torch cannot save such a thing
    given = contents(folder)
    out, err = io.StringIO(), io.StringIO()
    torch.manual_seed(1)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status: Any = train.main(command)
        except BaseException as error:
            status = f"{type(error).__name__}: {error}"[:300]
    after = contents(folder)
    problem = ""
    if status not in (0, 2, 130):  # 130: interrupted by us
        problem = f"ended with {status}"
    elif "\x1b" in out.getvalue() + err.getvalue():
        problem = "printed an escape character"
    elif status != 2 and case[0].startswith("misfit"):
        problem = "was taken"
    elif status == 2 and err.getvalue().count("\n") != 1:
        problem = f"said {err.getvalue()[:300]!r}"
    elif status == 2 and after != given:
        changed = [n for n in {**given, **after} if given.get(n) != after.get(n)]
        problem = f"refused, but changed {changed}: {err.getvalue()[:300]}"
    elif any(after[n] != before[n] for n in ("a.txt", "thesis.tex")):
        problem = "changed a file that is not the run's"
    elif status != 2:
        try:
            load_checkpoint(folder / ("new.net" if command is FINE_TUNE else "rnn.net"))
        except UserError as error:
            problem = f"left no model: {error}"
    for n in after.keys() - before.keys():
        (folder / n).unlink()
    for n in before:
        if after.get(n) != before[n]:
            (folder / n).write_bytes(before[n])
    return problem


def at_most_steps(number: int) -> None:
    """From now on runs of this process are short: interrupted after so many steps."""
    real, begin, write, count = train.train_step, train.train, report.sample, 0
    measure = train.seconds_per_step
    train.seconds_per_step = lambda *args, **_: measure(*args, at_least=0)  # of one step
    report.sample = lambda model, _, *more, **options: write(model, 5, *more, **options)
    os.fsync = lambda _: None  # no power cut is tested

    def step(*args: object) -> object:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    def run(*args: object, **given: object) -> object:
        nonlocal count
        count = 0
        return begin(*args, **given)

    train.train_step, train.train = step, run


def in_child(what: Callable[[int], object]) -> tuple[str, int]:
    """What a forked child wrote, and its wait status."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            what(writer)
            os._exit(0)
        except BaseException as error:
            os.write(writer, f"the test itself: {type(error).__name__}: {error}\n".encode())
            os._exit(1)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    return text, os.waitpid(pid, 0)[1]


def first_run(_: int) -> None:
    at_most_steps(60)
    flags = ["--data", "a.txt", "--epochs", "2", "--n-hidden", "8", "--n-layers", "1"]
    flags += ["--batch-size", "2", "--seq-length", "8", "--device", "cpu", "--dtype", "float32"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert train.main(flags) == 130


def try_all(folder: Path, part: int, parts: int) -> None:
    """Try every ``parts``-th case in forked children, and print how each that is wrong ended."""
    os.chdir(folder)
    import torch._dynamo  # noqa: F401, or each child would load it

    (folder / "a.txt").write_text("a bad cab\nfed " * 40)
    (folder / "thesis.tex").write_text("another text\n" * 40)
    said, ended = in_child(first_run)
    assert not ended and not said, said
    before, todo = contents(folder), list(cases(folder))[part::parts]
    done = 0
    while done < len(todo):

        def some(writer: int, first: int = done) -> None:
            limit_memory(1 << 30)
            at_most_steps(2)
            for case in todo[first : first + 400]:
                signal.alarm(30)
                problem = try_case(folder, before, case).replace("\n", " ")
                os.write(writer, f"{case[0]}: {problem}\n".encode() if problem else b"\n")

        said, ended = in_child(some)
        results = said.splitlines()
        print(*filter(None, results), sep="\n")
        done += len(results)
        if ended:
            print(f"{todo[done][0]}: killed, wait status {ended}")
            done += 1
            for name in contents(folder).keys() - before.keys():
                (folder / name).unlink()
            for name in before:
                (folder / name).write_bytes(before[name])
    print(f"tried {len(todo)}")


@pytest.mark.slow
def test_every_field_of_a_runs_files_mutated(tmp_path: Path) -> None:
    command = "import sys; from pathlib import Path; import test_hostile as t; "
    command += "t.try_all(Path(sys.argv[1]), int(sys.argv[2]), 2)"
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    processes = []
    for part in range(2):
        folder = tmp_path / str(part)
        folder.mkdir()
        call = [sys.executable, "-c", command, str(folder), str(part)]
        env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen(call, env=env, **options))
    total = 0
    for process in processes:
        out, _ = process.communicate(timeout=600)
        lines = list(filter(None, out.splitlines()))
        assert len(lines) == 1, "\n".join(lines)
        total += int(lines[0].removeprefix("tried "))
    assert total > 3000


# Other damage


def loads_or_says_why(path: Path) -> bool:
    try:
        model = load_checkpoint(path)
    except UserError as error:
        assert "\n" not in str(error)
        return False
    text = sample(model, 3, model.unique_tokens[0], top_k=5)
    assert len(text) == 4 and set(text) <= set(model.unique_tokens)
    return True


def mutations(whole: bytes, chance: random.Random) -> bytes:
    """One random damage: bits, bytes, a cut, a doubling, zeros, or a number made huge."""
    raw = bytearray(whole)
    where = chance.randrange(len(raw))
    if chance.random() < 0.6:  # most of the file is weights: aim at the pickle and the directory
        where = chance.choice((chance.randrange(1200), len(raw) - 1 - chance.randrange(1500)))
    length = chance.randrange(1, 9)
    kind = chance.randrange(6)
    if kind == 0:
        raw[where] ^= 1 << chance.randrange(8)
    elif kind == 1:
        raw[where : where + length] = chance.randbytes(length)
    elif kind == 2:
        del raw[where:]
    elif kind == 3:
        del raw[where : where + length]
    elif kind == 4:
        raw[where:where] = raw[where : where + length]
    else:
        raw[where : where + length] = b"\xff" * length
    return bytes(raw)


FUZZ = """
import random, resource, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from test_hostile import loads_or_says_why, mutations
whole, path = Path(sys.argv[3]).read_bytes(), Path(sys.argv[3] + ".bad")
chance, good = random.Random(int(sys.argv[4])), 0
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(int(sys.argv[5])):
    path.write_bytes(mutations(whole, chance))
    good += loads_or_says_why(path)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(good, grown)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_mutations_each(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "a.net"
    save_checkpoint(path, CharRNN(tuple("\nabcdé"), 6, 2), step=3, val_frac=0.1)
    command = [sys.executable, "-c", FUZZ, str(ROOT), str(ROOT / "tests"), str(path)]
    result = subprocess.run(
        [*command, str(seed), "1000"], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    good, grown = map(int, result.stdout.split())
    assert 0 < good < 1000 and grown < 300_000  # kilobytes


def rewrite(path: Path, compression: int, **changed: bytes) -> None:
    """The same archive, with entries whose names end so replaced."""
    with zipfile.ZipFile(path) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, raw in entries:
            archive.writestr(name, changed.get(name.split("/")[-1].split(".")[0], raw))


def test_zip_bombs_are_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    save_checkpoint(path, CharRNN(tuple("ab"), 4, 1))
    rewrite(path, zipfile.ZIP_STORED)
    assert loads_or_says_why(path)
    rewrite(path, zipfile.ZIP_DEFLATED, data=bytes(1 << 28))
    assert path.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not loads_or_says_why(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


class Call:
    def __init__(self, function: object, *arguments: object) -> None:
        self.pair = function, arguments

    def __reduce__(self) -> tuple:
        return self.pair


@pytest.mark.parametrize(
    "claim",
    [
        Call(bytearray, 10**10),
        Call(torch.FloatStorage, 10**10),
        Call(torch.Tensor, 10**5, 10**5),
        Call(os.system, "true"),
        Call(eval, "1"),
    ],
)
def test_what_claims_gigabytes_or_code_is_refused(tmp_path: Path, claim: Call) -> None:
    path = tmp_path / "a.net"
    save_checkpoint(path, CharRNN(tuple("ab"), 4, 1))
    rewrite(path, zipfile.ZIP_STORED, data=pickle.dumps({"tokens": claim}, 2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not loads_or_says_why(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("raw", [b"]" * (1 << 24), b"}" * (1 << 22), b"(" * (1 << 24)])
def test_many_small_objects_are_refused_unmade(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "a.net"
    save_checkpoint(path, CharRNN(tuple(map(chr, range(20_000))), 1, 1))
    load_checkpoint(path)  # the longest of ours
    rewrite(path, zipfile.ZIP_STORED, data=b"\x80\x02" + raw + b".")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not loads_or_says_why(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_value_nested_too_deep_to_print(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rnn.resume"
    run_in(tmp_path, epochs=1, seed=201, n_hidden=4)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        raw = next(archive.read(n) for n in archive.namelist() if n.endswith("data.pkl"))
    assert raw.count(b"K\xc9") == 1  # that seed
    deep = b"]" * 200_000 + b"a" * 199_999
    rewrite(path, zipfile.ZIP_STORED, data=raw.replace(b"K\xc9", deep))
    assert path.read_bytes() != whole
    assert train.main(["--resume", str(path)]) == 2
    assert "seed is [[[" in (said := capsys.readouterr().err) and said.count("\n") == 1


def strange_text(chance: random.Random, length: int) -> str:
    ranges = ((0, 31), (32, 126), (0x300, 0x36F), (0x400, 0x4FF), (0x4E00, 0x4FFF))
    ranges += ((0x10000, 0x10FFFF), (0x1F600, 0x1F64F), (0x202A, 0x202E), (10, 13), (97, 97))
    chosen = chance.sample(ranges, chance.randrange(1, 4))
    points = (chance.randint(*chance.choice(chosen)) for _ in range(length))
    return "".join(map(chr, points)).replace("\0", "a")


@pytest.mark.parametrize("seed", range(60))
def test_any_unicode_survives(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    text = strange_text(chance, chance.choice((1, 2, 3, 17, 400)))
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    corpus = load_corpus([str(path)])
    expected = text.removeprefix("\ufeff").replace("\r\n", "\n")
    assert corpus.vocabulary.decode(corpus.ids) == expected
    assert corpus.vocabulary == Vocabulary.from_text(expected)
    model = CharRNN(corpus.vocabulary.tokens, 4, 1)
    save_checkpoint(tmp_path / "a.net", model)
    again = load_checkpoint(tmp_path / "a.net")
    assert sample(again, 5, expected[0]).startswith(expected[0])


@pytest.mark.parametrize("seed", range(40))
def test_lengths_around_every_boundary(seed: int) -> None:
    chance = random.Random(seed)
    rows, length, windows = chance.randint(1, 5), chance.randint(1, 7), chance.randint(1, 4)
    for n in range(rows * (length + 1) * windows - 2, rows * (length + 1) * windows + 3):
        ids = torch.arange(max(n, 0))
        if n < rows * (length + 1):
            with pytest.raises(UserError):
                get_batches(ids, rows, length)
            continue
        pairs = list(get_batches(ids, rows, length))
        n_read, row = len(pairs) * length, n // (rows * (length + 1)) * (length + 1)
        assert pairs and 0 <= row - 1 - n_read < length  # no window more would fit
        assert all(x.shape == y.shape == (rows, length) for x, y in pairs)
    for n in range(8):
        for share in (0.01, 0.3, 0.5, 0.99):
            try:
                train, held_out = split_text(torch.arange(n), share)
            except UserError:
                continue
            assert len(train) >= 2 <= len(held_out)
            assert torch.equal(torch.cat((train, held_out)), torch.arange(n))


def random_flags(chance: random.Random) -> list[str]:
    numbers = ("0", "-1", "1", "2", "3.5", "1e9", "1e-9", "nan", "inf", "ten", "", "9" * 30)
    numbers += ("9" * 400, "9" * 5000, "1e400", "\u0663", "1_0", " 1", "\0")
    values = {
        "--n-hidden": ("1", "3", "0", "-2", "x"),
        "--n-layers": ("1", "2", "0"),
        "--batch-size": ("1", "2", "7", "100000", "0"),
        "--seq-length": ("1", "5", "100000", "-3"),
        "--lr": numbers,
        "--clip": numbers,
        "--drop-prob": ("0", "0.5", "0.99", "1", "-0.1"),
        "--val-frac": ("0.5", "0.01", "0.99", "0", "1"),
        "--seed": numbers,
        "--dtype": ("float32", "bfloat16", "int8"),
        "--cell": ("gru", "rnn", "lstm", "tape"),
        "--min-count": ("1", "3", "1000", "0"),
        "--prime": ("a", "Q", "", "\udc80", "\x1b"),
        "--patience": numbers,
        "--minutes": ("1e-9", "0.001", "-1", "nan", "0"),
        "--keep": ("all", "best", "none"),
        "--val-split": ("lines", "end", ""),
        "--encoding": ("latin-1", "utf-16", "rot13", "undefined", "\0", "x" * 5000),
        "--ckpt": ("a.txt", "./rnn.net", "new/one", "a\0b", "x" * 300, "/dev/null", "", "lr_0.1"),
        "--init-from": ("rnn.net", "a.txt", "rnn.resume", "/dev/zero", "no"),
        "--preset": ("laptop", "auto", "notebook", "big"),
    }
    chosen = chance.sample(sorted(values), chance.randrange(1, 5))
    return [part for name in chosen for part in (f"{name}={chance.choice(values[name])}",)]


FLAGS = """
import os, random, runpy, sys
sys.path[:0] = sys.argv[1:3]
from test_hostile import random_flags
os.chdir(sys.argv[3])
chance, root = random.Random(1), sys.argv[1]
import contextlib, io
for _ in range(int(sys.argv[4])):
    flags = random_flags(chance)
    small = ["--data", "a.txt", "--epochs", "1", "--device", "cpu", "--n-hidden", "4"]
    small += ["--n-layers", "1"]
    sys.argv = ["train.py", *small, *flags]
    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(os.path.join(root, "train.py"), run_name="__main__")
    except SystemExit as ended:
        status = ended.code
    assert status in (0, 2), flags
    if status == 2:
        lines = err.getvalue().splitlines()
        assert len([line for line in lines if "error: " in line]) == 1, (flags, lines)
    print(status)
"""


@pytest.mark.slow
def test_random_flags_work_or_say_why(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a bad cab\n" * 60)
    command = [sys.executable, "-c", FLAGS, str(ROOT), str(ROOT / "tests"), str(tmp_path), "150"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    assert {"0", "2"} == set(result.stdout.split())
