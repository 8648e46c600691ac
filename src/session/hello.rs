//! HELLO: the protocol version, and in one go AUTH and CLIENT SETNAME.
//!
//! Texts are Redis 7.0.15's (networking.c, `helloCommand`).

use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;

use super::request::Flow;
use super::{Session, Verdict};
use crate::resp::{Args, Protocol, decimal, encode};
use crate::upstream::connect::Credentials;

/// What a HELLO asks for.
struct Hello {
    protocol: Option<Protocol>,
    credentials: Option<Credentials>,
    name: Option<Vec<u8>>,
}

impl Session {
    pub(super) fn hello(&mut self, args: &Args<'_>) -> Flow {
        let hello = match Hello::parse(args) {
            Ok(hello) => hello,
            Err(text) => {
                self.answer(|out, _| encode::error(out, text));
                return Flow::Next;
            }
        };
        // RESP3 is not to be had there. Clients go on without it when they are told as such a server tells them.
        if hello.protocol == Some(Protocol::Resp3) && !self.worker.shared.facts().knows_hello {
            self.answer(|out, _| encode::error(out, "ERR unknown command 'HELLO', with args beginning with: '3' "));
            return Flow::Next;
        }
        // The other protocol is another lane: what is in flight on this one is answered first.
        let moves = hello.protocol.is_some_and(|protocol| protocol != self.protocol);
        if moves && !self.must_ride() && !self.is_settled() {
            return Flow::Hold;
        }
        if let Some(credentials) = hello.credentials {
            match self.authenticate(credentials) {
                Ok(()) => {}
                Err(flow) => return flow,
            }
        } else if self.must_authenticate() {
            self.answer(|out, _| {
                encode::error(
                    out,
                    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> \
                     option can be used to authenticate the client and select the RESP protocol version at the same time",
                );
            });
            return Flow::Next;
        } else if let Err(flow) = self.learn_version() {
            return flow;
        }
        if let Some(name) = hello.name {
            self.client.labels().name = name;
            self.introduced();
        }
        if let Some(protocol) = hello.protocol
            && protocol != self.protocol
        {
            self.protocol = protocol;
            self.client.protocol.store(protocol.version(), Relaxed);
            self.changed();
            if let Some(attached) = &mut self.attached {
                attached.set_protocol(protocol);
            }
        }
        let facts = self.worker.shared.facts();
        let id = self.client.id as i64;
        self.answer(|out, protocol| {
            encode::map_header(out, protocol, 7);
            encode::bulk(out, b"server");
            encode::bulk(out, facts.greeting.server.as_bytes());
            encode::bulk(out, b"version");
            encode::bulk(out, facts.version().as_bytes());
            encode::bulk(out, b"proto");
            encode::integer(out, i64::from(protocol.version()));
            encode::bulk(out, b"id");
            encode::integer(out, id);
            encode::bulk(out, b"mode");
            encode::bulk(out, b"standalone");
            encode::bulk(out, b"role");
            encode::bulk(out, facts.role_in_hello().as_bytes());
            encode::bulk(out, b"modules");
            out.extend_from_slice(facts.greeting.modules(protocol));
        });
        Flow::Next
    }

    /// Who gets in before the upstream has been asked about itself is told the truth too: the request at hand waits for it.
    /// (Who gives a password is: see [`Session::verify`].)
    fn learn_version(&mut self) -> Result<(), Flow> {
        let lane = self.lane();
        let asked = self.verdict.take().is_some();
        if asked || self.worker.shared.facts().version.is_some() || lane.is_full(|| Waker::noop().clone()) {
            return Ok(());
        }
        let shared = self.worker.shared.clone();
        let mut request = Vec::new();
        encode::command(&mut request, &[b"HELLO"]);
        Err(self.ask_while_heard(
            |waiter| lane.send(&request, waiter),
            move |told| {
                if let Ok(reply) = told {
                    shared.learn(|facts| facts.read_hello(&reply));
                }
                Verdict::Granted
            },
        ))
    }

    /// Makes the session the identity of these credentials, or says what the request becomes instead.
    pub(super) fn authenticate(&mut self, credentials: Credentials) -> Result<(), Flow> {
        match self.verdict.take() {
            Some(Verdict::Identity(identity)) => {
                self.become_identity(identity);
                Ok(())
            }
            Some(Verdict::Reply(bytes)) => {
                self.answer(|out, _| out.extend_from_slice(&bytes));
                Err(Flow::Next)
            }
            _ if !self.is_settled() => Err(Flow::Hold),
            _ if self.attached.is_some() => {
                let text = "ERR anteroom: AUTH is not supported while the connection watches keys, listens or tracks";
                self.answer(|out, _| encode::error(out, text));
                Err(Flow::Next)
            }
            _ => Err(self.verify(credentials)),
        }
    }
}

impl Hello {
    fn parse(args: &Args<'_>) -> Result<Self, String> {
        let mut hello = Self { protocol: None, credentials: None, name: None };
        let Some(version) = args.get(1) else { return Ok(hello) };
        let version = decimal(version).ok_or("ERR Protocol version is not an integer or out of range")?;
        hello.protocol = Some(Protocol::from_version(version).ok_or("NOPROTO unsupported protocol version")?);
        let mut at = 2;
        while let Some(option) = args.get(at) {
            let more = args.len() - 1 - at;
            if option.eq_ignore_ascii_case(b"AUTH") && more >= 2 {
                let (user, password) = (args.get(at + 1).unwrap_or_default(), args.get(at + 2).unwrap_or_default());
                hello.credentials = Some(Credentials { user: user.into(), password: password.into() });
                at += 3;
            } else if option.eq_ignore_ascii_case(b"SETNAME") && more >= 1 {
                let name = args.get(at + 1).unwrap_or_default();
                super::client::check_name(name)?;
                hello.name = Some(name.to_vec());
                at += 2;
            } else {
                return Err(format!("ERR Syntax error in HELLO option '{}'", String::from_utf8_lossy(option)));
            }
        }
        Ok(hello)
    }
}
