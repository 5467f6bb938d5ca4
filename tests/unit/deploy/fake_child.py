"""Stands in for a router or a worker: python -I -S fake_child.py '{"name": ..., "port": ..., ...}'.

Answers /live with 200, every other path with 200 or, while it is not ready, 503. Appends `<name> <event>`
lines to the file `events`: start, ready, live or dead (an answer to GET /live), asked (a GET /live that
waits), term, exit. Further keys:
- `lines`, `long`: printed first; lines, and one of that many x
- `exit_code`: end at once with it
- `stall_file`: while that file exists, leave GET /live unanswered
- `dead_file`: once that file exists, answer GET /live with 503
- `ready_file`: be ready once that file exists
- `stubborn`: ignore SIGTERM
- `linger`: seconds between SIGTERM and the end
- `grandchild`: a file that gets the pid of a child's child, which ignores SIGTERM and would live for minutes
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time

options = json.loads(sys.argv[1])


def note(event):
    with open(options["events"], "a") as file:
        file.write(f"{options['name']} {event}\n")


def on_term(number, frame):
    note("term")
    if not options.get("stubborn"):
        time.sleep(options.get("linger", 0))
        note("exit")
        os._exit(0)


def exists(option):
    return os.path.exists(options.get(option, ""))


signal.signal(signal.SIGTERM, on_term)
note("start")
for line in options.get("lines", []):
    print(line, flush=True)
print("x" * options.get("long", 0), flush=True)
if "grandchild" in options:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.alarm(300)
        while True:
            signal.pause()
    with open(options["grandchild"] + ".new", "w") as file:
        file.write(str(pid))
    os.rename(options["grandchild"] + ".new", options["grandchild"])
if "exit_code" in options:
    sys.exit(options["exit_code"])

signal.alarm(300)  # it ends even if the test does not end it
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", options["port"]))
server.listen()
noted = False
while True:
    connection, _ = server.accept()
    path = connection.recv(4096).split(b" ")[1:2]
    if path == [b"/live"]:
        if exists("stall_file"):
            note("asked")
            while exists("stall_file"):
                time.sleep(0.01)
        ok = not exists("dead_file")
        note("live" if ok else "dead")
    else:
        ok = exists("ready_file") if "ready_file" in options else True
        if ok and not noted:
            note("ready")
            noted = True
    with contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" if ok else b"HTTP/1.0 503 Service Unavailable\r\n\r\n")
    connection.close()
