//! How long a lane waits for further requests before it writes those it has.
//!
//! ```text
//!   a request ─► those who are ready now have their turn ─► is it worth a look at the sockets? ─► one ─► somebody came? ─► another ─► write
//!                                                        └─► no ────────────────────────────────────────────────────────────────► write
//! ```
//!
//! A write costs here and in Redis about ten times what a look at the sockets does, and the event loop looks anyway when all is
//! done. So looking first pays off if one look in ten brings somebody: whether it does is learned, and asked again now and then.

/// Looks before a write, at most: what bounds how long a request waits (a few microseconds each).
const LOOKS_MAX: u8 = 4;
/// What a look that brought somebody is worth in looks that did not.
const WORTH: u8 = 8;
/// Of that credit so much is remembered.
const CREDIT_MAX: u8 = 16;
/// Without credit, one write in so many is looked out for all the same.
const TRY_EVERY: u8 = 16;
/// With so many bytes to be written there is nothing to gain.
const ENOUGH_BYTES: usize = 64 * 1024;

/// What is to be done now with requests that wait to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Those who are ready now have their turn first.
    Turn,
    /// The sockets are looked at first.
    Look,
    /// They are written.
    Write,
}

/// See the head of this file. One lane's.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    state: State,
    credit: u8,
    /// Writes since the last that was looked out for.
    untried: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing waits.
    #[default]
    Rests,
    /// They have their turn.
    Turned,
    /// So many looks were made, the last with so many requests waiting.
    Looked { looks: u8, requests: usize },
}

impl Lookout {
    /// So many requests wait, in so many bytes.
    pub(super) fn next(&mut self, requests: usize, bytes: usize) -> Next {
        match self.state {
            State::Rests => {
                self.state = State::Turned;
                return Next::Turn;
            }
            State::Turned => {
                if bytes < ENOUGH_BYTES && self.tries() {
                    return self.look(0, requests);
                }
            }
            State::Looked { looks, requests: before } => {
                let came = requests > before;
                self.credit = if came { (self.credit + WORTH).min(CREDIT_MAX) } else { self.credit.saturating_sub(1) };
                if came && looks < LOOKS_MAX && bytes < ENOUGH_BYTES {
                    return self.look(looks, requests);
                }
            }
        }
        self.state = State::Rests;
        Next::Write
    }

    fn look(&mut self, looks: u8, requests: usize) -> Next {
        self.state = State::Looked { looks: looks + 1, requests };
        Next::Look
    }

    fn tries(&mut self) -> bool {
        self.untried += 1;
        let tries = self.credit > 0 || self.untried >= TRY_EVERY;
        if tries {
            self.untried = 0;
        }
        tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done until they are written, with so many more requests at each step.
    fn until_written(lookout: &mut Lookout, more: usize) -> Vec<Next> {
        let (mut requests, mut steps) = (0, Vec::new());
        while steps.last() != Some(&Next::Write) {
            requests += more.max(usize::from(requests == 0));
            steps.push(lookout.next(requests, requests * 40));
        }
        steps
    }

    #[test]
    fn where_nobody_ever_comes_one_write_in_many_is_looked_out_for() {
        let mut lookout = Lookout::default();
        let looks: usize =
            (0..160).map(|_| until_written(&mut lookout, 0).iter().filter(|next| **next == Next::Look).count()).sum();
        assert_eq!(looks, 10);
    }

    #[test]
    fn where_somebody_always_comes_it_looks_each_time_and_no_more_often_than_it_may() {
        let mut lookout = Lookout::default();
        (0..16).for_each(|_| drop(until_written(&mut lookout, 1)));
        for _ in 0..10 {
            let expected = [&[Next::Turn][..], &[Next::Look; LOOKS_MAX as usize], &[Next::Write]].concat();
            assert_eq!(until_written(&mut lookout, 1), expected);
        }
        // What it has learned wears off.
        let steps: Vec<usize> = (0..40).map(|_| until_written(&mut lookout, 0).len()).collect();
        assert!(
            steps[..16].iter().all(|steps| *steps == 3) && steps[17..30].iter().all(|steps| *steps == 2),
            "{steps:?}"
        );
    }

    #[test]
    fn what_is_enough_for_a_write_is_written() {
        let mut lookout = Lookout { credit: CREDIT_MAX, ..Lookout::default() };
        assert_eq!([1, 2].map(|requests| lookout.next(requests, ENOUGH_BYTES)), [Next::Turn, Next::Write]);
    }
}
