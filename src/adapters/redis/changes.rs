//! Who is to hear of changes, and what was told already.
//!
//! Each change has a stamp; the stamps form a chain, and `told` is the one up to which
//! everything was told. A message that does not continue the chain is a gap. So is a
//! stamp in Redis that nobody told of: then the versions of all scopes ever loaded are
//! compared. Listeners are called under the lock, so that once a scope is noted as told,
//! they have been called.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::subscription::Scope;

/// Most scopes that are remembered. Past it, all are told as changed and forgotten.
const SCOPES_MAX: usize = 250_000;

/// Is called with a scope that changed.
pub(super) type Listener = Box<dyn Fn(&Scope) + Send + Sync>;

/// Who is to hear of changes, and what was told already.
#[derive(Default)]
pub(super) struct Changes {
    told: Mutex<Told>,
    /// Rung when there may be something that was not told.
    pub(super) gap: Notify,
}

#[derive(Default)]
struct Told {
    listeners: Vec<Listener>,
    /// The marker that everything here belongs to.
    epoch: Option<String>,
    /// Everything up to this stamp was told.
    stamp: u64,
    /// The version of each scope that was loaded or told of last; `None` while it is being
    /// loaded for the first time.
    scopes: HashMap<Scope, Option<u64>>,
}

/// Scopes that changed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The stamp before.
    pub(super) before: u64,
    /// Its stamp, and the version of its scopes.
    pub(super) stamp: u64,
    pub(super) scopes: Vec<Scope>,
}

/// Each scope that is remembered, and its version; `None` while it is being loaded.
pub(super) type Snapshot = Vec<(Scope, Option<u64>)>;

impl Changes {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn listen(&self, listener: Listener) {
        self.lock().listeners.push(listener);
    }

    /// Whether a marker was seen: from then on its absence is a loss.
    pub(super) fn has_epoch(&self) -> bool {
        self.lock().epoch.is_some()
    }

    /// Everything up to this stamp was told.
    pub(super) fn told(&self) -> u64 {
        self.lock().stamp
    }

    /// The marker is `id`. Another one than before is another Redis: nothing that was
    /// loaded holds any more.
    pub(super) fn in_epoch(&self, id: &str) {
        let mut told = self.lock();
        match &told.epoch {
            Some(epoch) if epoch == id => return,
            None => {}
            Some(_) => {
                tracing::warn!("Redis holds other Carillon data than before: all is read again");
                told.forget_all();
            }
        }
        told.epoch = Some(id.to_owned());
    }

    /// `scope` is about to be loaded.
    pub(super) fn loading(&self, scope: &Scope) {
        let mut told = self.lock();
        if !told.scopes.contains_key(scope) {
            told.make_room();
            told.scopes.insert(scope.clone(), None);
        }
    }

    /// `scope` was loaded as of `version`.
    pub(super) fn loaded(&self, scope: &Scope, version: u64) {
        self.lock().scopes.insert(scope.clone(), Some(version));
    }

    /// Tells of a change; says whether none is missing before it.
    pub(super) fn tell(&self, change: &Change) -> bool {
        let mut told = self.lock();
        for scope in &change.scopes {
            let known = told.scopes.get(scope).copied().flatten();
            if known.is_some_and(|version| version >= change.stamp) {
                continue;
            }
            told.make_room();
            told.scopes.insert(scope.clone(), Some(change.stamp));
            told.call(scope);
        }
        if told.stamp == change.before {
            told.stamp = change.stamp;
        }
        told.stamp >= change.stamp
    }

    /// What is known now, to compare it with what Redis says afterwards.
    pub(super) fn snapshot(&self) -> Snapshot {
        let told = self.lock();
        let scopes = told.scopes.iter();
        scopes
            .map(|(scope, known)| (scope.clone(), *known))
            .collect()
    }

    /// Tells of each scope whose version is another than in the snapshot, which was taken
    /// before the versions were read.
    pub(super) fn compare(&self, snapshot: &[(Scope, Option<u64>)], versions: &[u64]) {
        let mut told = self.lock();
        for ((scope, known), version) in snapshot.iter().zip(versions) {
            let unmoved = told.scopes.get(scope) == Some(known);
            if unmoved && *known != Some(*version) {
                told.scopes.insert(scope.clone(), Some(*version));
                told.call(scope);
            }
        }
    }

    /// Everything up to `stamp` was told, by a comparison that began when `from` was.
    pub(super) fn compared(&self, from: u64, stamp: u64) {
        let mut told = self.lock();
        if told.stamp == from {
            told.stamp = stamp;
        }
    }
}

impl Told {
    fn call(&self, scope: &Scope) {
        for listener in &self.listeners {
            listener(scope);
        }
    }

    fn make_room(&mut self) {
        if self.scopes.len() >= SCOPES_MAX {
            self.forget_all();
        }
    }

    fn forget_all(&mut self) {
        for scope in std::mem::take(&mut self.scopes).into_keys() {
            self.call(&scope);
        }
    }
}

impl Change {
    /// Reads the message that a script publishes: `<before> <stamp>`, then a scope a line.
    pub(super) fn parse(message: &str) -> Option<Self> {
        let (head, scopes) = message.split_once('\n')?;
        let (before, stamp) = head.split_once(' ')?;
        let scopes: Result<_, _> = scopes.lines().map(Scope::parse).collect();
        Some(Self {
            before: before.parse().ok()?,
            stamp: stamp.parse().ok()?,
            scopes: scopes.ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn scope(name: &str) -> Scope {
        Scope::parse(name).unwrap()
    }

    fn change(before: u64, stamp: u64, names: &[&str]) -> Change {
        Change {
            before,
            stamp,
            scopes: names.iter().map(|name| scope(name)).collect(),
        }
    }

    /// Changes, and what its listener heard since the last call.
    fn heard() -> (Changes, impl Fn() -> Vec<String>) {
        let changes = Changes::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hear = Arc::clone(&heard);
        changes.listen(Box::new(move |scope| {
            hear.lock().unwrap().push(scope.as_str().to_owned());
        }));
        (changes, move || {
            let mut heard = std::mem::take(&mut *heard.lock().unwrap());
            heard.sort();
            heard
        })
    }

    #[test]
    fn a_change_is_told_once_and_a_gap_is_noticed() {
        let (changes, heard) = heard();
        assert!(changes.tell(&change(0, 5, &["a", "b"])));
        assert_eq!(heard(), ["a", "b"]);
        assert!(changes.tell(&change(0, 5, &["a", "b"])));
        assert!(heard().is_empty(), "the same again");
        assert!(!changes.tell(&change(7, 9, &["a"])), "7 was not told");
        assert_eq!(heard(), ["a"]);
        assert_eq!(changes.told(), 5);
    }

    #[test]
    fn a_comparison_tells_what_differs_also_what_vanished() {
        let (changes, heard) = heard();
        changes.loaded(&scope("same"), 1);
        changes.loaded(&scope("newer"), 1);
        changes.loaded(&scope("vanished"), 1);
        let snapshot = changes.snapshot();
        let version = |scope: &Scope| match scope.as_str() {
            "same" => 1,
            "newer" => 3,
            _ => 0,
        };
        let versions: Vec<_> = snapshot.iter().map(|(s, _)| version(s)).collect();
        changes.compare(&snapshot, &versions);
        assert_eq!(heard(), ["newer", "vanished"]);
        changes.compare(&snapshot, &versions);
        assert!(heard().is_empty(), "told already");
    }

    #[test]
    fn what_moved_during_a_comparison_is_left_alone() {
        let (changes, heard) = heard();
        changes.loaded(&scope("a"), 1);
        let snapshot = changes.snapshot();
        changes.tell(&change(0, 5, &["a"]));
        assert_eq!(heard(), ["a"]);
        changes.compare(&snapshot, &[0]);
        assert!(heard().is_empty());
        changes.compared(0, 3);
        assert_eq!(changes.told(), 5, "not put back");
        changes.compared(5, 3);
        assert_eq!(changes.told(), 3, "Redis fell back");
    }

    #[test]
    fn what_is_being_loaded_is_told() {
        let (changes, heard) = heard();
        changes.loading(&scope("a"));
        changes.compare(&changes.snapshot(), &[3]);
        assert_eq!(heard(), ["a"], "what is under way may be older");
        changes.loaded(&scope("a"), 2);
        changes.compare(&changes.snapshot(), &[3]);
        assert_eq!(heard(), ["a"]);
    }

    #[test]
    fn another_marker_tells_all() {
        let (changes, heard) = heard();
        changes.in_epoch("one");
        changes.loaded(&scope("a"), 1);
        changes.in_epoch("one");
        assert!(heard().is_empty());
        changes.in_epoch("two");
        assert_eq!(heard(), ["a"]);
        changes.in_epoch("two");
        assert!(heard().is_empty());
    }

    #[test]
    fn messages_are_read_or_refused() {
        assert_eq!(
            Change::parse("7 9\n*\nacme"),
            Some(change(7, 9, &["*", "acme"]))
        );
        for bad in ["", "7 9", "7\na", "x 9\na", "7 9\na b"] {
            assert_eq!(Change::parse(bad), None, "{bad:?}");
        }
    }
}
