"""Which chapters there are and what a chapter's notebook declares."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
EXECUTED = BUILD / "executed"


@dataclass(frozen=True)
class Chapter:
    """One notebook: `notebooks/<archive id>_<slug>.ipynb`."""

    path: Path

    @property
    def name(self) -> str:
        """The file's stem, "7076_random_vector_angle"."""
        return self.path.stem

    @property
    def article(self) -> str:
        """The archive id of the article on kexue.fm, "7076"."""
        return self.name.split("_")[0]

    @property
    def expected(self) -> Path:
        """The file that holds this chapter's metrics to their bands."""
        return ROOT / "ci" / "expected" / f"{self.article}.yml"

    def read(self) -> nbformat.NotebookNode:
        """Read the notebook."""
        return read_notebook(self.path)


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook in the format of this project's own, which `ci.fmt` and papermill have validated.

    To validate once more costs as much as to read, for every chapter at every build.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no JSON, as when a full disk cut it short.
    """
    return nbformat.v4.reads(path.read_text(encoding="utf-8"))


def all_chapters(root: Path = ROOT) -> list[Chapter]:
    """Return the chapters in the order of `_toc.yml`, the only place that knows their order."""
    contents = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return [Chapter(root / f"{file}.ipynb") for file in _files(contents) if file.startswith("notebooks/")]


def _files(node: Any) -> list[str]:
    """Return every `file:` of a table of contents, depth first."""
    if isinstance(node, list):
        return [file for child in node for file in _files(child)]
    if isinstance(node, dict):
        own = [node["file"]] if "file" in node else []
        return own + [
            file for child in node.values() if isinstance(child, list | dict) for file in _files(child)
        ]
    return []


def select_chapters(names: list[str] | None, root: Path = ROOT) -> list[Chapter]:
    """Return the chapters whose archive id or name is listed; all of them without a list.

    Raises:
        ValueError: for a name that no chapter has.
    """
    chapters = all_chapters(root)
    if not names:
        return chapters
    unknown = [name for name in names if not any(name in (c.article, c.name) for c in chapters)]
    if unknown:
        known = ", ".join(chapter.name for chapter in chapters)
        raise ValueError(f"no chapter is called {', '.join(unknown)}; there are: {known}")
    return [chapter for chapter in chapters if chapter.article in names or chapter.name in names]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the code cells that belong to the chapter: neither injected nor an error banner."""
    injected = "injected-parameters"
    return [cell for cell in notebook.cells if cell.cell_type == "code" and injected not in tags(cell)]


def outputs(notebook: nbformat.NotebookNode, mime: str) -> list[dict]:
    """Return the payloads of one MIME type, in order of appearance."""
    return [
        output["data"][mime]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if mime in output.get("data", {})
    ]
