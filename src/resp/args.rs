//! The arguments of one request, as ranges into the bytes they were scanned from.

/// Where one argument lies in the request's bytes: `start..end`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgRange {
    /// Offset of the argument's first byte.
    pub start: usize,
    /// Offset just past its last byte.
    pub end: usize,
}

/// A borrowed view of one request: its canonical RESP bytes and where its arguments lie in them.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    raw: &'a [u8],
    ranges: &'a [ArgRange],
}

impl<'a> Args<'a> {
    /// `ranges` index into `raw`, which holds the request as a RESP array of bulk strings.
    pub fn new(raw: &'a [u8], ranges: &'a [ArgRange]) -> Self {
        Self { raw, ranges }
    }

    /// How many arguments, the command name included.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is no argument at all (the scanner never yields such a request).
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The argument at `index` (0 is the command name), if there is one.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.ranges.get(index).map(|r| &self.raw[r.start..r.end])
    }

    /// Where in [`Args::raw`] the argument at `index` lies, if there is one.
    pub fn range(&self, index: usize) -> Option<ArgRange> {
        self.ranges.get(index).copied()
    }

    /// The command name as the client wrote it.
    pub fn name(&self) -> &'a [u8] {
        self.get(0).unwrap_or_default()
    }

    /// The arguments in order, the command name first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + use<'a> {
        let raw = self.raw;
        self.ranges.iter().map(move |r| &raw[r.start..r.end])
    }

    /// The whole request as canonical RESP, ready to be forwarded.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The canonical bytes that follow the last byte of the argument at `index`: its own closing CRLF first, then every
    /// later argument with its header. Empty if there is no such argument.
    pub fn raw_after(&self, index: usize) -> &'a [u8] {
        self.ranges.get(index).map_or(&[], |r| &self.raw[r.end..])
    }
}
