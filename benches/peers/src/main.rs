//! Other libraries that run a program in a sandbox, for `examples/compare`: `peers NAME ROOT BYTES`
//! makes the sandbox of the library NAME on ROOT, with BYTES of memory in use, and prints `ready`.
//! After that, each line on stdin is a spawn and wait of `/true` in the sandbox; the answer is the
//! time in nanoseconds.

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Instant;

use ferroday_cage::{Cage, Network};
use hakoniwa::{Container, Namespace};

/// One spawn and wait.
type Run = Box<dyn FnMut() -> Result<(), Box<dyn Error>>>;

/// Makes a sandbox with user, pid, mount, uts, ipc and cgroup namespaces; /proc, /dev and /tmp; the
/// host's network; an init.
fn ferroday_cage(root: &str) -> Result<Run, Box<dyn Error>> {
    let cage = Cage::builder().rootfs(root).command("/true").network(Network::Host).resolv_conf(false).build()?;
    Ok(Box::new(move || {
        let status = cage.run()?;
        if status.success() { Ok(()) } else { Err(format!("{status:?}").into()) }
    }))
}

/// Makes the same sandbox.
fn hakoniwa(root: &str) -> Result<Run, Box<dyn Error>> {
    let mut container = Container::new();
    for kind in [Namespace::Uts, Namespace::Ipc, Namespace::Cgroup] {
        container.unshare(kind);
    }
    container.rootdir(root).devfsmount("/dev").tmpfsmount("/tmp");
    Ok(Box::new(move || {
        let status = container.command("/true").status()?;
        if status.success() { Ok(()) } else { Err(format!("{}: {}", status.code, status.reason).into()) }
    }))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, root, bytes] = args.as_slice() else { return Err("peers NAME ROOT BYTES".into()) };
    let mut run = match name.as_str() {
        "ferroday-cage" => ferroday_cage(root)?,
        "hakoniwa" => hakoniwa(root)?,
        other => return Err(format!("no peer {other}").into()),
    };
    let ballast = black_box(vec![1u8; bytes.parse()?]);
    run()?;
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        run()?;
        writeln!(out, "{}", start.elapsed().as_nanos())?;
    }
    black_box(ballast.last());
    Ok(())
}
