//! Whether the upstream answers at this moment, and whether it says anything at all.
//!
//! One connection of its own, asked PING all the time, so that the answer is never older than a pause and a deadline together: under
//! a second. One task for the whole process. Lanes and trackers find out for themselves; nothing they do hangs on this word,
//! it is for those who look (`/readyz`, the metrics, the console), and for those who can do without an answer and need not wait for one who says
//! nothing (PING, INFO). While it is silent they need not be permitted either, so silence is not to be mistaken for a long way:
//!
//! - Over the connection: a PING unanswered for [`DEADLINE`] is silence.
//! - While the connection is being made (name, TCP, TLS, HELLO): the upstream is not reachable after [`DEADLINE`], and silent after
//!   [`SILENT_AFTER`], or after `upstream.timeout_ms` if that is less; unless something has come over a lane or to a tracker within the last
//!   [`SILENT_AFTER`].
//!   The attempt goes on for all of `upstream.timeout_ms`: a connection that takes long to make is made, and then asked over.
//! - A silence goes on through further attempts, until there is an answer, a refusal, or something comes over one of those.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::shared::Shared;
use crate::resp::Protocol;
use crate::upstream::connect::{ConnectError, Connection, Connector, Conversation, reason};

/// Between two questions, or two attempts to ask.
const EVERY: Duration = Duration::from_millis(250);
/// How long an answer, or a connection, may take while the upstream counts as reachable.
pub const DEADLINE: Duration = Duration::from_millis(500);
/// How long a connection may take, and nothing come over any lane or to any tracker meanwhile, before that is silence.
pub const SILENT_AFTER: Duration = Duration::from_secs(1);
/// What the connection is called in the upstream's CLIENT LIST.
const NAME: &str = "anteroom:health";
/// Errors by which a server says that it can serve nobody; any other proves that it serves.
const CANNOT_SERVE: [&[u8]; 3] = [b"-LOADING", b"-MASTERDOWN", b"-BUSY"];
/// Bytes of such an error that are told.
const TOLD_MAX_BYTES: usize = 200;

/// What was last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing yet: it is being asked for the first time.
    Unknown,
    /// An answer, after so long.
    Answer(Duration),
    /// It cannot be connected to, or not yet, or says that it serves nobody: why.
    None(String),
    /// Nothing at all, over a connection or instead of one, since then.
    Silence(Instant),
}

impl Heard {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Answer(_) => "yes",
            Self::None(_) | Self::Silence(_) => "no",
        }
    }
}

/// What was last heard, for all threads.
#[derive(Debug)]
pub struct Reach(watch::Sender<Heard>);

impl Default for Reach {
    fn default() -> Self {
        Self(watch::Sender::new(Heard::Unknown))
    }
}

impl Reach {
    /// What was last heard.
    pub fn heard(&self) -> Heard {
        self.0.borrow().clone()
    }

    /// Whether it says nothing at all: then nobody need wait for it who can do without.
    pub fn is_silent(&self) -> bool {
        matches!(*self.0.borrow(), Heard::Silence(_))
    }

    /// Resolves once it has said nothing at all for so long.
    pub async fn silent_for(&self, time: Duration) {
        let mut heard = self.0.subscribe();
        loop {
            let since = match heard.wait_for(|heard| matches!(heard, Heard::Silence(_))).await.as_deref() {
                Ok(Heard::Silence(since)) => *since,
                // The sender is ours, and nothing else was waited for.
                _ => return,
            };
            let left = time.saturating_sub(since.elapsed());
            if timeout(left, heard.wait_for(|heard| !matches!(heard, Heard::Silence(_)))).await.is_err() {
                return;
            }
        }
    }

    fn hear(&self, heard: Heard) {
        self.0.send_modify(|last| {
            let goes_on = matches!((&*last, &heard), (Heard::Silence(_), Heard::Silence(_)));
            if !goes_on {
                *last = heard;
            }
        });
    }
}

/// Asks for as long as it is polled; ends when aborted.
pub(super) async fn keep(shared: Arc<Shared>) {
    loop {
        if let Err(heard) = stay(&shared).await {
            shared.reach.hear(heard);
            sleep(EVERY).await;
        }
    }
}

/// Connects and asks until there is no answer, and says what there was instead; or until it is another server's answer that counts.
async fn stay(shared: &Shared) -> Result<(), Heard> {
    let Connection { socket, era, .. } = connect(shared).await?;
    let mut conversation = Conversation::new(socket);
    while !era.is_over() {
        let asked = Instant::now();
        match timeout(DEADLINE, conversation.ask(&[b"PING", NAME.as_bytes()])).await {
            Ok(Ok(answer)) => shared.reach.hear(judged(&answer, asked.elapsed())),
            Ok(Err(error)) => return Err(Heard::None(reason(&error))),
            Err(_) => return Err(Heard::Silence(Instant::now())),
        }
        sleep(EVERY).await;
    }
    Ok(())
}

/// See the head of this file.
async fn connect(shared: &Shared) -> Result<Connection, Heard> {
    let connector = Connector { login: shared.own_login(), ..shared.connector(None) };
    let began = Instant::now();
    let mut opened = pin!(connector.open(Protocol::Resp2, NAME));
    let mut others = Others { came: came_to_others(shared), last: None };
    loop {
        match timeout(DEADLINE, &mut opened).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error @ ConnectError::TimedOut(_))) => {
                let is_silent = !others.are_answered(shared);
                return Err(if is_silent { Heard::Silence(Instant::now()) } else { Heard::None(error.to_string()) });
            }
            Ok(Err(error)) => return Err(Heard::None(error.to_string())),
            Err(_) => {
                let goes_on = shared.reach.is_silent() || began.elapsed() >= SILENT_AFTER;
                let is_silent = !others.are_answered(shared) && goes_on;
                let not_yet = || Heard::None(format!("no connection within {} ms", DEADLINE.as_millis()));
                shared.reach.hear(if is_silent { Heard::Silence(Instant::now()) } else { not_yet() });
            }
        }
    }
}

/// What comes from the upstream over other connections while this one is being made: how it stands, and when that was last found to be
/// otherwise.
struct Others {
    came: (u64, u64),
    last: Option<Instant>,
}

impl Others {
    /// Whether anything has come within [`SILENT_AFTER`].
    fn are_answered(&mut self, shared: &Shared) -> bool {
        let came = came_to_others(shared);
        if came != self.came {
            *self = Self { came, last: Some(Instant::now()) };
        }
        self.last.is_some_and(|last| last.elapsed() < SILENT_AFTER)
    }
}

/// Bytes over lanes, and the instants at which each tracker last heard anything, added up: it is only asked whether they change.
fn came_to_others(shared: &Shared) -> (u64, u64) {
    let identities = shared.identities.all();
    let heard_at = identities.iter().flat_map(|identity| &identity.tracker).map(|tracker| tracker.standing.heard_at());
    let lanes = shared.stats.iter().map(|stats| stats.figures.bytes.lanes_received.get()).sum();
    (lanes, heard_at.fold(0, u64::wrapping_add))
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

    #[tokio::test]
    async fn a_silence_lasts_from_its_first_moment_and_ends_with_a_word() {
        let (reach, time) = (std::sync::Arc::new(Reach::default()), Duration::from_millis(100));
        assert!(timeout(time, reach.silent_for(time)).await.is_err(), "nothing was heard yet");
        let began = Instant::now();
        reach.hear(Heard::Silence(began));
        reach.hear(Heard::Silence(began + time * 10));
        reach.silent_for(time).await;
        assert!(reach.is_silent() && began.elapsed() >= time && began.elapsed() < time * 50);
        let waiting = tokio::spawn({
            let reach = reach.clone();
            async move { reach.silent_for(time * 100).await }
        });
        tokio::task::yield_now().await;
        reach.hear(Heard::Answer(Duration::ZERO));
        assert!(!reach.is_silent() && timeout(time, waiting).await.is_err());
    }
}
