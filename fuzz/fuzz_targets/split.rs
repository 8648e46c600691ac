//! The reply splitter, whole and cut; and every frame it finds, converted.
#![no_main]

use anteroom::resp::{Frame, FrameError, ReplySplitter, Resp2Rule, same_in_resp2, to_resp2};
use libfuzzer_sys::fuzz_target;

mod pieces;

fn fed(
    stream: &[u8],
    ends: impl Iterator<Item = usize>,
) -> (Vec<Frame>, Result<usize, FrameError>) {
    let mut splitter = ReplySplitter::default();
    let mut frames = Vec::new();
    let mut start = 0;
    for end in ends {
        loop {
            match splitter.split(&stream[start..end]) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    assert!(frame.len > 0 && splitter.is_idle());
                    start += frame.len;
                    frames.push(frame);
                }
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(stream.len() - start))
}

fuzz_target!(|data: &[u8]| {
    let Some((&seed, stream)) = data.split_first() else {
        return;
    };
    let whole = fed(stream, [stream.len()].into_iter());
    assert_eq!(fed(stream, pieces::ends(seed, stream.len())), whole);
    let mut rest = stream;
    for frame in whole.0 {
        let (bytes, after) = rest.split_at(frame.len);
        rest = after;
        let mut converted = Vec::new();
        to_resp2(bytes, Resp2Rule::default(), &mut converted).unwrap();
        assert_eq!(same_in_resp2(bytes), bytes == converted);
        assert!(same_in_resp2(&converted));
        let again = ReplySplitter::default().split(&converted).unwrap().unwrap();
        assert_eq!(again.len, converted.len());
    }
});
