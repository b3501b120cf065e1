"""The rules of a chapter that a machine can hold: `python -m ci.lint`. Each message says how to mend it.

| id | rule |
|---|---|
| KX01 | notebooks are in normal form and carry no outputs (`make fmt`) |
| KX02 | the first code cell is the setup cell, the same in all chapters |
| KX03 | one cell tagged `parameters` holds scalars, `profile = "cpu"` and `seed = 0` among them |
| KX04 | Markdown is portable: no MyST roles, directives, labels or comments |
| KX05 | displayed equations are tagged 1, 2, 3 …; no `align`, no `\\label` |
| KX06 | every drawn figure has caption, name and alt text in its cell's metadata |
| KX07 | `_toc.yml` lists every chapter, and every file it lists exists |
| KX08 | banned constructs are absent: star imports, Lambda layers, shell escapes, `os.system` |
| KX09 | frameworks are imported where they are first used, not in the preamble |
| KX10 | the chapter opens with title, claim, the article's address and a 中文导读 of 120–250 characters |
| KX11 | at least three exercises, each with a folded solution that runs |
| KX12 | `ci/expected/<id>.yml` exists and is well formed |
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import yaml

from ci import check
from ci.chapters import ROOT, Chapter, all_chapters, tags
from ci.fmt import normal_form
from ci.repository import setup_cell

MYST = re.compile(
    r"\{[a-z:]+\}`|^```\{|^:{3,}|^\([\w-]+\)=$|^% |\{(?:ref|eq|cite|numref)\}|\$\$ +\([\w:-]+\)$",
    re.MULTILINE,
)
BANNED = {
    r"^\s*from \S+ import \*": "import the names, not a star",
    r"\bLambda\(": "write a registered layer, or keras.ops in `call`: Lambda does not load",
    r"^\s*[!%](?!matplotlib)": "no shell escapes or magics: papermill, Colab and a script run the same code",
    r"\bos\.system\(": "use subprocess, and only if nothing in the library does it",
    r"\.numpy\(\)": "keras.ops.convert_to_numpy works on every backend",
    r"\bimport tensorflow\b|\bimport torch\b|\bimport jax\b": "chapters speak keras.ops, not one backend",
}
FRAMEWORKS = re.compile(r"^\s*(?:import|from) (?:keras|kexue_lib\.(?:autodiff|landscape))\b", re.M)


def lint_chapter(chapter: Chapter) -> Iterator[tuple[str, str]]:
    """Yield (rule, message) for everything in one chapter that breaks a rule."""
    notebook = chapter.read()
    if normal_form(notebook, chapter.article) != chapter.path.read_text(encoding="utf-8"):
        yield "KX01", "not in normal form: run `make fmt`"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    for rule in (_setup, _parameters, _banned, _frameworks, _figures):
        yield from rule(code)
    for rule in (_portable, _equations, _opening):
        yield from rule(prose)
    yield from _exercises(notebook)
    yield from _expected(chapter)


def _setup(code: list) -> Iterator[tuple[str, str]]:
    if not code or code[0].source != setup_cell() or "setup" not in tags(code[0]):
        yield "KX02", "the first code cell must be the setup cell with the tag `setup`; `make fmt` fills it"


def _parameters(code: list) -> Iterator[tuple[str, str]]:
    cells = [cell for cell in code if "parameters" in tags(cell)]
    if len(cells) != 1:
        yield "KX03", f"one cell must be tagged `parameters`, found {len(cells)}"
        return
    values = {}
    for statement in ast.parse(cells[0].source).body:
        if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)):
            yield "KX03", f"the parameters cell may only assign scalars, found `{ast.unparse(statement)}`"
            return
        values[statement.targets[0].id] = statement.value.value
    if values.get("profile") != "cpu" or values.get("seed") != 0:
        yield "KX03", 'the parameters cell must hold `profile = "cpu"` and `seed = 0`'


def _portable(prose: list) -> Iterator[tuple[str, str]]:
    for cell in prose:
        for match in MYST.finditer(cell.source):
            yield "KX04", f"{cell.id}: `{match[0].strip()}` shows raw in Colab; use plain Markdown and \\tag"


def _equations(prose: list) -> Iterator[tuple[str, str]]:
    text = "\n".join(cell.source for cell in prose)
    numbers = [int(number) for number in re.findall(r"\\tag\{(\d+)\}", text)]
    if numbers != list(range(1, len(numbers) + 1)):
        yield "KX05", f"equation tags must count 1, 2, 3, …; found {numbers}"
    for name in re.findall(r"\\begin\{(align\*?|eqnarray\*?|equation\*?)\}|(\\label)", text):
        yield "KX05", f"`{''.join(name)}` is not portable: use `aligned` inside $$ and \\tag"


def _figures(code: list) -> Iterator[tuple[str, str]]:
    names = set()
    for cell in code:
        if not re.search(r"\bplt\.show\(", cell.source):
            continue
        metadata = cell.metadata.get("mystnb", {})
        figure, image = metadata.get("figure", {}), metadata.get("image", {})
        if not (figure.get("caption") and figure.get("name") and image.get("alt")):
            yield "KX06", f"{cell.id}: give the figure caption, name and alt text in `mystnb` metadata"
        if figure.get("name") in names:
            yield "KX06", f"{cell.id}: the figure's name {figure['name']} is taken"
        names.add(figure.get("name"))


def _banned(code: list) -> Iterator[tuple[str, str]]:
    for cell in code[1:]:
        for pattern, advice in BANNED.items():
            if re.search(pattern, cell.source, re.M):
                yield "KX08", f"{cell.id}: {advice}"


def _frameworks(code: list) -> Iterator[tuple[str, str]]:
    for cell in code:
        if "preamble" in tags(cell) and FRAMEWORKS.search(cell.source):
            yield (
                "KX09",
                f"{cell.id}: import the framework where it is first used, so that the text starts at once",
            )


def _opening(prose: list) -> Iterator[tuple[str, str]]:
    opening = prose[0].source if prose else ""
    if not opening.startswith("# ") or not re.search(r"https://kexue\.fm/archives/\d+", opening):
        yield "KX10", "the first cell must hold the title, the claim and the article's address"
    guide = re.search(r"> \*\*中文导读\.\*\*(.+)", opening)
    length = len(re.findall(r"[\u3400-\u9fff]", guide[1])) if guide else 0
    if not 120 <= length <= 250:
        yield "KX10", f"the 中文导读 must have 120 to 250 characters, it has {length}"


def _exercises(notebook: nbformat.NotebookNode) -> Iterator[tuple[str, str]]:
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    exercises = prose.split("## Exercises")[1] if "## Exercises" in prose else ""
    asked = len(re.findall(r"^\*\*\d+\. ", exercises, re.M))
    told = len(re.findall(r"<details><summary>Solution", exercises))
    run = sum("solution" in tags(cell) for cell in notebook.cells)
    if asked < 3 or told < asked or run < asked:
        yield (
            "KX11",
            f"{asked} exercises, {told} folded solutions, {run} executed ones: three of each at least",
        )


def _expected(chapter: Chapter) -> Iterator[tuple[str, str]]:
    try:
        check.read_expected(chapter.expected)
    except ValueError as error:
        yield "KX12", str(error)


def lint_contents(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Yield what is wrong between `_toc.yml` and the files."""
    generated = {"book/errata", "book/results"}
    listed = set(re.findall(r"(?:file|root):\s*(\S+)", (root / "_toc.yml").read_text(encoding="utf-8")))
    for name in sorted(listed - generated):
        if not any((root / f"{name}{suffix}").exists() for suffix in (".md", ".ipynb")):
            yield "KX07", f"_toc.yml lists {name}, which does not exist"
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        if f"notebooks/{path.stem}" not in listed:
            yield "KX07", f"{path.name} is not in _toc.yml"
    yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))


def main() -> int:
    """Run ruff and the rules; 0 only if nothing is found."""
    ruff = str(Path(sys.executable).parent / "ruff")
    failed = subprocess.run([ruff, "check", "--quiet", "."], cwd=ROOT, check=False).returncode
    failed |= subprocess.run([ruff, "format", "--check", "--quiet", "."], cwd=ROOT, check=False).returncode
    if failed:
        print("ruff: run `make fmt`")
    findings = [("_toc.yml", *found) for found in lint_contents()]
    for chapter in all_chapters():
        findings += [(chapter.path.name, *found) for found in lint_chapter(chapter)]
    for name, rule, message in findings:
        print(f"{name}: {rule} {message}")
    print(f"lint: {len(findings)} findings in {len(all_chapters())} chapters")
    return 1 if failed or findings else 0


if __name__ == "__main__":
    sys.exit(main())
