# shellcheck shell=bash disable=SC2016
# The rows of scripts/behaviours: a name, what it is about, how the layers are made, what is done in the view.

# Numbers and counts
row dir-links 'Link count of a merged directory' 'mkdir -p l/d/a l/d/b u/d' 'stat -c %h d'
row ino 'Inode number of a file when it is first written' 'echo old >l/f' \
    'a=$(stat -c %i f); echo new >>f; [ "$a" = "$(stat -c %i f)" ] && echo stays || echo changes'
row ino-remount 'Inode number of a changed file after a remount' 'echo old >l/f' \
    'echo new >>f; a=$(stat -c %i f); again; [ "$a" = "$(stat -c %i f)" ] && echo stays || echo changes'
row d-ino 'Inode numbers in a listing, after a copy-up' 'mkdir l/d; echo 1 >l/d/f' 'chmod 600 d/f; call d_ino .; call d_ino d'
row links-cut 'Link count of a name of a hard-linked file that was written' 'echo 1 >l/f; ln l/f l/g' \
    'echo 2 >>f; stat -c %h f g'
row link-made 'Link count after a new hard link to a lower file' 'echo 1 >l/f' 'ln f g; stat -c %h f g'

# Times and owners
row parent-mtime 'mtime of a directory when a file two levels below is written, after a remount' \
    'mkdir -p l/d/e; echo 1 >l/d/e/f; touch -d @1000 l/d' \
    'echo 2 >>d/e/f; again; t=$(stat -c %Y d); [ $t = 1000 ] && echo stays || echo "becomes now"'
row delete-mtime 'mtime of a directory when a lower file in it is deleted' 'mkdir l/d u/d; echo 1 >l/d/f; touch -d @1000 l/d u/d' \
    'rm d/f; t=$(stat -c %Y d); [ $t = 1000 ] && echo stays || echo "becomes now"'
row symlink-mtime 'mtime of a symlink that is chowned' 'ln -s x l/s; touch -hd @1000 l/s' \
    'chown -h 5 s; t=$(stat -c %Y s); [ $t = 1000 ] && echo stays || echo "becomes now"'
row old-time 'A time before 1970' 'echo 1 >l/f' 'touch -d @-1000 f; stat -c %Y f'
row setgid 'Group of a file made in a setgid directory' 'mkdir -m 2777 l/d; chgrp 1003 l/d; chmod 2777 l/d' \
    'echo >d/n; stat -c %g d/n'
row setgid-kept 'Mode 2777 of a directory of the lower after a file was made in it, after a remount' \
    'mkdir l/d; chgrp 1003 l/d; chmod 2777 l/d' 'echo >d/n; again; stat -c %a d'
row drop-setuid 'Mode 4777 after a write by an ordinary user' 'echo 1 >l/f; chmod 4777 l/f' \
    'setpriv --reuid 1001 --clear-groups sh -c "echo 2 >>f"; stat -c %a f'
row capability 'A file capability, after chmod' 'cp /bin/true l/f; setcap cap_net_raw+ep l/f' \
    'chmod 711 f; getcap f 2>&1 | sed "s/^f *//"'
row sticky 'Deleting the file of another user in a sticky directory' 'mkdir -m 1777 l/d; echo 1 >l/d/f' \
    'setpriv --reuid 1001 --clear-groups call unlink d/f'

# Attributes
row xattr 'Setting and reading a user attribute' 'echo 1 >l/f' 'call setxattr f user.a; call getxattr f user.a'
row xattr-lower 'Reading an attribute of the lower' 'echo 1 >l/f; setfattr -n trusted.a -v 7 l/f' 'call getxattr f trusted.a'
row escaped 'An attribute trusted.overlay.overlay.x of the lower, as trusted.overlay.x' \
    'echo 1 >l/f; setfattr -n trusted.overlay.overlay.x -v 7 l/f' 'call getxattr f trusted.overlay.x'
row own-marks 'Setting trusted.overlay.note in the view (for an overlay on it)' 'echo 1 >l/f' 'call setxattr f trusted.overlay.note'
row no-acl 'Removing a default ACL that is not there' 'mkdir l/d' 'call removexattr d system.posix_acl_default'
row default-acl 'Mode of a file below a default ACL with mask rwx, umask 077' \
    'mkdir l/d; setfacl -d -m u:1001:rwx,m::rwx l/d' 'umask 077; echo >d/n; stat -c %a d/n'

# Names
row long-name 'A name of 255 bytes' '' 'call create $(printf "L%.0s" {1..255})'
row too-long 'Asking for a name of 256 bytes' '' 'call stat $(printf "L%.0s" {1..256})'
row wh-names 'Files of the lower called .wh.a and .wh..wh..opq' 'echo 1 >l/.wh.a; echo 2 >l/.wh..wh..opq; echo 3 >l/a' \
    'ls -A'
row reserved 'Making a file called .wh.b' '' 'call create .wh.b'
row statfs-names 'Longest name, says statfs' '' 'stat -f -c %l .'

# Special files
row socket 'Deleting a socket of the lower' 'python3 -c "import os; os.mknod(\"l/s\", 0o140644)"' 'call unlink s'
row fifo-owner 'chown of a fifo of the lower' 'mkfifo l/p' 'call chown p'
row device-times 'Setting the times of a device of the lower' 'mknod l/n c 1 3' 'call utime n'
row block-owner 'chown of a block device that nobody drives' 'mknod l/b b 240 7' 'call chown b'
row make-whiteout 'Making a character device 0/0 in the view' '' 'call mknod x 020666'

# Renames
row rename-dir 'Renaming a directory of the lower (the kernel leaves it to mv)' 'mkdir -p l/d/e; echo 1 >l/d/f' 'call rename d d2; ls'
row exchange 'RENAME_EXCHANGE of two lower files' 'echo 1 >l/f; echo 2 >l/g' 'call exchange f g; cat f g'
row rename-over 'Renaming a file over one of the lower, and a remount' 'echo 1 >l/f; echo 2 >l/g' 'mv f g; again; ls; cat g'

# Deleting
row deleted 'A deleted file after a remount' 'echo 1 >l/f; echo 2 >l/g' 'rm f; again; ls'
row again-empty 'A directory that was deleted and made again' 'mkdir l/d; echo 1 >l/d/f' 'rm -r d; mkdir d; ls -A d | wc -l; again; ls -A d | wc -l'
row whiteout 'A whiteout in the upper, as the kernel leaves it' 'echo 1 >l/f; mknod u/f c 0 0' 'ls -A'
row opaque 'An opaque directory in the upper, as the kernel leaves it' \
    'mkdir l/d u/d; echo 1 >l/d/f; setfattr -n trusted.overlay.opaque -v y u/d' 'ls -A d | wc -l'
row trace 'What a deletion leaves in the upper' 'echo 1 >l/f' 'rm f; cd ../u; find . -mindepth 1 -printf "%P %y " '
row unlinked 'A deleted file that is still open' 'echo old >l/f' 'exec 3<>f; rm f; echo new >&3; stat -L -c %s /dev/fd/3; ls -A'

# Data
row reader 'A descriptor opened before the first write, read after it' 'printf old >l/f' 'call reader f'
row holes 'Blocks of a 64 MiB hole after the first write' 'truncate -s 64M l/f' \
    'echo 1 >>f; [ $(stat -c %b ../u/f) -lt 1000 ] && echo sparse || echo filled'
row tmpfile 'O_TMPFILE' '' 'call tmpfile .'
row punch 'Punching a hole' 'head -c 100000 /dev/zero >l/f' 'fallocate -p -o 0 -l 4096 f && echo ok'
row many 'Deleting a directory of 3000 files' 'mkdir l/d; (cd l/d; seq 3000 | xargs touch)' 'rm -r d && echo ok; ls -A'
