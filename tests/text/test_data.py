"""Text, vocabulary and batches."""

from itertools import accumulate

import pytest
import torch

from charrnn import Vocabulary, get_batches, one_hot_encode
from charrnn.errors import UserError
from charrnn.text.split import split_text


def test_one_hot_of_the_notebook() -> None:
    rows = one_hot_encode(torch.tensor([[3, 5, 1], [0, 2, 4]]), 8)
    assert rows.shape == (2, 3, 8) and rows.dtype == torch.float32
    assert rows.argmax(2).tolist() == [[3, 5, 1], [0, 2, 4]] and rows.sum() == 6


def test_vocabulary_is_sorted_and_inverts() -> None:
    text = "zażółć 🦆 z\u0301\n"
    vocabulary = Vocabulary.from_text(text)
    assert list(vocabulary.tokens) == sorted(set(text))
    assert vocabulary.decode(vocabulary.encode(text)) == text
    shuffled = Vocabulary(vocabulary.tokens[::-1])
    assert shuffled.decode(shuffled.encode(text)) == text
    with pytest.raises(UserError, match="'Q' 'X'"):
        vocabulary.encode("XQz")


@pytest.mark.parametrize(("n", "b", "t"), [(20, 2, 3), (101, 4, 5), (12, 4, 2), (999, 7, 10)])
def test_batches_skip_no_character(n: int, b: int, t: int) -> None:
    ids = torch.arange(n)
    pairs = list(get_batches(ids, b, t))
    rows = ids[: n // (b * (t + 1)) * b * (t + 1)].view(b, -1)
    x, y = (torch.cat(side, 1) for side in zip(*pairs, strict=True))
    assert torch.equal(x, rows[:, : x.shape[1]]) and torch.equal(y, x + 1)
    assert rows.shape[1] - x.shape[1] <= t


def test_lines_are_held_out_whole() -> None:
    tokens = tuple(chr(i) for i in range(0x4E00, 0x4E00 + 256))  # 255 of them is no line end
    with pytest.raises(UserError, match="too few lines"):
        split_text(torch.arange(256, dtype=torch.uint8), 0.1, tokens, "lines")
    ids = torch.tensor([1, 1, 1, 0, 2, 2, 0, 3, 3, 3] * 10, dtype=torch.uint8)
    train, held_out = split_text(ids, 0.3, ("\n", "a", "b", "c"), "lines")
    lines = "".join("\nabc"[i] for i in held_out).splitlines()
    assert set(lines) <= {"aaa", "bb", "ccc", "cccaaa"} and len(train) + len(held_out) == 100


def split_of(parts: list[str], val_split: str, seed: int, are_files: bool) -> list[str]:
    """What is trained on and what is held out of a text that consists of these parts."""
    text = "".join(parts)
    ends = list(accumulate(map(len, parts))) if are_files else [len(text)]
    vocabulary = Vocabulary.from_text(text)
    ids = vocabulary.encode(text).to(torch.uint8)
    return [
        vocabulary.decode(ids)
        for ids in split_text(ids, 0.3, vocabulary.tokens, val_split, seed, ends)
    ]


@pytest.mark.parametrize("end", ["\n", "\n\n", "=====\n", "%\n", "\n***\n\n---\n", ""])
@pytest.mark.parametrize("val_split", ["paragraphs", "files"])
def test_paragraphs_and_files_are_held_out_whole(val_split: str, end: str) -> None:
    are_files = val_split == "files" or not end
    # what separates no paragraphs: a few signs, several letters, other lines that begin so
    body = "<{0}>\n==\n}}\n%%\n%a\naaa\n===b\n==={0}\n"
    parts = [body.format(i) + "b" * (i % 7) + "\n" + end for i in range(30)]
    chosen = set()
    for seed in range(5):
        trained, held_out = split_of(parts, val_split, seed, are_files)
        inside = [f"<{i}>" in held_out for i in range(30)]
        assert held_out == "".join(part for part, is_in in zip(parts, inside, strict=True) if is_in)
        assert trained == "".join(p for p, is_in in zip(parts, inside, strict=True) if not is_in)
        assert 0.2 < len(held_out) / len("".join(parts)) <= 0.3
        chosen.add(held_out)
    assert len(chosen) == 5


def test_a_long_part_is_not_held_out_and_one_always_is() -> None:
    long, short, shorter = "a" * 500 + "\n\n", "b" * 60 + "\n\n", "c" * 50 + "\n\n"
    for val_split in ("paragraphs", "files"):
        for seed in range(5):
            assert split_of([long, short, shorter], val_split, seed, True)[1] in (
                short + shorter,
                short,
                shorter,
            )
            assert split_of([short, long, shorter][::2], val_split, seed, True)[1] == shorter


@pytest.mark.parametrize("val_split", ["lines", "paragraphs", "files"])
def test_a_text_in_one_part_is_refused(val_split: str) -> None:
    with pytest.raises(UserError, match=f"--val-split {val_split}: the text has too few"):
        split_of(["ab" * 50], val_split, 1, True)


@pytest.mark.parametrize("val_split", ["lines", "paragraphs", "files"])
def test_lines_of_too_long_a_text_are_refused(
    monkeypatch: pytest.MonkeyPatch, val_split: str
) -> None:
    monkeypatch.setattr("charrnn.text.split.MOST_LINES", 99)
    ids = torch.tensor([1, 0] * 50)
    message = f"--val-split {val_split}: 100 characters are more than the 99"
    with pytest.raises(UserError, match=message):
        split_text(ids, 0.1, ("\n", "a"), val_split, 1, (50, 100))
    assert len(split_text(ids, 0.1, ("\n", "a"), "end")[1]) == 10


def test_too_short_says_how_short() -> None:
    with pytest.raises(UserError, match=r"5 too few .* lower --batch-size or --seq-length"):
        get_batches(torch.arange(7), 4, 2)
    with pytest.raises(UserError, match="--val-frac"):
        split_text(torch.arange(10), 0.1)
