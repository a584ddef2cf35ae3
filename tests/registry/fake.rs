//! A registry that answers as a test wants: HTTP by hand, on a port of loopback.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringfence::image::{Descriptor, Reference, Store};

use crate::common::TempDir;

/// What came in.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The way back to the client.
pub struct Answer<'a> {
    stream: &'a mut dyn Stream,
    stop: &'a AtomicBool,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Answer<'_> {
    /// These bytes as they are. That the client does not want them any more is its own affair.
    pub fn raw(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).and_then(|()| self.stream.flush()).is_ok()
    }

    /// A whole answer.
    pub fn send(&mut self, status: &str, headers: &str, body: &[u8]) {
        let length = body.len();
        self.raw(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"));
        self.raw(body);
    }

    /// The head of an answer whose body has no length.
    pub fn chunked(&mut self, headers: &str) {
        self.raw(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n{headers}\r\n"));
    }

    pub fn chunk(&mut self, bytes: &[u8]) -> bool {
        self.raw(format!("{:x}\r\n", bytes.len())) && self.raw(bytes) && self.raw("\r\n")
    }

    /// What the server at `host` says to the same request.
    pub fn forward(&mut self, host: &str, request: &Request) {
        let mut server = TcpStream::connect(host).unwrap();
        let mut text = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", request.method, request.path);
        for (key, value) in request.headers.iter().filter(|(key, _)| !key.eq_ignore_ascii_case("connection")) {
            text += &format!("{key}: {value}\r\n");
        }
        server.write_all(format!("{text}\r\n").as_bytes()).unwrap();
        server.write_all(&request.body).unwrap();
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let own = format!("http://{}", request.header("host").unwrap());
        self.raw(head.replace(&format!("http://{host}"), &own));
        self.raw(&answer[end..]);
    }

    /// Takes so many bytes of a body that was left unread, and keeps none.
    pub fn swallow(&mut self, length: u64) {
        io::copy(&mut (&mut *self.stream as &mut dyn Read).take(length), &mut io::sink()).unwrap();
    }

    /// Says nothing until the test is over.
    pub fn stall(&mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

type Handler = dyn Fn(&Request, &mut Answer<'_>) + Send + Sync;

/// A running server, which ends with its handle.
pub struct Fake {
    pub host: String,
    seen: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub fn start(answer: impl Fn(&Request, &mut Answer<'_>) + Send + Sync + 'static) -> Fake {
        Fake::with(None, answer)
    }

    /// With TLS, where there is a configuration for it.
    pub fn with(
        tls: Option<Arc<rustls::ServerConfig>>,
        answer: impl Fn(&Request, &mut Answer<'_>) + Send + Sync + 'static,
    ) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (seen, stop): (Arc<Mutex<Vec<Request>>>, Arc<AtomicBool>) = Default::default();
        let (all, end, answer): (_, _, Arc<Handler>) = (seen.clone(), stop.clone(), Arc::new(answer));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let (stream, seen, stop, answer) = (stream.unwrap(), all.clone(), end.clone(), answer.clone());
                let tls = tls.clone();
                thread::spawn(move || {
                    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    // What a client does not take must not hold up the end of the test.
                    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
                    let Some(config) = tls else { return drop(serve(stream, &seen, &stop, &*answer)) };
                    let connection = rustls::ServerConnection::new(config).unwrap();
                    let _ = serve(rustls::StreamOwned::new(connection, stream), &seen, &stop, &*answer);
                });
            }
        });
        Fake { host, seen, stop, thread: Some(thread) }
    }

    /// What has come in until now.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests for such a path came in.
    pub fn count(&self, part: &str) -> usize {
        self.seen().iter().filter(|request| request.path.contains(part)).count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.host).map(|stream| stream.shutdown(Shutdown::Both));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(mut stream: impl Stream, seen: &Mutex<Vec<Request>>, stop: &AtomicBool, answer: &Handler) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ');
    let (method, path) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
    let header = |line: &str| line.split_once(": ").map(|(key, value)| (key.to_owned(), value.to_owned()));
    let headers = lines.filter_map(header).collect();
    let mut request = Request { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse::<u64>().unwrap());
    if !request.path.contains("unread") {
        (&mut stream as &mut dyn Read).take(length).read_to_end(&mut request.body)?;
    }
    seen.lock().unwrap().push(request.clone());
    answer(&request, &mut Answer { stream: &mut stream, stop });
    Ok(())
}

/// An image, and how an honest registry would hand it out.
pub struct Site {
    _dir: TempDir,
    store: Store,
    pub top: Descriptor,
}

impl Site {
    /// An image of these layers.
    pub fn new(layers: &[&[u8]]) -> Site {
        let (dir, store) = crate::store();
        let image: Reference = "example.org/app:1".parse().unwrap();
        let top = crate::make_image(&store, &image, layers);
        Site { _dir: dir, store, top }
    }

    pub fn manifest(&self) -> Vec<u8> {
        crate::bytes_of(&self.store, &self.top)
    }

    pub fn layers(&self) -> Vec<Descriptor> {
        self.store.image(&"example.org/app:1".parse().unwrap()).unwrap().layers().to_vec()
    }

    pub fn blob(&self, path: &str) -> Option<Vec<u8>> {
        let digest = path.rsplit('/').next().unwrap().split('?').next().unwrap();
        let mut bytes = Vec::new();
        self.store.blob(&digest.parse().ok()?).unwrap()?.read_to_end(&mut bytes).unwrap();
        Some(bytes)
    }

    /// What an honest registry without `Range` says.
    pub fn answer(&self, request: &Request, answer: &mut Answer<'_>) {
        if request.path.contains("/manifests/") {
            let headers = format!("Content-Type: {}\r\n", self.top.media_type());
            return answer.send("200 OK", &headers, &self.manifest());
        }
        match self.blob(&request.path) {
            Some(bytes) => answer.send("200 OK", "", &bytes),
            None => answer.send("404 Not Found", "", b""),
        }
    }
}
