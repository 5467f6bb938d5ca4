"""Confines the process that renders PDFs: no files but fonts, no sockets, no other processes.

pdfium parses untrusted files. If a file takes it over, it must not reach the router's keys or the network.
Landlock closes the file system; seccomp refuses the system calls for sockets and other processes. Their
packages on PyPI are unmaintained, or need a system library.
"""

import ctypes
import errno
import os
import platform
import resource
import struct
from contextlib import suppress

MAX_MEMORY_BYTES = 2 << 30
# The user and group `nobody`, which own no files.
NOBODY = 65534
# pdfium reads these when a PDF does not contain its fonts.
FONTS = (
    "/usr/share/fonts",
    "/usr/share/X11/fonts/Type1",
    "/usr/share/X11/fonts/TTF",
    "/usr/local/share/fonts",
)

_LIMITS = {
    resource.RLIMIT_AS: MAX_MEMORY_BYTES,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NOFILE: 32,
    # No new processes or threads, whatever else runs as this user. Does not bind root.
    resource.RLIMIT_NPROC: 0,
}

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_SECCOMP_MODE_FILTER = 2
# Each machine's place in the tables below: its audit number, and the numbers of its system calls.
_MACHINES = {"x86_64": 0, "aarch64": 1}
_AUDIT_ARCHES = (0xC000003E, 0xC00000B7)
_REFUSED_CALLS = (
    (41, 198),  # socket
    (425, 425),  # io_uring_setup
    (59, 221),  # execve
    (322, 281),  # execveat
    (101, 117),  # ptrace
    (310, 270),  # process_vm_readv
    (311, 271),  # process_vm_writev
    (438, 438),  # pidfd_getfd
    (62, 129),  # kill
    (200, 130),  # tkill
    (234, 131),  # tgkill
    (129, 138),  # rt_sigqueueinfo
    (424, 424),  # pidfd_send_signal
)

# System calls of Landlock, the same on all machines.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_GET_VERSION = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# Versions of Landlock, the newest first, and how many rights on files each knows.
_FILE_RIGHTS = ((5, 16), (3, 15), (2, 14), (1, 13))
# To bind and connect TCP sockets; abstract sockets and signals.
_NETWORK_RIGHTS, _SCOPES = 0b11, 0b11

_libc = ctypes.CDLL(None, use_errno=True)


def confine() -> str:
    """Confine this process for the rest of its life. Returns what the system does not support, or ""."""
    for kind, limit in _LIMITS.items():
        lower_limit(kind, limit)
    if os.getuid() == 0:
        # Root without capabilities may not change its user.
        with suppress(PermissionError):
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    lacking = [name for name, close in (("Landlock", _close_files), ("seccomp", _close_calls)) if not close()]
    return " and ".join(lacking)


def lower_limit(kind: int, limit: int) -> None:
    """Lower a resource limit for good, if the system has it."""
    _, hard = resource.getrlimit(kind)
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard),) * 2)


def _close_files() -> bool:
    """Allow no file except fonts, no TCP and no abstract sockets. Returns whether the system has Landlock."""
    version = _libc.syscall(_CREATE_RULESET, None, 0, _GET_VERSION)
    if version < 1:
        return False
    rights = next((1 << count) - 1 for since, count in _FILE_RIGHTS if version >= since)
    fields = [rights]
    if version >= 4:
        fields.append(_NETWORK_RIGHTS)
    if version >= 6:
        fields.append(_SCOPES)
    ruleset = struct.pack(f"{len(fields)}Q", *fields)
    descriptor = _check(_libc.syscall(_CREATE_RULESET, ruleset, len(ruleset), 0))
    for folder in filter(os.path.isdir, FONTS):
        parent = os.open(folder, os.O_PATH)
        rule = struct.pack("=Qi", _READ_FILE | _READ_DIR, parent)
        _check(_libc.syscall(_ADD_RULE, descriptor, _PATH_BENEATH, rule, 0))
        os.close(parent)
    _check(_libc.syscall(_RESTRICT_SELF, descriptor, 0))
    os.close(descriptor)
    return True


def _close_calls() -> bool:
    """Have the refused system calls fail with EPERM. Returns whether they are known on this machine."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    refused = [calls[machine] for calls in _REFUSED_CALLS]
    # Jumps count the instructions to skip. The last instruction refuses.
    left = len(refused)
    program = [
        # The machine, since system calls of 32-bit programs have other numbers.
        (load, 0, 0, 4),
        (equal, 0, left + 3, _AUDIT_ARCHES[machine]),
        (load, 0, 0, 0),
        # The x32 variants of x86_64.
        (at_least, left + 1, 0, 0x40000000),
        *((equal, left - index, 0, call) for index, call in enumerate(refused)),
        (answer, 0, 0, 0x7FFF0000),
        (answer, 0, 0, 0x00050000 | errno.EPERM),
    ]
    instructions = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(instructions)
    filter_ = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    return bool(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_, 0, 0) == 0)


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
