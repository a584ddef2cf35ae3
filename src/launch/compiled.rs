//! A policy that has been judged, with the setup that was last written for it.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::setup::{Setup, Shape};
use crate::error::{Error, Result, Step};
use crate::judge::Judgement;
use crate::namespace::Outside;
use crate::policy::Policy;
use crate::sys::mutex;

/// The judgement of a policy, and what was learnt while it was carried out.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) judgement: Judgement,
    template: Option<BorrowedFd<'static>>,
    /// The template turned out to be of no use.
    no_template: AtomicBool,
    /// Mounts turned out not to take ids that are exchanged.
    no_exchange: AtomicBool,
    setup: Mutex<Option<Arc<Setup>>>,
}

impl Compiled {
    /// Judges the policy, for as many runs as are wanted. `thorough` as for [`Policy::judge`].
    pub(crate) fn new(policy: &Policy, thorough: bool) -> Result<Self> {
        Ok(Compiled {
            judgement: policy.judge(thorough)?,
            template: policy.template(),
            no_template: AtomicBool::new(false),
            no_exchange: AtomicBool::new(false),
            setup: Mutex::default(),
        })
    }

    /// Writes the setup as it is without a control group and a scratch directory, which are made for each run: a path of the
    /// host that does not exist is found now.
    pub(crate) fn write_ahead(&self, policy: &Policy) -> Result<()> {
        let template = self.template();
        let write = || {
            let shape = Shape::ahead(template, self.exchanges());
            self.setup(policy, &shape, template)
        };
        let setup = match write() {
            Err(error) if self.exchanges() && self.lacks_exchange(&error) => write()?,
            written => written?,
        };
        setup.plan.release();
        Ok(())
    }

    /// The setup that was written last, if it is of this shape and can be used again; else a new one.
    pub(super) fn setup(&self, policy: &Policy, shape: &Shape, template: Option<BorrowedFd<'_>>) -> Result<Arc<Setup>> {
        let last = || mutex::lock(&self.setup);
        if let Some(setup) = last().as_ref().filter(|setup| setup.shape == *shape) {
            return Ok(setup.clone());
        }
        let setup = Arc::new(policy.emit_setup(&self.judgement, shape, template)?);
        if !setup.plan.is_single_use() {
            *last() = Some(setup.clone());
        }
        Ok(setup)
    }

    pub(super) fn template(&self) -> Option<BorrowedFd<'static>> {
        self.template.filter(|_| !self.no_template.load(Ordering::Relaxed))
    }

    /// Notes that the template is of no use.
    pub(super) fn give_up_template(&self) {
        self.no_template.store(true, Ordering::Relaxed);
    }

    /// Returns whether mounts may show the ids of runs as others.
    pub(super) fn exchanges(&self) -> bool {
        let wanted = self.judgement.maps.as_ref().is_some_and(|maps| maps.outside == Outside::Exchanged);
        wanted && !self.no_exchange.load(Ordering::Relaxed)
    }

    /// Returns whether a step failed because a mount does not map ids; then none is asked to any more.
    pub(super) fn lacks_exchange(&self, error: &Error) -> bool {
        let lacks = error.step() == Step::IdMapMount;
        self.no_exchange.fetch_or(lacks, Ordering::Relaxed);
        lacks
    }

    /// Adds what the seccomp profile has to say about an error.
    pub(super) fn explain_by_profile(&self, error: Error) -> Error {
        match &self.judgement.seccomp {
            Some(profile) => profile.explain(error),
            None => error,
        }
    }
}
