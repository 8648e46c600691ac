//! Changing what is in force while the proxy runs: one change at a time, each whole or not at all.
//!
//! ```text
//!   SIGHUP ──────────────┐
//!   PROXY CONFIG, CACHE ─┴─► one task: read, check ─► all go by it ─► what was kept under the old one goes ─► answer
//! ```
//!
//! A task of its own, so that a client that leaves half-way leaves nothing half done.
//!
//! What was kept goes only once everyone decides by the new configuration: before that, somebody could still keep something by the
//! old one. Until then a mixture is served, of which each part is right by one of the two.
//!
//! Does not own the files, the words for what is wrong, nor which keys need a restart (`config::change`).

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};

use super::in_force::Settings;
use super::rules::Rules;
use super::shared::Shared;
use super::stage::Stage;
use crate::coherence::Cause;
use crate::config::{Config, Problems, change};
use crate::host::Host;

/// Changes asked for and not yet made, at most.
const WAITING_MAX: usize = 64;

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// To read the file, the flags and the environment anew.
    Reload,
    /// Other values for these keys, until the next reload.
    Set(Vec<(String, String)>),
    /// Whether anything is kept and served from memory, until it is said otherwise.
    Cache(bool),
}

/// What came of it, in one line: what is different now, or why nothing is.
pub type Outcome = Result<String, String>;

type Asked = (Change, oneshot::Sender<Outcome>);

/// Where changes are asked for. See the head of this file.
#[derive(Debug)]
pub struct Desk {
    ask: mpsc::Sender<Asked>,
    /// Until the one who makes them has taken it.
    asked: Mutex<Option<mpsc::Receiver<Asked>>>,
    drain: Notify,
}

impl Default for Desk {
    fn default() -> Self {
        let (ask, asked) = mpsc::channel(WAITING_MAX);
        Self { ask, asked: Mutex::new(Some(asked)), drain: Notify::new() }
    }
}

impl Desk {
    /// Asks for a change and waits until it is made, or is not going to be. Once it has been asked for, it is made whether or not
    /// anybody waits.
    pub async fn ask(&self, change: Change) -> Outcome {
        let gone = || "the proxy is stopping".to_owned();
        let (tell, told) = oneshot::channel();
        self.ask.send((change, tell)).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }

    /// Asks the proxy to stop, as SIGTERM does.
    pub fn drain(&self) {
        self.drain.notify_one();
    }

    /// Resolves once that has been asked for.
    pub(super) async fn drain_asked(&self) {
        self.drain.notified().await;
    }
}

/// Makes the changes that are asked for, and reloads when the process is sent SIGHUP. Ends when aborted.
pub(super) async fn keep(shared: Arc<Shared>, host: Arc<Host>) {
    let asked = shared.desk.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut asked) = asked else { return };
    let steering = Steering { shared, host };
    loop {
        let (change, tell) = tokio::select! {
            () = steering.host.hangups.notified() => (Change::Reload, None),
            asked = asked.recv() => match asked {
                Some((change, tell)) => (change, Some(tell)),
                None => return,
            },
        };
        let outcome = steering.make(change).await;
        if let Some(tell) = tell {
            // Whoever asked may have left.
            let _ = tell.send(outcome);
        }
    }
}

struct Steering {
    shared: Arc<Shared>,
    host: Arc<Host>,
}

impl Steering {
    async fn make(&self, change: Change) -> Outcome {
        let made = match change {
            Change::Reload => {
                // Who has been told that the process stops is not told that it is ready.
                let is_told = self.shared.stage.get() == Stage::Serving;
                if is_told {
                    self.host.supervisor.reloading();
                }
                let made = self.reload().await;
                if is_told {
                    self.host.supervisor.ready();
                }
                made
            }
            Change::Set(pairs) => self.set(pairs).await,
            Change::Cache(on) => self.switch_cache(on).await,
        };
        match &made {
            Ok(what) => tracing::info!("{what}"),
            Err(why) => tracing::error!("nothing is changed: {why}"),
        }
        made
    }

    async fn reload(&self) -> Outcome {
        let Some(sources) = self.host.sources.clone() else {
            return Err("this proxy was given its configuration, and knows no file to read it from".to_owned());
        };
        let keeps = self.shared.keeps;
        let read = move |config: &Config| change::reload(&sources, config, keeps);
        let changed = self.change(read).await?;
        Ok(if changed.is_empty() { "reloaded: nothing has changed".to_owned() } else { format!("reloaded: {changed}") })
    }

    async fn set(&self, pairs: Vec<(String, String)>) -> Outcome {
        let keeps = self.shared.keeps;
        let changed = self.change(move |config| change::set(config, &pairs, keeps)).await?;
        Ok(match changed.is_empty() {
            true => "nothing has changed".to_owned(),
            false => format!("set in memory only, until the next reload or restart: {changed}"),
        })
    }

    /// Has the next configuration made out of the one in force; says which keys are different.
    async fn change(
        &self,
        make: impl FnOnce(&Config) -> Result<Config, Problems> + Send + 'static,
    ) -> Result<String, String> {
        let before = self.shared.in_force.get();
        let config = before.config.clone();
        // A disk may be slow, and this thread accepts clients. Ends when the files have been read.
        let made = tokio::task::spawn_blocking(move || make(&config)).await;
        let config = made.map_err(|_| "an internal error, reported in the log".to_owned())?.map_err(one_line)?;
        let changed = change::differences(&before.config, &config);
        if !changed.is_empty() {
            self.apply(&before, self.settings(&before, config)).await;
        }
        Ok(changed.join(", "))
    }

    async fn switch_cache(&self, on: bool) -> Outcome {
        let before = self.shared.in_force.get();
        if on && !before.config.cache.enabled {
            return Err("cache.enabled is false in the configuration; PROXY CONFIG SET cache.enabled true".to_owned());
        }
        if before.cache_off == on {
            self.apply(&before, Settings { cache_off: !on, ..before.clone() }).await;
        }
        Ok(if on { "the cache is on, and begins empty" } else { "the cache is off, and empty" }.to_owned())
    }

    /// What follows from `config`. What nothing has changed of is kept: budgets go on where they are.
    fn settings(&self, before: &Settings, config: Config) -> Settings {
        let (_, table) = self.shared.table();
        let rules = if before.config.commands == config.commands {
            before.rules.clone()
        } else {
            let rules = Rules::new(&config.commands);
            rules.tell_unknown(&table);
            Arc::new(rules)
        };
        let limits = if before.config.limits == config.limits {
            before.limits.clone()
        } else {
            let limits = before.limits.followed_by(&config.limits);
            limits.look_for_slips(&table);
            Arc::new(limits)
        };
        Settings { config: Arc::new(config), rules, limits, cache_off: before.cache_off }
    }

    async fn apply(&self, before: &Settings, after: Settings) {
        let (shared, config) = (&self.shared, after.config.clone());
        if before.config.log.level != config.log.level
            && let Some(set_log_level) = &self.host.set_log_level
        {
            set_log_level(&config.log.level);
        }
        shared.slow.set_slower_than_us(config.slowlog.slower_than_us);
        shared.origins.set_bounds(&config.clients);
        shared.coherence.set_admit_after(u8::try_from(config.cache.admit_after).unwrap_or(u8::MAX));
        let goes = keeps_otherwise(before, &after);
        shared.in_force.replace(after).await;
        if goes {
            shared.coherence.everything(Cause::Config);
        }
    }
}

/// Whether what was kept before could not have been kept so after. What `[coherence]` says of trackers is not asked: they begin anew by it, and
/// what they have filled goes with them (`trackers`).
fn keeps_otherwise(before: &Settings, after: &Settings) -> bool {
    let (old, new) = (&before.config.cache, &after.config.cache);
    before.caches() != after.caches()
        || old.policy != new.policy
        || old.max_age_ms != new.max_age_ms
        || old.negative_max_age_ms != new.negative_max_age_ms
}

/// A reply has one line.
fn one_line(problems: Problems) -> String {
    problems.to_string().replace('\n', "; ")
}
