//! Secrets are nowhere but where they belong: everything that a user does is done, by the real
//! program with its most verbose log, and what it left behind is searched.

mod debug;
mod run;
mod search;
mod steps;

use std::collections::BTreeMap;

use crate::store::Store;
use run::Run;
pub use run::{Canaries, files_below, with_unpacked};
pub use search::Needle;
use search::{FORMS, Found, Search};

/// A piece of what was left behind, and where.
pub struct Piece {
    pub place: String,
    pub bytes: Vec<u8>,
}

impl Piece {
    pub fn new(place: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            place: place.into(),
            bytes: bytes.into(),
        }
    }
}

/// What is found, by place.
fn search(pieces: &[Piece], search: &Search) -> BTreeMap<String, Found> {
    let mut all = BTreeMap::<String, Found>::new();
    for piece in pieces {
        let found = search.found(&piece.bytes);
        all.entry(piece.place.clone()).or_default().extend(found);
    }
    all
}

/// What is around a place in a piece.
fn excerpt(piece: &Piece, at: usize) -> String {
    const AROUND: usize = 100;
    let end = piece.bytes.len().min(at + AROUND);
    String::from_utf8_lossy(&piece.bytes[at.saturating_sub(AROUND)..end]).into_owned()
}

/// What has to be found, so that finding nothing means something: a place, and whose canary must
/// be there.
fn controls() -> Vec<(&'static str, &'static str)> {
    let mut all = vec![
        ("log", Canaries::EVENT),
        ("metrics", Canaries::METRIC),
        ("spans", Canaries::EVENT),
        ("answers", Canaries::HEADER),
        ("answers", Canaries::EVENT),
        ("attempts", Canaries::HEADER),
        ("attempts", Canaries::DATA),
        ("dead letters", Canaries::EVENT),
        ("quarantine", Canaries::PUT_ASIDE),
        ("command line", Canaries::EVENT),
    ];
    all.extend(Store::CONTROLS);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_found_in_what_a_full_run_leaves_behind() {
    let mut run = Run::begin(true).await;
    steps::all(&mut run).await;
    let left = run.end().await;

    let canaries = search(&left.pieces, &Search::new(&left.canaries));
    let nothing = Found::new();
    for (place, canary) in controls() {
        let found = canaries.get(place).unwrap_or(&nothing);
        let is_there = found.iter().any(|(name, _)| name == canary);
        assert!(is_there, "{canary} has to be found in {place}: {found:?}");
    }
    // In every form, where the event's text is kept.
    let kept = &canaries[Store::KEEPS_BODIES];
    for (form, ..) in FORMS {
        let looked_for = (Canaries::DATA.to_owned(), *form);
        assert!(kept.contains(&looked_for), "{form}: {kept:?}");
    }

    let secrets = Search::new(&left.needles);
    let mut leaks = BTreeMap::new();
    for piece in &left.pieces {
        for (name, form, at) in secrets.places(&piece.bytes) {
            let leak = format!("{name} in {} ({form})", piece.place);
            leaks.entry(leak).or_insert_with(|| excerpt(piece, at));
        }
    }
    let bytes: usize = left.pieces.iter().map(|piece| piece.bytes.len()).sum();
    let (needles, pieces) = (left.needles.len(), left.pieces.len());
    eprintln!("{needles} needles looked for in {pieces} pieces of {bytes} bytes");
    assert!(leaks.is_empty(), "{leaks:#?}");
}

/// What encryption is for: without keys the same search finds secrets in the store, and nowhere
/// else. When they are encrypted later, they are not there any more.
#[tokio::test(flavor = "multi_thread")]
async fn without_keys_secrets_are_in_the_store_and_nowhere_else() {
    let mut run = Run::begin(false).await;
    steps::subscribe(&mut run).await;
    steps::publish(&mut run, "first").await;
    run.stop().await;
    let stored = run.store.pieces().await;
    let first = run.keys[0].clone();
    run.set_keys(&[&first]);
    run.start().await;
    run.command_line(&["secrets", "rotate"]).await;
    let left = run.end().await;
    let secrets = Search::new(&left.needles);
    let before = search(&stored, &secrets);
    let is_signing = |(name, _): &(String, _)| name.starts_with("secret");
    for (place, found) in before {
        // What Redis was told stays in its files for a while.
        let is_store = place == "store" || place == "files of Redis";
        assert_eq!(!found.is_empty(), is_store, "{place}: {found:?}");
        assert!(found.iter().all(is_signing), "{place}: {found:?}");
    }
    for (place, found) in search(&left.pieces, &secrets) {
        let is_history = place == "files of Redis";
        assert!(is_history || found.is_empty(), "{place}: {found:?}");
    }
}
