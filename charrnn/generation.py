"""State -> text."""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from charrnn.data import Vocabulary
from charrnn.errors import UserError
from charrnn.model import CharRNN, Hidden, of_each

Product = Callable[[Tensor, Tensor], object]  # x [N, K], out [N, rows]: out = x @ weight.T


def product_with(weight: Tensor, dtype: torch.dtype, one_stream: bool) -> Product:
    """The fastest way known to multiply by ``weight`` ``[rows, K]``, rounded to ``dtype``."""
    weight = weight.to(dtype)
    if one_stream and weight.is_cpu and torch.backends.mkl.is_available():
        # matrix products read a matrix slowly for a single vector, an embedding bag as fast as
        # memory allows: x @ weight.T is the sum of the columns of weight, each times a number of x
        parts = math.gcd(16, len(weight))  # rows are cut so that every core has some
        columns = torch.cat([part.T for part in weight.chunk(parts)])  # [parts * K, rows / parts]
        bags = torch.arange(len(columns)).view(parts, -1)

        def weighted_sum(x: Tensor, out: Tensor) -> None:
            numbers = x.expand(parts, -1)
            sums = F.embedding_bag(bags, columns, mode="sum", per_sample_weights=numbers)
            out.view(parts, -1).copy_(sums)

        return weighted_sum
    columns = weight.T
    return lambda x, out: torch.mm(x, columns, out=out)


class Decoder:
    """A CharRNN's weights laid out to read one character at a time, in any number of streams.

    One step costs one product per layer: the input product of layer 0 is a row of a table (a
    one-hot row times W is a column of W, biases folded in), the layers above multiply [below, h]
    by [W_ih | W_hh]. Logits equal CharRNN.forward's in evaluation mode; with dtype bfloat16 only
    weights and h are rounded, the cell state c stays float32.
    """

    def __init__(self, model: CharRNN, dtype: torch.dtype, one_stream: bool) -> None:
        self.cell, self.dtype = model.cell, dtype
        weights = {name: w.detach() for name, w in model.lstm.named_parameters()}
        self.products: list[Product] = []
        self.biases: list[Tensor] = []
        for layer in range(model.n_layers):
            of_x = _gates(model.cell, weights[f"weight_ih_l{layer}"], recurrent=False)
            of_h = _gates(model.cell, weights[f"weight_hh_l{layer}"], recurrent=True)
            bias = _gates(model.cell, weights[f"bias_ih_l{layer}"], recurrent=False)
            bias = bias + _gates(model.cell, weights[f"bias_hh_l{layer}"], recurrent=True)
            if layer == 0:
                self.table = (of_x.T + bias).contiguous()
            both = torch.cat((of_x, of_h), dim=1) if layer else of_h
            self.products.append(product_with(both, dtype, one_stream))
            self.biases.append(bias)
        self.fc_weight, self.fc_bias = model.fc.weight.detach().T, model.fc.bias.detach()

    def step(self, ids: Tensor, streams: "Streams") -> Tensor:
        """Read one character per stream, ``[N]`` ids; return the next one's logits ``[N, V]``.

        State and logits are overwritten in place; one stream on a CPU allocates its sums, some KB.
        """
        base = torch.index_select(self.table, 0, ids, out=streams.first)
        h = streams.h
        for layer, (x, from_below, own, kept) in enumerate(streams.layers):
            if layer:
                from_below.copy_(h)
                base = self.biases[layer]
            self.products[layer](x, streams.product)
            torch.add(base, streams.product, out=streams.gates)
            h = self.update(streams, kept)
            own.copy_(h)
        return torch.addmm(self.fc_bias, h, self.fc_weight, out=streams.logits)

    def update(self, streams: "Streams", kept: Tensor) -> Tensor:
        """A layer's new h from ``streams.gates``; ``kept`` (c of an LSTM, else h) moves in place.

        LSTM: Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000; GRU: Cho
        et al. 2014 as nn.GRU has it; RNN: Elman 1990.
        """
        if self.cell == "rnn":
            return torch.tanh(streams.gates, out=kept)
        streams.squashed.sigmoid_()
        if self.cell == "gru":
            r, z, n_of_x, n_of_h = streams.parts
            return torch.lerp(n_of_x.addcmul_(r, n_of_h).tanh_(), kept, z, out=kept)
        i, f, o, g = streams.parts
        kept.mul_(f).addcmul_(i, g.tanh_())
        return torch.tanh(kept, out=streams.h).mul_(o)


def _gates(cell: str, weight: Tensor, recurrent: bool) -> Tensor:
    """The rows of a weight or bias in the order ``Decoder.update`` wants them."""
    if cell == "rnn":
        return weight
    if cell == "gru":  # the new gate needs its two products apart: r, z, n of x, n of h
        r, z, n = weight.chunk(3)
        nothing = torch.zeros_like(n)
        return torch.cat((r, z, nothing, n) if recurrent else (r, z, n, nothing))
    i, f, g, o = weight.chunk(4)  # one sigmoid for three neighbours
    return torch.cat((i, f, o, g))


class Streams:
    """The state of N texts being written, and the buffers that a step writes to."""

    def __init__(self, decoder: Decoder, hidden: Hidden) -> None:
        """``hidden``: as ``CharRNN.forward`` gives it; copied."""
        h, kept = hidden if isinstance(hidden, tuple) else (hidden, hidden)
        n, size = h.shape[1:]
        self.kept = kept.detach().clone()  # [n_layers, N, n_hidden]: c of an LSTM, else h
        self.has_cell_state = isinstance(hidden, tuple)
        self.layers = []  # views made once: a step would spend a third of its time on them
        for layer, state in enumerate(h):
            x = state.detach().to(decoder.dtype).repeat(1, 2 if layer else 1)  # [below, h]
            self.layers.append((x, x[:, :size], x[:, -size:], self.kept[layer]))
        self.h = torch.empty_like(self.kept[0])
        self.first = decoder.table.new_empty(n, decoder.table.shape[1])
        self.gates = torch.empty_like(self.first)
        self.parts = self.gates.split(size, dim=1)
        self.squashed = self.gates[:, : (2 if decoder.cell == "gru" else 3) * size]
        self.product = self.first.to(decoder.dtype, copy=True)
        self.logits = decoder.table.new_empty(n, len(decoder.fc_bias))

    def hidden(self) -> Hidden:
        """A copy of the state, as ``CharRNN.forward`` takes it."""
        if not self.has_cell_state:
            return self.kept.clone()
        return torch.stack([own for _, _, own, _ in self.layers]).float(), self.kept.clone()


_decoders: WeakKeyDictionary[CharRNN, dict[tuple, tuple[list, Decoder]]] = WeakKeyDictionary()


def decoder_of(
    model: CharRNN, dtype: torch.dtype = torch.float32, one_stream: bool = True
) -> Decoder:
    """The model's decoder, laid out anew only when a weight has changed."""
    version = [(w.data_ptr(), w._version) for w in model.parameters()]
    known = _decoders.setdefault(model, {})
    if (key := (dtype, one_stream)) not in known or known[key][0] != version:
        known[key] = (version, Decoder(model, dtype, one_stream))
    return known[key][1]


def draw(
    logits: Tensor,
    top_k: int | None = None,
    top_p: float = 1.0,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One id per row of logits ``[N, V]`` -> ``[N]``; temperature 0 takes the likeliest.

    First temperature, then the ``top_k`` likeliest (None or 0: all), then the nucleus: the fewest
    whose probabilities reach ``top_p`` (Holtzman et al. 2020, arXiv:1904.09751). A draw is the
    argmax of p / e with e exponential noise: no transfer to the host.
    """
    if temperature < 1e-6:  # nothing smaller can be divided by in float32
        return logits.argmax(dim=1)
    logits, ids = logits.topk(min(top_k or logits.shape[1], logits.shape[1]))
    p = torch.softmax((logits - logits[:, :1]) / temperature, dim=1)
    if top_p < 1:
        p[p.cumsum(1) - p >= top_p] = 0  # what precedes a kept character sums to less than top_p
    noise = torch.empty_like(p).exponential_(generator=generator)
    return ids.gather(1, (p / noise).argmax(dim=1, keepdim=True)).squeeze(1)


def default_prime(model: CharRNN) -> str:
    """A newline, or for a model that has none the character it holds most frequent on average."""
    if "\n" in model.char2int:
        return "\n"
    every = torch.arange(len(model.unique_tokens), device=model.fc.weight.device)[:, None]
    with torch.no_grad():
        logits, _ = model(every, model.init_hidden(len(every)))
    return model.int2char[int(logits.softmax(dim=1).mean(dim=0).argmax())]


def encode_prime(model: CharRNN, prime: str) -> Tensor:
    """Ids of the prime, ``[1, len(prime)]``. Raises UserError: empty, or characters not known."""
    if not prime:
        raise UserError("--prime is empty; give at least one character to start from")
    try:
        return Vocabulary(tuple(model.unique_tokens)).encode(prime)[None]
    except UserError as error:
        raise UserError(f"--prime: {error}") from None


def generate(
    model: CharRNN,
    prime: str,
    num_samples: int = 1,
    top_k: int | None = None,
    top_p: float = 1.0,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    hidden: Hidden | None = None,
) -> Iterator[Tensor]:
    """Endless characters after ``prime`` for independent streams: ``[num_samples]`` ids at a time.

    ``hidden``: the state before the prime, ``[n_layers, 1, n_hidden]``; None: zeros. Raises
    UserError at the call as ``encode_prime`` does.
    """
    ids = encode_prime(model, prime).to(model.fc.weight.device)

    @torch.no_grad()
    def characters() -> Iterator[Tensor]:
        logits, after = read_prime(model, ids, hidden)
        decoder = decoder_of(model, dtype, num_samples == 1)
        streams = Streams(decoder, of_each(lambda state: state.repeat(1, num_samples, 1), after))
        options = (top_k, top_p, temperature, generator)
        chosen = draw(logits.repeat(num_samples, 1), *options)
        yield chosen.clone()

        def advance() -> None:
            chosen.copy_(draw(decoder.step(chosen, streams), *options))

        if chosen.is_cuda:
            advance()  # outside the graph, to set the libraries up
            yield chosen.clone()
            with torch.cuda.device(chosen.device):
                advance = _captured(advance, generator)
        while True:
            advance()
            yield chosen.clone()

    return characters()


def _captured(step: Callable[[], None], generator: torch.Generator | None) -> Callable[[], None]:
    """``step`` as a CUDA graph: one launch instead of dozens, new random numbers every time."""
    graph = torch.cuda.CUDAGraph()
    if generator is not None:  # torch's own generator is registered by itself
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@torch.no_grad()
def read_prime(model: CharRNN, ids: Tensor, hidden: Hidden | None) -> tuple[Tensor, Hidden]:
    """The logits after ``ids`` ``[1, T]``, ``[1, V]``, and the state; one pass, dropout off."""
    was_training = model.training
    model.eval()
    logits, hidden = model(ids, model.init_hidden(1) if hidden is None else hidden)
    model.train(was_training)
    return logits[-1:], hidden


def sample(
    model: CharRNN, size: int, prime: str = "The", top_k: int | None = None, **options: object
) -> str:
    """``prime`` and exactly ``size`` new characters; ``options`` as ``generate`` takes them.

    Raises UserError when the prime is empty or holds characters the model never saw.
    """
    drawn = list(islice(generate(model, prime, 1, top_k, **options), size))
    return (
        prime + Vocabulary(tuple(model.unique_tokens)).decode(torch.cat(drawn)) if drawn else prime
    )


@torch.no_grad()
def predict_next_char(
    model: CharRNN, char: str, h: Hidden | None = None, top_k: int | None = None
) -> tuple[str, Hidden]:
    """A next character after ``char`` in state ``h`` (None: zeros), and the state after ``char``.

    Raises UserError when ``char`` is not one character that the model knows.
    """
    if len(char) != 1:
        raise UserError(f"{char!r:.40} is not one character; sample() takes longer primes")
    ids = encode_prime(model, char)[0].to(model.fc.weight.device)
    streams = Streams(decoder_of(model), model.init_hidden(1) if h is None else h)
    logits = decoder_of(model).step(ids, streams)
    return model.int2char[int(draw(logits, top_k))], streams.hidden()
