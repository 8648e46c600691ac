//! CLIENT TRACKING, CACHING, TRACKINGINFO and GETREDIR: a client that caches for itself, served by the proxy's own tracker.
//!
//! Words and formats are Redis 7.0.15's (networking.c, `clientCommand`; tracking.c). What the options mean for a read stands in
//! `followed`, how the client is told in `told`. Where the upstream does not track, or nothing is cached, these commands change the state
//! of a dedicated connection instead, and Redis, if it can, tells the client itself.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::oneshot;

use super::request::Flow;
use super::told::Ear;
use super::{Session, Verdict};
use crate::coherence::listener::{Inbox, Listener};
use crate::coherence::tracker::{Tracker, TrackerState};
use crate::command::{Command, Dedicated, LocalClient};
use crate::resp::{Args, decimal, encode};
use crate::server::clients::tracking_flag;
use crate::server::fences::Behind;

/// When a read is followed without further words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Opt {
    /// Always.
    #[default]
    Neither,
    /// Only right after CLIENT CACHING YES.
    In,
    /// Unless right after CLIENT CACHING NO.
    Out,
}

/// What CLIENT TRACKING ON has asked for.
pub(super) struct Tracking {
    pub(super) ear: Rc<Ear>,
    pub(super) opt: Opt,
    /// CLIENT CACHING, until the end of the next command or transaction.
    caching: bool,
    pub(super) noloop: bool,
    redirect: u64,
    /// BCAST's; absent in the default mode.
    prefixes: Option<BTreeSet<Box<[u8]>>>,
}

impl Tracking {
    pub(super) fn is_broadcast(&self) -> bool {
        self.prefixes.is_some()
    }

    /// Whether what this command reads is followed.
    pub(super) fn follows_now(&self) -> bool {
        match self.opt {
            _ if self.is_broadcast() => false,
            Opt::Neither => true,
            Opt::In => self.caching,
            Opt::Out => !self.caching,
        }
    }

    /// A command has been sent or answered (networking.c, `resetClient`).
    pub(super) fn ran(&mut self, command: &Command, in_transaction: bool) {
        if self.caching && !in_transaction && !command.name.starts_with("client|") {
            self.caching = false;
        }
    }
}

/// The options of one CLIENT TRACKING.
#[derive(Default)]
struct Asked {
    redirect: Option<(u64, Arc<Inbox>)>,
    broadcast: bool,
    opt_in: bool,
    opt_out: bool,
    noloop: bool,
    prefixes: Vec<Box<[u8]>>,
}

const SYNTAX: &str = "ERR syntax error";

/// Pause between two looks at a tracker that is waited for.
const LOOK_FOR_TRACKER: Duration = Duration::from_millis(5);

impl Session {
    pub(super) fn tracking_command(&mut self, which: LocalClient, args: &Args<'_>) -> Flow {
        if self.tracking.is_none() && self.is_tracked_upstream() {
            return self.track_upstream(args);
        }
        match which {
            LocalClient::Tracking => return self.track(args),
            LocalClient::Caching => {
                let done = self.set_caching(args.get(2).unwrap_or_default());
                self.answer(|out, _| match done {
                    Ok(()) => encode::simple(out, "OK"),
                    Err(text) => encode::error(out, text),
                });
            }
            LocalClient::Getredir => {
                let to = self.tracking.as_ref().map_or(-1, |tracking| tracking.redirect as i64);
                self.answer(|out, _| encode::integer(out, to));
            }
            _ => self.tracking_info(),
        }
        Flow::Next
    }

    /// Whether Redis itself tracks for this client, or has to say that it does not.
    fn is_tracked_upstream(&self) -> bool {
        let is_unsupported = |tracker: &Arc<Tracker>| matches!(tracker.state(), TrackerState::Unsupported(_));
        self.attached.as_ref().is_some_and(|attached| attached.pinned)
            || !self.worker.shared.keeps
            || self.identity.tracker.as_ref().is_none_or(is_unsupported)
    }

    fn track_upstream(&mut self, args: &Args<'_>) -> Flow {
        let table = self.worker.table();
        let Some(command) = table.by_name("client|tracking") else { return Flow::Hold };
        if self.must_ride() {
            return self.ride(Dedicated::State, command, args);
        }
        self.on_dedicated(Dedicated::State, command, args)
    }

    fn track(&mut self, args: &Args<'_>) -> Flow {
        let asked = match self.asked_tracking(args) {
            Ok(Some(asked)) => asked,
            Ok(None) => {
                self.stop_tracking();
                self.answer(|out, _| encode::simple(out, "OK"));
                return Flow::Next;
            }
            Err(text) => {
                self.answer(|out, _| encode::error(out, text));
                return Flow::Next;
            }
        };
        let is_first = self.ear.is_none();
        let Some(ear) = self.ear() else { return Flow::Hold };
        let prefixes = asked
            .broadcast
            .then(|| if asked.prefixes.is_empty() { vec![Box::default()] } else { asked.prefixes.clone() });
        if self.tracking.is_none() {
            ear.listener.aim(asked.redirect.clone(), asked.noloop);
        }
        if let Some(prefixes) = &prefixes {
            let mut covered = self.worker.shared.broadcasts.join(prefixes, &ear.listener);
            if covered.try_recv().is_err() {
                return self.wait_for_cover(Some(covered), None);
            }
        } else {
            if let Some(source) = &self.identity.scopes.tracked {
                source.interests().listen(&ear.listener);
            }
            let mut stands = self.worker.shared.redirects.join(&[Box::default()], &ear.listener);
            let tracker = self.identity.tracker.clone().filter(|tracker| !tracker.is_armed());
            let stands = stands.try_recv().is_err().then_some(stands);
            // Once: it may stay away.
            if stands.is_some() || (is_first && tracker.is_some()) {
                return self.wait_for_cover(stands, tracker);
            }
        }
        ear.listener.aim(asked.redirect.clone(), asked.noloop);
        let redirect = asked.redirect.map_or(0, |(id, _)| id);
        self.client.redirect.store(redirect, Relaxed);
        let flags = tracking_flag::ON | if asked.broadcast { tracking_flag::BROADCAST } else { 0 };
        self.client.tracking.store(flags, Relaxed);
        let before = self.tracking.take();
        let caching = before.as_ref().is_some_and(|before| before.caching);
        let held = before.and_then(|before| before.prefixes).unwrap_or_default();
        self.tracking = Some(Box::new(Tracking {
            ear,
            opt: match (asked.opt_in, asked.opt_out) {
                (true, _) => Opt::In,
                (_, true) => Opt::Out,
                _ => Opt::Neither,
            },
            caching,
            noloop: asked.noloop,
            redirect,
            prefixes: prefixes.map(|new| held.into_iter().chain(new).collect()),
        }));
        if asked.broadcast {
            // What changed before the prefixes were covered must have left memory before the client reads.
            let seq = self.reserve();
            self.worker.fence(&self.outbox, seq, b"+OK\r\n", Behind::default());
            return Flow::Next;
        }
        self.answer(|out, _| encode::simple(out, "OK"));
        Flow::Next
    }

    /// The client is answered once it hears of every write under its prefixes. The tracker need not stand, but what is read before could not
    /// be followed: it is given a moment.
    fn wait_for_cover(&mut self, covered: Option<oneshot::Receiver<()>>, tracker: Option<Arc<Tracker>>) -> Flow {
        let config = self.worker.config();
        let upstream = &config.upstream;
        let (timeout_ms, patience) = (upstream.timeout_ms, Duration::from_millis(upstream.reconnect_max_ms));
        self.operation = Some(Box::pin(async move {
            if let Some(covered) = covered
                && !matches!(tokio::time::timeout(Duration::from_millis(timeout_ms), covered).await, Ok(Ok(())))
            {
                let mut reply = Vec::new();
                let text = format!("ERR anteroom: upstream unavailable (no tracking within {timeout_ms} ms)");
                encode::error(&mut reply, text);
                return Verdict::Reply(reply);
            }
            if let Some(tracker) = tracker {
                let is_armed = async {
                    while !tracker.is_armed() {
                        tokio::time::sleep(LOOK_FOR_TRACKER).await;
                    }
                };
                // Without it reads are answered all the same.
                let _ = tokio::time::timeout(patience, is_armed).await;
            }
            Verdict::Granted
        }));
        Flow::Hold
    }

    /// An operation is over. If it was the wait for cover, and in vain, the client listens to nothing.
    pub(super) fn listens_in_vain(&mut self, verdict: &Verdict) {
        if self.tracking.is_none() && matches!(verdict, Verdict::Reply(_)) {
            self.stop_tracking();
        }
    }

    /// The session's listener, made when it is first needed and kept until CLIENT TRACKING OFF.
    fn ear(&mut self) -> Option<Rc<Ear>> {
        if self.ear.is_none() {
            let listener = Listener::new(self.client.inbox()?);
            self.ear = Some(Ear::new(listener, self.client.clone(), self.outbox.clone()));
        }
        self.ear.clone()
    }

    /// CLIENT TRACKING OFF, RESET, or the end.
    pub(super) fn stop_tracking(&mut self) {
        self.tracking = None;
        let Some(ear) = self.ear.take() else { return };
        ear.listener.turn_off();
        self.worker.shared.broadcasts.leave(&ear.listener);
        self.worker.shared.redirects.leave(&ear.listener);
        self.client.tracking.store(0, Relaxed);
        self.client.redirect.store(0, Relaxed);
        if let Some(attached) = &mut self.attached {
            attached.let_tracking_go();
        }
    }

    /// Another user's reads are heard of by another tracker.
    pub(super) fn listen_as_identity(&mut self) {
        if let (Some(tracking), Some(source)) = (&self.tracking, &self.identity.scopes.tracked)
            && !tracking.is_broadcast()
        {
            source.interests().listen(&tracking.ear.listener);
        }
    }

    fn set_caching(&mut self, word: &[u8]) -> Result<(), &'static str> {
        let Some(tracking) = &mut self.tracking else {
            return Err(
                "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT \
                        mode enabled",
            );
        };
        let opt = match word.to_ascii_lowercase().as_slice() {
            b"yes" => Opt::In,
            b"no" => Opt::Out,
            _ => return Err(SYNTAX),
        };
        if tracking.opt != opt {
            return Err(match opt {
                Opt::In => "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
                _ => "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            });
        }
        tracking.caching = true;
        Ok(())
    }

    fn tracking_info(&mut self) {
        let mut flags = vec!["off"];
        let (mut redirect, mut prefixes) = (-1, Vec::new());
        if let Some(tracking) = &self.tracking {
            flags = vec!["on"];
            redirect = tracking.redirect as i64;
            if let Some(held) = &tracking.prefixes {
                flags.push("bcast");
                prefixes = held.iter().cloned().collect();
            }
            let (name, caching) = match tracking.opt {
                Opt::In => ("optin", "caching-yes"),
                Opt::Out => ("optout", "caching-no"),
                Opt::Neither => ("", ""),
            };
            flags.extend(
                [(name, tracking.opt != Opt::Neither), (caching, tracking.caching), ("noloop", tracking.noloop)]
                    .into_iter()
                    .filter_map(|(flag, is_set)| is_set.then_some(flag)),
            );
            if tracking.ear.listener.is_broken() {
                flags.push("broken_redirect");
            }
        }
        self.answer(|out, protocol| {
            encode::map_header(out, protocol, 3);
            encode::bulk(out, b"flags");
            encode::set_header(out, protocol, flags.len());
            flags.iter().for_each(|flag| encode::bulk(out, flag.as_bytes()));
            encode::bulk(out, b"redirect");
            encode::integer(out, redirect);
            encode::bulk(out, b"prefixes");
            encode::array_header(out, prefixes.len());
            prefixes.iter().for_each(|prefix| encode::bulk(out, prefix));
        });
    }

    /// What CLIENT TRACKING asks for: nothing for OFF.
    fn asked_tracking(&self, args: &Args<'_>) -> Result<Option<Asked>, String> {
        let asked = self.read_options(args)?;
        match args.get(2).map(<[u8]>::to_ascii_lowercase).as_deref() {
            Some(b"on") => {}
            Some(b"off") => return Ok(None),
            _ => return Err(SYNTAX.into()),
        }
        if !asked.broadcast && !asked.prefixes.is_empty() {
            return Err("ERR PREFIX option requires BCAST mode to be enabled".into());
        }
        let is_broadcast = self.tracking.as_ref().map(|tracking| tracking.is_broadcast());
        if is_broadcast.is_some_and(|is| is != asked.broadcast) {
            return Err("ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
                        re-enabling it with a different mode."
                .into());
        }
        if asked.broadcast && (asked.opt_in || asked.opt_out) {
            return Err("ERR OPTIN and OPTOUT are not compatible with BCAST".into());
        }
        if asked.opt_in && asked.opt_out {
            return Err("ERR You can't specify both OPTIN mode and OPTOUT mode".into());
        }
        let opt = self.tracking.as_ref().map_or(Opt::Neither, |tracking| tracking.opt);
        if (asked.opt_in && opt == Opt::Out) || (asked.opt_out && opt == Opt::In) {
            return Err("ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
                        re-enabling it with a different mode."
                .into());
        }
        self.check_overlaps(&asked.prefixes)?;
        Ok(Some(asked))
    }

    fn read_options(&self, args: &Args<'_>) -> Result<Asked, String> {
        let mut asked = Asked::default();
        let mut at = 3;
        while let Some(option) = args.get(at) {
            let value = args.get(at + 1);
            match (option.to_ascii_lowercase().as_slice(), value) {
                (b"redirect", Some(value)) => {
                    if asked.redirect.is_some() {
                        return Err("ERR A client can only redirect to a single other client".into());
                    }
                    let id = decimal(value).ok_or("ERR value is not an integer or out of range")?;
                    let client = u64::try_from(id).ok().and_then(|id| self.worker.shared.clients.get(id));
                    let inbox = client.and_then(|client| client.inbox());
                    let inbox = inbox.ok_or("ERR The client ID you want redirect to does not exist")?;
                    asked.redirect = Some((id as u64, inbox));
                    at += 1;
                }
                (b"bcast", _) => asked.broadcast = true,
                (b"optin", _) => asked.opt_in = true,
                (b"optout", _) => asked.opt_out = true,
                (b"noloop", _) => asked.noloop = true,
                (b"prefix", Some(prefix)) => {
                    asked.prefixes.push(prefix.into());
                    at += 1;
                }
                _ => return Err(SYNTAX.into()),
            }
            at += 1;
        }
        Ok(asked)
    }

    /// (tracking.c, `checkPrefixCollisionsOrReply`.)
    fn check_overlaps(&self, new: &[Box<[u8]>]) -> Result<(), String> {
        let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let held = self.tracking.as_ref().and_then(|tracking| tracking.prefixes.as_ref());
        for (at, prefix) in new.iter().enumerate() {
            let of = |other: &[u8], which: &str| {
                format!(
                    "ERR Prefix '{}' overlaps with {which} prefix '{}'. Prefixes for a single client must not overlap.",
                    text(prefix),
                    text(other)
                )
            };
            if let Some(known) = held.into_iter().flatten().find(|known| overlap(known, prefix)) {
                return Err(of(known, "an existing"));
            }
            if let Some(other) = new[at + 1..].iter().find(|other| overlap(other, prefix)) {
                return Err(of(other, "another provided"));
            }
        }
        Ok(())
    }
}
