"""A run owns its files: no text, model or earlier run is lost, whatever names are given."""

import json
import os
import signal
import stat
import subprocess
import sys
import types
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from runs import ROOT, at_step, contents, interrupt, read_log, run_in, start, write_text

import sample
import train
from charrnn import CharRNN, load_checkpoint, save_checkpoint
from charrnn.errors import UserError
from charrnn.network.checkpoint import load_dict, save_dict
from charrnn.system.locks import locked
from charrnn.text import sources
from charrnn.text.corpus import load_corpus

TINY: dict[str, Any] = {"epochs": 1, "n_hidden": 4, "n_layers": 1, "batch_size": 2}


def tiny(folder: Path, **given: object) -> train.Trained:
    """The smallest run, in this folder."""
    return run_in(folder, **TINY | given)


def run_stopped_at(folder: Path, step: int, **given: object) -> None:
    """A run in this folder that Ctrl-C stops at this step."""
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, step, interrupt)
        assert tiny(folder, **given).status == 130


def go_on(folder: Path, name: str = "rnn.resume", **given: object) -> train.Trained:
    """The whole rest of a run."""
    return train.train(resume=str(folder / name), **given)


def refuse(folder: Path, match: str, **given: object) -> None:
    """The run is refused with this reason, and all files are as they were."""
    before = contents(folder)
    with pytest.raises(UserError, match=match) as caught:
        go_on(folder, **given) if "name" in given else tiny(folder, **given)
    assert "\n" not in str(caught.value)
    assert contents(folder) == before


NAMES = {
    "rnn.net": "rnn.net rnn.resume rnn.jsonl",
    "lr_0.01": "lr_0.01 lr_0.01.resume lr_0.01.jsonl",
    "plain": "plain plain.resume plain.jsonl",
    "a.net.net": "a.net.net a.net.resume a.net.jsonl",
    "new/folder/m.net": "m.net m.resume m.jsonl",
}


@pytest.mark.parametrize("ckpt", NAMES)
def test_only_net_is_taken_off_a_name(tmp_path: Path, ckpt: str) -> None:
    data = [write_text(tmp_path / "text")]
    tiny(tmp_path, ckpt=str(tmp_path / ckpt), data=data)
    assert set(contents((tmp_path / ckpt).parent)) == set(NAMES[ckpt].split())


def test_names_that_differ_after_a_dot_are_two_runs(tmp_path: Path) -> None:
    tiny(tmp_path, ckpt=str(tmp_path / "lr_0.01"), lr=0.01)
    before = contents(tmp_path)
    tiny(tmp_path, ckpt=str(tmp_path / "lr_0.02"), lr=0.02)
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before and len(after) == 7


def test_what_an_earlier_run_left_is_set_aside_under_one_free_number(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, data = tmp_path / "run", [write_text(tmp_path)]
    found = []
    for seed in range(3):
        tiny(folder, data=data, seed=seed)
        found.append(contents(folder))
        said = "set aside as " in capsys.readouterr().out
        assert said == (seed > 0)
    for name in ("net", "resume", "jsonl"):
        assert found[2][f"rnn.1.{name}"] == found[0][f"rnn.{name}"]
        assert found[2][f"rnn.2.{name}"] == found[1][f"rnn.{name}"]
    assert len(found[2]) == 9
    (folder / "rnn.net").unlink()
    (folder / "rnn.3.jsonl").write_text("someone's")
    tiny(folder, data=data, seed=3)
    last = contents(folder)
    assert last["rnn.3.jsonl"] == b"someone's"
    assert last["rnn.4.resume"] == found[2]["rnn.resume"] and "rnn.4.net" not in last
    assert {k: last[k] for k in found[2] if k.count(".") == 2} == {
        k: v for k, v in found[2].items() if k.count(".") == 2
    }


SAME = [  # a text, what else leads to it, and the model's name
    ("tweets.jsonl", "", "tweets.net"),
    ("story.txt", "", "story.txt"),
    ("story.txt", "", "./x/../story.txt"),
    ("a.resume", "", "a"),
    ("story.txt", "symlink m.net", "m.net"),
    ("story.txt", "symlink m.jsonl", "m.net"),
    ("story.txt", "link m.net", "m.net"),
    ("story.txt", "link m.resume", "m"),
]


@pytest.mark.parametrize(("text", "link", "ckpt"), SAME)
def test_a_text_is_never_written_to(tmp_path: Path, text: str, link: str, ckpt: str) -> None:
    (tmp_path / "x").mkdir()
    os.rename(write_text(tmp_path), tmp_path / text)
    if link:
        kind, name = link.split()
        getattr(os, kind)(tmp_path / text, tmp_path / name)
    data = [str(tmp_path / text)]
    refuse(tmp_path, "choose another name", data=data, ckpt=str(tmp_path / ckpt))


@pytest.mark.parametrize("ckpt", ["rnn.net", "copy.net", "link.net", "folder/../rnn.net"])
def test_a_model_to_start_from_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture, ckpt: str
) -> None:
    (tmp_path / "folder").mkdir()
    source = tmp_path / "rnn.net"
    save_checkpoint(source, CharRNN(tuple("\nabcdef "), 4, 1))
    os.link(source, tmp_path / "copy.net")
    os.symlink("rnn.net", tmp_path / "link.net")
    before = source.read_bytes()
    tiny(tmp_path, ckpt=str(tmp_path / ckpt), init_from=str(source))
    aside = "copy.1.net" if ckpt == "copy.net" else "rnn.1.net"
    assert (tmp_path / aside).read_bytes() == before
    assert f"set aside as {aside}" in capsys.readouterr().out
    state = Path(ckpt).with_suffix(".resume").name
    assert go_on(tmp_path, state, epochs=2).status == 0  # it needs the old model no more


def test_models_kept_on_the_way_are_an_earlier_runs_too(tmp_path: Path) -> None:
    folder, data = tmp_path / "run", [write_text(tmp_path)]
    tiny(folder, data=data, keep="all", epochs=3)
    first = contents(folder)
    kept = sorted(name for name in first if ".step" in name)
    assert len(kept) == 5
    for n in (2, 3):
        tiny(folder, data=data, keep="all", epochs=3, seed=n)
    last = contents(folder)
    assert len(last) == 3 * len(first)
    for name, raw in first.items():
        stem, _, suffix = name.rpartition(".")
        assert last[f"{stem}.1.{suffix}"] == raw  # set aside once, not again and again
    assert tiny(folder, data=data, init_from=str(folder / kept[0])).status == 0
    assert last[kept[0]] == (folder / kept[0].replace(".net", ".3.net")).read_bytes()


BAD_NAMES = ["", ".", "folder", "folder/", ".net", "folder/.net", "fifo", "/dev/null", "/dev/zero"]
BAD_NAMES += ["a\0b", "x" * 254, "x" * 5000, "rnn.resume", "rnn.jsonl", "circle", "a.txt/m.net"]


@pytest.mark.parametrize("ckpt", BAD_NAMES)
def test_names_that_cannot_be_a_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, ckpt: str
) -> None:
    write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo("fifo")
    os.symlink("circle", "circle")
    before, names = contents(tmp_path), sorted(os.listdir())
    flags = ["--data", "a.txt", "--epochs", "1", "--n-hidden", "4", "--device", "cpu"]
    assert train.main([*flags, "--ckpt", ckpt]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert contents(tmp_path) == before and sorted(os.listdir()) == names
    assert stat.S_ISFIFO(os.stat("fifo").st_mode) and stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "real.net").write_text("an earlier model")
    (tmp_path / "rnn.net").symlink_to("store/real.net")
    tiny(tmp_path)
    assert os.readlink(tmp_path / "rnn.net") == "store/real.net"
    assert set(contents(store)) == {"real.net", "real.1.net"}
    assert (store / "real.1.net").read_text() == "an earlier model"
    load_checkpoint(store / "real.net")
    with locked(store / "real"):  # as a run into the target itself has it
        refuse(tmp_path, "is training into it")


def test_stopped_before_the_first_evaluation_there_is_a_model_to_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run_stopped_at(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert sample.main(["--size", "5", "--device", "cpu"]) == 0
    assert len(capsys.readouterr().out) >= 5
    assert sample.main(["--ckpt", "rnn.resume"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "train.py --resume rnn.resume" in said and ".net" in said
    assert load_dict("rnn.net")["val_chars"] == 0
    go_on(tmp_path)  # the interim model is no best
    evaluated = [line for line in map(json.loads, open("rnn.jsonl")) if line.get("val_loss")]
    assert load_dict("rnn.resume")["state"]["progress"]["best"] == min(
        line["val_loss"] for line in evaluated if not line.get("final")
    )


def test_a_lost_model_is_said_and_saved_anew(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run_stopped_at(tmp_path, 100, epochs=3)
    (tmp_path / "rnn.net").unlink()
    assert go_on(tmp_path).status == 0
    out = capsys.readouterr().out
    assert "the best model so far is missing" in out and out.count("best held-out loss") == 1
    load_checkpoint(tmp_path / "rnn.net")


def test_a_state_renamed_or_copied_writes_to_its_own_names_only(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = [write_text(tmp_path)]
    run_stopped_at(tmp_path / "old", 30, data=data, keep="all")
    newer = tmp_path / "newer"
    tiny(newer, data=data, seed=5, keep="all")
    before = contents(newer)
    state = (tmp_path / "old" / "rnn.resume").read_bytes()

    (newer / "kept.resume").write_bytes(state)  # renamed
    assert go_on(newer, "kept.resume").status == 0
    after = contents(newer)
    assert {name: after[name] for name in before} == before
    assert {"kept.net", "kept.jsonl", "kept.resume"} <= after.keys() - before.keys()

    (newer / "rnn.resume").write_bytes(state)  # copied over the newer run's
    capsys.readouterr()
    assert go_on(newer).status == 0
    last = contents(newer)
    assert "set aside as rnn.1" in capsys.readouterr().out
    lost = [n for n, raw in before.items() if n != "rnn.resume" and raw not in last.values()]
    assert not lost
    assert last["rnn.net"] == after["kept.net"]


def edit(path: Path, change: Any) -> None:
    saved = load_dict(path)
    change(saved)
    save_dict(path, saved)


def test_a_state_chooses_no_other_file_to_write(tmp_path: Path) -> None:
    run_stopped_at(tmp_path, 5)
    (tmp_path / "thesis.tex").write_text("years of work")
    others = {"ckpt": str(tmp_path / "thesis.tex"), "tensorboard": str(tmp_path / "board")}
    edit(tmp_path / "rnn.resume", lambda saved: saved["settings"].update(others))
    assert go_on(tmp_path).status == 0
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    names = {"a.txt", "rnn.net", "rnn.resume", "rnn.jsonl", "thesis.tex"}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the texts that are opened."""
    names: list[str] = []
    real = sources.os.open

    def note(name: str, *args: Any) -> int:
        names.append(str(name))
        return real(name, *args)

    monkeypatch.setattr(sources, "os", SimpleNamespace(**vars(os) | {"open": note}))
    return names


def make_folder_of_all_kinds(folder: Path) -> None:
    """Files that a text cannot be, of which some would block or never end, and many others."""
    folder.mkdir()
    for i in range(300):
        (folder / f"{i}.txt").write_text("the text of someone else\n" * 100)
    os.mkfifo(folder / "fifo")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "empty").touch()
    (folder / "unreadable").write_text("a" * 2000)
    (folder / "unreadable").chmod(0)
    with suppress(PermissionError):
        os.mknod(folder / "device", stat.S_IFCHR | 0o600, os.makedev(1, 5))


@pytest.mark.parametrize("data", ["/dev/zero", "/dev/null", "large.txt", "folder", "fifos"])
def test_a_state_opens_no_other_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str], data: str
) -> None:
    run_stopped_at(tmp_path, 5)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "large.txt").write_text("the text of someone else\n" * 1000)
    make_folder_of_all_kinds(tmp_path / "folder")
    (tmp_path / "fifos").mkdir()
    os.mkfifo(tmp_path / "fifos" / "a.txt")
    edit(tmp_path / "rnn.resume", lambda saved: saved["settings"].update(data=[data]))
    opened.clear()
    refuse(tmp_path, "not the text of that run|a device|no text in", name="rnn.resume")
    assert opened == []


def test_a_run_on_a_folder_reads_the_same_files_again(
    tmp_path: Path, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder_of_all_kinds(tmp_path / "folder")
    for path in (tmp_path / "folder").glob("*.txt"):
        path.unlink()
    (tmp_path / "folder" / "unreadable").unlink()  # root can read it
    (tmp_path / "folder" / "photo.jpg").write_bytes(b"\xff\xd8" * 50_000)
    Path(write_text(tmp_path)).rename(tmp_path / "folder" / "a.txt")
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 5, interrupt)
        run_in(tmp_path, data=[str(tmp_path / "folder")])
    folder = (tmp_path / "folder").rename(tmp_path / "moved")
    (folder / "b.txt").write_text("which came later")
    opened.clear()
    capsys.readouterr()
    assert go_on(tmp_path, data=[str(folder)], epochs=1).status == 0
    assert set(opened) == {str(folder / "a.txt")}
    assert "2 not in the run's text (b.txt)" in capsys.readouterr().out
    edit(tmp_path / "rnn.resume", lambda saved: saved.pop("files"))  # as in earlier versions
    (folder / "b.txt").unlink()
    (folder / "photo.jpg").unlink()
    assert go_on(tmp_path, data=[str(folder)], epochs=2).status == 0


@pytest.mark.parametrize("val_split", ["end", "files"])
def test_what_is_held_out_of_several_files_is_named_and_stays_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], val_split: str
) -> None:
    folder = tmp_path / "poems"
    folder.mkdir()
    for i in range(8):
        Path(write_text(tmp_path, 60, i)).rename(folder / f"{i}.txt")
    given = {"data": [str(folder)], "val_split": val_split, "val_frac": 0.3, "epochs": 2}
    whole = tiny(tmp_path / "whole", **given).log
    names = whole[0]["held_out"]
    assert len(names) == 3 if val_split == "end" else len(names) == 2
    assert names[-1 if val_split == "end" else slice(0)] in ("poems/7.txt", [])
    assert f"held out: {', '.join(names)}" in capsys.readouterr().out
    assert "held_out" not in load_dict(tmp_path / "whole" / "rnn.net")
    run_stopped_at(tmp_path / "cut", 10, **given)
    capsys.readouterr()
    resumed = go_on(tmp_path / "cut").log
    assert f"held out: {', '.join(names)}" in capsys.readouterr().out
    assert resumed[0]["held_out"] == names and resumed[-1]["val_loss"] == whole[-1]["val_loss"]
    alone = tiny(tmp_path / "alone", data=[str(folder / "0.txt")])
    assert "held_out" not in alone.log[0] and "held out: " not in capsys.readouterr().out


def test_of_a_text_that_is_too_long_no_more_is_read(tmp_path: Path) -> None:
    with open(tmp_path / "a.txt", "wb") as file:
        file.truncate(1 << 42)  # a hole of 4 TB
    text = [str(tmp_path / "a.txt")]
    with pytest.raises(UserError, match="not the text of that run"):
        load_corpus(text, fingerprint=f"{'0' * 64}-5000000")


KILLED = """
import os, signal, sys
from pathlib import Path
from charrnn.run.files import RunFiles
from test_run_files import tiny
saves, save = 0, RunFiles.save
def save_or_die(files, state):
    global saves
    saves += 1
    if saves == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    save(files, state)
RunFiles.save = save_or_die
tiny(Path(sys.argv[1]), epochs=5)
"""


def test_a_model_saved_just_before_a_kill_counts(tmp_path: Path) -> None:
    write_text(tmp_path)
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "run")))
    command = [sys.executable, "-c", KILLED, str(tmp_path)]  # between the renames of both files
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=-3)
    assert ended.returncode == -signal.SIGKILL
    net = load_dict(tmp_path / "rnn.net")
    progress = load_dict(tmp_path / "rnn.resume")["state"]["progress"]
    assert net["val_loss"] < progress["best"] and net["step"] > progress["step"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "evaluate_pieces", lambda *_: net["val_loss"] + 1e-6)  # a little worse
        assert go_on(tmp_path).status == 0
    assert load_dict(tmp_path / "rnn.net")["step"] == net["step"]
    assert load_dict(tmp_path / "rnn.resume")["state"]["progress"]["best"] == net["val_loss"]


def test_a_state_is_read_only_under_the_lock(tmp_path: Path) -> None:
    run_stopped_at(tmp_path, 5)
    with locked(tmp_path / "rnn"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("charrnn.run.files.load_dict", lambda _: pytest.fail("read too early"))
        refuse(tmp_path, "is training into it", name="rnn.resume")


def test_a_state_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    write_text(tmp_path)
    refuse(tmp_path, "no such file", name="no/such.resume")
    assert os.listdir(tmp_path) == ["a.txt"]
    os.mkfifo(tmp_path / "fifo.resume")
    os.symlink("/dev/zero", tmp_path / "zero.resume")
    for name in ("fifo.resume", "zero.resume"):
        refuse(tmp_path, "a device or FIFO", name=name)
    refuse(tmp_path, "a device or FIFO", init_from=str(tmp_path / "zero.resume"))


def cut(lines: list[bytes]) -> None:
    lines[-1] = lines[-1][:-9]


STRANGE = {
    "blank": lambda lines: lines.append(b"\n"),
    "cut": cut,
    "latin": lambda lines: lines.append(b'{"note": "caf\xe9"}\n'),
    "list": lambda lines: lines.append(b"[1, 2]\n"),
    "deep": lambda lines: lines.append(b"[" * 100_000 + b"\n"),
    "no loss": lambda lines: lines.append(b'{"step": 3}\n'),
    "separator": lambda lines: lines.append('{"step": 3, "note": "\u2028"}\n'.encode()),
    "below zero": lambda lines: lines.append(b'{"step": 3, "val_loss": -1}\n'),
    "CRLF": lambda lines: lines.__setitem__(slice(None), [x[:-1] + b"\r\n" for x in lines]),
    "nothing": lambda lines: lines.clear(),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_the_log_is_for_people(tmp_path: Path, kind: str) -> None:
    data = [write_text(tmp_path)]
    run_stopped_at(tmp_path / "a", 50, data=data, epochs=2)
    state = load_dict(tmp_path / "a" / "rnn.resume")
    path = tmp_path / "a" / "rnn.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    STRANGE[kind](lines)
    path.write_bytes(b"".join(lines))
    assert go_on(tmp_path / "a").status == 0
    after = path.read_bytes().splitlines(keepends=True)
    kept = [line if line.endswith(b"\n") else line + b"\n" for line in lines]
    if kind != "nothing":
        assert after[: len(kept)] == kept  # left as they are
    added = [json.loads(line) for line in after[len(kept) :]]
    assert added[-1]["final"] and added[-1]["seconds"] > 0 and added[-1]["chars"] > 0
    assert len(after) > len(kept) + 3
    whole = tiny(tmp_path / "b", data=data, epochs=2)
    assert (tmp_path / "a" / "rnn.net").read_bytes() == (tmp_path / "b" / "rnn.net").read_bytes()
    assert whole.log[-1]["val_loss"] == added[-1]["val_loss"] and state["run"]


def test_a_run_that_ended_may_have_lost_its_log(tmp_path: Path) -> None:
    last = tiny(tmp_path).log[-1]
    (tmp_path / "rnn.jsonl").unlink()
    again = go_on(tmp_path).log
    assert len(again) == 2 and "settings" in again[0] and again[1] == last


def test_a_second_start_while_the_first_works(tmp_path: Path) -> None:
    write_text(tmp_path)
    flags = ["--data", "a.txt", "--minutes", "1", "--n-hidden", "8", "--batch-size", "4"]
    first = start(tmp_path, *flags)
    while not (tmp_path / "rnn.resume").exists() and first.poll() is None:
        pass
    second = [sys.executable, str(ROOT / "train.py"), "--resume", "rnn.resume"]
    result = subprocess.run(second, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2 and f"process {first.pid} is training into it" in result.stderr
    first.terminate()
    assert first.wait(timeout=60) == 143
    assert not list(tmp_path.glob(".*"))
    torch.load(tmp_path / "rnn.net")


def test_kept_models_are_written_last_and_lost_ones_do_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    real, order = torch.save, []

    def full_for_a_moment(saved: dict, file: Any) -> None:
        name = file.name.rpartition("/")[2]
        order.append(name)
        if ".step" in name and sum(".step" in each for each in order) == 2:
            raise OSError(28, "No space left on device")
        real(saved, file)

    monkeypatch.setattr(torch, "save", full_for_a_moment)
    stale = tmp_path / f".rnn.step000007.net.{'0' * 16}.tmp"  # as `kill -9` leaves it
    stale.write_text("half")
    trained = tiny(tmp_path, keep="all", epochs=5)
    assert trained.status == 0 and trained.log[-1]["final"] and not stale.exists()
    out = capsys.readouterr().out
    assert out.count("could not save") == 1
    assert "No space left on device; make room there; the run continues without it" in out
    evaluated = [x for x in trained.log[1:-1] if x["val_loss"] is not None]
    assert len(list(tmp_path.glob("rnn.step*.net"))) == len(evaluated) - 1 > 0
    first = next(i for i, name in enumerate(order) if ".step" in name)
    assert order[first - 1].startswith(".rnn.net.")  # on a small disk the best one has the room


def test_a_run_named_as_a_kept_model_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = [write_text(tmp_path)]
    folder = tmp_path / "run"
    tiny(folder, data=data, keep="all", ckpt=str(folder / "y.net"))
    last = max(path.name for path in folder.glob("y.step*.net"))
    for path in folder.iterdir():
        path.unlink()
    tiny(folder, data=data, ckpt=str(folder / last))
    before = contents(folder)
    capsys.readouterr()
    assert tiny(folder, data=data, keep="all", ckpt=str(folder / "y.net")).status == 0
    assert f"{last}: is another run's" in capsys.readouterr().out
    after = contents(folder)
    assert {name: after[name] for name in before} == before


class FakeWriter:
    """TensorBoard's writer, as far as a run uses it."""

    made: ClassVar[list["FakeWriter"]]
    broken: str

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        self.file = Path(folder, f"events.out.tfevents.{len(self.made)}")
        self.file.write_text("binary enough\0")
        self.points: list[tuple] = []
        self.is_closed = False
        self.made.append(self)

    def add_scalar(self, name: str, number: float, step: int) -> None:
        if self.broken and step > 20:
            raise OSError(self.broken)
        self.points.append((name, number, step))

    def close(self) -> None:
        if self.broken:
            raise OSError(self.broken)
        self.is_closed = True


@pytest.fixture
def tensorboard(monkeypatch: pytest.MonkeyPatch) -> type[FakeWriter]:
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    FakeWriter.made, FakeWriter.broken = [], ""
    return FakeWriter


def test_tensorboard_has_every_number_of_the_log(
    tmp_path: Path, tensorboard: type[FakeWriter]
) -> None:
    text = tmp_path / "text"
    write_text(text)
    given = {"data": [str(text)], "tensorboard": str(text / "board")}
    log = tiny(tmp_path / "run", **given).log
    (writer,) = tensorboard.made
    curves = ("train_loss", "val_loss", "lr")
    numbers = [(k, line[k], line["step"]) for line in log[1:-1] for k in curves]
    expected = [point for point in numbers if point[1] is not None]
    assert writer.points == expected and writer.is_closed
    # its files lie in the folder of the text, and are none of it
    assert go_on(tmp_path / "run", epochs=2).status == 0
    before = len(tensorboard.made)
    refuse(tmp_path / "run", "batch-size", **given, batch_size=9999)
    refuse(tmp_path / "run", "cannot be written", **given, ckpt=str(text))
    assert len(tensorboard.made) == before  # nothing is made for a run that is refused


@pytest.mark.parametrize("problem", ["No space left on device", "No such file or directory"])
def test_what_tensorboard_cannot_write_costs_points_not_the_run(
    tmp_path: Path, tensorboard: type[FakeWriter], capsys: pytest.CaptureFixture, problem: str
) -> None:
    tensorboard.broken = problem
    assert tiny(tmp_path, tensorboard=str(tmp_path / "board")).status == 0
    err = capsys.readouterr().err
    assert err.count(problem) == 1 and "the run continues" in err
    (tmp_path / "file").write_text("in the way")
    assert tiny(tmp_path, tensorboard=str(tmp_path / "file")).status == 0


def test_a_state_from_before_a_setting_was_added_goes_on(tmp_path: Path) -> None:
    run_stopped_at(tmp_path / "a", 50, epochs=2)
    run_stopped_at(tmp_path / "b", 50, epochs=2)

    def age(saved: dict) -> None:
        for name in ("keep", "tensorboard", "patience", "cell"):
            del saved["settings"][name]
        del saved["state"]["progress"]["lr_scale"]

    edit(tmp_path / "b" / "rnn.resume", age)
    for name in ("a", "b"):
        assert go_on(tmp_path / name).status == 0
    assert (tmp_path / "a" / "rnn.net").read_bytes() == (tmp_path / "b" / "rnn.net").read_bytes()
    edit(tmp_path / "a" / "rnn.resume", lambda saved: saved["settings"].pop("lr"))
    refuse(tmp_path / "a", "lr is missing", name="rnn.resume")


def test_weights_that_became_infinite_are_not_saved_over_good_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    real, models = train.train_step, []

    def step(model: CharRNN, *args: Any) -> Any:
        result = real(model, *args)
        models.append(model)
        if len(models) == 30:  # as a far too high rate does, though the gradient was finite
            with torch.no_grad():
                model.fc.weight[0] = float("inf")
            os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(train, "train_step", step)
    with pytest.raises(UserError, match="no longer finite numbers; lower --lr or --clip"):
        tiny(tmp_path, epochs=3)
    monkeypatch.undo()
    capsys.readouterr()
    assert go_on(tmp_path).status == 0  # from the last good state
    assert load_checkpoint(tmp_path / "rnn.net") and "best held-out" in capsys.readouterr().out


def test_a_far_too_high_rate_ends_with_advice_and_files_that_load(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lower --lr"):
        tiny(tmp_path, lr=1e4, epochs=20, preset="laptop")
    load_dict(tmp_path / "rnn.resume")
    if (tmp_path / "rnn.net").exists():
        load_checkpoint(tmp_path / "rnn.net")
    with pytest.raises(UserError, match="lower --lr"):
        go_on(tmp_path)


def test_after_a_kill_what_is_evaluated_again_is_not_counted_as_worse(tmp_path: Path) -> None:
    data = [write_text(tmp_path)]
    losses = iter([3.0, 2.0, 2.5, 2.4, 2.2])

    def run_with(folder: Path, losses: Any, **given: Any) -> list[int]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, "evaluate_pieces", lambda *_: next(losses))
            run = go_on if given.pop("go_on", False) else tiny
            log = run(folder, **given).log
        return [line["step"] for line in log[1:-1] if line["val_loss"] is not None]

    given = {"data": data, "epochs": 8, "patience": 2}
    losses = [3.0, 2.0, 2.5, 2.4, 9.9]
    whole = run_with(tmp_path / "a", iter(losses), **given)
    assert len(whole) == 4
    # .net of the second evaluation, .resume of the first
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "evaluate_pieces", lambda *_: 3.0)
        at_step(patch, whole[0] + 1, interrupt)
        assert tiny(tmp_path / "b", **given).status == 130
    (tmp_path / "b" / "rnn.net").write_bytes((tmp_path / "a" / "rnn.net").read_bytes())
    edit(
        tmp_path / "b" / "rnn.net", lambda net: net.update(val_loss=2.0, val_chars=chars(tmp_path))
    )
    assert run_with(tmp_path / "b", iter(losses[1:]), go_on=True) == whole


def chars(folder: Path) -> int:
    """How many characters each evaluation of the run in ``b`` reads."""
    return load_dict(folder / "b" / "rnn.resume")["state"]["progress"]["val_chars"]


SLOW = """
import os, signal, sys
from pathlib import Path
from charrnn.run import files
from test_run_files import tiny
files.QUICK, files.SAVING = -1.0, 1e-12  # as if each .resume took hours to write
evaluations, real = 0, files.RunFiles.save_on_the_way
def save_or_die(self, state):
    global evaluations
    evaluations += 1
    real(self, state)
    if evaluations == 3:
        os.kill(os.getpid(), signal.SIGKILL)
files.RunFiles.save_on_the_way = save_or_die
tiny(Path(sys.argv[1]), epochs=5)
"""


def test_a_resume_file_that_takes_long_is_written_seldom_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        write_text(folder)
    tiny(whole, epochs=5)
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "run")))
    command = [sys.executable, "-c", SLOW, str(killed)]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=-3)
    assert ended.returncode == -signal.SIGKILL
    assert load_dict(killed / "rnn.resume")["state"]["progress"]["step"] == 0
    assert load_dict(killed / "rnn.net")["step"] > 0  # the model and the log are newer
    assert json.loads((killed / "rnn.jsonl").read_text().splitlines()[-1])["step"] > 0
    train.train(resume=str(killed / "rnn.resume"))
    assert (killed / "rnn.net").read_bytes() == (whole / "rnn.net").read_bytes()
    assert read_log(killed) == read_log(whole)
