import os
from itertools import permutations

import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kexue_lib import plotting
from kexue_lib.text import trees

matplotlib.use("agg")

CATALAN = {2: 1, 3: 2, 4: 5, 5: 14, 6: 42}
WORDS = list("abcdef")


def binary_trees(words):
    """Every binary tree over the words, by all ways to split them."""
    if len(words) == 1:
        return [words[0]]
    halves = [(binary_trees(words[:k]), binary_trees(words[k:])) for k in range(1, len(words))]
    return [(left, right) for lefts, rights in halves for left in lefts for right in rights]


any_levels = st.lists(st.integers(0, 5), min_size=1, max_size=12)


class TestBuild:
    @pytest.mark.parametrize(("count", "reached"), [(2, 1), (3, 2), (4, 5), (5, 13), (6, 35)])
    def test_reaches_too_few_trees(self, count, reached):
        words = WORDS[:count]
        assert len({trees.build(words, levels) for levels in permutations(range(count))}) == reached

    @pytest.mark.parametrize("count", CATALAN)
    def test_unbiased_reaches_all(self, count):
        words = WORDS[:count]
        found = {trees.build_unbiased(words, levels) for levels in permutations(range(count))}
        assert found == set(binary_trees(words))
        assert len(found) == CATALAN[count]

    def test_examples_of_the_article(self):
        """The trees it shows, from levels that give them."""
        fruit = trees.build(["苹果", "的", "颜色", "是", "什么"], [2, 1, 3, 1, 4])
        assert fruit == ((("苹果", "的"), ("颜色", "是")), "什么")
        courage = trees.build(["爱", "真的", "需要", "勇气"], [4, 3, 2, 1])
        assert courage == ("爱", ("真的", ("需要", "勇气")))

    @pytest.mark.parametrize("builder", [trees.build, trees.build_unbiased])
    @given(any_levels)
    def test_keeps_the_words_and_is_binary(self, builder, levels):
        words = [str(place) for place in range(len(levels))]
        tree = builder(words, levels)
        assert trees.leaves(tree) == words
        assert len(trees.spans(tree)) == max(len(words) - 2, 0)  # as many as a binary tree has

    @given(any_levels)
    def test_unbiased_ignores_the_first_level(self, levels):
        words = [str(place) for place in range(len(levels))]
        assert trees.build_unbiased(words, levels) == trees.build_unbiased(words, [9, *levels[1:]])

    @pytest.mark.parametrize("builder", [trees.build, trees.build_unbiased])
    @given(any_levels, st.floats(0.1, 10))
    def test_depends_on_the_order_of_the_levels_alone(self, builder, levels, scale):
        """So the paper's level, one less than ours, gives the same tree."""
        words = [str(place) for place in range(len(levels))]
        assert builder(words, levels) == builder(words, scale * np.array(levels) - 1)

    @pytest.mark.parametrize("builder", [trees.build, trees.build_unbiased])
    def test_of_equal_levels_the_first_counts(self, builder):
        assert builder(WORDS[:3], [1, 1, 1]) == ("a", ("b", "c"))

    @pytest.mark.parametrize("builder", [trees.build, trees.build_unbiased])
    @pytest.mark.parametrize(
        ("words", "levels", "message"),
        [
            ([], [], "words must be at least one word"),
            ([1, 2], [2, 1], "words must be at least one word, each of them text"),
            (["a", "b"], [1], "levels must be a number for each of the 2 words"),
            (["a", "b"], [[1], [2]], "levels must be a number for each of the 2 words"),
            (["a", "b"], [1, np.nan], "levels must be a number for each of the 2 words"),
        ],
    )
    def test_bad_arguments(self, builder, words, levels, message):
        with pytest.raises(ValueError, match=message):
            builder(words, levels)


class TestBaselines:
    def test_one_word(self):
        for baseline in (trees.left_branching, trees.right_branching):
            assert baseline(["a"]) == "a"

    def test_branching(self):
        assert trees.left_branching(WORDS[:4]) == ((("a", "b"), "c"), "d")
        assert trees.right_branching(WORDS[:4]) == ("a", ("b", ("c", "d")))

    def test_random_splits_anywhere_alike(self):
        """For four words: 1/3 for the split in the middle, 1/6 for each of the other four trees."""
        random = np.random.default_rng(0)
        drawn = [trees.random_branching(WORDS[:4], random) for _ in range(3000)]
        shares = {tree: drawn.count(tree) / 3000 for tree in binary_trees(WORDS[:4])}
        middle = (("a", "b"), ("c", "d"))
        assert abs(shares.pop(middle) - 1 / 3) < 0.03
        assert all(abs(share - 1 / 6) < 0.03 for share in shares.values())

    def test_random_is_the_generators(self):
        first, second = (trees.random_branching(WORDS, np.random.default_rng(5)) for _ in range(2))
        assert first == second


class TestF1:
    def test_a_tree_is_like_itself(self):
        for tree in binary_trees(WORDS[:5]):
            assert trees.f1(tree, tree) == 1

    def test_left_against_right_shares_nothing(self):
        assert trees.f1(trees.left_branching(WORDS), trees.right_branching(WORDS)) == 0

    def test_by_hand(self):
        """Two true spans, three found, one in both: 2 · 1 / 5."""
        gold, tree = (("a", "b"), ("c", "d"), "e"), ("a", ("b", (("c", "d"), "e")))
        assert trees.spans(gold) == {(0, 2), (2, 4)}
        assert trees.spans(tree) == {(1, 5), (2, 5), (2, 4)}
        assert trees.f1(tree, gold) == pytest.approx(2 / 5)

    @pytest.mark.parametrize("tree", ["a", ("a", "b"), ("a", "b", "c")])
    def test_nothing_to_find_and_nothing_found(self, tree):
        assert trees.f1(tree, tree) == 1

    def test_a_flat_tree_misses_all(self):
        assert trees.f1(("a", "b", "c"), ("a", ("b", "c"))) == 0

    def test_words_that_occur_twice_have_places(self):
        assert trees.f1((("a", "a"), "a"), ("a", ("a", "a"))) == 0

    def test_other_words(self):
        with pytest.raises(ValueError, match=r"tree must be over the words \['a', 'c'\], got \['a', 'b'\]"):
            trees.f1(("a", "b"), ("a", "c"))


class TestDraw:
    def lines(self, axes):
        return [tuple(map(tuple, line.get_xydata())) for line in axes.lines]

    def test_branches_and_words(self):
        axes = trees.draw((("a", "b"), "c"))
        assert [text.get_text() for text in axes.texts] == ["a", "b", "c"]
        assert [text.get_position()[0] for text in axes.texts] == [0, 1, 2]
        assert self.lines(axes) == [
            ((0, 0), (0.5, 1)),
            ((1, 0), (0.5, 1)),
            ((0.5, 1), (1.25, 2)),
            ((2, 0), (1.25, 2)),
        ]
        assert axes.lines[0].get_color() == plotting.BLUE
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        assert left < 0 < 2 < right
        assert low < axes.texts[0].get_position()[1] < 0 < 2 < high
        matplotlib.pyplot.close(axes.figure)

    def test_more_than_two_parts_colour_and_axes_of_ones_own(self):
        figure, axes = matplotlib.pyplot.subplots()
        assert trees.draw((("a", "b"), "c", "d"), axes, colour=plotting.VERMILLION) is axes
        # In the middle between the tops of the outer parts, 1/2 and 3; the mean of all three is 11/6.
        assert [line[1] for line in self.lines(axes)][2:] == [(1.75, 2)] * 3
        assert axes.lines[0].get_color() == plotting.VERMILLION
        matplotlib.pyplot.close(figure)

    def test_a_word_alone(self):
        axes = trees.draw("word")
        assert len(axes.lines) == 0
        assert axes.texts[0].get_text() == "word"
        matplotlib.pyplot.close(axes.figure)

    def test_chinese_words_take_a_font_that_has_them(self, tmp_path):
        if not set(plotting.families()) & set(plotting.CHINESE_FONTS):
            assert os.environ.get("CI") != "true", "fonts-noto-cjk is missing: under CI nothing is left out"
            pytest.skip("no Chinese font is installed")
        axes = trees.draw(("爱", ("真的", "勇气")))
        axes.figure.savefig(tmp_path / "tree.png")  # a missing glyph is a warning, and a warning an error
        matplotlib.pyplot.close(axes.figure)
