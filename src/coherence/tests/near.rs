//! The near table by itself: what it makes room for, and what it lets go.

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
    let keys = keys(10_000);
    keys.iter().for_each(|key| a.fill(key, key));
    let mut near = Near::default();
    ask_all(&a, &mut near, &keys[..100], 200);
    assert!(near.held().0 > 90);
    ask_all(&a, &mut near, &keys, 40);
    let (places, _) = near.held();
    assert!(places > 8_000, "{places} of {}", keys.len());
}

#[test]
fn what_was_invalidated_is_let_go_when_it_is_next_asked_for() {
    let a = Armory::with_slots(1 << 16);
    let keys = keys(500);
    keys.iter().for_each(|key| a.fill(key, key));
    let mut near = Near::default();
    ask_all(&a, &mut near, &keys, 20);
    let (before, _) = near.held();
    for key in &keys {
        a.coherence.invalidate_key(key, Cause::Push);
        assert!(near.serve(&a.coherence, &a.source, key, &GET, T0).is_err());
    }
    assert_eq!((before > 400, near.held()), (true, (0, 0)));
}

#[test]
fn what_a_table_pins_is_bounded_in_bytes() {
    let a = Armory::with_slots(1 << 16);
    let keys = keys(8_000);
    let big = vec![b'x'; 1_500];
    keys.iter().for_each(|key| a.fill(key, &big));
    let mut near = Near::default();
    for _ in 0..40 {
        for key in &keys {
            assert!(near.serve(&a.coherence, &a.source, key, &GET, T0).is_ok());
        }
    }
    let (places, bytes) = near.held();
    assert!(bytes <= 8 << 20 && bytes > 7 << 20, "{places} places pin {bytes} bytes");
}
