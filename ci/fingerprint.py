"""When does an earlier run still answer? While nothing it depends on has changed.

Depends: the code cells, the injected parameters, the modules of kexue_lib that the run really loaded, the
lock, Python's version, the backend, a dry run or not, and the data folder for runs that read data. Prose,
captions and alt texts may change freely.
"""

import hashlib
import os
import platform
from pathlib import Path

import nbformat

from ci.chapters import ROOT, code_cells, read_notebook


def of_run(row, notebook: nbformat.NotebookNode, provenance: dict) -> dict[str, str]:
    """Return the fingerprint of a run of `notebook` whose kernel reported `provenance`: hashes by cause."""
    modules = [_relative(module) for module in provenance["modules"]]
    hashes = {module: _hash_file(ROOT / module) for module in modules}
    return {**_of_row(row, notebook), **hashes, **_of_data(modules)}


def why_stale(row, earlier: nbformat.NotebookNode | None) -> str | None:
    """Return the reason why `row` must run, or None if its `earlier` executed notebook still holds."""
    provenance = earlier.metadata.get("kexue_run", {}) if earlier is not None else {}
    if "fingerprint" not in provenance:
        return "no complete earlier run"
    now = of_run(row, read_notebook(row.source), provenance)
    changed = sorted(cause for cause in now.keys() | provenance["fingerprint"].keys()
                     if now.get(cause) != provenance["fingerprint"].get(cause))  # fmt: skip
    if not changed:
        return None
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return f"changed: {', '.join(changed[:3])}{more}"


def _of_row(row, notebook: nbformat.NotebookNode) -> dict[str, str]:
    sources = [cell.source for cell in code_cells(notebook)]
    return {
        "code": _hash(repr(sources)),
        "parameters": _hash(repr(sorted(row.parameters.items()))),
        "lock": _hash_file(ROOT / "requirements.txt"),
        "python": platform.python_version(),
        "backend": row.backend,
        "dry run": str(row.dry_run),
    }


def _of_data(modules: list[str]) -> dict[str, str]:
    """Names, sizes and times of the data folder, for a run that loaded the loaders."""
    if not any(module.startswith("kexue_lib/data") for module in modules):
        return {}
    folder = os.environ.get("KEXUE_DATA")
    files = sorted(Path(folder).rglob("*")) if folder else []
    listing = [
        (str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()
    ]
    return {"data": _hash(repr((listing, os.environ.get("KEXUE_DOWNLOAD", "0"))))}


def _relative(module: str) -> str:
    path = Path(module)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else "missing"
