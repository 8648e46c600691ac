//! One race of redis-facts section 3 at a time, by its number.

use super::*;

#[test]
fn r1_a_reply_that_left_before_an_invalidation_is_not_stored_after_it() {
    let a = Armory::new();
    let ticket = a.ticket(b"k").expect("issued");
    a.coherence.invalidate_key(b"k", Cause::Push);
    let refused = ticket.commit(&reply_of(GET, b"old")).expect_err("the key moved");
    assert_eq!(refused, CommitRefused::Moved);
    assert_eq!(a.get(b"k"), Err(MissReason::NoEntry));
}

#[test]
fn r2_a_reply_stored_by_another_thread_after_the_push_is_refused() {
    let a = Armory::new();
    let ticket = a.ticket(b"k").expect("issued");
    let (go, gone) = std::sync::mpsc::channel();
    let storing = std::thread::spawn(move || {
        gone.recv().expect("the push was handled");
        ticket.commit(&reply_of(GET, b"old")).map(|_| ())
    });
    a.coherence.invalidate_key(b"k", Cause::Push);
    go.send(()).expect("it waits");
    assert_eq!(storing.join().expect("no panic"), Err(CommitRefused::Moved));
}

#[test]
fn r3_a_ticket_dropped_without_a_reply_leaves_nothing_behind() {
    let a = Armory::new();
    drop(a.ticket(b"k").expect("issued"));
    assert_eq!(a.get(b"k"), Err(MissReason::NoEntry));
    a.fill(b"k", b"v");
    assert_eq!(a.get(b"k"), Ok(b"v".to_vec()));
}

#[test]
fn r4_a_flight_is_not_joined_after_a_write_was_acknowledged_and_still_answers_those_before() {
    let a = Armory::new();
    let mut flights = Flights::new(8, 8);
    let asked = FlightKey { scope: a.source.scope(), key: b"k", question: GET };
    let ticket = a.ticket(b"k").expect("issued");
    let id = flights.begin(a.source.scope(), get_request(b"k"), ticket.check(), "first").expect("room");
    assert_eq!(flights.join(&a.coherence, &asked, "second"), Ok(id));
    drop(a.marks.write_mark([&b"k"[..]]));
    assert_eq!(flights.join(&a.coherence, &asked, "late"), Err("late"));
    // The late one begins a flight of its own, which others join while the old one is still out.
    let newer = a.ticket(b"k").expect("issued");
    let newer_id = flights.begin(a.source.scope(), get_request(b"k"), newer.check(), "late").expect("room");
    assert_eq!(flights.join(&a.coherence, &asked, "later"), Ok(newer_id));
    assert!(flights.take(id).eq(["first", "second"]));
    assert_eq!(flights.join(&a.coherence, &asked, "latest"), Ok(newer_id));
    assert!(flights.take(newer_id).eq(["late", "later", "latest"]));
    assert!(flights.is_empty());
}

#[test]
fn r5_while_a_write_is_in_flight_its_key_is_neither_served_nor_filled_and_its_neighbours_are() {
    let a = Armory::with_slots(1 << 16);
    a.fill(b"k", b"old");
    a.fill(b"n", b"other");
    let mark = a.marks.write_mark([&b"k"[..]]);
    assert_eq!(a.get(b"k"), Err(MissReason::WriteInFlight));
    let refused = a.ticket(b"k").err();
    assert_eq!(refused, Some(TicketRefused::WriteInFlight));
    assert_eq!(a.get(b"n"), Ok(b"other".to_vec()));
    drop(mark);
    assert_eq!(a.get(b"k"), Err(MissReason::NoEntry));
    a.fill(b"k", b"new");
    assert_eq!(a.get(b"k"), Ok(b"new".to_vec()));
}

#[test]
fn r5_a_key_is_free_again_only_when_every_write_to_it_has_been_answered() {
    let a = Armory::new();
    let first = a.marks.write_mark([&b"k"[..]]);
    // Named twice in one write, as MSET allows.
    let second = a.marks.write_mark([&b"k"[..], b"k"]);
    drop(first);
    assert_eq!(a.get(b"k"), Err(MissReason::WriteInFlight));
    drop(second);
    a.fill(b"k", b"v");
}

#[test]
fn a_mark_on_many_keys_stands_on_each_of_them_and_is_lifted_from_each() {
    for count in [1, 4, 5, 300] {
        let a = Armory::with_slots(64);
        let keys: Vec<Vec<u8>> = (0..count).map(|n: u32| n.to_string().into_bytes()).collect();
        keys.iter().for_each(|key| a.fill(key, b"old"));
        let mark = a.marks.write_mark(keys.iter().map(Vec::as_slice));
        for key in &keys {
            assert_eq!(a.get(key), Err(MissReason::WriteInFlight));
        }
        drop(mark);
        keys.iter().for_each(|key| a.fill(key, b"new"));
    }
}

#[test]
fn a_panic_while_keys_are_being_marked_lifts_the_marks_that_stand() {
    let a = Armory::new();
    let coherence = a.coherence.clone();
    let marking = std::thread::spawn(move || {
        let keys = [&b"k"[..], b"l"].into_iter();
        let _mark = coherence.marks().write_mark(keys.inspect(|key| assert!(*key != b"l", "on purpose")));
    });
    assert!(marking.join().is_err());
    a.fill(b"k", b"v");
}

#[test]
fn r9_nothing_outlives_the_loss_of_its_source_not_even_a_fill_that_is_on_its_way() {
    let mut a = Armory::new();
    a.fill(b"k", b"old");
    let late = a.ticket(b"j").expect("issued");
    a.armed = None;
    assert_eq!(a.get(b"k"), Err(MissReason::NotArmed));
    assert_eq!(a.ticket(b"k").err(), Some(TicketRefused::NotArmed));
    a.armed = Some(a.coherence.arm(&a.source, Millis::NEVER));
    assert_eq!(a.get(b"k"), Err(MissReason::Stale));
    let refused = late.commit(&reply_of(GET, b"old")).err();
    assert_eq!(refused, Some(CommitRefused::SourceMoved));
}

#[test]
fn r10_a_silent_source_is_believed_only_until_its_lease_runs_out() {
    let a = Armory::new();
    let armed = a.coherence.arm(&a.source, T0 + 100);
    a.fill(b"k", b"v");
    let at = |ms| a.coherence.serve(&a.source, b"k", &GET, T0 + ms).map(|_| ()).map_err(|m| m.reason);
    assert_eq!(at(99), Ok(()));
    assert_eq!(at(100), Err(MissReason::Silent));
    assert!(matches!(a.coherence.ticket(&a.source, b"k", T0 + 100), Err(TicketRefused::Silent)));
    let mut near = Near::default();
    let mut near_at = |ms| near.serve(&a.coherence, &a.source, b"k", &GET, T0 + ms).map(|_| ()).map_err(|m| m.reason);
    assert_eq!(near_at(99), Ok(()));
    assert_eq!(near_at(100), Err(MissReason::Silent));
    // It was alive after all, and heard everything meanwhile.
    armed.heard(T0 + 300);
    armed.heard(T0 + 200);
    assert_eq!(at(299), Ok(()));
}

#[test]
fn r11_a_flush_takes_what_is_stored_and_what_is_on_its_way() {
    let a = Armory::new();
    a.fill(b"k", b"old");
    let before = a.ticket(b"j").expect("issued");
    let flush = a.coherence.flush_mark();
    assert_eq!(a.get(b"k"), Err(MissReason::FlushInFlight));
    assert_eq!(a.ticket(b"k").err(), Some(TicketRefused::FlushInFlight));
    let refused = before.commit(&reply_of(GET, b"old")).err();
    assert_eq!(refused, Some(CommitRefused::SourceMoved));
    drop(flush);
    assert!(a.get(b"k").is_err());
    a.fill(b"k", b"new");
    assert_eq!(a.get(b"k"), Ok(b"new".to_vec()));
}

#[test]
fn r11_the_null_push_takes_everything_in_every_scope_that_is_armed_and_arms_none() {
    let a = Armory::new();
    let timed = a.coherence.source(1, SourceKind::Ttl).expect("room");
    let unarmed = a.coherence.source(2, SourceKind::Tracked).expect("room");
    a.fill(b"k", b"old");
    let ticket = a.coherence.ticket(&timed, b"k", T0).expect("always armed");
    ticket.commit(&reply_of(GET, b"old")).expect("stored");
    a.coherence.everything(Cause::Push);
    for source in [&a.source, &timed, &unarmed] {
        assert!(a.coherence.serve(source, b"k", &GET, T0).is_err());
    }
    assert!(!unarmed.is_armed());
}

#[test]
fn r12_and_r13_a_value_is_not_served_at_or_after_its_deadline() {
    let a = Armory::new();
    let ticket = a.ticket(b"k").expect("issued");
    let new = NewView { deadline: T0 + 10, ..reply_of(GET, b"v") };
    ticket.commit(&new).expect("stored");
    let at = |ms| a.coherence.serve(&a.source, b"k", &GET, T0 + ms).map(|_| ()).map_err(|m| m.reason);
    assert_eq!(at(9), Ok(()));
    assert_eq!(at(10), Err(MissReason::Expired));
}

#[test]
fn r16_an_absent_key_is_remembered_under_its_cap_and_forgotten_when_it_is_written() {
    let a = Armory::new();
    let ticket = a.ticket(b"k").expect("issued");
    let nil = NewView { deadline: T0 + 5, resp2: Some(b"$-1\r\n"), ..reply_of(GET, b"_\r\n") };
    ticket.commit(&nil).expect("stored");
    assert_eq!(a.get(b"k"), Ok(b"_\r\n".to_vec()));
    a.coherence.invalidate_key(b"k", Cause::Push);
    assert_eq!(a.get(b"k"), Err(MissReason::NoEntry));
}

#[test]
fn r17_a_view_answers_no_other_question_and_one_push_takes_all_views_of_its_key() {
    let a = Armory::new();
    let questions = [
        GET,
        ViewKey { db: 5, ..GET },
        ViewKey { command: 2, ..GET },
        ViewKey { tail: b"$2\r\nf1\r\n", ..GET },
        ViewKey { tail: b"$2\r\nf2\r\n", ..GET },
    ];
    for (n, question) in questions.iter().enumerate() {
        let expected = if n == 0 { MissReason::NoEntry } else { MissReason::NoView };
        assert_eq!(a.ask(b"k", question), Err(expected));
        let ticket = a.ticket(b"k").expect("issued");
        ticket.commit(&reply_of(*question, n.to_string().as_bytes())).expect("stored");
    }
    for (n, question) in questions.iter().enumerate() {
        assert_eq!(a.ask(b"k", question), Ok(n.to_string().into_bytes()));
    }
    a.coherence.invalidate_key(b"k", Cause::Push);
    questions.iter().for_each(|question| assert_eq!(a.ask(b"k", question), Err(MissReason::NoEntry)));
}

#[test]
fn c5_no_identity_is_answered_from_what_another_read() {
    let a = Armory::new();
    a.fill(b"k", b"secret");
    let other = a.coherence.source(2, SourceKind::Tracked).expect("room");
    let _armed = a.coherence.arm(&other, Millis::NEVER);
    let answer = a.coherence.serve(&other, b"k", &GET, T0);
    assert_eq!(answer.map(|_| ()).map_err(|miss| miss.reason), Err(MissReason::NoView));
    let mut near = Near::default();
    assert!(near.serve(&a.coherence, &a.source, b"k", &GET, T0).is_ok());
    assert!(near.serve(&a.coherence, &other, b"k", &GET, T0).is_err());
}

#[test]
fn r18_answers_looked_up_around_a_write_do_not_make_a_snapshot() {
    let a = Armory::with_slots(1 << 16);
    let look_up = |key: &[u8]| a.coherence.serve(&a.source, key, &GET, T0).expect("stored").seen();
    a.fill(b"x", b"old");
    a.fill(b"y", b"old");
    let mut snapshot = Snapshot::default();
    snapshot.note(look_up(b"x"));
    snapshot.note(look_up(b"y"));
    assert!(snapshot.stands(&a.coherence, &a.source));
    let mut snapshot = Snapshot::default();
    snapshot.note(look_up(b"x"));
    drop(a.marks.write_mark([&b"x"[..], b"y"]));
    a.fill(b"x", b"new");
    a.fill(b"y", b"new");
    snapshot.note(look_up(b"y"));
    assert!(!snapshot.stands(&a.coherence, &a.source));
}

#[test]
fn r19_the_old_trackers_late_reply_and_late_end_do_not_touch_its_successor() {
    let a = Armory::new();
    let old = a.coherence.arm(&a.source, T0 + 1);
    let late = a.ticket(b"k").expect("issued");
    let new = a.coherence.arm(&a.source, T0 + 50);
    a.fill(b"k", b"new");
    assert_eq!(late.commit(&reply_of(GET, b"old")).err(), Some(CommitRefused::SourceMoved));
    old.heard(Millis::NEVER);
    drop(old);
    assert_eq!(a.get(b"k"), Ok(b"new".to_vec()));
    let later = a.coherence.serve(&a.source, b"k", &GET, T0 + 50);
    assert_eq!(later.map(|_| ()).map_err(|miss| miss.reason), Err(MissReason::Silent));
    drop(new);
    assert_eq!(a.get(b"k"), Err(MissReason::NotArmed));
}

#[test]
fn r23_a_write_whose_outcome_is_unknown_has_moved_the_epoch() {
    let a = Armory::new();
    let before = a.ticket(b"k").expect("issued");
    drop(a.marks.write_mark([&b"k"[..]]));
    assert_eq!(before.commit(&reply_of(GET, b"old")).err(), Some(CommitRefused::Moved));
}

#[test]
fn r24_a_key_whose_fills_are_never_served_costs_ever_more_reads_to_fill() {
    let a = Armory::new();
    let hash = a.coherence.hash(b"counter");
    assert!(a.coherence.admit(hash));
    a.fill(b"counter", b"1");
    a.coherence.invalidate_key(b"counter", Cause::Push);
    assert!(!a.coherence.admit(hash), "the fill was for nothing");
    assert!(a.coherence.admit(hash));
    a.fill(b"counter", b"2");
    assert!(a.get(b"counter").is_ok());
    a.coherence.invalidate_key(b"counter", Cause::Push);
    assert!(a.coherence.admit(hash), "the fill paid off");
}

#[test]
fn a_read_that_went_upstream_voids_the_fills_that_may_be_older_than_it() {
    let a = Armory::new();
    let miss = || a.coherence.serve(&a.source, b"k", &GET, T0).expect_err("nothing stored");
    // Begun and stored while the read was out.
    let watch = miss().watch;
    a.fill(b"k", b"older");
    a.coherence.read_answered(b"k", watch);
    assert_eq!(a.get(b"k"), Err(MissReason::NoEntry));
    // Open when the read was sent, stored after it was answered.
    let open = a.ticket(b"k").expect("issued");
    a.coherence.read_answered(b"k", miss().watch);
    assert_eq!(open.commit(&reply_of(GET, b"older")).err(), Some(CommitRefused::Moved));
    // Stored before the read was sent.
    a.fill(b"k", b"older");
    let watch = a.coherence.read_sent(b"k");
    a.coherence.read_answered(b"k", watch);
    assert_eq!(a.get(b"k"), Err(MissReason::NoEntry));
}

#[test]
fn replies_past_their_deadline_or_too_big_are_not_stored() {
    let mut bounds = limits(64);
    bounds.tier.entry_bytes_max = 1000;
    let coherence = Coherence::new(bounds);
    let source = coherence.source(1, SourceKind::Ttl).expect("room");
    let commit = |new: &NewView<'_>| {
        let ticket = coherence.ticket(&source, b"k", T0).expect("issued");
        ticket.commit(new).map(|_| ())
    };
    let late = NewView { deadline: T0, ..reply_of(GET, b"v") };
    assert_eq!(commit(&late), Err(CommitRefused::Expired));
    assert_eq!(commit(&reply_of(GET, &[0; 900])), Err(CommitRefused::TooBig));
    assert_eq!(commit(&reply_of(GET, &[0; 200])), Ok(()));
    let other = ViewKey { command: 2, ..GET };
    assert_eq!(commit(&reply_of(other, &[0; 500])), Ok(()), "alone it is not too big");
    let answer = coherence.serve(&source, b"k", &GET, T0).map(|_| ()).map_err(|miss| miss.reason);
    assert_eq!(answer, Err(MissReason::NoView), "it made room for the newer one");
}

#[test]
fn sources_are_interned_bounded_and_their_scopes_never_given_out_twice() {
    let coherence = Coherence::new(limits(64));
    let kept: Vec<_> = (0..8).map(|n| coherence.source(n, SourceKind::Tracked).expect("room")).collect();
    let again = coherence.source(3, SourceKind::Tracked).expect("known");
    assert_eq!(again.scope(), kept[3].scope());
    drop(again);
    assert!(coherence.source(8, SourceKind::Tracked).is_none());
    let scopes: Vec<_> = kept.iter().map(|source| source.scope()).collect();
    drop(kept);
    let next = coherence.source(8, SourceKind::Tracked).expect("the others are gone");
    assert!(!scopes.contains(&next.scope()));
}

#[test]
fn flights_are_bounded_in_number_and_in_joiners_and_all_end_together_when_the_tracker_is_lost() {
    let a = Armory::new();
    let mut flights = Flights::new(2, 2);
    let asked = |key| FlightKey { scope: a.source.scope(), key, question: GET };
    let ticket = a.ticket(b"k").expect("issued");
    let check = ticket.check();
    flights.begin(a.source.scope(), get_request(b"k"), check.clone(), 1).expect("room");
    flights.begin(a.source.scope(), get_request(b"l"), check.clone(), 2).expect("room");
    assert!(flights.begin(a.source.scope(), get_request(b"m"), check, 3).is_none());
    assert!(flights.join(&a.coherence, &asked(b"k"), 4).is_ok());
    assert_eq!(flights.join(&a.coherence, &asked(b"k"), 5), Err(5));
    assert_eq!(flights.take_all(), [1, 4, 2]);
}

#[test]
fn the_counts_of_all_workers_are_summed_even_of_those_that_ended() {
    let a = Armory::new();
    a.fill(b"k", b"v");
    let other = a.coherence.fork();
    other.invalidate_key(b"k", Cause::Push);
    let _ = other.serve(&a.source, b"k", &GET, T0);
    drop(other);
    let totals = a.coherence.totals();
    assert_eq!(totals.fills_committed, 1);
    assert_eq!(totals.invalidations[Cause::Push as usize], 1);
    assert_eq!(totals.dropped[Cause::Push as usize], 1);
    assert_eq!(totals.misses[MissReason::NoEntry as usize], 1);
    a.coherence.tidy();
    assert_eq!(a.coherence.size().entries, 0);
}

#[test]
fn what_a_near_table_serves_after_the_tier_evicted_it_is_voided_by_an_upstream_read_like_any_other() {
    // The slot moves after the entry was stored, for a neighbour, or it does not.
    for neighbour_moves in [false, true] {
        let a = Armory::with_slots(1);
        let mut near = Near::default();
        a.fill(b"k", b"older");
        if neighbour_moves {
            a.coherence.invalidate_key(b"j", Cause::Push);
        }
        let mut from_near = || near.serve(&a.coherence, &a.source, b"k", &GET, T0).is_ok();
        assert!(from_near());
        a.coherence.shared().tier.evict(a.coherence.hash(b"k"));
        assert!(from_near(), "an evicted entry is not wrong");
        let miss = a.coherence.serve(&a.source, b"k", &GET, T0).expect_err("evicted");
        a.coherence.read_answered(b"k", miss.watch);
        assert!(!from_near(), "older than what was read upstream");
    }
}

#[test]
fn without_tracking_a_newer_fill_is_not_hidden_by_an_older_one_in_a_near_table() {
    for evicted in [false, true] {
        let a = Armory::new();
        let timed = a.coherence.source(1, SourceKind::Ttl).expect("room");
        let fill = |value: &[u8]| {
            let ticket = a.coherence.ticket(&timed, b"k", T0).expect("always armed");
            ticket.commit(&reply_of(GET, value)).expect("stored");
        };
        let mut near = Near::default();
        let mut from_near = || {
            let (view, _) = near.serve(&a.coherence, &timed, b"k", &GET, T0).expect("a hit");
            view.resp3().to_vec()
        };
        fill(b"older");
        assert_eq!(from_near(), b"older");
        if evicted {
            a.coherence.shared().tier.evict(a.coherence.hash(b"k"));
        }
        fill(b"newer");
        assert_eq!(from_near(), b"newer");
    }
}
