"""Sentences of matching brackets, whose depth and whose tree are known."""

import numpy as np

from kexue_lib.data.dataset import Brackets
from kexue_lib.notebook import dry_run
from kexue_lib.validation import require, require_integer

ALPHABET = "()[]{}<>"  # at an even place what opens, after it what closes
DRY_RUN_SENTENCES = 40


def nested_brackets(sentences: int, length: int, seed: int = 0) -> Brackets:
    """Generate sentences of four kinds of brackets, each closed by its own kind.

    A sentence has from two pairs to as many as the length holds, each number as likely. Where a bracket may
    open or close, it does either with probability 1/2; each kind is as likely. A dry run generates at most 40
    sentences.

    Args:
        sentences: how many.
        length: of the longest sentences, an even number of at least 4.
        seed: of the random numbers, at least 0; another seed gives other sentences.

    Raises:
        ValueError: if an argument is out of range.

    >>> brackets = nested_brackets(sentences=3, length=6)
    >>> brackets.tokens.shape, len(brackets.trees)
    ((3, 6), 3)

    Source: the languages of Dyck; as a test of the ON-LSTM: article 6621.
    """
    sentences = require_integer("sentences", sentences, minimum=1)
    length = require_integer("length", length, minimum=4)
    require(length % 2 == 0, "length", length, "even, for brackets come in pairs")
    random = np.random.default_rng(require_integer("seed", seed, minimum=0))
    count = min(sentences, DRY_RUN_SENTENCES) if dry_run() else sentences
    texts = [_sentence(int(random.integers(2, length // 2 + 1)), random) for _ in range(count)]
    return Brackets(
        name=f"{count:,} sentences of matching brackets, at most {length} long, seed {seed}",
        source="generated",
        licence="none needed",
        is_stand_in=False,
        tokens=_padded([[1 + ALPHABET.index(bracket) for bracket in text] for text in texts], length),
        depths=_padded([_depths(text) for text in texts], length),
        trees=tuple(_tree(text) for text in texts),
        alphabet=ALPHABET,
    )


def _sentence(pairs: int, random: np.random.Generator) -> str:
    text, closing = "", []
    while pairs or closing:
        if pairs and (not closing or random.random() < 0.5):
            opens = 2 * int(random.integers(len(ALPHABET) // 2))
            text += ALPHABET[opens]
            closing.append(ALPHABET[opens + 1])
            pairs -= 1
        else:
            text += closing.pop()
    return text


def _depths(text: str) -> list[int]:
    depth, depths = 0, []
    for bracket in text:
        opens = ALPHABET.index(bracket) % 2 == 0
        depth += opens
        depths.append(depth)
        depth -= not opens
    return depths


def _tree(text: str) -> tuple:
    """Return the parts of a sentence; a sentence that is one pair as a whole is that pair."""
    open_parts = [[]]
    for bracket in text:
        if ALPHABET.index(bracket) % 2 == 0:
            open_parts.append([bracket])
        else:
            part = (*open_parts.pop(), bracket)
            open_parts[-1].append(part)
    (parts,) = open_parts
    return parts[0] if len(parts) == 1 else tuple(parts)


def _padded(rows: list[list[int]], length: int) -> np.ndarray:
    return np.array([row + [0] * (length - len(row)) for row in rows], "int32")
