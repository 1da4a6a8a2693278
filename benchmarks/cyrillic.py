"""Print a made-up Cyrillic text, for settings that must not be tuned to English.

Run ``python -m benchmarks.cyrillic 1000000 > cyrillic.txt``; the number is that of characters.

The language is made up: its words have stems, endings that agree within a phrase, and frequencies
by Zipf's law; sentences have punctuation.
"""

import random
import sys

VOWELS, CONSONANTS = "аеиоуыюя", "бвгджзклмнпрстфхцчш"
ENDINGS = (("а", "ый", "ет"), ("ы", "ая", "ют"), ("ом", "ого", "ил"), ("ами", "ому", "ила"))  # noqa: RUF001


def stem(chance: random.Random) -> str:
    """Return one to three syllables and a consonant."""
    syllables = chance.choices((1, 2, 3), weights=(3, 5, 2))[0]
    return "".join(
        chance.choice(CONSONANTS) + chance.choice(VOWELS) for _ in range(syllables)
    ) + chance.choice(CONSONANTS)


def phrase(stems: list[str], weights: list[float], chance: random.Random) -> str:
    """Return adjective, noun and verb, or some of them, with endings of the same class."""
    noun, adjective, verb = chance.choice(ENDINGS)
    first, second, third = chance.choices(stems, cum_weights=weights, k=3)
    words = (first + adjective, second + noun, third + verb)
    return " ".join(words[chance.choice((0, 0, 1)) : chance.choice((2, 3, 3))])


def text(n_chars: int, seed: int = 1) -> str:
    """Return at least ``n_chars`` characters: paragraphs of sentences, some of them in quotation
    marks."""
    chance = random.Random(seed)
    stems = [stem(chance) for _ in range(4000)]
    weights, total = [], 0.0
    for rank in range(len(stems)):
        total += 1 / (rank + 2.7)  # Mandelbrot's form of Zipf's law
        weights.append(total)
    parts, length = [], 0
    while length < n_chars:
        phrases = [phrase(stems, weights, chance) for _ in range(chance.randint(1, 4))]
        sentence = ", ".join(phrases).capitalize() + chance.choice("...?!")
        spoken = chance.random() < 0.2
        parts.append(
            f"«{sentence}»\n\n" if spoken else sentence + chance.choice((" ", " ", "\n\n"))
        )
        length += len(parts[-1])
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(text(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
