"""Prime -> the likeliest next words."""

import heapq

import torch

from charrnn.errors import UserError
from charrnn.network.device import torch_defaults
from charrnn.network.model import CharRNN, Hidden, eval_mode, map_hidden
from charrnn.system.values import Number
from charrnn.writing.generation import encode_opening, read_prime, side_by_side

ENDS = " \n"  # characters, one of which ends a word
MOST_READ = 2000  # prefixes of words, before the search ends
AT_ONCE = 16  # prefixes read side by side
N_WORDS = Number(int, 1, 1000)


def row_of(state: Hidden, row: int) -> Hidden:
    """Return the state of one row of a batch."""
    return map_hidden(lambda h: h[:, row : row + 1], state)


@torch_defaults()
@torch.no_grad()
def next_word_probabilities(model: CharRNN, prime: str, n: int = 5) -> dict[str, float]:
    """Return the ``n`` likeliest continuations of ``prime`` up to the next space or line end, which
    is left out, and the probability of each, likeliest first.

    A probability is exact: the product of those of the characters, times that of a space or a line
    end after them. The empty text is one of the continuations. This is a best-first search: no word
    is likelier than a prefix of it, so the likeliest words found are proven when no prefix that was
    not read is likelier than they are. After ``MOST_READ`` prefixes only the words proven by then
    are returned, which may be fewer than ``n``. Raises UserError as ``known_form`` does, for a
    model that knows neither space nor line end, and for ``n`` out of range.
    """
    if n not in N_WORDS:
        raise UserError(f"n: {n!r:.40} is not {N_WORDS}")
    ends = [model.char2int[char] for char in ENDS if char in model.char2int]
    if not ends:
        raise UserError("the model knows neither space nor line end: it has no words")
    logits, state = read_prime(model, encode_opening(model, prime), None)
    prefixes, n_read = [(1.0, "")], 0
    # a heap of prefixes to read: minus the probability, the text, the state before its last one
    waiting: list[tuple[float, str, Hidden]] = []
    found: list[tuple[float, str]] = []  # the likeliest n words so far
    least = 0.0  # a prefix that is not likelier is never read
    while True:
        p = logits.double().softmax(dim=1).cpu()
        for row, (of_prefix, prefix) in enumerate(prefixes):
            found.append((of_prefix * float(p[row, ends].sum()), prefix))
            p[row, ends] = 0
            after = row_of(state, row)
            likeliest, ids = (p[row] * of_prefix).topk(min(MOST_READ, p.shape[1]))
            for q, i in zip(likeliest.tolist(), ids.tolist(), strict=True):
                if q <= least:
                    break
                heapq.heappush(waiting, (-q, prefix + model.int2char[i], after))
        found = heapq.nlargest(n, found)
        needed = found[-1][0] if len(found) == n else 0.0
        n_read += len(prefixes)
        waiting = heapq.nsmallest(MOST_READ, waiting)  # sorted, so still a heap
        least = max(needed, -waiting[-1][0]) if len(waiting) == MOST_READ else needed
        bound = -waiting[0][0] if waiting else 0.0  # on all words that were not found
        if bound <= needed or n_read >= MOST_READ:
            return {word: p for p, word in found if p >= bound}
        n_next = min(AT_ONCE, MOST_READ - n_read, len(waiting))
        batch = [heapq.heappop(waiting) for _ in range(n_next)]
        prefixes = [(-of_prefix, prefix) for of_prefix, prefix, _ in batch]
        x = torch.tensor([[model.char2int[prefix[-1]]] for _, prefix in prefixes])
        with eval_mode(model):
            logits, state = model(x.to(logits.device), side_by_side([each for *_, each in batch]))
