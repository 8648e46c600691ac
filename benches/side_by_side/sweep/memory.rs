//! Resident memory: of an empty process, of an idle client, of an entry.

use serde::Serialize;
use std::net::TcpStream;
use std::time::Duration;

use super::{Reach, Series, Sweep};
use crate::ask::Ask;
use crate::contender::{Contender, Running, Stage};
use crate::load::Load;
use crate::workload::{Operation, Workload};

/// Clients connected before anything is counted: lanes, buffers and tables that are needed once, whoever comes.
const WARM_CLIENTS: usize = 64;

/// What the goals on memory are about.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Footprint {
    /// Resident bytes of a process that serves nobody yet.
    pub empty_bytes: u64,
    /// Resident bytes each idle client adds.
    pub idle_client_bytes: f64,
    /// Resident bytes each entry adds besides its key and value.
    pub entry_overhead_bytes: f64,
}

/// Idle clients that have asked once and stay connected.
pub fn idle_clients(stage: &mut Stage, reach: Reach) -> Sweep {
    let counts: Vec<usize> = Reach::decades(10, reach.clients_max);
    let series = [Contender::Redis, Contender::TierOn].map(|contender| {
        let running = stage.start(contender);
        Workload { keys: 1, ..Workload::new(Operation::Get, 32) }.populate(running.redis());
        let mut warm: Vec<TcpStream> = Vec::new();
        connect(&running, &mut warm, WARM_CLIENTS);
        let before = running.server.resident_bytes();
        let mut idle = Vec::new();
        let points = counts.iter().map(|&count| {
            connect(&running, &mut idle, count);
            (count as f64, (running.server.resident_bytes().saturating_sub(before)) as f64 / 1024.0)
        });
        let points = points.collect();
        Series { name: name(contender).to_owned(), points }
    });
    Sweep {
        name: "idle_clients",
        title: "Memory of idle clients".to_owned(),
        x: "clients",
        y: "KiB resident, beyond what 64 clients take",
        log_y: true,
        series: series.into(),
        rows: Vec::new(),
    }
}

/// Entries of 32 B and of 1 KiB, each read into memory. The tier is the default one, which has room for them: what is set aside
/// for a larger one, to remember what was read once, would be counted to these entries when they first touch it.
pub fn entries(stage: &mut Stage) -> Sweep {
    let mut series = Vec::new();
    for contender in [Contender::Redis, Contender::Defaults] {
        let points = [32, 1024].map(|bytes| {
            let running = stage.start(contender);
            let workload = Workload { keys: 100_000, ..Workload::new(Operation::Get, bytes) };
            // What is needed once is there before anything is counted.
            let first = Workload { keys: 100, ..workload };
            first.populate(running.redis());
            read(&running, &first);
            let before = running.server.resident_bytes();
            workload.populate(running.redis());
            read(&running, &workload);
            let payload = bytes + workload.data().len() + ":00000000".len();
            let grown = running.server.resident_bytes().saturating_sub(before) as f64;
            (bytes as f64, grown / workload.keys as f64 - payload as f64)
        });
        series.push(Series { name: name(contender).to_owned(), points: points.into() });
    }
    Sweep {
        name: "entries",
        title: "Memory of one of 100,000 entries beyond its key and value".to_owned(),
        x: "bytes of one value",
        y: "bytes resident",
        log_y: false,
        series,
        rows: Vec::new(),
    }
}

impl Footprint {
    /// Takes what the sweeps found; the empty process is looked at here.
    pub fn of(stage: &Stage, idle: &Sweep, entries: &Sweep) -> Footprint {
        let ours = |sweep: &Sweep| sweep.series.iter().find(|series| series.name == name(Contender::TierOn)).cloned();
        let most_idle = ours(idle).and_then(|series| series.points.last().copied());
        let entry = ours(entries).and_then(|series| series.points.first().copied());
        Footprint {
            empty_bytes: stage.start(Contender::TierOn).server.resident_bytes(),
            idle_client_bytes: most_idle.map_or(f64::NAN, |(clients, kib)| kib * 1024.0 / clients),
            entry_overhead_bytes: entry.map_or(f64::NAN, |(_, bytes)| bytes),
        }
    }
}

fn name(contender: Contender) -> &'static str {
    if contender == Contender::Redis { "Redis" } else { "the proxy" }
}

/// Connects until there are so many, each having asked a PING and a GET.
fn connect(running: &Running, clients: &mut Vec<TcpStream>, count: usize) {
    use std::io::{Read, Write};
    while clients.len() < count {
        let mut client = TcpStream::connect(running.server.address).expect("the server takes clients");
        client.write_all(b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").expect("the server takes requests");
        let mut reply = [0; 12];
        client.read_exact(&mut reply).expect("the server answers");
        assert_eq!(&reply, b"+PONG\r\n$-1\r\n");
        clients.push(client);
    }
}

fn read(running: &Running, workload: &Workload) {
    let batches = workload.sweep(running.redis());
    for _ in 0..3 {
        Load::once(running.server.address, &batches);
    }
    if running.upstream.is_some() {
        // The count is brought up to date once a second.
        let mut ask = Ask::connect(running.server.address);
        let mut kept = || ask.count("anteroom_cache", "anteroom_cache_entries");
        let enough = workload.keys as u64 * 98 / 100;
        let is_kept = (0..30).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            kept() >= enough
        });
        assert!(is_kept, "{} of {} keys are kept", kept(), workload.keys);
    }
}
