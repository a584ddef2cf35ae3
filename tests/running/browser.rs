//! A browser without a window, driven as the W3C's WebDriver says: Debian's chromium and chromedriver.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{TempDir, eventually};

/// The name of an element's number in an answer, by the standard.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A running browser, which ends with its handle.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: TempDir,
}

impl Browser {
    pub fn start() -> Browser {
        let mut driver = Command::new("chromedriver");
        driver.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = driver.spawn().unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        // Before it has one, it says that it is on port 0.
        let port = |line: String| line.split_once(" successfully on port ")?.1.trim_end_matches('.').parse().ok();
        let port = lines.find_map(port).unwrap();
        // What it says later must find a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = TempDir::new();
        let data = format!("--user-data-dir={}", profile.path().display());
        // What is shown is the test's own, and root has no sandbox of the browser's.
        let args = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=900,1000", &data];
        let mut browser = Browser { driver, port, session: String::new(), _profile: profile };
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": args}}}});
        browser.session = browser.ask("POST", "/session", &wanted)["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// What the driver answers to one request; anything but success fails the test.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_ask(method, path, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn try_ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        let head = format!("Host: localhost:{}\r\nConnection: close\r\nContent-Length: {}", self.port, body.len());
        write!(stream, "{method} {path} HTTP/1.1\r\n{head}\r\n\r\n{body}").unwrap();
        let mut answer = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            assert_ne!(answer.read_line(&mut line).unwrap(), 0, "{path}: the driver closed the connection");
            if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = number.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body).unwrap();
        let mut answer: Value = serde_json::from_slice(&body).unwrap();
        let value = answer["value"].take();
        if value["error"].is_null() { Ok(value) } else { Err(value) }
    }

    #[track_caller]
    fn command(&self, method: &str, path: &str, body: Value) -> Value {
        self.ask(method, &format!("/session/{}/{path}", self.session), &body)
    }

    #[track_caller]
    pub fn open(&self, url: &str) {
        self.command("POST", "url", json!({ "url": url }));
    }

    #[track_caller]
    fn element(&self, selector: &str) -> String {
        let found = self.command("POST", "element", json!({"using": "css selector", "value": selector}));
        format!("element/{}", found[ELEMENT].as_str().unwrap())
    }

    /// Types a text in place of what an input has.
    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.command("POST", &format!("{element}/clear"), json!({}));
        self.command("POST", &format!("{element}/value"), json!({ "text": text }));
    }

    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.command("POST", &format!("{}/click", self.element(selector)), json!({}));
    }

    /// Waits until an element of the page, or of the one that comes next, shows this text.
    #[track_caller]
    pub fn shows(&self, selector: &str, text: &str) {
        let script = json!({"script": "return document.querySelector(arguments[0]).innerText", "args": [selector]});
        let path = format!("/session/{}/execute/sync", self.session);
        // Between two pages there is no such element.
        eventually(text, || self.try_ask("POST", &path, &script).is_ok_and(|shown| shown == text));
    }

    /// What a script of the test's returns.
    #[track_caller]
    pub fn script(&self, script: &str) -> Value {
        self.command("POST", "execute/sync", json!({"script": script, "args": []}))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = self.try_ask("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
