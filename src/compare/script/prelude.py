import os, sys, ctypes, errno, fcntl, hashlib, mmap, stat, struct, time
libc = ctypes.CDLL(None, use_errno=True)
L = ctypes.c_long
def check(r):
    if r < 0: raise OSError(ctypes.get_errno(), '')
    return r
def fill(seed, n): return bytes(33 + (seed * 7 + i + i // 89) % 90 for i in range(n))
numbers = {}
def number(st): return numbers.setdefault(st.st_ino, len(numbers) + 1)
def when(ns): return 'now' if abs(time.time_ns() - ns) < 86400 * 10**9 else str(ns)
def show(st): return 'mode %o owner %d:%d nlink %d rdev %x size %s file #%d mtime %s' % (
    st.st_mode, st.st_uid, st.st_gid, st.st_nlink, st.st_rdev, '-' if stat.S_ISDIR(st.st_mode) else st.st_size,
    number(st), when(st.st_mtime_ns))
def name_of(e): return errno.errorcode.get(e.errno, str(e.errno))
def private(name): return name.rpartition('.')[2] in ('origin', 'impure', 'uuid') and '.overlay.' in name
def xattrs(path):
    found = []
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        if not private(name): found.append('%s=%r' % (name, os.getxattr(path, name, follow_symlinks=False)))
    return found
def entry(path, at):
    try: st = os.lstat(path)
    except OSError as e: return print(ascii(at), name_of(e))
    if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0 and at.startswith(b'u'): return print(ascii(at), 'whiteout')
    try: words = [show(st)] + xattrs(path)
    except OSError as e: words = [show(st), 'xattrs: ' + name_of(e)]
    try:
        if stat.S_ISREG(st.st_mode): words.append('md5 ' + hashlib.md5(open(path, 'rb').read()).hexdigest())
        if stat.S_ISLNK(st.st_mode): words.append('-> ' + ascii(os.readlink(path)))
    except OSError as e: words.append('content: ' + name_of(e))
    print(ascii(at), *words)
    if stat.S_ISDIR(st.st_mode):
        try: below = sorted(os.listdir(path))
        except OSError as e: return print(ascii(at), 'listing:', name_of(e))
        for name in below: entry(os.path.join(path, name), os.path.join(at, name))
def tree(name):
    numbers.clear()
    print('---', {'m': 'merged', 'l': 'lower', 'u': 'upper'}[name])
    entry(name.encode(), name.encode())
    sys.stdout.flush()
def drop_caches():
    check(libc.mount(None, b'm', None, L(32 | os.statvfs('m').f_flag & 15), None))
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
    sys.stdout.flush()
    if os.fork() == 0:
        os.close(ask[1]); os.close(told[0])
        os.chroot('m'); os.chdir('/')
        os.setgroups([group]); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid); os.umask(umask)
        out = os.fdopen(told[1], 'w')
        for line in os.fdopen(ask[0]):
            try: answer = repr(eval(line))
            except OSError as e: answer = name_of(e)
            except Exception as e: answer = repr(e)
            out.write(answer + '\n'); out.flush()
        os._exit(0)
    os.close(ask[0]); os.close(told[1])
    people[number] = os.fdopen(ask[1], 'w'), os.fdopen(told[0])
def do(number, line):
    ask, told = people[number]
    ask.write(line + '\n'); ask.flush()
    print('%d: %s = %s' % (number, line, told.readline().strip()))
    sys.stdout.flush()
