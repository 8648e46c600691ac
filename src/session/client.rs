//! CLIENT: the proxy's own clients, in the words and formats of Redis 7.0.15 (networking.c, `clientCommand`).
//!
//! CLIENT UNBLOCK is the one that reaches the upstream: there it is the dedicated connection that is blocked.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::request::Flow;
use super::then::Then;
use super::waiter::Waiter;
use super::{End, Mute, Session};
use crate::cache::Millis;
use crate::command::LocalClient;
use crate::resp::{Args, decimal, encode};
use crate::server::clients::{Client, Mode, tracking_flag};
use crate::server::worker::Worker;

const SYNTAX: &str = "ERR syntax error";

/// The longest name, LIB-NAME or LIB-VER that is kept for a client, in bytes. Libraries send some dozens of bytes, with the names
/// of frameworks above them a few hundred.
const LABEL_MAX_BYTES: usize = 1024;

impl Session {
    pub(super) fn client_command(&mut self, which: LocalClient, args: &Args<'_>) -> Flow {
        match which {
            LocalClient::Tracking | LocalClient::Caching | LocalClient::Getredir | LocalClient::Trackinginfo => {
                return self.tracking_command(which, args);
            }
            LocalClient::Unblock => return self.unblock(args),
            LocalClient::Reply => {
                self.set_reply(args);
                return Flow::Next;
            }
            LocalClient::Kill => {
                self.kill(args);
                return Flow::Next;
            }
            _ => {}
        }
        self.client.input_bytes.store(args.raw().len() as u64, Relaxed);
        let worker = self.worker.clone();
        let client = self.client.clone();
        let done = match which {
            LocalClient::Setname => {
                self.introduced();
                set_name(&client, args)
            }
            LocalClient::Setinfo => set_info(&client, args),
            LocalClient::NoEvict => switch(&client, args, 1),
            LocalClient::NoTouch => switch(&client, args, 2),
            _ => Ok(()),
        };
        self.answer(|out, protocol| {
            if let Err(text) = done {
                return encode::error(out, text);
            }
            match which {
                LocalClient::Id => encode::integer(out, client.id as i64),
                LocalClient::Getname => match &*client.labels().name {
                    b"" => encode::null(out, protocol),
                    name => encode::bulk(out, name),
                },
                LocalClient::Info => encode::verbatim(out, protocol, line(&worker, &client).as_bytes()),
                LocalClient::List => match list(&worker, args) {
                    Ok(text) => encode::verbatim(out, protocol, text.as_bytes()),
                    Err(text) => encode::error(out, text),
                },
                _ => encode::simple(out, "OK"),
            }
        });
        self.client.input_bytes.store(0, Relaxed);
        Flow::Next
    }

    fn set_reply(&mut self, args: &Args<'_>) {
        match args.get(2).map(<[u8]>::to_ascii_lowercase).as_deref() {
            Some(b"on") => {
                self.mute = Mute::Off;
                self.answer(|out, _| encode::simple(out, "OK"));
            }
            Some(b"off") => self.mute = Mute::On,
            Some(b"skip") if self.mute == Mute::On => {}
            Some(b"skip") => self.mute = Mute::Next,
            _ => self.answer(|out, _| encode::error(out, SYNTAX)),
        }
    }

    fn kill(&mut self, args: &Args<'_>) {
        let (own, now) = (self.client.id, self.worker.now());
        let chosen = Victims::parse(args);
        let victims: Vec<Arc<Client>> = match &chosen {
            Ok(chosen) => {
                let all = self.worker.shared.clients.all();
                all.into_iter().filter(|c| chosen.include(c, own, now)).collect()
            }
            Err(_) => Vec::new(),
        };
        for victim in victims.iter().filter(|v| v.id != own) {
            victim.kill();
        }
        self.answer(|out, _| match chosen {
            Err(text) => encode::error(out, text),
            Ok(Victims { by_address: true, .. }) if victims.is_empty() => encode::error(out, "ERR No such client"),
            Ok(Victims { by_address: true, .. }) => encode::simple(out, "OK"),
            Ok(_) => encode::integer(out, victims.len() as i64),
        });
        if victims.iter().any(|v| v.id == own) {
            self.ending = Some(End::Killed);
        }
    }

    /// The id is one of ours; what is blocked upstream is that client's dedicated connection.
    fn unblock(&mut self, args: &Args<'_>) -> Flow {
        // What does not form the command the upstream refuses, in its own words.
        let Some(id) = args.get(2).and_then(parse_id).filter(|_| args.len() <= 4) else {
            return self.pass(args, Then::Nothing);
        };
        let blocked = self.worker.shared.clients.get(id).filter(|c| c.mode.load(Relaxed) == Mode::Blocked as u8);
        // An id that cannot exist lets the upstream judge the other argument and answer 0.
        let upstream_id = blocked.and_then(|c| c.upstream.name()).unwrap_or(i64::MAX);
        let mut digits = itoa::Buffer::new();
        let mut request: Vec<&[u8]> = vec![b"CLIENT", b"UNBLOCK", digits.format(upstream_id).as_bytes()];
        request.extend(args.get(3));
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &request);
        let lane = self.lane();
        if lane.is_full(|| self.outbox.task()) {
            return Flow::Hold;
        }
        let seq = self.reserve();
        lane.send(&bytes, Waiter::Client { outbox: self.outbox(), seq, then: Then::Nothing });
        Flow::Next
    }

    /// CLIENT TRACKING's REDIRECT names one of our clients; upstream it is that client's dedicated connection.
    pub(super) fn with_upstream_ids(&self, args: &Args<'_>) -> Vec<u8> {
        let mut words: Vec<Vec<u8>> = args.iter().map(<[u8]>::to_vec).collect();
        for at in 2..words.len().saturating_sub(1) {
            if words[at].eq_ignore_ascii_case(b"REDIRECT")
                && let Some(id) = parse_id(&words[at + 1])
            {
                // What is no client of ours, or has no connection of its own upstream, is nobody there: the number must not name a
                // connection that is somebody else's, or the proxy's own.
                let client = self.worker.shared.clients.get(id);
                let upstream_id = client.and_then(|client| client.upstream.name()).unwrap_or(i64::MAX);
                words[at + 1] = upstream_id.to_string().into_bytes();
            }
        }
        let mut bytes = Vec::new();
        encode::command(&mut bytes, &words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        bytes
    }
}

/// Redis's rule for a client name: printable ASCII without spaces.
pub(super) fn check_name(name: &[u8]) -> Result<(), String> {
    if !name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        return Err("ERR Client names cannot contain spaces, newlines or special characters.".into());
    }
    check_length("a client's name", name)
}

fn check_length(what: &str, label: &[u8]) -> Result<(), String> {
    if label.len() > LABEL_MAX_BYTES {
        return Err(format!("ERR anteroom: {what} may have {LABEL_MAX_BYTES} bytes at most"));
    }
    Ok(())
}

fn set_name(client: &Client, args: &Args<'_>) -> Result<(), String> {
    let name = args.get(2).unwrap_or_default();
    check_name(name)?;
    client.labels().name = name.to_vec();
    Ok(())
}

fn set_info(client: &Client, args: &Args<'_>) -> Result<(), String> {
    let (option, value) = (args.get(2).unwrap_or_default(), args.get(3).unwrap_or_default());
    let clean = value.iter().all(|b| (b'!'..=b'~').contains(b));
    let shown = String::from_utf8_lossy(option).to_lowercase();
    let mut labels = client.labels();
    let slot = match &*shown {
        "lib-name" => &mut labels.lib_name,
        "lib-ver" => &mut labels.lib_ver,
        _ => return Err(format!("ERR Unrecognized option '{}'", String::from_utf8_lossy(option))),
    };
    if !clean {
        return Err(format!("ERR {shown} cannot contain spaces, newlines or special characters."));
    }
    check_length(&shown, value)?;
    *slot = value.to_vec();
    Ok(())
}

fn switch(client: &Client, args: &Args<'_>, bit: u8) -> Result<(), String> {
    match args.get(2).map(<[u8]>::to_ascii_lowercase).as_deref() {
        Some(b"on") => client.switches.fetch_or(bit, Relaxed),
        Some(b"off") => client.switches.fetch_and(!bit, Relaxed),
        _ => return Err(SYNTAX.into()),
    };
    Ok(())
}

fn parse_id(text: &[u8]) -> Option<u64> {
    decimal(text).and_then(|id| u64::try_from(id).ok())
}

fn client_type(text: &[u8]) -> Result<&'static str, String> {
    match text.to_ascii_lowercase().as_slice() {
        b"normal" => Ok("normal"),
        b"pubsub" => Ok("pubsub"),
        b"slave" | b"replica" => Ok("replica"),
        // The proxy has no master among its clients.
        b"master" => Ok("master"),
        _ => Err(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(text))),
    }
}

fn type_of(client: &Client) -> &'static str {
    if Mode::from_u8(client.mode.load(Relaxed)) == Mode::Replica {
        return "replica";
    }
    if client.subscribed.iter().any(|s| s.load(Relaxed) > 0) { "pubsub" } else { "normal" }
}

/// Whom CLIENT KILL means.
#[derive(Default)]
struct Victims {
    by_address: bool,
    id: Option<u64>,
    addr: Option<Vec<u8>>,
    laddr: Option<Vec<u8>>,
    user: Option<Vec<u8>>,
    kind: Option<&'static str>,
    max_age: Option<u64>,
    skip_me: bool,
}

impl Victims {
    fn parse(args: &Args<'_>) -> Result<Self, String> {
        if args.len() == 3 {
            let addr = args.get(2).map(<[u8]>::to_vec);
            return Ok(Self { by_address: true, addr, ..Self::default() });
        }
        let mut chosen = Self { skip_me: true, ..Self::default() };
        let mut at = 2;
        while let Some(option) = args.get(at) {
            let value = args.get(at + 1).ok_or(SYNTAX)?;
            match option.to_ascii_lowercase().as_slice() {
                b"id" => match decimal(value) {
                    Some(id) if id > 0 => chosen.id = Some(id as u64),
                    _ => return Err("ERR client-id should be greater than 0".into()),
                },
                b"addr" => chosen.addr = Some(value.to_vec()),
                b"laddr" => chosen.laddr = Some(value.to_vec()),
                b"user" => chosen.user = Some(value.to_vec()),
                b"type" => chosen.kind = Some(client_type(value)?),
                b"maxage" => chosen.max_age = Some(parse_id(value).ok_or(SYNTAX)?),
                b"skipme" if value.eq_ignore_ascii_case(b"yes") => chosen.skip_me = true,
                b"skipme" if value.eq_ignore_ascii_case(b"no") => chosen.skip_me = false,
                _ => return Err(SYNTAX.into()),
            }
            at += 2;
        }
        Ok(chosen)
    }

    fn include(&self, client: &Client, own: u64, now: Millis) -> bool {
        self.id.is_none_or(|id| id == client.id)
            && self.addr.as_ref().is_none_or(|a| *a == client.addr.as_bytes())
            && self.laddr.as_ref().is_none_or(|a| *a == client.laddr.as_bytes())
            && self.user.as_ref().is_none_or(|u| *u == client.labels().user)
            && self.kind.is_none_or(|k| k == type_of(client))
            && self.max_age.is_none_or(|seconds| now.since(client.since) / 1000 >= seconds)
            && !(self.skip_me && client.id == own)
    }
}

fn list(worker: &Worker, args: &Args<'_>) -> Result<String, String> {
    let clients = &worker.shared.clients;
    let chosen: Vec<Arc<Client>> = match args.get(2).map(<[u8]>::to_ascii_lowercase).as_deref() {
        None => clients.all(),
        Some(b"type") if args.len() == 4 => {
            let kind = client_type(args.get(3).unwrap_or_default())?;
            clients.all().into_iter().filter(|c| type_of(c) == kind).collect()
        }
        Some(b"id") if args.len() > 3 => {
            let ids: Option<Vec<u64>> = args.iter().skip(3).map(parse_id).collect();
            let ids = ids.ok_or("ERR Invalid client ID")?;
            ids.into_iter().filter_map(|id| clients.get(id)).collect()
        }
        _ => return Err(SYNTAX.into()),
    };
    Ok(chosen.iter().map(|c| line(worker, c)).collect())
}

/// One client as CLIENT LIST and CLIENT INFO print it. What a proxy has no figure for is 0.
fn line(worker: &Worker, client: &Client) -> String {
    let mode = Mode::from_u8(client.mode.load(Relaxed));
    let mut flags = String::new();
    match mode {
        Mode::Monitor => flags.push('O'),
        Mode::Replica => flags.push('S'),
        Mode::Subscribed => flags.push('P'),
        Mode::Transaction => flags.push('x'),
        Mode::Blocked => flags.push('b'),
        Mode::Normal => {}
    }
    let switches = client.switches.load(Relaxed);
    for (bit, letter) in [(1, 'e'), (2, 'T')] {
        if switches & bit != 0 {
            flags.push(letter);
        }
    }
    let tracking = client.tracking.load(Relaxed);
    for (bit, letter) in [(tracking_flag::ON, 't'), (tracking_flag::BROKEN, 'R'), (tracking_flag::BROADCAST, 'B')] {
        if tracking & bit != 0 {
            flags.push(letter);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let labels = client.labels().clone();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let now = worker.now();
    let (age_ms, idle_ms) = (now.since(client.since), now.since(Millis(client.active.load(Relaxed))));
    let table = worker.table();
    let command = table.get(client.command.load(Relaxed)).map_or("NULL", |c| &c.name).to_owned();
    let [sub, psub, ssub] = [0, 1, 2].map(|i| client.subscribed[i].load(Relaxed));
    let (input, output) = (client.input_bytes.load(Relaxed), client.output_bytes.load(Relaxed));
    let mut line = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        line,
        "id={} addr={} laddr={} fd=0 name={} age={} idle={} flags={flags} db={} sub={sub} psub={psub} ssub={ssub} \
         multi={} qbuf={input} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={output} oll=0 omem=0 tot-mem={} \
         events=r cmd={command} user={} redir={} resp={} lib-name={} lib-ver={}",
        client.id,
        client.addr,
        client.laddr,
        text(&labels.name),
        age_ms / 1000,
        idle_ms / 1000,
        client.db.load(Relaxed),
        client.queued.load(Relaxed),
        input + output,
        text(&labels.user),
        if tracking == 0 { -1 } else { client.redirect.load(Relaxed) as i64 },
        client.protocol.load(Relaxed),
        text(&labels.lib_name),
        text(&labels.lib_ver),
    );
    line
}
