//! Between clone and exec the child shares the caller's memory, so it must not allocate: the lock of the allocator may be
//! held by a thread that does not exist there. The allocator of this test kills whoever allocates in such a child.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::thread;

/// The process that owns this memory.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// How often the trap fired. The child shares this memory, so its count is seen here.
static FIRED: AtomicU32 = AtomicU32::new(0);
static CALLS: AtomicU32 = AtomicU32::new(0);

struct Trap;

#[global_allocator]
static TRAP: Trap = Trap;

/// Past the C library, which could have the number cached.
fn raw_pid() -> i32 {
    // SAFETY: getpid(2) takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_getpid) as i32 }
}

fn look() {
    let owner = OWNER.load(Ordering::Relaxed);
    CALLS.fetch_add(1, Ordering::Relaxed);
    if owner != 0 && raw_pid() != owner {
        FIRED.fetch_add(1, Ordering::SeqCst);
        // SAFETY: no memory is involved. Not abort(3), which takes locks; and SIGABRT may be blocked.
        unsafe { libc::syscall(libc::SYS_kill, raw_pid(), libc::SIGKILL) };
    }
}

// SAFETY: everything is handed to the system's allocator as it comes.
unsafe impl GlobalAlloc for Trap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        look();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        look();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        look();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(place, layout, size) }
    }
}

extern "C" fn allocates(_: *mut libc::c_void) -> libc::c_int {
    std::hint::black_box(vec![1u8; 100]);
    0
}

extern "C" fn does_not(_: *mut libc::c_void) -> libc::c_int {
    7
}

/// Runs `child` as the library runs its own: in this memory, while this thread stands still. Gives the wait status.
fn vfork_like(child: extern "C" fn(*mut libc::c_void) -> libc::c_int) -> i32 {
    let mut stack = vec![0u128; 16 << 10];
    let top = stack.as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let mut status = 0;
    // SAFETY: the stack outlives the child, since CLONE_VFORK holds this thread until the child has ended.
    unsafe {
        let pid = libc::clone(child, top.cast(), flags, std::ptr::null_mut());
        assert!(pid > 0);
        assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
    }
    status
}

#[test]
fn nothing_allocates_between_clone_and_exec() {
    OWNER.store(raw_pid(), Ordering::SeqCst);
    let _clean = common::clean();

    // The trap itself: it fires in a child that shares this memory, and only there.
    assert_eq!(libc::WEXITSTATUS(vfork_like(does_not)), 7);
    assert_eq!(FIRED.load(Ordering::SeqCst), 0);
    assert_eq!(libc::WTERMSIG(vfork_like(allocates)), libc::SIGKILL);
    assert_eq!(FIRED.swap(0, Ordering::SeqCst), 1);

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 1..=2usize {
            let stop = &stop;
            scope.spawn(move || {
                let mut size = seed;
                while !stop.load(Ordering::Relaxed) {
                    size = size.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    std::hint::black_box(vec![0u8; 1 + (size >> 40) % 4096]);
                }
            });
        }
        let before = CALLS.load(Ordering::Relaxed);
        let plain = common::sandbox().command("/bin/true");
        let apart = plain.clone().pid_ns().uts_ns().ipc_ns().cgroup_ns().init(true);
        let user = plain.clone().user_ns().net_ns();
        let missing = common::sandbox().command("/no/such/program");
        for _ in 0..60 {
            for sandbox in [&plain, &apart, &user] {
                assert!(sandbox.status().unwrap().success());
            }
            assert_eq!(missing.spawn().unwrap_err().raw_os_error(), Some(libc::ENOENT));
        }
        assert!(CALLS.load(Ordering::Relaxed) - before > 10_000, "nobody allocated beside it");
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(FIRED.load(Ordering::SeqCst), 0, "a child allocated before its exec");
}
