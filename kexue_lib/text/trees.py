"""Trees over the words of a sentence: built from levels, compared, drawn (article 6621).

A tree is a word, or a tuple of two or more trees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kexue_lib.validation import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Tree = str | tuple  # of trees


def build(words: Sequence[str], levels: Sequence[float]) -> Tree:
    """Return the binary tree of the ON-LSTM's authors: the highest word opens what follows it.

    What stands before the highest word is one part; the other joins the word to the tree of what follows it.
    Both rests are treated likewise; of equal levels the first counts as the highest. The second part thus
    always begins with a single word, and from five words on not every binary tree can come out: 13 of 14,
    35 of 42 for six words. `build_unbiased` gives all.

    Args:
        words: at least one.
        levels: a number for each word, as `kexue_lib.layers.levels` reads them.

    Raises:
        ValueError: if there is no word, one is not text, a level is NaN, or there is not one level a word.

    >>> build(["love", "really", "needs", "courage"], [4, 3, 2, 1])
    ('love', ('really', ('needs', 'courage')))
    >>> build(["the", "colour", "is", "what"], [2, 1, 3, 1])
    (('the', 'colour'), ('is', 'what'))

    Source: article 6621; Shen et al., arXiv 1810.09536; its bias: Dyer et al., arXiv 1909.09428.
    """
    levels = _checked(words, levels)
    if len(words) == 1:
        return words[0]
    highest = int(np.argmax(levels))
    after = words[highest + 1 :]
    rest = (words[highest], build(after, levels[highest + 1 :])) if after else words[highest]
    return (build(words[:highest], levels[:highest]), rest) if highest else rest


def build_unbiased(words: Sequence[str], levels: Sequence[float]) -> Tree:
    """Return the binary tree that is split before the highest word, again and again.

    The first word of a part does not compete, for nothing can be split before it; of equal levels the first
    counts as the highest. Every binary tree comes out of some levels.

    Args:
        words: at least one.
        levels: a number for each word.

    Raises:
        ValueError: if there is no word, one is not text, a level is NaN, or there is not one level a word.

    >>> build_unbiased(["a", "b", "c", "d"], [9, 1, 2, 3])
    ((('a', 'b'), 'c'), 'd')

    Source: article 6621, its tree repaired.
    """
    levels = _checked(words, levels)
    if len(words) == 1:
        return words[0]
    split = 1 + int(np.argmax(levels[1:]))
    return (build_unbiased(words[:split], levels[:split]), build_unbiased(words[split:], levels[split:]))


def left_branching(words: Sequence[str]) -> Tree:
    """Return the binary tree in which every word joins all that stands before it.

    Raises:
        ValueError: if there is no word.

    >>> left_branching(["a", "b", "c"])
    (('a', 'b'), 'c')
    """
    return build_unbiased(words, range(len(words)))


def right_branching(words: Sequence[str]) -> Tree:
    """Return the binary tree in which every word joins all that stands after it.

    Raises:
        ValueError: if there is no word.

    >>> right_branching(["a", "b", "c"])
    ('a', ('b', 'c'))
    """
    return build_unbiased(words, range(len(words), 0, -1))


def random_branching(words: Sequence[str], random: np.random.Generator) -> Tree:
    """Return a binary tree split at places drawn at random, each place as likely as the others.

    Args:
        words: at least one.
        random: where the randomness comes from.

    Raises:
        ValueError: if there is no word.

    >>> random_branching(["a", "b", "c", "d"], np.random.default_rng(1))
    ('a', (('b', 'c'), 'd'))
    """
    return build_unbiased(words, random.random(len(words)))


def leaves(tree: Tree) -> list[str]:
    """Return the words of a tree, in order.

    >>> leaves((("a", "b"), "c"))
    ['a', 'b', 'c']
    """
    return [tree] if isinstance(tree, str) else [word for part in tree for word in leaves(part)]


def spans(tree: Tree) -> set[tuple[int, int]]:
    """Return (first word, one past the last) of every part with two words or more, without the whole.

    The whole sentence is in every tree, and single words are: counting them would flatter every parser.

    >>> sorted(spans((("a", "b"), ("c", "d", "e"))))
    [(0, 2), (2, 5)]
    """
    whole = len(leaves(tree))
    return {(start, end) for start, end in _parts(tree) if 1 < end - start < whole}


def f1(tree: Tree, gold: Tree) -> float:
    """Return the unlabelled F1 of a tree: the harmonic mean of the precision and the recall of its spans.

    Average it over sentences. 1 where neither tree has spans, as for a sentence of two words.

    Args:
        tree: the tree that is judged.
        gold: the true tree over the same words; its parts may have more than two parts of their own.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: if the trees have different words.

    >>> f1((("a", "b"), ("c", "d")), (("a", "b"), "c", "d"))  # all of one true span found, one of two is true
    0.6666666666666666

    Source: Shen et al., arXiv 1810.09536, section 5.2.
    """
    require(leaves(tree) == leaves(gold), "tree", leaves(tree), f"over the words {leaves(gold)}")
    found, true = spans(tree), spans(gold)
    return 2 * len(found & true) / (len(found) + len(true)) if found or true else 1.0


def draw(tree: Tree, axes: Axes | None = None, *, colour: str | None = None) -> Axes:
    """Draw a tree with its root on top and its words in a line below; return the axes.

    A branching stands above the middle of its parts, as high as it has layers of branchings below it.

    Args:
        tree: what to draw.
        axes: where; a new figure, as wide as the page, if None.
        colour: of the branches; the book's blue if None.
    """
    from kexue_lib import plotting

    if axes is None:
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(figsize=(plotting.WIDTH, 0.6 + 0.35 * _height(tree)))
    _draw_part(tree, 0, axes, colour or plotting.BLUE)
    for place, word in enumerate(leaves(tree)):
        axes.text(place, -0.15, word, ha="center", va="top", family=plotting.families())
    axes.set(xlim=(-0.6, len(leaves(tree)) - 0.4), ylim=(-0.9, _height(tree) + 0.2))
    axes.set_axis_off()
    return axes


def _draw_part(tree: Tree, start: int, axes: Axes, colour: str) -> tuple[float, int]:
    """Draw a part whose first word has this place; return where its top is, and its height."""
    height = _height(tree)
    if isinstance(tree, str):
        return start, height
    tops = []
    for part in tree:
        tops.append(_draw_part(part, start, axes, colour))
        start += len(leaves(part))
    middle = (tops[0][0] + tops[-1][0]) / 2
    for place, lower in tops:
        axes.plot([place, middle], [lower, height], color=colour, solid_capstyle="round")
    return middle, height


def _height(tree: Tree) -> int:
    return 0 if isinstance(tree, str) else 1 + max(map(_height, tree))


def _parts(tree: Tree, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield the first place of every part, the whole and the words included, and one past its last."""
    yield start, start + len(leaves(tree))
    for part in () if isinstance(tree, str) else tree:
        yield from _parts(part, start)
        start += len(leaves(part))


def _checked(words: Sequence[str], levels: Sequence[float]) -> np.ndarray:
    levels = np.asarray(levels, float)
    are_words = len(words) > 0 and all(isinstance(word, str) for word in words)
    require(are_words, "words", words, "at least one word, each of them text")
    is_row = levels.shape == (len(words),) and not np.any(np.isnan(levels))
    require(is_row, "levels", levels.tolist(), f"a number for each of the {len(words)} words")
    return levels
