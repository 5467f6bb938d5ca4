"""Separation: what a process that renders PDFs, or another of the same user, can reach."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.router.pdfs import coloured_pdf
from triptych.router.media.pdf import PdfRenderer
from triptych.router.media.sandbox import FONTS

_ATTEMPTS = """
import json, os, socket, sys
from pathlib import Path
from triptych.router.media.sandbox import confine

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return error.strerror
    return "allowed"

parent, file, font_folders = os.getppid(), sys.argv[1], sys.argv[2:]
attempts = {
    "read a file": lambda: open(file),
    "write a file": lambda: open(file, "a"),
    "create a file": lambda: open(f"{file}.new", "w"),
    "run a program": lambda: os.execv(sys.executable, [sys.executable, "--version"]),
    "list a folder": lambda: os.listdir("/"),
    "read secrets of the router": lambda: open(f"/proc/{parent}/environ"),
    "signal the router": lambda: os.kill(parent, 0),
    "open a TCP socket": lambda: socket.socket(),
    "open a UDP socket": lambda: socket.socket(type=socket.SOCK_DGRAM),
    "open a Unix socket": lambda: socket.socket(socket.AF_UNIX),
    "fork": lambda: os.fork() or os._exit(0),
    "read fonts": lambda: [os.listdir(folder) for folder in font_folders],
}
lacking = confine()
print(json.dumps([lacking, {name: outcome(attempt) for name, attempt in attempts.items()}]))
"""


def test_confined_process_reaches_nothing(tmp_path: Path) -> None:
    """Not even a file that everyone may read and write."""
    file = tmp_path / "file"
    file.touch()
    file.chmod(0o666)
    folders = filter(os.path.isdir, FONTS)
    command = [sys.executable, "-c", _ATTEMPTS, str(file), *folders]
    lacking, results = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    if lacking:
        pytest.skip(f"no {lacking} here")
    assert results.pop("read fonts") == "allowed"
    assert "allowed" not in results.values(), results


async def test_weak_isolation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    program = "import sys; from triptych.router.media.pdf_process import *; "
    program += "sys.stdout.buffer.write(encode(Ready('Landlock')))"
    rendering = PdfRenderer(1, command=[sys.executable, "-c", program])
    with pytest.raises(Exception, match="f: "):
        await rendering.render(coloured_pdf(1), 1, "f")
    await rendering.close()
    assert "no Landlock" in caplog.text


_SAME_USER = """
import ctypes, os
from pathlib import Path
from triptych.router.serving.dumpable import hide_memory

if os.getuid() == 0:
    os.setuid(65534)
    # A process that changes its user is hidden by the kernel.
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
hide_memory()
# Metrics of the process read these.
Path("/proc/self/stat").read_text(), os.listdir("/proc/self/fd"), Path("/proc/self/limits").read_text()
if os.fork():
    os.wait()
else:
    Path(f"/proc/{os.getppid()}/environ").read_bytes()
"""


def test_same_user_cannot_read_secrets() -> None:
    done = subprocess.run([sys.executable, "-c", _SAME_USER], check=True, capture_output=True)
    assert b"PermissionError" in done.stderr
