//! Building requests for this module's unit tests.

use crate::resp::{ArgRange, Args};

/// A request that owns its bytes.
pub(super) struct Request {
    raw: Vec<u8>,
    ranges: Vec<ArgRange>,
}

impl Request {
    /// The words of `line`, split at blanks; `""` is the empty argument.
    pub(super) fn new(line: &str) -> Self {
        let mut raw = Vec::new();
        let mut ranges = Vec::new();
        for word in line.split(' ') {
            let start = raw.len();
            raw.extend_from_slice(if word == "\"\"" { b"" } else { word.as_bytes() });
            ranges.push(ArgRange { start, end: raw.len() });
        }
        Self { raw, ranges }
    }

    pub(super) fn args(&self) -> Args<'_> {
        Args::new(&self.raw, &self.ranges)
    }
}
