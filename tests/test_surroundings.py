"""What surrounds a run: readers that leave, closed and full streams, a cluster's environment, a
limit on memory, control characters."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from memory import limit_memory
from runs import ROOT, SMALL, at_step, interrupt, run_in, write_text

import charrnn.curves
import charrnn.eval
import charrnn.neurons
import charrnn.share
import train
from charrnn import CharRNN, load_checkpoint
from charrnn.errors import UserError
from charrnn.network.checkpoint import load_dict
from charrnn.training.distributed import read_environment

QUICK = "--data a.txt --epochs 2 --n-hidden 8 --n-layers 1 --batch-size 2 --device cpu"

LOST = {  # what a shell makes of stdout and stderr
    "| head -1": "| head -1",
    "| true": "2>&1 | true",
    "no stdout": ">&-",
    "no stream": "<&- >&- 2>&-",
    "full stderr": "2>/dev/full",
    "both full": ">/dev/full 2>&1",
}


@pytest.mark.slow
def test_a_lost_reader_costs_messages_not_the_run(tmp_path: Path) -> None:
    runs = {}
    for name, shell in LOST.items():
        folder = tmp_path / name.replace("|", "to")
        write_text(folder)
        line = f"set -o pipefail; {sys.executable} {ROOT}/train.py {QUICK} {shell}"
        runs[folder] = subprocess.Popen(["bash", "-c", line], cwd=folder, stderr=subprocess.PIPE)
    nets = set()
    for folder, process in runs.items():
        _, err = process.communicate(timeout=200)
        assert (process.returncode, err) == (0, b""), folder.name
        nets.add((folder / "rnn.net").read_bytes())
        names = {"a.txt", "rnn.net", "rnn.resume", "rnn.jsonl"}
        assert {path.name for path in folder.iterdir()} == names
    assert len(nets) == 1


def test_errors_with_nobody_to_read_them_still_have_their_status(tmp_path: Path) -> None:
    shells = ("2>/dev/full", ">&- 2>&-", "2>&1 | true")
    script = f"{sys.executable} {ROOT}/train.py --data missing.txt"
    runs = [
        subprocess.Popen(["bash", "-c", f"set -o pipefail; {script} {shell}"], cwd=tmp_path)
        for shell in shells
    ]
    assert [process.wait(timeout=100) for process in runs] == [2] * len(shells)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_torch_loads_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    for script in ("train.py", "sample.py"):
        (tmp_path / script).symlink_to(ROOT / script)
        env = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
        command = [sys.executable, "-P", str(ROOT / script)]
        result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=50)
        assert result.returncode in (130, -2) and result.stderr.count("\n") == 1, result.stderr
        assert "Traceback" not in result.stderr


PORT = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
ODD = [
    {"RANK": "1"},
    {"WORLD_SIZE": "2"},
    {"WORLD_SIZE": "2", "RANK": "0"},
    {"WORLD_SIZE": "abc"},
    {"WORLD_SIZE": "0"},
    {"WORLD_SIZE": "-1"},
    {"WORLD_SIZE": "1" * 30, "RANK": "0", **PORT},
    {"WORLD_SIZE": "2", "RANK": "5", **PORT},
    {"WORLD_SIZE": "2", "RANK": "-1", **PORT},
    {"WORLD_SIZE": "2", "RANK": "../../x", **PORT},
    {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1"},
    {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"},
    {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "99999"},
    {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "-3", **PORT},
    {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "\x1b[31m", **PORT},
]


def set_environment(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", *PORT):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("env", ODD)
def test_a_launchers_environment_is_checked_before_anyone_waits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    env: dict[str, str],
) -> None:
    write_text(tmp_path)
    set_environment(monkeypatch, env)
    monkeypatch.chdir(tmp_path)
    assert train.main(QUICK.split()) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "\x1b" not in line
    assert all(name in line for name in env) and "unset RANK and WORLD_SIZE" in line
    assert os.listdir() == ["a.txt"]


@pytest.mark.parametrize("env", [{"WORLD_SIZE": "1"}, {"WORLD_SIZE": "1", "RANK": "0"}, PORT])
def test_alone_in_a_cluster_is_alone(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    set_environment(monkeypatch, env)
    assert read_environment() == (0, 1, 0)


def test_it_says_for_whom_it_waits(tmp_path: Path) -> None:
    write_text(tmp_path)
    env = os.environ | {"WORLD_SIZE": "2", "RANK": "0", **PORT, "MASTER_PORT": "29517"}
    command = [sys.executable, str(ROOT / "train.py"), *QUICK.split()]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline() == "waiting for 1 more process\n"
    process.kill()
    process.communicate()


def within(memory: int, what: Callable[[], object]) -> int:
    """The wait status of a child that does this with so many more bytes than it has."""
    pid = os.fork()
    if pid == 0:
        try:
            limit_memory(memory)
            what()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.__stderr__)
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def test_twenty_thousand_distinct_characters_fit(tmp_path: Path) -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 19_000))) * 2
    (tmp_path / "a.txt").write_text(text + "".join(map(chr, range(0x20, 0x400))))
    given = {"data": [str(tmp_path / "a.txt")], "epochs": 1, "n_layers": 1, "n_hidden": 8}
    given |= {"batch_size": 16, "seq_length": 64}  # as the laptop preset has them

    def few_steps() -> None:
        real, count = train.train_step, 0

        def step(*args: object) -> object:
            nonlocal count
            count += 1
            if count == 2:
                interrupt()
            return real(*args)

        train.train_step = step
        assert run_in(tmp_path, **given).status == 130

    # 1,024 x 20,000 one-hot numbers, logits and their gradients: 80 MB each
    assert within(2 << 30, few_steps) == 0
    assert len(load_checkpoint(tmp_path / "rnn.net").unique_tokens) > 19_900


def test_out_of_memory_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    err = open(tmp_path / "err", "w+")

    def large() -> None:
        sys.stdout = open(os.devnull, "w")
        sys.stderr = err
        assert train.main([*QUICK.split(), "--n-hidden", "20000"]) == 2
        err.flush()

    assert within(1 << 30, large) == 0
    err.seek(0)
    assert err.read().count("\n") == 1
    assert sorted(os.listdir()) == ["a.txt", "err"]


def test_a_models_file_is_read_in_a_few_times_its_size(tmp_path: Path) -> None:
    model = CharRNN(tuple(map(chr, range(32, 132))), 1500, 1)
    path = tmp_path / "a.net"
    weights = {name: weight.double() for name, weight in model.state_dict().items()}
    contents = {"n_hidden": 1500, "n_layers": 1, "tokens": model.unique_tokens}
    torch.save({**contents, "state_dict": weights}, path)
    size = path.stat().st_size
    assert size > 70 << 20
    assert within(2 * size + (64 << 20), lambda: load_checkpoint(path)) == 0


@pytest.mark.slow
def test_going_on_takes_a_few_times_the_states_size(tmp_path: Path) -> None:
    given = {"n_layers": 1, "n_hidden": 1500, "batch_size": 1, "epochs": 1}
    folder = tmp_path / "a"
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 1, interrupt)
        assert run_in(folder, **given).status == 130
    size = (folder / "rnn.resume").stat().st_size
    assert size > 70 << 20

    def go_on() -> None:
        with pytest.MonkeyPatch.context() as patch:
            at_step(patch, 1, interrupt)
            assert train.train(resume=str(folder / "rnn.resume")).status == 130

    assert within(3 * size, go_on) == 0


def no_room(*_: object) -> None:
    raise RuntimeError("unexpected pos")  # what torch says of a full disk


def test_nothing_from_a_file_reaches_the_terminal_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "\x1b[31mred"
    folder.mkdir()
    (folder / "a.txt").write_text("\x1b[2J\x07 a bad \x9bcab\n" * 100)
    given = {"data": [str(folder / "a.txt")], "epochs": 1, "prime": "\x1b[2J"}
    for _ in range(2):  # the second sets the first aside
        assert run_in(folder, **given).status == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", no_room)
        with pytest.raises(UserError, match="the last save failed"):
            run_in(folder, **given)
    assert train.main(["--resume", str(folder / "a.txt")]) == 2
    assert train.main(["--data", str(folder)[:-3], "--ckpt", str(folder / "rnn.net")]) == 2
    said = "".join(capsys.readouterr())
    assert "\\x1b" in said and "could not save" in said
    assert not set("\x1b\x07\x9b") & set(said)


def test_weights_that_overflow_are_refused(tmp_path: Path) -> None:
    model = CharRNN(tuple("\nabcdef "), SMALL["n_hidden"], 1)
    weights = {name: weight.double() for name, weight in model.state_dict().items()}
    weights["fc.bias"][0] = 1e300  # finite as a double only
    contents = {"n_hidden": 12, "n_layers": 1, "tokens": model.unique_tokens}
    torch.save({**contents, "state_dict": weights}, tmp_path / "a.net")
    with pytest.raises(UserError, match="finite"):
        run_in(tmp_path, n_layers=1, init_from=str(tmp_path / "a.net"))
    weights["fc.bias"][0] = 1e30
    torch.save({**contents, "state_dict": weights}, tmp_path / "a.net")
    run_in(tmp_path, n_layers=1, init_from=str(tmp_path / "a.net"), epochs=1)
    for line in (tmp_path / "rnn.jsonl").read_text().splitlines():
        assert "NaN" not in line and "Infinity" not in line
    assert load_dict(tmp_path / "rnn.net")["val_loss"] < float("inf")


def test_programs_spell_out_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "\x1b[31mred"
    folder.mkdir()
    (folder / "a.txt").write_text("a bad cab\n" * 100)
    (folder / ".\x1b[2J").write_text("a hidden file, which is left out by name")
    net, page = str(folder / "rnn.net"), str(tmp_path / "page.html")
    assert run_in(folder, data=[str(folder / "a.txt")], epochs=1).status == 0
    with (folder / "rnn.jsonl").open("a") as log:
        log.write("no JSON\n")
    reading = ["--ckpt", net, "--data", str(folder)]
    programs = {
        charrnn.eval: reading,
        charrnn.neurons: [*reading, "--out", page],
        charrnn.curves: [str(folder / "rnn.jsonl"), "--out", page],
        charrnn.share: ["--ckpt", net],
    }
    for program, args in programs.items():
        capsys.readouterr()
        assert program.main(args) == 0, program
        said = capsys.readouterr().err
        assert "\\x1b" in said and "\x1b" not in said, program
