"""Text, vocabulary and batches."""

import pytest
import torch

from charrnn import Vocabulary, get_batches, one_hot_encode
from charrnn.data import count_batches, split_text
from charrnn.errors import UserError


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


def test_too_short_says_how_short() -> None:
    with pytest.raises(UserError, match=r"5 too few .* lower --batch-size or --seq-length"):
        get_batches(torch.arange(7), 4, 2)
    with pytest.raises(UserError, match="--val-frac"):
        split_text(torch.arange(10), 0.1)
