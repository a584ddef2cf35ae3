//! Other limits for a container that lives.

use oci_spec::runtime::LinuxResources;

use super::config::resources_from_json;
use super::state::Coupled;
use crate::error::Result;

/// Other limits for a container: a file of an engine, which has properties of `linux.resources`.
/// [`Container::update`](super::Container::update) takes it.
///
/// ```
/// use ringfence::oci::Update;
///
/// let update = Update::from_json(br#"{"memory": {"limit": 67108864}, "tide": 1}"#)?;
/// assert!(update.warnings()[0].starts_with("linux.resources.tide"));
/// # Ok::<(), ringfence::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Update {
    pub(super) resources: LinuxResources,
    warnings: Vec<String>,
}

impl Update {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the text is not JSON, or not of the
    /// types of the specification.
    pub fn from_json(text: &[u8]) -> Result<Update> {
        let (resources, warnings) = resources_from_json(text)?;
        Ok(Update { resources, warnings })
    }

    /// Returns what an update passes over, each with its path: properties that are not known.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Returns the limits of a configuration that the kernel takes together with others.
pub(super) fn coupled(resources: &LinuxResources) -> Coupled {
    let (memory, cpu) = (resources.memory().as_ref(), resources.cpu().as_ref());
    Coupled {
        memory: memory.and_then(|memory| memory.limit()).filter(|limit| *limit != 0),
        swap: memory.and_then(|memory| memory.swap()).filter(|sum| *sum != 0),
        quota: cpu.and_then(|cpu| cpu.quota()).filter(|quota| *quota != 0),
        period: cpu.and_then(|cpu| cpu.period()).filter(|period| *period != 0),
    }
}

/// Adds to an update what the kernel wants to be told with it and is not to change: to a quota its
/// period, to a limit of memory that of memory and swap, and the other way round. Returns what is
/// known from then on. The rules for devices are left out, as an update changes none, and so is a
/// number of processes that is 0, as that of every other limit.
pub(super) fn complete(update: &mut LinuxResources, known: &Coupled) -> Coupled {
    let new = coupled(update);
    let mut all = Coupled {
        memory: new.memory.or(known.memory),
        swap: new.swap.or(known.swap),
        quota: new.quota.or(known.quota),
        period: new.period.or(known.period),
    };
    // Without a limit of memory there can be none of both.
    if new.memory == Some(-1) && new.swap.is_none() && all.swap.is_some() {
        all.swap = Some(-1);
    }
    update.set_devices(None);
    if update.pids().is_some_and(|pids| pids.limit() == 0) {
        update.set_pids(None);
    }
    if let Some(memory) = update.memory_mut().as_mut().filter(|_| new.memory.is_some() || new.swap.is_some()) {
        memory.set_limit(all.memory).set_swap(all.swap);
    }
    if let Some(cpu) = update.cpu_mut().as_mut().filter(|_| new.quota.is_some() || new.period.is_some()) {
        cpu.set_quota(all.quota).set_period(all.period);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> LinuxResources {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_update_is_told_with_what_it_does_not_change() {
        let known = coupled(&read(r#"{"memory": {"limit": 100, "swap": 200}, "cpu": {"quota": 5, "period": 50}}"#));
        let completed = |text: &str| {
            let mut update = read(text);
            let known = complete(&mut update, &known);
            (coupled(&update), known)
        };
        let (told, known_then) = completed(r#"{"memory": {"limit": 150}, "devices": [{"allow": true}]}"#);
        assert_eq!((told.memory, told.swap, told.quota), (Some(150), Some(200), None));
        assert_eq!((known_then.memory, known_then.quota, known_then.period), (Some(150), Some(5), Some(50)));
        let (told, _) = completed(r#"{"cpu": {"quota": 7}}"#);
        assert_eq!((told.quota, told.period, told.memory), (Some(7), Some(50), None));
        let (told, _) = completed(r#"{"cpu": {"period": 70}}"#);
        assert_eq!((told.quota, told.period), (Some(5), Some(70)));
        let (told, known_then) = completed(r#"{"memory": {"limit": -1}}"#);
        assert_eq!((told.memory, told.swap, known_then.swap), (Some(-1), Some(-1), Some(-1)));
        let (told, _) = completed(r#"{"pids": {"limit": 7}, "cpu": {"shares": 7}, "memory": {"reservation": 7}}"#);
        assert_eq!(told, Coupled::default());
    }
}
