//! What a calling process may do, read from /proc; only asked in rare cases, since it costs an open.

/// Capability numbers of linux/capability.h.
const CAP_CHOWN: u32 = 0;
const CAP_FSETID: u32 = 4;
const CAP_SYS_ADMIN: u32 = 21;

/// What the link of the first user namespace of all says; its number is fixed (include/linux/proc_ns.h).
const INITIAL_NAMESPACE: &str = "user:[4026531837]";

/// The part of `/proc/PID/status` that matters here.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Caller {
    effective: u64,
    fs_gid: Option<u32>,
    groups: Vec<u32>,
    first_namespace: bool,
    initial_namespace: bool,
}

impl Caller {
    /// Reads the process `pid`; one that is gone, or that cannot be seen, has no capability at all.
    pub fn read(pid: u32) -> Self {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
            return Self::default();
        };
        let mut caller = Self::parse(&status);
        let namespace = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/user")).ok();
        caller.first_namespace = match (namespace(&pid.to_string()), namespace("self")) {
            (Some(theirs), Some(ours)) => {
                caller.initial_namespace = theirs.as_os_str() == INITIAL_NAMESPACE;
                theirs == ours
            }
            _ => false,
        };
        caller
    }

    fn parse(status: &str) -> Self {
        let mut caller = Self::default();
        for line in status.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            match key {
                "CapEff" => caller.effective = u64::from_str_radix(value.trim(), 16).unwrap_or(0),
                "Gid" => caller.fs_gid = value.split_whitespace().nth(3).and_then(|id| id.parse().ok()),
                "Groups" => {
                    caller.groups = value
                        .split_whitespace()
                        .filter_map(|id| id.parse().ok())
                        .collect()
                }
                _ => {}
            }
        }
        caller
    }

    /// Has the capability of this number in its effective set.
    pub fn has(&self, capability: u32) -> bool {
        self.effective >> capability & 1 == 1
    }

    /// May keep setuid and setgid bits while writing (K103): the kernel asks for CAP_FSETID in the initial user
    /// namespace, so root of another one may not.
    pub fn keeps_suid(&self) -> bool {
        self.initial_namespace && self.has(CAP_FSETID)
    }

    /// May give a setgid bit for a group that it is not in: CAP_FSETID, in whatever user namespace.
    pub fn gives_setgid(&self) -> bool {
        self.has(CAP_FSETID)
    }

    /// May see `trusted.*` attributes: CAP_SYS_ADMIN in the server's user namespace (K102).
    pub fn sees_trusted(&self) -> bool {
        self.first_namespace && self.has(CAP_SYS_ADMIN)
    }

    /// May give files to anybody and make mounts: CAP_CHOWN and CAP_SYS_ADMIN, in whatever user namespace.
    pub fn may_build_trees(&self) -> bool {
        self.has(CAP_CHOWN) && self.has(CAP_SYS_ADMIN)
    }

    /// Belongs to the group `gid`.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fs_gid == Some(gid) || self.groups.contains(&gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_four_lines_that_matter() {
        let caller =
            Caller::parse("Name:\tx\nGid:\t1\t2\t3\t4\nGroups:\t7 8 \nCapEff:\t0000000000200010\nrubbish\n");
        assert!(caller.gives_setgid());
        assert!(
            !caller.keeps_suid(),
            "not known to be in the initial user namespace"
        );
        assert!(caller.in_group(4) && caller.in_group(8) && !caller.in_group(1));
        assert!(
            !caller.sees_trusted(),
            "another user namespace until shown otherwise"
        );
    }

    #[test]
    fn a_process_that_is_gone_may_nothing() {
        assert_eq!(Caller::read(u32::MAX), Caller::default());
    }
}
