//! The search for a program that is executed later.

use crate::syscall::{AT_FDCWD, Errno, nr, syscall};
use crate::target;

/// Fails as the exec of the candidates would, if this process may execute none of them.
pub fn executable(mut candidate: *const u64) -> Result<u64, Errno> {
    const S_IFREG: u16 = 0o100000;
    let mut result = Errno::NOENT;
    loop {
        // SAFETY: the plan ends its list of candidates with a null pointer, and the loop stops
        // there.
        let path = unsafe { candidate.read() };
        if path == 0 {
            return Err(result);
        }
        match may_execute(path).and_then(|()| target::type_of(path)) {
            Ok(S_IFREG) => return Ok(0),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Ok(_) | Err(Errno::ACCES) => result = Errno::ACCES,
            Err(other) => return Err(other),
        }
        // SAFETY: this entry was not the null one, so another follows.
        candidate = unsafe { candidate.add(1) };
    }
}

/// faccessat2(2), since 5.8; before, the kernel asks for the real user, who is the program's as
/// well unless the caller of the library is a set-user-ID program.
fn may_execute(path: u64) -> Result<(), Errno> {
    const X_OK: u64 = 1;
    const AT_EACCESS: u64 = 0x200;
    match syscall(nr::FACCESSAT2, [AT_FDCWD, path, X_OK, AT_EACCESS, 0, 0]) {
        Err(Errno::NOSYS | Errno::PERM) => syscall(nr::FACCESSAT, [AT_FDCWD, path, X_OK, 0, 0, 0]).map(drop),
        result => result.map(drop),
    }
}
