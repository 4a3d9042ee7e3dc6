//! A SQLite file, to be searched.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::dispatcher::leaks::{Canaries, Needle, Piece, files_below, with_unpacked};
use crate::process::Variables;

/// Where the program keeps everything.
pub struct Store(TempDir);

impl Store {
    /// What must be found in it, as the search is to be trusted.
    pub const CONTROLS: &[(&str, &str)] = &[
        ("store", Canaries::HEADER),
        ("store", Canaries::DATA),
        ("store", Canaries::PUT_ASIDE),
        ("store, unpacked", Canaries::DATA),
        ("store, unpacked", Canaries::HEADER),
    ];
    /// The place with bodies as they were published.
    pub const KEEPS_BODIES: &str = "store";

    pub async fn start() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn variables(&self) -> Variables {
        let path = self.0.path().join("carillon.db");
        vec![("CARILLON_EMBEDDED__PATH", path.display().to_string())]
    }

    /// Its own secrets: a file has none.
    pub fn needles(&self) -> Vec<Needle> {
        Vec::new()
    }

    /// Nobody is told of anything.
    pub async fn listen(&mut self) {}

    /// The bytes of its files, and each value of each table.
    pub async fn pieces(&mut self) -> Vec<Piece> {
        let mut pieces = files_below(self.0.path(), "store");
        let path = self.0.path().join("carillon.db");
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let file = Connection::open_with_flags(path, flags).unwrap();
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table'";
        let mut tables = file.prepare(tables).unwrap();
        let tables = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
        for table in tables.map(Result::unwrap) {
            let mut all = file.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns = all.column_count();
            let mut rows = all.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                for column in 0..columns {
                    if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) =
                        row.get_ref_unwrap(column)
                    {
                        pieces.extend(with_unpacked("store", bytes.to_vec()));
                    }
                }
            }
        }
        pieces
    }
}
