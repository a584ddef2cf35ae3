//! Sandboxes in tasks of `tokio`, with the feature `tokio`.
//!
//! [`AsyncChild`] is what [`Child`](crate::Child) is elsewhere. Its waits, reads and writes are
//! futures. [`Sandbox::spawn_async`](crate::Sandbox::spawn_async),
//! [`Prepared::spawn_async`](crate::Prepared::spawn_async) and
//! [`Pool::spawn_async`](crate::Pool::spawn_async) start one. [`AsyncChild::new`] takes any other
//! `Child`.
//!
//! ```
//! use std::time::Duration;
//!
//! use ringfence::{Sandbox, Stdio};
//! use tokio::io::AsyncReadExt;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let output = Sandbox::new().command("echo").arg("hello").output_async().await?;
//! assert_eq!(output.stdout, b"hello\n");
//!
//! // Output as it comes.
//! let talker = Sandbox::new().command("sh").args(["-c", "echo one; exec sleep 60"]);
//! let mut child = talker.stdout(Stdio::piped()).spawn_async().await?;
//! let mut first = [0; 4];
//! child.stdout.as_mut().ok_or("no pipe")?.read_exact(&mut first).await?;
//! assert_eq!(&first, b"one\n");
//!
//! // Whoever gives up the future gives up the sandbox.
//! let run = child.wait_with_output();
//! assert!(tokio::time::timeout(Duration::from_millis(50), run).await.is_err());
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! # What runs where
//!
//! | what | where |
//! | --- | --- |
//! | the wait for the end | the reactor, by pidfd: no handler of SIGCHLD, no thread for each child |
//! | pipes | the reactor, without blocking |
//! | the spawn, and the removal at the end | the runtime's threads for blocking work |
//! | what a drop leaves | the thread of this library that watches all sandboxes |
//!
//! Of the blocking work, two spawns and two removals for each core are done at a time, four at
//! least. So a thousand sandboxes need a thousand pidfds, and no more threads than a few do. The
//! rest of this crate knows no runtime.
//!
//! `docs/async.md` in the crate has recipes for services: jobs, streaming, cancelling.
//!
//! The runtime needs its I/O driver (`enable_io` or `enable_all`); as all of `tokio`, these calls
//! panic in a runtime without it. Outside of a runtime they return an error.

mod blocking;
mod capture;
mod child;
mod events;
mod spawn;
mod stream;

pub use child::AsyncChild;
pub use events::AsyncEvents;
pub use stream::{AsyncOutputStream, AsyncStdin};
