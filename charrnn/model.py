"""Ids -> logits."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charrnn.data import one_hot_encode

Hidden = tuple[Tensor, Tensor] | Tensor  # (h, c); h alone without LSTM: [n_layers, B, n_hidden]
CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class CharRNN(nn.Module):
    """One-hot characters -> LSTM -> dropout -> linear -> logits.

    The recurrent layers are called ``lstm`` whatever the cell (``lstm``, ``gru``, ``rnn``).
    """

    def __init__(
        self,
        unique_tokens: tuple[str, ...],
        n_hidden: int = 256,
        n_layers: int = 2,
        drop_prob: float = 0.5,
        cell: str = "lstm",
    ) -> None:
        super().__init__()
        self.cell = cell
        self.n_hidden = n_hidden
        self.n_layers = n_layers
        self.drop_prob = drop_prob

        self.unique_tokens = unique_tokens
        self.int2char = dict(enumerate(unique_tokens))
        self.char2int = {char: i for i, char in self.int2char.items()}

        between = drop_prob if n_layers > 1 else 0.0  # nn.LSTM drops only between layers
        self.lstm = CELLS[cell](
            len(unique_tokens), n_hidden, n_layers, dropout=between, batch_first=True
        )
        self.dropout = nn.Dropout(drop_prob)
        self.fc = nn.Linear(n_hidden, len(unique_tokens))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Orthogonal recurrent weights (Saxe et al. 2014, arXiv:1312.6120) and a forget-gate bias
        of 1 (Jozefowicz et al. 2015, section 2.2); the rest as wide as the layer it feeds."""
        if self.fc.weight.is_meta:  # about to be loaded
            return
        for name, weight in self.lstm.named_parameters():
            if "bias" in name:
                nn.init.zeros_(weight)
                if "bias_ih" in name and self.cell == "lstm":  # gates: input, forget, cell, output
                    nn.init.ones_(weight.data[self.n_hidden : 2 * self.n_hidden])
            elif name == "weight_ih_l0":  # one-hot input: each column is a character's embedding
                nn.init.normal_(weight, std=self.n_hidden**-0.5)
            else:
                for gate in weight.data.split(self.n_hidden):
                    nn.init.orthogonal_(gate)
        nn.init.normal_(self.fc.weight, std=self.n_hidden**-0.5)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """``x``: ids ``[B, T]`` or one-hot ``[B, T, V]``; hidden: as ``init_hidden`` gives it.

        Returns the logits of each next character ``[B * T, V]`` and the new hidden state.
        """
        if x.dim() == 2:
            x = one_hot_encode(x, len(self.unique_tokens)).to(self.fc.weight.dtype)
        output, hidden = self.lstm(x, hidden)
        return self.fc(self.dropout(output).flatten(0, 1)), hidden

    def init_hidden(
        self, batch_size: int, weight_device: torch.device | str | None = None
    ) -> Hidden:
        """Zeros: (h, c), each ``[n_layers, batch_size, n_hidden]``; for gru and rnn only h."""
        weight = self.fc.weight
        shape = (self.n_layers, batch_size, self.n_hidden)
        zeros = weight.new_zeros(shape, device=weight_device or weight.device)
        return (zeros, zeros.clone()) if self.cell == "lstm" else zeros


def of_each(function: Callable[[Tensor], Tensor], hidden: Hidden) -> Hidden:
    """``function`` of h and of c, where there is one."""
    if isinstance(hidden, Tensor):
        return function(hidden)
    h, c = hidden
    return function(h), function(c)


def detach(hidden: Hidden) -> Hidden:
    """The same state without its history: gradients stop here (truncated BPTT)."""
    return of_each(Tensor.detach, hidden)


@torch.no_grad()
def transplant(source: CharRNN, target: CharRNN) -> int:
    """Copy the weights of ``source`` into ``target``, which knows all its characters.

    What belongs to characters new to the source stays as it was; returns how many those are.
    """
    places = torch.tensor([target.char2int[char] for char in source.unique_tokens])
    ours = target.state_dict()
    for name, weight in source.state_dict().items():
        if name == "lstm.weight_ih_l0":
            ours[name][:, places] = weight.to(ours[name].device)
        elif name.startswith("fc."):
            ours[name][places] = weight.to(ours[name].device)
        else:
            ours[name].copy_(weight)
    return len(target.unique_tokens) - len(places)


@torch.no_grad()
def evaluate(model: CharRNN, ids: Tensor) -> float:
    """Cross-entropy in nats per character of ``ids[1:]`` given all that came before in ``ids``.

    The state is carried over all of ``ids``, which one long sequence would do slowly. So the text
    is cut into rows read side by side, each from the state that the row above ended in: first a
    guess from that row's last characters, then from where that row really ended, until the loss
    stands still to 1e-5 (Jacobi iteration: with R rows it is exact after R rounds, and an LSTM
    forgets fast enough for two).

    Raises ValueError for fewer than 2 characters.
    """
    if len(ids) < 2:
        raise ValueError(f"{len(ids)} characters: evaluating needs at least 2")
    was_training = model.training
    model.eval()
    device = model.fc.weight.device
    n_rows = max(1, min(64, (len(ids) - 1) // 2048))
    width = (len(ids) - 1) // n_rows
    x = ids[: n_rows * width].view(n_rows, width)
    y = ids[1 : n_rows * width + 1].view(n_rows, width)
    starts = model.init_hidden(n_rows, device)
    if n_rows > 1:
        starts = _from_row_above(_score(model, x[:, -1024:], None, starts)[1])
    loss = math.inf
    for _ in range(n_rows):
        before = loss
        loss, ends = _score(model, x, y, starts)
        starts = _from_row_above(ends)
        if abs(loss - before) < 1e-5 * x.numel():
            break
    last = of_each(lambda state: state[:, -1:].contiguous(), ends)
    rest = ids[n_rows * width :]
    if len(rest) > 1:
        loss += _score(model, rest[None, :-1], rest[None, 1:], last)[0]
    model.train(was_training)
    return loss / (len(ids) - 1)


def _from_row_above(ends: Hidden) -> Hidden:
    """Each row's first state: zeros for the first, then where the row above ended."""
    return of_each(lambda state: F.pad(state[:, :-1], (0, 0, 1, 0)), ends)


def _score(model: CharRNN, x: Tensor, y: Tensor | None, hidden: Hidden) -> tuple[float, Hidden]:
    """Summed cross-entropy of ``y`` (none: 0), and the state after ``x``; both ``[R, W]``."""
    device = model.fc.weight.device
    total = torch.zeros((), dtype=torch.float64, device=device)
    # a large vocabulary makes one-hot input and logits large
    width = max(1, min(256, (1 << 22) // (len(x) * len(model.unique_tokens))))
    for i in range(0, x.shape[1], width):
        logits, hidden = model(x[:, i : i + width].to(device), hidden)
        if y is not None:
            target = y[:, i : i + width].to(device).long().flatten()
            total += F.cross_entropy(logits.float(), target, reduction="sum")
    return total.item(), hidden
