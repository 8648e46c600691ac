//! C1: what Redis answers is what the proxy answers, byte for byte.
//!
//! Two servers begin empty. One is asked directly, the other through the proxy, so that what writes do is compared by the
//! reads that follow. What the tier may answer is asked four times, so that later answers come from memory.
//!
//! Not in the corpus, and why: TIME, LASTSAVE, RANDOMKEY of many keys, CLIENT ID, CLIENT LIST and INFO of one's own
//! connection, MEMORY STATS, SLOWLOG GET, LATENCY HISTOGRAM, CLUSTER MYID, ACL GENPASS and ACL LOG (they differ between
//! two runs of Redis too); SHUTDOWN, SAVE, BGSAVE, BGREWRITEAOF, SYNC, PSYNC, MONITOR, REPLICAOF a host (they end or
//! change the server, or do not answer in replies). READONLY and READWRITE are acknowledged by design, and CLIENT inside
//! MULTI is refused: there it would speak of the dedicated connection.

#[path = "byte_identity/corpus.rs"]
mod corpus;
mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Shutdown;
use std::time::Duration;

use anteroom::command::{Command, Table};
use corpus::{Compare, Step, groups, same};
use support::{Client, Proxy, Redis, eventually};

/// How often what may come from memory is asked.
const REPEATS: usize = 4;

/// Redis asked directly, and Redis behind the proxy.
struct Pair {
    direct: Redis,
    behind: Redis,
    proxy: Proxy,
}

impl Pair {
    fn start() -> Self {
        // What counts as slow is the machine's affair.
        let quick = ["--slowlog-log-slower-than", "-1"];
        let (direct, behind) = (Redis::start_with(&quick), Redis::start_with(&quick));
        let proxy = Proxy::start(&behind);
        proxy.wait_armed();
        Self { direct, behind, proxy }
    }

    /// That a client has hung up is heard a moment later than by Redis itself: a PUBLISH may still count it.
    fn wait_until_nobody_listens(&self) {
        let mut redis = self.behind.client();
        let counts = [&["PUBSUB", "NUMSUB", "x"][..], &["PUBSUB", "SHARDNUMSUB", "x"], &["PUBSUB", "NUMPAT"]];
        eventually("nobody listens", || counts.iter().all(|count| redis.text(count).ends_with(":0\r\n")));
    }

    /// A client of each, of this protocol.
    fn clients(&self, protocol: u8) -> [Client; 2] {
        [self.direct.client(), self.proxy.client()].map(|mut client| {
            client.stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a sound timeout");
            if protocol == 3 {
                client.ask(&["HELLO", "3"]);
            }
            client
        })
    }
}

/// What did not match.
#[derive(Default)]
struct Differences {
    compared: usize,
    text: String,
    count: usize,
}

impl Differences {
    fn compare(&mut self, how: Compare, title: &str, line: &str, direct: &[u8], proxied: &[u8]) {
        self.compared += 1;
        let proxied = &without_the_proxies_channel(line, proxied);
        if !same(how, direct, proxied) {
            self.add(title, line, &format!("redis {}\n   proxy {}", show(direct), show(proxied)));
        }
    }

    fn add(&mut self, title: &str, line: &str, what: &str) {
        self.count += 1;
        if self.count <= 60 {
            let line: String = line.chars().take(120).collect();
            let _ = write!(self.text, "\n{title}: {line}\n   {what}");
        }
    }

    fn check(&self) {
        assert_eq!(self.count, 0, "{} of {} replies differ:{}", self.count, self.compared, self.text);
    }
}

/// The channel on which proxies talk shows in PUBSUB CHANNELS; README says so.
fn without_the_proxies_channel(line: &str, reply: &[u8]) -> Vec<u8> {
    const CHANNEL: &str = "$19\r\nanteroom:invalidate\r\n";
    let text = String::from_utf8_lossy(reply);
    let count: Option<usize> = text.strip_prefix('*').and_then(|rest| rest.split_once("\r\n")?.0.parse().ok());
    match count {
        Some(count) if line.to_ascii_uppercase().ends_with("PUBSUB CHANNELS") && text.contains(CHANNEL) => {
            let (_, channels) = text.split_once("\r\n").expect("there is a count");
            format!("*{}\r\n{}", count - 1, channels.replacen(CHANNEL, "", 1)).into_bytes()
        }
        _ => reply.to_vec(),
    }
}

fn show(frame: &[u8]) -> String {
    format!("\"{}\"", frame[..frame.len().min(300)].escape_ascii())
}

fn times(step: &Step) -> usize {
    if step.cacheable { REPEATS } else { 1 }
}

/// Runs the corpus in lock step. Returns how many replies were compared.
fn lockstep(protocol: u8) -> usize {
    let pair = Pair::start();
    let mut differences = Differences::default();
    for group in groups().iter().filter(|g| g.speaks(protocol)) {
        // What a group did to its server (REPLICAOF) may have cost the proxy its tracker, without which no client's read can be followed.
        pair.proxy.wait_armed();
        let mut connections = [pair.clients(protocol), pair.clients(protocol)];
        for client in &mut connections[0] {
            for reset in [&["FLUSHALL"][..], &["SCRIPT", "FLUSH"], &["FUNCTION", "FLUSH"]] {
                assert_eq!(client.text(reset), "+OK\r\n");
            }
        }
        'group: for step in &group.steps {
            let clients = &mut connections[step.connection];
            for _ in 0..times(step) {
                clients.iter_mut().for_each(|client| client.send_raw(&step.request));
                for _ in 0..step.frames {
                    let [direct, proxied] = clients.each_mut().map(Client::try_frame);
                    match (direct, proxied) {
                        (Ok(a), Ok(b)) => differences.compare(step.compare, &group.title, &step.line, &a, &b),
                        (a, b) => {
                            let told = [a, b].map(|r| r.map_or_else(|e| e.to_string(), |f| show(&f)));
                            differences.add(&group.title, &step.line, &format!("GAVE UP: {told:?}"));
                            break 'group;
                        }
                    }
                }
            }
        }
        // Nothing may be left over: a reply too many would shift every later one.
        for clients in &mut connections {
            clients.iter_mut().for_each(|client| client.send(&["PING", "the end"]));
            let [direct, proxied] = clients.each_mut().map(Client::try_frame);
            let told = [direct, proxied].map(|r| r.unwrap_or_else(|e| e.to_string().into_bytes()));
            differences.compare(Compare::Bytes, &group.title, "(the end)", &told[0], &told[1]);
        }
    }
    println!(
        "RESP{protocol}: {} replies compared, {} hits",
        differences.compared,
        pair.proxy.info("anteroom_cache_hits")
    );
    differences.check();
    assert!(pair.proxy.count("anteroom_cache_hits") > 500, "hardly anything came from memory");
    differences.compared
}

#[test]
fn every_command_answers_the_same_in_resp2_cold_and_from_memory() {
    assert!(lockstep(2) > 2000);
}

#[test]
fn every_command_answers_the_same_in_resp3_cold_and_from_memory() {
    assert!(lockstep(3) > 2000);
}

/// The whole corpus in one write to each.
fn pipelined(protocol: u8) {
    let pair = Pair::start();
    let groups = groups();
    let mut bytes = Vec::new();
    let mut expected: Vec<(&str, &str, Compare)> = Vec::new();
    let mut add = |request: &[u8], frames: usize, title, line, compare| {
        bytes.extend_from_slice(request);
        expected.extend(std::iter::repeat_n((title, line, compare), frames));
    };
    for group in groups.iter().filter(|g| g.speaks(protocol) && !g.lockstep_only) {
        let hello = format!("*2\r\n$5\r\nHELLO\r\n$1\r\n{protocol}\r\n");
        for (request, compare) in [
            ("*1\r\n$5\r\nRESET\r\n", Compare::Bytes),
            (&*hello, Compare::Digits),
            ("*1\r\n$8\r\nFLUSHALL\r\n", Compare::Bytes),
            ("*2\r\n$6\r\nSCRIPT\r\n$5\r\nFLUSH\r\n", Compare::Bytes),
            ("*2\r\n$8\r\nFUNCTION\r\n$5\r\nFLUSH\r\n", Compare::Bytes),
        ] {
            add(request.as_bytes(), 1, &group.title, "(begin)", compare);
        }
        for step in &group.steps {
            for _ in 0..times(step) {
                add(&step.request, step.frames, &group.title, &step.line, step.compare);
            }
        }
    }
    add(b"*1\r\n$5\r\nRESET\r\n*2\r\n$4\r\nECHO\r\n$3\r\nend\r\n", 2, "the end", "", Compare::Bytes);
    let mut differences = Differences::default();
    let mut clients = pair.clients(2);
    let writers = clients.each_ref().map(|client| {
        let (mut stream, bytes) = (client.stream.try_clone().expect("a socket"), bytes.clone());
        std::thread::spawn(move || stream.write_all(&bytes))
    });
    for (title, line, compare) in expected {
        let [direct, proxied] = clients.each_mut().map(Client::try_frame);
        match (direct, proxied) {
            (Ok(a), Ok(b)) => differences.compare(compare, title, line, &a, &b),
            (a, b) => {
                let told = [a, b].map(|r| r.map_or_else(|e| e.to_string(), |f| show(&f)));
                differences.add(title, line, &format!("GAVE UP: {told:?}"));
                break;
            }
        }
    }
    drop(clients);
    println!("RESP{protocol} in one pipeline: {} replies compared", differences.compared);
    differences.check();
    for writer in writers {
        writer.join().expect("it does not panic").expect("everything was sent");
    }
    assert!(differences.compared > 2000);
}

#[test]
fn the_whole_corpus_as_one_pipeline_answers_the_same_in_resp2() {
    pipelined(2);
}

#[test]
fn the_whole_corpus_as_one_pipeline_answers_the_same_in_resp3() {
    pipelined(3);
}

/// Commands that answer differently in two runs of Redis, that end or change the server, or that the README excepts.
const NOT_SWEPT: [&str; 36] = [
    "acl|genpass",
    "acl|log",
    "bgrewriteaof",
    "bgsave",
    "cl.throttle",
    "client|capa",
    "client|id",
    "client|info",
    "client|list",
    "client|maint_notifications",
    "client|no-touch",
    "client|setinfo",
    "cluster|myid",
    "command",
    "command|docs",
    "command|info",
    "command|list",
    "debug",
    "hello",
    "info",
    "lastsave",
    "latency|doctor",
    "latency|histogram",
    "lolwut",
    "memory|doctor",
    "memory|malloc-stats",
    "memory|stats",
    "monitor",
    "psync",
    "readonly",
    "readwrite",
    "save",
    "shutdown",
    "slowlog|get",
    "sync",
    "time",
];

#[test]
fn every_command_with_too_few_or_too_many_arguments_answers_the_same() {
    let pair = Pair::start();
    let mut differences = Differences::default();
    let ours = |command: &Command| command.since == Some("anteroom");
    for command in Table::builtin().iter().filter(|c| !ours(c) && !NOT_SWEPT.contains(&&*c.name)) {
        let words: Vec<&str> = command.name.split('|').collect();
        let subscribes = command.name.ends_with("subscribe");
        for extra in [0, 1, 2, 3, 40] {
            if subscribes && extra > 1 {
                continue;
            }
            // The same name in the three ways of writing it.
            let name = match extra % 3 {
                0 => words[0].to_uppercase(),
                1 => words[0].to_lowercase(),
                _ => words[0][..1].to_uppercase() + &words[0][1..],
            };
            let mut request = vec![&*name];
            request.extend(&words[1..]);
            request.extend(std::iter::repeat_n("x", extra));
            let line = request.join(" ");
            let told = pair.clients(2).map(|mut client| {
                client.send(&request);
                client.send(&["PING"]);
                // Up to the PING's own answer, so that a reply too many or too few shows.
                let mut all = Vec::new();
                while let Ok(frame) = client.try_frame() {
                    all.extend_from_slice(&frame);
                    if frame.ends_with(b"PONG\r\n") || frame.starts_with(b"*2\r\n$4\r\npong") || frame == b"+QUEUED\r\n"
                    {
                        break;
                    }
                }
                all
            });
            differences.compare(Compare::Bytes, "sweep", &line, &told[0], &told[1]);
            if subscribes {
                pair.wait_until_nobody_listens();
            }
        }
    }
    println!("sweep: {} replies compared", differences.compared);
    differences.check();
    assert!(differences.compared > 1500);
}

#[test]
fn raw_bytes_get_the_same_bytes_back_and_the_same_close() {
    let cases: Vec<Vec<u8>> = [
        &b"PING\r\n"[..],
        b"PING\n",
        b"  PING   hello  \r\n",
        b"SET \"a b\" 'c d'\r\nGET \"a b\"\r\n",
        b"SET k \"\\x41\\n\\r\\t\\\"\"\r\nGET k\r\nGET 'k'\r\n",
        b"ECHO 'it\\'s'\r\n",
        b"\r\n\r\nPING\r\n",
        b"SET k \"unbalanced\r\n",
        b"SET k 'unbalanced\r\nPING\r\n",
        b"ECHO \"a\"b\r\nPING\r\n",
        b"ping\0\r\n",
        b"*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n",
        b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n",
        b"*+1\r\n$4\r\nPING\r\n",
        b"*01\r\n$4\r\nPING\r\n",
        b"*1\r\n$04\r\nPING\r\n",
        b"*1\r\n$+4\r\nPING\r\n",
        b"*1\r\n$ 4\r\nPING\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$\r\n",
        b"*\r\nPING\r\n",
        b"*1\r\n:5\r\n",
        b"*1\r\n+PING\r\n",
        b"*1\r\n*1\r\n$4\r\nPING\r\n",
        b"*2147483648\r\n",
        b"*1\r\n$536870913\r\n",
        b"*x\r\n",
        b"*1 \r\n$4\r\nPING\r\n",
        b"*1\r\n$4x\r\nPING\r\n",
        b"*1\r\n$4\r\nPING\r\n*1\r\n$x\r\n*1\r\n$4\r\nPING\r\n",
        b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n",
        b"*1\r\n$0\r\n\r\nPING\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"post x\r\n",
        b"host: x\r\n",
        b"*1\r\n$4\r\nPOST\r\n*1\r\n$4\r\nPING\r\n",
        b"QUIT\r\nPING\r\n",
        b"*1\r\n$4\r\nQUIT\r\n*1\r\n$4\r\nPING\r\n",
        b"quit now please\r\nPING\r\n",
        b"SET q 1\r\nINCR q\r\nGET q\r\nQUIT\r\nINCR q\r\n",
        b"GET q\r\n",
        b"MULTI\r\nSET q 9\r\nQUIT\r\n",
        b"GET q\r\n",
        b"MULTI\r\nPING\r\nRESET\r\nEXEC\r\nGET q\r\n",
        b"SUBSCRIBE a\r\nQUIT\r\n",
        b"SUBSCRIBE a\r\nRESET\r\nPING\r\n",
        b"WATCH q\r\nRESET\r\nPING\r\n",
        b"HELLO 3\r\nRESET\r\nGET none\r\n",
        b"SELECT 3\r\nSET in3 x\r\nRESET\r\nGET in3\r\n",
        b"CLIENT SETNAME me\r\nRESET\r\nCLIENT GETNAME\r\n",
        b"RESET x\r\n",
        b"CLIENT REPLY OFF\r\nPING\r\nRESET\r\nPING\r\n",
        b"CLIENT REPLY SKIP\r\nRESET\r\nPING\r\n",
        b"HELLO 3\r\nSUBSCRIBE a\r\nMULTI\r\nPUBLISH a m\r\nPING\r\nPUBLISH a n\r\nSELECT 3\r\nEXEC\r\nSET in:3 x\r\nPING\r\n",
        b"CLIENT REPLY SKIP\r\nMULTI\r\nPING\r\nEXEC\r\n",
        b"CLIENT REPLY OFF\r\nMULTI\r\nSET q 10\r\nEXEC\r\nCLIENT REPLY ON\r\nGET q\r\n",
        b"CLIENT REPLY OFF\r\nSUBSCRIBE a\r\nUNSUBSCRIBE a\r\nCLIENT REPLY ON\r\nPING\r\n",
        b"CLIENT REPLY OFF\r\nNOSUCH\r\nGET\r\nCLIENT REPLY ON\r\nPING\r\n",
        // Not with a blocking command before the half-close: Redis forgets such a client, the proxy gives its reply a moment.
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .chain([
        [&b"ECHO "[..], &[b'x'; 65_000], b"\r\n"].concat(),
        vec![b'x'; 70_000],
        [&b"*2\r\n$4\r\nECHO\r\n$70000\r\n"[..], &[b'x'; 70_000], b"\r\n"].concat(),
        [&b"*"[..], &[b'1'; 70_000]].concat(),
        [&b"*1\r\n$"[..], &[b'1'; 70_000]].concat(),
    ])
    .collect();
    let pair = Pair::start();
    let mut differences = Differences::default();
    for case in &cases {
        let told = pair.clients(2).map(|mut client| {
            // The other end may close before it has read all.
            let _ = client.stream.write_all(case);
            let _ = client.stream.shutdown(Shutdown::Write);
            client.rest()
        });
        // HELLO tells the client's id.
        let compare = if case.starts_with(b"HELLO") { Compare::Digits } else { Compare::Bytes };
        differences.compare(compare, "raw", &show(case), &told[0], &told[1]);
    }
    println!("raw: {} exchanges compared", differences.compared);
    differences.check();
}

#[test]
fn what_dump_gives_restore_takes_on_either_side() {
    let pair = Pair::start();
    let [mut direct, mut proxied] = pair.clients(2);
    for setup in [
        &["SET", "s", "text"][..],
        &["SET", "n", "10"],
        &["RPUSH", "l", "a", "b"],
        &["SADD", "i", "1", "2"],
        &["HSET", "h", "f", "v"],
        &["ZADD", "z", "1.5", "m"],
        &["XADD", "x", "1-1", "f", "v"],
    ] {
        assert_eq!(direct.ask(setup), proxied.ask(setup));
    }
    for key in ["s", "n", "l", "i", "h", "z", "x"] {
        let dumps = [direct.ask(&["DUMP", key]), proxied.ask(&["DUMP", key])];
        assert_eq!(dumps[0], dumps[1], "DUMP {key}");
        let start = dumps[0].iter().position(|b| *b == b'\n').expect("a bulk string") + 1;
        let payload = &dumps[0][start..dumps[0].len() - 2];
        let copy = format!("copy-{key}");
        for client in [&mut direct, &mut proxied] {
            // Hot as missing, so that RESTORE must be seen.
            for _ in 0..3 {
                assert_eq!(client.text(&["TYPE", &copy]), "+none\r\n");
            }
            assert_eq!(client.text(&[b"RESTORE", copy.as_bytes(), b"0", payload]), "+OK\r\n");
            let busy = client.text(&[b"RESTORE", copy.as_bytes(), b"0", payload]);
            assert_eq!(busy, "-BUSYKEY Target key name already exists.\r\n");
            assert_eq!(client.text(&[b"RESTORE", copy.as_bytes(), b"0", payload, b"REPLACE"]), "+OK\r\n");
            assert_eq!(client.ask(&["DUMP", &copy]), dumps[0]);
            assert_ne!(client.text(&["TYPE", &copy]), "+none\r\n");
        }
    }
}
