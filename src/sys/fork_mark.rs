//! Marks that distinguish a process from its forks without a system call, and values that belong to
//! one process.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use nix::errno::Errno;

/// A page that reads 1 in the process that made it and 0 in every fork of that process:
/// `MADV_WIPEONFORK` (4.14). A pid would not suffice: a fork into a pid namespace can have the pid
/// of its parent.
#[derive(Debug)]
pub(crate) struct ForkMark(NonNull<AtomicU32>);

// SAFETY: the page is unmapped only with the mark itself, and it is only read and written as an
// atomic.
unsafe impl Send for ForkMark {}
// SAFETY: as above.
unsafe impl Sync for ForkMark {}

impl ForkMark {
    /// Makes a mark.
    pub(crate) fn new() -> Result<Self, Errno> {
        const PAGE: usize = 4096;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing
        // that exists.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let Some(place) = (page != libc::MAP_FAILED).then_some(page).and_then(NonNull::new) else {
            return Err(Errno::last());
        };
        // SAFETY: the page was mapped above, and nobody else knows it.
        if unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) } != 0 {
            let errno = Errno::last();
            // SAFETY: as above.
            unsafe { libc::munmap(page, PAGE) };
            return Err(errno);
        }
        let mark = ForkMark(place.cast());
        mark.word().store(1, Ordering::Release);
        Ok(mark)
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: `new` mapped the page readable and writable, aligned to more than a word, and it
        // stays mapped.
        unsafe { self.0.as_ref() }
    }

    /// Returns true in the process that made the mark.
    pub(crate) fn is_original(&self) -> bool {
        self.word().load(Ordering::Acquire) == 1
    }
}

impl Drop for ForkMark {
    fn drop(&mut self) {
        // SAFETY: the page that `new` mapped; the mark was its only owner.
        unsafe { libc::munmap(self.0.as_ptr().cast(), 4096) };
    }
}

/// A value that each process makes once. A fork makes its own value, because a fork inherits
/// neither the threads nor the right to the resources of its parent. Values live as long as the
/// process.
#[derive(Debug)]
pub(crate) struct PerProcess<T> {
    current: AtomicPtr<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    mark: ForkMark,
    value: T,
}

impl<T: Send + Sync + 'static> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        PerProcess { current: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Returns the value of this process, if it has been made.
    pub(crate) fn get(&self) -> Option<&'static T> {
        // SAFETY: the pointer is null or came from Box::leak, and what it points to is never freed
        // or written.
        let entry = unsafe { self.current.load(Ordering::Acquire).as_ref() };
        entry.filter(|entry| entry.mark.is_original()).map(|entry| &entry.value)
    }

    /// Returns true if `value` is the value of this process, and false in every fork of the process
    /// that made `value`.
    pub(crate) fn is_current(&self, value: &T) -> bool {
        self.get().is_some_and(|current| std::ptr::eq(current, value))
    }

    /// Returns the value of this process, and makes it first if necessary. If two threads make a
    /// value at once, the value of one of them is dropped.
    pub(crate) fn get_or_try<E: From<Errno>>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&'static T, E> {
        let found = self.current.load(Ordering::Acquire);
        if let Some(value) = self.get() {
            return Ok(value);
        }
        let new = Box::into_raw(Box::new(Entry { mark: ForkMark::new()?, value: make()? }));
        match self.current.compare_exchange(found, new, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: the box was just leaked and is never freed.
            Ok(_) => Ok(unsafe { &(*new).value }),
            Err(theirs) => {
                // SAFETY: `new` came from Box::into_raw above and was shared with nobody.
                drop(unsafe { Box::from_raw(new) });
                // SAFETY: what stands in `current` is never freed; this process's other thread put
                // it there.
                Ok(unsafe { &(*theirs).value })
            }
        }
    }
}
