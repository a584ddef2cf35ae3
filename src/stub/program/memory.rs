//! The functions on memory that the compiler may call. They work byte by byte, because the stub
//! moves few bytes.

/// Copies bytes, as memcpy(3) does.
///
/// # Safety
/// As memcpy(3): both ranges are valid and do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    let mut i = 0;
    while i < len {
        // SAFETY: `i` is below `len`, for which both ranges are valid.
        unsafe { to.add(i).write(from.add(i).read()) };
        i += 1;
    }
    to
}

/// Moves bytes, as memmove(3) does.
///
/// # Safety
/// As memmove(3): both ranges are valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize) < from as usize {
        // SAFETY: copying upwards reads each byte before it is overwritten.
        return unsafe { memcpy(to, from, len) };
    }
    let mut i = len;
    while i > 0 {
        i -= 1;
        // SAFETY: `i` is below `len`, for which both ranges are valid.
        unsafe { to.add(i).write(from.add(i).read()) };
    }
    to
}

/// Fills bytes, as memset(3) does.
///
/// # Safety
/// As memset(3): the range is valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    let mut i = 0;
    while i < len {
        // SAFETY: `i` is below `len`, for which the range is valid.
        unsafe { to.add(i).write(byte as u8) };
        i += 1;
    }
    to
}

/// Compares bytes, as memcmp(3) does.
///
/// # Safety
/// As memcmp(3): both ranges are valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    let mut i = 0;
    while i < len {
        // SAFETY: `i` is below `len`, for which both ranges are valid.
        let (a, b) = unsafe { (left.add(i).read(), right.add(i).read()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
        i += 1;
    }
    0
}

/// Compares bytes, as bcmp(3) does.
///
/// # Safety
/// As bcmp(3): both ranges are valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    // SAFETY: the same precondition.
    unsafe { memcmp(left, right, len) }
}
