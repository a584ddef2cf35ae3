//! Remedies that several files of this folder name.

/// The remedy for a caller that may not make groups or move processes.
pub(super) const DELEGATE: &str = "run as root, or in a delegated group (systemd-run --user --scope -p Delegate=yes), \
                                   or name one with cgroup_parent";
