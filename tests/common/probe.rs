//! Programs to run inside. A test binary that finds `RINGFENCE_PROBE` in its environment is such a program: it does what
//! the variable says, and never gets to its tests.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use ringfence::Sandbox;

/// Makes the sandbox run this test binary as the program `what`; the binary stands at `path` inside.
pub fn at(sandbox: Sandbox, path: &str, what: &str) -> Sandbox {
    sandbox.command(path).env("RINGFENCE_PROBE", what)
}

/// The same, where the host's paths are those inside.
pub fn run(sandbox: Sandbox, what: &str) -> Sandbox {
    let exe = std::env::current_exe().unwrap();
    at(sandbox, exe.to_str().unwrap(), what)
}

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    let Some(what) = std::env::var_os("RINGFENCE_PROBE") else { return };
    let what = what.to_string_lossy().into_owned();
    let words: Vec<&str> = what.split(' ').collect();
    let number = |i: usize| words[i].parse::<u64>().unwrap();
    match words[0] {
        "hog" => hog(number(1) as usize),
        "forks" => forks(number(1)),
        "spin" => spin(Duration::from_millis(number(1))),
        "listen" => listen(number(1) as u16),
        "write" => write_direct(words[1], number(2) as usize),
        "flood" => flood(),
        "fds" => fds(),
        other => panic!("no probe {other}"),
    }
    std::process::exit(0);
}

/// Touches so many bytes of memory, page by page.
fn hog(bytes: usize) {
    let mut memory = vec![0u8; bytes];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    println!("{}", memory.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>());
}

/// Tries to have so many children at once; says how many it got.
fn forks(wanted: u64) {
    let mut got = 0;
    for _ in 0..wanted {
        // SAFETY: this process has one thread, and the child only sleeps.
        match unsafe { libc::fork() } {
            0 => {
                std::thread::sleep(Duration::from_secs(60));
                std::process::exit(0);
            }
            -1 => {}
            _ => got += 1,
        }
    }
    println!("{got}");
}

/// Keeps one processor busy for so long; says how many milliseconds of processor time it got.
fn spin(wall: Duration) {
    let start = Instant::now();
    let mut x = 0u64;
    while start.elapsed() < wall {
        for _ in 0..10_000 {
            x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(7));
        }
    }
    let used = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    println!("{}", Duration::from(used).as_millis());
}

/// Listens on a port of the loopback interface until stdin ends; says so.
fn listen(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    println!("listening on {}", listener.local_addr().unwrap().port());
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

/// Writes so many KiB past the page cache; says how many milliseconds that took.
fn write_direct(path: &str, kib: usize) {
    let block = std::alloc::Layout::from_size_align(64 << 10, 4096).unwrap();
    // SAFETY: the layout has a size, and the memory is never freed.
    let block = unsafe { std::slice::from_raw_parts(std::alloc::alloc_zeroed(block), block.size()) };
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let start = Instant::now();
    for _ in 0..kib / 64 {
        file.write_all(block).unwrap();
    }
    println!("{}", start.elapsed().as_millis());
}

/// Writes for ever.
fn flood() {
    let block = [b'x'; 4096];
    while std::io::stdout().write_all(&block).is_ok() {}
}

/// Says which descriptors are open, as `number=target`.
fn fds() {
    let dir = std::fs::read_dir("/proc/self/fd").unwrap();
    let all: Vec<_> = dir.flatten().map(|e| (e.file_name(), std::fs::read_link(e.path()))).collect();
    for (name, link) in all {
        let link = link.map(|l| l.to_string_lossy().into_owned()).unwrap_or_default();
        if !link.starts_with("/proc/") {
            println!("{}={link}", name.to_string_lossy());
        }
    }
}
