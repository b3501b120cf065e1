"""Make the skeleton of a chapter that already passes lint: `make new-chapter ID=1234 SLUG=some_words`."""

import re
import sys
from pathlib import Path

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ci.chapters import ROOT
from ci.fmt import normal_form

OPENING = """\
# Title: the subject in plain words

The claim of the chapter in one sentence, with its formula.

*After the article [标题](https://kexue.fm/archives/{article}) by Su Jianlin (苏剑林), date. \
Text, code and figures here are our own.*

> **中文导读.** {guide}"""

GUIDE = (
    "这里用一百二十到二百五十个汉字写一段自己的导读：先说读者心里的那个问题，再说原文的关键一步，"
    "然后说本章做了什么——哪些等式由机器核对，哪个模型从零写起，用什么数据、与什么基线比较，重复了几个种子；"
    "最后坦率地说结论在哪里成立，在哪里不成立，后来的工作又改变了什么。不要照抄原文，也不要逐句翻译英文。"
)

PREAMBLE = """\
config = {"cpu": dict(steps=10), "gpu": dict(steps=1000)}[profile]

import matplotlib.pyplot as plt
import numpy as np
import sympy

from kexue_lib import checks, notebook, plotting

if notebook.dry_run():
    config |= dict(steps=2)
notebook.seed_everything(seed)
plotting.use_book_style()"""

FIGURE = """\
x = np.linspace(-1, 1, 101)
figure, axes = plt.subplots()
axes.plot(x, x**2)
axes.set(xlabel="x", ylabel="x²")
plt.show()"""

CHECK = """\
x = sympy.Symbol("x", real=True)
checks.identity((x + 1) ** 2, x**2 + 2 * x + 1, wrong=x**2 + 1)"""

EXERCISES = """\
## In three lines

1. …
2. …
3. …

## Exercises"""

EXERCISE = """\
**{number}. A {kind}.** The question.

<details><summary>Solution</summary>

The answer in words; the cell below runs it.

</details>"""

SOLUTION = "checks.close(sum([0.1] * {number}), {number} / 10, wrong=1 / {number} + 1)"


def skeleton(article: str) -> str:
    """Return the text of a notebook for `article` that passes lint and says what goes where."""
    caption = {"caption": "What the figure shows, in one sentence.", "name": f"fig-{article}-first"}
    figure = {"mystnb": {"figure": caption, "image": {"alt": "The figure in words."}}}
    cells = [
        new_markdown_cell(OPENING.format(article=article, guide=GUIDE)),
        new_code_cell("setup", metadata={"tags": ["setup", "preamble"]}),
        new_code_cell('profile = "cpu"\nseed = 0', metadata={"tags": ["parameters", "preamble"]}),
        new_code_cell(PREAMBLE, metadata={"tags": ["preamble"]}),
        new_markdown_cell("## The surprising figure\n\nThe question it raises."),
        new_code_cell(FIGURE, metadata=figure),
        new_markdown_cell("## Derivation\n\n$$(x+1)^2=x^2+2x+1. \\tag{1}$$"),
        new_code_cell(CHECK),
        new_markdown_cell(EXERCISES),
    ]
    for number, kind in enumerate(("derivation", "number", "way to break it"), start=1):
        cells.append(new_markdown_cell(EXERCISE.format(number=number, kind=kind)))
        solution = SOLUTION.format(number=number)
        cells.append(new_code_cell(solution, metadata={"tags": ["hide-cell", "solution"]}))
    closing = 'notebook.compare([("quantity", "original", 1.0)], data="none", profile=profile)'
    cells += [
        new_markdown_cell("## References\n\n* Su Jianlin (苏剑林), the article."),
        new_code_cell(closing),
        new_code_cell('notebook.record(steps=config["steps"])', metadata={"tags": ["remove-output"]}),
        new_code_cell("notebook.versions()"),
    ]
    return normal_form(new_notebook(cells=cells), article)


def create(article: str, slug: str, root: Path = ROOT) -> Path:
    """Write the skeleton, its expectations and its line in `_toc.yml`; return the notebook's path.

    Raises:
        ValueError: if the id or the slug is malformed, or the chapter exists.
    """
    if not re.fullmatch(r"\d+", article) or not re.fullmatch(r"[a-z][a-z0-9_]*", slug):
        raise ValueError(f"ID must be digits and SLUG lower_case_words, got {article!r} and {slug!r}")
    path = root / "notebooks" / f"{article}_{slug}.ipynb"
    if list((root / "notebooks").glob(f"{article}_*.ipynb")):
        raise ValueError(f"there is a chapter for article {article} already")
    path.write_text(skeleton(article), encoding="utf-8")
    expected = "checks: 4\nseconds: 5\nmetrics:\n  steps: {info: true}\n"
    (root / "ci" / "expected" / f"{article}.yml").write_text(expected, encoding="utf-8")
    contents = (root / "_toc.yml").read_text(encoding="utf-8")
    last = [match.end() for match in re.finditer(r"- file: notebooks/\S+\n", contents)][-1]
    line = f"      - file: notebooks/{path.stem}\n"
    (root / "_toc.yml").write_text(contents[:last] + line + contents[last:], encoding="utf-8")
    return path


if __name__ == "__main__":
    try:
        print(create(*sys.argv[1:3]).relative_to(ROOT))
    except (ValueError, TypeError) as error:
        sys.exit(f"make new-chapter ID=1234 SLUG=some_words: {error}")
