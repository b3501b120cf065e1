"""`make bench`: performance as ratios against a named peer or bound, all measured in one run.

Prints a table; a missed bound is shown, not hidden, and fails the run. Nothing here is asserted by a test:
times depend on the machine. Everything is measured on a clone of this commit, not in the working tree.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import nbformat
import yaml

from ci.chapters import ROOT, tags

Measurement = tuple[str, float, str, float]  # what, measured, unit, bound


def timed(command: list[str], folder: Path) -> float:
    """Run a command that must succeed; return its seconds."""
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return time.perf_counter() - start


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs one of the tools."""
    return [sys.executable, "-m", name, *arguments]


def measure(copy: Path) -> Iterator[Measurement]:
    """Yield every measurement; `copy` is a fresh clone."""
    yield from execution(copy)
    yield from rebuilding(copy)
    yield "import kexue_lib", import_seconds(), "s", 0.3
    yield "first cell of a derivation after its kernel's first", slowest_start(copy), "s", 3.0
    yield "heaviest page, compressed", heaviest_page(copy) / 1e6, "MB", 1.0
    yield from library(copy)


def execution(copy: Path) -> Iterator[Measurement]:
    """Two workers against the ideal, and against Jupyter Book executing the same chapters itself."""
    wall = timed(module("ci.execute", "--force", "--workers", "2"), copy)
    rows = json.loads((copy / "_build" / "results.json").read_text(encoding="utf-8"))
    seconds = [row["seconds"] for row in rows]
    ideal = max(max(seconds), sum(seconds) / 2)
    yield "two workers: wall / max(longest, half the sum)", wall / ideal, "×", 1.15
    build = timed(module("ci.build"), copy)
    yield "strict build of the executed chapters", build, "s", 30.0
    own = jupyter_book_alone(copy)
    yield "1 / (jupyter-book executing itself / ours)", (wall + build) / own, "×", 1 / 1.5


def jupyter_book_alone(copy: Path) -> float:
    """Seconds of `jupyter-book build` on the same chapters with its own execution."""
    alone = copy / "_build" / "alone"
    subprocess.run(["cp", "-r", str(copy / "_build" / "site"), str(alone)], check=True)
    for notebook in (copy / "notebooks").glob("*.ipynb"):
        (alone / "notebooks" / notebook.name).write_bytes(notebook.read_bytes())
    config = yaml.safe_load((alone / "_config.yml").read_text(encoding="utf-8"))
    config["execute"] = {"execute_notebooks": "force", "timeout": 1800, "run_in_temp": True}
    (alone / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    jupyter_book = str(Path(sys.executable).parent / "jupyter-book")
    return timed([jupyter_book, "build", str(alone), "-q"], copy)


def rebuilding(copy: Path) -> Iterator[Measurement]:
    """`make book` after no change, a change of prose, a change of code."""

    def book() -> float:
        return timed(module("ci.execute", "--workers", "2"), copy) + timed(module("ci.build"), copy)

    book()
    yield "make book, nothing changed", book(), "s", 10.0
    path = sorted((copy / "notebooks").glob("*.ipynb"))[0]
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source += "\n\nOne more sentence."
    nbformat.write(notebook, path)
    yield "make book, prose of one chapter changed", book(), "s", 15.0
    notebook.cells[-1].source = "# changed\n" + notebook.cells[-1].source
    nbformat.write(notebook, path)
    seconds = book()
    rows = json.loads((copy / "_build" / "results.json").read_text(encoding="utf-8"))
    own = next(row["seconds"] for row in rows if row["name"] == path.stem)
    yield "make book, code of one chapter changed, beyond its own time", seconds - own, "s", 15.0


def import_seconds() -> float:
    """Best of five: what `import kexue_lib` adds to starting Python."""

    def best(code: str) -> float:
        return min(timed([sys.executable, "-c", code], ROOT) for _ in range(5))

    return max(0.0, best("import kexue_lib") - best("pass"))


def slowest_start(copy: Path) -> float:
    """The longest time from the start of a kernel's first cell to the end of its preamble."""
    return max(map(seconds_before_derivation, (copy / "_build" / "executed").glob("*.ipynb")))


def seconds_before_derivation(executed: Path) -> float:
    """Read from papermill's times how long setup, parameters and imports took."""
    cells = nbformat.read(executed, as_version=4).cells
    times = [cell.metadata.papermill for cell in cells if "preamble" in tags(cell)]
    first, last = (datetime.fromisoformat(stamp) for stamp in (times[0]["start_time"], times[-1]["end_time"]))
    return (last - first).total_seconds()


def heaviest_page(copy: Path) -> float:
    """Bytes transferred by the heaviest chapter's page before a figure is touched, served compressed."""
    from playwright.sync_api import sync_playwright

    from ci.audit import CHROMIUM_FLAGS, find_chromium
    from ci.serve import server

    site = copy / "_build" / "html"
    running = server(0, site)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    heaviest = 0.0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        for page in sorted((site / "notebooks").glob("*.html")):
            address = f"http://127.0.0.1:{running.server_address[1]}/notebooks/{page.name}"
            heaviest = max(heaviest, transferred(browser, address))
        browser.close()
    running.shutdown()
    return heaviest


def library(copy: Path) -> Iterator[Measurement]:
    """The library's optimizers and losses on the book's backend, its sequence layers on the compiled two."""
    for name, backend in (
        ("ci.bench_training", "tensorflow"),
        ("ci.bench_sequence", "tensorflow"),
        ("ci.bench_sequence", "jax"),
    ):
        environment = {
            **os.environ,
            "PYTHONPATH": str(copy),
            "KERAS_BACKEND": backend,
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        done = subprocess.run(
            module(name), cwd=copy, env=environment, check=True, capture_output=True, text=True
        )
        yield from map(json.loads, done.stdout.splitlines())


def transferred(browser, address: str) -> float:
    """Return the bytes that came over the wire for one page in a fresh window."""
    context = browser.new_context()
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    total = [0.0]

    def count(event: dict) -> None:
        total[0] += event["encodedDataLength"]

    session.on("Network.loadingFinished", count)
    page.goto(address, wait_until="load")
    page.wait_for_load_state("networkidle")
    context.close()
    return total[0]


def main() -> int:
    """Measure on a fresh clone and print the table; 0 only if every bound is met."""
    try:
        return print_table()
    except subprocess.CalledProcessError as failure:
        sys.exit(f"{failure.stdout}{failure.stderr}\nnothing can be measured: {failure}")


def print_table() -> int:
    """Return 1 if a bound was missed."""
    missed = 0
    with tempfile.TemporaryDirectory(prefix="kexue-bench-") as folder:
        copy = Path(folder) / "copy"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
        print(f"{'what':<62} {'measured':>10} {'bound':>10}")
        for what, measured, unit, bound in measure(copy):
            verdict = "" if measured <= bound else "  MISSED"
            missed += measured > bound
            print(f"{what:<62} {measured:7.3f} {unit:<2} {bound:7.3f} {unit:<2}{verdict}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
