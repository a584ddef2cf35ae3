//! The mounts that a sandbox has by default.

use std::fs;
use std::path::Path;

use super::bind::Bind;
use super::cgroupfs::{CGROUPS, Cgroupfs, ShownGroups};
use super::dev::Dev;
use super::kinds::{Kind, Mount, Sysfs};
use super::made::vanishes;
use super::memory_file::{MemoryFile, Missing};
use super::mounts::Mounts;
use super::proc::Proc;
use super::root::{Base, LOCALHOST};
use super::tmpfs::Tmpfs;

/// The file with the servers that are asked for names: resolv.conf(5).
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The most bytes of the host's resolv.conf that are shown.
const RESOLV_CONF_MAX: usize = 64 << 10;

/// The facts about the rest of the sandbox that decide its default mounts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// The sandbox has a pid namespace of its own.
    pub(crate) pid_ns: bool,
    /// The sandbox lies in a user namespace, its own or the caller's, that is not the initial one.
    pub(crate) user_ns: bool,
    /// The network is the caller's.
    pub(crate) shares_net: bool,
    /// The control groups that the program can be shown.
    pub(crate) groups: ShownGroups,
    /// The host name of the sandbox.
    pub(crate) hostname: String,
}

impl Mounts {
    /// Returns the mounts in their order: first those that a root is not usable without and that
    /// the list does not have. `terminal`: the path of the terminal on the host that the program
    /// inherits.
    pub(crate) fn all(&self, around: &Surroundings, terminal: Option<&Path>) -> Vec<Mount> {
        let made: Vec<&Mount> = self.mounts.iter().filter(|mount| !mount.is_left_out()).collect();
        let has = |target: &str| made.iter().any(|mount| mount.target == Path::new(target));
        let mut all = if self.no_defaults { Vec::new() } else { self.defaults(around, terminal, has) };
        all.retain(|default: &Mount| !default.target.to_str().is_some_and(has));
        let groups = if self.no_defaults { None } else { self.groups(around, &all, &made) };
        let (before, after) = if has("/sys") { (None, groups) } else { (groups, None) };
        all.extend(before);
        all.extend(made.into_iter().cloned());
        all.extend(after);
        for mount in &mut all {
            if let Kind::Cgroupfs(cgroupfs) = &mut mount.kind {
                cgroupfs.groups = around.groups.clone();
            }
        }
        all
    }

    /// Returns the default mounts. `has`: whether the list has a mount with this target.
    fn defaults(&self, around: &Surroundings, terminal: Option<&Path>, has: impl Fn(&str) -> bool) -> Vec<Mount> {
        let mut all = Vec::new();
        if around.pid_ns {
            all.push(Proc::new("/proc").into());
        }
        if let Some(root) = &self.root {
            let dev = Dev::new("/dev");
            let dev = if self.read_only_root { dev.read_only() } else { dev };
            let terminal = terminal.filter(|_| !has("/dev") && !has("/dev/console"));
            all.push(if terminal.is_some() { dev.console() } else { dev }.into());
            // The node stays the host's: its mode and owner cannot be changed through the bind.
            all.extend(terminal.map(|terminal| Bind::new(terminal, "/dev/console").read_only().noexec().into()));
            if root.is_from_host() || self.private_tmp {
                all.push(Tmpfs::new("/tmp").mode(0o1777).into());
            }
        }
        all.extend(self.image.filter(|image| image.sys).and_then(|_| sys(around)));
        if let Some(image) = self.image {
            let root = self.root.as_ref();
            let missing = if vanishes(root) { image.names } else { Missing::LeftOut };
            all.extend(names(around).into_iter().map(|file| Mount::from(file.writable().by_default(missing))));
        }
        all
    }

    /// Returns the mount of the sandbox's control groups, where its target can be made without a
    /// change to a directory of the caller's. Where there are none to be shown, a default /sys of
    /// the host's, which has the groups of all others, gets a cover instead.
    fn groups(&self, around: &Surroundings, defaults: &[Mount], made: &[&Mount]) -> Option<Mount> {
        let target = Path::new(CGROUPS);
        if made.iter().any(|mount| mount.target == target) {
            return None;
        }
        if !self.own_groups || around.groups.telling().is_empty() {
            let is_hosts = |mount: &Mount| matches!(mount.kind, Kind::Bind(_)) && mount.target == Path::new("/sys");
            let cover = || Tmpfs::new(CGROUPS).size(4096).mode(0o555).read_only().into();
            return defaults.iter().any(is_hosts).then(cover);
        }
        let mut sys = defaults.iter().chain(made.iter().copied()).filter(|mount| mount.target == Path::new("/sys"));
        let is_from_host = self.root.as_ref().is_none_or(|root| matches!(root.base, Base::Programs | Base::Host));
        match sys.next_back() {
            Some(mount) => has_place_for_groups(mount).then(|| Cgroupfs::of_limits(target).into()),
            None if is_from_host => Some(Cgroupfs::of_limits(target).into()),
            None => Some(Cgroupfs { with_sys: true, ..Cgroupfs::of_limits("/sys") }.into()),
        }
    }
}

impl Mounts {
    /// Returns whether the control groups of the sandbox are shown at their place without a mount
    /// of the list that asks for them.
    pub(crate) fn shows_groups_by_default(&self) -> bool {
        let at = |target: &str| {
            let has = move |mount: &&Mount| mount.target == Path::new(target) && !mount.is_left_out();
            self.mounts.iter().rfind(has)
        };
        let shows = self.own_groups && !self.no_defaults && !self.lists_groups();
        shows && at(CGROUPS).is_none() && at("/sys").is_none_or(has_place_for_groups)
    }
}

/// Returns whether what is mounted at /sys has the directory for control groups, or can get it.
fn has_place_for_groups(sys: &Mount) -> bool {
    match &sys.kind {
        Kind::Sysfs | Kind::Tmpfs(_) => true,
        Kind::Bind(bind) => bind.source == Path::new("/sys"),
        _ => false,
    }
}

/// Returns the /sys of an image: sysfs, or where only the initial user namespace may mount that,
/// the host's. With a network of the sandbox's own, the host's would show other devices.
fn sys(around: &Surroundings) -> Option<Mount> {
    match around {
        Surroundings { user_ns: false, .. } => Some(Sysfs::new("/sys").into()),
        Surroundings { shares_net: true, .. } => {
            Some(Bind::new("/sys", "/sys").read_only().noexec().into()).filter(|_| Path::new("/sys").exists())
        }
        _ => None,
    }
}

/// Returns the files by which programs look up names: hostname(5), hosts(5), and where the network
/// is the caller's, its resolv.conf(5).
fn names(around: &Surroundings) -> Vec<MemoryFile> {
    let name = &around.hostname;
    let is_plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let own = if is_plain { format!("127.0.1.1 {name}\n") } else { String::new() };
    let hosts = format!("{LOCALHOST}{own}");
    let mut files = vec![MemoryFile::new("/etc/hosts", hosts), MemoryFile::new("/etc/hostname", format!("{name}\n"))];
    if around.shares_net
        && let Ok(text) = fs::read(RESOLV_CONF)
    {
        files.push(MemoryFile::new(RESOLV_CONF, &text[..text.len().min(RESOLV_CONF_MAX)]));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::super::mounts::ImageMounts;
    use super::*;

    fn targets(policy: &Mounts, around: &Surroundings) -> Vec<String> {
        policy.all(around, None).iter().map(|mount| mount.target.display().to_string()).collect()
    }

    fn around() -> Surroundings {
        let groups = ShownGroups { v2: true, ..ShownGroups::default() };
        Surroundings { pid_ns: true, groups, hostname: "a".to_owned(), ..Surroundings::default() }
    }

    #[test]
    fn a_mount_of_ones_own_replaces_the_default() {
        let policy = Mounts { mounts: vec![Tmpfs::new("/proc/").into()], root: Some("/x".into()), ..Mounts::default() };
        assert_eq!(targets(&policy, &around()), ["/dev", "/proc/"]);
    }

    #[test]
    fn an_optional_bind_without_a_source_replaces_nothing() {
        let bind = Bind::new("/never/there", "/proc").optional();
        let policy = Mounts { mounts: vec![bind.into()], ..Mounts::default() };
        let all = policy.all(&around(), None);
        assert!(all.len() == 1 && matches!(all[0].kind, Kind::Proc(_)));
    }

    #[test]
    fn groups_are_shown_where_nothing_of_the_callers_has_to_change() {
        let policy = |root| Mounts { root: Some(root), own_groups: true, ..Mounts::default() };
        let last = |policy: &Mounts| targets(policy, &around()).pop().unwrap();
        assert_eq!(last(&policy(super::super::RootFs::programs())), CGROUPS);
        assert_eq!(last(&policy("/x".into())), "/sys");
        let sysfs = Mounts { mounts: vec![Sysfs::new("/sys").into()], ..policy("/x".into()) };
        assert_eq!(targets(&sysfs, &around())[2..], ["/sys", CGROUPS]);
        let other = Mounts { mounts: vec![Bind::new("/usr", "/sys").into()], ..policy("/x".into()) };
        assert_eq!(targets(&other, &around())[2..], ["/sys"]);
        let own = Mounts { mounts: vec![Tmpfs::new(CGROUPS).into()], ..policy("/x".into()) };
        assert_eq!(targets(&own, &around())[2..], [CGROUPS]);
        let none = Surroundings { groups: ShownGroups::default(), ..around() };
        assert_eq!(targets(&policy("/x".into()), &none), ["/proc", "/dev"]);
    }

    #[test]
    fn an_image_has_what_containers_have() {
        let image = Some(ImageMounts { sys: true, names: Missing::Made });
        let policy = Mounts { root: Some("/x".into()), image, own_groups: true, ..Mounts::default() };
        let own_net = targets(&policy, &around());
        assert_eq!(own_net[2..], ["/sys", "/etc/hosts", "/etc/hostname", CGROUPS]);
        let shared = Surroundings { shares_net: true, user_ns: true, ..around() };
        assert!(matches!(policy.all(&shared, None)[2].kind, Kind::Bind(_)));
        let apart = Surroundings { user_ns: true, ..around() };
        assert!(matches!(policy.all(&apart, None)[4].kind, Kind::Cgroupfs(_)));
    }

    #[test]
    fn a_name_that_is_none_is_left_out_of_hosts() {
        let files = names(&Surroundings { hostname: "a b\nevil".to_owned(), ..around() });
        assert_eq!(files[0].len(), names(&Surroundings { hostname: String::new(), ..around() })[0].len());
    }
}
