//! Asking the upstream about itself: its version, its commands, whether it wants a password.
//!
//! One task for the whole process; it ends with the acceptor. It asks at the start and then regularly, on a connection
//! of its own that is closed after each time, with the credentials of `upstream.url`.

use std::sync::Arc;
use std::time::Duration;

use super::facts::Facts;
use super::shared::Shared;
use crate::resp::Protocol;
use crate::upstream::connect::{ConnectError, Conversation};

/// How often the upstream is asked while it answers, and while it does not.
const WHILE_UP: Duration = Duration::from_secs(10);
const WHILE_DOWN: Duration = Duration::from_millis(500);

/// Keeps the facts and the command table up to date.
pub async fn keep(shared: Arc<Shared>) {
    let mut commands_of = String::new();
    loop {
        let pause = match ask(&shared, &mut commands_of).await {
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

async fn ask(shared: &Shared, commands_of: &mut String) -> Result<(), ConnectError> {
    let nobody = shared.connector(None).open(Protocol::Resp2, "anteroom:survey").await?;
    let mut facts = Facts { auth_required: !nobody.authenticated, known: true, ..(*shared.facts()).clone() };
    let url = &shared.config.upstream.url;
    let connection = match (&url.username, url.password()) {
        (_, None) => nobody,
        (user, Some(password)) => {
            drop(nobody);
            let mut connector = shared.connector(None);
            let user = user.as_deref().unwrap_or("default");
            connector.credentials = Some(Arc::new(crate::upstream::connect::Credentials {
                user: user.as_bytes().into(),
                password: password.as_bytes().into(),
            }));
            connector.open(Protocol::Resp2, "anteroom:survey").await?
        }
    };
    if !connection.authenticated {
        shared.set_facts(facts);
        return Ok(());
    }
    let mut conversation = Conversation::new(connection.socket);
    let bound = Duration::from_millis(shared.config.upstream.timeout_ms);
    let timed_out = |_| ConnectError::TimedOut(bound.as_millis());
    let info = tokio::time::timeout(bound, conversation.ask(&[b"INFO"])).await.map_err(timed_out)??;
    facts.read_info(&String::from_utf8_lossy(&info));
    let new_process = facts.run_id != *commands_of;
    if new_process {
        let commands = tokio::time::timeout(bound, conversation.ask(&[b"COMMAND"])).await.map_err(timed_out)??;
        match shared.table().1.merge(&commands) {
            Ok(table) => shared.set_table(table),
            Err(error) => tracing::warn!(%error, "the upstream's COMMAND cannot be read; using the built-in table"),
        }
        commands_of.clone_from(&facts.run_id);
        tracing::info!(version = facts.version, role = facts.role, "upstream reached");
    }
    shared.set_facts(facts);
    Ok(())
}
