//! Many tracking clients of one server, and what a write costs that server when nobody, one or all of them are to hear of it.
//!
//! A stretch goes in rounds of two phases, each measured on its own: writes until the last push is there, and reads by whoever
//! was told until they all hold the key again.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::ask::Request;
use crate::crowd::{Crowd, Who, words};
use crate::figures::median;
use crate::placement::Placement;
use crate::processes::Process;

/// Keys that every client in the default mode has read, and nobody writes.
const HOT_KEYS: usize = 100;
/// Writes of one round: one after the other, each waits for its acknowledgement. So many clients hear of one each, however many there are:
/// what others more cost is what is looked for, not that more connections in turn are met with cold caches.
const ROUND_WRITES: usize = 10;

/// How the clients listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Listens {
    /// To what they read: 100 hot keys, one key of their own, and one that all read.
    Default,
    /// To a prefix each (BCAST).
    OwnPrefix,
    /// All to the same prefix (BCAST).
    SamePrefix,
}

/// Who is to hear of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum HeardBy {
    /// Nobody.
    Nobody,
    /// One client: ten of them in turn.
    One,
    /// All.
    All,
}

/// One stretch.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Stretch {
    /// Writes acknowledged.
    pub writes: u64,
    /// Pushes that came because of them.
    pub pushes: u64,
    /// Reads that followed.
    pub reads: u64,
    /// Processor time of the server until the pushes were there, per write, in microseconds.
    pub write_us: f64,
    /// That of the reads, per read.
    pub read_us: f64,
    /// Processor time of the Redis behind it, of writes and reads together, per write.
    pub upstream_us: Option<f64>,
}

/// All stretches of one arrangement.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// How many tracking clients.
    pub clients: usize,
    /// How.
    pub listens: Listens,
    /// Whether they are the proxy's; else Redis's own.
    pub of_proxy: bool,
    /// Who hears.
    pub heard: HeardBy,
    /// In the order they were measured.
    pub stretches: Vec<Stretch>,
}

/// Some clients of one server.
pub struct Fleet {
    listens: Listens,
    clients: usize,
    server: Process,
    upstream: Option<Process>,
    crowd: Crowd,
    writer: Who,
    written: usize,
}

impl Fleet {
    /// All connected, and listening.
    pub fn new(proxy: Option<&Path>, placement: &Placement, listens: Listens, clients: usize) -> Fleet {
        let (server, upstream) = match proxy {
            None => (Process::redis(&placement.tested), None),
            Some(binary) => {
                let redis = Process::redis(&placement.upstream);
                (Process::proxy(binary, &placement.tested, redis.address, 1, "", false), Some(redis))
            }
        };
        let mut crowd = Crowd::new();
        for who in 0..clients {
            let prefix = key_of(listens, HeardBy::One, who, 0);
            match listens {
                Listens::Default => crowd.join_tracking(server.address, &[]),
                Listens::OwnPrefix => crowd.join_tracking(server.address, &["BCAST", "PREFIX", &prefix]),
                Listens::SamePrefix => crowd.join_tracking(server.address, &["BCAST", "PREFIX", "all"]),
            };
        }
        let writer = crowd.join(server.address);
        let mut fleet = Fleet { listens, clients, server, upstream, crowd, writer, written: 0 };
        if listens == Listens::Default {
            let hot: Vec<Request> = (0..HOT_KEYS).map(|n| words(&["GET", &format!("hot:{n}")])).collect();
            // Twice: the tier keeps what is read again.
            for _ in 0..2 {
                for who in 0..clients {
                    fleet.crowd.ask(who, &hot);
                    fleet.crowd.answered();
                }
            }
        }
        fleet
    }

    /// Writes for about so long.
    pub fn stretch(&mut self, heard: HeardBy, sample: Duration) -> Stretch {
        let reads = self.listens == Listens::Default && heard != HeardBy::Nobody;
        if reads {
            // Twice, as above; then all hold what is written next.
            (0..2).for_each(|_| self.read(heard, 0..self.clients));
        }
        self.round(heard, reads);
        let (mut sum, mut write_ns, mut read_ns) = (Stretch::default(), 0, 0);
        let upstream_before = self.upstream_ns();
        let end = Instant::now() + sample;
        while Instant::now() < end {
            let (round, write, read) = self.round(heard, reads);
            (write_ns, read_ns) = (write_ns + write, read_ns + read);
            sum.writes += round.writes;
            sum.pushes += round.pushes;
            sum.reads += round.reads;
        }
        let upstream_ns = self.upstream_ns() - upstream_before;
        let each = |ns: u64, count: u64| if count == 0 { f64::NAN } else { ns as f64 / 1e3 / count as f64 };
        sum.write_us = each(write_ns, sum.writes);
        sum.read_us = each(read_ns, sum.reads);
        sum.upstream_us = self.upstream.is_some().then(|| each(upstream_ns, sum.writes));
        sum
    }

    /// Also what both phases took, in nanoseconds.
    fn round(&mut self, heard: HeardBy, reads: bool) -> (Stretch, u64, u64) {
        let (writes, listeners) = match heard {
            HeardBy::Nobody => (ROUND_WRITES, 0),
            HeardBy::One => (ROUND_WRITES, 1),
            HeardBy::All => (1, self.clients),
        };
        let (begin, pushes_before) = (self.server.cpu_ns(), self.crowd.pushes());
        let first = self.written;
        for n in first..first + writes {
            let key = key_of(self.listens, heard, n % ROUND_WRITES, n);
            self.crowd.ask(self.writer, &[words(&["SET", &key, "v"])]);
            self.crowd.answered();
        }
        self.written += writes;
        let told = writes * listeners;
        if reads {
            // The writer's own reply counts as held, too.
            self.crowd.holding(self.clients + 1 - told);
        } else {
            self.crowd.pushed(pushes_before + told as u64);
        }
        let written = self.server.cpu_ns();
        let pushes = self.crowd.pushes() - pushes_before;
        let mut count = 0;
        if reads {
            let told: Vec<Who> = (0..self.clients).filter(|&who| !self.crowd.holds(who)).collect();
            count = told.len() as u64;
            self.read(heard, told.into_iter());
        }
        let read = self.server.cpu_ns();
        (Stretch { writes: writes as u64, pushes, reads: count, ..Stretch::default() }, written - begin, read - written)
    }

    /// Until all hold the key: a proxy may say behind a reply that it has missed a change.
    fn read(&mut self, heard: HeardBy, who: impl Iterator<Item = Who>) {
        let mut readers: Vec<Who> = who.collect();
        while !readers.is_empty() {
            for &who in &readers {
                self.crowd.ask(who, &[words(&["GET", &key_of(self.listens, heard, who, 0)])]);
            }
            self.crowd.answered();
            readers.retain(|&who| !self.crowd.holds(who));
        }
    }

    fn upstream_ns(&self) -> u64 {
        self.upstream.as_ref().map_or(0, Process::cpu_ns)
    }
}

/// The key of the `n`th write that this client is to hear of, if only one does.
fn key_of(listens: Listens, heard: HeardBy, who: Who, n: usize) -> String {
    match (heard, listens) {
        (HeardBy::Nobody, _) => format!("nobody:{}", n % 1000),
        (HeardBy::One, _) => format!("own:{who}:"),
        (HeardBy::All, _) => "all".to_owned(),
    }
}

/// Measures fleets of these sizes in both places, in turn, and prints what came out.
pub fn measure(
    binary: &Path,
    placement: &Placement,
    fleets: &[(Listens, usize)],
    sample: Duration,
    runs: usize,
) -> Vec<Cost> {
    let mut costs = Vec::new();
    let mut all: Vec<(Fleet, Vec<Cost>)> = Vec::new();
    for &(listens, clients) in fleets {
        for of_proxy in [false, true] {
            let fleet = Fleet::new(of_proxy.then_some(binary), placement, listens, clients);
            let cases: &[HeardBy] = match listens {
                Listens::Default => &[HeardBy::Nobody, HeardBy::One, HeardBy::All],
                Listens::OwnPrefix => &[HeardBy::Nobody, HeardBy::One],
                Listens::SamePrefix => &[HeardBy::Nobody, HeardBy::All],
            };
            let of = |&heard: &HeardBy| Cost { clients, listens, of_proxy, heard, stretches: Vec::new() };
            all.push((fleet, cases.iter().map(of).collect()));
        }
    }
    for _ in 0..runs {
        for (fleet, costs) in &mut all {
            for cost in costs {
                let stretch = fleet.stretch(cost.heard, sample);
                cost.stretches.push(stretch);
            }
        }
    }
    costs.extend(all.into_iter().flat_map(|(_, costs)| costs));
    println!("\nTracking clients, and what a write costs the server they are connected to; one write at a time\n");
    println!(
        "| clients | listen to | written is heard | of | CPU µs a write | over Redis | the same for each push | CPU µs of a read again | Redis behind, µs a write and its reads |"
    );
    println!("| ---: | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |");
    for cost in &costs {
        let beside = costs.iter().find(|other| {
            (other.clients, other.listens, other.heard) == (cost.clients, cost.listens, cost.heard) && !other.of_proxy
        });
        cost.print(beside);
    }
    costs
}

impl Cost {
    /// The median of one figure.
    pub fn median(&self, of: impl Fn(&Stretch) -> f64) -> f64 {
        median(self.stretches.iter().map(of).collect())
    }

    fn print(&self, redis: Option<&Cost>) {
        let listens = match self.listens {
            Listens::Default => "what they read",
            Listens::OwnPrefix => "a prefix each",
            Listens::SamePrefix => "the same prefix",
        };
        let heard = match self.heard {
            HeardBy::Nobody => "by nobody",
            HeardBy::One => "by one",
            HeardBy::All => "by all",
        };
        let over = redis.map_or(f64::NAN, |redis| {
            let both = self.stretches.iter().zip(&redis.stretches);
            median(both.map(|(own, redis)| own.write_us / redis.write_us).collect())
        });
        println!(
            "| {} | {listens} | {heard} | {} | {:.1} | {over:.2} | {} | {} | {} |",
            self.clients,
            if self.of_proxy { "proxy" } else { "Redis" },
            self.median(|stretch| stretch.write_us),
            number(self.median(|s| if s.pushes == 0 {
                f64::NAN
            } else {
                s.write_us * s.writes as f64 / s.pushes as f64
            })),
            number(self.median(|stretch| stretch.read_us)),
            number(self.median(|stretch| stretch.upstream_us.unwrap_or(f64::NAN))),
        );
    }
}

fn number(value: f64) -> String {
    if value.is_nan() { String::new() } else { format!("{value:.2}") }
}
