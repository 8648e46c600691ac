//! The request scanner against the port of Redis's C that its tests use, whole and cut.
#![no_main]

use anteroom::resp::{ProtocolError, RequestLimits, RequestScanner, Scanned, encode};
use libfuzzer_sys::fuzz_target;

mod pieces;
#[path = "../../src/resp/request/tests/reference.rs"]
mod reference;

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    requests: Vec<Vec<Vec<u8>>>,
    end: Result<usize, ProtocolError>,
}

fn fed(stream: &[u8], ends: impl Iterator<Item = usize>, limits: &RequestLimits) -> Outcome {
    let mut scanner = RequestScanner::default();
    let mut requests = Vec::new();
    let mut start = 0;
    for end in ends {
        loop {
            let buf = &stream[start..end];
            match scanner.scan(buf, limits) {
                Ok(Scanned::Partial) => break,
                Ok(Scanned::Skipped { len }) => start += len,
                Ok(Scanned::Request { len }) => {
                    let args = scanner.args(buf);
                    let words: Vec<&[u8]> = args.iter().collect();
                    let mut canonical = Vec::new();
                    encode::command(&mut canonical, &words);
                    assert_eq!(args.raw(), canonical);
                    requests.push(words.iter().map(|word| word.to_vec()).collect());
                    start += len;
                }
                Err(error) => {
                    return Outcome {
                        requests,
                        end: Err(error),
                    };
                }
            }
        }
    }
    let end = Ok(stream.len() - start);
    Outcome { requests, end }
}

fuzz_target!(|data: &[u8]| {
    let Some((&seed, stream)) = data.split_first() else {
        return;
    };
    let authenticated = seed % 2 == 0;
    let limits = if authenticated {
        RequestLimits::AUTHENTICATED
    } else {
        RequestLimits::UNAUTHENTICATED
    };
    let expected = reference::run(stream, authenticated);
    assert_eq!(fed(stream, [stream.len()].into_iter(), &limits), expected);
    assert_eq!(
        fed(stream, pieces::ends(seed, stream.len()), &limits),
        expected
    );
});
