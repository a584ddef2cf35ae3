//! The inputs of one setup, made outside before the child exists: the control group, the scratch
//! directory, the ids, and the named descriptors of the setup.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Mutex;

use nix::errno::Errno;

use super::compiled::Compiled;
use super::emit::{Pty, SetupKey};
use super::location::Location;
#[cfg(feature = "oci")]
use super::unit::Standing;
use crate::cgroup::{self, Group, NamedDir, UnitId};
use crate::child::Resources;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::judge::Judgement;
use crate::mount::{self, ShownGroups, Upper};
use crate::namespace::{self, IdMap, IdMaps, Lease, Namespaces, Outside, exchanging};
use crate::owner::{self, Claim, Scratch};
use crate::plan::RunFds;
use crate::policy::Policy;
use crate::security::{RuleFile, Seccomp};
use crate::spawn::FailurePage;
use crate::stdio;
use crate::sys::mutex;

/// Makes a user namespace with these maps of users and groups, for the ids of mounts.
pub(super) type MakeUserNs = fn(Vec<IdMap>, Vec<IdMap>) -> Result<OwnedFd>;

/// The inputs of one setup. Dropping the inputs removes the resources.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(super) resources: Resources,
    pub(super) location: Location,
    /// The scope of systemd that was made for the sandbox.
    #[cfg(feature = "oci")]
    pub(super) standing: Option<Standing>,
    pub(super) failure: Option<FailurePage>,
    /// The maps of the policy, or these with the leased id.
    pub(super) maps: Option<IdMaps>,
    pub(super) ruleset: Option<OwnedFd>,
    /// The files of the rules of Landlock, if the sandbox may outlive its owner.
    pub(super) rule_files: Mutex<Vec<RuleFile>>,
    /// The template from which the sandbox's mount namespace is made; `None` for the caller's
    /// namespace. The template is made once, and stays.
    pub(super) template: Option<BorrowedFd<'static>>,
    /// The control groups that the program is shown.
    shown: ShownGroups,
    /// The path of the terminal that the program inherits.
    pub(super) terminal: Option<PathBuf>,
    /// The place of the terminal that the program has of its own.
    pty: Pty,
    /// The master of the program's terminal on the caller's devpts.
    pub(super) master: Option<OwnedFd>,
    /// The file system with the device nodes that this process has made.
    nodes: Option<OwnedFd>,
}

/// What is about to be made on the host for one sandbox.
#[derive(Debug, Clone, Default)]
pub(crate) struct Belongings {
    /// The name of the scratch directory, before its random part, and of the control group.
    pub(crate) name: String,
    /// The directories of the control group, if their name is the sandbox's own.
    pub(crate) groups: Vec<PathBuf>,
    /// The directories of a group that the caller has named which do not exist yet. Who makes them
    /// is not known: nothing in them is the sandbox's for certain.
    pub(crate) missing: Vec<PathBuf>,
    /// The directories of a group that the caller has named, once the sandbox has it.
    pub(crate) named: Vec<NamedDir>,
    /// The unit of systemd whose group that is.
    pub(crate) unit: Option<UnitId>,
    /// The directory in which the scratch directory is made.
    pub(crate) scratch: Option<PathBuf>,
}

/// The resources that stay between the runs of a policy: the parents of its groups, and the owner's
/// record that names them.
#[derive(Debug)]
pub(crate) struct KeptResources {
    _parents: Option<cgroup::ParentGuard>,
    _claim: Option<Claim>,
}

impl Inputs {
    /// Returns the v2 group that the child is born in.
    pub(super) fn birth_group(&self) -> Option<BorrowedFd<'_>> {
        self.resources
            .group
            .as_ref()
            .filter(|group| !group.refuses_births() && !self.has_boundary())
            .and_then(Group::v2_dir)
    }

    /// Returns whether the caller may not put the child into its group.
    pub(super) fn has_boundary(&self) -> bool {
        #[cfg(feature = "systemd")]
        return self.location.boundary.is_some();
        #[cfg(not(feature = "systemd"))]
        return false;
    }

    /// Returns the files of the rules of Landlock, as far as the stub has sent them.
    pub(super) fn known_rule_files(&self) -> Vec<RuleFile> {
        mutex::lock(&self.rule_files).clone()
    }

    /// Ends the process that has kept the sandbox's scope for it. The stub is in the group by now.
    pub(super) fn end_keeper(&self) -> Result<()> {
        #[cfg(feature = "oci")]
        if let Some(standing) = &self.standing {
            return standing.end_keeper(self.resources.group.as_ref());
        }
        Ok(())
    }

    /// Returns the key of the setup. `procs` is the `cgroup.procs` of a v2 group that the child
    /// is not born in.
    pub(super) fn key(&self, procs: Option<&OwnedFd>) -> SetupKey {
        let group = self.resources.group.as_ref();
        SetupKey {
            bounded: self.has_boundary(),
            groups: group.map_or_else(Vec::new, |group| group.entered_below(procs.is_some())),
            template: self.template.map(|fd| fd.as_raw_fd()),
            scratch: self.resources.scratch.as_ref().map(|scratch| scratch.layers()),
            exchanges: self.exchanges(),
            shown: self.shown.clone(),
            terminal: self.terminal.clone(),
            pty: self.pty,
            nodes: self.nodes.is_some(),
        }
    }

    /// Leases an id for this run, if the policy leaves the program's ids outside to the library.
    /// Without `exchange`, no id is leased that mounts would have to show as another.
    fn map_ids(&mut self, judgement: &Judgement, exchange: Option<MakeUserNs>, outlives: bool) -> Result<()> {
        let Some(maps) = &judgement.maps else { return Ok(()) };
        let lease = match (maps.outside, exchange) {
            (Outside::Leased, _) => namespace::lease(outlives)?,
            (Outside::Exchanged, Some(make)) => namespace::lease_for_mounts(outlives, |id| {
                let (uid, gid) = maps.single().ok_or_else(|| Error::new(Step::WriteIdMap, Errno::EINVAL))?;
                make(exchanging(uid, id).into(), exchanging(gid, id).into())
            })?,
            _ => None,
        };
        self.maps = Some(lease.as_ref().map_or_else(|| maps.clone(), |lease| maps.for_run(lease)));
        self.resources.lease = lease;
        Ok(())
    }

    /// Returns whether mounts show the leased id of the run as the id of the maps.
    pub(super) fn exchanges(&self) -> bool {
        self.exchange().is_some()
    }

    /// Returns the user namespace by which mounts exchange the leased id.
    pub(super) fn exchange(&self) -> Option<BorrowedFd<'_>> {
        self.resources.lease.as_ref().and_then(Lease::mounts)
    }

    /// Returns whether the program is shown control groups.
    pub(super) fn shows_groups(&self) -> bool {
        !self.shown.is_empty()
    }

    /// Shows the program no control groups.
    pub(super) fn give_up_groups(&mut self) {
        self.shown = ShownGroups::default();
    }

    /// Goes back to the id of the maps. No process has had the leased id.
    pub(super) fn give_up_exchange(&mut self, judgement: &Judgement) {
        self.resources.lease.take().into_iter().for_each(|lease| lease.end(true));
        self.maps = judgement.maps.clone();
    }

    /// Returns the named descriptors of this run's setup. `procs` is the `cgroup.procs` of a v2
    /// group that the child is not born in.
    pub(super) fn run_fds<'f>(&'f self, procs: Option<&'f OwnedFd>) -> RunFds<'f> {
        let v1 = self.resources.group.iter().flat_map(Group::v1_procs);
        RunFds {
            failure_page: self.failure.as_ref().map(AsFd::as_fd),
            cgroup_procs: v1.chain(procs.map(AsFd::as_fd)).collect(),
            ruleset: self.ruleset.as_ref().map(AsFd::as_fd),
            terminal: self.master.as_ref().map(AsFd::as_fd),
            nodes: self.nodes.as_ref().map(AsFd::as_fd),
        }
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        // The group is empty without what keeps the scope, and goes with it.
        #[cfg(feature = "oci")]
        drop(self.standing.take());
        self.resources.undo();
    }
}

impl Policy {
    /// Returns the user and group that the program is outside, if the caller's ids say.
    pub(super) fn user_outside(&self, inputs: &Inputs) -> Option<(u32, u32)> {
        match &inputs.maps {
            Some(maps) => maps.outside_of(self.user_inside()),
            None if self.namespaces.joins(Namespaces::USER) => None,
            None => Some(self.user_inside()),
        }
    }

    /// Prepares the terminal of the program: on the sandbox's devpts, which the stub does, or on
    /// the caller's.
    pub(super) fn open_terminal(&self, inputs: &mut Inputs) -> Result<()> {
        let mounts = || self.mounts.all(&self.surroundings(inputs.shown.clone()), None);
        if self.namespaces.new.contains(Namespaces::MOUNT) && mount::has_terminals(&mounts()) {
            inputs.pty = Pty::Inside;
        } else {
            inputs.pty = Pty::Outside;
            inputs.master = Some(stdio::open_terminal(None, self.user_outside(inputs))?);
        }
        Ok(())
    }

    /// Makes the resources that otherwise come and go with each run.
    pub(crate) fn keep_resources(&self, judgement: &Judgement) -> Result<KeptResources> {
        let wants_group = self.wants_group(judgement);
        let leaves_things = wants_group || self.scratch_base().is_some();
        let parent = self.group_parent().filter(|_| wants_group);
        Ok(KeptResources {
            _parents: parent.map(|parent| cgroup::host()?.hold(&judgement.limits, parent)).transpose()?,
            _claim: leaves_things.then(|| owner::claim(self.program.outlive_owner)).transpose()?,
        })
    }

    /// Returns whether a run needs a control group.
    fn wants_group(&self, judgement: &Judgement) -> bool {
        self.cgroup.is_some() || !judgement.limits.is_empty() || judgement.account_cpu
    }

    /// Returns the directory for the scratch directory, if the policy has one.
    fn scratch_base(&self) -> Option<PathBuf> {
        match self.mounts.root.as_ref().map(|root| &root.upper) {
            Some(Upper::Scratch(base)) => Some(base.clone().unwrap_or_else(std::env::temp_dir)),
            _ => None,
        }
    }

    /// Limits what the directories of the policy take on disk.
    fn limit_disks(&self, inputs: &Inputs) -> Result<()> {
        let scratch = inputs.resources.scratch.as_ref().map(Scratch::layers);
        self.mounts.limit_disks(scratch.as_deref())
    }

    /// Makes the inputs of one setup. The control group and the scratch directory are recorded
    /// before they exist.
    pub(super) fn make_inputs(&self, compiled: &Compiled, make_user_ns: MakeUserNs) -> Result<Inputs> {
        let made = self.make_noted_inputs(compiled, make_user_ns, &|_| Ok(()));
        made.map_err(|error| compiled.hint_at_lost_rights(error))
    }

    /// Makes the inputs of one setup. `note` is told what is about to be made on the host, if there
    /// is anything.
    pub(super) fn make_noted_inputs(
        &self,
        compiled: &Compiled,
        make_user_ns: MakeUserNs,
        note: &dyn Fn(&Belongings) -> Result<()>,
    ) -> Result<Inputs> {
        let judgement = &compiled.judgement;
        let mut inputs = Inputs::default();
        if judgement.seccomp.as_ref().is_some_and(Seccomp::needs_failure_page) {
            inputs.failure = Some(FailurePage::new()?);
        }
        inputs.template = compiled.template();
        inputs.map_ids(judgement, compiled.exchanges().then_some(make_user_ns), self.program.outlive_owner)?;
        self.mounts.make_id_maps(make_user_ns)?;
        if inputs.template.is_none() {
            let user_ns = self.namespaces.apart().contains(Namespaces::USER);
            let outside = |ids| inputs.maps.as_ref().map_or(Some(ids), |maps| maps.outside_of(ids));
            inputs.nodes = self.mounts.make_nodes(user_ns, outside);
        }
        if let Some(rules) = &self.landlock {
            inputs.ruleset = rules.make(&judgement.landlock)?;
        }
        inputs.resources.root_guard = self.mounts.root.as_ref().and_then(|root| root.guard.clone());
        let (wants_group, scratch_base) = (self.wants_group(judgement), self.scratch_base());
        if !wants_group && scratch_base.is_none() {
            self.limit_disks(&inputs)?;
            return Ok(inputs);
        }
        // The resources hold the claim, which is released only after the other resources are
        // removed.
        let claim = inputs.resources.claim.insert(owner::claim(self.program.outlive_owner)?);
        let scratch_base = scratch_base.map(|base| owner::scratch_base(&base)).transpose()?;
        let mut belongings =
            Belongings { name: claim.name().to_owned(), scratch: scratch_base.clone(), ..Default::default() };
        if wants_group {
            let host = cgroup::host()?;
            inputs.location = self.location(judgement, host)?;
            let account_cpu = judgement.account_cpu;
            let (limits, keeper) = (judgement.limits.clone(), None::<i32>);
            #[cfg(feature = "oci")]
            let (limits, keeper) = match (&self.unit, &self.cgroup) {
                (Some(unit), Some(path)) => {
                    let made = Standing::make(unit, path, host, &limits, self.setup_timeout());
                    let (standing, location) = made.map_err(|error| self.explain_by_check(error))?;
                    inputs.location = location;
                    belongings.unit = standing.id().cloned();
                    let standing = inputs.standing.insert(standing);
                    (standing.with_room(&limits), Some(standing.keeper()))
                }
                _ => (limits, keeper),
            };
            let (host, parent) = (inputs.location.host(host), inputs.location.parent.as_deref());
            let limits = &limits;
            // A group that the caller has named has no name by which a later owner could find it.
            let bases = if self.cgroup.is_some() { Vec::new() } else { host.bases(limits, parent) };
            claim.record_cgroups(&bases)?;
            match &self.cgroup {
                Some(path) => belongings.missing = Group::missing(host, path),
                None => belongings.groups = bases.iter().map(|base| base.join(claim.name())).collect(),
            }
            note(&belongings)?;
            let group = match &self.cgroup {
                Some(path) => Group::create_or_adopt(host, path, claim.name(), limits, account_cpu, keeper),
                None => Group::create(host, parent, claim.name(), limits, account_cpu),
            };
            let left = || claim.keep_if_left(&belongings.groups);
            let group = group.inspect_err(|_| left()).map_err(|error| self.explain_by_check(error))?;
            let group = inputs.resources.group.insert(group);
            if self.cgroup.is_some() {
                belongings.missing = Vec::new();
                belongings.named = group.named_dirs()?;
                note(&belongings)?;
            }
            refuse_frozen(group)?;
            if self.shows_groups() && compiled.shows_groups() {
                inputs.shown = shown_groups(group, host, self.binds_groups());
            }
        }
        if let Some(base) = scratch_base {
            if !wants_group {
                note(&belongings)?;
            }
            let setup = inputs.maps.as_ref().and_then(IdMaps::setup);
            let owner = setup.map(|(uid, gid)| (uid.outside, gid.outside));
            inputs.resources.scratch = Some(claim.make_scratch(&base, owner)?);
        }
        self.limit_disks(&inputs)?;
        Ok(inputs)
    }
}

/// Returns the control groups that the program is shown, with `binds` by their directories.
fn shown_groups(group: &Group, host: &cgroup::Host, binds: bool) -> ShownGroups {
    let cgroup::Shown { v2, v1, expected, silent, v2_dir, v1_dirs } = group.shown(host);
    if binds {
        return ShownGroups { dirs: Some((v2_dir, v1_dirs)), ..ShownGroups::default() };
    }
    ShownGroups { v2, v1, covered: expected, silent, has_v2: v2_dir.is_some(), dirs: None }
}

/// Refuses a frozen group. A clone into one hangs in the kernel, where no signal reaches the child.
pub(super) fn refuse_frozen(group: &Group) -> Result<()> {
    match group.frozen_above()? {
        Some(path) => Err(Error::message(ErrorKind::Setup, Step::JoinCgroup, "the control group is frozen")
            .at(path)
            .hint("thaw the group first, or choose another with cgroup_parent()")),
        None => Ok(()),
    }
}
