//! The example `playground`: its page over HTTP by hand, and in a browser.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use ringfence::Feature;

use crate::browser::Browser;
use crate::common::{self, probe};

#[path = "../../examples/playground.rs"]
mod example;

common::callers! {
    |words|
    "playground" => example::run(0, words[1].parse().unwrap(), words.get(2).map(Path::new)).unwrap(),
}

/// The most programs at once that a test's page runs.
const PARALLEL: usize = 2;

/// A served page, which ends with its handle.
struct Page {
    server: Child,
    /// Where it is: 127.0.0.1 and a port.
    host: String,
}

impl Page {
    fn start() -> Page {
        let mut caller = format!("playground {PARALLEL}");
        if common::is_root() {
            caller += &format!(" {}", common::cgroup_parent().display());
        }
        let mut server = probe::caller(&caller).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let host = line.trim().strip_prefix("http://").and_then(|host| host.strip_suffix('/'));
        Page { host: host.unwrap_or_else(|| panic!("{line:?}")).to_owned(), server }
    }

    /// Sends a request, and leaves the answer to come.
    fn send(&self, method: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let form = "Content-Type: application/x-www-form-urlencoded\r\nConnection: close";
        let length = body.len();
        write!(stream, "{method} / HTTP/1.1\r\n{form}\r\nContent-Length: {length}\r\n{headers}\r\n{body}").unwrap();
        stream
    }

    /// The status and the page that are the answer to a form.
    fn post(&self, fields: &[(&str, &str)]) -> (u16, String) {
        answer(self.send("POST", &format!("Host: {}\r\n", self.host), &form(fields)))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        kill(Pid::from_raw(self.server.id() as i32), Signal::SIGTERM).unwrap();
        let end = self.server.wait().unwrap();
        assert!(end.success() || std::thread::panicking(), "{end:?}");
    }
}

fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let all = String::from_utf8(all).unwrap();
    let status = all.split(' ').nth(1).unwrap_or_else(|| panic!("{all:?}")).parse().unwrap();
    (status, all)
}

/// A form as a browser sends it, with these fields in place of the usual ones.
fn form(fields: &[(&str, &str)]) -> String {
    let mut all = vec![("language", "sh"), ("code", ""), ("input", ""), ("time", "10")];
    all.extend([("memory", "64"), ("processes", "16"), ("output", "64")]);
    for (name, value) in fields {
        match all.iter_mut().find(|(other, _)| other == name) {
            Some(field) => field.1 = value,
            None => all.push((name, value)),
        }
    }
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let pairs: Vec<_> = all.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    pairs.join("&")
}

/// What stands in an element of the page, as the page has it.
#[track_caller]
fn element<'p>(page: &'p str, id: &str) -> &'p str {
    let after = page.split_once(&format!(" id={id}")).unwrap_or_else(|| panic!("no {id} in {page}")).1;
    after.split_once('>').unwrap().1.split_once("</").unwrap().0.trim_start()
}

#[test]
fn a_program_is_run_and_its_end_is_shown() {
    let _clean = common::clean();
    let page = Page::start();
    let code = "read a b; echo \"$((a + b)) <b> & \\\"c\\\"\"; echo wrong >&2; exit 3";
    // The first makes its pool, the second is served by it, and the third has a pool of its own.
    for memory in ["64", "64", "65"] {
        let (status, shown) = page.post(&[("code", code), ("input", "1 2\r\n"), ("memory", memory)]);
        assert_eq!(status, 200, "{shown}");
        assert_eq!(element(&shown, "verdict"), "exited with 3");
        assert_eq!(element(&shown, "stdout"), "3 &lt;b&gt; &amp; &quot;c&quot;\n");
        assert_eq!(element(&shown, "stderr"), "wrong\n");
        assert!(element(&shown, "usage").contains("of processor time"), "{shown}");
    }
}

#[test]
fn the_limits_of_the_form_hold() {
    let _clean = common::clean();
    let page = Page::start();
    let verdict = |fields: &[(&str, &str)]| element(&page.post(fields).1, "verdict").to_owned();
    assert_eq!(verdict(&[("code", "sleep 100"), ("time", "1")]), "out of wall time");
    assert_eq!(verdict(&[("code", "yes"), ("output", "1")]), "too much output");
    if common::no_cgroups() {
        return;
    }
    assert_eq!(verdict(&[("code", "tail /dev/zero"), ("memory", "16")]), "out of memory");
    let (_, shown) = page.post(&[("code", "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait"), ("processes", "4")]);
    assert!(element(&shown, "stderr").contains("ork"), "{shown}");
}

#[test]
fn what_was_refused_is_shown() {
    let _clean = common::clean();
    let page = Page::start();
    let (_, shown) = page.post(&[("code", "unshare --user id")]);
    // Where the host can make no record, the page says so.
    let gap = format!("does not enforce {}", Feature::Denials);
    if !shown.contains(&gap) {
        assert!(element(&shown, "denials").starts_with("<li>unshare("), "{shown}");
    }
}

#[test]
fn what_is_no_form_of_the_page_is_refused() {
    let _clean = common::clean();
    let page = Page::start();
    let refused = |fields: &[(&str, &str)]| {
        let (status, shown) = page.post(fields);
        assert_eq!(status, 422, "{shown}");
        element(&shown, "verdict").to_owned()
    };
    assert_eq!(refused(&[("time", "11")]), "time is a number from 1 to 10 (s)");
    assert_eq!(refused(&[("memory", "-1")]), "memory is a number from 8 to 512 (MiB)");
    assert_eq!(refused(&[("processes", "all")]), "processes is a number from 4 to 64 (at once)");
    assert_eq!(refused(&[("language", "<cobol>")]), "there is no such language");
    assert_eq!(refused(&[("code", &"#".repeat(70_000))]), "the program has more than 65536 bytes");
    assert_eq!(refused(&[("code", "echo \0")]), "the program has a zero byte");
    let own = format!("Host: {}\r\n", page.host);
    assert_eq!(answer(page.send("POST", &own, "language=sh")).0, 422);
    assert_eq!(answer(page.send("POST", &own, &form(&[("code", &"#".repeat(200_000))]))).0, 413);
}

#[test]
fn a_page_of_another_site_runs_nothing() {
    let _clean = common::clean();
    let page = Page::start();
    let post = |headers: &str| answer(page.send("POST", headers, &form(&[("code", "echo ran")]))).0;
    let (host, port) = (&page.host, page.host.split_once(':').unwrap().1);
    assert_eq!(post(&format!("Host: {host}\r\nOrigin: http://{host}\r\n")), 200);
    assert_eq!(post(&format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n")), 200);
    assert_eq!(post(&format!("Host: {host}\r\nOrigin: http://evil.example\r\n")), 403);
    assert_eq!(post(&format!("Host: {host}\r\nOrigin: null\r\n")), 403);
    assert_eq!(post(&format!("Host: evil.example:{port}\r\nOrigin: http://evil.example:{port}\r\n")), 403);
}

#[test]
fn whoever_closes_the_page_ends_the_program() {
    let _clean = common::clean();
    let page = Page::start();
    // Those that run take all turns until their connections are closed; whoever finds none is told so at once.
    let own = format!("Host: {}\r\n", page.host);
    let long = form(&[("code", "sleep 100")]);
    let begun = RefCell::new(Vec::new());
    common::eventually("all turns are taken", || {
        begun.borrow_mut().push(page.send("POST", &own, &long));
        page.post(&[("code", "exit")]).0 == 503
    });
    for stream in begun.take() {
        stream.shutdown(Shutdown::Both).unwrap();
    }
    common::eventually("the turns are free", || page.post(&[("code", "exit")]).0 == 200);
}

#[test]
fn a_browser_runs_a_program_and_shows_its_end() {
    let _clean = common::clean();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |tool| std::env::split_paths(&path).any(|dir| dir.join(tool).exists());
    if !has("chromium") || !has("chromedriver") {
        return common::skip("not installed: chromium, chromedriver", false);
    }
    let (page, browser) = (Page::start(), Browser::start());
    let url = format!("http://{}/", page.host);
    browser.open(&url);
    browser.fill("textarea[name=code]", "cat; echo '<script>document.title = 1</script>'; unshare --user id; exit 7");
    browser.fill("textarea[name=input]", "one\ntwo\n");
    browser.fill("input[name=time]", "10");
    browser.click("#run");
    browser.shows("#verdict", "exited with 7");
    browser.shows("#stdout", "one\ntwo\n<script>document.title = 1</script>\n");
    assert_eq!(browser.script("return document.title"), "playground");
    browser.shows("#stderr", "unshare: unshare failed: Operation not permitted\n");
    // The form still has what was sent, and can be sent again.
    browser.fill("input[name=output]", "1");
    browser.fill("textarea[name=code]", "yes");
    browser.click("#run");
    browser.shows("#verdict", "too much output");
    // A limit beyond those of the page is not sent.
    browser.fill("input[name=time]", "1000");
    browser.click("#run");
    assert_eq!(browser.script("return document.querySelector('input[name=time]').validity.rangeOverflow"), true);
    browser.shows("#verdict", "too much output");
    // A page of another site, here one without a site, sends the form as well as any.
    let evil = format!("data:text/html,<form method=post action={url}><input name=code value=id><button id=run>");
    browser.open(&evil);
    browser.click("#run");
    browser.shows("body", "this page answers only its own site\n");
}
