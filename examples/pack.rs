//! Makes an image: of the host's own programs with the libraries that they need, or of directories
//! on top of another image.
//!
//!     cargo run --release --features image --example pack -- host:1
//!     cargo run --release --features image --example pack -- --from host:1 --copy target/release:/opt --env A=b app:1
//!
//! The same input gives the same digest. `pull-run` and `fleet` run what it makes.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use ringfence::image::{Archive, ImageBuilder, Reference, Store};

/// The programs of an image of the host, unless --program names others.
const PROGRAMS: [&str; 14] =
    ["sh", "cat", "ls", "id", "echo", "env", "sleep", "head", "wc", "ps", "hostname", "mkdir", "rm", "touch"];
/// Files that programs read, and that the image has of its own.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
/// The directory of programs in the image.
const BIN: &str = "usr/bin";

/// Makes an image of the host's programs, or of directories on top of another image.
#[derive(Parser)]
#[command(name = "pack")]
struct Args {
    /// The image below; without it one of the host's programs is made
    #[arg(long, value_name = "IMAGE")]
    from: Option<Reference>,
    /// A program of the host's, with its libraries; several times
    #[arg(long, value_name = "NAME")]
    program: Vec<String>,
    /// A file or directory of the host's, and its place in the image; several times
    #[arg(long, value_name = "FROM:TO", value_parser = pair)]
    copy: Vec<(String, String)>,
    /// A command to run in the image, by its shell; several times
    #[arg(long, value_name = "COMMAND")]
    run: Vec<String>,
    /// A variable of the environment; several times
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The user that the program runs as
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The command of the image, run by its shell
    #[arg(long, value_name = "COMMAND")]
    cmd: Option<String>,
    /// The store [default: ringfence/images in the user's data directory]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Write the image to this file, too, as an archive that podman, containerd and skopeo read
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
    /// The new image's name
    name: Reference,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (from, to) = text.split_once(':').ok_or("give two paths, FROM:TO")?;
    Ok((from.to_owned(), to.to_owned()))
}

fn main() -> ExitCode {
    match pack(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pack: {error}");
            ExitCode::FAILURE
        }
    }
}

fn pack(args: &Args) -> Result<(), Box<dyn Error>> {
    let store = match &args.store {
        Some(dir) => Store::open(dir)?,
        None => Store::open_default()?,
    };
    let mut builder = match &args.from {
        Some(name) => ImageBuilder::from(&store.image(name)?),
        None => ImageBuilder::scratch(&store).cmd(["sh"]),
    };
    // This exists until the image is built.
    let tree = Tree::new()?;
    if args.from.is_none() || !args.program.is_empty() {
        let named: Vec<&str> = args.program.iter().map(String::as_str).collect();
        tree.fill(if named.is_empty() { &PROGRAMS } else { &named }, args.from.is_none())?;
        builder = builder.copy(&tree.0, "/");
    }
    for (from, to) in &args.copy {
        builder = builder.copy(from, to);
    }
    for command in &args.run {
        builder = builder.run(["sh", "-c", command]);
    }
    for variable in &args.env {
        let (name, value) = variable.split_once('=').ok_or_else(|| format!("--env {variable}: no `=`"))?;
        builder = builder.env(name, value);
    }
    if let Some(user) = &args.user {
        builder = builder.user(user);
    }
    if let Some(command) = &args.cmd {
        builder = builder.cmd(["sh", "-c", command]);
    }
    let image = builder.build(&args.name)?;
    if let Some(path) = &args.archive {
        store.export(std::slice::from_ref(&args.name), Archive::Oci, fs::File::create(path)?)?;
    }
    println!("{} {}", image.digest(), args.name);
    Ok(())
}

/// The contents of the image, on disk.
struct Tree(PathBuf);

impl Tree {
    fn new() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("ringfence-pack-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Tree(path))
    }

    /// Copies programs with the libraries that ldd(1) names and, with `whole`, everything else that
    /// a root needs.
    fn fill(&self, programs: &[&str], whole: bool) -> Result<(), Box<dyn Error>> {
        let mut files = BTreeSet::new();
        for program in programs {
            let file = find(program).ok_or_else(|| format!("the host has no program {program}"))?;
            files.extend(libraries(&file)?);
            self.copy(&file, &self.0.join(BIN).join(Path::new(program).file_name().unwrap_or_default()))?;
        }
        for file in files {
            self.copy(&file, &self.0.join(file.strip_prefix("/")?))?;
        }
        if whole {
            for (mode, dir) in [(0o755, "etc"), (0o755, "proc"), (0o755, "dev"), (0o1777, "tmp"), (0o700, "root")] {
                fs::create_dir_all(self.0.join(dir))?;
                fs::set_permissions(self.0.join(dir), PermissionsExt::from_mode(mode))?;
            }
            fs::write(self.0.join("etc/passwd"), PASSWD)?;
            fs::write(self.0.join("etc/group"), GROUP)?;
            if let Ok(text) = fs::read("/etc/os-release") {
                fs::write(self.0.join("etc/os-release"), text)?;
            }
            symlink(BIN, self.0.join("bin"))?;
        }
        Ok(())
    }

    fn copy(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        fs::create_dir_all(to.parent().unwrap_or(&self.0))?;
        fs::copy(from, to).map(drop)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Returns the libraries that a program is linked against; a static program has none.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(|word| PathBuf::from(word.trim_end_matches(':'))).collect())
}
