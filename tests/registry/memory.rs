//! What a pull and a push take of memory: no more for a larger layer.

use std::fs;
use std::process::Command;

use crate::fake::Fake;
use crate::hostile::for_a_layer;
use crate::{client, name, store};

/// Set for a copy of this test program that pulls and pushes: the host of the registry.
const PULLS: &str = "RINGFENCE_TEST_PULLS";
const LAYER: usize = 64 << 20;
/// Pieces on their way, stacks, and the pages of a large program that are touched for the first time.
const ENOUGH: usize = 48 << 20;

/// The most memory that this process has had resident.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn a_large_layer_takes_no_more_memory_than_a_small_one() {
    if let Some(host) = std::env::var_os(PULLS) {
        return pulls(host.to_str().unwrap());
    }
    let fake: Fake = for_a_layer(LAYER, |layer, request, out| {
        assert_eq!(request.method, "GET");
        out.send("200 OK", "", layer);
    });
    let mut copy = Command::new(std::env::current_exe().unwrap());
    copy.args(["--exact", "memory::a_large_layer_takes_no_more_memory_than_a_small_one"]).env(PULLS, &fake.host);
    let output = copy.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn pulls(host: &str) {
    let (_dir, store) = store();
    let before = peak();
    let image = name(&format!("{host}/app:1"));
    let pulled = client(host).pull(&store, &image).unwrap();
    assert_eq!(pulled.layers()[0].size(), LAYER as u64);
    let taken = peak() - before;
    assert!(taken < ENOUGH, "a pull of {LAYER} bytes took {taken}");

    let taker = Fake::start(|request, out| match request.method.as_str() {
        "POST" => out.send("202 Accepted", "Location: /unread\r\n", b""),
        "PUT" if !request.path.contains("unread") => out.send("201 Created", "", b""),
        // Whoever closes on a body that it has not read resets the connection, and its answer may be lost with it.
        "PUT" | "PATCH" => {
            out.swallow(request.header("content-length").unwrap().parse().unwrap());
            out.send(if request.method == "PUT" { "201 Created" } else { "404 Not Found" }, "", b"");
        }
        _ => out.send("404 Not Found", "", b""),
    });
    let other = name(&format!("{}/app:1", taker.host));
    store.tag(&other, &store.resolve(&image).unwrap()).unwrap();
    client(&taker.host).push(&store, &other).unwrap();
    let taken = peak() - before;
    assert!(taken < ENOUGH, "a push of {LAYER} bytes took {taken}");
}
