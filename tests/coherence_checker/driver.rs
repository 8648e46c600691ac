//! One client at work: what it asks, and what it notes of the answers.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anteroom::resp::encode;

use super::history::{Micros, Register, Step, Via, Write};
use super::support::Client;
use super::upstream::Upstream;
use super::world::{Kind, Rng, World};

type Command = Vec<String>;

/// Errors that what goes wrong explains.
const EXPECTED: [&str; 5] = ["-ERR anteroom: upstream", "-ERR no such key", "-READONLY ", "-LOADING ", "-EXECABORT "];
/// A pause, so that a moment of failures is not most of what is seen.
const AFTER_FAILURE: Duration = Duration::from_millis(2);

/// A reply, and when it came.
type Timed = (Vec<u8>, Micros);

/// What a write turned out to be.
enum Outcome {
    Done,
    /// It never left the proxy.
    Refused,
    Unknown,
}

/// Where a client connects.
#[derive(Clone, Copy)]
pub(crate) enum Door<'w> {
    Proxy(u8, SocketAddr),
    Redis(&'w Upstream),
}

impl Door<'_> {
    fn connect(self) -> Client {
        match self {
            Self::Proxy(_, addr) => Client::connect(addr),
            Self::Redis(upstream) => upstream.client(),
        }
    }

    fn via(self) -> Via {
        match self {
            Self::Proxy(number, _) => Via::Proxy(number),
            Self::Redis(_) => Via::Beside,
        }
    }

    fn moves(self) -> usize {
        match self {
            Self::Proxy(..) => 0,
            Self::Redis(upstream) => upstream.moves(),
        }
    }
}

pub(crate) struct Driver<'w> {
    world: &'w World,
    client: Client,
    door: Door<'w>,
    /// How often the primary had moved when it connected.
    moves: usize,
    resp3: bool,
    rng: Rng,
    pub(crate) steps: Vec<Step>,
}

fn words(command: &[&str]) -> Command {
    command.iter().map(|word| (*word).to_owned()).collect()
}

impl<'w> Driver<'w> {
    pub(crate) fn new(world: &'w World, door: Door<'w>, seed: u64) -> Self {
        // Of each proxy's clients some speak RESP3 and some RESP2.
        let resp3 = (seed / 2).is_multiple_of(2) && matches!(door, Door::Proxy(..));
        let (moves, client) = (door.moves(), door.connect());
        let mut driver = Self { world, client, door, moves, resp3, rng: Rng::new(seed), steps: Vec::new() };
        driver.greet();
        driver
    }

    fn greet(&mut self) {
        if self.resp3 {
            self.client.ask(&["HELLO", "3"]);
        }
    }

    fn reconnect(&mut self) {
        (self.moves, self.client) = (self.door.moves(), self.door.connect());
        self.greet();
        self.steps.push(Step::Reconnected);
    }

    /// A client of the proxy: mostly reads, of every form, until enough has been done.
    pub(crate) fn run(mut self) -> Vec<Step> {
        loop {
            let done = match self.rng.below(1000) {
                0..500 => self.read_some(1),
                500..700 => self.read_some(8),
                700..800 => self.read_all(),
                800..830 => self.read_around_watch(),
                830..850 => self.write(Kind::Solo),
                850..870 => self.write(Kind::Timed),
                870..890 => self.write(Kind::Triple),
                890..930 => self.read_write_read(),
                930..975 => self.increment(),
                975..996 => self.increment_watched(),
                _ => {
                    self.reconnect();
                    1
                }
            };
            if !self.world.go_on(done) {
                return self.steps;
            }
        }
    }

    /// A writer that bypasses the proxy, now and then.
    pub(crate) fn run_foreign(mut self) {
        loop {
            let done = match self.rng.below(10) {
                0..5 => self.write(Kind::Solo),
                5..7 => self.write(Kind::Triple),
                _ => self.increment(),
            };
            if !self.world.go_on(done) {
                return;
            }
            std::thread::sleep(Duration::from_micros(self.rng.below(3000)));
        }
    }

    /// Sends these in one write. `None` if the connection was lost; then there is a new one.
    fn exchange(&mut self, commands: &[Command]) -> Option<(Micros, Vec<Timed>)> {
        // Nothing moves while anyone writes, and who does not go through a proxy only writes.
        if self.door.moves() != self.moves {
            self.reconnect();
        }
        let mut bytes = Vec::new();
        for command in commands {
            encode::command(&mut bytes, &command.iter().map(String::as_bytes).collect::<Vec<_>>());
        }
        let called = self.world.epoch.now();
        let mut replies = Vec::new();
        let mut fine = self.client.stream.write_all(&bytes).is_ok();
        while fine && replies.len() < commands.len() {
            match self.client.try_frame() {
                Ok(frame) => replies.push((frame, self.world.epoch.now())),
                Err(error) => {
                    assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "a hang: {commands:?}");
                    fine = false;
                }
            }
        }
        for (reply, _) in &replies {
            if reply.starts_with(b"-") {
                let text = String::from_utf8_lossy(reply);
                assert!(EXPECTED.iter().any(|known| text.starts_with(known)), "{commands:?} was answered {text:?}");
                self.world.failures.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(AFTER_FAILURE);
            }
        }
        if !fine {
            self.world.failures.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(AFTER_FAILURE);
            self.reconnect();
            return None;
        }
        Some((called, replies))
    }

    fn note_read(&mut self, register: Register, key: usize, reply: &[u8], called: Micros, over: Micros) {
        if let Ok(number) = number(reply) {
            self.steps.push(Step::Read { register, key: key as u8, number, called, over });
        }
    }

    fn any_key(&mut self) -> (Register, usize) {
        let kind = Kind::any(&mut self.rng);
        let register = self.world.pick(&mut self.rng, kind);
        let keys = self.world.registers[register].keys.len() as u64;
        (register, self.rng.below(keys) as usize)
    }

    fn read_command(&mut self, register: Register, key: usize) -> Command {
        let is_timed = self.world.registers[register].kind == Kind::Timed;
        let key = self.world.registers[register].keys[key].as_str();
        match self.rng.below(100) {
            // Under a policy `ttl` different questions about a key may have answers of different ages.
            85..96 if is_timed => words(&["GET", key]),
            0..85 => words(&["GET", key]),
            85..92 => words(&["GETRANGE", key, "0", "-1"]),
            92..96 => words(&["substr", key, "0", "-1"]),
            96..98 => words(&["GETEX", key]),
            _ => words(&["EVAL_RO", "return redis.call('GET', KEYS[1])", "1", key]),
        }
    }

    fn read_some(&mut self, many: usize) -> usize {
        let keys: Vec<_> = (0..many).map(|_| self.any_key()).collect();
        let commands: Vec<_> = keys.iter().map(|&(register, key)| self.read_command(register, key)).collect();
        if let Some((called, replies)) = self.exchange(&commands) {
            for ((register, key), (reply, over)) in keys.into_iter().zip(replies) {
                self.note_read(register, key, &reply, called, over);
            }
        }
        many
    }

    /// An MGET of a whole triple and another key; the triple must be of one piece.
    fn read_all(&mut self) -> usize {
        let triple = self.world.pick(&mut self.rng, Kind::Triple);
        let (other, other_key) = self.any_key();
        let mut command = words(&["MGET"]);
        command.extend(self.world.registers[triple].keys.iter().cloned());
        command.push(self.world.registers[other].keys[other_key].clone());
        let Some((called, replies)) = self.exchange(&[command]) else { return 1 };
        let (reply, over) = &replies[0];
        let Some(elements) = elements(reply) else { return 1 };
        assert!(elements[0] == elements[1] && elements[1] == elements[2], "torn: {}", String::from_utf8_lossy(reply));
        for (key, element) in elements[..3].iter().enumerate() {
            self.note_read(triple, key, element, called, *over);
        }
        self.note_read(other, other_key, &elements[3], called, *over);
        1
    }

    /// What was read while watching must not be newer than what is read afterwards.
    fn read_around_watch(&mut self) -> usize {
        let (register, key) = self.any_key();
        let name = self.world.registers[register].keys[key].clone();
        let read = words(&["GET", &name]);
        // Who watches keeps its connection when the servers change places, and would go on reading from the demoted one.
        let world = self.world;
        let _no_move = world.flushes.read().unwrap_or_else(PoisonError::into_inner);
        let Some(_) = self.exchange(&[words(&["WATCH", &name])]) else { return 1 };
        for command in [read.clone(), words(&["UNWATCH"]), read] {
            let Some((called, replies)) = self.exchange(&[command]) else { return 1 };
            // UNWATCH's is no number.
            self.note_read(register, key, &replies[0].0, called, replies[0].1);
        }
        4
    }

    /// The commands that write `number`, or make the register absent, and how long it then lives.
    fn writing(&mut self, register: Register, number: u64) -> (Vec<Command>, bool, Option<Micros>) {
        let entry = &self.world.registers[register];
        let value = format!("{number:010}");
        let key = entry.keys[0].as_str();
        let with_keys = |first: &[&str]| {
            let mut command = words(first);
            command.extend(entry.keys.iter().cloned());
            command
        };
        let pairs = |first: &str| {
            let mut command = words(&[first]);
            entry.keys.iter().for_each(|key| command.extend([key.clone(), value.clone()]));
            command
        };
        let count = entry.keys.len().to_string();
        let declared = "for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[1]) end return 1";
        let undeclared = "for i = 2, #ARGV do redis.call('SET', ARGV[i], ARGV[1]) end return 1";
        let mut ttl = None;
        let mut absent = false;
        let form = match self.rng.below(100) {
            // The same without a script.
            12..36 if !self.world.runs_scripts() => 40,
            form => form,
        };
        let commands = match (form, entry.kind) {
            (0..12, _) => {
                absent = true;
                vec![with_keys(&[if number.is_multiple_of(2) { "DEL" } else { "UNLINK" }])]
            }
            (12..24, _) => {
                let mut command = with_keys(&["EVAL", declared, &count]);
                command.push(value);
                vec![command]
            }
            (24..36, _) => vec![with_keys(&["EVAL", undeclared, "0", &value])],
            (36..50, _) => {
                let mut commands = vec![words(&["MULTI"])];
                commands.extend(entry.keys.iter().map(|key| words(&["SET", key, &value])));
                commands.push(words(&["EXEC"]));
                commands
            }
            (_, Kind::Triple) => vec![pairs("MSET")],
            (50..70, Kind::Solo | Kind::Timed) => {
                // What ends a timed key's time otherwise is not far off.
                let ms = if entry.kind == Kind::Timed { 5 + self.rng.below(40) } else { 20 + self.rng.below(150) };
                ttl = Some(ms * 1000);
                vec![words(&["SET", key, &value, "PX", &ms.to_string()])]
            }
            (70..75, _) => {
                // Written under another name first: nobody reads that one.
                let draft = format!("{key}:draft:{number}");
                vec![words(&["SET", &draft, &value]), words(&["RENAME", &draft, key])]
            }
            (75..80, _) => vec![words(&["GETSET", key, &value])],
            _ => vec![words(&["SET", key, &value])],
        };
        (commands, absent, ttl)
    }

    fn write(&mut self, kind: Kind) -> usize {
        let register = self.world.pick(&mut self.rng, kind);
        self.write_between(register, &[], &[])
    }

    /// GET, a write and GET of one key, in one write to the socket.
    fn read_write_read(&mut self) -> usize {
        let kind = [Kind::Solo, Kind::Triple, Kind::Timed][self.rng.below(3) as usize];
        let register = self.world.pick(&mut self.rng, kind);
        self.write_between(register, &[0], &[0, 0])
    }

    fn write_between(&mut self, register: Register, before: &[usize], after: &[usize]) -> usize {
        let world = self.world;
        let _flush = world.flushes.read().unwrap_or_else(PoisonError::into_inner);
        let mut held = world.registers[register].held.lock().unwrap_or_else(PoisonError::into_inner);
        let number = held.next;
        held.next += 1;
        let (writing, absent, ttl) = self.writing(register, number);
        let reads_before: Vec<_> = before.iter().map(|&key| self.read_command(register, key)).collect();
        let reads_after: Vec<_> = after.iter().map(|&key| self.read_command(register, key)).collect();
        let (first, last) = (reads_before.len(), reads_before.len() + writing.len() - 1);
        let commands = [reads_before, writing, reads_after].concat();
        let asked = world.epoch.now();
        let exchanged = self.exchange(&commands);
        let (called, outcome, over) = match &exchanged {
            Some((called, replies)) => (*called, outcome(&replies[first..=last]), replies[last].1),
            None => (asked, Outcome::Unknown, world.epoch.now()),
        };
        let certain = matches!(outcome, Outcome::Done);
        if !matches!(outcome, Outcome::Refused) {
            held.written.writes.push(Write { number, absent, ttl, called, over, via: self.door.via(), certain });
        }
        drop(held);
        if let Some((called, replies)) = exchanged {
            for (at, (reply, over)) in replies.iter().enumerate() {
                if at < first {
                    assert!(super::driver::number(reply) != Ok(Some(number)), "a read saw the write that follows it");
                    self.note_read(register, before[at], reply, called, *over);
                } else if at == last && certain {
                    self.steps.push(Step::Wrote { register, number });
                } else if at > last {
                    self.note_read(register, after[at - last - 1], reply, called, *over);
                }
            }
        }
        commands.len()
    }

    fn increment(&mut self) -> usize {
        let world = self.world;
        let _flush = world.flushes.read().unwrap_or_else(PoisonError::into_inner);
        let register = world.pick(&mut self.rng, Kind::Counter);
        let key = world.registers[register].keys[0].as_str();
        let commands = match self.rng.below(4) {
            0 if world.runs_scripts() => vec![words(&["EVAL", "return redis.call('INCR', ARGV[1])", "0", key])],
            0 | 1 => vec![words(&["MULTI"]), words(&["INCR", key]), words(&["EXEC"])],
            _ => vec![words(&["INCR", key])],
        };
        let Some((called, replies)) = self.exchange(&commands) else {
            world.note_unknown(register);
            return 1;
        };
        let (reply, over) = &replies[replies.len() - 1];
        let text = String::from_utf8_lossy(reply);
        match text.trim_start_matches("*1\r\n").strip_prefix(':').and_then(|n| n.trim_end().parse().ok()) {
            Some(number) => self.counted(register, number, called, *over),
            None if matches!(outcome(&replies), Outcome::Unknown) => world.note_unknown(register),
            None => {}
        }
        commands.len()
    }

    fn counted(&mut self, register: Register, number: u64, called: Micros, over: Micros) {
        let write = Write { number, absent: false, ttl: None, called, over, via: self.door.via(), certain: true };
        self.world.note(register, write);
        self.steps.push(Step::Wrote { register, number });
    }

    /// Optimistic locking. If its read had come from memory, two clients would write the same number.
    fn increment_watched(&mut self) -> usize {
        let world = self.world;
        let _flush = world.flushes.read().unwrap_or_else(PoisonError::into_inner);
        let register = world.pick(&mut self.rng, Kind::Counter);
        let key = world.registers[register].keys[0].clone();
        let Some(_) = self.exchange(&[words(&["WATCH", &key])]) else { return 1 };
        let Some((called, replies)) = self.exchange(&[words(&["GET", &key])]) else { return 1 };
        self.note_read(register, 0, &replies[0].0, called, replies[0].1);
        let Ok(Some(seen)) = number(&replies[0].0) else {
            self.exchange(&[words(&["UNWATCH"])]);
            return 3;
        };
        let number = seen + 1;
        let transaction = [words(&["MULTI"]), words(&["SET", &key, &number.to_string()]), words(&["EXEC"])];
        match self.exchange(&transaction) {
            Some((called, replies)) => match &replies[2] {
                (reply, over) if reply.starts_with(b"*1\r\n+OK") => self.counted(register, number, called, *over),
                (reply, _) if reply.starts_with(b"-") => world.note_unknown(register),
                // Someone else was faster.
                _ => {}
            },
            None => world.note_unknown(register),
        }
        5
    }
}

fn outcome(replies: &[(Vec<u8>, Micros)]) -> Outcome {
    let refused = |reply: &[u8]| {
        let text = String::from_utf8_lossy(reply);
        text.contains("upstream unavailable") || text.starts_with("-READONLY ") || text.starts_with("-LOADING ")
    };
    if replies.iter().all(|(reply, _)| !reply.starts_with(b"-")) {
        Outcome::Done
    } else if replies.iter().all(|(reply, _)| refused(reply)) {
        Outcome::Refused
    } else {
        Outcome::Unknown
    }
}

/// The number in a bulk string; none if it is null or empty; an error if it is anything else.
pub(crate) fn number(reply: &[u8]) -> Result<Option<u64>, ()> {
    let text = std::str::from_utf8(reply).map_err(drop)?;
    if matches!(text, "_\r\n" | "$-1\r\n" | "$0\r\n\r\n") {
        return Ok(None);
    }
    let body = text.strip_prefix('$').and_then(|t| t.split("\r\n").nth(1)).ok_or(())?;
    body.parse().map(Some).map_err(drop)
}

/// The elements of an array of short strings and nulls, as frames.
fn elements(reply: &[u8]) -> Option<Vec<Vec<u8>>> {
    let text = std::str::from_utf8(reply).ok()?;
    let mut lines = text.strip_prefix('*')?.split_terminator("\r\n").skip(1);
    let mut found = Vec::new();
    while let Some(head) = lines.next() {
        let null = matches!(head, "_" | "$-1");
        let body = if null { String::new() } else { format!("{}\r\n", lines.next()?) };
        found.push(format!("{head}\r\n{body}").into_bytes());
    }
    Some(found)
}
