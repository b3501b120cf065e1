"""Serve the built site on this machine, compressed as a web host would: `python -m ci.serve [port]`."""

import functools
import gzip
import http.server
import io
import sys
from pathlib import Path

from ci.build import HTML

COMPRESSED = {".html", ".css", ".js", ".json", ".svg", ".inv", ".txt", ".xml"}


@functools.cache
def _compressed(path: str, modified: int) -> bytes:
    return gzip.compress(Path(path).read_bytes(), 6)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files of the site, text compressed with gzip."""

    protocol_version = "HTTP/1.1"

    def send_head(self):
        """Send the headers; return the body as a file."""
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            path = path / "index.html"
        accepts = "gzip" in self.headers.get("Accept-Encoding", "")
        if not (accepts and path.suffix in COMPRESSED and path.is_file()):
            return super().send_head()
        body = _compressed(str(path), path.stat().st_mtime_ns)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return io.BytesIO(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def server(port: int, folder: Path = HTML) -> http.server.ThreadingHTTPServer:
    """Return a server for `folder`; port 0 picks a free one."""
    return http.server.ThreadingHTTPServer(
        ("127.0.0.1", port), functools.partial(Handler, directory=str(folder))
    )


if __name__ == "__main__":
    with server(int(sys.argv[1]) if len(sys.argv) > 1 else 8000) as running:
        print(f"http://127.0.0.1:{running.server_address[1]}/ (Ctrl-C ends it)")
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print()
