//! Random bytes from the kernel: getrandom(2).

use nix::errno::Errno;

/// Returns a number that nobody can predict. Two forks of one process get different numbers.
pub(crate) fn number() -> Result<u64, Errno> {
    bytes().map(u64::from_ne_bytes)
}

/// Returns `N` random bytes, of which the kernel gives up to 256 in one piece.
fn bytes<const N: usize>() -> Result<[u8; N], Errno> {
    let mut bytes = [0u8; N];
    let arguments = [bytes.as_mut_ptr() as u64, N as u64, 0, 0, 0, 0];
    loop {
        // SAFETY: the buffer is ours, of that length, and lives across the call.
        let result = unsafe { super::raw::syscall(libc::SYS_getrandom as usize, arguments) };
        match result {
            count if count == N as i64 => return Ok(bytes),
            error if error < 0 && error != -i64::from(libc::EINTR) => return Err(Errno::from_raw(-error as i32)),
            // A signal interrupted the call before the kernel had enough entropy, which happens
            // only at boot.
            _ => {}
        }
    }
}

/// Returns `N` random bytes in hexadecimal.
pub(crate) fn hex<const N: usize>() -> Result<String, Errno> {
    Ok(bytes::<N>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_numbers_differ() {
        assert_ne!(super::number().unwrap(), super::number().unwrap());
        let texts = [super::hex::<4>().unwrap(), super::hex::<4>().unwrap()];
        assert!(texts[0] != texts[1] && texts.iter().all(|text| text.len() == 8), "{texts:?}");
    }
}
