//! Resolves the `User` of an image with the image's own /etc/passwd and /etc/group, as the OCI
//! image specification and container engines do: passwd(5), group(5).

use std::path::PathBuf;

use nix::errno::Errno;

use super::lowers::Lowers;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::passwd::{DATABASE_MAX, ID_MAX, PasswdLine, id};

/// The user that a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: Option<PathBuf>,
}

/// Resolves `name`, `uid`, `name:group`, `uid:gid` or a mixture. A number without an entry in the
/// database stands for itself, with group 0. A name without an entry is an error. If no group is
/// given, the supplementary groups are those that list the user.
pub(super) fn resolve(text: &str, root: &Lowers) -> Result<User> {
    let passwd = database(root, "etc/passwd")?;
    let group = database(root, "etc/group")?;
    resolve_in(text, &passwd, &group)
}

fn database(root: &Lowers, path: &str) -> Result<String> {
    let failed = |errno| Error::new(Step::ImageUser, errno).at(format!("/{path}"));
    let bytes = match root.read(path.as_bytes(), DATABASE_MAX) {
        Err(errno @ Errno::EFBIG) => return Err(failed(errno).hint("give the user by number, with Sandbox::user")),
        read => read.map_err(failed)?,
    };
    Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
}

fn resolve_in(text: &str, passwd: &str, group: &str) -> Result<User> {
    let (name, group_name) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let mut accounts = passwd.lines().filter_map(PasswdLine::parse);
    let (account, uid) = match number(name) {
        Some(uid) => {
            let uid = uid?;
            (accounts.find(|account| account.uid == uid), uid)
        }
        None => {
            let account = accounts.find(|account| account.name == name).ok_or_else(|| unknown(name, "/etc/passwd"))?;
            let uid = account.uid;
            (Some(account), uid)
        }
    };
    let mut user = User { uid, gid: 0, groups: Vec::new(), home: None };
    if let Some(account) = &account {
        user.gid = account.gid;
        user.home = Some(account.home).filter(|home| !home.is_empty()).map(PathBuf::from);
    }
    let mut groups = group.lines().filter_map(GroupLine::parse);
    match (group_name, &account) {
        (Some(name), _) => {
            user.gid = match number(name) {
                Some(gid) => gid?,
                None => groups.find(|group| group.name == name).ok_or_else(|| unknown(name, "/etc/group"))?.gid,
            };
        }
        (None, Some(account)) => {
            user.groups = groups.filter(|group| group.lists(account.name)).map(|group| group.gid).collect();
            user.groups.sort_unstable();
            user.groups.dedup();
        }
        (None, None) => {}
    }
    Ok(user)
}

fn unknown(name: &str, database: &str) -> Error {
    let text = format!("the image has no `{name}`");
    let error = Error::message(ErrorKind::Invalid, Step::ImageUser, text).at(database);
    error.hint("give the user by number, with Sandbox::user")
}

/// Parses a name of digits as a number, as all container engines do.
fn number(text: &str) -> Option<Result<u32>> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(id(text).ok_or_else(|| {
        let text = format!("{text} is not an id: the largest id is {ID_MAX}");
        Error::message(ErrorKind::Invalid, Step::ImageUser, text)
    }))
}

/// A line of group(5).
struct GroupLine<'t> {
    name: &'t str,
    gid: u32,
    members: &'t str,
}

impl<'t> GroupLine<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        Some(GroupLine { name, gid: id(fields.next()?)?, members: fields.next().unwrap_or_default() })
    }

    fn lists(&self, name: &str) -> bool {
        self.members.split(',').any(|member| member.trim() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        # a comment\n\
        app:x:1000:1001:An application:/srv/app:/bin/sh\n\
        broken:x:many:0::/:/bin/sh\n\
        huge:x:4294967295:0::/:/bin/sh\n\
        short:x:7:8\n\
        1234:x:55:56::/digits:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\nvideo:x:44: app ,other\napp:x:1001:\nempty:x:99\n";

    fn user(uid: u32, gid: u32, groups: &[u32], home: &str) -> User {
        let home = Some(home).filter(|home| !home.is_empty()).map(PathBuf::from);
        User { uid, gid, groups: groups.to_vec(), home }
    }

    fn resolved(text: &str) -> User {
        resolve_in(text, PASSWD, GROUP).unwrap()
    }

    #[test]
    fn every_form_of_the_specification() {
        assert_eq!(resolved(""), user(0, 0, &[10], "/root"));
        assert_eq!(resolved("root"), user(0, 0, &[10], "/root"));
        assert_eq!(resolved("app"), user(1000, 1001, &[10, 44], "/srv/app"));
        assert_eq!(resolved("1000"), user(1000, 1001, &[10, 44], "/srv/app"));
        assert_eq!(resolved("app:video"), user(1000, 44, &[], "/srv/app"));
        assert_eq!(resolved("app:"), user(1000, 1001, &[10, 44], "/srv/app"));
        assert_eq!(resolved("app:7"), user(1000, 7, &[], "/srv/app"));
        assert_eq!(resolved("4000"), user(4000, 0, &[], ""));
        assert_eq!(resolved("4000:wheel"), user(4000, 10, &[], ""));
        assert_eq!(resolved("4000:5000"), user(4000, 5000, &[], ""));
        assert_eq!(resolved(":video"), user(0, 44, &[], "/root"));
        assert_eq!(resolved("short"), user(7, 8, &[], ""));
    }

    #[test]
    fn digits_are_an_id_and_not_a_name() {
        assert_eq!(resolved("1234"), user(1234, 0, &[], ""));
    }

    #[test]
    fn names_that_are_not_there_are_errors() {
        for text in ["nobody", "broken", "huge", "app:nobody", "#", "root/../x"] {
            let error = resolve_in(text, PASSWD, GROUP).unwrap_err();
            assert_eq!((error.kind(), error.step()), (ErrorKind::Invalid, Step::ImageUser), "{text}");
            assert!(error.path().is_some() && error.remedy().is_some(), "{error}");
        }
    }

    #[test]
    fn ids_that_no_process_can_have_are_errors() {
        for text in ["4294967295", "4294967296", "99999999999999999999", "2147483648", "0:4294967295"] {
            assert_eq!(resolve_in(text, PASSWD, GROUP).unwrap_err().kind(), ErrorKind::Invalid, "{text}");
        }
        assert_eq!(resolved("2147483647:2147483647"), user(i32::MAX as u32, i32::MAX as u32, &[], ""));
    }
}
