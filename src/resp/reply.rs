//! Finds where the next frame of an upstream's reply stream ends, without understanding it. RESP2 and RESP3.
//!
//! Owns the position within one unfinished frame, which is a few words: nesting is a count of outstanding elements and
//! not a stack, so a reply of any depth costs nothing. Does not own the bytes, and does not know whom a frame is for.
//!
//! Invariants: a bulk string's bytes are skipped unseen, every other byte is looked at a constant number of times; any
//! doubt is an error, and what is found depends on the bytes only, never on where they were cut.

use super::element::{FrameError, element, more};

#[cfg(test)]
pub(super) mod tests;

/// The type of a frame, from its first byte. RESP2's null bulk string is a `Bulk`, its null array an `Array`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// `+`
    Simple,
    /// `-`
    Error,
    /// `:`
    Integer,
    /// `$`
    Bulk,
    /// `*`
    Array,
    /// `_`
    Null,
    /// `#`
    Boolean,
    /// `,`
    Double,
    /// `(`
    BigNumber,
    /// `!`
    BlobError,
    /// `=`
    Verbatim,
    /// `%`
    Map,
    /// `~`
    Set,
    /// `>`: not a reply to anything.
    Push,
}

impl FrameKind {
    fn of(mark: u8) -> Self {
        match mark {
            b'+' => Self::Simple,
            b'-' => Self::Error,
            b':' => Self::Integer,
            b'$' => Self::Bulk,
            b'*' => Self::Array,
            b'_' => Self::Null,
            b'#' => Self::Boolean,
            b',' => Self::Double,
            b'(' => Self::BigNumber,
            b'!' => Self::BlobError,
            b'=' => Self::Verbatim,
            b'%' => Self::Map,
            b'~' => Self::Set,
            // `element` has refused every other byte.
            _ => Self::Push,
        }
    }

    /// Whether the frame is an error, of either kind.
    pub fn is_error(self) -> bool {
        matches!(self, Self::Error | Self::BlobError)
    }
}

/// One complete frame at the beginning of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its length in bytes, an attribute before it included.
    pub len: usize,
    /// Its type; of an attributed frame, that of the frame and not `|`.
    pub kind: FrameKind,
}

/// The resumable splitter of one upstream connection's replies.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplySplitter {
    /// Elements still to come, the next one included; 0 between frames.
    outstanding: u64,
    /// Offset of the element being read.
    at: usize,
    /// Offset up to which the end of its line has been looked for.
    searched: usize,
    /// Known once an attribute before the frame, if any, is behind us.
    kind: Option<FrameKind>,
    /// Pushes may stand inside a frame.
    nested_pushes: bool,
}

impl ReplySplitter {
    /// For a connection whose client hears its own messages: Redis 7.0 puts what a subscriber in RESP3 publishes from inside EXEC
    /// between the elements of EXEC's reply. It belongs to the frame and counts as none of its elements.
    pub fn with_nested_pushes() -> Self {
        Self { nested_pushes: true, ..Self::default() }
    }

    /// Looks for one frame at the beginning of `buf`.
    ///
    /// After `None` the next call must bring the same bytes and more: the scan goes on where it stopped. After a frame
    /// it must bring what follows it. After an error the connection is to be closed.
    ///
    /// # Errors
    /// [`FrameError`] if the bytes are no RESP: nothing behind this point can be trusted to belong to anyone.
    #[inline]
    pub fn split(&mut self, buf: &[u8]) -> Result<Option<Frame>, FrameError> {
        if self.outstanding == 0 {
            self.outstanding = 1;
            // Nearly all frames are one element that is there whole: nothing has to be noted of them.
            match element(buf, 0, &mut self.searched)? {
                None => return Ok(None),
                Some(only) if only.children == 0 && only.mark != b'|' => {
                    self.outstanding = 0;
                    return Ok(Some(Frame { len: only.next, kind: FrameKind::of(only.mark) }));
                }
                Some(_) => {}
            }
        }
        self.split_on(buf)
    }

    fn split_on(&mut self, buf: &[u8]) -> Result<Option<Frame>, FrameError> {
        while self.outstanding > 0 {
            let Some(element) = element(buf, self.at, &mut self.searched)? else {
                return Ok(None);
            };
            if element.mark == b'|' {
                // An attribute stands before the element it describes and does not count as one.
                self.outstanding = more(self.outstanding, element.children)?;
            } else if element.mark == b'>' && self.nested_pushes && self.kind.is_some() {
                self.outstanding = more(self.outstanding, element.children)?;
            } else {
                if self.kind.is_none() && self.outstanding == 1 {
                    self.kind = Some(FrameKind::of(element.mark));
                } else if element.mark == b'>' {
                    return Err(FrameError::NestedPush);
                }
                self.outstanding = more(self.outstanding - 1, element.children)?;
            }
            self.at = element.next;
        }
        let frame = self.kind.map(|kind| Frame { len: self.at, kind });
        *self = Self { nested_pushes: self.nested_pushes, ..Self::default() };
        Ok(frame)
    }

    /// Whether the splitter stands between two frames; if not, a connection that ends has cut a reply short.
    pub fn is_idle(&self) -> bool {
        self.outstanding == 0
    }
}
