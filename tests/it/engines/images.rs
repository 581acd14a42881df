//! The images: small, with a busybox and a few programs of this machine, and with what is odd in layers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::common::images::archive::{Item, Layer, chr, dir, fifo, file, hard, mark, symlink};
use crate::common::images::{Image, Packing, Shape};

/// A capability as the kernel keeps it: `cap_net_raw+ep`, without the id of a root.
pub const CAP_NET_RAW: &[u8] = &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Debian's busybox-static: where it is installed, or where `scripts/install-deps --engines` unpacks it.
pub fn busybox() -> Result<PathBuf, String> {
    let unpacked = super::programs::tools().join("busybox/bin/busybox");
    if unpacked.exists() {
        return Ok(unpacked);
    }
    Err(format!(
        "{} is missing: run scripts/install-deps --engines",
        unpacked.display()
    ))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Programs that busybox lacks, with the libraries that they are linked to, under their own paths.
fn borrowed() -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    let mut put = |path: &Path, to: String| -> Result<(), String> {
        let mut parent = String::new();
        for part in to.split('/').take(to.split('/').count() - 1) {
            parent += part;
            if !items.iter().any(|item: &Item| item.path == parent.as_bytes()) {
                items.push(dir(&parent));
            }
            parent += "/";
        }
        if !items.iter().any(|item: &Item| item.path == to.as_bytes()) {
            items.push(file(&to, read(path)?).mode(0o755));
        }
        Ok(())
    };
    for (program, path) in [
        ("setcap", "/usr/sbin/setcap"),
        ("getcap", "/usr/sbin/getcap"),
        ("setfattr", "/usr/bin/setfattr"),
        ("getfattr", "/usr/bin/getfattr"),
    ] {
        let path = Path::new(path);
        put(path, format!("usr/bin/{program}"))?;
        let libraries = Command::new("ldd")
            .arg(path)
            .output()
            .map_err(|e| format!("ldd: {e}"))?;
        for word in String::from_utf8_lossy(&libraries.stdout).split_whitespace() {
            if let Some(library) = word.strip_prefix('/') {
                put(Path::new(word), library.to_owned())?;
            }
        }
    }
    Ok(items)
}

/// What all images begin with: busybox under all its names, a few programs, and a little of everything.
fn base_items() -> Result<Vec<Item>, String> {
    let busybox = busybox()?;
    let mut items = vec![
        dir("./"),
        dir("bin"),
        file("bin/busybox", read(&busybox)?).mode(0o755),
    ];
    let names = Command::new(&busybox)
        .arg("--list")
        .output()
        .map_err(|e| format!("busybox: {e}"))?;
    for name in String::from_utf8_lossy(&names.stdout).lines() {
        let theirs = ["busybox", "setfattr", "setcap", "getfattr", "getcap"];
        if !theirs.contains(&name) {
            items.push(symlink(format!("bin/{name}"), "busybox"));
        }
    }
    items.extend(borrowed()?);
    items.extend([
        dir("dev"),
        dir("proc"),
        dir("sys"),
        dir("etc"),
        file(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n",
        ),
        file("etc/group", "root:x:0:\nweb:x:33:\nann:x:1000:\n"),
        file("etc/motd", "hello\n"),
        dir("tmp").mode(0o1777),
        dir("root").mode(0o700),
        dir("opt"),
        file("opt/f", "f\n"),
        file("opt/owned", "owned\n").own(33, 33).mode(0o640),
        file("opt/private", "private\n").own(1000, 1000).mode(0o600),
        file("opt/setuid", "setuid\n").own(33, 1000).mode(0o6755),
        file("opt/ping", "ping\n")
            .mode(0o755)
            .xattr("security.capability", CAP_NET_RAW),
        file("opt/colour", "colour\n").xattr("user.colour", "green"),
        dir("opt/dir")
            .own(33, 33)
            .mode(0o2775)
            .xattr("user.on", "a directory"),
        file("opt/dir/f", "f\n").at(1_614_834_367, 123_456_789),
        dir("opt/dir/sub"),
        file("opt/dir/sub/f", "f\n"),
        symlink("opt/link", "dir/f"),
        symlink("opt/dangling", "/no/where").own(33, 33),
        file("opt/becomes", "a directory\n"),
        file("opt/a", "group\n"),
        hard("opt/b", "opt/a"),
        hard("opt/dir/c", "opt/a"),
        file("opt/changed", "before\n"),
        dir("opt/tree"),
        dir("opt/tree/deep"),
        file("opt/tree/deep/f", "deep\n"),
        file("opt/tree/g", "g\n"),
        dir("opt/again"),
        file("opt/again/old", "old\n"),
        dir("opt/moved-from"),
        file("opt/moved-from/f", "moved\n"),
        dir("opt/moved-from/sub"),
        file("opt/moved-from/sub/f", "moved\n"),
        dir("many"),
    ]);
    items.extend((0..60).map(|n| file(format!("many/f{n:02}"), n.to_string())));
    Ok(items)
}

/// Layers upon the base with all that later layers can say.
fn odd_layers() -> Vec<Vec<Item>> {
    vec![
        vec![
            // Files replaced, removed, added; metadata only.
            dir("opt"),
            mark("opt/.wh.f"),
            file("opt/changed", "after\n").mode(0o600).own(33, 33),
            file("opt/new", "new\n").xattr("user.colour", "red"),
            file("opt/owned", "owned\n").own(34, 35).mode(0o644),
            dir("many"),
        ]
        .into_iter()
        .chain(
            (0..60)
                .filter(|n| n % 3 != 0)
                .map(|n| mark(format!("many/.wh.f{n:02}"))),
        )
        .collect(),
        vec![
            // A directory removed; one emptied and filled anew; one replaced by a file, a file by a directory.
            dir("opt"),
            mark("opt/.wh.tree"),
            dir("opt/again").mode(0o700),
            mark("opt/again/.wh..wh..opq"),
            file("opt/again/new", "new\n"),
            dir("opt/dir").own(33, 33).mode(0o2775),
            mark("opt/dir/.wh.sub"),
            dir("opt/new.d"),
            file("opt/new.d/f", "f\n"),
            file("opt/moved-from", "a file now\n"),
        ],
        vec![
            // What was gone comes back, as something else.
            dir("opt"),
            dir("opt/f").mode(0o711),
            file("opt/f/in", "in\n"),
            dir("opt/tree"),
            file("opt/tree/new", "new\n"),
            dir("opt/dir").own(33, 33).mode(0o2775),
            file("opt/dir/sub", "a file now\n"),
            dir("opt/new.d"),
            mark("opt/new.d/.wh..wh..opq"),
            chr("opt/null", 1, 3),
            symlink("opt/changed", "new"),
            fifo("opt/fifo").own(33, 33),
        ],
        vec![
            // A name whited out that is not there, one that only looks like a mark, hard links within a layer.
            dir("opt"),
            mark("opt/.wh.never"),
            file("opt/wh.x", "no mark\n"),
            file("opt/.whiteout", "no mark\n"),
            file("opt/l1", "group of the fifth layer\n"),
            hard("opt/l2", "opt/l1"),
            dir("opt/tree"),
            hard("opt/tree/l3", "opt/l1"),
            file("opt/odd \u{fc} name", "odd\n"),
            file("opt/ping", "another\n")
                .mode(0o755)
                .xattr("security.capability", CAP_NET_RAW),
        ],
    ]
}

/// How many layers the deep image has: the most that docker takes.
pub const DEEP: usize = 125;

fn deep_layers() -> Result<Vec<Vec<Item>>, String> {
    let names = ["sh", "sleep", "find", "sort", "stat", "sed", "rm", "cat"];
    let mut base = vec![
        dir("./"),
        dir("bin"),
        file("bin/busybox", read(&busybox()?)?).mode(0o755),
    ];
    base.extend(names.map(|name| symlink(format!("bin/{name}"), "busybox")));
    base.extend(["dev", "proc", "sys", "etc", "tmp"].map(dir));
    let above = (1..DEEP).map(|n| {
        let mut items = vec![
            dir("stack"),
            file(format!("stack/f{n}"), format!("born in {n}\n")),
            file("stack/top", format!("written by {n}\n")),
            dir("stack/shared"),
        ];
        if n > 1 && n % 2 == 0 {
            items.push(mark(format!("stack/.wh.f{}", n - 1)));
        }
        if n % 25 == 0 {
            items.push(mark("stack/shared/.wh..wh..opq"));
        }
        items.push(file(format!("stack/shared/s{n}"), ""));
        items
    });
    Ok(std::iter::once(base).chain(above).collect())
}

/// All images as files, for all engines alike: made once.
pub struct Images {
    /// The base as one plain archive, for `import`.
    pub base: PathBuf,
    /// Base and odd layers.
    pub docker: PathBuf,
    pub oci: PathBuf,
    /// The same image through `plyfs image load` and `plyfs image save`.
    pub ours: PathBuf,
    /// The image of 125 layers.
    pub deep: PathBuf,
    /// The base alone, in docker's form, under the name base:1.
    pub based: PathBuf,
    /// Where they lie.
    place: PathBuf,
}

/// Names of the images in the archives.
pub const LAYERED: &str = "localhost/layered:1";
pub const DEEP_NAME: &str = "localhost/deep:1";
pub const BASED: &str = "localhost/based:1";

impl Images {
    fn make() -> Result<Self, String> {
        let within = std::env::var_os("PLYFS_TEST_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
        let place = within.join(format!("plyfs-engine-images-{}", std::process::id()));
        std::fs::create_dir_all(&place).map_err(|e| format!("{}: {e}", place.display()))?;
        crate::common::sys::chmod(&place, 0o755).unwrap();
        let base = base_items()?;
        let images = Images {
            base: place.join("base.tar"),
            docker: place.join("layered.docker.tar"),
            oci: place.join("layered.oci.tar"),
            ours: place.join("layered.plyfs.tar"),
            deep: place.join("deep.docker.tar"),
            based: place.join("based.docker.tar"),
            place,
        };
        let whole = |name: &str, more: Vec<Vec<Item>>| {
            let layers: Vec<&[Item]> = std::iter::once(&base[..])
                .chain(more.iter().map(|l| &l[..]))
                .collect();
            Image::new(name, &layers)
        };
        std::fs::write(&images.base, Layer::new(&base).0).unwrap();
        whole(BASED, Vec::new()).write(&images.based, Shape::Docker, Packing::Plain);
        let deep = deep_layers()?;
        let deep: Vec<&[Item]> = deep.iter().map(|layer| &layer[..]).collect();
        Image::new(DEEP_NAME, &deep).write(&images.deep, Shape::Docker, Packing::Plain);
        let layered = whole(LAYERED, odd_layers());
        layered.write(&images.docker, Shape::Docker, Packing::Gzip);
        layered.write(&images.oci, Shape::OciArchive, Packing::Gzip);
        // plyfs leaves devices out of what a user loads, so this is done by root for all.
        let store = images.place.join("store");
        for words in [
            vec!["image", "load", images.docker.to_str().unwrap()],
            vec!["image", "save", "-o", images.ours.to_str().unwrap(), LAYERED],
        ] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
            command.arg("--root").arg(&store).args(&words);
            super::nest::finish(command).ok(&words.join(" "))?;
        }
        super::nest::remove(&store);
        Ok(images)
    }

    /// Those of another test that runs at the same time, or new ones.
    pub fn get() -> Result<Arc<Images>, String> {
        static IMAGES: Mutex<Weak<Images>> = Mutex::new(Weak::new());
        let mut shared = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(images) = shared.upgrade() {
            return Ok(images);
        }
        let images = Arc::new(Images::make()?);
        *shared = Arc::downgrade(&images);
        Ok(images)
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        super::nest::remove(&self.place);
    }
}

/// What is built upon the base: each step does one thing that is hard for an overlay.
pub fn containerfile(base: &str) -> String {
    format!("FROM {base}\n{}", CONTAINERFILE.trim_start())
}

const CONTAINERFILE: &str = r#"
RUN rm opt/f many/f0* && rm -r opt/tree && echo replaced >opt/changed.new && mv opt/changed.new opt/changed
RUN rm -r opt/again && mkdir opt/again && echo new >opt/again/new && rm -r opt/dir/sub && echo "a file now" >opt/dir/sub
RUN mv opt/moved-from opt/moved-to && mkdir opt/made && echo f >opt/made/f && mv opt/made opt/made-moved
RUN chown -R 33:34 many && chmod -R g+w many && chown -h 33:33 opt/link && chmod 4711 opt/owned
RUN echo caps >opt/caps && setcap cap_net_admin+ep opt/caps && setcap cap_chown+ep opt/ping
RUN ln opt/changed opt/changed-link && ln opt/a opt/d && ln opt/again/new opt/dir/new-link && ln -s f opt/symlink
RUN setfattr -n user.colour -v blue opt/colour && setfattr -n user.note -v "on a directory" opt/dir && (setfattr -x user.on opt/dir || true)
RUN echo again >opt/f && mkdir opt/tree && touch -d '2001-02-03 04:05:06' opt/tree opt/f && touch opt/owned && rm opt/made-moved/f
RUN mkfifo opt/made-moved/fifo && rm opt/becomes && mkdir opt/becomes && rm -r opt/moved-to/sub && ln -s nowhere opt/moved-to/sub
COPY added /opt/added
WORKDIR /opt/again
CMD ["cat", "new"]
"#;

/// What is done in a container, before `diff` and `commit`.
pub const CHANGES: &str = r#"
echo more >>/opt/f
echo new >/opt/new
rm /opt/changed /many/f1*
rm -r /opt/tree
rm -r /opt/again && mkdir /opt/again && echo x >/opt/again/x
mkdir -p /made/deep && echo x >/made/deep/f
chmod 700 /etc
mv /opt/moved-from /opt/moved-to
mv /opt/dir/sub/f /opt/dir/f2
ln /opt/new /opt/new-link
ln /opt/a /opt/d
ln -sf other /opt/link
touch /opt/owned
chown 5:6 /opt/private
chmod 711 /opt/dir
setfattr -n user.colour -v blue /opt/colour
setcap cap_net_admin+ep /opt/ping
mkfifo /opt/pipe
rm /opt/setuid && mkdir /opt/setuid
rm -r /opt/dir/c && echo gone-and-back >/opt/dir/c
echo "odd" >"/opt/odd name"
echo x >/opt/temporary && rm /opt/temporary
touch -d '2001-02-03 04:05:06' /opt/b
"#;
