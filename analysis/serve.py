"""Serve report.html as a live dashboard: made again whenever a run folder changes, for browsers on this machine only.

python -m analysis serve runs
"""

from __future__ import annotations

import argparse
import hashlib
import html
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from analysis.load import load
from analysis.options import folder
from analysis.report import report
from analysis.results import analyse
from harness.store import find_runs

LOOPBACK = "127.0.0.1"
OWN_NAMES = (LOOPBACK, "localhost")
WATCHED = ("status.json", "metrics.jsonl", "evals.jsonl", "traces")


def main(argv: list[str]) -> None:
    options = parse(argv)
    with TemporaryDirectory() as cache:
        page = LivePage(options.roots, options.refresh, options.allow_mixed, Path(cache))
        with ThreadingHTTPServer((LOOPBACK, options.port), handler(page.answers)) as server:
            print(f"http://{LOOPBACK}:{server.server_port}/ (Ctrl+C ends it)", flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print()


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m analysis serve", description=__doc__.splitlines()[0])
    parser.add_argument("roots", nargs="+", type=folder, metavar="RUNS", help="run folders, or folders that hold them")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one (default: 8000)")
    parser.add_argument("--refresh", type=int, default=15, help="seconds between the open page's looks at the runs (default: 15)")
    parser.add_argument("--allow-mixed", action="store_true", help="compare runs whose shared settings differ, and say so")
    return parser.parse_args(argv)


class LivePage:
    """The page and its state, for the server. The page is made when it is requested and a file of a run has changed since the
    last time; one thread makes it at a time, the others wait."""

    def __init__(self, roots: list[Path], refresh_seconds: int, allow_mixed: bool, cache: Path | None = None):
        self.roots, self.refresh_seconds, self.allow_mixed, self.cache = roots, refresh_seconds, allow_mixed, cache
        self.seen, self.page, self.lock = None, "", Lock()
        self.answers = {"/": ("text/html", self.html), "/state": ("text/plain", lambda: state_of(roots))}

    def html(self) -> str:
        with self.lock:
            now = state_of(self.roots)
            if now != self.seen:
                self.seen, self.page = now, self.draw(now)
            return self.page

    def draw(self, state: str) -> str:
        try:
            sweep = load(self.roots, cache=self.cache, allow_mixed=self.allow_mixed)
            return report(analyse(sweep), {"seconds": self.refresh_seconds, "state": state})
        except ValueError as error:  # such as an InputError because no run has begun
            return waiting(str(error), self.refresh_seconds)


def state_of(roots: list[Path]) -> str:
    """A digest of the paths, modification times and sizes of the files that the page is made of."""
    stats = []
    with suppress(ValueError):  # a root no longer exists; `draw` reports it
        for path in (run.path / name for run in find_runs(*roots) for name in WATCHED):
            with suppress(FileNotFoundError):
                stats.append((str(path), path.stat()))
    return hashlib.sha256(repr([(path, stat.st_mtime_ns, stat.st_size) for path, stat in stats]).encode()).hexdigest()


def waiting(text: str, refresh_seconds: int) -> str:
    head = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="{refresh_seconds}"><title>Waiting</title>'
    return f"{head}<link rel='icon' href='data:,'><pre>{html.escape(text)}</pre>\n"


def handler(answers: dict[str, tuple[str, Callable[[], str]]]) -> type[BaseHTTPRequestHandler]:
    """A handler class that answers GET of the paths in `answers`, path -> (content type, function to the text), and nothing else.

    Requests must name this machine in their Host header: otherwise a foreign site could read the page by DNS rebinding.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host", "").rpartition(":")[0] not in OWN_NAMES:
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path not in answers:
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                kind, text = answers[self.path]
                self.answer(kind, text().encode())

        def answer(self, kind: str, body: bytes) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            with suppress(ConnectionError):  # the browser has closed the connection
                self.wfile.write(body)

        def log_message(self, *_) -> None:
            """Log nothing: the open page asks for /state all the time."""

    return Handler
