//! Keys of rows, which only grow while the process runs.

use rusqlite::Connection;

/// Keys of rows, which only grow while the process runs.
pub(super) struct Numbers {
    event: i64,
    delivery: i64,
    dead_letter: i64,
    attempt: i64,
}

impl Numbers {
    pub(super) fn after_what_is_in(conn: &Connection) -> rusqlite::Result<Self> {
        let last = |sql: &str| conn.query_row(sql, (), |row| row.get::<_, i64>(0));
        Ok(Self {
            event: last("SELECT COALESCE(MAX(id), 0) FROM events")?,
            delivery: last("SELECT COALESCE(MAX(seq), 0) FROM deliveries")?,
            dead_letter: last("SELECT COALESCE(MAX(seq), 0) FROM dead_letters")?,
            attempt: last("SELECT COALESCE(MAX(position), 0) FROM attempts")?,
        })
    }

    pub(super) fn next_event(&mut self) -> i64 {
        self.event += 1;
        self.event
    }

    pub(super) fn next_delivery(&mut self) -> i64 {
        self.delivery += 1;
        self.delivery
    }

    pub(super) fn next_dead_letter(&mut self) -> i64 {
        self.dead_letter += 1;
        self.dead_letter
    }

    pub(super) fn last_dead_letter(&self) -> i64 {
        self.dead_letter
    }

    pub(super) fn next_attempt(&mut self) -> i64 {
        self.attempt += 1;
        self.attempt
    }
}
