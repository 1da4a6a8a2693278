"""Drawing and generating against definitions written out, and against the model's own loss."""

from itertools import islice

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from charrnn import CharRNN, Vocabulary, evaluate, get_batches, predict_next_char, sample
from charrnn.errors import UserError
from charrnn.generation import default_prime, draw, generate
from charrnn.model import detach

TOKENS = tuple("\n abcdefgh")


def make(cell: str = "lstm", n_layers: int = 2) -> CharRNN:
    torch.manual_seed(0)
    return CharRNN(TOKENS, 16, n_layers, 0.5, cell).eval()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [0, 1, 50])
def test_sample_is_the_prime_and_size_characters(size: int) -> None:
    text = sample(make(), size, prime="abc", top_k=3)
    assert text.startswith("abc") and len(text) == 3 + size and set(text) <= set(TOKENS)


def test_same_seed_same_text() -> None:
    one, two, other = (sample(make(), 60, "a", generator=seeded(seed)) for seed in (1, 1, 2))
    assert one == two != other


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_streams_do_not_disturb_each_other(dtype: torch.dtype) -> None:
    model = make()

    def stream(seed: int, prime: str) -> object:
        return generate(model, prime, 2, generator=seeded(seed), dtype=dtype)

    alone = [list(islice(stream(seed, prime), 30)) for seed, prime in ((1, "a"), (2, "gh"))]
    both = list(islice(zip(stream(1, "a"), stream(2, "gh"), strict=True), 30))
    for one, two in zip(alone, zip(*both, strict=True), strict=True):
        assert torch.equal(torch.stack(one), torch.stack(two))
    ids = torch.stack(alone[0])
    assert not torch.equal(ids[:, 0], ids[:, 1])


def expected_p(logits: Tensor, top_k: int, top_p: float, temperature: float) -> Tensor:
    """The distribution to draw from, one character at a time."""
    p = (logits.double() / temperature).softmax(0).tolist()
    kept = sorted(range(len(p)), key=lambda i: -p[i])[: top_k or len(p)]
    total = sum(p[i] for i in kept)
    nucleus, reached = [], 0.0
    for i in kept:
        if reached < top_p:
            nucleus.append(i)
            reached += p[i] / total
    total = sum(p[i] for i in nucleus)
    return torch.tensor([p[i] / total if i in nucleus else 0.0 for i in range(len(p))])


@pytest.mark.parametrize("top_k", [0, 1, 3, 99])
@pytest.mark.parametrize("top_p", [1.0, 0.7, 0.01])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_definition(top_k: int, top_p: float, temperature: float) -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, 1.1, -30.0, 0.9])
    n = 20_000
    ids = draw(logits.expand(n, -1), top_k, top_p, temperature, seeded(1))
    p = expected_p(logits, top_k, top_p, temperature)
    counts = torch.bincount(ids, minlength=len(p))
    assert counts[p == 0].sum() == 0
    assert ((counts / n - p).abs() <= 5 * (p * (1 - p) / n).sqrt() + 1e-9).all()


@pytest.mark.parametrize("temperature", [0, 1e-300, 1e-30, 1e-3])
def test_no_temperature_takes_the_likeliest(temperature: float) -> None:
    logits = torch.randn(50, 9, generator=seeded(1))
    assert torch.equal(draw(logits, temperature=temperature), logits.argmax(1))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_predict_next_char_carries_the_state(cell: str) -> None:
    model, hidden = make(cell), None
    for char in "abcab":
        following, hidden = predict_next_char(model, char, hidden, top_k=1)
    ids = Vocabulary(TOKENS).encode("abcab")[None]
    logits, expected = model(ids, model.init_hidden(1))
    torch.testing.assert_close(hidden, detach(expected), atol=1e-5, rtol=0)
    assert following == TOKENS[logits[-1].argmax()]


def test_unknown_characters_are_named() -> None:
    for prime in ("aQ", "Qa"):
        with pytest.raises(UserError, match="'Q'"):
            sample(make(), 5, prime)
    with pytest.raises(UserError, match="'Q'"):
        predict_next_char(make(), "Q")
    for not_one in ("", "ab"):
        with pytest.raises(UserError):
            predict_next_char(make(), not_one)


def test_default_prime_is_known_to_any_model() -> None:
    assert default_prime(make()) == "\n"
    assert default_prime(CharRNN(tuple("абв"), 8, 1)) in "абв"


def test_a_new_weight_is_noticed() -> None:
    model = make()
    before = sample(model, 40, "a", generator=seeded(1))
    with torch.no_grad():
        model.fc.bias[0] += 100
    after = sample(model, 40, "a", generator=seeded(1))
    assert before != after == "a" + "\n" * 40


def test_dropout_is_off_and_the_model_left_training() -> None:
    model = make().train()
    one, two = (sample(model, 40, "abcabc", top_k=1) for _ in range(2))
    assert one == two and model.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sampled_text_scores_as_the_models_own_loss(dtype: torch.dtype) -> None:
    words = ["bad", "cab", "fade", "a", "egg", "head"]
    choice = torch.randint(len(words), (12_000,), generator=seeded(1)).tolist()
    vocabulary = Vocabulary(TOKENS)
    ids = vocabulary.encode(" ".join(words[i] for i in choice))
    train, held_out = ids[:-5000], ids[-5000:]
    torch.manual_seed(1)
    model = CharRNN(TOKENS, 24, 2, 0.2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    hidden = model.init_hidden(8)
    for x, y in get_batches(train, 8, 16):
        logits, hidden = model(x, detach(hidden))
        loss = F.cross_entropy(logits, y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    drawn = torch.cat(list(islice(generate(model, "a", generator=seeded(1), dtype=dtype), 5000)))
    expected = evaluate(model, held_out)
    assert expected < 0.8  # it has learned
    assert abs(evaluate(model, drawn) - expected) < 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("n_streams", [1, 5])
def test_cuda_graph_draws_anew_and_follows_the_model(n_streams: int) -> None:
    model = make().cuda()
    generator = torch.Generator("cuda").manual_seed(1)
    ids = torch.stack(list(islice(generate(model, "a", n_streams, generator=generator), 300)))
    assert len(torch.unique(ids[2:, 0])) > 3  # replayed with new random numbers
    likeliest = torch.stack(list(islice(generate(model, "a", n_streams, 1), 60))).T
    a = Vocabulary(TOKENS).encode("a").cuda().expand(n_streams, 1)
    x = torch.cat((a, likeliest), dim=1)[:, :-1]
    logits, _ = model(x, model.init_hidden(n_streams))
    assert torch.equal(logits.argmax(1).view(n_streams, -1), likeliest)
