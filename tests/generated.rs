//! C1 and C2 on sequences nobody thought of: several connections, few keys, random commands, in lock step with a Redis
//! that is asked directly.
//!
//! A failure prints its seed and the last steps; `ANTEROOM_TEST_SEED=<seed>` runs that sequence again.

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use support::{Client, Proxy, Redis};

const CONNECTIONS: usize = 4;
/// What a failure shows of what went before it.
const HISTORY: usize = 40;
/// Replies that memory is to have part in, at least.
const HITS_WANTED: u64 = 50;
/// How many times as many steps may be made until it has.
const STRETCH_MAX: usize = 10;

/// xorshift64*: good enough to wander, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

/// Words that begin with `$` are replaced: a key, an integer, a small integer, a member, a field, a value.
/// Sets hold integers only, so that Redis keeps them sorted and every order is the same on both servers.
const READS: &[&str] = &[
    "GET $k",
    "GET $k",
    "GET $k",
    "GET $k",
    "STRLEN $k",
    "GETRANGE $k 0 $i",
    "SUBSTR $k 0 2",
    "MGET $k $k",
    "MGET $k $k $k",
    "EXISTS $k",
    "EXISTS $k $k",
    "TYPE $k",
    "GETBIT $k $i",
    "BITCOUNT $k",
    "BITPOS $k 1",
    "LLEN $k",
    "LRANGE $k 0 -1",
    "LINDEX $k $i",
    "LPOS $k $v",
    "SCARD $k",
    "SMEMBERS $k",
    "SISMEMBER $k $i",
    "SMISMEMBER $k $i $i",
    "HGET $k $f",
    "HGETALL $k",
    "HMGET $k $f $f",
    "HLEN $k",
    "HKEYS $k",
    "HVALS $k",
    "HEXISTS $k $f",
    "HSTRLEN $k $f",
    "ZCARD $k",
    "ZSCORE $k $f",
    "ZMSCORE $k $f $f",
    "ZRANGE $k 0 -1",
    "ZRANGE $k 0 -1 WITHSCORES",
    "ZRANK $k $f",
    "ZREVRANK $k $f",
    "ZRANGEBYSCORE $k -inf +inf WITHSCORES",
    "ZCOUNT $k 0 5",
    "ZREVRANGE $k 0 -1 WITHSCORES",
    "XLEN $k",
    "XRANGE $k - +",
    "XREVRANGE $k + - COUNT 2",
    "SINTER $k $k",
    "SUNION $k",
    "ZUNION 2 $k $k WITHSCORES",
    "TTL $k",
    "PTTL nosuchkey",
    "EXPIRETIME $k",
    "OBJECT ENCODING $k",
    "DUMP $k",
    "DBSIZE",
    "SORT_RO $k ALPHA",
    "GETEX $k",
    "PFCOUNT $k",
    "BITFIELD_RO $k GET u8 0",
    "GEOPOS $k $f",
    "GEOHASH $k $f",
    "LCS $k $k",
    "GET",
    "GET $k $k",
    "HGET $k",
    "NOSUCH $k",
    "EVAL_RO return{redis.call('TYPE',KEYS[1])} 1 $k",
    "EVAL return{redis.call('EXISTS',KEYS[1]),ARGV[1]} 1 $k $v",
    "HRANDFIELD nosuchkey",
    "ECHO $v",
    "PING",
    "SCAN 0 MATCH nomatch COUNT 100",
];

const WRITES: &[&str] = &[
    "SET $k $v",
    "SET $k $v",
    "SET $k $v",
    "SET $k $i",
    "SET $k $v NX",
    "SET $k $v XX",
    "SET $k $v GET",
    "SET $k $v EX 10000",
    "SETNX $k $v",
    "MSET $k $v $k $v",
    "MSETNX $k $v $k $v",
    "APPEND $k $v",
    "SETRANGE $k $i $v",
    "INCR $k",
    "INCRBY $k $i",
    "DECR $k",
    "INCRBYFLOAT $k 1.5",
    "GETSET $k $v",
    "GETDEL $k",
    "GETEX $k PERSIST",
    "GETEX $k EXAT 33177117420",
    "SETBIT $k $i 1",
    "BITFIELD $k INCRBY u8 0 10",
    "BITOP NOT $k $k",
    "DEL $k",
    "DEL $k",
    "DEL $k $k",
    "UNLINK $k",
    "RENAME $k $k",
    "RENAMENX $k $k",
    "COPY $k $k",
    "COPY $k $k REPLACE",
    "COPY $k $k DB 1",
    "MOVE $k 1",
    "EXPIREAT $k 33177117420",
    "PERSIST $k",
    "PEXPIREAT $k 1",
    "EXPIRE $k -1",
    "RPUSH $k $v",
    "LPUSH $k $v $v",
    "LPOP $k",
    "RPOP $k 2",
    "LSET $k 0 $v",
    "LREM $k 0 $v",
    "LTRIM $k 0 1",
    "LINSERT $k BEFORE $v $v",
    "LMOVE $k $k LEFT RIGHT",
    "LMPOP 2 $k $k LEFT",
    "SADD $k $i $i",
    "SREM $k $i",
    "SMOVE $k $k $i",
    "SINTERSTORE $k $k $k",
    "SUNIONSTORE $k $k $k",
    "HSET $k $f $v",
    "HSET $k $f $v $f $v",
    "HDEL $k $f",
    "HINCRBY $k $f 1",
    "HSETNX $k $f $v",
    "ZADD $k $i $f",
    "ZADD $k $i $f 1.5 $f",
    "ZINCRBY $k 0.5 $f",
    "ZREM $k $f",
    "ZPOPMIN $k",
    "ZRANGESTORE $k $k 0 -1",
    "ZUNIONSTORE $k 2 $k $k",
    "ZREMRANGEBYRANK $k 0 0",
    "GEOADD $k 1.$i 2 $f",
    "PFADD $k $v",
    "PFMERGE $k $k",
    "SORT $k ALPHA STORE $k",
    "XADD $k 9-* $f $v",
    "XTRIM $k MAXLEN 3",
    "BLPOP $k 0.001",
    "BLMOVE $k $k LEFT RIGHT 0.001",
    "BZPOPMIN $k 0.001",
    "EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 $k $v",
    "EVAL return(redis.call('DEL','{$k}')) 0",
    "EVAL return(redis.call('INCR',KEYS[1])) 1 $k",
    "EVAL return(redis.call('SET','k0',ARGV[1])) 0 $v",
    "FLUSHDB",
];

const STATE: &[&str] = &[
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH $k",
    "WATCH $k $k",
    "UNWATCH",
    "SELECT 0",
    "SELECT 1",
    "SELECT 0",
    "SELECT 99",
    "SWAPDB 0 1",
    "RESET",
    "FLUSHALL",
];

/// One command; `queued` says that the connection is in a transaction, which is not to last for ever.
fn generate(random: &mut Random, queued: bool) -> Vec<String> {
    // Mostly reads, so that there is something to serve from memory.
    let template = match random.below(100) {
        0..=19 if queued => "EXEC",
        0..=69 => random.one_of(READS),
        70..=93 => random.one_of(WRITES),
        _ => random.one_of(STATE),
    };
    let word = |word: &str, random: &mut Random| match word.find('$') {
        Some(at) if word.len() > at + 1 => {
            let with = match word.as_bytes()[at + 1] {
                b'k' => random.one_of(&["k0", "k0", "k1", "k2", "k3", "k\r\n4"]).to_owned(),
                b'i' => random.below(9).to_string(),
                b'f' => random.one_of(&["f", "g", "h", ""]).to_owned(),
                _ => random
                    .one_of(&[
                        "",
                        "1",
                        "a",
                        "b",
                        "\r\n$-1\r\n",
                        "0123456789",
                        "{40 bytes, past no small encoding's limit}",
                    ])
                    .to_owned(),
            };
            word[..at].to_owned() + &with + &word[at + 2..]
        }
        _ => word.to_owned(),
    };
    template.split(' ').map(|w| word(w, random)).collect()
}

fn seeds() -> Vec<u64> {
    if let Ok(seed) = std::env::var("ANTEROOM_TEST_SEED") {
        return vec![seed.parse().expect("ANTEROOM_TEST_SEED is a number")];
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    vec![1, 2, now | 1]
}

/// Whether these are the same reply. Redis rounds what is left of a key's time to seconds: asked a moment later it may say one more or less.
fn is_same(request: &[String], a: &[u8], b: &[u8]) -> bool {
    // The times to live that are set here are greater than other numbers.
    let seconds = |line: &[u8]| -> Option<i64> {
        let number = std::str::from_utf8(line.strip_prefix(b":")?).ok()?.trim_end().parse::<i64>().ok()?;
        (number > 9000).then_some(number)
    };
    let is_about =
        |a: &[u8], b: &[u8]| a == b || matches!((seconds(a), seconds(b)), (Some(a), Some(b)) if a.abs_diff(b) == 1);
    if !matches!(&*request[0], "TTL" | "EXPIRETIME" | "EXEC") {
        return a == b;
    }
    let is_end = |byte: &u8| *byte == b'\n';
    let (lines_a, lines_b): (Vec<_>, Vec<_>) = (a.split(is_end).collect(), b.split(is_end).collect());
    lines_a.len() == lines_b.len() && lines_a.iter().zip(lines_b).all(|(a, b)| is_about(a, b))
}

/// One connection to each server, in the same state.
struct Both {
    direct: Client,
    proxied: Client,
    /// In a transaction, as far as the last reply tells.
    queued: bool,
}

fn run(seed: u64, steps: usize, pipeline_max: usize) {
    let (direct, behind) = (Redis::start(), Redis::start());
    let proxy = Proxy::armed(&behind);
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut connections: Vec<Both> = (0..CONNECTIONS)
        .map(|n| {
            let mut both = Both { direct: direct.client(), proxied: proxy.client(), queued: false };
            if n % 2 == 1 {
                both.direct.ask(&["HELLO", "3"]);
                both.proxied.ask(&["HELLO", "3"]);
            }
            both
        })
        .collect();
    let mut history: Vec<String> = Vec::new();
    let mut compared = 0;
    let mut last: Vec<Vec<String>> = Vec::new();
    let (mut done, mut hits) = (0, 0);
    while done < steps || hits <= HITS_WANTED {
        if done >= steps && done % steps == 0 {
            hits = proxy.count("anteroom_cache_hits");
            // How many of the reads memory can answer is chance; that it answers none of so many is not.
            assert!(done < STRETCH_MAX * steps || hits > HITS_WANTED, "memory hardly took part: {hits} hits");
        }
        done += 1;
        let n = random.below(CONNECTIONS);
        // The same again, often from another connection: that is what memory is for.
        let again = !last.is_empty() && random.below(3) > 0;
        let batch = if again {
            last.clone()
        } else {
            (0..1 + random.below(pipeline_max)).map(|_| generate(&mut random, connections[n].queued)).collect()
        };
        let mut bytes = Vec::new();
        for request in &batch {
            let words: Vec<&[u8]> = request.iter().map(String::as_bytes).collect();
            anteroom::resp::encode::command(&mut bytes, &words);
        }
        let both = &mut connections[n];
        both.direct.send_raw(&bytes);
        both.proxied.send_raw(&bytes);
        for request in &batch {
            let (a, b) = (both.direct.frame(), both.proxied.try_frame());
            let b = b.unwrap_or_else(|e| format!("no reply: {e}").into_bytes());
            history.push(format!("{n}: {:?} -> {}", request.join(" "), a.escape_ascii()));
            assert!(
                is_same(request, &a, &b),
                "seed {seed}, at most {pipeline_max} in a pipeline: the proxy answered {}\nafter (connection: command -> Redis's reply)\n{}",
                b.escape_ascii(),
                history[history.len().saturating_sub(HISTORY)..].join("\n")
            );
            both.queued = a == b"+QUEUED\r\n";
            compared += 1;
        }
        let reads = |request: &Vec<String>| READS.iter().any(|read| read.split(' ').next() == Some(&*request[0]));
        last = if batch.iter().all(reads) { batch } else { Vec::new() };
        if history.len() > 10 * HISTORY {
            history.drain(..9 * HISTORY);
        }
    }
    println!("seed {seed}, pipelines up to {pipeline_max}: {compared} replies compared, {hits} hits");
}

#[test]
fn random_commands_one_at_a_time_answer_as_redis_does() {
    seeds().into_iter().for_each(|seed| run(seed, 6000, 1));
}

#[test]
fn random_pipelines_answer_as_redis_does() {
    seeds().into_iter().for_each(|seed| run(seed, 3000, 6));
}
