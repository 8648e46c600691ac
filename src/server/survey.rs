//! Asking the upstream about itself: its version, its commands, whether it wants a password.
//!
//! One task for the whole process; it ends with the acceptor. It asks at the start and then regularly, with the
//! credentials of `upstream.url`; where they are none and a password is needed, with those of a client's user.

use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use crate::resp::Protocol;
use crate::upstream::connect::{ConnectError, Connection, Connector, Conversation, Login};
use crate::upstream::pause::OfEveryone;

/// How often the upstream is asked while it answers, and while it does not.
const WHILE_UP: Duration = Duration::from_secs(10);
const WHILE_DOWN: Duration = Duration::from_millis(500);
/// How often a replica is asked: its refusals tell nothing new, so that its name now standing for a primary shows only here.
const WHILE_REPLICA: Duration = Duration::from_secs(1);
/// The shortest pause, whoever rings: a script can.
const RUNG_MIN: Duration = Duration::from_millis(100);
/// Users in whose name it is asked in one round, at most, until one may run INFO.
const USERS_MAX: usize = 16;
/// What the survey's connections are called in the upstream's CLIENT LIST.
const NAME: &str = "anteroom:survey";

/// Keeps the facts and the command table up to date.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut survey = Survey { bound: Duration::ZERO, shared, commands_of: None, paused: None };
    loop {
        survey.bound = Duration::from_millis(survey.shared.config().upstream.timeout_ms);
        let pause = match survey.ask().await {
            // Answered though everyone is said to be held back: asked again, it will tell whether they are.
            Ok(()) if survey.paused.is_some() => WHILE_DOWN,
            Ok(()) if survey.shared.facts().is_replica() => WHILE_REPLICA,
            Ok(()) => WHILE_UP,
            Err(error) => {
                tracing::debug!(%error, "the upstream could not be asked about itself");
                WHILE_DOWN
            }
        };
        tokio::time::sleep(RUNG_MIN).await;
        // Rung when rights or the server may have changed; too early a bell is not lost.
        let _ = tokio::time::timeout(pause, survey.shared.survey_bell.notified()).await;
    }
}

struct Survey {
    shared: Arc<Shared>,
    /// How long one answer may take.
    bound: Duration,
    /// The process whose COMMAND has been read.
    commands_of: Option<String>,
    /// The pause of everyone that stood when the last question was asked.
    paused: Option<OfEveryone>,
}

/// A connection that may run commands, and what INFO says on it; absent if its user may not run INFO.
struct Witness {
    conversation: Conversation,
    info: Option<Vec<u8>>,
}

impl Survey {
    async fn ask(&mut self) -> Result<(), ConnectError> {
        // One that stood at the last question, too, has long reached the server it was meant for; this is another one if it answers,
        // or the pause was lifted beside the proxy. (The server's name tells as much, but only once it is known.)
        let (before, now) = (self.paused, self.shared.pause.of_everyone());
        self.paused = now;
        let held = now.filter(|_| before == now);
        let nobody = self.shared.connector(None).open(Protocol::Resp2, NAME).await?;
        let (auth_required, knows_hello) = (!nobody.authenticated, nobody.knows_hello);
        let Some(mut witness) = self.witness(nobody).await? else {
            self.shared.learn(|facts| {
                (facts.auth_required, facts.knows_hello, facts.known) = (auth_required, knows_hello, true);
            });
            return Ok(());
        };
        let hello = self.bounded(witness.conversation.ask(&[b"HELLO"])).await?;
        if let Some(held) = held {
            self.shared.pause.disproved(held);
        }
        let before = self.shared.facts();
        self.shared.learn(|facts| {
            (facts.auth_required, facts.knows_hello, facts.known) = (auth_required, knows_hello, true);
            if let Some(info) = &witness.info {
                facts.read_info(&String::from_utf8_lossy(info));
            }
            facts.read_hello(&hello);
        });
        let facts = self.shared.facts();
        if self.commands_of.as_ref() != Some(&facts.run_id) {
            let commands = self.bounded(witness.conversation.ask(&[b"COMMAND"])).await?;
            match self.shared.table().1.merge(&commands) {
                Ok(table) => {
                    self.shared.rules().tell_unknown(&table);
                    self.shared.set_table(table);
                }
                Err(error) => tracing::warn!(%error, "the upstream's COMMAND cannot be read; using the built-in table"),
            }
            self.commands_of = Some(facts.run_id.clone());
            tracing::info!(version = facts.version(), role = facts.role, "upstream reached");
        }
        // What is known was learnt first: who is refused by a replica meanwhile need not drop everything again.
        if !before.run_id.is_empty() && !before.is_same_server(&facts) {
            if before.run_id != facts.run_id {
                self.shared.pause.forget();
            }
            self.shared.another_server("its role, its process or its history has changed");
        }
        Ok(())
    }

    /// Whoever may run INFO, else whoever is let in at all; `None` if nobody is.
    async fn witness(&self, nobody: Connection) -> Result<Option<Witness>, ConnectError> {
        if let Some(own) = self.shared.own_login() {
            return self.as_user(own).await.map(Some);
        }
        let mut found = None;
        if nobody.authenticated {
            found = Some(self.on(nobody).await?);
        }
        let users = self.shared.identities.all();
        for login in users.iter().filter_map(|identity| identity.login.clone()).take(USERS_MAX) {
            if found.as_ref().is_some_and(|witness: &Witness| witness.info.is_some()) {
                break;
            }
            // A user who is gone, or whose password has changed, is no witness; the next one may be.
            if let Ok(witness) = self.as_user(login).await
                && (found.is_none() || witness.info.is_some())
            {
                found = Some(witness);
            }
        }
        Ok(found)
    }

    async fn as_user(&self, login: Arc<Login>) -> Result<Witness, ConnectError> {
        let connector = Connector { login: Some(login), ..self.shared.connector(None) };
        self.on(connector.open(Protocol::Resp2, NAME).await?).await
    }

    async fn on(&self, connection: Connection) -> Result<Witness, ConnectError> {
        let mut conversation = Conversation::new(connection.socket);
        let info = self.bounded(conversation.ask(&[b"INFO"])).await?;
        match info.strip_prefix(b"-") {
            None => Ok(Witness { conversation, info: Some(info) }),
            Some(error) if error.starts_with(b"NOPERM") => Ok(Witness { conversation, info: None }),
            Some(error) => {
                let code = error.split(|b| *b == b' ').next().unwrap_or_default();
                Err(ConnectError::Refused(format!("INFO is answered {}", String::from_utf8_lossy(code).trim_end())))
            }
        }
    }

    async fn bounded(&self, asked: impl Future<Output = std::io::Result<Vec<u8>>>) -> Result<Vec<u8>, ConnectError> {
        match tokio::time::timeout(self.bound, asked).await {
            Ok(told) => Ok(told?),
            Err(_) => Err(ConnectError::TimedOut(self.bound.as_millis())),
        }
    }
}
