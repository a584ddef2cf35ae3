//! What is made outside for one sandbox, before a child exists: control group, scratch directory, and descriptors that the
//! setup is given.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use caps::{CapSet, Capability};
use nix::errno::Errno;

use super::Sandbox;
use super::judge::{Judgement, has};
use super::launch::Compiled;
use super::setup::Shape;
use crate::cgroup::{self, Device, DeviceAccess, Devices, Group, Host};
use crate::error::{Error, Result, Step};
use crate::mount::{self, Upper};
use crate::namespace::{self, IdMaps, Lease, Namespaces, Outside, exchanging};
use crate::owner::{self, Claim, Scratch};
use crate::plan::RunFds;
use crate::security::Seccomp;
use crate::spawn::FailurePage;

/// How long a group that was made for nothing may take to go.
const UNDO_TIMEOUT: Duration = Duration::from_secs(1);

/// What is made outside for one sandbox. Dropping it takes everything away again.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) claim: Option<Claim>,
    pub(super) scratch: Option<Scratch>,
    pub(super) group: Option<Group>,
    pub(super) site: Site,
    pub(super) failure: Option<FailurePage>,
    pub(super) lease: Option<Lease>,
    /// The policy's, or those with the leased id.
    pub(super) maps: Option<IdMaps>,
    ruleset: Option<OwnedFd>,
    /// Where the sandbox's mount namespace is made from, if not from the caller's. It is made once, and stays.
    pub(super) template: Option<BorrowedFd<'static>>,
}

/// What stays between the runs of a policy: the levels above its groups, and the owner's record, on which they are.
#[derive(Debug)]
pub(super) struct Kept {
    _levels: Option<cgroup::ParentGuard>,
    _claim: Option<Claim>,
}

/// Where the group stands.
#[derive(Debug, Default)]
pub(super) struct Site {
    pub(super) parent: Option<PathBuf>,
    /// The caller may not put the child there by itself.
    #[cfg(feature = "systemd")]
    pub(super) fence: Option<super::scope::Fence>,
}

impl Site {
    /// The host as it is for groups here.
    fn host<'s>(&'s self, host: &'s Host) -> &'s Host {
        #[cfg(feature = "systemd")]
        if let Some(fence) = &self.fence {
            return &fence.host;
        }
        host
    }

    /// What puts a child into its group where the caller may not.
    pub(super) fn entrance(
        &self,
        _group: Option<&Group>,
        _patience: Duration,
    ) -> Option<Box<dyn Fn(i32) -> Result<()>>> {
        #[cfg(feature = "systemd")]
        if let (Some(fence), Some(group)) = (&self.fence, _group) {
            return Some(fence.entrance(group, _patience));
        }
        None
    }
}

impl Made {
    /// The v2 group that the child is born in.
    pub(super) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.group.as_ref().filter(|group| !group.is_in_oom_group() && !self.is_fenced()).and_then(Group::v2_dir)
    }

    pub(super) fn is_fenced(&self) -> bool {
        #[cfg(feature = "systemd")]
        return self.site.fence.is_some();
        #[cfg(not(feature = "systemd"))]
        return false;
    }

    /// What the setup's ops have to know. `procs`: those of a v2 group that the child is not born into.
    pub(super) fn shape(&self, procs: Option<&OwnedFd>) -> Shape {
        let group = self.group.as_ref();
        Shape {
            fenced: self.is_fenced(),
            procs: group.map_or(0, |group| group.v1_procs().count()) + usize::from(procs.is_some()),
            group: group.and_then(|group| group.name().parent()).map(Path::to_owned),
            template: self.template.map(|fd| fd.as_raw_fd()),
            scratch: self.scratch.as_ref().map(|scratch| scratch.layers()),
            exchanges: self.exchanges(),
        }
    }

    /// Takes an id for this run, where the policy leaves it to the library who the program is outside. Without `exchange` no
    /// mounts are to show it as another.
    fn map_ids(&mut self, judgement: &Judgement, exchange: bool) -> Result<()> {
        let Some(maps) = &judgement.maps else { return Ok(()) };
        self.lease = match maps.outside {
            Outside::Leased => namespace::lease()?,
            Outside::Exchanged if exchange => namespace::lease_for_mounts(|id| exchange_user_ns(maps, id))?,
            _ => None,
        };
        self.maps = Some(self.lease.as_ref().map_or_else(|| maps.clone(), |lease| maps.for_run(lease)));
        Ok(())
    }

    /// Whether mounts show the run's own id as the one that stays.
    pub(super) fn exchanges(&self) -> bool {
        self.exchange().is_some()
    }

    pub(super) fn exchange(&self) -> Option<BorrowedFd<'_>> {
        self.lease.as_ref().and_then(Lease::mounts)
    }

    /// Goes back to the id that stays. Nobody has been the other.
    pub(super) fn give_up_exchange(&mut self, judgement: &Judgement) {
        self.lease.take().into_iter().for_each(|lease| lease.end(true));
        self.maps = judgement.maps.clone();
    }

    /// The descriptors that the setup of this run has by name. `procs`: those of a v2 group that the child is not born into.
    pub(super) fn run_fds<'f>(&'f self, procs: Option<&'f OwnedFd>) -> RunFds<'f> {
        let v1 = self.group.iter().flat_map(Group::v1_procs);
        RunFds {
            failure_page: self.failure.as_ref().map(AsFd::as_fd),
            cgroup_procs: v1.chain(procs.map(AsFd::as_fd)).collect(),
            ruleset: self.ruleset.as_ref().map(AsFd::as_fd),
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.claim.as_ref().is_some_and(|claim| !claim.is_here()) {
            // A fork of the owner: nothing of it is its own. A group is but closed when it is dropped.
            return self.scratch.take().into_iter().for_each(Scratch::forget);
        }
        // Nobody is in the group.
        let group_gone = self.group.take().is_none_or(|group| group.remove(UNDO_TIMEOUT).is_ok());
        let scratch_gone = self.scratch.as_mut().is_none_or(|scratch| scratch.remove(None).is_ok());
        if group_gone {
            self.lease.take().into_iter().for_each(|lease| lease.end(true));
        }
        if !(group_gone && scratch_gone) {
            self.claim.take().into_iter().for_each(Claim::leave);
        }
    }
}

impl Sandbox {
    /// The empty mount namespace, where it can be used: it belongs to the caller's user namespace, and the host's files
    /// cannot be found from it.
    pub(super) fn template(&self) -> Option<BorrowedFd<'static>> {
        if self.fits_template() && may_use_template() { self.mounts.template() } else { None }
    }

    fn fits_template(&self) -> bool {
        self.namespaces.new.contains(Namespaces::MOUNT)
            && !self.namespaces.new.contains(Namespaces::USER)
            && self.namespaces.join.is_empty()
            // Where its rules forbid making a node, the host's own is bound.
            && self.limits.devices.as_ref().is_none_or(may_make_nodes)
            && self.mounts.fits_template()
    }

    /// Whether each mount of the host's is a descriptor of the caller's.
    pub(super) fn opens_mounts_ahead(&self) -> bool {
        let is_others = self.namespaces.new.contains(Namespaces::USER) && has(Capability::CAP_SYS_ADMIN);
        is_others || (self.fits_template() && may_use_template())
    }

    /// What otherwise comes and goes with each of the runs.
    pub(super) fn keep(&self, judgement: &Judgement) -> Result<Kept> {
        let wants_group = wants_group(judgement);
        let leaves_things = wants_group || self.scratch_base().is_some();
        let parent = self.cgroup_parent.as_deref().filter(|_| wants_group);
        Ok(Kept {
            _levels: parent.map(|parent| cgroup::host()?.hold(&judgement.limits, parent)).transpose()?,
            _claim: leaves_things.then(|| owner::claim(self.program.outlive_owner)).transpose()?,
        })
    }

    fn scratch_base(&self) -> Option<PathBuf> {
        match self.mounts.root.as_ref().map(|root| &root.upper) {
            Some(Upper::Scratch(base)) => Some(base.clone().unwrap_or_else(std::env::temp_dir)),
            _ => None,
        }
    }

    /// The control group and the scratch directory, each on record before it exists.
    pub(super) fn make(&self, compiled: &Compiled) -> Result<Made> {
        let judgement = &compiled.judgement;
        let mut made = Made::default();
        if judgement.seccomp.as_ref().is_some_and(Seccomp::needs_failure_page) {
            made.failure = Some(FailurePage::new()?);
        }
        made.template = compiled.template();
        made.map_ids(judgement, compiled.exchanges())?;
        if let Some(rules) = &self.landlock {
            made.ruleset = rules.make(&judgement.landlock)?;
        }
        let (wants_group, scratch_base) = (wants_group(judgement), self.scratch_base());
        if !wants_group && scratch_base.is_none() {
            return Ok(made);
        }
        // Held by what it is the record of: it may go only after the rest has.
        let claim = made.claim.insert(owner::claim(self.program.outlive_owner)?);
        if wants_group {
            let host = cgroup::host()?;
            made.site = self.site(judgement, host)?;
            let (host, parent) = (made.site.host(host), made.site.parent.as_deref());
            let bases = host.bases(&judgement.limits, parent);
            claim.record_cgroups(&bases)?;
            let group = Group::create(host, parent, claim.name(), &judgement.limits, judgement.account_cpu);
            let left = || claim.keep_if_left(&bases.iter().map(|base| base.join(claim.name())).collect::<Vec<_>>());
            let group = group.inspect_err(|_| left()).map_err(|error| self.as_checked(error))?;
            made.group = Some(group);
            refuse_frozen(made.group.as_ref())?;
        }
        if let Some(base) = scratch_base {
            let setup = made.maps.as_ref().and_then(IdMaps::setup);
            let owner = setup.map(|(uid, gid)| (uid.outside, gid.outside));
            let base = std::path::absolute(&base).map_err(|error| Error::io(Step::Scratch, &error).at(&base))?;
            made.scratch = Some(claim.make_scratch(&base, owner)?);
        }
        Ok(made)
    }

    /// What `check` says to a failure of a group in a scope.
    pub(super) fn as_checked(&self, error: Error) -> Error {
        #[cfg(feature = "systemd")]
        if self.systemd_scope.is_some() {
            return self.judge(true).err().unwrap_or(error);
        }
        error
    }

    fn site(&self, _judgement: &Judgement, _host: &Host) -> Result<Site> {
        #[cfg(feature = "systemd")]
        if let Some(scope) = &self.systemd_scope {
            return self.site_in_scope(scope, &_judgement.limits, _host);
        }
        Ok(Site {
            parent: self.cgroup_parent.clone(),
            #[cfg(feature = "systemd")]
            fence: None,
        })
    }
}

/// A user namespace that exchanges `id` and that of `maps`: one that a waiting sandbox of no other kind has, for a moment.
fn exchange_user_ns(maps: &IdMaps, id: u32) -> Result<OwnedFd> {
    let (uid, gid) = maps.single().ok_or_else(|| Error::new(Step::WriteIdMap, Errno::EINVAL))?;
    let sandbox = exchanging(uid, id).into_iter().fold(Sandbox::new().user_ns(), Sandbox::uid_map);
    let sandbox = exchanging(gid, id).into_iter().fold(sandbox, Sandbox::gid_map);
    sandbox.prepare_as(false)?.park()?.user_namespace()
}

fn wants_group(judgement: &Judgement) -> bool {
    !judgement.limits.is_empty() || judgement.account_cpu
}

/// Whether the rules let the setup make the nodes of a /dev.
fn may_make_nodes(rules: &Devices) -> bool {
    let mut nodes = mount::NODES.iter().map(|(_, major, minor)| Device::char(*major, *minor));
    nodes.all(|node| rules.allows(node, DeviceAccess::MKNOD))
}

/// What setns(2) into it, chroot(2) and mknod(2) ask for; the caller may have given up one of these.
fn may_use_template() -> bool {
    let needed = [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_CHROOT, Capability::CAP_MKNOD];
    caps::read(None, CapSet::Effective).is_ok_and(|held| needed.iter().all(|capability| held.contains(capability)))
}

/// A clone into a frozen group hangs in the kernel, where no signal reaches it.
fn refuse_frozen(group: Option<&Group>) -> Result<()> {
    let frozen = group.map(Group::frozen_above).transpose()?.flatten();
    match frozen {
        Some(path) => Err(Error::message(crate::ErrorKind::Setup, Step::JoinCgroup, "the control group is frozen")
            .at(path)
            .hint("thaw it first, or choose another with cgroup_parent()")),
        None => Ok(()),
    }
}
