//! Whether the upstream's users were changed beside the proxy: by ACL SETUSER, DELUSER or LOAD on Redis itself.
//!
//! Redis announces no such change, and it checks rights at each command: what is served from memory is never checked. So
//! the upstream is asked every `upstream.acl_check_ms`, and what was kept for a user whose line has changed is served no
//! more. (A change made through the proxy is known at once: [`crate::command::Effect::DropEverything`].)
//!
//! Asked is whoever may answer: `upstream.url`'s user, else a client without a password, else a client's user. ACL LIST says
//! who has changed (a hash of each user's line is kept), but takes Redis milliseconds where there are a thousand users. INFO's
//! counts of ACL and CONFIG commands say only that something has, for some microseconds. So the counts are asked for at each
//! look, and the list when they have moved. Who may run only one of the two is asked for that. Where nobody may run either,
//! what is kept for every user is forgotten at each look: the bound holds all the same.
//!
//! Existing connections are left to Redis's own rules: rights count from the next command on, a new password from the next
//! connection on, and the clients of a user who is gone are closed.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::identity::Identity;
use super::shared::Shared;
use super::swaps::Swaps;
use crate::config::Config;
use crate::resp::{Protocol, ReplySplitter};
use crate::upstream::connect::{ConnectError, Connector, Conversation, Login};
use crate::upstream::era::Era;

/// How long a user who was refused is not asked again: every refusal is a line in Redis's ACL LOG.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// Users asked in one round, at most.
const ASKED_MAX: usize = 16;

/// Looks from one ACL LIST to the next at most, whatever the counts say: a managed server may change users by other means
/// than commands.
const LIST_EVERY: u32 = 10;

/// How the upstream's users are seen. The words are those of INFO and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Not looked for: `upstream.acl_check_ms` is 0.
    Off,
    /// By ACL LIST, so that it is known who has changed.
    Listed,
    /// By INFO's counts of commands alone.
    Counted,
    /// Not at all: nobody may ask, or the upstream does not answer.
    Blind,
}

impl Sight {
    /// All of them, in the order of their numbers.
    pub const ALL: [Sight; 4] = [Self::Off, Self::Listed, Self::Counted, Self::Blind];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Listed => "listed",
            Self::Counted => "counted",
            Self::Blind => "blind",
        }
    }
}

/// A hash of each user's line.
type Users = HashMap<Box<[u8]>, u64>;

/// What one look has shown: at least one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    users: Option<Users>,
    /// A hash of the counts of all commands that change users.
    counts: Option<u64>,
}

/// Whose rights may have changed between two looks.
#[derive(Debug, PartialEq, Eq)]
enum Changed<'a> {
    Nobody,
    /// Those whose lines differ.
    Some(&'a Users, &'a Users),
    Anybody,
}

impl Changed<'_> {
    fn concerns(&self, user: &[u8]) -> bool {
        match self {
            Self::Nobody => false,
            Self::Some(before, now) => before.get(user) != now.get(user),
            Self::Anybody => true,
        }
    }
}

fn changed<'a>(before: Option<&'a Seen>, now: &'a Seen) -> Changed<'a> {
    let Some(before) = before else { return Changed::Anybody };
    match (&before.users, &now.users) {
        (Some(before), Some(now)) if before == now => Changed::Nobody,
        (Some(before), Some(now)) => Changed::Some(before, now),
        (None, None) if before.counts == now.counts => Changed::Nobody,
        _ => Changed::Anybody,
    }
}

/// Who is asked, and for what. At least one of the two is permitted.
struct Witness {
    conversation: Conversation,
    /// Of whose users it tells.
    era: Era,
    /// The user's identity; none for `upstream.url`'s.
    identity: Option<u32>,
    lists: bool,
    counts: bool,
    /// Looks since the last list.
    unlisted: u32,
    /// The last reply to [`COUNTS`], until the watch has read it.
    commandstats: Option<Vec<u8>>,
}

/// Looks for as long as the process runs; ends when aborted.
pub(super) async fn keep(shared: Arc<Shared>) {
    let (mut changes, in_sight) = (shared.in_force.changes(), shared.clone());
    let mut watch = Watch {
        shared,
        witness: None,
        refused: HashMap::new(),
        seen: None,
        swaps: Swaps::default(),
        hasher: RandomState::new(),
    };
    // The first look is at once.
    let mut longest = Duration::from_nanos(1);
    loop {
        let every = |config: &Config| {
            let every = Duration::from_millis(config.upstream.acl_check_ms);
            if every.is_zero() {
                in_sight.set_sight(Sight::Off);
            }
            every.min(longest)
        };
        let config = changes.pause(every).await;
        longest = Duration::MAX;
        // As long as the silence of a tracker is borne.
        let bound = Duration::from_millis(config.coherence.heartbeat_deadline_ms);
        match tokio::time::timeout(bound, watch.look()).await {
            Ok(Some(Look::Seen(seen))) => watch.compare(seen),
            Ok(Some(Look::Same)) => {}
            Ok(None) | Err(_) => watch.lose_sight(),
        }
        if let Some(commandstats) = watch.witness.as_mut().and_then(|witness| witness.commandstats.take()) {
            let shared = &watch.shared;
            watch.swaps.read(&commandstats, &shared.coherence, config.coherence.keyspace_events);
        }
    }
}

struct Watch {
    shared: Arc<Shared>,
    witness: Option<Witness>,
    /// When each identity (none: `upstream.url`'s user) was last refused.
    refused: HashMap<Option<u32>, Instant>,
    seen: Option<Seen>,
    swaps: Swaps,
    hasher: RandomState,
}

enum Look {
    Seen(Seen),
    /// What was seen before stands: no count has moved, or a script is running, during which nobody is changed.
    Same,
}

impl Watch {
    /// What is there to be seen; `None` if nothing is. A look that is given up leaves no witness behind, and so no reply
    /// that the next look would take for its own.
    async fn look(&mut self) -> Option<Look> {
        if let Some(mut witness) = self.witness.take()
            && self.is_known(witness.identity)
            && !witness.era.is_over()
        {
            match witness.look(self.seen.as_ref(), &self.hasher).await {
                Ok(Some(look)) => {
                    self.witness = Some(witness);
                    return Some(look);
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "the upstream could not be asked about its users"),
            }
        }
        let (witness, seen) = self.find().await?;
        self.witness = Some(witness);
        Some(Look::Seen(seen))
    }

    /// Whoever may list the users, else whoever may count.
    async fn find(&mut self) -> Option<(Witness, Seen)> {
        self.refused.retain(|_, at| at.elapsed() < ASK_AGAIN);
        let mut counting = None;
        for (identity, login) in self.candidates() {
            match self.try_one(identity, login).await {
                Ok(Some((witness, seen))) if witness.lists => return Some((witness, seen)),
                Ok(Some(found)) => counting = counting.or(Some(found)),
                Ok(None) | Err(ConnectError::Refused(_)) => {
                    self.refused.insert(identity, Instant::now());
                }
                // It is the upstream that is away, for everyone.
                Err(_) => break,
            }
        }
        counting
    }

    fn candidates(&self) -> Vec<(Option<u32>, Option<Arc<Login>>)> {
        let own = self.shared.own_login().map(|login| (None, Some(login)));
        let identities = self.shared.identities.all();
        let users = identities.iter().map(|identity| (Some(identity.id), identity.login.clone()));
        let fresh = |(identity, _): &(Option<u32>, _)| !self.refused.contains_key(identity);
        own.into_iter().chain(users).filter(fresh).take(ASKED_MAX).collect()
    }

    async fn try_one(
        &self,
        identity: Option<u32>,
        login: Option<Arc<Login>>,
    ) -> Result<Option<(Witness, Seen)>, ConnectError> {
        let connector = Connector { login, ..self.shared.connector(None) };
        let connection = connector.open(Protocol::Resp2, "anteroom:users").await?;
        if !connection.authenticated {
            return Ok(None);
        }
        let (conversation, era) = (Conversation::new(connection.socket), connection.era);
        let mut witness =
            Witness { conversation, era, identity, lists: false, counts: false, unlisted: 0, commandstats: None };
        let (counts, list) = (witness.ask_counts().await?, witness.ask(LIST).await?);
        let seen = Seen { users: read_users(&list, &self.hasher), counts: read_counts(&counts, &self.hasher) };
        (witness.lists, witness.counts) = (seen.users.is_some(), seen.counts.is_some());
        if witness.lists || witness.counts {
            return Ok(Some((witness, seen)));
        }
        if [&counts, &list].iter().all(|reply| reply.starts_with(b"-NOPERM") || reply.starts_with(b"-ERR")) {
            return Ok(None);
        }
        // Busy or loading: no word about rights.
        Err(ConnectError::Network("the upstream is not to be asked now".into()))
    }

    /// Whether the witness's user still has clients; one who has none is not used any longer.
    fn is_known(&self, identity: Option<u32>) -> bool {
        identity.is_none_or(|id| self.shared.identities.all().iter().any(|identity| identity.id == id))
    }

    fn compare(&mut self, seen: Seen) {
        let sight = if seen.users.is_some() { Sight::Listed } else { Sight::Counted };
        let changed = changed(self.seen.as_ref(), &seen);
        if changed != Changed::Nobody {
            let all = self.shared.identities.all();
            let theirs: Vec<Arc<Identity>> = all.into_iter().filter(|i| changed.concerns(i.user())).collect();
            theirs.iter().for_each(|identity| self.forget(identity));
            if self.seen.is_some() {
                // Also to what the proxy answers itself, and to databases; and the default user may need a password now.
                self.shared.identities.rights_changed_of(&theirs);
                self.shared.survey_bell.notify_one();
            } else {
                // Nothing to compare with: consents end by themselves, and soon; databases do not.
                self.shared.identities.rights_changed_of(&[]);
            }
            if let Some(users) = &seen.users {
                let gone = theirs.iter().filter(|identity| !users.contains_key(identity.user()));
                gone.for_each(|identity| self.shared.close_clients_of(identity));
            }
        }
        self.seen = Some(seen);
        // Last: whoever reads it knows that this look has been acted upon.
        self.shared.set_sight(sight);
    }

    /// Whatever has been changed since the last look, nothing kept until now is served.
    fn lose_sight(&mut self) {
        self.shared.set_sight(Sight::Blind);
        (self.witness, self.seen) = (None, None);
        self.shared.identities.all().iter().for_each(|identity| self.forget(identity));
    }

    fn forget(&self, identity: &Identity) {
        identity.scopes.all().for_each(|source| self.shared.coherence.forget(source));
    }
}

/// Administrators' commands are not shown by MONITOR.
const LIST: &[&[u8]] = &[b"ACL", b"LIST"];
/// A section that does not exist is passed over; by its name a MONITOR through the proxy leaves the line out.
const COUNTS: &[&[u8]] = &[b"INFO", b"commandstats", b"anteroom:users"];

impl Witness {
    async fn ask(&mut self, question: &[&[u8]]) -> std::io::Result<Vec<u8>> {
        self.conversation.ask(question).await
    }

    async fn ask_counts(&mut self) -> std::io::Result<Vec<u8>> {
        let reply = self.ask(COUNTS).await?;
        self.commandstats = reply.starts_with(b"$").then(|| reply.clone());
        Ok(reply)
    }

    /// One look; `None` if what was permitted is refused. The counts come before the list: what changes in between is in
    /// the list now and in the counts next time.
    async fn look(&mut self, before: Option<&Seen>, hasher: &RandomState) -> std::io::Result<Option<Look>> {
        let mut seen = Seen::default();
        self.unlisted += 1;
        if self.counts {
            let reply = self.ask_counts().await?;
            if reply.starts_with(b"-BUSY") {
                return Ok(Some(Look::Same));
            }
            let Some(counts) = read_counts(&reply, hasher) else { return Ok(None) };
            seen.counts = Some(counts);
            if before.is_some_and(|before| before.counts == seen.counts) && self.unlisted < LIST_EVERY {
                return Ok(Some(Look::Same));
            }
        }
        if self.lists {
            let reply = self.ask(LIST).await?;
            if reply.starts_with(b"-BUSY") {
                return Ok(Some(Look::Same));
            }
            let Some(users) = read_users(&reply, hasher) else { return Ok(None) };
            seen.users = Some(users);
            self.unlisted = 0;
        }
        Ok(Some(Look::Seen(seen)))
    }
}

/// What a reply to [`COUNTS`] says.
fn read_counts(reply: &[u8], hasher: &RandomState) -> Option<u64> {
    if !reply.starts_with(b"$") {
        return None;
    }
    let lines = reply.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    Some(hasher.hash_one(lines.filter(|line| changes_users(line)).collect::<Vec<_>>()))
}

/// What a reply to [`LIST`] says.
fn read_users(reply: &[u8], hasher: &RandomState) -> Option<Users> {
    if !reply.starts_with(b"*") {
        return None;
    }
    let mut rest = &reply[reply.iter().position(|b| *b == b'\n')? + 1..];
    let mut users = Users::new();
    let mut splitter = ReplySplitter::default();
    while let Ok(Some(frame)) = splitter.split(rest) {
        let line = rest[..frame.len].splitn(2, |b| *b == b'\n').nth(1)?;
        // "user <name> <rules>"; a name has no spaces.
        let name = line.split(|b| *b == b' ').nth(1)?;
        users.insert(name.into(), hasher.hash_one(line));
        rest = &rest[frame.len..];
    }
    (!users.is_empty()).then_some(users)
}

/// Whether a line of INFO's commandstats counts a command that changes users, or one that resets the counts. Before Redis 7
/// subcommands are not told apart.
fn changes_users(line: &[u8]) -> bool {
    const COUNTS: [&[u8]; 7] =
        [b"acl", b"acl|setuser", b"acl|deluser", b"acl|load", b"config", b"config|set", b"config|resetstat"];
    let name = line.strip_prefix(b"cmdstat_").and_then(|rest| rest.split(|b| *b == b':').next());
    name.is_some_and(|name| COUNTS.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(lines: &[&str]) -> Vec<u8> {
        let mut reply = format!("*{}\r\n", lines.len());
        lines.iter().for_each(|line| reply += &format!("${}\r\n{line}\r\n", line.len()));
        reply.into_bytes()
    }

    #[test]
    fn a_user_whose_line_has_changed_is_told_from_the_others() {
        let hasher = RandomState::new();
        let look = |lines: &[&str]| Seen { users: read_users(&list(lines), &hasher), counts: None };
        let before = look(&["user ann on #1 ~* +get", "user ben on ~* +get", "user cid on ~* +get"]);
        assert_eq!(changed(Some(&before), &before), Changed::Nobody);
        let now = look(&["user cid on ~* +get", "user ann on #1 ~a +get", "user dan on ~* +get"]);
        let between = changed(Some(&before), &now);
        let concerned: Vec<&str> =
            ["ann", "ben", "cid", "dan", "eve"].into_iter().filter(|user| between.concerns(user.as_bytes())).collect();
        assert_eq!(concerned, ["ann", "ben", "dan"]);
        assert!(changed(None, &now).concerns(b"cid"), "there was nothing to compare with");
        let counted = |counts| Seen { users: None, counts: Some(counts) };
        assert!(changed(Some(&counted(1)), &now).concerns(b"cid"));
        assert!(changed(Some(&counted(1)), &counted(2)).concerns(b"cid"));
        assert_eq!(changed(Some(&counted(1)), &counted(1)), Changed::Nobody);
    }

    #[test]
    fn counts_tell_of_every_command_that_may_change_a_user_and_of_no_other() {
        let hasher = RandomState::new();
        let look = |lines: &str| read_counts(format!("$9\r\n# Commandstats\r\n{lines}").as_bytes(), &hasher);
        let before =
            look("cmdstat_get:calls=1\r\ncmdstat_acl|setuser:calls=1,usec=9\r\ncmdstat_acl|whoami:calls=1\r\n");
        assert!(before.is_some());
        let quiet = "cmdstat_get:calls=2\r\ncmdstat_acl|setuser:calls=1,usec=9\r\ncmdstat_acl|whoami:calls=4\r\n";
        assert_eq!(look(quiet), before);
        for line in
            ["acl|setuser:calls=2,usec=9", "acl|deluser:calls=1", "acl|load:calls=1", "config|resetstat:calls=1"]
        {
            assert_ne!(look(&format!("cmdstat_{line}\r\n{quiet}")), before, "{line}");
        }
    }

    #[test]
    fn what_is_no_answer_is_no_sight() {
        let hasher = RandomState::new();
        for reply in [&b"-NOPERM this user"[..], b"-BUSY Redis", b"*0\r\n", b"+OK\r\n", b""] {
            assert_eq!((read_users(reply, &hasher), read_counts(reply, &hasher)), (None, None));
        }
    }
}
