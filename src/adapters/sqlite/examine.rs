//! Looks at a file of the embedded backend and leaves it as it is, for `carillon doctor`: it may
//! be in use meanwhile.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use url::Url;

use super::{OpenError, readers, schema};
use crate::codec::subscription::Survey;
use crate::codec::vault::Vault;

/// What is in the file.
#[derive(Clone, Debug)]
pub struct Examined {
    /// The version of its tables; `None` when it has none yet.
    pub version: Option<i32>,
    /// The version that this program writes.
    pub known: i32,
    /// What was seen of the subscriptions.
    pub survey: Survey,
}

/// Reads the file at `path`.
///
/// # Errors
/// [`OpenError`].
pub fn examine(path: &Path, vault: &Vault) -> Result<Examined, OpenError> {
    let conn = connect(path)?;
    let version = schema::version_of(&conn)?;
    let mut survey = Survey::default();
    if version.is_some() {
        let mut query = conn.prepare("SELECT record FROM subscriptions ORDER BY id")?;
        let mut rows = query.query(())?;
        while let Some(row) = rows.next()? {
            survey.add(&row.get::<_, Vec<u8>>(0)?, vault);
        }
    }
    Ok(Examined {
        version,
        known: schema::VERSION,
        survey,
    })
}

/// A connection that reads. Without a write-ahead log nobody has the file open: then SQLite is
/// told that it does not change, or it would make a log beside it.
fn connect(path: &Path) -> Result<Connection, OpenError> {
    let absolute = std::path::absolute(path).map_err(|error| OpenError::File {
        path: path.to_owned(),
        error,
    })?;
    let mut log = absolute.as_os_str().to_owned();
    log.push("-wal");
    let url = Url::from_file_path(&absolute).ok();
    match url.filter(|_| !Path::new(&log).exists()) {
        Some(mut url) => {
            url.set_query(Some("immutable=1"));
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
                | OpenFlags::SQLITE_OPEN_NO_MUTEX
                | OpenFlags::SQLITE_OPEN_URI;
            Ok(Connection::open_with_flags(url.as_str(), flags)?)
        }
        None => Ok(readers::connect(&absolute)?),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn looking_touches_nothing_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine #1?.db");
        super::super::private_file(&path).unwrap();
        let conn = super::super::writing_connection(&path).unwrap();
        schema::prepare(&conn).unwrap();
        super::super::enter_wal(&conn).unwrap();
        drop(conn);
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        File::open(folder.path())
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        let examined = examine(&path, &Vault::default()).unwrap();
        assert_eq!(examined.version, Some(examined.known));
        assert_eq!(examined.survey, Survey::default());
        // Whatever is made in it, and be it for a moment, changes when it was changed.
        let now = folder.path().metadata().unwrap().modified().unwrap();
        assert_eq!(now, long_ago);
    }
}
