//! The check that the floor's sandbox is the same as the library's: a shell looks around in both.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use ringfence::{RootFs, Sandbox};

use super::fixture::Fixture;
use super::floor::{self, Floor};
use super::group::{self, Parents};
use super::rows;

/// Prints the pid, the namespaces, groups, nodes, addresses and mounts of the program, and how it
/// was started.
const LOOK: &str = "echo pid $$; umask; pwd
for ns in pid mnt uts ipc cgroup net user time; do readlink /proc/self/ns/$ns; done
cut -d' ' -f5,6,7 /proc/self/stat | { read -r group session tty; echo session $session; }
cat /proc/self/cgroup; grep ^Sig[^Q] /proc/self/status; ls /proc/$$/fd
stat -c '%n %F %a %u:%g %t:%T %N' /dev /dev/* /dev/pts/* /tmp
cut -d' ' -f1,6 /proc/net/if_inet6; cat /proc/self/mountinfo";

/// The same of a strict sandbox, with the rights of the program and of init, its limits and all
/// files of the root that are no mounts of the host's. The largest file is left out: the library
/// limits it where a stream is a file.
const LOOK_STRICT: &str = "echo pid $$; umask; pwd; env | sort; hostname; id
for ns in pid mnt uts ipc cgroup net user time; do readlink /proc/self/ns/$ns; done
cut -d' ' -f5,6,7 /proc/self/stat | { read -r group session tty; echo session $session; }
for who in 1 self; do grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|PPid)' /proc/$who/status; done
grep ^Sig[^Q] /proc/self/status; ls /proc/$$/fd; cat /proc/self/setgroups
grep -v '^Max file size' /proc/self/limits
echo maps $(cut -c1-11,23- /proc/self/uid_map /proc/self/gid_map)
cd /proc/sys/user; grep . max_user_namespaces max_inotify_instances max_inotify_watches max_fanotify_groups
stat -c '%n %F %a %u:%g %t:%T %N' / /* /etc/* /etc/*/* /dev/* /dev/pts/* /dev/shm /tmp
cat /etc/passwd /etc/group /etc/hosts /etc/nsswitch.conf
cut -d' ' -f1,6 /proc/net/if_inet6; cat /proc/self/cgroup /proc/self/mountinfo";

/// Compares the strict sandboxes, as far as there is a floor.
pub fn check_strict(fixture: &Fixture, parents: &Parents) -> Result<Option<usize>, String> {
    let (mut streams, library_file, floor_file) = files(fixture).map_err(|error| error.to_string())?;
    streams[1] = floor_file;
    let command = ["/bin/sh", "-c", LOOK_STRICT].map(OsString::from);
    let Ok(mut floor) = rows::strict_floor(parents, &command, streams) else { return Ok(None) };
    let library = Sandbox::strict().command("/bin/sh").args(["-c", LOOK_STRICT]).stdout(library_file);
    let outcome = library.status().map_err(|error| format!("{error:#}"))?;
    if !outcome.success() {
        return Err(format!("library, strict: {}", outcome.verdict()));
    }
    floor.run().map_err(|error| format!("floor, strict: {error}"))?;
    compare(fixture, "strict", true).map(Some)
}

/// Compares both sandboxes on the host's root, so that there is a shell. Returns `Ok(None)` if
/// there is no shell, or no floor. `groups` says that control groups can be entered, which a
/// process with a realtime priority may not do.
pub fn check(fixture: &Fixture, parents: &Parents, groups: bool) -> Result<Option<usize>, String> {
    if !Path::new("/bin/sh").exists() || !rows::is_privileged() {
        return Ok(None);
    }
    let mut mounts = 0;
    for (net, from_template) in [(false, false), (false, true), (true, false), (true, true)] {
        let group = if net && groups { parents.template(&group::FULL) } else { None };
        if net && group.is_none() {
            continue;
        }
        let mut library = rows::full(RootFs::dir("/")).command("/bin/sh").args(["-c", LOOK]);
        if net {
            library = rows::limited(library.net_ns());
        }
        let (mut streams, library_file, floor_file) = files(fixture).map_err(|error| error.to_string())?;
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
        mounts = compare(fixture, &format!("net {net}, template {from_template}"), false)?;
    }
    Ok(Some(mounts))
}

/// Compares what both have seen, with the mounts in any order where `sorted`. Returns the number of
/// mounts.
fn compare(fixture: &Fixture, which: &str, sorted: bool) -> Result<usize, String> {
    let seen = ["library", "floor"].map(|name| fs::read_to_string(fixture.file(name)).unwrap_or_default());
    let [library, floor] = seen.map(|text| {
        let mut lines: Vec<String> = text.lines().map(comparable).collect();
        if sorted {
            lines.sort();
        }
        lines
    });
    let mounts = library.iter().filter(|line| line.contains(" - ")).count();
    if mounts == 0 || library != floor {
        let only = |a: &[String], b: &[String]| a.iter().filter(|l| !b.contains(l)).cloned().collect::<Vec<_>>();
        let (more, less) = (only(&library, &floor), only(&floor, &library));
        return Err(format!("{which}: only the library has {more:#?}, only the floor has {less:#?}"));
    }
    Ok(mounts)
}

fn files(fixture: &Fixture) -> io::Result<(Vec<OwnedFd>, File, OwnedFd)> {
    let streams = rows::own_streams();
    if streams.len() != 3 {
        return Err(io::Error::other("a standard stream is closed"));
    }
    Ok((streams, File::create(fixture.file("library"))?, File::create(fixture.file("floor"))?.into()))
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
            // The user outside is another for each sandbox.
            let own = right.split(',').filter(|option| !option.starts_with("uid=") && !option.starts_with("gid="));
            let (left, right) = (left.join(" "), own.collect::<Vec<_>>().join(","));
            // The file system of a root that the library keeps is read-only as well as its mount.
            let right = if left.starts_with("/ / ro,") { right.replace("tmpfs ro,", "tmpfs rw,") } else { right };
            format!("{left} - {right}")
        }
        None => line.to_owned(),
    }
}
