//! Turns: who is next when there is not room for all.
//!
//! Tenants take turns, and the endpoints of each tenant among themselves. So what waits for
//! a tenant with a thousand endpoints waits behind one request of every other tenant, and
//! another's single endpoint behind one of its thousand.

use std::collections::{HashMap, VecDeque};

use crate::domain::id::SubscriptionId;
use crate::domain::subscription::Scope;

/// Endpoints that have work and may have room for it, in the order of their turns.
#[derive(Debug, Default)]
pub struct Turns {
    /// Tenants with endpoints below; each once.
    tenants: VecDeque<Scope>,
    endpoints: HashMap<Scope, VecDeque<SubscriptionId>>,
}

impl Turns {
    /// `endpoint` is the last of its tenant's; it must not be there already.
    pub fn push(&mut self, tenant: &Scope, endpoint: SubscriptionId) {
        if let Some(endpoints) = self.endpoints.get_mut(tenant) {
            endpoints.push_back(endpoint);
            return;
        }
        self.tenants.push_back(tenant.clone());
        let alone = VecDeque::from([endpoint]);
        self.endpoints.insert(tenant.clone(), alone);
    }

    /// The endpoint whose turn it is.
    pub fn pop(&mut self) -> Option<SubscriptionId> {
        let tenant = self.tenants.pop_front()?;
        let endpoints = self.endpoints.get_mut(&tenant)?;
        let next = endpoints.pop_front();
        if endpoints.is_empty() {
            self.endpoints.remove(&tenant);
        } else {
            self.tenants.push_back(tenant);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> SubscriptionId {
        SubscriptionId::parse(&format!("sub_{name}")).unwrap()
    }

    #[test]
    fn tenants_take_turns_and_so_do_their_endpoints() {
        let (many, one) = (Scope::parse("many").unwrap(), Scope::parse("one").unwrap());
        let mut turns = Turns::default();
        for name in ["a", "b", "c"] {
            turns.push(&many, id(name));
        }
        turns.push(&one, id("x"));
        let mut order = Vec::new();
        while let Some(next) = turns.pop() {
            // The endpoint of the one tenant always has more.
            if next == id("x") && order.len() < 4 {
                turns.push(&one, next.clone());
            }
            order.push(next);
        }
        assert_eq!(order, ["a", "x", "b", "x", "c", "x"].map(id));
        assert!(turns.pop().is_none() && turns.endpoints.is_empty());
    }
}
