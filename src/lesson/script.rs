//! The walk: its words and its commands. What comes of them is for the run to show.

use super::crash;
use super::model::Sort;
use super::plan::{Ask, Choice, Plan};

/// Everything the lower and the upper begin with.
const PLANT: &str = "\
mkdir L U W M L/docs L/logs L/cache U/docs
echo 'hello'          > L/motd
echo 'colour = grey'  > L/config
echo 'page one'       > L/docs/guide
echo 'old notes'      > L/notes
echo 'quiet'          > L/logs/monday
echo 'busy'           > L/logs/tuesday
echo 'one'            > L/cache/a
echo 'two'            > L/cache/b
echo 'two names'      > L/twin-a
ln L/twin-a L/twin-b
yes 'a large file' | head -c 67108864 > L/big
echo 'colour = blue'  > U/config
echo 'chapter two'    > U/docs/news";

/// The steps in order.
pub const STEPS: &[Plan] = &[
    Plan {
        name: "stage",
        title: "The stage",
        lead: "Two directories with ordinary files: L, the lower, which nobody will write to again, and U, the upper, \
               where an earlier mount has left two files. W is for work in progress, M is where the view will be seen.",
        ask: None,
        act: |room| Ok(vec![room.shell(PLANT, true)?]),
        why: "Layers are directories, nothing more. They can be looked at with ls, copied with cp and packed with tar \
              while nothing is mounted.",
        rules: &[],
    },
    Plan {
        name: "merge",
        title: "Merge: one view of two directories",
        lead: "The view is mounted on M. Directories that exist in both layers become one.",
        ask: Some(Ask {
            question: "L/docs holds guide, U/docs holds news. What does M/docs hold?",
            choices: &[
                Choice {
                    text: "news: the upper's directory replaces the lower's",
                    holds: |seen| seen.names("M", "docs") == ["news"],
                },
                Choice {
                    text: "guide: the lower's directory was there first",
                    holds: |seen| seen.names("M", "docs") == ["guide"],
                },
                Choice {
                    text: "guide and news",
                    holds: |seen| seen.names("M", "docs") == ["guide", "news"],
                },
            ],
        }),
        act: |room| Ok(vec![room.mount()?, room.shell("ls -C M M/docs", true)?]),
        why: "A directory in both layers is merged: it lists the names of both. Nothing was copied for that, and the \
              mount took no longer than a mount of empty directories would.",
        rules: &["K21", "K50"],
    },
    Plan {
        name: "shadowing",
        title: "Shadowing: files do not merge",
        lead: "config is a file in both layers, with different content.",
        ask: Some(Ask {
            question: "What does 'cat M/config' print?",
            choices: &[
                Choice {
                    text: "colour = grey (the lower's)",
                    holds: |seen| seen.said(0) == "colour = grey\n",
                },
                Choice {
                    text: "colour = blue (the upper's)",
                    holds: |seen| seen.said(0) == "colour = blue\n",
                },
                Choice {
                    text: "both lines",
                    holds: |seen| seen.said(0).lines().count() == 2,
                },
            ],
        }),
        act: |room| {
            Ok(vec![
                room.shell("cat M/config", true)?,
                room.shell("cat L/config", true)?,
            ])
        },
        why: "The upper is asked first. If it has the name and it is not a directory in both, that is the answer, and \
              the lower's object is hidden. It is still there, as it was.",
        rules: &["K20", "K22"],
    },
    Plan {
        name: "copy-up",
        title: "Copy-up: writing to a file of the lower",
        lead: "M/docs/guide comes from L. First it is read, then a line is added to it.",
        ask: Some(Ask {
            question: "Where does the new line land?",
            choices: &[
                Choice {
                    text: "in L/docs/guide",
                    holds: |seen| !seen.untouched("L", "docs/guide"),
                },
                Choice {
                    text: "in a file of U that holds nothing but the new line",
                    holds: |seen| {
                        seen.is("U", "docs/guide")
                            .is_some_and(|entry| entry.text.as_deref() == Some("page two\n"))
                    },
                },
                Choice {
                    text: "in a whole copy of the file, in U",
                    holds: |seen| {
                        seen.untouched("L", "docs/guide")
                            && seen
                                .is("U", "docs/guide")
                                .is_some_and(|entry| entry.text.as_deref() == Some("page one\npage two\n"))
                    },
                },
            ],
        }),
        act: |room| {
            Ok(vec![
                room.shell("cat M/docs/guide", true)?,
                room.shell("echo 'page two' >> M/docs/guide", true)?,
            ])
        },
        why: "Reading copies nothing. Opening for writing does: the whole file with owner, mode, times and attributes \
              is copied to U first, and written there. From then on the upper answers for it. The \
              marks origin and impure are book-keeping: by them the file keeps its inode number.",
        rules: &["K42", "K48", "K60", "K61", "K65"],
    },
    Plan {
        name: "whiteout",
        title: "Whiteout: removing what cannot be removed",
        lead: "M/motd comes from L, and L is never written. It is removed all the same.",
        ask: Some(Ask {
            question: "How can motd be gone from the view, also after the next mount?",
            choices: &[
                Choice {
                    text: "L/motd is removed after all",
                    holds: |seen| seen.is("L", "motd").is_none(),
                },
                Choice {
                    text: "a mark named motd is put into U",
                    holds: |seen| seen.untouched("L", "motd") && seen.is("U", "motd").is_some(),
                },
                Choice {
                    text: "the server keeps a list of removed names in W",
                    holds: |seen| seen.untouched("L", "motd") && seen.is("U", "motd").is_none(),
                },
            ],
        }),
        act: |room| {
            Ok(vec![
                room.shell("rm M/motd", true)?,
                room.shell("ls -l L/motd U/motd", true)?,
                room.shell("cat M/motd", false)?,
            ])
        },
        why: "A character device with the number 0, 0 is a whiteout: the name is not there, whatever the lower says. \
              The kernel's overlay writes the very same mark.",
        rules: &["K30", "K84"],
    },
    Plan {
        name: "opaque",
        title: "Opaque: a new directory in an old one's place",
        lead: "logs is removed with everything in it, and then made again.",
        ask: Some(Ask {
            question: "L/logs still holds monday and tuesday. What does the new M/logs hold?",
            choices: &[
                Choice {
                    text: "monday and tuesday are back",
                    holds: |seen| seen.names("M", "logs") == ["monday", "tuesday"],
                },
                Choice {
                    text: "nothing",
                    holds: |seen| seen.is("M", "logs").is_some() && seen.names("M", "logs").is_empty(),
                },
            ],
        }),
        act: |room| {
            Ok(vec![
                room.shell("rm -r M/logs", true)?,
                room.shell("mkdir M/logs", true)?,
                room.shell("ls -A M/logs", true)?,
            ])
        },
        why: "A directory made where the lower has one of that name is marked opaque (an extended attribute): it hides \
              the lower's directory instead of being merged with it. The mark is set before the directory appears, so \
              there is no moment at which the old names show.",
        rules: &["K21", "K81", "K87"],
    },
    Plan {
        name: "rename",
        title: "Rename: a file moves, a merged directory does not",
        lead: "First a file of L gets a new name. Then the directory docs, which both layers hold a part of: by \
               rename(2) itself, and by mv.",
        ask: Some(Ask {
            question: "What does rename(\"M/docs\", \"M/papers\") answer?",
            choices: &[
                Choice {
                    text: "0: it is one directory in the view, and moves as one",
                    holds: |seen| seen.said(1).starts_with("0\n"),
                },
                Choice {
                    text: "EXDEV: as if the new name were on another file system",
                    holds: |seen| seen.said(1).starts_with("EXDEV"),
                },
                Choice {
                    text: "ENOTEMPTY: the directory is not empty",
                    holds: |seen| seen.said(1).starts_with("ENOTEMPTY"),
                },
            ],
        }),
        act: |room| {
            Ok(vec![
                room.shell("mv M/notes M/letter", true)?,
                room.rename("M/docs", "M/papers")?,
                room.shell("mv M/docs M/papers", true)?,
                room.shell("mv M/papers M/books", true)?,
            ])
        },
        why: "A file is copied up, renamed in U, and leaves a whiteout. The part of a directory that lies in L cannot \
              move, since a whole tree would have to be copied inside one system call: the answer is EXDEV, and mv does \
              what it does between file systems, it copies and removes. The result lies in U alone and can be renamed \
              at once.",
        rules: &["K91", "K94"],
    },
    Plan {
        name: "hard-links",
        title: "Hard links: copy-up cuts them",
        lead: "twin-a and twin-b are two names of one file in L. One line is added through the first name.",
        ask: Some(Ask {
            question: "Does M/twin-b show the new line?",
            choices: &[
                Choice {
                    text: "yes: it is the same file",
                    holds: |seen| seen.said(2).contains("a third"),
                },
                Choice {
                    text: "no: only twin-a was copied up",
                    holds: |seen| seen.said(2) == "two names\n",
                },
            ],
        }),
        act: |room| {
            Ok(vec![
                room.shell("ls -li M/twin-a M/twin-b", true)?,
                room.shell("echo 'and a third line' >> M/twin-a", true)?,
                room.shell("cat M/twin-b", true)?,
                room.shell("ls -li M/twin-a M/twin-b", true)?,
            ])
        },
        why: "A copy-up copies one name. The copy in U and the file in L are two files from then on. It is the best \
              known surprise of overlays: package managers and backup programs that rely on hard links meet it.",
        rules: &["K71", "K42"],
    },
    Plan {
        name: "work",
        title: "The work directory: made out of sight, shown at once",
        lead: "Look into W: the whiteouts that rm left are names of one inode, which is kept there. Two more files of L are \
               removed now.",
        ask: Some(Ask {
            question: "How many new inodes do the two whiteouts cost?",
            choices: &[
                Choice {
                    text: "none: they are two more names of the one in W",
                    holds: |seen| {
                        let kept = |path: &str| {
                            let made = seen.is("U", path).filter(|entry| entry.sort == Sort::Whiteout);
                            made.is_some_and(|made| {
                                super::model::tree(seen.before, "W").is_some_and(|work| {
                                    work.entries
                                        .iter()
                                        .any(|old| old.sort == Sort::Whiteout && old.inode == made.inode)
                                })
                            })
                        };
                        kept("cache/a") && kept("cache/b")
                    },
                },
                Choice {
                    text: "two: one for each name",
                    holds: |seen| {
                        let inode = |path: &str| seen.is("U", path).map(|entry| entry.inode);
                        inode("cache/a") != inode("cache/b")
                    },
                },
            ],
        }),
        act: |room| {
            Ok(vec![
                room.shell("ls -li W/work", true)?,
                room.shell("rm M/cache/a M/cache/b", true)?,
                room.shell("ls -li W/work U/cache", true)?,
            ])
        },
        why: "Whatever takes more than one system call is made in W, on the same file system as U, and then moved to \
              its name in one step: copies, new directories over whiteouts, whiteouts themselves. So U never holds \
              half of anything. W belongs to the mount: it is emptied by the next one.",
        rules: &["K7", "K33", "K63"],
    },
    Plan {
        name: "crash",
        title: "A crash in the middle of a copy-up",
        lead: "M/big is a file of 64 MiB in L. A line is added to it, and while the copy is being made the server is \
               stopped for a look, and then killed: the way power fails, without any warning.",
        ask: Some(Ask {
            question: "After the next mount, what is M/big?",
            choices: &[
                Choice {
                    text: "a shorter file: what had been copied",
                    holds: |seen| seen.is("M", "big").is_some_and(|entry| entry.size < crash::LARGE),
                },
                Choice {
                    text: "gone, or an error on reading it",
                    holds: |seen| seen.is("M", "big").is_none(),
                },
                Choice {
                    text: "the whole file, as it was before",
                    holds: |seen| {
                        seen.is("M", "big")
                            .is_some_and(|entry| entry.size == crash::LARGE)
                            && seen.is("U", "big").is_none()
                            && seen.scenes.last().and_then(|scene| scene.status) == Some(0)
                    },
                },
            ],
        }),
        act: |room| {
            let mut scenes = crash::in_the_middle(room)?;
            scenes.push(room.unmount()?);
            scenes.push(room.mount()?);
            scenes.push(room.shell("cmp L/big M/big && echo 'not a byte differs'", false)?);
            Ok(scenes)
        },
        why: "A copy gets its name in U by one step, after its data are on disk. Until then the old state holds, \
              whatever happens: the upper has no big, so the lower answers.",
        rules: &["K63", "K120", "K123"],
    },
    Plan {
        name: "layers",
        title: "Layers by hard links: a new lower out of lower and upper",
        lead: "The view is unmounted. What it showed becomes a layer of its own, C: a whole tree, which the next mount \
               can take as its one lower.",
        ask: Some(Ask {
            question: "big was not changed. Where are the 64 MiB of C/big?",
            choices: &[
                Choice {
                    text: "on disk a second time",
                    holds: |seen| match (seen.is("L", "big"), seen.is("C", "big")) {
                        (Some(lower), Some(child)) => lower.inode != child.inode && child.sort == Sort::File,
                        _ => false,
                    },
                },
                Choice {
                    text: "where they were: C/big is one more name of L/big",
                    holds: |seen| match (seen.is("L", "big"), seen.is("C", "big")) {
                        (Some(lower), Some(child)) => lower.inode == child.inode,
                        _ => false,
                    },
                },
                Choice {
                    text: "nowhere: C/big is a symbolic link into L",
                    holds: |seen| {
                        seen.is("C", "big")
                            .is_some_and(|child| child.sort == Sort::Symlink)
                    },
                },
            ],
        }),
        act: |room| {
            let unmounted = room.unmount()?;
            room.show_child_layer();
            Ok(vec![
                unmounted,
                room.shell("plyfs layer apply --parent L U C", true)?,
                room.shell("ls -li L/big C/big L/config C/config", true)?,
            ])
        },
        why: "C is a clone of L by hard links with the changes of U laid over it: whiteouts remove, opaque directories \
              replace, changed files are new inodes. A layer costs what changed, and L is bit for bit what it was. So a \
              view needs one lower only, however many layers an image had.",
        rules: &[],
    },
];
