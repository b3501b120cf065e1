"""Images of handwritten digits: scikit-learn's small ones, and MNIST."""

from pathlib import Path

import numpy as np

from kexue_lib.data.dataset import LabelledImages
from kexue_lib.data.files import (
    DataError,
    RemoteFile,
    check_digest,
    how_to_get,
    in_cache,
    in_data_folder,
)
from kexue_lib.data.idx import read_idx
from kexue_lib.notebook import dry_run
from kexue_lib.validation import require

MNIST = RemoteFile(
    path="mnist/mnist.npz",
    url="https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    sha256="731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
    digest_source="Keras (keras/src/datasets/mnist.py)",
)
MNIST_TEST_IMAGES = "mnist/t10k-images-idx3-ubyte.gz"
MNIST_TEST_LABELS = "mnist/t10k-labels-idx1-ubyte.gz"
MNIST_LICENCE = "CC BY-SA 3.0 (Yann LeCun, Corinna Cortes)"
TEST_SHARE = 0.2


def digits() -> LabelledImages:
    """Load the 1,797 digits that come with scikit-learn, 8 x 8 pixels, shuffled once and split 4 : 1.

    >>> images = digits()
    >>> images.train_images.shape, images.test_images.shape
    ((1438, 8, 8), (359, 8, 8))

    Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository.
    """
    if dry_run():
        return _generated("digits", size=8)
    images, labels = _all_digits()
    return LabelledImages(
        name=f"handwritten digits, 8 × 8 pixels, {_split_in_words(len(labels))}",
        source="UCI, Optical recognition of handwritten digits, as shipped with scikit-learn",
        licence="CC BY 4.0 (E. Alpaydin, C. Kaynak)",
        is_stand_in=False,
        **_split(images, labels),
    )


def mnist(profile: str = "cpu") -> LabelledImages:
    """Load MNIST: 28 x 28 pixels, 60,000 digits to train and 10,000 to test.

    Looks for `mnist/mnist.npz` in `KEXUE_DATA`; there the `cpu` profile makes do with the 10,000 test images,
    split 4 : 1. Then come the cache, the network if `KEXUE_DOWNLOAD=1`, and at last, in the `cpu` profile
    only, a stand-in: scikit-learn's digits enlarged. What it was is in `name`, `source` and `is_stand_in`.

    Args:
        profile: `"cpu"` or `"gpu"`.

    Raises:
        DataError: if a file is damaged, a download fails, or the `gpu` profile finds no data.
        ValueError: if the profile is unknown.

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998.
    """
    require(profile in ("cpu", "gpu"), "profile", profile, "'cpu' or 'gpu'")
    if dry_run():
        return _generated("MNIST", size=28)
    if file := in_data_folder(MNIST.path):
        return _whole_mnist(file)
    if profile == "cpu" and (file := in_data_folder(MNIST_TEST_IMAGES)):
        return _test_part_of_mnist(file)
    if file := in_cache(MNIST):
        return _whole_mnist(file)
    if profile == "gpu":
        raise DataError(how_to_get(MNIST))
    return _enlarged_digits()


def _whole_mnist(file: Path) -> LabelledImages:
    check_digest(file, MNIST)
    with np.load(file, allow_pickle=False) as arrays:
        train_images, train_labels = arrays["x_train"], arrays["y_train"]
        test_images, test_labels = arrays["x_test"], arrays["y_test"]
    return LabelledImages(
        name="MNIST, 60,000 train and 10,000 test",
        source=MNIST.url,
        licence=MNIST_LICENCE,
        is_stand_in=False,
        train_images=_as_grey(train_images),
        train_labels=train_labels.astype("int32"),
        test_images=_as_grey(test_images),
        test_labels=test_labels.astype("int32"),
    )


def _test_part_of_mnist(file: Path) -> LabelledImages:
    images = read_idx(file)
    labels_file = in_data_folder(MNIST_TEST_LABELS)
    if labels_file is None:
        raise DataError(f"{file} has no labels: {MNIST_TEST_LABELS} is missing in KEXUE_DATA; add it")
    labels = read_idx(labels_file)
    if images.shape != (10_000, 28, 28) or labels.shape != (10_000,):
        raise DataError(
            f"{file} has shape {images.shape} and its labels {labels.shape}: not the MNIST test set"
        )
    return LabelledImages(
        name=f"the 10,000 MNIST test images, {_split_in_words(len(labels))}",
        source="IDX files in KEXUE_DATA, digest not checked",
        licence=MNIST_LICENCE,
        is_stand_in=False,
        **_split(_as_grey(images), labels),
    )


def _enlarged_digits() -> LabelledImages:
    """Enlarge scikit-learn's digits to MNIST's layout: the digit within 20 x 20 pixels, 4 empty all round."""
    from scipy.ndimage import zoom

    images, labels = _all_digits()
    enlarged = np.pad(zoom(images, (1, 2.5, 2.5), order=1), ((0, 0), (4, 4), (4, 4)))
    return LabelledImages(
        name=f"scikit-learn's digits enlarged to 28 × 28 in place of MNIST, {_split_in_words(len(labels))}",
        source="UCI, Optical recognition of handwritten digits, as shipped with scikit-learn",
        licence="CC BY 4.0 (E. Alpaydin, C. Kaynak)",
        is_stand_in=True,
        **_split(enlarged, labels),
    )


def _generated(name: str, size: int) -> LabelledImages:
    """Make a few arrays of the true shapes for a dry run."""
    random = np.random.default_rng(0)
    images, labels = random.random((40, size, size), dtype="float32"), np.arange(40) % 10
    return LabelledImages(
        name=f"random numbers in the shape of {name}, for a dry run",
        source="generated",
        licence="none needed",
        is_stand_in=True,
        **_split(images, labels),
    )


def _all_digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images / 16).astype("float32"), bunch.target


def _as_grey(images: np.ndarray) -> np.ndarray:
    return images.astype("float32") / 255


def _split(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Shuffle, always in the same way, because both sources are ordered by writer; then cut."""
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = np.split(order, [_train_count(len(labels))])
    labels = labels.astype("int32")
    return {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
    }


def _train_count(count: int) -> int:
    return count - round(count * TEST_SHARE)


def _split_in_words(count: int) -> str:
    train = _train_count(count)
    return f"shuffled and split by us into {train:,} train and {count - train:,} test"
