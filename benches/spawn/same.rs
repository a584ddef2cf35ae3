//! The check that the floor's sandbox is the same as the library's: a shell looks around in both.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use ringfence::RootFs;

use super::floor::{self, Floor};
use super::ground::Ground;
use super::group::Parents;
use super::rows;

/// Prints the pid, the namespaces, groups, nodes, addresses and mounts of the program, and how it
/// was started.
const LOOK: &str = "echo pid $$; umask; pwd
for ns in pid mnt uts ipc cgroup net user time; do readlink /proc/self/ns/$ns; done
cut -d' ' -f5,6,7 /proc/self/stat | { read -r group session tty; echo session $session; }
cat /proc/self/cgroup; grep ^Sig[^Q] /proc/self/status; ls /proc/$$/fd
stat -c '%n %F %a %u:%g %t:%T %N' /dev /dev/* /dev/pts/* /tmp
cut -d' ' -f1,6 /proc/net/if_inet6; cat /proc/self/mountinfo";

/// Compares both sandboxes on the host's root, so that there is a shell. Returns `Ok(None)` if
/// there is no shell, or no floor. `groups` says that control groups can be entered, which a
/// process with a realtime priority may not do.
pub fn check(ground: &Ground, parents: &Parents, groups: bool) -> Result<Option<usize>, String> {
    if !Path::new("/bin/sh").exists() || !rows::is_privileged() {
        return Ok(None);
    }
    let mut mounts = 0;
    for (net, from_template) in [(false, false), (false, true), (true, false), (true, true)] {
        let group = if net && groups { parents.template() } else { None };
        if net && group.is_none() {
            continue;
        }
        let mut library = rows::full(RootFs::dir("/")).command("/bin/sh").args(["-c", LOOK]);
        if net {
            library = rows::limited(library.net_ns());
        }
        let (mut streams, library_file, floor_file) = files(ground).map_err(|error| error.to_string())?;
        let outcome = library.stdout(library_file).status().map_err(|error| format!("{error:#}"))?;
        if !outcome.success() {
            return Err(format!("library: {}", outcome.verdict()));
        }
        streams[1] = floor_file;
        let command = ["/bin/sh", "-c", LOOK].map(OsString::from);
        let template = if from_template { floor::empty_namespace().map(Some) } else { Ok(None) };
        template
            .and_then(|template| Floor::new(template, Path::new("/"), &command, streams, net, group).run())
            .map_err(|error| format!("floor: {error}"))?;
        let seen = ["library", "floor"].map(|name| fs::read_to_string(ground.file(name)).unwrap_or_default());
        let [library, floor] = seen.map(|text| text.lines().map(comparable).collect::<Vec<_>>());
        mounts = library.iter().filter(|line| line.contains(" - ")).count();
        if mounts == 0 || library != floor {
            let only = |a: &[String], b: &[String]| a.iter().filter(|l| !b.contains(l)).cloned().collect::<Vec<_>>();
            let (more, less) = (only(&library, &floor), only(&floor, &library));
            return Err(format!(
                "net {net}, template {from_template}: only the library has {more:#?}, only the floor has {less:#?}"
            ));
        }
    }
    Ok(Some(mounts))
}

fn files(ground: &Ground) -> io::Result<(Vec<OwnedFd>, File, OwnedFd)> {
    let streams = rows::own_streams();
    if streams.len() != 3 {
        return Err(io::Error::other("a standard stream is closed"));
    }
    Ok((streams, File::create(ground.file("library"))?, File::create(ground.file("floor"))?.into()))
}

/// Returns the line without the numbers that differ from one sandbox to the next.
fn comparable(line: &str) -> String {
    if let Some((kind, _)) = line.split_once(":[") {
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
        return format!("{kind} {}", if host == Path::new(line) { "the host's" } else { "its own" });
    }
    match line.split_once(" - ") {
        // The ids of the mount, of its parent and of its device are left out. The root of a cgroup
        // mount depends on the group, and the library makes one for its freezer as well.
        Some((left, right)) => {
            let skipped = if right.starts_with("cgroup") { 4 } else { 3 };
            let left: Vec<&str> = left.split(' ').skip(skipped).collect();
            format!("{} - {right}", left.join(" "))
        }
        None => line.to_owned(),
    }
}
