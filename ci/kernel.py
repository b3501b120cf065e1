"""The papermill engine of the book: one kernel a run, over IPC, watched for time and memory."""

import ast
import contextlib
import json
import tempfile
import threading
import time
import uuid
from pathlib import Path

import psutil
from nbformat.v4 import new_code_cell
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from traitlets.config import Config

ENGINE = "kexue"
POLL_SECONDS = 0.25

# Runs in the kernel after the last cell: what the result depends on, for its reuse and for the page.
PROVENANCE = """\
import json, platform, sys
json.dumps({
    "modules": sorted(m.__file__ for n, m in list(sys.modules.items())
                      if n.split(".")[0] == "kexue_lib" and getattr(m, "__file__", None)),
    "python": platform.python_version(),
    "backend": sys.modules["keras"].backend.backend() if "keras" in sys.modules else None,
    "device": __import__("kexue_lib.notebook").notebook.device(),
})
"""


class Watchdog(threading.Thread):
    """Measures the peak memory of a kernel and its children, and kills them at the wall limit."""

    def __init__(self, wall_limit: float):
        super().__init__(daemon=True)
        self.deadline = time.monotonic() + wall_limit
        self.kernel_pid: int | None = None
        self.started_cells = False
        self.peak_bytes = 0
        self.hit_wall_limit = False
        self.stopped = threading.Event()

    def run(self) -> None:
        """Poll until stopped."""
        while not self.stopped.wait(POLL_SECONDS):
            family = self._family()
            self.peak_bytes = max(self.peak_bytes, sum(_memory(process) for process in family))
            if time.monotonic() > self.deadline and family:
                self.hit_wall_limit = True
                for process in family:
                    _kill(process)

    def _family(self) -> list[psutil.Process]:
        if self.kernel_pid is None:
            return []
        try:
            kernel = psutil.Process(self.kernel_pid)
            return [kernel, *kernel.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _memory(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


class BookClient(PapermillNotebookClient):
    """Runs the cells, then asks the kernel what the results depend on."""

    def __init__(self, *args: object, watchdog: Watchdog, **kwargs: object):
        super().__init__(*args, **kwargs)
        self.watchdog = watchdog

    def start_new_kernel_client(self, **kwargs: object):
        """Tell the watchdog whom to watch as soon as there is a process: it may never answer."""
        self.watchdog.kernel_pid = self.km.provisioner.pid
        return super().start_new_kernel_client(**kwargs)

    def papermill_execute_cells(self) -> None:
        """Run the cells; a run without an error carries its provenance in the notebook's metadata."""
        self.watchdog.started_cells = True
        super().papermill_execute_cells()
        if any(o.output_type == "error" for c in self.nb.cells for o in c.get("outputs", [])):
            return
        self.nb.cells.append(new_code_cell(PROVENANCE))
        self.execute_cell(self.nb.cells[-1], len(self.nb.cells) - 1)
        answer = self.nb.cells.pop().outputs[-1]["data"]["text/plain"]
        self.nb.metadata["kexue_run"] = json.loads(ast.literal_eval(answer))


class BookEngine(NBClientEngine):
    """papermill's engine with an environment for the kernel, IPC transport and a watchdog."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, environment, watchdog, **kwargs):
        """Execute the notebook with `environment` as the kernel's, under `watchdog`."""
        with tempfile.TemporaryDirectory(prefix="kexue-") as folder:
            # A path of its own a run: TCP ports race, and the default IPC path is shared by all runs.
            address = str(Path(folder) / f"k{uuid.uuid4().hex[:8]}")
            client = BookClient(
                nb_man,
                watchdog=watchdog,
                timeout=kwargs["execution_timeout"],
                startup_timeout=kwargs["start_timeout"],
                kernel_name=kernel_name,
                resources={"metadata": {"path": kwargs["working_directory"]}},
                config=Config({"KernelManager": {"transport": "ipc", "ip": address}}),
                shutdown_kernel="immediate",  # TensorFlow takes two seconds to leave, for nothing
            )
            # papermill writes the whole notebook before and after every cell: seconds, once it is full of
            # figures. Without a path it writes nothing; with its path back, all there is in the end, or up to
            # a fault.
            output_path, nb_man.output_path = nb_man.output_path, None
            try:
                # What C libraries print there explains a death; it is shown only then.
                with Path(kwargs["log_path"]).open("w", encoding="utf-8") as log:
                    return client.execute(env=environment, stderr=log)
            finally:
                nb_man.output_path = output_path


papermill_engines.register(ENGINE, BookEngine)
