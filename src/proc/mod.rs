//! Parsers for text of the kernel and the system. They take the text, or the directory that
//! contains the file.

pub(crate) mod identity;
pub(crate) mod mountinfo;
pub(crate) mod subid;
pub(crate) mod user_ns;
