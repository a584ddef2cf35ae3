//! A judged policy, with the last setup that was written for it.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::emit::{Setup, SetupKey, caller_copies};
use super::lost_rights::Rights;
use crate::error::{Error, Result, Step};
use crate::feature::{Enforcement, Feature};
use crate::judge::Judgement;
use crate::namespace::Outside;
use crate::policy::Policy;
use crate::sys::mutex;

/// The judgement of a policy, and the limitations of the host that runs have shown.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) judgement: Arc<Judgement>,
    /// The policy for further programs.
    pub(super) entry: Arc<Policy>,
    template: Option<BorrowedFd<'static>>,
    /// True if a run has shown that the template is of no use.
    no_template: AtomicBool,
    /// True as long as sandboxes start from the sparse mount namespace.
    sparse: AtomicBool,
    /// True if a run has shown that mounts do not take exchanged ids.
    no_exchange: AtomicBool,
    /// Why the sandboxes do not show their control groups, if a run has shown that they cannot.
    no_groups: OnceLock<String>,
    setup: Mutex<Option<Arc<Setup>>>,
    /// The rights that the judgement relies on, if it is kept for later.
    rights: Option<Rights>,
}

impl Compiled {
    /// Judges the policy once, for all its runs. [`Policy::judge`] explains `thorough`.
    pub(crate) fn new(policy: &Policy, thorough: bool) -> Result<Self> {
        let judgement = policy.judge(thorough)?;
        Ok(Compiled {
            entry: Arc::new(policy.without_descriptors()),
            template: policy.template(),
            no_template: AtomicBool::new(false),
            sparse: AtomicBool::new(policy.fits_sparse(caller_copies(&judgement))),
            judgement: Arc::new(judgement),
            no_exchange: AtomicBool::new(false),
            no_groups: OnceLock::new(),
            setup: Mutex::default(),
            rights: thorough.then(Rights::now),
        })
    }

    /// Writes the setup in advance, without the control group and the scratch directory, which are
    /// made for each run. So a missing path of the host is found now.
    pub(crate) fn write_setup(&self, policy: &Policy) -> Result<()> {
        let template = self.template();
        let write = || {
            let key = SetupKey::without_resources(template, self.exchanges());
            self.setup(policy, &key, template)
        };
        let setup = match write() {
            Err(error) if self.exchanges() && self.lacks_exchange(&error) => write()?,
            written => written?,
        };
        setup.plan.release();
        Ok(())
    }

    /// Returns whether the caller has lost a right since the judgement, which a new judgement would
    /// not know of.
    pub(super) fn has_lost_rights(&self) -> bool {
        self.rights.as_ref().is_some_and(|rights| rights.lost().is_some())
    }

    /// Adds a hint to an error for which a right is to blame that the caller has lost since the
    /// judgement.
    pub(super) fn hint_at_lost_rights(&self, error: Error) -> Error {
        match self.rights.as_ref().and_then(|rights| rights.hint(&error)) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// Returns the last setup, if it has this key and can be used again; else a new one.
    pub(super) fn setup(
        &self,
        policy: &Policy,
        key: &SetupKey,
        template: Option<BorrowedFd<'_>>,
    ) -> Result<Arc<Setup>> {
        let last = || mutex::lock(&self.setup);
        if let Some(setup) = last().as_ref().filter(|setup| setup.key == *key) {
            return Ok(setup.clone());
        }
        let setup = Arc::new(policy.emit_setup(&self.judgement, key, template)?);
        if !setup.plan.is_single_use() {
            *last() = Some(setup.clone());
        }
        Ok(setup)
    }

    /// Returns the template, unless a run has shown that it is of no use.
    pub(super) fn template(&self) -> Option<BorrowedFd<'static>> {
        self.template.filter(|_| !self.no_template.load(Ordering::Relaxed))
    }

    /// Notes that the template is of no use.
    pub(super) fn give_up_template(&self) {
        self.no_template.store(true, Ordering::Relaxed);
    }

    /// Returns whether sandboxes start from the sparse mount namespace.
    pub(super) fn sparse(&self) -> bool {
        self.sparse.load(Ordering::Relaxed)
    }

    /// Notes that a sandbox misses something in the sparse mount namespace.
    pub(super) fn give_up_sparse(&self) {
        self.sparse.store(false, Ordering::Relaxed);
    }

    /// Returns whether mounts may show the id of a run as another.
    pub(super) fn exchanges(&self) -> bool {
        let wanted = self.judgement.maps.as_ref().is_some_and(|maps| maps.outside == Outside::Exchanged);
        wanted && !self.no_exchange.load(Ordering::Relaxed)
    }

    /// Returns whether a step failed because a mount does not map ids. Then no later run tries to
    /// map them.
    pub(super) fn lacks_exchange(&self, error: &Error) -> bool {
        let lacks = error.step() == Step::IdMapMount;
        self.no_exchange.fetch_or(lacks, Ordering::Relaxed);
        lacks
    }

    /// Returns whether the program is shown its control groups, where the policy says so.
    pub(super) fn shows_groups(&self) -> bool {
        self.judgement.shows_groups && self.no_groups.get().is_none()
    }

    /// Notes why the program cannot be shown its control groups.
    pub(super) fn give_up_groups(&self, why: String) {
        let _ = self.no_groups.set(why);
    }

    /// Returns the judgement, with what runs have shown.
    pub(super) fn judgement_of_run(&self) -> Arc<Judgement> {
        let mut judgement = self.judgement.clone();
        if let Some(why) = self.no_groups.get() {
            let enforced = &mut Arc::make_mut(&mut judgement).enforced;
            enforced.set(Feature::Cgroupfs, Enforcement::Missing(why.clone()));
        }
        judgement
    }

    /// Adds the seccomp profile's explanation to an error.
    pub(super) fn explain_by_profile(&self, error: Error) -> Error {
        self.judgement.explain_by_profile(error)
    }
}
