"""Data sets of the book, each with its source and licence.

A loader looks in the folder `KEXUE_DATA`, in the cache, on the network if `KEXUE_DOWNLOAD=1`, and at last, in
the `cpu` profile only, generates a stand-in. With `KEXUE_DRY_RUN=1` it generates a few arrays of the true
shapes and touches no file. Call `show()` on what it returns to say on the page what was used.
"""

from kexue_lib.data.brackets import nested_brackets
from kexue_lib.data.dataset import Brackets, Couplets, Dataset, LabelledImages, Text, Verse
from kexue_lib.data.files import DataError
from kexue_lib.data.images import digits, mnist
from kexue_lib.data.texts import novel, tang_couplets, verse

__all__ = [
    "Brackets",
    "Couplets",
    "DataError",
    "Dataset",
    "LabelledImages",
    "Text",
    "Verse",
    "digits",
    "download_all",
    "mnist",
    "nested_brackets",
    "novel",
    "tang_couplets",
    "verse",
]


def download_all() -> None:
    """Download every small data set that is not in the cache yet, and print where each is.

    This is an explicit order, so it needs no `KEXUE_DOWNLOAD`.

    Raises:
        DataError: if a download fails, a file is damaged, or the cache cannot be written.
    """
    from kexue_lib.data.files import download
    from kexue_lib.data.images import MNIST

    for remote in (MNIST,):
        print(f"{remote.path}: {download(remote)}")
