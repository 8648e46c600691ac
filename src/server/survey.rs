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

/// How often the upstream is asked while it answers, and while it does not.
const WHILE_UP: Duration = Duration::from_secs(10);
const WHILE_DOWN: Duration = Duration::from_millis(500);
/// How often a replica is asked: its refusals tell nothing new, so that its name now standing for a primary shows only here.
const WHILE_REPLICA: Duration = Duration::from_secs(1);
/// The shortest pause, whoever rings: a script can.
const RUNG_MIN: Duration = Duration::from_millis(100);

/// Keeps the facts and the command table up to date.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut commands_of = String::new();
    loop {
        let pause = match ask(&shared, &mut commands_of).await {
            Ok(()) if shared.facts().is_replica() => WHILE_REPLICA,
            Ok(()) => WHILE_UP,
            Err(error) => {
                tracing::debug!(%error, "the upstream could not be asked about itself");
                WHILE_DOWN
            }
        };
        tokio::time::sleep(RUNG_MIN).await;
        // Rung when rights or the server may have changed; too early a bell is not lost.
        let _ = tokio::time::timeout(pause, shared.survey_bell.notified()).await;
    }
}

async fn ask(shared: &Shared, commands_of: &mut String) -> Result<(), ConnectError> {
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
    // Over the connection just made, and not one that was kept: the name may stand for another server now.
    let bound = Duration::from_millis(shared.config.upstream.timeout_ms);
    let mut conversation = Conversation::new(connection.socket);
    let late = |_| ConnectError::TimedOut(bound.as_millis());
    let info = tokio::time::timeout(bound, conversation.ask(&[b"INFO"])).await.map_err(late)??;
    let info = String::from_utf8_lossy(&info);
    if let Some(refusal) = info.strip_prefix('-') {
        return Err(ConnectError::Refused(refusal.trim_end().to_owned()));
    }
    facts.read_info(&info);
    if facts.run_id != *commands_of {
        let commands = tokio::time::timeout(bound, conversation.ask(&[b"COMMAND"])).await.map_err(late)??;
        match shared.table().1.merge(&commands) {
            Ok(table) => shared.set_table(table),
            Err(error) => tracing::warn!(%error, "the upstream's COMMAND cannot be read; using the built-in table"),
        }
        commands_of.clone_from(&facts.run_id);
        tracing::info!(version = facts.version, role = facts.role, "upstream reached");
    }
    let before = shared.facts();
    let is_same = before.run_id.is_empty() || before.is_same_server(&facts);
    // First what is known, then what follows from it: who is refused by a replica meanwhile need not drop everything again.
    shared.set_facts(facts);
    if !is_same {
        shared.another_server("its role, its process or its history has changed");
    }
    Ok(())
}
