//! `update`: other limits for a container that lives.

use ringfence::oci::{Runtime, Update};
use serde_json::{Value, json};

use super::args::{Size, UpdateArgs};
use super::log::Log;
use super::{Failure, read_bounded, read_file};

pub fn run(runtime: &Runtime, args: &UpdateArgs, log: &Log) -> Result<(), Failure> {
    let refused = [
        ("--kernel-memory", args.kernel_memory.is_some(), "Linux counts it with the rest"),
        ("--kernel-memory-tcp", args.kernel_memory_tcp.is_some(), "Linux counts it with the rest"),
        ("--l3-cache-schema", args.l3_cache_schema.is_some(), "resctrl groups are not made"),
        ("--mem-bw-schema", args.mem_bw_schema.is_some(), "resctrl groups are not made"),
    ];
    if let Some((option, _, reason)) = refused.into_iter().find(|(_, given, _)| *given) {
        return Err(format!("{option}: {reason}").into());
    }
    let mut container = runtime.open(&args.id)?;
    let resources = match &args.resources {
        Some(path) if path.as_os_str() == "-" => read_bounded(std::io::stdin(), "--resources")?,
        Some(path) => read_file(path, "--resources")?,
        None => resources(args).to_string().into_bytes(),
    };
    let update = Update::from_json(&resources)?;
    for warning in update.warnings() {
        log.warning(warning);
    }
    Ok(container.update(&update)?)
}

/// Returns what the options say, as a file would.
fn resources(args: &UpdateArgs) -> Value {
    let size = |size: Option<Size>| size.map(|size| json!(size.0));
    let number = |number: Option<i64>| number.map(Value::from);
    let count = |count: Option<u64>| count.map(Value::from);
    let text = |text: &Option<String>| text.as_deref().map(Value::from);
    let mut all = json!({});
    for (room, name, value) in [
        ("memory", "limit", size(args.memory)),
        ("memory", "swap", size(args.memory_swap)),
        ("memory", "reservation", size(args.memory_reservation)),
        ("cpu", "shares", count(args.cpu_share)),
        ("cpu", "quota", number(args.cpu_quota)),
        ("cpu", "period", count(args.cpu_period)),
        ("cpu", "burst", count(args.cpu_burst)),
        ("cpu", "realtimePeriod", count(args.cpu_rt_period)),
        ("cpu", "realtimeRuntime", number(args.cpu_rt_runtime)),
        ("cpu", "idle", number(args.cpu_idle)),
        ("cpu", "cpus", text(&args.cpuset_cpus)),
        ("cpu", "mems", text(&args.cpuset_mems)),
        // A 0 in a file stands for what is not said. Here it is said, and one process is there.
        ("pids", "limit", number(args.pids_limit.map(|limit| if limit == 0 { 1 } else { limit }))),
        ("blockIO", "weight", args.blkio_weight.map(Value::from)),
    ] {
        if let Some(value) = value {
            all[room][name] = value;
        }
    }
    all
}
