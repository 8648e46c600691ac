//! CL.THROTTLE, redis-cell's command: what it becomes when the upstream does not have that module.
//!
//! A script that does the same, atomically, with the same key in the same form, so that any number of proxies and even the module
//! may share it. It is run as the client's own command: whether the client may write the key, and run scripts, is for
//! Redis to say. Short and without a loop, it may go down the shared lane.
//!
//! Source: redis-cell-impl/src/lib.rs and redis-cell/src/lib.rs of redis-cell 0.4.

use crate::resp::{ArgRange, Args, encode};

const SCRIPT: &str = include_str!("throttle.lua");

/// The request that the upstream is sent in its place, and where its arguments are.
pub fn as_script(args: &Args<'_>) -> (Vec<u8>, Vec<ArgRange>) {
    let keys: &[u8] = if args.len() > 1 { b"1" } else { b"0" };
    let words = [b"EVAL", SCRIPT.trim_end().as_bytes(), keys].into_iter().chain(args.iter().skip(1));
    let (mut request, mut ranges) = (Vec::with_capacity(SCRIPT.len() + args.raw().len() + 64), Vec::new());
    encode::array_header(&mut request, args.len() + 2);
    for word in words {
        encode::bulk(&mut request, word);
        let end = request.len() - 2;
        ranges.push(ArgRange { start: end - word.len(), end });
    }
    (request, ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{RequestLimits, RequestScanner, Scanned};

    #[test]
    fn it_is_a_script_with_the_same_key_and_arguments() {
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &[b"CL.THROTTLE", b"k", b"15", b"30", b"60"]);
        let mut scanner = RequestScanner::default();
        assert!(matches!(scanner.scan(&bytes, &RequestLimits::AUTHENTICATED), Ok(Scanned::Request { .. })));
        let (request, ranges) = as_script(&scanner.args(&bytes));
        let words: Vec<&[u8]> = Args::new(&request, &ranges).iter().collect();
        assert_eq!((words[0], words[2..].to_vec()), (&b"EVAL"[..], vec![&b"1"[..], b"k", b"15", b"30", b"60"]));
        let mut again = RequestScanner::default();
        let scanned = again.scan(&request, &RequestLimits::AUTHENTICATED);
        assert_eq!(scanned, Ok(Scanned::Request { len: request.len() }));
    }
}
