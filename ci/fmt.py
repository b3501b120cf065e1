"""The normal form of a notebook, and `make fmt`, which brings every file into it.

No outputs or counts, sorted keys, one-space indent, one metadata block for all chapters, stable cell ids:
a cell keeps its id for life, and a new cell gets the next free number.
"""

import re
import subprocess
import sys
from pathlib import Path

import nbformat

from ci.chapters import ROOT, Chapter, all_chapters, tags
from ci.repository import setup_cell

METADATA = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "provenance": [], "toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
KEPT_CELL_METADATA = ("mystnb", "tags")


def normal_form(notebook: nbformat.NotebookNode, article: str) -> str:
    """Return the text of the notebook in its normal form."""
    notebook = nbformat.from_dict(notebook)
    notebook.nbformat, notebook.nbformat_minor, notebook.metadata = 4, 5, METADATA
    for cell in notebook.cells:
        cell.metadata = {key: cell.metadata[key] for key in KEPT_CELL_METADATA if cell.metadata.get(key)}
        cell.source = "\n".join(line.rstrip() for line in cell.source.strip("\n").split("\n"))
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "setup" in tags(cell):
            cell.source = setup_cell()
    notebook.cells = [cell for cell in notebook.cells if cell.source]
    _give_ids(notebook.cells, article)
    nbformat.validate(notebook)
    return nbformat.writes(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _give_ids(cells: list[nbformat.NotebookNode], article: str) -> None:
    taken: set[str] = set()
    for cell in cells:
        known = re.fullmatch(rf"{article}-\d{{3}}", cell.get("id", ""))
        if known and cell.id not in taken:
            taken.add(cell.id)
        else:
            cell.id = ""
    highest = max((int(identifier[-3:]) for identifier in taken), default=0)
    for cell in cells:
        if not cell.id:
            highest += 1
            cell.id = f"{article}-{highest:03d}"


def format_chapter(chapter: Chapter) -> bool:
    """Bring a chapter into its normal form; return whether it changed."""
    before = chapter.path.read_text(encoding="utf-8")
    after = normal_form(chapter.read(), chapter.article)
    if after != before:
        chapter.path.write_text(after, encoding="utf-8")
    return after != before


def main() -> int:
    """Format Python with ruff (notebooks included), then the notebooks' JSON."""
    ruff = [str(Path(sys.executable).parent / "ruff")]
    subprocess.run([*ruff, "check", "--fix", "--quiet", "."], cwd=ROOT, check=False)
    subprocess.run([*ruff, "format", "--quiet", "."], cwd=ROOT, check=True)
    for chapter in all_chapters():
        if format_chapter(chapter):
            print(f"{chapter.path.relative_to(ROOT)} brought into normal form")
    return 0


if __name__ == "__main__":
    sys.exit(main())
