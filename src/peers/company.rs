//! Who else is on the channel, and what must go when one of them is heard, or no longer heard. Pure: time is given.
//!
//! Each peer numbers what it says. The next number, and the same message again, are as they should be; anything else (a number left out, one
//! from the past, another stay on the channel, other words under the same number) means that something may have been missed, or that
//! someone pretends, and everything goes. Its counting then goes on from there, so that a forged number is noticed at the next
//! true one.
//!
//! What the company promises is about values kept under policies `ttl`, which nobody else vouches for; `mod.rs` has the argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::message::{Message, Says, Speaker};
use crate::coherence::news::Told;

/// Peers followed at once. Of one more, what it says is done, and as nobody counts its messages, everything goes at each.
pub const PEERS_MAX: usize = 256;

/// How much must go. A greater one includes the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// No more than is said.
    Nothing,
    /// What no tracker vouches for.
    Untracked,
    /// Everything.
    Everything,
}

/// What follows from a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// What must go besides what the message says.
    pub loss: Loss,
    /// It is somebody new, who waits to hear that it is heard.
    pub is_new: bool,
}

/// What was counted, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages whose number was not the next.
    pub gaps: u64,
    /// The same message once more.
    pub repeated: u64,
    /// Peers that began another stay.
    pub restarts: u64,
    /// Peers that fell silent.
    pub silent: u64,
    /// Messages of peers beyond [`PEERS_MAX`].
    pub crowded_out: u64,
}

#[derive(Debug)]
struct Peer {
    boot: u64,
    sequence: u64,
    /// Of the last message's bytes, keyed.
    digest: u64,
    heard_at: Instant,
    /// How much it has said, in order, that it tells us.
    tells_us: Told,
    /// It has said that it told us no more: of orders given until it says that it does again we know nothing.
    lost_us: bool,
    /// Whether it asks to be told of writes.
    asks: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Company {
    me: Speaker,
    peers: HashMap<u64, Peer>,
    timeout: Duration,
    counts: Counts,
}

impl Company {
    /// Nobody has been heard. Whoever is silent for `timeout` is gone.
    pub fn new(me: Speaker, timeout: Duration, counts: Counts) -> Self {
        Self { me, peers: HashMap::new(), timeout, counts }
    }

    /// A message of somebody else came; `digest` is a keyed hash of its bytes.
    pub fn hear(&mut self, message: &Message<'_>, digest: u64, now: Instant) -> Heard {
        let Message { from, sequence, .. } = *message;
        let here = if let Says::Here(here) = &message.says { Some(here) } else { None };
        let tells_us = here.map(|here| match (here.hears.contains(&self.me), here.tells) {
            (false, _) => Told::Nothing,
            (true, false) => Told::Orders,
            (true, true) => Told::Writes,
        });
        let asks = here.map(|here| here.asks);
        let Some(peer) = self.peers.get_mut(&from.source) else {
            if self.peers.len() >= PEERS_MAX {
                self.counts.crowded_out += 1;
                return Heard { loss: Loss::Everything, is_new: false };
            }
            let asks = asks.unwrap_or(false);
            let Speaker { source, boot } = from;
            let peer = Peer { boot, sequence, digest, heard_at: now, tells_us: Told::Nothing, lost_us: false, asks };
            self.peers.insert(source, peer);
            return Heard { loss: Loss::Untracked, is_new: true };
        };
        let mut heard = Heard { loss: Loss::Nothing, is_new: false };
        // What a message out of order claims is not believed: the next one in order will say whether it is so.
        let mut in_order = true;
        if peer.boot != from.boot {
            self.counts.restarts += 1;
            in_order = false;
            heard = Heard { loss: Loss::Everything, is_new: true };
        } else if sequence == peer.sequence && digest == peer.digest {
            // It says again what it said. If it says that it tells us, it may be only now that this is true: what was heard before may
            // have been forged.
            self.counts.repeated += 1;
            if tells_us > Some(Told::Nothing) {
                peer.tells_us = Told::Nothing;
            }
        } else if Some(sequence) != peer.sequence.checked_add(1) {
            self.counts.gaps += 1;
            in_order = false;
            heard.loss = Loss::Everything;
        }
        (peer.boot, peer.sequence, peer.digest, peer.heard_at) = (from.boot, sequence, digest, now);
        // That is believed whoever says it: what we then tell, or tell no more, we say ourselves.
        peer.asks = asks.unwrap_or(peer.asks);
        if !in_order {
            peer.tells_us = Told::Nothing;
        } else if let Some(tells_us) = tells_us {
            let before = std::mem::replace(&mut peer.tells_us, tells_us);
            if (before == Told::Writes) != (tells_us == Told::Writes) {
                heard.loss = heard.loss.max(Loss::Untracked);
            }
            // What is ordered may concern what is tracked, too.
            let (was_told, is_told) = (before > Told::Nothing, tells_us > Told::Nothing);
            if (was_told && !is_told) || (is_told && peer.lost_us) {
                heard.loss = Loss::Everything;
                peer.lost_us = !is_told;
            }
        }
        heard
    }

    /// Forgets who has been silent for too long; says whether there was one.
    pub fn miss(&mut self, now: Instant) -> bool {
        let before = self.peers.len();
        self.peers.retain(|_, peer| now.duration_since(peer.heard_at) < self.timeout);
        let silent = before - self.peers.len();
        self.counts.silent += silent as u64;
        silent > 0
    }

    /// Everyone who is heard.
    pub fn heard(&self) -> impl Iterator<Item = Speaker> {
        self.peers.iter().map(|(source, peer)| Speaker { source: *source, boot: peer.boot })
    }

    /// How many are heard, and how many of them have said that they tell us so much.
    pub fn len(&self, needed: Told) -> (usize, usize) {
        (self.peers.len(), self.peers.values().filter(|peer| peer.tells_us >= needed).count())
    }

    /// How many ask to be told of writes.
    pub fn asking(&self) -> usize {
        self.peers.values().filter(|peer| peer.asks).count()
    }

    /// Whether nobody is heard.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// What has been counted so far, by those before this one too.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::message::{Here, Speaker};

    const ME: Speaker = Speaker { source: 1, boot: 10 };
    const A: Speaker = Speaker { source: 2, boot: 20 };
    const NOTHING: Heard = Heard { loss: Loss::Nothing, is_new: false };
    const UNTRACKED: Heard = Heard { loss: Loss::Untracked, is_new: false };
    const EVERYTHING: Heard = Heard { loss: Loss::Everything, is_new: false };

    struct Scene {
        company: Company,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self { company: Company::new(ME, Duration::from_secs(3), Counts::default()), now: Instant::now() }
        }

        /// A message whose bytes are told apart by its words.
        fn hear(&mut self, from: Speaker, sequence: u64, says: Says<'_>) -> Heard {
            let digest = format!("{from:?}{sequence}{says:?}")
                .bytes()
                .fold(0, |hash: u64, b| hash.wrapping_mul(31).wrapping_add(u64::from(b)));
            self.company.hear(&Message { from, sequence, says }, digest, self.now)
        }
    }

    fn key(name: &str) -> Says<'_> {
        Says::Keys(vec![name.as_bytes()])
    }

    /// From one who tells of writes.
    fn here(hears: &[Speaker]) -> Says<'static> {
        Says::Here(Here { asks: true, tells: true, hears: hears.to_vec() })
    }

    #[test]
    fn who_tells_of_no_writes_promises_nothing_and_costs_what_is_untracked_when_it_begins_and_when_it_ends() {
        let mut scene = Scene::new();
        let silent = Says::Here(Here { hears: vec![ME], ..Here::default() });
        scene.hear(A, 1, silent.clone());
        assert_eq!(scene.hear(A, 2, silent.clone()), NOTHING);
        assert_eq!((scene.company.len(Told::Orders), scene.company.len(Told::Writes)), ((1, 1), (1, 0)));
        assert_eq!(scene.hear(A, 3, here(&[ME])), UNTRACKED);
        assert_eq!(scene.company.len(Told::Writes), (1, 1));
        assert_eq!(scene.hear(A, 4, silent.clone()), UNTRACKED);
        assert_eq!(scene.hear(A, 5, silent), NOTHING);
        // To tell others is not to tell us.
        assert_eq!(scene.hear(A, 6, here(&[A])), EVERYTHING);
        assert_eq!((scene.company.len(Told::Orders), scene.company.len(Told::Writes)), ((1, 0), (1, 0)));
    }

    #[test]
    fn who_asks_is_counted_until_it_asks_no_more_or_is_gone() {
        let mut scene = Scene::new();
        scene.hear(A, 1, key("k"));
        assert_eq!(scene.company.asking(), 0);
        scene.hear(A, 2, here(&[]));
        scene.hear(A, 3, key("k"));
        assert_eq!(scene.company.asking(), 1);
        scene.hear(A, 4, Says::Here(Here::default()));
        assert_eq!(scene.company.asking(), 0);
        scene.hear(A, 9, here(&[]));
        assert_eq!(scene.company.asking(), 1);
        scene.now += Duration::from_secs(3);
        scene.company.miss(scene.now);
        assert_eq!(scene.company.asking(), 0);
    }

    #[test]
    fn somebody_new_costs_what_is_untracked_once_when_heard_and_once_when_it_hears_us() {
        let mut scene = Scene::new();
        assert_eq!(scene.hear(A, 7, here(&[])), Heard { loss: Loss::Untracked, is_new: true });
        assert_eq!(scene.company.len(Told::Writes), (1, 0));
        assert_eq!(scene.hear(A, 8, here(&[ME])), UNTRACKED);
        assert_eq!(scene.hear(A, 9, here(&[ME])), NOTHING);
        assert_eq!(scene.hear(A, 10, key("k")), NOTHING);
        assert_eq!(scene.company.len(Told::Writes), (1, 1));
        // It has lost sight of us, and found us again: what it ordered meanwhile we were not told.
        assert_eq!(scene.hear(A, 11, here(&[])), EVERYTHING);
        assert_eq!(scene.hear(A, 12, here(&[])), NOTHING);
        assert_eq!(scene.hear(A, 13, here(&[ME])), EVERYTHING);
        assert_eq!(scene.hear(A, 14, here(&[ME])), NOTHING);
    }

    #[test]
    fn a_number_left_out_or_from_the_past_or_another_stay_costs_everything() {
        let mut scene = Scene::new();
        scene.hear(A, 1, here(&[ME]));
        assert_eq!(scene.hear(A, 3, key("k")), EVERYTHING);
        assert_eq!(scene.hear(A, 4, key("k")), NOTHING);
        assert_eq!(scene.hear(A, 2, key("k")), EVERYTHING);
        assert_eq!(scene.hear(A, 3, key("l")), NOTHING);
        let again = Speaker { boot: 21, ..A };
        assert_eq!(scene.hear(again, 1, here(&[])), Heard { loss: Loss::Everything, is_new: true });
        let counts = scene.company.counts();
        assert_eq!((counts.gaps, counts.restarts), (2, 1));
    }

    #[test]
    fn the_same_message_again_costs_nothing_and_other_words_under_its_number_cost_everything() {
        let mut scene = Scene::new();
        scene.hear(A, 1, here(&[]));
        scene.hear(A, 2, key("k"));
        assert_eq!(scene.hear(A, 2, key("k")), NOTHING);
        assert_eq!(scene.hear(A, 2, key("l")), EVERYTHING);
        assert_eq!((scene.company.counts().repeated, scene.company.counts().gaps), (1, 1));
    }

    #[test]
    fn a_message_forged_in_a_peers_name_does_not_spare_the_loss_when_the_peer_itself_says_that_it_hears_us() {
        // Before A knows of us someone says in its name that it does: with the next number, with its true words, with a far number.
        for forged in [(2, here(&[ME])), (2, key("k")), (u64::MAX, here(&[ME])), (1, here(&[ME]))] {
            let mut scene = Scene::new();
            scene.hear(A, 1, here(&[]));
            scene.hear(A, forged.0, forged.1.clone());
            let heard = scene.hear(A, 2, here(&[ME]));
            assert!(heard.loss >= Loss::Untracked, "{forged:?}: {heard:?}");
        }
    }

    #[test]
    fn who_falls_silent_is_gone_and_new_when_it_comes_back() {
        let mut scene = Scene::new();
        scene.hear(A, 1, here(&[ME]));
        scene.now += Duration::from_millis(2_999);
        assert!(!scene.company.miss(scene.now));
        scene.now += Duration::from_millis(1);
        assert!(scene.company.miss(scene.now) && scene.company.is_empty());
        assert!(scene.hear(A, 2, here(&[ME])).is_new);
        assert_eq!(scene.company.counts().silent, 1);
    }

    #[test]
    fn there_is_room_for_so_many_and_one_more_costs_everything_each_time() {
        let mut scene = Scene::new();
        for source in 0..PEERS_MAX as u64 {
            assert!(scene.hear(Speaker { source: source + 10, boot: 1 }, 1, here(&[])).is_new);
        }
        for sequence in 1..3 {
            assert_eq!(scene.hear(Speaker { source: 5, boot: 1 }, sequence, here(&[])), EVERYTHING);
        }
        assert_eq!((scene.company.len(Told::Writes).0, scene.company.counts().crowded_out), (PEERS_MAX, 2));
    }
}
