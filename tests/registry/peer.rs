//! Debian's docker-registry, on a port of loopback of its own, and the programs that speak with it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{TempDir, skip};

pub const USER: &str = "tester";
pub const PASSWORD: &str = "s3cret:with:colons";
/// The password as htpasswd(1) has it, with bcrypt.
const HTPASSWD: &str = "tester:$2y$05$ADjuoVMy0yvRkZGzr56TGubPL3J5PewrJRzu/ncx7PlQF6IncX7W2\n";

/// How to set it up.
#[derive(Default, Clone, Copy)]
pub struct Setup<'a> {
    pub password: bool,
    /// Certificate and key.
    pub tls: Option<(&'a Path, &'a Path)>,
}

/// A running registry, which ends with its handle.
pub struct Peer {
    child: Child,
    dir: TempDir,
    pub host: String,
}

/// True, after saying so, where one of these programs is missing.
#[track_caller]
pub fn lacks(tools: &[&str]) -> bool {
    let dirs: Vec<_> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let missing: Vec<_> = tools.iter().filter(|tool| !dirs.iter().any(|dir| dir.join(tool).exists())).collect();
    if !missing.is_empty() {
        skip(&format!("not installed: {missing:?}"), false);
    }
    !missing.is_empty()
}

impl Peer {
    /// One without password or TLS; `None`, after saying so, where there is none to be had.
    #[track_caller]
    pub fn start() -> Option<Peer> {
        if lacks(&["docker-registry"]) { None } else { Some(Peer::with(Setup::default())) }
    }

    pub fn with(setup: Setup<'_>) -> Peer {
        // Between the choice of a port and its use another may take it.
        (0..10).find_map(|_| Peer::try_start(setup)).expect("docker-registry does not start")
    }

    fn try_start(setup: Setup<'_>) -> Option<Peer> {
        let dir = TempDir::new();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let data = dir.path().join("data");
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  delete:\n    enabled: true\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            data.display()
        );
        if let Some((certificate, key)) = setup.tls {
            config += &format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
        }
        if setup.password {
            let path = dir.path().join("htpasswd");
            fs::write(&path, HTPASSWD).unwrap();
            config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", path.display());
        }
        let path = dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut child = Command::new("docker-registry")
            .args(["serve".as_ref(), path.as_os_str()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(&host).is_ok() {
                return Some(Peer { child, dir, host });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("docker-registry: {}", fs::read_to_string(dir.path().join("log")).unwrap_or_default());
    }

    /// A path for a program's own files.
    pub fn scratch(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end and gives what it wrote.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {}\n{errors}", output.status);
    output.stdout
}

/// A layout with an image `:1` of two layers, made by umoci; given as `PATH`.
pub fn umoci_layout(peer: &Peer) -> String {
    let layout = peer.scratch("layout");
    let image = format!("{layout}:1");
    run("umoci", &["init", "--layout", &layout]);
    run("umoci", &["new", "--image", &image]);
    for (layer, size) in [("one", 100_000), ("two", 3_000_000)] {
        let tree = peer.scratch(layer);
        fs::create_dir_all(format!("{tree}/etc")).unwrap();
        fs::write(format!("{tree}/etc/{layer}"), crate::noise(size, size as u64)).unwrap();
        let tar = peer.scratch(&format!("{layer}.tar"));
        run("tar", &["-C", &tree, "-cf", &tar, "."]);
        run("umoci", &["raw", "add-layer", "--image", &image, &tar]);
    }
    layout
}
