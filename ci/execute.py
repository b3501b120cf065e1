"""Execute chapters with papermill under Dask: `python -m ci.execute [--chapters …] [--profile …]`.

One row is one chapter with one profile, backend and seed. A fault in a row is named in its result and
never costs another row its own.
"""

import argparse
import collections
import contextlib
import heapq
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import dask
import nbformat
from distributed import Client, Future, LocalCluster, Worker, WorkerPlugin, as_completed

from ci import check, fingerprint
from ci.chapters import BUILD, EXECUTED, Chapter, read_notebook, select_chapters

BACKENDS = ("tensorflow", "jax", "torch")
CELL_TIMEOUT = 600.0
WALL_LIMIT = 1800.0
START_TIMEOUT = 120.0


@dataclass(frozen=True)
class Row:
    """One run: a notebook, what is injected into it, its environment and its limits."""

    name: str
    source: Path
    output: Path
    parameters: dict = field(default_factory=dict)
    backend: str = "tensorflow"
    dry_run: bool = False
    expected: Path | None = None
    kernel: str = "python3"
    cell_timeout: float = CELL_TIMEOUT
    wall_limit: float = WALL_LIMIT
    start_timeout: float = START_TIMEOUT


@dataclass
class Result:
    """What became of a row. `state` is "passed", or the name of the fault."""

    name: str
    state: str
    seconds: float = 0.0
    peak_megabytes: float = 0.0
    checks: int = 0
    metrics: dict = field(default_factory=dict)
    message: str = ""
    reused: bool = False

    @property
    def line(self) -> str:
        """One line of the progress report."""
        how = "reused" if self.reused else f"{self.seconds:6.1f} s {self.peak_megabytes:6.0f} MB"
        return f"{self.name:<44} {self.state:<20} {how:>18}  {self.checks:3d} checks"


# --- in the worker ---------------------------------------------------------------------------------------


def kernel_environment(row: Row) -> dict[str, str]:
    """Return the environment of a kernel: one core, one backend, no chatter, a quiet home of its own."""
    threads = dict.fromkeys(
        ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS"), "1"
    )
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "JAX_PLATFORMS": "cpu"}
    if os.environ.get("KEXUE_DEVICE") == "gpu":
        threads, quiet = {}, {"TF_CPP_MIN_LOG_LEVEL": "2"}
    chosen = {"KERAS_BACKEND": row.backend, "KEXUE_DRY_RUN": "1" if row.dry_run else "0"}
    inherited = {**os.environ}
    # Dask makes its workers give memory back at once. In a kernel that costs a page fault for each 4 kB of
    # every tensor above 128 kB, at every step: three times the time.
    inherited.pop("MALLOC_TRIM_THRESHOLD_", None)
    return {**inherited, "PYTHONHASHSEED": "0", **threads, **quiet, **chosen}


def execute_row(row: Row, notebook_json: str) -> tuple[Result, str | None]:
    """Execute one notebook; return what became of it and the executed notebook, whole or up to its fault.

    Runs in a worker, perhaps on another machine: it gets the notebook as text and touches no shared folder.
    """
    for attempt in (1, 2):
        result, executed = _execute_once(row, notebook_json)
        if result.state != "kernel did not start" or attempt == 2:
            return result, executed


def _execute_once(row: Row, notebook_json: str) -> tuple[Result, str | None]:
    import papermill

    from ci.kernel import ENGINE, Watchdog

    watchdog = Watchdog(row.wall_limit)
    watchdog.start()
    start = time.monotonic()
    state, message = "passed", ""
    with tempfile.TemporaryDirectory(prefix="kexue-run-") as folder:
        partial = Path(folder) / "executed.ipynb"
        working = Path(folder) / "work"
        log = Path(folder) / "stderr.log"
        working.mkdir()
        try:
            papermill.execute_notebook(
                nbformat.reads(notebook_json, as_version=4),
                partial,
                row.parameters,
                engine_name=ENGINE,
                kernel_name=row.kernel,
                progress_bar=False,
                start_timeout=row.start_timeout,
                execution_timeout=int(row.cell_timeout),
                environment={**kernel_environment(row), "IPYTHONDIR": folder},
                watchdog=watchdog,
                working_directory=str(working),
                log_path=str(log),
            )
        except Exception as error:  # every fault becomes a row's state; a bug in here would show as one, too
            state, message = _name_fault(error, watchdog)
            if state in ("kernel died", "kernel did not start") and log.exists():
                message += "\n" + log.read_text(encoding="utf-8", errors="replace")[-2000:]
        finally:
            watchdog.stopped.set()
            watchdog.join()
        executed = partial.read_text(encoding="utf-8") if partial.exists() else None
    seconds = time.monotonic() - start
    return Result(row.name, state, seconds, watchdog.peak_bytes / 2**20, message=message), executed


def _name_fault(error: Exception, watchdog) -> tuple[str, str]:
    """Tell the faults apart; the message is what a reader of the log needs first."""
    from nbclient.exceptions import CellTimeoutError
    from papermill.exceptions import PapermillExecutionError

    text = f"{type(error).__name__}: {error}".strip()
    if watchdog.hit_wall_limit:
        return "wall limit", "the run took longer than its wall limit and its kernel was stopped"
    if isinstance(error, CellTimeoutError):
        return "cell timeout", text.split("\n")[0]
    if isinstance(error, PapermillExecutionError):
        disk = error.ename == "OSError" and "No space left" in error.evalue
        return "disk" if disk else "cell error", f"{error.ename}: {error.evalue}\n{text}"
    if isinstance(error, OSError):
        return "disk", text
    if not watchdog.started_cells:
        return "kernel did not start", text
    return "kernel died", text


# --- the client ------------------------------------------------------------------------------------------


def run_rows(
    rows: list[Row], *, workers: int, scheduler: str | None = None, report: Callable[[str], None] = print
) -> list[Result]:
    """Run all rows and return their results in the order they finish; write each notebook as it comes.

    Raises:
        ValueError: if a row injects a parameter that its notebook does not declare.
    """
    texts = {row.name: row.source.read_text(encoding="utf-8") for row in rows}
    for row in rows:
        _refuse_unknown_parameters(row)
    results = []
    workers = min(workers, len(rows))  # starting a worker takes seconds
    for row, (result, executed) in _submit(rows, texts, workers, scheduler, report):
        if executed is not None:
            result = _keep(row, result, executed)
        results.append(result)
        report(result.line)
        if result.message:
            report(_indent(result.message))
    return results


def _refuse_unknown_parameters(row: Row) -> None:
    import papermill

    declared = papermill.inspect_notebook(str(row.source)) if row.parameters else {}
    unknown = sorted(set(row.parameters) - set(declared))
    if unknown:
        raise ValueError(
            f"{row.source.name} declares no parameter {', '.join(unknown)}; it has {sorted(declared)}"
        )


def _submit(
    rows: list[Row], texts: dict[str, str], workers: int, scheduler: str | None, report: Callable[[str], None]
) -> Iterator[tuple[Row, tuple[Result, str | None]]]:
    running = {}
    with _client(workers, scheduler) as client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise ValueError(f"the scheduler {scheduler} has no workers: start some, then try again")
        waiting = collections.deque(start_order(rows, threads))
        completed = as_completed()

        def start_next() -> None:
            row = waiting.popleft()
            future = client.submit(execute_row, row, texts[row.name], pure=False)
            running[future] = row
            completed.add(future)
            report(f"{row.name:<44} running")

        # No more rows than workers are given away at a time, so that a lost worker takes one row with it.
        for _ in range(min(len(waiting), threads)):
            start_next()
        for future in completed:
            row = running.pop(future)
            yield row, _result_of(row, future)
            if waiting:
                start_next()


def _result_of(row: Row, future: Future) -> tuple[Result, str | None]:
    if future.status == "finished":
        return future.result()
    error = future.exception()
    return Result(row.name, "worker lost", message=f"{type(error).__name__}: {error}"), None


@contextlib.contextmanager
def _client(workers: int, scheduler: str | None):
    """Connect to a Dask scheduler, or start one worker a core here."""
    settings = {
        # A row that lost its worker may have caused it: it is reported, not tried again.
        "distributed.scheduler.allowed-failures": 0,
        "distributed.logging.distributed": "critical",
        "distributed.comm.timeouts.connect": "120s",  # a busy machine starts workers slowly
    }
    with dask.config.set(settings), contextlib.ExitStack() as stack:
        if scheduler is not None:
            yield stack.enter_context(Client(scheduler, timeout=30))
            return
        cluster = stack.enter_context(
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
                silence_logs=50,
            )
        )
        client = stack.enter_context(Client(cluster))
        if workers > 1:
            client.register_plugin(_PinToCore())
        yield client


class _PinToCore(WorkerPlugin):
    """Pins each worker, and so its kernels, to a core of its own."""

    def setup(self, worker: Worker) -> None:
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[int(worker.name) % len(cores)]})


def start_order(rows: list[Row], workers: int) -> list[Row]:
    """Return the rows in the order of starting them that lets the last one finish soonest.

    Longest first is good for many rows. Of a few, the best of all orders is better: five chapters on two
    workers would leave one of them idle for the whole of the last chapter.
    """
    seconds = {row.name: _usual_seconds(row) for row in rows}

    def finish(order: Iterable[Row]) -> float:
        free_at = [0.0] * workers
        for row in order:
            heapq.heapreplace(free_at, free_at[0] + seconds[row.name])
        return max(free_at)

    longest_first = sorted(rows, key=lambda row: -seconds[row.name])
    few = len(rows) <= 7
    return list(min(itertools.permutations(longest_first), key=finish)) if few else longest_first


def _usual_seconds(row: Row) -> float:
    """What this chapter took the last time it was measured."""
    earlier = _earlier_run(row)
    if earlier is not None:
        return earlier.metadata.get("kexue_run", {}).get("seconds", 0.0)
    declared = check.read_expected(row.expected).get("seconds", 0.0) if row.expected else 0.0
    return float(declared)


def _earlier_run(row: Row) -> nbformat.NotebookNode | None:
    """Return the executed notebook that is there; None without one, or if it cannot be read whole."""
    try:
        return read_notebook(row.output)
    except (OSError, ValueError):
        return None


def _keep(row: Row, result: Result, executed: str) -> Result:
    """Judge an executed notebook and write it; a write that fails is the fault of this row only."""
    notebook = nbformat.reads(executed, as_version=4)
    if result.state == "passed":
        notebook.metadata["kexue_run"] |= {
            "seconds": round(result.seconds, 1),
            "peak_megabytes": round(result.peak_megabytes),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "fingerprint": fingerprint.of_run(row, notebook, notebook.metadata["kexue_run"]),
        }
    result = _judge(row, result, notebook)
    try:
        _write(row.output, nbformat.writes(notebook))
    except OSError as error:
        return replace(result, state="disk", message=f"cannot write {row.output}: {error}")
    return result


def _judge(row: Row, result: Result, notebook: nbformat.NotebookNode) -> Result:
    """Add checks and metrics to a result, and what an executed notebook claims and does not hold."""
    verdict = check.judge(notebook, row.expected if not row.dry_run else None, backend=row.backend)
    result = replace(result, checks=verdict.checks, metrics=verdict.metrics)
    if result.state == "passed" and verdict.problems:
        return replace(result, state="claim failed", message="\n".join(verdict.problems))
    return result


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(path.suffix + ".tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _indent(message: str, lines: int = 40) -> str:
    shown = message.split("\n")[:lines]
    return "\n".join("    " + line for line in shown)


# --- the site's rows and the matrix ----------------------------------------------------------------------


def site_rows(chapters: Iterable[Chapter], kernel: str = "python3") -> list[Row]:
    """Return one row a chapter, with nothing injected: what the website shows."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    return [
        Row(c.name, c.path, EXECUTED / c.path.name, expected=c.expected, backend=backend, kernel=kernel)
        for c in chapters
    ]


def matrix_rows(
    chapters: Iterable[Chapter], profiles: list[str], backends: list[str], seeds: list[int], *, dry_run: bool
) -> list[Row]:
    """Return chapter × profile × backend × seed. Parameters are injected; nothing of it feeds the site."""
    rows = []
    for chapter, profile, backend, seed in itertools.product(chapters, profiles, backends, seeds):
        name = f"{chapter.name}-{profile}-{backend}-{seed}" + ("-dry" if dry_run else "")
        rows.append(
            Row(
                name,
                chapter.path,
                BUILD / "matrix" / f"{name}.ipynb",
                parameters={"profile": profile, "seed": seed},
                backend=backend,
                dry_run=dry_run,
                expected=chapter.expected,
            )
        )
    return rows


def split_reusable(rows: list[Row], report: Callable[[str], None] = print) -> tuple[list[Row], list[Result]]:
    """Return the rows that must run, and the results of those whose earlier run still holds."""
    to_run, results = [], []
    for row in rows:
        earlier = _earlier_run(row)
        reason = fingerprint.why_stale(row, earlier)
        if reason is None:
            results.append(_judge(row, Result(row.name, "passed", reused=True), earlier))
            report(results[-1].line)
        else:
            to_run.append(row)
            report(f"{row.name:<44} to run: {reason}")
    return to_run, results


def same_metrics(results: list[Result], repeated: list[Result]) -> list[str]:
    """Name the metrics in which two runs with the same seed differ (times excepted)."""
    problems = []
    again = {result.name.removesuffix("-again"): result for result in repeated}
    for result in results:
        other = again[result.name].metrics
        names = set(result.metrics) | set(other)
        differing = sorted(n for n in names if "seconds" not in n and result.metrics.get(n) != other.get(n))
        problems += [f"{result.name}: {n} is {result.metrics.get(n)}, then {other.get(n)}" for n in differing]
    return problems


def save_results(results: list[Result], path: Path) -> None:
    """Write all results as JSON; if that cannot be, say so and print them, so that nothing is lost."""
    text = json.dumps([asdict(result) for result in results], indent=1)
    try:
        _write(path, text)
    except OSError as error:
        print(f"cannot write {path}: {error}; the results follow\n{text}", file=sys.stderr)


def main() -> int:
    """Run the rows that the command line asks for; 0 only if every one of them passed."""
    arguments = _parse_arguments()
    chapters = select_chapters(arguments.chapters)
    if arguments.profile or arguments.backend or arguments.seeds or arguments.dry_run:
        rows = matrix_rows(
            chapters,
            arguments.profile or ["cpu"],
            arguments.backend or ["tensorflow"],
            arguments.seeds or [0],
            dry_run=arguments.dry_run,
        )
        if arguments.repeat:
            rows += [
                replace(r, name=f"{r.name}-again", output=r.output.with_stem(f"{r.name}-again")) for r in rows
            ]
    else:
        rows = site_rows(chapters, arguments.kernel)
    start = time.monotonic()
    to_run, results = (rows, []) if arguments.force else split_reusable(rows)
    if to_run:
        results += run_rows(to_run, workers=arguments.workers, scheduler=arguments.scheduler)
    save_results(results, BUILD / "results.json")
    failed = [result for result in results if result.state != "passed"]
    problems = []
    if arguments.repeat and not failed:
        firsts = [result for result in results if not result.name.endswith("-again")]
        problems = same_metrics(firsts, [result for result in results if result.name.endswith("-again")])
        print("\n".join(problems) or "the same seed twice gave the same metrics")
    checks = sum(result.checks for result in results)
    for result in failed:  # once more, together: in a long log the faults lie far apart
        print(f"{result.line}\n{_indent(result.message)}")
    print(
        f"{len(results)} rows in {time.monotonic() - start:.1f} s: {checks} checks, {len(failed)} rows failed"
    )
    return 1 if failed or problems else 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chapters", nargs="+", help="archive ids or names; all without it")
    parser.add_argument("--profile", nargs="+", choices=("cpu", "gpu"))
    parser.add_argument("--backend", nargs="+", choices=BACKENDS)
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument(
        "--dry-run", action="store_true", help="two steps on generated arrays of the true shapes"
    )
    parser.add_argument("--repeat", action="store_true", help="run every row twice and compare the metrics")
    parser.add_argument("--workers", type=int, default=_default_workers())
    parser.add_argument("--scheduler", help="tcp://host:port of a Dask scheduler, instead of workers here")
    parser.add_argument("--kernel", default="python3", help="a registered kernel, for another environment")
    parser.add_argument("--force", action="store_true", help="run even what an earlier run still answers")
    return parser.parse_args()


def _default_workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


if __name__ == "__main__":
    shutil.rmtree(BUILD / "dask-worker-space", ignore_errors=True)
    sys.exit(main())
