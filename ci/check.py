"""Hold an executed notebook to its expected metrics: `python -m ci.check executed.ipynb …`.

Works for any executed chapter, also one run by plain papermill. `ci/expected/<id>.yml` declares each metric

    name: {exact: 5165}
    name: {close: 0.1106614778685577, rtol: 1.0e-12}
    name: {band: [null, 4.0], claim: "Monte Carlo agrees with the law within four standard errors"}
    name: {info: true}                      # times and the like: shown, never gate

A metric may differ `where:` the profile, the backend or the data differ: a list of such declarations, each
with the conditions it holds under; the last one that applies wins.
"""

import ast
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml

from ci.chapters import ROOT, code_cells, outputs, tags
from kexue_lib.checks import MIME as CHECK_MIME
from kexue_lib.notebook import METRICS_MIME

DATA_MIME = "application/vnd.kexue.data+json"
KINDS = ("exact", "close", "band", "info")


@dataclass(frozen=True)
class Verdict:
    """What a notebook measured, how many checks it passed and what is wrong with it."""

    metrics: dict[str, float]
    checks: int
    problems: list[str]


def judge(notebook: nbformat.NotebookNode, expected: Path | None, *, backend: str | None = None) -> Verdict:
    """Compare the metrics in `notebook` with the file `expected`; without one only collect them."""
    metrics = {name: value for payload in outputs(notebook, METRICS_MIME) for name, value in payload.items()}
    checks = len(outputs(notebook, CHECK_MIME))
    if expected is None:
        return Verdict(metrics, checks, [])
    declared = read_expected(expected)
    context = _context(notebook, backend)
    problems = _compare_names(metrics, declared["metrics"])
    if checks != declared["checks"]:
        problems.append(f"{checks} checks passed, {declared['checks']} are declared in {expected.name}")
    for name in sorted(metrics.keys() & declared["metrics"].keys()):
        rule = _applying(declared["metrics"][name], context)
        problem = _violation(metrics[name], rule)
        if problem:
            problems.append(f"{name} = {metrics[name]!r} {problem}")
    return Verdict(metrics, checks, problems)


def read_expected(path: Path) -> dict[str, Any]:
    """Read a file of expectations.

    Raises:
        ValueError: if it is not of the form above; the message names the file and the metric.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist: every chapter declares its metrics there")
    declared = yaml.safe_load(path.read_text(encoding="utf-8"))
    if (
        not isinstance(declared, dict)
        or not isinstance(declared.get("metrics"), dict)
        or "checks" not in declared
    ):
        raise ValueError(f"{path}: must have `checks: <number>` and `metrics: {{name: rule, …}}`")
    for name, rule in declared["metrics"].items():
        for variant in [rule, *rule.get("where", [])]:
            if sum(kind in variant for kind in KINDS) != 1:
                raise ValueError(f"{path}: {name} needs exactly one of {', '.join(KINDS)}, got {variant}")
            if "band" in variant and not rule.get("claim"):
                raise ValueError(f"{path}: the band of {name} must say which claim it holds")
    return declared


def _compare_names(metrics: dict, declared: dict) -> list[str]:
    unknown = [f"{name} is recorded but not declared" for name in sorted(metrics.keys() - declared.keys())]
    missing = [f"{name} is declared but not recorded" for name in sorted(declared.keys() - metrics.keys())]
    return unknown + missing


def _context(notebook: nbformat.NotebookNode, backend: str | None) -> dict[str, str]:
    """Return what `where:` can ask for: profile, backend, and data ("real" or "stand-in")."""
    injected = notebook.metadata.get("papermill", {}).get("parameters", {})
    stand_ins = [payload.get("is_stand_in") for payload in outputs(notebook, DATA_MIME)]
    profile = {"profile": "cpu", **_parameters(notebook), **injected}["profile"]
    run = notebook.metadata.get("kexue_run", {})
    used = backend or run.get("backend") or "tensorflow"
    return {"profile": profile, "backend": used, "data": "stand-in" if any(stand_ins) else "real"}


def _parameters(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Return what the parameters cell sets.

    `papermill.inspect_notebook` would write out the whole notebook and read it again, outputs and all.
    """
    cells = [cell.source for cell in code_cells(notebook) if "parameters" in tags(cell)]
    lines = [line for source in cells for line in ast.parse(source).body if isinstance(line, ast.Assign)]
    return {target.id: ast.literal_eval(line.value) for line in lines for target in line.targets}


def _applying(rule: dict, context: dict[str, str]) -> dict:
    chosen = rule
    for variant in rule.get("where", []):
        if all(context[key] == variant[key] for key in context.keys() & variant.keys()):
            chosen = {**variant, "claim": variant.get("claim", rule.get("claim"))}
    return chosen


def _violation(value: float, rule: dict) -> str | None:
    if "exact" in rule and value != rule["exact"]:
        return f"is not exactly {rule['exact']!r}"
    if "close" in rule:
        rtol, atol = rule.get("rtol", 1e-10), rule.get("atol", 0.0)
        if not math.isclose(value, rule["close"], rel_tol=rtol, abs_tol=atol):
            return f"is not close to {rule['close']!r} (rtol {rtol:g}, atol {atol:g})"
    if "band" in rule:
        low, high = rule["band"]
        low, high = (-math.inf if low is None else low), (math.inf if high is None else high)
        if not low <= value <= high:
            return f"left its band [{low:g}, {high:g}]: {rule['claim']}"
    return None


def main(paths: list[str]) -> int:
    """Judge each notebook; 0 only if all of them hold."""
    failed = 0
    for path in map(Path, paths):
        notebook = nbformat.read(path, as_version=4)
        verdict = judge(notebook, ROOT / "ci" / "expected" / f"{path.stem.split('_')[0]}.yml")
        errors = [o.ename for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "error"]
        problems = [f"a cell raised {name}" for name in errors] + verdict.problems
        print(
            f"{path.name}: {verdict.checks} checks, {len(verdict.metrics)} metrics, {len(problems)} problems"
        )
        print("".join(f"    {problem}\n" for problem in problems), end="")
        failed += bool(problems)
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
