"""Ids -> logits."""

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
    is cut into rows read side by side, first from zeros, then each from the state that the row
    above ended in, until a stretch of the rows has the loss it had before to 1e-5: from there on
    nothing would change (Jacobi iteration: with R rows it is exact after R rounds, and an LSTM
    forgets within a few hundred characters).

    Raises ValueError for fewer than 2 characters.
    """
    if len(ids) < 2:
        raise ValueError(f"{len(ids)} characters: evaluating needs at least 2")
    was_training = model.training
    model.eval()
    n_rows = max(1, min(64, (len(ids) - 1) // 2048))
    width = (len(ids) - 1) // n_rows
    # a large vocabulary makes one-hot input and logits large
    stretch = max(1, min(64, (1 << 22) // (n_rows * len(model.unique_tokens))))
    x = ids[: n_rows * width].view(n_rows, width).split(stretch, dim=1)
    y = ids[1 : n_rows * width + 1].view(n_rows, width).split(stretch, dim=1)
    losses: list[float] = []  # of each stretch
    ends = hidden = model.init_hidden(n_rows)
    for _ in range(n_rows):
        settled = False
        for i, stretches in enumerate(zip(x, y, strict=True)):
            loss, hidden = _score(model, *stretches, hidden)
            settled = i < len(losses) and abs(loss - losses[i]) < 1e-5 * x[i].numel()
            losses[i : i + 1] = [loss]
            if settled:
                break
        if settled:
            break
        ends = hidden
        hidden = from_row_above(ends)
    rest = ids[n_rows * width :]
    if len(rest) > 1:
        last = of_each(lambda state: state[:, -1:].contiguous(), ends)
        losses.append(_score(model, rest[None, :-1], rest[None, 1:], last)[0])
    model.train(was_training)
    return sum(losses) / (len(ids) - 1)


def from_row_above(ends: Hidden) -> Hidden:
    """Where each row starts: the first from zeros, each other one where the row above ended."""
    return of_each(lambda state: F.pad(state[:, :-1], (0, 0, 1, 0)), ends)


def _score(model: CharRNN, x: Tensor, y: Tensor, hidden: Hidden) -> tuple[float, Hidden]:
    """Summed cross-entropy of ``y`` after ``x`` in nats, and the state; both ``[R, W]`` ids."""
    device = model.fc.weight.device
    logits, hidden = model(x.to(device), hidden)
    target = y.to(device).long().flatten()
    return F.cross_entropy(logits.float(), target, reduction="sum").item(), hidden
