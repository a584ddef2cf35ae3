//! A web page that runs programs by strangers, each in a sandbox of a pool:
//!
//!     cargo run --release --example playground --features playground -- --port 8080
//!
//! The page takes a program, its input and its limits, and shows the verdict, the output, the usage
//! and what the sandbox refused. Whoever closes the page ends the program. The server listens on
//! loopback, and answers no page of another site.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Form, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::{Router, routing};
use clap::Parser;
use ringfence::{Command, Enforcement, Error, Feature, Output, Pool, Sandbox, Stdio};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::spawn_blocking;

/// The control group below which root's groups are made.
const PARENT: &str = "/ringfence-playground";
/// The number of limits that have a pool each, and of sandboxes that a pool keeps ready.
const POOLS: usize = 4;
const READY: usize = 2;
/// The largest program and the largest form, in bytes.
const CODE_MAX: usize = 64 << 10;
const FORM_MAX: usize = 512 << 10;

/// Serves a page that runs programs in sandboxes.
#[derive(Parser, Debug)]
#[command(name = "playground")]
struct Args {
    /// The port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The number of programs that run at once; whoever comes then is told to come again
    #[arg(long, default_value_t = 8)]
    parallel: usize,
}

/// A language, and how its program is run: the code is the last argument.
struct Language {
    name: &'static str,
    /// What the host must have.
    needs: &'static str,
    command: &'static [&'static str],
    sample: &'static str,
}

const LANGUAGES: [Language; 5] = [
    Language {
        name: "sh",
        needs: "sh",
        command: &["sh", "-c"],
        sample: "echo \"pid $$, user $(id -u), on $(hostname)\"\nls /root\nunshare --user id\n",
    },
    Language {
        name: "python",
        needs: "python3",
        command: &["python3", "-c"],
        sample: "import sys\nprint(sum(int(word) for word in sys.stdin.read().split()))\n",
    },
    Language { name: "perl", needs: "perl", command: &["perl", "-e"], sample: "print scalar reverse <STDIN>;\n" },
    Language { name: "node", needs: "node", command: &["node", "-e"], sample: "console.log(process.uptime())\n" },
    Language {
        name: "C",
        needs: "cc",
        command: &["sh", "-c", "printf %s \"$1\" >/tmp/a.c && cc -O1 -o /tmp/a /tmp/a.c && exec /tmp/a", "sh"],
        sample: "#include <stdio.h>\nint main(void) { puts(\"hello\"); }\n",
    },
];

/// A limit of the form.
struct Field {
    name: &'static str,
    unit: &'static str,
    least: u64,
    most: u64,
    usual: u64,
}

/// In the order of [`Limits`].
const FIELDS: [Field; 4] = [
    Field { name: "time", unit: "s", least: 1, most: 10, usual: 2 },
    Field { name: "memory", unit: "MiB", least: 8, most: 512, usual: 128 },
    Field { name: "processes", unit: "at once", least: 4, most: 64, usual: 16 },
    Field { name: "output", unit: "KiB", least: 1, most: 1024, usual: 64 },
];
type Limits = [u64; FIELDS.len()];

/// Returns a sandbox for untrusted code with these limits, and with a record of what is refused.
/// Without a parent for its control group, which an ordinary user may not have, leaves out the limits
/// that the host cannot enforce; the page says so.
fn sandbox(parent: Option<&Path>, [time, memory, processes, output]: Limits) -> Sandbox {
    let sandbox = Sandbox::strict()
        .wall_time(Duration::from_secs(time))
        .memory_limit(memory << 20)
        .pids_limit(processes)
        .output_limit(output << 10)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .denials(true)
        .best_effort(Feature::Denials);
    match parent {
        Some(parent) => sandbox.cgroup_parent(parent),
        None => [Feature::MemoryLimit, Feature::PidsLimit].into_iter().fold(sandbox, Sandbox::best_effort),
    }
}

#[allow(dead_code, reason = "the tests call `run`")]
fn main() -> ExitCode {
    let args = Args::parse();
    let parent = nix::unistd::geteuid().is_root().then_some(Path::new(PARENT));
    match run(args.port, args.parallel, parent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("playground: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves the page until Ctrl-C. Ends programs that still run, and leaves nothing.
pub fn run(port: u16, parallel: usize, parent: Option<&Path>) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(port, parallel, parent))
}

async fn serve(port: u16, parallel: usize, parent: Option<&Path>) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let port = listener.local_addr()?.port();
    let playground = Arc::new(Playground::new(port, parallel, parent)?);
    let app = Router::new()
        .route("/", routing::get(show).post(answer))
        .layer(middleware::from_fn_with_state(playground.clone(), guard))
        .layer(DefaultBodyLimit::max(FORM_MAX))
        .with_state(playground);
    println!("http://127.0.0.1:{port}/");
    tokio::select! {
        served = axum::serve(listener, app) => Ok(served?),
        ended = ended() => Ok(ended?),
    }
}

/// Waits for Ctrl-C, or for SIGTERM.
async fn ended() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

struct Playground {
    port: u16,
    /// The control group below which those of the sandboxes are made.
    parent: Option<PathBuf>,
    languages: Vec<&'static Language>,
    /// What this host does not enforce.
    gaps: Vec<String>,
    turns: Semaphore,
    /// The pool that was used last is the last.
    pools: Mutex<Vec<(Limits, Arc<Pool>)>>,
}

impl Playground {
    fn new(port: u16, parallel: usize, parent: Option<&Path>) -> Result<Playground, Error> {
        let enforced = sandbox(parent, FIELDS.map(|field| field.usual)).command("sh").check()?;
        let gaps = enforced.iter().filter_map(|(feature, enforcement)| match enforcement {
            Enforcement::Missing(why) => Some(format!("{feature}: {why}")),
            _ => None,
        });
        let dirs: Vec<_> = std::env::split_paths("/usr/local/bin:/usr/bin:/bin").collect();
        let is_there = |language: &&Language| dirs.iter().any(|dir| dir.join(language.needs).exists());
        Ok(Playground {
            port,
            parent: parent.map(Path::to_owned),
            languages: LANGUAGES.iter().filter(is_there).collect(),
            gaps: gaps.collect(),
            turns: Semaphore::new(parallel),
            pools: Mutex::default(),
        })
    }

    /// Returns the pool for these limits, which is made if they were not asked for lately.
    async fn pool(&self, limits: Limits) -> Result<Arc<Pool>, Error> {
        let mut pools = self.pools.lock().await;
        if let Some(at) = pools.iter().position(|(of, _)| *of == limits) {
            pools[at..].rotate_left(1);
        } else {
            let parent = self.parent.clone();
            let pool = unblocked(move || sandbox(parent.as_deref(), limits).pool(READY)).await?;
            pools.push((limits, Arc::new(pool)));
            if pools.len() > POOLS {
                let oldest = pools.remove(0);
                // The drop waits for the sandboxes that are being made.
                spawn_blocking(move || drop(oldest));
            }
        }
        Ok(pools[pools.len() - 1].1.clone())
    }

    /// Runs a program. If the caller is dropped meanwhile, the program is killed.
    async fn run(&self, snippet: &Snippet) -> Result<Output, Error> {
        let pool = self.pool(snippet.limits).await?;
        let (program, args) = snippet.language.command.split_first().expect("every language has a command");
        let input = Stdio::bytes(snippet.input.clone().into_bytes());
        pool.output_async(Command::new(program).args(args).arg(&snippet.code).stdin(input)).await
    }
}

/// Runs what may block, a panic included, as if it were called here.
async fn unblocked<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// What the form has.
struct Snippet {
    language: &'static Language,
    code: String,
    input: String,
    limits: Limits,
}

impl Snippet {
    fn sample(language: &'static Language) -> Snippet {
        let limits = FIELDS.map(|field| field.usual);
        Snippet { language, code: language.sample.to_owned(), input: "1 2 3\n".to_owned(), limits }
    }

    fn read(mut form: HashMap<String, String>, languages: &[&'static Language]) -> Result<Snippet, String> {
        let mut take = |name: &str| form.remove(name).ok_or_else(|| format!("the form has no {name}"));
        let name = take("language")?;
        let language = languages.iter().find(|language| language.name == name);
        // A browser sends the ends of lines as the network has them.
        let (code, input) = (take("code")?.replace("\r\n", "\n"), take("input")?.replace("\r\n", "\n"));
        let mut limits = Limits::default();
        for (limit, Field { name, unit, least, most, .. }) in limits.iter_mut().zip(&FIELDS) {
            let number = take(name)?.trim().parse().ok().filter(|number| (least..=most).contains(&number));
            *limit = number.ok_or_else(|| format!("{name} is a number from {least} to {most} ({unit})"))?;
        }
        if code.len() > CODE_MAX {
            return Err(format!("the program has more than {CODE_MAX} bytes"));
        }
        if code.contains('\0') {
            return Err("the program has a zero byte".to_owned());
        }
        Ok(Snippet { language: language.ok_or("there is no such language")?, code, input, limits })
    }
}

/// Refuses requests that pages of other sites have sent, also by a name that leads here.
async fn guard(State(playground): State<Arc<Playground>>, request: Request, next: Next) -> Response {
    if !is_own_site(request.headers(), playground.port) {
        return (StatusCode::FORBIDDEN, "this page answers only its own site\n").into_response();
    }
    let mut response = next.run(request).await;
    let policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, header::HeaderValue::from_static(policy));
    response
}

/// A browser says by `Host` what was asked for, and by `Origin` who asks.
fn is_own_site(headers: &HeaderMap, port: u16) -> bool {
    let of = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = of(header::HOST).unwrap_or_default();
    let is_ours = ["127.0.0.1", "localhost"].iter().any(|name| host == format!("{name}:{port}"));
    is_ours && of(header::ORIGIN).is_none_or(|origin| origin == format!("http://{host}"))
}

async fn show(State(playground): State<Arc<Playground>>) -> Html<String> {
    page(&playground, &Snippet::sample(playground.languages[0]), "")
}

async fn answer(State(playground): State<Arc<Playground>>, Form(form): Form<HashMap<String, String>>) -> Response {
    let sample = Snippet::sample(playground.languages[0]);
    let refuse = |status: StatusCode, snippet, what: &str| {
        let result = format!("<h2 id=verdict class=bad>{}</h2>", escaped(what));
        (status, page(&playground, snippet, &result)).into_response()
    };
    let snippet = match Snippet::read(form, &playground.languages) {
        Ok(snippet) => snippet,
        Err(wrong) => return refuse(StatusCode::UNPROCESSABLE_ENTITY, &sample, &wrong),
    };
    let Ok(_turn) = playground.turns.try_acquire() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, &snippet, "too many programs run: try again in a moment");
    };
    match playground.run(&snippet).await {
        Ok(output) => page(&playground, &snippet, &result(&output)).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &snippet, &error.to_string()),
    }
}

/// Returns text as HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Returns the part of the page about a program that has ended.
fn result(output: &Output) -> String {
    let (verdict, usage) = (output.outcome.verdict(), output.outcome.usage());
    let class = if output.outcome.success() { "good" } else { "bad" };
    let mut html = format!("<h2 id=verdict class={class}>{}</h2>", escaped(&verdict.to_string()));
    let memory = usage.peak_memory.map_or(String::new(), |memory| format!(", {memory} of memory"));
    let cpu = usage.user + usage.system;
    let _ = write!(html, "<p id=usage>{:.1?}, {cpu:.1?} of processor time{memory}</p>", usage.wall);
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !bytes.is_empty() {
            let text = escaped(&String::from_utf8_lossy(bytes));
            let _ = write!(html, "<h3>{name}</h3><pre id={name}>\n{text}</pre>");
        }
    }
    if output.truncated {
        html += "<p>The rest of the output was dropped.</p>";
    }
    if let Some(denials) = output.denials.as_ref().filter(|denials| !denials.is_empty()) {
        html += "<h3>refused</h3><ul id=denials>";
        for denial in denials {
            let (denial, allowed) = (escaped(&denial.to_string()), escaped(&denial.allowed_by().to_string()));
            let _ = write!(html, "<li>{denial}<br><small>allowed by <code>{allowed}</code></small>");
        }
        if denials.dropped() > 0 {
            let _ = write!(html, "<li>and {} more", denials.dropped());
        }
        html += "</ul>";
    }
    html
}

/// Returns the whole page.
fn page(playground: &Playground, snippet: &Snippet, result: &str) -> Html<String> {
    let mut languages = String::new();
    for Language { name, .. } in &playground.languages {
        let selected = if *name == snippet.language.name { " selected" } else { "" };
        let _ = write!(languages, "<option{selected}>{name}</option>");
    }
    let mut limits = String::new();
    for (Field { name, unit, least, most, .. }, limit) in FIELDS.iter().zip(snippet.limits) {
        let _ = write!(
            limits,
            "<label>{name} <input type=number name={name} min={least} max={most} value={limit} required> {unit}</label>"
        );
    }
    let mut gaps = String::new();
    for gap in &playground.gaps {
        let _ = write!(gaps, "<p class=bad>This host does not enforce {}</p>", escaped(gap));
    }
    let (code, input) = (escaped(&snippet.code), escaped(&snippet.input));
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>playground</title><style>{STYLE}</style>
<main><h1>ringfence playground</h1>
<form method=post action=/>
<label>language <select name=language>{languages}</select></label>
<textarea name=code rows=8 spellcheck=false aria-label=program>\n{code}</textarea>
<label>input<textarea name=input rows=2 spellcheck=false>\n{input}</textarea></label>
<fieldset>{limits}</fieldset>
<button id=run>Run</button>
</form>
<section id=result aria-live=polite>{result}</section>
<footer>{gaps}</footer></main></html>"
    ))
}

const STYLE: &str = "
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
main { max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
form, fieldset { display: flex; flex-wrap: wrap; gap: .75rem 1.25rem; border: 0; padding: 0; margin: 0 }
form > * { flex-basis: 100% }
textarea, pre { box-sizing: border-box; width: 100%; font: 14px/1.45 ui-monospace, monospace; padding: .6rem;
  border: 1px solid #8886; border-radius: .4rem; margin: 0 }
pre { overflow: auto; max-height: 20rem; background: #8881 }
input[type=number] { width: 5rem }
button { font: inherit; padding: .45rem; border: 0; border-radius: .4rem; background: #2563eb; color: white }
h2.good { color: #15803d } .bad { color: #dc2626 } h3 { margin: 1rem 0 .25rem }
";
