"""Ids -> logits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charrnn.network.device import has_persistent_lstm
from charrnn.text.vocabulary import Vocabulary

Hidden = tuple[Tensor, Tensor] | Tensor  # (h, c); h alone without LSTM: [n_layers, B, n_hidden]
# Add a cell here: anything that is called like nn.LSTM, for example
# "relu": partial(nn.RNN, nonlinearity="relu"). Flags, files and sampling follow.
CELLS: dict[str, Callable[..., nn.Module]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
LONGEST_MEMORY = 200  # characters, before training; cold starts keep such units from running away


class CharRNN(nn.Module):
    """One-hot characters -> LSTM -> dropout -> linear -> logits.

    The recurrent layers are called ``lstm`` whatever the cell, which is one of ``CELLS``. In
    training a share ``drop_prob`` of each layer's outputs is dropped, and a share ``input_drop`` of
    the characters is hidden: the model reads zeros instead, but still has to predict them (as Gal
    and Ghahramani 2016, arXiv:1512.05287, section 4.2, do with words).
    """

    has_cell_state: torch.jit.Final[bool]  # whether the state is a pair (h, c) as in an LSTM
    __jit_unused_properties__ = ("is_faster_by_layer",)

    def __init__(
        self,
        unique_tokens: tuple[str, ...],
        n_hidden: int = 256,
        n_layers: int = 2,
        drop_prob: float = 0.5,
        cell: str = "lstm",
        input_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.n_hidden = n_hidden
        self.n_layers = n_layers
        self.drop_prob = drop_prob

        self.vocabulary = Vocabulary(tuple(unique_tokens))
        self.unique_tokens = unique_tokens  # these three are the notebook's
        self.int2char = dict(enumerate(unique_tokens))
        self.char2int = {char: i for i, char in self.int2char.items()}

        self.hide = nn.Dropout1d(input_drop)  # whole characters: rows of [B, T, V]
        between = drop_prob if n_layers > 1 else 0.0  # nn.LSTM drops only between layers
        self.lstm = CELLS[cell](
            len(unique_tokens), n_hidden, n_layers, dropout=between, batch_first=True
        )
        self.has_cell_state = isinstance(self.lstm, nn.LSTM)
        self.dropout = nn.Dropout(drop_prob)
        self.fc = nn.Linear(n_hidden, len(unique_tokens))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize all weights.

        Recurrent weights are orthogonal (Saxe et al. 2014, arXiv:1312.6120). The forget-gate bias
        is 1 (Jozefowicz et al. 2015, section 2.2), except that one unit in 32 starts with a longer
        memory, of up to ``LONGEST_MEMORY`` characters ("chrono initialization" of Tallec and
        Ollivier 2018, arXiv:1804.11188). All other weights are normal with a standard deviation of
        1 / sqrt(n_hidden).
        """
        if self.fc.weight.is_meta:  # about to be loaded
            return
        own = not isinstance(self.lstm, nn.RNNBase)  # an added cell initializes itself
        for name, weight in () if own else self.lstm.named_parameters():
            if "bias" in name:
                nn.init.zeros_(weight)
                if "bias_ih" in name and self.has_cell_state:
                    take_in, keep, *_ = weight.data.split(self.n_hidden)  # gates; then cell, output
                    nn.init.ones_(keep)
                    # else the model learns late, or never, to count the characters of a line
                    memory = torch.linspace(LONGEST_MEMORY, 1, self.n_hidden // 32).log()
                    keep[: len(memory)] = memory
                    take_in[: len(memory)] = -memory
            elif name == "weight_ih_l0":  # one-hot input: each column is a character's embedding
                nn.init.normal_(weight, std=self.n_hidden**-0.5)
            else:  # one square block for each gate, as many as the cell has
                for gate in weight.data.split(self.n_hidden):
                    nn.init.orthogonal_(gate)
        nn.init.normal_(self.fc.weight, std=self.n_hidden**-0.5)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """Return the logits of each next character ``[B * T, V]`` and the new hidden state.

        ``x`` are ids ``[B, T]`` or one-hot vectors ``[B, T, V]``; ``hidden`` is a state as
        ``init_hidden`` returns it.
        """
        if x.dim() == 2:
            x = one_hot_encode(x, len(self.unique_tokens)).to(self.fc.weight.dtype)
        x = self.hide(x)
        output, hidden = self.recurrent(x, hidden)
        return self.fc(self.dropout(output).flatten(0, 1)), hidden

    def recurrent(self, x: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """Return what ``self.lstm`` computes, in the fastest way for this device."""
        if not torch.jit.is_scripting():
            layers = self.layer_by_layer if self.is_faster_by_layer else self.lstm
            return layers(x, hidden)
        if self.has_cell_state:  # torch.jit.script must be told which of two types a state has
            assert torch.jit.isinstance(hidden, tuple[Tensor, Tensor])
            return self.lstm(x, hidden)
        assert isinstance(hidden, Tensor)
        return self.lstm(x, hidden)

    @property
    def is_faster_by_layer(self) -> bool:
        """Whether cuDNN has its persistent LSTM for a layer of this size in float16."""
        fits = self.has_cell_state and self.n_hidden <= 1024 and self.n_hidden % 128 == 0
        device = self.fc.weight.device
        return fits and has_persistent_lstm(device) and torch.is_autocast_enabled("cuda")

    def layer_by_layer(self, x: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        """Return what ``self.lstm`` computes, calling cuDNN for one layer at a time.

        cuDNN keeps the weights on the chip between characters (Diamos et al. 2016, "Persistent
        RNNs") only for a single layer whose input width is a multiple of 128.
        """
        lstm, states = cast(nn.LSTM, self.lstm), []
        all_weights = cast(list[list[Tensor]], lstm.all_weights)
        for layer, (w_ih, *others) in enumerate(all_weights):
            if layer:
                x = F.dropout(x, lstm.dropout, self.training)
            elif spare := -x.shape[2] % 128:
                x, w_ih = F.pad(x, (0, spare)), F.pad(w_ih, (0, spare))
            before, weights = [state[layer : layer + 1] for state in hidden], [w_ih, *others]
            # with biases, one layer, no dropout of its own, in one direction, batch first
            x, *after = torch.lstm(x, before, weights, True, 1, 0.0, self.training, False, True)
            states.append(after)
        h, c = (torch.cat(each) for each in zip(*states, strict=True))
        return x, (h, c)

    def init_hidden(
        self, batch_size: int, weight_device: torch.device | str | None = None
    ) -> Hidden:
        """Return zeros (h, c), each ``[n_layers, batch_size, n_hidden]``; h alone without LSTM."""
        weight = self.fc.weight
        shape = (self.n_layers, batch_size, self.n_hidden)
        zeros = weight.new_zeros(shape, device=weight_device or weight.device)
        return (zeros, zeros.clone()) if self.has_cell_state else zeros


def map_hidden(function: Callable[[Tensor], Tensor], hidden: Hidden) -> Hidden:
    """Apply ``function`` to each tensor of a state."""
    if isinstance(hidden, Tensor):
        return function(hidden)
    h, c = hidden
    return function(h), function(c)


def detach(hidden: Hidden) -> Hidden:
    """Return the state without its history, so that gradients stop here (truncated BPTT)."""
    return map_hidden(Tensor.detach, hidden)


def keep_rows(hidden: Hidden, kept: Tensor) -> Hidden:
    """Return the state with zeros in all rows but those ``kept`` ``[B]`` bool."""
    return map_hidden(lambda h: h.where(kept[:, None], 0), hidden)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, and restore the model's mode at the end."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def copy_weights(source: CharRNN, target: CharRNN) -> int:
    """Copy the weights of ``source`` into ``target``, which knows all characters of the source.

    Weights of characters that are new to the source are left alone; return how many those are.
    """
    places = torch.tensor([target.char2int[char] for char in source.unique_tokens])
    ours = target.state_dict()
    for name, weight in source.state_dict().items():
        if name == "lstm.weight_ih_l0":
            ours[name][:, places] = weight.to(ours[name].device)
        elif name.startswith("fc."):
            ours[name][places] = weight.to(ours[name].device)
        elif weight.shape == ours[name].shape:
            ours[name].copy_(weight)
        else:  # of an added cell: the dimension that differs is that of the characters
            pairs = enumerate(zip(weight.shape, ours[name].shape, strict=True))
            dim = next(i for i, (old, new) in pairs if old != new)
            ours[name].index_copy_(dim, places.to(ours[name].device), weight.to(ours[name].device))
    return len(target.unique_tokens) - len(places)


def one_hot_encode(int_words: Tensor, n_labels: int) -> Tensor:
    """Return one-hot vectors ``[B, T, n_labels]`` float32 of ids ``[B, T]``."""
    return F.one_hot(int_words.long(), n_labels).float()
