"""State and character -> logits: one step of several texts, as fast as the machine allows."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charrnn.network.model import CharRNN, Hidden, eval_mode

CHECKED = 8  # characters that the fast step and the plain one must agree on
MOST_ONE_HOT = 1024  # characters of a vocabulary, above which a row of a table is read instead
ONE_STEP: dict[str, Callable[..., Any]] = {  # of each kind of layer
    "LSTM": torch.lstm_cell,
    "GRU": torch.gru_cell,
    "RNN_TANH": torch.rnn_tanh_cell,
}


def plain_step(model: CharRNN, hidden: Hidden) -> Callable[[Tensor], Tensor]:
    """Return a function that reads one character of each of N texts, ``[N]`` ids, and returns the
    logits of the next ones, ``[N, V]``: the model's own ``forward``, whatever its cell.

    ``hidden``: the state before, as ``CharRNN.forward`` returns it, ``[n_layers, N, n_hidden]``.
    The decoders do the same faster, and are tested against this.
    """
    model = deepcopy(model).eval()  # the weights of now, without dropout

    def step(ids: Tensor) -> Tensor:
        nonlocal hidden
        logits, hidden = model(ids[:, None], hidden)
        return logits

    return step


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Switch cuDNN off, whose LSTM rounds to TF32. ``torch.backends.cudnn.flags`` would set its
    other switches, too, and raises RuntimeError where ``fp32_precision`` has been set."""
    enabled = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = enabled


@torch.no_grad()
def has_fast_step(model: CharRNN) -> bool:
    """Return whether a decoder computes the same logits as the model's ``forward``.

    It does not for a cell that it does not know, nor for a model whose ``forward`` was changed. So
    both read ``CHECKED`` characters, and the logits are compared.
    """
    if type(model.lstm) not in (nn.LSTM, nn.GRU, nn.RNN) or model.lstm.mode == "RNN_RELU":
        return False
    device = model.fc.weight.device
    ids = torch.arange(CHECKED, device=device) * 7919 % len(model.unique_tokens)
    with eval_mode(model), without_cudnn():
        expected, _ = model(ids[None], model.init_hidden(1))
        try:
            decoder = make_decoder(model, model.init_hidden(1))
            found = torch.cat([decoder.step(i).clone() for i in ids[:, None]])
        except (AttributeError, IndexError, KeyError, RuntimeError, ValueError):
            return False  # the model has other modules, or weights of other shapes
    rounding = 1e-3 * (1 + float(expected.abs().max()))
    return found.shape == expected.shape and bool(((found - expected).abs() <= rounding).all())


def make_decoder(
    model: CharRNN, hidden: Hidden, dtype: torch.dtype = torch.float32
) -> "Decoder | CellDecoder":
    """Return the faster of the two decoders for the model's device; the arguments are theirs."""
    on_cuda = model.fc.weight.is_cuda and len(model.unique_tokens) <= MOST_ONE_HOT
    return (CellDecoder if on_cuda else Decoder)(model, hidden, dtype)


class CellDecoder:
    """Reads N texts one character at a time with the cells of torch: two products and one kernel
    for the rest in each layer. On CUDA a step takes as long as its kernels are many, hardly longer
    for a larger model.

    A step makes new tensors, so that a CUDA graph can hold several. Everything is computed in
    ``dtype``; float16 changes the loss of a text by less than 0.0001 nats per character.
    """

    def __init__(self, model: CharRNN, hidden: Hidden, dtype: torch.dtype = torch.float32) -> None:
        """Copy the weights and ``hidden``, the state as ``CharRNN.forward`` returns it,
        ``[n_layers, N, n_hidden]``."""
        self.is_lstm = model.has_cell_state
        self.cell = ONE_STEP[str(model.lstm.mode)]
        parts = (hidden,) if isinstance(hidden, Tensor) else hidden
        self.first = [[h.to(dtype, copy=True) for h in layer] for layer in zip(*parts, strict=True)]
        self.states = [*self.first]  # of each layer: [h, c], or [h]
        weights = {n: w.detach().to(dtype, copy=True) for n, w in model.lstm.named_parameters()}
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self.layers = [[weights[f"{name}_l{k}"] for name in names] for k in range(model.n_layers)]
        self.fc = [w.detach().to(dtype, copy=True) for w in (model.fc.weight, model.fc.bias)]
        self.one_hot = torch.eye(len(self.fc[1]), dtype=dtype, device=self.fc[1].device)

    def step(self, ids: Tensor) -> Tensor:
        """Read one character of each text, ``[N]`` ids; return the logits of the next ones,
        ``[N, V]``."""
        x = self.one_hot.index_select(0, ids)
        for k, (state, weights) in enumerate(zip(self.states, self.layers, strict=True)):
            new = self.cell(x, state if self.is_lstm else state[0], *weights)
            self.states[k] = [*new] if self.is_lstm else [new]
            x = self.states[k][0]
        return F.linear(x, *self.fc).float()

    def keep(self) -> None:
        """Copy the state to where it was before the first step: there a CUDA graph reads it."""
        for first, state in zip(self.first, self.states, strict=True):
            torch._foreach_copy_(first, state)
        self.states = [*self.first]


class Decoder:
    """Reads N texts one character at a time, faster than ``plain_step``: the weights are laid out
    for single characters, and a step allocates nothing.

    A step costs one product per layer: the input product of layer 0 is a row of a table (a
    one-hot row times W is a column of W, biases folded in), the layers above multiply [below, h]
    by [W_ih | W_hh]. Logits equal those of CharRNN.forward in evaluation mode; with dtype bfloat16
    only weights and h are rounded, the cell state c stays float32.
    """

    def __init__(self, model: CharRNN, hidden: Hidden, dtype: torch.dtype = torch.float32) -> None:
        """Copy the weights and ``hidden``, the state as ``CharRNN.forward`` returns it,
        ``[n_layers, N, n_hidden]``."""
        self.mode = str(model.lstm.mode)
        h, cell_state = (hidden, hidden) if isinstance(hidden, Tensor) else hidden
        n, size = h.shape[1:]
        self.cell_state = cell_state.detach().clone()  # c of an LSTM, else h
        weights = {name: w.detach() for name, w in model.lstm.named_parameters()}
        self.layers = []  # views made once: a step would spend a third of its time on them
        for k, state in enumerate(h):
            of_x = _gates(self.mode, weights[f"weight_ih_l{k}"], recurrent=False)
            of_h = _gates(self.mode, weights[f"weight_hh_l{k}"], recurrent=True)
            bias = _gates(self.mode, weights[f"bias_ih_l{k}"], recurrent=False)
            bias = bias + _gates(self.mode, weights[f"bias_hh_l{k}"], recurrent=True)
            if k == 0:
                self.table = (of_x.T + bias).contiguous()
            both = torch.cat((of_x, of_h), dim=1) if k else of_h.clone()
            matmul = make_matmul(both, dtype, one_stream=n == 1)
            x = state.detach().to(dtype).repeat(1, 2 if k else 1)  # [below, h]
            from_below, h_slot = x[:, :size], x[:, -size:]
            self.layers.append((matmul, bias, x, from_below, h_slot, self.cell_state[k]))
        self.fc_weight = model.fc.weight.detach().clone().T
        self.fc_bias = model.fc.bias.detach().clone()

        # what a step writes to
        self.h = torch.empty_like(self.cell_state[0])
        self.embedded = self.table.new_empty(n, self.table.shape[1])
        self.gates = torch.empty_like(self.embedded)
        self.parts = self.gates.split(size, dim=1)
        self.sigmoid_gates = self.gates[:, : (2 if self.mode == "GRU" else 3) * size]
        self.product = self.embedded.to(dtype, copy=True)
        self.logits = self.table.new_empty(n, len(self.fc_bias))

    def step(self, ids: Tensor) -> Tensor:
        """Read one character of each text, ``[N]`` ids; return the logits of the next ``[N, V]``.

        The next step overwrites them. With one text on a CPU a step allocates its sums, some KB.
        """
        base = torch.index_select(self.table, 0, ids, out=self.embedded)
        h = self.h
        for k, (matmul, bias, x, from_below, h_slot, cell_state) in enumerate(self.layers):
            if k:
                from_below.copy_(h)
                base = bias
            matmul(x, self.product)
            torch.add(base, self.product, out=self.gates)
            h = self.update(cell_state)
            h_slot.copy_(h)
        return torch.addmm(self.fc_bias, h, self.fc_weight, out=self.logits)

    def keep(self) -> None:
        """Do nothing: a step changes the state in place, where a CUDA graph reads it."""

    def update(self, cell_state: Tensor) -> Tensor:
        """Return a layer's new h, computed from ``gates``; ``cell_state`` (c of an LSTM, else h) is
        changed in place.

        LSTM: Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000; GRU: Cho
        et al. 2014 as nn.GRU has it; RNN: Elman 1990.
        """
        if self.mode == "RNN_TANH":
            return torch.tanh(self.gates, out=cell_state)
        self.sigmoid_gates.sigmoid_()
        if self.mode == "GRU":
            r, z, n_of_x, n_of_h = self.parts
            return torch.lerp(n_of_x.addcmul_(r, n_of_h).tanh_(), cell_state, z, out=cell_state)
        i, f, o, g = self.parts
        cell_state.mul_(f).addcmul_(i, g.tanh_())
        return torch.tanh(cell_state, out=self.h).mul_(o)


def _gates(mode: str, weight: Tensor, recurrent: bool) -> Tensor:
    """Return the rows of a weight or bias in the order that ``Decoder.update`` expects."""
    if mode == "RNN_TANH":
        return weight
    if mode == "GRU":  # the new gate needs its two products apart: r, z, n of x, n of h
        r, z, n = weight.chunk(3)
        nothing = torch.zeros_like(n)
        return torch.cat((r, z, nothing, n) if recurrent else (r, z, n, nothing))
    i, f, g, o = weight.chunk(4)  # one sigmoid for three neighbours
    return torch.cat((i, f, o, g))


def make_matmul(
    weight: Tensor, dtype: torch.dtype, one_stream: bool
) -> Callable[[Tensor, Tensor], object]:
    """Return a function of x ``[N, K]`` and out ``[N, rows]`` that sets out to x @ weight.T as fast
    as is known; ``weight`` ``[rows, K]`` is rounded to ``dtype``."""
    weight = weight.to(dtype)
    if one_stream and weight.is_cpu and torch.backends.mkl.is_available():
        # a matrix product reads the matrix slowly if x is a single vector, an embedding bag as fast
        # as memory allows: x @ weight.T is the sum of the columns of weight, weighted by x
        parts = math.gcd(16, len(weight))  # of the rows, so that each core gets some
        columns = torch.cat([part.T for part in weight.chunk(parts)])  # [parts * K, rows / parts]
        bags = torch.arange(len(columns), device=columns.device).view(parts, -1)

        def weighted_sum(x: Tensor, out: Tensor) -> None:
            numbers = x.expand(parts, -1)
            sums = F.embedding_bag(bags, columns, mode="sum", per_sample_weights=numbers)
            out.view(parts, -1).copy_(sums)

        return weighted_sum
    columns = weight.T
    return lambda x, out: torch.mm(x, columns, out=out)
