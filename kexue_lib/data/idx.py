"""Read the IDX format, in which MNIST was published."""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from kexue_lib.data.files import DataError

UNSIGNED_BYTES = b"\x00\x00\x08"


def read_idx(file: Path) -> np.ndarray:
    """Read a gzip-compressed IDX file of unsigned bytes.

    The format: two zero bytes, a byte for the type (8: unsigned byte), one for the number of axes, the length
    of every axis as a big-endian 32-bit integer, the entries in C order.

    Returns:
        An array of the shape the file states, uint8.

    Raises:
        DataError: if the file is truncated, damaged, or not IDX with unsigned bytes.

    Source: http://yann.lecun.com/exdb/mnist/, "File formats for the MNIST database".
    """
    try:
        content = gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} is truncated or damaged ({error}); replace it by a good copy") from error
    if len(content) < 4 or content[:3] != UNSIGNED_BYTES:
        raise DataError(f"{file} is no IDX file of unsigned bytes; replace it by a good copy")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise DataError(f"{file} is truncated within its header; replace it by a good copy")
    shape = np.frombuffer(content[4:header], dtype=">u4").tolist()
    found = len(content) - header
    if found != prod(shape):
        raise DataError(f"{file} is damaged: {found} entries, but shape {shape}; replace it by a good copy")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
