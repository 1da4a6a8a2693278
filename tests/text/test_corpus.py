"""Where the text comes from, against a server that the tests start."""

import codecs
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import ROOT

from charrnn.errors import UserError
from charrnn.text import corpus
from charrnn.text.corpus import Corpus, load_corpus
from charrnn.text.download import download
from charrnn.text.split import split_text
from charrnn.text.vocabulary import Vocabulary
from charrnn.training.batches import get_batches

TEXT = b"a text of our own\n" * 9000
ANNA = ROOT.parent / "shared" / "data" / "anna.txt"
CASES = ANNA.parent.parent / "cases"


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        body = {"/short": TEXT[:-1], "/other": TEXT[::-1], "/long": TEXT + b"!"}.get(
            self.path, TEXT
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: 100 if self.path == "/cut" else None])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def text_of(*data: object, **flags: Any) -> str:
    found = load_corpus([str(name) for name in data], **flags)
    return found.vocabulary.decode(found.ids)


def fetch(url: str, path: Path) -> None:
    download(url, path, len(TEXT), hashlib.sha256(TEXT).hexdigest())


def test_download_of_a_good_file(address: str, tmp_path: Path) -> None:
    path = tmp_path / "data" / "a.txt"
    fetch(f"{address}/good", path)
    assert path.read_bytes() == TEXT
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["short", "cut", "long", "other", "missing"])
def test_download_that_fails_leaves_nothing(address: str, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        fetch(f"{address}/{name}", tmp_path / "a.txt")
    message = str(caught.value)
    assert "\n" not in message and not list(tmp_path.iterdir())
    assert all(way in message for way in ("put a text there", "--data FILE", "--data python-docs"))


def test_download_without_a_server_keeps_what_is_there(address: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("mine")
    with pytest.raises(UserError, match="could not be downloaded"):
        fetch("http://127.0.0.1:9/", path)
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]


def test_python_docs_need_no_file() -> None:
    docs = load_corpus(["python-docs"])
    assert len(docs.ids) > 100_000
    assert "lambda" in docs.vocabulary.decode(docs.ids)


@pytest.mark.skipif(not ANNA.exists(), reason="the corpus is not here")
def test_first_batch_is_the_notebooks_own_table() -> None:
    anna = load_corpus([str(ANNA)])
    x, _ = next(get_batches(anna.ids, 8, 50))
    assert [anna.vocabulary.decode(row[:10]) for row in x] == [
        "Chapter 1\n",
        "pped and s",
        "that insol",
        "ew thought",
        "er, he had",
        "r, who was",
        "st be cove",
        ", Alexey A",
    ]


def test_files_and_folders_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second", encoding="utf-8")
    (tmp_path / "a.txt").write_text("first", encoding="utf-8")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.txt").write_text("third\n", encoding="utf-8")
    paths = [tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c" / "a.txt"]
    for data in ([tmp_path], paths):
        assert text_of(*data) == "first\nsecond\nthird\n"
        assert load_corpus(list(map(str, data))).paths == paths
    with pytest.raises(UserError, match=r"no text in this folder.*1 hidden \(\.git\)"):
        (tmp_path / "none" / ".git").mkdir(parents=True)
        (tmp_path / "none" / ".git" / "HEAD").write_text("hidden")
        text_of(tmp_path / "none")


def test_a_folder_leaves_out_what_we_wrote_there_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the text")
    (tmp_path / "other.html").write_text("<p>also text")
    page = '<!DOCTYPE html><html><meta charset="utf-8"><meta name="generator" content="charrnn">'
    (tmp_path / "mine.html").write_text(page)
    for name in ("rnn.net", "rnn.1.net", "rnn.resume", "rnn.jsonl", "a.txt.0123.ids", ".rnn.lock"):
        (tmp_path / name).write_text("ours")
    torch.save({"a": 1}, tmp_path / "lr_0.01")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 a photo")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "none").write_bytes(b"")
    (tmp_path / "lost").symlink_to("nowhere")
    found = load_corpus([str(tmp_path)])
    assert found.vocabulary.decode(found.ids) == "the text\n<p>also text"
    (note,) = found.notes
    assert note == (
        f"left out of {tmp_path}: 1 .ids (a.txt.0123.ids), 1 .jsonl (rnn.jsonl), 2 .net "
        "(rnn.1.net), 1 .resume (rnn.resume), 1 broken link (lost), 1 device or FIFO (fifo), "
        "1 empty (none), 1 hidden (.rnn.lock), 2 not text (lr_0.01), 1 page of charrnn (mine.html)"
    )
    assert text_of(tmp_path / "rnn.jsonl", tmp_path / "mine.html") == f"ours\n{page}"  # if named


def test_a_file_that_turns_out_to_be_no_text_leaves_no_trace(
    tmp_path: Path, any_block: None
) -> None:
    (tmp_path / "a.txt").write_text("first\n")
    (tmp_path / "c.txt").write_text("last\n")
    plain = load_corpus([str(tmp_path)])
    (tmp_path / "b.txt").write_bytes(b"text for a while\n" * 9 + b"\xff")
    found = load_corpus([str(tmp_path)])
    assert found.vocabulary.decode(found.ids) == "first\nlast\n"
    assert found.fingerprint == plain.fingerprint
    assert found.notes == [f"left out of {tmp_path}: 1 not text (b.txt)"]
    assert found.paths == plain.paths and found.files == ("a.txt", "c.txt")
    with pytest.raises(UserError, match=r"b.txt: not UTF-8: byte 0xff at byte 153"):
        text_of(tmp_path / "b.txt")
    (tmp_path / "a.txt").unlink()
    (tmp_path / "c.txt").unlink()
    with pytest.raises(UserError, match=r"b.txt: not UTF-8.*--encoding"):  # no text: its reason
        text_of(tmp_path)


def test_links_are_followed_once(tmp_path: Path) -> None:
    folder, outside = tmp_path / "texts", tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    outside.mkdir()
    (folder / "a.txt").write_text("a\n")
    (outside / "b.txt").write_text("b\n")
    (folder / "far").symlink_to(outside)
    (folder / "sub" / "again").symlink_to(outside)
    (folder / "sub" / "round").symlink_to(folder)
    (folder / "sub" / "same.txt").symlink_to(folder / "a.txt")
    found = load_corpus([str(folder)])
    assert found.vocabulary.decode(found.ids) == "a\nb\n"
    assert found.notes == [
        f"left out of {folder}: 3 found before under another name (again)",
    ]


def test_where_files_end(tmp_path: Path, any_block: None, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ("one", "", "\ufeff", "two\r\n", "\r\n\n", "\u0436\n\u0436")
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_bytes(text.encode())
    (tmp_path / "3a.txt").write_bytes(b"no text\n\xff")
    for limit in (1 << 26, 2, 2):  # without a cache, and when it is made and read
        monkeypatch.setattr(corpus, "CACHE_ABOVE", limit)
        found = load_corpus([str(tmp_path)])
        assert found.file_ends == (4, 8, 10, 13) and len(found.ids) == 13
        names = [f"{tmp_path.name}/{i}.txt" for i in (0, 3, 4, 5)]
        assert list(found.file_names) == names
    assert len(list(tmp_path.glob("*.ids"))) == 1
    assert found.held_out_files(0.5, "end", 1) == [f"the end of {names[1]}", *names[2:]]
    assert found.held_out_files(0.4, "end", 1) == names[2:]
    for seed in range(9):
        held_out = found.held_out_files(0.3, "files", seed)
        ids = split_text(found.ids, 0.3, (), "files", seed, found.file_ends)[1]
        parts = dict(zip(names, ("one\n", "two\n", "\n\n", "\u0436\n\u0436"), strict=True))
        assert found.vocabulary.decode(ids) == "".join(parts[name] for name in held_out) != ""
    for val_split in ("lines", "paragraphs"):
        assert found.held_out_files(0.3, val_split, 1) == []
    alone = load_corpus([str(tmp_path / "0.txt")])
    assert alone.file_ends == (3,) and alone.held_out_files(0.5, "end", 1) == []


def test_empty_files_add_nothing(tmp_path: Path) -> None:
    names = [tmp_path / f"{i}.txt" for i in range(5)]
    for name, text in zip(names, ("one", "", "\ufeff", "two\n", ""), strict=True):
        name.write_text(text, encoding="utf-8")
    assert text_of(*names) == text_of(tmp_path) == "one\ntwo\n"


def test_addresses_and_what_is_no_file(tmp_path: Path) -> None:
    cases = {
        "https://example.org/a.txt": "an address; download it first",
        "HTTP://example.org": "an address",
        str(tmp_path / "none"): "no such file",
        "a\0b": "null",
        "/dev/zero": "a device",
        "/dev/null": "a device",
    }
    for name, reason in cases.items():
        with pytest.raises(UserError, match=reason) as caught:
            load_corpus([name])
        assert "\n" not in str(caught.value)


def test_a_fifo_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "CACHE_ABOVE", 1000)  # a long stream has no file to lie beside
    fifo, plain = tmp_path / "fifo", tmp_path / "plain"
    plain.write_bytes(TEXT)
    os.mkfifo(fifo)
    threading.Thread(target=lambda: fifo.write_bytes(TEXT), daemon=True).start()
    found = load_corpus([str(fifo)])
    assert found.vocabulary.decode(found.ids) == TEXT.decode() and found.paths == [fifo]
    assert sorted(tmp_path.iterdir()) == [fifo, plain]
    assert load_corpus([str(plain)], fingerprint=found.fingerprint).fingerprint
    threading.Thread(target=lambda: fifo.write_bytes(TEXT), daemon=True).start()
    with pytest.raises(UserError, match="not the text of that run"):
        load_corpus([str(fifo)], fingerprint="0" * 64 + "-7")


@pytest.fixture
def stdin() -> Iterator[Callable[[int], None]]:
    """Puts an open file in the place of stdin."""
    before = os.dup(0)
    yield lambda descriptor: os.dup2(descriptor, 0)
    os.dup2(before, 0)
    os.close(before)


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_stdin_may_be_a_pipe_a_file_or_a_terminal(
    tmp_path: Path, stdin: Callable[[int], None], name: str
) -> None:
    read, write = os.pipe()
    os.write(write, b"piped\n")
    os.close(write)
    stdin(read)
    found = load_corpus([name])
    assert found.vocabulary.decode(found.ids) == "piped\n" and found.paths == [Path("/dev/stdin")]
    with pytest.raises(UserError, match="empty"):
        load_corpus([name])  # all was read
    (tmp_path / "a.txt").write_text("head\nrest\n")
    with (tmp_path / "a.txt").open("rb", buffering=0) as file:
        file.read(5)
        stdin(file.fileno())
        assert text_of(name) == "rest\n"
    master, terminal = os.openpty()
    stdin(terminal)
    os.write(master, b"typed\n\x04")  # Ctrl-D once
    assert text_of(name) == "typed\n"
    with open("/dev/zero", "rb") as file:
        stdin(file.fileno())
        with pytest.raises(UserError, match="a device"):
            load_corpus([name])
    os.close(0)
    with pytest.raises(UserError, match="cannot be read: Bad file descriptor"):
        load_corpus([name])


def test_a_stream_that_does_not_wait_is_read_to_its_end(stdin: Callable[[int], None]) -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)

    def write_slowly() -> None:
        for _ in range(6):
            os.write(write, b"piped\n" * 100)
            time.sleep(0.05)
        os.close(write)

    stdin(read)
    thread = threading.Thread(target=write_slowly)
    thread.start()
    assert text_of("-") == "piped\n" * 600
    thread.join()
    os.close(read)


def test_rare_characters_are_folded(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("aaabbbX\ncccY\n", encoding="utf-8")
    folded = load_corpus([str(path)], min_count=2)
    assert folded.vocabulary.tokens == ("\n", "a", "b", "c", "\ufffd")
    assert folded.vocabulary.decode(folded.ids) == "aaabbb\ufffd\nccc\ufffd\n"
    assert folded.vocabulary.decode(folded.vocabulary.encode("aQ")) == "a\ufffd"


@pytest.fixture(params=[4, 5, 7, 64])
def any_block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charrnn.text.sources.BLOCK", request.param)
    monkeypatch.setattr("charrnn.text.corpus.BLOCK", request.param)


def test_blocks_cut_anywhere(tmp_path: Path, any_block: None) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffzażółć\r\n🦆\r\r\n\rend\r".encode())
    found = load_corpus([str(path)])
    assert found.vocabulary.decode(found.ids) == "zażółć\n🦆\r\n\rend\r"
    assert found.notes == []
    path.write_bytes(b"ab\xc5\xbc\xc5")
    with pytest.raises(UserError, match="byte 0xc5 at byte 4"):
        load_corpus([str(path)])


def test_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\n")
    assert text_of(path) == "a\nb\n"
    cases = {
        b"": "empty",
        b"ab\0": r"binary, .*byte 2\)",
        b"abc\xff": "0xff at byte 3",
        b"\xef\xbb\xbf": "empty",
    }
    for raw, reason in cases.items():
        path.write_bytes(raw)
        with pytest.raises(UserError, match=reason):
            text_of(path)


def test_lines_that_end_with_a_carriage_return(tmp_path: Path, any_block: None) -> None:
    old, new, both = (tmp_path / name for name in "abc")
    old.write_bytes(b"one\rtwo\r\rthree")
    new.write_bytes(b"four\nfive\r\n\r")
    both.write_bytes(b"six\rseven\r")
    found = load_corpus([str(old), str(new), str(both)])
    text = found.vocabulary.decode(found.ids)
    assert text == "one\ntwo\n\nthree\nfour\nfive\n\r\nsix\nseven\n"
    assert found.notes == [f"{old} and 1 more: line ends were \\r alone; read as \\n"]


MARKS = [("utf-8", codecs.BOM_UTF8), ("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff")]
MARKS += [("utf-32-le", b"\xff\xfe\0\0"), ("utf-32-be", b"\0\0\xfe\xff")]
RUSSIAN = "Чайник падает,\nи письмо ждёт.\n"


@pytest.mark.parametrize(("encoding", "mark"), MARKS)
def test_byte_order_marks_are_recognised(
    tmp_path: Path, any_block: None, encoding: str, mark: bytes
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(mark + RUSSIAN.replace("\n", "\r\n").encode(encoding))
    assert text_of(path) == RUSSIAN
    path.write_bytes(mark + RUSSIAN.encode(encoding)[:-1])  # cut within a character
    if encoding != "utf-8":
        with pytest.raises(UserError, match="not utf-"):
            text_of(path)


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "utf-16-le", "utf-7", "iso2022_jp_2"])
def test_any_encoding_can_be_named(tmp_path: Path, any_block: None, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(RUSSIAN.encode(encoding))
    assert text_of(path, encoding=encoding) == RUSSIAN
    path.write_bytes("яю".encode("cp1251"))  # which begins as UTF-16 does
    assert text_of(path, encoding="cp1251") == "яю"


@pytest.mark.parametrize(
    "name", ["klingon", "", "hex", "rot13", "undefined", "a\0b", "punycode", "idna"]
)
def test_encodings_that_there_are_not(name: str) -> None:
    with pytest.raises(UserError, match="Python knows no such text encoding"):
        load_corpus(["python-docs"], encoding=name)


SENTENCES = {
    "cp1251": RUSSIAN,
    "koi8-r": RUSSIAN,
    "cp1252": "Les élèves étaient “très” fatigués, où êtes-vous?\n",
    "cp1250": "Zażółć gęślą jaźń, małe źdźbło i święta ósma łódź\n",
    "cp1253": "Όλες οι ευτυχισμένες οικογένειες μοιάζουν μεταξύ τους\n",  # noqa: RUF001
    "cp1255": "כל המשפחות המאושרות דומות זו לזו\n",
    "cp1256": "كل العائلات السعيدة تتشابه\n",
    "shift_jis": "幸福な家庭はすべて互いに似かよったものであり\n",
    "gb18030": "幸福的家庭都是相似的，不幸的家庭各有各的不幸。\n",  # noqa: RUF001
    "euc-kr": "행복한 가정은 모두 비슷하지만 불행한 가정은\n",
}


@pytest.mark.parametrize("encoding", SENTENCES)
def test_what_is_not_utf_8_gets_two_suggestions_that_decode_it(
    tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("plain at first\n" + 9 * SENTENCES[encoding], encoding=encoding)
    with pytest.raises(UserError, match=r"not UTF-8: byte 0x\w\w at byte") as caught:
        text_of(path)
    words = str(caught.value).split()
    first, second = (words[i + 1] for i, word in enumerate(words) if word == "--encoding")
    assert first == encoding and text_of(path, encoding=first) == path.read_text(encoding)
    assert text_of(path, encoding=second)


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not here")
def test_the_cases() -> None:
    assert text_of(CASES / "utf16_ru.txt") == text_of(CASES / "cp1251.txt", encoding="cp1251")
    with pytest.raises(UserError, match="--encoding cp1251 or"):
        text_of(CASES / "cp1251.txt")
    assert text_of(CASES / "cr_only.txt").count("\n") == 1298
    for name in ("nfd.txt", "chat.txt", "names_sorted.txt", "tweets.jsonl"):
        assert text_of(CASES / name) == (CASES / name).read_text(encoding="utf-8")


def test_a_fingerprint_tells_texts_apart_not_line_ends(tmp_path: Path, any_block: None) -> None:
    one, two, three = (tmp_path / name for name in "abc")
    one.write_bytes(b"first\nline\n")
    two.write_bytes(b"first\r\nline\r\n")
    three.write_bytes(b"first\nline\r")
    was = load_corpus([str(one)]).fingerprint
    assert load_corpus([str(two)], fingerprint=was).fingerprint == was
    for raw, encoding in (
        (b"first\rline\r", "utf-8"),
        ("\ufefffirst\r\nline\n".encode("utf-16-le"), "utf-8"),
        ("first\r\nline\n".encode("utf-16-be"), "utf-16-be"),
        ("first\r\nline\r\n".encode("utf-32"), "utf-8"),
        (b"first\nline\n", "cp1252"),
    ):
        two.write_bytes(raw)
        assert load_corpus([str(two)], 2, encoding, was).fingerprint == was
    others = [load_corpus([str(three)]), load_corpus([str(one), str(two)])]
    for raw in (b"abc\rd\n", b"abcd\n"):  # a block may end in between
        three.write_bytes(raw)
        others.append(load_corpus([str(three)]))
    one.write_bytes(b"first\n")
    three.write_bytes(b"line\n")
    others.append(load_corpus([str(one), str(three)]))
    assert len({was, *(other.fingerprint for other in others)}) == 6


def test_another_text_than_it_must_be_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "CACHE_ABOVE", 1000)
    monkeypatch.setattr(corpus, "_encode", None)
    path, more = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_bytes(TEXT)
    sizes = hashlib.sha256(b"1 utf-8" + TEXT + f"\0{len(TEXT)}\0".encode()).hexdigest()
    was = f"{sizes}-{len(TEXT)}"
    more.write_bytes(b"more")
    grown = "not the text of that run, but longer"
    cases = {TEXT + b"more": grown, TEXT[1:]: "of that run; a", b"!" + TEXT: "of that run; a"}
    for raw, reason in cases.items():
        path.write_bytes(raw)
        with pytest.raises(UserError, match=f"{path}.*{reason}.*--init-from"):
            load_corpus([str(path)], fingerprint=was)
    path.write_bytes(TEXT)
    with pytest.raises(UserError, match=grown):
        load_corpus([str(path), str(more)], fingerprint=was)
    for strange in ("", "0" * 64, was.replace("-", "-9" * 40), was + "\n"):
        with pytest.raises(UserError, match="of that run; a"):
            load_corpus([str(path)], fingerprint=strange)
    assert sorted(tmp_path.iterdir()) == [path, more]


@pytest.fixture
def long_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(corpus, "CACHE_ABOVE", 1000)
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT)
    return path


def test_long_texts_are_mapped_from_a_cache(
    tmp_path: Path, long_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "CACHE_ABOVE", 1 << 26)
        small = load_corpus([str(long_text)])
    mapped = load_corpus([str(long_text)])
    (cache,) = tmp_path.glob("*.ids")
    written = cache.stat().st_mtime_ns
    assert torch.equal(mapped.ids, small.ids) and mapped.vocabulary == small.vocabulary
    again = load_corpus([str(long_text)])
    assert torch.equal(again.ids, small.ids) and again.notes == []
    assert cache.stat().st_mtime_ns == written  # read, not made again
    long_text.write_bytes(TEXT[1:])
    (tmp_path / "a.txt.0123456789abcdef.ids").write_text("another's")
    shorter = load_corpus([str(long_text)])
    assert torch.equal(shorter.ids, small.ids[1:]) and cache.name in shorter.notes[0]
    assert not cache.exists()  # else those of a text that grows daily would pile up
    assert len(list(tmp_path.glob("*.ids"))) == 2
    long_text.write_bytes(TEXT + b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        load_corpus([str(long_text)])
    assert len(list(tmp_path.iterdir())) == 3  # nothing half-written


def header(cache: Path, **changes: object) -> None:
    """Change the header of a cache, keep its ids."""
    line, _, ids = cache.read_bytes().partition(b"\n")
    cache.write_bytes(json.dumps(json.loads(line) | changes).encode() + b"\n" + ids)


def ids(cache: Path, change: Callable[[bytes], bytes], seal: bool = False) -> None:
    """Change the ids of a cache; ``seal``: make their number and checksum fit."""
    line, _, raw = cache.read_bytes().partition(b"\n")
    raw = change(raw)
    changes = {"n_ids": len(raw), "crc32": f"{zlib.crc32(raw):08x}"} if seal else {}
    cache.write_bytes(json.dumps(json.loads(line) | changes).encode() + b"\n" + raw)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda cache: cache.write_bytes(b""),
    "binary": lambda cache: cache.write_bytes(bytes(range(256)) * 9),
    "cut to half": lambda cache: os.truncate(cache, cache.stat().st_size // 2),
    "cut in its header": lambda cache: os.truncate(cache, 20),
    "one byte more": lambda cache: ids(cache, lambda raw: raw + b"\0"),
    "one bit": lambda cache: ids(cache, lambda raw: bytes([raw[0] ^ 1]) + raw[1:]),
    "ids out of range": lambda cache: ids(cache, lambda raw: b"\xff" + raw[1:], seal=True),
    "no ids": lambda cache: ids(cache, lambda raw: b"", seal=True),
    "other tokens": lambda cache: header(cache, tokens=["a", "b"]),
    "tokens out of order": lambda cache: header(cache, tokens=["b", "a"]),
    "tokens for another dtype": lambda cache: header(cache, tokens=[chr(i) for i in range(999)]),
    "long tokens": lambda cache: header(cache, tokens=["aa", "b"]),
    "no tokens": lambda cache: header(cache, tokens=[]),
    "numbers as tokens": lambda cache: header(cache, tokens=[1, 2]),
    "another text's": lambda cache: header(cache, fingerprint="0"),
    "another number": lambda cache: header(cache, n_ids=True),
    "a list": lambda cache: cache.write_bytes(b"[1]\n"),
    "nested": lambda cache: cache.write_bytes(b"[" * 100_000 + b"\n"),
    "endless": lambda cache: os.truncate(cache, 0) or os.truncate(cache, 1 << 40),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_anew_and_that_is_said(
    tmp_path: Path, long_text: Path, damage: str
) -> None:
    good = load_corpus([str(long_text)])
    good_ids = good.ids.clone()  # else they were mapped from what is damaged
    (cache,) = tmp_path.glob("*.ids")
    whole = cache.read_bytes()
    DAMAGES[damage](cache)
    assert cache.stat().st_size > 1 << 39 or cache.read_bytes() != whole
    again = load_corpus([str(long_text)])
    assert torch.equal(again.ids, good_ids) and again.vocabulary == good.vocabulary
    assert again.notes == [f"{cache}: damaged, or of another text; it is made again"]
    assert cache.read_bytes() == whole


def test_large_ids_are_checked_for_their_range_too(tmp_path: Path, long_text: Path) -> None:
    long_text.write_text("".join(map(chr, range(0x4E00, 0x4E00 + 1000))), encoding="utf-8")
    good = load_corpus([str(long_text)])
    assert good.ids.dtype == torch.int16
    (cache,) = tmp_path.glob("*.ids")
    whole = cache.read_bytes()
    for bad in (b"\xff\xff", b"\xe8\x03"):  # -1, 1000
        line, _, raw = whole.partition(b"\n")
        raw = bad + raw[2:]
        seal = {"crc32": f"{zlib.crc32(raw):08x}"}
        cache.write_bytes(json.dumps(json.loads(line) | seal).encode() + b"\n" + raw)
        assert load_corpus([str(long_text)]).notes and cache.read_bytes() == whole


def test_a_cache_is_never_written_through_a_link(tmp_path: Path, long_text: Path) -> None:
    load_corpus([str(long_text)])
    (cache,) = tmp_path.glob("*.ids")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    cache.unlink()
    cache.symlink_to("victim")
    assert load_corpus([str(long_text)]).notes
    assert victim.read_text() == "precious" and not cache.is_symlink()
    cache.unlink()
    os.mkfifo(cache)  # would block
    with pytest.raises(UserError, match="device or FIFO"):
        load_corpus([str(long_text)])


def test_a_cache_keeps_what_is_to_be_said(long_text: Path) -> None:
    long_text.write_bytes(TEXT.replace(b"\n", b"\r"))
    first, second = load_corpus([str(long_text)]), load_corpus([str(long_text)])
    assert first.notes == second.notes and "\\r alone" in first.notes[0]


def test_each_min_count_has_a_cache_as_long_as_the_text_is_the_same(
    tmp_path: Path, long_text: Path
) -> None:
    def caches() -> dict[str, int]:
        assert len(load_corpus([str(long_text)]).vocabulary) == 12
        assert load_corpus([str(long_text)], min_count=10**6).vocabulary.tokens == ("\ufffd",)
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.ids")}

    first = caches()
    assert caches() == first and len(first) == 2
    long_text.write_bytes(TEXT[1:])
    assert len(caches()) == 2 and not caches().keys() & first.keys()


def test_no_room_for_a_cache_is_one_line_that_says_where(long_text: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match=f"{long_text.parent}.*File too large; make room"):
            load_corpus([str(long_text)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(long_text.parent.iterdir()) == [long_text]


def test_what_a_killed_encoding_left_is_removed(
    tmp_path: Path, long_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(corpus, "_header_line", lambda *_: time.sleep(60))
            load_corpus([str(long_text)])
        finally:
            os._exit(1)
    while not list(tmp_path.glob(".*.tmp")):
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(tmp_path.glob(".*.tmp"))) == 1
    long_text.write_bytes(TEXT + b"grown")
    load_corpus([str(long_text)])
    assert not list(tmp_path.glob(".*")) and len(list(tmp_path.glob("*.ids"))) == 1


def test_two_that_encode_at_once(tmp_path: Path, long_text: Path) -> None:
    seen: list[Corpus] = []
    real = corpus._encode

    def encode(*args: Any) -> None:
        if not seen:  # the first one: a second one begins and ends meanwhile
            seen.append(None)
            seen[0] = load_corpus([str(long_text)])
        real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "_encode", encode)
        first = load_corpus([str(long_text)])
    assert torch.equal(first.ids, seen[0].ids) and not list(tmp_path.glob(".*"))


def test_ids_for_a_model_of_other_characters(tmp_path: Path, any_block: None) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abcabba" * 9, encoding="utf-8")
    found = load_corpus([str(path)])
    for tokens in (("c", "b", "x", "a"), ("a", "b", "c"), tuple(map(chr, range(40_000)))):
        assert Vocabulary(tokens).decode(found.encode_with(tokens)) == "abcabba" * 9
    for last, dtype in ((255, torch.uint8), (256, torch.int16), (32_768, torch.int32)):
        tokens = (*map(chr, range(0x1000, 0x1000 + last - 2)), "a", "c", "b")
        again = found.encode_with(tokens)
        assert again.dtype == dtype and Vocabulary(tokens).decode(again) == "abcabba" * 9
    with pytest.raises(UserError, match="characters the model never saw: 'b'"):
        found.encode_with(("a", "c"))


MAPPED = """
import sys
import numpy as np, torch
from memory import limit_memory
from charrnn.text.corpus import Corpus
from charrnn.text.vocabulary import Vocabulary
n = 100_000_000
ids = torch.from_numpy(np.memmap(sys.argv[1], np.uint8, "c", shape=(n,)))
corpus = Corpus(ids, Vocabulary(("a", "b")), "", [], [])
limit_memory(n + 80_000_000)
encoded = corpus.encode_with(("b", "a"))
print(len(encoded), int(encoded[0]), int(encoded[-1]))
"""


def test_a_text_for_another_model_need_not_fit_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    path.write_bytes(b"")
    os.truncate(path, 100_000_000)  # takes no room
    command = [sys.executable, "-c", MAPPED, str(path)]
    env = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.stdout == "100000000 1 1\n", result.stderr


def test_too_many_distinct_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(map(chr, range(0x4E00, 0x4E00 + 20_001))), encoding="utf-8")
    with pytest.raises(UserError, match="more than 20,000 distinct"):
        load_corpus([str(path)])
    assert load_corpus([str(path)], min_count=2).vocabulary.tokens == ("\ufffd",)


def test_encoding_has_no_loop_over_characters() -> None:
    text = "".join(map(chr, np.random.default_rng(1).integers(32, 300, 2_000_000)))
    vocabulary = Vocabulary.from_text(text)
    calls = []
    sys.setprofile(lambda _frame, event, _value: calls.append(event))
    try:
        vocabulary.encode(text)
    finally:
        sys.setprofile(None)
    assert 0 < len(calls) < 1000
