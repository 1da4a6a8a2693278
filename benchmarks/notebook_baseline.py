"""The notebook's recipe in plain PyTorch, which the other scripts compare with.

A DataLoader with one worker gives windows of ids, and the training step makes them one-hot. The
model is nn.LSTM as PyTorch initialises it, in float32, trained by Adam at 1e-3 with gradients
clipped at norm 1. The loss is read after every step, since the progress bar shows it. The sampler
calls nn.LSTM for one character at a time and, like the notebook, does not turn gradients off.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from charrnn import CharRNN, evaluate


class NotebookRNN(nn.Module):
    """The notebook's model: from one-hot ``[B, T, V]`` to logits ``[B * T, V]``."""

    def __init__(self, n_tokens: int, n_hidden: int, n_layers: int, drop_prob: float = 0.5) -> None:
        super().__init__()
        self.n_tokens, self.n_hidden, self.n_layers = n_tokens, n_hidden, n_layers
        between = drop_prob if n_layers > 1 else 0.0  # else PyTorch warns that it does nothing
        self.lstm = nn.LSTM(n_tokens, n_hidden, n_layers, dropout=between, batch_first=True)
        self.dropout = nn.Dropout(drop_prob)
        self.fc = nn.Linear(n_hidden, n_tokens)

    def forward(self, x: Tensor, hidden: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple]:
        output, hidden = self.lstm(x, hidden)
        return self.fc(self.dropout(output).contiguous().view(-1, self.n_hidden)), hidden

    def init_hidden(self, batch_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        shape = (self.n_layers, batch_size, self.n_hidden)
        return torch.zeros(shape, device=device), torch.zeros(shape, device=device)


class Windows(IterableDataset):
    """Yield windows of ``seq_length`` ids and of those that follow them, cut as the notebook
    does."""

    def __init__(self, ids: np.ndarray, batch_size: int, seq_length: int) -> None:
        self.width = seq_length + 1
        n_batches = len(ids) // (batch_size * self.width)
        self.rows = ids[: n_batches * batch_size * self.width].reshape(batch_size, -1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for i in range(0, self.rows.shape[1], self.width):
            window = torch.from_numpy(self.rows[:, i : i + self.width].astype(np.int64))
            yield window[:, :-1], window[:, 1:]


def train_steps(
    model: NotebookRNN, ids: np.ndarray, batch_size: int, seq_length: int, device: torch.device
) -> Iterator[tuple[float, tuple[Tensor, Tensor]]]:
    """Train without end. Yield after each step its loss in nats per character, and the hidden
    state, which the notebook carries over all windows and epochs."""
    data = Windows(ids, batch_size, seq_length)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    hidden = model.init_hidden(batch_size, device)
    model.train()
    while True:
        for x, y in DataLoader(data, batch_size=1, num_workers=1):
            x, y = x.to(device).squeeze(0), y.to(device).squeeze(0)
            x = F.one_hot(x, model.n_tokens).float()
            hidden = tuple(state.detach() for state in hidden)
            logits, hidden = model(x, hidden)
            loss = F.cross_entropy(logits, y.reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            yield loss.item(), tuple(state.detach() for state in hidden)


def as_char_rnn(model: NotebookRNN, tokens: tuple[str, ...]) -> CharRNN:
    """Return a CharRNN with the same weights, so that it can be evaluated and shared."""
    ours = CharRNN(tokens, model.n_hidden, model.n_layers)
    ours.load_state_dict(model.state_dict())
    return ours.to(model.fc.weight.device)


def held_out_loss(model: NotebookRNN, tokens: tuple[str, ...], ids: Tensor) -> float:
    """Return nats per character of ``ids``, evaluated as our models are."""
    return evaluate(as_char_rnn(model, tokens), ids)


def sample_ids(model: NotebookRNN, top_k: int = 5, first: int = 0) -> Iterator[int]:
    """Yield ids without end, drawn one character at a time."""
    model.eval()
    device = model.fc.weight.device
    hidden, char = model.init_hidden(1, device), first
    while True:
        x = F.one_hot(torch.tensor([[char]]), model.n_tokens).float().to(device)
        hidden = tuple(state.data for state in hidden)
        logits, hidden = model(x, hidden)
        p, ids = F.softmax(logits, dim=1).data.cpu().topk(top_k)
        p, ids = p.squeeze(0), ids.squeeze(0)
        char = int(ids[torch.multinomial(p / p.sum(), 1)])
        yield char
