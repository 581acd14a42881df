# shellcheck shell=bash
# Shared by the scripts beside this directory; sourced, never run.
set -euo pipefail

me=${0##*/}
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$repo/target}
tools=$target/tools
export PATH=$tools/bin:$PATH

die() {
    printf '%s: %s\n' "$me" "$*" >&2
    exit 2
}

# Prints the comment block at the head of the calling script.
usage() {
    sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"
}

# report_counts PASSED FAILED SKIPPED: for scripts/test, which adds them up.
report_counts() {
    [ -z "${PLYFS_COUNTS:-}" ] || echo "$1 $2 $3" >"$PLYFS_COUNTS"
}

# Runs this script again in its own mount and process namespaces: whatever it mounts, and every server it
# starts, is gone when it ends, however it ends.
isolate() {
    [ "$(id -u)" = 0 ] || die "needs root, to mount the kernel's overlay: try sudo -E env \"PATH=\$PATH\" $0"
    if [ $$ != 1 ] || [ "${PLYFS_ISOLATED:-}" != "$me" ]; then
        export PLYFS_ISOLATED=$me
        exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc bash "$0" "$@"
    fi
    trap 'exit 130' INT TERM HUP
}

# make_scratch SIZE [memory]: sets $scratch to a fresh directory and $fs to a fresh ext4 file system in it, kept on
# disk or in memory; $m is where the views are mounted, at one path for all of them, since many programs write
# their own path into files.
make_scratch() {
    scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/plyfs-$me.XXXXXX")
    trap drop_scratch EXIT
    chmod 755 "$scratch"
    fs=$scratch/fs
    m=$scratch/view
    [ "${2:-disk}" = disk ] || mount -t tmpfs -o mode=755 scratch "$scratch"
    mkdir -p "$fs" "$m"
    truncate -s "$1" "$scratch/ext4"
    mkfs.ext4 -q -E lazy_itable_init=1,lazy_journal_init=1 "$scratch/ext4"
    mount -o loop "$scratch/ext4" "$fs"
    rmdir "$fs/lost+found"
}

drop_scratch() {
    local mounted
    findmnt -rn -o TARGET | grep -F "$scratch/" | tac | while read -r mounted; do umount -l "$mounted"; done || true
    umount -l "$scratch" 2>/dev/null || true
    rm -rf --one-file-system "$scratch"
}

# Sets $PROGRAM, the file system under test: $PROGRAM or $PLYFS if given, else ours, built here.
find_program() {
    PROGRAM=${PROGRAM:-${PLYFS:-}}
    if [ -z "$PROGRAM" ]; then
        cargo build --quiet --locked --release --manifest-path "$repo/Cargo.toml"
        PROGRAM=$target/release/plyfs
    fi
    PROGRAM=$(command -v "$PROGRAM") || die "no such program"
    PROGRAM=$(realpath "$PROGRAM")
    ours=${PROGRAM##*/}
    # As if it were installed: ordinary users can run it wherever it was built, and mount(8), which does not look
    # at PATH, finds it.
    mkdir "$scratch/bin"
    cp "$PROGRAM" "$scratch/bin/$ours"
    mount -t overlay overlay -o "lowerdir=$scratch/bin:/usr/bin" /usr/bin
    PROGRAM=/usr/bin/$ours
}

# Asks no server, which might refuse root: a mount of an ordinary user is closed to others.
is_mounted() { grep -qF " $m " /proc/self/mountinfo; }

# view_up KIND [RUN-AS...]: mounts $fs/KIND/{l,u,w} on $m; the bare kind is the lower itself.
view_up() {
    local kind=$1 base=$fs/$1
    shift
    mkdir -p "$base/u" "$base/w"
    local words=lowerdir=$base/l,upperdir=$base/u,workdir=$base/w
    case $kind in
    bare) mount --bind "$base/l" "$m" ;;
    kernel) mount -t overlay overlay -o "$words${kernel_words:-}" "$m" ;;
    ours) "$@" "$PROGRAM" "$m" -o "$words" </dev/null ;;
    *) die "no kind of view is called $kind" ;;
    esac
    is_mounted || die "$kind: nothing is mounted on $m"
}

# view_down KIND [RUN-AS...]: unmounts what view_up mounted.
view_down() {
    local kind=$1
    shift
    if [ "$kind" != ours ]; then
        umount "$m"
    elif [ "${PROGRAM##*/}" = plyfs ]; then
        "$@" "$PROGRAM" umount "$m"
    else
        sync -f "$m"
        fusermount3 -u "$m"
        sleep 0.3 # It does not say when its server is gone.
    fi
    ! is_mounted || die "$kind: still mounted on $m"
}

# Adds users to this namespace's own /etc/passwd and /etc/group, and subordinate ids for the first, without
# touching the machine's: private_users NAME:ID...
private_users() {
    local etc=$scratch/etc user file
    mkdir -p "$etc"
    touch "$etc/subuid" "$etc/subgid"
    cp /etc/passwd /etc/group "$etc"
    for user; do
        sed -i "/^${user%:*}:/d; /^[^:]*:[^:]*:${user#*:}:/d" "$etc/passwd" "$etc/group"
        echo "${user%:*}:x:${user#*:}:${user#*:}::/:/bin/sh" >>"$etc/passwd"
        echo "${user%:*}:x:${user#*:}:" >>"$etc/group"
    done
    echo "${1%:*}:1000000:65536" | tee "$etc/subuid" >"$etc/subgid"
    for file in passwd group subuid subgid; do
        [ -e "/etc/$file" ] || die "/etc/$file is missing: is the package uidmap installed?"
        mount --bind "$etc/$file" "/etc/$file"
    done
}

# Lets ordinary users open /dev/fuse in this namespace; the machine's own node is left as it is.
private_fuse() {
    mkdir -p "$scratch/dev"
    mount -t tmpfs -o mode=755 dev "$scratch/dev"
    mknod "$scratch/dev/fuse" c 10 229
    chmod 666 "$scratch/dev/fuse"
    mount --bind "$scratch/dev/fuse" /dev/fuse
    umount -l "$scratch/dev"
}

# Sets $debian to the archive of a Debian tree, with a small repository for apt inside: made once, and kept in the cache
# directory. False if it cannot be made; $scratch/log says why.
make_debian() {
    local cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/plyfs-tests
    debian=$scratch/debian.tar
    mkdir -p "$cache"
    if [ ! -e "$cache/debian-1.tar" ]; then
        # shellcheck disable=SC2016 # The hook's own shell expands it.
        mmdebstrap --quiet --variant=minbase --customize-hook='set -e
            mkdir "$1/repo" && cd "$1/repo"
            APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq download hello ed less bash coreutils
            for deb in *.deb; do
                dpkg-deb -f "$deb"
                echo "Filename: ./$deb"
                stat -c "Size: %s" "$deb"
                echo "SHA256: $(sha256sum "$deb" | cut -d " " -f 1)"
                echo
            done >Packages
            rm -rf "$1/etc/apt/sources.list.d"
            echo "deb [trusted=yes] file:/repo ./" >"$1/etc/apt/sources.list"' \
            bookworm "$cache/new.tar" "${PLYFS_DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$scratch/log" 2>&1 </dev/null || return 1
        mv "$cache/new.tar" "$cache/debian-1.tar"
    fi
    # Where an ordinary user can read it.
    cp --reflink=auto "$cache/debian-1.tar" "$debian"
    chmod 644 "$debian"
}
