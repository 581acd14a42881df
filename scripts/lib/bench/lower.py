"""The lower of the benchmark of mounts, made of what is on the machine."""
from __future__ import annotations

import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

from measure import run
from workloads import BLOCK, DIRECTORIES, PER_DIRECTORY, Sizes, small_path, small_size

#: The ordinary user of the rootless systems: root of a user namespace.
USER = 1001
#: Long ago, so that git need not doubt its index.
LONG_AGO = 1_600_000_000


def build(lower: Path, outside: Path, sizes: Sizes, parts: set[str], debian: Path | None) -> None:
    """Fills `lower`, and `outside` with what the rows need beside it. `parts` are those of the lower that not every
    row needs: crate, debian, python."""
    lower.mkdir(parents=True)
    outside.mkdir(parents=True, exist_ok=True)
    home(outside)
    dice = random.Random(7)
    noise = dice.randbytes(BLOCK)
    for number in range(sizes.small):
        path = lower / small_path(number)
        if number % PER_DIRECTORY == 0:
            path.parent.mkdir(parents=True)
        start = dice.randrange(BLOCK // 2)
        data = noise[start:start + small_size(number)].hex()[:small_size(number)]
        path.write_text("needle\n" if number % 1000 == 0 else data)
    (lower / "flat").mkdir()
    for number in range(sizes.flat):
        (lower / f"flat/entry-{number:05}").write_bytes(b"flat\n" * (number % 20))
    with open(lower / "big", "wb") as file:
        for number in range(sizes.big // BLOCK):
            file.write(noise[number:] + noise[:number])
    repository(lower / "repository", sizes, outside)
    if "crate" in parts:
        crate(lower / "crate")
    if "python" in parts:
        python(lower / "python")
    if debian is not None:
        (lower / "debian").mkdir()
        run(["tar", "-xf", debian, "-C", lower / "debian", "--exclude=./dev/*", "--exclude=./proc/*"])
        package(lower / "debian/bench.deb", outside, sizes)
    archive(lower, outside / "archive.tar", sizes)
    run(["chown", "-R", f"{USER}:{USER}", outside / "home"])


def give(lower: Path, to: Path) -> None:
    """Copies the lower for the ordinary user: the same files, which are his. (If they were not the caller's own, the
    kernel would ask for their ACLs, and a rootless system could not change them.)"""
    run(["cp", "-a", lower, to])
    run(["chown", "-hR", f"{USER}:{USER}", to])


def home(outside: Path) -> None:
    """Settings of git under which its index holds on every file system: by sizes and times of modification, and not
    by inode numbers, which some systems make up at each mount."""
    (outside / "home").mkdir()
    (outside / "home/.gitconfig").write_text(
        "[safe]\n\tdirectory = *\n[core]\n\tcheckStat = minimal\n\ttrustctime = false\n"
        "[user]\n\tname = bench\n\temail = bench@localhost\n[gc]\n\tauto = 0\n")


def repository(at: Path, sizes: Sizes, outside: Path) -> None:
    for number in range(sizes.repository):
        path = at / f"s{number // 400:02}/m{number // 20 % 20:02}/source{number}.c"
        if number % 20 == 0:
            path.parent.mkdir(parents=True)
        path.write_text(f"int f{number}(void) {{ return {number}; }}\n" * (number % 40 + 1))
        os.utime(path, (LONG_AGO, LONG_AGO))
    env = {"PATH": os.environ["PATH"], "HOME": str(outside / "home")}
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"], ["gc", "-q"], ["status"]):
        run(["git", "-C", at, *words], env=env)


def crate(at: Path) -> None:
    """A program of some libraries, as cargo builds them: one process each, and a linked program."""
    libraries = [f"part{number}" for number in range(8)]
    (at / "src").mkdir(parents=True)
    needs = "".join(f'{name} = {{ path = "{name}" }}\n' for name in libraries)
    manifest = '[package]\nname = "{}"\nversion = "0.1.0"\nedition = "2021"\n'
    (at / "Cargo.toml").write_text(manifest.format("crate") + "[workspace]\n[dependencies]\n" + needs)
    (at / "src/main.rs").write_text("fn main() { println!(\"{}\", " + " + ".join(f"{name}::value()" for name in libraries) + "); }\n")
    for number, name in enumerate(libraries):
        (at / name / "src").mkdir(parents=True)
        (at / name / "Cargo.toml").write_text(manifest.format(name))
        modules = "".join(f"pub mod m{module};\n" for module in range(20))
        (at / name / "src/lib.rs").write_text(f"{modules}pub fn value() -> u64 {{ m0::one() * {number} }}\n")
        for module in range(20):
            (at / name / f"src/m{module}.rs").write_text("pub fn one() -> u64 { 1 }\n" + "".join(
                f"pub fn f{item}(x: &str) -> String {{ format!(\"{{x}}-{item}\") }}\n" for item in range(10)))


def python(at: Path) -> None:
    """The interpreter and its library, as Debian installs them."""
    (at / "bin").mkdir(parents=True)
    (at / "lib").mkdir()
    program = Path("/usr/bin/python3").resolve()
    shutil.copy2(program, at / "bin/python3")
    run(["cp", "-a", f"/usr/lib/{program.name}", at / "lib"])


def package(to: Path, outside: Path, sizes: Sizes) -> None:
    tree = outside / "package"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: plyfs-bench\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: files\n")
    for number in range(sizes.package):
        path = tree / f"usr/share/bench/d{number // 100:02}/file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"line of file {number}\n" * (number % 60 + 1))
    run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", tree, to])
    shutil.rmtree(tree)


def archive(lower: Path, to: Path, sizes: Sizes) -> None:
    def owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        return info
    with tarfile.open(to, "w", format=tarfile.GNU_FORMAT) as file:
        for top in range(sizes.part):
            file.add(lower / f"small/t{top:03}", f"t{top:03}", filter=owned)
    assert to.stat().st_size > sizes.part * DIRECTORIES * PER_DIRECTORY
    to.chmod(0o644)


def copy(lower: Path, parts: list[str], to: Path) -> None:
    """Copies parts of the lower, for the bare file system to change."""
    for part in parts:
        (to / part).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", lower / part, to / part], check=True)
