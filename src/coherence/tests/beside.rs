//! Reads that went upstream beside the tier, and the fills they went past (`watch.rs`, `outread.rs`).

use super::*;

#[test]
fn a_read_that_went_upstream_leaves_alone_what_cannot_be_older_or_says_the_same() {
    let a = Armory::new();
    let miss = a.coherence.serve(&a.source, b"k", &GET, T0).expect_err("nothing stored");
    a.coherence.read_answered(b"k", miss.watch);
    assert_eq!(a.coherence.totals().invalidations, [0; Cause::ALL.len()]);
    a.fill(b"k", b"v");
    let mget = |reply: &[u8]| {
        let watch = a.coherence.read_sent(b"k");
        a.coherence.read_answered_with(b"k", &a.sight(reply), watch);
    };
    mget(b"v");
    assert_eq!(a.get(b"k"), Ok(b"v".to_vec()));
    mget(b"w");
    assert_eq!(a.get(b"k"), Err(MissReason::NoEntry));
}

#[test]
fn a_fill_that_was_read_past_is_stored_only_if_it_brings_the_same_and_joined_by_nobody() {
    for (seen, brings, stored) in [(&b"v"[..], &b"v"[..], true), (b"new", b"old", false)] {
        let a = Armory::new();
        let miss = a.coherence.serve(&a.source, b"k", &GET, T0).expect_err("nothing stored");
        let ticket = a.ticket(b"k").expect("nothing stands in its way");
        assert!(a.coherence.still_good(&ticket.check()));
        a.coherence.read_answered_with(b"k", &a.sight(seen), miss.watch);
        assert!(!a.coherence.still_good(&ticket.check()), "its reply may be the older one");
        assert_eq!(ticket.commit(&reply_of(GET, brings)).err(), (!stored).then_some(CommitRefused::Outread));
        assert_eq!(a.get(b"k").is_ok(), stored);
        assert_eq!(a.coherence.totals().invalidations, [0; Cause::ALL.len()]);
    }
}

#[test]
fn another_question_about_the_key_and_another_key_of_the_slot_are_told_apart() {
    let a = Armory::with_slots(1);
    let watch = a.coherence.read_sent(b"k");
    let (ticket, other) = (a.ticket(b"k").expect("free"), a.ticket(b"other").expect("free"));
    let sight = Sight { question: ViewKey { command: 2, ..GET }, ..a.sight(b"v") };
    a.coherence.read_answered_with(b"k", &sight, watch);
    assert_eq!(ticket.commit(&reply_of(GET, b"v")).err(), Some(CommitRefused::Outread));
    assert!(other.commit(&reply_of(GET, b"v")).is_ok());
}

#[test]
fn what_is_over_is_joined_by_nobody() {
    let a = Armory::new();
    let ticket = a.ticket(b"k").expect("free");
    let check = ticket.check();
    drop(ticket);
    assert!(!a.coherence.still_good(&check));
}
