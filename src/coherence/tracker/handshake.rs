//! A connection on which tracking is on: asked for, and confirmed.
//!
//! Owns what is asked of a server before it is trusted to tell of changes. Does not retry.

use std::io;

use crate::coherence::events;
use crate::resp::{Protocol, Understood};
use crate::upstream::connect::{ConnectError, Connection, Connector, Conversation};

/// Why there is none.
pub(in crate::coherence) enum Refused {
    /// There is no connection.
    Connect(ConnectError),
    /// The server cannot or will not track, and why.
    Unsupported(String),
}

impl From<ConnectError> for Refused {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

/// What a connection hears changes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// CLIENT TRACKING.
    Tracking,
    /// Keyspace events.
    Events,
}

/// A connection for the tracker, and what it hears changes by: tracking, or else, if they may be used, keyspace events.
pub(super) async fn listen(connector: &Connector, may_use_events: bool) -> Result<(Connection, Signal), Refused> {
    const NAME: &str = "anteroom:tracker";
    match tracking_on(connector, NAME, &[]).await {
        Err(Refused::Unsupported(why)) if may_use_events => match events_on(connector, NAME).await {
            Ok(connection) => Ok((connection, Signal::Events)),
            Err(Refused::Unsupported(events)) => Err(Refused::Unsupported(format!("{why}; {events}"))),
            Err(other) => Err(other),
        },
        tracked => Ok((tracked?, Signal::Tracking)),
    }
}

async fn events_on(connector: &Connector, name: &str) -> Result<Connection, Refused> {
    let connection = connector.open(Protocol::Resp3, name).await?;
    if !connection.authenticated || connection.protocol != Protocol::Resp3 {
        return Err(Refused::Unsupported("keyspace events are heard by RESP3 only".into()));
    }
    let Connection { socket, upstream_id, era, .. } = connection;
    let mut asked = Conversation::new(socket);
    let ask = async {
        let told = asked.ask(&[b"CONFIG", b"GET", events::SETTING.as_bytes()]).await?;
        let Some(pattern) = events_pattern(&told) else {
            return Ok(Err("keyspace events do not tell every change, or may not be asked about".to_owned()));
        };
        // Confirmed by a push, which a conversation passes over: an error would stand before the PONG.
        asked.tell(&[b"PSUBSCRIBE", pattern]).await?;
        let pong = asked.ask(&[b"PING"]).await?;
        Ok(if pong == b"+PONG\r\n" { Ok(()) } else { Err("keyspace events may not be subscribed to".to_owned()) })
    };
    agreed(connector, ask).await?;
    Ok(asked.into_connection(Protocol::Resp3, upstream_id, true, era).map_err(ConnectError::from)?)
}

/// What CONFIG GET says of the setting: the channels to listen to, if they tell every change.
pub(super) fn events_pattern(told: &[u8]) -> Option<&'static [u8]> {
    events::pattern(Understood::decode(told)?.text(events::SETTING)?)
}

/// A connection, called `name` upstream, on which tracking is confirmed on, with these options.
pub(in crate::coherence) async fn tracking_on(
    connector: &Connector,
    name: &str,
    options: &[&[u8]],
) -> Result<Connection, Refused> {
    let connection = connector.open(Protocol::Resp3, name).await?;
    if !connection.authenticated {
        return Err(Refused::Unsupported("the upstream wants a password".into()));
    }
    if connection.protocol != Protocol::Resp3 {
        return Err(Refused::Unsupported("the upstream does not speak RESP3".into()));
    }
    let Connection { socket, upstream_id, era, .. } = connection;
    let mut asked = Conversation::new(socket);
    let ask = async {
        let version = asked.ask(&[b"INFO", b"server"]).await?;
        if major_version(&version).is_some_and(|major| major < 7) {
            // Before 7.0 a push may stand inside an array reply (redis-facts F8).
            return Ok(Err("Redis before 7.0 can put a push inside a reply".to_owned()));
        }
        // A guard against maxmemory-clients (redis-facts, section 2); a refusal costs nothing else.
        asked.ask(&[b"CLIENT", b"NO-EVICT", b"on"]).await?;
        let on = asked.ask(&[&[&b"CLIENT"[..], b"TRACKING", b"on"], options].concat()).await?;
        if !on.starts_with(b"+OK") {
            return Ok(Err(String::from_utf8_lossy(&on).trim_matches(['-', '\r', '\n']).to_owned()));
        }
        let info = asked.ask(&[b"CLIENT", b"TRACKINGINFO"]).await?;
        if !Understood::decode(&info).is_some_and(|info| info.lists("flags", "on")) {
            return Ok(Err("tracking is not confirmed on".to_owned()));
        }
        // With BCAST they come at once. What they tell of is not lost: everyone is told everything as the connection takes over.
        asked.drop_pushes().await?;
        Ok(Ok(()))
    };
    agreed(connector, ask).await?;
    Ok(asked.into_connection(Protocol::Resp3, upstream_id, true, era).map_err(ConnectError::from)?)
}

/// Waits for the server's answers, which are consent or why not.
async fn agreed(
    connector: &Connector,
    asked: impl Future<Output = io::Result<Result<(), String>>>,
) -> Result<(), Refused> {
    match tokio::time::timeout(connector.timeout, asked).await {
        Ok(Ok(consent)) => consent.map_err(Refused::Unsupported),
        Ok(Err(error)) => Err(Refused::Connect(error.into())),
        Err(_) => Err(Refused::Connect(ConnectError::TimedOut(connector.timeout.as_millis()))),
    }
}

fn major_version(info: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(info).ok()?;
    let version = text.lines().find_map(|line| line.strip_prefix("redis_version:"))?;
    version.split('.').next()?.parse().ok()
}
