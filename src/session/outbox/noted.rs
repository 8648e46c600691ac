//! What is noted of requests in flight, so that there is something to show of one whose reply is late: its first bytes, for the slow
//! log; and which were sampled, for hot keys.
//!
//! The bytes stand one behind the other in the order of the requests. How many are whose stands in the reply slots.

use crate::observe::{Observer, SampleId};

/// Bytes of requests that have been answered, at most, before they are dropped: in steps that keep the copying linear.
pub(super) const GONE_MAX_BYTES: usize = 16 * 1024;

/// See the head of this file.
#[derive(Default)]
pub(super) struct Noted {
    heads: Vec<u8>,
    /// So many of them are of requests that have been answered.
    gone: usize,
    /// Requests at these places were sampled. Rarely any.
    samples: Vec<(u64, SampleId)>,
}

impl Noted {
    /// The first bytes of the latest request, which has this place.
    pub(super) fn add(&mut self, place: u64, head: &[u8], sample: Option<SampleId>) {
        self.heads.extend_from_slice(head);
        self.samples.extend(sample.map(|sample| (place, sample)));
    }

    /// The first bytes of a request, of which there are so many, behind so many of those before it.
    pub(super) fn head(&self, before: usize, len: usize) -> &[u8] {
        let start = self.gone + before;
        self.heads.get(start..start + len).unwrap_or_default()
    }

    /// The first request has been answered; so many bytes were its.
    #[inline]
    pub(super) fn first_is_gone(&mut self, head: usize) {
        self.gone += head;
        if self.gone == self.heads.len() {
            self.gone = 0;
            self.heads.clear();
        } else if self.gone >= GONE_MAX_BYTES {
            self.heads.drain(..self.gone);
            self.gone = 0;
        }
    }

    /// The reply at this place is there, in so many bytes.
    #[inline]
    pub(super) fn replied(&mut self, place: u64, bytes: usize, observer: &Observer) {
        if !self.samples.is_empty() {
            self.samples.retain(|&(of, sample)| {
                if of == place {
                    observer.replied(sample, bytes);
                }
                of != place
            });
        }
    }

    /// Bytes of memory it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.heads.capacity() + self.samples.capacity() * size_of::<(u64, SampleId)>()
    }

    /// Bytes of requests that it holds.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.heads.len()
    }
}
