//! How far a request has come, and how long its parts took.
//!
//! The client opens connections on a request's behalf and says nothing about it. A
//! [`Probe`] travels with the request as a task-local value, and the resolver and the
//! opening of connections leave their marks on it.
//!
//! Unknown stays `None`: a request on a kept-alive connection looks up nothing and opens
//! nothing. One case is approximate. The client may begin to open a connection, then be
//! given back a used one first and take it, and finish opening in the background: the
//! lookup that was made is then reported although the connection was another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

tokio::task_local! {
    static CURRENT: Arc<Probe>;
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was begun that we know of: it may be waiting on a kept-alive connection.
    #[default]
    Begun,
    /// Looking up the name.
    Resolving,
    /// Connecting, TLS included.
    Connecting,
    /// It has a connection of its own: sending it, or waiting for its answer.
    Connected,
}

/// What is known about one request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    /// How far it has come.
    pub stage: Stage,
    /// How long looking up the name took.
    pub dns: Option<Duration>,
    /// How long connecting took, TLS included.
    pub connect: Option<Duration>,
}

/// Collects the marks of one request.
#[derive(Debug, Default)]
pub(super) struct Probe(Mutex<Marks>);

impl Probe {
    /// The probe of the request that the current task is working on, if it is.
    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Runs `work` so that it finds this probe as the current one.
    pub(super) fn watch<F: Future>(
        self: &Arc<Self>,
        work: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(Arc::clone(self), work)
    }

    /// What is known so far.
    pub(super) fn marks(&self) -> Marks {
        *self.lock()
    }

    /// A name is being looked up.
    pub(super) fn lookup_begins(&self) {
        self.lock().stage = Stage::Resolving;
    }

    /// The lookup that began at `begun` is over.
    pub(super) fn lookup_ends(&self, begun: Instant) {
        let mut marks = self.lock();
        marks.dns = Some(begun.elapsed());
        marks.stage = Stage::Connecting;
    }

    /// A connection is being opened.
    pub(super) fn opening_begins(&self) {
        self.lock().stage = Stage::Connecting;
    }

    /// The connection that was begun at `begun` is open. The time includes the lookup,
    /// which is subtracted here.
    pub(super) fn opening_ends(&self, begun: Instant) {
        let mut marks = self.lock();
        let lookup = marks.dns.unwrap_or_default();
        marks.connect = Some(begun.elapsed().saturating_sub(lookup));
        marks.stage = Stage::Connected;
    }

    /// The request was given another connection than the one being opened for it.
    pub(super) fn opening_passed_on(&self) {
        self.lock().stage = Stage::Connected;
    }

    fn lock(&self) -> MutexGuard<'_, Marks> {
        // Marks are valid after each of the assignments above.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
