//! Every family of `/metrics` is driven to a value that is known; what the dashboard and the alerts ask for is there.
//!
//! A family that no scenario looks at fails the test: it might as well be wrong. To add a figure, drive it in a scenario.

#[path = "metrics/asking.rs"]
mod asking;
#[path = "metrics/changes.rs"]
mod changes;
#[path = "metrics/process.rs"]
mod process;
#[path = "metrics/queries.rs"]
mod queries;
#[path = "metrics/reading.rs"]
mod reading;
mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "metrics/tls_files.rs"]
mod tls_files;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anteroom::config::Config;
use support::http::get;
use support::{Proxy, Redis, eventually};

/// A sample: its name and its labels.
type Sample = (String, BTreeMap<String, String>);

/// What has been scraped, and which families were looked at.
#[derive(Default)]
struct Driven {
    looked_at: BTreeSet<String>,
    seen: BTreeSet<Sample>,
    /// The families that scrapes declare, by their help.
    declared: BTreeSet<String>,
}

impl Driven {
    /// The number of a sample, written as it is in the text but for the order of its labels.
    fn value(&mut self, admin: SocketAddr, sample: &str) -> Option<f64> {
        let text = get(admin, "/metrics").body;
        let mut found = None;
        for line in text.lines() {
            if let Some(declared) = line.strip_prefix("# HELP ") {
                self.declared.insert(declared.split(' ').next().unwrap_or_default().to_owned());
            }
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let (name, number) = line.rsplit_once(' ').expect("a sample has a number");
            let parsed = parse(name);
            if parsed == parse(sample) {
                found = Some(number.parse().expect("a number"));
            }
            self.seen.insert(parsed);
        }
        let name = sample.split('{').next().unwrap_or_default();
        // A histogram's samples have its name and these.
        let family = ["_count", "_sum", "_bucket"].iter().find_map(|suffix| name.strip_suffix(suffix));
        self.looked_at.insert(family.unwrap_or(name).to_owned());
        found
    }

    /// It becomes this, and not only in passing.
    fn is(&mut self, admin: SocketAddr, sample: &str, value: f64) {
        self.holds(admin, sample, &format!("{value}"), |now| (now - value).abs() < 1e-9);
    }

    fn holds(&mut self, admin: SocketAddr, sample: &str, what: &str, holds: impl Fn(f64) -> bool) {
        let mut last = None;
        let (end, mut is) = (std::time::Instant::now() + support::PATIENCE, false);
        while !is && std::time::Instant::now() < end {
            last = self.value(admin, sample);
            is = last.is_some_and(&holds);
            if !is {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        if is {
            return;
        }
        let (text, family) = (get(admin, "/metrics").body, sample.split('_').take(2).collect::<Vec<_>>().join("_"));
        let kin: Vec<_> = text.lines().filter(|line| line.starts_with(&family) && !line.ends_with(" 0")).collect();
        panic!("{sample} is {last:?} and not {what}; {kin:#?}");
    }
}

/// `name{label="value",…}`; values of these tests have no commas, quotes or braces.
fn parse(sample: &str) -> Sample {
    let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
    let of = |pair: &str| {
        let (label, value) = pair.split_once('=').expect("a label has a value");
        (label.to_owned(), value.trim_matches('"').to_owned())
    };
    let labels = labels.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty()).map(of).collect();
    (name.to_owned(), labels)
}

/// A proxy that can be looked into, and where.
fn looked_into(upstream: SocketAddr, change: impl FnOnce(&mut Config)) -> (Proxy, SocketAddr) {
    let proxy = Proxy::start_with(upstream, |config| {
        config.admin.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.cache.admit_after = 1;
        change(config);
    });
    let admin = proxy.admin.expect("it was asked for");
    eventually("it is ready", || get(admin, "/readyz").status == 200);
    (proxy, admin)
}

/// Has Redis close all connections of this name.
fn kill(redis: &Redis, name: &str) {
    let mut direct = redis.client();
    let list = direct.text(&["CLIENT", "LIST"]);
    let of_name: Vec<&str> = list.lines().filter(|line| line.contains(&format!("name={name} "))).collect();
    assert!(!of_name.is_empty(), "no connection is called {name}: {list}");
    for line in of_name {
        let id = line.split("id=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an id");
        direct.ask(&["CLIENT", "KILL", "ID", id]);
    }
}

#[test]
fn every_family_is_driven_to_a_known_value_and_every_query_finds_what_it_asks_for() {
    let mut driven = Driven::default();
    for scenario in [
        process::coming_and_going,
        process::a_busy_worker,
        process::descriptors_run_out,
        process::memory_gets_short,
        reading::hits_and_misses,
        reading::commands,
        reading::keys_are_touched,
        changes::the_tracker,
        changes::the_audit,
        changes::the_configuration,
        changes::clients_that_cache,
        changes::other_proxies,
        changes::applications,
        asking::limits,
        asking::passwords,
        asking::the_admin_address,
        tls_files::of_clients,
        tls_files::of_the_upstream,
    ] {
        scenario(&mut driven);
    }
    let undriven: Vec<_> = driven.declared.iter().filter(|family| !driven.looked_at.contains(*family)).collect();
    assert!(undriven.is_empty(), "no scenario looks at {undriven:?}");
    let unheard_of: Vec<_> = driven.looked_at.iter().filter(|family| !driven.declared.contains(*family)).collect();
    assert!(unheard_of.is_empty(), "no scrape has {unheard_of:?}");
    queries::find_what_they_ask_for(&driven.seen);
}

#[test]
fn prometheus_itself_can_read_it() {
    let redis = Redis::start();
    let (_proxy, admin) = looked_into(redis.addr(), |_| {});
    let text = get(admin, "/metrics").body;
    let mut helps = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        assert!(line.starts_with("anteroom_") && line.ends_with('.'), "{line}");
        assert!(helps.insert(line.split(' ').next()), "declared twice: {line}");
    }
    // Where Debian's package prometheus is installed: .ci/run does.
    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else { return };
    std::io::Write::write_all(&mut promtool.stdin.take().expect("it is piped"), text.as_bytes()).expect("it reads");
    let said = promtool.wait_with_output().expect("it ends");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}
