//! The accounts of deliveries: sums over all processes, beyond restarts.

use carillon::domain::accounts::{Account, Sums};

use crate::harness::{Harness, Limits};

/// So many of each account, each another number.
fn counted(times: u64) -> Sums {
    Sums::new(|account| times * (1 + account as u64))
}

pub async fn what_is_said_again_changes_nothing<H: Harness>() {
    let backend = H::start(Limits::default()).await;
    let store = backend.store();
    for (said, sum) in [(0, 0), (1, 1), (1, 1), (5, 5), (5, 5)] {
        let sums = store.accounts.tell(counted(said)).await.unwrap();
        assert_eq!(sums, counted(sum));
    }
}

/// A process that begins again counts from zero.
pub async fn a_restart_goes_on_from_the_sums<H: Harness>() {
    let mut backend = H::start(Limits::default()).await;
    let large = 1 << 40;
    backend.store().accounts.tell(counted(large)).await.unwrap();
    backend.restart().await;
    let store = backend.store();
    assert_eq!(
        store.accounts.tell(counted(0)).await.unwrap(),
        counted(large)
    );
    let sums = store.accounts.tell(counted(2)).await.unwrap();
    assert_eq!(sums, counted(large + 2));
    backend.crash().await;
    let store = backend.store();
    let sums = store.accounts.tell(counted(1)).await.unwrap();
    assert_eq!(sums.of(Account::Begun), large + 3);
}
