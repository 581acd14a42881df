"""Images as an engine with a mount program has them on disk: a directory for each layer, with `.wh.` marks."""
from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

PER_DIRECTORY = 100


def _put(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"%d\n" % number * (number % 13 + 1))


def _name(number: int) -> str:
    directory = number // PER_DIRECTORY
    return f"usr/d{directory // 32:03}/d{directory:05}/file{number:06}"


def make(at: Path, files: int, layers: int) -> list[Path]:
    """An image of so many files. The base has six tenths of them (of one layer: all); every other layer adds its share of
    the rest, to directories of its own and of those below, replaces some files of the base and deletes some.

    Returns the layers, topmost first."""
    below = files if layers == 1 else files * 6 // 10
    paths = [at / f"layer{number:03}" for number in range(layers)]
    for number in range(below):
        _put(paths[0] / _name(number), number)
    for directory in ("etc", "tmp", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"):
        (paths[0] / directory).mkdir(parents=True)
    for name in ("status", "available"):
        (paths[0] / "var/lib/dpkg" / name).touch()
    share = (files - below) // max(layers - 1, 1)
    for layer in range(1, layers):
        first = below + (layer - 1) * share
        for number in range(first, first + share):
            # Every other file lies beside files of the base.
            beside = Path(_name(number * 7919 % below)).parent / f"new{number:06}"
            _put(paths[layer] / (beside if number % 2 else _name(number)), number)
        changes = max(below // layers // 50, 1)
        for number in range(changes):
            replaced = (layer * 104729 + number * 31) % below
            _put(paths[layer] / _name(replaced), replaced + layer)
        # After them: a layer that both has and deletes a name is read in more than one way.
        for number in range(changes):
            gone = Path(_name((layer * 15485863 + number * 17 + 5) % below))
            mark = paths[layer] / gone.parent / f".wh.{gone.name}"
            if not (paths[layer] / gone).exists():
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch(mode=0)
    subprocess.run(["chmod", "-R", "u=rwX,go=rX", str(at)], check=True)
    return list(reversed(paths))


def flatten(layers: list[Path], flat: Path) -> None:
    """Merges the layers, topmost first, into one tree by hard links: a link for each file, directories made anew with their
    metadata. What a lower layer has is replaced or, for a mark, removed."""
    flat.mkdir()
    for layer in reversed(layers):
        _merge(str(layer), str(flat))


def _merge(source: str, to: str) -> None:
    with os.scandir(source) as entries:
        found = list(entries)
    for entry in found:
        name = entry.name
        if name.startswith(".wh."):
            os.unlink(f"{to}/{name[4:]}")
        elif entry.is_dir(follow_symlinks=False):
            about = entry.stat(follow_symlinks=False)
            target = f"{to}/{name}"
            try:
                os.mkdir(target, stat.S_IMODE(about.st_mode))
            except FileExistsError:
                pass
            else:
                os.chown(target, about.st_uid, about.st_gid)
            _merge(f"{source}/{name}", target)
            os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))
        else:
            target = f"{to}/{name}"
            try:
                os.link(entry.path, target)
            except FileExistsError:
                os.unlink(target)
                os.link(entry.path, target)


def package(at: Path, files: int) -> Path:
    """A Debian package of so many small files, without scripts."""
    root, deb = at / "package", at / "package.deb"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        "Package: many-files\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: many files\n")
    for number in range(files):
        _put(root / "usr/lib/many" / f"m{number // 20}" / f"file{number}", number)
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", str(root), str(deb)], check=True, capture_output=True)
    subprocess.run(["rm", "-r", str(root)], check=True)
    return deb
