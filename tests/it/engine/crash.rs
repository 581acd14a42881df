//! A kill, or a failure, at every step of taking over an upper that fuse-overlayfs wrote: the next call ends it, and
//! the view is the one that an undisturbed call shows.

use std::process::Command;

use super::adopt::{is_clean, lower, theirs};
use super::{Call, eventually, finish};
use crate::common::layers::is_mounted;
use crate::common::tree::Tree;
use crate::common::*;

/// No take-over makes more calls than this.
const MOST_CALLS: usize = 400;

fn planted(name: &str) -> Option<Call> {
    let call = Call::new(name)?;
    plant::plant(&call.layers.lower, &lower());
    theirs(&call);
    Some(call)
}

/// The tree of the view, without what every upper has anew.
fn shown(call: &Call) -> Tree {
    call.mount(&call.words(""));
    let mut tree = snapshot(&call.layers.merged);
    call.unmount();
    is_clean(call);
    for entry in tree.0.values_mut() {
        entry.remove("mtime");
    }
    tree
}

#[test]
fn at_every_step_of_taking_over() {
    let Some(undisturbed) = planted("at_every_step_of_taking_over") else {
        return;
    };
    let wanted = shown(&undisturbed);
    // Returns whether the mount came to be all the same.
    let tried = |order: &str| {
        let call = planted("at_every_step_of_taking_over").unwrap();
        let file = call.path("order");
        sys::put(&file, order).unwrap();
        let mut command: Command = call.command(&call.words(""));
        command.env("PLYFS_FAULT_FILE", &file);
        let mounted = finish(command).status.success();
        if mounted {
            call.unmount();
        }
        eventually("no server is left", || call.servers().is_empty());
        assert!(!is_mounted(&call.layers.merged), "{order}");
        let differences = wanted.differences(&shown(&call), "undisturbed", "afterwards");
        assert!(differences.is_empty(), "{order}:\n{}", differences.join("\n"));
        mounted
    };
    let calls = (1..MOST_CALLS)
        .find(|number| tried(&format!("kill {number}")))
        .expect("an end");
    // Each of the marks takes one call or two.
    assert!(calls > 15, "only {calls} calls were seen");
    for number in 1..calls {
        tried(&format!("errno {number} 5"));
    }
}
