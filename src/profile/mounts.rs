//! The mounts of the list, from a profile and to it.

use std::path::Path;

use super::file::{
    BindEntry, CgroupfsEntry, DevEntry, Disk, FileEntry, Ids, MountEntry, NodeEntry, OverlayEntry, ProcEntry, RawEntry,
    SymlinkEntry, TmpfsEntry, Upper,
};
use super::forms::{Hex, Mode, NodeKind, Number, Words};
use super::keys::{no_text, set, text, when, yes};
use super::refuse;
use super::text::{Either, Text};
use crate::error::Result;
use crate::mount::{
    self, Bind, Cgroupfs, Dev, DeviceNode, DiskLimit, Kind, MemoryFile, Mount, MountFlags, Mqueue, Overlay, Proc,
    RawMount, Sysfs, Tmpfs,
};
use crate::units::Bytes;

/// The permission bits of [`Sandbox::tmpfs`](crate::Sandbox::tmpfs).
const TMPFS_MODE: u32 = 0o1777;

pub(super) fn of_entry(entry: &MountEntry) -> Result<Mount> {
    Ok(match entry {
        MountEntry::Bind(entry) => bind(entry, false, false).into(),
        MountEntry::BindRo(entry) => bind(entry, true, false).into(),
        MountEntry::BindTry(entry) => bind(entry, false, true).into(),
        MountEntry::BindRoTry(entry) => bind(entry, true, true).into(),
        MountEntry::Tmpfs(entry) => {
            let tmpfs = set(Tmpfs::new(&entry.target), entry.size, |tmpfs, size| tmpfs.size(size.0));
            let tmpfs = set(tmpfs, entry.inodes, |tmpfs, count| tmpfs.inodes(count.0.0));
            let copy_up = entry.copy_up == Some(true);
            let mode = entry.mode.map(|mode| mode.0.0).or((!copy_up).then_some(TMPFS_MODE));
            let tmpfs = when(set(tmpfs, mode, Tmpfs::mode), entry.copy_up, Tmpfs::copy_up);
            let tmpfs = when(when(tmpfs, entry.noexec, Tmpfs::noexec), entry.read_only, Tmpfs::read_only);
            when(when(tmpfs, entry.suid, Tmpfs::suid), entry.dev, Tmpfs::dev).into()
        }
        MountEntry::File(entry) => file(entry)?.into(),
        MountEntry::Dir(path) => mount::dir(path),
        MountEntry::Symlink(SymlinkEntry { to, path }) => mount::symlink(to, path),
        MountEntry::Proc(entry) => {
            let proc = set(Proc::new(&entry.target), entry.hidepid, |proc, hidepid| proc.hidepid(hidepid.0));
            when(when(proc, entry.subset_pid, Proc::subset_pid), entry.read_only, Proc::read_only).into()
        }
        MountEntry::Dev(entry) => {
            let dev = set(Dev::new(&entry.target), entry.shm_size, |dev, size| dev.shm_size(size.0));
            when(set(dev, entry.terminals, Dev::terminals), entry.read_only, Dev::read_only).into()
        }
        MountEntry::Sysfs(target) => Sysfs::new(target).into(),
        MountEntry::Mqueue(target) => Mqueue::new(target).into(),
        MountEntry::Cgroupfs(Either::Short(target)) => Cgroupfs::new(target).into(),
        MountEntry::Cgroupfs(Either::Long(entry)) => {
            when(Cgroupfs::new(&entry.target), entry.writable, Cgroupfs::writable).into()
        }
        MountEntry::Overlay(entry) => {
            let overlay = Overlay::new(&entry.target, &entry.lowers);
            let overlay =
                set(overlay, entry.upper.as_ref(), |overlay, Upper { upper, work }| overlay.upper(upper, work));
            if entry.upper.is_some() && entry.tmpfs.is_some() {
                return Err(refuse("mount: changes of an overlay go to one of `upper` and `tmpfs`"));
            }
            let overlay = set(overlay, entry.tmpfs, |overlay, size| overlay.tmpfs(size.0));
            let overlay =
                set(overlay, entry.disk_limit.as_ref(), |overlay, limit| overlay.disk_limit(disk_limit(limit)));
            let overlay = when(overlay, entry.id_mapped, Overlay::id_mapped);
            let overlay = when(when(overlay, entry.read_only, Overlay::read_only), entry.noexec, Overlay::noexec);
            when(when(overlay, entry.suid, Overlay::suid), entry.dev, Overlay::dev).into()
        }
        MountEntry::DeviceNode(entry) => node(entry)?.into(),
        MountEntry::Raw(entry) => {
            let raw = RawMount::new(&entry.source, &entry.target, &entry.fstype);
            let raw = set(raw, entry.flags, |raw, flags| raw.flags(flags.0.0));
            set(raw, entry.data.as_ref(), RawMount::data).into()
        }
    })
}

/// Returns the key of the permission bits, where they are not what they are without the key.
fn tmpfs_mode(tmpfs: &Tmpfs) -> Option<Text<Mode>> {
    let without = if tmpfs.copy_up { None } else { Some(TMPFS_MODE) };
    let mode = if tmpfs.copy_up { tmpfs.mode } else { Some(tmpfs.mode.unwrap_or(0o755)) };
    mode.filter(|_| mode != without).map(|mode| Text(Mode(mode)))
}

fn bind(entry: &BindEntry, read_only: bool, optional: bool) -> Bind {
    let bind = Bind::new(&entry.source, &entry.target);
    let bind = when(bind, Some(read_only || entry.read_only == Some(true)), Bind::read_only);
    let bind = when(bind, Some(optional || entry.optional == Some(true)), Bind::optional);
    let bind = when(bind, entry.non_recursive, Bind::non_recursive);
    let bind = when(when(bind, entry.noexec, Bind::noexec), entry.nodev, Bind::nodev);
    let bind = set(bind, entry.disk_limit.as_ref(), |bind, limit| bind.disk_limit(disk_limit(limit)));
    when(when(bind, entry.suid, Bind::suid), entry.dev, Bind::dev)
}

pub(super) fn disk_limit(key: &Either<Text<Bytes>, Disk>) -> DiskLimit {
    match key {
        Either::Short(bytes) => DiskLimit::new(bytes.0),
        Either::Long(Disk { bytes, inodes }) => {
            set(DiskLimit::new(bytes.0), *inodes, |limit, most| limit.inodes(most.0.0))
        }
    }
}

pub(super) fn disk_limit_key(limit: DiskLimit) -> Either<Text<Bytes>, Disk> {
    match limit.inodes {
        None => Either::Short(Text(limit.bytes)),
        inodes => Either::Long(Disk { bytes: Text(limit.bytes), inodes: inodes.map(Number).map(Text) }),
    }
}

fn file(entry: &FileEntry) -> Result<MemoryFile> {
    let bytes = match (&entry.text, &entry.hex) {
        (Some(text), None) => text.as_bytes(),
        (None, Some(Text(Hex(bytes)))) => bytes,
        (None, None) => &[],
        _ => return Err(refuse("mount: the contents of a file are one of `text` and `hex`")),
    };
    let file = set(MemoryFile::new(&entry.target, bytes), entry.mode, |file, mode| file.mode(mode.0.0));
    Ok(when(when(file, entry.writable, MemoryFile::writable), entry.noexec, MemoryFile::noexec))
}

fn node(entry: &NodeEntry) -> Result<DeviceNode> {
    let NodeEntry { target, kind, major, minor, mode, owner } = entry;
    let node = match (kind.0, major, minor) {
        (NodeKind::Character, Some(major), Some(minor)) => DeviceNode::character(target, *major, *minor),
        (NodeKind::Block, Some(major), Some(minor)) => DeviceNode::block(target, *major, *minor),
        (NodeKind::Fifo, None, None) => DeviceNode::fifo(target),
        _ => return Err(refuse("mount: a device has `major` and `minor`, and a FIFO has neither")),
    };
    let node = set(node, *mode, |node, mode| node.mode(mode.0.0));
    Ok(set(node, owner.as_ref(), |node, owner| node.owner(owner.uid, owner.gid)))
}

fn node_entry(node: &DeviceNode, target: &str) -> Result<NodeEntry> {
    let made = NodeKind::WORDS.into_iter().find_map(|(_, kind)| {
        let number = |number| Some(number).filter(|_| kind != NodeKind::Fifo);
        let entry = NodeEntry {
            target: target.to_owned(),
            kind: Text(kind),
            major: number(node.number.0),
            minor: number(node.number.1),
            mode: Some(Text(Mode(node.mode))).filter(|mode| mode.0.0 != 0o666),
            owner: node.owner.map(|(uid, gid)| Ids { uid, gid }),
        };
        self::node(&entry).is_ok_and(|made| made.kind == node.kind).then_some(entry)
    });
    made.ok_or_else(|| no_text("mount", "this device node"))
}

pub(super) fn to_entry(mount: &Mount) -> Result<MountEntry> {
    let target = path_text(&mount.target)?;
    Ok(match &mount.kind {
        Kind::Bind(bind) => {
            let entry = bind_entry(bind, target)?;
            match (bind.flags.contains(MountFlags::READ_ONLY), bind.optional) {
                (false, false) => MountEntry::Bind(entry),
                (true, false) => MountEntry::BindRo(entry),
                (false, true) => MountEntry::BindTry(entry),
                (true, true) => MountEntry::BindRoTry(entry),
            }
        }
        Kind::Tmpfs(tmpfs) => MountEntry::Tmpfs(TmpfsEntry {
            target,
            size: Some(Text(tmpfs.size)),
            inodes: tmpfs.inodes.map(Number).map(Text),
            mode: tmpfs_mode(tmpfs),
            copy_up: yes(tmpfs.copy_up),
            noexec: yes(tmpfs.flags.contains(MountFlags::NO_EXEC)),
            read_only: yes(tmpfs.flags.contains(MountFlags::READ_ONLY)),
            suid: yes(!tmpfs.flags.contains(MountFlags::NO_SUID)),
            dev: yes(!tmpfs.flags.contains(MountFlags::NO_DEV)),
        }),
        Kind::File(file) => MountEntry::File(file_entry(file, target)),
        #[cfg(feature = "oci")]
        Kind::Again(_) => return Err(no_text("mount", "a bind of what is inside")),
        Kind::Dir => MountEntry::Dir(target),
        Kind::Symlink(to) => MountEntry::Symlink(SymlinkEntry { to: path_text(to)?, path: target }),
        Kind::Proc(proc) => MountEntry::Proc(ProcEntry {
            target,
            hidepid: proc.hidepid.map(Text),
            subset_pid: yes(proc.subset_pid),
            read_only: yes(proc.flags.contains(MountFlags::READ_ONLY)),
        }),
        Kind::Dev(dev) => MountEntry::Dev(DevEntry {
            target,
            shm_size: Some(Text(dev.shm_size)),
            terminals: Some(dev.terminals),
            read_only: yes(dev.read_only),
        }),
        Kind::Sysfs => MountEntry::Sysfs(target),
        Kind::Mqueue => MountEntry::Mqueue(target),
        Kind::Cgroupfs(groups) if groups.has_options() => {
            return Err(no_text("mount", "control groups with MountOptions"));
        }
        Kind::Cgroupfs(groups) if groups.writable => {
            MountEntry::Cgroupfs(Either::Long(CgroupfsEntry { target, writable: Some(true) }))
        }
        Kind::Cgroupfs(_) => MountEntry::Cgroupfs(Either::Short(target)),
        Kind::Overlay(overlay) => MountEntry::Overlay(OverlayEntry {
            target,
            lowers: overlay.lowers.iter().map(|lower| path_text(lower)).collect::<Result<_>>()?,
            upper: overlay.upper.as_ref().map(|(upper, work)| upper_entry(upper, work)).transpose()?,
            tmpfs: overlay.memory.map(Text),
            disk_limit: overlay.disk_limit.map(disk_limit_key),
            id_mapped: yes(overlay.id_mapped),
            read_only: yes(overlay.flags.contains(MountFlags::READ_ONLY)),
            noexec: yes(overlay.flags.contains(MountFlags::NO_EXEC)),
            suid: yes(!overlay.flags.contains(MountFlags::NO_SUID)),
            dev: yes(!overlay.flags.contains(MountFlags::NO_DEV)),
        }),
        Kind::Node(node) => MountEntry::DeviceNode(node_entry(node, &target)?),
        Kind::Raw(raw) if raw.has_options() => return Err(no_text("mount", "a file system with MountOptions")),
        Kind::Raw(raw) => MountEntry::Raw(RawEntry {
            source: text("mount", &raw.source)?,
            target,
            fstype: text("mount", &raw.fstype)?,
            flags: Some(Number(raw.ms_flags)).filter(|flags| flags.0 != 0).map(Text),
            data: Some(text("mount", &raw.data)?).filter(|data| !data.is_empty()),
        }),
    })
}

pub(super) fn path_text(path: &Path) -> Result<String> {
    text("a path", path)
}

pub(super) fn upper_entry(upper: &Path, work: &Path) -> Result<Upper> {
    Ok(Upper { upper: path_text(upper)?, work: path_text(work)? })
}

fn bind_entry(bind: &Bind, target: String) -> Result<BindEntry> {
    if bind.has_options() {
        return Err(no_text("mount", "a bind with MountOptions or id maps"));
    }
    let opens_devices = !bind.flags.contains(MountFlags::NO_DEV);
    if opens_devices && bind.closed {
        return Err(no_text("mount", "a bind that is nodev first and dev then"));
    }
    Ok(BindEntry {
        source: path_text(&bind.source)?,
        target,
        read_only: None,
        optional: None,
        non_recursive: yes(!bind.recursive),
        noexec: yes(bind.flags.contains(MountFlags::NO_EXEC)),
        nodev: yes(bind.closed),
        suid: yes(!bind.flags.contains(MountFlags::NO_SUID)),
        dev: yes(opens_devices),
        disk_limit: bind.disk_limit.map(disk_limit_key),
    })
}

fn file_entry(file: &MemoryFile, target: String) -> FileEntry {
    let contents = str::from_utf8(&file.bytes).map(str::to_owned);
    FileEntry {
        target,
        hex: contents.is_err().then(|| Text(Hex(file.bytes.to_vec()))),
        text: contents.ok(),
        mode: Some(Text(Mode(file.mode))).filter(|mode| mode.0.0 != 0o644),
        writable: yes(!file.flags.contains(MountFlags::READ_ONLY)),
        noexec: yes(file.flags.contains(MountFlags::NO_EXEC)),
    }
}
