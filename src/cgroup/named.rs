//! The named group of a sandbox that outlives its creator, as a later process ends it.
//!
//! Such a group has no name that is the sandbox's own. It is known by the inodes of its
//! directories, and once the sandbox's program has ended, another sandbox may have taken it. So it
//! is ended only if its [`mark`] is still that of the sandbox or, where groups have no mark, as
//! long as the sandbox's first process runs in it: nobody takes a group in which something runs. If
//! systemd made the group, it tells whether the unit is there yet.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::controllers::{Controllers, Version};
use super::group::Group;
use super::hierarchy::Hierarchy;
use super::host::Host;
use super::part::{Adopted, Part};
use super::{adopt, freezer, mark};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::text::{escape, number, unescape};

/// The longest wait for a group to stand still before it is killed.
const FREEZE_BOUND: Duration = Duration::from_secs(1);

/// A directory of a named group, and what is to be given back of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedDir {
    device: u64,
    inode: u64,
    /// `None` for a directory that was made for the sandbox.
    adopted: Option<Adopted>,
    path: PathBuf,
}

impl NamedDir {
    /// Returns the directory as a word: device, inode, `made` or `kept` or the `pids.max` that it
    /// had, and the path.
    pub(crate) fn to_text(&self) -> String {
        let before = match &self.adopted {
            None => "made",
            Some(adopted) => adopted.pids_max.as_deref().unwrap_or("kept"),
        };
        format!("{}:{}:{before}:{}", self.device, self.inode, escape(self.path.as_os_str().as_bytes()))
    }

    /// Reads what [`to_text`](NamedDir::to_text) has written. `owner` is the name of the sandbox.
    pub(crate) fn from_text(text: &str, owner: &str) -> Option<NamedDir> {
        let words: Vec<&str> = text.split(':').collect();
        let [device, inode, before, path] = words[..] else { return None };
        let kept =
            |pids_max: Option<&str>| Adopted { pids_max: pids_max.map(str::to_owned), mark: Some(owner.to_owned()) };
        let adopted = match before {
            "made" => None,
            "kept" => Some(kept(None)),
            "max" => Some(kept(Some(before))),
            _ => number::<u64>(before).map(|_| kept(Some(before))).map(Some)?,
        };
        let path = PathBuf::from(OsString::from_vec(unescape(path)?));
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        let is_whole = path.is_absolute() && path.file_name().is_some() && path.components().all(plain);
        is_whole.then_some(NamedDir { device: number(device)?, inode: number(inode)?, adopted, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the hierarchy in which the directory stands.
    pub(super) fn hierarchy<'h>(&self, host: &'h Host) -> Option<&'h Hierarchy> {
        let above = host.hierarchies.iter().filter(|hierarchy| self.path.starts_with(&hierarchy.mount));
        above.max_by_key(|hierarchy| hierarchy.mount.as_os_str().len())
    }

    /// Opens the directory. Returns `None` if it is gone, also if another one is in its place.
    fn open(&self, host: &Host) -> Result<Option<Part>> {
        let failed = |errno| Error::new(Step::Attach, errno).at(&self.path).with_kind(ErrorKind::Control);
        let Some(hierarchy) = self.hierarchy(host) else {
            return Err(failed(Errno::ENOENT)
                .detail("the group's hierarchy is not mounted here")
                .hint("remove the sandbox where the control groups are those of the process that has created it"));
        };
        let mut part = match adopt::open(hierarchy, &self.path) {
            Err(Errno::ENOENT | Errno::ENODEV | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            other => other.map_err(failed)?,
        };
        let stat = fstat(part.dir()).map_err(failed)?;
        let is_it = (stat.st_dev, stat.st_ino) == (self.device, self.inode);
        part.adopted.clone_from(&self.adopted);
        Ok(is_it.then_some(part))
    }
}

/// The sandbox that has a named group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    This,
    Another,
    /// The group has no mark, and the first process of this sandbox is not in it.
    Unknown,
}

impl Group {
    /// Returns the directories of a group that the caller has named.
    pub(crate) fn named_dirs(&self) -> Result<Vec<NamedDir>> {
        let dir = |part: &Part| {
            let stat = fstat(part.dir()).map_err(|errno| part.error(Step::CreateCgroup, errno))?;
            let (adopted, path) = (part.adopted.clone(), part.path.clone());
            Ok(NamedDir { device: stat.st_dev, inode: stat.st_ino, adopted, path })
        };
        self.parts().map(dir).collect()
    }

    /// Opens what is left of a named group. Returns `None` if that is nothing.
    pub(crate) fn of_named(host: &Host, dirs: &[NamedDir]) -> Result<Option<Group>> {
        let mut parts = Vec::new();
        for dir in dirs {
            parts.extend(dir.open(host)?);
        }
        // v2 comes first, as in a group that was made.
        parts.sort_by_key(|part| part.version == Version::V1);
        Ok((!parts.is_empty()).then(|| Group::of_parts(host, parts)))
    }

    /// Opens a named group of which nothing is gone.
    pub(crate) fn of_all_named(host: &Host, dirs: &[NamedDir]) -> Result<Option<Group>> {
        Ok(Group::of_named(host, dirs)?.filter(|group| group.parts().count() == dirs.len()))
    }

    /// Kills what runs in the named group of the sandbox `owner`, if the sandbox has it. `first` is
    /// as in [`end_named`](Group::end_named).
    pub(crate) fn kill_named(&self, owner: &str, first: &dyn Fn() -> Option<i32>) -> Result<()> {
        if self.holder(owner, first)? != Holder::This {
            return Ok(());
        }
        let freezer = self.part(Controllers::FREEZER);
        // Nobody takes a group that is frozen: so what is found then stays true.
        freezer.into_iter().for_each(|part| _ = freezer::freeze(part, FREEZE_BOUND));
        let killed = self.holder(owner, first).and_then(|holder| match holder {
            Holder::This => self.kill(),
            Holder::Another | Holder::Unknown => Ok(()),
        });
        freezer.into_iter().for_each(|part| _ = freezer::thaw(part));
        killed
    }

    /// Kills what runs in the named group of the sandbox `owner`, and gives the group back. `first`
    /// returns the pid of the sandbox's first process as long as it runs, and `unit` whether the
    /// unit is there whose group it is, if it is one's. A group that another sandbox has taken is
    /// left alone.
    pub(crate) fn end_named(
        &self,
        owner: &str,
        first: &dyn Fn() -> Option<i32>,
        unit: &dyn Fn() -> Result<Option<bool>>,
        timeout: Duration,
    ) -> Result<()> {
        let holder = || {
            Ok(match self.holder(owner, first)? {
                Holder::Unknown => match unit()? {
                    Some(true) => Holder::This,
                    Some(false) => Holder::Another,
                    None => Holder::Unknown,
                },
                known => known,
            })
        };
        match holder()? {
            Holder::This => {}
            Holder::Another => return self.refuse_shared(first),
            Holder::Unknown => {
                return self.remove(timeout).map_err(|error| {
                    error
                        .detail("the sandbox's first process is not in it, and nothing tells whose the others are")
                        .hint("end what runs in it, unless that is another sandbox")
                });
            }
        }
        let freezer = self.part(Controllers::FREEZER);
        // What stands still does not end, and nobody takes a group that is frozen: so what is found
        // then stays true. A process that cannot be frozen cannot have left the group either.
        freezer.into_iter().for_each(|part| _ = freezer::freeze(part, FREEZE_BOUND));
        let ended = self.end_frozen(&holder, first, timeout);
        freezer.into_iter().for_each(|part| _ = freezer::thaw(part));
        ended
    }

    fn end_frozen(
        &self,
        holder: &dyn Fn() -> Result<Holder>,
        first: &dyn Fn() -> Option<i32>,
        timeout: Duration,
    ) -> Result<()> {
        if holder()? == Holder::Another {
            return self.refuse_shared(first);
        }
        if self.is_populated()? {
            // The holder is asked again, once it is known that there is somebody to kill: a mark is
            // set before a process comes.
            match holder()? {
                Holder::This => self.kill()?,
                Holder::Another => return self.refuse_shared(first),
                Holder::Unknown => {}
            }
        }
        self.remove(timeout)
    }

    /// Returns whether the sandbox `owner` has this named group, as far as anything tells. `first`
    /// returns the pid of the sandbox's first process as long as it runs.
    pub(crate) fn is_held_by(&self, owner: &str, first: &dyn Fn() -> Option<i32>) -> Result<bool> {
        Ok(self.holder(owner, first)? == Holder::This)
    }

    /// Refuses a group that another sandbox than `owner` has taken at the same moment. `stub` is
    /// the sandbox's process, if it has no other one: then it is to be the only one here.
    pub(crate) fn refuse_shared_birth(&self, owner: &str, stub: Option<i32>) -> Result<()> {
        let get =
            |part: &Part| mark::get(part.version, part.dir()).map_err(|errno| part.error(Step::CreateCgroup, errno));
        let mark = self.v2().map(get).transpose()?.flatten();
        let is_marked = mark.is_none_or(|mark| mark == owner.as_bytes());
        let is_alone = match stub {
            // A process of another pid namespace has the number 0.
            Some(stub) => self.processes()?.iter().all(|pid| *pid == stub),
            None => true,
        };
        if is_marked && is_alone {
            return Ok(());
        }
        let error = Error::new(Step::CreateCgroup, Errno::EBUSY).at(self.name());
        Err(error.detail("another sandbox has taken the group at the same moment").hint(adopt::NAME_ANOTHER))
    }

    /// Refuses a group that another sandbox has taken although this one is in it.
    fn refuse_shared(&self, first: &dyn Fn() -> Option<i32>) -> Result<()> {
        if !self.holds(first)? {
            return Ok(());
        }
        let error = Error::new(Step::RemoveCgroup, Errno::EBUSY).at(self.name()).with_kind(ErrorKind::Control);
        Err(error.detail("another sandbox has taken it").hint("remove the sandbox again: its program is killed"))
    }

    fn holder(&self, owner: &str, first: &dyn Fn() -> Option<i32>) -> Result<Holder> {
        let get = |part: &Part| mark::get(part.version, part.dir()).map_err(|errno| part.error(Step::Attach, errno));
        Ok(match self.v2().map(get).transpose()?.flatten() {
            Some(mark) if mark == owner.as_bytes() => Holder::This,
            // Nobody takes a group in which something runs: an ordinary user's program has changed
            // it.
            _ if self.holds(first)? => Holder::This,
            Some(_) => Holder::Another,
            None => Holder::Unknown,
        })
    }

    /// Returns whether the first process runs, and in this group.
    fn holds(&self, first: &dyn Fn() -> Option<i32>) -> Result<bool> {
        let Some(pid) = first() else { return Ok(false) };
        let is_in = self.processes()?.contains(&pid);
        // As long as it runs, the number is its own.
        Ok(is_in && first() == Some(pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_read_as_they_were_written() {
        for text in
            ["28:77:made:/sys/fs/cgroup/a%20b", "28:77:kept:/a", "28:18446744073709551615:max:/a/b", "1:2:20:/a"]
        {
            assert_eq!(NamedDir::from_text(text, "rk-a-1").unwrap().to_text(), text);
        }
        let texts = ["", "1:2:made:a", "1:2:made:/", "1:2:made:/a/../b", "1:2:-1:/a", "1:2:other:/a", "-1:2:made:/a"];
        for text in texts.into_iter().chain(["1:made:/a", "1:2:made:/a:b", "1:x:made:/a", "1:2::/a"]) {
            assert_eq!(NamedDir::from_text(text, "rk-a-1"), None, "{text}");
        }
        crate::fuzz::texts(&["28:77:max:/sys/a%20b"], |text| drop(NamedDir::from_text(text, "rk-a-1")));
    }
}
