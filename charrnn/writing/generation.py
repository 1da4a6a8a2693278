"""State -> text: primes, drawing, and the public functions."""

import math
import secrets
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from charrnn.errors import UserError
from charrnn.network.device import pick_dtype, torch_defaults
from charrnn.network.model import CharRNN, Hidden, eval_mode
from charrnn.system.values import Number
from charrnn.text.vocabulary import UNKNOWN
from charrnn.writing.decoder import (
    CellDecoder,
    Decoder,
    has_fast_step,
    make_decoder,
    plain_step,
)

SIZE, TOP_K = 1000, 5  # defaults: characters of a text; likeliest characters to draw from
MOST_STREAMS, MOST_HELD = 64, 1 << 24  # texts written side by side; characters of all of them
MOST_NUMBERS = 1 << 20  # of one-hot input at a time, while a prime is read
NOISE, AHEAD = 4096, 16  # at most: random numbers for each text, characters; drawn ahead
BEFORE_GRAPH = 1024  # characters, about; a CUDA graph takes as long to make as these to write
NAMED = 5  # characters that an error names
LOOKALIKES = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-"}
LOOKALIKES |= {"\u2014": "-", "\u00a0": " ", "'": "\u2019", '"': "\u201c", "-": "\u2013"}
ONE = range(1, 2)  # the numbers of the texts if there is a single one
RANGES = {  # of options, in functions, flags and a conversation
    "size": Number(int, 0, 10**12),
    "num_samples": Number(int, 1, 10**12),
    "top_k": Number(int, 0),
    "top_p": Number(float, 0, 1, exclusive_min=True),
    "temperature": Number(float, 0),
    "seed": Number(int, 0, 2**63 - 1),
}


def nearest_form(model: CharRNN, text: str) -> str:
    """Return ``text`` as it is, composed (NFC) or decomposed (NFD, Unicode Standard Annex 15): the
    form with the fewest characters unknown to the model. All three look the same."""
    forms = (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))
    return min(forms, key=lambda form: len(set(form) - model.char2int.keys()))


def unknown_characters(model: CharRNN, text: str) -> list[str]:
    """Return the characters that the model never saw, each once; none if it knows U+FFFD, which
    stands for all others."""
    if UNKNOWN in model.char2int:
        return []
    return [char for char in dict.fromkeys(text) if char not in model.char2int]


def never_saw(model: CharRNN, strange: list[str]) -> str:
    """Return words that name characters the model never saw, and similar ones that it knows."""

    def name(char: str) -> str:
        others = (char.swapcase(), LOOKALIKES.get(char))
        known = next((f", but {other!r}" for other in others if other in model.char2int), "")
        return f"'{char}' (U+{ord(char):04X} {unicodedata.name(char, 'without a name')}){known}"

    more = f" and {len(strange) - NAMED} more" if len(strange) > NAMED else ""
    return f"the model never saw {', '.join(map(name, strange[:NAMED]))}{more}"


def known_form(model: CharRNN, text: str, name: str = "prime") -> str:
    """Return the ``nearest_form`` of ``text``. Raises UserError, in which the text is called
    ``name``, if it is empty or has characters that the model never saw."""
    if not isinstance(text, str):
        raise UserError(f"{name}: {text!r:.40} is not a text")
    if not text:
        raise UserError(f"{name} is empty; give at least one character")
    form = nearest_form(model, text)
    if strange := unknown_characters(model, form):
        raise UserError(f"{name}: {never_saw(model, strange)}; leave them out")
    return form


def encode_prime(model: CharRNN, prime: str) -> Tensor:
    """Return the ids of the prime in its ``known_form``, ``[1, T]``. Raises UserError as
    ``known_form`` does."""
    return model.vocabulary.encode(known_form(model, prime))[None]


def encode_opening(model: CharRNN, prime: str) -> Tensor:
    """Return the ids to read for a text that begins with ``prime``, ``[1, T]``.

    A line end comes first if the model knows one and the prime does not begin with it: in training
    no text begins in the middle of a line. Raises UserError as ``known_form`` does.
    """
    prime = known_form(model, prime)
    at_line_start = prime.startswith("\n") or "\n" not in model.char2int
    return encode_prime(model, prime if at_line_start else "\n" + prime)


@torch.no_grad()
def default_prime(model: CharRNN) -> str:
    """Return a newline, or if the model knows none, the character that it finds most frequent: the
    likeliest on average after each of (at most) 256 characters from all over its vocabulary."""
    if "\n" in model.char2int:
        return "\n"
    device, n = model.fc.weight.device, len(model.unique_tokens)
    total = torch.zeros(n, device=device)
    with eval_mode(model):
        for ids in torch.arange(n, device=device)[:: -(-n // 256)].split(max(1, MOST_NUMBERS // n)):
            logits, _ = model(ids[:, None], model.init_hidden(len(ids)))
            total += logits.softmax(dim=1).sum(dim=0)
    return model.int2char[int(total.argmax())]


@torch.no_grad()
def read_prime(model: CharRNN, ids: Tensor, hidden: Hidden | None) -> tuple[Tensor, Hidden]:
    """Read ``ids`` ``[1, T]`` from the state ``hidden`` (None: zeros), without dropout. Return the
    logits of the next character ``[1, V]``, and the new state."""
    hidden = model.init_hidden(1) if hidden is None else hidden
    with eval_mode(model):
        for x in ids.split(max(1, MOST_NUMBERS // len(model.unique_tokens)), dim=1):
            logits, hidden = model(x.to(model.fc.weight.device), hidden)
    return logits[-1:], hidden


def side_by_side(states: Sequence[Hidden]) -> Hidden:
    """Return one state for all rows of several states, in their order."""
    pairs = [(state, state) if isinstance(state, Tensor) else state for state in states]
    h, c = (torch.cat(each, dim=1) for each in zip(*pairs, strict=True))
    return h if isinstance(states[0], Tensor) else (h, c)


@torch.no_grad()
def bits_of(model: CharRNN, prime: str, text: str) -> float:
    """Return the bits that the model needs for ``text`` after ``prime``, whatever temperature or
    top_k it was drawn with. Raises UserError as ``known_form`` does."""
    if not text:
        return 0.0
    opening = encode_opening(model, prime)[0]
    ids = torch.cat((opening, model.vocabulary.encode(text)))
    costs, hidden = [], model.init_hidden(1)
    at_a_time = max(1, MOST_NUMBERS // len(model.unique_tokens))
    with eval_mode(model):
        for x, y in zip(ids[:-1].split(at_a_time), ids[1:].split(at_a_time), strict=True):
            logits, hidden = model(x[None].to(model.fc.weight.device), hidden)
            costs.append(F.cross_entropy(logits.float().cpu(), y, reduction="none"))
    return float(torch.cat(costs)[len(opening) - 1 :].double().sum()) / math.log(2)


def draw(
    logits: Tensor,
    top_k: int | None = None,
    top_p: float = 1.0,
    temperature: float = 1.0,
    noise: Tensor | None = None,
) -> Tensor:
    """Draw one id per row of logits ``[N, V]`` -> ``[N]``; temperature 0 takes the likeliest.

    The temperature is applied first. Then the ``top_k`` likeliest are kept (None or 0: all), and of
    these the nucleus: the fewest whose probabilities reach ``top_p`` (Holtzman et al. 2020,
    arXiv:1904.09751). The id drawn is the argmax of logit / temperature + ``noise``, which has the
    standard Gumbel distribution, ``[N, top_k]`` (None: torch's own): that draws from the softmax
    (Maddison et al. 2014, arXiv:1411.0030, section 2).
    """
    if temperature < 1e-6:  # nothing smaller can be divided by in float32
        return logits.argmax(dim=1)
    logits, ids = logits.topk(min(top_k or logits.shape[1], logits.shape[1]))
    noise = -torch.empty_like(logits).exponential_().log() if noise is None else noise
    scores = torch.add(noise, logits, alpha=1 / temperature)
    if top_p < 1:
        p = torch.softmax(logits / temperature, dim=1)
        before = p.cumsum(1) - p  # is less than top_p for each character that is kept
        scores.masked_fill_(before >= top_p, -math.inf)
    return ids.gather(1, scores.argmax(dim=1, keepdim=True)).squeeze(1)


class Noise:
    """Random numbers of the standard Gumbel distribution for texts written side by side. Those of
    text n depend only on the seed and on n (Philox, a counter-based generator: Salmon et al.
    2011)."""

    def __init__(self, seed: int, numbers: range, width: int, device: torch.device) -> None:
        """``numbers``: of the texts; ``width``: random numbers for one character."""
        keys = (np.array((seed, n), np.uint64) for n in numbers)
        self.streams = [np.random.Generator(np.random.Philox(key=key)) for key in keys]
        self.steps = max(1, min(AHEAD, NOISE // width))  # characters of a block
        self.drawn = np.empty((len(numbers), self.steps, width), np.float32)
        self.block = torch.empty(self.drawn.shape, device=device)
        self.refill()

    def refill(self) -> None:
        """Draw the next block, on the CPU."""
        for stream, numbers in zip(self.streams, self.drawn, strict=True):
            stream.standard_exponential(dtype=np.float32, out=numbers)
        self.block.copy_(torch.from_numpy(-np.log(self.drawn.clip(1e-30))))
        self.left = self.steps

    def take(self) -> Tensor:
        """Return the numbers for the next character of each text, ``[N, width]``."""
        if self.left == 0:
            self.refill()
        self.left -= 1
        return self.block[:, self.steps - self.left - 1]


@torch_defaults()
def next_char_probabilities(model: CharRNN, prime: str) -> dict[str, float]:
    """Return the probability of each character after ``prime``, likeliest first; they sum to 1.

    The prime is read after a line end, as ``encode_opening`` says. Raises UserError as
    ``known_form`` does.
    """
    logits, _ = read_prime(model, encode_opening(model, prime), None)
    p, ids = logits[0].float().softmax(dim=0).sort(descending=True, stable=True)
    chars = (model.int2char[i] for i in ids.tolist())
    return dict(zip(chars, p.tolist(), strict=True))


@torch_defaults()
def predict_next_char(
    model: CharRNN, char: str, h: Hidden | None = None, top_k: int | None = None
) -> tuple[str, Hidden]:
    """Draw a character after ``char``, read in state ``h`` (None: zeros). Return it and the state
    after ``char``.

    Raises UserError when ``char`` is not one character that the model knows.
    """
    if len(char) != 1:
        raise UserError(f"char: {char!r:.40} is not one character; sample() takes longer primes")
    logits, hidden = read_prime(model, encode_prime(model, char), h)
    return model.int2char[int(draw(logits, top_k))], hidden


@overload
def sample(
    model: CharRNN,
    size: int = ...,
    prime: str | None = ...,
    top_k: int | None = ...,
    num_samples: None = ...,
    dtype: str | torch.dtype = ...,
    **options: Any,
) -> str: ...


@overload
def sample(
    model: CharRNN,
    size: int = ...,
    prime: str | None = ...,
    top_k: int | None = ...,
    *,
    num_samples: int,
    dtype: str | torch.dtype = ...,
    **options: Any,
) -> list[str]: ...


@torch_defaults()
def sample(
    model: CharRNN,
    size: int = SIZE,
    prime: str | None = None,
    top_k: int | None = None,
    num_samples: int | None = None,
    dtype: str | torch.dtype = "auto",
    **options: Any,
) -> str | list[str]:
    """Return ``prime`` (in its ``known_form``) and exactly ``size`` new characters, or fewer where
    one of ``stop`` or ``stop_after`` ends the text; with ``num_samples`` a list of so many texts.
    sample.py prints the same for the same values, and has the same defaults.

    ``options`` as ``generate_text`` and ``generate`` take them. The prime (None: that of
    ``default_prime``) is read after a line end, which the text does not show. Raises UserError when
    the prime is empty or holds characters the model never saw, and for a number out of range.
    """
    prime = default_prime(model) if prime is None else known_form(model, prime)
    if isinstance(dtype, str):
        dtype = pick_dtype(dtype, model.fc.weight.device)
    texts: list[str] = []
    for numbers in blocks(1 if num_samples is None else num_samples, size):
        pieces = generate_text(model, prime, size, numbers, top_k=top_k, dtype=dtype, **options)
        texts += [prime + "".join(text) for text in zip(*pieces, strict=True)]
    return texts[0] if num_samples is None else texts


def blocks(num_samples: int, size: int) -> Iterator[range]:
    """Yield the numbers, from 1, of the texts to write side by side, as many as memory allows.

    Raises UserError for a number out of range.
    """
    check_numbers(num_samples=num_samples, size=size)
    at_once = max(1, min(MOST_STREAMS, MOST_HELD // max(1, size)))
    first = 1
    while first <= num_samples:
        yield range(first, min(first + at_once, num_samples + 1))
        first += at_once


def generate_text(
    model: CharRNN,
    prime: str | list[str],
    size: int,
    numbers: range = ONE,
    stop: str | Sequence[str] = (),
    stop_after: str | Sequence[str] = (),
    **options: Any,
) -> Iterator[list[str]]:
    """Yield lists of strings: the next piece of each text of ``numbers``, without its prime.

    A text ends after ``size`` characters, or when one of ``stop`` or ``stop_after`` is complete
    (characters of the prime do not count): before that of ``stop``, after that of ``stop_after``.
    ``prime`` and ``options`` are those of ``generate``. Raises UserError as ``generate`` does.
    """
    check_numbers(size=size)
    stop = (stop,) if isinstance(stop, str) else stop
    stop_after = (stop_after,) if isinstance(stop_after, str) else stop_after
    stops = [known_form(model, text, "stop") for text in stop]
    stops_after = [known_form(model, text, "stop_after") for text in stop_after]
    steps = islice(generate(model, prime, numbers, **options), size)
    texts = [StoppedText(stops, stops_after) for _ in numbers]
    # each read of what was drawn waits for the device, and takes time for each text
    at_a_time = 1 if len(numbers) == 1 and model.fc.weight.is_cpu else 16
    while any(text.goes_on for text in texts) and (ids := list(islice(steps, at_a_time))):
        rows = torch.stack(ids, dim=1).tolist()
        new = ("".join(model.int2char[i] for i in row) for row in rows)
        yield [text.add(chars) for text, chars in zip(texts, new, strict=True)]
    yield [text.held for text in texts]  # the beginning of a stop that was not completed


class StoppedText:
    """A text, given in pieces of any length, that ends as soon as one of its stops is complete:
    before one of ``stops``, after one of ``stops_after``. Of several complete at once the one with
    the shortest text counts."""

    def __init__(self, stops: Sequence[str], stops_after: Sequence[str] = ()) -> None:
        # each stop with how many of its characters belong to the text
        self.stops = [(stop, 0) for stop in stops] + [(stop, len(stop)) for stop in stops_after]
        self.held, self.goes_on = "", True

    def add(self, new: str) -> str:
        """Return what is now known to belong to the text; a stop that may have begun is held."""
        if not self.goes_on:
            return ""
        text = self.held + new
        starts = [(text.find(stop), stop, kept) for stop, kept in self.stops]
        found = [(i + len(stop), i + kept) for i, stop, kept in starts if i >= 0]
        self.goes_on = not found
        begun = (
            n for stop, _ in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])
        )
        end = min(found)[1] if found else len(text) - max(begun, default=0)
        self.held = "" if found else text[end:]
        return text[:end]


def check_numbers(**given: object) -> None:
    """Raises UserError for a number that is not in its range of ``RANGES``."""
    for name, value in given.items():
        if value not in RANGES[name]:
            raise UserError(f"{name}: {value!r:.40} is not {RANGES[name]}")


def generate(
    model: CharRNN,
    prime: str | list[str],
    numbers: range = ONE,
    top_k: int | None = None,
    top_p: float | None = None,
    temperature: float | Callable[[int], float] = 1.0,
    seed: int | None = None,
    dtype: torch.dtype = torch.float32,
    hidden: Hidden | None = None,
) -> Iterator[Tensor]:
    """Yield endless characters after ``prime`` for N independent texts: ``[N]`` ids at a time.

    ``prime``: of all texts, or a list of one for each. ``numbers``: of the texts, since each
    depends only on the seed and its own number (but for rounding: products of more rows may be
    added up in another order). ``seed``: None means another one each time. ``top_k``: None means 5,
    or 0 (all) if ``top_p`` is given. ``temperature``: a number, or a function that returns it for
    the number of characters written so far (slower on a GPU). ``hidden``: the state before the
    prime, ``[n_layers, 1, n_hidden]``; None means that a text begins, so that the prime is read
    from zeros and after a line end (``encode_opening``).

    The weights are those at the first character, even if the model is trained later. Raises
    UserError at the call as ``known_form`` does, and for a number out of range.
    """
    if top_k is None:
        top_k = TOP_K if top_p is None else 0
    top_p = 1.0 if top_p is None else top_p
    seed = secrets.randbelow(2**63) if seed is None else seed
    check_numbers(top_k=top_k, top_p=top_p, seed=seed)
    if not callable(temperature):
        check_numbers(temperature=temperature)
    primes = list(prime) if isinstance(prime, list) else [prime] * len(numbers)
    encode = encode_opening if hidden is None else encode_prime
    ids = {each: encode(model, each) for each in primes}

    @torch.no_grad()
    def characters() -> Iterator[Tensor]:
        read = {each: read_prime(model, ids[each], hidden) for each in ids}  # equal ones once
        logits = torch.cat([read[each][0] for each in primes])
        states = side_by_side([read[each][1] for each in primes])
        decoder = make_decoder(model, states, dtype) if has_fast_step(model) else None
        step = decoder.step if decoder else plain_step(model, states)
        n_tokens = logits.shape[1]
        noise = Noise(seed, numbers, min(top_k or n_tokens, n_tokens), logits.device)
        written = count()

        def choose(logits: Tensor, noise: Tensor) -> Tensor:
            now = temperature
            if callable(now):
                now = float(now(next(written)))
                check_numbers(temperature=now)
            return draw(logits, top_k, top_p, now, noise)

        yield (chosen := choose(logits, noise.take()))
        # a CUDA graph would go on with the temperature that it was captured with
        use_graph = decoder and chosen.is_cuda and not callable(temperature)
        # single steps first, which also set the libraries up; then only whole blocks of noise
        singles = max(1, noise.left) + BEFORE_GRAPH // noise.steps * noise.steps
        for _ in range(singles) if use_graph else count():
            yield (chosen := choose(step(chosen), noise.take()))
        if decoder:
            yield from _replayed(decoder, chosen, choose, noise)

    return characters()


def _replayed(
    decoder: Decoder | CellDecoder,
    chosen: Tensor,
    choose: Callable[[Tensor, Tensor], Tensor],
    noise: Noise,
) -> Iterator[Tensor]:
    """Yield endless ids after ``chosen`` ``[N]``. All steps of a block of ``noise`` are one CUDA
    graph, and so one launch."""
    chosen = chosen.clone()
    block = chosen.repeat(noise.steps, 1)
    decoder.keep()

    def steps() -> None:
        ids = chosen
        for i in range(noise.steps):
            block[i] = ids = choose(decoder.step(ids), noise.block[:, i])
        chosen.copy_(ids)
        decoder.keep()

    with torch.cuda.device(chosen.device):
        replay = _captured(steps)
    while True:
        noise.refill()
        replay()
        yield from block.clone()


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """Capture ``step`` as a CUDA graph, one launch instead of dozens, and return its replay."""
    graph = torch.cuda.CUDAGraph()
    # on a stream of its own: graphs of one stream share cuBLAS's workspace, and by default that
    # stream is the first device's; thread_local: other threads, as NCCL's, may use CUDA meanwhile
    with torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"):
        step()
    return graph.replay
