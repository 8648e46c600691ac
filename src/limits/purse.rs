//! A session's budgets in hand, and paying from them: everything a request has to be paid from, or nothing.
//!
//! A purse is filled for one user and name and kept until those change, so that a request costs no look-up; and what the requests at
//! hand will cost is taken together with the first of them (`prepaid`), if there is plenty. Only budgets by key prefix are looked up each time, and only
//! those of bytes asked.

use std::sync::Arc;
use std::time::Duration;

use super::budget::Budget;
use super::clock::Nanos;
use super::cost::cost;
use super::limit::{Held, Who};
use super::meter::Meter;
use super::prepaid::Prepaid;
use super::{Applying, Counts, Limits};
use crate::command::{Command, Toll};
use crate::config::{By, Scope};
use crate::resp::Args;

/// A request that may not run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which limit says so, by number.
    pub limit: usize,
    /// How long until it may be asked again.
    pub wait: Duration,
}

/// What is at hand, the next request included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ahead {
    /// Bytes received and not run.
    pub bytes: usize,
    /// Requests of these, at most, that are paid for as of the same instant.
    pub requests: usize,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Purse {
    limits: Arc<Limits>,
    worker: usize,
    now: Nanos,
    ahead: Ahead,
    prepaid: Prepaid,
    /// Which limits concern this user: a bit each.
    mask: u64,
    /// Which count by key prefix, and which count bytes.
    keyed: u64,
    bytes: u64,
    /// Which count by client name.
    named: u64,
    /// Which are shared by several proxies.
    shared: u64,
    /// The budget of each limit, unless it is none of the session's.
    held: Vec<Option<Held>>,
    /// What this connection itself has used of each limit by client name, under whatever names.
    own: Vec<Option<Arc<Meter>>>,
    /// User or name have changed, or it is another batch and a budget is a makeshift.
    is_stale: bool,
    is_makeshift: bool,
    /// Who pays for the replies of requests that these limits apply to.
    payer: Option<(u64, Arc<Payer>)>,
    /// Someone pays for the reply of the request that was last paid for.
    has_payer: bool,
    /// What was refused of the requests at hand: to what these limits applied, at which price. The clock stands still for
    /// them, so whatever costs as much is refused, too.
    refused: Option<(u64, u64, Refused)>,
}

/// Who pays for the bytes of a reply. Rides with the reply's place.
#[derive(Debug)]
pub struct Payer {
    limits: Arc<Limits>,
    /// Each with what the connection itself has used of it, if that is counted.
    budgets: Vec<(Arc<Budget>, Option<Arc<Meter>>)>,
}

impl Payer {
    /// A reply of so many bytes goes to the client.
    pub fn pay(&self, bytes: usize) {
        let now = self.limits.now();
        self.charge(now, bytes as u64);
        self.budgets.iter().for_each(|(budget, _)| budget.line_up(now));
    }

    fn charge(&self, now: Nanos, bytes: u64) {
        for (budget, own) in &self.budgets {
            budget.charge_bytes(now, bytes);
            if let Some(own) = own {
                own.charge_bytes(now, budget.weighed(bytes));
            }
        }
    }
}

/// What one request is charged.
struct Bill {
    price: u64,
    /// By key prefix: the limit, the budget, and how many of its keys are asked for.
    keyed: Vec<(usize, Arc<Budget>, u64)>,
}

impl Purse {
    /// For a session of this worker; nothing if there are no limits.
    pub fn of(limits: &Arc<Limits>, worker: usize) -> Option<Box<Self>> {
        let bits = |applies: fn(&super::Limit) -> bool| {
            let all = limits.all.iter().enumerate();
            all.fold(0, |mask, (at, limit)| mask | u64::from(applies(limit)) << at)
        };
        let purse = || {
            Box::new(Self {
                limits: limits.clone(),
                worker,
                now: Nanos::default(),
                ahead: Ahead::default(),
                prepaid: Prepaid::of(limits.all.len()),
                mask: 0,
                keyed: bits(|limit| matches!(limit.rate.by, By::KeyPrefix { .. })),
                bytes: bits(|limit| limit.rate.bytes_per_second > 0),
                named: bits(|limit| limit.rate.by == By::ClientName),
                shared: bits(|limit| limit.rate.scope == Scope::Shared),
                held: Vec::new(),
                own: Vec::new(),
                is_stale: true,
                is_makeshift: false,
                payer: None,
                has_payer: false,
                refused: None,
            })
        };
        (!limits.is_empty()).then(purse)
    }

    /// The same session's under other limits. What a connection has used up of those that stay, it has used up.
    pub fn under(&mut self, limits: &Arc<Limits>) -> Option<Box<Self>> {
        self.settle();
        let mut new = Self::of(limits, self.worker)?;
        for limit in &limits.all {
            let at = self.limits.all.iter().position(|old| Arc::ptr_eq(old, limit));
            let held = at.filter(|_| limit.rate.by == By::Connection).and_then(|at| self.held.get_mut(at)?.take());
            new.held.push(held);
            new.own.push(at.and_then(|at| self.own.get_mut(at)?.take()));
        }
        Some(new)
    }

    /// A time on the clock, in nanoseconds, as its limits count it.
    pub fn at(&self, clock_ns: u64) -> Nanos {
        self.limits.at(clock_ns)
    }

    /// The requests at hand were received: they are paid for as of `now`. After them, [`Purse::settle`].
    pub fn begin(&mut self, now: Nanos, ahead: Ahead) {
        self.settle();
        (self.now, self.ahead, self.refused) = (now, ahead, None);
        self.is_stale |= self.is_makeshift;
    }

    /// The session has another user or name.
    pub fn introduced(&mut self) {
        self.settle();
        self.is_stale = true;
    }

    /// Gives back what was taken in advance and not used.
    pub fn settle(&mut self) {
        for at in each_bit(self.prepaid.touched()) {
            let (used, left) = self.prepaid.settle(at);
            self.counts(at).allowed.add(u64::from(used));
            let Some(held) = &self.held[at] else { continue };
            self.used_itself(at, u64::from(used));
            if left > 0 {
                held.give_back(self.now, u64::from(left));
            }
            if self.shared >> at & 1 == 1 {
                held.budget().line_up(self.now);
            }
        }
    }

    /// Whether the request, of so many bytes, is paid for: in advance, or as the first of those that are now, or because nothing has
    /// to be paid. Else it is to be [paid](Purse::pay) by itself.
    #[inline]
    pub fn covers(&mut self, applying: Applying, len: usize) -> bool {
        if !applying.is_plain || self.is_stale || self.has_payer {
            return false;
        }
        let limits = applying.limits & self.mask;
        self.prepaid.spend(limits) || (self.pay_ahead(limits, len) && self.prepaid.spend(limits))
    }

    /// Takes for a request and those behind it, as many as there are if they are like it. Whether there was plenty.
    #[inline(never)]
    fn pay_ahead(&mut self, limits: u64, len: usize) -> bool {
        let Ahead { bytes, requests } = self.ahead;
        if limits & (self.keyed | self.bytes) != 0 || requests == 0 {
            return false;
        }
        let alike = bytes / len.max(1);
        // Some may be shorter than this one. To give back what was too much costs less than to ask again.
        let some = if alike > 1 { alike / 8 + 1 } else { 0 };
        let wanted = (alike + some).clamp(1, requests);
        self.ahead = Ahead { bytes: bytes.saturating_sub(len * wanted), requests: requests - wanted };
        for at in each_bit(limits) {
            let Some(held) = &self.held[at] else { return false };
            if !self.prepaid.has(at) {
                if !held.take_of_plenty(self.now, wanted as u64) {
                    // Those behind it need not try.
                    self.ahead.requests = 0;
                    return false;
                }
                self.prepaid.add(at, wanted as u32);
            }
        }
        true
    }

    /// Whether it pays from budgets of these.
    pub fn is_of(&self, limits: &Arc<Limits>) -> bool {
        Arc::ptr_eq(&self.limits, limits)
    }

    /// What a refusal by this limit begins with.
    pub fn refusal(&self, limit: usize) -> &[u8] {
        self.limits.all.get(limit).map_or(b"-THROTTLED limits, retry after ", |limit| &limit.refusal)
    }

    /// Whether it has to be filled before it is asked.
    pub fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Notes what this connection itself has used of a limit by client name.
    fn used_itself(&self, limit: usize, commands: u64) {
        if let (Some(own), Some(held)) = (&self.own[limit], &self.held[limit]) {
            own.charge(self.now, held.weighed(commands));
        }
    }

    /// Takes the budgets of this user and name. Whoever changes its name takes along what it has used up itself, and nothing of what
    /// others of that name have.
    pub fn fill(&mut self, who: Who<'_>) {
        (self.is_stale, self.payer, self.refused, self.mask) = (false, None, None, 0);
        self.held.resize_with(self.limits.all.len(), || None);
        self.own.resize_with(self.limits.all.len(), || None);
        for (at, limit) in self.limits.all.iter().enumerate() {
            let held = &mut self.held[at];
            if !limit.concerns_user(who.user) {
                *held = None;
                continue;
            }
            self.mask |= 1 << at;
            if limit.rate.by == By::Connection && held.is_some() {
                continue;
            }
            let before = std::mem::replace(held, limit.held(who));
            if let (By::ClientName, Some(held)) = (&limit.rate.by, held) {
                match &self.own[at] {
                    // A makeshift is looked up with each batch, and is mostly the same.
                    Some(_) if before.is_some_and(|before| Arc::ptr_eq(before.budget(), held.budget())) => {}
                    Some(own) => held.inherit(self.now, own),
                    None => self.own[at] = Some(Arc::new(Meter::new(&limit.rate))),
                }
            }
        }
        let mut held = self.limits.all.iter().zip(&self.held);
        self.is_makeshift = held.any(|(limit, held)| held.as_ref().is_some_and(|held| limit.is_makeshift(held)));
    }

    /// Pays for a request to which the limits in `applying` apply, users aside. `positions`: room for those of its keys. What comes
    /// out pays for its reply.
    ///
    /// # Errors
    /// It may not run now, and nothing was paid.
    pub fn pay(
        &mut self,
        applying: Applying,
        command: &Command,
        args: &Args<'_>,
        positions: &mut Vec<usize>,
    ) -> Result<Option<Arc<Payer>>, Refused> {
        let limits = applying.limits & self.mask;
        let paid = if limits == 0 { Ok(None) } else { self.pay_all(limits, command, args, positions) };
        self.has_payer = matches!(paid, Ok(Some(_)));
        paid
    }

    fn pay_all(
        &mut self,
        applying: u64,
        command: &Command,
        args: &Args<'_>,
        positions: &mut Vec<usize>,
    ) -> Result<Option<Arc<Payer>>, Refused> {
        let bill = self.bill(applying, command, args, positions);
        if let Some((same, price, refused)) = self.refused
            && same == applying
            && bill.price >= price
            && command.toll() == Toll::Asked
        {
            self.counts(refused.limit).refused.add(1);
            return Err(refused);
        }
        // Let through by a limit that only looks on.
        let mut dry = 0;
        for at in each_bit(applying) {
            let mut taken = self.take(at, &bill);
            if taken.is_err() && self.prepaid.has(at) {
                // What was taken for those behind it was taken too early.
                self.settle();
                taken = self.take(at, &bill);
            }
            if self.shared >> at & 1 == 1 {
                self.parts(at, &bill).for_each(|(budget, _)| budget.line_up(self.now));
            }
            let Err((wait, part)) = taken else { continue };
            let limit = &self.limits.all[at];
            if command.toll() == Toll::Owed {
                self.parts(at, &bill).for_each(|(budget, cost)| budget.charge(self.now, cost));
                continue;
            }
            if limit.rate.dry_run {
                dry |= 1 << at;
                self.counts(at).dry_run_refused.add(1);
                let refused = || self.limits.total(at, |counts| &counts.dry_run_refused);
                limit.complain(self.now, || self.identity(at, &bill, part), refused);
                continue;
            }
            for before in each_bit(applying & !dry & ((1 << at) - 1)) {
                self.parts(before, &bill).for_each(|(budget, cost)| budget.give_back(self.now, cost));
            }
            self.counts(at).refused.add(1);
            let all_refused = || self.limits.total(at, |counts| &counts.refused);
            limit.complain(self.now, || self.identity(at, &bill, part), all_refused);
            let refused = Refused { limit: at, wait };
            // What a dry run would say of the others, and which keys they name, is not the same each time.
            if dry == 0 && applying & self.keyed == 0 {
                self.refused = Some((applying, bill.price, refused));
            }
            return Err(refused);
        }
        // A command without a key has no prefix to count it by.
        let keyless = if bill.keyed.is_empty() { self.keyed } else { 0 };
        each_bit(applying & !dry & !keyless).for_each(|at| self.counts(at).allowed.add(1));
        each_bit(applying & !dry & self.named).for_each(|at| self.used_itself(at, bill.price));
        let counting = applying & self.bytes;
        Ok((counting != 0).then(|| self.pay_bytes(counting, &bill, args.raw().len())))
    }

    fn counts(&self, limit: usize) -> &Counts {
        self.limits.counts(self.worker, limit)
    }

    fn bill(&self, applying: u64, command: &Command, args: &Args<'_>, positions: &mut Vec<usize>) -> Bill {
        let price = cost(command, args, &self.limits.texts, positions);
        let mut keyed = Vec::new();
        if applying & self.keyed != 0 && command.keys(args, positions).is_ok() {
            for at in each_bit(applying & self.keyed) {
                let limit = &self.limits.all[at];
                let mut prefixes: Vec<&[u8]> =
                    positions.iter().filter_map(|&position| limit.prefix_of(args.get(position)?)).collect();
                prefixes.sort_unstable();
                let each = prefixes.chunk_by(|one, next| one == next);
                keyed.extend(each.map(|same| (at, limit.of_prefix(same[0]), same.len() as u64)));
            }
        }
        Bill { price, keyed }
    }

    /// What a limit has the request paid from.
    fn parts<'a>(&'a self, limit: usize, bill: &'a Bill) -> impl Iterator<Item = (&'a Arc<Budget>, u64)> {
        let own = self.held[limit].as_ref().map(|held| (held.budget(), bill.price));
        let keyed = bill.keyed.iter().filter(move |(of, ..)| *of == limit);
        own.into_iter().chain(keyed.map(|(_, budget, cost)| (budget, *cost)))
    }

    /// Whose budget a part of the bill is paid from.
    fn identity<'a>(&'a self, limit: usize, bill: &'a Bill, part: usize) -> &'a [u8] {
        self.parts(limit, bill).nth(part).map_or(&[], |(budget, _)| &budget.identity)
    }

    /// Takes all of it, or nothing: then, how long until the part that was short may be asked again, and which it is.
    fn take(&self, limit: usize, bill: &Bill) -> Result<(), (Duration, usize)> {
        for (nth, (budget, cost)) in self.parts(limit, bill).enumerate() {
            if let Err(wait) = budget.take(self.now, cost) {
                let before = self.parts(limit, bill).take(nth);
                before.for_each(|(budget, cost)| budget.give_back(self.now, cost));
                return Err((wait, nth));
            }
        }
        Ok(())
    }

    /// Charges the request's own bytes.
    fn pay_bytes(&mut self, counting: u64, bill: &Bill, bytes: usize) -> Arc<Payer> {
        let of_keys = counting & self.keyed != 0;
        let payer = match &self.payer {
            Some((same, payer)) if *same == counting && !of_keys => payer.clone(),
            _ => {
                let held = each_bit(counting)
                    .filter_map(|at| Some((self.held[at].as_ref()?.budget().clone(), self.own[at].clone())));
                let keyed = bill.keyed.iter().filter(|(at, ..)| counting >> at & 1 == 1);
                let budgets = held.chain(keyed.map(|(_, budget, _)| (budget.clone(), None))).collect();
                let payer = Arc::new(Payer { limits: self.limits.clone(), budgets });
                self.payer = (!of_keys).then(|| (counting, payer.clone()));
                payer
            }
        };
        payer.charge(self.now, bytes as u64);
        payer
    }
}

impl Drop for Purse {
    /// A session that is torn out of its batch keeps nothing, either.
    fn drop(&mut self) {
        self.settle();
    }
}

fn each_bit(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = mask.trailing_zeros();
        (mask != 0).then(|| {
            mask &= mask - 1;
            lowest as usize
        })
    })
}
