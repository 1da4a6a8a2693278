"""train.py and charrnn.eval as a user types them."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked import run_forked
from runs import ROOT, contents

import train
from charrnn import eval as eval_program

WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "saw", "her", "red", "hat.\n")
SMALL = ["--n-hidden", "16", "--batch-size", "4", "--seq-length", "16", "--device", "cpu"]


def run(
    where: Path, *command: str, given: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)} | env
    script = [str(ROOT / command[0])] if command[0].endswith(".py") else ["-m", command[0]]
    options = {"cwd": where, "env": env, "input": given, "capture_output": True, "text": True}
    return run_forked([sys.executable, *script, *command[1:]], **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("trained")
    text = " ".join(random.Random(1).choices(WORDS, k=5000))
    (where / "a.txt").write_text(text, encoding="utf-8")
    result = run(where, "train.py", "--data", "a.txt", "--epochs", "6", *SMALL)
    assert result.returncode == 0, result.stderr
    return where


def test_a_run_leaves_model_log_and_resume(trained: Path) -> None:
    first, *lines = [json.loads(line) for line in (trained / "rnn.jsonl").read_text().splitlines()]
    assert first["settings"]["n_hidden"] == 16 and first["text"] == {
        "name": "a.txt",
        "chars": len((trained / "a.txt").read_text()),
    }
    evaluations = [line for line in lines if line["val_loss"] is not None]
    assert [round(line["epoch"]) for line in evaluations[:-1]] == [1, 2, 3, 4, 5, 6]
    assert evaluations[-1]["val_loss"] < evaluations[0]["val_loss"] < 3
    result = run(trained, "charrnn.eval", "--data", "a.txt", "--split", "val", "--device", "cpu")
    assert json.loads(result.stdout)["loss"] == pytest.approx(lines[-1]["val_loss"], abs=1e-6)


def test_same_seed_same_bytes(trained: Path, tmp_path: Path) -> None:
    for name in ("one.net", "two.net"):
        flags = ["--data", str(trained / "a.txt"), "--epochs", "1", "--ckpt", name]
        result = run(tmp_path, "train.py", *flags, "--drop-prob", "0.3", *SMALL)
        assert result.returncode == 0, result.stderr
    one, two = (torch.load(tmp_path / name) for name in ("one.net", "two.net"))
    assert one["run"] == two["run"] and one["val_loss"] == two["val_loss"]
    for name, weight in one["state_dict"].items():
        assert torch.equal(weight, two["state_dict"][name])


BAD = [
    (["train.py", "--data", "missing.txt"], "no such file"),
    (["train.py", "--data", "a.txt", "--batch-size", "9999"], "lower --batch-size"),
    (["train.py", "--data", "a.txt", "--ckpt", "a.txt/rnn.net"], "File exists"),
    (["train.py", "--data", "a.txt", "--ckpt", "a.txt"], "is the same file as the input a.txt"),
    (["train.py", "--data", "a.txt", "--tensorboard", "x"], "tensorboard is not installed"),
    (["train.py", "--data", "a.txt", "--ckpt", "."], "cannot be written"),
    (["train.py", "--data", "a.txt", "--prime", "Qé"], "never saw 'Q' (U+0051 LATIN"),
    (["train.py", "--data", "a.txt", "--device", "tpu"], "--device tpu"),
    (["train.py", "--data", "a.txt", "--n-hidden", "1000000"], "not enough memory"),
    (["train.py", "--data", "a.txt", "--n-hidden", "1000001"], "at most 1000000"),
    (["train.py", "--data", "a.txt", "--lr", "0"], "--lr"),
    (["train.py", "--data", "a.txt", "--lr", "nan"], "--lr"),
    (["train.py", "--data", "a.txt", "--epochs", "0"], "--epochs"),
    (["train.py", "--data", "a.txt", "--drop-prob", "1"], "--drop-prob"),
    (["train.py", "--data", "a.txt", "--val-frac", "1e-9"], "--val-frac"),
    (["train.py", "--resume", "rnn.net"], "does not end in .resume"),
    (["train.py", "--resume", "rnn.resume", "--lr", "1"], "leave --lr out"),
    (["charrnn.eval", "--data", "missing.txt"], "no such file"),
]


def on_cpu(command: list[str]) -> list[str]:
    return [*command, *([] if {"--resume", "--device"} & {*command} else ["--device", "cpu"])]


@pytest.mark.parametrize(("command", "reason"), BAD)
def test_bad_input_is_one_line(
    trained: Path,
    command: list[str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(trained)
    before = contents(trained)
    main = train.main if command[0] == "train.py" else eval_program.main
    assert main(on_cpu(command[1:])) == 2
    out, err = capfd.readouterr()
    assert err.count("\n") == 1 and reason in err and out == ""
    assert contents(trained) == before


@pytest.mark.parametrize(("command", "reason"), [BAD[0], BAD[-1]])
def test_a_process_ends_with_one_line_and_status_2(
    trained: Path, command: list[str], reason: str
) -> None:
    before = contents(trained)
    result = run(trained, *on_cpu(command))
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and reason in result.stderr
    assert contents(trained) == before


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
    files = (ROOT / "charrnn").rglob("*.py")
    parts = [p.relative_to(ROOT).with_suffix("").parts for p in files]
    names = sorted(".".join(part[1:]) for part in parts if not part[-1].startswith("__"))
    lines = [f"import charrnn.{name}" for name in names]
    lines += [
        "import charrnn",
        "for name in charrnn.__all__: assert callable(getattr(charrnn, name))",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, check=True)


def test_the_model_goes_into_a_folder_that_is_made(trained: Path, tmp_path: Path) -> None:
    flags = ["--data", str(trained / "a.txt"), "--epochs", "1", "--ckpt", "models/run1.net"]
    assert run(tmp_path, "train.py", *flags, *SMALL).returncode == 0
    assert {p.name for p in (tmp_path / "models").iterdir()} == {
        "run1.net",
        "run1.resume",
        "run1.jsonl",
    }
