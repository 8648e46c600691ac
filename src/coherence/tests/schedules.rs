//! Random schedules: clients, lanes, a tracker and foreign writers take turns in a random order, one step at a time, each step
//! being what one thread does between two points at which others may come in. A failure names its seed.
//!
//! Checked: no read returns less than what was acknowledged through the proxy, or read by anyone through the proxy, before it
//! began. Without foreign writers that is linearizability per key; with them it says that nobody is shown the past of what
//! anybody has seen. And an MGET never sees half an MSET.

use std::collections::{HashMap, VecDeque};

use super::simulated::{KEYS, PAIR, Server, Wire, name, written_with};
use super::*;

const CLIENTS: usize = 6;
const WORKERS: usize = 2;
const STEPS: usize = 500;

/// What a client is waiting for.
enum Doing {
    Nothing,
    /// A read on its lane; the value once executed.
    Read {
        key: usize,
        watch: ReadWatch,
        value: Option<u64>,
        floor: u64,
    },
    /// A fill it joined.
    Joined {
        floor: u64,
    },
    ReadPair {
        watches: [ReadWatch; 2],
        values: Option<[u64; 2]>,
        floors: [u64; 2],
    },
    Write {
        keys: &'static [usize],
        mark: WriteMark,
        version: Option<u64>,
    },
    Flush {
        mark: FlushMark,
        version: Option<u64>,
    },
}

struct Client {
    doing: Doing,
    /// What it has seen or written, per key.
    seen: [u64; KEYS],
}

struct Fill {
    ticket: FillTicket,
    key: usize,
    worker: usize,
    flight: FlightId,
}

struct World {
    dice: Dice,
    foreign: bool,
    server: Server,
    armory: Armory,
    near: Vec<Near>,
    flights: Vec<Flights<usize>>,
    clients: Vec<Client>,
    /// Fills sent on the tracking connection and not executed yet.
    sent: VecDeque<(u64, usize)>,
    fills: HashMap<u64, Fill>,
    next_fill: u64,
    /// Replies of connections that are gone, handled late, in any order.
    zombies: Vec<(Fill, u64)>,
    /// Writes whose connection was lost before they were executed, and which may be executed yet.
    orphans: Vec<&'static [usize]>,
    /// The newest version that was acknowledged, and that anyone has read, per key.
    acknowledged: [u64; KEYS],
    read: [u64; KEYS],
    hits: u64,
    stored: u64,
}

impl World {
    fn new(seed: u64, foreign: bool) -> World {
        let mut dice = Dice::new(seed);
        let slots = [1, 2, 64][dice.below(3)];
        // All keys have a hash of their own, or share a few, or have the same one.
        let hash_mask = [!0, !0, 0x0100_0000_0000_0001, 0][dice.below(4)];
        let client = || Client { doing: Doing::Nothing, seen: [0; KEYS] };
        World {
            dice,
            foreign,
            server: Server::default(),
            armory: Armory::within(CoherenceLimits { hash_mask, ..limits(slots) }),
            near: (0..WORKERS).map(|_| Near::default()).collect(),
            flights: (0..WORKERS).map(|_| Flights::new(3, 2)).collect(),
            clients: (0..CLIENTS).map(|_| client()).collect(),
            sent: VecDeque::new(),
            fills: HashMap::new(),
            next_fill: 0,
            zombies: Vec::new(),
            orphans: Vec::new(),
            acknowledged: [0; KEYS],
            read: [0; KEYS],
            hits: 0,
            stored: 0,
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.dice.below(24) {
                0..=13 => {
                    let client = self.dice.below(CLIENTS);
                    self.step_client(client);
                }
                14..=16 => self.execute_fill(),
                17..=20 => self.hear(),
                21 => self.late(),
                22 if self.foreign => {
                    let key = self.dice.below(KEYS);
                    self.server.set(written_with(key));
                }
                23 if self.dice.one_in(2) => {
                    let key = name(self.dice.below(KEYS));
                    self.armory.coherence.shared().tier.evict(self.armory.coherence.hash(key));
                }
                _ if self.dice.one_in(6) => self.lose_tracker(),
                _ => {}
            }
        }
    }

    /// The least version that a read of `key` beginning now, by this client, may return.
    fn floor(&self, client: usize, key: usize) -> u64 {
        let own = self.clients[client].seen[key].max(self.acknowledged[key]);
        own.max(self.read[key])
    }

    fn saw(&mut self, client: usize, key: usize, value: u64, floor: u64, how: &str) {
        assert!(value >= floor, "client {client} read version {value} of key {key} {how}, after {floor}");
        let seen = &mut self.clients[client].seen[key];
        *seen = value.max(*seen);
        self.read[key] = value.max(self.read[key]);
    }

    fn step_client(&mut self, client: usize) {
        match std::mem::replace(&mut self.clients[client].doing, Doing::Nothing) {
            Doing::Nothing => self.begin(client),
            Doing::Joined { floor } => self.clients[client].doing = Doing::Joined { floor },
            Doing::Read { key, watch, value: None, floor } => {
                let value = Some(self.server.get(key));
                self.clients[client].doing = Doing::Read { key, watch, value, floor };
            }
            Doing::Read { key, watch, value: Some(value), floor } => {
                let reply = value.to_string();
                let sight = self.armory.sight(reply.as_bytes());
                let coherence = &self.armory.coherence;
                match self.dice.below(8) {
                    0 => coherence.read_answered(name(key), watch),
                    1 => {
                        let question = ViewKey { command: 2, ..GET };
                        coherence.read_answered_with(name(key), &Sight { question, ..sight }, watch);
                    }
                    _ => coherence.read_answered_with(name(key), &sight, watch),
                }
                self.saw(client, key, value, floor, "upstream");
            }
            Doing::ReadPair { watches, values: None, floors } => {
                let values = Some(PAIR.map(|key| self.server.get(key)));
                self.clients[client].doing = Doing::ReadPair { watches, values, floors };
            }
            Doing::ReadPair { watches, values: Some(values), floors } => {
                for (at, key) in PAIR.into_iter().enumerate() {
                    let reply = values[at].to_string();
                    let sight = self.armory.sight(reply.as_bytes());
                    self.armory.coherence.read_answered_with(name(key), &sight, watches[at]);
                    self.saw(client, key, values[at], floors[at], "upstream by MGET");
                }
            }
            Doing::Write { keys, mark, version: None } => {
                if self.dice.one_in(10) {
                    // Its connection is lost: an error for the client, perhaps executed later.
                    drop(mark);
                    self.orphans.push(keys);
                    return;
                }
                let version = Some(self.server.set(keys));
                self.clients[client].doing = Doing::Write { keys, mark, version };
            }
            Doing::Write { keys, mark, version: Some(version) } => {
                drop(mark);
                keys.iter().for_each(|key| self.acknowledge(client, *key, version));
            }
            Doing::Flush { mark, version: None } => {
                let version = Some(self.server.flush());
                self.clients[client].doing = Doing::Flush { mark, version };
            }
            Doing::Flush { mark, version: Some(version) } => {
                drop(mark);
                (0..KEYS).for_each(|key| self.acknowledge(client, key, version));
            }
        }
    }

    fn acknowledge(&mut self, client: usize, key: usize, version: u64) {
        self.acknowledged[key] = self.acknowledged[key].max(version);
        let seen = &mut self.clients[client].seen[key];
        *seen = version.max(*seen);
    }

    fn begin(&mut self, client: usize) {
        let key = self.dice.below(KEYS);
        self.clients[client].doing = match self.dice.below(60) {
            0..=46 => return self.begin_read(client, key),
            47..=51 => return self.begin_pair(client),
            52..=57 => {
                let keys = written_with(key);
                // A key named twice is nothing special.
                let named = keys.iter().chain(&keys[..self.dice.below(2)]);
                let mark = self.armory.marks.write_mark(named.map(|key| name(*key)));
                Doing::Write { keys, mark, version: None }
            }
            58 => Doing::Flush { mark: self.armory.coherence.flush_mark(), version: None },
            _ => Doing::Nothing,
        };
    }

    fn begin_read(&mut self, client: usize, key: usize) {
        let floor = self.floor(client, key);
        let worker = client % WORKERS;
        let Armory { coherence, source, .. } = &self.armory;
        let answer = if self.dice.one_in(2) {
            let answer = self.near[worker].serve(coherence, source, name(key), &GET, T0);
            answer.map(|(view, _)| number(view.resp3()))
        } else {
            coherence.serve(source, name(key), &GET, T0).map(|hit| number(hit.resp3()))
        };
        let miss = match answer {
            Ok(value) => {
                self.hits += 1;
                return self.saw(client, key, value, floor, "from memory");
            }
            Err(miss) => miss,
        };
        let doing = if self.dice.one_in(3) { None } else { self.join_or_fill(client, key, floor) };
        let on_lane = Doing::Read { key, watch: miss.watch, value: None, floor };
        self.clients[client].doing = doing.unwrap_or(on_lane);
    }

    fn join_or_fill(&mut self, client: usize, key: usize, floor: u64) -> Option<Doing> {
        let Armory { coherence, source, .. } = &self.armory;
        let worker = client % WORKERS;
        let flights = &mut self.flights[worker];
        let asked = FlightKey { scope: source.scope(), key: name(key), question: GET };
        if flights.join(coherence, &asked, client).is_ok() {
            return Some(Doing::Joined { floor });
        }
        if !flights.has_room() {
            return None;
        }
        let ticket = coherence.ticket(source, name(key), T0).ok()?;
        let flight = flights.begin(source.scope(), get_request(name(key)), ticket.check(), client)?;
        let fill = Fill { ticket, key, worker, flight };
        self.fills.insert(self.next_fill, fill);
        self.sent.push_back((self.next_fill, key));
        self.next_fill += 1;
        Some(Doing::Joined { floor })
    }

    fn begin_pair(&mut self, client: usize) {
        let floors = PAIR.map(|key| self.floor(client, key));
        let Armory { coherence, source, .. } = &self.armory;
        let (mut snapshot, mut values) = (Snapshot::default(), [0; 2]);
        let mut watches = Vec::new();
        for (at, key) in PAIR.into_iter().enumerate() {
            // A look-up's own watch only if it missed.
            match coherence.serve(source, name(key), &GET, T0) {
                Ok(hit) => {
                    values[at] = number(hit.resp3());
                    snapshot.note(hit.seen());
                    watches.push(coherence.read_sent(name(key)));
                }
                Err(miss) => watches.push(miss.watch),
            }
            // Another thread gets a word in between the two look-ups.
            if at == 0 && self.dice.one_in(2) {
                return self.pair_interrupted(client, floors, snapshot, values, watches);
            }
        }
        self.end_pair(client, floors, &snapshot, values, &watches);
    }

    fn pair_interrupted(
        &mut self,
        client: usize,
        floors: [u64; 2],
        mut snapshot: Snapshot,
        mut values: [u64; 2],
        mut watches: Vec<ReadWatch>,
    ) {
        for _ in 0..self.dice.below(8) {
            match self.dice.below(4) {
                0 => self.execute_fill(),
                1 | 2 => self.hear(),
                _ => {
                    let other = (client + 1 + self.dice.below(CLIENTS - 1)) % CLIENTS;
                    if !matches!(self.clients[other].doing, Doing::Nothing) {
                        self.step_client(other);
                    }
                }
            }
        }
        let Armory { coherence, source, .. } = &self.armory;
        match coherence.serve(source, name(PAIR[1]), &GET, T0) {
            Ok(hit) => {
                values[1] = number(hit.resp3());
                snapshot.note(hit.seen());
                watches.push(coherence.read_sent(name(PAIR[1])));
            }
            Err(miss) => watches.push(miss.watch),
        }
        self.end_pair(client, floors, &snapshot, values, &watches);
    }

    fn end_pair(
        &mut self,
        client: usize,
        floors: [u64; 2],
        snapshot: &Snapshot,
        values: [u64; 2],
        watches: &[ReadWatch],
    ) {
        let whole = snapshot.len() == 2;
        if whole && snapshot.stands(&self.armory.coherence, &self.armory.source) {
            assert_eq!(values[0], values[1], "an MGET from memory saw half an MSET");
            self.hits += 1;
            for (at, key) in PAIR.into_iter().enumerate() {
                self.saw(client, key, values[at], floors[at], "from memory by MGET");
            }
            return;
        }
        let watches = [watches[0], watches[1]];
        self.clients[client].doing = Doing::ReadPair { watches, values: None, floors };
    }

    fn execute_fill(&mut self) {
        if let Some((number, key)) = self.sent.pop_front() {
            self.server.fill(number, key);
        }
    }

    /// The tracker handles the next thing on its wire.
    fn hear(&mut self) {
        let coherence = &self.armory.coherence;
        match self.server.wire.pop_front() {
            Some(Wire::Push(key)) => coherence.invalidate_key(name(key), Cause::Push),
            Some(Wire::Null) => coherence.everything(Cause::Push),
            Some(Wire::Reply(number, value)) => {
                let fill = self.fills.remove(&number).expect("it was sent");
                // Rarely the reader hands it to someone who is slow to store it (redis-facts R2).
                if self.dice.one_in(8) {
                    self.zombies.push((fill, value));
                } else {
                    self.land(fill, value);
                }
            }
            None => {}
        }
    }

    fn land(&mut self, fill: Fill, value: u64) {
        let Fill { ticket, key, worker, flight } = fill;
        self.stored += u64::from(ticket.commit(&reply_of(GET, value.to_string().as_bytes())).is_ok());
        for client in self.flights[worker].take(flight) {
            let Doing::Joined { floor } = std::mem::replace(&mut self.clients[client].doing, Doing::Nothing) else {
                panic!("a joiner waits");
            };
            self.saw(client, key, value, floor, "from a flight");
        }
    }

    /// Something long overdue happens.
    fn late(&mut self) {
        if !self.zombies.is_empty() {
            let at = self.dice.below(self.zombies.len());
            let (fill, value) = self.zombies.swap_remove(at);
            self.land(fill, value);
        }
        if self.dice.one_in(4)
            && let Some(keys) = self.orphans.pop()
        {
            self.server.set(keys);
        }
    }

    fn lose_tracker(&mut self) {
        self.armory.armed = None;
        assert!(self.armory.get(name(0)).is_err(), "served without a source");
        // What was executed may still be stored by someone late; what was not is lost, and its joiners read on their lanes.
        for wire in self.server.hang_up() {
            if let Wire::Reply(number, value) = wire {
                self.zombies.push((self.fills.remove(&number).expect("it was sent"), value));
            }
        }
        self.sent.clear();
        for (_, fill) in std::mem::take(&mut self.fills) {
            for client in self.flights[fill.worker].take(fill.flight) {
                let Doing::Joined { floor } = self.clients[client].doing else { panic!("a joiner waits") };
                let watch = self.armory.coherence.read_sent(name(fill.key));
                self.clients[client].doing = Doing::Read { key: fill.key, watch, value: None, floor };
            }
        }
        self.armory.armed = Some(self.armory.coherence.arm(&self.armory.source, Millis::NEVER));
    }
}

fn number(reply: &[u8]) -> u64 {
    std::str::from_utf8(reply).expect("digits").parse().expect("a number")
}

fn run_all(foreign: bool) {
    // More seeds on demand: ANTEROOM_SEEDS=200000.
    let seeds = std::env::var("ANTEROOM_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1_500);
    let (mut hits, mut stored) = (0, 0);
    for seed in 1..=seeds {
        let mut world = World::new(seed, foreign);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        if let Err(panic) = outcome {
            eprintln!("seed {seed}, foreign {foreign}");
            std::panic::resume_unwind(panic);
        }
        hits += world.hits;
        stored += world.stored;
    }
    // A cache that never answers would pass every check.
    assert!(hits > seeds * 8 && stored > seeds * 5, "only {hits} hits and {stored} fills in {seeds} schedules");
}

#[test]
fn under_any_schedule_reads_and_writes_through_the_proxy_are_linearizable() {
    run_all(false);
}

#[test]
fn under_any_schedule_with_foreign_writers_nobody_is_shown_the_past_of_what_anybody_saw() {
    run_all(true);
}
