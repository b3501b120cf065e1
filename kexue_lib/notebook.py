"""What every chapter says to the machine and to its reader: seeds, metrics, measured sentences, errata.

Each function shows something a reader can use and carries the same facts as JSON, from which the regression
suite, the results page and the errata page are made.
"""

import base64
import html
import math
import mimetypes
import numbers
import os
import platform
import random
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from kexue_lib.output import show
from kexue_lib.validation import require, require_real

METRICS_MIME = "application/vnd.kexue.metrics+json"
ERRATUM_MIME = "application/vnd.kexue.erratum+json"
COMPARISON_MIME = "application/vnd.kexue.comparison+json"

_recorded: set[str] = set()


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and, once it has been imported, Keras with its backend.

    Call it after `import keras` (again, if need be): a framework that is not loaded yet is not loaded for
    the sake of its seed. `PYTHONHASHSEED` cannot be changed in a running interpreter and plays no role.

    Args:
        seed: a whole number from 0 to 2³² − 1.

    Raises:
        ValueError: if the seed is out of range.
    """
    is_whole = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
    require(is_whole and 0 <= seed < 2**32, "seed", seed, "a whole number from 0 to 2**32 - 1")
    random.seed(int(seed))
    np.random.seed(int(seed))
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(int(seed))


def dry_run() -> bool:
    """Whether `KEXUE_DRY_RUN=1` asks for two steps on generated arrays of the true shapes."""
    return os.environ.get("KEXUE_DRY_RUN", "0") == "1"


def record(**metrics: float) -> None:
    """Write numbers into the notebook, where `ci/expected/<id>.yml` holds them to their bands.

    Args:
        **metrics: finite numbers by name; NumPy scalars and arrays or tensors of one element are taken too.

    Raises:
        ValueError: if a value is not one finite number, or its name was recorded before.

    >>> record(steps=206, loss=np.float32(0.5))
    steps = 206
    loss = 0.5
    """
    values = {name: _finite_number(name, value) for name, value in metrics.items()}
    repeated = _recorded.intersection(values)
    if repeated:
        raise ValueError(f"metrics recorded twice: {', '.join(sorted(repeated))}")
    _recorded.update(values)
    lines = [f"{name} = {value:.10g}" for name, value in values.items()]
    text = "\n".join(lines)
    show(text, markup=f"<pre>{html.escape(text)}</pre>", facts={METRICS_MIME: values})


def say(sentence: str) -> None:
    """Show a sentence with measured numbers (Markdown with $…$), so that none is ever typed into the text.

    >>> say(f"The variance is {np.pi**2 / 12:.4f}.")
    The variance is 0.8225.
    """
    show(sentence, facts={"text/markdown": sentence})


def erratum(statement: str, problem: str, repair: str) -> None:
    """Show where the original is mistaken: what it says (in our words), why it fails, what is true.

    Args:
        statement: the claim of the original, in our words; Markdown with $…$.
        problem: the counter-example or the step that fails.
        repair: the statement that holds, which the cells around have checked.

    Raises:
        ValueError: if one of the three is empty.

    >>> erratum("All primes are odd.", "2 is prime.", "All but one are.")
    > **Erratum.** All primes are odd.
    >
    > **Why it fails.** 2 is prime.
    >
    > **What holds.** All but one are.
    """
    for name, part in (("statement", statement), ("problem", problem), ("repair", repair)):
        require(bool(part.strip()), name, part, "a sentence")
    parts = f"**Erratum.** {statement}\n\n**Why it fails.** {problem}\n\n**What holds.** {repair}"
    text = "\n".join(f"> {line}".rstrip() for line in parts.split("\n"))
    payload = {"statement": statement, "problem": problem, "repair": repair}
    show(text, facts={"text/markdown": text, ERRATUM_MIME: payload})


def compare(rows: Sequence[tuple[str, str, Any]], *, data: str, profile: str) -> None:
    """Show the closing table: the figure of the original, ours, and on what it was measured.

    Args:
        rows: (quantity, the original's figure or "–", ours); our numbers are printed to six digits.
        data: name of the data, or "none" for mathematics.
        profile: the profile of this run.

    Raises:
        ValueError: if there is no row, a row has not three entries, or a number is not one finite number.

    >>> compare([("variance", "0.1107", 0.110661478)], data="none", profile="cpu")  # doctest: +ELLIPSIS
    | quantity | original | here |
    |---|---|---|
    | variance | 0.1107 | 0.110661 |
    ...
    """
    rows = list(rows)
    if not rows or any(isinstance(row, str) or len(row) != 3 for row in rows):
        raise ValueError(f"rows must be (quantity, original, ours), at least one; got {rows!r}")
    shown = [(quantity, str(original), _number_text(ours)) for quantity, original, ours in rows]
    # A bare bar would end its cell, a line break its row.
    shown = [tuple(cell.replace("|", r"\|").replace("\n", " ") for cell in row) for row in shown]
    lines = ["| quantity | original | here |", "|---|---|---|"]
    lines += [f"| {quantity} | {original} | {ours} |" for quantity, original, ours in shown]
    lines += ["", f"Data: {data} · profile: `{profile}` · device: {device()}"]
    payload = {"rows": shown, "data": data, "profile": profile, "device": device()}
    text = "\n".join(lines)
    show(text, facts={"text/markdown": text, COMPARISON_MIME: payload})


def offer(name: str, content: bytes, label: str) -> None:
    """Show a link that downloads `content`: it travels inside the page and needs neither kernel nor server.

    Args:
        name: the file name that the reader's browser proposes; its ending tells the type.
        content: the file, at most 400 kB, since every reader of the page loads it.
        label: the text of the link.

    Raises:
        ValueError: if there is nothing in the file, or too much for a page.
    """
    if not 0 < len(content) <= 400_000:
        raise ValueError(f"content must have 1 to 400,000 bytes, got {len(content):,}")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    address = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    size = f"{max(1, round(len(content) / 1000))} kB"
    link = f'<a download="{html.escape(name)}" href="{address}">{html.escape(label)}</a> ({size})'
    show(f"{label}: {name}, {size}", markup=link)


def device() -> str:
    """Name the hardware that this kernel computes on: the accelerator Keras sees, or the processor."""
    if "keras" not in sys.modules:
        return _processor()
    backend = sys.modules["keras"].backend.backend()
    names = {"tensorflow": _tensorflow_device, "jax": _jax_device, "torch": _torch_device}[backend]()
    return names or _processor()


def versions() -> None:
    """Show the versions and the device that produced the page: the last cell of every chapter."""
    wanted = ["numpy", "scipy", "sympy", "matplotlib", "sklearn", "keras"]
    if "keras" in sys.modules:  # Keras imports more than the backend that computes
        wanted.append(sys.modules["keras"].backend.backend())
    found = [f"{name} {sys.modules[name].__version__}" for name in wanted if name in sys.modules]
    show(" · ".join([f"Python {platform.python_version()}", *found, device()]))


# --- helpers ---------------------------------------------------------------------------------------------


def _finite_number(name: str, value: Any) -> float | int:
    if hasattr(value, "detach"):  # torch: NumPy refuses tensors that carry a gradient
        value = value.detach().cpu()
    array = np.asarray(value)
    if array.size == 1 and array.dtype.kind in "iuf" and math.isfinite(array.item()):
        return array.item()
    if isinstance(value, numbers.Real) and array.dtype == object:  # a fraction, or a very large whole number
        return require_real(name, value)
    raise ValueError(f"{name} must be one finite number, got {value!r}")


def _number_text(value: Any) -> str:
    if isinstance(value, str) or (isinstance(value, numbers.Integral) and not isinstance(value, bool)):
        return str(value)
    return f"{_finite_number('ours', value):.6g}"


def _tensorflow_device() -> str:
    import tensorflow

    gpus = tensorflow.config.list_physical_devices("GPU")
    return ", ".join(tensorflow.config.experimental.get_device_details(gpu)["device_name"] for gpu in gpus)


def _jax_device() -> str:
    import jax

    return ", ".join(found.device_kind for found in jax.devices() if found.platform != "cpu")


def _torch_device() -> str:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ", ".join(torch.cuda.get_device_name(index) for index in range(count))


def _processor() -> str:
    """Return the processor's model name: platform.processor() is empty on most Linux systems."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name} ({cores} core{'s' if cores != 1 else ''})"
