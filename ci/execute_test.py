"""Each fault is really provoked, is named, and costs no other row its result."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from nbformat.v4 import new_code_cell, new_notebook

from ci import execute
from ci.execute import Row, run_rows

RECORD = "from kexue_lib import notebook\nnotebook.record(answer=42)"


def write_notebook(folder: Path, name: str, *cells: str) -> Row:
    nodes = [new_code_cell(textwrap.dedent(cell), id=f"{name}-{i}") for i, cell in enumerate(cells)]
    nodes[0].metadata["tags"] = ["parameters"]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=nodes, metadata={"kernelspec": kernelspec}), path)
    return Row(name, path, folder / "executed" / path.name)


def run(rows: list[Row]) -> dict[str, execute.Result]:
    return {result.name: result for result in run_rows(rows, workers=2, report=lambda line: None)}


@pytest.fixture
def good(tmp_path) -> Row:
    return write_notebook(tmp_path, "good", "seed = 0", RECORD)


def assert_kept(result: execute.Result, row: Row) -> None:
    assert (result.state, result.metrics) == ("passed", {"answer": 42})
    assert nbformat.read(row.output, as_version=4).metadata["kexue_run"]["seconds"] > 0


def test_faults_inside_a_kernel_are_told_apart_and_cost_no_other_row(tmp_path, good):
    rows = {
        "cell error": write_notebook(tmp_path, "error", "seed = 0", "1 / 0"),
        "cell timeout": replace(
            write_notebook(tmp_path, "slow_cell", "seed = 0", "import time; time.sleep(60)"), cell_timeout=1.0
        ),
        "wall limit": replace(
            write_notebook(tmp_path, "slow", "seed = 0", *["import time; time.sleep(1)"] * 30), wall_limit=6.0
        ),
        "kernel died": write_notebook(
            tmp_path, "killed", "seed = 0", RECORD, "import os; os.kill(os.getpid(), 9)"
        ),
        "disk": write_notebook(
            tmp_path, "full", "seed = 0", 'print("x" * 9999, file=open("/dev/full", "w"))'
        ),
    }
    results = run([*rows.values(), good])
    assert {state: results[row.name].state for state, row in rows.items()} == {state: state for state in rows}
    assert_kept(results["good"], good)
    assert "ZeroDivisionError" in results["error"].message
    # What a row had computed before its fault is kept, too.
    assert results["killed"].metrics == {"answer": 42}
    assert all(row.output.exists() for row in rows.values())


def test_lost_worker_is_named_and_the_other_rows_finish(tmp_path, good):
    """A kernel kills its own worker, as the system does when memory runs out."""
    lost = write_notebook(tmp_path, "lost", "seed = 0", "import os; os.kill(os.getppid(), 9)")
    others = [replace(good, name=f"good{i}", output=good.output.with_stem(f"good{i}")) for i in range(3)]
    results = run([lost, *others])
    assert results["lost"].state == "worker lost"
    for row in others:
        assert_kept(results[row.name], row)


def test_kernel_that_never_starts(tmp_path, good, monkeypatch):
    folder = tmp_path / "jupyter" / "kernels" / "mute"
    folder.mkdir(parents=True)
    argv = [sys.executable, "-c", "import time; time.sleep(60)", "{connection_file}"]
    specification = {"argv": argv, "display_name": "mute", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(specification), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert "mute" in KernelSpecManager().find_kernel_specs()
    mute = replace(write_notebook(tmp_path, "mute", "seed = 0"), kernel="mute", start_timeout=2.0)
    absent = replace(write_notebook(tmp_path, "absent", "seed = 0"), kernel="no-such-kernel")
    results = run([mute, absent, good])
    assert results["mute"].state == results["absent"].state == "kernel did not start"
    assert_kept(results["good"], good)


def test_full_and_unwritable_disk(tmp_path, good):
    """The folder's own file system refuses: /dev/full never has room, and a file is no folder."""
    full = write_notebook(tmp_path, "full", "seed = 0", RECORD)
    full.output.parent.mkdir()
    full.output.with_suffix(".ipynb.tmp").symlink_to("/dev/full")
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    unwritable = replace(good, name="unwritable", output=tmp_path / "file" / "out.ipynb")
    results = run([full, unwritable, good])
    assert results["full"].state == results["unwritable"].state == "disk"
    assert "No space left" in results["full"].message
    assert results["full"].metrics == {"answer": 42}
    assert_kept(results["good"], good)


def test_results_that_cannot_be_written_are_printed(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    execute.save_results([execute.Result("row", "passed")], tmp_path / "file" / "results.json")
    assert '"name": "row"' in capsys.readouterr().err


def test_unknown_parameter_is_refused_before_anything_runs(tmp_path, good):
    with pytest.raises(ValueError, match=r"good\.ipynb declares no parameter speed; it has \['seed'\]"):
        run([replace(good, parameters={"speed": 3})])


def test_kernels_do_not_inherit_the_allocator_settings_of_a_worker(good, monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.setenv("KEXUE_ANYTHING", "kept")
    environment = execute.kernel_environment(good)
    assert "MALLOC_TRIM_THRESHOLD_" not in environment
    assert environment["KEXUE_ANYTHING"] == "kept"


def test_parameters_backend_core_and_memory(tmp_path):
    """What a kernel is given: parameters, backend, one core; and what is measured: its peak memory."""
    told = "import os; from kexue_lib import notebook\n"
    cores = told + "notebook.record(cores=len(os.sched_getaffinity(0)))"
    given = told + "notebook.record(seed=seed, jax=int(os.environ['KERAS_BACKEND'] == 'jax'))"
    hungry = "import time\nblock = b'x' * (300 * 2**20)\ntime.sleep(1)"
    rows = [
        write_notebook(tmp_path, "cores", "seed = 0", cores),
        replace(write_notebook(tmp_path, "given", "seed = 0", given), parameters={"seed": 7}, backend="jax"),
        write_notebook(tmp_path, "hungry", "seed = 0", hungry),
    ]
    results = run(rows)
    assert results["cores"].metrics == {"cores": 1}
    assert results["given"].metrics == {"seed": 7, "jax": 1}
    assert results["hungry"].peak_megabytes > 300


class TestReuse:
    """A result answers while nothing it depends on has changed, and says what has."""

    @pytest.fixture(scope="class")
    def once(self, tmp_path_factory) -> Row:
        row = write_notebook(tmp_path_factory.mktemp("reuse"), "good", "seed = 0", RECORD)
        run([row])
        return row

    @pytest.fixture
    def executed(self, once, tmp_path) -> Row:
        """A copy of the executed row, to change at will."""
        row = replace(once, source=tmp_path / "good.ipynb", output=tmp_path / "executed.ipynb")
        shutil.copy(once.source, row.source)
        shutil.copy(once.output, row.output)
        return row

    def stale(self, row: Row) -> str | None:
        to_run, results = execute.split_reusable([row], report=lambda line: None)
        if results:
            return None
        return execute.fingerprint.why_stale(to_run[0], execute._earlier_run(to_run[0]))

    def test_unchanged(self, executed):
        assert self.stale(executed) is None
        _, results = execute.split_reusable([executed], report=lambda line: None)
        assert results[0].reused
        assert results[0].metrics == {"answer": 42}

    def test_prose_may_change(self, executed):
        notebook = nbformat.read(executed.source, as_version=4)
        notebook.cells[1].metadata["mystnb"] = {"image": {"alt": "another"}}
        notebook.cells.append(nbformat.v4.new_markdown_cell("More words.", id="words"))
        nbformat.write(notebook, executed.source)
        assert self.stale(executed) is None

    def test_code_may_not(self, executed):
        notebook = nbformat.read(executed.source, as_version=4)
        notebook.cells[1].source += "\nx = 1"
        nbformat.write(notebook, executed.source)
        assert self.stale(executed) == "changed: code"

    def test_loaded_module_of_the_library(self, executed, monkeypatch):
        loaded = nbformat.read(executed.output, as_version=4).metadata["kexue_run"]["fingerprint"]
        assert "kexue_lib/notebook.py" in loaded
        assert "kexue_lib/checks.py" not in loaded
        real = execute.fingerprint._hash_file
        changed = lambda path: "new" if path.name == "notebook.py" else real(path)  # noqa: E731
        monkeypatch.setattr(execute.fingerprint, "_hash_file", changed)
        assert self.stale(executed) == "changed: kexue_lib/notebook.py"

    def test_parameters_and_backend(self, executed):
        assert (
            self.stale(replace(executed, parameters={"seed": 1}, backend="jax"))
            == "changed: backend, parameters"
        )

    def test_half_a_file_is_no_result(self, executed):
        executed.output.write_text(executed.output.read_text(encoding="utf-8")[:100], encoding="utf-8")
        assert self.stale(executed) == "no complete earlier run"


def test_remote_scheduler(tmp_path, good):
    """Rows run on a cluster that somebody else started."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, memory_limit=0) as cluster:
        results = run_rows([good], workers=0, scheduler=cluster.scheduler_address, report=lambda line: None)
    assert_kept(results[0], good)


def test_a_scheduler_without_workers(good):
    """It would wait for ever."""
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=0, dashboard_address=None) as cluster,
        pytest.raises(ValueError, match="has no workers: start some"),
    ):
        run_rows([good], workers=0, scheduler=cluster.scheduler_address, report=lambda line: None)


def test_no_kernel_outlives_its_run(tmp_path, good):
    run([good])
    listing = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout
    assert not [line for line in listing.splitlines() if "ipykernel_launcher" in line and "kexue-run" in line]
    assert os.path.exists(good.output)


def rows_that_take(folder: Path, *seconds: int) -> list[Row]:
    rows = [
        Row(f"row {n}", folder, folder / "none", expected=folder / f"{n}.yml") for n in range(len(seconds))
    ]
    for row, time in zip(rows, seconds, strict=True):
        row.expected.write_text(f"seconds: {time}\nchecks: 0\nmetrics: {{}}\n", encoding="utf-8")
    return rows


def test_a_few_rows_start_so_that_no_worker_idles_at_the_end(tmp_path):
    rows = rows_that_take(tmp_path, 3, 3, 2, 2, 2)
    # The threes on one worker, the twos on the other: 6 in all, where longest first takes 7.
    assert execute.start_order(rows, workers=2) == [rows[0], rows[2], rows[3], rows[1], rows[4]]


def test_many_rows_start_with_the_longest(tmp_path):
    rows = rows_that_take(tmp_path, 1, 2, 3, 4, 5, 6, 7, 8)
    assert execute.start_order(rows, workers=2) == rows[::-1]
