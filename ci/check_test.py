import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from ci import check
from kexue_lib.checks import MIME as CHECK_MIME
from kexue_lib.notebook import METRICS_MIME

RULES = """\
checks: 1
metrics:
  steps: {exact: 5165}
  variance: {close: 0.5, rtol: 1.0e-6}
  gap:
    band: [0, null]
    claim: "A beats B"
    where:
      - {profile: gpu, band: [1, null]}
      - {backend: torch, info: true}
      - {data: stand-in, band: [-1, null]}
  seconds: {info: true}
"""


def executed(profile="cpu", stand_in=False, **metrics) -> nbformat.NotebookNode:
    values = {"steps": 5165, "variance": 0.5, "gap": 0.5, "seconds": 3.0, **metrics}
    outputs = [
        new_output("display_data", {METRICS_MIME: values}),
        new_output("display_data", {CHECK_MIME: {"statement": "a = b", "method": "exact"}}),
        new_output("display_data", {check.DATA_MIME: {"is_stand_in": stand_in}}),
    ]
    parameters = new_code_cell(f'profile = "{profile}"\nseed = 0', metadata={"tags": ["parameters"]})
    kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return new_notebook(
        cells=[parameters, new_code_cell("", outputs=outputs)], metadata={"kernelspec": kernelspec}
    )


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "1.yml"
    path.write_text(RULES, encoding="utf-8")
    return path


def test_everything_holds(rules):
    verdict = check.judge(executed(), rules)
    assert (verdict.problems, verdict.checks, verdict.metrics["steps"]) == ([], 1, 5165)


@pytest.mark.parametrize(
    ("metrics", "problem"),
    [
        ({"steps": 5164}, "steps = 5164 is not exactly 5165"),
        ({"variance": 0.500001}, "variance = 0.500001 is not close to 0.5 (rtol 1e-06, atol 0)"),
        ({"gap": -0.1}, "gap = -0.1 left its band [0, inf]: A beats B"),
    ],
)
def test_each_kind_is_held(rules, metrics, problem):
    assert check.judge(executed(**metrics), rules).problems == [problem]


def test_information_never_gates(rules):
    assert check.judge(executed(seconds=1e9), rules).problems == []


def test_names_match_both_ways(rules):
    notebook = executed(extra=1.0)
    del notebook.cells[1].outputs[0]["data"][METRICS_MIME]["gap"]
    problems = check.judge(notebook, rules).problems
    assert problems == ["extra is recorded but not declared", "gap is declared but not recorded"]


def test_a_lost_check_is_noticed(rules):
    notebook = executed()
    del notebook.cells[1].outputs[1]
    assert check.judge(notebook, rules).problems == ["0 checks passed, 1 are declared in 1.yml"]


def test_conditions_on_profile_backend_and_data(rules):
    assert check.judge(executed(profile="gpu"), rules).problems == [
        "gap = 0.5 left its band [1, inf]: A beats B"
    ]
    assert check.judge(executed(gap=-9.0), rules, backend="torch").problems == []
    assert check.judge(executed(gap=-0.5, stand_in=True), rules).problems == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: {}", "must have `checks"),
        ("checks: 1\nmetrics:\n  a: {exact: 1, band: [0, 1]}", "a needs exactly one of"),
        ("checks: 1\nmetrics:\n  a: {band: [0, 1]}", "must say which claim"),
    ],
)
def test_malformed_expectations_are_refused(tmp_path, text, message):
    path = tmp_path / "1.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        check.read_expected(path)


def test_missing_expectations_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        check.read_expected(tmp_path / "2.yml")
