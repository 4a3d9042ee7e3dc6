//! One walk of an event along the paths of an index.

use std::collections::HashMap;

use super::{Found, Index, Member, PathNode};
use crate::domain::pattern::Budget;
use crate::domain::pattern::eval::{Elements, Node};

/// A node with more children than this looks the event's few fields up among them, instead of them in the event.
const CHILDREN_ASKED_MAX: usize = 16;

/// What an event has along the paths of an index.
pub(super) struct Walk<'i, 'e> {
    index: &'i Index,
    budget: &'i Budget,
    /// For each path of the index, one more than its position in `places`; 0 where the event has nothing.
    place_at: Vec<u32>,
    places: Vec<Place<'e>>,
    /// For each condition, whether it is met, once that was asked.
    verdicts: Vec<Option<bool>>,
    /// Positions of the postings that are released.
    met: Vec<u32>,
}

/// What an event has at one path.
struct Place<'e> {
    /// None of them an array.
    nodes: Vec<Node<'e>>,
    /// Whether one of the arrays they were found in is above the last field.
    crosses_array: bool,
}

/// What is found at a path on the way there.
#[derive(Default)]
struct Arrival<'e> {
    nodes: Vec<Node<'e>>,
    has_array: bool,
}

impl<'i, 'e> Walk<'i, 'e> {
    pub(super) fn over(index: &'i Index, event: Node<'e>, budget: &'i Budget) -> Walk<'i, 'e> {
        let mut walk = Walk {
            index,
            budget,
            place_at: vec![0; index.places],
            places: Vec::new(),
            verdicts: vec![None; index.conditions.len()],
            met: Vec::new(),
        };
        walk.visit(
            &index.root,
            Arrival {
                nodes: vec![event],
                has_array: false,
            },
            false,
        );
        walk
    }

    /// Adds those whose wait is over, and who are not ruled out by another of their conditions.
    pub(super) fn release(mut self, found: &mut Found) {
        // An event may repeat a value; those who wait for it are released once.
        self.met.sort_unstable();
        self.met.dedup();
        for at in std::mem::take(&mut self.met) {
            let posting = &self.index.postings[at as usize];
            found.matched.extend_from_slice(&posting.sole);
            for member in &posting.part {
                self.judge(&self.index.members[*member as usize], found);
            }
        }
    }

    fn judge(&mut self, member: &Member, found: &mut Found) {
        if !member
            .conditions
            .iter()
            .all(|condition| self.is_met(*condition))
        {
            return;
        }
        let crosses_array = |at: &u32| {
            let condition = &self.index.conditions[*at as usize];
            self.place(condition.place)
                .is_some_and(|place| place.crosses_array)
        };
        if member.complete && !member.conditions.iter().any(crosses_array) {
            found.matched.push(member.entry);
        } else {
            found.candidates.push(member.entry);
        }
    }

    fn is_met(&mut self, condition: u32) -> bool {
        if let Some(verdict) = self.verdicts[condition as usize] {
            return verdict;
        }
        let place = self.place(self.index.conditions[condition as usize].place);
        let is_met = place.is_some_and(|place| self.accepts(condition, &place.nodes));
        self.verdicts[condition as usize] = Some(is_met);
        is_met
    }

    fn accepts(&self, condition: u32, nodes: &[Node<'e>]) -> bool {
        let leaf = &self.index.conditions[condition as usize].leaf;
        let cost = |node: &Node<'_>| match node {
            Node::Scalar(value) => leaf.cost(*value),
            // Passed over, which takes a step too.
            _ => 1,
        };
        nodes
            .iter()
            .take_while(|node| self.budget.spend(cost(node)))
            .any(|node| matches!(node, Node::Scalar(value) if leaf.accepts(*value)))
    }

    fn place(&self, place: u32) -> Option<&Place<'e>> {
        let at = (self.place_at[place as usize] as usize).checked_sub(1)?;
        self.places.get(at)
    }

    fn visit(&mut self, node: &'i PathNode, here: Arrival<'e>, crosses_array: bool) {
        if here.nodes.is_empty() || !self.budget.spend(here.nodes.len()) {
            return;
        }
        for place in &here.nodes {
            if let Node::Scalar(value) = place {
                self.met.extend(node.values.get(*value));
            }
        }
        for (condition, posting) in &node.tested {
            let is_met = self.accepts(*condition, &here.nodes);
            self.verdicts[*condition as usize] = Some(is_met);
            if is_met {
                self.met.push(*posting);
            }
        }
        let crosses_below = crosses_array || here.has_array;
        if node.children.len() > CHILDREN_ASKED_MAX {
            self.visit_by_fields(node, &here.nodes, crosses_below);
        } else {
            self.visit_children(node, &here.nodes, crosses_below);
        }
        self.places.push(Place {
            nodes: here.nodes,
            crosses_array,
        });
        self.place_at[node.place as usize] = super::position(self.places.len());
    }

    fn visit_children(&mut self, node: &'i PathNode, here: &[Node<'e>], crosses_array: bool) {
        for (key, child) in &node.children {
            if !self.budget.spend(here.len()) {
                return;
            }
            let mut there = Arrival::default();
            for place in here {
                if let Node::Object(fields) = place {
                    there.add(fields.get(key), self.budget);
                }
            }
            self.visit(child, there, crosses_array);
        }
    }

    /// The same from the event's side, so that many children cost no more than the event has fields.
    fn visit_by_fields(&mut self, node: &'i PathNode, here: &[Node<'e>], crosses_array: bool) {
        let mut by_key: HashMap<&str, Arrival<'e>> = HashMap::new();
        for place in here {
            if let Node::Object(fields) = place {
                if !self.budget.spend(fields.count()) {
                    return;
                }
                fields.each(|key, value| {
                    if node.children.contains_key(key) {
                        by_key.entry(key).or_default().add(value, self.budget);
                    }
                });
            }
        }
        for (key, there) in by_key {
            if let Some(child) = node.children.get(key) {
                self.visit(child, there, crosses_array);
            }
        }
    }
}

impl<'e> Arrival<'e> {
    fn add(&mut self, node: Node<'e>, budget: &Budget) {
        match node {
            Node::Absent => {}
            Node::Array(array) => {
                self.has_array = true;
                let held = Elements::of(array).take_while(|_| budget.spend(1));
                let held = held.filter(|node| !matches!(node, Node::Absent));
                self.nodes.extend(held);
            }
            other => self.nodes.push(other),
        }
    }
}
