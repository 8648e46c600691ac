//! The figures as JSON, for the page and `anteroom status`: every field of INFO by its name, and what INFO has no room for.
//!
//! Fields may be added; those that are there keep their names and units.

use serde_json::{Map, Number as JsonNumber, Value as Json, json};

use super::figures::{Figures, Number, Value, hottest};
use super::health::Health;
use super::history::History;
use crate::observe::{HotKey, SlowEntry};
use crate::server::shared::Shared;

/// Keys that are told of, at most.
const HOT_KEYS: usize = 20;
/// Slow requests that are told of, at most.
const SLOW: usize = 10;
/// Arguments of each: its name and its key. Values are nobody's business.
const SLOW_ARGUMENTS: usize = 2;
/// Characters of a key.
const SHOWN_MAX_CHARS: usize = 120;

/// How things stand now.
pub fn now(shared: &Shared, health: &Health, history: &History) -> Map<String, Json> {
    let figures: Map<String, Json> =
        Figures::all(shared).fields.into_iter().map(|field| (field.name.into_owned(), json(field.value))).collect();
    let mut snapshot = Map::new();
    let mut put = |name: &str, value: Json| snapshot.insert(name.to_owned(), value);
    put("at_ms", history.moments().last().map_or(0, |moment| moment.at_ms).into());
    put("alive", health.is_alive().into());
    put("ready", health.is_ready().into());
    put("reason", health.unready.as_str().into());
    put("upstream", shared.config().upstream.url.to_string().into());
    put("rates", json!(history.rates()));
    put(
        "latency",
        history.moments().last().map_or(Json::Null, |now| json!({"client": now.client, "upstream": now.upstream})),
    );
    put("hot_keys", hot_keys(shared));
    put("slow", slow(shared));
    put("limits", limits(shared));
    put("figures", figures.into());
    snapshot
}

/// The same, and how it went of late.
pub fn with_history(shared: &Shared, health: &Health, history: &History) -> Map<String, Json> {
    let mut snapshot = now(shared, health, history);
    let moments = history.moments().map(|moment| json!(moment)).collect();
    snapshot.insert("history".to_owned(), Json::Array(moments));
    snapshot
}

/// Rates per second of the keys asked for most, of about the last ten seconds; null if they are not sampled.
fn hot_keys(shared: &Shared) -> Json {
    if shared.config().observe.hot_keys_max == 0 {
        return Json::Null;
    }
    let one = |key: HotKey| {
        json!({
            "db": key.db,
            "key": shown(&key.key),
            "reads": key.reads,
            "writes": key.writes,
            "hits": key.hits,
            "bytes": key.bytes,
            "doubt": key.doubt,
        })
    };
    hottest(shared, HOT_KEYS).into_iter().map(one).collect()
}

/// The latest requests that took long, the newest first: their commands and keys as far as they are in the slow log, without what follows.
fn slow(shared: &Shared) -> Json {
    let one = |entry: SlowEntry| {
        json!({
            "at": entry.at,
            "total_seconds": f64::from(entry.total_us) / 1e6,
            "upstream_seconds": f64::from(entry.upstream_us) / 1e6,
            "addr": entry.addr,
            "request": entry.args.iter().take(SLOW_ARGUMENTS).map(|arg| shown(arg)).collect::<Vec<_>>().join(" "),
        })
    };
    shared.slow.latest(SLOW).into_iter().map(one).collect()
}

/// What may be any bytes, as text that is not too long.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(SHOWN_MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

fn limits(shared: &Shared) -> Json {
    let limits = shared.limits();
    let one = |at: usize| {
        let limit = &limits.all[at];
        json!({
            "name": limit.rate.name,
            "allowed": limits.total(at, |counts| &counts.allowed),
            "refused": limits.total(at, |counts| &counts.refused),
            "dry_run_refused": limits.total(at, |counts| &counts.dry_run_refused),
            "identities": limit.identities(),
        })
    };
    (0..limits.all.len()).map(one).collect()
}

fn json(value: Value) -> Json {
    match value {
        Value::Number(Number::Count(n)) => n.into(),
        Value::Number(Number::Signed(n)) => n.into(),
        Value::Number(Number::Real(n)) => JsonNumber::from_f64(n).map_or(Json::Null, Json::Number),
        Value::Text(text) => text.into(),
    }
}
