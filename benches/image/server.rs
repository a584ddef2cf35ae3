//! Debian's docker-registry on a loopback port of its own, with one image.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The server, which a drop ends.
pub struct Server {
    child: Child,
    /// The address, as `HOST:PORT`.
    pub host: String,
}

impl Server {
    /// Starts a server that keeps its files in `dir`. The error says why there is no server.
    pub fn start(dir: &Path) -> Result<Server, String> {
        let failed = |error: std::io::Error| format!("docker-registry: {error}");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).map_err(failed)?.port();
        let host = format!("127.0.0.1:{port}");
        let data = dir.join("data");
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n\
             storage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            data.display()
        );
        let path = dir.join("config.yml");
        fs::write(&path, config).map_err(failed)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server { child: command.spawn().map_err(failed)?, host };
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(&server.host).is_err() {
            if Instant::now() > until {
                return Err("docker-registry does not listen".to_owned());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
