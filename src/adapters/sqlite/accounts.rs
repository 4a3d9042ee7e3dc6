//! [`Accounts`]: a row per account among those of `meta`. One process has the file, so it adds to
//! what it found there.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::writer::Tx;
use super::{Sqlite, locked};
use crate::domain::accounts::{Account, Sums};
use crate::ports::{Accounts, StoreError};

/// What was found when the file was opened, and what was told since.
#[derive(Clone, Copy)]
pub(super) struct Books {
    found: Sums,
    told: Sums,
}

impl Books {
    /// Reads what is there, before anything is put.
    pub(super) fn open(conn: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            found: read(conn)?,
            told: Sums::default(),
        })
    }
}

#[async_trait]
impl Accounts for Sqlite {
    /// Writes only what is new: an idle process leaves the disk alone.
    async fn tell(&self, own: Sums) -> Result<Sums, StoreError> {
        let Books { found, told } = *locked(&self.books);
        let all = found.plus(&own);
        if told == own {
            return Ok(all);
        }
        let write = move |tx: &mut Tx<'_>| {
            let mut put = tx
                .conn
                .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)")?;
            for account in Account::ALL {
                let sum = all.of(account).cast_signed();
                put.execute(params![name(account), sum])?;
            }
            Ok(Ok(()))
        };
        self.queue.write(write).await?;
        locked(&self.books).told = own;
        Ok(all)
    }
}

fn name(account: Account) -> String {
    format!("deliveries_{}", account.name())
}

/// What is there. Deliveries of a file that kept no accounts yet have begun.
fn read(conn: &Connection) -> rusqlite::Result<Sums> {
    let mut query = conn.prepare_cached("SELECT value FROM meta WHERE name = ?")?;
    let mut of = [None; Account::ALL.len()];
    for account in Account::ALL {
        let row = query.query_row([name(account)], |row| row.get::<_, i64>(0));
        of[account as usize] = row.optional()?.map(i64::cast_unsigned);
    }
    if of[Account::Begun as usize].is_none() {
        let sql = "SELECT COUNT(*) FROM deliveries";
        let waiting = conn.query_row(sql, (), |row| row.get::<_, i64>(0))?;
        of[Account::Begun as usize] = Some(waiting.cast_unsigned());
    }
    Ok(Sums::new(|account| {
        of[account as usize].unwrap_or_default()
    }))
}
