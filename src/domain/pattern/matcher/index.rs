//! The tree of paths that a section's patterns name, with what waits at each.
//!
//! Leaves are held once however many patterns repeat them, as *conditions*: a leaf at a path. Where the paths of a
//! pattern cross no array in an event, its conditions say all; below arrays they are necessary, and the pattern itself
//! has the last word (the same element has to meet them).

use std::collections::HashMap;
use std::sync::Arc;

use super::{Found, position};
use crate::domain::pattern::eval::{Node, ObjectRule, Rule};
use crate::domain::pattern::leaf::{Leaf, Scalar};
use crate::domain::pattern::number::Num;
use crate::domain::pattern::{Budget, Pattern};

mod choose;
mod walk;

use self::choose::{Chooser, Wait};
use self::walk::Walk;

/// Patterns by the leaf each waits at.
#[derive(Debug, Default)]
pub(super) struct Index {
    root: PathNode,
    /// Paths in the tree, the root among them.
    places: usize,
    postings: Vec<Posting>,
    conditions: Vec<Condition>,
    members: Vec<Member>,
}

/// One path that patterns name.
#[derive(Debug, Default)]
struct PathNode {
    /// Its number.
    place: u32,
    children: HashMap<Box<str>, PathNode>,
    values: Values,
    /// Conditions that are no plain values, each with the position in [`Index::postings`] of those that wait for it.
    tested: Vec<(u32, u32)>,
}

/// Plain values, and the position in [`Index::postings`] of those that wait for each.
#[derive(Debug, Default)]
struct Values {
    null: Option<u32>,
    truth: [Option<u32>; 2],
    numbers: HashMap<Num, u32>,
    texts: HashMap<Box<str>, u32>,
}

/// Those that wait for the same thing.
#[derive(Debug, Default)]
struct Posting {
    /// Entries: the leaf is all they ask, met, they match.
    sole: Vec<u32>,
    /// Positions in [`Index::members`].
    part: Vec<u32>,
}

/// A leaf at a path.
#[derive(Debug)]
struct Condition {
    place: u32,
    leaf: Arc<Leaf>,
}

/// An entry that asks for more than one leaf.
#[derive(Debug)]
struct Member {
    entry: u32,
    /// Positions in [`Index::conditions`]: all of them are necessary.
    conditions: Box<[u32]>,
    /// Nothing else is asked.
    complete: bool,
}

/// An index being built.
#[derive(Default)]
struct Builder<'p> {
    index: Index,
    conditions: HashMap<(u32, &'p Leaf), u32>,
    /// The posting of a tested condition.
    tested: HashMap<u32, u32>,
}

impl Index {
    /// The index, and the entries whose pattern has no leaf to wait at.
    pub(super) fn build(entries: &[(u32, &Pattern)]) -> (Index, Vec<u32>) {
        let chooser = Chooser::new(entries.iter().map(|(_, pattern)| &*pattern.root));
        let mut builder = Builder {
            index: Index {
                places: 1,
                ..Index::default()
            },
            ..Builder::default()
        };
        let mut evaluated = Vec::new();
        for (entry, pattern) in entries {
            match chooser.waits(&pattern.root) {
                Some(waits) => builder.insert(*entry, &pattern.root, &waits),
                None => evaluated.push(*entry),
            }
        }
        (builder.index, evaluated)
    }

    /// Adds what the event's values release.
    pub(super) fn find(&self, event: Node<'_>, budget: &Budget, found: &mut Found) {
        if budget.spend(self.members.len() + 1) {
            Walk::over(self, event, budget).release(found);
        }
    }
}

impl<'p> Builder<'p> {
    fn insert(&mut self, entry: u32, root: &'p ObjectRule, waits: &[Wait<'p>]) {
        let is_sole = is_sole_leaf(root);
        let waiting = if is_sole {
            entry
        } else {
            self.member(entry, root)
        };
        for wait in waits {
            for at in self.postings_of(wait) {
                let posting = &mut self.index.postings[at as usize];
                if is_sole {
                    posting.sole.push(waiting)
                } else {
                    posting.part.push(waiting)
                }
            }
        }
    }

    fn member(&mut self, entry: u32, root: &'p ObjectRule) -> u32 {
        let mut conditions = Vec::new();
        let complete = self.require(root, &mut Vec::new(), &mut conditions);
        self.index.members.push(Member {
            entry,
            conditions: conditions.into(),
            complete,
        });
        position(self.index.members.len() - 1)
    }

    /// Collects the conditions a pattern cannot do without, and says whether they are all of it.
    fn require(
        &mut self,
        rule: &'p ObjectRule,
        path: &mut Vec<&'p str>,
        conditions: &mut Vec<u32>,
    ) -> bool {
        let mut complete = rule.any_of().is_empty();
        for (key, rule) in rule.fields() {
            path.push(key);
            complete &= match rule {
                Rule::Object(object) => self.require(object, path, conditions),
                Rule::Leaf(leaf) if leaf.accepts_absence() => false,
                Rule::Leaf(leaf) => {
                    conditions.push(self.condition(path, leaf));
                    true
                }
            };
            path.pop();
        }
        complete
    }

    fn condition(&mut self, path: &[&'p str], leaf: &'p Arc<Leaf>) -> u32 {
        let place = self.node(path).place;
        let all = &mut self.index.conditions;
        *self.conditions.entry((place, &**leaf)).or_insert_with(|| {
            all.push(Condition {
                place,
                leaf: Arc::clone(leaf),
            });
            position(all.len() - 1)
        })
    }

    /// The postings of all alternatives of a leaf to wait at.
    fn postings_of(&mut self, wait: &Wait<'p>) -> Vec<u32> {
        let Some(values) = wait.leaf.plain_values() else {
            return vec![self.posting_of_test(wait)];
        };
        let mut next = position(self.index.postings.len());
        let values_here = &mut self.node(&wait.path).values;
        let mut postings = Vec::new();
        for value in values {
            let at = values_here.posting_of(value, next);
            next += u32::from(at == next);
            postings.push(at);
        }
        self.index
            .postings
            .resize_with(next as usize, Posting::default);
        postings
    }

    fn posting_of_test(&mut self, wait: &Wait<'p>) -> u32 {
        let condition = self.condition(&wait.path, wait.leaf);
        if let Some(at) = self.tested.get(&condition) {
            return *at;
        }
        let at = position(self.index.postings.len());
        self.index.postings.push(Posting::default());
        self.tested.insert(condition, at);
        self.node(&wait.path).tested.push((condition, at));
        at
    }

    fn node(&mut self, path: &[&str]) -> &mut PathNode {
        let places = &mut self.index.places;
        let mut node = &mut self.index.root;
        for key in path {
            node = node.children.entry((*key).into()).or_insert_with(|| {
                *places += 1;
                PathNode {
                    place: position(*places - 1),
                    ..PathNode::default()
                }
            });
        }
        node
    }
}

impl Values {
    fn get(&self, value: Scalar<'_>) -> Option<u32> {
        match value {
            Scalar::Null => self.null,
            Scalar::Bool(truth) => self.truth[usize::from(truth)],
            Scalar::Number(number) => self.numbers.get(&number).copied(),
            Scalar::Text(text) => self.texts.get(text).copied(),
        }
    }

    /// The posting of `value`, which is `next` when there was none.
    fn posting_of(&mut self, value: Scalar<'_>, next: u32) -> u32 {
        match value {
            Scalar::Null => *self.null.get_or_insert(next),
            Scalar::Bool(truth) => *self.truth[usize::from(truth)].get_or_insert(next),
            Scalar::Number(number) => *self.numbers.entry(number).or_insert(next),
            Scalar::Text(text) => match self.texts.get(text) {
                Some(at) => *at,
                None => *self.texts.entry(text.into()).or_insert(next),
            },
        }
    }
}

/// Whether the pattern is a chain of objects down to one leaf, which then says all there is to say.
fn is_sole_leaf(rule: &ObjectRule) -> bool {
    let mut fields = rule.fields();
    match (fields.next(), fields.next()) {
        (Some((_, Rule::Leaf(_))), None) => rule.any_of().is_empty(),
        (Some((_, Rule::Object(object))), None) => rule.any_of().is_empty() && is_sole_leaf(object),
        _ => false,
    }
}
