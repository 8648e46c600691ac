//! What came of reads, by the rule of `[[cache.policy]]` that is for their key.
//!
//! A worker has as many of these as there are rules, and one for what none is for. Another configuration changes the list: a rule that
//! is in both keeps its counts, any other begins at 0.

use std::sync::Arc;

use super::{Counter, Outcome, Tally};
use crate::config::Policy;

/// What one worker has counted of one rule. One thread writes, any may read; no two workers' are in one line of a processor's cache.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PolicyFigures {
    /// Answered from memory.
    hits: Counter,
    /// Memory had no answer.
    misses: Counter,
    /// Memory was not asked.
    bypasses: Counter,
}

impl PolicyFigures {
    /// One more read of this outcome.
    #[inline]
    pub fn count(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Hit => &self.hits,
            Outcome::Miss(_) => &self.misses,
            Outcome::Bypass(_) => &self.bypasses,
        };
        counter.add(1);
    }

    /// All reads so far.
    pub fn tally(&self) -> Tally {
        Tally { hits: self.hits.get(), misses: self.misses.get(), bypasses: self.bypasses.get() }
    }
}

/// The rules in force with what was counted of each, in their order; behind them, what none of them is for.
#[derive(Clone, Debug)]
pub struct Policies {
    rules: Arc<[(Policy, Arc<PolicyFigures>)]>,
    rest: Arc<PolicyFigures>,
}

impl Default for Policies {
    fn default() -> Self {
        Self { rules: Arc::new([]), rest: Arc::default() }
    }
}

impl Policies {
    /// With these rules instead.
    #[must_use]
    pub fn replaced(&self, rules: &[Policy]) -> Self {
        let mut before: Vec<_> = self.rules.to_vec();
        let kept = |rule: &Policy| {
            // Taken out: of two that are the same, each has its own.
            let at = before.iter().position(|(was, _)| was == rule);
            (rule.clone(), at.map_or_else(Arc::default, |at| before.remove(at).1))
        };
        Self { rules: rules.iter().map(kept).collect(), rest: self.rest.clone() }
    }

    /// One more read whose key this rule is for, by [`crate::config::Cache::rule_of`].
    #[inline]
    pub fn count(&self, rule: usize, outcome: Outcome) {
        self.rules.get(rule).map_or(&self.rest, |(_, figures)| figures).count(outcome);
    }

    /// Each rule, and `None` behind the last, with its figures.
    pub fn each(&self) -> impl Iterator<Item = (Option<&Policy>, &PolicyFigures)> {
        let rules = self.rules.iter().map(|(policy, figures)| (Some(policy), &**figures));
        rules.chain([(None, &*self.rest)])
    }
}

#[cfg(test)]
mod tests {
    use super::Policies;
    use crate::config::{Glob, Mode, Policy};
    use crate::observe::Outcome;

    #[test]
    fn a_rule_keeps_its_counts_wherever_it_goes_and_another_begins_anew() {
        let rule = |pattern: &str, mode| Policy { pattern: Glob::new(pattern), mode };
        let (a, b, twin) = (rule("a:*", Mode::Strict), rule("b:*", Mode::Tracked), rule("b:*", Mode::Tracked));
        let hits = |policies: &Policies| policies.each().map(|(_, figures)| figures.tally().hits).collect::<Vec<_>>();
        let policies = Policies::default().replaced(&[a.clone(), b.clone()]);
        for (rule, times) in [(0, 1), (1, 2), (2, 3), (99, 1)] {
            (0..times).for_each(|_| policies.count(rule, Outcome::Hit));
        }
        assert_eq!(hits(&policies), [1, 2, 4]);
        let policies = policies.replaced(&[b, twin, rule("a:*", Mode::Tracked)]);
        assert_eq!(hits(&policies), [2, 0, 0, 4]);
        assert_eq!(hits(&policies.replaced(&[a])), [0, 4]);
    }
}
