//! Clients that cache for themselves (redis-facts R20): hits, fills, invalidations, flushes and evictions of interests in every order, one
//! step at a time, and with real threads. Whoever was given a value that is no longer so has been told of it since.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::Waker;

use super::simulated::{KEYS, name};
use super::*;
use crate::coherence::listener::{Inbox, Listener, Told};

struct Client {
    inbox: Arc<Inbox>,
    listener: Arc<Listener>,
    /// Looked up, with what was seen, and not yet followed.
    looked: Option<(usize, u64, Seen)>,
    kept: HashMap<usize, u64>,
}

impl Client {
    fn new(armory: &Armory) -> Client {
        let inbox = Arc::new(Inbox::new(Waker::noop().clone()));
        let listener = Listener::new(inbox.clone());
        armory.source.interests().listen(&listener);
        Client { inbox, listener, looked: None, kept: HashMap::new() }
    }

    /// The reply is given, and right behind it what may have been missed.
    fn follow(&mut self, armory: &Armory) {
        let Some((key, value, seen)) = self.looked.take() else { return };
        // What was told before the reply is written before it.
        self.hear();
        self.kept.insert(key, value);
        if armory.coherence.follow(&armory.source, name(key), seen, &self.listener) == Followed::Missed {
            self.kept.remove(&key);
        }
    }

    fn hear(&mut self) {
        for letter in self.inbox.take().expect("few letters") {
            match letter.told {
                Told::Keys(keys) => self.kept.retain(|key, _| !keys.iter().any(|told| **told == *name(*key))),
                Told::Everything => self.kept.clear(),
                Told::RedirectLost(_) => {}
            }
        }
    }
}

fn number(reply: &[u8]) -> u64 {
    std::str::from_utf8(reply)
        .ok()
        .and_then(|text| text.trim_start_matches(':').trim_end().parse().ok())
        .expect("a number")
}

/// Half an invalidation, as the tracker's thread may be interrupted in it.
#[derive(Clone, Copy)]
enum Push {
    Key(usize),
    Interests(usize),
    Everything,
    AllInterests,
}

fn run(seed: u64) -> usize {
    let mut dice = Dice::new(seed);
    let slots = [1, 4, 64][dice.below(3)];
    let interests_max = [1, 3, 64][dice.below(3)];
    let armory = Armory::within(CoherenceLimits { interests_max, ..limits(slots) });
    let mut clients: Vec<Client> = (0..3).map(|_| Client::new(&armory)).collect();
    let mut values = [0_u64; KEYS];
    let mut pushes = std::collections::VecDeque::new();
    let (mut version, mut followed) = (0, 0);
    for _ in 0..400 {
        let key = dice.below(KEYS);
        match dice.below(12) {
            0 | 1 => {
                version += 1;
                values[key] = version;
                pushes.extend([Push::Key(key), Push::Interests(key)]);
            }
            2 if dice.one_in(8) => {
                version += 1;
                values = [version; KEYS];
                pushes.extend([Push::Everything, Push::AllInterests]);
            }
            3..=5 => hear(&armory, &mut pushes),
            // The reply of a fill comes behind all pushes before it.
            6 | 7 => {
                while !pushes.is_empty() {
                    hear(&armory, &mut pushes);
                }
                if let Ok(ticket) = armory.ticket(name(key)) {
                    let _ = ticket.commit(&reply_of(GET, format!(":{}\r\n", values[key]).as_bytes()));
                }
            }
            8 | 9 => {
                let client = &mut clients[dice.below(3)];
                if client.looked.is_none()
                    && let Ok(hit) = armory.coherence.serve(&armory.source, name(key), &GET, T0)
                {
                    client.looked = Some((key, number(hit.resp3()), hit.seen()));
                    followed += 1;
                }
            }
            10 => clients[dice.below(3)].follow(&armory),
            _ => clients[dice.below(3)].hear(),
        }
        assert!(armory.coherence.interests_held() <= interests_max, "seed {seed}");
    }
    while !pushes.is_empty() {
        hear(&armory, &mut pushes);
    }
    for client in &mut clients {
        client.follow(&armory);
        client.hear();
        for (key, kept) in &client.kept {
            assert_eq!(*kept, values[*key], "seed {seed}: key {key} is kept as it was");
        }
    }
    followed
}

fn hear(armory: &Armory, pushes: &mut std::collections::VecDeque<Push>) {
    match pushes.pop_front() {
        Some(Push::Key(key)) => armory.coherence.invalidate_key(name(key), Cause::Push),
        Some(Push::Interests(key)) => armory.source.interests().changed(name(key)),
        Some(Push::Everything) => armory.coherence.everything(Cause::Push),
        Some(Push::AllInterests) => armory.source.interests().everything(),
        None => {}
    }
}

#[test]
fn in_whatever_order_things_happen_nobody_keeps_what_has_changed_unheard() {
    let followed: usize = (0..3000).map(run).sum();
    assert!(followed > 30_000, "only {followed} were followed: this proves little");
}

#[test]
fn on_threads_of_their_own_too() {
    let armory = Armory::with_slots(64);
    let over = AtomicBool::new(false);
    let values: [std::sync::atomic::AtomicU64; KEYS] = std::array::from_fn(|_| 0.into());
    let mut clients: Vec<Client> = (0..3).map(|_| Client::new(&armory)).collect();
    std::thread::scope(|scope| {
        for client in &mut clients {
            let (over, armory_of) = (&over, (armory.coherence.fork(), armory.source.clone()));
            scope.spawn(move || {
                let (coherence, source) = armory_of;
                let mut dice = Dice::new(Arc::as_ptr(&client.inbox) as u64);
                while !over.load(SeqCst) {
                    let key = dice.below(KEYS);
                    client.hear();
                    let Ok(hit) = coherence.serve(&source, name(key), &GET, T0) else { continue };
                    client.kept.insert(key, number(hit.resp3()));
                    if coherence.follow(&source, name(key), hit.seen(), &client.listener) == Followed::Missed {
                        client.kept.remove(&key);
                    }
                }
            });
        }
        let mut dice = Dice::new(7);
        for version in 1..=60_000 {
            let key = dice.below(KEYS);
            values[key].store(version, SeqCst);
            armory.coherence.invalidate_key(name(key), Cause::Push);
            armory.source.interests().changed(name(key));
            if let Ok(ticket) = armory.ticket(name(key)) {
                let _ = ticket.commit(&reply_of(GET, format!(":{version}\r\n").as_bytes()));
            }
        }
        over.store(true, SeqCst);
    });
    for client in &mut clients {
        client.hear();
        for (key, kept) in &client.kept {
            assert_eq!(*kept, values[*key].load(SeqCst), "key {key} is kept as it was");
        }
    }
}

#[test]
fn whoever_is_evicted_from_a_full_table_is_told() {
    let armory = Armory::within(CoherenceLimits { interests_max: 10, ..limits(1024) });
    let mut client = Client::new(&armory);
    for n in 0..100_u64 {
        let key = n.to_string();
        armory.source.interests().register(key.as_bytes(), &client.listener);
    }
    assert_eq!(armory.coherence.interests_held(), 10);
    let told = client.inbox.take().expect("few letters").len();
    assert_eq!(told, 90);
    client.hear();
}

#[test]
fn an_inbox_nobody_empties_ends_its_client_and_holds_nothing() {
    let inbox = Arc::new(Inbox::new(Waker::noop().clone()));
    let listener = Listener::new(inbox.clone());
    let keys: Arc<[Box<[u8]>]> = [vec![b'k'; 1 << 20].into()].into();
    for _ in 0..10 {
        listener.tell(&keys);
    }
    assert_eq!(inbox.take(), None);
    assert_eq!(Arc::strong_count(&keys), 1);
}

#[test]
fn a_thousand_listeners_of_one_key_are_told_at_once() {
    let armory = Armory::within(CoherenceLimits { interests_max: 10_000, ..limits(64) });
    let clients: Vec<Client> = (0..1000).map(|_| Client::new(&armory)).collect();
    clients.iter().for_each(|client| armory.source.interests().register(b"hot", &client.listener));
    assert_eq!(armory.coherence.interests_held(), 1000);
    let since = std::time::Instant::now();
    armory.source.interests().changed(b"hot");
    assert!(since.elapsed() < std::time::Duration::from_secs(2), "{:?}", since.elapsed());
    assert!(clients.iter().all(|client| client.inbox.has_letters()));
    assert_eq!(armory.coherence.interests_held(), 0);
}
