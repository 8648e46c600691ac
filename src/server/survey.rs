//! Asking the upstream about itself: its version, its commands, whether it wants a password.
//!
//! One task for the whole process; it ends with the acceptor. It asks at the start and then regularly, with the
//! credentials of `upstream.url`.

use std::sync::Arc;
use std::time::Duration;

use super::facts::Facts;
use super::shared::Shared;
use crate::resp::Protocol;
use crate::upstream::connect::{ConnectError, Connector, Conversation};
use crate::upstream::control::{self, Control};

/// How often the upstream is asked while it answers, and while it does not.
const WHILE_UP: Duration = Duration::from_secs(10);
const WHILE_DOWN: Duration = Duration::from_millis(500);

/// Keeps the facts and the command table up to date.
pub(super) async fn keep(shared: Arc<Shared>, control: Control) {
    let mut commands_of = String::new();
    loop {
        let pause = match ask(&shared, &control, &mut commands_of).await {
            Ok(()) => WHILE_UP,
            Err(error) => {
                tracing::debug!(%error, "the upstream could not be asked about itself");
                WHILE_DOWN
            }
        };
        // Rung when rights may have changed; too early a bell is not lost.
        let _ = tokio::time::timeout(pause, shared.survey_bell.notified()).await;
    }
}

async fn ask(shared: &Shared, control: &Control, commands_of: &mut String) -> Result<(), ConnectError> {
    let nobody = shared.connector(None).open(Protocol::Resp2, "anteroom:survey").await?;
    let mut facts = Facts { auth_required: !nobody.authenticated, known: true, ..(*shared.facts()).clone() };
    let own = shared.own_login();
    let connection = match own {
        None if !nobody.authenticated => {
            shared.set_facts(facts);
            return Ok(());
        }
        None => nobody,
        Some(_) => {
            let connector = Connector { login: own, ..shared.connector(None) };
            connector.open(Protocol::Resp2, "anteroom:survey").await?
        }
    };
    facts.read_info(&control.info().await.map_err(|e| ConnectError::Refused(control::reason(&e).to_owned()))?);
    if facts.run_id != *commands_of {
        let bound = Duration::from_millis(shared.config.upstream.timeout_ms);
        let mut conversation = Conversation::new(connection.socket);
        let commands = tokio::time::timeout(bound, conversation.ask(&[b"COMMAND"])).await;
        let commands = commands.map_err(|_| ConnectError::TimedOut(bound.as_millis()))??;
        match shared.table().1.merge(&commands) {
            Ok(table) => shared.set_table(table),
            Err(error) => tracing::warn!(%error, "the upstream's COMMAND cannot be read; using the built-in table"),
        }
        commands_of.clone_from(&facts.run_id);
        tracing::info!(version = facts.version, role = facts.role, "upstream reached");
    }
    let before = shared.facts();
    if !before.run_id.is_empty() && (&before.run_id, &before.role) != (&facts.run_id, &facts.role) {
        shared.another_server("its role or process has changed");
    }
    shared.set_facts(facts);
    Ok(())
}
