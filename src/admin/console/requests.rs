//! HOTKEYS and SLOWLOG: which keys are asked for most, and which requests took long.

use super::answer::{Answer, Thing, Value, shown};
use crate::admin::figures::hottest;
use crate::server::shared::Shared;

/// The keys asked for most of late, at most so many, with what they are asked per second.
pub(super) fn hot_keys(shared: &Shared, most: usize) -> Answer {
    let things = hottest(shared, most).into_iter().map(|hot| -> Thing {
        vec![
            ("key", shown(&hot.key).into()),
            ("db", u64::from(hot.db).into()),
            ("reads_per_second", hot.reads.into()),
            ("writes_per_second", hot.writes.into()),
            ("hits_per_second", hot.hits.into()),
            ("bytes_per_second", hot.bytes.into()),
            ("doubt_per_second", hot.doubt.into()),
        ]
    });
    Answer::Several(things.collect())
}

/// The latest slow requests, newest first.
pub(super) fn slow_log(shared: &Shared, most: usize) -> Answer {
    let things = shared.slow.latest(most).into_iter().map(|slow| -> Thing {
        vec![
            ("id", slow.id.into()),
            ("at", slow.at.into()),
            ("total_us", u64::from(slow.total_us).into()),
            ("proxy_us", u64::from(slow.total_us.saturating_sub(slow.upstream_us)).into()),
            ("upstream_us", u64::from(slow.upstream_us).into()),
            ("client", slow.client.into()),
            ("addr", (&*slow.addr).into()),
            ("request", Value::List(slow.args.iter().map(|arg| arg.to_vec()).collect())),
        ]
    });
    Answer::Several(things.collect())
}
