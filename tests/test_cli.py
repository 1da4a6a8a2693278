"""train.py and charrnn.evaluate as a user types them."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "saw", "her", "red", "hat.\n")
SMALL = ["--n-hidden", "16", "--batch-size", "4", "--seq-length", "16", "--device", "cpu"]


def run(
    where: Path, *command: str, given: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)} | env
    script = [str(ROOT / command[0])] if command[0].endswith(".py") else ["-m", command[0]]
    return subprocess.run(
        [sys.executable, *script, *command[1:]],
        cwd=where,
        env=env,
        capture_output=True,
        text=True,
        input=given,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("trained")
    text = " ".join(random.Random(1).choices(WORDS, k=5000))
    (where / "a.txt").write_text(text, encoding="utf-8")
    result = run(where, "train.py", "--data", "a.txt", "--epochs", "6", *SMALL)
    assert result.returncode == 0, result.stderr
    return where


def test_a_run_leaves_model_log_and_resume(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "rnn.jsonl").read_text().splitlines()]
    assert [round(line["epoch"]) for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["val_loss"] < lines[0]["val_loss"] < 3
    keys = {"step", "epoch", "seconds", "train_loss", "val_loss", "val_bpc"}
    assert keys | {"chars_per_second", "lr", "chars", "skipped"} == lines[0].keys()
    best = min(line["val_loss"] for line in lines)
    result = run(trained, "charrnn.evaluate", "--data", "a.txt", "--device", "cpu")
    assert json.loads(result.stdout)["loss"] == pytest.approx(best, abs=5e-4)


def test_same_seed_same_bytes(trained: Path, tmp_path: Path) -> None:
    for name in ("one.net", "two.net"):
        data = str(trained / "a.txt")
        command = [
            "train.py",
            "--data",
            data,
            "--epochs",
            "1",
            "--ckpt",
            name,
            "--drop-prob",
            "0.3",
        ]
        result = run(tmp_path, *command, *SMALL)
        assert result.returncode == 0, result.stderr
    one, two = (torch.load(tmp_path / name)["state_dict"] for name in ("one.net", "two.net"))
    assert all(torch.equal(one[key], two[key]) for key in one)


BAD = [
    (["train.py", "--data", "missing.txt"], "no such file"),
    (["train.py", "--data", "a.txt", "--batch-size", "9999"], "lower --batch-size"),
    (["train.py", "--data", "a.txt", "--ckpt", "no/where.net"], "No such file or directory"),
    (["train.py", "--data", "a.txt", "--ckpt", "."], "cannot be written"),
    (["train.py", "--data", "a.txt", "--prime", "Qé"], "never saw: 'Q' '\\xe9'"),
    (["train.py", "--data", "a.txt", "--device", "tpu"], "--device tpu"),
    (["train.py", "--data", "a.txt", "--n-hidden", "1000000"], "not enough memory"),
    (["train.py", "--data", "a.txt", "--n-hidden", "1000001"], "at most 1000000"),
    (["train.py", "--data", "a.txt", "--lr", "0"], "--lr"),
    (["train.py", "--data", "a.txt", "--lr", "nan"], "--lr"),
    (["train.py", "--data", "a.txt", "--epochs", "0"], "--epochs"),
    (["train.py", "--data", "a.txt", "--drop-prob", "1"], "--drop-prob"),
    (["train.py", "--data", "a.txt", "--val-frac", "1e-9"], "--val-frac"),
    (["train.py", "--resume", "rnn.net"], "--resume"),
    (["train.py", "--resume", "rnn.resume", "--lr", "1"], "leave --lr out"),
    (["charrnn.evaluate", "--data", "missing.txt"], "no such file"),
]


@pytest.mark.parametrize(("command", "reason"), BAD)
def test_bad_input_is_one_line(trained: Path, command: list[str], reason: str) -> None:
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    result = run(trained, *command)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and reason in result.stderr
    assert result.stdout == ""
    after = {path.name: path.read_bytes() for path in trained.iterdir()}
    assert after == before


def test_text_and_names_that_the_console_cannot_show(trained: Path) -> None:
    name = os.fsdecode(b"\x80.net")
    flags = ["--data", "a.txt", "--epochs", "1", "--ckpt", name, *SMALL]
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    result = run(trained, "train.py", *flags, **env)
    assert result.returncode == 0 and "Traceback" not in result.stderr
    for path in trained.glob("*\udc80*"):
        path.unlink()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_without_cuda(trained: Path) -> None:
    result = run(trained, "train.py", "--data", "a.txt", "--device", "cuda")
    assert result.returncode == 2 and "use --device cpu" in result.stderr


def test_no_module_takes_the_place_of_a_function() -> None:
    names = [
        p.stem for p in (ROOT / "charrnn").glob("*.py") if p.stem not in ("__init__", "evaluate")
    ]
    lines = [*(f"import charrnn.{name}" for name in names), "from charrnn import evaluate, sample"]
    lines.append("assert callable(evaluate) and callable(sample)")
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, check=True)
