//! Invalidating by pattern: what must go, what must stay, and what may not come in behind.

use super::super::near::Near;
use super::super::news::Told;
use super::*;

fn glob(pattern: &str) -> [Pattern; 1] {
    [Pattern::Glob(pattern.as_bytes().to_vec())]
}

#[test]
fn what_matches_goes_and_nothing_else_and_the_answer_is_how_many() {
    let a = Armory::new();
    for key in ["user:1", "user:2", "product:1", "us"] {
        a.fill(key.as_bytes(), key.as_bytes());
    }
    assert_eq!(a.coherence.invalidate_matching(&glob("user:?"), Cause::Console), 2);
    assert_eq!((a.get(b"user:1"), a.get(b"user:2")), (Err(MissReason::NoEntry), Err(MissReason::NoEntry)));
    assert_eq!((a.get(b"product:1").is_ok(), a.get(b"us").is_ok()), (true, true));
    let prefix = [Pattern::Prefix(b"p".to_vec()), Pattern::Prefix(b"x".to_vec())];
    assert_eq!(a.coherence.invalidate_matching(&prefix, Cause::Peer), 1);
    let totals = a.coherence.totals();
    assert_eq!((totals.dropped[Cause::Console as usize], totals.dropped[Cause::Peer as usize]), (2, 1));
}

#[test]
fn a_fill_in_flight_is_neither_stored_nor_joined_afterwards() {
    let a = Armory::new();
    let ticket = a.ticket(b"user:1").expect("nothing stands in its way");
    let check = ticket.check();
    a.coherence.invalidate_matching(&glob("user:*"), Cause::Console);
    assert!(!a.coherence.still_good(&check));
    assert_eq!(ticket.commit(&reply_of(GET, b"old")), Err(CommitRefused::Moved));
    a.fill(b"user:1", b"new");
    assert_eq!(a.get(b"user:1"), Ok(b"new".to_vec()));
}

#[test]
fn what_a_near_table_serves_after_the_tier_evicted_it_goes_too() {
    let a = Armory::new();
    a.fill(b"user:1", b"old");
    let mut near = Near::default();
    let mut ask =
        || near.serve(&a.coherence, &a.source, b"user:1", &GET, T0).map(|(view, _)| view.resp3().to_vec()).ok();
    assert!(ask().is_some() && ask().is_some());
    a.coherence.shared().tier.evict(a.coherence.hash(b"user:1"));
    assert_eq!(ask(), Some(b"old".to_vec()), "an evicted entry is not wrong");
    a.coherence.invalidate_matching(&glob("user:*"), Cause::Console);
    assert_eq!(ask(), None);
}

#[test]
fn what_no_tracker_vouches_for_goes_alone() {
    let a = Armory::new();
    let timed = a.coherence.source(1, SourceKind::Ttl).expect("room");
    a.fill(b"k", b"tracked");
    let ticket = a.coherence.ticket(&timed, b"k", T0).expect("armed");
    ticket.commit(&reply_of(GET, b"timed")).expect("nothing has moved");
    let in_flight = a.coherence.ticket(&timed, b"l", T0).expect("armed");
    let timed_get = || a.coherence.serve(&timed, b"k", &GET, T0).map(|hit| hit.resp3().to_vec()).ok();
    assert_eq!(timed_get(), Some(b"timed".to_vec()));
    assert!(a.coherence.everything_untracked(Cause::Peer));
    assert_eq!((timed_get(), a.get(b"k")), (None, Ok(b"tracked".to_vec())));
    assert_eq!(in_flight.commit(&reply_of(GET, b"old")), Err(CommitRefused::SourceMoved));
}

/// A script, a function, a command nobody knows.
#[test]
fn a_write_that_may_have_hidden_keys_takes_with_it_what_no_tracker_vouches_for_and_peers_are_told() {
    let a = Armory::new();
    let news = a.coherence.news();
    let flushes = || a.coherence.totals().flushes[Cause::Write as usize];
    let hides = |key: &[u8]| {
        let mut mark = a.marks.write_mark([key]);
        mark.hides_keys();
        mark
    };
    let timed = a.coherence.source(1, SourceKind::Ttl).expect("room");
    a.fill(b"k", b"tracked");
    drop(hides(b"named"));
    assert_eq!(flushes(), 0, "nothing was ever kept for a time");
    let mark = hides(b"named");
    let ticket = a.coherence.ticket(&timed, b"k", T0).expect("armed");
    ticket.commit(&reply_of(GET, b"timed")).expect("nothing has moved");
    let in_flight = a.coherence.ticket(&timed, b"l", T0).expect("armed");
    let timed_get = || a.coherence.serve(&timed, b"k", &GET, T0).map(|hit| hit.resp3().to_vec()).ok();
    assert_eq!(timed_get(), Some(b"timed".to_vec()), "it may not have run yet");
    news.peers.open(Told::Writes);
    news.applications.open(Told::Orders);
    drop(mark);
    assert_eq!((timed_get(), a.get(b"k"), flushes()), (None, Ok(b"tracked".to_vec()), 1));
    assert_eq!(in_flight.commit(&reply_of(GET, b"old")), Err(CommitRefused::SourceMoved));
    assert!(news.peers.take().unnamed);
    news.applications.open(Told::Writes);
    drop(hides(b"named"));
    let (peers, applications) = (news.peers.take(), news.applications.take());
    assert!(peers.unnamed && !applications.unnamed, "Redis names those keys");
    assert_eq!(applications.keys.iter().collect::<Vec<_>>(), [b"named"]);
}

#[test]
fn a_write_tells_its_keys_when_its_mark_is_lifted_and_not_before() {
    let a = Armory::new();
    let news = a.coherence.news();
    drop(a.marks.write_mark([&b"nobody listens"[..]]));
    news.peers.open(Told::Writes);
    assert!(news.peers.take().is_empty());
    let mark = a.marks.write_mark([&b"a"[..], b"b"]);
    assert!(news.peers.take().is_empty());
    drop(mark);
    let told = news.peers.take();
    assert_eq!(told.keys.iter().collect::<Vec<_>>(), [b"a", b"b"]);
    assert!(news.applications.take().is_empty(), "it is closed");
}

#[test]
fn a_write_whose_names_nobody_wanted_when_it_began_is_told_as_some_keys() {
    let a = Armory::new();
    let news = a.coherence.news();
    let mark = a.marks.write_mark([&b"a"[..]]);
    news.peers.open(Told::Writes);
    drop(mark);
    assert!(news.peers.take().unnamed);
    let flush = a.coherence.flush_mark();
    assert!(news.peers.take().is_empty());
    drop(flush);
    assert!(news.peers.take().everything);
}

#[test]
fn a_write_without_a_mark_drops_its_keys_when_it_is_over() {
    let a = Armory::new();
    a.fill(b"k", b"old");
    let write = a.marks.write_without_mark([&b"k"[..]]);
    assert!(a.get(b"k").is_ok(), "it may not run for hours");
    let in_flight = a.ticket(b"k").expect("no mark stands");
    drop(write);
    assert_eq!(a.get(b"k"), Err(MissReason::NoEntry));
    assert_eq!(in_flight.commit(&reply_of(GET, b"old")), Err(CommitRefused::Moved));
}

#[test]
fn applications_are_told_what_redis_pushes_and_what_may_have_been_missed_and_peers_are_not() {
    let mut a = Armory::new();
    let news = a.coherence.fork();
    let news = news.news();
    news.peers.open(Told::Writes);
    news.applications.open(Told::Writes);
    a.coherence.invalidate_keys([&b"k"[..]], Cause::Push);
    a.coherence.invalidate_keys([&b"l"[..]], Cause::Peer);
    let told = news.applications.take();
    assert_eq!(told.keys.iter().collect::<Vec<_>>(), [b"k"]);
    a.armed = None;
    assert!(news.applications.take().unnamed);
    assert!(news.peers.take().is_empty());
}
