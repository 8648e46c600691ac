//! A worker's fills in flight, and who waits for each (redis-facts R25: one flight per question).
//!
//! Single-threaded: each worker has one, and its joiners are its own sessions' slots. Joining asks whether the flight's ticket
//! is still good (R4); a flight that can no longer be joined is still finished for those who did.

use std::collections::HashMap;

use ahash::RandomState;

use super::{Coherence, KeyRequest, ScopeId, TicketCheck};
use crate::cache::ViewKey;

/// One question about one key in one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlightKey<'a> {
    /// Whose data.
    pub scope: ScopeId,
    /// The key.
    pub key: &'a [u8],
    /// The question.
    pub question: ViewKey<'a>,
}

/// A flight, for as long as it is in the table. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlightId(u64);

struct Flight<J> {
    request: KeyRequest,
    scope: ScopeId,
    hash: u64,
    check: TicketCheck,
    /// Who asked first; most are alone.
    first: J,
    others: Vec<J>,
}

impl<J> Flight<J> {
    fn joiners(self) -> impl Iterator<Item = J> {
        std::iter::once(self.first).chain(self.others)
    }
}

/// The table. `J` is whatever the session needs to answer a joiner.
pub struct Flights<J> {
    flights: HashMap<FlightId, Flight<J>, RandomState>,
    /// The newest flight of each question, by the question's keyed hash. Two questions with one hash are told apart by
    /// comparing them; only the newer can then be joined.
    newest: HashMap<u64, FlightId, RandomState>,
    hasher: RandomState,
    next: u64,
    flights_max: usize,
    joiners_max: usize,
}

impl<J> Flights<J> {
    /// At most `flights_max` flights at once, each with at most `joiners_max` joiners.
    pub fn new(flights_max: usize, joiners_max: usize) -> Flights<J> {
        Flights {
            flights: HashMap::default(),
            newest: HashMap::default(),
            hasher: RandomState::new(),
            next: 0,
            flights_max,
            joiners_max,
        }
    }

    /// So many at once from now on.
    pub fn set_max(&mut self, flights_max: usize) {
        self.flights_max = flights_max;
    }

    /// How many flights there are.
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Whether another flight may be begun; ask before taking a ticket.
    pub fn has_room(&self) -> bool {
        self.flights.len() < self.flights_max
    }

    /// Joins the flight that will answer this question, if there is one whose ticket is still good and which has room. Otherwise
    /// gives the joiner back.
    pub fn join(&mut self, coherence: &Coherence, asked: &FlightKey<'_>, joiner: J) -> Result<FlightId, J> {
        let Some(&id) = self.newest.get(&self.hasher.hash_one(asked)) else {
            return Err(joiner);
        };
        let Some(flight) = self.flights.get_mut(&id) else {
            return Err(joiner);
        };
        let may_join = flight.request.in_scope(flight.scope) == *asked
            && flight.others.len() + 1 < self.joiners_max
            && coherence.still_good(&flight.check);
        if !may_join {
            return Err(joiner);
        }
        flight.others.push(joiner);
        Ok(id)
    }

    /// Enters a flight whose ticket has just been issued, with the reader who asked first. `None`, with nothing changed but the
    /// joiner dropped, if there is no room.
    pub fn begin(&mut self, scope: ScopeId, request: KeyRequest, check: TicketCheck, first: J) -> Option<FlightId> {
        if !self.has_room() {
            return None;
        }
        let id = FlightId(self.next);
        self.next += 1;
        let hash = self.hasher.hash_one(request.in_scope(scope));
        self.flights.insert(id, Flight { request, scope, hash, check, first, others: Vec::new() });
        self.newest.insert(hash, id);
        Some(id)
    }

    /// Ends a flight, whatever became of it, and gives those who wait for it, in the order in which they came.
    pub fn take(&mut self, id: FlightId) -> impl Iterator<Item = J> + use<J> {
        let flight = self.flights.remove(&id);
        if let Some(flight) = &flight
            && self.newest.get(&flight.hash) == Some(&id)
        {
            self.newest.remove(&flight.hash);
        }
        flight.into_iter().flat_map(Flight::joiners)
    }

    /// Ends all flights (the tracker was lost).
    pub fn take_all(&mut self) -> Vec<J> {
        self.newest.clear();
        let mut flights: Vec<_> = self.flights.drain().collect();
        flights.sort_by_key(|(id, _)| id.0);
        flights.into_iter().flat_map(|(_, flight)| flight.joiners()).collect()
    }
}
