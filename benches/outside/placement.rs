//! Which cores who runs on, and how many descriptors they may open.

use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::processes::Cores;

/// Which cores who runs on.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// The process under test.
    pub tested: Cores,
    /// The Redis behind it.
    pub upstream: Cores,
    /// For the output.
    pub words: String,
}

/// How it is asked for.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Pin {
    /// The process under test has the last core to itself.
    Apart,
    /// It shares that with the Redis behind it.
    Together,
    /// The kernel chooses.
    Free,
}

/// Puts the generator in its place and says where the others go.
pub fn place(pin: Pin) -> Placement {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pinned = |core: usize| {
        let mut taskset = Command::new("taskset");
        taskset.args(["-cp", &core.to_string(), &std::process::id().to_string()]);
        taskset.output().is_ok_and(|output| output.status.success())
    };
    if matches!(pin, Pin::Free) || cores < 2 || !pinned(0) {
        return Placement { words: "not pinned".to_owned(), ..Placement::default() };
    }
    let (tested, last) = (Some((cores - 1).to_string()), cores - 1);
    let (upstream, where_upstream) = match pin {
        Pin::Together => (tested.clone(), "with it"),
        _ if cores > 2 => (Some("1".to_owned()), "on core 1"),
        _ => (Some("0".to_owned()), "with the generator"),
    };
    let words = format!(
        "process under test on core {last}, load generator on core 0, the Redis behind a proxy {where_upstream}"
    );
    Placement { tested, upstream, words }
}

/// Allows as many open descriptors as the system lets us have; the processes started inherit it.
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).is_err() {
        eprintln!("the limit of open files (ulimit -n) stays at {:?}", limit.current);
    }
}
