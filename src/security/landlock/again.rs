//! The rules of Landlock as text, and their ruleset, made again by another process.
//!
//! A path is not enough for that: the program may have put something else there since. The kernel
//! keeps the inode of every rule as long as a process is restricted by it. So no other file gets
//! the numbers of such an inode while the program runs, and they tell whether the path still leads
//! to what the rule was made for.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use landlock::{Access, AccessFs, AccessNet, BitFlags, PathBeneath, RulesetCreatedAttr, Scope};
use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag};
use nix::sys::stat::fstat;

use super::{Landlock, OF_FILES, kernel_abi, not_made};
use crate::error::{Error, ErrorKind, Result, Step};
use crate::feature::Feature;
use crate::sys::{by_fd, table};
use crate::text::{self, escape, hex, number, unescape};

/// The longest text of the paths. A ticket has to hold more than them.
const TEXT_MAX: usize = 16 << 10;
const PORTS_MAX: usize = 1024;

/// What a rule was made for: the device and the inode of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleFile {
    device: u64,
    inode: u64,
}

impl RuleFile {
    pub(crate) fn of(file: BorrowedFd<'_>) -> Option<RuleFile> {
        fstat(file).ok().map(|stat| RuleFile { device: stat.st_dev, inode: stat.st_ino })
    }
}

impl Landlock {
    /// Writes the parts that hold. Returns false, and writes nothing, if it is not known what each
    /// path was for, or if the paths are too long.
    pub(crate) fn write_to(&self, line: &mut text::Writer, held: &[Feature], files: &[RuleFile]) -> bool {
        let holds = |feature| held.contains(&feature);
        let paths = if holds(Feature::LandlockFiles) { &self.paths[..] } else { &[] };
        if paths.len() != files.len() {
            return false;
        }
        let rule = |((path, rights), file): (&(PathBuf, BitFlags<AccessFs>), &RuleFile)| {
            let path = escape(path.as_os_str().as_bytes());
            format!("{:x}:{}:{}:{path}", rights.bits(), file.device, file.inode)
        };
        let rules = paths.iter().zip(files).map(rule).collect::<Vec<_>>().join("+");
        if rules.len() > TEXT_MAX {
            return false;
        }
        if !rules.is_empty() {
            line.put("rules", rules);
        }
        if let Some(ports) = self.tcp.as_ref().filter(|_| holds(Feature::LandlockTcp)) {
            let port = |(port, right): &(u16, AccessNet)| format!("{:x}:{port}", BitFlags::from(*right).bits());
            line.put("ports", ports.iter().map(port).collect::<Vec<_>>().join("+"));
        }
        let scopes = self.scopes.iter().filter(|scope| holds(feature_of(*scope))).collect::<BitFlags<Scope>>();
        if !scopes.is_empty() {
            line.put("scopes", format!("{:x}", scopes.bits()));
        }
        true
    }

    /// Reads what [`Landlock::write_to`] has written, with the files of the rules. Returns `None` for
    /// a text that it has not, and no rules where the text has none.
    pub(crate) fn read_from(line: &mut text::Reader<'_>) -> Option<(Option<Landlock>, Vec<RuleFile>)> {
        let rules = line.maybe("rules", |text| text.split('+').map(rule).collect::<Option<Vec<_>>>())?;
        let tcp = line.maybe("ports", ports)?;
        let scopes = line.maybe("scopes", |text| {
            BitFlags::<Scope>::from_bits(hex(text)?).ok().filter(|scopes| !scopes.is_empty())
        })?;
        let (paths, files) = rules.unwrap_or_default().into_iter().unzip();
        let rules = Landlock { paths, tcp, scopes: scopes.unwrap_or_default() };
        let restricts = rules != Landlock::new();
        (!restricts || rules.invalid().is_empty()).then(|| (restricts.then_some(rules), files))
    }

    /// Returns the features of which the rules have parts.
    pub(crate) fn features(&self) -> Vec<Feature> {
        let files = (!self.paths.is_empty()).then_some(Feature::LandlockFiles);
        let tcp = self.tcp.as_ref().map(|_| Feature::LandlockTcp);
        files.into_iter().chain(tcp).chain(self.scopes.iter().map(feature_of)).collect()
    }

    /// Makes the ruleset of a sandbox that runs, whose root directory is `root`. `files` is what the
    /// paths were for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if a path leads elsewhere by now.
    pub(crate) fn make_again(&self, root: BorrowedFd<'_>, files: &[RuleFile]) -> Result<OwnedFd> {
        let abi = kernel_abi();
        let created = self.create(abi, &self.features()).map_err(|error| not_made(&error))?;
        let mut created = created.ok_or_else(|| Error::new(Step::Landlock, Errno::ENOSYS))?;
        for ((path, rights), was) in self.paths.iter().zip(files) {
            let file = open_in(root, path)?;
            let stat = fstat(&file).map_err(|errno| Error::new(Step::Landlock, errno).at(path))?;
            if RuleFile::of(file.as_fd()) != Some(*was) {
                return Err(changed(path));
            }
            let is_dir = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
            let rights = *rights & AccessFs::from_all(abi);
            let rights = if is_dir { rights } else { rights & OF_FILES };
            created = created.add_rule(PathBeneath::new(file, rights)).map_err(|error| not_made(&error).at(path))?;
        }
        let made: Option<OwnedFd> = created.into();
        let made = made.ok_or_else(|| Error::new(Step::Landlock, Errno::ENOSYS))?;
        table::above_stdio(made).map_err(|errno| Error::new(Step::Landlock, errno))
    }
}

/// Opens a path in the root directory of a sandbox, as a program in there would.
fn open_in(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    by_fd::look_as(root, path, OFlag::empty(), ResolveFlag::RESOLVE_IN_ROOT).map_err(|errno| match errno {
        Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => changed(path),
        errno => Error::new(Step::Landlock, errno).at(path),
    })
}

fn changed(path: &Path) -> Error {
    let reason = "a path of the rules of Landlock leads elsewhere than at the start of the sandbox";
    Error::message(ErrorKind::Unsupported, Step::Landlock, reason)
        .at(path)
        .hint("call exec() in the process that has started the sandbox, which still has the rules themselves")
}

fn feature_of(scope: Scope) -> Feature {
    match scope {
        Scope::Signal => Feature::LandlockSignals,
        _ => Feature::LandlockAbstractSockets,
    }
}

fn rule(text: &str) -> Option<((PathBuf, BitFlags<AccessFs>), RuleFile)> {
    let words: Vec<&str> = text.split(':').collect();
    let [rights, device, inode, path] = words[..] else { return None };
    let rights = BitFlags::from_bits(hex(rights)?).ok().filter(|rights: &BitFlags<AccessFs>| !rights.is_empty())?;
    let path = PathBuf::from(OsString::from_vec(unescape(path)?));
    Some(((path, rights), RuleFile { device: number(device)?, inode: number(inode)? }))
}

fn ports(text: &str) -> Option<Vec<(u16, AccessNet)>> {
    let port = |text: &str| {
        let (right, port) = text.split_once(':')?;
        let right = BitFlags::<AccessNet>::from_bits(hex(right)?).ok()?.exactly_one()?;
        Some((number(port)?, right))
    };
    let ports = text.split('+').filter(|_| !text.is_empty());
    let ports = ports.take(PORTS_MAX + 1).map(port).collect::<Option<Vec<_>>>()?;
    (ports.len() <= PORTS_MAX).then_some(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Reader, Writer};

    const ALL: [Feature; 4] =
        [Feature::LandlockFiles, Feature::LandlockTcp, Feature::LandlockSignals, Feature::LandlockAbstractSockets];

    fn read(text: &str) -> Option<(Option<Landlock>, Vec<RuleFile>)> {
        let mut line = Reader::new(text, "x")?;
        let read = Landlock::read_from(&mut line)?;
        line.is_empty().then_some(read)
    }

    #[test]
    fn rules_are_read_as_they_were_written() {
        let files = [RuleFile { device: 28, inode: 7 }, RuleFile { device: 0, inode: u64::MAX }];
        let paths = Landlock::new().execute("/usr").write("/a b,:+%");
        let all = paths.clone().bind_tcp(0).connect_tcp(443).scope_signals().scope_abstract_sockets();
        let none = &[][..];
        let cases = [
            (paths, &files[..], 1),
            (all, &files[..], 4),
            (Landlock::new().restrict_tcp(), none, 1),
            (Landlock::new().scope_signals(), none, 1),
        ];
        for (rules, files, features) in cases {
            let mut line = Writer::new("x");
            assert!(rules.write_to(&mut line, &ALL, files), "{rules:?}");
            let text = line.finish();
            let (again, files_again) = read(&text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((again.as_ref(), &files_again[..]), (Some(&rules), files), "{text}");
            assert_eq!(again.unwrap().features().len(), features, "{text}");
        }
        assert_eq!(read("x"), Some((None, Vec::new())));
    }

    #[test]
    fn parts_that_do_not_hold_are_not_written() {
        let rules = Landlock::new().read("/etc").restrict_tcp().scope_signals();
        let mut line = Writer::new("x");
        assert!(rules.write_to(&mut line, &[Feature::LandlockSignals], &[]));
        assert_eq!(line.finish(), format!("x,scopes={:x}", BitFlags::from(Scope::Signal).bits()));
    }

    #[test]
    fn rules_without_their_files_and_without_end_are_not_written() {
        let file = RuleFile { device: 1, inode: 1 };
        let mut line = Writer::new("x");
        assert!(!Landlock::new().read("/etc").write_to(&mut line, &ALL, &[]));
        assert!(!Landlock::new().read("/etc").write_to(&mut line, &ALL, &[file; 2]));
        let long = format!("/{}", "a".repeat(TEXT_MAX));
        assert!(!Landlock::new().read(long).write_to(&mut line, &ALL, &[file]));
        assert_eq!(line.finish(), "x");
    }

    #[test]
    fn rules_that_nobody_has_written_are_refused() {
        assert!(read("x,rules=c:1:2:/etc").is_some());
        for text in [
            "x,rules=",
            "x,rules=c:1:2",
            "x,rules=0:1:2:/etc",
            "x,rules=ffffffffffffffff:1:2:/etc",
            "x,rules=c:1:2:etc",
            "x,rules=c:1:2:/a/../b",
            "x,rules=c:1:2:/a%00",
            "x,rules=c:-1:2:/etc",
            "x,rules=c:1:2:/etc+",
            "x,rules=c:1:2:/etc,rules=c:1:2:/etc",
            "x,ports=3:80",
            "x,ports=0:80",
            "x,ports=1:65536",
            "x,scopes=0",
            "x,scopes=ff",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        crate::fuzz::texts(&["x,rules=c:1:2:/etc+4:1:2:/usr,ports=1:80+2:443,scopes=3"], |text| drop(read(text)));
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        if kernel_abi() == landlock::ABI::Unsupported {
            return;
        }
        let dir = std::env::temp_dir().join(format!("ringfence-rules-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("root/one")).unwrap();
        std::fs::create_dir_all(dir.join("root/other")).unwrap();
        std::fs::write(dir.join("root/file"), "").unwrap();
        let open = |path: &str| OwnedFd::from(std::fs::File::open(dir.join(path)).unwrap());
        let root = open("root");
        let rules = Landlock::new().write("/one").execute("/file");
        let files = ["root/one", "root/file"].map(|path| RuleFile::of(open(path).as_fd()).unwrap());
        let make = || rules.make_again(root.as_fd(), &files).map(drop);
        let whole = make();
        std::fs::rename(dir.join("root/one"), dir.join("root/old")).unwrap();
        let missing = make();
        std::os::unix::fs::symlink("/other", dir.join("root/one")).unwrap();
        let exchanged = make();
        std::fs::remove_file(dir.join("root/one")).unwrap();
        // An absolute link stays in the root, and may lead to what was meant.
        std::os::unix::fs::symlink("/old", dir.join("root/one")).unwrap();
        let linked = make();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(whole.is_ok() && linked.is_ok(), "{whole:?} {linked:?}");
        for refused in [missing, exchanged] {
            let error = refused.unwrap_err();
            assert!(error.kind() == ErrorKind::Unsupported && error.path() == Some(Path::new("/one")), "{error}");
        }
    }
}
