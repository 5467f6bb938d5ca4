"""The bulk command, killed or stopped: the same command continues and repeats no batch."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.unit.client.fakes import matrix_of, reply_to

ROOT = Path(__file__).parents[2]
ROWS, BATCH = 203, 8
TEXTS = [f"row {number}" for number in range(ROWS)]
BATCHES = -(-ROWS // BATCH)


class Server(ThreadingHTTPServer):
    """A deployment that ends its client at request number `at`, with the signal `how`.

    `after`: answer the request first. `asked` has the inputs of each request.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, at: int, after: bool, how: signal.Signals) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked: list[list[str]] = []
        self.lock = threading.Lock()
        self.client: subprocess.Popen[str] | None = None
        self.at, self.after, self.how = at, after, how

    def end_client(self) -> None:
        """Send the signal to the client."""
        assert self.client is not None
        self.client.send_signal(self.how)

    def handle_error(self, *_: object) -> None:
        """Ignore clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._reply({"ready": True, "pools": {}, "vector_spaces": {"retrieval": ["space"]}})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.asked.append(asked["input"])
            its_turn = len(self.server.asked) == self.server.at
        if its_turn and not self.server.after:
            self.server.end_client()
        self._reply(reply_to(asked))
        if its_turn and self.server.after:
            self.server.end_client()

    def _reply(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Ended:
    """A command's exit status, its output, and the inputs of each request."""

    status: int
    words: str
    asked: list[list[str]]

    @property
    def requested(self) -> list[int]:
        """The numbers of the batches."""
        return [TEXTS.index(inputs[0]) // BATCH for inputs in self.asked]


@contextmanager
def serving(at: int, after: bool, how: signal.Signals) -> Iterator[Server]:
    with Server(at, after, how) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def embed(
    folder: Path,
    out: str,
    at: int = 0,
    after: bool = False,
    how: signal.Signals = signal.SIGKILL,
) -> Ended:
    """Run the command, which the server ends at request number `at`.

    Each run has its own server, since a server may still read what a killed client sent.
    """
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(TEXTS))
    command = [sys.executable, "-m", "triptych.router.client", "embed", str(corpus), str(folder / out)]
    with serving(at, after, how) as server:
        options = ["--url", server.url, "--batch", str(BATCH), "--concurrency", "3", "--dimensions", "16"]
        with server.lock:
            server.client = subprocess.Popen(
                command + options, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "NO_PROXY": "*"},
            )  # fmt: skip
        _, words = server.client.communicate(timeout=GUARD_SECONDS)
    return Ended(server.client.returncode, words, server.asked)


def done_batches(folder: Path, out: str) -> set[int]:
    journal = folder / f"{out}.journal"
    if not journal.exists():
        return set()
    lines = journal.read_bytes().rpartition(b"\n")[0].splitlines()
    return {json.loads(line)["batch"] for line in lines[1:]}


# tests/unit/client/test_bulk_resume.py has every moment of a crash, and .parquet.
def test_killed_runs_repeat_no_batch(tmp_path: Path) -> None:
    out = "out.npy"
    finished: set[int] = set()
    total = 0
    for turn, at in enumerate((1, 7)):
        killed = embed(tmp_path, out, at=at, after=bool(turn % 2))
        assert killed.status == -signal.SIGKILL, killed.words
        assert not (tmp_path / out).exists()
        assert not finished & set(killed.requested), "a finished batch was embedded again"
        total += len(killed.requested)
        finished = done_batches(tmp_path, out)
    assert finished
    last = embed(tmp_path, out)
    assert last.status == 0, last.words
    assert sorted(last.requested) == sorted(set(range(BATCHES)) - finished)
    # Each killed run loses only the batches in flight.
    assert total + len(last.requested) <= BATCHES + 2 * 4
    np.testing.assert_array_equal(np.load(tmp_path / out), matrix_of(TEXTS, 16))


def test_ctrl_c_keeps_finished_batches(tmp_path: Path) -> None:
    stopped = embed(tmp_path, "out.npy", at=6, how=signal.SIGINT)
    assert stopped.status == 130, stopped.words
    assert "The same command continues" in stopped.words
    assert "Traceback" not in stopped.words
    finished = done_batches(tmp_path, "out.npy")
    last = embed(tmp_path, "out.npy")
    assert last.status == 0, last.words
    assert sorted(last.requested) == sorted(set(range(BATCHES)) - finished)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), matrix_of(TEXTS, 16))
