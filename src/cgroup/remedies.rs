//! Remedies that several files of this folder name.

/// The same where nobody delegates, as systemd gives no user a hierarchy of v1.
pub(super) const DELEGATE_V1: &str = "run as root; or have root make a group of one name in each v1 hierarchy of the limits, \
                                      give it to this user (chown -R), and name it with cgroup_parent(); best_effort() of \
                                      the limit's Feature goes without it";

/// The remedy for a caller that may not make groups or move processes.
pub(super) const DELEGATE: &str = "run as root, or in a delegated group (systemd-run --user --scope -p Delegate=yes, or \
                                   systemd_scope() with the crate's feature systemd), or name one with \
                                   cgroup_parent(); best_effort() of the limit's Feature goes without it";
