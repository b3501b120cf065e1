"""Find a data file, or download it: `KEXUE_DATA`, the cache, the network, in this order.

Environment variables:
    KEXUE_DATA: a folder with data files, laid out as the cache; nothing is written there.
    KEXUE_DOWNLOAD: `1` allows downloads.
    KEXUE_DRY_RUN: `1` makes every loader generate a few arrays of the true shapes; no file is touched.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RemoteFile:
    """A file on the network, fixed by its digest.

    Attributes:
        path: where it lies in `KEXUE_DATA` and in the cache, relative, with forward slashes.
        url: where it can be downloaded.
        sha256: its published digest, in hexadecimal.
        digest_source: who published the digest.
    """

    path: str
    url: str
    sha256: str
    digest_source: str


class DataError(OSError):
    """A data file is missing, damaged, or cannot be stored; the message says which and what to do."""


def cache_folder() -> Path:
    """Return the folder of downloaded files: the user's cache directory of the operating system."""
    import pooch

    return Path(pooch.os_cache("kexue"))


def in_data_folder(path: str) -> Path | None:
    """Return the file `path` of `KEXUE_DATA`, or None if there is none.

    Raises:
        DataError: if `KEXUE_DATA` is set but is no folder.
    """
    folder = os.environ.get("KEXUE_DATA")
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise DataError(f"KEXUE_DATA is {folder!r}, which is no folder; correct it or unset it")
    file = Path(folder) / path
    return file if file.is_file() else None


def in_cache(remote: RemoteFile) -> Path | None:
    """Return the file from the cache, downloaded to it first where that is allowed, or None.

    Raises:
        DataError: as for `download`.
    """
    file = cache_folder() / remote.path
    if file.is_file():
        return file
    return download(remote) if os.environ.get("KEXUE_DOWNLOAD") == "1" else None


def check_digest(file: Path, remote: RemoteFile) -> None:
    """Check a file that was found against its published digest.

    Raises:
        DataError: if the digest differs or the file cannot be read.
    """
    try:
        found = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    if found != remote.sha256:
        raise DataError(
            f"{file} is damaged or another file: its SHA-256 is {found}, but {remote.digest_source} "
            f"publishes {remote.sha256}; delete it, then get it again with `make data` or from {remote.url}"
        )


def download(remote: RemoteFile) -> Path:
    """Download a file to the cache and return where it is; a file that is there already is only checked.

    It is written under a temporary name and moved into place after its digest was checked, so that the cache
    never holds half a file.

    Raises:
        DataError: if the network fails, the digest differs, or the cache cannot be written.
    """
    import pooch
    import requests

    file = cache_folder() / remote.path
    if file.is_file():
        check_digest(file, remote)
        return file
    try:
        pooch.retrieve(remote.url, f"sha256:{remote.sha256}", fname=file.name, path=file.parent)
    except requests.RequestException as error:  # before OSError, of which it is one
        problem = f"could not download {remote.url} ({error}); try again, or put the file at {file} by hand"
        raise DataError(problem) from error
    except ValueError as error:
        problem = f"{remote.url} sent a file that is not the one {remote.digest_source} publishes ({error})"
        raise DataError(f"{problem}; nothing was kept, try again") from error
    except OSError as error:
        problem = f"the cache folder {file.parent} cannot be written ({error})"
        raise DataError(
            f"{problem}; make room or set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    return file


def how_to_get(remote: RemoteFile) -> str:
    """Return the sentence that tells a reader how to get a missing file, both ways."""
    return (
        f"{remote.path} is neither in KEXUE_DATA nor in the cache. Either set KEXUE_DOWNLOAD=1 (or run "
        f"`python -m kexue_lib.data`) to download it from {remote.url}, or put it at "
        f"{remote.path} in a folder of yours and point KEXUE_DATA there"
    )
