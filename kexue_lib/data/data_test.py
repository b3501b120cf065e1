import functools
import gzip
import hashlib
import http.server
import socket
import subprocess
import sys
import threading
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kexue_lib.data import DataError, LabelledImages, digits, download_all, files, images, mnist
from kexue_lib.data.dataset import MIME_TYPE
from kexue_lib.data.idx import read_idx


@pytest.fixture
def data_folder(monkeypatch, tmp_path):
    folder = tmp_path / "data"
    (folder / "mnist").mkdir(parents=True)
    monkeypatch.setenv("KEXUE_DATA", str(folder))
    return folder


def write_idx(file, array):
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    file.write_bytes(gzip.compress(b"\x00\x00\x08" + bytes([array.ndim]) + lengths + array.tobytes()))


def write_test_part(folder):
    """Write a test part of MNIST where every image holds the number of its place, and its label follows."""
    places = np.arange(10_000)
    pixels = np.zeros((10_000, 28, 28), np.uint8)
    pixels[:, 0, 0], pixels[:, 0, 1] = places // 100, places % 100
    write_idx(folder / images.MNIST_TEST_IMAGES, pixels)
    write_idx(folder / images.MNIST_TEST_LABELS, (places % 10).astype(np.uint8))


def write_whole(file, monkeypatch):
    """Write a small file in the layout of mnist.npz, and make its digest the published one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels, labels = np.full((6, 28, 28), 255, np.uint8), np.arange(6, dtype=np.uint8)
    np.savez(file, x_train=pixels, y_train=labels, x_test=pixels[:2] // 5, y_test=labels[:2])
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(images, "MNIST", replace(images.MNIST, sha256=digest))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve a small mnist.npz on localhost as the file to download; return the folder served."""
    folder = tmp_path / "served"
    write_whole(folder / "mnist.npz", monkeypatch)
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        address = f"http://127.0.0.1:{running.server_port}/mnist.npz"
        monkeypatch.setattr(images, "MNIST", replace(images.MNIST, url=address))
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder
        running.shutdown()


def cached_files(tmp_path):
    return [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def lean(pixels, axis):
    """How much brighter each image is in its first half along the axis."""
    first, second = np.array_split(pixels, 2, axis=axis)
    return first.mean(axis=(1, 2)) - second.mean(axis=(1, 2))


class TestDigits:
    def test_shapes_types_and_range(self):
        data = digits()
        assert data.train_images.shape == (1438, 8, 8)
        assert data.test_labels.shape == (359,)
        assert (data.train_images.dtype, data.train_labels.dtype) == ("float32", "int32")
        assert (data.train_images.min(), data.train_images.max()) == (0.0, 1.0)
        assert not data.is_stand_in

    def test_the_split_loses_nothing_and_shares_nothing(self):
        from sklearn.datasets import load_digits

        data, every = digits(), load_digits()
        ours = np.concatenate([data.train_images, data.test_images]).reshape(-1, 64) * 16
        labels = np.concatenate([data.train_labels, data.test_labels])

        def rows(pixels, classes):
            return sorted(map(tuple, np.column_stack([pixels, classes]).tolist()))

        assert rows(ours, labels) == rows(every.data, every.target)

    def test_always_the_same_split(self):
        # np.random.default_rng(0).permutation(1797)[:8], and the labels of load_digits there
        assert digits().train_labels[:8].tolist() == [6, 6, 6, 2, 5, 6, 6, 2]


class TestMnist:
    def test_stand_in_when_nothing_is_at_hand(self):
        data = mnist()
        assert data.is_stand_in
        assert data.train_images.shape == (1438, 28, 28)
        assert data.train_images[:, :4].max() == data.train_images[:, :, -4:].max() == 0
        assert (data.train_images.min(), data.train_images.max()) == (0.0, 1.0)
        # Enlarged, not turned and not shuffled apart: each digit leans where it leant.
        small = digits()
        np.testing.assert_array_equal(data.train_labels, small.train_labels)
        for axis in (1, 2):
            leanings = [lean(some.train_images, axis) for some in (data, small)]
            assert np.corrcoef(*leanings)[0, 1] > 0.98

    def test_gpu_profile_says_how_to_get_it_both_ways(self):
        with pytest.raises(DataError, match=r"set KEXUE_DOWNLOAD=1 .* https://.* put it at .* KEXUE_DATA"):
            mnist("gpu")

    def test_test_part_is_split(self, data_folder):
        write_test_part(data_folder)
        data = mnist()
        assert data.train_images.shape == (8000, 28, 28)
        assert data.test_images.shape == (2000, 28, 28)
        assert "10,000 MNIST test images" in data.name
        assert "8,000 train and 2,000 test" in data.name
        assert "digest not checked" in data.source
        assert not data.is_stand_in
        places = [np.rint(p[:, 0, :2] * 255) @ [100, 1] for p in (data.train_images, data.test_images)]
        assert sorted(np.concatenate(places)) == list(range(10_000))
        np.testing.assert_array_equal(places[0] % 10, data.train_labels)
        assert 4000 < places[1].mean() < 6000  # the easy first half and the hard second half are mixed

    def test_test_part_is_too_little_for_the_gpu_profile(self, data_folder):
        write_test_part(data_folder)
        with pytest.raises(DataError, match="KEXUE_DOWNLOAD"):
            mnist("gpu")

    def test_test_part_without_labels(self, data_folder):
        write_test_part(data_folder)
        (data_folder / images.MNIST_TEST_LABELS).unlink()
        with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is missing"):
            mnist()

    def test_test_part_of_another_size(self, data_folder):
        write_test_part(data_folder)
        write_idx(data_folder / images.MNIST_TEST_LABELS, np.zeros(9, np.uint8))
        with pytest.raises(DataError, match="not the MNIST test set"):
            mnist()

    @pytest.mark.parametrize("profile", ["cpu", "gpu"])
    def test_whole_file_wins(self, data_folder, monkeypatch, profile):
        write_test_part(data_folder)
        write_whole(data_folder / images.MNIST.path, monkeypatch)
        data = mnist(profile)
        assert data.train_images.shape == (6, 28, 28)
        assert data.train_images.min() == 1.0
        np.testing.assert_allclose(data.test_images, 51 / 255)
        assert data.test_labels.tolist() == [0, 1]

    def test_data_folder_comes_before_the_cache(self, data_folder, tmp_path, monkeypatch):
        write_test_part(data_folder)
        write_whole(tmp_path / "cache" / images.MNIST.path, monkeypatch)
        assert len(mnist("cpu").train_images) == 8000
        assert len(mnist("gpu").train_images) == 6

    @pytest.mark.parametrize("place", ["data", "cache"])
    def test_wrong_digest(self, data_folder, tmp_path, place):
        file = tmp_path / place / images.MNIST.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"half a file")
        with pytest.raises(DataError, match=rf"{file} is damaged .* delete it"):
            mnist()

    def test_data_folder_that_is_none(self, monkeypatch, tmp_path):
        monkeypatch.setenv("KEXUE_DATA", str(tmp_path / "nowhere"))
        with pytest.raises(DataError, match="nowhere', which is no folder"):
            mnist()

    def test_what_cannot_be_read(self, tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            files.check_digest(tmp_path, images.MNIST)

    def test_a_folder_is_no_file(self, data_folder):
        (data_folder / images.MNIST.path).mkdir()
        assert mnist().is_stand_in

    def test_unknown_profile(self):
        with pytest.raises(ValueError, match="profile must be 'cpu' or 'gpu', got 'tpu'"):
            mnist("tpu")


class TestDownload:
    def test_only_when_allowed(self, server, tmp_path, monkeypatch):
        monkeypatch.setenv("KEXUE_DOWNLOAD", "0")
        assert mnist().is_stand_in
        assert cached_files(tmp_path) == []
        monkeypatch.setenv("KEXUE_DOWNLOAD", "1")
        assert len(mnist("gpu").train_images) == 6
        assert cached_files(tmp_path) == [tmp_path / "cache/mnist/mnist.npz"]

    def test_once(self, server, monkeypatch):
        monkeypatch.setenv("KEXUE_DOWNLOAD", "1")
        mnist()
        (server / "mnist.npz").unlink()
        assert len(mnist().train_images) == 6

    def test_all_needs_no_permission(self, server, tmp_path, capsys):
        download_all()
        download_all()
        assert cached_files(tmp_path) == [tmp_path / "cache/mnist/mnist.npz"]
        assert capsys.readouterr().out.count("mnist/mnist.npz: ") == 2

    def test_a_damaged_cache_is_not_blessed(self, server, tmp_path):
        download_all()
        (tmp_path / "cache/mnist/mnist.npz").write_bytes(b"junk")
        with pytest.raises(DataError, match="is damaged or another file"):
            download_all()

    def test_wrong_digest_keeps_nothing(self, server, tmp_path, monkeypatch):
        monkeypatch.setenv("KEXUE_DOWNLOAD", "1")
        (server / "mnist.npz").write_bytes(b"something else")
        with pytest.raises(DataError, match=r"mnist\.npz sent a file that is not the one Keras .* try again"):
            mnist()
        assert cached_files(tmp_path) == []

    def test_missing_on_the_server(self, server, tmp_path, monkeypatch):
        monkeypatch.setenv("KEXUE_DOWNLOAD", "1")
        (server / "mnist.npz").unlink()
        with pytest.raises(
            DataError, match=r"could not download http://.*404.* put the file at .*mnist\.npz"
        ):
            mnist()
        assert cached_files(tmp_path) == []

    def test_no_network(self, monkeypatch):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{unused.getsockname()[1]}/mnist.npz"
        monkeypatch.setenv("KEXUE_DOWNLOAD", "1")
        monkeypatch.setattr(images, "MNIST", replace(images.MNIST, url=address))
        with pytest.raises(DataError, match="could not download"):
            mnist()

    def test_unwritable_cache(self, server, tmp_path, monkeypatch):
        monkeypatch.setenv("KEXUE_DOWNLOAD", "1")
        (tmp_path / "cache").write_text("a file where the folder should be")
        with pytest.raises(DataError, match=r"cache folder .*cannot be written .* set XDG_CACHE_HOME"):
            mnist()


class TestDryRun:
    @pytest.mark.parametrize(("load", "size"), [(digits, 8), (mnist, 28), (lambda: mnist("gpu"), 28)])
    def test_true_shapes_and_no_file(self, monkeypatch, tmp_path, load, size):
        monkeypatch.setenv("KEXUE_DRY_RUN", "1")
        monkeypatch.setenv("KEXUE_DOWNLOAD", "1")
        monkeypatch.setenv("KEXUE_DATA", str(tmp_path / "nowhere"))
        data = load()
        assert data.train_images.shape == (32, size, size)
        assert data.test_images.shape == (8, size, size)
        assert (data.train_images.dtype, data.train_labels.dtype) == ("float32", "int32")
        assert data.is_stand_in
        assert "dry run" in data.name


class FileInMemory:
    def write_bytes(self, content):
        self.content = content

    def read_bytes(self):
        return self.content

    def __str__(self):
        return "file.gz"


class TestIdx:
    @given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=1, max_dims=4, max_side=5)))
    def test_round_trip(self, array):
        file = FileInMemory()
        write_idx(file, array)
        np.testing.assert_array_equal(read_idx(file), array)

    @given(st.binary(max_size=20), st.booleans())
    def test_anything_else_is_refused_by_name(self, noise, is_compressed):
        file = FileInMemory()
        content = b"\x00\x00\x08\x04" + noise  # four axes of length zero would be an empty array
        file.write_bytes(gzip.compress(content) if is_compressed else content)
        if is_compressed and len(noise) == 16 and b"\x00" * 4 in noise:
            return
        with pytest.raises(DataError, match=r"^file\.gz is"):
            read_idx(file)

    def test_truncated(self, tmp_path):
        file = tmp_path / "images.gz"
        write_idx(file, np.zeros((5, 5), np.uint8))
        file.write_bytes(file.read_bytes()[:-9])
        with pytest.raises(DataError, match=r"images\.gz is truncated or damaged .* replace it"):
            read_idx(file)

    def test_garbled_within(self, tmp_path):
        file = tmp_path / "images.gz"
        write_idx(file, np.random.default_rng(0).integers(0, 256, size=1000).astype(np.uint8))
        content = bytearray(file.read_bytes())
        content[10] ^= 0xFF  # the first byte after gzip's own header: no such kind of block
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"images\.gz is truncated or damaged .*invalid"):
            read_idx(file)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"\x00\x00\x08\x01\x00\x00\x00\x05abc", r"is damaged: 3 entries, but shape \[5\]"),
            (b"\x00\x00\x08\x02\x00\x00", "within its header"),
            (b"\x00\x00\x0d\x01\x00\x00\x00\x01abcd", "no IDX file of unsigned bytes"),
            (b"", "no IDX file"),
        ],
    )
    def test_damaged_inside(self, tmp_path, content, message):
        file = tmp_path / "images.gz"
        file.write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match=message):
            read_idx(file)


class TestDataset:
    DATA = LabelledImages(
        name="<dots>",
        source="a folder",
        licence="none",
        is_stand_in=True,
        train_images=np.zeros((3, 2, 2)),
        train_labels=np.zeros(3),
        test_images=np.zeros((1, 2, 2)),
        test_labels=np.zeros(1),
    )

    def test_show(self, shown):
        (bundle,) = shown(self.DATA.show)
        assert bundle["text/plain"] == "Stand-in data: <dots>. Source: a folder. Licence: none."
        assert bundle["text/html"].startswith('<p class="kexue-data">Stand-in data: &lt;dots&gt;.')
        assert bundle[MIME_TYPE] == {
            "name": "<dots>",
            "source": "a folder",
            "licence": "none",
            "is_stand_in": True,
            "sizes": {
                "train_images": [3, 2, 2],
                "train_labels": [3],
                "test_images": [1, 2, 2],
                "test_labels": [1],
            },
        }

    def test_is_frozen(self):
        with pytest.raises(FrozenInstanceError):
            self.DATA.name = "another"


class TestCommand:
    def test_error_is_one_line(self, tmp_path):
        """`make data` without a cache folder fails with the message and no traceback."""
        (tmp_path / "file").write_text("")
        environment = {"XDG_CACHE_HOME": str(tmp_path / "file"), "PATH": "", "HOME": str(tmp_path / "file")}
        command = [sys.executable, "-m", "kexue_lib.data"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == 1
        assert "cannot be written" in result.stderr
        assert "Traceback" not in result.stderr


def test_import_is_light():
    code = """
import sys, kexue_lib.data
print({"keras", "sklearn", "pooch", "IPython", "scipy"} & set(sys.modules))
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"
