"""The model and the decoder against slow, obviously right versions."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from charrnn import CharRNN, evaluate, one_hot_encode
from charrnn.generation import Decoder, Streams

TOKENS = tuple("abcdefg\n")


def make(n_hidden: int = 12, n_layers: int = 2, cell: str = "lstm") -> CharRNN:
    torch.manual_seed(0)
    model = CharRNN(TOKENS, n_hidden, n_layers, 0.5, cell).eval()
    for name, weight in model.named_parameters():
        if "bias" in name:  # zeros would hide a bias that is left out
            torch.nn.init.normal_(weight)
    return model


def naive_lstm(model: CharRNN, x: Tensor) -> Tensor:
    """The equations of nn.LSTM's documentation, one step and one layer at a time."""
    outputs = []
    h = [torch.zeros(len(x), model.n_hidden) for _ in range(model.n_layers)]
    c = [torch.zeros(len(x), model.n_hidden) for _ in range(model.n_layers)]
    p = dict(model.lstm.named_parameters())
    for t in range(x.shape[1]):
        below = x[:, t]
        for k in range(model.n_layers):
            gates = below @ p[f"weight_ih_l{k}"].T + p[f"bias_ih_l{k}"]
            gates = gates + h[k] @ p[f"weight_hh_l{k}"].T + p[f"bias_hh_l{k}"]
            i, f, g, o = gates.split(model.n_hidden, dim=1)
            c[k] = f.sigmoid() * c[k] + i.sigmoid() * g.tanh()
            below = h[k] = o.sigmoid() * c[k].tanh()
        outputs.append(below)
    return torch.stack(outputs, 1) @ model.fc.weight.T + model.fc.bias


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_forward_is_the_naive_lstm(n_layers: int) -> None:
    model = make(n_layers=n_layers)
    ids = torch.randint(len(TOKENS), (3, 9))
    one_hot = one_hot_encode(ids, len(TOKENS))
    hidden = model.init_hidden(3)
    from_ids, _ = model(ids, hidden)
    from_one_hot, _ = model(one_hot, hidden)
    expected = naive_lstm(model, one_hot).flatten(0, 1)
    torch.testing.assert_close(from_ids, from_one_hot, atol=1e-5, rtol=0)
    torch.testing.assert_close(from_ids, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n_hidden", [5, 64])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("n_streams", [1, 7])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_decoder_is_forward(n_hidden: int, n_layers: int, n_streams: int, cell: str) -> None:
    model = make(n_hidden, n_layers, cell)
    ids = torch.randint(len(TOKENS), (n_streams, 20))
    hidden = model.init_hidden(n_streams)
    with torch.no_grad():
        logits, after = model(ids, hidden)
        expected = logits.view(n_streams, 20, -1)
        decoder = Decoder(model, torch.float32, n_streams == 1)
        streams = Streams(decoder, hidden)
        for t in range(20):
            logits = decoder.step(ids[:, t], streams)
            torch.testing.assert_close(logits, expected[:, t], atol=1e-4, rtol=0)
        torch.testing.assert_close(streams.hidden(), after, atol=1e-4, rtol=0)


@pytest.mark.parametrize("n_streams", [1, 5])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_decoder_with_rounded_weights_is_near(cell: str, n_streams: int) -> None:
    model = make(n_hidden=32, n_layers=2, cell=cell)
    ids = torch.randint(len(TOKENS), (n_streams, 20))
    with torch.no_grad():
        logits, _ = model(ids, hidden := model.init_hidden(n_streams))
        expected = logits.log_softmax(1).view(n_streams, 20, -1)
        streams = Streams(decoder := Decoder(model, torch.bfloat16, n_streams == 1), hidden)
        logp = torch.stack([decoder.step(x, streams).log_softmax(1) for x in ids.T], dim=1)
    kl = F.kl_div(logp, expected, log_target=True, reduction="none").sum(2)
    assert 0 < kl.mean() < 1e-3


@pytest.mark.parametrize("length", [2, 100, 4097, 9000])
def test_evaluate_is_one_long_sequence(length: int) -> None:
    model = make()
    ids = torch.randint(len(TOKENS), (length,))
    with torch.no_grad():
        logits, _ = model(ids[None, :-1], model.init_hidden(1))
    assert evaluate(model, ids) == pytest.approx(F.cross_entropy(logits, ids[1:]).item(), abs=1e-4)


def test_gradients_agree_with_finite_differences() -> None:
    model = make(n_hidden=3).double()
    ids = torch.randint(len(TOKENS), (2, 6))
    names, weights = zip(*model.named_parameters(), strict=True)

    def loss(*values: Tensor) -> Tensor:
        call = torch.func.functional_call
        named = dict(zip(names, values, strict=True))
        logits, _ = call(model, named, (ids[:, :-1], model.init_hidden(2)))
        return F.cross_entropy(logits, ids[:, 1:].flatten())

    assert torch.autograd.gradcheck(loss, weights)
