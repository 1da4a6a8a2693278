"""Drawing and generating against definitions written out, and against the model's own loss."""

import inspect
import resource
import unicodedata
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch
from runs import random_biases
from torch import Tensor, nn
from torch.nn import functional as F

from charrnn import (
    CharRNN,
    Vocabulary,
    evaluate,
    get_batches,
    next_char_probabilities,
    predict_next_char,
    sample,
)
from charrnn.errors import UserError
from charrnn.network.model import CELLS, detach
from charrnn.text.vocabulary import UNKNOWN
from charrnn.writing import generation
from charrnn.writing.decoder import CellDecoder, Decoder, has_fast_step, plain_step, without_cudnn
from charrnn.writing.generation import (
    SIZE,
    StoppedText,
    default_prime,
    draw,
    encode_prime,
    generate,
    generate_text,
    known_form,
)

TOKENS = tuple("\n abcdefgh")


def make(cell: str = "lstm", n_layers: int = 2, n_hidden: int = 16) -> CharRNN:
    torch.manual_seed(0)
    model = CharRNN(TOKENS, n_hidden, n_layers, 0.5, cell).eval()
    random_biases(model)
    return model


def text_model(text: str) -> CharRNN:
    """An untrained model of the characters of a text."""
    return CharRNN(Vocabulary.from_text(text).tokens, 8, 1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n_hidden", [5, 64])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("n_streams", [1, 7])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_decoders_are_forward(n_hidden: int, n_layers: int, n_streams: int, cell: str) -> None:
    model = make(cell, n_layers, n_hidden)
    ids = torch.randint(len(TOKENS), (n_streams, 20))
    with torch.no_grad():
        _, hidden = model(ids, model.init_hidden(n_streams))
        logits, _ = model(ids, hidden)
        decoders = Decoder(model, hidden), CellDecoder(model, hidden)
        for step in (*(each.step for each in decoders), plain_step(model.train(), hidden)):
            for t in range(20):
                expected = logits.view(n_streams, 20, -1)[:, t]
                torch.testing.assert_close(step(ids[:, t]), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("n_streams", [1, 5])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize(
    "kind, dtype",
    [(Decoder, torch.bfloat16), (CellDecoder, torch.bfloat16), (CellDecoder, torch.half)],
)
def test_decoder_with_rounded_weights_is_near(
    kind: Any, dtype: torch.dtype, cell: str, n_streams: int
) -> None:
    model = make(cell, n_hidden=32)
    ids = torch.randint(len(TOKENS), (n_streams, 20))
    step = plain_step(model, model.init_hidden(n_streams))
    rounded = kind(model, model.init_hidden(n_streams), dtype)
    with torch.no_grad():
        expected = torch.stack([step(x).log_softmax(1) for x in ids.T])
        logp = torch.stack([rounded.step(x).log_softmax(1) for x in ids.T])
    kl = F.kl_div(logp, expected, log_target=True, reduction="none").sum(2)
    assert 0 < kl.mean() < 1e-3


@pytest.mark.parametrize("kind", [Decoder, CellDecoder])
def test_a_decoder_keeps_the_weights_and_the_state_it_was_given(kind: Any) -> None:
    model, ids = make(), torch.tensor([1, 2])
    hidden = model.init_hidden(2)
    decoder = kind(model, hidden)
    with torch.no_grad():
        expected = kind(model, hidden).step(ids).clone()
        for tensor in (*model.parameters(), *hidden):
            tensor.add_(1)
        assert torch.equal(decoder.step(ids), expected)


def test_cudnn_is_switched_off_and_on_whatever_precision_is_set() -> None:
    rnn = getattr(torch.backends.cudnn, "rnn", None)  # torch >= 2.9
    before = getattr(rnn, "fp32_precision", "")
    try:
        if rnn is not None:
            rnn.fp32_precision = "ieee"
        with without_cudnn():
            assert not torch.backends.cudnn.enabled
        assert torch.backends.cudnn.enabled
    finally:
        if rnn is not None:
            rnn.fp32_precision = before


def test_which_cells_have_a_fast_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.LSTM):
        """A learner's, which may do anything."""

    for cell, entry in CELLS.items():
        assert has_fast_step(make(cell)), cell
        for changed in (Own, partial(nn.RNN, nonlinearity="relu")):
            monkeypatch.setitem(CELLS, cell, changed)
            assert not has_fast_step(make(cell))
        monkeypatch.setitem(CELLS, cell, entry)


@pytest.mark.parametrize("cell", ["lstm", "relu"])
@pytest.mark.parametrize("n_streams", [1, 4000])
def test_a_model_in_training_writes_as_it_is_now(
    n_streams: int, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fused optimizers change weights without a trace (``_version`` stays): no cache may notice."""
    monkeypatch.setitem(CELLS, "relu", partial(nn.RNN, nonlinearity="relu"))
    model = make(cell).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.99), fused=True)
    ids = Vocabulary(TOKENS).encode("abcadbfehadcabg" * 10)

    def drawn(steps: int) -> Tensor:
        return torch.stack(
            list(islice(generate(model, "\n", range(n_streams), top_k=0, seed=1), steps))
        )

    for _ in range(3):  # a sample, a few steps, a sample, as a run does
        chars = drawn(4 if n_streams > 1 else 2000)
        x = torch.cat((torch.full((1, n_streams), TOKENS.index("\n")), chars)).T
        with torch.no_grad():
            model.eval()
            logits, _ = model(x[:, :-1], model.init_hidden(n_streams))
        p, y = logits.double().softmax(dim=1), x[:, 1:].flatten()
        # each character was drawn from its own p, so that counts are within a few deviations
        counts = torch.bincount(y, minlength=len(TOKENS))
        deviation = (p * (1 - p)).sum(0).sqrt()
        assert ((counts - p.sum(0)).abs() < 5 * deviation).all()
        chosen = p.gather(1, y[:, None])
        expected, spread = (p * p).sum(1), (p**3).sum(1) - (p * p).sum(1) ** 2
        assert (chosen.sum() - expected.sum()).abs() < 5 * spread.sum().sqrt()

        best, _ = predict_next_char(model, "b", top_k=1)
        logits, _ = model(ids[None, 1:2], model.init_hidden(1))
        assert best == TOKENS[logits.argmax()]
        model.train()
        for _ in range(15):
            logits, _ = model(ids[None, :-1], model.init_hidden(1))
            optimizer.zero_grad()
            F.cross_entropy(logits, ids[1:]).backward()
            optimizer.step()


def test_a_text_keeps_the_weights_that_it_began_with() -> None:
    model = make()
    undisturbed = list(islice(generate(model, "a", range(1, 3), seed=1), 50))
    steps = generate(model, "a", range(1, 3), seed=1)
    drawn = list(islice(steps, 10))
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert torch.equal(torch.stack(drawn + list(islice(steps, 40))), torch.stack(undisturbed))


@pytest.mark.parametrize("size", [0, 1, 50])
def test_sample_is_the_prime_and_size_characters(size: int) -> None:
    text = sample(make(), size, prime="abc", top_k=3)
    assert text.startswith("abc") and len(text) == 3 + size and set(text) <= set(TOKENS)


def test_samples_defaults_are_those_of_the_flags() -> None:
    from sample import parser

    flags = vars(parser().parse_args([]))
    own = {p.name: p.default for p in inspect.signature(sample).parameters.values()}
    own |= {p.name: p.default for p in inspect.signature(generate).parameters.values()} | own
    for name in ("prime", "top_k", "top_p", "temperature", "seed"):
        assert own[name] == flags[name], name
    assert own["size"] == SIZE and own["dtype"] == flags["dtype"]
    model = make()
    with torch.no_grad():
        model.fc.weight.zero_(), model.fc.bias.zero_()  # all characters are equally likely
    assert len(set(sample(model, 300, "a", seed=3)[1:])) == 5
    assert len(set(sample(model, 300, "a", seed=3, top_p=1.0)[1:])) == len(TOKENS)
    assert sample(model, 5).startswith("\n") and len(sample(model)) == 1 + 1000
    two = sample(model, 40, seed=3, num_samples=2)
    assert two == [sample(model, 40, seed=3), two[1]] and two[0] != two[1]
    assert sample(model, 40, num_samples=1, seed=3) == two[:1]
    assert len(set(sample(model, 1, "a", num_samples=70))) == 5


def test_same_seed_same_text() -> None:
    one, two, other = (sample(make(), 60, "a", seed=seed) for seed in (1, 1, 2))
    assert one == two != other


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_streams_do_not_disturb_each_other(dtype: torch.dtype) -> None:
    model = make()

    def stream(seed: int, prime: str) -> object:
        return generate(model, prime, range(1, 3), seed=seed, dtype=dtype)

    alone = [list(islice(stream(seed, prime), 30)) for seed, prime in ((1, "a"), (2, "gh"))]
    both = list(islice(zip(stream(1, "a"), stream(2, "gh"), strict=True), 30))
    for one, two in zip(alone, zip(*both, strict=True), strict=True):
        assert torch.equal(torch.stack(one), torch.stack(two))
    ids = torch.stack(alone[0])
    assert not torch.equal(ids[:, 0], ids[:, 1])


def test_a_temperature_may_follow_the_text() -> None:
    model, asked = make(), []

    def cool(written: int) -> float:
        asked.append(written)
        return 1.0 if written < 20 else 0

    options = {"top_k": 0, "seed": 4, "dtype": "float32"}
    text = sample(model, 40, "a", temperature=cool, **options)
    assert asked == list(range(40))
    assert text[:21] == sample(model, 20, "a", **options)  # as at 1.0
    assert text == sample(model, 20, text[:21], temperature=0, **options)  # then the likeliest
    with pytest.raises(UserError, match=r"temperature: -1\.0 is not"):
        sample(model, 40, "a", temperature=lambda _: -1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_cuda_graph_keeps_no_temperature_that_follows_the_text() -> None:
    model, options = make().cuda(), {"top_k": 0, "seed": 4, "dtype": "float32"}
    text = sample(model, 40, "a", temperature=lambda n: 1.0 if n < 20 else 0, **options)
    assert text == sample(model, 20, text[:21], temperature=0, **options)


@pytest.mark.parametrize("cell", ["lstm", "gru", "relu"])
def test_texts_with_primes_of_their_own(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CELLS, "relu", partial(nn.RNN, nonlinearity="relu"))
    model = make(cell)
    primes = ["a", "bad cab", "gh", "a"]
    ids = torch.stack(list(islice(generate(model, primes, range(1, 5), seed=1), 40)), dim=1)
    for number, (prime, row) in enumerate(zip(primes, ids, strict=True), 1):
        numbers = range(number, number + 1)
        alone = islice(generate(model, prime, numbers, seed=1), 40)
        assert torch.equal(row, torch.cat(list(alone)))
    assert len({tuple(row.tolist()) for row in ids}) == 4


def expected_p(logits: Tensor, top_k: int, top_p: float, temperature: float) -> Tensor:
    """The distribution to draw from, one character at a time."""
    p = (logits.double() / temperature).softmax(0).tolist()
    kept = sorted(range(len(p)), key=lambda i: -p[i])[: top_k or len(p)]
    total = sum(p[i] for i in kept)
    nucleus, reached = [], 0.0
    for i in kept:
        if reached < top_p:
            nucleus.append(i)
            reached += p[i] / total
    total = sum(p[i] for i in nucleus)
    return torch.tensor([p[i] / total if i in nucleus else 0.0 for i in range(len(p))])


@pytest.mark.parametrize("top_k", [0, 1, 3, 99])
@pytest.mark.parametrize("top_p", [1.0, 0.7, 0.01])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_definition(top_k: int, top_p: float, temperature: float) -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, 1.1, -30.0, 0.9])
    n = 20_000
    torch.manual_seed(1)
    ids = draw(logits.expand(n, -1), top_k, top_p, temperature)
    p = expected_p(logits, top_k, top_p, temperature)
    counts = torch.bincount(ids, minlength=len(p))
    assert counts[p == 0].sum() == 0
    assert ((counts / n - p).abs() <= 5 * (p * (1 - p) / n).sqrt() + 1e-9).all()


@pytest.mark.parametrize("temperature", [0, 1e-300, 1e-30, 1e-3])
def test_no_temperature_takes_the_likeliest(temperature: float) -> None:
    logits = torch.randn(50, 9, generator=seeded(1))
    assert torch.equal(draw(logits, temperature=temperature), logits.argmax(1))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_predict_next_char_carries_the_state(cell: str) -> None:
    model, hidden = make(cell), None
    for char in "abcab":
        following, hidden = predict_next_char(model, char, hidden, top_k=1)
    ids = Vocabulary(TOKENS).encode("abcab")[None]
    logits, expected = model(ids, model.init_hidden(1))
    torch.testing.assert_close(hidden, detach(expected), atol=1e-5, rtol=0)
    assert following == TOKENS[logits[-1].argmax()]


@pytest.mark.parametrize("cell", CELLS)
def test_probabilities_of_the_next_character(cell: str) -> None:
    model = make(cell).train()  # dropout would change them
    p = next_char_probabilities(model, "abca")
    assert sum(p.values()) == pytest.approx(1) and set(p) == set(TOKENS) and model.training
    assert list(p.values()) == sorted(p.values(), reverse=True)
    ids = Vocabulary(TOKENS).encode("\nabca")[None]
    logits, _ = model.eval()(ids, model.init_hidden(1))
    expected = logits[-1].softmax(0).tolist()
    assert p == pytest.approx(dict(zip(TOKENS, expected, strict=True)), abs=1e-6)
    assert next_char_probabilities(model, "\nabca") == p


@pytest.mark.parametrize("prime", ["a", "abca", "\nab", "\n"])
def test_a_prime_is_read_after_a_line_end_that_is_not_printed(prime: str) -> None:
    model, size = make(), 30
    ids = Vocabulary(TOKENS).encode(prime if prime.startswith("\n") else "\n" + prime)[None]
    chars = []
    for _ in range(size):
        logits, _ = model(ids, model.init_hidden(1))
        ids = torch.cat((ids, logits[-1:].argmax(1, keepdim=True)), dim=1)
        chars.append(TOKENS[ids[0, -1]])
    assert sample(model, size, prime, temperature=0, dtype="float32") == prime + "".join(chars)


def test_a_prime_is_read_as_it_is_by_a_model_without_line_ends() -> None:
    model = text_model("abc").eval()
    logits, _ = model(Vocabulary(model.unique_tokens).encode("ab")[None], model.init_hidden(1))
    expected = dict(zip("abc", logits[-1].softmax(0).tolist(), strict=True))
    assert next_char_probabilities(model, "ab") == pytest.approx(expected, abs=1e-6)


def test_unknown_characters_are_named() -> None:
    for prime in ("aQ", "Qa"):
        with pytest.raises(UserError, match=r"prime: .*'Q' \(U\+0051 LATIN CAPITAL LETTER Q\);"):
            sample(make(), 5, prime)
    for call in (predict_next_char, next_char_probabilities):
        with pytest.raises(UserError, match="'Q'"):
            call(make(), "Q")
    for not_one in ("", "ab"):
        with pytest.raises(UserError, match="char: "):
            predict_next_char(make(), not_one)
    with pytest.raises(UserError, match="prime is empty"):
        sample(make(), 5, "")
    with pytest.raises(UserError, match=r"stop: .*'Q'"):
        sample(make(), 5, "a", stop="aQ")
    with pytest.raises(UserError) as caught:
        sample(make(), 5, "a\x07" + "QRSTQUVWX" + "\udc80")
    assert str(caught.value).count("(U+") == 5 and "and 5 more;" in str(caught.value)
    assert "(U+0007 without a name)" in str(caught.value)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_other_normal_form_of_a_prime_will_do(form: str) -> None:
    text = "\n" + unicodedata.normalize(form, "caf\u00e9 rivi\u00e8re")
    model = text_model(text)
    for given in ("NFC", "NFD"):
        prime = unicodedata.normalize(given, "\u00e9\u00e8c")
        expected = unicodedata.normalize(form, prime)
        assert known_form(model, prime) == expected
        assert torch.equal(encode_prime(model, prime), encode_prime(model, expected))
        assert sample(model, 5, prime).startswith(expected)
        assert next_char_probabilities(model, prime) == next_char_probabilities(model, expected)
    with pytest.raises(UserError, match=r"'\u00fc' .*LATIN SMALL LETTER U WITH DIAERESIS"):
        known_form(model, "\u00e9\u00fc")


def test_a_mark_for_rare_characters_stands_for_unknown_ones() -> None:
    model = text_model("ab" + UNKNOWN)
    assert encode_prime(model, "aQb\u00e9").tolist() == [[0, 2, 1, 2]]


@pytest.mark.parametrize(
    "bad",
    [
        {"top_k": -1},
        {"top_p": 0.0},
        {"temperature": -1.0},
        {"seed": -1},
        {"num_samples": 0},
        {"size": "5"},
    ],
)
def test_numbers_out_of_range_are_named(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(bad))}: .* is not a .*number"):
        sample(make(), **{"size": 5, "prime": "a"} | bad)


def test_default_prime_is_the_most_frequent_character() -> None:
    assert default_prime(make()) == "\n"
    tokens = tuple(map(chr, range(0x400, 0x400 + 600)))  # more than are asked
    model = CharRNN(tokens, 8, 1).train()
    frequent = model.char2int["\u0500"]
    ids = torch.randint(len(tokens), (1, 600), generator=seeded(1))
    ids[:, ::3] = frequent
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    for _ in range(20):
        logits, _ = model(ids[:, :-1], model.init_hidden(1))
        optimizer.zero_grad()
        F.cross_entropy(logits, ids[0, 1:]).backward()
        optimizer.step()
    assert default_prime(model) == "\u0500" and model.training


def test_a_large_vocabulary_takes_little_memory() -> None:
    model = CharRNN(tuple(map(chr, range(0x4E00, 0x4E00 + 20_000))), 4, 1)
    rows = []
    hook = model.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prime = default_prime(model)
    assert sum(rows) <= 256 and max(rows) * 20_000 <= 1 << 20  # nor any long time
    hook.remove()
    text = sample(model, 3, prime * 3000)
    assert len(text) == 3003
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # KB; [V, V] alone would be 1.6 GB


def first_of(text: str, stops: list[str], stops_after: tuple[str, ...] = ()) -> str:
    """The definition: read on until a stop is complete, then leave out the longest of those before
    which a text ends, if there is one."""
    for end in range(len(text) + 1):
        complete = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if complete or any(text[:end].endswith(stop) for stop in stops_after):
            return text[: end - max(complete, default=0)]
    return text


@pytest.mark.parametrize(
    ("stops", "after"),
    [
        ([], ()),
        (["b"], ()),
        (["ab"], ()),
        (["aab", "ba"], ()),
        (["abab"], ()),
        (["bb", "b"], ()),
        (["abaab", "aa"], ()),
        (["ab", "b"], ()),
        ([], ("aab",)),
        ([], ("bb", "aba")),
        (["bb"], ("baa", "abb")),
        (["abb"], ("bb", "b")),
    ],
)
@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_text_ends_at_the_first_stop(
    stops: list[str], after: tuple[str, ...], length: int
) -> None:
    for number in range(200):
        ids = torch.randint(3, (30,), generator=seeded(number)).tolist()
        whole = "".join("aab"[i] for i in ids)
        text, shown = StoppedText(stops, after), ""
        for i in range(0, 30, length):
            if text.goes_on:
                shown += text.add(whole[i : i + length])
                known = whole[: i + length]
                assert first_of(whole, stops, after).startswith(shown)
                ended = first_of(known + "c", stops, after) != known + "c"
                assert text.goes_on != ended
                held_back = len(first_of(known, stops, after)) - len(shown)
                assert held_back < max(map(len, (*stops, *after)), default=1)
        assert shown + text.held == first_of(whole, stops, after)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_generated_texts_end_before_a_stop_or_at_size(num_samples: int) -> None:
    model = make()

    def texts(stop: tuple[str, ...]) -> list[str]:
        pieces = generate_text(model, "a", 100, range(num_samples), stop, top_k=0, seed=1)
        return ["".join(text) for text in zip(*pieces, strict=True)]

    whole = texts(())
    assert [len(text) for text in whole] == [100] * num_samples
    stop = (whole[0][40:43], whole[-1][60:62])
    assert texts(stop) == [first_of(text, list(stop)) for text in whole]
    assert sample(model, 100, "a", stop=("a", "b", "c"), seed=1).count("a") == 1
    after = sample(model, 100, "a", stop_after="b", seed=1, top_k=0)
    plain = sample(model, 100, "a", seed=1, top_k=0)
    assert after == "a" + first_of(plain[1:], [], ("b",)) and after.endswith("b")


def test_dropout_is_off_and_the_model_left_training() -> None:
    model = make().train()
    one, two = (sample(model, 40, "abcabc", top_k=1) for _ in range(2))
    assert one == two and model.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sampled_text_scores_as_the_models_own_loss(dtype: torch.dtype) -> None:
    words = ["bad", "cab", "fade", "a", "egg", "head"]
    choice = torch.randint(len(words), (12_000,), generator=seeded(1)).tolist()
    vocabulary = Vocabulary(TOKENS)
    ids = vocabulary.encode(" ".join(words[i] for i in choice))
    train, held_out = ids[:-5000], ids[-5000:]
    torch.manual_seed(1)
    model = CharRNN(TOKENS, 24, 2, 0.2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    hidden = model.init_hidden(8)
    for x, y in get_batches(train, 8, 16):
        logits, hidden = model(x, detach(hidden))
        loss = F.cross_entropy(logits, y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    drawn = torch.cat(list(islice(generate(model, "a", top_k=0, seed=1, dtype=dtype), 5000)))
    expected = evaluate(model, held_out)
    assert expected < 0.8  # it has learned
    assert abs(evaluate(model, drawn) - expected) < 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("options", [{}, {"top_p": 0.9}, {"top_k": 0, "temperature": 0.5}])
def test_a_cuda_graph_writes_what_single_steps_do(
    monkeypatch: pytest.MonkeyPatch, cell: str, dtype: torch.dtype, options: dict
) -> None:
    model = make(cell, n_hidden=128).to("cuda:0")

    def drawn(before_graph: int) -> Tensor:
        monkeypatch.setattr(generation, "BEFORE_GRAPH", before_graph)
        ids = generate(model, "a", range(3), seed=1, dtype=dtype, **options)
        return torch.stack(list(islice(ids, 200)))

    assert torch.equal(drawn(0), drawn(1024))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("n_streams", [1, 5])
def test_cuda_graph_draws_anew_and_follows_the_model(
    monkeypatch: pytest.MonkeyPatch, n_streams: int
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # it rounds the expected logits
    monkeypatch.setattr(generation, "BEFORE_GRAPH", 0)
    model = make().cuda()
    numbers = range(n_streams)
    ids = torch.stack(list(islice(generate(model, "a", numbers, top_k=0, seed=1), 3000)))
    assert len(torch.unique(ids[2:, 0])) > 3  # replayed with new random numbers
    likeliest = torch.stack(list(islice(generate(model, "a", numbers, 1), 60))).T
    a = Vocabulary(TOKENS).encode("a").cuda().expand(n_streams, 1)
    x = torch.cat((a, likeliest), dim=1)[:, :-1]
    logits, _ = model(x, model.init_hidden(n_streams))
    assert torch.equal(logits.argmax(1).view(n_streams, -1), likeliest)
