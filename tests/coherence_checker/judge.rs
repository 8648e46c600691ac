//! Judges a history without search, because numbers only increase.
//!
//! - No read called after an own write was over returns an older number (C2, for all clients of the proxy).
//! - No client's reads of a key go back, and none is older than its own write, pipelines included.
//! - No read returns what was not yet written, or what must have expired before the read was called (C4).
//! - Nothing is found absent that was neither deleted, flushed nor expired.
//! - How late others' writes are seen is measured; the bound is the caller's to assert (C3).
//!
//! With several proxies, what is an own write and what is another's depends on which of them a client goes through.

use std::collections::{HashMap, HashSet};

use super::history::{Micros, Register, Step, Via, Write, Written};

/// Redis counts whole milliseconds and rounds down, the proxy too.
const GRAIN: Micros = 3_000;

/// A promise broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// An own write of this number was over before the read was called.
    Stale(u64),
    /// The same client had read or written this number.
    WentBack(u64),
    /// Nobody can have written it yet.
    FromNowhere,
    /// It had expired this many microseconds before the read was called.
    Expired(Micros),
    /// It is absent, and nothing made it so since the write of this number.
    Vanished(u64),
}

/// One register's writes as a proxy's clients see them, ready to be asked.
struct Writes {
    by_number: Vec<Write>,
    /// Own certain writes by when they were over, each with the greatest number up to it.
    own_until: Vec<(Micros, u64)>,
    /// For each in `by_number`: the earliest end of a foreign certain write of its number or a greater one.
    foreign_from: Vec<Micros>,
    /// How many numbers may come from nowhere, and those that did.
    unknown: usize,
    found: HashSet<u64>,
}

impl Writes {
    fn new(written: &Written, proxy: u8) -> Self {
        let is_own = |write: &Write| write.via == Via::Proxy(proxy) || write.number == 0;
        let mut by_number = written.writes.clone();
        by_number.push(Write::NOTHING);
        by_number.sort_by_key(|w| w.number);
        assert!(by_number.windows(2).all(|w| w[0].number < w[1].number), "a number was written twice: a lost update");
        let mut own: Vec<_> = by_number.iter().filter(|w| is_own(w) && w.certain).map(|w| (w.over, w.number)).collect();
        own.sort_unstable();
        let mut greatest = 0;
        for (_, number) in &mut own {
            greatest = greatest.max(*number);
            *number = greatest;
        }
        let mut foreign_from = vec![Micros::MAX; by_number.len()];
        let mut earliest = Micros::MAX;
        for (at, write) in by_number.iter().enumerate().rev() {
            if !is_own(write) && write.certain {
                earliest = earliest.min(write.over);
            }
            foreign_from[at] = earliest;
        }
        Self { by_number, own_until: own, foreign_from, unknown: written.unknown, found: HashSet::new() }
    }

    /// The greatest number of an own write that was over before `at`.
    fn own_before(&self, at: Micros) -> u64 {
        let count = self.own_until.partition_point(|&(over, _)| over < at);
        if count == 0 { 0 } else { self.own_until[count - 1].1 }
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.by_number.binary_search_by_key(&number, |w| w.number).ok()
    }

    /// How long before `called` a foreign write newer than `number` was over.
    fn foreign_lag(&self, number: u64, called: Micros) -> Micros {
        let newer = self.by_number.partition_point(|w| w.number <= number);
        self.foreign_from.get(newer).map_or(0, |&over| called.saturating_sub(over))
    }

    /// The oldest state that the read can have seen, behind which its client may not go back, and the newest.
    fn check(&mut self, read: &Read, seen: u64) -> Result<(u64, u64), Violation> {
        let newest_own = self.own_before(read.called);
        let Some(number) = read.number else { return self.check_absent(read, seen.max(newest_own)) };
        let write = match self.position(number) {
            Some(at) => self.by_number[at],
            None => {
                self.found.insert(number);
                if self.found.len() > self.unknown {
                    return Err(Violation::FromNowhere);
                }
                Write { number, absent: false, ..Write::NOTHING }
            }
        };
        if write.absent || write.called > read.over {
            return Err(Violation::FromNowhere);
        }
        if number < newest_own {
            return Err(Violation::Stale(newest_own));
        }
        if number < seen {
            return Err(Violation::WentBack(seen));
        }
        if let Some(ttl) = write.ttl
            && read.called > write.over + ttl + GRAIN
        {
            return Err(Violation::Expired(read.called - write.over - ttl));
        }
        Ok((number, number))
    }

    /// The oldest and the newest write, neither before `from`, that can have left it absent.
    fn check_absent(&self, read: &Read, from: u64) -> Result<(u64, u64), Violation> {
        let first = self.by_number.partition_point(|w| w.number < from);
        let possible = self.by_number[first..].iter().filter(|w| w.called <= read.over);
        let mut gone = possible
            .filter(|w| w.absent || w.ttl.is_some_and(|ttl| w.called + ttl <= read.over + GRAIN))
            .map(|w| w.number);
        let oldest = gone.next().ok_or(Violation::Vanished(from))?;
        Ok((oldest, gone.next_back().unwrap_or(oldest)))
    }
}

struct Read {
    number: Option<u64>,
    called: Micros,
    over: Micros,
}

/// What came out.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) reads: usize,
    pub(crate) writes: usize,
    /// Writes whose outcome is unknown.
    pub(crate) uncertain: usize,
    pub(crate) violations: Vec<(String, Violation)>,
    /// How late foreign writes were seen, for the reads that were late at all.
    pub(crate) lags: Vec<Micros>,
    /// The same for keys under a policy `ttl`.
    pub(crate) timed_lags: Vec<Micros>,
}

/// Judges what the clients of each proxy did to the registers.
pub(crate) fn judge(registers: &[Written], clients: &[(u8, Vec<Step>)]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut registers = registers.to_vec();
    prove(&mut registers, clients);
    let writes = || registers.iter().flat_map(|r| &r.writes);
    verdict.writes = writes().count();
    verdict.uncertain = writes().filter(|w| !w.certain).count() + registers.iter().map(|r| r.unknown).sum::<usize>();
    let proxies = clients.iter().map(|(proxy, _)| proxy + 1).max().unwrap_or_default();
    let mut views: Vec<Vec<Writes>> =
        (0..proxies).map(|proxy| registers.iter().map(|written| Writes::new(written, proxy)).collect()).collect();
    for (client, (proxy, steps)) in clients.iter().enumerate() {
        let mut seen: HashMap<(Register, u8), u64> = HashMap::new();
        let mut wrote: HashMap<Register, u64> = HashMap::new();
        for (at, step) in steps.iter().enumerate() {
            match *step {
                Step::Reconnected => seen.clear(),
                // See `held`.
                Step::Held { .. } => {}
                Step::Wrote { register, number } => {
                    wrote.insert(register, number);
                }
                Step::Read { register, key, number, called, over } => {
                    verdict.reads += 1;
                    let writes = &mut views[usize::from(*proxy)][register];
                    let floor = seen.entry((register, key)).or_default();
                    *floor = (*floor).max(wrote.get(&register).copied().unwrap_or_default());
                    match writes.check(&Read { number, called, over }, *floor) {
                        Ok((oldest, newest)) => {
                            *floor = oldest;
                            let lag = writes.foreign_lag(newest, called);
                            let lags =
                                if registers[register].is_timed { &mut verdict.timed_lags } else { &mut verdict.lags };
                            lags.extend(Some(lag).filter(|lag| *lag > 0));
                        }
                        Err(violation) => {
                            let floor = *floor;
                            let text = format!(
                                "client {client} of proxy {proxy}, step {at}: {step:?}{}",
                                context(writes, floor, &steps[..at], register)
                            );
                            verdict.violations.push((text, violation));
                        }
                    }
                }
            }
        }
    }
    verdict.lags.sort_unstable();
    verdict.timed_lags.sort_unstable();
    verdict
}

/// What the client had done to the register, and what was written around it.
fn context(writes: &Writes, floor: u64, steps: &[Step], register: Register) -> String {
    let about = |step: &&Step| match step {
        Step::Read { register: r, .. } | Step::Wrote { register: r, .. } => *r == register,
        Step::Held { .. } => false,
        Step::Reconnected => true,
    };
    let earlier = steps.iter().rev().filter(about).take(4).map(|step| format!("\n    before: {step:?}"));
    let near = writes.by_number.iter().filter(|w| w.number + 3 >= floor && w.number <= floor + 2);
    earlier.chain(near.map(|write| format!("\n    {write:?}"))).collect()
}

/// How many looks there were at what clients had kept themselves, and, of those at something overwritten, how long since; sorted.
pub(crate) fn held<'s>(registers: &[Written], steps: impl Iterator<Item = &'s Step>) -> (usize, Vec<Micros>) {
    let newer: Vec<Vec<(u64, Micros)>> = registers.iter().map(earliest_newer).collect();
    let (mut reads, mut lags) = (0, Vec::new());
    for step in steps {
        let Step::Held { register, number, at } = *step else { continue };
        reads += 1;
        let of = &newer[register];
        let over = of.get(of.partition_point(|(n, _)| *n <= number)).map_or(Micros::MAX, |(_, over)| *over);
        lags.extend(at.checked_sub(over).filter(|lag| *lag > 0));
    }
    lags.sort_unstable();
    (reads, lags)
}

/// By number: when a certain write of it or a greater one was first over.
fn earliest_newer(written: &Written) -> Vec<(u64, Micros)> {
    let mut by_number: Vec<_> = written.writes.iter().filter(|w| w.certain).map(|w| (w.number, w.over)).collect();
    by_number.sort_unstable();
    let mut earliest = Micros::MAX;
    for (_, over) in by_number.iter_mut().rev() {
        earliest = earliest.min(*over);
        *over = earliest;
    }
    by_number
}

/// A write that was not acknowledged and yet was read has been executed.
fn prove(registers: &mut [Written], clients: &[(u8, Vec<Step>)]) {
    let mut uncertain: HashMap<(Register, u64), usize> = HashMap::new();
    for (register, written) in registers.iter().enumerate() {
        let doubtful = written.writes.iter().enumerate().filter(|(_, w)| !w.certain);
        uncertain.extend(doubtful.map(|(at, w)| ((register, w.number), at)));
    }
    for step in clients.iter().flat_map(|(_, steps)| steps) {
        if let Step::Read { register, number: Some(number), .. } = *step
            && let Some(&at) = uncertain.get(&(register, number))
        {
            registers[register].writes[at].certain = true;
        }
    }
}

mod tests {
    use super::*;

    fn write(number: u64, called: Micros, over: Micros, own: bool) -> Write {
        let via = if own { Via::Proxy(0) } else { Via::Beside };
        Write { number, absent: false, ttl: None, called, over, via, certain: true }
    }

    fn written(writes: &[Write]) -> Written {
        Written { writes: writes.to_vec(), ..Written::default() }
    }

    fn read(number: Option<u64>, called: Micros, over: Micros) -> Step {
        Step::Read { register: 0, key: 0, number, called, over }
    }

    fn violations(writes: &[Write], steps: &[Step]) -> Vec<Violation> {
        judge(&[written(writes)], &[(0, steps.to_vec())]).violations.into_iter().map(|(_, v)| v).collect()
    }

    #[test]
    fn a_read_may_miss_a_write_that_it_overlaps_and_no_other() {
        let writes = [write(1, 10, 20, true), write(2, 30, 40, true)];
        assert_eq!(violations(&writes, &[read(Some(1), 39, 50)]), []);
        assert_eq!(violations(&writes, &[read(Some(1), 41, 50)]), [Violation::Stale(2)]);
        assert_eq!(violations(&writes, &[read(None, 21, 22)]), [Violation::Vanished(1)]);
        assert_eq!(violations(&writes, &[read(Some(2), 21, 29)]), [Violation::FromNowhere]);
        assert_eq!(violations(&writes, &[read(Some(3), 21, 99)]), [Violation::FromNowhere]);
    }

    #[test]
    fn a_foreign_write_may_be_missed_for_a_while_but_no_client_goes_back() {
        let writes = [write(1, 10, 20, true), write(2, 30, 40, false)];
        let verdict = judge(&[written(&writes)], &[(0, vec![read(Some(1), 90, 91)])]);
        assert_eq!((verdict.violations.len(), verdict.lags), (0, vec![50]));
        assert_eq!(violations(&writes, &[read(Some(2), 50, 51), read(Some(1), 52, 53)]), [Violation::WentBack(2)]);
        let reconnected = [read(Some(2), 50, 51), Step::Reconnected, read(Some(1), 52, 53)];
        assert_eq!(violations(&writes, &reconnected), []);
    }

    #[test]
    fn a_write_is_own_to_the_clients_of_its_proxy_and_foreign_to_those_of_another() {
        let writes = [write(1, 10, 20, true), write(2, 30, 40, true)];
        let verdict = judge(&[written(&writes)], &[(1, vec![read(Some(1), 90, 91)])]);
        assert_eq!((verdict.violations.len(), verdict.lags), (0, vec![50]));
        let both = [(1, vec![read(Some(1), 90, 91)]), (0, vec![read(Some(1), 90, 91)])];
        let verdict = judge(&[Written { is_timed: true, ..written(&writes) }], &both);
        assert_eq!((verdict.violations.len(), verdict.lags, verdict.timed_lags), (1, vec![], vec![50]));
    }

    #[test]
    fn a_client_sees_its_own_write_even_in_the_same_pipeline() {
        let writes = [write(1, 10, 20, true), write(2, 30, 40, true)];
        let steps = [Step::Wrote { register: 0, number: 2 }, read(Some(1), 30, 41)];
        assert_eq!(violations(&writes, &steps), [Violation::WentBack(2)]);
    }

    #[test]
    fn a_value_lives_as_long_as_it_was_given_and_no_longer() {
        let writes = [Write { ttl: Some(50_000), ..write(1, 10_000, 20_000, true) }];
        assert_eq!(violations(&writes, &[read(Some(1), 70_000, 70_010)]), []);
        assert_eq!(violations(&writes, &[read(Some(1), 80_000, 80_010)]), [Violation::Expired(10_000)]);
        assert_eq!(violations(&writes, &[read(None, 60_000, 60_000)]), []);
        assert_eq!(violations(&writes, &[read(None, 21_000, 30_000)]), [Violation::Vanished(1)]);
    }

    #[test]
    fn a_write_of_unknown_outcome_binds_nobody_until_someone_has_seen_it() {
        let writes = [write(1, 10, 20, true), Write { certain: false, ..write(2, 30, 40, true) }];
        assert_eq!(violations(&writes, &[read(Some(1), 50, 60)]), []);
        assert_eq!(violations(&writes, &[read(Some(1), 50, 60), read(Some(2), 70, 80)]), [Violation::Stale(2)]);
    }

    #[test]
    fn an_increment_whose_reply_was_lost_explains_one_number_and_no_more() {
        let registers = [Written { unknown: 1, ..written(&[write(1, 10, 20, true)]) }];
        let steps = [read(Some(2), 50, 60), read(Some(2), 60, 70), read(Some(3), 70, 80)];
        let violations = judge(&registers, &[(0, steps.to_vec())]).violations;
        assert_eq!(violations.iter().map(|(_, v)| v.clone()).collect::<Vec<_>>(), [Violation::FromNowhere]);
    }

    #[test]
    fn what_is_kept_is_as_old_as_the_first_newer_write() {
        let writes = [write(1, 10, 20, true), write(2, 30, 60, true), write(3, 40, 50, false)];
        let steps = [45, 70].map(|at| Step::Held { register: 0, number: 1, at });
        let newest = Step::Held { register: 0, number: 3, at: 99 };
        assert_eq!(held(&[written(&writes)], steps.iter().chain([&newest])), (3, vec![20]));
    }

    #[test]
    #[should_panic(expected = "a lost update")]
    fn a_number_written_twice_is_a_lost_update() {
        violations(&[write(1, 10, 20, true), write(1, 30, 40, true)], &[]);
    }
}
