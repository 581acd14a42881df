//! Prints a program as a shell script that anybody can run: it does the same steps on both ways to mount, and shows
//! what differs.

mod call;

use std::collections::BTreeSet;

use super::bytes::Bytes;
use super::layers::{Item, What};
use super::op::{Event, PEOPLE, Program};
use super::pair::Pair;
use super::way::Way;

/// What every script begins with.
const HEAD: &str = include_str!("head.sh");
/// How many items and events are shown in short.
const MOST: usize = 40;
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
        ways.a.as_shell(program.layers.tops.len()),
        ways.b.as_shell(program.layers.tops.len())
    );
    text += &format!("cat >\"$dir/steps.py\" <<'END'\n{PRELUDE}END\n");
    text += &layer("l", &program.layers.lower);
    for (number, top) in (1..).zip(&program.layers.tops) {
        text += &format!("mkdir t{number}; chmod 777 t{number}\n");
        text += &layer(&format!("t{number}"), top);
    }
    text += &layer("u", &program.layers.upper);
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

/// The program in short, as the lines of a script have it: the layers (unless they are large) and the last events.
pub fn steps(program: &Program) -> Vec<String> {
    let tops = (1..)
        .zip(&program.layers.tops)
        .map(|(number, top)| (format!("t{number}"), top));
    let mut layers: Vec<_> = tops.collect();
    layers.push(("l".to_owned(), &program.layers.lower));
    layers.push(("u".to_owned(), &program.layers.upper));
    let count: usize = layers.iter().map(|(_, items)| items.len()).sum();
    let mut lines = Vec::new();
    if count <= MOST {
        for (layer, items) in layers {
            lines.extend(items.iter().map(|item| layer_line(&layer, item)));
        }
    } else {
        lines.push(format!("... {count} items in the layers"));
    }
    let left_out = program.events.len().saturating_sub(MOST);
    if left_out > 0 {
        lines.push(format!("... {left_out} steps"));
    }
    lines.extend(program.events.iter().skip(left_out).map(|event| match event {
        Event::Step { worker, call, .. } => format!("{worker}: {}", call::line(call)),
        Event::DropCaches => "the kernel drops its caches".to_owned(),
        Event::Compare => "everything is compared".to_owned(),
        Event::Remount => "remount".to_owned(),
        Event::Swap => "remount, each on the layers of the other".to_owned(),
    }));
    lines
}

/// A name for a comment or a quoted word of the shell.
fn label(way: &Way) -> String {
    way.to_string().replace(['"', '$', '`', '\\', '\n'], " ")
}

/// The steps of one mount.
fn mounted(events: &[Event]) -> String {
    let mut text = String::from(
        "up >\"$dir/log\" 2>&1 || { cat \"$dir/log\"; exit 1; }\npython3 - <<'END'\nfrom steps import *\n",
    );
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

/// Makes a layer just as the engine does, with the same fixed times.
fn layer(layer: &str, items: &[Item]) -> String {
    let mut text = String::new();
    let root = Bytes::default();
    let mut made: Vec<&Bytes> = Vec::new();
    let mut dirs: BTreeSet<&[u8]> = BTreeSet::from([root.0.as_slice()]);
    for item in items {
        // What has lost its parent, or the thing to be changed, is not made there either.
        let (possible, new) = match &item.what {
            What::Times { .. } => (false, false),
            What::Owner { .. } | What::Mode { .. } | What::Xattr { .. } => {
                (item.path == root || made.contains(&&item.path), false)
            }
            What::HardLink { to } => (dirs.contains(item.path.parent()) && made.contains(&to), true),
            _ => (dirs.contains(item.path.parent()), true),
        };
        if possible {
            text += &(layer_line(layer, item) + "\n");
        }
        if possible && new {
            made.push(&item.path);
        }
        if possible && matches!(item.what, What::Dir { .. }) {
            dirs.insert(&item.path.0);
        }
    }
    for (index, path) in made.iter().enumerate().rev() {
        text += &format!(
            "old {index} {}\n",
            shell_word(&Bytes::from(layer).join(&path.0).0)
        );
    }
    text += &format!("touch -hm -d @999999999.999999999 {layer}\n");
    for item in items {
        if matches!(item.what, What::Times { .. }) && (item.path == root || made.contains(&&item.path)) {
            text += &(layer_line(layer, item) + "\n");
        }
    }
    text
}

/// A time as touch(1) reads it: before 1970 the fraction counts backwards.
fn stamp((seconds, nanoseconds): (i64, u32)) -> String {
    if seconds < 0 && nanoseconds > 0 {
        let whole = match seconds + 1 {
            0 => "-0".to_owned(),
            whole => whole.to_string(),
        };
        format!("{whole}.{:09}", 1_000_000_000 - nanoseconds)
    } else {
        format!("{seconds}.{nanoseconds:09}")
    }
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
            let (access, modify) = (stamp(*access), stamp(*modify));
            format!("touch -hm -d @{modify} {path}; touch -ha -d @{access} {path}")
        }
    }
}
