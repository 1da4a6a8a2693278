"""Two processes as one run, through gloo; and environments that are not a valid rank."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from runs import ROOT, contents, evaluations, read_log, start, write_text

from charrnn import CharRNN, load_checkpoint, save_checkpoint
from charrnn.errors import UserError
from charrnn.network.checkpoint import load_dict, save_dict
from charrnn.training import distributed as distributed_module
from charrnn.training.distributed import Distributed, read_environment

FLAGS = ["--n-hidden", "16", "--n-layers", "2", "--batch-size", "8", "--seq-length", "8"]
FLAGS += ["--drop-prob", "0", "--dtype", "float32", "--lr", "0.01"]
PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def places(n: int) -> list[dict[str, str]]:
    """The environments of the processes of one run on this machine."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    env = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [os.environ | env | {"RANK": str(rank)} for rank in range(n)]


def train_together(folders: list[Path], *flags: str) -> list[str]:
    """One run of as many processes as there are folders, each in its own; what they print."""
    envs = places(len(folders))
    both = zip(folders, envs, strict=True)
    processes = [start(folder, *flags, env=env) for folder, env in both]
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(folders), printed
    return printed


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({}, (0, 1, 0)),
        ({"WORLD_SIZE": "1", "RANK": "0"}, (0, 1, 0)),
        ({"WORLD_SIZE": "1"}, (0, 1, 0)),
        ({"MASTER_ADDR": "node7", "LOCAL_RANK": "3"}, (0, 1, 0)),
        ({"RANK": "", "WORLD_SIZE": ""}, (0, 1, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "a"}, (5, 8, 1)),
        ({"RANK": "0"}, None),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "RANK, MASTER_PORT"),
        ({"RANK": "0", "WORLD_SIZE": "abc"}, None),
        ({"RANK": "abc", "WORLD_SIZE": "2"}, None),
        ({"RANK": "0", "WORLD_SIZE": "0"}, None),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, None),
        ({"RANK": "0", "WORLD_SIZE": "-1"}, None),
        ({"RANK": "5", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, None),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "7", "MASTER_ADDR": "a"}, None),
    ],
)
def test_places(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], place: tuple | str | None
) -> None:
    for name in PLACE:
        monkeypatch.delenv(name, raising=False)
    if isinstance(place, tuple) and place[1] > 1:
        env = env | {"MASTER_PORT": "29500"}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    if isinstance(place, tuple):
        assert read_environment() == place
        return
    with pytest.raises(UserError) as error:
        read_environment()
    for name, value in env.items():
        assert f"{name}={value!r}" in str(error.value)
    assert (f"but no {place}" if place else "not a valid rank") in str(error.value)
    assert "unset RANK and WORLD_SIZE to train alone" in str(error.value)


@pytest.mark.parametrize("port", ["abc", "0", "70000"])
def test_a_bad_place_is_one_line_before_anything_starts(tmp_path: Path, port: str) -> None:
    write_text(tmp_path)
    before = contents(tmp_path)
    env = places(2)[1] | {"MASTER_PORT": port}
    process = start(tmp_path, "--data", "a.txt", *FLAGS, env=env)
    out, _ = process.communicate()
    assert process.returncode == 2 and out.count("\n") == 1 and f"MASTER_PORT='{port}'" in out
    assert contents(tmp_path) == before


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    dist = Distributed()
    dist.size, dist.local_rank = 3, 2
    with pytest.raises(UserError, match="--nproc-per-node 2"):
        dist.place(torch.device("cuda"))


def test_a_torch_without_distributed_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed_module, "dist", None)
    dist = Distributed()
    assert dist.agree(0.0, [2])[1] == 2 and dist.from_main(lambda: 7) == 7
    assert dist.all_reduce_mean(torch.tensor(3.0)) == 3
    rows = torch.randn(2, 3, 4)
    assert torch.equal(dist.all_gather(rows), rows)


def test_waiting_for_others_is_said(tmp_path: Path) -> None:
    data = write_text(tmp_path)
    flags = ["--data", data, *FLAGS, "--epochs", "1", "--device", "cpu"]
    soon = "import sys, charrnn.training.distributed as d, train; d.QUIET = 0.01\n"
    soon += "sys.exit(train.main())"
    first, second = places(2)
    more = {"env": first | {"PYTHONPATH": str(ROOT)}, "cwd": tmp_path, "text": True}
    more |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    waiting = subprocess.Popen([sys.executable, "-c", soon, *flags], **more)
    assert waiting.stderr.readline() == "waiting for 1 more process\n"
    (tmp_path / "other").mkdir()
    other = start(tmp_path / "other", *flags[:-2], env=second)
    out, error = waiting.communicate(timeout=300)
    assert waiting.returncode == 0 and "best held-out loss" in out, error
    assert other.communicate(timeout=300)[0] == "" and other.returncode == 0
    assert not any((tmp_path / "other").iterdir())  # the first one writes


@pytest.mark.slow
def test_two_processes_learn_what_one_does_and_only_the_first_reads(tmp_path: Path) -> None:
    data = write_text(tmp_path)
    source = CharRNN(tuple("\n abcdef"), 16, 2, 0.0)
    curves = []
    for n in (1, 2):
        folders = [tmp_path / f"{n}-{rank}" for rank in range(n)]
        for folder in folders:
            folder.mkdir()
        save_checkpoint(folders[0] / "old.net", source)
        flags = ["--data", data, *FLAGS[4:], "--epochs", "2", "--init-from", "old.net"]
        printed = train_together(folders, *flags)
        assert ["best held-out loss" in out for out in printed] == [True] + [False] * (n - 1)
        train_together(folders, "--resume", "rnn.resume", "--epochs", "3")
        assert not any(any(folder.iterdir()) for folder in folders[1:])
        curves.append(read_log(folders[0])[1:])
    assert len(curves[0]) == len(curves[1]) > 50
    for one, two in zip(*curves, strict=True):
        assert one["step"] == two["step"]
        for name in ("train_loss", "val_loss"):
            assert one[name] == pytest.approx(two[name], abs=1e-4)


def start_two(tmp_path: Path) -> list[subprocess.Popen]:
    """Two processes of one endless run, when they have saved a first model and its line."""
    data = write_text(tmp_path)
    (tmp_path / "other").mkdir()
    both = zip((tmp_path, tmp_path / "other"), places(2), strict=True)
    flags = ["--data", data, *FLAGS, "--epochs", "100000"]
    processes = [start(folder, *flags, env=env) for folder, env in both]
    log = tmp_path / "rnn.jsonl"
    while not (log.exists() and evaluations(tmp_path)) and processes[0].poll() is None:
        time.sleep(0.05)
    return processes


@pytest.mark.slow
def test_a_signal_to_one_process_ends_and_saves_all(tmp_path: Path) -> None:
    processes = start_two(tmp_path)
    processes[1].send_signal(signal.SIGTERM)
    out = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [128 + signal.SIGTERM] * 2, out
    assert "resume with: python train.py --resume rnn.resume" in out[0]
    load_dict(tmp_path / "rnn.resume")


@pytest.mark.slow
def test_a_killed_process_ends_the_others_with_one_line(tmp_path: Path) -> None:
    processes = start_two(tmp_path)
    processes[1].kill()
    out, _ = processes[0].communicate(timeout=300)
    assert processes[0].returncode == 2 and "Traceback" not in out, out
    assert "another process of this run has ended; continue with --resume" in out
    processes[1].communicate()
    load_checkpoint(tmp_path / "rnn.net")
    load_dict(tmp_path / "rnn.resume")
    assert len(evaluations(tmp_path)) > 0


WORKER = """
import os, runpy, sys
from pathlib import Path
Path("pid" + os.environ["RANK"]).write_text(str(os.getpid()))
sys.argv.pop(0)
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_under_torchrun_a_killed_process_ends_the_others(tmp_path: Path) -> None:
    write_text(tmp_path)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--standalone"]
    (tmp_path / "worker.py").write_text(WORKER)
    train = ["worker.py", str(ROOT / "train.py"), "--data", "a.txt", *FLAGS, "--device", "cpu"]
    call = [*torchrun, "--nproc-per-node", "2", *train, "--epochs", "100000"]
    launcher = subprocess.Popen(call, cwd=tmp_path, stdout=-3, stderr=-3)
    while not (tmp_path / "rnn.net").exists() and launcher.poll() is None:
        time.sleep(0.1)
    workers = [int((tmp_path / f"pid{rank}").read_text()) for rank in range(2)]
    os.kill(workers[1], signal.SIGKILL)
    assert launcher.wait(timeout=300) != 0
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    load_checkpoint(tmp_path / "rnn.net")
    load_dict(tmp_path / "rnn.resume")


@pytest.mark.slow
def test_a_lost_model_does_not_part_two_processes_that_have_patience(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    data = write_text(tmp_path)
    for folder in folders:
        folder.mkdir()
    train_together(folders, "--data", data, *FLAGS, "--epochs", "1", "--patience", "3")
    (folders[0] / "rnn.net").unlink()
    state = load_dict(folders[0] / "rnn.resume")
    state["state"]["progress"]["best"] = 0.1  # which no other process would reach
    save_dict(folders[0] / "rnn.resume", state)
    train_together(folders, "--resume", "rnn.resume", "--epochs", "3", "--patience", "3")
    load_checkpoint(folders[0] / "rnn.net")
