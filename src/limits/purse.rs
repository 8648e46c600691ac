//! A session's budgets in hand, and paying from them: everything a request has to be paid from, or nothing.
//!
//! A purse is filled for one user and name and kept until those change, so that a request costs no look-up. Only budgets by key prefix
//! are looked up each time.

use std::sync::Arc;
use std::time::Duration;

use super::budget::Budget;
use super::clock::Nanos;
use super::cost::cost;
use super::limit::{Held, Who};
use super::{Counts, Limits};
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

/// See the head of this file.
#[derive(Debug)]
pub struct Purse {
    limits: Arc<Limits>,
    worker: usize,
    now: Nanos,
    /// Which limits concern this user: a bit each.
    mask: u64,
    /// Which count by key prefix, and which count bytes.
    keyed: u64,
    bytes: u64,
    /// Which are shared by several proxies.
    shared: u64,
    /// The budget of each limit, unless it is none of the session's.
    held: Vec<Option<Held>>,
    /// User or name have changed, or a budget is a makeshift.
    is_stale: bool,
    /// Who pays for the replies of requests that these limits apply to.
    payer: Option<(u64, Arc<Payer>)>,
    /// What was refused of the requests at hand: to what these limits applied, at which price. The clock stands still for
    /// them, so whatever costs as much is refused, too.
    refused: Option<(u64, u64, Refused)>,
}

/// Who pays for the bytes of a reply. Rides with the reply's place.
#[derive(Debug)]
pub struct Payer {
    limits: Arc<Limits>,
    budgets: Vec<Arc<Budget>>,
}

impl Payer {
    /// A reply of so many bytes goes to the client.
    pub fn pay(&self, bytes: usize) {
        let now = self.limits.now();
        for budget in &self.budgets {
            budget.charge_bytes(now, bytes as u64);
            budget.line_up(now);
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
                mask: 0,
                keyed: bits(|limit| matches!(limit.rate.by, By::KeyPrefix { .. })),
                bytes: bits(|limit| limit.rate.bytes_per_second > 0),
                shared: bits(|limit| limit.rate.scope == Scope::Shared),
                held: Vec::new(),
                is_stale: true,
                payer: None,
                refused: None,
            })
        };
        (!limits.is_empty()).then(purse)
    }

    /// The requests at hand were received: they are paid for as of now.
    pub fn begin(&mut self) {
        self.begin_at(self.limits.now());
    }

    /// The same at a given time.
    pub fn begin_at(&mut self, now: Nanos) {
        (self.now, self.refused) = (now, None);
        let mut held = self.limits.all.iter().zip(&self.held);
        self.is_stale |= held.any(|(limit, held)| held.as_ref().is_some_and(|held| limit.is_makeshift(held)));
    }

    /// The session has another user or name.
    pub fn introduced(&mut self) {
        self.is_stale = true;
    }

    /// Whether it has to be filled before it is asked.
    pub fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Takes the budgets of this user and name. Whoever only changes its name takes what it has used up with it.
    pub fn fill(&mut self, who: Who<'_>) {
        (self.is_stale, self.payer, self.refused, self.mask) = (false, None, None, 0);
        self.held.resize_with(self.limits.all.len(), || None);
        for (at, (limit, held)) in self.limits.all.iter().zip(&mut self.held).enumerate() {
            if !limit.concerns_user(who.user) {
                *held = None;
                continue;
            }
            self.mask |= 1 << at;
            if limit.rate.by == By::Connection && held.is_some() {
                continue;
            }
            let new = limit.held(who);
            if let (By::ClientName, Some(old), Some(new)) = (&limit.rate.by, &*held, &new) {
                new.inherit(self.now, old);
            }
            *held = new;
        }
    }

    /// Pays for a request to which the limits in `applying` apply (a bit each, users aside). `positions`: room for those of its
    /// keys. What comes out pays for its reply.
    ///
    /// # Errors
    /// It may not run now, and nothing was paid.
    pub fn pay(
        &mut self,
        applying: u64,
        command: &Command,
        args: &Args<'_>,
        positions: &mut Vec<usize>,
    ) -> Result<Option<Arc<Payer>>, Refused> {
        let applying = applying & self.mask;
        if applying == 0 {
            return Ok(None);
        }
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
            let taken = self.take(at, &bill);
            if self.shared >> at & 1 == 1 {
                self.parts(at, &bill).for_each(|(budget, _)| budget.line_up(self.now));
            }
            let Err((wait, budget)) = taken else { continue };
            let limit = &self.limits.all[at];
            if command.toll() == Toll::Owed {
                self.parts(at, &bill).for_each(|(budget, cost)| budget.charge(self.now, cost));
                continue;
            }
            if limit.rate.dry_run {
                dry |= 1 << at;
                self.counts(at).dry_run_refused.add(1);
                limit.complain(self.now, &budget.identity, || self.limits.total(at, |counts| &counts.dry_run_refused));
                continue;
            }
            for before in each_bit(applying & !dry & ((1 << at) - 1)) {
                self.parts(before, &bill).for_each(|(budget, cost)| budget.give_back(self.now, cost));
            }
            self.counts(at).refused.add(1);
            limit.complain(self.now, &budget.identity, || self.limits.total(at, |counts| &counts.refused));
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

    /// Takes all of it, or nothing.
    fn take<'a>(&'a self, limit: usize, bill: &'a Bill) -> Result<(), (Duration, &'a Budget)> {
        for (nth, (budget, cost)) in self.parts(limit, bill).enumerate() {
            if let Err(wait) = budget.take(self.now, cost) {
                let before = self.parts(limit, bill).take(nth);
                before.for_each(|(budget, cost)| budget.give_back(self.now, cost));
                return Err((wait, budget));
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
                let own = each_bit(counting).filter_map(|at| self.held[at].as_ref().map(|held| held.budget().clone()));
                let keyed = bill.keyed.iter().filter(|(at, ..)| counting >> at & 1 == 1);
                let budgets = own.chain(keyed.map(|(_, budget, _)| budget.clone())).collect();
                let payer = Arc::new(Payer { limits: self.limits.clone(), budgets });
                self.payer = (!of_keys).then(|| (counting, payer.clone()));
                payer
            }
        };
        payer.budgets.iter().for_each(|budget| budget.charge_bytes(self.now, bytes as u64));
        payer
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
