//! Asking Redis for leases, and what is done while it is away.
//!
//! One task for the process. Budgets that are low line up; all that wait are asked for in one round trip of the control plane,
//! by a script that runs atomically for each. Every second the proxy says that it is there, so that each knows how many
//! share, and what its own share is when Redis does not answer.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Limits;
use super::budget::{Ask, Budget};
use super::lease::Answer;
use crate::upstream::control::{self, Control, ControlError, Script};

/// Budgets asked for in one round trip.
const BATCH: usize = 512;
/// How long an answer is waited for; meanwhile clients that have used up what was leased are refused.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often a proxy says that it is there, and looks whether Redis is back.
const SPEAK_EVERY: Duration = Duration::from_secs(1);
/// A proxy that has not spoken for so long no longer counts.
const FORGET_AFTER: Duration = Duration::from_secs(5);
/// Where Redis keeps it: in database 0.
const PROXIES_KEY: &[u8] = b"anteroom:limits:proxies";

/// How shared budgets stand: asked for in Redis, or counted here.
#[derive(Debug)]
pub struct Standing {
    is_local: AtomicBool,
    proxies: AtomicU64,
    /// Budgets that are low, each once: it lines up again only when it has been answered.
    waiting: Mutex<Vec<Arc<Budget>>>,
    bell: Notify,
}

impl Default for Standing {
    /// Counted here until Redis has answered for the first time.
    fn default() -> Self {
        Self {
            is_local: AtomicBool::new(true),
            proxies: AtomicU64::new(1),
            waiting: Mutex::default(),
            bell: Notify::new(),
        }
    }
}

impl Standing {
    /// Whether the proxy counts by itself.
    pub fn is_local(&self) -> bool {
        self.is_local.load(Relaxed)
    }

    /// How many share, this proxy included, as far as it knows.
    pub fn proxies(&self) -> u64 {
        self.proxies.load(Relaxed).max(1)
    }

    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        if self.is_local() { "local" } else { "shared" }
    }

    /// A budget is low. The caller has made sure that it is not waiting yet.
    pub fn line_up(&self, budget: Arc<Budget>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(budget);
        self.bell.notify_one();
    }

    fn next(&self) -> Vec<Arc<Budget>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = waiting.len().min(BATCH);
        if first < waiting.len() {
            // The rest has its turn after whatever else is due.
            self.bell.notify_one();
        }
        waiting.drain(..first).collect()
    }
}

/// Asks for as long as the process runs. Ends when aborted, or at once if nothing is shared.
pub async fn keep(limits: Arc<Limits>, control: Control) {
    if !limits.is_shared() {
        return;
    }
    let leases = Script::new(include_str!("shared.lua"));
    let proxies = Script::new(include_str!("proxies.lua"));
    // Another for each process; nobody needs to remember it.
    let own = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
    let mut speak = tokio::time::interval(SPEAK_EVERY);
    speak.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let standing = &limits.standing;
    loop {
        tokio::select! {
            _ = speak.tick() => {
                let arguments = vec![own.clone().into_bytes(), FORGET_AFTER.as_micros().to_string().into_bytes()];
                let said = control.run(&proxies, &[(PROXIES_KEY.to_vec(), arguments)], PATIENCE).await;
                if let Ok(counts) = &said
                    && let Some(&count) = counts.first().and_then(|counts| counts.first())
                {
                    standing.proxies.store(u64::try_from(count).unwrap_or(1), Relaxed);
                }
                stand(standing, said.map(drop));
            }
            () = standing.bell.notified() => {
                let budgets = standing.next();
                ask(&limits, &control, &leases, &budgets).await;
            }
        }
    }
}

/// Asks for these, and tells each what came of it.
async fn ask(limits: &Limits, control: &Control, script: &Script, budgets: &[Arc<Budget>]) {
    let now = limits.now();
    let asked: Vec<(&Arc<Budget>, Ask)> =
        budgets.iter().flat_map(|budget| budget.asks(now).into_iter().map(move |ask| (budget, ask))).collect();
    if limits.standing.is_local() || asked.is_empty() {
        return asked.iter().for_each(|(budget, ask)| budget.lost(now, ask));
    }
    let calls: Vec<_> = asked.iter().map(|(_, ask)| (ask.key.clone(), ask.arguments())).collect();
    match control.run(script, &calls, PATIENCE).await {
        Ok(answers) => {
            let now = limits.now();
            for ((budget, ask), answer) in asked.iter().zip(&answers) {
                match answer[..] {
                    [granted, left, retry_us, valid_us] => {
                        let micros = |us: i64| Duration::from_micros(u64::try_from(us).unwrap_or(0));
                        let granted = u64::try_from(granted).unwrap_or(0);
                        let (retry_after, valid) = (micros(retry_us), micros(valid_us));
                        budget.answered(now, ask, Answer { granted, left, retry_after, valid });
                    }
                    _ => budget.lost(now, ask),
                }
            }
        }
        Err(error) => {
            asked.iter().for_each(|(budget, ask)| budget.lost(now, ask));
            stand(&limits.standing, Err(error));
        }
    }
}

/// Redis has answered, or has not.
fn stand(standing: &Standing, said: Result<(), ControlError>) {
    let was_local = standing.is_local.swap(said.is_err(), Relaxed);
    match said {
        Ok(()) if was_local => tracing::info!(proxies = standing.proxies(), "shared limits are counted in Redis"),
        Err(error) if !was_local => {
            let (reason, proxies) = (control::reason(&error), standing.proxies());
            tracing::warn!(reason, proxies, "shared limits: Redis does not answer; this proxy counts its own share");
        }
        _ => {}
    }
}
