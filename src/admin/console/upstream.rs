//! LANES and TRACKER: how the connections to Redis stand.

use std::sync::atomic::Ordering::Relaxed;

use super::answer::{Answer, Thing, Value};
use crate::admin::figures::Hearing;
use crate::resp::Protocol;
use crate::server::shared::Shared;

fn number(protocol: Protocol) -> Value {
    Value::Number(if protocol == Protocol::Resp3 { 3 } else { 2 })
}

pub(super) fn lanes(shared: &Shared) -> Answer {
    let mut lanes = shared.lanes.all();
    lanes.sort_by_key(|lane| lane.worker);
    let lanes = lanes.into_iter().map(|lane| -> Thing {
        vec![
            ("worker", lane.worker.into()),
            ("kind", lane.name.strip_prefix("anteroom:").unwrap_or(lane.name).into()),
            ("user", (&*lane.user).into()),
            ("resp", number(lane.protocol)),
            ("db", u64::from(lane.db).into()),
            ("state", lane.state().into()),
            ("age_seconds", lane.age().as_secs().into()),
            ("inflight", lane.inflight.load(Relaxed).into()),
            ("connects", lane.connects.load(Relaxed).into()),
            ("losses", lane.losses.load(Relaxed).into()),
            ("last_loss", Some(lane.reason()).filter(|why| !why.is_empty()).into()),
        ]
    });
    let mut pools = shared.pools.all();
    pools.sort_by_key(|pool| pool.worker);
    let pools = pools.into_iter().map(|pool| -> Thing {
        let (lent, idle) = pool.lent_and_idle();
        vec![
            ("worker", pool.worker.into()),
            ("kind", "dedicated".into()),
            ("user", (&*pool.user).into()),
            ("resp", number(pool.protocol)),
            ("db", u64::from(pool.db).into()),
            ("lent", u64::from(lent).into()),
            ("idle", u64::from(idle).into()),
            ("max", u64::from(pool.max).into()),
        ]
    });
    Answer::Several(lanes.chain(pools).collect())
}

pub(super) fn tracker(shared: &Shared) -> Answer {
    let now = shared.clock.now();
    let mut identities = shared.identities.all();
    identities.sort_by_key(|identity| identity.id);
    let trackers = identities.into_iter().map(|identity| -> Thing {
        let hearing = Hearing::of(shared, identity.tracker.as_deref());
        let Some(tracker) = &identity.tracker else {
            return vec![("user", identity.user().into()), ("state", hearing.state.into())];
        };
        let standing = &tracker.standing;
        let armed = |ms: Option<u64>| Value::from(ms.filter(|_| hearing.state == "armed"));
        vec![
            ("user", identity.user().into()),
            // Who has given a password, and who is let in without one, are told apart though both are `default`.
            ("authenticated", identity.login.is_some().into()),
            ("state", hearing.state.into()),
            ("reason", Some(hearing.reason.as_str()).filter(|why| !why.is_empty()).into()),
            ("signal", hearing.signal.into()),
            ("armed_ms", armed(standing.armed_for(now))),
            ("inflight", standing.inflight().into()),
            ("last_push_ms", armed(standing.pushed_before(now))),
            ("last_heartbeat_ms", armed(standing.answered_before(now))),
            ("lease_left_ms", armed(tracker.source.lease_left(now))),
            ("may_fill", tracker.may_fill(now).into()),
            ("may_fill_hashes", tracker.may_fill_hash(now).into()),
            ("connects", standing.armed().into()),
            ("losses", standing.losses().into()),
        ]
    });
    Answer::Several(trackers.collect())
}
