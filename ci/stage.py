"""Stage the site's sources: chapters with the outputs of their last run, and the generated pages.

The staged tree `_build/site` has the layout of the repository, so that links and launch buttons stay right.
Files are rewritten only where their text changes, so that Sphinx rebuilds only what did.
"""

import html
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

from ci import check
from ci.chapters import BUILD, EXECUTED, ROOT, Chapter, all_chapters, code_cells, outputs, read_notebook, tags
from ci.repository import slug, tag
from kexue_lib.notebook import COMPARISON_MIME, ERRATUM_MIME

SITE = BUILD / "site"
DISPLAYED = ("text/html", "text/markdown", "text/latex", "text/plain")


def stage(root: Path = ROOT, target: Path = SITE) -> list[Path]:
    """Write the staged tree; return the files that changed.

    Raises:
        FileNotFoundError: if a chapter has not been executed, or its code has changed since.
    """
    chapters = all_chapters(root)
    executed = {chapter: attach_outputs(chapter, EXECUTED / chapter.path.name) for chapter in chapters}
    files = {f"notebooks/{c.path.name}": _notebook_text(c, notebook) for c, notebook in executed.items()}
    files["book/errata.md"] = errata_page(executed)
    files["book/results.md"] = results_page(executed)
    for path in [root / "_config.yml", root / "_toc.yml", *sorted((root / "book").rglob("*"))]:
        if path.is_file() and "__pycache__" not in path.parts:
            files[str(path.relative_to(root))] = path.read_bytes()
    changed = [target / name for name, content in files.items() if _write(target / name, content)]
    for path in sorted(target.rglob("*")):
        if path.is_file() and str(path.relative_to(target)) not in files:
            path.unlink()  # a chapter that is no more
    return changed


def attach_outputs(chapter: Chapter, executed_path: Path) -> nbformat.NotebookNode:
    """Return the chapter as it reads now, with the outputs of its last run."""
    if not executed_path.exists():
        raise FileNotFoundError(f"{chapter.name} has not been executed: python -m ci.execute")
    notebook, executed = chapter.read(), read_notebook(executed_path)
    ours, theirs = code_cells(notebook), code_cells(executed)
    if [cell.source for cell in ours] != [
        cell.source for cell in theirs
    ] or "kexue_run" not in executed.metadata:
        raise FileNotFoundError(f"{chapter.name} has changed since it was executed: python -m ci.execute")
    for cell, done in zip(ours, theirs, strict=True):
        cell.outputs, cell.execution_count = done.outputs, done.execution_count
    notebook.metadata["kexue_run"] = executed.metadata["kexue_run"]
    return notebook


def _notebook_text(chapter: Chapter, notebook: nbformat.NotebookNode) -> bytes:
    notebook = nbformat.from_dict(notebook)
    _fold_preamble(notebook)
    box = new_markdown_cell(provenance_box(chapter, notebook), id="provenance")
    notebook.cells.insert(1, box)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            _keep_what_is_shown(output)
    del notebook.metadata["kexue_run"]
    return nbformat.writes(notebook).encode()


def _fold_preamble(notebook: nbformat.NotebookNode) -> None:
    """Merge setup, parameters and imports into one folded line."""
    preamble = [cell for cell in notebook.cells if "preamble" in tags(cell)]
    merged = new_code_cell("\n\n".join(cell.source for cell in preamble), id=preamble[-1].id)
    merged.metadata = {
        "tags": ["hide-input"],
        "mystnb": {"code_prompt_show": "Setup, parameters and imports"},
    }
    merged.execution_count = preamble[-1].execution_count
    notebook.cells[notebook.cells.index(preamble[-1])] = merged
    notebook.cells = [cell for cell in notebook.cells if cell not in preamble]


def _keep_what_is_shown(output: nbformat.NotebookNode) -> None:
    """Drop the JSON meant for machines, and let plotly's script come from the site itself."""
    if "data" not in output:
        return
    output["data"] = {
        mime: data for mime, data in output["data"].items() if mime in DISPLAYED or mime.startswith("image/")
    }
    markup = output["data"].get("text/html", "")
    output["data"] |= (
        {
            "text/html": re.sub(
                r"https://cdn\.plot\.ly/plotly-[\d.]+\.min\.js", "../_static/plotly.min.js", markup
            )
        }
        if markup
        else {}
    )


def provenance_box(chapter: Chapter, notebook: nbformat.NotebookNode) -> str:
    """Return the box under the title: what was checked, when and on what."""
    run, verdict = notebook.metadata["kexue_run"], check.judge(notebook, None)
    backend = f", {run['backend']} backend" if run["backend"] else ""
    return (
        '<aside class="kexue-provenance">\n'
        f"<strong>{verdict.checks} checks</strong> and {len(verdict.metrics)} metrics passed in the run that "
        f"built this page: {run['date']}, {run['seconds']:.0f} s on {html.escape(run['device'])}, "
        f"Python {run['python']}{backend}, edition {tag()}. "
        f'<a href="https://github.com/{slug()}/blob/{tag()}/notebooks/{chapter.path.name}">Source</a>\n'
        "</aside>"
    )


def errata_page(executed: dict[Chapter, nbformat.NotebookNode]) -> str:
    """Return the page of all errata, collected from the chapters that check them."""
    lines = [
        "# Errata of the articles",
        "",
        "What the chapters found to be mistaken in the originals, and what holds instead. Each entry is "
        "checked by the cells around it in its chapter. They could be found because the articles show their "
        "derivations.",
    ]
    for chapter, notebook in executed.items():
        found = outputs(notebook, ERRATUM_MIME)
        if found:
            lines += ["", f"## [{_title(notebook)}](../notebooks/{chapter.path.name})"]
        for entry in found:
            lines += ["", f"> **Erratum.** {entry['statement']}", ">"]
            lines += [f"> **Why it fails.** {entry['problem']}", ">", f"> **What holds.** {entry['repair']}"]
    return "\n".join(lines) + "\n"


def results_page(executed: dict[Chapter, nbformat.NotebookNode]) -> str:
    """Return the page of results: the closing table of every chapter and its counts."""
    lines = [
        "# Results",
        "",
        "The figures of the originals beside ours, from the run that built this site.",
        "",
    ]
    lines += ["| chapter | checks | metrics | seconds | peak memory |", "|---|---|---|---|---|"]
    for chapter, notebook in executed.items():
        run, verdict = notebook.metadata["kexue_run"], check.judge(notebook, None)
        counts = (
            f"{verdict.checks} | {len(verdict.metrics)} | {run['seconds']:.0f} | {run['peak_megabytes']} MB"
        )
        lines += [f"| [{_title(notebook)}](../notebooks/{chapter.path.name}) | {counts} |"]
    for chapter, notebook in executed.items():
        for table in outputs(notebook, COMPARISON_MIME):
            lines += ["", f"## [{_title(notebook)}](../notebooks/{chapter.path.name})", ""]
            lines += ["| quantity | original | here |", "|---|---|---|"]
            lines += [f"| {' | '.join(row)} |" for row in table["rows"]]
            lines += [
                "",
                f"Data: {table['data']} · profile: `{table['profile']}` · device: {table['device']}",
            ]
    return "\n".join(lines) + "\n"


def _title(notebook: nbformat.NotebookNode) -> str:
    return re.match(r"# (.+)", notebook.cells[0].source)[1]


def _write(path: Path, content: str | bytes) -> bool:
    """Write `content` if it differs from what is there; return whether it did."""
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True


def clean(target: Path = SITE) -> None:
    """Remove the staged tree."""
    shutil.rmtree(target, ignore_errors=True)


if __name__ == "__main__":
    try:
        print(f"{len(stage())} staged files changed")
    except FileNotFoundError as error:
        sys.exit(str(error))
