//! What only the embedded backend promises: its file, its lock, its writer in trouble.

mod attempts;

use std::path::Path;
use std::sync::atomic::Ordering;

use super::*;
use crate::codec::vault::Vault;
use crate::domain::attempt::Attempt;
use crate::domain::attempt::tests::plain;
use crate::domain::id::{LedgerKey, SubscriptionId};
use crate::domain::timestamp::UnixMillis;
use crate::ports::{
    AuditLog as _, EndpointHealth as _, EventMessage, Inbox as _, Ledger as _, Outbox as _, Parcel,
};

struct At(i64);

impl Clock for At {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0)
    }
}

fn settings(path: &Path, now_ms: i64) -> SqliteSettings {
    SqliteSettings {
        vault: Vault::default(),
        path: path.to_owned(),
        dedup_window: Duration::from_millis(10),
        audit_keep: Duration::from_secs(10),
        audit_per_subscription: 10,
        audit_body_bytes: 100,
        audit_dropped: Arc::default(),
        telemetry: crate::telemetry::Telemetry::new().unwrap(),
        clock: Arc::new(At(now_ms)),
    }
}

fn open(path: &Path) -> Arc<Sqlite> {
    Sqlite::open(settings(path, 1000)).unwrap()
}

fn fault(path: &Path) -> String {
    match Sqlite::open(settings(path, 1000)) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    }
}

fn event(body: &'static [u8]) -> Parcel {
    Parcel::Event(EventMessage {
        body: bytes::Bytes::from_static(body),
        ..EventMessage::default()
    })
}

fn key(n: u8) -> LedgerKey {
    LedgerKey([n; 16])
}

fn subscription() -> SubscriptionId {
    SubscriptionId::parse("sub_1").unwrap()
}

#[tokio::test]
async fn one_process_has_the_file_and_gives_it_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.db");
    let first = open(&path);
    assert!(fault(&path).contains("another Carillon process uses"));
    drop(first);
    drop(open(&path));
    open(&path).crash();
    drop(open(&path));
}

#[tokio::test]
async fn what_is_no_file_of_ours_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(
        path("text"),
        "Dear diary, this is not a database. ".repeat(50),
    )
    .unwrap();
    assert!(fault(&path("text")).contains("no Carillon database"));
    let foreign = Connection::open(path("foreign")).unwrap();
    foreign.execute_batch("CREATE TABLE t (a)").unwrap();
    drop(foreign);
    let before = std::fs::read(path("foreign")).unwrap();
    assert!(fault(&path("foreign")).contains("no Carillon database"));
    assert_eq!(std::fs::read(path("foreign")).unwrap(), before);
    drop(open(&path("newer")));
    let newer = Connection::open(path("newer")).unwrap();
    newer.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(newer);
    assert!(fault(&path("newer")).contains("newer Carillon (format 99"));
    assert!(fault(&path("no/such/directory")).contains("must exist"));
}

/// All tables and indexes of a file, and its version.
fn schema_of(path: &Path) -> (Vec<String>, i32) {
    let conn = Connection::open(path).unwrap();
    let mut query = conn
        .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
        .unwrap();
    let found = query.query_map((), |row| row.get(0)).unwrap();
    let version = conn.query_row("PRAGMA user_version", (), |row| row.get(0));
    (found.map(Result::unwrap).collect(), version.unwrap())
}

#[tokio::test]
async fn a_file_of_version_1_is_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    let conn = Connection::open(&old).unwrap();
    conn.execute_batch(include_str!("tests/version_1.sql"))
        .unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode = WAL;
         INSERT INTO events (id, body) VALUES (7, x'31');
         INSERT INTO ledger VALUES (zeroblob(16), 2000, 'sub_1');
         INSERT INTO subscriptions VALUES ('sub_1', 'acme', 1, x'');",
    )
    .unwrap();
    drop(conn);
    // The second time there is nothing to do.
    for since in [500, 400] {
        let sqlite = open(&old);
        assert_eq!(sqlite.events(2).await.unwrap()[0].message.body, "1");
        assert_eq!(
            sqlite.settled(&[key(0)]).await.unwrap()[0],
            [subscription()]
        );
        let since = UnixMillis(since);
        assert_eq!(sqlite.failed(&subscription(), since).await.unwrap(), since);
        let failing = sqlite.failing().await.unwrap();
        assert_eq!(failing, [(subscription(), since)]);
    }
    drop(open(&new));
    assert_eq!(schema_of(&old), schema_of(&new));
}

/// What was for a subscription of every tenant, or nobody knows any more for whom, is not shown to
/// the event's tenant.
#[tokio::test]
async fn of_what_was_kept_before_a_tenant_sees_what_is_surely_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(include_str!("tests/version_1.sql"))
        .unwrap();
    let mut script = "PRAGMA journal_mode = WAL;
         INSERT INTO subscriptions VALUES ('sub_1', 'acme', 1, x'');
         INSERT INTO subscriptions VALUES ('sub_2', '*', 1, x'');
         INSERT INTO subscriptions VALUES ('sub_3', 'bell', 1, x'');"
        .to_owned();
    // Of the fourth the subscription was deleted.
    for n in 1..=4 {
        script.push_str(&format!(
            "INSERT INTO dead_letters VALUES ({n}, 'msg_{n}', 'acme', 'sub_{n}', 'gone', {n}, x'');
             INSERT INTO attempts VALUES ({n}, 'sub_{n}', 1, 'acme', 'e', 'msg_{n}', 1, {n}, x'');"
        ));
    }
    conn.execute_batch(&script).unwrap();
    drop(conn);
    drop(open(&path));
    let conn = Connection::open(&path).unwrap();
    for table in ["dead_letters", "attempts"] {
        let sql =
            format!("SELECT subscription_id FROM {table} WHERE tenant = 'acme' AND shared = 0");
        let mut query = conn.prepare(&sql).unwrap();
        let own = query.query_map((), |row| row.get::<_, String>(0)).unwrap();
        let own: Vec<_> = own.map(Result::unwrap).collect();
        assert_eq!(own, ["sub_1"], "{table}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_brought_up_to_date_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(include_str!("tests/version_1.sql"))
        .unwrap();
    conn.execute_batch("CREATE TABLE failing (in_the_way)")
        .unwrap();
    drop(conn);
    let before = schema_of(&path);
    assert!(fault(&path).contains("failing"));
    assert_eq!(schema_of(&path), before);
    assert_eq!(before.1, 1);
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let sqlite = open(&directory.path().join("c.db"));
    sqlite.put(vec![event(b"1")]).await.unwrap();
    let mut files = 0;
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", file.file_name());
        files += 1;
    }
    assert_eq!(files, 4, "database, log, index of the log, lock");
}

#[tokio::test]
async fn dropping_makes_durable_what_was_accepted_and_leaves_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.db");
    let sqlite = open(&path);
    sqlite.put(vec![event(b"1"), event(b"2")]).await.unwrap();
    for taken in sqlite.events(2).await.unwrap() {
        taken.receipt.ack();
    }
    drop(sqlite);
    let conn = Connection::open(&path).unwrap();
    let left: i64 = conn
        .query_row("SELECT COUNT(*) FROM events", (), |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
    let sqlite = open(&path);
    assert_eq!(sqlite.queue_sizes().await.unwrap()[0], ("events", 0));
}

/// What cannot be written takes nothing else with it, even within one commit.
#[tokio::test]
async fn a_fault_fails_alone() {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = open(&directory.path().join("c.db"));
    let work = (0..20).map(|n| {
        let run = move |tx: &mut writer::Tx<'_>| match n {
            7 => tx.conn.execute_batch("SELECT * FROM nowhere").map(Ok),
            13 => panic!("a bug, as this test wants it"),
            _ => outbox::insert_event(tx, &EventMessage::default()).map(Ok),
        };
        let written = sqlite.queue.write(run);
        async { written.await.is_ok() }
    });
    let done = futures_util::future::join_all(work).await;
    let failed: Vec<usize> = (0..20).filter(|n| !done[*n]).collect();
    assert_eq!(failed, [7, 13]);
    assert_eq!(sqlite.queue_sizes().await.unwrap()[0], ("events", 18));
    assert_eq!(sqlite.events(100).await.unwrap().len(), 18);
    sqlite.put(vec![event(b"1")]).await.unwrap();
    sqlite.ready().await.unwrap();
}

/// A full disk: callers hear of it, acknowledgements wait, and all goes on afterwards.
#[tokio::test]
async fn a_full_disk_loses_no_ack() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.db");
    let sqlite = open(&path);
    sqlite.put(vec![event(b"1"), event(b"2")]).await.unwrap();
    let mut taken = sqlite.events(2).await.unwrap();
    let limit_pages = |pages: u32| {
        let sqlite = Arc::clone(&sqlite);
        async move {
            let sql = format!("PRAGMA max_page_count = {pages}");
            let set = move |tx: &mut writer::Tx<'_>| tx.conn.execute_batch(&sql).map(Ok);
            sqlite.queue.write(set).await.unwrap();
        }
    };
    limit_pages(1).await;
    let large = EventMessage {
        body: vec![0; 1 << 20].into(),
        ..EventMessage::default()
    };
    let put = |message: &EventMessage| {
        let (sqlite, message) = (Arc::clone(&sqlite), message.clone());
        async move { sqlite.put(vec![Parcel::Event(message)]).await }
    };
    // The acknowledgement is in the same commit as the put, or in one of its own.
    taken.remove(0).receipt.ack();
    let refused = put(&large).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert!(sqlite.ready().await.is_err());
    limit_pages(1_000_000).await;
    put(&large).await.unwrap();
    sqlite.flush().await;
    sqlite.ready().await.unwrap();
    assert_eq!(sqlite.queue_sizes().await.unwrap()[0], ("events", 2));
}

#[tokio::test]
async fn what_expired_is_deleted_in_steps() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.db");
    let sqlite = open(&path);
    let records = (0..200).map(|n| sqlite.record(vec![(key(n), subscription())]));
    for recorded in futures_util::future::join_all(records).await {
        recorded.unwrap();
    }
    let count = |sqlite: &Arc<Sqlite>| {
        let sqlite = Arc::clone(sqlite);
        async move {
            let look = |conn: &Connection| {
                conn.query_row("SELECT COUNT(*) FROM ledger", (), |row| {
                    row.get::<_, i64>(0)
                })
            };
            sqlite.readers.read(look).await.unwrap()
        }
    };
    assert_eq!(count(&sqlite).await, 200);
    drop(sqlite);
    let later = Sqlite::open(settings(&path, 1010)).unwrap();
    // The first look for what expired follows the first commit.
    later.flush().await;
    later.flush().await;
    assert_eq!(count(&later).await, 0);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory.path().join("c.db"), 1000);
    let dropped = Arc::clone(&settings.audit_dropped);
    let sqlite = Sqlite::open(settings).unwrap();
    let waiting = tokio::spawn({
        let sqlite = Arc::clone(&sqlite);
        async move { sqlite.events(1).await.is_err() }
    });
    tokio::task::yield_now().await;
    sqlite.crash();
    assert!(waiting.await.unwrap(), "who waits is told");
    sqlite.append(attempt(1).into());
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    let put = sqlite.put(vec![event(b"1")]).await;
    assert!(matches!(put, Err(StoreError::Unavailable(_))));
    assert!(sqlite.deliveries(1).await.is_err());
    assert!(sqlite.ready().await.is_err());
}

/// An attempt whose body cannot be compressed.
pub(super) fn attempt(body_bytes: usize) -> Attempt {
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    });
    let mut attempt = plain();
    attempt.request.body = noise.take(body_bytes).collect();
    attempt
}
