//! Attempts that cannot be written, or slowly: nothing else is lost with them or waits for them.

use super::*;
use crate::ports::AttemptQuery;

const REFUSE: &str = "CREATE TRIGGER fault BEFORE INSERT ON attempts
    BEGIN SELECT RAISE(ABORT, 'no attempts today'); END";
/// Some milliseconds each.
const SLOW: &str = "CREATE TRIGGER fault BEFORE INSERT ON attempts BEGIN
    SELECT (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000)
            SELECT COUNT(*) FROM n); END";
const WELL: &str = "DROP TRIGGER fault";

/// A store, and who interferes with its file.
struct Scene {
    _directory: tempfile::TempDir,
    sqlite: Arc<Sqlite>,
    dropped: Arc<AtomicU64>,
    outside: Connection,
}

impl Scene {
    fn new(per_subscription: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.db");
        let settings = SqliteSettings {
            audit_per_subscription: per_subscription,
            audit_body_bytes: 1 << 20,
            ..settings(&path, 1000)
        };
        let dropped = Arc::clone(&settings.audit_dropped);
        Self {
            sqlite: Sqlite::open(settings).unwrap(),
            outside: Connection::open(&path).unwrap(),
            dropped,
            _directory: directory,
        }
    }

    fn append(&self, count: usize, body_bytes: usize) {
        let attempt = Arc::new(attempt(body_bytes));
        for _ in 0..count {
            self.sqlite.append(Arc::clone(&attempt));
        }
    }

    /// How many are in the log.
    async fn kept(&self) -> usize {
        let query = AttemptQuery {
            limit: 10_000,
            ..AttemptQuery::default()
        };
        self.sqlite.attempts(&query).await.unwrap().len()
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    async fn events(&self) -> u64 {
        self.sqlite.queue_sizes().await.unwrap()[0].1
    }
}

#[tokio::test]
async fn attempts_that_are_refused_take_nothing_with_them() {
    let scene = Scene::new(42);
    let sqlite = &scene.sqlite;
    scene.append(40, 1);
    sqlite.flush().await;
    scene.outside.execute_batch(REFUSE).unwrap();
    for n in 0..20 {
        scene.append(5, 1);
        sqlite.put(vec![event(b"1")]).await.unwrap();
        sqlite.record(vec![(key(n), subscription())]).await.unwrap();
        sqlite.ready().await.unwrap();
    }
    for message in sqlite.events(20).await.unwrap() {
        message.receipt.ack();
    }
    sqlite.flush().await;
    assert_eq!((scene.events().await, scene.dropped()), (0, 100));
    let keys: Vec<_> = (0..20).map(key).collect();
    let settled = sqlite.settled(&keys).await.unwrap();
    assert!(settled.iter().all(|served| served.len() == 1));

    scene.outside.execute_batch(WELL).unwrap();
    scene.append(3, 1);
    sqlite.flush().await;
    assert_eq!(scene.kept().await, 42, "a ring keeps what it had");
    assert_eq!(scene.dropped(), 100);
}

/// What is acknowledged leaves room, but for attempts that come with it and find none.
#[tokio::test]
async fn attempts_that_find_no_room_hold_up_no_acknowledgement() {
    let scene = Scene::new(100);
    let sqlite = &scene.sqlite;
    sqlite.put(vec![event(b"1"), event(b"2")]).await.unwrap();
    let limit = |pages: u32| {
        let sql = format!("PRAGMA max_page_count = {pages}");
        let set = move |tx: &mut writer::Tx<'_>| tx.conn.execute_batch(&sql).map(Ok);
        sqlite.queue.write(set)
    };
    // As many as there are.
    limit(1).await.unwrap();
    scene.append(50, 64 * 1024);
    for message in sqlite.events(2).await.unwrap() {
        message.receipt.ack();
    }
    sqlite.flush().await;
    assert_eq!((scene.events().await, scene.kept().await), (0, 0));
    sqlite.ready().await.unwrap();
    limit(1_000_000).await.unwrap();
    sqlite.flush().await;
    assert_eq!((scene.kept().await, scene.dropped()), (50, 0));
}

/// Attempts that find no room keep the writer busy, and not from noticing that the rest works.
#[tokio::test]
async fn attempts_that_find_no_room_hide_no_recovery() {
    let scene = Scene::new(100);
    let sqlite = &scene.sqlite;
    let limit = |tx: &mut writer::Tx<'_>| {
        let limited = tx.conn.execute_batch("PRAGMA max_page_count = 1");
        limited.map(Ok)
    };
    sqlite.queue.write(limit).await.unwrap();
    scene.append(50, 64 * 1024);
    static LARGE: [u8; 1 << 20] = [b'x'; 1 << 20];
    sqlite.put(vec![event(&LARGE)]).await.unwrap_err();
    sqlite.ready().await.unwrap_err();
    // A row that is there already can be written.
    let recovered = async {
        while sqlite.ready().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let recovered = tokio::time::timeout(Duration::from_secs(60), recovered);
    recovered.await.unwrap();
    assert_eq!(scene.kept().await, 0);
}

#[tokio::test]
async fn slow_attempts_hold_nothing_up() {
    let scene = Scene::new(10_000);
    let sqlite = &scene.sqlite;
    scene.outside.execute_batch(SLOW).unwrap();
    scene.append(4000, 1);
    for _ in 0..10 {
        sqlite.put(vec![event(b"1")]).await.unwrap();
    }
    // All of them take longer than anything else here.
    let kept = scene.kept().await;
    assert!(kept < 4000, "{kept} attempts were written meanwhile");
    scene.outside.execute_batch(WELL).unwrap();
    sqlite.flush().await;
    assert_eq!((scene.kept().await, scene.dropped()), (4000, 0));
}
