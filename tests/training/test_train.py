"""A run cannot be lost: resume, interruption, kills, full disks, bad numbers."""

import contextlib
import io
import math
import os
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import (
    ROOT,
    SMALL,
    at_step,
    contents,
    evaluations,
    interrupt,
    read_log,
    run_in,
    start,
    write_text,
)

import charrnn
import charrnn.curves
import sample
import train
from charrnn import CharRNN, evaluate, load_checkpoint, next_char_probabilities, save_checkpoint
from charrnn.errors import UserError
from charrnn.network.checkpoint import load_dict
from charrnn.network.evaluation import Evaluation
from charrnn.network.model import detach
from charrnn.system.console import catch_signals
from charrnn.system.locks import locked
from charrnn.text.corpus import load_corpus
from charrnn.text.split import split_text
from charrnn.training.batches import Batches
from charrnn.training.settings import new_settings, resolve_settings


@pytest.mark.parametrize("long_row", [1 << 17, 100])
def test_a_run_stopped_anywhere_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_row: int
) -> None:
    monkeypatch.setattr("charrnn.training.batches.LONG_ROW", long_row)
    monkeypatch.setattr("charrnn.training.batches.SEGMENT", 5)
    whole = tmp_path / "whole"
    assert run_in(whole).status == 0
    log, net = read_log(whole), (whole / "rnn.net").read_bytes()
    steps = log[-2]["step"]
    assert steps > 100 and [line["step"] for line in log[1:-1]] == sorted(
        {line["step"] for line in log[1:-1]}
    )
    per_epoch = steps // 3
    for stop in (1, 2, per_epoch - 1, per_epoch, per_epoch + 1, steps // 2 + 3, steps - 1):
        folder = tmp_path / f"stop{stop}"
        with monkeypatch.context() as patch:
            at_step(patch, stop, interrupt)
            assert run_in(folder).status == 130
        assert load_dict(folder / "rnn.resume")["state"]["progress"]["step"] == stop
        torch.manual_seed(99)  # another process has other random numbers
        assert train.train(resume=str(folder / "rnn.resume")).status == 0
        assert (folder / "rnn.net").read_bytes() == net, stop
        assert read_log(folder) == log, stop


def test_the_figure_is_that_of_the_best_model_on_all_held_out_text(tmp_path: Path) -> None:
    trained = run_in(tmp_path)
    corpus = load_corpus([str(tmp_path / "a.txt")])
    _, held_out = split_text(corpus.ids, 0.1)
    saved = load_dict(tmp_path / "rnn.net")
    expected = evaluate(load_checkpoint(tmp_path / "rnn.net"), held_out)
    assert saved["val_loss"] == expected == trained.log[-1]["val_loss"]
    assert saved["val_chars"] == len(held_out) and trained.log[-1]["final"]
    best = min(evaluations(tmp_path), key=lambda line: line["val_loss"])
    assert saved["step"] == best["step"] == trained.log[-1]["step"]
    assert not trained.model.training and evaluate(trained.model, held_out) == expected


def test_the_log_has_about_200_lines_and_every_evaluation(tmp_path: Path) -> None:
    trained = run_in(tmp_path, epochs=12)
    assert trained.log[0]["settings"]["lr"] == 1e-2 and "ckpt" not in trained.log[0]["settings"]
    assert 150 < len(trained.log) < 250 and len(evaluations(tmp_path)) == 12
    keys = {"step", "epoch", "seconds", "train_loss", "val_loss", "val_bpc", "chars_per_second"}
    keys |= {"lr", "chars", "skipped", "val_chars"}
    assert all(line.keys() == keys for line in trained.log[1:-1])
    assert all(line["train_loss"] > 0 for line in trained.log[1:-1])


def test_the_training_loss_shown_is_the_mean_since_the_last_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run_in(tmp_path, epochs=5, drop_prob=0.0)
    shown = [float(x) for x in re.findall(r"train ([0-9.]+), held out", capsys.readouterr().out)]
    total, steps, last = 0.0, 0, 0
    for line in read_log(tmp_path)[1:-1]:  # each has the mean since the line before
        total += line["train_loss"] * (line["step"] - last)
        steps, last = steps + line["step"] - last, line["step"]
        if line["val_loss"] is not None:
            assert shown.pop(0) == pytest.approx(total / steps, abs=1e-3)
            total, steps = 0.0, 0
    assert not shown


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_program_while_it_reads_a_text(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    process = start(tmp_path, "--data", "fifo")
    with (tmp_path / "fifo").open("wb", buffering=0) as fifo:  # waits until it is read
        fifo.write(b"a text that never ends\n")
        process.send_signal(getattr(signal, name))
        process.communicate(timeout=60)
    assert process.returncode == (130 if name == "SIGINT" else -signal.SIGTERM)
    assert {*os.listdir(tmp_path)} <= {"fifo", ".rnn.lock"}  # which nobody holds


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_save_and_say_how_to_go_on(tmp_path: Path, name: str) -> None:
    write_text(tmp_path)
    process = start(tmp_path, "--data", "a.txt", "--minutes", "5", "--n-hidden", "8")
    while not (tmp_path / "rnn.resume").exists() and process.poll() is None:
        time.sleep(0.05)
    number = getattr(signal, name)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "resume with: python train.py --resume rnn.resume" in out
    assert "Traceback" not in out and not list(tmp_path.glob(".*"))
    load_checkpoint(tmp_path / "rnn.net")  # stopped before the first evaluation, and yet a model


def test_a_signal_ignored_at_the_start_stays_ignored(tmp_path: Path) -> None:
    write_text(tmp_path)

    def as_nohup_does() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a script's background job

    flags = ("--data", "a.txt", "--minutes", "5", "--n-hidden", "8")
    process = start(tmp_path, *flags, preexec_fn=as_nohup_does)
    while not (tmp_path / "rnn.resume").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, out


def test_a_second_ctrl_c_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with catch_signals() as caught:
        interrupt()
        assert caught == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL  # which ends the process
    assert signal.getsignal(signal.SIGINT) == before


def kill_often(whole: Path, killed: Path, flags: list[str], kills: int, seed: int) -> None:
    """Kill a run at random moments and resume it; whenever it ends, it must be the whole one."""
    chance, finished = random.Random(seed), False
    while kills or not finished:
        if finished:  # another run from the start
            shutil.rmtree(killed)
            write_text(killed, 60)
        resume = (killed / "rnn.resume").exists()
        process = start(killed, *(["--resume", "rnn.resume"] if resume else flags))
        try:
            out, _ = process.communicate(timeout=chance.uniform(1.0, 4.0) if kills else 300)
            assert process.returncode == 0, out
            finished = True
            assert (killed / "rnn.net").read_bytes() == (whole / "rnn.net").read_bytes()
            assert read_log(killed) == read_log(whole)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills, finished = kills - 1, False
            if (killed / "rnn.net").exists():
                load_checkpoint(killed / "rnn.net")
            if (killed / "rnn.resume").exists():
                load_dict(killed / "rnn.resume")
            assert len(list(killed.glob(".*"))) <= 4  # lock, and one partial file for each
    assert not [path for path in killed.glob(".*") if path.suffix != ".lock"]


@pytest.mark.slow
def test_killed_thirty_times_the_run_ends_the_same(tmp_path: Path) -> None:
    flags = ["--data", "a.txt", "--epochs", "300", "--n-hidden", "8", "--batch-size", "2"]
    flags += ["--seq-length", "4", "--drop-prob", "0.2"]
    folders = [tmp_path / name for name in ("whole", "one", "two")]
    for folder in folders:
        write_text(folder, 60)
    out, _ = start(folders[0], *flags).communicate(timeout=300)
    assert (folders[0] / "rnn.net").exists(), out
    with ThreadPoolExecutor() as pool:  # one on each core
        both = [
            pool.submit(kill_often, folders[0], folder, flags, 15, seed)
            for seed, folder in enumerate(folders[1:])
        ]
        for each in both:
            each.result()


def limit_files() -> None:
    """Let this process write no file above 8,000 bytes: enough for the text, not for the model."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))


def test_a_full_disk_keeps_the_old_files_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_in(tmp_path).status == 0
    before = contents(tmp_path)
    flags = ("--data", "a.txt", "--epochs", "1", "--n-hidden", "12", "--batch-size", "4")
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    out, err = (process := start(tmp_path, *flags, preexec_fn=limit_files, **pipe)).communicate()
    assert process.returncode == 2 and "the last save failed" in err and err.count("\n") == 1
    assert out.count("could not save") == 1
    after = contents(tmp_path)
    for name in ("net", "resume", "jsonl"):
        assert after[f"rnn.1.{name}"] == before[f"rnn.{name}"]  # set aside, and whole
    assert not list(tmp_path.glob(".*"))

    real, calls = torch.save, 0

    def full_for_a_while(contents: dict, file: object) -> None:
        nonlocal calls
        calls += 1
        if calls < 6:
            raise OSError(28, "No space left on device")
        real(contents, file)

    monkeypatch.setattr(torch, "save", full_for_a_while)
    assert run_in(tmp_path / "later").status == 0 and calls > 6
    load_checkpoint(tmp_path / "later" / "rnn.net")


def test_a_file_made_read_only_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rnn.net"
    before: list[bytes] = []

    def protect() -> None:
        path.chmod(0o444)
        before.append(path.read_bytes())

    at_step(monkeypatch, 80, protect)
    with pytest.raises(UserError, match="read-only"):
        run_in(tmp_path)
    assert path.read_bytes() == before[0]


def test_a_bad_step_changes_nothing(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = CharRNN(tuple("abcd"), 8, 2, 0.0)
    optimizers = [torch.optim.AdamW(model.parameters(), fused=True)]
    x = torch.randint(4, (4, 8))
    zeros = model.init_hidden(4)
    options = (1.0, torch.float32)
    train.train_step(model, optimizers, x, x, zeros, *options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    moments = [s["exp_avg"].clone() for s in optimizers[0].state_dict()["state"].values()]
    h, c = zeros
    _, bad, hidden = train.train_step(model, optimizers, x, x, (h + float("nan"), c), *options)
    assert bad and all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    after = [s["exp_avg"] for s in optimizers[0].state_dict()["state"].values()]
    assert all(torch.equal(one, two) for one, two in zip(moments, after, strict=True))
    assert all(bool((part == 0).all()) for part in hidden)
    _, bad, _ = train.train_step(model, optimizers, x, x, detach(hidden), *options)
    assert not bad and not torch.equal(before["fc.weight"], model.fc.weight)


def test_targets_are_smoothed_and_the_loss_that_is_said_is_not() -> None:
    torch.manual_seed(1)
    model = CharRNN(tuple("abcd"), 8, 2, 0.0)
    x, y = torch.randint(4, (2, 4, 8))
    log_p = model(x, model.init_hidden(4))[0].log_softmax(1)
    plain = -log_p[range(32), y.flatten()].mean()
    (0.9 * plain - 0.1 * log_p.mean()).backward()
    expected = [weight.grad.clone() for weight in model.parameters()]
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)]
    options = (1e9, torch.float32, 0.1)
    loss, _, _ = train.train_step(model, optimizers, x, y, model.init_hidden(4), *options)
    assert loss == pytest.approx(plain.item())
    for weight, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(weight.grad, gradient, atol=1e-6)


def poison(monkeypatch: pytest.MonkeyPatch, first: int, last: int) -> None:
    real, count = train.detach, 0

    def detach_and_spoil(hidden: tuple) -> tuple:
        nonlocal count
        count += 1
        h, c = real(hidden)
        return (h + float("inf"), c) if first <= count <= last else (h, c)

    monkeypatch.setattr(train, "detach", detach_and_spoil)


def test_bad_steps_are_skipped_then_the_run_goes_back_then_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        poison(patch, 10, 12)
        assert run_in(tmp_path / "a").status == 0
    assert read_log(tmp_path / "a")[-1]["skipped"] == 3
    with monkeypatch.context() as patch:
        poison(patch, 60, 90)
        assert run_in(tmp_path / "b").status == 0
    assert "with 0.5 of the learning rate" in capsys.readouterr().out
    log = evaluations(tmp_path / "b")
    assert [line["step"] for line in log] == [x["step"] for x in evaluations(tmp_path / "a")]
    assert log[-1]["val_loss"] < log[0]["val_loss"]
    with monkeypatch.context() as patch, pytest.raises(UserError, match="lower --lr"):
        poison(patch, 1, 10**9)
        run_in(tmp_path / "c")


def test_a_text_of_one_character_is_learned(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 1000)
    trained = run_in(tmp_path, data=[str(tmp_path / "a.txt")])
    assert trained.log[-1]["val_loss"] == 0 and trained.model.unique_tokens == ("a",)


def test_a_second_run_is_refused(tmp_path: Path) -> None:
    write_text(tmp_path)
    flags = ("--data", "a.txt", "--epochs", "1", "--n-hidden", "8", "--batch-size", "4")
    with locked(tmp_path / "rnn"):
        before = contents(tmp_path)
        out, _ = (process := start(tmp_path, *flags)).communicate()
        assert process.returncode == 2 and "is training into it" in out and "process" in out
        assert contents(tmp_path) == before
    (tmp_path / ".rnn.lock").write_text("1")  # a crash left it
    out, _ = (process := start(tmp_path, *flags)).communicate()
    assert process.returncode == 0, out


def test_fine_tuning_keeps_what_was_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = CharRNN(tuple("\nabcz"), 12, 2, 0.3)
    save_checkpoint(tmp_path / "old.net", source)
    models: list[CharRNN] = []
    monkeypatch.setattr(train, "make_optimizers", lambda model, *_: models.append(model) or 1 / 0)
    with pytest.raises(ZeroDivisionError):  # before the first step
        run_in(tmp_path, init_from=str(tmp_path / "old.net"))
    (model,) = models
    assert model.unique_tokens == tuple("\n abcdefz")
    known = [model.char2int[char] for char in source.unique_tokens]
    assert torch.equal(model.fc.weight[known], source.fc.weight)
    assert torch.equal(model.lstm.weight_ih_l0[:, known], source.lstm.weight_ih_l0)
    assert torch.equal(model.lstm.weight_hh_l1, source.lstm.weight_hh_l1)


class Bare(io.TextIOBase):
    """A stdout as notebooks have: no file descriptor, no encoding to change."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)


def test_main_runs_twice_in_one_process_and_in_a_thread_with_another_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)
    out = Bare()
    monkeypatch.setattr(sys, "stdout", out)
    flags = [part for k, v in SMALL.items() for part in ("--" + k.replace("_", "-"), str(v))]
    flags += ["--data", "a.txt"]
    assert train.main(flags) == 0 and "best held-out loss" in out.text
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(train.main(flags)))
    thread.start()
    thread.join()
    assert statuses == [0] and "rnn.1.net, rnn.1.resume, rnn.1.jsonl" in out.text
    assert (tmp_path / "rnn.net").read_bytes() == (tmp_path / "rnn.1.net").read_bytes()


def test_patience_ends_a_run_and_every_model_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.4, 2.2, 1.0, 1.0, 1.0])
    monkeypatch.setattr(train, "evaluate_pieces", lambda *_: next(losses))
    run_in(tmp_path, epochs=8, patience=3, keep="all")
    log = evaluations(tmp_path)
    assert [line["val_loss"] for line in log] == [3.0, 2.0, 2.5, 2.4, 2.2]
    kept = sorted(path.name for path in tmp_path.glob("rnn.step*.net"))
    assert kept == [f"rnn.step{line['step']:06}.net" for line in log]
    assert load_dict(tmp_path / "rnn.net")["step"] == log[1]["step"]
    assert load_dict(tmp_path / kept[3])["val_loss"] == 2.4
    monkeypatch.undo()
    before = contents(tmp_path)
    run_in(tmp_path, epochs=1)  # of the next run nothing is written onto these
    after = contents(tmp_path)
    for name in kept:
        assert after[name.replace(".net", ".1.net")] == before[name]


def test_a_run_that_ended_can_go_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run_in(tmp_path)
    net, log = (tmp_path / "rnn.net").read_bytes(), read_log(tmp_path)
    capsys.readouterr()
    resume = str(tmp_path / "rnn.resume")
    assert train.train(resume=resume).status == 0
    assert "this run has already ended" in capsys.readouterr().out
    assert (tmp_path / "rnn.net").read_bytes() == net and read_log(tmp_path) == log
    trained = train.train(resume=resume, epochs=6)
    assert trained.status == 0 and trained.log[-2]["epoch"] == 6
    steps = [line["step"] for line in trained.log[1:-1]]
    assert steps == sorted(set(steps)) and [x["step"] for x in log[1:-1]] == steps[: len(log) - 2]
    with pytest.raises(UserError, match="leave --lr out"):
        train.train(resume=resume, lr=0.1)


def test_a_sorted_list_is_noticed_and_held_out_by_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    chance = random.Random(1)
    names = sorted("".join(chance.choices("abcdefghij", k=6)) for _ in range(2000))
    path = tmp_path / "names.txt"
    path.write_text("\n".join(names), encoding="utf-8")
    run_in(tmp_path, data=[str(path)], epochs=1, seq_length=32)
    out = capsys.readouterr().out
    assert "the held-out text is harder" in out and "--val-split lines" in out
    run_in(tmp_path, data=[str(path)], epochs=1, seq_length=32, val_split="lines")
    assert "held-out text is" not in capsys.readouterr().out
    corpus = load_corpus([str(path)])
    how = (corpus.vocabulary.tokens, "lines", 1)
    parts, again = (split_text(corpus.ids, 0.1, *how) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))
    lines = [corpus.vocabulary.decode(part).split("\n") for part in parts]
    assert sorted(filter(None, lines[0] + lines[1])) == names and 190 < len(lines[1]) < 205
    assert {line[0] for line in lines[1] if line} == set("abcdefghij")
    path.write_text("".join(chance.choices("aaaaabcdef", k=12_000)) + "a" * 1400, encoding="utf-8")
    run_in(tmp_path, data=[str(path)], epochs=1, seq_length=32)
    assert "the held-out text is easier" in capsys.readouterr().out


def test_batches_are_a_function_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charrnn.training.batches.LONG_ROW", 100)
    monkeypatch.setattr("charrnn.training.batches.SEGMENT", 5)
    batches = Batches(torch.arange(1003), 4, 8, seed=3)
    windows = [batches.window(i)[0].tolist() for i in range(batches.per_epoch)]
    first = [batches[step][0].tolist() for step in range(batches.per_epoch)]
    assert sorted(first) == sorted(windows) and first != windows  # all of it, in another order
    for step in range(batches.per_epoch):
        follows = step > 0 and windows.index(first[step]) == windows.index(first[step - 1]) + 1
        assert follows or not batches.carried(step).any()
        assert batches.carried(step).tolist() == [step % 5 > 0] * 4
    batches = Batches(torch.arange(1003), 4, 8, seed=3, cold_starts=0.2)
    later = [(*batches[step], batches.carried(step)) for step in range(3 * batches.per_epoch)]
    chance = random.Random(1)
    for step in chance.sample(range(len(later)), 40):  # in any order, the same
        again = Batches(torch.arange(1003), 4, 8, seed=3, cold_starts=0.2)
        repeated = (*again[step], again.carried(step))
        assert all(torch.equal(a, b) for a, b in zip(later[step], repeated, strict=True))
        assert torch.equal(later[step][1], later[step][0] + 1)


def test_rows_start_cold_by_chance_and_the_same_for_each_process() -> None:
    p, rows, steps = 0.05, 8, 2000
    ids = torch.zeros(rows * 2 * (steps + 1), dtype=torch.long)
    whole, half = Batches(ids, rows, 1, 7, cold_starts=p), slice(4, 8)
    part = Batches(ids, rows, 1, 7, half, cold_starts=p)
    carried = torch.stack([whole.carried(step) for step in range(steps)])
    assert not carried[0].any()
    n = carried[1:].numel()
    assert abs((~carried[1:]).sum() - p * n) < 5 * math.sqrt(p * (1 - p) * n)
    assert 0 < (~carried[1:].all(1)).sum() < p * n  # rows for themselves, not all at once
    for step in (0, 3, steps - 1):
        assert torch.equal(part.carried(step), carried[step, half])


def test_a_row_that_starts_cold_has_a_state_of_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states, step = [], train.train_step

    def watched(*args: Any) -> Any:
        states.append(torch.cat(args[4]))
        return step(*args)

    monkeypatch.setattr(train, "train_step", watched)
    kept = torch.tensor([True, False] + [True] * 6)
    monkeypatch.setattr(Batches, "carried", lambda self, step: kept[: self.batch_size])
    run_in(tmp_path, data=[write_text(tmp_path)], epochs=1)
    assert len(states) > 2
    for state in states[1:]:
        assert not state[:, 1].any() and state[:, 0].all()


def test_the_notebook_carries_every_state() -> None:
    given = new_settings({"preset": "notebook"}, None)
    assert resolve_settings(given, False, 10**6, lambda *size: 1.0).cold_starts == 0.0


def test_installed_it_has_its_name_version_and_dependencies() -> None:
    import tomllib

    contents = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert contents["tool"]["setuptools"]["py-modules"] == ["train", "sample"]
    project = contents["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    assert sorted(needed) == sorted((ROOT / "requirements.txt").read_text().split("\n")[:-1])


@pytest.mark.parametrize(("gap", "is_lost"), [(0.009, False), (0.27, True)])
def test_a_model_that_loses_its_way_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    gap: float,
    is_lost: bool,
) -> None:
    monkeypatch.setattr(train, "evaluate_all", lambda *_, **__: Evaluation(1.0, gap))
    run_in(tmp_path, epochs=1)
    out = capsys.readouterr().out
    assert ("the model loses its way" in out) == is_lost
    assert ("cost 0.27 nats more" in out and "--seed" in out) == is_lost


def printed_commands(out: str) -> dict[str, list[str]]:
    """The commands that a run printed: the program, and its arguments as a shell splits them."""
    parts = re.findall(r"python (?:-m )?(train\.py|sample\.py|charrnn\.\w+) ([^;\n]*)", out)
    return {program: shlex.split(arguments) for program, arguments in parts}


def test_the_commands_printed_at_the_end_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)
    flags = [part for k, v in SMALL.items() for part in ("--" + k.replace("_", "-"), str(v))]
    assert train.main([*flags, "--data", "a.txt", "--ckpt=-x y.net"]) == 0
    commands = printed_commands(capsys.readouterr().out)
    assert sample.main([*commands["sample.py"], "--size", "3", "--device", "cpu"]) == 0
    assert charrnn.curves.main([*commands["charrnn.curves"], "--out", "curves.html"]) == 0
    assert commands["charrnn.share"] == ["--ckpt", "./-x y.net"]
    assert commands["train.py"] == ["--resume", "./-x y.resume", "--epochs", "6"]
    steps = load_dict("-x y.resume")["state"]["progress"]["step"]
    assert train.main(commands["train.py"]) == 0
    assert load_dict("-x y.resume")["state"]["progress"]["step"] == 2 * steps
    out = capsys.readouterr().out
    assert f"; resumed at step {steps}, after " in out
    assert printed_commands(out)["train.py"][2:] == ["--epochs", "12"]


def test_a_run_without_patience_left_is_trained_further_by_more_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(train, "evaluate_pieces", lambda *_: 1.0)
    run_in(tmp_path, epochs=40, patience=3)
    monkeypatch.undo()
    out = capsys.readouterr().out
    assert printed_commands(out)["train.py"][2:] == ["--patience", "6"]
    steps = load_dict(tmp_path / "rnn.resume")["state"]["progress"]["step"]
    resume = str(tmp_path / "rnn.resume")
    assert train.train(resume=resume, epochs=80).status == 0
    assert "already ended; --patience 6 trains it further" in capsys.readouterr().out
    at_step(monkeypatch, 10, interrupt)
    assert train.train(resume=resume, patience=6).status == 130
    assert load_dict(resume)["state"]["progress"]["step"] == steps + 10


def test_a_loss_above_guessing_is_no_warning_before_a_fifth_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(train, "evaluate_pieces", lambda *_: 9.0)
    run_in(tmp_path, epochs=10)
    evaluated = capsys.readouterr().out.split("\nstep ")[1:]
    warned = ["that of guessing" in text for text in evaluated]
    assert warned == [False] + [True] * 9


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_the_bars_clock_starts_when_training_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, read_at = Screen(), 0.0
    monkeypatch.setattr(sys, "stderr", screen)
    real = train.load_corpus
    reporters: list[train.Reporter] = []

    def load_text(*how: Any) -> Any:
        nonlocal read_at
        read_at = time.time()
        return real(*how)

    def check() -> None:
        assert reporters[0].bar.start_t > read_at > 0

    monkeypatch.setattr(train, "load_corpus", load_text)
    start = train.Reporter.__post_init__
    monkeypatch.setattr(
        train.Reporter, "__post_init__", lambda self: reporters.append(self) or start(self)
    )
    at_step(monkeypatch, 1, check)
    run_in(tmp_path, epochs=1)
    training, _, last = screen.getvalue().partition("evaluating the best model")
    assert "100%" in training and "100%" in last


def test_what_python_may_give(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    plain = run_in(tmp_path / "a").log
    path = Path(write_text(tmp_path))
    given = {"data": path, "ckpt": tmp_path / "b" / "rnn.net", "dtype": torch.float32}
    given |= {"device": torch.device("cpu"), "prime": None, "preset": None, "minutes": None}
    capsys.readouterr()
    lines: list[dict] = []
    log = train.train(**SMALL | given, on_log=lines.append, quiet=True).log
    assert capsys.readouterr() == ("", "")
    assert lines == log
    assert [line["val_loss"] for line in log[1:]] == [line["val_loss"] for line in plain[1:]]
    new: list[dict] = []
    resumed = train.train(tmp_path / "b" / "rnn.resume", epochs=4, on_log=new.append, quiet=True)
    assert new == resumed.log[-len(new) :] and len(new) < len(resumed.log)


WRONG = {
    "data": ([], 3, [3], "", {}, [None]),
    "preset": ("foo", 1, []),
    "epochs": ("1", 0, 1.5, True),
    "minutes": ("1", 0, float("nan")),
    "val_frac": (1, 0, "0.1"),
    "batch_size": (0, "8", 2.0),
    "dtype": (torch.int64, "float", 32),
    "device": ([], 3, ""),
    "ckpt": (3, ""),
    "resume": (3, b"rnn.resume", ""),
    "init_from": ([], 1),
    "lr": (0, "1e-3", [1e-3]),
    "seed": (-1, 2**40, 1.0),
    "keep": (True, "none"),
    "encoding": (8,),
    "prime": (3, ""),
    "tensorboard": (1,),
    "patience": (0, "3"),
    "on_log": (3, "print"),
    "epoch": (3,),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_from_python_are_one_line_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)
    for value in WRONG[name]:
        with pytest.raises(UserError, match=name) as caught:
            train.train(**{"data": "a.txt", name: value})
        assert "\n" not in str(caught.value)
    assert os.listdir() == ["a.txt"]


@contextlib.contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("defaults", [float64, lambda: torch.device("meta")])
def test_torchs_defaults_change_nothing(tmp_path: Path, defaults: Callable) -> None:
    def use(folder: Path) -> tuple:
        run_in(folder, epochs=1)
        model = load_checkpoint(folder / "rnn.net")
        text = charrnn.sample(model, 50, "a", seed=1)
        loss = evaluate(model, load_ids(folder, model))
        return (folder / "rnn.net").read_bytes(), text, loss, next_char_probabilities(model, "a")

    def load_ids(folder: Path, model: CharRNN) -> torch.Tensor:
        with torch.device("cpu"):
            return load_corpus([str(folder / "a.txt")]).encode_with(model.unique_tokens)

    expected = use(tmp_path / "a")
    with defaults():
        before = torch.get_default_dtype(), torch.get_default_device()
        assert use(tmp_path / "b") == expected
        assert (torch.get_default_dtype(), torch.get_default_device()) == before
