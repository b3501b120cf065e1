"""Losses against mpmath, brute force and each other; numbers are those of article 7359's example."""

import itertools
import math

import keras
import mpmath
import numpy as np
import pytest
from keras import ops

from kexue_lib import autodiff
from kexue_lib.autodiff import compiled
from kexue_lib.losses import ZLPR, CombinatorialSoftmax, log_elementary_symmetric, sparse_zlpr, zlpr

SCORES = np.array([[2.0, -1.0, 0.5, -3.0, 1.5]], "float32")
LABELS = np.array([[1, 0, 0, 0, 1]])
JIT = [False] if keras.backend.backend() == "torch" else [False, True]


def value(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def log_symmetric(scores, k):
    """Compiled: step by step JAX would compile every step for every shape."""
    return compiled(lambda s: log_elementary_symmetric(s, k))(ops.convert_to_tensor(scores))


def gradient(function, at):
    """Of the sum of a function of one tensor, on whatever backend this is."""
    return value(compiled(lambda x: autodiff.gradient(function, x))(ops.convert_to_tensor(at)))


def pairwise(labels, scores):
    """The loss as it is motivated: over all pairs of a wrong with a right score, the threshold among both."""
    right = [0.0, *[s for s, t in zip(scores, labels, strict=True) if t]]
    wrong = [0.0, *[s for s, t in zip(scores, labels, strict=True) if not t]]
    return math.log(sum(math.exp(w - r) for w in wrong for r in right))


class TestZLPR:
    def test_is_the_sum_over_all_pairs(self):
        rng = np.random.default_rng(0)
        scores, labels = rng.normal(scale=3, size=(20, 7)), rng.integers(0, 2, (20, 7))
        expected = [pairwise(t, s) for t, s in zip(labels, scores, strict=True)]
        np.testing.assert_allclose(value(zlpr(labels, scores.astype("float32"))), expected, rtol=2e-6)

    def test_example(self):
        assert value(zlpr(LABELS, SCORES)) == pytest.approx(1.426855962254356, rel=1e-6)
        expected = [-0.09962365, 0.11997160, 0.53767540, 0.01623639, -0.16425163]
        np.testing.assert_allclose(gradient(lambda s: zlpr(LABELS, s), SCORES)[0], expected, atol=1e-6)

    @pytest.mark.parametrize(("label", "expected"), [(0, 2.703850256971958), (1, 3.2095853963632486)])
    def test_all_or_no_labels(self, label, expected):
        assert value(zlpr(np.full((1, 5), label), SCORES)) == pytest.approx(expected, rel=1e-6)

    def test_soft_targets_are_met_by_twice_the_score(self):
        targets = np.array([[0.9, 0.1, 0.3, 0.05, 0.6]], "float32")
        assert value(zlpr(targets, SCORES)) == pytest.approx(2.6205008221627146, rel=1e-6)
        best = (np.log(targets / (1 - targets)) / 2).astype("float32")
        least = 2 * math.log(1 + np.sqrt(targets * (1 - targets)).sum())
        assert value(zlpr(targets, best)) == pytest.approx(least, rel=1e-6)
        np.testing.assert_allclose(gradient(lambda s: zlpr(targets, s), best), 0, atol=1e-6)

    def test_a_masked_label_is_as_good_as_absent(self):
        mask = np.array([[True, True, False, True, False]])
        kept = np.array([0, 1, 3])
        absent = value(zlpr(LABELS[:, kept], SCORES[:, kept]))
        assert value(zlpr(LABELS, SCORES, mask)) == pytest.approx(absent)
        assert (gradient(lambda s: zlpr(LABELS, s, mask), SCORES)[~mask] == 0).all()

    @pytest.mark.parametrize("hidden", [-np.inf, np.inf, np.nan])
    @pytest.mark.parametrize("target", [-1, 0, 1, np.nan])
    def test_what_stands_at_a_masked_label_changes_nothing(self, target, hidden):
        """A target of -1, for not known, is a common one."""
        mask, labels, scores = np.array([[1, 1, 0, 1, 0]]), LABELS.astype("float32"), SCORES.copy()
        labels[0, 2], scores[0, 2] = target, hidden
        assert value(zlpr(labels, scores, mask)) == value(zlpr(LABELS, SCORES, mask))
        slope = gradient(lambda s: zlpr(labels, s, mask), scores)
        np.testing.assert_array_equal(slope, gradient(lambda s: zlpr(LABELS, s, mask), SCORES))

    def test_a_mask_is_broadcast(self):
        mask = np.array([True, True, False, True, False])
        scores, labels = np.repeat(SCORES, 3, axis=0), np.repeat(LABELS, 3, axis=0)
        np.testing.assert_allclose(
            value(zlpr(labels, scores, mask)), value(zlpr(labels, scores, np.stack([mask] * 3)))
        )

    @pytest.mark.parametrize("shape", [(2,), (2, 5), (1, 1, 5)])
    def test_a_mask_of_another_shape(self, shape):
        """One that is larger would otherwise repeat the examples."""
        message = r"shape of mask must be broadcastable to the scores, \(1, 5\), got"
        with pytest.raises(ValueError, match=message):
            zlpr(LABELS, SCORES, np.ones(shape, bool))

    def test_an_impossible_label(self):
        scores = SCORES.copy()
        scores[0, 1] = -np.inf
        kept = np.array([0, 2, 3, 4])
        assert value(zlpr(LABELS, scores)) == pytest.approx(value(zlpr(LABELS[:, kept], SCORES[:, kept])))
        slope = gradient(lambda s: zlpr(LABELS, s), scores)
        assert np.isfinite(slope).all()
        assert slope[0, 1] == 0
        assert value(zlpr([[0, 1, 0, 0, 0]], scores)) == np.inf

    @pytest.mark.parametrize("size", [90.0, 1e4, 1e30])
    def test_large_scores(self, size):
        assert value(zlpr([[1, 0]], [[size, -size]])) == 0
        assert value(zlpr([[0, 1]], [[size, -size]])) == pytest.approx(2 * size)
        assert np.isfinite(gradient(lambda s: zlpr([[0, 1]], s), np.array([[size, -size]], "float32"))).all()

    def test_half_precision_is_computed_in_single(self):
        scores = np.full((1, 4), 12.0, "float16")  # exp(12) is more than float16 holds
        result = zlpr(np.zeros((1, 4)), scores)
        assert keras.backend.standardize_dtype(result.dtype) == "float32"
        assert value(result) == pytest.approx(math.log(1 + 4 * math.exp(12)), rel=1e-6)

    def test_double_precision_stays(self):
        if keras.backend.backend() == "jax":
            return  # float64 is behind a global switch there
        scores = ops.convert_to_tensor(SCORES, dtype="float64")
        assert value(zlpr(LABELS, scores)) == pytest.approx(1.426855962254356, rel=1e-14)

    def test_gradient_is_within_its_budget(self):
        rng = np.random.default_rng(1)
        scores = rng.normal(scale=5, size=(9, 50)).astype("float32")
        slope = gradient(lambda s: zlpr(rng.integers(0, 2, (9, 50)), s), scores)
        assert (np.abs(slope).sum(axis=1) < 2).all()

    @pytest.mark.parametrize("target", [-0.1, 1.1, np.nan])
    def test_targets_out_of_range(self, target):
        with pytest.raises(ValueError, match=r"targets must be in \[0, 1\]"):
            zlpr([[target, 0.0]], [[1.0, 2.0]])

    def test_shapes_that_differ(self):
        with pytest.raises(ValueError, match="shape of y_true must be of the shape of the scores"):
            zlpr([[1.0]], [[1.0, 2.0]])


class TestSparse:
    def test_equals_the_dense_one(self):
        rng = np.random.default_rng(2)
        scores = rng.normal(scale=3, size=(3, 4, 11)).astype("float32")
        positions = rng.integers(-1, 11, (3, 4, 6))
        labels = np.zeros((3, 4, 11))
        for place in np.ndindex(positions.shape):
            if positions[place] >= 0:
                labels[(*place[:2], positions[place])] = 1
        np.testing.assert_allclose(
            value(sparse_zlpr(positions, scores)), value(zlpr(labels, scores)), rtol=1e-6
        )

    def test_wrong_scores_are_felt_under_a_large_lead(self):
        """Subtracting the right scores from the sum of all would leave nothing of the wrong one."""
        scores = np.array([[30.0, 3.0]], "float32")
        assert value(sparse_zlpr([[0]], scores)) == pytest.approx(math.log(1 + math.exp(3)), rel=1e-6)
        assert gradient(lambda s: sparse_zlpr([[0]], s), scores)[0, 1] == pytest.approx(
            1 / (1 + math.exp(-3)), rel=1e-6
        )

    @pytest.mark.parametrize("position", [-2, 2])
    def test_positions_out_of_range(self, position):
        with pytest.raises(ValueError, match="targets must be a position in 0 … 1"):
            sparse_zlpr([[position]], [[1.0, 2.0]])

    @pytest.mark.skipif(JIT == [False], reason="PyTorch runs eagerly: it raises")
    @pytest.mark.parametrize("position", [-2, 2])
    def test_positions_out_of_range_in_a_compiled_step(self, position):
        positions = ops.convert_to_tensor([[position], [0]])
        found = value(compiled(lambda s: sparse_zlpr(positions, s))(ops.ones((2, 2))))
        assert np.isnan(found).tolist() == [True, False]

    def test_shapes_that_differ(self):
        for positions in ([0], [[0], [1]], [[[0]]]):
            with pytest.raises(ValueError, match=r"positions must be of shape .* of shape \(1, 2\), got"):
                sparse_zlpr(positions, [[1.0, 2.0]])


def by_definition(scores, k):
    """Return log Z_k by adding one score at a time, exactly."""
    with mpmath.workdps(60):
        sums = [mpmath.mpf(1)] + [mpmath.mpf(0)] * k
        for score in scores:
            weight = mpmath.exp(mpmath.mpf(float(score)))
            sums = [sums[0], *[sums[j] + weight * sums[j - 1] for j in range(1, k + 1)]]
        return float(mpmath.log(sums[k])) if sums[k] else -math.inf


class TestLogElementarySymmetric:
    def test_by_hand(self):
        """The recursion that the others are compared with, itself compared with the sum over all sets."""
        scores = [0.5, -1.0, 2.0, 0.25]
        sets = itertools.combinations(scores, 2)
        expected = math.log(math.fsum(math.exp(sum(chosen)) for chosen in sets))
        assert by_definition(scores, 2) == pytest.approx(expected)
        assert value(log_symmetric(np.array([scores], "float32"), 2)) == pytest.approx(expected)

    @pytest.mark.parametrize(("count", "k"), [(1, 1), (5, 5), (7, 1), (8, 4), (100, 30), (100, 99)])
    def test_sizes(self, count, k):
        scores = np.random.default_rng(count).normal(scale=2, size=(2, 3, count)).astype("float32")
        found = value(log_symmetric(scores, k))
        assert found.shape == (2, 3)
        expected = [[by_definition(row, k) for row in rows] for rows in scores]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)

    def test_where_newton_loses_every_digit(self):
        scores = np.array([[10.0, *[0.0] * 7, -1.0, -2.0]], "float32")
        for k in range(1, 11):
            found = value(log_symmetric(scores, k))[0]
            assert found == pytest.approx(by_definition(scores[0], k), rel=1e-6, abs=1e-6)

    def test_scores_of_every_spread(self):
        """Among them one alone at the top, one alone at the bottom, and two far from each other."""
        rng = np.random.default_rng(4)
        spreads = np.array([0.0, 1e-3, 1, 10, 100, 1e3, 1e4, 1, 1, 1])[:, None]
        scores = (spreads * rng.standard_cauchy((10, 30))).astype("float32")
        scores[7, 0], scores[8, 0], scores[9, 15:] = 1e4, -1e4, 1e3
        for k in (1, 2, 15, 16, 29, 30):
            found = value(log_symmetric(scores, k))
            expected = [by_definition(row, k) for row in scores]
            np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-4)

    def test_binomials(self):
        found = value(log_symmetric(np.zeros((1, 1000), "float32"), 20))[0]
        assert found == pytest.approx(math.log(math.comb(1000, 20)), rel=1e-6)

    def test_a_score_that_cannot_be_chosen(self):
        scores = np.array([[1.0, -np.inf, 2.0]], "float32")
        assert value(log_symmetric(scores, 2))[0] == pytest.approx(3)
        slope = gradient(lambda s: log_elementary_symmetric(s, 2), scores)
        np.testing.assert_allclose(slope, [[1, 0, 1]], atol=1e-6)
        assert value(log_symmetric(scores, 3))[0] == -np.inf
        assert value(log_symmetric(np.full((1, 3), -np.inf, "float32"), 1))[0] == -np.inf

    def test_gradient_is_the_share_of_the_sets_with_a_score(self):
        scores = np.random.default_rng(3).normal(size=7)
        sets = list(itertools.combinations(range(7), 3))
        weights = np.exp([scores[list(chosen)].sum() for chosen in sets])
        share = [weights[[i in c for c in sets]].sum() / weights.sum() for i in range(7)]
        slope = gradient(lambda s: log_elementary_symmetric(s, 3), scores[None].astype("float32"))
        np.testing.assert_allclose(slope[0], share, rtol=1e-5)

    @pytest.mark.parametrize("k", [0, 4, 1.5])
    def test_k_out_of_range(self, k):
        with pytest.raises(ValueError, match="k must be"):
            log_elementary_symmetric(np.zeros((1, 3), "float32"), k)


class TestCombinatorialSoftmax:
    def test_one_label_is_softmax_cross_entropy(self):
        labels = np.eye(5)[[2]]
        expected = value(keras.losses.CategoricalCrossentropy(from_logits=True)(labels, SCORES))
        assert value(CombinatorialSoftmax(1)(labels, SCORES)) == pytest.approx(expected, rel=1e-6)

    def test_two_labels(self):
        assert value(CombinatorialSoftmax(2)(LABELS, SCORES)) == pytest.approx(0.5664927089224694, abs=1e-6)

    def test_empty_places_are_a_class_of_score_zero(self):
        assert value(CombinatorialSoftmax(3, exact=False)(LABELS, SCORES)) == pytest.approx(
            1.5115711420209559, rel=1e-6
        )

    @pytest.mark.parametrize("k", [2, 3, 5])
    def test_a_right_label_that_cannot_be_costs_infinitely_much(self, k):
        """Also where it is in every set, so that there is no set left."""
        labels, scores = np.eye(5)[None, :k].sum(axis=1), np.where(np.arange(5) == 0, -np.inf, SCORES)
        assert value(CombinatorialSoftmax(k)(labels, scores)) == np.inf

    @pytest.mark.parametrize("labels", [LABELS, np.zeros((1, 5)), np.ones((1, 5))])
    def test_up_to_all_labels_is_the_sum_of_binary_cross_entropies(self, labels):
        expected = 5 * value(keras.losses.BinaryCrossentropy(from_logits=True)(labels, SCORES))
        assert value(CombinatorialSoftmax(5, exact=False)(labels, SCORES)) == pytest.approx(
            expected, rel=1e-6
        )

    @pytest.mark.parametrize("k", [1, 4, 12, 30])
    @pytest.mark.parametrize("mean", [-6.0, 0.0, 6.0])
    def test_sets_up_to_k(self, k, mean):
        """Where hardly any label is likely, where some are, where far more are than k allows."""
        scores = np.random.default_rng(5).normal(mean, 2, size=(1, 30)).astype("float32")
        expected = np.logaddexp.reduce([by_definition(scores[0], j) for j in range(k + 1)])
        found = value(CombinatorialSoftmax(k, exact=False)(np.zeros((1, 30)), scores))
        assert found == pytest.approx(expected, rel=3e-6, abs=1e-6)

    @pytest.mark.parametrize(
        ("k", "exact", "labels"),
        [(2, True, [[1, 1, 1, 0, 0]]), (2, False, [[1, 1, 1, 0, 0]]), (1, False, [[0.5, 0, 0, 0, 0]])],
    )
    def test_labels_that_do_not_fit(self, k, exact, labels):
        with pytest.raises(ValueError, match=f"targets must be 0 or 1, with .* {k} ones an example"):
            CombinatorialSoftmax(k, exact=exact)(labels, SCORES)

    def test_k_must_be_whole_and_positive(self):
        with pytest.raises(ValueError, match="k must be a whole number of at least 1"):
            CombinatorialSoftmax(0)


LOSSES = [ZLPR(), CombinatorialSoftmax(2), CombinatorialSoftmax(3, exact=False)]


def trained(loss, jit_compile, labels, policy="float32"):
    dense = keras.layers.Dense(5, dtype=policy, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((4,)), dense])
    model.compile(keras.optimizers.SGD(0.1), loss=loss, jit_compile=jit_compile)
    inputs = np.random.default_rng(0).normal(size=(len(labels), 4)).astype("float32")
    return model, model.fit(inputs, labels, epochs=3, verbose=0).history["loss"]


@pytest.mark.parametrize("jit_compile", JIT)
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
class TestInTraining:
    @pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
    def test_falls(self, loss, jit_compile, policy):
        _, history = trained(loss, jit_compile, np.eye(5)[:4] + np.eye(5)[1:], policy)
        assert history[-1] < history[0]

    def test_targets_that_cannot_be_are_not_silent(self, loss, jit_compile):
        targets = np.full((4, 5), 2.0)
        if keras.backend.backend() != "tensorflow" and not jit_compile:  # eager: the values can be read
            with pytest.raises(ValueError, match="targets must be"):
                trained(loss, jit_compile, targets)
        else:
            assert np.isnan(trained(loss, jit_compile, targets)[1]).all()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_saved_and_loaded(loss, tmp_path):
    labels = np.eye(5)[:4] + np.eye(5)[1:]
    model, _ = trained(loss, False, labels)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == loss.get_config()
    inputs = np.ones((4, 4), "float32")
    assert loaded.evaluate(inputs, labels, verbose=0) == pytest.approx(
        model.evaluate(inputs, labels, verbose=0)
    )


@pytest.mark.parametrize("jit_compile", JIT)
@pytest.mark.parametrize(
    "loss", [ZLPR(), CombinatorialSoftmax(1), sparse_zlpr], ids=["zlpr", "sets", "sparse"]
)
class TestInFit:
    TARGETS = np.array([[1], [2], [3], [4], [0]])

    def fitted(self, loss, jit_compile, *data, **settings):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, kernel_initializer="zeros")])
        model.compile(keras.optimizers.SGD(0.0), loss=loss, jit_compile=jit_compile)
        return model.fit(*data, shuffle=False, verbose=0, **settings).history["loss"][0]

    def expected(self, loss):
        """At scores of 0: log of 1 + 4 for the wrong ones plus log of 1 + 1, or log of 5 sets."""
        return math.log(5) if isinstance(loss, CombinatorialSoftmax) else math.log(5) + math.log(2)

    def test_a_last_batch_that_is_short(self, loss, jit_compile):
        targets = self.TARGETS if loss is sparse_zlpr else np.eye(5)[self.TARGETS[:, 0]]
        found = self.fitted(loss, jit_compile, np.ones((5, 4)), targets, batch_size=2)
        assert found == pytest.approx(self.expected(loss), rel=1e-5)

    def test_a_data_set_of_unknown_sizes(self, loss, jit_compile):
        """TensorFlow traces the loss with targets of shape (None, None); what is not known may be right."""
        tf = pytest.importorskip("tensorflow")
        targets = self.TARGETS if loss is sparse_zlpr else np.eye(5)[self.TARGETS[:, 0]]
        signature = (tf.TensorSpec((None, 4)), tf.TensorSpec((None, None)))
        data = tf.data.Dataset.from_generator(
            lambda: [(np.ones((5, 4), "float32"), targets.astype("float32"))], output_signature=signature
        )
        data = data.apply(tf.data.experimental.assert_cardinality(1))
        found = self.fitted(loss, jit_compile, data)
        assert found == pytest.approx(self.expected(loss), rel=1e-5)


def test_reduction_none_gives_a_loss_an_example():
    assert value(ZLPR(reduction=None)(np.zeros((2, 3)), np.zeros((2, 3)))) == pytest.approx([math.log(4)] * 2)
