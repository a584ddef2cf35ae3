//! The contenders: what runs the program, and is measured.

use std::time::{Duration, Instant};

use ringfence::{Bytes, Child};

use super::fixture::Fixture;
use super::group::{self, Parents};
use super::library;
use super::peers::{self, Tool};
use super::rate;
use super::rows::{self, Row};
use super::served::Served;

/// A sandbox like the others, on the layers of an image that was unpacked before.
const IMAGE: &str = "image";

/// The rows of the bench that are here too, under their names.
const OWN: [&str; 15] = [
    "std",
    "floor",
    "sandbox",
    "prepared",
    "pool",
    "floor-net",
    "sandbox-net",
    "prepared-net",
    "pool-net",
    "std-dynamic",
    "floor-strict",
    "strict",
    "strict-prepared",
    "strict-pool",
    "strict-exec",
];

/// One contender, with the name of its numbers.
#[derive(Debug)]
pub struct Contender {
    pub name: &'static str,
    by: By,
}

#[derive(Debug)]
enum By {
    Row(Box<Row>),
    Tool(Tool),
    Library(Served),
}

impl Contender {
    /// Makes the first run, which does not count: it makes what is kept, and shows what is wrong.
    pub fn first(&mut self) -> Result<(), String> {
        if let By::Tool(tool) = &mut self.by {
            tool.explain()?;
        }
        self.run().and_then(|_| self.run()).map(drop)
    }

    /// Returns true for a contender of this crate, or of the standard library or the floor in its stead:
    /// such a contender does not fail.
    pub fn is_own(&self) -> bool {
        matches!(self.by, By::Row(_))
    }

    /// Returns the time of one spawn and wait.
    pub fn run(&mut self) -> Result<Duration, String> {
        match &mut self.by {
            By::Row(row) => {
                row.make_ready()?;
                let start = Instant::now();
                row.run()?;
                Ok(start.elapsed())
            }
            By::Tool(tool) => tool.run(),
            By::Library(library) => library.time("run"),
        }
    }
}

/// Returns all contenders that exist here, with notes about those that do not, and about how some are
/// run.
pub fn all(
    fixture: &Fixture,
    parents: &Parents,
    heap: Bytes,
    only: &[String],
) -> Result<(Vec<Contender>, Vec<String>), String> {
    let names: Vec<&str> =
        OWN.into_iter().chain([IMAGE]).chain(rate::STRICT).chain(peers::NAMES).chain(library::NAMES).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(format!("--only: there is no {unknown}, only {}", names.join(", ")));
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let mut told = Vec::new();
    let own = rows::all(fixture, parents).into_iter().filter(|row| OWN.contains(&row.name) && wanted(row.name));
    let mut contenders: Vec<Contender> =
        own.map(|row| Contender { name: row.name, by: By::Row(Box::new(row)) }).collect();
    if wanted(IMAGE) {
        match on_image(fixture) {
            Ok(row) => contenders.push(Contender { name: row.name, by: By::Row(Box::new(row)) }),
            Err(why) => told.push(format!("left out: {IMAGE} ({why})")),
        }
    }
    if wanted("floor-net") && parents.template(&group::FULL).is_none() {
        told.push("left out: floor-net (no control group with memory, pids and cpu)".to_owned());
    }
    if wanted("floor-strict")
        && let Err(why) = rows::strict_floor(parents, &[], Vec::new())
    {
        told.push(format!("left out: floor-strict ({why})"));
    }
    for name in peers::NAMES.into_iter().filter(|name| wanted(name)) {
        match Tool::new(name, fixture) {
            Ok((tool, how)) => {
                told.push(format!("{name}: {how}"));
                contenders.push(Contender { name, by: By::Tool(tool) });
            }
            Err(why) => told.push(format!("absent: {name} ({why})")),
        }
    }
    for name in library::NAMES.into_iter().filter(|name| wanted(name)) {
        match library::start(name, fixture, heap) {
            Ok(library) => {
                told.push(format!("{name}: in a process of its own, which measures itself"));
                contenders.push(Contender { name, by: By::Library(library) });
            }
            Err(why) => told.push(format!("absent: {name} ({why})")),
        }
    }
    Ok((contenders, told))
}

#[cfg(feature = "image")]
fn on_image(fixture: &Fixture) -> Result<Row, String> {
    use ringfence::image::{ImageBuilder, Store};
    let pack = || {
        let store = Store::open(fixture.file("store"))?;
        ImageBuilder::scratch(&store).copy(&fixture.root, "/").build(&"compare:1".parse()?)?.rootfs()
    };
    let root = pack().map_err(|error: ringfence::Error| format!("{error:#}"))?;
    Ok(Row::new(IMAGE, rows::full(root).command("/true")))
}

#[cfg(not(feature = "image"))]
fn on_image(_: &Fixture) -> Result<Row, String> {
    Err("it needs --features image".to_owned())
}

/// Starts sandboxes of this crate, in which a program waits for nothing.
pub fn living(fixture: &Fixture, count: usize) -> ringfence::Result<Vec<Child>> {
    let sandbox = rows::full(&*fixture.root).command("/pause");
    (0..count).map(|_| sandbox.spawn()).collect()
}
