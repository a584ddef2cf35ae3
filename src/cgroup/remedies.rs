//! Remedies that several files of this folder name.

/// The remedy for a caller that may not make groups or move processes.
pub(super) const DELEGATE: &str = "run as root, or in a delegated group (systemd-run --user --scope -p Delegate=yes, or \
                                   systemd_scope() with the crate's feature systemd), or name one with \
                                   cgroup_parent(); best_effort() of the limit's Feature goes without it";
