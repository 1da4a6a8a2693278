"""The model against slow, obviously right versions, and what follows from its table of cells."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from runs import random_biases
from torch import Tensor, nn
from torch.nn import functional as F

import sample as sample_program
import train
from charrnn import CharRNN, load_checkpoint, one_hot_encode, sample, save_checkpoint
from charrnn.network.model import CELLS, copy_weights, detach, eval_mode

TOKENS = tuple("abcdefg\n")


def make(n_hidden: int = 12, n_layers: int = 2, cell: str = "lstm") -> CharRNN:
    torch.manual_seed(0)
    model = CharRNN(TOKENS, n_hidden, n_layers, 0.5, cell).eval()
    random_biases(model)
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


@pytest.mark.parametrize("n_layers", [1, 3])
def test_layer_by_layer_is_the_same_lstm(n_layers: int) -> None:
    model = make(n_layers=n_layers)
    x = one_hot_encode(torch.randint(len(TOKENS), (3, 7)), len(TOKENS))
    hidden = tuple(torch.randn(n_layers, 3, 12) for _ in range(2))
    results = []
    for layers in (model.lstm, model.layer_by_layer):
        output, (h, c) = layers(x, hidden)
        model.zero_grad()
        (output.sum() + (h * c).sum()).backward()
        gradients = [weight.grad.clone() for weight in model.lstm.parameters()]
        results.append([output, h, c, *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_layer_by_layer_drops_between_layers_in_training_alone() -> None:
    model = make()
    x, hidden = one_hot_encode(torch.tensor([[1, 2, 3]]), len(TOKENS)), make().init_hidden(1)
    below = []
    real = F.dropout

    def watched(x: Tensor, p: float, training: bool) -> Tensor:
        below.append(real(x, p, training))
        return below[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "dropout", watched)
        model.layer_by_layer(x, hidden)
        model.train().layer_by_layer(x, hidden)
    whole, dropped = below  # once a call: not before the first layer, nor after the last
    left = dropped != 0
    assert whole.all() and 0 < left.sum() < left.numel()
    torch.testing.assert_close(dropped[left], 2 * whole[left])


def test_training_hides_characters_as_a_whole() -> None:
    model = CharRNN(TOKENS, 12, 2, 0.5, input_drop=0.25)
    x, read = torch.randint(len(TOKENS), (50, 40)), []
    model.lstm.register_forward_pre_hook(lambda lstm, args: read.append(args[0]))
    model(x, model.init_hidden(50))
    model.eval()(x, model.init_hidden(50))
    training, evaluating = read
    hidden = (training == 0).all(dim=2)
    assert 0.2 < hidden.float().mean() < 0.3  # 2,000 draws: 0.25 +- 0.01
    torch.testing.assert_close(training[~hidden], evaluating[~hidden] / 0.75)
    assert (evaluating.argmax(dim=2) == x).all() and (evaluating.sum(dim=2) == 1).all()


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


@pytest.mark.parametrize(("cell", "n_gates"), [("lstm", 4), ("gru", 3), ("rnn", 1)])
def test_weights_begin_as_documented(cell: str, n_gates: int) -> None:
    model = CharRNN(TOKENS, 8, 2, cell=cell)
    for name in ("weight_hh_l0", "weight_ih_l1", "weight_hh_l1"):
        gates = getattr(model.lstm, name).view(n_gates, 8, 8)
        torch.testing.assert_close(gates @ gates.mT, torch.eye(8).expand(n_gates, 8, 8))
    forget = torch.tensor([0.0, 1, 0, 0] if cell == "lstm" else [0.0] * n_gates)
    for k in (0, 1):
        bias = getattr(model.lstm, f"bias_ih_l{k}") + getattr(model.lstm, f"bias_hh_l{k}")
        assert torch.equal(bias, forget.repeat_interleave(8))


def test_some_units_begin_with_a_long_memory() -> None:
    model = CharRNN(TOKENS, 32, 2)
    x = torch.zeros(1, 1, len(TOKENS))
    with torch.no_grad():
        for matrix in (weight for weight in model.lstm.parameters() if weight.dim() == 2):
            matrix.zero_()  # the biases alone decide
        _, (_, kept) = model.lstm(x, (torch.zeros(2, 1, 32), torch.ones(2, 1, 32)))
    # of what a cell held, after one character: kept so, 1 / e of it is there after 200
    assert kept[:, 0, 0].tolist() == pytest.approx([200 / 201] * 2)
    assert kept[:, 0, 1:].flatten().tolist() == pytest.approx([1 / (1 + math.exp(-1))] * 62)


def test_a_cell_is_one_entry_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CELLS, "relu", partial(nn.RNN, nonlinearity="relu"))
    torch.manual_seed(0)
    model = CharRNN(TOKENS, 8, 2, 0.5, "relu")
    ids = torch.randint(len(TOKENS), (3, 9))
    before = [weight.clone() for weight in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    logits, hidden = model(ids[:, :-1], detach(model.init_hidden(3)))
    F.cross_entropy(logits, ids[:, 1:].flatten()).backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert hidden.min() == 0 < hidden.max()  # relu it is

    save_checkpoint(tmp_path / "a.net", model)
    loaded = load_checkpoint(tmp_path / "a.net")
    assert loaded.cell == "relu" and loaded.lstm.nonlinearity == "relu"
    prime = "\nab"
    text = sample(
        loaded, 30, prime, top_k=1, dtype="float32"
    )  # the likeliest each time, as forward has it
    assert len(text) == len(prime) + 30 and text == sample(
        model.eval(), 30, prime, top_k=1, dtype="float32"
    )
    x = torch.tensor([[model.char2int[char] for char in text]])
    logits, _ = model(x[:, :-1], model.init_hidden(1))
    assert torch.equal(logits.argmax(1)[len(prime) - 1 :], x[0, len(prime) :])


def test_a_new_cell_can_be_chosen_trained_and_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CELLS, "relu", partial(nn.RNN, nonlinearity="relu"))
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("a bad cab led\nthe fed cat back\n" * 30, encoding="utf-8")
    size = ["--n-hidden", "8", "--batch-size", "4", "--seq-length", "16", "--device", "cpu"]
    assert train.main(["--data", "a.txt", "--cell", "relu", "--epochs", "1", *size]) == 0
    assert load_checkpoint("rnn.net").cell == "relu"
    capsys.readouterr()
    flags = ["--size", "30", "--prime", "a", "--device", "cpu"]
    assert sample_program.main(flags) == 0
    assert len(capsys.readouterr().out) == 32
    assert sample_program.main(["--ckpt", "rnn.resume", *flags]) == 2
    assert "--resume rnn.resume" in capsys.readouterr().err


@pytest.mark.parametrize("cell", CELLS)
def test_copied_weights_go_to_the_characters_they_belong_to(cell: str) -> None:
    source, target = make(cell=cell), CharRNN(tuple(sorted((*TOKENS, "X", "é"))), 12, 2, 0, cell)
    new = [target.char2int[char] for char in "Xé"]
    untouched = target.fc.weight[new].clone()
    assert copy_weights(source, target) == 2
    text = "abgfed\nc"
    logits = []
    for model in (source, target.eval()):
        ids = torch.tensor([[model.char2int[char] for char in text]])
        known = [model.char2int[char] for char in TOKENS]
        logits.append(model(ids, model.init_hidden(1))[0][:, known])
    torch.testing.assert_close(*logits, atol=1e-6, rtol=0)
    assert torch.equal(target.fc.weight[new], untouched)


@pytest.mark.parametrize("training", [True, False])
def test_eval_mode_gives_the_mode_back_after_an_error(training: bool) -> None:
    model = make().train(training)
    with pytest.raises(ZeroDivisionError), eval_mode(model):
        assert not model.training and not model.dropout.training
        1 / 0  # noqa: B018
    assert model.training == model.dropout.training == training


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.filterwarnings("ignore")  # of what they do to nn.LSTM
def test_script_trace_and_export_compute_what_the_model_does(cell: str) -> None:
    torch.manual_seed(0)
    model = CharRNN(tuple("abcd"), 8, 2, cell=cell).eval()
    x, hidden = torch.randint(4, (2, 5)), model.init_hidden(2)
    expected = model(x, hidden)
    made = (
        torch.jit.script(model),
        torch.jit.trace(model, (x, hidden)),
        torch.export.export(model, (x, hidden)).module(),
    )
    for other in made:
        torch.testing.assert_close(other(x, hidden), expected)
