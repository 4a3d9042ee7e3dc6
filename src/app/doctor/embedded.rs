//! The embedded store: its folder, its file, and the room there is.

use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Findings;
use crate::adapters::sqlite::examine::{Examined, examine};
use crate::app::backends::vault;
use crate::cli::doctor::Check;
use crate::codec::subscription::Survey;
use crate::config::Config;

/// Less room than this may be used up within a day.
const FREE_BYTES_ADVISED: u64 = 1 << 30;
/// Less than this is none: the write-ahead log alone may grow to 128 MiB.
const FREE_BYTES_MIN: u64 = 128 << 20;
const OTHERS: u32 = 0o077;

/// Looks at the file and where it is; says what was seen of the subscriptions.
pub(super) async fn look(config: &Config, found: &Findings<'_>) -> Option<Survey> {
    let (path, vault) = (config.embedded.path.clone(), vault(config));
    let folder = folder_of(&path);
    let in_folder = found.aside("folder", move || (writable(&folder), free(&folder)));
    if let Some((writable, free)) = in_folder.await {
        found.add(writable);
        found.extend(free);
    }
    let of_file = path.clone();
    let file = found.aside("file", move || match std::fs::metadata(&of_file) {
        Ok(file) => (true, rights(&of_file, &file)),
        Err(_) => {
            let detail = format!(
                "{} is not there yet: `carillon serve` makes it",
                of_file.display()
            );
            (false, Check::ok("file", detail))
        }
    });
    let (is_there, file) = file.await?;
    found.add(file);
    if !is_there {
        return None;
    }
    let examined = found
        .aside("tables", move || examine(&path, &vault))
        .await?;
    found.add(tables(&examined));
    examined.ok().map(|examined| examined.survey)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A file without a name is made in it, of which nothing stays.
fn writable(folder: &Path) -> Check {
    let (name, shown) = ("folder", folder.display());
    match tempfile::tempfile_in(folder) {
        Ok(_) => Check::ok(name, format!("{shown} can be written")),
        Err(error) => Check::failed(
            name,
            format!("{shown} cannot be written: {error}"),
            "make it, and have the user that runs Carillon own it; or set another `embedded.path`",
        ),
    }
}

fn free(folder: &Path) -> Option<Check> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(room(found.f_bavail.saturating_mul(found.f_frsize)))
}

fn room(bytes: u64) -> Check {
    let name = "disk";
    let detail = format!("{} MiB are free", bytes >> 20);
    let advice = "make room, or move the file: what waits to be delivered and the audit log are \
                  kept in it; `audit.keep` and `audit.per_subscription` say how much of the latter";
    match bytes {
        ..FREE_BYTES_MIN => Check::failed(name, detail, advice),
        FREE_BYTES_MIN..FREE_BYTES_ADVISED => Check::warning(name, detail, advice),
        _ => Check::ok(name, detail),
    }
}

/// Who may read and write the file.
fn rights(path: &Path, file: &Metadata) -> Check {
    let (name, shown) = ("file", path.display());
    // As Carillon does, but that nothing is made and nothing is written.
    let opened: std::io::Result<File> = OpenOptions::new().read(true).write(true).open(path);
    if let Err(error) = opened {
        let detail = format!("{shown} cannot be read and written: {error}");
        let advice =
            "have the user that runs Carillon own it, and run `carillon doctor` as that user";
        return Check::failed(name, detail, advice);
    }
    let mode = file.mode() & 0o777;
    if mode & OTHERS != 0 {
        let detail =
            format!("{shown} has the mode {mode:04o}: others may read signing secrets in it");
        return Check::warning(name, detail, format!("chmod 600 {shown}*"));
    }
    Check::ok(name, format!("{shown} is its owner's alone"))
}

fn tables(examined: &Result<Examined, crate::adapters::sqlite::OpenError>) -> Check {
    let name = "tables";
    match examined {
        Ok(Examined { version: None, .. }) => {
            Check::ok(name, "the file is empty: `carillon serve` makes them")
        }
        Ok(Examined {
            version: Some(version),
            known,
            ..
        }) => match version == known {
            true => Check::ok(name, format!("version {version}")),
            false => Check::ok(
                name,
                format!("version {version}: `carillon serve` brings them to {known}"),
            ),
        },
        Err(error) => Check::failed(
            name,
            error.to_string(),
            "name the file of this installation in `embedded.path`; a damaged one is replaced by a \
             backup",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    #[test]
    fn little_room_is_told_in_time() {
        for (mib, expected) in [
            (10, Verdict::Failed),
            (500, Verdict::Warning),
            (1024, Verdict::Ok),
        ] {
            assert_eq!(room(mib << 20).verdict, expected, "{mib}");
        }
    }

    #[test]
    fn a_file_without_a_folder_is_here() {
        let folder = |path: &str| folder_of(Path::new(path));
        assert_eq!(folder("carillon.db"), Path::new("."));
        assert_eq!(folder("data/carillon.db"), Path::new("data"));
        assert_eq!(folder("/carillon.db"), Path::new("/"));
    }
}
