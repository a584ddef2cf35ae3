//! The options of an overlay.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::error::{Error, ErrorKind, Result, Step};
use crate::mount::context::Context;
use crate::proc::user_ns;
use crate::sys::fork_mark::PerProcess;

/// The most bytes that mount(2) takes as options: a page, with its NUL.
const OPTIONS_MAX: usize = 4095;
/// The options that keep an upper layer complete (Linux 4.19). Without them overlayfs, as a host
/// may have set it up, notes in the upper that the rest of a directory or of a file is in another
/// place below. The upper is then incomplete without those layers, for this crate and for anybody
/// who makes a layer of it.
const NO_REDIRECTS: [(&str, &str); 2] = [("redirect_dir", "off"), ("metacopy", "off")];

/// Returns the options that keep redirects out of an overlay, for one that is not in a user
/// namespace of the sandbox's own. Below another user namespace overlayfs takes them from nobody
/// (EPERM), and can note no such thing, which is in attributes that only the initial one may set.
pub(super) fn no_redirects() -> &'static [(&'static str, &'static str)] {
    static INITIAL: PerProcess<bool> = PerProcess::new();
    let initial = INITIAL.get_or_try(|| Ok::<_, Errno>(user_ns::is_initial()));
    if initial.is_ok_and(|initial| *initial) { &NO_REDIRECTS } else { &[] }
}

/// Returns the option string of mount(2).
pub(super) fn option_string(
    lowers: &[PathBuf],
    upper: Option<&(PathBuf, PathBuf)>,
    context: Context,
) -> Result<OsString> {
    let mut options = OsString::from("lowerdir=");
    options.push(escaped_list(lowers.iter().map(PathBuf::as_path)));
    if let Some((upper, work)) = upper {
        for (name, path) in [(",upperdir=", upper), (",workdir=", work)] {
            options.push(name);
            options.push(escaped_list([path.as_path()]));
        }
    }
    if context.user_ns {
        // Implies both of NO_REDIRECTS, and refuses redirect_dir=off where that means to follow.
        options.push(",userxattr");
    } else {
        no_redirects().iter().for_each(|(key, value)| options.push(format!(",{key}={value}")));
    }
    if options.len() > OPTIONS_MAX {
        let text = format!("the names of layers take {} bytes, and mount(2) takes {OPTIONS_MAX}", options.len());
        let error = Error::message(ErrorKind::Invalid, Step::Mount, text);
        return Err(error.at("overlay").hint("use shorter paths for the upper layer"));
    }
    Ok(options)
}

/// Joins paths for the option string, in which `:` separates, `,` ends, and a backslash takes both
/// meanings away.
pub(super) fn escaped_list<'p>(paths: impl IntoIterator<Item = &'p Path>) -> OsString {
    let mut text = Vec::new();
    for (i, path) in paths.into_iter().enumerate() {
        if i > 0 {
            text.push(b':');
        }
        for byte in path.as_os_str().as_bytes() {
            if matches!(byte, b':' | b',' | b'\\') {
                text.push(b'\\');
            }
            text.push(*byte);
        }
    }
    OsStr::from_bytes(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_overlay_notes_that_the_rest_is_elsewhere() {
        let of = |user_ns| {
            let context = Context { user_ns, ..Context::default() };
            option_string(&["/a".into()], None, context).unwrap().into_string().unwrap()
        };
        assert_eq!(of(true), "lowerdir=/a,userxattr");
        let expected = if user_ns::is_initial() { ",redirect_dir=off,metacopy=off" } else { "" };
        assert_eq!(of(false), format!("lowerdir=/a{expected}"));
    }

    #[test]
    fn overlay_options_are_escaped() {
        let text = escaped_list([Path::new("/a:b"), Path::new("/c,d"), Path::new("/e\\f")]);
        assert_eq!(text, r"/a\:b:/c\,d:/e\\f");
    }
}
