"""Two processes as one run, through torchrun and gloo."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from charrnn.training import load_resume

from charrnn import load_checkpoint

ROOT = Path(__file__).parent.parent
FLAGS = ["--data", "a.txt", "--n-hidden", "16", "--n-layers", "2", "--batch-size", "8"]
FLAGS += ["--drop-prob", "0", "--seq-length", "8", "--dtype", "float32", "--device", "cpu"]


def command(n_processes: int) -> list[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1"]
    torchrun += ["--standalone", "--nproc-per-node", str(n_processes)]
    return [*(torchrun if n_processes > 1 else [sys.executable]), str(ROOT / "train.py"), *FLAGS]


def write_text(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text("a bad cab led\nthe fed cat back\n" * 150, encoding="utf-8")


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    curves = []
    for n in (1, 2):
        folder = tmp_path / str(n)
        write_text(folder)
        call = [*command(n), "--epochs", "3"]
        result = subprocess.run(call, cwd=folder, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        lines = (folder / "rnn.jsonl").read_text().splitlines()
        curves.append([json.loads(line) for line in lines])
        assert result.stdout.count("best held-out loss") == 1
    assert len(curves[0]) == len(curves[1]) == 5 > 0
    for one, two in zip(*curves, strict=True):
        assert one["step"] == two["step"]
        assert one["val_loss"] == pytest.approx(two["val_loss"], abs=1e-4)
        assert one["train_loss"] == pytest.approx(two["train_loss"], abs=1e-4)


@pytest.mark.slow
def test_a_killed_process_ends_the_others(tmp_path: Path) -> None:
    write_text(tmp_path)
    call = [*command(2), "--epochs", "100000"]
    torchrun = subprocess.Popen(call, cwd=tmp_path, stdout=-3, stderr=-3)
    while not (tmp_path / "rnn.net").exists() and torchrun.poll() is None:
        time.sleep(0.1)
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    workers = [int(pid) for pid in children if b"train.py" in cmdline(int(pid))]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    assert torchrun.wait(timeout=60) != 0
    assert not any(b"train.py" in cmdline(pid) for pid in workers)
    load_checkpoint(tmp_path / "rnn.net")
    load_resume(str(tmp_path / "rnn.resume"))


def cmdline(pid: int) -> bytes:
    path = Path(f"/proc/{pid}/cmdline")
    return path.read_bytes() if path.exists() else b""
