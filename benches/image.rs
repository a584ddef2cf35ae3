//! Images: pulls them from a registry on loopback, or takes them from a layout, and unpacks them.
//! The rows take turns with skopeo and umoci, with podman and with GNU tar, as far as these are
//! installed.
//!
//! ```text
//! cargo bench --all-features --bench image -- by-turns [ROUNDS]
//! ```
//!
//! For root, each repetition has a tmpfs of its own. `RINGFENCE_BENCH_LAYOUT` names an image layout
//! of one image; otherwise the bench makes an image of the host's /usr. Without arguments, as with
//! `cargo test --benches`, one small image is used once.

#[cfg(feature = "registry")]
#[path = "image/server.rs"]
mod server;

#[cfg(not(feature = "image"))]
fn main() {
    eprintln!("this needs the crate's feature `image`");
}

#[cfg(feature = "image")]
fn main() {
    bench::main();
}

#[cfg(feature = "image")]
mod bench {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use ringfence::image::{Image, Store, host_platform};

    pub fn main() {
        let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
        let rounds = match words.iter().position(|word| word == "by-turns") {
            Some(at) => words.get(at + 1).map_or(5, |count| count.parse().expect("a number of rounds")),
            None => 1,
        };
        let place = BenchDir::new();
        let layout = match std::env::var_os("RINGFENCE_BENCH_LAYOUT") {
            Some(layout) => PathBuf::from(layout),
            None => layout_of_usr(&place.0, rounds > 1),
        };
        by_turns(&layout, rounds);
    }

    /// A directory, which a drop removes. For root, the directory is a tmpfs.
    struct BenchDir(PathBuf);

    impl BenchDir {
        fn new() -> BenchDir {
            use std::sync::atomic::{AtomicU32, Ordering};
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("rfbench-image-{}-{number}", std::process::id()));
            fs::create_dir(&path).unwrap();
            if nix::unistd::geteuid().is_root() {
                let flags = nix::mount::MsFlags::empty();
                nix::mount::mount(Some("tmpfs"), &path, Some("tmpfs"), flags, Some("mode=0755,size=80%")).unwrap();
            }
            BenchDir(path)
        }
    }

    impl Drop for BenchDir {
        fn drop(&mut self) {
            if nix::unistd::geteuid().is_root() {
                let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
            }
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn run(script: &str, words: &[&Path]) {
        let status = Command::new("sh").args(["-ec", script, "sh"]).args(words).stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "{script}: {status}");
    }

    /// Unpacks the image that is named `image` in `copy`.
    fn unpack_with_umoci(place: &Path) {
        let script = "umoci --log=error unpack --image \"$1\":image \"$2\"";
        run(script, &[&place.join("copy"), &place.join("bundle")]);
    }

    fn exists(program: &str) -> bool {
        Command::new(program).arg("--version").output().is_ok()
    }

    /// Makes a layout with two layers. Each layer is an archive that the store first takes in as an
    /// image of its own.
    fn layout_of_usr(place: &Path, large: bool) -> PathBuf {
        let source = if large { "/usr/lib" } else { "/usr/share/perl5" };
        let source = if Path::new(source).exists() { source } else { "/etc" };
        let archive = place.join("usr.tar.gz");
        let script = "tar -C / --ignore-failed-read -c \"${1#/}\" 2>/dev/null | gzip -c >\"$2\"";
        run(script, &[Path::new(source), &archive]);
        let store = Store::open(place.join("layout")).unwrap();
        store.import_rootfs(&archive, &"bench".parse().unwrap()).unwrap();
        store.path().to_owned()
    }

    /// Takes the one image of the layout into a store.
    fn take_in(layout: &Path, place: &Path) -> (Store, Image) {
        let store = Store::open(place.join("store")).unwrap();
        let image = store.import(layout, None).unwrap().remove(0);
        let image = store.image_of(&image.manifest, &host_platform()).unwrap();
        (store, image)
    }

    type Row = (&'static str, Box<dyn Fn(&Path) -> Duration>);

    fn by_turns(layout: &Path, rounds: usize) {
        let path = layout.to_owned();
        let mut rows: Vec<Row> = vec![
            ("ringfence: import and unpack", {
                let layout = path.clone();
                Box::new(move |place| {
                    let start = Instant::now();
                    let (_store, image) = take_in(&layout, place);
                    image.unpack().unwrap();
                    start.elapsed()
                })
            }),
            ("ringfence: unpack", {
                let layout = path.clone();
                Box::new(move |place| {
                    let (_store, image) = take_in(&layout, place);
                    let start = Instant::now();
                    image.unpack().unwrap();
                    start.elapsed()
                })
            }),
        ];
        let root = nix::unistd::geteuid().is_root();
        if root && exists("skopeo") && exists("umoci") {
            let layout = path.clone();
            rows.push((
                "skopeo copy, umoci unpack",
                Box::new(move |place| {
                    let start = Instant::now();
                    run("skopeo copy -q oci:\"$1\" oci:\"$2\":image", &[&layout, &place.join("copy")]);
                    unpack_with_umoci(place);
                    start.elapsed()
                }),
            ));
        }
        if root {
            rows.push((
                "gzip and tar, layer after layer",
                Box::new(move |place| {
                    let (_store, image) = take_in(&path, place);
                    let tree = place.join("tree");
                    fs::create_dir(&tree).unwrap();
                    let start = Instant::now();
                    for layer in image.layers() {
                        let blob = place.join("store/blobs/sha256").join(layer.digest().digest());
                        let script = "gzip -dcf <\"$1\" | \
                            tar -C \"$2\" --numeric-owner --xattrs --xattrs-include='*' -xpf -";
                        run(script, &[&blob, &tree]);
                    }
                    start.elapsed()
                }),
            ));
        }
        #[cfg(feature = "registry")]
        let _server = pulls::rows(layout, &mut rows);
        let mut times: Vec<Vec<Duration>> = vec![Vec::new(); rows.len()];
        for _ in 0..rounds {
            for ((_, row), times) in rows.iter().zip(&mut times) {
                let place = BenchDir::new();
                times.push(row(&place.0));
            }
        }
        for ((name, _), times) in rows.iter().zip(&mut times) {
            times.sort();
            let (least, median) = (times[0].as_secs_f64(), times[times.len() / 2].as_secs_f64());
            println!("{name:<36} median {median:6.2} s   least {least:6.2} s");
        }
    }

    /// The rows that start from a registry on loopback and end with directories.
    #[cfg(feature = "registry")]
    mod pulls {
        use std::path::Path;
        use std::time::Instant;

        use ringfence::image::{Reference, Store};
        use ringfence::registry::Registry;

        use super::super::server::Server;
        use super::{BenchDir, Row, exists, run, unpack_with_umoci};

        /// Adds the rows. Returns the server, which must stay, with its place.
        pub fn rows(layout: &Path, rows: &mut Vec<Row>) -> Option<(Server, BenchDir)> {
            let place = BenchDir::new();
            let server = Server::start(&place.0).map_err(|why| eprintln!("without pulls: {why}")).ok()?;
            let name: Reference = format!("{}/bench:1", server.host).parse().unwrap();
            let registry = Registry::new().anonymous().plain_http(&server.host);
            let store = Store::open(place.0.join("store")).unwrap();
            store.import(layout, Some(&name)).unwrap();
            registry.push(&store, &name).unwrap();
            let text = name.to_string();
            rows.push((
                "ringfence: pull and unpack",
                Box::new(move |place| {
                    let start = Instant::now();
                    let store = Store::open(place.join("store")).unwrap();
                    registry.pull_and_unpack(&store, &name).unwrap();
                    start.elapsed()
                }),
            ));
            let root = nix::unistd::geteuid().is_root();
            if root && exists("skopeo") && exists("umoci") {
                let name = text.clone();
                rows.push((
                    "skopeo copy (pull), umoci unpack",
                    Box::new(move |place| {
                        let start = Instant::now();
                        let pull = "skopeo copy -q --src-tls-verify=false docker://\"$1\" oci:\"$2\":image";
                        run(pull, &[Path::new(&name), &place.join("copy")]);
                        unpack_with_umoci(place);
                        start.elapsed()
                    }),
                ));
            }
            if root && exists("podman") {
                rows.push((
                    "podman pull",
                    Box::new(move |place| {
                        let start = Instant::now();
                        let pull = "podman --root \"$1/root\" --runroot \"$1/run\" --tmpdir \"$1/tmp\" \
                                    --storage-driver overlay pull -q --tls-verify=false \"$2\"; \
                                    umount \"$1/root/overlay\" 2>/dev/null || :";
                        run(pull, &[place, Path::new(&text)]);
                        start.elapsed()
                    }),
                ));
            }
            Some((server, place))
        }
    }
}
