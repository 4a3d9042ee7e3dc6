//! Why an event does not match, for the person who wrote the filter.
//!
//! Follows the first rule that says no down to a leaf. Where an array has several elements the one that meets most is
//! followed. Not on the way of a delivery: this looks at parts of the event more than once.

use serde_json::Value;

use super::{EventView, Fields, Mismatch, Node, ObjectRule, Rule};
use crate::domain::pattern::compile::{push_key, push_position};

/// Elements of one array that are compared for the closest: more would tell nobody more.
const COMPARED_MAX: usize = 1_000;
/// Values of an array that are shown.
const SHOWN_MAX: usize = 5;

/// The first rule that says no; see [`super::super::Pattern::explain`].
pub(in super::super) fn explain(root: &ObjectRule, event: &EventView<'_>) -> Option<Mismatch> {
    object_mismatch(root, Node::of_event(event), String::new())
}

fn rule_mismatch(rule: &Rule, node: Node<'_>, path: String) -> Option<Mismatch> {
    match rule {
        Rule::Object(object) => object_mismatch(object, node, path),
        Rule::Leaf(_) if rule.holds(node) => None,
        Rule::Leaf(leaf) => Some(Mismatch {
            path,
            wanted: leaf.wanted().to_owned(),
            found: described(node),
        }),
    }
}

fn object_mismatch(rule: &ObjectRule, node: Node<'_>, path: String) -> Option<Mismatch> {
    if rule.holds(node) {
        return None;
    }
    match node {
        Node::Object(fields) => within(rule, Some(fields), &path),
        Node::Array(array) => within_closest(rule, array, path),
        Node::Scalar(_) | Node::Absent => within(rule, None, &path),
    }
}

/// The field or the `$or` that says no about something with these fields, or with none.
fn within(rule: &ObjectRule, fields: Option<Fields<'_>>, path: &str) -> Option<Mismatch> {
    let by_field = rule.fields().find_map(|(key, rule)| {
        let mut path = path.to_owned();
        push_key(&mut path, key);
        rule_mismatch(
            rule,
            fields.map_or(Node::Absent, |fields| fields.get(key)),
            path,
        )
    });
    by_field.or_else(|| no_branch(rule.any_of(), fields, path))
}

fn no_branch(branches: &[ObjectRule], fields: Option<Fields<'_>>, path: &str) -> Option<Mismatch> {
    let first = within(branches.first()?, fields, path)?;
    if branches
        .iter()
        .any(|branch| branch.holds(fields.map_or(Node::Absent, Node::Object)))
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

fn within_closest(rule: &ObjectRule, array: &[Value], mut path: String) -> Option<Mismatch> {
    let fields_met = |element: &Value| {
        rule.fields()
            .filter(|(key, field)| field.holds(field_of(element, key)))
            .count()
    };
    let closest = (array.iter().enumerate().take(COMPARED_MAX))
        // The first of the best: `max_by_key` alone would take the last.
        .rev()
        .max_by_key(|(_, element)| fields_met(element));
    let Some((position, mut element)) = closest else {
        return within(rule, None, &path);
    };
    push_position(&mut path, position);
    while let Value::Array(inner) = element {
        let Some(first) = inner.first() else { break };
        push_position(&mut path, 0);
        element = first;
    }
    let fields = match Node::of(element) {
        Node::Object(fields) => Some(fields),
        _ => None,
    };
    let mut mismatch = within(rule, fields, &path)?;
    if array.len() > 1 {
        mismatch
            .found
            .push_str(&format!(" (the closest of {} elements)", array.len()));
    }
    Some(mismatch)
}

fn field_of<'e>(element: &'e Value, key: &str) -> Node<'e> {
    match element {
        Value::Object(map) => Fields::Map(map).get(key),
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
