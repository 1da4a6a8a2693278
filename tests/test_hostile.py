"""Damaged checkpoints and strange texts: each works or gives one line; nothing hangs or crashes."""

import os
import pickle
import random
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from charrnn import CharRNN, Vocabulary, get_batches, load_checkpoint, sample, save_checkpoint
from charrnn.corpus import load_corpus
from charrnn.data import count_batches, split_text
from charrnn.errors import UserError

ROOT = Path(__file__).parent.parent


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
        assert len(pairs) == count_batches(n, rows, length) > 0
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


def test_random_flags_work_or_say_why(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a bad cab\n" * 60)
    command = [sys.executable, "-c", FLAGS, str(ROOT), str(ROOT / "tests"), str(tmp_path), "150"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    assert {"0", "2"} == set(result.stdout.split())
