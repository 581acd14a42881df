//! Prints a program as a shell script that anybody can run: `sh repro.sh kernel`, `sh repro.sh /path/to/plyfs`.

use super::bytes::Bytes;
use super::layers::{Item, What};
use super::op::{Call, Event, Fill, PEOPLE, Program, When};

const HEAD: &str = r#"#!/bin/sh
# Run as root: sh THIS kernel     or: sh THIS /path/to/plyfs     and compare what they print.
set -eu
with=${1:-kernel}
fill() { python3 -c 'import sys; s, n = map(int, sys.argv[1:]); sys.stdout.buffer.write(bytes(33 + (s * 7 + i + i // 89) % 90 for i in range(n)))' "$1" "$2"; }
dir=$(mktemp -d); mount -t tmpfs none "$dir"; cd "$dir"; mkdir l u w m; chmod 777 l u
trap 'cd /; umount "$dir/m"; umount -l "$dir"; rmdir "$dir"' EXIT
"#;

const MOUNT: &str = r#"options=lowerdir=$dir/l,upperdir=$dir/u,workdir=$dir/w
case $with in
    kernel) mount -t overlay overlay -o "$options" m ;;
    *fuse-overlayfs) "$with" -o "$options,allow_other,dev,suid" m ;;
    *) "$with" "$dir/m" -o "$options,dev,suid" ;;
esac
"#;

const PRELUDE: &str = r#"import os, sys, ctypes, errno, fcntl, mmap, stat, struct
libc = ctypes.CDLL(None, use_errno=True)
L = ctypes.c_long
def check(r):
    if r < 0: raise OSError(ctypes.get_errno(), '')
    return r
def fill(seed, n): return bytes(33 + (seed * 7 + i + i // 89) % 90 for i in range(n))
def show(st): return 'mode %o owner %d:%d nlink %d size %d ino %d mtime %d' % (st.st_mode, st.st_uid, st.st_gid, st.st_nlink, st.st_size, st.st_ino, st.st_mtime_ns)
fds = {}
def fd(slot):
    if slot not in fds: raise OSError(errno.EBADF, '')
    return fds[slot]
def opened(slot, path, flags, mode):
    new = os.open(path, flags, mode)
    if slot in fds: os.close(fds.pop(slot))
    fds[slot] = new
def written(path, flags, mode, data):
    f = os.open(path, flags, mode)
    try: return os.write(f, data)
    finally: os.close(f)
def read_all(path):
    f = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        out = b''
        while len(out) < 1 << 22:
            more = os.pread(f, 65536, len(out))
            if not more: break
            out += more
        return len(out), out[:24]
    finally: os.close(f)
def times(dirfd, path, values, flags):
    spec = (L * 4)(*values)
    check(libc.utimensat(dirfd, path, spec, flags))
def mmap_write(slot, at, data):
    start = at & ~4095
    with mmap.mmap(fd(slot), at - start + len(data), offset=start) as m:
        m[at - start:] = data
        m.flush()
def renameat2(a, b, flags): check(libc.renameat2(-100, a, -100, b, flags))
def link_fd(slot, path): check(libc.linkat(fd(slot), b'', -100, path, 0x1000))
def fallocate(slot, mode, at, n): check(libc.fallocate(fd(slot), mode, L(at), L(n)))
def lock(slot, kind, at, n, cmd): fcntl.fcntl(fd(slot), cmd, struct.pack('hhqqi4x', kind, 0, at, n, 0))
def names(f): return sorted(os.listdir(f))
people = {}
def person(number, uid, gid, group, umask):
    ask, told = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.close(ask[1]); os.close(told[0])
        os.chroot('m'); os.chdir('/')
        os.setgroups([group]); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid); os.umask(umask)
        out = os.fdopen(told[1], 'w')
        for line in os.fdopen(ask[0]):
            try: answer = repr(eval(line))
            except OSError as e: answer = errno.errorcode.get(e.errno, str(e.errno))
            except Exception as e: answer = repr(e)
            out.write(answer + '\n'); out.flush()
        os._exit(0)
    os.close(ask[0]); os.close(told[1])
    people[number] = os.fdopen(ask[1], 'w'), os.fdopen(told[0])
def do(number, line):
    ask, told = people[number]
    ask.write(line + '\n'); ask.flush()
    print('%d: %s = %s' % (number, line, told.readline().strip()))
"#;

const TAIL: &str = r#"echo '--- merged'; (cd m; find . -printf '%p %y %#m %U:%G links %n size %s ino %i mtime %T@ -> %l\n' | sort; find . -type f | sort | xargs -d '\n' md5sum; getfattr -Rhd -m- -e text . 2>/dev/null)
echo '--- upper'; (cd u; find . -printf '%p %y %#m %U:%G links %n mtime %T@ -> %l\n' | sort; getfattr -Rhd -m- -e text . 2>/dev/null)
"#;

pub fn script(program: &Program, difference: &str) -> String {
    let mut text = HEAD.to_owned();
    for line in format!("Seed {}. {difference}", program.seed).lines() {
        text += &format!("# {line}\n");
    }
    for (layer, items) in [("l", &program.layers.lower), ("u", &program.layers.upper)] {
        for item in items {
            text += &(layer_line(layer, item) + "\n");
        }
    }
    text.push_str(MOUNT);
    text += &format!("python3 - <<'END'\n{PRELUDE}\n");
    for (worker, p) in PEOPLE.iter().enumerate() {
        let used = program
            .events
            .iter()
            .any(|e| matches!(e, Event::Step { worker: w, .. } if *w as usize == worker));
        if used {
            text += &format!(
                "person({worker}, {}, {}, {}, 0o{:03o})\n",
                p.uid, p.gid, p.extra_group, p.umask
            );
        }
    }
    for event in &program.events {
        match event {
            Event::Step { worker, call, .. } => {
                text += &format!("do({worker}, {})\n", python_string(call_line(call).as_bytes()));
            }
            other => {
                text += &format!("# {other:?}: see the engine's replay file for this step\n");
            }
        }
    }
    text.push_str("END\n");
    text.push_str(TAIL);
    text
}

fn shell_word(bytes: &[u8]) -> String {
    if bytes
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(b))
        && !bytes.is_empty()
    {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    if bytes.iter().all(|b| (0x20..0x7f).contains(b)) {
        return format!("'{}'", String::from_utf8_lossy(bytes).replace('\'', "'\\''"));
    }
    let octal: String = bytes.iter().map(|b| format!("\\{b:03o}")).collect();
    format!("\"$(printf '{octal}')\"")
}

fn layer_line(layer: &str, item: &Item) -> String {
    let path = shell_word(&Bytes::from(layer).join(&item.path.0).0);
    match &item.what {
        What::Dir { mode } => format!("mkdir {path}; chmod {mode:o} {path}"),
        What::File { mode, data } => {
            format!("fill {} {} > {path}; chmod {mode:o} {path}", data.seed, data.len)
        }
        What::Sparse { mode, pieces, size } => {
            let mut line = format!("truncate -s {size} {path}; chmod {mode:o} {path}");
            for (at, data) in pieces {
                line += &format!(
                    "; fill {} {} | dd of={path} bs=64k oflag=seek_bytes seek={at} conv=notrunc status=none",
                    data.seed, data.len
                );
            }
            line
        }
        What::Symlink { target } => format!("ln -s {} {path}", shell_word(&target.0)),
        What::Node { mode, major, minor } => {
            let kind = match mode & libc::S_IFMT {
                libc::S_IFIFO => "p".to_owned(),
                libc::S_IFBLK => format!("b {major} {minor}"),
                libc::S_IFCHR => format!("c {major} {minor}"),
                _ => return format!("python3 -c 'import os; os.mknod(\"'{path}'\", 0o{mode:o})'"),
            };
            format!("mknod -m {:o} {path} {kind}", mode & 0o7777)
        }
        What::HardLink { to } => format!("ln {} {path}", shell_word(&Bytes::from(layer).join(&to.0).0)),
        What::Owner { uid, gid } => format!("chown -h {uid}:{gid} {path}"),
        What::Mode { mode } => format!("chmod {mode:o} {path}"),
        What::Xattr { name, value } => {
            let hex: String = value.0.iter().map(|b| format!("{b:02x}")).collect();
            format!("setfattr -h -n {} -v 0x{hex} {path}", shell_word(&name.0))
        }
        What::Times { access, modify } => {
            format!(
                "touch -hm -d @{}.{:09} {path}; touch -ha -d @{}.{:09} {path}",
                modify.0, modify.1, access.0, access.1
            )
        }
    }
}

fn python_bytes(bytes: &Bytes) -> String {
    if bytes.0.len() > 64 && bytes.0.windows(2).all(|w| w[0] == w[1]) {
        return format!("b'{}' * {}", Bytes(bytes.0[..1].to_vec()), bytes.0.len());
    }
    format!("b'{bytes}'")
}

fn python_string(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    format!("r\"\"\"{text}\"\"\"")
}

fn fill(data: Fill) -> String {
    format!("fill({}, {})", data.seed, data.len)
}

fn id(id: u32) -> String {
    if id == u32::MAX {
        "-1".into()
    } else {
        id.to_string()
    }
}

fn times(access: When, modify: When) -> String {
    let one = |when| match when {
        When::At(sec, nsec) => format!("{sec}, {nsec}"),
        When::Now => "0, (1 << 30) - 1".into(),
        When::Omit => "0, (1 << 30) - 2".into(),
    };
    format!("[{}, {}]", one(access), one(modify))
}

/// A call as a Python expression of the prelude.
fn call_line(call: &Call) -> String {
    use Call::*;
    let b = python_bytes;
    let follow = |follow: &bool| if *follow { "True" } else { "False" };
    match call {
        Open {
            slot,
            path,
            flags,
            mode,
        } => format!("opened({slot}, {}, 0o{flags:o}, 0o{mode:o})", b(path)),
        Close { slot } => format!("os.close(fds.pop({slot}, -1))"),
        Read { slot, len } => format!("os.read(fd({slot}), {len})[:24]"),
        Pread { slot, at, len } => format!("os.pread(fd({slot}), {len}, {at})[:24]"),
        Write { slot, data } => format!("os.write(fd({slot}), {})", fill(*data)),
        Pwrite { slot, at, data } => format!("os.pwrite(fd({slot}), {}, {at})", fill(*data)),
        Seek { slot, to, whence } => format!("os.lseek(fd({slot}), {to}, {whence})"),
        SeekSparse { slot, at, hole } => format!("os.lseek(fd({slot}), {at}, {})", if *hole { 4 } else { 3 }),
        Ftruncate { slot, len } => format!("os.ftruncate(fd({slot}), {len})"),
        Fallocate { slot, mode, at, len } => format!("fallocate({slot}, {mode}, {at}, {len})"),
        Fsync { slot, data_only } => format!(
            "os.{}(fd({slot}))",
            if *data_only { "fdatasync" } else { "fsync" }
        ),
        Fstat { slot } => format!("show(os.fstat(fd({slot})))"),
        Fchmod { slot, mode } => format!("os.fchmod(fd({slot}), 0o{mode:o})"),
        Fchown { slot, uid, gid } => format!("os.fchown(fd({slot}), {}, {})", id(*uid), id(*gid)),
        Futimens { slot, access, modify } => {
            format!("times(fd({slot}), None, {}, 0)", times(*access, *modify))
        }
        Fsetxattr {
            slot,
            name,
            value,
            flags,
        } => {
            format!("os.setxattr(fd({slot}), {}, {}, {flags})", b(name), b(value))
        }
        Fgetxattr { slot, name } => format!("os.getxattr(fd({slot}), {})", b(name)),
        MmapWrite { slot, at, data } => format!("mmap_write({slot}, {at}, {})", fill(*data)),
        MmapRead { slot, at, len } => format!("os.pread(fd({slot}), {len}, {at})[:24]"),
        CopyRange {
            from,
            from_at,
            to,
            to_at,
            len,
        } => {
            format!("os.copy_file_range(fd({from}), fd({to}), {len}, {from_at}, {to_at})")
        }
        LinkSlot { slot, path } => format!("link_fd({slot}, {})", b(path)),
        Flock { slot, how } => format!("fcntl.flock(fd({slot}), {how} | fcntl.LOCK_NB)"),
        Lock {
            slot,
            kind,
            at,
            len,
            of_file,
        } => {
            format!(
                "lock({slot}, {kind}, {at}, {len}, {})",
                if *of_file { 37 } else { 6 }
            )
        }
        GetFlags { slot } => format!("fcntl.ioctl(fd({slot}), 0x80086601, bytes(8))"),
        NextNames { slot, .. } => format!("names(fd({slot}))"),
        SeekNames { slot, .. } => format!("os.lseek(fd({slot}), 0, 0)"),
        Truncate { path, len } => format!("os.truncate({}, {len})", b(path)),
        ReadFile { path } => format!("read_all({})", b(path)),
        WriteFile {
            path,
            flags,
            mode,
            data,
        } => {
            format!("written({}, 0o{flags:o}, 0o{mode:o}, {})", b(path), fill(*data))
        }
        Mkdir { path, mode } => format!("os.mkdir({}, 0o{mode:o})", b(path)),
        Mknod {
            path,
            mode,
            major,
            minor,
        } => {
            format!("os.mknod({}, 0o{mode:o}, os.makedev({major}, {minor}))", b(path))
        }
        Symlink { target, path } => format!("os.symlink({}, {})", b(target), b(path)),
        Readlink { path } => format!("os.readlink({})", b(path)),
        Link { from, to, follow: f } => {
            format!("os.link({}, {}, follow_symlinks={})", b(from), b(to), follow(f))
        }
        Unlink { path } => format!("os.unlink({})", b(path)),
        Rmdir { path } => format!("os.rmdir({})", b(path)),
        Rename { from, to, flags: 0 } => format!("os.rename({}, {})", b(from), b(to)),
        Rename { from, to, flags } => format!("renameat2({}, {}, {flags})", b(from), b(to)),
        Chmod { path, mode } => format!("os.chmod({}, 0o{mode:o})", b(path)),
        Chown {
            path,
            uid,
            gid,
            follow: f,
        } => {
            format!(
                "os.chown({}, {}, {}, follow_symlinks={})",
                b(path),
                id(*uid),
                id(*gid),
                follow(f)
            )
        }
        Utimens {
            path,
            access,
            modify,
            follow,
        } => {
            format!(
                "times(-100, {}, {}, {})",
                b(path),
                times(*access, *modify),
                if *follow { 0 } else { 0x100 }
            )
        }
        SetXattr {
            path,
            name,
            value,
            flags,
            follow: f,
        } => {
            format!(
                "os.setxattr({}, {}, {}, {flags}, follow_symlinks={})",
                b(path),
                b(name),
                b(value),
                follow(f)
            )
        }
        GetXattr {
            path,
            name,
            follow: f,
        } => {
            format!(
                "os.getxattr({}, {}, follow_symlinks={})",
                b(path),
                b(name),
                follow(f)
            )
        }
        ListXattr { path, follow: f } => format!("os.listxattr({}, follow_symlinks={})", b(path), follow(f)),
        RemoveXattr {
            path,
            name,
            follow: f,
        } => {
            format!(
                "os.removexattr({}, {}, follow_symlinks={})",
                b(path),
                b(name),
                follow(f)
            )
        }
        Stat { path, follow: f } => format!("show(os.stat({}, follow_symlinks={}))", b(path), follow(f)),
        Access {
            path,
            mode,
            effective,
        } => {
            format!(
                "os.access({}, {mode}, effective_ids={})",
                b(path),
                if *effective { "True" } else { "False" }
            )
        }
        Statfs { path } => format!("os.statvfs({})", b(path)),
        List { path } => format!("names({})", b(path)),
        Chdir { path } => format!("os.chdir({})", b(path)),
        Umask { mask } => format!("os.umask(0o{mask:03o})"),
    }
}
