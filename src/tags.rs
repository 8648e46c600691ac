//! Tags: sets in Redis, `tag:<name>`, that hold the keys of a tag, so that all of them can be invalidated at once.
//!
//! Anyone may add to the sets; `PROXY TAG` does it in one step with the set's expiry. Invalidating a tag deletes its keys and
//! takes them out of the set, a bounded number in each atomic step, until the set is gone; the keys of each step are dropped here, in other proxies and
//! in the caches of tracking clients before the next one. Whoever adds keys meanwhile has them deleted too. Cut short by an error it
//! leaves the rest of the set as it was: asked again, it goes on there. A step that was sent and whose reply does not come may have run all the
//! same, and its keys are out of the set: what they were nobody learns any more. Of those that are tracked Redis tells; all that no tracker
//! vouches for is dropped, here and in other proxies.
//!
//! It works in the client's own name: Redis decides what its user may delete.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, Semaphore};

use crate::coherence::{Cause, Coherence, Invalidation, Names};
use crate::resp::{ArgRange, Protocol, encode};
use crate::session::elements;
use crate::upstream::connect::{Connector, Conversation};

/// Keys deleted in one step: about 0.1 ms of Redis's time.
const STEP_KEYS: &str = "256";
/// Tags that are invalidated at once, each over a connection of its own; others wait for their turn.
const SWEEPS_MAX: usize = 4;
/// Tags heard of on the applications' channel and not yet invalidated, at most. Beyond it everything kept in memory goes.
const HEARD_MAX: usize = 64;

const ADD: &str = "local added = 0 \
    for _, set in ipairs(KEYS) do \
    local is_new = redis.call('EXISTS', set) == 0 \
    added = added + redis.call('SADD', set, ARGV[1]) \
    local left = redis.call('TTL', set) \
    if not ARGV[2] then redis.call('PERSIST', set) \
    elseif is_new or (left >= 0 and left < tonumber(ARGV[2])) then redis.call('EXPIRE', set, ARGV[2]) end \
    end \
    return added";

/// Deleted first, then taken out: a key that its user may not delete goes on carrying its tag.
const SWEEP: &str = "local keys = redis.call('SRANDMEMBER', KEYS[1], ARGV[1]) \
    if #keys > 0 then \
    redis.call('UNLINK', unpack(keys)) \
    redis.call('SREM', KEYS[1], unpack(keys)) \
    end \
    table.insert(keys, 1, redis.call('EXISTS', KEYS[1])) \
    return keys";

/// The set of a tag.
fn set_of(tag: &[u8]) -> Vec<u8> {
    [b"tag:", tag].concat()
}

/// The request that adds a key to the sets of these tags, and where its arguments are. A set lives as long as the key that lives longest:
/// `seconds` is the key's expiry, absent for one that has none.
pub fn adding(key: &[u8], tags: &[&[u8]], seconds: Option<&[u8]>) -> (Vec<u8>, Vec<ArgRange>) {
    let count = tags.len().to_string();
    let mut words: Vec<Vec<u8>> = vec![b"EVAL".to_vec(), ADD.into(), count.into()];
    words.extend(tags.iter().map(|tag| set_of(tag)));
    words.extend([key].into_iter().chain(seconds).map(<[u8]>::to_vec));
    let (mut request, mut ranges) = (Vec::new(), Vec::new());
    encode::array_header(&mut request, words.len());
    for word in words {
        encode::bulk(&mut request, &word);
        let end = request.len() - 2;
        ranges.push(ArgRange { start: end - word.len(), end });
    }
    (request, ranges)
}

/// Tags being invalidated.
#[derive(Debug)]
pub struct Sweeps {
    turns: Semaphore,
    heard: Mutex<Vec<Vec<u8>>>,
    bell: Notify,
}

impl Default for Sweeps {
    fn default() -> Self {
        Self { turns: Semaphore::new(SWEEPS_MAX), heard: Mutex::default(), bell: Notify::new() }
    }
}

impl Sweeps {
    /// Invalidates a tag as whoever `connector` connects as, in its database, and says how many keys it had.
    ///
    /// # Errors
    /// The upstream is away or refuses: what it said.
    pub async fn sweep(
        &self,
        connector: &Connector,
        coherence: &Coherence,
        tag: &[u8],
        cause: Cause,
    ) -> Result<u64, String> {
        // It is never closed.
        let _turn = self.turns.acquire().await;
        let connection = connector.open(Protocol::Resp2, "anteroom:tags").await.map_err(|e| e.to_string())?;
        connection.may_serve(Protocol::Resp2).map_err(|e| e.to_string())?;
        let mut asked = Conversation::new(connection.socket);
        let (set, mut swept) = (set_of(tag), 0u64);
        loop {
            let request: [&[u8]; 5] = [b"EVAL", SWEEP.as_bytes(), b"1", &set, STEP_KEYS.as_bytes()];
            let step = Step { coherence, tag, cause };
            let reply = match tokio::time::timeout(connector.timeout, asked.ask(&request)).await {
                Ok(reply) => reply.map_err(|error| error.to_string())?,
                Err(_) => return Err(format!("no reply within {} ms", connector.timeout.as_millis())),
            };
            if let Some(error) = reply.strip_prefix(b"-") {
                return Err(String::from_utf8_lossy(error).trim_end().to_owned());
            }
            let parts = elements(&reply);
            let keys = parts.len().saturating_sub(1);
            // The set has changed with its keys.
            let changed = (keys > 0).then_some(&*set);
            let names: Names = parts.iter().skip(1).filter_map(|part| bulk(part)).chain(changed).collect();
            swept += keys as u64;
            let gone = Invalidation::Keys(names);
            coherence.pass_on(&gone);
            coherence.invalidate(&gone, cause);
            step.told();
            if parts.first() != Some(&&b":1\r\n"[..]) {
                return Ok(swept);
            }
        }
    }

    /// Has a tag invalidated soon. False, and nothing noted, if too many wait.
    pub fn sweep_later(&self, tag: Vec<u8>) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() >= HEARD_MAX {
            return false;
        }
        heard.push(tag);
        self.bell.notify_one();
        true
    }

    /// Invalidates what is heard of. Ends when dropped.
    pub async fn keep(&self, connector: &Connector, coherence: &Coherence) {
        loop {
            self.bell.notified().await;
            let heard = std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner));
            for tag in heard {
                if let Err(error) = self.sweep(connector, coherence, &tag, Cause::Application).await {
                    tracing::warn!(error, "a tag could not be invalidated: memory begins anew");
                    coherence.everything(Cause::Application);
                }
            }
        }
    }
}

/// A step that Redis may have run. If its keys do not become known, because its reply is lost or it ends with an error (behind UNLINK, perhaps),
/// or its client is gone and nobody waits any more, all goes that may be of them. (Should Redis run it later still, it is like any write of
/// unknown outcome: for what no tracker vouches for, `ttl_ms` is the bound.)
struct Step<'a> {
    coherence: &'a Coherence,
    tag: &'a [u8],
    cause: Cause,
}

impl Step<'_> {
    /// All who are to know its keys know them.
    fn told(self) {
        std::mem::forget(self);
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.coherence.pass_on(&Invalidation::Tag(self.tag.to_vec()));
        self.coherence.everything_untracked(self.cause);
    }
}

fn bulk(frame: &[u8]) -> Option<&[u8]> {
    let body = frame.strip_prefix(b"$")?.strip_suffix(b"\r\n")?;
    let end = body.windows(2).position(|two| two == b"\r\n")?;
    Some(&body[end + 2..])
}
