//! Where clients come from: how many there are of each address, how fast they come, and how many wrong passwords they gave.
//!
//! An IPv6 client counts with its whole /64, all of which one machine may have. The table is bounded: an address is forgotten with
//! its last client, once what it did has been made up for, and of those without clients only so many are remembered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::allowance::{Rate, Spent};
use crate::config;

/// Addresses remembered though they have no client, at most. Of more than that one is forgotten before its time.
const ABSENT_MAX: usize = 16 * 1024;

/// An address, or a /64 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin(u128);

impl Origin {
    /// Of a client's address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().to_bits()),
            IpAddr::V6(address) => Self(address.to_bits() & !u128::from(u64::MAX)),
        }
    }
}

/// Why a connection is closed as soon as it is accepted. The words are those of INFO and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `clients.max`.
    Max,
    /// `clients.max_per_ip`.
    MaxPerIp,
    /// `clients.accepts_per_ip_per_second`.
    RatePerIp,
    /// `memory.budget_bytes`.
    Memory,
}

impl Refused {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Max, Self::MaxPerIp, Self::RatePerIp, Self::Memory];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Max => "max",
            Self::MaxPerIp => "max_per_ip",
            Self::RatePerIp => "rate_per_ip",
            Self::Memory => "memory",
        }
    }
}

/// See the head of this file.
#[derive(Debug)]
pub struct Origins {
    bounds: RwLock<Bounds>,
    table: Mutex<HashMap<Origin, Record>>,
}

/// What may come from one address.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    clients_max: usize,
    accepts: Option<Rate>,
    failures: Option<Rate>,
}

impl Bounds {
    fn new(limits: &config::Clients) -> Self {
        Self {
            clients_max: if limits.max_per_ip == 0 { usize::MAX } else { limits.max_per_ip },
            accepts: Rate::new(limits.accepts_per_ip_per_second, limits.accepts_per_ip_burst),
            failures: Rate::new(limits.auth_failures_per_second, limits.auth_failures_burst),
        }
    }
}

#[derive(Debug, Default)]
struct Record {
    clients: usize,
    accepts: Spent,
    failures: Spent,
}

impl Record {
    fn is_nothing(&self, now: Instant) -> bool {
        self.clients == 0 && self.accepts.is_nothing(now) && self.failures.is_nothing(now)
    }
}

impl Origins {
    /// Nobody yet, within these bounds.
    pub fn new(limits: &config::Clients) -> Self {
        Self { bounds: RwLock::new(Bounds::new(limits)), table: Mutex::default() }
    }

    /// Within these bounds from now on; who is in stays.
    pub fn set_bounds(&self, limits: &config::Clients) {
        *self.bounds.write().unwrap_or_else(PoisonError::into_inner) = Bounds::new(limits);
    }

    fn bounds(&self) -> Bounds {
        *self.bounds.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more client, whom [`Origins::leave`] counts out again.
    ///
    /// # Errors
    /// There may be no more of them, or not yet: then with the time until there may.
    pub fn enter(&self, origin: Origin, now: Instant) -> Result<(), (Refused, Option<Duration>)> {
        let bounds = self.bounds();
        let mut table = self.room(now);
        let record = table.entry(origin).or_default();
        if record.clients >= bounds.clients_max {
            return Err((Refused::MaxPerIp, None));
        }
        if let Some(rate) = &bounds.accepts {
            rate.take(&mut record.accepts, now).map_err(|wait| (Refused::RatePerIp, Some(wait)))?;
        }
        record.clients += 1;
        Ok(())
    }

    /// A client is gone.
    pub fn leave(&self, origin: Origin, now: Instant) {
        let mut table = self.lock();
        if let Some(record) = table.get_mut(&origin) {
            record.clients = record.clients.saturating_sub(1);
            if record.is_nothing(now) {
                table.remove(&origin);
            }
        }
    }

    /// A password is about to be tried. It counts as wrong until [`Origins::was_right`] says otherwise, so that as many tries at
    /// once as one likes are no way round the bound.
    ///
    /// # Errors
    /// Too many were wrong; so long it would have to wait.
    pub fn may_try(&self, origin: Origin, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.bounds().failures else { return Ok(()) };
        rate.take(&mut self.room(now).entry(origin).or_default().failures, now)
    }

    /// The password was right, or could not be tried.
    pub fn was_right(&self, origin: Origin) {
        if let Some(rate) = self.bounds().failures
            && let Some(record) = self.lock().get_mut(&origin)
        {
            rate.give_back(&mut record.failures);
        }
    }

    /// The table, with room for one more.
    fn room(&self, now: Instant) -> MutexGuard<'_, HashMap<Origin, Record>> {
        let mut table = self.lock();
        // Looked through only when it doubles, so that the cost of looking does not grow with it.
        if table.len() >= ABSENT_MAX && table.len() == table.capacity() {
            table.retain(|_, record| !record.is_nothing(now));
            let mut absent = table.values().filter(|record| record.clients == 0).count();
            table.retain(|_, record| {
                let forget = record.clients == 0 && absent > ABSENT_MAX / 2;
                absent -= usize::from(forget);
                !forget
            });
        }
        table
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, Record>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(text.parse().unwrap())
    }

    fn origins(change: impl FnOnce(&mut config::Clients)) -> Origins {
        let mut limits = config::Clients::default();
        change(&mut limits);
        Origins::new(&limits)
    }

    #[test]
    fn an_address_is_the_same_in_either_notation_and_a_64_is_one_origin() {
        assert_eq!(origin("10.0.0.1"), origin("::ffff:10.0.0.1"));
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
        assert_eq!(origin("2001:db8:1:2::1"), origin("2001:db8:1:2:ffff::9"));
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
    }

    #[test]
    fn so_many_of_one_address_and_each_leaves_room_for_another() {
        let (origins, now) = (origins(|limits| limits.max_per_ip = 2), Instant::now());
        let (one, other) = (origin("10.0.0.1"), origin("10.0.0.2"));
        assert!(origins.enter(one, now).is_ok() && origins.enter(one, now).is_ok());
        assert_eq!(origins.enter(one, now), Err((Refused::MaxPerIp, None)));
        assert!(origins.enter(other, now).is_ok());
        origins.leave(one, now);
        assert!(origins.enter(one, now).is_ok() && origins.enter(one, now).is_err());
    }

    #[test]
    fn who_left_is_forgotten_once_what_it_did_has_been_made_up_for() {
        let origins = origins(|limits| {
            limits.accepts_per_ip_per_second = 1;
            limits.accepts_per_ip_burst = 2;
            limits.auth_failures_per_second = 1;
            limits.auth_failures_burst = 1;
        });
        let (one, start) = (origin("10.0.0.1"), Instant::now());
        // Coming and going is no way round the rate.
        for _ in 0..2 {
            origins.enter(one, start).unwrap();
            origins.leave(one, start);
        }
        assert_eq!(origins.enter(one, start), Err((Refused::RatePerIp, Some(Duration::from_secs(1)))));
        let later = start + Duration::from_secs(5);
        origins.enter(one, later).unwrap();
        assert_eq!(origins.may_try(one, later), Ok(()));
        origins.leave(one, later);
        assert!(origins.may_try(one, later).is_err(), "nor round the bound on wrong passwords");
        let much_later = later + Duration::from_secs(5);
        origins.enter(one, much_later).unwrap();
        origins.leave(one, much_later + Duration::from_secs(5));
        assert!(origins.lock().is_empty());
    }

    #[test]
    fn a_password_that_was_right_does_not_count() {
        let origins = origins(|limits| limits.auth_failures_burst = 2);
        let (one, now) = (origin("10.0.0.1"), Instant::now());
        for _ in 0..100 {
            origins.may_try(one, now).unwrap();
            origins.was_right(one);
        }
        assert!(origins.may_try(one, now).is_ok() && origins.may_try(one, now).is_ok());
        assert!(origins.may_try(one, now).is_err());
        assert!(origins.may_try(origin("10.0.0.2"), now).is_ok());
    }

    #[test]
    fn addresses_without_number_take_bounded_room_and_those_with_clients_are_never_forgotten() {
        let origins = origins(|limits| limits.max_per_ip = 1);
        let now = Instant::now();
        let kept: Vec<_> = (0..100).map(|n| Origin(n << 64 | 1)).collect();
        kept.iter().for_each(|origin| origins.enter(*origin, now).unwrap());
        for n in 0..1_000_000 {
            let _ = origins.may_try(Origin(n << 64), now);
        }
        assert!(origins.lock().len() <= 4 * ABSENT_MAX, "{}", origins.lock().len());
        assert!(kept.iter().all(|origin| origins.enter(*origin, now).is_err()));
    }
}
