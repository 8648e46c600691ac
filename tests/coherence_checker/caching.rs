//! A client that caches for itself, as a library would: what it reads it keeps until it is told, and then drops.
//!
//! The rule it relies on: a value is stored when its reply arrives, and whatever is told after that drops it. Where invalidations come over
//! another connection (REDIRECT) a placeholder stands from the request on, and what is told meanwhile takes it away: one for each request, since
//! what is told may overtake a reply, and the next request of the same key both of them.

use std::collections::{HashMap, VecDeque};
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anteroom::resp::encode;

use super::driver::number;
use super::history::{Micros, Register, Step};
use super::support::Client;
use super::world::{Kind, Rng, World};

/// How it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Always,
    OptIn,
    Broadcast,
    Redirected,
}

impl Way {
    pub(crate) const ALL: [Way; 4] = [Way::Always, Way::OptIn, Way::Broadcast, Way::Redirected];
}

/// A key: the register and its part.
type Key = (Register, u8);

/// What a reply is of.
enum Asked {
    Nothing,
    /// A read of these keys; kept or not, and of which keys what comes is still good.
    Read(Vec<(Key, bool)>, bool),
}

pub(crate) struct Caching<'w> {
    world: &'w World,
    addr: SocketAddr,
    pub(crate) way: Way,
    data: Client,
    /// Where it is told, if not there.
    told: Option<Client>,
    asked: VecDeque<Asked>,
    held: HashMap<Key, Option<u64>>,
    names: HashMap<String, Key>,
    rng: Rng,
    pub(crate) steps: Vec<Step>,
    pub(crate) drops: usize,
}

impl<'w> Caching<'w> {
    pub(crate) fn new(world: &'w World, addr: SocketAddr, way: Way, seed: u64) -> Self {
        let names = world.registers.iter().enumerate().flat_map(|(register, entry)| {
            entry.keys.iter().enumerate().map(move |(part, name)| (name.clone(), (register, part as u8)))
        });
        let mut caching = Self {
            world,
            addr,
            way,
            data: Client::connect(addr),
            told: None,
            asked: VecDeque::new(),
            held: HashMap::new(),
            names: names.collect(),
            rng: Rng::new(seed),
            steps: Vec::new(),
            drops: 0,
        };
        caching.begin();
        caching
    }

    /// Connects, and tracks once the proxy can.
    fn begin(&mut self) {
        self.forget();
        self.asked.clear();
        loop {
            self.data = Client::connect(self.addr);
            self.told = None;
            let on = match self.way {
                Way::Always => self.tracks(&[]),
                Way::OptIn => self.tracks(&["OPTIN"]),
                Way::Broadcast => self.tracks(
                    &[
                        &["BCAST"][..],
                        &["PREFIX", "solo:", "PREFIX", "triple:", "PREFIX", "counter:", "PREFIX", "timed:"],
                    ]
                    .concat(),
                ),
                Way::Redirected => {
                    let mut told = Client::connect(self.addr);
                    let id = told.text(&["CLIENT", "ID"]);
                    let subscribed = told.text(&["SUBSCRIBE", "__redis__:invalidate"]);
                    self.told = Some(told);
                    subscribed.starts_with("*3") && self.tracks(&["REDIRECT", id[1..].trim_end()])
                }
            };
            if on {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn tracks(&mut self, options: &[&str]) -> bool {
        if self.told.is_none() {
            self.data.ask(&["HELLO", "3"]);
        }
        self.data.text(&[&["CLIENT", "TRACKING", "ON"], options].concat()) == "+OK\r\n"
    }

    fn forget(&mut self) {
        self.held.clear();
        self.spoil(|_| true);
    }

    /// What has been asked for and comes of these keys is not kept.
    fn spoil(&mut self, is_spoilt: impl Fn(Key) -> bool) {
        for asked in &mut self.asked {
            if let Asked::Read(keys, _) = asked {
                keys.iter_mut().for_each(|(key, good)| *good &= !is_spoilt(*key));
            }
        }
    }

    /// Reads, from memory where it can, until enough has been done.
    pub(crate) fn run(&mut self) {
        while self.world.go_on(0) {
            // Whatever has come by then is seen before anything is used.
            let at = self.world.epoch.now();
            self.look();
            if self.world.quiet.load(Ordering::Relaxed) {
                self.settle();
                self.read_held(at);
                std::thread::sleep(Duration::from_micros(500));
                continue;
            }
            match self.rng.below(100) {
                0..70 => self.read_held(at),
                70..99 => {
                    let many = 1 + self.rng.below(4) as usize;
                    self.ask_some(many);
                }
                _ => std::thread::sleep(Duration::from_millis(self.rng.below(20))),
            }
            std::thread::sleep(Duration::from_micros(self.rng.below(150)));
        }
    }

    fn any_key(&mut self) -> Key {
        let kind = Kind::any(&mut self.rng);
        let register = self.world.pick(&mut self.rng, kind);
        (register, self.rng.below(self.world.registers[register].keys.len() as u64) as u8)
    }

    /// Uses something that it holds, having looked at what came until `at`.
    fn read_held(&mut self, at: Micros) {
        let key = self.any_key();
        if let Some(&Some(number)) = self.held.get(&key) {
            self.steps.push(Step::Held { register: key.0, number, at });
        }
    }

    /// Sends some reads and, mostly, waits for their replies.
    fn ask_some(&mut self, many: usize) {
        let mut bytes = Vec::new();
        for _ in 0..many {
            let keeps = self.way != Way::OptIn || self.rng.below(2) == 0;
            if self.rng.below(20) == 0 {
                self.push(&mut bytes, &["SET", "mine", "x"], Asked::Nothing);
            }
            if keeps && self.way == Way::OptIn {
                self.push(&mut bytes, &["CLIENT", "CACHING", "YES"], Asked::Nothing);
            }
            let (key, other) = (self.any_key(), self.any_key());
            let name = |(register, part): Key| self.world.registers[register].keys[part as usize].as_str();
            let (one, two) = (name(key), name(other));
            let form = self.rng.below(100);
            let keys = if (60..85).contains(&form) { vec![key, other] } else { vec![key] };
            if keeps {
                // What was kept is asked for anew.
                for key in &keys {
                    self.held.remove(key);
                }
            }
            let asked = Asked::Read(keys.into_iter().map(|key| (key, true)).collect(), keeps);
            match form {
                0..50 => self.push(&mut bytes, &["GET", one], asked),
                50..60 => self.push(&mut bytes, &["GETRANGE", one, "0", "-1"], asked),
                60..85 => self.push(&mut bytes, &["MGET", one, two], asked),
                85..90 => self.push(&mut bytes, &["EVAL_RO", "return redis.call('GET', KEYS[1])", "1", one], asked),
                _ => {
                    self.push(&mut bytes, &["MULTI"], Asked::Nothing);
                    self.push(&mut bytes, &["GET", one], Asked::Nothing);
                    self.push(&mut bytes, &["EXEC"], asked);
                }
            }
        }
        if self.data.stream.write_all(&bytes).is_err() {
            return self.begin();
        }
        if self.rng.below(4) > 0 {
            self.settle();
        }
    }

    fn push(&mut self, bytes: &mut Vec<u8>, command: &[&str], asked: Asked) {
        encode::command(bytes, &command.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
        self.asked.push_back(asked);
    }

    /// Waits for every reply.
    fn settle(&mut self) {
        while !self.asked.is_empty() {
            match self.data.try_frame() {
                Ok(frame) => self.frame(&frame),
                Err(error) => {
                    assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "a hang");
                    return self.begin();
                }
            }
        }
    }

    /// Takes what is there.
    fn look(&mut self) {
        while let Some(mut told) = self.told.take_if(|told| told.has_more()) {
            let Ok(frame) = told.try_frame() else { return self.begin() };
            self.told = Some(told);
            self.hear(&frame);
        }
        while self.data.has_more() {
            match self.data.try_frame() {
                Ok(frame) => self.frame(&frame),
                Err(_) => return self.begin(),
            }
        }
    }

    fn frame(&mut self, frame: &[u8]) {
        if frame.starts_with(b">") {
            return self.hear(frame);
        }
        let asked = self.asked.pop_front().expect("a reply is to something");
        let Asked::Read(keys, keeps) = asked else { return };
        self.world.go_on(1);
        if !keeps {
            return;
        }
        let text = String::from_utf8_lossy(frame);
        let body = text.strip_prefix('*').and_then(|rest| rest.split_once("\r\n")).map_or(&*text, |(_, body)| body);
        let mut rest = body;
        for (key, good) in keys {
            let end = match rest.as_bytes().first() {
                Some(b'$') if !rest.starts_with("$-") => rest.match_indices("\r\n").nth(1),
                Some(b'$' | b'_') => rest.match_indices("\r\n").next(),
                // An error, or a transaction that was not run.
                _ => return,
            };
            let (element, after) = rest.split_at(end.map_or(rest.len(), |(at, _)| at + 2));
            rest = after;
            if let Ok(number) = number(element.as_bytes())
                && good
            {
                self.held.insert(key, number);
            }
        }
    }

    /// An invalidation, as a push or a message.
    fn hear(&mut self, frame: &[u8]) {
        let text = String::from_utf8_lossy(frame);
        if text.contains("tracking-redir-broken") {
            return self.forget();
        }
        let Some((_, what)) = text.split_once("invalidate\r\n") else { return };
        self.drops += 1;
        if what == "_\r\n" || what == "$-1\r\n" {
            self.held.clear();
            if self.told.is_some() {
                self.spoil(|_| true);
            }
            return;
        }
        for name in what.split("\r\n").skip(1).filter(|line| !line.starts_with('$')) {
            let Some(&key) = self.names.get(name) else { continue };
            self.held.remove(&key);
            if self.told.is_some() {
                self.spoil(|asked| asked == key);
            }
        }
    }

    /// When all is quiet and everything has been told: what it holds that Redis does not, and how much it holds.
    pub(crate) fn disagrees(&mut self, direct: &mut Client) -> (Vec<String>, usize) {
        // Those that have expired are told of as they are asked for.
        let names: Vec<(String, Key)> = self.names.iter().map(|(name, key)| (name.clone(), *key)).collect();
        let mut values: HashMap<Key, Option<u64>> = HashMap::new();
        for (name, key) in names {
            values.insert(key, number(&direct.ask(&["GET", &name])).expect("a number"));
        }
        let end = Instant::now() + Duration::from_secs(2);
        let mut wrong = vec![String::new()];
        while !wrong.is_empty() && Instant::now() < end {
            self.settle();
            self.look();
            let differs = self.held.iter().filter(|(key, held)| values[*key] != **held);
            wrong = differs
                .map(|(key, held)| format!("{:?}: {key:?} is {held:?}, not {:?}", self.way, values[key]))
                .collect();
            std::thread::sleep(Duration::from_millis(5));
        }
        (wrong, self.held.len())
    }
}
