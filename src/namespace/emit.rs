//! From the policy to ops: joined and new namespaces, and what is set in them.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use super::choice::Choice;
use super::kinds::Namespaces;
use super::maps::{IdMaps, Writer};
use super::source::{JoinSource, open_path};
use super::sysctl;
use super::user_limit::emit_user_limits;
use crate::error::{Problem, Result, Step};
use crate::plan::{Arg, Plan, PlanFd, Request};

impl Choice {
    /// Writes the id maps: the stub does where it may, else the caller from outside.
    pub(crate) fn emit_maps(&self, plan: &mut Plan, maps: &IdMaps) {
        if maps.writer != Writer::Inside {
            plan.request(Step::WriteIdMap, Request::IdMaps);
            return;
        }
        for (file, text) in maps.files() {
            plan.write_file(Step::WriteIdMap, &format!("/proc/self/{file}"), &text);
        }
    }

    /// Limits what the users of the new user namespace take of the kernel's tables. To be called
    /// after the maps are written.
    pub(crate) fn emit_user_limits(&self, plan: &mut Plan) {
        emit_user_limits(plan, &self.user_limits);
    }

    /// Writes the settings of new namespaces. To be called after the maps are written, which give
    /// the right to it, and before another /proc is there.
    pub(crate) fn emit_sysctls(&self, plan: &mut Plan) {
        sysctl::emit(plan, &self.sysctls, self.new);
    }

    /// Returns the problems of settings that no namespace of the sandbox has. After a user
    /// namespace is joined, new ones are made late: until then the settings would be the host's.
    pub(crate) fn invalid_sysctls(&self) -> Vec<Problem> {
        if self.joins(Namespaces::USER) && sysctl::owners(&self.sysctls).intersects(self.new) {
            let reason = "the namespaces that have the settings are made after the user namespace is joined";
            return vec![Problem::unsupported("sysctl", reason, "leave them out, or make a user namespace")];
        }
        sysctl::invalid(&self.sysctls, self.apart())
    }

    /// Returns the namespaces in which the sandbox changes something.
    pub(super) fn changes(&self) -> Namespaces {
        let named = self.hostname.is_some() || self.domainname.is_some();
        let names = if named { Namespaces::UTS } else { Namespaces::empty() };
        sysctl::owners(&self.sysctls) | names
    }

    /// Joins the namespaces that exist and makes those that the clone did not make, in the order
    /// that the kernel needs. To be called after the control groups are entered. With a `template`,
    /// a mount namespace, the new mount namespace is made from the template, not from the caller's.
    pub(crate) fn emit(&self, plan: &mut Plan, template: Option<BorrowedFd<'_>>) -> Result<()> {
        self.emit_joins(plan)?;
        sysctl::emit(plan, &self.sysctls, self.apart() - self.new);
        if let Some(template) = template {
            let number = plan.fd(PlanFd::Held(template.as_raw_fd()));
            let flag = Namespaces::MOUNT.bits();
            plan.call(Step::Unshare, libc::SYS_setns, [number.into(), flag.into()]).at("empty mount namespace");
        }
        let late = self.new - self.at_clone(template.is_some()) - Namespaces::TIME;
        if !late.is_empty() {
            plan.call(Step::Unshare, libc::SYS_unshare, [late.bits().into()]);
        }
        if self.new.contains(Namespaces::TIME) && self.joins(Namespaces::USER) {
            self.emit_new_time(plan);
        }
        if let Some(name) = &self.hostname {
            let text = plan.string(name);
            plan.call(Step::Hostname, libc::SYS_sethostname, [text.into(), name.len().into()]).at(name);
        }
        if let Some(name) = &self.domainname {
            let text = plan.string(name);
            plan.call(Step::Domainname, libc::SYS_setdomainname, [text.into(), name.len().into()]).at(name);
        }
        if self.new.contains(Namespaces::NET) {
            emit_loopback(plan);
        }
        if self.reclones() {
            plan.reclone();
        }
        Ok(())
    }

    /// Leaves the new mount namespace for the one that the sandbox ends in, if that is another. To be
    /// called in the new root, while the stub has the caller's rights.
    ///
    /// setns(2) puts the stub into the root of that namespace. So it takes a copy of its own root
    /// along, with all mounts below, and enters that by chroot(2). The copy belongs to no namespace:
    /// nobody finds it by a path, `..` leads nowhere above it, and it goes with its last process. As
    /// the stub's root is not that of its mount namespace, the kernel makes it no user namespace.
    pub(crate) fn emit_end(&self, plan: &mut Plan) -> Result<()> {
        const OPEN_TREE_CLONE: u64 = 1;
        const AT_RECURSIVE: u64 = 0x8000;
        let Some(JoinSource::Path(path)) = &self.ends_in else { return Ok(()) };
        let target = plan.fd(PlanFd::Shared(Arc::new(open_path(path, Namespaces::MOUNT)?)));
        let (top, here, tree) = (plan.string("/"), plan.string("."), plan.slot());
        let flags = OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC as u64;
        let cwd = Arg::from(libc::AT_FDCWD);
        plan.call(Step::OpenTree, libc::SYS_open_tree, [cwd, top.into(), flags.into()]).at("/").store(tree);
        plan.call(Step::JoinNamespace, libc::SYS_setns, [target.into(), Namespaces::MOUNT.bits().into()])
            .at(path)
            .hint(
                "entering a mount namespace needs CAP_SYS_ADMIN and CAP_SYS_CHROOT in the user namespace that owns it",
            );
        plan.call(Step::PivotRoot, libc::SYS_fchdir, [tree.into()]).at("/");
        plan.call(Step::PivotRoot, libc::SYS_chroot, [here.into()]).at("/");
        plan.close(Step::OpenTree, tree);
        Ok(())
    }

    /// Makes the time namespace, unless it is to belong to a user namespace that is still to be
    /// joined. To be called while the stub is dumpable and has not changed its user: after that the
    /// stub's files in /proc are root's, and an ordinary user cannot write the offsets.
    pub(crate) fn emit_time(&self, plan: &mut Plan) {
        if self.new.contains(Namespaces::TIME) && !self.joins(Namespaces::USER) {
            self.emit_new_time(plan);
        }
    }

    /// Makes the time namespace, writes its offsets and enters it. The offsets can be written only
    /// before anybody is in the namespace, and the process that made the namespace is not: it
    /// enters by setns(2).
    fn emit_new_time(&self, plan: &mut Plan) {
        plan.call(Step::Unshare, libc::SYS_unshare, [Namespaces::TIME.bits().into()]);
        let offsets: String = [("monotonic", self.monotonic), ("boottime", self.boottime)]
            .into_iter()
            .filter_map(|(clock, offset)| offset.map(|offset| format!("{clock} {}\n", offset.text())))
            .collect();
        if !offsets.is_empty() {
            plan.write_file(Step::TimeOffsets, "/proc/self/timens_offsets", &offsets)
                .hint("a clock cannot fall below zero, nor go beyond some 146 years");
        }
        let (name, slot) = (plan.string("/proc/self/ns/time_for_children"), plan.slot());
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        plan.call(Step::Unshare, libc::SYS_openat, [Arg::from(libc::AT_FDCWD), name.into(), flags.into()]).store(slot);
        plan.call(Step::Unshare, libc::SYS_setns, [slot.into(), Namespaces::TIME.bits().into()]);
        plan.close(Step::Unshare, slot);
    }
}

/// Brings the loopback device up, as `ifconfig lo up` does: a new network namespace has one that is
/// down.
fn emit_loopback(plan: &mut Plan) {
    let slot = plan.slot();
    // struct ifreq: a name of 16 bytes, then a union that begins with the flags.
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&((libc::IFF_UP | libc::IFF_RUNNING) as u16).to_ne_bytes());
    let request = plan.bytes(&request);
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    plan.call(Step::Loopback, libc::SYS_socket, [libc::AF_INET.into(), kind.into(), 0.into()]).store(slot);
    #[allow(clippy::unnecessary_cast, reason = "the type of the constant differs between C libraries")]
    let set_flags = Arg::from(libc::SIOCSIFFLAGS as u64);
    plan.call(Step::Loopback, libc::SYS_ioctl, [slot.into(), set_flags, request.into()]);
    plan.close(Step::Loopback, slot);
}
