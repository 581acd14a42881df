//! Prints a program as a shell script that anybody can run: it does the same steps on both ways to mount, and shows
//! what differs.

mod call;

use super::bytes::Bytes;
use super::layers::{Item, What};
use super::op::{Event, PEOPLE, Program};
use super::pair::Pair;
use super::way::Way;

/// What every script begins with.
const HEAD: &str = include_str!("head.sh");
/// The Python module that does the steps.
const PRELUDE: &str = include_str!("prelude.py");

/// The whole script; `difference` goes into its head.
pub fn script(program: &Program, difference: &str, ways: &Pair<Way>) -> String {
    let mut text = HEAD
        .replace("FIRST", &label(&ways.a))
        .replace("SECOND", &label(&ways.b));
    for line in format!("Seed {}. {difference}", program.seed).lines() {
        text += &format!("# {}\n", line.escape_debug());
    }
    text += &format!(
        "up() {{\n    case $with in\n    a) {} ;;\n    b) {} ;;\n    esac\n}}\n",
        ways.a.as_shell(),
        ways.b.as_shell()
    );
    text += &format!("cat >\"$dir/steps.py\" <<'END'\n{PRELUDE}END\n");
    for (layer, items) in [("l", &program.layers.lower), ("u", &program.layers.upper)] {
        for item in items {
            text += &(layer_line(layer, item) + "\n");
        }
    }
    // One mount after the other; each has processes of its own.
    let mut events = program.events.as_slice();
    loop {
        let end = events
            .iter()
            .position(|event| matches!(event, Event::Remount | Event::Swap));
        let (now, rest) = events.split_at(end.unwrap_or(events.len()));
        text += &mounted(now);
        match rest.split_first() {
            None => return text,
            Some((Event::Swap, rest)) => {
                text += "swap\n";
                events = rest;
            }
            Some((_, rest)) => events = rest,
        }
    }
}

/// A name for a comment or a quoted word of the shell.
fn label(way: &Way) -> String {
    way.to_string().replace(['\'', '\n'], " ")
}

/// The steps of one mount.
fn mounted(events: &[Event]) -> String {
    let mut text = String::from("up\npython3 - <<'END'\nfrom steps import *\n");
    for (worker, p) in PEOPLE.iter().enumerate() {
        let used =
            |event: &Event| matches!(event, Event::Step { worker: w, .. } if usize::from(*w) == worker);
        if events.iter().any(used) {
            text += &format!(
                "person({worker}, {}, {}, {}, 0o{:03o})\n",
                p.uid, p.gid, p.extra_group, p.umask
            );
        }
    }
    for event in events {
        match event {
            Event::Step { worker, call, .. } => {
                text += &format!("do({worker}, r\"\"\"{}\"\"\")\n", call::line(call));
            }
            Event::DropCaches => text += "drop_caches()\n",
            Event::Compare => text += "tree('m')\n",
            Event::Remount | Event::Swap => {}
        }
    }
    text += "tree('m')\nEND\numount \"$dir/m\"\nshow\n";
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
