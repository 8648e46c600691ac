//! What was made of files, made anew when they change.
//!
//! Looks at contents, not at times of change: a file may be replaced within a clock's tick, or through a link. Files that
//! are found broken leave what stands in force, and are complained of once.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::pem::{Flaw, Validity};

/// What was made of some files.
#[derive(Debug)]
pub(super) struct Made<T> {
    pub(super) config: Arc<T>,
    /// Of the certificate that is shown, if one is.
    pub(super) validity: Option<Validity>,
}

impl<T> Clone for Made<T> {
    fn clone(&self) -> Self {
        Self { config: self.config.clone(), validity: self.validity }
    }
}

type Make<T> = Box<dyn Fn() -> Result<Made<T>, Vec<Flaw>> + Send + Sync>;

/// See the head of this file.
pub(super) struct Watched<T> {
    /// For the log: whose files these are.
    side: &'static str,
    files: Vec<String>,
    make: Make<T>,
    held: RwLock<Made<T>>,
    /// A hash of the files' contents as of the last look.
    seen: Mutex<u64>,
    renewals: AtomicU64,
    trouble: Mutex<String>,
}

impl<T> Watched<T> {
    pub(super) fn new(side: &'static str, files: Vec<String>, make: Make<T>) -> Result<Self, Vec<Flaw>> {
        // Before they are read: if they change in between, the first look finds it.
        let seen = contents(&files);
        let held = make()?;
        warn_of(side, held.validity);
        Ok(Self {
            side,
            files,
            make,
            held: RwLock::new(held),
            seen: Mutex::new(seen),
            renewals: AtomicU64::new(0),
            trouble: Mutex::default(),
        })
    }

    /// What is in force.
    pub(super) fn config(&self) -> Arc<T> {
        self.held().config
    }

    pub(super) fn validity(&self) -> Option<Validity> {
        self.held().validity
    }

    fn held(&self) -> Made<T> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks whether the files have changed, and if so makes anew what is in force for connections from now on. Reads files:
    /// it may block for as long as a disk does.
    pub(super) fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = contents(&self.files);
        if std::mem::replace(&mut *seen, now) == now {
            return;
        }
        let trouble = match (self.make)() {
            Ok(made) => {
                warn_of(self.side, made.validity);
                *self.held.write().unwrap_or_else(PoisonError::into_inner) = made;
                self.renewals.fetch_add(1, Relaxed);
                tracing::info!(side = self.side, "TLS files have changed; new connections use the new ones");
                String::new()
            }
            Err(flaws) => {
                let text = flaws.iter().map(Flaw::to_string).collect::<Vec<_>>().join("; ");
                tracing::error!(
                    side = self.side,
                    reason = text,
                    "TLS files have changed for the worse; the old stay in force"
                );
                text
            }
        };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(super) fn reloads(&self) -> Reloads {
        let error = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Reloads { done: self.renewals.load(Relaxed), error }
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("side", &self.side).field("files", &self.files).finish_non_exhaustive()
    }
}

/// How often files were found changed and taken, and what is wrong with those that are there now.
#[derive(Clone, Debug, Default)]
pub struct Reloads {
    /// Times the new ones were taken.
    pub done: u64,
    /// What is wrong with the files; empty if nothing is. While something is, what was read before stays in force.
    pub error: String,
}

fn warn_of(side: &'static str, validity: Option<Validity>) {
    if let Some(reason) = validity.and_then(|validity| validity.warning()) {
        tracing::warn!(side, reason, "TLS certificate");
    }
}

fn contents(files: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).map_err(|error| error.kind()).hash(&mut hasher);
    }
    hasher.finish()
}
