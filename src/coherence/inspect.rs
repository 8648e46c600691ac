//! Looking at what is kept, and at what would be answered or filled, without changing it: for the console.
//!
//! Nothing is counted, filled, noted as served or dropped here. (moka itself hears of the look at one entry, as of any read.)

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::matching::Pace;
use super::{Coherence, MissReason, Source, SourceKind, TicketRefused};
use crate::cache::{Entry, Millis, Popularity, View, tier_weight};

/// How a view that is kept stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whose it is, by [`Source::identity`], and what vouches for it. `None`: the identity is gone.
    pub source: Option<(u32, SourceKind)>,
    /// Whether it would be served now to whoever asks its question, or why not.
    pub servable: Result<(), MissReason>,
}

impl Coherence {
    /// What is kept of this key, in every scope and db.
    pub fn entry(&self, key: &[u8]) -> Option<Entry> {
        self.shared().tier.get(key, self.hash(key))
    }

    /// Shows every entry of which something may still be served, until told to stop. Walks the whole tier, resting now and then so that nobody waits for it: for a thread that
    /// has nothing else to do. What comes or goes meanwhile may be shown or not.
    pub fn each_entry(&self, mut show: impl FnMut(&Entry) -> ControlFlow<()>) {
        // What was flushed, or kept under an earlier arming, goes on taking room until moka has freed it.
        let mut stamps = HashMap::new();
        self.shared().sources.each(|source| {
            stamps.insert(source.scope(), source.stamp());
        });
        let is_alive = |view: &View| stamps.get(&view.scope()).is_some_and(|stamp| *stamp == view.stamp());
        let mut pace = Pace::begun();
        for (at, entry) in self.shared().tier.iter().enumerate() {
            pace.step(at);
            if entry.views().iter().any(is_alive) && show(&entry).is_break() {
                return;
            }
        }
    }

    /// The memory an entry takes, in bytes.
    pub fn entry_bytes(&self, entry: &Entry) -> usize {
        tier_weight(entry)
    }

    /// How a view stands now.
    pub fn standing(&self, view: &View, now: Millis) -> Standing {
        let mut of = None;
        self.shared().sources.each(|source| {
            if source.scope() == view.scope() {
                of = Some(source);
            }
        });
        let Some(source) = of else { return Standing { source: None, servable: Err(MissReason::Stale) } };
        let servable = match source.stamp() {
            0 => Err(MissReason::NotArmed),
            _ if source.is_silent(now) => Err(MissReason::Silent),
            stamp if stamp != view.stamp() => Err(MissReason::Stale),
            _ if now >= view.deadline() => Err(MissReason::Expired),
            _ => Ok(()),
        };
        Standing { source: Some((source.identity(), source.kind())), servable }
    }

    /// How often this key was read, and has to be read, until it is filled.
    pub fn popularity(&self, key: &[u8]) -> Popularity {
        self.shared().admission.popularity(self.hash(key))
    }

    /// Whether a ticket for this key would be issued now.
    pub fn would_issue(&self, source: &Source, key: &[u8], now: Millis) -> Result<(), TicketRefused> {
        self.may_issue(source, self.hash(key), now).map(|_| ())
    }
}
