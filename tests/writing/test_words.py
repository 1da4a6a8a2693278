"""The likeliest next words against all words there are, each read as a whole."""

from itertools import product

import pytest
import torch

from charrnn import CharRNN, next_char_probabilities, next_word_probabilities
from charrnn.errors import UserError
from charrnn.writing import words

LONGEST = 12  # characters of the words that are tried


def make(cell: str = "lstm", tokens: str = "\n ab", sharper: float = 4) -> CharRNN:
    torch.manual_seed(3)
    model = CharRNN(tuple(tokens), 8, 2, 0.5, cell)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(sharper)
    return model


@torch.no_grad()
def all_words(model: CharRNN, prime: str) -> dict[str, float]:
    """The probability of each word of up to ``LONGEST`` letters a and b, likeliest first."""
    model.eval()
    found = {}
    for length in range(LONGEST + 1):
        texts = ["".join(letters) for letters in product("ab", repeat=length)]
        ids = torch.stack([model.vocabulary.encode(f"\n{prime}{text}") for text in texts])
        logits, _ = model(ids, model.init_hidden(len(ids)))
        p = logits.double().softmax(dim=1).view(*ids.shape, -1)
        letters = p[:, -length - 1 : -1].gather(
            2, ids[:, -length:, None] if length else ids[:, :0, None]
        )
        end = p[:, -1, model.char2int["\n"]] + p[:, -1, model.char2int[" "]]
        found |= dict(zip(texts, (letters.squeeze(2).prod(dim=1) * end).tolist(), strict=True))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("n", [1, 5, 40])
def test_the_likeliest_words_are_those_of_all(cell: str, n: int) -> None:
    model = make(cell).train()
    found = next_word_probabilities(model, "ab a", n)
    assert model.training  # and yet without dropout
    whole = all_words(model, "ab a")
    expected = dict(list(whole.items())[:n])
    assert 1 - sum(whole.values()) < min(expected.values())  # no longer word is among them
    assert list(found) == list(expected)
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-4)


def test_a_word_may_be_empty() -> None:
    model = make()
    p = next_char_probabilities(model, "ab")
    found = next_word_probabilities(model, "ab", 1000)
    assert found[""] == pytest.approx(p[" "] + p["\n"], rel=1e-4)


@pytest.mark.parametrize("most", [1, 10, 40, 100])
def test_work_has_a_bound_and_what_is_returned_is_proven(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(sharper=1)
    whole = next_word_probabilities(model, "b", 20)
    monkeypatch.setattr(words, "MOST_READ", most)
    read = []
    model.register_forward_pre_hook(lambda _, given: read.append(len(given[0])))
    found = next_word_probabilities(model, "b", 20)
    assert sum(read) <= most and len(whole) == 20
    assert list(found) == list(whole)[: len(found)]
    assert (most < 40) == (len(found) < 20)


def test_what_has_no_words_is_refused() -> None:
    with pytest.raises(UserError, match="neither space nor line end"):
        next_word_probabilities(make(tokens="ab"), "a")
    assert next_word_probabilities(make(tokens="ab "), "a")
    for n in (0, -1, "5", 2.0, 1001):
        with pytest.raises(UserError, match=r"n: .* is not a whole number"):
            next_word_probabilities(make(), "a", n)
    with pytest.raises(UserError, match="never saw 'Q'"):
        next_word_probabilities(make(), "Q")
