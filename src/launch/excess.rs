//! What a further program by a text would have beyond the first process of its sandbox.
//!
//! The text may be forged. So the kernel is asked about the process that it names: the namespaces,
//! the root directory, the ids and the rights. That process may have given up something by itself;
//! then a further program is refused as well.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::rights::Terms;
use crate::feature::Feature;
use crate::namespace::{IdMap, IdMaps, Namespaces};
use crate::security::{Capabilities, Seccomp};
use crate::sys::by_fd;
use crate::text::{hex, number};

/// A process, as /proc shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) rights: Rights,
    /// The inodes of its namespaces.
    pub(super) namespaces: Vec<(Namespaces, u64)>,
    pub(super) root: (u64, u64),
    /// The maps of its user namespace.
    pub(super) uid_map: Vec<IdMap>,
    pub(super) gid_map: Vec<IdMap>,
    pub(super) denies_setgroups: bool,
}

impl Process {
    /// Reads what `dir` has, a directory of /proc.
    pub(super) fn read(dir: &str) -> io::Result<Process> {
        let root = fs::metadata(format!("{dir}/root"))?;
        let mut namespaces = Vec::new();
        for kind in Namespaces::all().iter() {
            let file = format!("{dir}/ns/{}", kind.file().unwrap_or_default());
            match fs::metadata(file) {
                Ok(namespace) => namespaces.push((kind, namespace.ino())),
                // This kernel does not have the kind.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let map = |file: &str| Ok::<_, io::Error>(read_map(&fs::read_to_string(format!("{dir}/{file}"))?));
        let rights = Rights::parse(&by_fd::short_text(format!("{dir}/status").as_ref())?);
        Ok(Process {
            rights: rights.ok_or(io::ErrorKind::InvalidData)?,
            namespaces,
            root: (root.dev(), root.ino()),
            uid_map: map("uid_map")?,
            gid_map: map("gid_map")?,
            denies_setgroups: fs::read_to_string(format!("{dir}/setgroups")).is_ok_and(|text| text.starts_with("deny")),
        })
    }

    fn namespace(&self, kind: Namespaces) -> Option<u64> {
        self.namespaces.iter().find(|(known, _)| *known == kind).map(|(_, inode)| *inode)
    }
}

/// Returns what a program that enters this way would have beyond the first process of the sandbox.
/// `own` is this process.
pub(super) fn excess(terms: &Terms, theirs: &Process, own: &Process) -> Option<String> {
    let apart = terms.policy.namespaces.apart();
    let other = Namespaces::all().iter().find(|kind| {
        // A namespace that is not joined stays that of this process.
        !apart.contains(*kind) && theirs.namespace(*kind) != own.namespace(*kind)
    });
    if let Some(kind) = other {
        return Some(format!("this process's {} namespace", kind.file().unwrap_or_default()));
    }
    if !apart.contains(Namespaces::MOUNT) && theirs.root != own.root {
        return Some("this process's root directory".to_owned());
    }
    let rights = excess_of_rights(terms, &theirs.rights, &own.rights).map(str::to_owned);
    rights.or_else(|| excess_of_ids(terms, theirs, own).map(str::to_owned))
}

fn excess_of_rights(terms: &Terms, theirs: &Rights, own: &Rights) -> Option<&'static str> {
    let (policy, judgement, said) = (&terms.policy, &terms.judgement, terms.said);
    let filter = judgement.seccomp.as_ref();
    let new_privs = filter.is_some_and(Seccomp::allows_new_privs);
    let has_rules = !judgement.landlock.is_empty();
    let gives_up = has_rules
        || judgement.security.no_new_privs
        || own.no_new_privs
        || !new_privs && (filter.is_some() || !policy.program.init);
    // The rules for ports have a filter of their own.
    let given_filters = u32::from(filter.is_some()) + u32::from(judgement.landlock.contains(&Feature::LandlockTcp));
    let joins_user = policy.namespaces.apart().contains(Namespaces::USER);
    let given = judgement.security.capabilities.as_ref();
    // Who enters a user namespace has every capability there.
    let inherited = if joins_user { Capabilities::everything() } else { own.bounding };
    let most = match given {
        Some(capabilities) if judgement.bounding => capabilities.most(),
        // What is left in the bounding set, an exec gives to uid 0.
        Some(capabilities) => capabilities.most() | inherited,
        None => inherited,
    };
    // Secure bits that /proc does not show keep root from its capabilities.
    let is_root = policy.program.user.map_or(joins_user || own.uids.contains(&0), |(uid, _)| uid == 0);
    let kept = given.map_or(0, Capabilities::kept);
    let has_more = most & !theirs.bounding != 0
        || kept & !theirs.permitted != 0
        || !said.user && is_root && most != 0 && theirs.permitted == 0 && theirs.bounding != 0;
    // What the command says by itself is no word of the text.
    if has_more && !said.capabilities {
        Some("capabilities that its programs cannot have")
    } else if theirs.no_new_privs && !gives_up && !said.new_privs {
        Some("privileges by set-user-ID programs")
    } else if theirs.filters > own.filters + given_filters {
        Some("system calls that its filter forbids")
    } else {
        None
    }
}

fn excess_of_ids(terms: &Terms, theirs: &Process, own: &Process) -> Option<&'static str> {
    let (policy, maps, said) = (&terms.policy, terms.judgement.maps.as_ref(), terms.said);
    let program = &policy.program;
    let is_own = theirs.namespace(Namespaces::USER) == own.namespace(Namespaces::USER);
    let outside = |map: &[IdMap], id: u32| {
        if is_own {
            return Some(id);
        }
        map.iter().find(|line| line.covers(id)).and_then(|line| line.outside.checked_add(id - line.inside))
    };
    let joined = policy.namespaces.joins(Namespaces::USER);
    let setup = maps.and_then(IdMaps::setup).map(|(uid, gid)| (uid.inside, gid.inside)).filter(|_| !joined);
    let inside = program.user.or(setup);
    let uid = inside.map_or(own.rights.uids.get(1).copied(), |(uid, _)| outside(&theirs.uid_map, uid));
    let gid = inside.map_or(own.rights.gids.get(1).copied(), |(_, gid)| outside(&theirs.gid_map, gid));
    let denied = maps.is_some_and(|maps| maps.deny_setgroups);
    let groups = match &program.groups {
        Some(groups) if !denied => groups.iter().filter_map(|group| outside(&theirs.gid_map, *group)).collect(),
        None if joined && !theirs.denies_setgroups => Vec::new(),
        None if !joined && !denied && inside.is_some() => Vec::new(),
        _ => own.rights.groups.clone(),
    };
    let is_theirs = |gid: &u32| theirs.rights.gids.contains(gid) || theirs.rights.groups.contains(gid);
    if !said.user && !uid.is_some_and(|uid| theirs.rights.uids.contains(&uid)) {
        Some("another user")
    } else if !said.user && !gid.is_some_and(|gid| is_theirs(&gid)) || !said.groups && !groups.iter().all(is_theirs) {
        Some("other groups")
    } else {
        None
    }
}

/// Reads a map of ids. The numbers outside are those that this process sees.
pub(super) fn read_map(text: &str) -> Vec<IdMap> {
    let line = |line: &str| {
        let words: Vec<u32> = line.split_whitespace().map(number).collect::<Option<_>>()?;
        let [inside, outside, count] = words[..] else { return None };
        Some(IdMap::new(inside, outside, count))
    };
    text.lines().filter_map(line).collect()
}

/// The rights of a process, as /proc/PID/status shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) bounding: u64,
    /// The permitted and the inheritable set.
    pub(super) permitted: u64,
    pub(super) no_new_privs: bool,
    /// The number of filters, or before Linux 5.9 whether there are any.
    pub(super) filters: u32,
    /// The real, the effective and the saved id, and that for files.
    pub(super) uids: Vec<u32>,
    pub(super) gids: Vec<u32>,
    pub(super) groups: Vec<u32>,
}

impl Rights {
    pub(super) fn parse(status: &str) -> Option<Rights> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let filters = field("Seccomp_filters:").or(field("Seccomp:").map(|mode| if mode == "0" { "0" } else { "1" }));
        let ids = |name: &str| field(name)?.split_whitespace().map(number).collect::<Option<Vec<u32>>>();
        Some(Rights {
            bounding: hex(field("CapBnd:")?)?,
            permitted: hex(field("CapPrm:")?)? | hex(field("CapInh:")?)?,
            no_new_privs: field("NoNewPrivs:") == Some("1"),
            filters: filters.map_or(Some(0), number)?,
            uids: ids("Uid:")?,
            gids: ids("Gid:")?,
            groups: ids("Groups:")?,
        })
    }
}
