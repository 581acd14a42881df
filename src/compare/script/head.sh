#!/bin/sh
# The same steps on two ways to mount: a is FIRST, b is SECOND.
# As root: 'sh THIS' does them on both and shows what differs (exit status 1 if something does); 'sh THIS a' on one.
set -eu
if [ $# = 0 ]; then
    said=$(mktemp -d)
    trap 'rm -r "$said"' EXIT
    sh "$0" a >"$said/a" 2>&1 || echo "exit status $?" >>"$said/a"
    sh "$0" b >"$said/b" 2>&1 || echo "exit status $?" >>"$said/b"
    if diff -u --label "FIRST" --label "SECOND" "$said/a" "$said/b"; then echo 'no difference'; else exit 1; fi
    exit
fi
with=$1
fill() { python3 -c 'import sys; s, n = map(int, sys.argv[1:]); sys.stdout.buffer.write(bytes(33 + (s * 7 + i + i // 89) % 90 for i in range(n)))' "$1" "$2"; }
old() { touch -hm -d "@$((1000000000 + $1 * 1009)).456000789" "$2"; }
swap() { case $with in a) with=b ;; *) with=a ;; esac; }
show() { python3 -c "from steps import *; tree('l'); tree('u')"; }
dir=$(mktemp -d); mount -t tmpfs none "$dir"; cd "$dir"; mkdir l u w m; chmod 777 l u; export PYTHONPATH="$dir" PYTHONDONTWRITEBYTECODE=1
trap 'cd /; umount "$dir/m" 2>/dev/null || umount -l "$dir/m" 2>/dev/null || :; umount -l "$dir"; rmdir "$dir"' EXIT
