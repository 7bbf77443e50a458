//! Removes this program's labs when it is gone without having done so: Ctrl-C, SIGKILL, abort.
//!
//! A shell that waits on a pipe whose other end only we hold. It is a group of its own, so Ctrl-C does not reach it; when
//! the pipe closes, it ends what runs in our namespaces and removes them, and the control groups of a cluster's nodes. What even this misses (both killed at once), the
//! next lab's sweep removes.

use super::names::Owner;
use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// `$1` is the prefix of our namespaces, `$2` where our folders lie. `read` ends when the last writer of its standard
/// input is gone.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
read -r never
for state in /sys/fs/cgroup/freezer/"$1"*/freezer.state; do
    [ ! -e "$state" ] || echo THAWED > "$state"
done
for path in /run/netns/"$1"*; do
    [ -e "$path" ] || continue
    name=${path##*/}
    for pid in $(ip netns pids "$name"); do kill -KILL "$pid"; done
    ip netns del "$name"
done
for group in /sys/fs/cgroup/*/"$1"*; do
    tries=0
    while [ -d "$group" ] && [ "$tries" -lt 100 ]; do
        find "$group" -depth -type d -exec rmdir {} + && break
        tries=$((tries + 1))
        sleep 0.1
    done
done
rm -rf "$2/$1"*
"#;

/// Makes sure that the reaper of this process waits.
pub(crate) fn ensure() -> Result<()> {
    static REAPER: OnceLock<Mutex<Option<Child>>> = OnceLock::new();
    let mut reaper = REAPER.get_or_init(Mutex::default).lock().expect("nothing panics while it starts");
    if reaper.is_none() {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "castgate-lab-reaper", &Owner::me().prefix()])
            .arg(std::env::temp_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("the lab's reaper does not start")?;
        *reaper = Some(child);
    }
    Ok(())
}
