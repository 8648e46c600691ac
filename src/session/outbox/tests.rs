use super::*;
use crate::cache::Millis;
use crate::observe::{Figures, SlowLog, Timings};
use crate::server::clients::Clients;

pub(in crate::session) fn outbox() -> Outbox {
    watched(&Arc::default(), &Arc::new(SlowLog::new(-1, 0))).1
}

pub(in crate::session) fn asked_to_end(outbox: &Outbox) -> Option<End> {
    outbox.client.asked_to_end()
}

fn noted_bytes(outbox: &Outbox) -> usize {
    outbox.inner.borrow().noted.as_ref().map_or(0, |noted| noted.held_bytes())
}

/// Its observer, too.
fn watched(figures: &Arc<Figures>, slow: &Arc<SlowLog>) -> (Rc<Observer>, Outbox) {
    let observer = Rc::new(Observer::new(figures.clone(), slow.clone(), true, 4));
    let nobody = ([127, 0, 0, 1], 1).into();
    let client = Clients::default().add(nobody, nobody, Millis(0));
    (observer.clone(), Outbox::new(observer, client))
}

fn written(outbox: &Outbox) -> Vec<u8> {
    let bytes = outbox.with_unwritten(<[u8]>::to_vec);
    outbox.written(bytes.len());
    bytes
}

#[test]
fn replies_leave_in_order_whatever_completes_first() {
    let outbox = outbox();
    let first = outbox.reserve(false, Timing::NONE);
    let second = outbox.reserve(false, Timing::NONE);
    outbox.reply(|out| out.extend_from_slice(b"+three\r\n"));
    outbox.complete(second, b"+two\r\n");
    assert_eq!(written(&outbox), b"");
    outbox.complete(first, b"+one\r\n");
    assert_eq!(written(&outbox), b"+one\r\n+two\r\n+three\r\n");
    assert_eq!((outbox.pending(), outbox.held_bytes()), (0, 0));
}

#[test]
fn a_muted_reply_keeps_its_place_and_is_dropped() {
    let outbox = outbox();
    let muted = outbox.reserve(true, Timing::NONE);
    let heard = outbox.reserve(false, Timing::NONE);
    outbox.complete(heard, b"+heard\r\n");
    outbox.complete(muted, b"+muted\r\n");
    assert_eq!(written(&outbox), b"+heard\r\n");
}

#[test]
fn a_push_goes_before_the_reply_that_is_still_awaited() {
    let outbox = outbox();
    let waiting = outbox.reserve(false, Timing::NONE);
    outbox.push(b">1\r\n+x\r\n");
    outbox.complete(waiting, b"+reply\r\n");
    assert_eq!(written(&outbox), b">1\r\n+x\r\n+reply\r\n");
}

#[test]
fn what_is_pushed_behind_a_reply_is_written_right_after_it() {
    let outbox = outbox();
    let (first, second, third) =
        (outbox.reserve(false, Timing::NONE), outbox.reserve(true, Timing::NONE), outbox.reserve(false, Timing::NONE));
    outbox.push_behind(second, b">b\r\n");
    outbox.push_behind(first, b">a\r\n");
    outbox.push_behind(second, b">c\r\n");
    outbox.complete(second, b"+muted\r\n");
    outbox.complete(third, b"+three\r\n");
    assert_eq!(written(&outbox), b"");
    outbox.complete(first, b"+one\r\n");
    outbox.push_behind(first, b">d\r\n");
    assert_eq!(written(&outbox), b"+one\r\n>a\r\n>b\r\n>c\r\n+three\r\n>d\r\n");
    assert_eq!(outbox.held_bytes(), 0);
}

#[test]
fn the_largest_reply_does_not_count_as_piled_up_until_nothing_is_held_any_more() {
    let outbox = outbox();
    let (first, second) = (outbox.reserve(false, Timing::NONE), outbox.reserve(false, Timing::NONE));
    outbox.complete(second, &[b'x'; 1000]);
    outbox.complete(first, &[b'x'; 10]);
    outbox.push(&[b'x'; 5]);
    assert_eq!((outbox.held_bytes(), outbox.piled_bytes()), (1015, 15));
    written(&outbox);
    outbox.push(&[b'x'; 5]);
    outbox.push(&[b'x'; 7]);
    assert_eq!(outbox.piled_bytes(), 5);
}

#[test]
fn what_comes_for_a_closed_client_is_dropped() {
    let outbox = outbox();
    let waiting = outbox.reserve(false, Timing::NONE);
    outbox.close();
    outbox.complete(waiting, b"+late\r\n");
    assert_eq!((written(&outbox), outbox.held_bytes()), (Vec::new(), 0));
}

/// The first reply comes last: the second is there after 3 ms, and in its place after 9.
#[test]
fn both_sides_of_a_reply_are_timed_apart() {
    let (figures, slow) = (Arc::default(), Arc::new(SlowLog::new(-1, 0)));
    let (observer, outbox) = watched(&figures, &slow);
    let asked = |command| Timing { asked_us: 1000, sent_us: 2000, command };
    let (first, second) = (outbox.reserve(false, asked(1)), outbox.reserve(false, asked(2)));
    observer.looked(4_000_000);
    outbox.complete(second, b"+two\r\n");
    observer.looked(10_000_000);
    outbox.complete(first, b"+one\r\n");
    // The next look enters what has come since the last.
    observer.looked(10_000_000);
    let sum_us = |histogram| {
        let mut timings = Timings::default();
        timings.add(histogram);
        (timings.count(), timings.sum_us)
    };
    let (one, two) = (figures.commands.get(1), figures.commands.get(2));
    assert_eq!((sum_us(&one.upstream_side), sum_us(&one.client_side)), ((1, 8000), (1, 9000)));
    assert_eq!((sum_us(&two.upstream_side), sum_us(&two.client_side)), ((1, 2000), (1, 9000)));
}

#[test]
fn the_slow_log_shows_the_request_whose_reply_was_late_and_not_its_neighbours() {
    let (figures, slow) = (Arc::default(), Arc::new(SlowLog::new(5000, 10)));
    let (observer, outbox) = watched(&figures, &slow);
    let timing = Timing { asked_us: 0, sent_us: 1000, command: 1 };
    let ask = |text: &str| {
        let seq = outbox.reserve(false, timing);
        outbox.describe(format!("*1\r\n${}\r\n{text}\r\n", text.len()).as_bytes(), None);
        seq
    };
    let places = ["zero", "one", "two", "three"].map(ask);
    outbox.complete(places[0], b"+\r\n");
    outbox.complete(places[2], b"+\r\n");
    observer.looked(7_000_000);
    outbox.complete(places[1], b"+\r\n");
    outbox.complete(places[3], b"+\r\n");
    let shown: Vec<_> = slow.latest(10).into_iter().map(|e| (e.total_us, e.upstream_us, e.args[0].to_vec())).collect();
    assert_eq!(shown, [(7000, 6000, b"three".to_vec()), (7000, 6000, b"one".to_vec())]);
    assert_eq!(noted_bytes(&outbox), 0);
}

#[test]
fn what_is_kept_of_requests_in_flight_does_not_pile_up() {
    let (figures, slow) = (Arc::default(), Arc::new(SlowLog::new(5000, 10)));
    let (_, outbox) = watched(&figures, &slow);
    let mut waiting = VecDeque::new();
    for _ in 0..10_000 {
        let seq = outbox.reserve(false, Timing::NONE);
        outbox.describe(&[b'x'; 64], None);
        waiting.push_back(seq);
        if waiting.len() > 10 {
            outbox.complete(waiting.pop_front().expect("there are ten"), b"+\r\n");
        }
    }
    assert!(noted_bytes(&outbox) < 2 * noted::GONE_MAX_BYTES);
}

#[test]
fn a_panic_over_one_client_ends_that_one() {
    let (one, two) = (outbox(), outbox());
    one.contain(|| panic!("over one of them"));
    two.contain(|| ());
    assert_eq!((asked_to_end(&one), asked_to_end(&two)), (Some(End::Fault), None));
}
