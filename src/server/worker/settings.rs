//! What a worker goes by: its own copy of what is in force and of the command table, and what the two make of each other.
//!
//! Its own, so that looking at it costs no shared counter. Does not own when what is in force changes (`in_force`).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::Worker;
use crate::command::{Command, Denied, Recent, Table};
use crate::config::Config;
use crate::limits::{Applying, Limits};
use crate::resp::Args;
use crate::server::in_force::Settings;
use crate::server::rules::Rules;

/// See the head of this file.
pub(super) struct OwnSettings {
    /// The number of what is in force.
    number: Cell<u64>,
    config: RefCell<Rc<Config>>,
    rules: RefCell<Arc<Rules>>,
    rate_limits: RefCell<Arc<Limits>>,
    caches: Cell<bool>,
    /// With its version.
    table: RefCell<(u64, Rc<Table>)>,
    /// Of that table.
    recent: Recent,
    /// What the limits have to do with each of its commands, by id; empty without limits.
    applying: RefCell<Vec<Applying>>,
    /// What the rules about commands refuse of it, by number.
    denied: RefCell<Vec<Denied>>,
}

impl OwnSettings {
    /// The first, of a worker that has yet to [go by](Worker::go_by) whatever comes into force.
    pub(super) fn new(settings: &Settings, (version, table): (u64, &Table)) -> Self {
        Self {
            number: Cell::new(0),
            config: RefCell::new(Rc::new((*settings.config).clone())),
            caches: Cell::new(settings.caches()),
            applying: RefCell::new(settings.limits.applying(table)),
            denied: RefCell::new(settings.rules.resolve(table)),
            rules: RefCell::new(settings.rules.clone()),
            rate_limits: RefCell::new(settings.limits.clone()),
            recent: Recent::default(),
            table: RefCell::new((version, Rc::new(table.clone()))),
        }
    }

    /// Takes the place of what was; gives back its configuration.
    fn replace(&self, settings: &Settings) -> Rc<Config> {
        self.rules.replace(settings.rules.clone());
        self.rate_limits.replace(settings.limits.clone());
        self.caches.set(settings.caches());
        let table = self.table.borrow().1.clone();
        self.resolve(&table);
        self.config.replace(Rc::new((*settings.config).clone()))
    }

    /// Works out what rules and limits have to do with the commands of this table.
    fn resolve(&self, table: &Table) {
        self.applying.replace(self.rate_limits.borrow().applying(table));
        self.denied.replace(self.rules.borrow().resolve(table));
    }
}

impl Worker {
    /// The configuration in force: the same from the beginning of a session's turn to its end.
    #[inline]
    pub fn config(&self) -> Rc<Config> {
        self.own.config.borrow().clone()
    }

    /// The number of what is in force: sessions that find another than before renew what they hold of it.
    #[inline]
    pub fn in_force(&self) -> u64 {
        self.own.number.get()
    }

    /// Whether anything is kept and served from memory.
    #[inline]
    pub fn caches(&self) -> bool {
        self.own.caches.get()
    }

    /// The operator's rules about commands.
    pub fn rules(&self) -> Arc<Rules> {
        self.own.rules.borrow().clone()
    }

    /// How much clients may ask.
    pub fn rate_limits(&self) -> Arc<Limits> {
        self.own.rate_limits.borrow().clone()
    }

    /// This is in force from now on. Called between two turns of sessions.
    pub(in crate::server) fn go_by(&self, number: u64, settings: &Settings) {
        if self.own.number.replace(number) == number {
            return;
        }
        let before = self.own.replace(settings);
        let (config, workers) = (&settings.config, self.shared.stats.len());
        self.observer.go_by(&config.cache.policy);
        self.flights.borrow_mut().set_max(flights_max(config, workers));
        let (one_in, per_second) = audits(config, workers);
        self.auditor.set(one_in, per_second);
        self.shared.rests[self.index].set(config.rest_us);
        self.connections.set_limits(self.limits());
        if before.upstream != config.upstream {
            self.connections.renew_pools();
        }
    }

    /// The command table as of now.
    pub fn table(&self) -> Rc<Table> {
        let version = self.shared.table_version();
        let mut table = self.own.table.borrow_mut();
        if table.0 != version {
            let (version, newer) = self.shared.table();
            *table = (version, Rc::new((*newer).clone()));
            self.own.recent.forget();
            self.own.resolve(&newer);
        }
        table.1.clone()
    }

    /// The names asked for last of [`Worker::table`].
    #[inline]
    pub fn recent(&self) -> &Recent {
        &self.own.recent
    }

    /// What the limits have to do with a command of [`Worker::table`], whoever the user.
    #[inline]
    pub fn applying(&self, command: u16) -> Applying {
        self.own.applying.borrow().get(usize::from(command)).copied().unwrap_or_default()
    }

    /// Whether rule number `rule` refuses this request, for which [`Worker::table`] has just found `command`.
    #[inline]
    pub fn refuses(&self, rule: usize, command: &Command, args: &Args<'_>) -> bool {
        self.own.denied.borrow()[rule].refuses(command, args)
    }
}

/// A worker's hits that are read again: one in so many, and so many a second.
pub(super) fn audits(config: &Config, workers: usize) -> (u64, u64) {
    (config.coherence.audit_one_in, config.coherence.audit_max_per_second.div_ceil(workers as u64))
}

/// A worker's part of the fills that may be in flight.
pub(super) fn flights_max(config: &Config, workers: usize) -> usize {
    (config.coherence.fills_inflight_max / workers).max(1)
}
