//! The near table by itself: what it makes room for, and what it lets go.

use std::cell::RefCell;
use std::time::Duration;

use super::super::near::Near;
use super::*;

fn keys(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("key:{n}").into_bytes()).collect()
}

fn ask_all(a: &Armory, near: &mut Near, keys: &[Vec<u8>], times: usize) {
    for _ in 0..times {
        for key in keys {
            let (view, _) = near.serve(&a.coherence, &a.source, key, &GET, T0).expect("a hit");
            assert_eq!(view.resp3(), key.as_slice(), "the key's own value");
        }
    }
}

#[test]
fn a_table_grows_to_hold_what_is_read_again_and_again() {
    let a = Armory::with_slots(1 << 16);
    let keys = keys(20_000);
    keys.iter().for_each(|key| a.fill(key, key));
    a.coherence.tidy();
    let mut near = Near::default();
    let at_first = near.places();
    ask_all(&a, &mut near, &keys[..500], 200);
    assert_eq!((near.held().0 > 490, near.places()), (true, at_first), "no larger than it need be");
    ask_all(&a, &mut near, &keys, 40);
    let (held, places) = (near.held().0, near.places());
    assert!(held > 19_000 && places < 82_000, "{held} of {} in {places} places", keys.len());
}

#[test]
fn a_table_does_not_grow_beyond_what_the_entries_of_the_tier_can_use() {
    let a = Armory::with_slots(1 << 16);
    let keys = keys(100);
    // Too big to be kept near: the tier answers each time.
    let big = vec![b'x'; 3_000];
    keys.iter().for_each(|key| a.fill(key, &big));
    a.coherence.tidy();
    let mut near = Near::default();
    let at_first = near.places();
    for key in (0..300).flat_map(|_| &keys) {
        assert!(near.serve(&a.coherence, &a.source, key, &GET, T0).is_ok());
    }
    assert_eq!((near.held().0, near.places()), (0, at_first));
}

#[test]
fn what_was_invalidated_is_let_go_when_it_is_next_asked_for() {
    let a = Armory::with_slots(8);
    let keys = keys(500);
    keys.iter().for_each(|key| a.fill(key, key));
    let mut near = Near::default();
    ask_all(&a, &mut near, &keys, 20);
    let (before, _) = near.held();
    for key in &keys {
        a.coherence.invalidate_key(key, Cause::Push);
        assert!(near.serve(&a.coherence, &a.source, key, &GET, T0).is_err());
    }
    // The last of each slot is left to the sweep: a vacant slot is not looked into.
    let (left, _) = near.held();
    assert!(before > 400 && left <= 8, "{left} of {before}");
}

#[test]
fn a_slot_is_vacant_once_all_that_was_stored_in_it_has_been_dropped() {
    let a = Armory::with_slots(1);
    let is_vacant = || a.coherence.shared().epochs.slot(0).is_vacant();
    let drop_it = |key| a.coherence.invalidate_key(key, Cause::Push);
    assert!(is_vacant());
    a.fill(b"j", b"1");
    a.fill(b"k", b"1");
    a.fill(b"k", b"2");
    drop_it(b"k");
    assert!(!is_vacant(), "j is there");
    drop_it(b"k");
    assert!(!is_vacant(), "it was not there twice");
    drop_it(b"j");
    assert!(is_vacant());
    a.fill(b"k", b"3");
    assert!(a.coherence.serve(&a.source, b"k", &GET, T0).is_ok(), "and is not for ever");
    // What has been evicted may be served by a near table yet.
    a.coherence.shared().tier.evict(a.coherence.hash(b"k"));
    drop_it(b"k");
    assert!(!is_vacant());
}

#[test]
fn what_a_table_takes_is_bounded_in_bytes_and_the_bound_does_not_keep_newcomers_out() {
    let a = Armory::with_slots(1 << 16);
    let keys = keys(8_000);
    let (old, new) = keys.split_at(4_000);
    let big = vec![b'x'; 1_500];
    keys.iter().for_each(|key| a.fill(key, &big));
    // Room for about 1,200 of these.
    let tier = TierLimits { bytes_max: 32 << 20, ..TierLimits::default() };
    let mut near = Near::new(&tier, 4);
    let mut read = |keys: &[Vec<u8>], times: usize| {
        for key in (0..times).flat_map(|_| keys) {
            assert!(near.serve(&a.coherence, &a.source, key, &GET, T0).is_ok());
        }
        let (held, bytes) = near.held();
        assert!(bytes <= 2 << 20 && bytes > 3 << 19, "{held} entries of {bytes} bytes");
        near.of(keys)
    };
    assert!(read(old, 40) > 1_000);
    assert!(read(new, 200) > 1_000);
}

#[test]
fn what_the_tier_has_evicted_meanwhile_is_not_given_a_place() {
    let a = Armory::with_slots(1);
    a.fill(b"k", b"v");
    a.coherence.invalidate_key(b"neighbour", Cause::Push);
    let hit = a.coherence.serve(&a.source, b"k", &GET, T0).expect("stored");
    // A reader that looks now sees neither the key nor, in the slot, that it may still be served.
    let hash = a.coherence.hash(b"k");
    a.coherence.shared().tier.evict(hash);
    assert!(!a.coherence.may_keep(hash, hit.seen()));
}

/// What a table of 500 entries holds so long after this has been done, while nobody asks.
async fn held_after(wait_ms: u64, done: impl FnOnce(&Armory, &[Vec<u8>])) -> (usize, usize) {
    let a = Armory::with_slots(1 << 16);
    let keys = keys(500);
    keys.iter().for_each(|key| a.fill(key, key));
    a.coherence.tidy();
    let near = RefCell::new(Near::default());
    ask_all(&a, &mut near.borrow_mut(), &keys, 20);
    assert!(near.borrow().held().0 > 400);
    let worker = async {
        tokio::task::yield_now().await;
        done(&a, &keys);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    };
    tokio::select! {
        () = Near::keep_tidy(&near, &a.coherence) => unreachable!("it ends when aborted"),
        () = worker => near.borrow().held(),
    }
}

#[tokio::test]
async fn what_was_shed_flushed_or_invalidated_is_not_pinned_here_either_though_nobody_asks() {
    assert_eq!(held_after(100, |a, _| assert!(a.coherence.shed(u64::MAX) > 400)).await, (0, 0));
    assert_eq!(held_after(100, |a, _| a.coherence.everything(Cause::Push)).await, (0, 0));
    let invalidate = |a: &Armory, keys: &[Vec<u8>]| {
        keys[100..].iter().for_each(|key| a.coherence.invalidate_key(key, Cause::Push));
    };
    let (left, _) = held_after(3000, invalidate).await;
    assert!((80..=100).contains(&left), "what may be served stays: {left}");
}
