//! One value for one file of a group.

use std::borrow::Cow;
use std::ffi::CStr;
use std::fmt::Display;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::controllers::Controllers;
use super::kernfs;
use super::limits::controller_of;
use crate::feature::Feature;

/// The greatest weight that the scheduler bfq knows. Its default is 100, like that of `io.weight`.
pub(super) const BFQ_HEAVIEST: u64 = 1000;

/// A write that sets a limit: the file and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) feature: Feature,
    pub(super) file: Cow<'static, CStr>,
    pub(super) value: String,
    controllers: Controllers,
    other: Option<Other>,
}

/// A second file, which a kernel may have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Other {
    file: Cow<'static, CStr>,
    value: String,
    /// True if this file alone is enough, so that the first one may be missing.
    suffices: bool,
}

impl Write {
    pub(super) fn new(feature: Feature, file: impl Into<Cow<'static, CStr>>, value: impl Display) -> Self {
        Write { feature, file: file.into(), value: value.to_string(), controllers: controller_of(feature), other: None }
    }

    /// Adds a second file, which is written too if it exists.
    pub(super) fn and(self, file: impl Into<Cow<'static, CStr>>, value: impl Display) -> Self {
        let other = Other { file: file.into(), value: value.to_string(), suffices: false };
        Write { other: Some(other), ..self }
    }

    /// Adds a second file. Each of the two files is written if it exists, and one of them must
    /// exist.
    pub(super) fn or(self, file: impl Into<Cow<'static, CStr>>, value: impl Display) -> Self {
        let other = Other { file: file.into(), value: value.to_string(), suffices: true };
        Write { other: Some(other), ..self }
    }

    /// Returns the write for a file of another controller than that of the feature.
    pub(super) fn of(self, controllers: Controllers) -> Self {
        Write { controllers, ..self }
    }

    pub(super) fn controller(&self) -> Controllers {
        self.controllers
    }

    /// Returns whether this is the period over which `quota` counts, both on v1.
    pub(super) fn is_period_of(&self, quota: &Write) -> bool {
        let pairs = [(c"cpu.cfs_period_us", c"cpu.cfs_quota_us"), (c"cpu.rt_period_us", c"cpu.rt_runtime_us")];
        pairs.contains(&(&*self.file, &*quota.file))
    }

    /// Writes the value. Fails with ENOENT if the group or the kernel does not have the file.
    pub(super) fn carry_out(&self, dir: BorrowedFd<'_>) -> nix::Result<()> {
        let first = kernfs::write(dir, &self.file, &self.value);
        let Some(other) = &self.other else { return first };
        match (first, kernfs::write(dir, &other.file, &other.value)) {
            (Err(Errno::ENOENT), second) if other.suffices => second,
            (Ok(()), Err(Errno::ENOENT)) => Ok(()),
            (first, second) => first.and(second),
        }
    }
}

#[cfg(test)]
impl Write {
    /// Formats the write as `file value`, with a second file in brackets.
    pub(super) fn shown(&self) -> String {
        let mut text = format!("{} {}", self.file.to_string_lossy(), self.value);
        if let Some(other) = &self.other {
            text += &format!(" [{} {}]", other.file.to_string_lossy(), other.value);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_second_file_is_written_where_it_is_and_may_do_for_the_first() {
        let dir = std::env::temp_dir().join(format!("ringfence-write-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let fd = kernfs::open_dir(&dir).unwrap();
        let set = |path: &Path, files: &[&str], write: &Write| {
            let _ = std::fs::remove_file(path.join("a"));
            let _ = std::fs::remove_file(path.join("b"));
            files.iter().for_each(|file| std::fs::write(path.join(file), "").unwrap());
            let result = write.carry_out(fd.as_fd());
            let text: String = files.iter().map(|file| std::fs::read_to_string(path.join(file)).unwrap()).collect();
            result.map(|()| text)
        };
        let write = || Write::new(Feature::IoWeight, c"a", 1);
        let one = ["a", "b"].map(|file| set(&dir, &[file], &write()));
        let and = [&["a", "b"][..], &["a"], &["b"], &[]].map(|files| set(&dir, files, &write().and(c"b", 2)));
        let or = [&["a", "b"][..], &["a"], &["b"], &[]].map(|files| set(&dir, files, &write().or(c"b", 2)));
        std::fs::remove_dir_all(&dir).unwrap();
        let ok = |text: &str| Ok(text.to_owned());
        let none = || Err(Errno::ENOENT);
        assert_eq!(one, [ok("1"), none()]);
        assert_eq!(and, [ok("12"), ok("1"), none(), none()]);
        assert_eq!(or, [ok("12"), ok("1"), ok("2"), none()]);
    }
}
