use super::*;

fn written(outbox: &Outbox) -> Vec<u8> {
    let bytes = outbox.with_unwritten(<[u8]>::to_vec);
    outbox.written(bytes.len());
    bytes
}

#[test]
fn replies_leave_in_order_whatever_completes_first() {
    let outbox = Outbox::default();
    let first = outbox.reserve(false);
    let second = outbox.reserve(false);
    outbox.reply(|out| out.extend_from_slice(b"+three\r\n"));
    outbox.complete(second, b"+two\r\n");
    assert_eq!(written(&outbox), b"");
    outbox.complete(first, b"+one\r\n");
    assert_eq!(written(&outbox), b"+one\r\n+two\r\n+three\r\n");
    assert_eq!((outbox.pending(), outbox.held_bytes()), (0, 0));
}

#[test]
fn a_muted_reply_keeps_its_place_and_is_dropped() {
    let outbox = Outbox::default();
    let muted = outbox.reserve(true);
    let heard = outbox.reserve(false);
    outbox.complete(heard, b"+heard\r\n");
    outbox.complete(muted, b"+muted\r\n");
    assert_eq!(written(&outbox), b"+heard\r\n");
}

#[test]
fn a_push_goes_before_the_reply_that_is_still_awaited() {
    let outbox = Outbox::default();
    let waiting = outbox.reserve(false);
    outbox.push(b">1\r\n+x\r\n");
    outbox.complete(waiting, b"+reply\r\n");
    assert_eq!(written(&outbox), b">1\r\n+x\r\n+reply\r\n");
}

#[test]
fn what_is_pushed_behind_a_reply_is_written_right_after_it() {
    let outbox = Outbox::default();
    let (first, second, third) = (outbox.reserve(false), outbox.reserve(true), outbox.reserve(false));
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
    let outbox = Outbox::default();
    let (first, second) = (outbox.reserve(false), outbox.reserve(false));
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
    let outbox = Outbox::default();
    let waiting = outbox.reserve(false);
    outbox.close();
    outbox.complete(waiting, b"+late\r\n");
    assert_eq!((written(&outbox), outbox.held_bytes()), (Vec::new(), 0));
}
