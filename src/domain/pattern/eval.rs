//! One pattern against one event: whether it matches, which alerts it selects, why it does not.
//!
//! A pattern is a tree of [`ObjectRule`]s and leaves; an event is looked at through [`Node`]s, without copying. Arrays are
//! walked with a stack of our own, so recursion is bounded by the pattern alone. What a pattern object says to something
//! that has none of its fields is known when it is compiled.

use std::slice;
use std::sync::Arc;

use super::budget::Budget;
use super::leaf::{Leaf, Scalar};
use super::number::Num;
use super::{ALERTS_EVENT_TYPE, EventView, Mismatch, Selection};
use crate::domain::json::{Json, Object};

mod explain;

pub(super) use self::explain::explain;

/// A place in an event.
#[derive(Clone, Copy)]
pub(super) enum Node<'e> {
    Absent,
    Scalar(Scalar<'e>),
    Array(&'e [Json]),
    Object(Fields<'e>),
}

/// Something with named fields: the event, or an object in its data.
#[derive(Clone, Copy)]
pub(super) enum Fields<'e> {
    Event(&'e EventView<'e>),
    Map(&'e Object),
}

/// What is in an array and in the arrays it holds: never itself an array; an empty one yields one [`Node::Absent`].
pub(super) struct Elements<'e> {
    current: slice::Iter<'e, Json>,
    outer: Vec<slice::Iter<'e, Json>>,
    yields_absent: bool,
}

/// A pattern object: every field and, if there are branches, one of them must be met.
#[derive(Debug)]
pub(super) struct ObjectRule {
    fields: Box<[(Box<str>, Rule)]>,
    any_of: Box<[ObjectRule]>,
    /// Whether this is met by something that has no fields.
    by_absence: bool,
}

/// What a pattern asks of one field.
#[derive(Debug)]
pub(super) enum Rule {
    Leaf(Arc<Leaf>),
    Object(ObjectRule),
}

/// What is left to ask of each alert, once all that is the same for every alert has been answered.
enum Residue<'p> {
    Known(bool),
    Alert(&'p Rule),
    All(Vec<Residue<'p>>),
    Any(Vec<Residue<'p>>),
}

/// Which alerts the pattern selects; see [`super::Pattern::select_alerts`].
pub(super) fn select_alerts(
    root: &ObjectRule,
    event: &EventView<'_>,
    budget: &Budget,
) -> Selection {
    let alerts = match event.data.get("alerts") {
        Some(Json::Array(alerts)) if event.kind == ALERTS_EVENT_TYPE => alerts,
        _ if root.holds(Node::of_event(event), budget) => return Selection::All,
        _ => return Selection::Some(Vec::new()),
    };
    match root.residue(Fields::Event(event), budget) {
        Residue::Known(true) => Selection::All,
        Residue::Known(false) => Selection::Some(Vec::new()),
        residue => Selection::Some(
            (alerts.iter().enumerate())
                .take_while(|_| !budget.is_spent())
                .filter(|(_, alert)| residue.holds(Node::of(alert), budget))
                .map(|(position, _)| position)
                .collect(),
        ),
    }
}

impl<'e> Node<'e> {
    pub(super) fn of_event(event: &'e EventView<'e>) -> Node<'e> {
        Node::Object(Fields::Event(event))
    }

    pub(super) fn of(value: &'e Json) -> Node<'e> {
        match value {
            Json::Null => Node::Scalar(Scalar::Null),
            Json::Bool(truth) => Node::Scalar(Scalar::Bool(*truth)),
            Json::Number(number) => Node::Scalar(Scalar::Number(Num::of(number))),
            Json::Text(text) => Node::Scalar(Scalar::Text(text)),
            Json::Array(array) => Node::Array(array),
            Json::Object(map) => Node::Object(Fields::Map(map)),
        }
    }
}

impl<'e> Fields<'e> {
    pub(super) fn get(self, key: &str) -> Node<'e> {
        let text = |text| Node::Scalar(Scalar::Text(text));
        match self {
            Fields::Map(map) => map.get(key).map_or(Node::Absent, Node::of),
            Fields::Event(event) => match key {
                "id" => text(event.id),
                "type" => text(event.kind),
                "tenant" => text(event.tenant),
                "timestamp" => text(event.timestamp),
                "data" => Node::Object(Fields::Map(event.data)),
                _ => Node::Absent,
            },
        }
    }
}

impl<'e> Fields<'e> {
    /// Calls `visit` with each field.
    /// How many [`Self::each`] visits.
    pub(super) fn count(self) -> usize {
        match self {
            Fields::Map(map) => map.len(),
            Fields::Event(_) => 5,
        }
    }

    pub(super) fn each(self, mut visit: impl FnMut(&'e str, Node<'e>)) {
        match self {
            Fields::Map(map) => map
                .iter()
                .for_each(|(key, value)| visit(key, Node::of(value))),
            event => ["id", "type", "tenant", "timestamp", "data"]
                .into_iter()
                .for_each(|key| visit(key, event.get(key))),
        }
    }
}

impl<'e> Elements<'e> {
    pub(super) fn of(array: &'e [Json]) -> Elements<'e> {
        Elements {
            current: array.iter(),
            outer: Vec::new(),
            yields_absent: array.is_empty(),
        }
    }
}

impl<'e> Iterator for Elements<'e> {
    type Item = Node<'e>;

    fn next(&mut self) -> Option<Node<'e>> {
        if std::mem::take(&mut self.yields_absent) {
            return Some(Node::Absent);
        }
        loop {
            match self.current.next().map(Node::of) {
                Some(Node::Array([])) => return Some(Node::Absent),
                Some(Node::Array(inner)) => {
                    let outer = std::mem::replace(&mut self.current, inner.iter());
                    // An exhausted array is not returned to, so `[[[…` grows nothing.
                    if !outer.as_slice().is_empty() {
                        self.outer.push(outer);
                    }
                }
                Some(node) => return Some(node),
                None => self.current = self.outer.pop()?,
            }
        }
    }
}

impl ObjectRule {
    pub(super) fn new(fields: Vec<(Box<str>, Rule)>, any_of: Vec<ObjectRule>) -> ObjectRule {
        let by_absence = fields.iter().all(|(_, rule)| rule.holds_by_absence())
            && (any_of.is_empty() || any_of.iter().any(|branch| branch.by_absence));
        ObjectRule {
            fields: fields.into(),
            any_of: any_of.into(),
            by_absence,
        }
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.fields.iter().map(|(key, rule)| (&**key, rule))
    }

    pub(super) fn any_of(&self) -> &[ObjectRule] {
        &self.any_of
    }

    pub(super) fn holds(&self, node: Node<'_>, budget: &Budget) -> bool {
        match node {
            Node::Object(fields) => self.holds_for(fields, budget),
            Node::Array(array) => Elements::of(array)
                .take_while(|_| budget.spend(1))
                .any(|element| self.holds(element, budget)),
            Node::Scalar(_) | Node::Absent => self.by_absence,
        }
    }

    fn holds_for(&self, fields: Fields<'_>, budget: &Budget) -> bool {
        budget.spend(1)
            && self
                .fields
                .iter()
                .all(|(key, rule)| budget.spend(1) && rule.holds(fields.get(key), budget))
            && self.a_branch_holds(fields, budget)
    }

    fn a_branch_holds(&self, fields: Fields<'_>, budget: &Budget) -> bool {
        let mut branches = self.any_of.iter();
        self.any_of.is_empty() || branches.any(|branch| branch.holds_for(fields, budget))
    }

    /// Answers all but what concerns `data.alerts`. Above it there are no arrays, only fields and branches.
    fn residue(&self, fields: Fields<'_>, budget: &Budget) -> Residue<'_> {
        let mut all = Vec::new();
        for (key, rule) in self.fields() {
            let residue = match (fields, key, rule) {
                (Fields::Event(event), "data", Rule::Object(rule)) => {
                    rule.residue(Fields::Map(event.data), budget)
                }
                (Fields::Map(_), "alerts", rule) => Residue::Alert(rule),
                (fields, key, rule) => Residue::Known(rule.holds(fields.get(key), budget)),
            };
            match residue {
                Residue::Known(true) => {}
                Residue::Known(false) => return residue,
                open => all.push(open),
            }
        }
        if !self.any_of.is_empty() {
            match self.any_residue(fields, budget) {
                Residue::Known(true) => {}
                Residue::Known(false) => return Residue::Known(false),
                open => all.push(open),
            }
        }
        if all.is_empty() {
            Residue::Known(true)
        } else {
            Residue::All(all)
        }
    }

    fn any_residue(&self, fields: Fields<'_>, budget: &Budget) -> Residue<'_> {
        let mut any = Vec::new();
        for branch in &self.any_of {
            match branch.residue(fields, budget) {
                Residue::Known(true) => return Residue::Known(true),
                Residue::Known(false) => {}
                open => any.push(open),
            }
        }
        if any.is_empty() {
            Residue::Known(false)
        } else {
            Residue::Any(any)
        }
    }
}

impl Rule {
    pub(super) fn leaf(leaf: Leaf) -> Rule {
        Rule::Leaf(Arc::new(leaf))
    }

    pub(super) fn holds(&self, node: Node<'_>, budget: &Budget) -> bool {
        match self {
            Rule::Leaf(leaf) => leaf_holds(leaf, node, budget),
            Rule::Object(object) => object.holds(node, budget),
        }
    }

    fn holds_by_absence(&self) -> bool {
        match self {
            Rule::Leaf(leaf) => leaf.accepts_absence(),
            Rule::Object(object) => object.by_absence,
        }
    }
}

impl Residue<'_> {
    fn holds(&self, alert: Node<'_>, budget: &Budget) -> bool {
        match self {
            Residue::Known(known) => *known,
            Residue::Alert(rule) => rule.holds(alert, budget),
            Residue::All(all) => all.iter().all(|residue| residue.holds(alert, budget)),
            Residue::Any(any) => any.iter().any(|residue| residue.holds(alert, budget)),
        }
    }
}

/// A leaf asks for a value: an object is none, and an array is as many as it holds.
fn leaf_holds(leaf: &Leaf, node: Node<'_>, budget: &Budget) -> bool {
    match node {
        Node::Absent | Node::Object(_) => leaf.accepts_absence(),
        Node::Scalar(value) => budget.spend(leaf.cost(value)) && leaf.accepts(value),
        Node::Array(array) => {
            let mut has_value = false;
            for element in Elements::of(array) {
                if !budget.spend(1) {
                    return false;
                }
                if let Node::Scalar(value) = element {
                    if budget.spend(leaf.cost(value)) && leaf.accepts(value) {
                        return true;
                    }
                    has_value = true;
                }
            }
            !has_value && leaf.accepts_absence()
        }
    }
}
