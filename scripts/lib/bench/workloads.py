"""What the benchmark of mounts does in a view: one row of its table each.

Every row runs in the same way on every system: `prepare` is not timed and brings the caches and the upper into the
state that the row is about, `run` is timed. `run` answers a number (files seen, bytes read, ...) that has to be the
same on every system, so that nobody is fast by doing less.
"""
from __future__ import annotations

import mmap
import os
import random
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

PER_DIRECTORY, DIRECTORIES = 50, 20
BLOCK = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """How much of everything; `scale` 1 is what the issue of the benchmark asks for."""

    scale: float = 1.0

    def _of(self, count: int, least: int = 1) -> int:
        return max(least, round(count * self.scale))

    @property
    def tops(self) -> int:
        """Directories below small/, each with 20 directories of 50 files."""
        return self._of(40, 4)

    @property
    def small(self) -> int:
        return self.tops * DIRECTORIES * PER_DIRECTORY

    @property
    def flat(self) -> int:
        return self._of(20_000, 500)

    @property
    def big(self) -> int:
        return self._of(512, 32) * BLOCK

    @property
    def repository(self) -> int:
        return self._of(8_000, 400)

    @property
    def some(self) -> int:
        """How many of the small files are changed."""
        return self._of(5_000, 500)

    @property
    def created(self) -> int:
        return self._of(10_000, 500)

    @property
    def written(self) -> int:
        """Bytes of the files that are written piece by piece."""
        return self._of(256, 16) * BLOCK

    @property
    def random(self) -> int:
        """How many blocks are read or written at random."""
        return self._of(20_000, 1_000)

    @property
    def part(self) -> int:
        """How many of the directories below small/ are unpacked, or removed."""
        return max(1, self.tops // 4)

    @property
    def package(self) -> int:
        return self._of(2_000, 100)

    @property
    def starts(self) -> int:
        return self._of(30, 4)


def small_path(number: int) -> str:
    directory, name = divmod(number, PER_DIRECTORY)
    return f"small/t{directory // DIRECTORIES:03}/d{directory % DIRECTORIES:02}/f{name:02}"


def small_size(number: int) -> int:
    return number * 37 % 3000 + 1


def small_paths(sizes: Sizes) -> list[str]:
    return [small_path(number) for number in range(sizes.small)]


@dataclass
class View:
    """Where a row works."""

    root: Path
    outside: Path
    sizes: Sizes
    #: What a row is given beside the sizes: how many entries, say.
    number: int = 0
    fd: int = -1
    kept: list[str] = field(default_factory=list)
    #: What a row has to tell beside its answer.
    figures: dict[str, float] = field(default_factory=dict)

    def program(self, *argv: str | Path, cwd: str = "", **environment: str) -> str:
        """Runs a program to its end in the view; answers what it printed."""
        env = {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "LC_ALL": "C", "HOME": str(self.outside / "home"), **environment}
        done = subprocess.run(list(map(str, argv)), cwd=self.root / cwd, env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if done.returncode != 0:
            said = (done.stderr + done.stdout)[-300:].decode(errors="replace").strip()
            raise RuntimeError(f"{argv[0]}: exit status {done.returncode}: {said}")
        return done.stdout.decode(errors="replace")

    def lines(self, *argv: str) -> int:
        return self.program(*argv).count("\n")


def read_files(view: View, paths: Iterable[str]) -> int:
    total, fd = 0, view.fd
    for path in paths:
        file = os.open(path, os.O_RDONLY, dir_fd=fd)
        total += len(os.read(file, 65536))
        os.close(file)
    return total


def stat_files(view: View, paths: Iterable[str]) -> int:
    total, fd = 0, view.fd
    for path in paths:
        total += os.stat(path, dir_fd=fd, follow_symlinks=False).st_size
    return total


def create_files(view: View, number: int, at: str = "new") -> int:
    """Creates so many files, 100 in a directory."""
    fd, data = view.fd, b"x" * 100
    os.mkdir(at, dir_fd=fd)
    for index in range(number):
        if index % 100 == 0:
            directory = f"{at}/{index // 100}"
            os.mkdir(directory, dir_fd=fd)
        file = os.open(f"{directory}/{index % 100}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=fd)
        os.write(file, data)
        os.close(file)
    return number


def walk(view: View) -> int:
    # The size makes find ask for the attributes of each.
    return view.lines("find", "small", "-size", "-1000k")


def read_small(view: View) -> int:
    return read_files(view, view.kept)


def stat_small(view: View) -> int:
    return stat_files(view, view.kept)


def keep_paths(view: View) -> None:
    view.kept = small_paths(view.sizes)


def keep_and(run: Callable[[View], int]) -> Callable[[View], None]:
    def prepare(view: View) -> None:
        keep_paths(view)
        run(view)
    return prepare


def keep_missing(view: View) -> None:
    view.kept = [small_path(number * PER_DIRECTORY) + ".missing" for number in range(view.sizes.small // PER_DIRECTORY)]
    stat_missing(view, 1)


def stat_missing(view: View, times: int = 50) -> int:
    fd, missing = view.fd, 0
    for _ in range(times):
        for path in view.kept:
            try:
                os.stat(path, dir_fd=fd)
            except FileNotFoundError:
                missing += 1
    return missing


def read_big(view: View) -> int:
    file, buffer, total = os.open("big", os.O_RDONLY, dir_fd=view.fd), [bytearray(BLOCK)], 0
    while count := os.readv(file, buffer):
        total += count
    os.close(file)
    return total


def write_blocks(block: int, size: Callable[[Sizes], int]) -> Callable[[View], int]:
    def run(view: View) -> int:
        data, total = os.urandom(block), size(view.sizes)
        file = os.open("written", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=view.fd)
        for _ in range(total // block):
            os.write(file, data)
        os.close(file)
        return total
    return run


def offsets(view: View, size: int) -> list[int]:
    dice = random.Random(5)
    return [dice.randrange(size // 4096) * 4096 for _ in range(view.sizes.random)]


def random_reads(view: View) -> int:
    file, total = os.open("big", os.O_RDONLY, dir_fd=view.fd), 0
    for offset in offsets(view, view.sizes.big):
        total += len(os.pread(file, 4096, offset))
    os.close(file)
    return total


def random_writes(view: View) -> int:
    file, total, data = os.open("written", os.O_RDWR, dir_fd=view.fd), 0, b"y" * 4096
    for offset in offsets(view, view.sizes.written):
        total += os.pwrite(file, data, offset)
    os.close(file)
    return total


def mmap_read(view: View) -> int:
    file = os.open("big", os.O_RDONLY, dir_fd=view.fd)
    with mmap.mmap(file, 0, prot=mmap.PROT_READ) as memory:
        total = sum(memory[::4096])
    os.close(file)
    return total


def remove_created(view: View) -> int:
    for path in view.kept:
        os.unlink(path, dir_fd=view.fd)
    return len(view.kept)


def prepare_created(view: View) -> None:
    create_files(view, view.sizes.created)
    view.kept = [f"new/{index // 100}/{index % 100}" for index in range(view.sizes.created)]


def keep_some(view: View) -> None:
    view.kept = [small_path(number) for number in range(view.sizes.some)]


def append(view: View, path: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND, dir_fd=view.fd)
    os.write(file, b"\n")
    os.close(file)


def append_some(view: View) -> int:
    for path in view.kept:
        append(view, path)
    return len(view.kept)


def chmod_some(view: View) -> int:
    for path in view.kept:
        os.chmod(path, 0o600, dir_fd=view.fd)
    return len(view.kept)


def append_big(view: View) -> int:
    append(view, "big")
    return os.stat("big", dir_fd=view.fd).st_size


def untar(view: View) -> int:
    view.program("tar", "-xf", view.outside / "archive.tar", cwd="new")
    return len(os.listdir(view.root / "new"))


def make_new(view: View) -> None:
    os.mkdir("new", dir_fd=view.fd)


def remove_trees(view: View) -> int:
    view.program("rm", "-rf", *(f"small/t{top:03}" for top in range(view.sizes.part)))
    return len(os.listdir(view.root / "small"))


def git_status(view: View) -> int:
    return len(view.program("git", "--no-optional-locks", "status", "--porcelain", cwd="repository"))


def grep(view: View) -> int:
    return view.lines("grep", "-r", "-l", "needle", "small")


def fork(run: Callable[[], object]) -> int:
    """Runs it in a process of its own; answers its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            run()
            status = 0
        finally:
            os._exit(status)
    return child


def join(children: list[int]) -> None:
    failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(children)} processes failed")


def processes(view: View, count: int) -> int:
    """Each reads files of its own, and creates some."""
    share = view.sizes.small // 16

    def work(number: int) -> None:
        read_files(view, view.kept[number * share:(number + 1) * share])
        create_files(view, view.sizes.created // 20, f"new{number}")
    join([fork(lambda number=number: work(number)) for number in range(count)])
    return count * share


def cargo_build(view: View) -> int:
    view.program("cargo", "build", "--offline", "--quiet", cwd="crate", CARGO_HOME=str(view.outside / "home/cargo"),
                 PATH=f"{view.outside}/toolchain/bin:/usr/bin:/bin")
    return int(view.program("target/debug/crate", cwd="crate"))


def dpkg_install(view: View) -> int:
    view.program("chroot", "debian", "dpkg", "-i", "/bench.deb", DEBIAN_FRONTEND="noninteractive")
    return sum(len(names) for _, _, names in os.walk(view.root / "debian/usr/share/bench"))


def python_starts(view: View) -> int:
    home = view.root / "python"
    argv = [home / "bin/python3", "-c", "import argparse, asyncio, email.message, http.client, json, unittest, xml.dom.minidom"]
    env = {"PYTHONHOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    children = [subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL) for _ in range(view.sizes.starts)]
    failed = sum(child.wait() != 0 for child in children)
    if failed:
        raise RuntimeError(f"{failed} of {len(children)} starts failed")
    return len(children)


def nothing(_: View) -> None:
    pass


@dataclass(frozen=True)
class Row:
    """One row: what it is called, what is not timed, what is, and how many operations that is."""

    name: str
    run: Callable[[View], int]
    operations: Callable[[Sizes], int]
    prepare: Callable[[View], None] = nothing
    #: Whether it needs a view that can be written to.
    writes: bool = False
    #: Parts of the lower that it changes: the bare file system gets a copy of them.
    changes: Callable[[Sizes], list[str]] = lambda _: []
    #: Whether what it does first after the mount is the point of it.
    cold: bool = False
    #: The part of the lower that it needs, if not every lower has it.
    needs: str | None = None
    #: Left out of the smoke form: its time is that of other programs, or of much data.
    long: bool = False


def some_tops(sizes: Sizes) -> list[str]:
    return [f"small/t{top:03}" for top in range((sizes.some - 1) // (PER_DIRECTORY * DIRECTORIES) + 1)]


ROWS = [
    Row("walk cold", walk, lambda s: s.small, cold=True),
    Row("walk warm", walk, lambda s: s.small, walk),
    Row("ls -l flat", lambda view: view.lines("ls", "-l", "flat"), lambda s: s.flat, cold=True),
    Row("read small cold", read_small, lambda s: s.small, keep_paths, cold=True),
    Row("read small warm", read_small, lambda s: s.small, keep_and(read_small)),
    Row("stat warm", stat_small, lambda s: s.small, keep_and(stat_small)),
    Row("stat missing", stat_missing, lambda s: s.small, keep_missing),
    Row("sequential read cold", read_big, lambda s: s.big // BLOCK, cold=True),
    Row("sequential read warm", read_big, lambda s: s.big // BLOCK, read_big),
    Row("random reads", random_reads, lambda s: s.random, cold=True),
    Row("mmap read", mmap_read, lambda s: s.big // 4096, cold=True),
    Row("sequential write", write_blocks(BLOCK, lambda s: s.big), lambda s: s.big // BLOCK, writes=True),
    Row("4 KiB writes", write_blocks(4096, lambda s: s.written), lambda s: s.written // 4096, writes=True),
    Row("random writes", random_writes, lambda s: s.random, write_blocks(BLOCK, lambda s: s.written), writes=True),
    Row("create", lambda view: create_files(view, view.sizes.created), lambda s: s.created, writes=True),
    Row("unlink", remove_created, lambda s: s.created, prepare_created, writes=True),
    Row("whiteouts", remove_created, lambda s: s.some, keep_some, writes=True, changes=some_tops),
    Row("copy-up small", append_some, lambda s: s.some, keep_some, writes=True, changes=some_tops),
    Row("copy-up chmod", chmod_some, lambda s: s.some, keep_some, writes=True, changes=some_tops),
    Row("copy-up big", append_big, lambda s: 1, writes=True, changes=lambda _: ["big"], long=True),
    Row("untar", untar, lambda s: s.part * DIRECTORIES * PER_DIRECTORY, make_new, writes=True),
    Row("rm -rf", remove_trees, lambda s: s.part * DIRECTORIES * PER_DIRECTORY, writes=True, changes=lambda _: ["small"]),
    Row("git status", git_status, lambda s: s.repository, cold=True),
    Row("grep -r", grep, lambda s: s.small, cold=True),
    Row("four processes", lambda view: processes(view, 4), lambda s: s.small // 4, keep_paths, writes=True, changes=lambda _: ["small"]),
    Row("cargo build", cargo_build, lambda s: 1, writes=True, changes=lambda _: ["crate"], needs="crate", long=True),
    Row("dpkg -i", dpkg_install, lambda s: s.package, writes=True, changes=lambda _: ["debian"], needs="debian", long=True),
    Row("python starts", python_starts, lambda s: s.starts, cold=True, needs="python", long=True),
]
