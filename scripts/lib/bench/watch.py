"""What the kernel tells about servers: their processor time, their memory, the requests they get."""
from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRACING = Path("/sys/kernel/tracing")


def servers() -> list[int]:
    """The processes that hold a FUSE device open: the servers, as this process namespace has no others."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            files = list((process / "fd").iterdir())
        except OSError:
            continue
        for file in files:
            try:
                if os.readlink(file).endswith("/fuse"):
                    found.append(int(process.name))
                    break
            except OSError:
                continue
    return found


def cpu(pid: int) -> float:
    """Processor seconds of a process and all its threads, also those that have ended: its clock, as
    clock_getcpuclockid(3) makes it of its id."""
    return time.clock_gettime((~pid << 3) | 2)


def status(pid: int, key: str) -> float:
    """A figure in kB of /proc/PID/status, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def peak(pid: int) -> float:
    return status(pid, "VmHWM")


#: The kinds of requests, by their numbers in linux/fuse.h.
OPERATIONS = dict(enumerate(
    "LOOKUP FORGET GETATTR SETATTR READLINK SYMLINK _ MKNOD MKDIR UNLINK RMDIR RENAME LINK OPEN READ WRITE STATFS RELEASE _ FSYNC "
    "SETXATTR GETXATTR LISTXATTR REMOVEXATTR FLUSH INIT OPENDIR READDIR RELEASEDIR FSYNCDIR GETLK SETLK SETLKW ACCESS CREATE "
    "INTERRUPT BMAP DESTROY IOCTL POLL NOTIFY_REPLY BATCH_FORGET FALLOCATE READDIRPLUS RENAME2 LSEEK COPY_FILE_RANGE "
    "SETUPMAPPING REMOVEMAPPING SYNCFS TMPFILE STATX".split(), 1))


class Count:
    """How many requests there were; None if it cannot be told."""

    def __init__(self) -> None:
        self.count: int | None = None


class Requests:
    """Counts the requests to one FUSE mount, by perf counters on the tracepoint fuse:fuse_request_send."""

    _SIZE = 128
    _SET_FILTER, _ENABLE = 0x40082406, 0x2400
    _PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}

    def __init__(self) -> None:
        self.event: int | None = None
        try:
            self.event = int((TRACING / "events/fuse/fuse_request_send/id").read_text())
            self._PERF_EVENT_OPEN[os.uname().machine]
            for file in self._open("connection == 0"):
                os.close(file)
        except (OSError, KeyError):
            self.event = None

    @property
    def possible(self) -> bool:
        return self.event is not None

    def _open(self, condition: str) -> list[int]:
        """One counter a processor, of all processes."""
        libc, files = ctypes.CDLL(None, use_errno=True), []
        # perf_event_attr: type TRACEPOINT, size, config; no samples; disabled until it has its filter.
        attributes = struct.pack("IIQQQQQ", 2, self._SIZE, self.event, 0, 0, 0, 1).ljust(self._SIZE, b"\0")
        call = self._PERF_EVENT_OPEN[os.uname().machine]
        for processor in range(os.cpu_count() or 1):
            file = libc.syscall(call, attributes, -1, processor, -1, 8)
            if file < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            files.append(file)
            fcntl.ioctl(file, self._SET_FILTER, condition.encode() + b"\0")
            fcntl.ioctl(file, self._ENABLE, 0)
        return files

    @contextmanager
    def of(self, mount: dict) -> Iterator[Count]:
        """Counts while the body runs; `mount` is what the worker said of the mount."""
        count = Count()
        if not self.possible or not mount["kind"].startswith("fuse"):
            yield count
            return
        files = self._open(f"connection == {mount['device']}")
        try:
            yield count
            count.count = self._close(files)
        except BaseException:
            self._close(files)
            raise

    @staticmethod
    def _close(files: list[int]) -> int:
        """What they have counted together."""
        total = 0
        for file in files:
            total += struct.unpack("Q", os.read(file, 8))[0]
            os.close(file)
        return total

    def each(self, device: int) -> dict[int, list[int]]:
        """Counters of each kind of request by itself (too many to be used while something is timed)."""
        return {code: self._open(f"connection == {device} && opcode == {code}") for code in OPERATIONS}

    def told(self, counters: dict[int, list[int]]) -> dict[str, int]:
        """What these have counted, the most frequent first; they are closed."""
        counted = {OPERATIONS[code]: self._close(files) for code, files in counters.items()}
        return dict(sorted(((name, count) for name, count in counted.items() if count), key=lambda pair: -pair[1]))
