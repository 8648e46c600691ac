//! What is asked: the operation, the size of its values, how many keys there are and how they are chosen.
//!
//! All keys of a workload hold the same value, so that there is one right reply to each kind of request. It is learned from
//! Redis itself; the generator then compares every byte of every reply of every contender with it.

use std::net::SocketAddr;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::ask::{Ask, Request, encode};
use crate::load::Batch;

/// The most requests prepared for one measurement, and the most bytes they may take; they are sent round and round.
const PREPARED_MAX: usize = 1 << 20;
const PREPARED_MAX_BYTES: usize = 48 << 20;
/// The exponent of the mixes' Zipf distribution: that of YCSB.
const MIX_EXPONENT: f64 = 0.99;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// GET.
    Get,
    /// SET to the value the key has already.
    Set,
    /// HGETALL of a hash of 20 fields.
    HashGetAll,
    /// LRANGE 0 99 of a list of 100.
    ListRange,
    /// ZREVRANGE 0 9 WITHSCORES of a sorted set of 1,000.
    TopTen,
    /// MGET of 10 keys.
    MultiGet,
    /// GET and SET, so many of a hundred being GET.
    Mix(u8),
}

/// One workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What requests do.
    pub operation: Operation,
    /// The size of one value (of GET, SET and MGET), in bytes.
    pub value_bytes: usize,
    /// How many keys there are.
    pub keys: usize,
}

impl Workload {
    /// Over 1,000 keys, as in the design's reference figures, or as many as suit the operation.
    pub fn new(operation: Operation, value_bytes: usize) -> Workload {
        let keys = match operation {
            Operation::ListRange | Operation::TopTen => 100,
            Operation::Mix(_) => 10_000,
            _ => 1000,
        };
        Workload { operation, value_bytes, keys }
    }

    /// For the table.
    pub fn name(&self) -> String {
        let size = match self.value_bytes {
            small @ ..1024 => format!("{small} B"),
            large => format!("{} KiB", large / 1024),
        };
        let keys = if self.keys >= 100_000 { format!(", {} keys", self.keys) } else { String::new() };
        match self.operation {
            Operation::Get => format!("GET {size}{keys}"),
            Operation::Set => format!("SET {size}"),
            Operation::HashGetAll => "HGETALL 20".to_owned(),
            Operation::ListRange => "LRANGE 0 99".to_owned(),
            Operation::TopTen => "ZREVRANGE 0 9 WITHSCORES".to_owned(),
            Operation::MultiGet => "MGET 10".to_owned(),
            Operation::Mix(reads) => format!("{reads}/{} GET/SET Zipf", 100 - reads),
        }
    }

    /// Whether the tier could answer all of it.
    pub fn only_reads(&self) -> bool {
        !matches!(self.operation, Operation::Set | Operation::Mix(_))
    }

    /// Whether the tier could answer none of it.
    pub fn only_writes(&self) -> bool {
        self.operation == Operation::Set
    }

    /// A name for the data, the same for workloads over the same data.
    pub fn data(&self) -> String {
        let kind = match self.operation {
            Operation::HashGetAll => "hash",
            Operation::ListRange => "list",
            Operation::TopTen => "zset",
            _ => "string",
        };
        format!("{kind}:{}:{}", self.value_bytes, self.keys)
    }

    /// Writes the data.
    pub fn populate(&self, redis: SocketAddr) {
        Ask::connect(redis).fill((0..self.keys).map(|key| self.write(key)));
    }

    /// The batches of `pipeline` requests that connections send in turn. `redis` has the data and tells the right replies.
    pub fn prepare(&self, redis: SocketAddr, pipeline: usize) -> Vec<Batch> {
        let mut random = StdRng::seed_from_u64(0x616e_7465);
        let request_bytes = if self.only_reads() { 64 } else { 64 + self.value_bytes };
        let requests = PREPARED_MAX.min(PREPARED_MAX_BYTES / request_bytes).min(self.keys * 64);
        let choose = Choice::new(self);
        let count = (requests / pipeline).max(4);
        self.batches(redis, pipeline, (0..count * pipeline).map(|_| choose.request(self, &mut random)))
    }

    /// Batches that read every key once, in order. MGET's keys are read by GET, which is what fills them.
    pub fn sweep(&self, redis: SocketAddr) -> Vec<Batch> {
        match self.operation {
            Operation::MultiGet => Workload { operation: Operation::Get, ..*self }.sweep(redis),
            _ => self.batches(redis, 32, (0..self.keys).map(|key| (self.read(key..key + 1), true))),
        }
    }

    fn batches(&self, redis: SocketAddr, size: usize, requests: impl Iterator<Item = (Request, bool)>) -> Vec<Batch> {
        let read_reply = if self.only_writes() { Vec::new() } else { self.right_reply(redis) };
        let mut whole: Vec<(Arc<[u8]>, usize)> = Vec::new();
        let mut batches = Vec::new();
        let mut requests = requests.peekable();
        while requests.peek().is_some() {
            let (mut request, mut reply, mut count) = (Vec::new(), Vec::new(), 0);
            for (one, is_read) in requests.by_ref().take(size) {
                encode(&mut request, &one);
                reply.extend_from_slice(if is_read { &read_reply } else { b"+OK\r\n" });
                count += 1;
            }
            // Batches whose replies look the same share them: large ones would otherwise fill the memory.
            let shared =
                whole.iter().find(|(known, of)| *of == count && **known == *reply).map(|(known, _)| known.clone());
            let reply = shared.unwrap_or_else(|| {
                let new: Arc<[u8]> = reply.into();
                whole.truncate(3);
                whole.push((new.clone(), count));
                new
            });
            batches.push(Batch { request: request.into(), reply, requests: count as u32 });
        }
        batches
    }

    fn right_reply(&self, redis: SocketAddr) -> Vec<u8> {
        let reply = Ask::connect(redis).all(&[self.read(0..10)]);
        assert!(!reply.starts_with(b"-") && !reply.starts_with(b"$-1"), "Redis has the data");
        reply
    }

    fn key(&self, index: usize) -> Vec<u8> {
        format!("{}:{index:08}", self.data()).into_bytes()
    }

    /// A read of the first of `keys`, or of all if it reads several.
    fn read(&self, mut keys: impl Iterator<Item = usize>) -> Request {
        let mut one = |words: [&str; 5]| {
            let key = self.key(keys.next().unwrap_or(0));
            let [command, rest @ ..] = words;
            let rest = rest.iter().filter(|word| !word.is_empty()).map(|word| word.as_bytes().to_vec());
            [command.as_bytes().to_vec(), key].into_iter().chain(rest).collect()
        };
        match self.operation {
            Operation::HashGetAll => one(["HGETALL", "", "", "", ""]),
            Operation::ListRange => one(["LRANGE", "0", "99", "", ""]),
            Operation::TopTen => one(["ZREVRANGE", "0", "9", "WITHSCORES", ""]),
            Operation::MultiGet => {
                [b"MGET".to_vec()].into_iter().chain(keys.take(10).map(|key| self.key(key))).collect()
            }
            Operation::Get | Operation::Set | Operation::Mix(_) => one(["GET", "", "", "", ""]),
        }
    }

    fn write(&self, key: usize) -> Request {
        let mut request: Vec<Vec<u8>> = vec![Vec::new(), self.key(key)];
        let command = match self.operation {
            Operation::HashGetAll => {
                request.extend((0..20).flat_map(|n| [format!("field:{n:02}").into(), format!("value:{n:010}").into()]));
                "HSET"
            }
            Operation::ListRange => {
                request.extend((0..100).map(|n| format!("item:{n:05}").into_bytes()));
                "RPUSH"
            }
            Operation::TopTen => {
                request.extend((0..1000).flat_map(|n| [(n * 7).to_string().into(), format!("member:{n:05}").into()]));
                "ZADD"
            }
            _ => {
                request.push(vec![b'x'; self.value_bytes]);
                "SET"
            }
        };
        request[0] = command.as_bytes().to_vec();
        request
    }
}

/// How keys are chosen.
enum Choice {
    Uniform,
    Zipf(Zipf<f64>),
}

impl Choice {
    fn new(workload: &Workload) -> Choice {
        match workload.operation {
            Operation::Mix(_) => {
                Choice::Zipf(Zipf::new(workload.keys as f64, MIX_EXPONENT).expect("more than one key"))
            }
            _ => Choice::Uniform,
        }
    }

    /// A request, and whether it is a read.
    fn request(&self, workload: &Workload, random: &mut impl Rng) -> (Request, bool) {
        let is_read = match workload.operation {
            Operation::Mix(reads) => random.random_range(0..100) < reads,
            operation => operation != Operation::Set,
        };
        if is_read {
            let keys: Vec<usize> = (0..10).map(|_| self.key(workload, random)).collect();
            (workload.read(keys.into_iter()), true)
        } else {
            (workload.write(self.key(workload, random)), false)
        }
    }

    fn key(&self, workload: &Workload, random: &mut impl Rng) -> usize {
        match self {
            Choice::Uniform => random.random_range(0..workload.keys),
            Choice::Zipf(zipf) => (zipf.sample(random) as usize).saturating_sub(1).min(workload.keys - 1),
        }
    }
}
