"""Where the text comes from, against a server that the tests start."""

import hashlib
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from charrnn import corpus
from charrnn.corpus import download, load_corpus
from charrnn.data import Vocabulary, get_batches
from charrnn.errors import UserError

TEXT = b"a text of our own\n" * 9000
ANNA = Path(__file__).parent.parent.parent / "shared" / "data" / "anna.txt"


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
    for data in ([str(tmp_path)], [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]):
        found = load_corpus(data)
        assert found.vocabulary.decode(found.ids) == "first\nsecond"
    with pytest.raises(UserError, match="empty folder"):
        (tmp_path / "none" / ".git").mkdir(parents=True)
        (tmp_path / "none" / ".git" / "HEAD").write_text("hidden")
        load_corpus([str(tmp_path / "none")])


def test_rare_characters_are_folded(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("aaabbbX\ncccY\n", encoding="utf-8")
    folded = load_corpus([str(path)], min_count=2)
    assert folded.vocabulary.tokens == ("\n", "a", "b", "c", "\ufffd")
    assert folded.vocabulary.decode(folded.ids) == "aaabbb\ufffd\nccc\ufffd\n"
    assert folded.vocabulary.decode(folded.vocabulary.encode("aQ")) == "a\ufffd"


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
def test_blocks_cut_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("charrnn.data.BLOCK", block)
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffzażółć\r\n🦆\r\r\n\rend\r".encode())
    found = load_corpus([str(path)])
    assert found.vocabulary.decode(found.ids) == "zażółć\n🦆\r\n\rend\r"
    path.write_bytes(b"ab\xc5\xbc\xc5")
    with pytest.raises(UserError, match="byte 0xc5 at byte 4"):
        load_corpus([str(path)])


def test_long_texts_are_mapped_from_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT)
    small = load_corpus([str(path)])
    monkeypatch.setattr(corpus, "IN_MEMORY", 1000)
    mapped = load_corpus([str(path)])
    (cache,) = tmp_path.glob("*.ids")
    written = cache.stat().st_mtime_ns
    assert torch.equal(mapped.ids, small.ids) and mapped.vocabulary == small.vocabulary
    assert torch.equal(load_corpus([str(path)]).ids, small.ids)
    assert cache.stat().st_mtime_ns == written  # read, not made again
    path.write_bytes(TEXT[1:])
    assert torch.equal(load_corpus([str(path)]).ids, small.ids[1:])
    assert len(list(tmp_path.glob("*.ids"))) == 2
    path.write_bytes(TEXT + b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        load_corpus([str(path)])
    assert len(list(tmp_path.iterdir())) == 3  # nothing half-written


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
