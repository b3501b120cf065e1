"""`make colab`: every chapter with the versions that Colab ships, the library installed as Colab would.

A fresh environment with `ci/colab-constraints.txt`, on Python 3.13 where there is one; the library comes from
this commit with `--no-deps`. Papermill stays outside: it drives a kernel of that environment.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from ci.chapters import BUILD, ROOT, all_chapters
from ci.execute import run_rows, save_results, site_rows

PACKAGES = (
    "tensorflow",
    "keras",
    "scipy",
    "matplotlib",
    "sympy",
    "plotly",
    "pooch",
    "scikit-learn",
    "ipykernel",
)


def interpreter() -> str:
    """Return Python 3.13, or the newest there is, with a note."""
    for version in ("3.13", "3.12", "3.11"):
        found = shutil.which(f"python{version}")
        runs = (
            found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0
        )
        if runs:
            if version != "3.13":
                print(f"note: no Python 3.13 here, using {version}")
            return found
    raise SystemExit("make colab needs Python 3.11 to 3.13")


def prepare(environment: Path) -> Path:
    """Create the environment and install this commit's library into it; return its interpreter."""
    subprocess.run([interpreter(), "-m", "venv", "--clear", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = ROOT / "ci" / "colab-constraints.txt"
    subprocess.run([*pip, "--constraint", str(constraints), *PACKAGES], check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    library = f"git+file://{ROOT}@{commit.stdout.strip()}"
    subprocess.run([*pip, "--no-deps", library], check=True)
    return python


def kernel(python: Path, folder: Path) -> None:
    """Register a kernel called "colab" that runs in the environment."""
    specification = {
        "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Colab's versions",
        "language": "python",
    }
    target = folder / "kernels" / "colab"
    target.mkdir(parents=True)
    (target / "kernel.json").write_text(json.dumps(specification), encoding="utf-8")


def main() -> int:
    """Run all chapters there; 0 only if every one passed."""
    python = prepare(BUILD / "colab-environment")
    with tempfile.TemporaryDirectory() as folder:
        kernel(python, Path(folder))
        os.environ["JUPYTER_PATH"] = folder
        os.environ.pop("PYTHONPATH", None)  # the library must be the installed one
        rows = [
            replace(row, kernel="colab", output=BUILD / "colab" / row.source.name)
            for row in site_rows(all_chapters())
        ]
        results = run_rows(rows, workers=os.cpu_count() or 1)
    save_results(results, BUILD / "colab" / "results.json")
    return 1 if any(result.state != "passed" for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
