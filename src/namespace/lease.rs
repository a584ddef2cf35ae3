//! An id of its own, outside, for each living sandbox of root's.
//!
//! Two programs of one user know each other: kill(2) reaches by it, and the kernel counts by it
//! what no control group counts: descriptors in flight, watches of epoll(7) and inotify(7), pages
//! of pipes, queued signals. So what one sandbox takes up, another of the same id lacks.
//!
//! # Which ids
//!
//! 0x7800_0000 to 0x7ffd_ffff, some 134 million. Below end the ids that login.defs(5) has for
//! accounts (60,000) and for subordinate ones (600,100,000), those that systemd gives to services
//! (61,184 to 65,519) and containers (524,288 to 0x6fff_ffff), those of LXD (1,001,000,000) and
//! those that sssd-ad(5) makes up (2,000,200,000). Above begin systemd's foreign ids (0x7ffe_0000),
//! those that podman proposes for `containers` (0x7fff_ffff), and at 0x8000_0000 what some programs
//! take for a negative number. What /etc/passwd, group, subuid and subgid name all the same is left
//! out.
//!
//! Where the caller's own user namespace lacks these ids, the window is 60,736 to 61,183, which are
//! free by systemd's list and beyond the accounts. Where the namespace has neither, or all are
//! taken, sandboxes share one id ([`unprivileged_id`](super::unprivileged_id)).
//!
//! # How an id is taken
//!
//! A process takes a block at a time and hands its ids out from memory, so a spawn makes no system
//! call for its id. A block is held by a socket that is bound to the block's number in the abstract
//! namespace: the kernel gives the block back with the last process that has the socket open, there
//! is no file that a dead owner could leave, and none has to be writable. Names are those of a
//! network namespace, so owners in two of them can't see each other's: the block is a random one of
//! 130,944. Somebody who binds all names gains nothing but that chance alone decides.
//!
//! A program that outlives its owner (`die_with_owner(false)`, `create`) keeps its id, which nobody
//! holds any more. So its id is a random one of its block: as two such programs were in two random
//! blocks, one id is both's with a chance of 1 in 134 million. A new owner, who takes the ids of a
//! block one after the other, meets it with the chance of the block, times the part of the block
//! that it takes. In the small window these are 1 in 448, and 1 in 7 times that part.
//!
//! An id is given back by the caller that has seen everything of the sandbox end, else never. The
//! id is then the last in its block to be taken again: without a pid namespace and a control group
//! a process can slip away from the end, and keeps its id. An id for which the user namespace of
//! exchanging mounts has been made, by a process that costs as much as a sandbox, is rather taken
//! again at once, where nothing can have slipped away.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};

use crate::error::{Error, Result, Step};
use crate::idmap::IdMap;
use crate::sys::fork_mark::PerProcess;
use crate::sys::{mutex, random, table};

/// A range of ids, in blocks one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    first: u32,
    block: u32,
    blocks: u32,
}

/// The windows, the best first.
const WINDOWS: [Window; 2] = [
    Window { first: 0x7800_0000, block: 1024, blocks: (0x7ffe_0000 - 0x7800_0000) / 1024 },
    Window { first: 60_736, block: 64, blocks: 7 },
];
/// The most user namespaces that are kept for ids that nobody has.
const MOST_KEPT: usize = 16;
/// The number of names that are tried before chance alone decides.
const TRIES: u32 = 64;

/// The ids that this process has of a window.
#[derive(Debug, Default)]
struct Ids {
    window: Option<Window>,
    /// The caller has every id there is, as in the first user namespace.
    has_all: bool,
    state: Mutex<State>,
}

/// The ids and blocks that this process has taken.
#[derive(Debug, Default)]
struct State {
    free: VecDeque<u32>,
    /// The free ids for which a user namespace of exchanging mounts has been made.
    exchanging: Vec<(u32, Arc<OwnedFd>)>,
    blocks: Vec<Block>,
}

/// A block of ids, held by its socket.
#[derive(Debug)]
struct Block {
    first: u32,
    _name: Option<OwnedFd>,
}

static IDS: PerProcess<Ids> = PerProcess::new();

/// A user's and a group's id that no other sandbox has.
pub(crate) struct Lease {
    ids: &'static Ids,
    id: u32,
    /// The user namespace by which mounts exchange the id.
    mounts: Option<Arc<OwnedFd>>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The others' ids are many, and not this sandbox's.
        f.debug_struct("Lease").field("id", &self.id).field("mounts", &self.mounts).finish_non_exhaustive()
    }
}

fn failed(errno: Errno) -> Error {
    Error::new(Step::WriteIdMap, errno).at("an id of the sandbox's own")
}

fn ids() -> Result<&'static Ids> {
    IDS.get_or_try(|| Ok(Ids::here())).map_err(failed)
}

/// Takes an id; returns none where the caller's user namespace has none. One that `outlives` this
/// process is at a random place of its block.
pub(crate) fn lease(outlives: bool) -> Result<Option<Lease>> {
    let ids = ids()?;
    Ok(ids.take(outlives).map_err(failed)?.map(|id| Lease { ids, id, mounts: None }))
}

/// Takes an id for which mounts exchange another; `make` makes the user namespace with such maps.
pub(crate) fn lease_for_mounts(outlives: bool, make: impl FnOnce(u32) -> Result<OwnedFd>) -> Result<Option<Lease>> {
    let ids = ids()?;
    if !ids.has_all {
        return Ok(None);
    }
    let known = || ids.lock().exchanging.pop();
    if let Some((id, user_ns)) = (!outlives).then(known).flatten() {
        return Ok(Some(Lease { ids, id, mounts: Some(user_ns) }));
    }
    let Some(mut lease) = lease(outlives)? else { return Ok(None) };
    match make(lease.id) {
        Ok(user_ns) => lease.mounts = Some(Arc::new(user_ns)),
        Err(_) => {
            // No more user namespaces, or no right to map every id.
            lease.end(true);
            return Ok(None);
        }
    }
    Ok(Some(lease))
}

impl Lease {
    /// Returns the id.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Returns the user namespace by which mounts exchange the id.
    pub(crate) fn mounts(&self) -> Option<BorrowedFd<'_>> {
        self.mounts.as_ref().map(|user_ns| user_ns.as_fd())
    }

    /// Gives the id back: every process that had the id has ended, for certain or as far as can be
    /// seen. In a fork the id is the parent's to give.
    pub(crate) fn end(self, for_certain: bool) {
        if !IDS.is_current(self.ids) {
            return;
        }
        let mut state = self.ids.lock();
        match self.mounts {
            Some(user_ns) if for_certain && state.exchanging.len() < MOST_KEPT => {
                state.exchanging.push((self.id, user_ns))
            }
            _ => state.free.push_back(self.id),
        }
    }
}

impl Ids {
    /// Returns the window of this process, by the maps of its user namespace.
    fn here() -> Ids {
        let maps = ["/proc/self/uid_map", "/proc/self/gid_map"];
        let maps = maps.map(|path| fs::read_to_string(path).unwrap_or_default());
        let has_all = maps.iter().all(|map| IdMap::lines(map) == [IdMap::new(0, 0, u32::MAX)]);
        Ids { window: window_within(&maps.each_ref().map(String::as_str)), has_all, ..Ids::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        mutex::lock(&self.state)
    }

    /// Takes an id, from a new block where no id is free: the one that is unused for the longest
    /// time, or one `at_random`.
    fn take(&self, at_random: bool) -> Result<Option<u32>, Errno> {
        let Some(window) = self.window else { return Ok(None) };
        let mut state = self.lock();
        if state.free.is_empty()
            && let Some(block) = window.take_block(&state.blocks)?
        {
            state.free.extend(block.first..block.first + window.block);
            state.blocks.push(block);
        }
        if at_random && !state.free.is_empty() {
            let place = random::number()? % state.free.len() as u64;
            return Ok(state.free.remove(place as usize));
        }
        Ok(state.free.pop_front().or_else(|| state.exchanging.pop().map(|(id, _)| id)))
    }
}

impl Window {
    /// Takes a block that nobody has, and that is not among those that are `held` already.
    fn take_block(self, held: &[Block]) -> Result<Option<Block>, Errno> {
        let given_out = given_out(Path::new("/etc"));
        let may = |first: u32| {
            let is_held = held.iter().any(|block| block.first == first);
            !is_held && !given_out.iter().any(|(start, end)| first < *end && *start < first + self.block)
        };
        let mut unnamed = None;
        let start = (random::number()? % u64::from(self.blocks)) as u32;
        for i in 0..TRIES.min(self.blocks) {
            // Far apart, as blocks are taken one by one; 7,919 is a prime that divides no number of
            // blocks.
            let number = (u64::from(start) + u64::from(i) * 7_919) % u64::from(self.blocks);
            let first = self.first + number as u32 * self.block;
            if !may(first) {
                continue;
            }
            match name_block(first) {
                Ok(name) => return Ok(Some(Block { first, _name: Some(name) })),
                Err(Errno::EADDRINUSE) => unnamed = unnamed.or(Some(first)),
                // A security module refuses such names.
                Err(Errno::EACCES | Errno::EPERM) => return Ok(Some(Block { first, _name: None })),
                Err(errno) => return Err(errno),
            }
        }
        // In a small window a name that is taken tells of a sandbox, not of somebody who binds them
        // all.
        let by_chance = unnamed.filter(|_| self.blocks > TRIES);
        Ok(by_chance.map(|first| Block { first, _name: None }))
    }
}

/// Binds the socket that holds a block. unix(7): EADDRINUSE while another has the name.
fn name_block(first: u32) -> Result<OwnedFd, Errno> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let name = UnixAddr::new_abstract(format!("ringfence-ids-{first:x}").as_bytes())?;
    let socket = table::above_stdio(socket)?;
    bind(socket.as_raw_fd(), &name)?;
    Ok(socket)
}

/// Returns the best window of which the maps have every id.
fn window_within(maps: &[&str]) -> Option<Window> {
    let has = |map: &str, window: &Window| {
        let last = window.first + window.block * window.blocks - 1;
        IdMap::lines(map).iter().any(|line| line.covers(window.first) && line.covers(last))
    };
    WINDOWS.into_iter().find(|window| maps.iter().all(|map| has(map, window)))
}

/// Returns the ranges of ids that the files in `etc` name: the first id, and the one after the
/// last.
fn given_out(etc: &Path) -> Vec<(u32, u32)> {
    // A user's full name may be in any encoding.
    let read = |name| fs::read(etc.join(name)).map(|text| String::from_utf8_lossy(&text).into_owned());
    let read = |name| read(name).unwrap_or_default();
    let field = |line: &str, number: usize| line.split(':').nth(number)?.trim().parse::<u32>().ok();
    let mut all = Vec::new();
    for name in ["passwd", "group"] {
        all.extend(read(name).lines().filter_map(|line| field(line, 2)).map(|id| (id, id.saturating_add(1))));
    }
    for name in ["subuid", "subgid"] {
        let range = |line: &str| Some((field(line, 1)?, field(line, 2)?));
        all.extend(read(name).lines().filter_map(range).map(|(first, count)| (first, first.saturating_add(count))));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_windows_end_before_what_others_have() {
        let ends = WINDOWS.map(|window| window.first + window.block * window.blocks);
        assert_eq!(ends, [0x7ffe_0000, 61_184]);
    }

    #[test]
    fn a_window_is_there_where_both_maps_have_all_of_it() {
        let all = "         0          0 4294967295\n";
        assert_eq!(window_within(&[all, all]), Some(WINDOWS[0]));
        assert_eq!(window_within(&[all, "0 100000 65536\n"]), Some(WINDOWS[1]));
        assert_eq!(window_within(&["0 100000 61183\n", all]), None);
        assert_eq!(window_within(&["", all]), None);
    }

    #[test]
    fn ids_come_back_and_the_longest_unused_is_next() {
        let ids: &'static Ids = Box::leak(Box::new(Ids { window: Some(WINDOWS[0]), ..Ids::default() }));
        let block = WINDOWS[0].block as usize;
        let mut last = VecDeque::new();
        for _ in 0..10_000 {
            let id = ids.take(false).unwrap().unwrap();
            assert!(!last.contains(&id), "{id} again, after {} others", last.len());
            ids.lock().free.push_back(id);
            last.push_back(id);
            last.drain(..last.len().saturating_sub(block - 1));
        }
        assert_eq!(ids.lock().blocks.len(), 1);
        let living: BTreeSet<u32> = (0..block + 1).map(|_| ids.take(false).unwrap().unwrap()).collect();
        assert_eq!((living.len(), ids.lock().blocks.len()), (block + 1, 2));
        assert!(living.iter().all(|id| (0x7800_0000..0x7ffe_0000).contains(id)));
    }

    #[test]
    fn an_id_that_outlives_its_owner_is_anywhere_in_its_block() {
        let window = Some(WINDOWS[0]);
        let offset = |outlives| {
            // Another owner each time, which has a block of its own.
            let ids = Ids { window, ..Ids::default() };
            let id = ids.take(outlives).unwrap().unwrap();
            id - ids.lock().blocks[0].first
        };
        let offsets: BTreeSet<u32> = (0..16).map(|_| offset(true)).collect();
        assert!(offsets.len() > 8 && offsets.iter().all(|offset| *offset < WINDOWS[0].block), "{offsets:?}");
        assert_eq!(offset(false), 0);
    }

    #[test]
    fn blocks_that_others_have_are_passed_over() {
        // Names that no other run of the tests has.
        let at = 0x7100_0000 + std::process::id() % (1 << 22) * 16;
        let small = Window { first: at, block: 4, blocks: 3 };
        let mut held = Vec::new();
        while let Some(block) = small.take_block(&[]).unwrap() {
            held.push(block);
        }
        let firsts: BTreeSet<u32> = held.iter().map(|block| block.first).collect();
        assert_eq!(firsts, [at, at + 4, at + 8].into());
        held.pop();
        assert!(small.take_block(&[]).unwrap().is_some(), "its owner has gone");
    }

    #[test]
    fn what_etc_names_is_left_out() {
        let etc = std::env::temp_dir().join(format!("ringfence-tests-etc-{}", std::process::id()));
        fs::create_dir(&etc).unwrap();
        let passwd = b"b:x:nonsense:0:Jos\xe9:/:\na:x:5:6::/:\nnonsense\n";
        for (name, text) in [("passwd", &passwd[..]), ("group", b"g:x:7:\n"), ("subuid", b"a:10:2\n:x:\n")] {
            fs::write(etc.join(name), text).unwrap();
        }
        assert_eq!(given_out(&etc), [(5, 6), (7, 8), (10, 12)]);
        fs::remove_dir_all(&etc).unwrap();
        assert!(given_out(&etc).is_empty());
    }
}
