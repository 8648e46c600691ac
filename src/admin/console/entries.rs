//! KEYS, BIGKEYS and ENTRY: what is kept; and QUERYCACHE, which says the same as Alibaba's Tair does.
//!
//! Never shows a value. A key is shown whole where it is what was asked for (KEYS, ENTRY), and else up to a length.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;

use super::answer::{Answer, Thing, Value, shown};
use super::totals::hit_ratio;
use crate::cache::{Entry, Millis, View};
use crate::coherence::{Coherence, Pattern, SourceKind};
use crate::command::Table;
use crate::resp::{decimal, encode};
use crate::server::rates::Totals;
use crate::server::shared::Shared;

/// Bytes of all keys or requests that one answer shows, at most (one may be longer): beyond it there are more.
const SHOWN_MAX_BYTES: usize = 1 << 20;
/// Bytes of one argument; arguments of one request.
const ARGUMENT_SHOWN_MAX_BYTES: usize = 64;
const ARGUMENTS_SHOWN_MAX: usize = 8;
/// Keys, or requests, that QUERYCACHE shows at most: it says nothing of more.
const QUERYCACHE_MAX: usize = 10_000;

/// What takes a walk through all that is kept, or through every budget.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// Keys that match, at most so many.
    Keys(Pattern, usize),
    /// The largest entries.
    Bigkeys(usize),
    /// The rate limits, with so many identities each.
    Limits(usize),
    /// Tair's words.
    QuerycacheKeys,
    /// Tair's words.
    QuerycacheListall,
}

impl Look {
    /// Looks, and answers. For a thread that has nothing else to do.
    pub fn answer(self, shared: &Shared) -> Answer {
        let (coherence, now) = (&shared.coherence, shared.clock.now());
        match self {
            Self::Keys(pattern, most) => keys(coherence, &pattern, most),
            Self::Bigkeys(most) => bigkeys(shared, most),
            Self::Limits(identities_max) => super::clients::limits(shared, identities_max),
            Self::QuerycacheKeys => querycache_keys(coherence),
            Self::QuerycacheListall => querycache_listall(coherence, &shared.table().1, now),
        }
    }
}

fn keys(coherence: &Coherence, pattern: &Pattern, most: usize) -> Answer {
    let (mut found, mut bytes, mut more) = (Vec::new(), 0, false);
    coherence.each_entry(|entry| {
        if !pattern.matches(entry.key()) {
            return ControlFlow::Continue(());
        }
        more = found.len() == most || bytes > SHOWN_MAX_BYTES;
        if more {
            return ControlFlow::Break(());
        }
        bytes += entry.key().len();
        found.push(entry.key().to_vec());
        ControlFlow::Continue(())
    });
    found.sort_unstable();
    Answer::One(vec![("shown", found.len().into()), ("more", more.into()), ("keys", Value::List(found))])
}

fn bigkeys(shared: &Shared, most: usize) -> Answer {
    let coherence = &shared.coherence;
    let mut largest: BinaryHeap<Reverse<Sized>> = BinaryHeap::with_capacity(most + 1);
    coherence.each_entry(|entry| {
        let bytes = coherence.entry_bytes(entry);
        if largest.len() < most || largest.peek().is_some_and(|Reverse(least)| least.bytes < bytes) {
            largest.push(Reverse(Sized { bytes, entry: entry.clone() }));
            if largest.len() > most {
                largest.pop();
            }
        }
        ControlFlow::Continue(())
    });
    let sorted = largest.into_sorted_vec();
    let things = sorted.into_iter().map(|Reverse(Sized { bytes, entry })| -> Thing {
        vec![
            ("key", shown(entry.key()).into()),
            ("key_bytes", entry.key().len().into()),
            ("bytes", bytes.into()),
            ("views", entry.views().len().into()),
            ("db", entry.views().first().map(|view| u64::from(view.question().db)).into()),
            ("served", entry.was_served().into()),
        ]
    });
    Answer::Several(things.collect())
}

/// An entry by its size.
struct Sized {
    bytes: usize,
    entry: Entry,
}

impl Ord for Sized {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Equals are told apart, so that the same entries are shown in the same order each time.
        self.bytes.cmp(&other.bytes).then_with(|| other.entry.key().cmp(self.entry.key()))
    }
}

impl PartialOrd for Sized {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Sized {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Sized {}

pub(super) fn entry(shared: &Shared, key: &[u8]) -> Answer {
    let Some(entry) = shared.coherence.entry(key) else { return Answer::Nothing };
    let (now, table) = (shared.clock.now(), shared.table().1);
    let identities = shared.identities.all();
    let views = entry.views().iter().map(|view| -> Thing {
        let standing = shared.coherence.standing(view, now);
        let of = standing.source.and_then(|(id, kind)| {
            // A source of kind ttl is numbered by identity and protocol (server/identity.rs).
            let id = if kind == SourceKind::Ttl { id / 2 } else { id };
            identities.iter().find(|identity| identity.id == id).map(|identity| (identity, kind))
        });
        let differ = view.resp2() != view.resp3();
        vec![
            ("db", u64::from(view.question().db).into()),
            ("command", command(&table, view).to_uppercase().into()),
            ("arguments", Value::List(arguments(view.question().tail))),
            ("user", of.map(|(identity, _)| identity.user()).into()),
            ("authenticated", of.map(|(identity, _)| identity.login.is_some()).into()),
            ("mode", of.map(|(_, kind)| if kind == SourceKind::Ttl { "ttl" } else { "tracked" }).into()),
            ("resp3_bytes", view.resp3().len().into()),
            ("resp2_bytes", view.resp2().len().into()),
            ("resp2_kept_apart", differ.into()),
            ("age_ms", now.since(view.filled_at()).into()),
            ("remaining_ms", view.deadline().since(now).into()),
            ("servable", standing.servable.is_ok().into()),
            ("reason", standing.servable.err().map(|reason| reason.as_str()).into()),
        ]
    });
    Answer::One(vec![
        ("key", entry.key().into()),
        ("bytes", shared.coherence.entry_bytes(&entry).into()),
        ("served", entry.was_served().into()),
        // What TOUCH goes by (cache.touch_interval_ms).
        ("served_since_touch", entry.is_warm().into()),
        ("views", Value::Things(views.collect())),
    ])
}

fn command<'t>(table: &'t Table, view: &View) -> &'t str {
    table.get(view.question().command).map_or("?", |command| &command.name)
}

/// The arguments behind a view's key, shortened.
fn arguments(tail: &[u8]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = words(tail)
        .take(ARGUMENTS_SHOWN_MAX + 1)
        .map(|word| match word.get(..ARGUMENT_SHOWN_MAX_BYTES) {
            Some(beginning) if beginning.len() < word.len() => [beginning, b"..."].concat(),
            _ => word.to_vec(),
        })
        .collect();
    if all.len() > ARGUMENTS_SHOWN_MAX {
        all.truncate(ARGUMENTS_SHOWN_MAX);
        all.push(b"...".to_vec());
    }
    all
}

/// The bulk strings of canonical bytes.
fn words(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let end = bytes.iter().position(|byte| *byte == b'\r')?;
        let len = decimal(bytes.get(1..end)?).and_then(|len| usize::try_from(len).ok())?;
        let word = bytes.get(end + 2..end + 2 + len)?;
        bytes = bytes.get(end + 2 + len + 2..).unwrap_or_default();
        Some(word)
    })
}

fn querycache_keys(coherence: &Coherence) -> Answer {
    querycache_rows(coherence, |entry, rows| {
        let mut dbs: Vec<u32> = entry.views().iter().map(|view| view.question().db).collect();
        dbs.sort_unstable();
        dbs.dedup();
        rows.extend(dbs.iter().map(|db| vec![u64::from(*db).into(), entry.key().into()]));
        entry.key().len() * dbs.len()
    })
}

fn querycache_listall(coherence: &Coherence, table: &Table, now: Millis) -> Answer {
    querycache_rows(coherence, |entry, rows| {
        let mut bytes = 0;
        for view in entry.views() {
            let question = view.question();
            let name = command(table, view).to_uppercase();
            let words: Vec<&[u8]> = [name.as_bytes(), entry.key()].into_iter().chain(words(question.tail)).collect();
            let mut request = Vec::new();
            encode::command(&mut request, &words);
            bytes += request.len();
            rows.push(vec![u64::from(question.db).into(), Value::Bytes(request), view.deadline().since(now).into()]);
        }
        bytes
    })
}

/// The rows that `add` makes of each entry, until there are enough. It returns the bytes of the keys or requests in them.
fn querycache_rows(coherence: &Coherence, add: impl Fn(&Entry, &mut Vec<Vec<Value>>) -> usize) -> Answer {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    coherence.each_entry(|entry| {
        bytes += add(entry, &mut rows);
        if rows.len() >= QUERYCACHE_MAX || bytes > SHOWN_MAX_BYTES {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    rows.truncate(QUERYCACHE_MAX);
    Answer::Values(rows)
}

/// The requests kept are not counted; nearly every key has one.
pub(super) fn querycache_info(shared: &Shared) -> Answer {
    let (now, totals, size) = (std::time::Instant::now(), Totals::of(shared), shared.coherence.size());
    let rate = |of: fn(&Totals) -> u64| shared.rates.per_second(now, &totals, of);
    let line = |name: &str, value: String| vec![Value::Text(format!("{name}:{value}"))];
    Answer::Texts(
        [
            line("put_qps", format!("{:.2}", rate(|t| t.fills))),
            line("get_qps", format!("{:.2}", rate(|t| t.hits + t.misses))),
            line("hit_rate", format!("{:.2}", hit_ratio(totals.hits, totals.misses).unwrap_or_default())),
            line("memory_size", size.bytes.to_string()),
            line("query_count", size.entries.to_string()),
            // The tier has neither limit.
            line("bandwidth_limit_query_cnt", "0".to_owned()),
            line("qps_limit_query_cnt", "0".to_owned()),
        ]
        .concat(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_from_a_tail_and_shortened() {
        assert_eq!(arguments(b""), Vec::<Vec<u8>>::new());
        assert_eq!(arguments(b"$1\r\nf\r\n$2\r\n\r\n\r\n"), [b"f".to_vec(), b"\r\n".to_vec()]);
        let mut tail = Vec::new();
        (0..20).for_each(|_| encode::bulk(&mut tail, &[b'x'; 100]));
        let shown = arguments(&tail);
        assert_eq!((shown.len(), shown[0].len(), &shown[8][..]), (9, 67, &b"..."[..]));
        assert_eq!(words(&tail).count(), 20);
        assert_eq!(words(b"$9\r\nshort").count(), 0, "what is cut off is no word");
    }
}
