//! Requests per second of a service that runs a program for each, with 64 clients at once: one with
//! axum and the feature `tokio`, and one with a thread for each connection. Both take their
//! sandboxes from one pool.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use ringfence::{Command, Pool};
use tokio::runtime::Runtime;

use super::fixture::Fixture;
use super::rows;

/// The turns of each, the number of clients, and that of the sandboxes that are ready.
const TURNS: usize = 10;
const CLIENTS: usize = 64;
const READY: usize = 16;

/// Prints both numbers, and the ratio.
pub fn run(fixture: &Fixture, turn: Duration) -> Result<(), String> {
    let pool = rows::full(&*fixture.root).pool(READY).map_err(|error| format!("{error:#}"))?;
    let pool = Arc::new(pool);
    let tokio = Tokio::start(pool.clone()).map_err(|error| format!("the service with axum: {error}"))?;
    let threads = Threads::start(pool).map_err(|error| format!("the service with threads: {error}"))?;
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        rates[0].push(load(tokio.at, turn)?);
        rates[1].push(load(threads.at, turn)?);
    }
    let [tokio, threads] = rates.map(|mut rates| {
        rates.sort_unstable_by(f64::total_cmp);
        rates[TURNS / 2]
    });
    println!("\nrequests per second of a service, from {CLIENTS} clients, each a run from the pool");
    println!("{:32} {tokio:9.0}", "axum, feature tokio");
    println!("{:32} {threads:9.0}", "a thread for each connection");
    let share = tokio / threads;
    let verdict = if share >= 0.95 { "reached" } else { "missed" };
    println!("{:32} {share:9.2}   goal >= 0.95 {verdict}", "ratio");
    Ok(())
}

/// Returns the number of requests in a second.
fn load(at: SocketAddr, turn: Duration) -> Result<f64, String> {
    let start = Instant::now();
    let counts: Result<Vec<u32>, String> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| client(at, start + turn))).collect();
        let ended = clients.into_iter().map(|client| client.join());
        ended.map(|end| end.map_err(|_| "a client has panicked".to_owned())?.map_err(|e| e.to_string())).collect()
    });
    Ok(f64::from(counts?.iter().sum::<u32>()) / start.elapsed().as_secs_f64())
}

/// Sends one request after the other on one connection, and returns their number.
fn client(at: SocketAddr, until: Instant) -> io::Result<u32> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut count = 0;
    while Instant::now() < until {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let head = head(&mut answers)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(io::Error::other(format!("the service answered {head:?}")));
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.split_once("content-length: ").and_then(|(_, rest)| rest.split_once('\r'));
        let length = length.and_then(|(length, _)| length.parse().ok()).unwrap_or(0);
        answers.read_exact(&mut vec![0; length])?;
        count += 1;
    }
    Ok(count)
}

/// Reads a request or an answer up to its body, or returns `None` if there is no more.
fn head(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

/// The service with axum, which ends with its handle.
struct Tokio {
    at: SocketAddr,
    _runtime: Runtime,
}

impl Tokio {
    fn start(pool: Arc<Pool>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let at = listener.local_addr()?;
        let app = axum::Router::new().route("/", axum::routing::get(answer)).with_state(pool);
        runtime.spawn(async move { axum::serve(listener, app).await });
        Ok(Tokio { at, _runtime: runtime })
    }
}

async fn answer(State(pool): State<Arc<Pool>>) -> StatusCode {
    let ended = pool.output_async(Command::new("/true")).await;
    if ended.is_ok_and(|output| output.outcome.success()) { StatusCode::OK } else { StatusCode::BAD_GATEWAY }
}

/// The service with threads, which ends with its handle.
struct Threads {
    at: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Threads {
    fn start(pool: Arc<Pool>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let at = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = stop.clone();
        let thread = thread::spawn(move || {
            thread::scope(|scope| {
                for stream in listener.incoming().flatten() {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    // A client that is gone has its own error.
                    scope.spawn(|| serve(stream, &pool));
                }
            });
        });
        Ok(Threads { at, stop, thread: Some(thread) })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.at);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Answers the requests of one connection.
fn serve(mut stream: TcpStream, pool: &Pool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = BufReader::new(stream.try_clone()?);
    while head(&mut requests)?.is_some() {
        let ended = pool.output(Command::new("/true"));
        let is_good = ended.is_ok_and(|output| output.outcome.success());
        let status = if is_good { "200 OK" } else { "502 Bad Gateway" };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")?;
    }
    Ok(())
}
