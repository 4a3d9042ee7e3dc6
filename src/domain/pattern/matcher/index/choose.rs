//! Which leaf of a pattern to wait at.
//!
//! The rarest: a pattern that waits for a value that no other names is looked at only for events that have it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::pattern::eval::{ObjectRule, Rule};
use crate::domain::pattern::leaf::{Leaf, Scalar};

/// Looking up plain values that fewer patterns name than this, or than an eighth of the section, is preferred to a test.
const COMMON_MIN: usize = 16;

/// A leaf that a pattern cannot do without, and where it is.
pub(super) struct Wait<'p> {
    pub(super) path: Vec<&'p str>,
    pub(super) leaf: &'p Arc<Leaf>,
}

/// By path, how often patterns name each plain value there.
type Counts<'p> = HashMap<Vec<&'p str>, HashMap<Scalar<'p>, usize>>;

/// Picks the leaves to wait at.
pub(super) struct Chooser<'p> {
    counts: Counts<'p>,
    /// What a leaf costs that has to be tested: as much as plain values that so many patterns name.
    tested: usize,
}

impl<'p> Chooser<'p> {
    /// Counts the values that a section's patterns name.
    pub(super) fn new(patterns: impl ExactSizeIterator<Item = &'p ObjectRule>) -> Chooser<'p> {
        let tested = COMMON_MIN.max(patterns.len() / 8);
        let mut counts = Counts::new();
        for root in patterns {
            count(root, &mut Vec::new(), &mut counts);
        }
        Chooser { counts, tested }
    }

    /// The leaves a pattern waits at, or `None` when it has to be evaluated for every event.
    pub(super) fn waits(&self, root: &'p ObjectRule) -> Option<Vec<Wait<'p>>> {
        self.choose(root, &mut Vec::new()).map(|(_, waits)| waits)
    }

    /// The cheapest leaf of a pattern object, or leaves when it takes one from each branch, with what they cost.
    fn choose(
        &self,
        rule: &'p ObjectRule,
        path: &mut Vec<&'p str>,
    ) -> Option<(usize, Vec<Wait<'p>>)> {
        let mut best: Option<(usize, Vec<Wait<'p>>)> = None;
        for (key, rule) in rule.fields() {
            path.push(key);
            let found = match rule {
                Rule::Object(object) => self.choose(object, path),
                Rule::Leaf(leaf) => self.cost(leaf, path).map(|cost| {
                    (
                        cost,
                        vec![Wait {
                            path: path.clone(),
                            leaf,
                        }],
                    )
                }),
            };
            path.pop();
            best = cheaper(best, found);
        }
        cheaper(best, self.one_of_each(rule.any_of(), path))
    }

    fn one_of_each(
        &self,
        branches: &'p [ObjectRule],
        path: &mut Vec<&'p str>,
    ) -> Option<(usize, Vec<Wait<'p>>)> {
        let mut cost = 0;
        let mut waits = Vec::new();
        for branch in branches {
            let (more, of_branch) = self.choose(branch, path)?;
            cost += more;
            waits.extend(of_branch);
        }
        (!waits.is_empty()).then_some((cost, waits))
    }

    fn cost(&self, leaf: &'p Arc<Leaf>, path: &[&'p str]) -> Option<usize> {
        if leaf.accepts_absence() {
            return None;
        }
        let Some(values) = leaf.plain_values() else {
            return Some(self.tested);
        };
        let counts = self.counts.get(path);
        let count = |value| {
            counts
                .and_then(|counts| counts.get(&value))
                .copied()
                .unwrap_or(0)
        };
        Some(values.map(count).sum())
    }
}

fn cheaper<'p>(
    a: Option<(usize, Vec<Wait<'p>>)>,
    b: Option<(usize, Vec<Wait<'p>>)>,
) -> Option<(usize, Vec<Wait<'p>>)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.0 < a.0 { b } else { a }),
        (a, b) => a.or(b),
    }
}

fn count<'p>(rule: &'p ObjectRule, path: &mut Vec<&'p str>, counts: &mut Counts<'p>) {
    for (key, rule) in rule.fields() {
        path.push(key);
        match rule {
            Rule::Object(object) => count(object, path, counts),
            Rule::Leaf(leaf) => {
                if let Some(values) = leaf.plain_values() {
                    let here = counts.entry(path.clone()).or_default();
                    values.for_each(|value| *here.entry(value).or_default() += 1);
                }
            }
        }
        path.pop();
    }
    for branch in rule.any_of() {
        count(branch, path, counts);
    }
}
