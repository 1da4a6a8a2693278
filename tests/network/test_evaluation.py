"""evaluate against reading from end to end, and what it may cost."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charrnn import CharRNN, Vocabulary, evaluate, get_batches
from charrnn.network.evaluation import (
    CONTEXT,
    choose_pieces,
    evaluate_all,
    evaluate_pieces,
)
from charrnn.network.model import CELLS, detach

TOKENS = tuple("\n abcdefgh")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(cell: str = "lstm", tokens: tuple[str, ...] = TOKENS) -> CharRNN:
    torch.manual_seed(0)
    return CharRNN(tokens, 12, 2, 0.5, cell)


def words(n: int) -> Tensor:
    """Ids of a text of which the next character can be learned, but not wholly."""
    known = ["bad", "cab", "fade", "a", "egg", "head\n"]
    choice = torch.randint(len(known), (n,), generator=seeded(n)).tolist()
    return Vocabulary(TOKENS).encode(" ".join(known[i] for i in choice))


@torch.no_grad()
def end_to_end(model: CharRNN, ids: Tensor) -> float:
    """The definition: one row, read once."""
    logits, _ = model.eval()(ids[None, :-1].long(), model.init_hidden(1))
    return F.cross_entropy(logits, ids[1:].long()).item()


@pytest.fixture(scope="module", params=CELLS)
def trained(request: pytest.FixtureRequest) -> CharRNN:
    torch.manual_seed(0)
    model = CharRNN(TOKENS, 16, 1, 0.0, request.param)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    hidden = model.init_hidden(16)
    for x, y in get_batches(words(4000), 16, 16):
        logits, hidden = model(x, detach(hidden))
        optimizer.zero_grad()
        F.cross_entropy(logits, y.flatten()).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("n_words", [1, 300, 1000, 1500, 6000])
def test_a_trained_model_is_scored_as_if_read_end_to_end(trained: CharRNN, n_words: int) -> None:
    ids = words(n_words)
    expected = end_to_end(trained, ids)
    assert expected < 1.2 or n_words == 1  # the logarithm of 10 characters is 2.3
    assert evaluate(trained, ids) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("n", [2, 3, 100, 2047, 4096])
def test_a_short_text_is_read_from_end_to_end(n: int) -> None:
    model, ids = make(), torch.randint(len(TOKENS), (n,), generator=seeded(1))
    assert evaluate(model, ids) == pytest.approx(end_to_end(model, ids), abs=1e-5)


class Counting(nn.Module):
    """Says x + 1 after x with probability 1 / (x + 1), and counts what it reads, of 0, 1, 2, ...

    Its state is what comes next, or 0 at first: each row must go on where its state ended.
    """

    def __init__(self, n_labels: int) -> None:
        super().__init__()
        self.fc, self.unique_tokens = nn.Linear(1, n_labels), range(n_labels)
        self.read = self.most = 0

    def init_hidden(self, n: int) -> Tensor:
        return torch.zeros(1, n, 1)

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        assert not self.training and hidden.shape[1] == len(x) and hidden.is_contiguous()
        n, first, last = len(self.unique_tokens), x[:, 0], x[:, -1].long()
        known = hidden.flatten()
        assert ((known == 0) | (known % n == first)).all()
        hidden, x = (last + 1.0)[None, :, None], x.flatten().long()
        self.read += len(x)
        self.most = max(self.most, len(x) * n)
        p = torch.zeros(len(x), n)
        p[torch.arange(len(x)), (x + 1) % n] = 1 / (x + 1)
        p[torch.arange(len(x)), (x + 2) % n] = 1 - 1 / (x + 1)
        return p.log(), hidden


@pytest.mark.parametrize("n", [2, 252, 4097, 5000, 6145, 131_073, 131_130, 140_000])
def test_every_character_is_scored_once_in_at_most_one_and_a_half_passes(n: int) -> None:
    model, ids = Counting(251), torch.arange(n) % 251
    # what 251 neighbours lose differs: one left out, or scored twice, would show
    expected = (ids[:-1] + 1).double().log().mean().item()
    assert evaluate(model, ids.to(torch.uint8)) == pytest.approx(expected, abs=1e-6)
    assert n - 1 <= model.read <= 1.5 * (n - 1)


def test_what_is_read_does_not_depend_on_the_model() -> None:
    """An untrained model does not forget, one that has learned does: both are read alike."""
    ids, seen = torch.randint(len(TOKENS), (20_000,), generator=seeded(1)), []
    for scale in (1.0, 20.0):
        model, read = make(), []
        with torch.no_grad():
            for weight in model.lstm.parameters():
                weight.mul_(scale)
        model.lstm.register_forward_pre_hook(lambda _, given, read=read: read.append(given[0]))
        evaluate(model, ids)
        seen.append(sum(x.shape[0] * x.shape[1] for x in read))
    assert seen[0] == seen[1] == 19_999 + 8 * CONTEXT  # 9 rows, of which the first has no context


def test_a_large_vocabulary_is_read_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for most, n_labels in ((1 << 16, 5000), (1000, 251)):
        monkeypatch.setattr("charrnn.network.evaluation.MOST_NUMBERS", most)
        model = Counting(n_labels)
        evaluate(model, torch.arange(4500) % n_labels)
        assert model.most <= most and model.read <= 1.5 * 4499


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_any_ids_will_do(dtype: torch.dtype) -> None:
    model, ids = make(), torch.randint(len(TOKENS), (9000,), generator=seeded(1))
    assert evaluate(model, ids.to(dtype)) == evaluate(model, ids)
    twice = torch.stack((ids, ids), dim=1).to(dtype)[:, 0]  # not contiguous
    assert evaluate(model, twice) == evaluate(model, ids)


def test_dropout_is_off_and_the_mode_comes_back() -> None:
    model, ids = make().train(), torch.randint(len(TOKENS), (500,), generator=seeded(1))
    assert evaluate(model, ids) == evaluate(model, ids) and model.training
    with pytest.raises(RuntimeError):  # an id that is no character's
        evaluate(model, ids + 9)
    assert model.training
    evaluate(model.eval(), ids)
    assert not model.training
    with pytest.raises(ValueError, match="at least 2"):
        evaluate(model, ids[:1])


def test_the_precision_of_the_products_can_be_chosen() -> None:
    model, ids = make("rnn"), words(600)
    exact = evaluate(model, ids)
    assert evaluate(model, ids, torch.float32) == exact
    assert exact != evaluate(model, ids, torch.bfloat16) == pytest.approx(exact, abs=0.01)
    with torch.autocast("cpu", torch.bfloat16):  # somebody else's choice
        assert evaluate(model, ids) == exact


class Lost(nn.Module):
    """Costs ``late`` nats a character where it began to read fewer than ``n_lost`` characters ago,
    else ``usual``."""

    def __init__(self, n_lost: int, usual: float, late: float) -> None:
        super().__init__()
        self.fc, self.unique_tokens = nn.Linear(1, 2), range(2)
        self.n_lost, self.costs = n_lost, torch.tensor([late, usual])

    def init_hidden(self, n: int) -> Tensor:
        return torch.zeros(1, n, 1)

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        read = hidden[0] + torch.arange(x.shape[1])
        p = (-self.costs[(read >= self.n_lost).long()]).exp().flatten()
        return torch.stack((p, 1 - p), dim=1).log(), hidden + x.shape[1]


def test_a_model_that_loses_its_way_after_a_cold_start_is_found() -> None:
    ids = torch.zeros(40_000, dtype=torch.uint8)
    assert evaluate_all(Lost(1000, 1.0, 3.0), ids).cold_start_gap == pytest.approx(0, abs=1e-5)
    found = evaluate_all(Lost(1024 + 64, 1.0, 3.0), ids)  # 64 of the 256 compared
    assert found.cold_start_gap == pytest.approx(2.0 * 64 / 256, abs=1e-5)
    assert found.loss == evaluate(Lost(1024 + 64, 1.0, 3.0), ids)
    assert evaluate_all(Lost(9, 1.0, 3.0), ids[:3000]).cold_start_gap == 0  # one row


@pytest.mark.parametrize("n", [60_000, 200_003])
def test_pieces_are_spread_evenly_and_each_is_read_after_its_context(n: int) -> None:
    model, ids = Counting(251), torch.arange(n) % 251
    starts = choose_pieces(ids, ids, 251, 40_064)
    assert starts[0] >= 256 and starts[-1] + 626 < n and len(starts) == 64
    assert starts.diff().max() - starts.diff().min() <= 1  # 64 pieces of 626
    losses = (ids[:-1] + 1).double().log()
    expected = torch.cat([losses[i : i + 626] for i in starts.tolist()]).mean().item()
    found = evaluate_pieces(model, ids.to(torch.uint8), starts, 40_064)
    assert found == pytest.approx(expected, abs=1e-6)
    assert model.read == 64 * (256 + 626)


@pytest.mark.parametrize("n_chars", [2, 100, 4000, 10**9])
def test_of_a_short_text_all_is_read(n_chars: int) -> None:
    model, ids = make(), words(3000)
    starts = choose_pieces(ids, ids, len(TOKENS), n_chars)
    assert evaluate_pieces(model, ids, starts, n_chars) == evaluate(model, ids)


@pytest.mark.parametrize("n_chars", [2, 100, 2000])
def test_a_state_of_an_earlier_version_may_ask_for_few_characters(n_chars: int) -> None:
    model, ids = make(), torch.randint(len(TOKENS), (30_000,), generator=seeded(1))
    starts = choose_pieces(ids, ids, len(TOKENS), n_chars)
    assert evaluate_pieces(model, ids, starts, n_chars) == pytest.approx(2.3, abs=0.5)


def test_pieces_say_about_what_the_whole_does(trained: CharRNN) -> None:
    """Also of a text of very different parts, some of which come seldom."""
    chance = torch.randint(len(TOKENS), (60_000,), generator=seeded(1))
    parts = [chance[:500], words(9000), chance[:9000], words(15_000), chance[:3000], words(5000)]
    ids = torch.cat(parts)
    starts = choose_pieces(torch.cat((words(5000), chance)), ids, len(TOKENS), 40_064)
    pieces, whole = evaluate_pieces(trained, ids, starts, 40_064), evaluate(trained, ids)
    assert pieces != whole and pieces == pytest.approx(whole, abs=0.02)
