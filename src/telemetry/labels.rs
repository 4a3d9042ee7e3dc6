//! What stands in the labels: closed sets, never a URL, a tenant or an id.

use super::table::{Bounds, Label};
use crate::domain::accounts::Account;
use crate::domain::address::EgressRule;
use crate::domain::delivery::DeadReason;
use crate::domain::lane::{DeferReason, Standing};
use crate::domain::outcome::Reason;
use crate::domain::subscription::DisabledReason;

/// Upper bounds of attempt durations: up to the longest timeout.
pub struct AttemptSeconds;

impl Bounds for AttemptSeconds {
    const SECONDS: &'static [f64] = &[
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ];
}

/// Upper bounds of latencies and ages: up to the longest retry schedule.
pub struct LatencySeconds;

impl Bounds for LatencySeconds {
    const SECONDS: &'static [f64] = &[
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
        300.0, 1800.0, 7200.0, 43_200.0, 172_800.0,
    ];
}

/// How an attempt ended: delivered, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptOutcome(pub Option<Reason>);

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its endpoint acknowledged it.
    Delivered,
    /// It was given up.
    DeadLettered(DeadReason),
}

/// Declares sets of one label that only metrics know, with what stands there.
macro_rules! labels {
    ($($(#[$doc:meta])+ $set:ident($label:literal) {
        $($(#[$each:meta])+ $value:ident = $text:literal,)+
    })+) => {$(
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $set {
            $($(#[$each])+ $value,)+
        }

        impl $set {
            /// As it stands in the label.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }

        impl Label for $set {
            const NAMES: &'static [&'static str] = &[$label];

            fn all() -> Vec<Self> {
                vec![$(Self::$value,)+]
            }

            fn place(self) -> usize {
                self as usize
            }

            fn values(self) -> Vec<&'static str> {
                vec![self.name()]
            }
        }
    )+};
}

labels! {
    /// What became of an event.
    EventResult("result") {
        /// It leads to deliveries.
        Accepted = "accepted",
        /// No subscription wants it.
        Unmatched = "unmatched",
        /// All its deliveries were settled before.
        Duplicate = "duplicate",
        /// It was not understood, or cannot be matched.
        Quarantined = "quarantined",
    }

    /// What came of a look for compiled subscriptions.
    CacheResult("result") {
        /// They were there.
        Hit = "hit",
        /// They were loaded.
        Miss = "miss",
        /// They could not be loaded.
        Error = "error",
    }

    /// Where something is under way.
    Stage("stage") {
        /// Events that are taken and not settled.
        Events = "events",
        /// Due deliveries that are taken and not settled.
        Deliveries = "deliveries",
        /// Deliveries that wait in lanes.
        Held = "held",
        /// Requests.
        Requests = "requests",
    }

    /// Where something is at rest.
    Queue("queue") {
        /// Events.
        Events = "events",
        /// Deliveries that are due.
        Deliveries = "deliveries",
        /// Deliveries that wait for their time.
        Wait = "wait",
        /// Deliveries that were given up.
        DeadLetters = "dead-letters",
        /// What was not understood.
        Quarantine = "quarantine",
    }

    /// A server that Carillon needs.
    Dependency("name") {
        /// RabbitMQ.
        RabbitMq = "rabbitmq",
        /// Redis.
        Redis = "redis",
    }
}

/// Has a set of the domain stand in a label.
macro_rules! stands_in {
    ($($set:ty as $label:literal by $name:ident;)+) => {$(
        impl Label for $set {
            const NAMES: &'static [&'static str] = &[$label];

            fn all() -> Vec<Self> {
                Self::ALL.to_vec()
            }

            fn place(self) -> usize {
                self as usize
            }

            fn values(self) -> Vec<&'static str> {
                vec![self.$name()]
            }
        }
    )+};
}

stands_in! {
    Account as "account" by name;
    DeferReason as "reason" by code;
    DisabledReason as "reason" by name;
    EgressRule as "reason" by code;
    Standing as "state" by name;
}

impl Queue {
    /// The queue of this name, without prefix.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|queue| queue.name() == name)
    }
}

impl Label for Reason {
    const NAMES: &'static [&'static str] = &["reason"];

    fn all() -> Vec<Self> {
        Self::all().collect()
    }

    fn place(self) -> usize {
        self.place()
    }

    fn values(self) -> Vec<&'static str> {
        vec![self.code()]
    }
}

impl Label for AttemptOutcome {
    const NAMES: &'static [&'static str] = &["outcome"];

    fn all() -> Vec<Self> {
        let failed = Reason::all().map(|reason| Self(Some(reason)));
        [Self(None)].into_iter().chain(failed).collect()
    }

    fn place(self) -> usize {
        self.0.map_or(0, |reason| 1 + reason.place())
    }

    fn values(self) -> Vec<&'static str> {
        vec![self.name()]
    }
}

impl AttemptOutcome {
    /// In one word.
    pub fn name(self) -> &'static str {
        self.0.map_or("delivered", Reason::code)
    }
}

impl Label for Ended {
    const NAMES: &'static [&'static str] = &["result", "reason"];

    fn all() -> Vec<Self> {
        let dead = DeadReason::ALL.map(Self::DeadLettered);
        [Self::Delivered].into_iter().chain(dead).collect()
    }

    fn place(self) -> usize {
        match self {
            Self::Delivered => 0,
            Self::DeadLettered(reason) => 1 + reason as usize,
        }
    }

    fn values(self) -> Vec<&'static str> {
        match self {
            Self::Delivered => vec!["delivered", "none"],
            Self::DeadLettered(reason) => vec!["dead_lettered", reason.code()],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Debug;

    use super::*;

    fn check<L: Label + PartialEq + Debug>() {
        let mut seen = HashSet::new();
        for (place, label) in L::all().into_iter().enumerate() {
            assert_eq!(label.place(), place, "{label:?}");
            assert_eq!(label.values().len(), L::NAMES.len(), "{label:?}");
            assert!(seen.insert(label.values()), "{label:?} is there twice");
        }
        assert!(!seen.is_empty());
    }

    #[test]
    fn each_value_has_its_place() {
        check::<EventResult>();
        check::<CacheResult>();
        check::<Stage>();
        check::<Queue>();
        check::<Dependency>();
        check::<Account>();
        check::<DeferReason>();
        check::<DisabledReason>();
        check::<EgressRule>();
        check::<Standing>();
        check::<Reason>();
        check::<AttemptOutcome>();
        check::<Ended>();
        assert_eq!(Queue::named("dead-letters"), Some(Queue::DeadLetters));
        assert_eq!(Queue::named("others"), None);
    }
}
