//! Conversion of arbitrary bytes under every rule.
#![no_main]

use anteroom::resp::{Frame, NullAs, ReplySplitter, Resp2Rule, same_in_resp2, to_resp2};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut splitter = ReplySplitter::default();
    let is_frame = matches!(splitter.split(data), Ok(Some(Frame { len, .. })) if len == data.len());
    for null in [NullAs::Bulk, NullAs::Array] {
        for nested_null in [NullAs::Bulk, NullAs::Array] {
            for flatten_pairs in [false, true] {
                let rule = Resp2Rule {
                    null,
                    nested_null,
                    flatten_pairs,
                };
                let mut out = b"before".to_vec();
                let converted = to_resp2(data, rule, &mut out);
                assert!(out.starts_with(b"before"));
                assert!(converted.is_ok() || out.len() == 6);
                assert!(!converted.is_ok() || same_in_resp2(&out[6..]));
                if !flatten_pairs {
                    assert_eq!(converted.is_ok(), is_frame);
                }
            }
        }
    }
    same_in_resp2(data);
});
