//! Whether values that can be read make sense: ranges, and keys that must agree with each other.

use std::ops::RangeInclusive;

use super::{Address, ClientCertificates, Config, problem::Report, schema};
use crate::command::{Categories, Named};
use crate::tls::{ClientTls, UpstreamTls};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const YEAR_MS: u64 = 365 * DAY_MS;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// The empty process takes 8 MiB; below this nothing would be left to share out.
const BUDGET_MIN_BYTES: u64 = 32 * MIB;

/// Adds every value of `config` that makes no sense to `report`.
pub(super) fn check(config: &Config, report: &mut Report) {
    for (key, value, range) in ranges(config) {
        within(report, key, value, range);
    }
    policies(config, report);
    rates(report);
    command_rules(report);
    agreements(config, report);
    channels(config, report);
    client_tls(config, report);
    upstream_tls(config, report);
    admin(config, report);
    if !(-1..=i64::from(u32::MAX / 2)).contains(&config.slowlog.slower_than_us) {
        let expected = format!("expected 0 to {} microseconds, or -1 for no slow log", u32::MAX / 2);
        report.reject("slowlog.slower_than_us", expected);
    }
    if let Err(expected) = level(&config.log.level) {
        report.reject("log.level", expected);
    }
}

/// The range of every number that has one. The upper ends keep deadlines within what a clock can add.
#[rustfmt::skip]
fn ranges(config: &Config) -> [(&'static str, u64, RangeInclusive<u64>); 52] {
    let Config { tls, upstream, cache, coherence, peers, clients, tracking, memory, limits, observe, slowlog, drain, .. } = config;
    [
        ("workers", config.workers as u64, 0..=1024),
        ("rest_us", config.rest_us, 0..=1000),
        ("tls.handshake_timeout_ms", tls.handshake_timeout_ms, 1..=DAY_MS),
        ("tls.handshakes_inflight_max", tls.handshakes_inflight_max as u64, 1..=1 << 20),
        ("tls.reload_check_ms", tls.reload_check_ms, 0..=DAY_MS),
        ("upstream.timeout_ms", upstream.timeout_ms, 1..=DAY_MS),
        ("upstream.reconnect_min_ms", upstream.reconnect_min_ms, 1..=DAY_MS),
        ("upstream.reconnect_max_ms", upstream.reconnect_max_ms, 1..=DAY_MS),
        ("upstream.lane_inflight_max", upstream.lane_inflight_max as u64, 1..=1 << 24),
        ("upstream.lane_buffer_max_bytes", upstream.lane_buffer_max_bytes as u64, KIB..=TIB),
        ("upstream.reply_max_bytes", upstream.reply_max_bytes as u64, KIB..=TIB),
        ("upstream.lane_idle_ms", upstream.lane_idle_ms, 1..=DAY_MS),
        ("upstream.acl_check_ms", upstream.acl_check_ms, 0..=DAY_MS),
        ("upstream.dedicated_max", upstream.dedicated_max as u64, 1..=65_535),
        ("upstream.dedicated_idle_ms", upstream.dedicated_idle_ms, 1..=DAY_MS),
        ("upstream.dedicated_wait_ms", upstream.dedicated_wait_ms, 1..=DAY_MS),
        ("cache.max_bytes", cache.max_bytes, MIB..=TIB),
        ("cache.max_age_ms", cache.max_age_ms, 1..=YEAR_MS),
        ("cache.negative_max_age_ms", cache.negative_max_age_ms, 0..=YEAR_MS),
        ("cache.admit_after", cache.admit_after as u64, 1..=255),
        ("cache.entry_max_bytes", cache.entry_max_bytes as u64, 1..=TIB),
        ("cache.views_per_key_max", cache.views_per_key_max as u64, 1..=65_536),
        ("cache.touch_interval_ms", cache.touch_interval_ms, 0..=DAY_MS),
        ("coherence.heartbeat_ms", coherence.heartbeat_ms, 1..=DAY_MS),
        ("coherence.heartbeat_deadline_ms", coherence.heartbeat_deadline_ms, 1..=DAY_MS),
        ("coherence.fills_inflight_max", coherence.fills_inflight_max as u64, 1..=1 << 20),
        ("coherence.audit_one_in", coherence.audit_one_in, 0..=1_000_000_000),
        ("coherence.audit_max_per_second", coherence.audit_max_per_second, 0..=1_000_000),
        ("peers.heartbeat_ms", peers.heartbeat_ms, 10..=DAY_MS),
        ("peers.timeout_ms", peers.timeout_ms, 20..=DAY_MS),
        ("clients.max", clients.max as u64, 1..=1_000_000),
        ("clients.max_per_ip", clients.max_per_ip as u64, 0..=1_000_000),
        ("clients.accepts_per_second", clients.accepts_per_second, 0..=1_000_000),
        ("clients.accepts_burst", clients.accepts_burst, 1..=1_000_000),
        ("clients.accepts_per_ip_per_second", clients.accepts_per_ip_per_second, 0..=1_000_000),
        ("clients.accepts_per_ip_burst", clients.accepts_per_ip_burst, 1..=1_000_000),
        ("clients.handshake_timeout_ms", clients.handshake_timeout_ms, 0..=DAY_MS),
        ("clients.request_timeout_ms", clients.request_timeout_ms, 0..=DAY_MS),
        ("clients.idle_timeout_ms", clients.idle_timeout_ms, 0..=YEAR_MS),
        ("clients.auth_failures_per_second", clients.auth_failures_per_second, 0..=1_000_000),
        ("clients.auth_failures_burst", clients.auth_failures_burst, 1..=1_000_000),
        ("clients.output_max_bytes", clients.output_max_bytes as u64, KIB..=TIB),
        ("clients.output_stall_ms", clients.output_stall_ms, 1..=DAY_MS),
        ("clients.request_max_bytes", clients.request_max_bytes as u64, KIB..=GIB),
        ("clients.pipeline_max", clients.pipeline_max as u64, 1..=1 << 20),
        ("tracking.interests_max", tracking.interests_max as u64, 1..=1 << 30),
        ("limits.identities_max", limits.identities_max as u64, 1..=1 << 24),
        ("memory.budget_bytes", memory.budget_bytes, 0..=TIB),
        ("observe.hot_keys_max", observe.hot_keys_max as u64, 0..=256),
        ("slowlog.entries_max", slowlog.entries_max as u64, 0..=100_000),
        ("drain.delay_ms", drain.delay_ms, 0..=DAY_MS),
        ("drain.timeout_ms", drain.timeout_ms, 0..=DAY_MS),
    ]
}

fn within(report: &mut Report, key: &str, value: u64, range: RangeInclusive<u64>) {
    if !range.contains(&value) {
        let unit = match key.rsplit('_').next() {
            Some("us") => " microseconds",
            Some("ms") => " milliseconds",
            Some("bytes") => " bytes",
            _ => "",
        };
        report.reject(key, format!("expected {} to {}{unit}", range.start(), range.end()));
    }
}

fn policies(config: &Config, report: &mut Report) {
    // From the report, not from `config`: there the policies that could not be read in full are missing.
    for (index, policy) in std::mem::take(&mut report.policies).into_iter().enumerate() {
        if policy.pattern.is_some_and(|pattern| pattern.as_str().is_empty()) {
            let expected = "an empty pattern matches only the empty key; \"*\" matches all";
            report.reject(&format!("cache.policy[{index}].pattern"), expected);
        }
        let ttl_ms = format!("cache.policy[{index}].ttl_ms");
        if let Some(value) = policy.ttl_ms
            && !report.has_refused(&ttl_ms)
        {
            within(report, &ttl_ms, value, 1..=config.cache.max_age_ms.min(YEAR_MS));
        }
    }
}

/// Limits at most: a command is tested against all that may apply to it in one word of bits.
const RATES_MAX: usize = 64;
/// Bytes of a limit's name.
const RATE_NAME_MAX_BYTES: usize = 64;

fn rates(report: &mut Report) {
    // From the report, for the same reason.
    let rates = std::mem::take(&mut report.rates);
    if rates.len() > RATES_MAX {
        report.reject(&format!("limits.rate[{RATES_MAX}].name"), format!("expected at most {RATES_MAX} limits"));
    }
    for (index, rate) in rates.iter().enumerate() {
        let key = |name: &str| format!("limits.rate[{index}].{name}");
        if let Some(name) = &rate.name {
            // It is part of error replies and of INFO.
            let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
            if name.is_empty() || name.len() > RATE_NAME_MAX_BYTES || !is_plain {
                let expected = "expected at most 64 letters, digits, hyphens, dots and underscores";
                report.reject(&key("name"), expected);
            } else if rates[..index].iter().any(|other| other.name.as_ref() == Some(name)) {
                report.reject(&key("name"), "another limit has this name");
            }
        }
        let known =
            |word: &&String| word.strip_prefix('@').is_none_or(|word| Categories::of_word(word.as_bytes()).is_some());
        if let Some(word) = rate.matching.command.iter().find(|word| !known(word)) {
            report.reject(&key("match"), format!("there is no category {word} (ACL CAT lists them)"));
        }
        let ranges = [
            ("commands_per_second", rate.commands_per_second, 0..=10_000_000),
            ("burst", rate.burst, 1..=10_000_000),
            ("window_ms", rate.window_ms, 1..=DAY_MS),
            ("bytes_per_second", rate.bytes_per_second, 0..=16 * GIB),
        ];
        for (name, value, range) in ranges {
            if let Some(value) = value
                && !report.has_refused(&key(name))
            {
                within(report, &key(name), value, range);
            }
        }
        // A window must have room for something.
        for (name, per_second) in
            [("commands_per_second", rate.commands_per_second), ("bytes_per_second", rate.bytes_per_second)]
        {
            if let (Some(window_ms), Some(per_second @ 1..)) = (rate.window_ms, per_second)
                && per_second.saturating_mul(window_ms) < 1000
                && !report.has_refused(&key(name))
                && !report.has_refused(&key("window_ms"))
            {
                report.reject(&key("window_ms"), format!("{name} = {per_second} comes to none in {window_ms} ms"));
            }
        }
    }
}

fn command_rules(report: &mut Report) {
    // From the report, as for policies.
    for (index, rule) in std::mem::take(&mut report.command_rules).into_iter().enumerate() {
        if rule.user.as_str().is_empty() {
            report
                .reject(&format!("commands.rule[{index}].user"), "an empty pattern matches no user; \"*\" matches all");
        }
        for (key, words) in [("deny", &rule.deny), ("allow", &rule.allow)] {
            let path = format!("commands.rule[{index}].{key}");
            let problem = words.iter().find_map(|word| match Named::parse(word) {
                Err(expected) => Some(expected),
                Ok(named) if key == "deny" && named.is_never_refused() => Some(format!(
                    "{word} is refused to nobody, as in Redis: without it no client could become another user"
                )),
                Ok(_) => None,
            });
            if let Some(expected) = problem {
                report.reject(&path, expected);
            }
        }
    }
}

/// Pairs of which the first may not exceed the second. Silent where either has been refused: it is then not what was meant.
fn agreements(config: &Config, report: &mut Report) {
    let Config { upstream, cache, memory, .. } = config;
    if (1..BUDGET_MIN_BYTES).contains(&memory.budget_bytes) && !report.has_refused("memory.budget_bytes") {
        report.reject("memory.budget_bytes", format!("expected 0, for none, or at least {BUDGET_MIN_BYTES} bytes"));
    }
    let budget = if memory.budget_bytes == 0 || !cache.enabled { u64::MAX } else { memory.budget_bytes };
    let pairs = [
        (
            "upstream.reconnect_min_ms",
            upstream.reconnect_min_ms,
            "upstream.reconnect_max_ms",
            upstream.reconnect_max_ms,
        ),
        ("cache.entry_max_bytes", cache.entry_max_bytes as u64, "cache.max_bytes", cache.max_bytes),
        ("cache.max_bytes", cache.max_bytes, "memory.budget_bytes", budget),
    ];
    for (low, at_most, high, bound) in pairs {
        if at_most > bound && !report.has_refused(low) && !report.has_refused(high) {
            // Blamed on the one that was written, so that the operator is sent to a line that exists.
            if report.sources.contains_key(low) {
                report.reject(low, format!("expected at most {high}, which is {bound}"));
            } else {
                report.reject(high, format!("expected at least {low}, which is {at_most}"));
            }
        }
    }
}

/// Bytes of a channel's name.
const CHANNEL_MAX_BYTES: usize = 512;

/// What is said on one channel must not be heard as something else, and silence must not be over before a sign of life is due.
fn channels(config: &Config, report: &mut Report) {
    let (peers, applications, publish) = (&config.peers, &config.applications, &config.publish);
    let (of_peers, told, heard) = ("peers.channel", "publish.channel", "applications.channel");
    let named = [(of_peers, &peers.channel), (told, &publish.channel), (heard, &applications.channel)];
    for (key, channel) in named {
        if channel.len() > CHANNEL_MAX_BYTES {
            report.reject(key, format!("expected at most {CHANNEL_MAX_BYTES} bytes"));
        } else if channel.is_empty() && key == of_peers {
            report.reject(key, "expected the name of a channel; peers.enabled = false switches it off");
        } else if channel.is_empty() && key == told {
            report.reject(key, "expected the name of a channel; publish.keys = [] switches it off");
        } else if key != of_peers && *channel == peers.channel && !report.has_refused(of_peers) {
            report.reject(
                key,
                "the same as peers.channel, where proxies take what they cannot read for a reason to drop all",
            );
        }
    }
    if let Some(at) = publish.keys.iter().position(|pattern| pattern.as_str().is_empty()) {
        let expected = "an empty pattern matches only the empty key; \"*\" matches all";
        report.reject("publish.keys", format!("pattern {at}: {expected}"));
    }
    let (beat, timeout) = ("peers.heartbeat_ms", "peers.timeout_ms");
    if peers.timeout_ms < 2 * peers.heartbeat_ms && !report.has_refused(beat) && !report.has_refused(timeout) {
        // Blamed on the one that was written.
        if report.sources.contains_key(beat) {
            report.reject(beat, format!("expected at most half of {timeout}, which is {}", peers.timeout_ms));
        } else {
            report.reject(timeout, format!("expected at least twice {beat}, which is {}", peers.heartbeat_ms));
        }
    }
}

/// A port for TLS that is not opened, or opens without what it is to show, is not what the operator believes in.
fn client_tls(config: &Config, report: &mut Report) {
    let tls = &config.tls;
    if report.has_refused("tls.listen") {
        return;
    }
    let (chain, key, ca) = ("tls.certificate_file", "tls.key_file", "tls.client_ca_file");
    let given = [(chain, &tls.certificate_file), (key, &tls.key_file), (ca, &tls.client_ca_file)];
    let Some(listen) = tls.listen else {
        if tls.only {
            report.reject("tls.only", "nobody could connect; expected an address in tls.listen too");
        }
        for (key, _) in given.into_iter().filter(|(_, file)| !file.is_empty()) {
            report.reject(key, "nobody connects by TLS; expected an address in tls.listen too, or nothing here");
        }
        return;
    };
    if !tls.only && listen == config.listen && listen.port() != 0 {
        report.reject("tls.listen", "the same as listen; expected another, or tls.only = true");
    }
    let mut missing = false;
    let asked = tls.client_certificates != ClientCertificates::None;
    for (key, _) in given.into_iter().filter(|(_, file)| file.is_empty()).filter(|(key, _)| *key != ca || asked) {
        let of = if key == ca { "tls.client_certificates" } else { "tls.listen" };
        report.reject(key, format!("{of} needs it; expected the path of a file in PEM"));
        missing = true;
    }
    if !asked && !tls.client_ca_file.is_empty() {
        report.reject(
            ca,
            "clients are not asked for certificates; expected tls.client_certificates to say so, or nothing here",
        );
    }
    if missing {
        return;
    }
    for flaw in ClientTls::new(tls).err().into_iter().flatten() {
        report.reject(flaw.key, flaw.expected);
    }
}

/// What only `rediss://` uses is not silently left unused: the operator believes in an encrypted connection.
fn upstream_tls(config: &Config, report: &mut Report) {
    let upstream = &config.upstream;
    if report.has_refused("upstream.url") {
        return;
    }
    let (chain, key) = ("upstream.tls_certificate_file", "upstream.tls_key_file");
    let given = [
        ("upstream.tls_ca_file", !upstream.tls_ca_file.is_empty()),
        (chain, !upstream.tls_certificate_file.is_empty()),
        (key, !upstream.tls_key_file.is_empty()),
        ("upstream.tls_server_name", !upstream.tls_server_name.is_empty()),
        ("upstream.tls_dangerously_skip_verification", upstream.tls_dangerously_skip_verification),
    ];
    if !upstream.url.tls {
        if matches!(upstream.url.address, Address::Tcp { .. }) {
            for (key, _) in given.into_iter().filter(|(_, given)| *given) {
                report.reject(key, "upstream.url does not ask for TLS; expected rediss:// there, or nothing here");
            }
        }
        return;
    }
    match (given[1].1, given[2].1) {
        (true, false) => return report.reject(chain, format!("expected its private key too, in {key}")),
        (false, true) => return report.reject(key, format!("expected its certificate too, in {chain}")),
        _ => {}
    }
    if upstream.tls_dangerously_skip_verification {
        for (key, _) in [given[0], given[3]].into_iter().filter(|(_, given)| *given) {
            report.reject(key, "nothing is verified while upstream.tls_dangerously_skip_verification is true");
        }
    }
    for flaw in UpstreamTls::new(upstream).err().into_iter().flatten() {
        report.reject(flaw.key, flaw.expected);
    }
}

/// The shortest token that is not guessed, and the longest that a header takes; in bytes.
const TOKEN_BYTES: RangeInclusive<usize> = 16..=512;

fn admin(config: &Config, report: &mut Report) {
    if let Some(listen) = config.admin.listen.filter(|listen| listen.port() != 0) {
        let taken = [("listen", Some(config.listen).filter(|_| !config.tls.only)), ("tls.listen", config.tls.listen)];
        for (key, _) in taken.into_iter().filter(|(_, other)| *other == Some(listen)) {
            let blamed = if report.sources.contains_key("admin.listen") { "admin.listen" } else { key };
            let other = if blamed == key { "admin.listen" } else { key };
            report.reject(blamed, format!("the same as {other}; expected another"));
        }
    }
    if let Some(token) = config.admin.token.secret()
        && !(TOKEN_BYTES.contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic()))
    {
        report.reject("admin.token", schema::TOKEN);
    }
}

/// A filter that parses may still be a slip: a bare word that is no level (`inof`) is a target, and would silence the rest.
fn level(filter: &str) -> Result<(), String> {
    const EXPECTED: &str =
        "expected a level (error, warn, info, debug, trace, off) and target=level pairs, separated by commas";
    let is_level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let slip = filter.split(',').map(str::trim).any(|part| !part.contains(['=', '[']) && !is_level(part));
    if slip || tracing_subscriber::EnvFilter::try_new(filter).is_err() {
        return Err(EXPECTED.to_owned());
    }
    Ok(())
}
