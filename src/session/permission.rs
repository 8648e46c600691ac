//! Whether the client's ACL user may run what the proxy answers itself.
//!
//! Only the upstream knows. It is asked with a form of the same command that changes nothing, so that a refusal comes in
//! its own words; its consent is taken for a second, or until rights change through this proxy. While it cannot be asked,
//! PING, INFO and what concerns the client alone are answered, and what concerns others is not.
//!
//! An upstream that does not know the command (a managed server has no CONFIG) refuses it to nobody and permits it to nobody.
//! What concerns others is then for nobody: only what is answered to those who may run it counts as consent. What concerns the
//! client alone, and figures, go on being answered: the proxy has them to tell, and nobody is harmed who could object.
//!
//! Not asked: HELLO, AUTH, QUIT and RESET, which every user may run (acl.c, `CMD_NO_AUTH`); SELECT and CLIENT UNBLOCK,
//! which go upstream anyway; READONLY and READWRITE, which do nothing.

use super::request::Flow;
use super::waiter::{Waiter, lost_reply};
use super::{Session, Verdict};
use crate::admin::console;
use crate::command::{Local, LocalClient, LocalProxy};
use crate::resp::{Args, encode};
use crate::server::identity::Right;
use crate::upstream::lane::Lost;

impl Session {
    /// Goes on if the upstream permits it, or says what the request becomes instead.
    pub(super) fn permit(&mut self, local: Local, args: &Args<'_>) -> Result<(), Flow> {
        let Some((right, probe)) = probe(local, args) else { return Ok(()) };
        // It was permitted, and then needed a connection.
        if matches!(self.verdict, Some(Verdict::Attached(_))) {
            return Ok(());
        }
        // Whose clients are to be killed must be a user, and only the upstream knows its users.
        let user = if local == Local::Client(LocalClient::Kill) { named_user(args) } else { None };
        let rights = &self.worker.shared.identities;
        // It cannot be asked: see the head of this file. Nobody waits to be told so once more.
        if self.verdict.is_none() && !right.concerns_others() && self.worker.shared.reach.is_silent() {
            return Ok(());
        }
        if self.verdict.is_none() && user.is_none() && rights.permits(&self.identity, right) {
            return Ok(());
        }
        if self.verdict.is_none() && user.is_none() && !right.concerns_others() && rights.extend(&self.identity, right)
        {
            self.ask_again(right, probe);
            return Ok(());
        }
        match self.verdict.take() {
            Some(Verdict::Granted) => Ok(()),
            Some(Verdict::Reply(bytes)) => {
                self.answer(|out, _| out.extend_from_slice(&bytes));
                Err(Flow::Next)
            }
            _ => {
                let mut request = Vec::new();
                match user {
                    // Nobody's connection has this address, so nobody is killed.
                    Some(user) => encode::command(&mut request, &[b"CLIENT", b"KILL", b"USER", user, b"ADDR", b"0:0"]),
                    None => encode::command(&mut request, probe),
                }
                let names_user = user.is_some();
                let (shared, identity) = (self.worker.shared.clone(), self.identity.clone());
                let asked = identity.rights();
                let lane = self.lane();
                let send = |waiter| lane.send(&request, waiter);
                let judge = move |told: Result<Vec<u8>, Lost>| match told {
                    Ok(reply) if names_user && reply.starts_with(b"-") => Verdict::Reply(reply),
                    Ok(reply) if !is_consent(right, &reply) => Verdict::Reply(in_words_for(probe, reply)),
                    Ok(_) => {
                        shared.identities.permitted(&identity, right, asked);
                        Verdict::Granted
                    }
                    Err(why) if right.concerns_others() => Verdict::Reply(lost_reply(&why)),
                    Err(_) => Verdict::Granted,
                };
                Err(if right.concerns_others() { self.ask(send, judge) } else { self.ask_while_heard(send, judge) })
            }
        }
    }
}

impl Session {
    /// Asks whether a consent still stands, without waiting for it.
    fn ask_again(&mut self, right: Right, probe: &[&[u8]]) {
        let lane = self.lane();
        if lane.is_full(|| std::task::Waker::noop().clone()) {
            return;
        }
        let mut request = Vec::new();
        encode::command(&mut request, probe);
        let (waiter, told) = Waiter::once();
        lane.send(&request, waiter);
        let (shared, identity) = (self.worker.shared.clone(), self.identity.clone());
        // Ends with the reply, or with the lane's connection.
        tokio::task::spawn_local(async move {
            if let Ok(Ok(reply)) = told.await
                && reply.starts_with(b"-NOPERM")
            {
                shared.identities.revoke(&identity, right);
            }
        });
    }
}

/// Whether the upstream answers a probe as it answers those who may.
fn is_consent(right: Right, reply: &[u8]) -> bool {
    // Rights are looked at before these states are (server.c, `processCommand`).
    const LATER: [&str; 3] = ["BUSY ", "LOADING ", "MASTERDOWN "];
    let Some(error) = reply.strip_prefix(b"-") else { return true };
    let begins_with = |words: &[&str]| words.iter().any(|word| error.starts_with(word.as_bytes()));
    // What servers of different ages find wrong with the probe's arguments.
    let arguments: &[&str] = match right {
        Right::ConfigSet => {
            &["ERR Unknown option or number of arguments for CONFIG SET", "ERR Unsupported CONFIG parameter"]
        }
        // The last is Valkey's.
        Right::ClientList => &["ERR syntax error", "ERR Invalid client ID", "ERR client-id should be greater than 0"],
        Right::ClientKill => &["ERR client-id should be greater than 0"],
        _ if right.concerns_others() => &[],
        _ => return !error.starts_with(b"NOPERM"),
    };
    begins_with(&LATER) || begins_with(arguments)
}

/// An answer that is no consent, for the client. Of a command that the upstream does not know the client has not heard.
fn in_words_for(probe: &[&[u8]], reply: Vec<u8>) -> Vec<u8> {
    if !reply.starts_with(b"-ERR unknown command") && !reply.starts_with(b"-ERR unknown subcommand") {
        return reply;
    }
    let command = probe[..2].iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" ");
    let mut out = Vec::new();
    let text = format!(
        "ERR anteroom: this is for who may run {command}, which the upstream does not know: nobody is permitted it. \
         The configuration file with SIGHUP, SIGTERM and the admin address do without"
    );
    encode::error(&mut out, text);
    out
}

/// What to ask for: mostly the command itself with arguments it refuses.
fn probe(local: Local, args: &Args<'_>) -> Option<(Right, &'static [&'static [u8]])> {
    Some(match local {
        Local::Ping => (Right::Ping, &[b"PING"]),
        Local::Echo => (Right::Echo, &[b"ECHO", b""]),
        Local::Info => (Right::Info, &[b"INFO", b"anteroom"]),
        // What changes how the proxy goes on, as CONFIG SET does the server.
        Local::Proxy(word) if console::changes(word, args) => (Right::ConfigSet, &[b"CONFIG", b"SET", b"", b""]),
        Local::Proxy(word) => match word {
            LocalProxy::Unknown | LocalProxy::Help => return None,
            // Figures, as INFO shows them, and as INFO while the upstream cannot be asked: that is when they are looked at.
            LocalProxy::Stats
            | LocalProxy::Cache
            | LocalProxy::Lanes
            | LocalProxy::Tracker
            | LocalProxy::QuerycacheInfo => (Right::Info, &[b"INFO", b"anteroom"]),
            // The rest shows keys, clients and rules, and what is kept goes.
            _ => (Right::Config, &[b"CONFIG", b"GET", b""]),
        },
        Local::Client(which) => match which {
            LocalClient::Id => (Right::ClientId, &[b"CLIENT", b"ID"]),
            LocalClient::Info => (Right::ClientInfo, &[b"CLIENT", b"INFO"]),
            LocalClient::List => (Right::ClientList, &[b"CLIENT", b"LIST", b"ID", b"0"]),
            LocalClient::Kill => (Right::ClientKill, &[b"CLIENT", b"KILL", b"ID", b"0"]),
            LocalClient::Getname => (Right::ClientGetname, &[b"CLIENT", b"GETNAME"]),
            LocalClient::Setname => (Right::ClientSetname, &[b"CLIENT", b"SETNAME", b" "]),
            LocalClient::Setinfo => (Right::ClientSetinfo, &[b"CLIENT", b"SETINFO", b"", b""]),
            LocalClient::Reply => (Right::ClientReply, &[b"CLIENT", b"REPLY", b""]),
            LocalClient::NoEvict => (Right::ClientNoEvict, &[b"CLIENT", b"NO-EVICT", b""]),
            LocalClient::NoTouch => (Right::ClientNoTouch, &[b"CLIENT", b"NO-TOUCH", b""]),
            LocalClient::Tracking => (Right::ClientTracking, &[b"CLIENT", b"TRACKING", b""]),
            LocalClient::Caching => (Right::ClientCaching, &[b"CLIENT", b"CACHING", b""]),
            LocalClient::Getredir => (Right::ClientGetredir, &[b"CLIENT", b"GETREDIR"]),
            LocalClient::Trackinginfo => (Right::ClientTrackinginfo, &[b"CLIENT", b"TRACKINGINFO"]),
            LocalClient::Unblock => return None,
        },
        _ => return None,
    })
}

/// The last USER among the filters of CLIENT KILL.
fn named_user<'a>(args: &Args<'a>) -> Option<&'a [u8]> {
    let options = (2..args.len().saturating_sub(1)).step_by(2);
    let mut named = options.filter(|&at| args.get(at).is_some_and(|word| word.eq_ignore_ascii_case(b"user")));
    named.next_back().and_then(|at| args.get(at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consent_to_what_concerns_others_is_what_those_are_answered_who_may() {
        for (right, reply) in [
            (Right::Config, "*0\r\n"),
            (Right::Config, "%0\r\n"),
            (Right::Config, "-BUSY Redis is busy running a script.\r\n"),
            (Right::ConfigSet, "-ERR Unknown option or number of arguments for CONFIG SET - ''\r\n"),
            (Right::ConfigSet, "-ERR Unsupported CONFIG parameter: \r\n"),
            (Right::ClientList, "$0\r\n\r\n"),
            (Right::ClientList, "-ERR syntax error\r\n"),
            (Right::ClientList, "-ERR client-id should be greater than 0\r\n"),
            (Right::ClientKill, ":0\r\n"),
            (Right::ClientKill, "-ERR client-id should be greater than 0\r\n"),
        ] {
            assert!(is_consent(right, reply.as_bytes()), "{right:?}: {reply}");
        }
        let refusals = [
            "-NOPERM this user has no permissions to run the 'config|set' command\r\n",
            "-NOAUTH Authentication required.\r\n",
            "-ERR unknown command 'CONFIG', with args beginning with: 'SET' '' '' \r\n",
            "-ERR unknown subcommand 'SET'. Try CONFIG HELP.\r\n",
            "-ERR Command is not available\r\n",
        ];
        for reply in refusals {
            for right in [Right::Config, Right::ConfigSet, Right::ClientList, Right::ClientKill] {
                assert!(!is_consent(right, reply.as_bytes()), "{right:?}: {reply}");
            }
            assert_eq!(is_consent(Right::ClientId, reply.as_bytes()), !reply.starts_with("-NOPERM"), "{reply}");
        }
    }
}
