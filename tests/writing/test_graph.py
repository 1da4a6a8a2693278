"""Several steps as one CUDA graph, without CUDA: what was computed is computed again with the same
tensors, as a replay does."""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from typing import Any

import pytest
import torch
from runs import random_biases
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from charrnn import CharRNN
from charrnn.writing import generation
from charrnn.writing.decoder import CellDecoder, Decoder
from charrnn.writing.generation import AHEAD, Noise, draw


class Graph(TorchDispatchMode):
    """Records what is computed within it. What it wrote to tensors from outside is undone at its
    end, since a capture computes nothing yet."""

    def __enter__(self) -> "Graph":
        self.calls: list[tuple[Any, tuple, dict, Any]] = []
        self.made: set[int] = set()  # places in memory that belong to the graph
        self.before: dict[int, tuple[Tensor, Tensor]] = {}
        return super().__enter__()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        for argument, value in zip(function._schema.arguments, args, strict=False):
            writes = argument.alias_info is not None and argument.alias_info.is_write
            for tensor in (value if isinstance(value, list) else [value]) if writes else ():
                place = tensor.untyped_storage().data_ptr()
                if place not in self.made:
                    self.before.setdefault(id(tensor), (tensor, tensor.clone()))
        result = function(*args, **(kwargs or {}))
        aliases = any(each.alias_info is not None for each in function._schema.returns)
        if isinstance(result, Tensor) and not aliases:
            self.made.add(result.untyped_storage().data_ptr())
        self.calls.append((function, args, kwargs or {}, result))
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for tensor, before in reversed(self.before.values()):
            tensor.copy_(before)

    def replay(self) -> None:
        for function, args, kwargs, result in self.calls:
            again = function(*args, **kwargs)
            pairs = zip(result, again, strict=True) if isinstance(result, (list, tuple)) else ()
            for old, new in [(result, again)] if isinstance(result, Tensor) else pairs:
                old.copy_(new)


def captured(step: Callable[[], None]) -> Callable[[], None]:
    with Graph() as graph:
        step()
    return graph.replay


@pytest.mark.parametrize("n_streams", [1, 3])
@pytest.mark.parametrize("top_k, top_p", [(5, 1.0), (0, 0.9)])
@pytest.mark.parametrize(
    "kind, cell",
    [(CellDecoder, "lstm"), (CellDecoder, "gru"), (CellDecoder, "rnn"), (Decoder, "lstm")],
)
@torch.no_grad()
def test_a_graph_writes_what_single_steps_do(
    monkeypatch: pytest.MonkeyPatch, kind: Any, cell: str, n_streams: int, top_k: int, top_p: float
) -> None:
    monkeypatch.setattr(generation, "_captured", captured)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    torch.manual_seed(0)
    model = CharRNN(tuple("\n abcdefgh"), 16, 2, 0.0, cell).eval()
    random_biases(model)
    hidden, first = model.init_hidden(n_streams), torch.arange(n_streams)

    def choose(logits: Tensor, noise: Tensor) -> Tensor:
        return draw(logits, top_k, top_p, 1.0, noise)

    def new_noise() -> Noise:
        return Noise(7, range(1, n_streams + 1), top_k or 10, hidden[0].device)

    noise, decoder, ids, expected = new_noise(), kind(model, hidden), first, []
    noise.left = 0  # the first block is used up when a graph begins
    for _ in range(4 * AHEAD):
        ids = choose(decoder.step(ids), noise.take())
        expected.append(ids)
    ids = generation._replayed(kind(model, hidden), first, choose, new_noise())
    assert torch.equal(torch.stack(list(islice(ids, 4 * AHEAD))), torch.stack(expected))
    assert len({tuple(each.tolist()) for each in expected}) > 3
