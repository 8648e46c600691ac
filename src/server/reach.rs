//! Whether the upstream answers at this moment.
//!
//! One connection of its own, asked PING all the time, so that the answer is never older than a pause and a deadline together: under
//! a second. One task for the whole process. Lanes and trackers find out for themselves; nothing they do hangs on this word,
//! it is for those who look (`/readyz`, the metrics).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::shared::Shared;
use crate::resp::Protocol;
use crate::upstream::connect::{ConnectError, Connection, Connector, Conversation, reason};

/// Between two questions, or two attempts to ask.
const EVERY: Duration = Duration::from_millis(250);
/// How long an answer, or a connection, may take.
const DEADLINE: Duration = Duration::from_millis(500);
/// What the connection is called in the upstream's CLIENT LIST.
const NAME: &str = "anteroom:health";
/// Errors by which a server says that it can serve nobody; any other proves that it serves.
const CANNOT_SERVE: [&[u8]; 3] = [b"-LOADING", b"-MASTERDOWN", b"-BUSY"];
/// Bytes of such an error that are told.
const TOLD_MAX_BYTES: usize = 200;

/// What was last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing yet: nobody looks, or it is being asked for the first time.
    Unknown,
    /// An answer, after so long.
    Answer(Duration),
    /// None, or none that helps, and why.
    None(String),
}

impl Heard {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Answer(_) => "yes",
            Self::None(_) => "no",
        }
    }
}

/// What was last heard, for all threads.
#[derive(Debug)]
pub struct Reach(Mutex<Heard>);

impl Default for Reach {
    fn default() -> Self {
        Self(Mutex::new(Heard::Unknown))
    }
}

impl Reach {
    /// What was last heard.
    pub fn heard(&self) -> Heard {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hear(&self, heard: Heard) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = heard;
    }
}

/// Asks for as long as it is polled; ends when aborted.
pub(super) async fn keep(shared: Arc<Shared>) {
    loop {
        if let Err(why) = stay(&shared).await {
            shared.reach.hear(Heard::None(why));
            sleep(EVERY).await;
        }
    }
}

/// Connects and asks until there is no answer, and says why there was none; or until it is another server's answer that counts.
async fn stay(shared: &Shared) -> Result<(), String> {
    let connector = Connector { login: shared.own_login(), ..shared.connector(None) };
    let connection = match timeout(DEADLINE, connector.open(Protocol::Resp2, NAME)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(ConnectError::TimedOut(_))) | Err(_) => return Err(silent()),
        Ok(Err(error)) => return Err(error.to_string()),
    };
    let Connection { socket, era, .. } = connection;
    let mut conversation = Conversation::new(socket);
    while !era.is_over() {
        let asked = Instant::now();
        match timeout(DEADLINE, conversation.ask(&[b"PING", NAME.as_bytes()])).await {
            Ok(Ok(answer)) => shared.reach.hear(judged(&answer, asked.elapsed())),
            Ok(Err(error)) => return Err(reason(&error)),
            Err(_) => return Err(silent()),
        }
        sleep(EVERY).await;
    }
    Ok(())
}

fn silent() -> String {
    format!("it does not answer within {} ms", DEADLINE.as_millis())
}

fn judged(answer: &[u8], after: Duration) -> Heard {
    if CANNOT_SERVE.iter().any(|error| answer.starts_with(error)) {
        let told = &answer[1..answer.len().min(TOLD_MAX_BYTES)];
        return Heard::None(String::from_utf8_lossy(told).trim_end().replace(char::is_control, " "));
    }
    Heard::Answer(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_an_answer_unless_it_says_that_nobody_is_served() {
        let soon = Duration::from_millis(1);
        for serves in ["+PONG\r\n", "-NOAUTH Authentication required.\r\n", "-NOPERM no\r\n"] {
            assert_eq!(judged(serves.as_bytes(), soon), Heard::Answer(soon), "{serves}");
        }
        let loading = "LOADING Redis is loading the dataset in memory";
        assert_eq!(judged(format!("-{loading}\r\n").as_bytes(), soon), Heard::None(loading.to_owned()));
    }
}
