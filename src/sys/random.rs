//! Random bytes from the kernel: getrandom(2).

use std::fs::File;
use std::io::Read;

use nix::errno::Errno;

/// Returns a number that nobody can predict. Two forks of one process get different numbers.
pub(crate) fn number() -> Result<u64, Errno> {
    let mut bytes = [0u8; 8];
    loop {
        // SAFETY: the buffer is ours, of that length, and lives across the call.
        let result =
            unsafe { super::raw::syscall(libc::SYS_getrandom as usize, [bytes.as_mut_ptr() as u64, 8, 0, 0, 0, 0]) };
        match result {
            8 => return Ok(u64::from_ne_bytes(bytes)),
            error if error < 0 && error != -i64::from(libc::EINTR) => return Err(Errno::from_raw(-error as i32)),
            // A signal interrupted the call before the kernel had enough entropy, which happens
            // only at boot.
            _ => {}
        }
    }
}

/// Returns `count` random bytes in hexadecimal.
pub(crate) fn hex(count: usize) -> Result<String, Errno> {
    let mut bytes = vec![0; count];
    let result = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    result.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_numbers_differ() {
        assert_ne!(super::number().unwrap(), super::number().unwrap());
    }
}
