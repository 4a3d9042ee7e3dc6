//! The contract of the store ports: one suite, every implementation.
//!
//! The tests are generic over [`harness::Harness`], which makes an isolated backend, ends
//! it as a crash would, and lets time pass. An implementation runs all of them by one
//! `suite!` line. Nothing here knows what is behind the ports.

#[path = "contract/accounts.rs"]
mod accounts;
#[path = "contract/audit.rs"]
mod audit;
#[path = "contract/dead_letters.rs"]
mod dead_letters;
#[path = "contract/deliveries.rs"]
mod deliveries;
#[path = "contract/events.rs"]
mod events;
#[path = "contract/harness.rs"]
mod harness;
#[path = "contract/health.rs"]
mod health;
#[path = "contract/ledger.rs"]
mod ledger;
#[path = "contract/load.rs"]
mod load;
#[path = "contract/production.rs"]
mod production;
#[path = "contract/quarantine.rs"]
mod quarantine;
#[path = "support/services.rs"]
mod services;
#[path = "contract/sqlite.rs"]
mod sqlite;
#[path = "contract/subscriptions.rs"]
mod subscriptions;
#[path = "support/until.rs"]
mod until;

/// Runs every test on one harness. `$runtime` is the attribute of those that need no
/// real time: a paused clock where the backend is in the process.
macro_rules! suite {
    ($name:ident, $harness:ty, $($runtime:tt)*) => {
        suite! { @list $name, $harness, ($($runtime)*);
            events: order_is_kept_and_max_is_honoured, messages_come_as_they_went,
                what_is_out_does_not_come_again, a_dropped_receipt_requeues,
                unsettled_comes_again_after_a_crash_and_settled_does_not,
                an_orderly_end_loses_no_ack, a_call_that_is_given_up_loses_nothing,
                a_put_wakes_who_waits;
            deliveries: none_comes_before_its_time, a_rounded_time_holds, they_come_in_the_order_of_their_time,
                a_sooner_one_wakes_who_waits,
                a_retry_outlives_the_old_receipt, a_replaced_one_that_is_dropped_is_gone,
                a_dropped_receipt_requeues, many_of_one_time_come_once_each,
                one_put_into_the_past_comes, unsettled_comes_again_after_a_crash,
                a_crash_between_retry_and_ack_leaves_the_retry,
                a_call_that_is_given_up_loses_nothing,
                redeliveries_and_a_retry_are_beside_each_other,
                a_dead_letter_ends_its_own_series_alone;
            dead_letters: a_dead_letter_keeps_everything, every_filter_filters,
                an_owner_reaches_its_own,
                looking_changes_nothing, redriven_ones_are_due_and_new,
                redriving_honours_its_limit_oldest_first, many_are_redriven_once_each_and_spread,
                one_is_discarded_once, it_survives_a_crash,
                a_dead_letter_does_not_wait_any_more;
            quarantine: a_message_keeps_its_bytes_and_reason, it_can_be_requeued_once,
                those_that_match_are_requeued_oldest_first, it_survives_a_crash;
            subscriptions: a_change_is_visible_when_the_call_returns, versions_guard_changes,
                listeners_hear_of_both_scopes_in_time, scopes_and_pages_are_by_id,
                only_an_enabled_one_is_disabled, it_survives_a_crash,
                an_outage_is_an_error_and_never_empty, two_backends_do_not_see_each_other;
            ledger: what_is_recorded_is_settled, it_forgets_after_the_window,
                what_is_put_is_recorded_with_it, a_redelivery_settles_nothing_of_its_event,
                without_a_window_it_remembers_nothing,
                it_survives_a_crash, many_at_once_are_all_kept;
            health: the_first_failure_sticks, the_earlier_of_two_counts,
                a_success_later_forgets, a_success_from_before_does_not_forget,
                many_at_once_are_all_kept, it_survives_a_crash,
                a_deleted_subscription_is_forgotten, a_changed_subscription_is_not_forgotten,
                an_outage_is_an_error;
            accounts: what_is_said_again_changes_nothing, a_restart_goes_on_from_the_sums;
            audit: newest_first_with_a_cursor, every_filter_filters, an_owner_sees_its_own,
                the_ring_keeps_the_newest,
                old_ones_are_not_shown, a_long_body_is_cut, it_survives_an_orderly_end;
            load: nothing_is_lost_and_nothing_settled_twice, sizes_are_counted;
        }
    };
    (@list $name:ident, $harness:ty, $runtime:tt; $($area:ident: $($test:ident),+;)+) => {
        mod $name {
            $(mod $area { $(suite! { @test $area, $test, $harness, $runtime })+ })+
        }
    };
    (@test load, $test:ident, $harness:ty, $runtime:tt) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            crate::load::$test::<$harness>().await;
        }
    };
    (@test $area:ident, $test:ident, $harness:ty, ($($runtime:tt)*)) => {
        #[tokio::test($($runtime)*)]
        async fn $test() {
            crate::$area::$test::<$harness>().await;
        }
    };
}

suite!(on_sqlite, crate::sqlite::SqliteHarness, start_paused = true);
suite!(
    on_rabbitmq_and_redis,
    crate::production::ProductionHarness,
    flavor = "multi_thread",
    worker_threads = 2
);

// A file can replace a row, which is more than the ports ask for.
suite! { @list on_sqlite_alone, crate::sqlite::SqliteHarness, (start_paused = true);
    events: a_continuation_is_kept_once;
    deliveries: a_retry_replaces_its_predecessor;
    load: what_is_replaced_is_counted_once;
}
