//! Why an event does not match, for the person who wrote the filter.
//!
//! Follows the first rule that says no down to a leaf. Where an array has several elements the one that meets most is
//! followed. Not on the way of a delivery: this looks at parts of the event more than once.

use super::{EventView, Fields, Mismatch, Node, ObjectRule, Rule};
use crate::domain::json::Json;
use crate::domain::pattern::budget::Budget;
use crate::domain::pattern::compile::{push_key, push_position};

/// Elements of one array that are compared for the closest: more would tell nobody more.
const COMPARED_MAX: usize = 1_000;
/// Values of an array that are shown.
const SHOWN_MAX: usize = 5;

/// The first rule that says no; see [`super::super::Pattern::explain`].
pub(in super::super) fn explain(
    root: &ObjectRule,
    event: &EventView<'_>,
    budget: &Budget,
) -> Option<Mismatch> {
    object_mismatch(root, Node::of_event(event), String::new(), budget)
}

fn rule_mismatch(rule: &Rule, node: Node<'_>, path: String, budget: &Budget) -> Option<Mismatch> {
    match rule {
        Rule::Object(object) => object_mismatch(object, node, path, budget),
        Rule::Leaf(_) if rule.holds(node, budget) => None,
        Rule::Leaf(leaf) => Some(Mismatch {
            path,
            wanted: leaf.wanted().to_owned(),
            found: described(node),
        }),
    }
}

fn object_mismatch(
    rule: &ObjectRule,
    node: Node<'_>,
    path: String,
    budget: &Budget,
) -> Option<Mismatch> {
    if rule.holds(node, budget) {
        return None;
    }
    match node {
        Node::Object(fields) => within(rule, Some(fields), &path, budget),
        Node::Array(array) => within_closest(rule, array, path, budget),
        Node::Scalar(_) | Node::Absent => within(rule, None, &path, budget),
    }
}

/// The field or the `$or` that says no about something with these fields, or with none.
fn within(
    rule: &ObjectRule,
    fields: Option<Fields<'_>>,
    path: &str,
    budget: &Budget,
) -> Option<Mismatch> {
    let by_field = rule.fields().find_map(|(key, rule)| {
        let mut path = path.to_owned();
        push_key(&mut path, key);
        rule_mismatch(
            rule,
            fields.map_or(Node::Absent, |fields| fields.get(key)),
            path,
            budget,
        )
    });
    by_field.or_else(|| no_branch(rule.any_of(), fields, path, budget))
}

fn no_branch(
    branches: &[ObjectRule],
    fields: Option<Fields<'_>>,
    path: &str,
    budget: &Budget,
) -> Option<Mismatch> {
    let first = within(branches.first()?, fields, path, budget)?;
    if branches
        .iter()
        .any(|branch| branch.holds(fields.map_or(Node::Absent, Node::Object), budget))
    {
        return None;
    }
    let mut path = path.to_owned();
    push_key(&mut path, "$or");
    Some(Mismatch {
        path,
        wanted: format!("one of {} patterns", branches.len()),
        found: format!(
            "none; the first wants `{}` to be {}, found {}",
            first.path, first.wanted, first.found
        ),
    })
}

fn within_closest(
    rule: &ObjectRule,
    array: &[Json],
    mut path: String,
    budget: &Budget,
) -> Option<Mismatch> {
    let fields_met = |element: &Json| {
        rule.fields()
            .filter(|(key, field)| field.holds(field_of(element, key), budget))
            .count()
    };
    let closest = (array.iter().enumerate().take(COMPARED_MAX))
        // The first of the best: `max_by_key` alone would take the last.
        .rev()
        .max_by_key(|(_, element)| fields_met(element));
    let Some((position, mut element)) = closest else {
        return within(rule, None, &path, budget);
    };
    push_position(&mut path, position);
    while let Json::Array(inner) = element {
        let Some(first) = inner.first() else { break };
        push_position(&mut path, 0);
        element = first;
    }
    let fields = match Node::of(element) {
        Node::Object(fields) => Some(fields),
        _ => None,
    };
    let mut mismatch = within(rule, fields, &path, budget)?;
    if array.len() > 1 {
        mismatch
            .found
            .push_str(&format!(" (the closest of {} elements)", array.len()));
    }
    Some(mismatch)
}

fn field_of<'e>(element: &'e Json, key: &str) -> Node<'e> {
    match element {
        Json::Object(map) => Fields::Map(map).get(key),
        _ => Node::Absent,
    }
}

fn described(node: Node<'_>) -> String {
    match node {
        Node::Absent => "absent".to_owned(),
        Node::Scalar(value) => value.to_string(),
        Node::Object(_) => "an object, which is no value".to_owned(),
        Node::Array([]) => "an empty array".to_owned(),
        Node::Array(array) => {
            let mut shown: Vec<String> = array
                .iter()
                .take(SHOWN_MAX)
                .map(|value| described_inside(Node::of(value)))
                .collect();
            if array.len() > SHOWN_MAX {
                shown.push(format!("… {} in all", array.len()));
            }
            format!("[{}]", shown.join(", "))
        }
    }
}

fn described_inside(node: Node<'_>) -> String {
    match node {
        Node::Array(_) => "[…]".to_owned(),
        Node::Object(_) => "{…}".to_owned(),
        other => described(other),
    }
}
