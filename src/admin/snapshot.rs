//! The figures as JSON, for the page and `anteroom status`: every field of INFO by its name, and what INFO has no room for.
//!
//! Fields may be added; those that are there keep their names and units.

use serde_json::{Map, Number as JsonNumber, Value as Json, json};

use super::figures::{Figures, Number, Value};
use super::health::Health;
use super::history::History;
use crate::server::shared::Shared;

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
    put("upstream", shared.config.upstream.url.to_string().into());
    put("rates", json!(history.rates()));
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

fn limits(shared: &Shared) -> Json {
    let limits = &shared.limits;
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
