//! The mounts: `mounts`, with the devices that every container has.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use oci_spec::runtime::{LinuxDevice, Mount as Listed, Process, Spec};

use super::devices::{with_default_nodes, with_nodes};
use super::namespaces::id_maps;
use crate::foreign_root::mode_in;
use crate::mount::{Again, Bind, Cgroupfs, Dev, DeviceNode, MountOptions, RawMount};
use crate::oci::problems::Problems;
use crate::sandbox::Sandbox;
use crate::sys::nsfs;

/// The directory of devices.
const DEV: &str = "/dev";
/// The file on which the program's terminal is mounted, once all else is there.
const CONSOLE: &str = "/dev/console";

/// What decides the mounts beside their list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) bundle: &'a Path,
    /// The container has a control group.
    pub(super) has_group: bool,
    pub(super) has_cgroup_ns: bool,
    /// The label of SELinux for new file systems.
    pub(super) label: Option<&'a str>,
    /// The file of the user namespace that the container joins.
    pub(super) joined_user_ns: Option<&'a Path>,
    /// The paths of the root on the host: see [`paths_of_root`].
    pub(super) roots: &'a [PathBuf],
}

/// Adds the mounts in their order. The default devices stand on the first mount at /dev, if it is a
/// tmpfs; a bind there has what it shows, and gets no node. Without a mount at /dev there is one
/// with all of them. No device is made in a devtmpfs, which is the host's wherever it is mounted.
pub(super) fn with_mounts(mut sandbox: Sandbox, spec: &Spec, around: Around<'_>, problems: &mut Problems) -> Sandbox {
    let roots = paths_of_root(spec, around.bundle);
    let listed: Vec<Listed> = spec.mounts().iter().flatten().map(|mount| without_root(mount, &roots)).collect();
    let listed = listed.as_slice();
    let devices = spec.linux().as_ref().and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    let first = listed.iter().position(is_dev);
    if first.is_none() {
        sandbox = with_nodes(sandbox.mount(Dev::new(DEV)), devices, |_| true, problems);
    }
    refuse_nodes_of_host(listed, devices, problems);
    let mut seal = false;
    for (i, mount) in listed.iter().enumerate() {
        let fills = first == Some(i) && !is_bind(mount);
        // What is mounted below comes first.
        let sealed = fills && MountOptions::parse(words(mount)).is_read_only();
        seal |= sealed;
        let mode = mode_of_target(mount, &listed[..i], spec, around.bundle);
        let around = Around { roots: &roots, ..around };
        sandbox = with_mount(sandbox, mount, &format!("mounts[{i}]"), (sealed, mode), around, problems);
        if fills {
            if mount.typ().as_deref() == Some("tmpfs") {
                sandbox = with_default_nodes(sandbox, devices);
            }
            sandbox = with_nodes(sandbox, devices, |_| true, problems);
        } else if first == Some(i) {
            sandbox = with_nodes(sandbox, devices, |device| !device.path().starts_with(DEV), problems);
        }
    }
    if seal && spec.process().as_ref().and_then(Process::terminal).unwrap_or(false) {
        sandbox = sandbox.mount(DeviceNode::empty_file(CONSOLE).in_root());
    }
    if seal {
        let options = MountOptions::parse(["remount", "bind", "ro"]);
        sandbox = sandbox.mount(RawMount::new("none", DEV, "none").options(options));
    }
    sandbox
}

/// Returns the paths by which the host knows the root: the one of the configuration, and where that
/// leads to. What begins with one of them is meant as inside, by other runtimes, too.
fn paths_of_root(spec: &Spec, bundle: &Path) -> Vec<PathBuf> {
    let Some(root) = spec.root().as_ref().map(|root| bundle.join(root.path())) else { return Vec::new() };
    let (plain, real) = (root.components().collect(), fs::canonicalize(&root));
    [Some(plain), real.ok()].into_iter().flatten().filter(|path: &PathBuf| path.as_path() != Path::new("/")).collect()
}

/// Returns a path of the host as one inside, if it begins with one of the root's. A path with `..`
/// may lead out, and is none.
fn below(path: &Path, roots: &[PathBuf]) -> Option<PathBuf> {
    if path.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let rest = roots.iter().find_map(|root| path.strip_prefix(root).ok())?;
    Some(Path::new("/").join(rest))
}

/// Returns the mount with its destination inside, of which another runtime takes the root's own path
/// away as well.
fn without_root(mount: &Listed, roots: &[PathBuf]) -> Listed {
    let mut mount = mount.clone();
    if let Some(inside) = below(mount.destination(), roots) {
        mount.set_destination(inside);
    }
    mount
}

/// Returns what is wrong with the mounts, and is put right.
pub(in crate::oci) fn mount_warnings(spec: &Spec) -> Vec<String> {
    let mut warnings = Vec::new();
    for (i, mount) in spec.mounts().iter().flatten().enumerate() {
        if !mount.destination().is_absolute() {
            warnings.push(format!("mounts[{i}].destination: it is not absolute, and begins at the root"));
        }
        for word in words(mount).filter(|word| is_bind(mount) && word.contains('=')) {
            let reason = "it is an option of a file system, and has no effect on a bind";
            warnings.push(format!("mounts[{i}].options: {word:?}: {reason}"));
        }
    }
    warnings.extend(device_warnings(spec));
    warnings
}

/// Returns the devices that are not made, as a bind at /dev has what it shows.
fn device_warnings(spec: &Spec) -> Vec<String> {
    let is_bound = spec.mounts().iter().flatten().find(|mount| is_dev(mount)).is_some_and(is_bind);
    let listed = spec.linux().as_ref().and_then(|linux| linux.devices().as_deref()).filter(|_| is_bound);
    let below = listed.unwrap_or_default().iter().enumerate().filter(|(_, device)| device.path().starts_with(DEV));
    below.map(|(i, _)| format!("linux.devices[{i}].path: it is not made, as /dev is a bind")).collect()
}

/// Refuses the devices that would stay on the host: below a devtmpfs, of which there is one alone.
fn refuse_nodes_of_host(mounts: &[Listed], devices: &[LinuxDevice], problems: &mut Problems) {
    let is_of_host = |mount: &&Listed| !is_bind(mount) && mount.typ().as_deref() == Some("devtmpfs");
    let places: Vec<PathBuf> =
        mounts.iter().filter(is_of_host).map(|mount| Path::new("/").join(mount.destination())).collect();
    for (i, device) in devices.iter().enumerate() {
        if places.iter().any(|place| device.path().starts_with(place)) {
            let reason = "a devtmpfs is the host's, where the device would stay";
            problems.refused(format!("linux.devices[{i}].path"), reason);
        }
    }
}

fn is_dev(mount: &Listed) -> bool {
    Path::new("/").join(mount.destination()).components().eq(Path::new(DEV).components())
}

fn words(mount: &Listed) -> impl Iterator<Item = &str> {
    mount.options().iter().flatten().map(String::as_str)
}

fn is_bind(mount: &Listed) -> bool {
    mount.typ().as_deref() == Some("bind") || MountOptions::parse(words(mount)).is_bind()
}

/// Returns whether a mount shows control groups.
pub(in crate::oci) fn is_of_groups(mount: &Listed) -> bool {
    !is_bind(mount) && matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"))
}

/// Shows the control groups. A container that has none gets an empty directory. Without a namespace
/// the groups are read-only, as their directories on the host are what is shown (CVE-2023-25809).
/// With one they are writable unless an option says `ro`, as every mount: privileged containers of
/// engines, in which another manager of groups runs, have no such option.
fn with_groups<'w>(
    sandbox: Sandbox,
    target: PathBuf,
    words: impl Iterator<Item = &'w str>,
    around: Around<'_>,
) -> Sandbox {
    if !around.has_group {
        let options = MountOptions::parse(["ro", "nosuid", "nodev", "noexec", "size=4k", "mode=755"]);
        return sandbox.mount(RawMount::new("tmpfs", target, "tmpfs").options(options));
    }
    let words = words.filter(|word| around.has_cgroup_ns || *word != "rw");
    // The word that comes last counts.
    let words = around.has_cgroup_ns.then_some("rw").into_iter().chain(words);
    sandbox.mount(Cgroupfs::new(target).options(MountOptions::parse(words)))
}

/// Returns the mode of the directory of the root on which a tmpfs is mounted: without an option
/// `mode`, it has the same, as with other runtimes.
fn mode_of_target(mount: &Listed, before: &[Listed], spec: &Spec, bundle: &Path) -> Option<u32> {
    let target = Path::new("/").join(mount.destination());
    let is_tmpfs = mount.typ().as_deref() == Some("tmpfs") && !is_bind(mount);
    let is_covered = before.iter().any(|other| target.starts_with(Path::new("/").join(other.destination())));
    if !is_tmpfs || is_covered || words(mount).any(|word| word.starts_with("mode=") || word == "remount") {
        return None;
    }
    mode_in(bundle.join(spec.root().as_ref()?.path()), target)
}

/// Adds one mount. With `writable` it begins without the word `ro`; `mode` is that of a new tmpfs.
fn with_mount(
    sandbox: Sandbox,
    mount: &Listed,
    property: &str,
    (writable, mode): (bool, Option<u32>),
    around: Around<'_>,
    problems: &mut Problems,
) -> Sandbox {
    // The specification allows paths that are not absolute, for older files: they begin at the
    // root.
    let target = Path::new("/").join(mount.destination());
    if target.components().any(|part| part == Component::ParentDir) || target == Path::new("/") {
        let remedy = "give the path of the mount inside the container";
        problems.invalid(format!("{property}.destination"), "it is the root itself, or has `..`", remedy);
        return sandbox;
    }
    let mut options = MountOptions::parse(words(mount).filter(|word| !(writable && *word == "ro")));
    let kind = mount.typ().as_deref().filter(|kind| !kind.is_empty());
    let is_bind = is_bind(mount);
    if is_bind && !options.is_bind() {
        options = options.option("bind");
    }
    let maps = [mount.uid_mappings(), mount.gid_mappings()].map(|maps| id_maps(maps.as_deref().unwrap_or_default()));
    let [uid, gid] = maps;
    let asks_for_ids = words(mount).any(|word| word == "idmap" || word == "ridmap");
    if !uid.is_empty() || !gid.is_empty() {
        // Engines leave out the word that only says whether the maps hold for what is mounted
        // below.
        if !asks_for_ids {
            options = options.option("idmap");
        }
        if uid.is_empty() || gid.is_empty() {
            let missing = if uid.is_empty() { "uidMappings" } else { "gidMappings" };
            problems.invalid(format!("{property}.{missing}"), "it is missing", "give both maps");
        }
        options = options.id_maps(uid, gid);
    } else if let Some(path) = around.joined_user_ns.filter(|_| is_bind && asks_for_ids) {
        match open_user_ns(path) {
            Ok(user_ns) => options = options.ids_of_existing(user_ns),
            Err(errno) => {
                let reason = format!("idmap: {} is no user namespace: {}", path.display(), errno.desc());
                problems.invalid(format!("{property}.options"), reason, "give the maps with the mount");
            }
        }
    }
    if options.is_remount() {
        return sandbox.mount(RawMount::new("none", target, kind.unwrap_or("none")).options(options));
    }
    if is_bind {
        let Some(source) = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty()) else {
            problems.invalid(format!("{property}.source"), "it is missing", "name what is to be bound");
            return sandbox;
        };
        // A relative one is in the bundle.
        let (source, options) = (around.bundle.join(source), options.without_values());
        return match below(&source, around.roots) {
            Some(inside) if inside != Path::new("/") => sandbox.mount(Again::new(inside, target, options)),
            _ => sandbox.mount(Bind::new(source, target).options(options.replacing())),
        };
    }
    match kind {
        None => {
            problems.invalid(format!("{property}.type"), "it is missing", "name the file system");
            sandbox
        }
        Some("cgroup" | "cgroup2") => with_groups(sandbox, target, words(mount), around),
        Some(kind) => {
            let source = mount.source().clone().unwrap_or_else(|| PathBuf::from(kind));
            let options = match around.label.filter(|_| takes_label(kind)) {
                Some(_) if options.copies_up() => {
                    let reason = "a tmpfs with a label of SELinux cannot begin with a copy";
                    problems.refused(format!("{property}.options"), format!("tmpcopyup: {reason}"));
                    options
                }
                Some(label) => options.option(format!("context=\"{label}\"")),
                None => options,
            };
            let options = match mode {
                Some(mode) => options.option(format!("mode={mode:o}")),
                None => options,
            };
            sandbox.mount(RawMount::new(source, target, kind).options(options))
        }
    }
}

/// Opens the file of a user namespace, by which the kernel takes its maps.
fn open_user_ns(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = nix::fcntl::open(path, flags, Mode::empty())?;
    match nsfs::kind_of(file.as_fd())? {
        kind if kind == libc::CLONE_NEWUSER as u64 => Ok(file),
        _ => Err(Errno::EINVAL),
    }
}

/// Returns whether file systems of a type take a label of SELinux as an option. The kernel labels
/// its own as its policy has it.
fn takes_label(kind: &str) -> bool {
    !["proc", "sysfs", "mqueue", "securityfs", "debugfs", "tracefs", "bpf"].contains(&kind)
}

/// Returns `linux.mountLabel`, which is refused on a host without SELinux.
pub(super) fn mount_label<'s>(
    spec: &'s Spec,
    has_selinux: impl FnOnce() -> bool,
    problems: &mut Problems,
) -> Option<&'s str> {
    const PROPERTY: &str = "linux.mountLabel";
    let label = spec.linux().as_ref()?.mount_label().as_deref().filter(|label| !label.is_empty())?;
    if label.contains(|c: char| c == '"' || c == '\\' || c.is_control()) {
        problems.invalid(PROPERTY, "it has a quote, a backslash or a control character", "correct the label");
        return None;
    }
    if !has_selinux() {
        problems.refused(PROPERTY, "this kernel has no SELinux, or it is switched off");
        return None;
    }
    Some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around() -> Around<'static> {
        Around {
            bundle: Path::new("/"),
            has_group: true,
            has_cgroup_ns: true,
            label: None,
            joined_user_ns: None,
            roots: &[],
        }
    }

    #[test]
    fn new_file_systems_get_the_label_of_a_host_with_selinux() {
        const LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";
        let spec: Spec = serde_json::from_value(serde_json::json!({
            "ociVersion": "1.3.0", "linux": {"mountLabel": LABEL}, "mounts": [
                {"destination": "/dev", "type": "tmpfs", "options": ["size=1m"]}, {"destination": "/proc", "type": "proc"},
            ],
        }))
        .unwrap();
        let mut problems = Problems::default();
        let label = mount_label(&spec, || true, &mut problems);
        let around = Around { label, ..around() };
        let shown = format!("{:?}", with_mounts(Sandbox::new(), &spec, around, &mut problems));
        problems.unless_any(()).unwrap();
        assert!(shown.contains(&format!("size=1m,context=\\\"{LABEL}\\\"")), "{shown}");
        assert!(takes_label("tmpfs") && !takes_label("proc"));
        for (label, has_selinux) in [(LABEL, false), ("a\"b", true), ("a\nb", true)] {
            let spec: Spec =
                serde_json::from_value(serde_json::json!({"ociVersion": "1.3.0", "linux": {"mountLabel": label}}))
                    .unwrap();
            let mut problems = Problems::default();
            assert_eq!(mount_label(&spec, || has_selinux, &mut problems), None);
            assert_eq!(problems.unless_any(()).unwrap_err().problems()[0].subject, "linux.mountLabel");
        }
    }

    #[test]
    fn maps_of_a_mount_need_no_word() {
        let shown = |words: &[&str]| {
            let maps = serde_json::json!([{"containerID": 0, "hostID": 7, "size": 1}]);
            let spec: Spec = serde_json::from_value(serde_json::json!({"ociVersion": "1.3.0", "mounts": [
                {"destination": "/a", "source": "/", "options": words, "uidMappings": maps, "gidMappings": maps},
            ]}))
            .unwrap();
            let mut problems = Problems::default();
            let shown = format!("{:?}", with_mounts(Sandbox::new(), &spec, around(), &mut problems));
            problems.unless_any(shown).unwrap()
        };
        assert_eq!(shown(&["rbind"]), shown(&["rbind", "idmap"]));
        assert_ne!(shown(&["rbind"]), shown(&["rbind", "ridmap"]));
    }

    #[test]
    fn no_device_is_made_among_those_of_the_host() {
        let refused = |at: &str, kind: &str, path: &str| {
            let spec: Spec = serde_json::from_value(serde_json::json!({
                "ociVersion": "1.3.0", "mounts": [{"destination": at, "type": kind, "source": kind}],
                "linux": {"devices": [{"path": path, "type": "c", "major": 1, "minor": 3}]},
            }))
            .unwrap();
            let mut problems = Problems::default();
            let sandbox = with_mounts(Sandbox::new(), &spec, around(), &mut problems);
            problems.unless_any(sandbox).err().map(|error| error.problems()[0].subject.clone())
        };
        for (at, path) in [("/dev", "/dev/x"), ("/dev/", "/dev/x"), ("/opt", "/opt/below/x")] {
            assert_eq!(refused(at, "devtmpfs", path).as_deref(), Some("linux.devices[0].path"), "{at}");
            assert_eq!(refused(at, "tmpfs", path), None, "{at}");
        }
        assert_eq!(refused("/dev", "devtmpfs", "/opt/x"), None);
    }
}
