//! What a further program by a text would have beyond the first process of its sandbox.
//!
//! The text may be forged. So the kernel is asked about the process that it names: the namespaces, the
//! root directory, the ids and the rights. That process may have given up something by itself; then
//! a further program is refused as well.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use super::enter::Entrance;
use crate::namespace::{IdMap, IdMaps, Namespaces};
use crate::security::{Capabilities, Seccomp};
use crate::text::{hex, number};

/// A process, as /proc shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Process {
    rights: Rights,
    /// The inodes of its namespaces.
    namespaces: Vec<(Namespaces, u64)>,
    root: (u64, u64),
    /// The maps of its user namespace.
    uid_map: Vec<IdMap>,
    gid_map: Vec<IdMap>,
    denies_setgroups: bool,
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
        let rights = Rights::parse(&fs::read_to_string(format!("{dir}/status"))?);
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
pub(super) fn excess(entrance: &Entrance, theirs: &Process, own: &Process) -> Option<String> {
    let apart = entrance.policy.namespaces.apart();
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
    let rights = excess_of_rights(entrance, &theirs.rights, &own.rights).map(str::to_owned);
    rights.or_else(|| excess_of_ids(entrance, theirs, own).map(str::to_owned))
}

fn excess_of_rights(entrance: &Entrance, theirs: &Rights, own: &Rights) -> Option<&'static str> {
    let (policy, judgement) = (&entrance.policy, &entrance.judgement);
    let filter = judgement.seccomp.as_ref();
    let new_privs = filter.is_some_and(Seccomp::allows_new_privs);
    let gives_up =
        judgement.security.no_new_privs || own.no_new_privs || !new_privs && (filter.is_some() || !policy.program.init);
    let joins_user = policy.namespaces.apart().contains(Namespaces::USER);
    let given = judgement.security.capabilities.as_ref();
    let most = match given {
        Some(capabilities) => capabilities.most(),
        // Who enters a user namespace has every capability there.
        None if joins_user => Capabilities::everything(),
        None => own.bounding,
    };
    // Secure bits that /proc does not show keep root from its capabilities.
    let is_root = policy.program.user.map_or(joins_user || own.uids.contains(&0), |(uid, _)| uid == 0);
    let kept = given.map_or(0, Capabilities::kept);
    if most & !theirs.bounding != 0
        || kept & !theirs.permitted != 0
        || is_root && most != 0 && theirs.permitted == 0 && theirs.bounding != 0
    {
        Some("capabilities that its programs cannot have")
    } else if theirs.no_new_privs && !gives_up {
        Some("privileges by set-user-ID programs")
    } else if theirs.filters > own.filters + u32::from(filter.is_some()) {
        Some("system calls that its filter forbids")
    } else {
        None
    }
}

fn excess_of_ids(entrance: &Entrance, theirs: &Process, own: &Process) -> Option<&'static str> {
    let (policy, maps) = (&entrance.policy, entrance.judgement.maps.as_ref());
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
    if !uid.is_some_and(|uid| theirs.rights.uids.contains(&uid)) {
        Some("another user")
    } else if !gid.is_some_and(|gid| is_theirs(&gid)) || !groups.iter().all(is_theirs) {
        Some("other groups")
    } else {
        None
    }
}

/// Reads a map of ids. The numbers outside are those that this process sees.
fn read_map(text: &str) -> Vec<IdMap> {
    let line = |line: &str| {
        let words: Vec<u32> = line.split_whitespace().map(number).collect::<Option<_>>()?;
        let [inside, outside, count] = words[..] else { return None };
        Some(IdMap::new(inside, outside, count))
    };
    text.lines().filter_map(line).collect()
}

/// The rights of a process, as /proc/PID/status shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rights {
    bounding: u64,
    /// The permitted and the inheritable set.
    permitted: u64,
    no_new_privs: bool,
    /// The number of filters, or before Linux 5.9 whether there are any.
    filters: u32,
    /// The real, the effective and the saved id, and that for files.
    uids: Vec<u32>,
    gids: Vec<u32>,
    groups: Vec<u32>,
}

impl Rights {
    fn parse(status: &str) -> Option<Rights> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::record::tests::record;

    fn open() -> Rights {
        let (uids, gids) = (vec![0; 4], vec![0; 4]);
        Rights { bounding: u64::MAX, permitted: u64::MAX, uids, gids, ..Rights::default() }
    }

    fn process(rights: Rights) -> Process {
        let namespaces = Namespaces::all().iter().map(|kind| (kind, 1)).collect();
        Process { rights, namespaces, root: (1, 1), ..Process::default() }
    }

    fn of(pairs: &str, theirs: Process, own: &Process) -> String {
        let is_whole = pairs.contains("user=") && pairs.contains("groups=");
        let caller = if is_whole { "" } else { "caller=0:0:," };
        let record = record(&format!("joined=0,{caller}{pairs}")).expect(pairs);
        excess(record.entrance_of_text(), &theirs, own).unwrap_or_default()
    }

    #[test]
    fn a_text_that_gives_more_than_the_sandbox_has_is_told() {
        let own = process(open());
        let told = |pairs: &str, theirs: Rights| of(pairs, process(theirs), &own);
        assert_eq!(told("new=0,init=1", open()), "");
        assert!(told("new=0,init=1", Rights { bounding: 1, ..open() }).contains("capabilities"));
        assert!(told("new=0,init=1", Rights { no_new_privs: true, ..open() }).contains("privileges"));
        assert!(told("new=0,init=1", Rights { filters: 1, ..open() }).contains("system calls"));
        let filtered = process(Rights { filters: 1, ..open() });
        assert_eq!(of("new=0,init=1", filtered.clone(), &filtered), "");
        assert_eq!(told("new=0,caps=3.1.1.0.0.-", Rights { bounding: 3, ..open() }), "");
        assert!(told("new=0,caps=3.1.1.0.0.-", Rights { bounding: 1, ..open() }).contains("capabilities"));
        // An exec keeps an ambient set, and root has the bounding set where no secure bit is set.
        let bare = Rights { permitted: 0, ..open() };
        assert!(told("new=0,user=0:0,caps=1.0.0.0.0.-", bare.clone()).contains("capabilities"));
        let (uids, gids) = (vec![7; 4], vec![7; 4]);
        let bare = Rights { uids, gids, ..bare };
        assert_eq!(told("new=0,user=7:7,caps=1.0.0.0.0.-", bare.clone()), "");
        assert!(told("new=0,user=7:7,caps=1.1.1.1.1.-", bare).contains("capabilities"));
        // Who enters a user namespace without a set has all there.
        let inside = Process { uid_map: vec![IdMap::new(0, 0, 1)], gid_map: vec![IdMap::new(0, 0, 1)], ..own.clone() };
        assert_eq!(of("new=10000000", inside.clone(), &own), "");
        let rights = Rights { bounding: 0, ..open() };
        assert!(of("new=10000000", Process { rights, ..inside }, &own).contains("capabilities"));
    }

    #[test]
    fn a_text_that_leads_elsewhere_is_told() {
        let own = process(open());
        for (at, kind) in Namespaces::all().iter().enumerate() {
            let mut theirs = own.clone();
            theirs.namespaces[at].1 = 2;
            (theirs.uid_map, theirs.gid_map) = (vec![IdMap::new(0, 0, 9)], vec![IdMap::new(0, 0, 9)]);
            let name = kind.file().unwrap();
            assert_eq!(of("new=0", theirs.clone(), &own), format!("this process's {name} namespace"));
            assert_eq!(of(&format!("new={:x}", kind.bits()), theirs, &own), "", "{name}");
        }
        let chrooted = Process { root: (1, 2), ..own.clone() };
        assert_eq!(of("new=20000000", chrooted.clone(), &own), "this process's root directory");
        assert_eq!(of("new=20000", chrooted, &own), "");
    }

    #[test]
    fn a_text_with_other_ids_is_told() {
        let own = process(open());
        let ids = |uid: u32, gid: u32, groups: &[u32]| Rights {
            uids: vec![uid; 4],
            gids: vec![gid; 4],
            groups: groups.to_vec(),
            ..open()
        };
        let told = |pairs: &str, rights: Rights| of(pairs, process(rights), &own);
        assert_eq!(told("new=0,user=7:8", ids(7, 8, &[])), "");
        assert_eq!(told("new=0,user=7:8,groups=9", ids(7, 8, &[9])), "");
        assert_eq!(told("new=0", ids(7, 8, &[])), "another user");
        assert_eq!(told("new=0,user=0:8", ids(7, 8, &[])), "another user");
        assert_eq!(told("new=0,user=7:0", ids(7, 8, &[])), "other groups");
        assert_eq!(told("new=0,user=7:8,groups=0", ids(7, 8, &[9])), "other groups");
        let with_group = process(ids(0, 0, &[5]));
        assert_eq!(of("new=0", process(ids(0, 0, &[])), &with_group), "other groups");
        // In a user namespace the numbers are those of its maps, whatever the text says of them.
        let mut inside = process(ids(1007, 1008, &[]));
        (inside.uid_map, inside.gid_map) = (vec![IdMap::new(0, 1000, 9)], vec![IdMap::new(0, 1000, 9)]);
        inside.namespaces.iter_mut().for_each(|(_, inode)| *inode += 1);
        let told = |pairs: &str| of(&format!("new=7e020080,maps=0-0-9:0-0-9:0:0:0{pairs}"), inside.clone(), &own);
        assert_eq!(told(",user=7:8"), "");
        assert_eq!(told(""), "another user", "root of the maps");
        assert_eq!(told(",user=1007:1008"), "another user");
        assert_eq!(told(",user=7:7"), "other groups");
    }

    #[test]
    fn rights_are_read_from_a_status() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapInh:\t1\nCapPrm:\t2\n\
                      CapBnd:\t00000000000000c0\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        let (uids, gids, groups) = (vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10]);
        let read = Rights { bounding: 0xc0, permitted: 3, no_new_privs: true, filters: 3, uids, gids, groups };
        assert_eq!(Rights::parse(status), Some(read));
        let old = status.replace("Seccomp_filters:\t3\n", "");
        assert_eq!(Rights::parse(&old).unwrap().filters, 1);
        assert_eq!(Process::read("/proc/thread-self").unwrap().root, Process::read("/proc/self").unwrap().root);
        crate::fuzz::texts(&[status, "0 1 2\n"], |text| {
            let _ = (Rights::parse(text), read_map(text));
        });
    }
}
