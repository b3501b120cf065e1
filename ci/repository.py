"""The repository's slug and the tag readers install: `make repository SLUG=owner/name` sets them everywhere.

The committed truth is `repository.url` in `_config.yml`; the version is `kexue_lib.version`.
"""

import re
import sys
from pathlib import Path

from ci.chapters import ROOT
from kexue_lib.version import __version__

FILES = ("_config.yml", "README.md", "CITATION.cff", "CONTRIBUTING.md", "CHANGELOG.md", "book/how_to_run.md")


def slug(root: Path = ROOT) -> str:
    """Return "owner/name"."""
    found = re.search(
        r"url:\s*https://github\.com/([\w.-]+/[\w.-]+)", (root / "_config.yml").read_text("utf-8")
    )
    if found is None:
        raise ValueError("_config.yml must have `repository:` with `url: https://github.com/owner/name`")
    return found[1]


def tag() -> str:
    """Return the tag that published pages link to and Colab installs."""
    return f"v{__version__}"


def setup_cell(root: Path = ROOT) -> str:
    """Return the first code cell of every chapter, the same in all of them."""
    return f"""\
# @title Setup. Does nothing where the book's library is installed; in Colab it installs it.
import importlib.util
import os
import subprocess
import sys

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if importlib.util.find_spec("kexue_lib") is None:
    os.environ.setdefault("KEXUE_DOWNLOAD", "1")  # small data sets may be fetched
    library = "kexue-lib @ git+https://github.com/{slug(root)}@{tag()}"
    # --no-deps: nothing that Colab ships is replaced.
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
    subprocess.check_call([*pip, library])"""


def rename(new: str, root: Path = ROOT) -> list[Path]:
    """Put `new` in the place of the slug in every file that names it; return the files that changed.

    Raises:
        ValueError: if `new` is not of the form owner/name.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
        raise ValueError(f"SLUG must be owner/name, got {new!r}")
    old, changed = slug(root), []
    for path in [root / file for file in FILES] + sorted((root / "notebooks").glob("*.ipynb")):
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if old in text:
            path.write_text(text.replace(old, new), encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    for changed_file in rename(sys.argv[1]):
        print(changed_file.relative_to(ROOT))
