//! CLIENTS and LIMITS: who asks how much, and has how much left.

use std::sync::atomic::Ordering::Relaxed;

use super::answer::{Answer, Thing, Value, shown};
use crate::cache::Millis;
use crate::config::{Algorithm, By};
use crate::limits::Limit;
use crate::server::shared::Shared;

/// The busiest clients, at most so many.
pub(super) fn clients(shared: &Shared, most: usize) -> Answer {
    let now = shared.clock.now();
    let mut clients: Vec<_> =
        shared.clients.all().into_iter().map(|client| (client.asking.per_second(now), client)).collect();
    clients.sort_by(|(a, one), (b, other)| b.total_cmp(a).then(one.id.cmp(&other.id)));
    clients.truncate(most);
    let things = clients.into_iter().map(|(per_second, client)| -> Thing {
        let labels = client.labels();
        let idle_ms = now.since(Millis(client.active.load(Relaxed)));
        vec![
            ("id", client.id.into()),
            ("addr", client.addr.as_str().into()),
            ("name", shown(&labels.name).into()),
            ("user", shown(&labels.user).into()),
            ("resp", u64::from(client.protocol.load(Relaxed)).into()),
            ("db", u64::from(client.db.load(Relaxed)).into()),
            ("age_seconds", (now.since(client.since) / 1000).into()),
            ("idle_ms", idle_ms.into()),
            ("requests", client.asking.requests().into()),
            ("requests_per_second", per_second.into()),
            ("inflight", client.inflight.load(Relaxed).into()),
            ("input_bytes", client.input_bytes.load(Relaxed).into()),
            ("output_bytes", client.output_bytes.load(Relaxed).into()),
            ("refused_by_limits", client.refused.load(Relaxed).into()),
        ]
    });
    Answer::Several(things.collect())
}

/// Each limit, with so many identities at most. Looks at every budget there is: for a thread of its own.
pub(super) fn limits(shared: &Shared, identities_max: usize) -> Answer {
    let limits = shared.limits();
    let things = limits.all.iter().enumerate().map(|(at, limit)| -> Thing {
        let rate = &limit.rate;
        let poorest = limit.poorest(limits.now(), identities_max).into_iter().map(|(identity, left)| -> Thing {
            vec![
                ("identity", (&*identity).into()),
                ("commands_left", left.commands.into()),
                ("bytes_left", left.bytes.into()),
            ]
        });
        vec![
            ("name", rate.name.as_str().into()),
            ("by", by(limit)),
            ("scope", limits.scope_of(limit).into()),
            ("user", rate.user.as_ref().map_or("*", |user| user.as_str()).into()),
            ("commands", Value::List(rate.commands.iter().map(|word| word.clone().into_bytes()).collect())),
            ("algorithm", algorithm(limit).into()),
            ("commands_per_second", rate.commands_per_second.into()),
            ("bytes_per_second", rate.bytes_per_second.into()),
            ("dry_run", rate.dry_run.into()),
            ("allowed", limits.total(at, |counts| &counts.allowed).into()),
            ("refused", limits.total(at, |counts| &counts.refused).into()),
            ("dry_run_refused", limits.total(at, |counts| &counts.dry_run_refused).into()),
            ("identities", limit.identities().into()),
            ("least_left", Value::Things(poorest.collect())),
        ]
    });
    Answer::Several(things.collect())
}

fn by(limit: &Limit) -> Value {
    match &limit.rate.by {
        By::Ip => "ip".into(),
        By::User => "user".into(),
        By::ClientName => "client-name".into(),
        By::Connection => "connection".into(),
        By::KeyPrefix { .. } => "key-prefix".into(),
    }
}

fn algorithm(limit: &Limit) -> String {
    match limit.rate.algorithm {
        Algorithm::TokenBucket { burst } => format!("token-bucket, burst {burst}"),
        Algorithm::SlidingWindow { window_ms } => format!("sliding-window, {window_ms} ms"),
        Algorithm::FixedWindow { window_ms } => format!("fixed-window, {window_ms} ms"),
    }
}
