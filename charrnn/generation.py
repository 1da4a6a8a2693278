"""State -> text."""

from collections.abc import Iterator
from itertools import islice
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from charrnn.data import Vocabulary
from charrnn.errors import UserError
from charrnn.model import CharRNN, Hidden

State = list[tuple[Tensor, Tensor]]  # per layer (h, c), each [N, n_hidden]


class Decoder:
    """A CharRNN's weights laid out for one character at a time; any number of streams.

    One step costs one product per layer: the input product of layer 0 is a row of a table (a
    one-hot row times W is a column of W), the layers above multiply [input, h] by [W_ih | W_hh].
    Logits equal CharRNN.forward's in evaluation mode.
    """

    def __init__(self, model: CharRNN, dtype: torch.dtype = torch.float32) -> None:
        self.n_hidden = model.n_hidden
        weights = {name: w.detach() for name, w in model.named_parameters()}

        def ours(name: str) -> Tensor:
            # input, forget, cell, output -> input, forget, output, cell: one sigmoid for three
            i, f, g, o = weights[f"lstm.{name}"].chunk(4)
            return torch.cat((i, f, o, g)).to(dtype)

        self.table = (ours("weight_ih_l0") + (ours("bias_ih_l0") + ours("bias_hh_l0"))[:, None]).T
        self.table = self.table.contiguous()
        self.recurrent = [ours("weight_hh_l0")]
        self.bias: list[Tensor | None] = [None]
        for layer in range(1, model.n_layers):
            both = (ours(f"weight_ih_l{layer}"), ours(f"weight_hh_l{layer}"))
            self.recurrent.append(torch.cat(both, dim=1))
            self.bias.append(ours(f"bias_ih_l{layer}") + ours(f"bias_hh_l{layer}"))
        self.fc_weight = weights["fc.weight"].to(dtype)
        self.fc_bias = weights["fc.bias"].to(dtype)

    def start(self, hidden: Hidden) -> State:
        """A copy of a state as ``CharRNN.forward`` gives it, to be stepped in place."""
        h, c = (state.detach().to(self.table.dtype, copy=True) for state in hidden)
        return list(zip(h, c, strict=True))

    def step(self, ids: Tensor, state: State) -> Tensor:
        """Read one character per stream, ``[N]`` ids; return the next one's logits ``[N, V]``.

        Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000:
        c = f * c + i * g, h = o * tanh(c).
        """
        below = None
        for (h, c), weight, bias in zip(state, self.recurrent, self.bias, strict=True):
            if below is None:
                gates = torch.addmm(self.table[ids], h, weight.T)
            else:
                gates = F.linear(torch.cat((below, h), 1), weight, bias)
            i, f, o = gates[:, : 3 * self.n_hidden].sigmoid_().chunk(3, dim=1)
            c.mul_(f).addcmul_(i, gates[:, 3 * self.n_hidden :].tanh_())
            below = torch.mul(o, c.tanh(), out=h)
        return F.linear(below, self.fc_weight, self.fc_bias).float()


_decoders: WeakKeyDictionary[CharRNN, tuple[list, Decoder]] = WeakKeyDictionary()


def decoder_of(model: CharRNN) -> Decoder:
    """The model's decoder in float32, laid out anew only when a weight has changed."""
    version = [(w.data_ptr(), w._version) for w in model.parameters()]
    known = _decoders.get(model)
    if known is None or known[0] != version:
        known = _decoders[model] = (version, Decoder(model))
    return known[1]


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
    if temperature == 0:
        return logits.argmax(dim=1)
    n_kept = min(top_k or logits.shape[1], logits.shape[1])
    logits, ids = logits.topk(n_kept) if n_kept < logits.shape[1] else logits.sort(descending=True)
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
) -> Iterator[Tensor]:
    """Endless characters after ``prime`` for independent streams: ``[num_samples]`` ids at a time.

    Raises UserError at the call as ``encode_prime`` does.
    """
    ids = encode_prime(model, prime).to(model.fc.weight.device)

    @torch.no_grad()
    def characters() -> Iterator[Tensor]:
        logits, hidden = read_prime(model, ids)
        decoder = decoder_of(model) if dtype == torch.float32 else Decoder(model, dtype)
        h, c = (state.repeat(1, num_samples, 1) for state in hidden)
        state, logits = decoder.start((h, c)), logits.repeat(num_samples, 1)
        while True:
            chosen = draw(logits, top_k, top_p, temperature, generator)
            yield chosen
            logits = decoder.step(chosen, state)

    return characters()


def read_prime(model: CharRNN, ids: Tensor) -> tuple[Tensor, Hidden]:
    """The logits after ``ids`` ``[1, T]``, ``[1, V]``, and the state; one pass, dropout off."""
    was_training = model.training
    model.eval()
    logits, hidden = model(ids, model.init_hidden(1))
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

    Raises UserError when the model never saw ``char``.
    """
    ids = encode_prime(model, char)[0].to(model.fc.weight.device)
    decoder = decoder_of(model)
    state = decoder.start(h if h is not None else model.init_hidden(1))
    logits = decoder.step(ids, state)
    h, c = zip(*state, strict=True)
    return model.int2char[int(draw(logits, top_k))], (torch.stack(h), torch.stack(c))
