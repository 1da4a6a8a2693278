"""Text, vocabulary and batches."""

import pytest
import torch

from charrnn import Vocabulary, get_batches, one_hot_encode
from charrnn.errors import UserError
from charrnn.text.split import split_text
from charrnn.training.batches import count_batches


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
    assert len(pairs) == count_batches(n, b, t) > 0
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


def test_lines_of_too_long_a_text_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charrnn.text.split.MOST_LINES", 99)
    ids = torch.tensor([1, 0] * 50)
    with pytest.raises(UserError, match="--val-split lines: 100 characters are more than the 99"):
        split_text(ids, 0.1, ("\n", "a"), "lines")
    assert len(split_text(ids, 0.1, ("\n", "a"), "end")[1]) == 10


def test_too_short_says_how_short() -> None:
    with pytest.raises(UserError, match=r"5 too few .* lower --batch-size or --seq-length"):
        get_batches(torch.arange(7), 4, 2)
    with pytest.raises(UserError, match="--val-frac"):
        split_text(torch.arange(10), 0.1)
