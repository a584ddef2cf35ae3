//! What the program may ask of the kernel, beside namespaces and mounts.
//!
//! Stage: inside, after the last mount and the last path that has to be found; the restriction itself comes after the
//! change of user, when nothing of the setup needs a right any more.

mod landlock;

pub use landlock::Landlock;
