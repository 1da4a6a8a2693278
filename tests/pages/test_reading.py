"""Which part of which text the programs read, and what they leave out."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from page_cases import bigram_model
from runs import ROOT

from charrnn import save_checkpoint
from charrnn.errors import UserError
from charrnn.network.loaded import LoadedModel, load_model
from charrnn.pages import inputs as reading
from charrnn.pages.inputs import Text, read_corpus, read_for_models
from charrnn.text.corpus import Corpus, load_corpus
from charrnn.text.split import split_text
from charrnn.text.vocabulary import Vocabulary


def read(
    tokens: list[str], split: str | None = None, encoding: str | None = None, **extra: object
) -> Text:
    """a.txt as read for models of these vocabularies, saved with ``extra``."""
    models = []
    for i, known in enumerate(tokens):
        save_checkpoint(f"{i}.net", bigram_model(tuple(known))[0], **extra)
        models.append(load_model(f"{i}.net", "cpu"))
    args = Namespace(data=["a.txt"], split=split, encoding=encoding)
    return read_for_models(args, models, read_corpus(args, models))


def test_its_own_text_is_recognised_and_only_its_end_read() -> None:
    Path("a.txt").write_text("ab" * 50)
    own = {"fingerprint": load_corpus(["a.txt"]).fingerprint, "val_frac": 0.2}
    text = read(["ab"], **own)
    assert (text.split, len(text.ids[0]), text.notes) == ("val", 20, [])
    text = read(["ab"], "all", **own)
    assert (text.split, len(text.ids[0])) == ("all", 100)


@pytest.mark.parametrize("val_split", ["lines", "paragraphs", "files"])
def test_held_out_parts_are_those_of_the_training(val_split: str) -> None:
    lines = [f"{i % 7}{'ab' * (i % 5)}\n" for i in range(100)]
    Path("a.txt").mkdir()  # a folder
    for i in range(0, 100, 10):
        Path(f"a.txt/{i:02}").write_text("\n".join(lines[i : i + 10]))
    corpus = load_corpus(["a.txt"])
    tokens = corpus.vocabulary.tokens
    expected = split_text(corpus.ids, 0.3, tokens, val_split, 5, corpus.file_ends)[1]
    settings = {"val_split": val_split, "seed": 5}
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
    monkeypatch.setattr(reading, "AT_A_TIME", 7)
    in_blocks = read(["ab"])
    assert torch.equal(whole.ids[0], in_blocks.ids[0]) and whole.notes == in_blocks.notes
    assert "".join("ab"[i] for i in whole.ids[0]) == chars.replace("X", "")


def test_more_than_256_characters() -> None:
    many = "".join(chr(0x4E00 + i) for i in range(400))
    Path("a.txt").write_text(many + "X", encoding="utf-8")
    text = read([many[::-1]])
    assert text.ids[0].tolist() == list(range(399, -1, -1)) and text.left_out == 1


def test_a_large_vocabulary_and_an_unknown_character() -> None:
    many = "".join(map(chr, range(0x20000, 0x20000 + 33_000)))
    Path("a.txt").write_text(many[-2:] + "X" + many[0], encoding="utf-8")
    args = Namespace(data=["a.txt"], split=None, encoding=None)
    model = LoadedModel("a.net", Namespace(vocabulary=Vocabulary(tuple(many))), {})
    text = read_for_models(args, [model], load_corpus(["a.txt"]))
    assert text.ids[0].tolist() == [32_998, 32_999, 0] and text.left_out == 1


def test_settings_of_the_training_text_are_for_that_text_alone() -> None:
    """Rare characters were folded, and it was in cp1251; this text is another one."""
    Path("a.txt").write_text("\u0444ab\u0438\u0438\n" * 9, encoding="utf-8")
    settings = {"encoding": "cp1251", "min_count": 200}
    text = read(["\nab\u0438\u0444\ufffd"], settings=settings, fingerprint="0" * 64 + "-9")
    assert text.ids[0].tolist() == [4, 1, 2, 3, 3, 0] * 9 and text.split == "all"
    for order in (("ab", "\ufffdab"), ("\ufffdab", "ab")):  # the order changes nothing
        text = read(list(order))
        by_model = dict(zip(order, text.ids, strict=True))
        assert by_model["ab"].tolist() == [0, 1] * 9
        assert by_model["\ufffdab"].tolist() == [1, 2] * 9


@pytest.mark.parametrize("known", ["e\u0301\na", "\u00e9\na", "\u00e9\na\ufffd"])
@pytest.mark.parametrize("written", ["e\u0301", "\u00e9"])
def test_the_normal_form_is_the_one_that_the_model_knows(
    monkeypatch: pytest.MonkeyPatch, known: str, written: str
) -> None:
    Path("a.txt").write_text(f"a{written}\n" * 100, encoding="utf-8")
    monkeypatch.setattr(reading, "AT_A_TIME", 7)  # also between the letter and its accent
    text = read([known])
    char = known[: known.index("\n")]
    assert "".join(known[i] for i in text.ids[0]) == f"a{char}\n" * 100
    assert text.left_out == 0
    assert ("which looks the same" in " ".join(text.notes)) == (char != written)


def test_more_kinds_of_characters_than_one_can_train_on() -> None:
    """A text whose rare characters were folded in training."""
    rare = "".join(map(chr, range(0x4E00, 0x4E00 + 20_001)))
    Path("a.txt").write_text("ab" * 50 + rare, encoding="utf-8")
    own = load_corpus(["a.txt"], min_count=2)
    assert own.vocabulary.tokens == ("a", "b", "\ufffd")
    text = read(["ab\ufffd"], "all", settings={"min_count": 2}, fingerprint=own.fingerprint)
    assert text.ids[0].tolist() == own.ids.tolist()
    with pytest.raises(UserError, match="more than 20,000 distinct"):
        load_corpus(["a.txt"])


def test_only_what_both_models_held_out_is_read() -> None:
    Path("a.txt").write_text("ab\n" * 100)
    fingerprint = load_corpus(["a.txt"]).fingerprint
    args = Namespace(data=["a.txt"], split=None, encoding=None)

    def models(*abouts: dict[str, object]) -> list[LoadedModel]:
        for i, about in enumerate(abouts):
            net, _ = bigram_model(("\n", "a", "b"))
            save_checkpoint(f"{i}.net", net, fingerprint=fingerprint, **about)
        return [load_model(f"{i}.net", "cpu") for i in range(len(abouts))]

    ends = [{"val_frac": 0.4}, {"val_frac": 0.2}]
    lines = [{"settings": {"val_split": "lines", "seed": seed}} for seed in (1, 2)]
    for abouts in (ends, ends[::-1]):
        both = models(*abouts)
        text = read_for_models(args, both, read_corpus(args, both))
        assert [len(ids) for ids in text.ids] == [60, 60]
    for abouts in (lines, [lines[0], ends[0]]):
        both = models(*abouts)
        with pytest.raises(UserError, match="held out different parts"):
            read_for_models(args, both, read_corpus(args, both))
    assert (
        len(read_for_models(args, models(lines[0], lines[0]), load_corpus(["a.txt"])).ids[0]) == 30
    )


MAPPED = """
import sys
from argparse import Namespace
import numpy as np, torch
from memory import limit_memory
from charrnn.network.loaded import LoadedModel
from charrnn.pages.inputs import read_for_models
from charrnn.text.corpus import Corpus
from charrnn.text.vocabulary import Vocabulary
n = 60_000_000
ids = torch.from_numpy(np.memmap(sys.argv[1], np.uint8, "c", shape=(n,)))
ids[5] = 1
corpus = Corpus(ids, Vocabulary(("a", "X")), "", [], [])
limit_memory(n + 50_000_000)
args = Namespace(split=None, data=["a.txt"])
net = Namespace(vocabulary=Vocabulary(("b", "a")))
text = read_for_models(args, [LoadedModel("a.net", net, {})], corpus)
print(len(text.ids[0]), int(text.ids[0].min()), text.left_out)
"""


def test_a_text_with_an_unknown_character_need_not_fit_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    path.write_bytes(b"")
    os.truncate(path, 60_000_000)  # takes no room
    command = [sys.executable, "-c", MAPPED, str(path)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    assert result.stdout == "59999999 1 1\n", result.stderr


def test_without_data_the_models_own_text_is_read() -> None:
    args = Namespace(data=None, split=None, encoding=None)

    def read_own(name: str, fingerprint: str) -> Corpus:
        about = {"text": {"name": name, "chars": 1}, "fingerprint": fingerprint}
        save_checkpoint("models/a.net", bigram_model(("a", "b"))[0], **about)
        return read_corpus(args, [load_model("models/a.net", "cpu")])

    Path("models").mkdir()
    Path("models/my.txt").write_text("ab" * 50)
    own = load_corpus(["models/my.txt"]).fingerprint
    assert read_own("my.txt", own).name == "models/my.txt"
    Path("my.txt").write_text("ab" * 51)  # another one of that name
    for name in ("my.txt", "lost.txt", "\x1b[2J"):
        with pytest.raises(UserError, match=r"models/a.net: its text.*name a text with --data"):
            read_own(name, own)
    docs = load_corpus(["python-docs"]).fingerprint
    assert read_own("python-docs", docs).name == "python-docs"
