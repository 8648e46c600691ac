//! What runs the process: where its configuration came from, who writes its log, what it is signalled, and whom it tells how far
//! it is (systemd, by `sd_notify`).
//!
//! Everything here is optional: a proxy within another program, or a test, has none of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::Notify;

use crate::config::Sources;

/// Sets the log's level, in the syntax of `log.level`, which has been checked.
pub type SetLogLevel = Box<dyn Fn(&str) + Send + Sync>;

/// See the head of this file.
#[derive(Default)]
pub struct Host {
    /// What is read again by a reload.
    pub sources: Option<Sources>,
    /// How the log's level is changed.
    pub set_log_level: Option<SetLogLevel>,
    /// Told at each SIGHUP.
    pub hangups: Arc<Notify>,
    /// Who is told how far the process is.
    pub supervisor: Supervisor,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("supervisor", &self.supervisor).finish_non_exhaustive()
    }
}

/// Who started the process and wants to know how it is: systemd, or whoever else listens on `NOTIFY_SOCKET`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Supervisor {
    is_there: bool,
}

impl Supervisor {
    /// Whoever is named in the environment.
    pub fn of_environment() -> Self {
        Self { is_there: std::env::var_os("NOTIFY_SOCKET").is_some() }
    }

    /// Clients are served; also after [`Supervisor::reloading`], whatever came of it.
    pub fn ready(self) {
        self.tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
    }

    /// The configuration is being read again.
    pub fn reloading(self) {
        // systemd wants the time, to tell this reload from an earlier one.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]),
            Err(error) => tracing::warn!(%error, "the supervisor is not told of the reload"),
        }
    }

    /// It stops, and may take so long.
    pub fn stopping(self, at_most: Duration) {
        let micros = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::Stopping, NotifyState::Status("draining"), NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// It is alive.
    pub fn alive(self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// How often that has to be said, at least; `None` if nobody wants to hear it.
    pub fn watchdog(self) -> Option<Duration> {
        if self.is_there { sd_notify::watchdog_enabled() } else { None }
    }

    fn tell(self, state: &[NotifyState<'_>]) {
        if self.is_there
            && let Err(error) = sd_notify::notify(state)
        {
            tracing::warn!(%error, "the supervisor cannot be told");
        }
    }
}
