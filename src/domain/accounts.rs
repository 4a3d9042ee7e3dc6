//! The books of deliveries: how many began, and how they ended.
//!
//! What began and has not ended waits somewhere. Counted over all processes and restarts, and
//! held against what is in the queues, that tells of deliveries that got lost.

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Deliveries that came into being: from an event, a redelivery or a redrive. Each counts
    /// when what first becomes of it is durable.
    Begun,
    /// Those that their endpoints acknowledged.
    Delivered,
    /// Those that were given up.
    DeadLettered,
    /// Those that came back damaged, and are in quarantine.
    Quarantined,
}

/// How much is in each account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums([u64; 4]);

impl Account {
    /// Every account.
    pub const ALL: [Self; 4] = [
        Self::Begun,
        Self::Delivered,
        Self::DeadLettered,
        Self::Quarantined,
    ];

    /// Its name, in metrics and in stores.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Delivered => "delivered",
            Self::DeadLettered => "dead_lettered",
            Self::Quarantined => "quarantined",
        }
    }
}

impl Sums {
    /// From what `of` says of each account.
    pub fn new(of: impl Fn(Account) -> u64) -> Self {
        Self(Account::ALL.map(of))
    }

    /// How much is in `account`.
    pub fn of(&self, account: Account) -> u64 {
        self.0[account as usize]
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self::new(|account| self.of(account).saturating_add(other.of(account)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_account_has_its_place() {
        let sums = Sums::new(|account| account.name().len() as u64);
        for account in Account::ALL {
            assert_eq!(sums.of(account), account.name().len() as u64);
            assert_eq!(sums.plus(&sums).of(account), 2 * sums.of(account));
        }
    }
}
