//! Who is measured: Redis itself, the proxy in its settings, the peers. Owns the processes, started when first needed.
//!
//! Every proxy has a Redis of its own behind it, so that no contender's traffic (a tracker's invalidations, say) falls on
//! another's, and none falls on the Redis that is asked directly.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use crate::placement::Placement;
use crate::processes::{Process, installed};
use crate::workload::Workload;

/// One server under test, in one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Contender {
    /// Redis asked directly: what all others are compared with.
    Redis,
    /// The proxy with its defaults but for `cache.max_bytes`, which is 8 GiB so that nothing is evicted.
    TierOn,
    /// The proxy as it comes.
    Defaults,
    /// The proxy with `cache.enabled = false`.
    TierOff,
    /// As `TierOff`, with workers that rest for 50 µs when they are busy.
    Resting,
    /// The proxy with the tier on and `cache.admit_after` at its largest: every read misses and none is kept.
    Misses,
    /// The proxy with `cache.admit_after = 1` and a tier of 1 MiB: every read misses and is filled.
    Fills,
    /// As `TierOn`, with nothing found out about requests beyond counting them, and nothing read again to compare.
    Unobserved,
    /// As `TierOff`, likewise.
    UnobservedOff,
    /// As `TierOn`, with a limit that every request must pass, by address.
    OneLimit,
    /// As `TierOn`, with two of them: by address, and by user on reads.
    Limited,
    /// As `OneLimit`, with nothing left for an hour: every request is refused.
    Refused,
    /// Redis asked directly by TLS.
    RedisTls,
    /// [`Contender::TierOn`] asked by TLS; Redis behind it is not.
    TierOnTls,
    /// twemproxy.
    Nutcracker,
    /// HAProxy, passing TCP on.
    Haproxy,
}

impl Contender {
    /// For the table; a tier that is on answers reads from memory, and is only there when it cannot.
    pub fn label(self, workload: &Workload) -> &'static str {
        match self {
            Contender::Redis => "Redis",
            Contender::TierOn | Contender::Defaults if workload.only_reads() => "hits",
            Contender::TierOn | Contender::Defaults => "tier on",
            Contender::RedisTls => "Redis, TLS",
            Contender::TierOnTls => "hits, TLS",
            Contender::TierOff => "tier off",
            Contender::Resting => "tier off, rest_us = 50",
            Contender::Misses => "misses",
            Contender::Fills => "fills",
            Contender::Unobserved => "hits, unobserved",
            Contender::UnobservedOff => "tier off, unobserved",
            Contender::OneLimit => "hits, one limit",
            Contender::Limited => "hits, two limits",
            Contender::Refused => "instead of hits, refusals",
            Contender::Nutcracker => "nutcracker",
            Contender::Haproxy => "haproxy",
        }
    }

    /// Whether it can be started here.
    pub fn is_there(self) -> bool {
        match self {
            Contender::Nutcracker => installed("nutcracker"),
            Contender::Haproxy => installed("haproxy"),
            _ => true,
        }
    }

    /// Whether it is asked by TLS.
    pub fn over_tls(self) -> bool {
        matches!(self, Contender::RedisTls | Contender::TierOnTls)
    }

    /// Whether it is the proxy.
    pub fn is_ours(self) -> bool {
        self.config().is_some()
    }

    /// Whether reads are answered from memory.
    pub fn serves_hits(self) -> bool {
        use Contender::{Limited, OneLimit, TierOn, TierOnTls, Unobserved};
        matches!(self, TierOn | TierOnTls | Unobserved | OneLimit | Limited)
    }

    /// The reply to each request, if it is not Redis's. Numbers in it may be others of as many digits.
    pub fn own_reply(self) -> Option<&'static str> {
        (self == Contender::Refused).then_some("-THROTTLED by-address, retry after 1000000 ms\r\n")
    }

    /// What the proxy is told, if it is the proxy.
    pub fn config(self) -> Option<&'static str> {
        match self {
            Contender::TierOn | Contender::TierOnTls => Some("[cache]\nmax_bytes = \"8GiB\"\nmax_age_ms = 86400000\n"),
            Contender::Defaults => Some(""),
            Contender::Unobserved => Some(concat!(
                "[cache]\nmax_bytes = \"8GiB\"\nmax_age_ms = 86400000\n",
                "[observe]\nlatency = false\nhot_keys_max = 0\n[slowlog]\nslower_than_us = -1\n[coherence]\naudit_one_in = 0\n",
            )),
            Contender::UnobservedOff => Some(concat!(
                "[cache]\nenabled = false\n",
                "[observe]\nlatency = false\nhot_keys_max = 0\n[slowlog]\nslower_than_us = -1\n[coherence]\naudit_one_in = 0\n",
            )),
            Contender::OneLimit => Some(concat!(
                "[cache]\nmax_bytes = \"8GiB\"\nmax_age_ms = 86400000\n",
                "[[limits.rate]]\nname = \"by-address\"\nby = \"ip\"\ncommands_per_second = 10000000\n",
            )),
            // What more than a bucket holds is asked for at once is owed, for an hour at most.
            Contender::Refused => Some(concat!(
                "[[limits.rate]]\nname = \"by-address\"\nby = \"ip\"\nmatch = { command = \"@read\" }\n",
                "commands_per_second = 1\nburst = 1\n",
            )),
            Contender::Limited => Some(concat!(
                "[cache]\nmax_bytes = \"8GiB\"\nmax_age_ms = 86400000\n",
                "[[limits.rate]]\nname = \"by-address\"\nby = \"ip\"\ncommands_per_second = 10000000\n",
                "[[limits.rate]]\nname = \"by-user\"\nby = \"user\"\nmatch = { command = \"@read\" }\ncommands_per_second = 10000000\n",
            )),
            Contender::TierOff => Some("[cache]\nenabled = false\n"),
            Contender::Resting => Some("rest_us = 50\n[cache]\nenabled = false\n"),
            Contender::Misses => Some("[cache]\nadmit_after = 255\n"),
            Contender::Fills => Some("[cache]\nadmit_after = 1\nmax_bytes = \"1MiB\"\n"),
            Contender::Redis | Contender::RedisTls | Contender::Nutcracker | Contender::Haproxy => None,
        }
    }
}

/// A contender's processes.
pub struct Running {
    /// The process under test.
    pub server: Process,
    /// The Redis behind it.
    pub upstream: Option<Process>,
    data: HashSet<String>,
}

impl Running {
    /// The Redis that holds its data.
    pub fn redis(&self) -> SocketAddr {
        self.upstream.as_ref().unwrap_or(&self.server).address
    }
}

/// All contenders started so far.
pub struct Stage {
    binary: PathBuf,
    /// Who runs where.
    pub placement: Placement,
    workers: usize,
    running: Vec<(Contender, Running)>,
}

impl Stage {
    /// Nothing is started yet. `binary` is the proxy's, run with so many workers.
    pub fn new(binary: PathBuf, placement: Placement, workers: usize) -> Stage {
        Stage { binary, placement, workers, running: Vec::new() }
    }

    /// Another stage with nothing running on it, the proxy on any core, with so many workers.
    pub fn with_workers(&self, workers: usize) -> Stage {
        Stage::new(self.binary.clone(), Placement::default(), workers)
    }

    /// The contender, running and holding the data of `workload`.
    pub fn ready(&mut self, contender: Contender, workload: &Workload) -> &Running {
        let at = self.running.iter().position(|(who, _)| *who == contender).unwrap_or_else(|| {
            self.running.push((contender, self.start(contender)));
            self.running.len() - 1
        });
        let running = &mut self.running[at].1;
        if running.data.insert(workload.data()) {
            workload.populate(running.redis());
        }
        running
    }

    /// Starts a contender that is not kept.
    pub fn start(&self, contender: Contender) -> Running {
        let Placement { tested, upstream, .. } = &self.placement;
        if matches!(contender, Contender::Redis | Contender::RedisTls) {
            let server = if contender.over_tls() { Process::redis_tls(tested) } else { Process::redis(tested) };
            return Running { server, upstream: None, data: HashSet::new() };
        }
        let redis = Process::redis(upstream);
        let server = match contender {
            Contender::Nutcracker => Process::nutcracker(tested, redis.address),
            Contender::Haproxy => Process::haproxy(tested, redis.address),
            ours => {
                let config = ours.config().expect("all others were handled above");
                Process::proxy(&self.binary, tested, redis.address, self.workers, config, ours.over_tls())
            }
        };
        Running { server, upstream: Some(redis), data: HashSet::new() }
    }
}
