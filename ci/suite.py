"""`make test`: lint, library, chapters, dry runs, site, audit; every part runs even if an earlier one failed.

The last lines of a part that failed are printed again at the very end, where a long log is read first.
Backends that are not installed are left out and named; under `CI=true` leaving anything out is a failure.
"""

import importlib.util
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ci.chapters import ROOT
from ci.execute import BACKENDS

CI = os.environ.get("CI") == "true"
SHOWN_AGAIN = 60
failures: list[str] = []  # filled by the parts, some of which run side by side


def lint() -> bool:
    """Ruff and the rules of a chapter."""
    return _module("ci.lint")


def library() -> bool:
    """The tests beside the library on every installed backend, and those of the tools."""
    missing = [backend for backend in BACKENDS if importlib.util.find_spec(backend) is None]
    if missing:
        print(f"left out: {', '.join(missing)} (pip install torch for the CPU or GPU build you want)")
    present = [backend for backend in BACKENDS if backend not in missing]
    # In two pieces each: JAX takes as long as the others together, and a core would wait for it.
    pieces = (("kexue_lib", "--ignore=kexue_lib/layers"), ("kexue_lib/layers",))
    jobs = [(piece, backend) for backend in present for piece in pieces]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # a core for each process
        passed = list(pool.map(lambda job: _pytest(*job), jobs))
    # The tools' tests wait for kernels that hang and die: they want the machine to themselves.
    return all([not (missing and CI), *passed, _pytest(("ci",), BACKENDS[0])])


def chapters() -> bool:
    """Every chapter through papermill, against its bands."""
    return _module("ci.execute")


def dry_runs() -> bool:
    """Every gpu profile, two steps on generated arrays, twice with the same seed."""
    return _module("ci.execute", "--dry-run", "--profile", "gpu", "--repeat")


def site() -> bool:
    """The strict build."""
    return _module("ci.build")


def audit() -> bool:
    """The built site in a browser."""
    return _module("ci.audit")


PARTS: tuple[Callable[[], bool], ...] = (lint, library, chapters, dry_runs, site, audit)


def _module(name: str, *arguments: str) -> bool:
    return _run([sys.executable, "-u", "-m", name, *arguments], dict(os.environ))


def _pytest(what: tuple[str, ...], backend: str) -> bool:
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "OMP_NUM_THREADS": "1",
    }
    if backend == "jax":  # most of its time is LLVM's; XLA's own passes stay on
        environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    print(f"--- {' '.join(what)} on {backend}", flush=True)
    return _run([sys.executable, "-u", "-m", "pytest", "-q", *what], environment, label=f"{backend:<10} ")


def _run(command: list[str], environment: dict[str, str], label: str = "") -> bool:
    """Run a command and pass its lines on as they come; keep the last ones of a command that fails."""
    last = deque(maxlen=SHOWN_AGAIN)
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            print(label + line, end="", flush=True)
            last.append(label + line)
    if process.returncode:
        failures.append(f"--- {' '.join(command[1:])}\n{''.join(last)}")
    return process.returncode == 0


def main(names: list[str]) -> int:
    """Run the named parts, or all of them; print one line a part at the end."""
    chosen = [part for part in PARTS if not names or part.__name__ in names]
    lines = []
    for part in chosen:
        print(f"=== {part.__name__}: {part.__doc__}", flush=True)
        start = time.monotonic()
        passed = part()
        verdict = "passed" if passed else "FAILED"
        lines.append((passed, f"{part.__name__:<10} {verdict:<7} {time.monotonic() - start:7.1f} s"))
    print("\n".join(line for _, line in lines))
    failed = sum(not passed for passed, _ in lines)
    if failures:
        print("=== the last lines of what failed\n" + "\n".join(failures))
    print(f"{len(lines) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
