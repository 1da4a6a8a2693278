"""Which part of which text the programs read, and what they leave out."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from page_cases import bigram_model

from charrnn import reading, save_checkpoint
from charrnn.corpus import load_corpus
from charrnn.data import split_text
from charrnn.errors import UserError
from charrnn.reading import Text, load_model, read_corpus, read_text


@pytest.fixture(autouse=True)
def _in_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def read(
    tokens: list[str], split: str | None = None, encoding: str | None = None, **extra: object
) -> Text:
    """a.txt as read for models of these vocabularies, saved with ``extra``."""
    models = []
    for i, known in enumerate(tokens):
        save_checkpoint(f"{i}.net", bigram_model(tuple(known))[0], **extra)
        models.append(load_model(f"{i}.net", "cpu"))
    args = Namespace(data=["a.txt"], split=split, encoding=encoding)
    return read_text(args, models, read_corpus(args, models))


def test_its_own_text_is_recognised_and_only_its_end_read() -> None:
    Path("a.txt").write_text("ab" * 50)
    own = {"fingerprint": load_corpus(["a.txt"]).fingerprint, "val_frac": 0.2}
    text = read(["ab"], **own)
    assert (text.split, len(text.ids[0]), text.notes) == ("val", 20, [])
    text = read(["ab"], "all", **own)
    assert (text.split, len(text.ids[0])) == ("all", 100)


def test_held_out_lines_are_those_of_the_training() -> None:
    lines = [f"{i % 7}{'ab' * (i % 5)}\n" for i in range(100)]
    Path("a.txt").write_text("".join(lines))
    corpus = load_corpus(["a.txt"])
    tokens = corpus.vocabulary.tokens
    expected = split_text(corpus.ids, 0.3, tokens, "lines", 5)[1]
    settings = {"val_split": "lines", "seed": 5}
    own = {"fingerprint": corpus.fingerprint, "val_frac": 0.3, "settings": settings}
    text = read([tokens[::-1]], **own)
    assert text.split == "val"
    decoded = "".join(tokens[::-1][i] for i in text.ids[0])
    assert decoded == "".join(tokens[i] for i in expected) and decoded not in "".join(lines)


def test_of_another_text_all_is_read_and_said() -> None:
    Path("a.txt").write_text("ab" * 50)
    other = {"fingerprint": "0" * 64, "val_frac": 0.2}
    assert read(["ab"], **other).split == "all"
    text = read(["ab"], "val", **other)
    assert (text.split, len(text.ids[0])) == ("all", 100)
    assert "not the text the model was trained on" in " ".join(text.notes)
    # an older checkpoint does not say: all, or what the flag asks for
    assert read(["ab"]).split == "all"
    text = read(["ab"], "val")
    assert (text.split, len(text.ids[0])) == ("val", 10)
    for val_frac in (-1.0, 2.0, float("nan"), "x", None, True):
        assert len(read(["ab"], "val", val_frac=val_frac).ids[0]) == 10


def test_encoding_and_min_count_are_those_of_the_training() -> None:
    Path("a.txt").write_bytes("\u0444\u0444\u0438z".encode("cp1251") * 1 + b"\xf4\xe8" * 50)
    settings = {"encoding": "cp1251", "min_count": 2}
    own = load_corpus(["a.txt"], 2, "cp1251").fingerprint
    text = read(["\u0444\u0438\ufffd"], settings=settings, fingerprint=own)
    assert text.split == "val"
    with pytest.raises(UserError):
        read(["ab"], encoding="utf-8")
    for settings in ({"min_count": "x"}, {"min_count": -5}, {"encoding": 3}, [], None, "x"):
        Path("a.txt").write_text("ab" * 50)
        assert len(read(["ab"], settings=settings).ids[0]) == 100


def test_unknown_characters_are_left_out_and_counted() -> None:
    Path("a.txt").write_text("aXbYXc\u202e" * 10, encoding="utf-8")
    text = read(["abc", "cbaX"])
    decoded = [
        "".join(known[i] for i in ids) for known, ids in zip(("abc", "cbaX"), text.ids, strict=True)
    ]
    assert decoded == ["abc" * 10] * 2
    assert text.left_out == 40
    (note,) = text.notes
    assert note.startswith("40 characters of 3 kinds left out") and "'\\u202e'" in note
    text = read(["abc\ufffd"])
    assert text.left_out == 0 and text.ids[0][:3].tolist() == [0, 3, 1]
    Path("a.txt").write_text("XYZ")
    with pytest.raises(UserError, match="at least 2"):
        read(["abc"])


def test_a_text_of_several_blocks_is_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    chars = "".join("abX"[i] for i in torch.randint(3, (1000,), generator=generator))
    Path("a.txt").write_text(chars)
    whole = read(["ab"])
    monkeypatch.setattr(reading, "BLOCK", 7)
    in_blocks = read(["ab"])
    assert torch.equal(whole.ids[0], in_blocks.ids[0]) and whole.notes == in_blocks.notes
    assert "".join("ab"[i] for i in whole.ids[0]) == chars.replace("X", "")


def test_more_than_256_characters() -> None:
    many = "".join(chr(0x4E00 + i) for i in range(400))
    Path("a.txt").write_text(many + "X", encoding="utf-8")
    text = read([many[::-1]])
    assert text.ids[0].tolist() == list(range(399, -1, -1)) and text.left_out == 1
