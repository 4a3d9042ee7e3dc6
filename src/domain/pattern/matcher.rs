//! All subscriptions of a tenant compiled together.
//!
//! An event asks for little: the sections for its type (a lookup for exact types, a short list of globs), and in each a
//! tree of the paths that patterns name, walked once over the event. At a path the event's values are looked up among
//! the plain values that patterns wait for there, and tested against the other leaves that patterns wait for. Who
//! is released by that has its other leaves looked at, each leaf once per event however many patterns share it. Only
//! where arrays, `$or` or absence are in play is the pattern itself evaluated. So a subscription costs nothing until
//! the one leaf it waits for is met.
//!
//! Each pattern waits at one leaf it cannot do without (one leaf of each branch, if it has only an `$or`), the rarest
//! value that the section's patterns name. Patterns without such a leaf are evaluated every time.
//!
//! Not here: tenants. Memory is linear in the subscriptions' event types and alternatives.

use std::collections::HashMap;
use std::sync::Arc;

use super::eval::{Fields, Node};
use super::{Budget, EventView, Pattern, TypeGlob};

mod index;

use self::index::Index;

/// A tenant's subscriptions, ready to be asked which of them want an event.
#[derive(Debug)]
pub struct Matcher {
    entries: Box<[Entry]>,
    exact: HashMap<Box<str>, Section>,
    globs: Box<[(TypeGlob, Section)]>,
}

/// One subscription.
#[derive(Debug)]
struct Entry {
    /// The caller's number for it.
    index: u32,
    pattern: Option<Arc<Pattern>>,
}

/// The subscriptions that name one event type or one glob.
#[derive(Debug, Default)]
struct Section {
    /// Without a filter.
    unfiltered: Vec<u32>,
    /// With a filter that no single leaf can rule out.
    evaluated: Vec<u32>,
    /// With a filter that waits at a leaf.
    waiting: Index,
}

/// What a section's walk over an event found, as positions of entries.
#[derive(Debug, Default)]
struct Found {
    matched: Vec<u32>,
    candidates: Vec<u32>,
}

impl Matcher {
    /// Compiles subscriptions: the caller's index, the event types (none: it wants no event), the filter if there is one.
    pub fn build<'a>(
        entries: impl IntoIterator<Item = (u32, &'a [TypeGlob], Option<Arc<Pattern>>)>,
    ) -> Matcher {
        let mut held = Vec::new();
        let mut by_type: HashMap<&'a str, (&'a TypeGlob, Vec<u32>)> = HashMap::new();
        for (index, types, pattern) in entries {
            let position = position(held.len());
            held.push(Entry { index, pattern });
            // All types include the others: one section will do.
            let all = types.iter().find(|glob| glob.as_str() == "*");
            for glob in all.map_or(types, std::slice::from_ref) {
                let (_, members) = by_type
                    .entry(glob.as_str())
                    .or_insert_with(|| (glob, Vec::new()));
                members.push(position);
            }
        }
        let mut exact = HashMap::new();
        let mut globs = Vec::new();
        for (text, (glob, members)) in by_type {
            let section = Section::build(&held, members);
            if glob.is_exact() {
                exact.insert(text.into(), section);
            } else {
                globs.push((glob.clone(), section));
            }
        }
        Matcher {
            entries: held.into(),
            exact,
            globs: globs.into(),
        }
    }

    /// Pushes the indexes of all entries that want the event to `out`, ascending and without duplicates. What `out` holds
    /// already stays where it is. When `budget` is spent, what is pushed is no answer.
    pub fn matching(&self, event: &EventView<'_>, budget: &Budget, out: &mut Vec<u32>) {
        let mut found = Found::default();
        if let Some(section) = self.exact.get(event.kind) {
            section.find(event, budget, &mut found);
        }
        for (glob, section) in &self.globs {
            if glob.matches(event.kind) {
                section.find(event, budget, &mut found);
            }
        }
        // An entry may be found by several types or branches; its pattern is evaluated once.
        found.candidates.sort_unstable();
        found.candidates.dedup();
        let candidates = found
            .candidates
            .iter()
            .take_while(|_| !budget.is_spent())
            .filter(|at| self.entry(**at).wants(event, budget));
        let mut indexes: Vec<u32> = found
            .matched
            .iter()
            .chain(candidates)
            .map(|at| self.entry(*at).index)
            .collect();
        indexes.sort_unstable();
        indexes.dedup();
        out.append(&mut indexes);
    }

    fn entry(&self, at: u32) -> &Entry {
        &self.entries[at as usize]
    }
}

impl Entry {
    fn wants(&self, event: &EventView<'_>, budget: &Budget) -> bool {
        self.pattern
            .as_ref()
            .is_none_or(|pattern| pattern.matches(event, budget))
    }
}

impl Section {
    fn build(entries: &[Entry], mut members: Vec<u32>) -> Section {
        // A subscription may list the same type twice.
        members.dedup();
        let mut section = Section::default();
        let mut filtered = Vec::new();
        for at in members {
            match &entries[at as usize].pattern {
                Some(pattern) => filtered.push((at, &**pattern)),
                None => section.unfiltered.push(at),
            }
        }
        (section.waiting, section.evaluated) = Index::build(&filtered);
        section
    }

    fn find(&self, event: &EventView<'_>, budget: &Budget, found: &mut Found) {
        found.matched.extend_from_slice(&self.unfiltered);
        found.candidates.extend_from_slice(&self.evaluated);
        let event = Node::Object(Fields::Event(event));
        self.waiting.find(event, budget, found);
    }
}

fn position(at: usize) -> u32 {
    // Four billion subscriptions of one tenant do not fit in memory.
    u32::try_from(at).unwrap_or(u32::MAX)
}
