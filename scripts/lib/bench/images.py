"""What the builder's benchmark works on: trees, and images made of real files."""
import gzip
import hashlib
import io
import json
import os
import random
import tarfile
from pathlib import Path


def tree(at, files, per_directory=100):
    """A tree of so many small files."""
    for number in range(0, files, per_directory):
        directory = at / f"d{number // per_directory // 32:03}" / f"d{number // per_directory:05}"
        directory.mkdir(parents=True)
        for name in range(number, min(number + per_directory, files)):
            (directory / f"file{name:06}").write_bytes(b"%d\n" % name * (name % 13))


def entry(archive, path, data=b"", mode=0o644):
    info = tarfile.TarInfo(path)
    info.size, info.mode, info.mtime = len(data), mode, 1614834367
    archive.addfile(info, io.BytesIO(data))


def add_tree(archive, source, at):
    """Real files, in the order of their names."""
    archive.add(source, at, recursive=True, filter=lambda info: info if info.isreg() or info.isdir() or info.issym() else None)


def layer(fill):
    """The archive of one layer, which `fill` puts together."""
    to = io.BytesIO()
    with tarfile.open(fileobj=to, mode="w", format=tarfile.PAX_FORMAT) as archive:
        fill(archive)
    return to.getvalue()


def layers(debian):
    """Archives of a Debian and of five sets of changes to it: software added, its documentation given to somebody
    else, translations and manuals deleted, a program with many small files, and its settings."""
    with open(debian, "rb") as file:
        yield file.read()

    yield layer(lambda archive: [add_tree(archive, f"/usr/lib/{name}", f"./usr/lib/{name}")
                                 for name in ("git-core", "python3.11") if os.path.isdir(f"/usr/lib/{name}")])

    def given_away(archive):
        with tarfile.open(debian) as base:
            for info in base:
                if info.name.startswith("./usr/share/doc/") and (info.isreg() or info.isdir()):
                    info.uid = info.gid = 1000
                    archive.addfile(info, base.extractfile(info) if info.isreg() else None)
    yield layer(given_away)

    def deleted(archive):
        for path in ("./usr/share/locale", "./usr/share/man", "./var/cache/apt", "./repo"):
            directory, name = os.path.split(path)
            entry(archive, f"{directory}/.wh.{name}", mode=0)
        with tarfile.open(debian) as base:
            for info in base:
                if info.name.startswith("./usr/share/zoneinfo/posix/") and info.isreg():
                    directory, name = os.path.split(info.name)
                    entry(archive, f"{directory}/.wh.{name}", mode=0)
    yield layer(deleted)

    def program(archive):
        dice = random.Random(4)
        for number in range(8000):
            data = b"".join(b"line %d of file %d\n" % (dice.randrange(1 << 30), number) for _ in range(dice.randrange(200)))
            entry(archive, f"./app/node_modules/m{number // 20}/file{number}.js", data)
    yield layer(program)

    def settings(archive):
        for number in range(40):
            entry(archive, f"./etc/app/{number}.conf", b"setting = %d\n" % number)
        entry(archive, "./etc/passwd", b"root:x:0:0:root:/root:/bin/bash\napp:x:1000:1000::/app:/bin/sh\n")
    yield layer(settings)


def docker_archive(path, uncompressed, name="bench:1", packed=True):
    """Writes a docker archive, with gzip layers unless told otherwise; returns the id of the image."""
    diff_ids, names = [], []
    with tarfile.open(path, "w") as archive:
        for data in uncompressed:
            diff_ids.append("sha256:" + hashlib.sha256(data).hexdigest())
            names.append(f"{len(names)}/layer.tar")
            entry(archive, names[-1], gzip.compress(data, compresslevel=6, mtime=0) if packed else data)
        return finish(archive, diff_ids, names, name)


def finish(archive, diff_ids, names, name):
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": f"layer {n}"} for n in range(len(diff_ids))],
    }).encode()
    digest = hashlib.sha256(config).hexdigest()
    entry(archive, f"{digest}.json", config)
    entry(archive, "manifest.json", json.dumps([{"Config": f"{digest}.json", "RepoTags": [name], "Layers": names}]).encode())
    return f"sha256:{digest}"


class Hashed:
    """Hashes what is written, on its way to a gzip file."""

    def __init__(self, to):
        self.to, self.hash = to, hashlib.sha256()

    def write(self, data):
        self.hash.update(data)
        return self.to.write(data)


def one_layer(path, fill):
    """Writes a docker archive of one gzip layer of any size, which `fill` puts into a tar archive piece by piece."""
    packed = Path(f"{path}.layer")
    with gzip.open(packed, "wb", compresslevel=1) as zipped:
        to = Hashed(zipped)
        with tarfile.open(fileobj=to, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            fill(archive)
    with tarfile.open(path, "w") as archive:
        archive.add(packed, "0/layer.tar")
        packed.unlink()
        return finish(archive, ["sha256:" + to.hash.hexdigest()], ["0/layer.tar"], "bench:large")


class Noise(io.RawIOBase):
    """Data that hardly shrinks, without being kept."""

    def __init__(self, size):
        self.left, self.block, self.at = size, random.Random(1).randbytes(1 << 20), 0

    def read(self, size=-1):
        size = min(self.left, size if size >= 0 else self.left, len(self.block))
        self.left -= size
        self.at = (self.at + 4099) % 65536
        return (self.block[self.at:] + self.block[:self.at])[:size]


def large_file(archive, size):
    info = tarfile.TarInfo("large")
    info.size = size
    archive.addfile(info, Noise(size))


def many_files(archive, count):
    for number in range(count):
        entry(archive, f"d{number // 10000}/d{number // 100}/file{number}", b"%d\n" % number * (number % 13))
