"""Files are written whole or not at all, never onto one that is read, by one process at a time."""

import errno
import fcntl
import os
import resource
import secrets
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from charrnn.errors import UserError
from charrnn.network.checkpoint import save_dict
from charrnn.run import aside as aside_module
from charrnn.run.aside import free_number, set_aside
from charrnn.system import files, locks
from charrnn.system.cli import command
from charrnn.system.files import (
    atomic_file,
    check_output,
    open_output,
    require_regular,
    scratch_file,
)
from charrnn.system.locks import locked


def write(path: Path, contents: bytes = b"new") -> None:
    with atomic_file(path) as file:
        file.write(contents)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def forked(work: Callable[[], None]) -> int:
    """A child that does ``work``, then waits to be killed; it has done it when this returns."""
    read, done = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(done, b"!")
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(done)
    assert os.read(read, 1) == b"!"
    os.close(read)
    return child


ENTERED = []  # what is forgotten is left


def enter(manager: AbstractContextManager) -> Any:
    ENTERED.append(manager)
    return manager.__enter__()


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@contextmanager
def full_disk(size: int = 10) -> Iterator[None]:
    """Any file that grows beyond ``size`` bytes is refused."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_is_replaced_and_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a"
    umask = os.umask(0o027)
    try:
        write(path, b"one")
    finally:
        os.umask(umask)
    assert path.read_bytes() == b"one" and stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    write(path, b"two")
    assert path.read_bytes() == b"two" and stat.S_IMODE(path.stat().st_mode) == 0o604
    assert names(tmp_path) == ["a"]


def test_a_write_that_fails_leaves_all_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for error in (OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt(), ValueError()):
        for before in (None, b"old"):
            if before:
                path.write_bytes(before)
            with pytest.raises(type(error)), atomic_file(path) as file:
                file.write(b"half")
                raise error
            assert names(tmp_path) == (["a"] if before else [])
            path.unlink(missing_ok=True)


def test_a_full_disk_is_said_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with full_disk(), pytest.raises(OSError, match=f"File too large: '{path}'"):
        write(path, b"x" * 100)
    says_which = pytest.raises(OSError, match=f"File too large: '{path}'")
    with full_disk(), says_which, atomic_file(path) as file:
        file.write(b"x" * 1_000_000)  # more than is held back until the end
    says_where = pytest.raises(UserError, match=f"{tmp_path}: File too large; make room there")
    with full_disk(), says_where, scratch_file(tmp_path) as file:
        file.write(b"x" * 100)
    with pytest.raises(OSError, match="'/dev/full'"), open_output("/dev/full") as file:
        file.write(b"x")
    assert names(tmp_path) == []


def test_links_stay_and_their_targets_are_replaced(tmp_path: Path) -> None:
    store, link = tmp_path / "store", tmp_path / "link"
    store.mkdir()
    link.symlink_to("store/a")
    for contents in (b"made anew", b"replaced"):
        check_output(link)
        write(link, contents)
        assert link.is_symlink() and (store / "a").read_bytes() == contents
    assert names(store) == ["a"] and names(tmp_path) == ["link", "store"]
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(UserError, match="circle"):
        check_output(tmp_path / "round")
    with pytest.raises(OSError, match="circle"):
        write(tmp_path / "round")


def test_nothing_is_written_through_a_planted_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda n: "0" * 2 * n)
    for kind in (os.symlink, os.link):
        victim, planted = tmp_path / "victim", tmp_path / ".a.0000000000000000.tmp"
        victim.write_text("precious")
        with monkeypatch.context() as patch:
            patch.setattr(files, "remove_leftovers", lambda *_: None)
            kind(victim, planted)
            with pytest.raises(FileExistsError):
                write(tmp_path / "a")
        assert victim.read_text() == "precious" and not (tmp_path / "a").exists()
        planted.unlink()


def test_names_cannot_be_guessed(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a"), atomic_file(tmp_path / "a"):
        first, second = names(tmp_path)
        assert first != second and len(first) == len(".a.") + 16 + len(".tmp")


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path, victim = tmp_path / "a", tmp_path / "victim"
    victim.write_text("precious")

    def half() -> None:
        file = enter(atomic_file(path))
        file.write(b"half")
        file.flush()

    dead, living = forked(half), forked(half)
    try:
        mine = [name for name in names(tmp_path) if name.startswith(".a.")]
        assert len(mine) == 2
        kill(dead)
        others = [".a.tmp", ".a.0000000000000000.tmp.b", ".ab.0000000000000000.tmp", ".a.0.tmp"]
        for name in others:
            (tmp_path / name).write_text("another's")
        (tmp_path / ".a.1111111111111111.tmp").symlink_to("victim")
        os.mkfifo(tmp_path / ".a.2222222222222222.tmp")
        write(path)
        left = set(names(tmp_path)) - {*others, "a", "victim"}
        assert len(left & set(mine)) == 1, "the living process keeps its own"
        assert left - set(mine) == {".a.1111111111111111.tmp", ".a.2222222222222222.tmp"}
    finally:
        kill(living)
    write(path)
    assert not set(mine) & set(names(tmp_path)) and victim.read_text() == "precious"


def test_two_writers_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic_file(path) as first:
        first.write(b"first")
        write(path, b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first" and names(tmp_path) == ["a"]


def test_a_writer_whose_new_file_is_taken_for_a_dead_ones_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = fcntl.flock, []

    def flock(file: Any, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:  # between its making and its locking
            next(tmp_path.iterdir()).unlink()
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    write(tmp_path / "a")
    assert names(tmp_path) == ["a"] and len(calls) == 2


NO_LOCKS = [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL]


def without_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    locks._say_unlocked.cache_clear()


@pytest.mark.parametrize("number", NO_LOCKS)
def test_where_files_cannot_be_locked_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, number: int
) -> None:
    without_locks(monkeypatch, number)
    write(tmp_path / "a.net")
    done = []
    for name in ("a.net", "a.resume"):
        with locked(tmp_path / name):
            done.append(name)
    assert len(done) == 2 and names(tmp_path) == ["a.net"]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and os.strerror(number) in said and str(tmp_path) in said


def test_a_second_process_is_refused_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.net"
    holder = forked(lambda: enter(locked(path)))
    try:
        with pytest.raises(UserError, match=f"process {holder} is training into it"), locked(path):
            pass
        (tmp_path / "link.net").symlink_to("a.net")
        with pytest.raises(UserError, match=f"process {holder} "), locked(tmp_path / "link.net"):
            pass
        (tmp_path / ".a.net.lock").write_bytes(b"\x1b[2J17\n")
        with pytest.raises(UserError, match="another process is") as caught, locked(path):
            pass
        assert "\x1b" not in str(caught.value)
    finally:
        kill(holder)
    assert ".a.net.lock" in names(tmp_path)  # the dead process left it
    with locked(path):
        assert (tmp_path / ".a.net.lock").read_text() == str(os.getpid())
    assert names(tmp_path) == ["link.net"]


@pytest.mark.parametrize("kind", [os.symlink, os.link])
def test_a_lock_is_not_opened_through_a_link(tmp_path: Path, kind: Callable) -> None:
    (tmp_path / "victim").write_text("precious")
    kind(tmp_path / "victim", tmp_path / ".a.lock")
    with pytest.raises(UserError, match=r"\.a\.lock: .*remove it"), locked(tmp_path / "a"):
        pass
    assert (tmp_path / "victim").read_text() == "precious"
    assert names(tmp_path) == [".a.lock", "victim"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_lock_is_a_plain_file(tmp_path: Path, make: Callable) -> None:
    make(tmp_path / ".a.lock")
    with pytest.raises(UserError, match=r"\.a\.lock: .*remove it"), locked(tmp_path / "a"):
        pass
    assert names(tmp_path) == [".a.lock"]


def test_a_lock_that_its_holder_removes_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    lock, removed = tmp_path / ".a.lock", []

    def flock(descriptor: int, how: int) -> None:
        if not removed:
            removed.append(lock.unlink())
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "a"):
        assert lock.read_text() == str(os.getpid())
    assert names(tmp_path) == []


def test_no_lock_is_left_on_a_full_disk(tmp_path: Path) -> None:
    refused = pytest.raises(OSError, match=r"File too large: .*/a'")
    with full_disk(0), refused, locked(tmp_path / "a"):
        assert names(tmp_path) == [".a.lock"]
        write(tmp_path / "a")
    assert names(tmp_path) == []


def test_what_cannot_be_written_is_said_before(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "kept").write_text("old")
    (tmp_path / "kept").chmod(0o444)
    os.mkfifo(tmp_path / "fifo")
    cases = {
        tmp_path / "folder": "it is a folder",
        Path("/"): "it is a folder",
        tmp_path / "none" / "a": f"there is no folder {tmp_path}/none",
        tmp_path / "kept": "cannot be written: the file is read-only",
        tmp_path / "fifo": "device or FIFO",
        Path("/dev/null"): "device or FIFO",
        Path("/dev/stdout"): "device or FIFO",
        tmp_path / "a\0b": "null",
        tmp_path / ("a" * 250): "too long",
    }
    before = names(tmp_path)
    for path, reason in cases.items():
        with pytest.raises(UserError, match=reason) as caught:
            check_output(path)
        assert "\n" not in str(caught.value)
        if "\0" not in str(path):
            with pytest.raises(OSError, match=reason.rpartition("written: ")[2]):
                write(path)
    assert names(tmp_path) == before and (tmp_path / "kept").read_text() == "old"
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    check_output(tmp_path / "new")
    assert names(tmp_path) == before
    for welcome in ("/dev/null", tmp_path / "fifo", tmp_path / "new"):
        check_output(welcome, special=True)
    for path in (tmp_path / "folder", tmp_path / "kept", tmp_path / "none" / "a", "/dev/fd/99"):
        with pytest.raises(UserError):
            check_output(path, special=True)


def test_devices_and_fifos_are_written_to_as_they_are(tmp_path: Path) -> None:
    with open_output("/dev/null") as file:
        file.write(b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    with open_output(fifo) as file:
        file.write(b"through")
    reader.join()
    assert read == [b"through"] and stat.S_ISFIFO(fifo.stat().st_mode)
    with (tmp_path / "log").open("ab") as log:  # as of `>> log`, where /dev/stdout is that file
        log.write(b"before, ")
        log.flush()
        with open_output(f"/dev/fd/{log.fileno()}") as file:
            file.write(b"after")
    assert (tmp_path / "log").read_bytes() == b"before, after"
    with open_output(tmp_path / "plain") as file:
        file.write(b"whole")
        assert not (tmp_path / "plain").exists()
    assert (tmp_path / "plain").read_bytes() == b"whole"


def test_an_output_is_never_an_input_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "story.txt"
    text.write_text("precious")
    os.mkdir("sub")
    os.symlink("story.txt", "link")
    os.symlink("sub", "sublink")
    os.symlink("later.net", "laterlink")
    os.link("story.txt", "hard")
    spellings = ["story.txt", "./story.txt", "sub/../story.txt", "link", "hard", str(text)]
    for output in [*spellings, "sublink/../story.txt"]:
        for source in spellings:
            with pytest.raises(UserError, match="choose another name") as caught:
                check_output(output, ["/dev/null", source])
            assert output in str(caught.value) and source in str(caught.value)
    for output in ("later.net", "./later.net", "laterlink"):  # neither is there yet
        with pytest.raises(UserError, match="choose another name"):
            check_output(output, ["later.net"])
    check_output("other.txt", spellings)
    os.mkfifo("fifo")
    with pytest.raises(UserError, match="choose another name"):
        check_output("fifo", ["fifo"], special=True)
    check_output("/dev/null", ["/dev/null"], special=True)  # as a terminal may be both
    with text.open() as file, pytest.raises(UserError, match="choose another name"):
        check_output(text, [f"/dev/fd/{file.fileno()}"])  # as of `< story.txt`
    assert text.read_text() == "precious"


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "a").write_text("")
    require_regular(tmp_path / "a", "a model")
    cases = {tmp_path: "a folder", "/dev/zero": "a device", tmp_path / "fifo": "FIFO"}
    cases |= {tmp_path / "none": "no such file", "a\0b": "null", tmp_path / "round": "links"}
    for path, reason in cases.items():
        with pytest.raises(UserError, match=f"{reason}.*give a model that"):
            require_regular(path, "a model that train.py made")


def test_an_earlier_runs_files_are_set_aside_under_one_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = [Path("rnn.net"), Path("rnn.resume"), Path("rnn.jsonl")]
    assert set_aside(run) == [] and free_number(run) == 1
    for path in run:
        path.write_text(f"old {path}")
    Path("rnn.1.jsonl").write_text("taken")
    Path("rnn.2.net").symlink_to("nowhere")
    assert free_number(run) == 3
    moved = set_aside(run)
    assert moved == [(path, Path(path.stem + ".3" + path.suffix)) for path in run]
    assert [new.read_text() for _, new in moved] == [f"old {path}" for path in run]
    assert names(tmp_path) == [
        *("rnn.1.jsonl", "rnn.2.net", "rnn.3.jsonl", "rnn.3.net", "rnn.3.resume")
    ]
    assert Path("rnn.1.jsonl").read_text() == "taken"
    run[1].write_text("alone")
    assert set_aside(run) == [(run[1], Path("rnn.4.resume"))]


def test_only_our_suffixes_are_taken_for_suffixes(tmp_path: Path) -> None:
    for name in ("lr_0.01", "lr_0.01.resume", "lr_0.01.jsonl"):
        (tmp_path / name).write_text(name)
    set_aside([tmp_path / name for name in names(tmp_path)])
    assert names(tmp_path) == ["lr_0.01.1", "lr_0.01.1.jsonl", "lr_0.01.1.resume"]


def test_a_link_stays_when_its_target_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.net").write_text("old")
    (tmp_path / "store" / "a.1.net").write_text("older")
    link, log = tmp_path / "rnn.net", tmp_path / "rnn.jsonl"
    link.symlink_to("store/a.net")
    log.write_text("log")
    aside = (tmp_path / "store" / "a.2.net").resolve()
    assert set_aside([link, log]) == [(link, aside), (log, tmp_path / "rnn.2.jsonl")]
    assert link.is_symlink() and not link.exists() and aside.read_text() == "old"
    write(link)
    assert link.is_symlink() and (tmp_path / "store" / "a.net").read_bytes() == b"new"


def test_setting_aside_never_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.net").write_text("old")
    (tmp_path / "a.1.net").write_text("just made by another")
    monkeypatch.setattr(aside_module, "free_number", lambda paths: 1)
    with pytest.raises(FileExistsError):
        set_aside([tmp_path / "a.net"])
    assert (tmp_path / "a.net").read_text() == "old"
    assert (tmp_path / "a.1.net").read_text() == "just made by another"


ADVISED = {
    errno.EROFS: "choose a folder that can be written",
    errno.EMFILE: "ulimit -n",
    errno.ENOSPC: "make room there",
    errno.ELOOP: "remove it",
}


@pytest.mark.parametrize("number", ADVISED)
def test_each_reason_has_its_own_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(UserError) as caught, locked(tmp_path / "a"):
            pass
    said = str(caught.value)
    assert os.strerror(number) in said and ADVISED[number] in said
    assert ("remove it" in said) == (number == errno.ELOOP)


def test_a_full_disk_is_reported_in_the_systems_words(tmp_path: Path) -> None:
    contents = {"a": torch.zeros(100_000)}
    with full_disk(50_000), pytest.raises(OSError, match="File too large") as caught:
        save_dict(tmp_path / "a", contents)
    assert caught.value.filename == str(tmp_path / "a") and "enforce" not in str(caught.value)
    with full_disk(50_000):
        assert command(lambda _: save_dict(tmp_path / "a", contents))([]) == 2
