//! Whether the process lives, and whether it can serve: two questions, which two sorts of people ask.
//!
//! *Alive*: the workers' loops turn. Whoever restarts processes asks that; a restart does not help against a Redis that is down.
//! *Ready*: a request sent now would be answered, which takes being alive. Whoever sends requests asks that.

use std::time::Duration;

use crate::server::reach::{self, Heard};
use crate::server::shared::Shared;

/// How long a worker's loop may take to come round before the worker counts as stuck.
const TURN_MAX: Duration = Duration::from_secs(2);

/// How things stand at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Workers that do not answer, by number.
    pub stuck: Vec<usize>,
    /// Why no request should be sent here though the process lives; empty if there is no reason.
    pub unready: String,
}

impl Health {
    /// Asks the workers. Takes as long as the slowest, at most [`TURN_MAX`].
    pub async fn look(shared: &Shared) -> Self {
        let mut stuck = Vec::new();
        let until = tokio::time::Instant::now() + TURN_MAX;
        for (worker, pulse) in shared.pulses.iter().enumerate() {
            // One after the other, but all by one deadline; each is given a moment even after it.
            let left = until.saturating_duration_since(tokio::time::Instant::now()).max(Duration::from_millis(50));
            if !pulse.answers(left).await {
                stuck.push(worker);
            }
        }
        Self { stuck, unready: unready(shared) }
    }

    /// Whether the process lives.
    pub fn is_alive(&self) -> bool {
        self.stuck.is_empty()
    }

    /// Why it does not live, in words.
    pub fn ailment(&self) -> String {
        let workers = self.stuck.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        format!("no turn of its loop within {} ms: worker {workers}", TURN_MAX.as_millis())
    }

    /// Whether requests should be sent here.
    pub fn is_ready(&self) -> bool {
        self.is_alive() && self.unready.is_empty()
    }

    /// `ready`, or why no request should be sent here, in words.
    pub fn readiness(&self) -> String {
        if !self.is_alive() {
            self.ailment()
        } else if self.is_ready() {
            "ready".to_owned()
        } else {
            self.unready.clone()
        }
    }
}

/// See [`Health::unready`].
fn unready(shared: &Shared) -> String {
    let stage = shared.stage.get();
    if !stage.is_ready() {
        return stage.as_str().to_owned();
    }
    match shared.reach.heard() {
        Heard::Answer(_) => String::new(),
        Heard::Unknown => "the upstream has not been asked yet".to_owned(),
        Heard::None(why) => format!("the upstream cannot be asked: {why}"),
        Heard::Silence(_) => {
            format!("the upstream cannot be asked: it does not answer within {} ms", reach::DEADLINE.as_millis())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Health;

    #[test]
    fn a_process_that_does_not_live_is_not_ready_whatever_else_holds() {
        let health = |stuck: &[usize], unready: &str| Health { stuck: stuck.to_vec(), unready: unready.to_owned() };
        for (health, is_alive, is_ready, readiness) in [
            (health(&[], ""), true, true, "ready"),
            (health(&[], "draining"), true, false, "draining"),
            (health(&[0, 2], ""), false, false, "no turn of its loop within 2000 ms: worker 0, 2"),
            (health(&[1], "draining"), false, false, "no turn of its loop within 2000 ms: worker 1"),
        ] {
            assert_eq!((health.is_alive(), health.is_ready()), (is_alive, is_ready), "{health:?}");
            assert_eq!(health.readiness(), readiness);
        }
    }
}
