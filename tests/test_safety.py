"""A run cannot be lost: resume, interruption, kills, full disks, bad numbers, locks."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from charrnn import CharRNN, load_checkpoint, save_checkpoint
from charrnn.checkpoint import load_dict, locked
from charrnn.console import catch_signals
from charrnn.corpus import load_corpus
from charrnn.data import get_batches
from charrnn.errors import UserError
from charrnn.model import detach
from charrnn.settings import fill_in
from charrnn.training import Run, load_resume, train, train_step

ROOT = Path(__file__).parent.parent
FLAGS = dict.fromkeys(("data", "minutes", "prime", "init_from", "val_frac", "dtype"))
FLAGS |= {"preset": "laptop", "device": "cpu", "dtype": "float32", "seed": 1, "cell": "lstm"}
FLAGS |= {"min_count": 1, "epochs": 3, "n_hidden": 12, "n_layers": 2, "drop_prob": 0.3}
FLAGS |= {"batch_size": 4, "seq_length": 8, "lr": 1e-2, "clip": 1.0}


def text_file(folder: Path, n_words: int = 500, seed: int = 1) -> str:
    path = folder / "a.txt"
    words = random.Random(seed).choices(("a", "bad", "cab", "fed\n"), k=n_words)
    path.write_text(" ".join(words), encoding="utf-8")
    return str(path)


def make_run(folder: Path, **flags: object) -> tuple:
    """What ``train`` takes; the run's files are in ``folder``."""
    folder.mkdir(exist_ok=True)
    corpus = load_corpus([text_file(folder)])
    flags = FLAGS | {"data": [str(folder / "a.txt")], "ckpt": str(folder / "rnn.net")} | flags
    return fill_in(flags, False, len(corpus.ids)), corpus


def log_of(folder: Path) -> list[dict]:
    """The log without what the clock decides."""
    lines = [json.loads(line) for line in (folder / "rnn.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]


def start(folder: Path, *flags: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *flags],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def interrupt_at(monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    """Have the process receive Ctrl-C while it takes step number ``stop``."""
    count = 0

    def step(*args: object) -> object:
        nonlocal count
        count += 1
        if count == stop:
            os.kill(os.getpid(), signal.SIGINT)
        return train_step(*args)

    monkeypatch.setattr("charrnn.training.train_step", step)


def test_a_long_text_is_read_in_pieces_and_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, corpus = make_run(tmp_path, epochs=1)
    whole = list(get_batches(Run(settings, corpus).train_ids, 4, 8))
    monkeypatch.setattr("charrnn.training.LONG_ROW", 100)
    monkeypatch.setattr("charrnn.training.PIECE", 5)
    read: list[int] = []
    anew: list[bool] = []

    def step(run: Run, x: torch.Tensor, y: torch.Tensor, hidden: tuple) -> object:
        read.extend(i for i, pair in enumerate(whole) if torch.equal(pair[0], x))
        anew.append(not hidden[0].any())
        return train_step(run, x, y, hidden)

    monkeypatch.setattr("charrnn.training.train_step", step)
    assert train(settings, corpus) == 0
    assert sorted(read) == list(range(len(whole))) != read
    for place in range(0, len(read), 5):
        piece = read[place : place + 5]
        assert piece == list(range(piece[0], piece[0] + len(piece))), "read on from there"
    assert [i for i, zeros in enumerate(anew) if zeros] == list(range(0, len(read), 5))


@pytest.mark.parametrize("long_row", [1 << 17, 100])
def test_a_run_stopped_anywhere_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_row: int
) -> None:
    monkeypatch.setattr("charrnn.training.LONG_ROW", long_row)
    whole = tmp_path / "whole"
    assert train(*make_run(whole)) == 0
    net, log = (whole / "rnn.net").read_bytes(), log_of(whole)
    steps = log[-1]["step"]
    assert steps > 100 and [line["step"] for line in log] == sorted({x["step"] for x in log})
    per_epoch = steps // 3
    for stop in (1, 2, per_epoch - 1, per_epoch, per_epoch + 1, steps // 2 + 3, steps - 1):
        folder = tmp_path / f"stop{stop}"
        with monkeypatch.context() as patch:
            interrupt_at(patch, stop)
            assert train(*make_run(folder)) == 130
        torch.manual_seed(99)  # another process has other random numbers
        settings, state = load_resume(str(folder / "rnn.resume"))
        assert state["progress"]["step"] == stop
        assert train(settings, load_corpus(settings.data), state) == 0
        assert (folder / "rnn.net").read_bytes() == net, stop
        assert log_of(folder) == log, stop


def test_resume_refuses_what_is_not_that_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, 5)
    train(*make_run(tmp_path))
    settings, state = load_resume(str(tmp_path / "rnn.resume"))
    other = load_corpus([text_file(tmp_path, seed=2)])
    with pytest.raises(UserError, match="not the text of that run"):
        train(settings, other, state)
    whole = load_dict(tmp_path / "rnn.resume")
    damages = {"model": {}, "optimizer": {"state": {}}, "hidden": 3, "tally": {}, "tokens": ("a",)}
    for key, damage in [*damages.items(), ("rng", torch.zeros(3))]:
        with pytest.raises(UserError):
            train(settings, load_corpus([text_file(tmp_path)]), {**whole, key: damage})
    for damage in ({"settings": {"n_hidden": 3}}, {"progress": {"steps": 1}}, {"progress": 7}):
        torch.save(load_dict(tmp_path / "rnn.resume") | damage, tmp_path / "bad.resume")
        with pytest.raises(UserError, match="no interrupted run"):
            load_resume(str(tmp_path / "bad.resume"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_say_how_to_go_on(tmp_path: Path, number: int, status: int) -> None:
    text_file(tmp_path)
    process = start(tmp_path, "--data", "a.txt", "--minutes", "5", "--n-hidden", "8")
    while not (tmp_path / "rnn.resume").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == status
    assert "go on with: python train.py --resume rnn.resume" in out
    assert "Traceback" not in out
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_killed_thirty_times_the_run_ends_the_same(tmp_path: Path) -> None:
    chance = random.Random(1)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = ["--data", "a.txt", "--epochs", "400", "--n-hidden", "8", "--batch-size", "2"]
    flags += ["--seq-length", "4", "--device", "cpu", "--drop-prob", "0.2"]
    for folder in (whole, killed):
        folder.mkdir()
        text_file(folder, 60)
    end, _ = start(whole, *flags).communicate(timeout=300)
    kills, finished = 0, False
    while kills < 30 or not finished:
        resume = (killed / "rnn.resume").exists() and not finished
        if finished:  # another run from the start
            shutil.rmtree(killed)
            killed.mkdir()
            text_file(killed, 60)
        process = start(killed, *(["--resume", "rnn.resume"] if resume else flags))
        try:
            out, _ = process.communicate(timeout=chance.uniform(1.0, 4.0) if kills < 30 else 300)
            assert process.returncode == 0, out
            finished = True
            assert (killed / "rnn.net").read_bytes() == (whole / "rnn.net").read_bytes()
            assert log_of(killed) == log_of(whole), end
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills, finished = kills + 1, False
            if (killed / "rnn.net").exists():
                load_checkpoint(killed / "rnn.net")
            if (killed / "rnn.resume").exists():
                load_resume(str(killed / "rnn.resume"))
            assert len(list(killed.glob(".*"))) <= 4  # lock, and one partial file for each
    assert not list(killed.glob(".*.tmp"))


def limit_files(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))


def test_a_full_disk_keeps_the_old_files_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    settings, corpus = make_run(tmp_path)
    assert train(settings, corpus) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    limit_files(2000)  # bytes: enough for the log, too few for the model
    try:
        with pytest.raises(UserError, match="the last save failed"):
            train(settings, corpus)
    finally:
        limit_files(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after["rnn.net"] == before["rnn.net"] and after["rnn.resume"] == before["rnn.resume"]
    assert after.keys() == before.keys()  # no temporary file stays
    assert capsys.readouterr().out.count("could not save") == 1

    real, calls = torch.save, 0

    def full_for_a_while(contents: dict, file: object) -> None:
        nonlocal calls
        calls += 1
        if calls < 6:
            raise OSError(28, "No space left on device")
        real(contents, file)

    monkeypatch.setattr(torch, "save", full_for_a_while)
    assert train(settings, corpus) == 0
    assert (tmp_path / "rnn.net").read_bytes() == before["rnn.net"]


def test_a_file_made_read_only_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(*make_run(tmp_path)) == 0
    before = (tmp_path / "rnn.net").read_bytes()
    count = 0

    def step(*args: object) -> object:
        nonlocal count
        count += 1
        if count == 3:  # after the check at the start
            (tmp_path / "rnn.net").chmod(0o444)
        return train_step(*args)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="read-only"):
        patch.setattr("charrnn.training.train_step", step)
        train(*make_run(tmp_path, seed=2))
    assert (tmp_path / "rnn.net").read_bytes() == before
    with pytest.raises(UserError, match="cannot be written: the file is read-only"):
        train(*make_run(tmp_path))


def test_a_second_ctrl_c_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with catch_signals() as caught:
        os.kill(os.getpid(), signal.SIGINT)
        assert caught == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL  # which ends the process
    assert signal.getsignal(signal.SIGINT) == before


def test_a_bad_step_changes_nothing(tmp_path: Path) -> None:
    settings, corpus = make_run(tmp_path)
    run = Run(settings, corpus)
    x = run.train_ids[:32].view(4, 8)
    train_step(run, x, x, run.zeros)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    moments = [s["exp_avg"].clone() for s in run.optimizer.state_dict()["state"].values()]
    h, c = run.zeros
    _, hidden = train_step(run, x, x, (h + float("nan"), c))
    assert all(torch.equal(before[k], v) for k, v in run.model.state_dict().items())
    after = [s["exp_avg"] for s in run.optimizer.state_dict()["state"].values()]
    assert all(torch.equal(one, two) for one, two in zip(moments, after, strict=True))
    assert all(bool((part == 0).all()) for part in hidden)
    tally = {name: value.item() for name, value in run.tally.items()}
    assert tally["skipped"] == tally["bad"] == tally["steps"] == 1 and tally["loss"] > 0
    train_step(run, x, x, detach(hidden))
    assert run.tally["bad"] == 0 and run.tally["skipped"] == 1
    assert not torch.equal(before["fc.weight"], run.model.fc.weight)


def poison(monkeypatch: pytest.MonkeyPatch, first: int, last: int) -> None:
    count = 0

    def step(run: Run, x: torch.Tensor, y: torch.Tensor, hidden: tuple) -> object:
        nonlocal count
        count += 1
        if first <= count <= last:
            hidden = hidden[0] + float("inf"), hidden[1]
        return train_step(run, x, y, hidden)

    monkeypatch.setattr("charrnn.training.train_step", step)


def test_bad_steps_are_skipped_then_the_run_goes_back_then_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        poison(patch, 10, 12)
        assert train(*make_run(tmp_path / "a")) == 0
    assert sum(line["skipped"] for line in log_of(tmp_path / "a")) == 3
    with monkeypatch.context() as patch:
        poison(patch, 60, 90)
        assert train(*make_run(tmp_path / "b")) == 0
    assert "with 0.5 of the learning rate" in capsys.readouterr().out
    log = log_of(tmp_path / "b")
    assert [line["step"] for line in log] == [x["step"] for x in log_of(tmp_path / "a")]
    assert log[-1]["val_loss"] < log[0]["val_loss"]
    with monkeypatch.context() as patch, pytest.raises(UserError, match="lower --lr"):
        poison(patch, 1, 10**9)
        train(*make_run(tmp_path / "c"))


def test_a_text_of_one_character_is_learned(tmp_path: Path) -> None:
    settings, _ = make_run(tmp_path)
    (tmp_path / "a.txt").write_text("a" * 1000)
    assert train(settings, load_corpus(settings.data)) == 0
    assert [line["val_loss"] for line in log_of(tmp_path)] == [0] * 5
    assert load_checkpoint(tmp_path / "rnn.net").unique_tokens == ("a",)


def test_a_second_run_is_refused(tmp_path: Path) -> None:
    text_file(tmp_path)
    flags = ("--data", "a.txt", "--epochs", "1", "--n-hidden", "8", "--device", "cpu")
    flags += ("--batch-size", "4")
    with locked(tmp_path / "rnn.net"):
        process = start(tmp_path, *flags)
        out, _ = process.communicate()
    assert process.returncode == 2 and f"process {os.getpid()} is training into it" in out
    (tmp_path / ".rnn.net.lock").write_text("1")  # a crash left it
    process = start(tmp_path, *flags)
    out, _ = process.communicate()
    assert process.returncode == 0, out


def test_fine_tuning_keeps_what_was_learned(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = CharRNN(tuple("\nabcz"), 12, 2, 0.3)
    save_checkpoint(tmp_path / "old.net", source)
    settings, corpus = make_run(tmp_path, init_from=str(tmp_path / "old.net"))
    run = Run(settings, corpus)
    assert "4 characters are new" in capsys.readouterr().out  # space, d, e, f
    assert run.model.unique_tokens == tuple("\n abcdefz")
    known = [run.model.char2int[char] for char in source.unique_tokens]
    assert torch.equal(run.model.fc.weight[known], source.fc.weight)
    assert torch.equal(run.model.lstm.weight_ih_l0[:, known], source.lstm.weight_ih_l0)
    assert torch.equal(run.model.lstm.weight_hh_l1, source.lstm.weight_hh_l1)
