//! Keeps the house tidy: reads the sources and checks the rules that ARCHITECTURE.md states.
//!
//! Each failure says which rule, where, and how to mend it.

use std::fs;
use std::path::{Path, PathBuf};

/// Who may use whom: a module, and the modules of the crate that it may name.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &["domain"]),
    ("codec", &["codec", "domain", "ports"]),
    ("ports", &["ports", "domain"]),
    ("config", &["config", "domain", "codec"]),
    ("telemetry", &["telemetry", "domain"]),
    (
        "pipeline",
        &["pipeline", "domain", "codec", "ports", "telemetry"],
    ),
    (
        "adapters/https",
        &[
            "adapters/https",
            "domain",
            "codec",
            "ports",
            "config",
            "telemetry",
        ],
    ),
    (
        "adapters/sqlite",
        &[
            "adapters/sqlite",
            "domain",
            "codec",
            "ports",
            "config",
            "telemetry",
        ],
    ),
    (
        "adapters/rabbitmq",
        &[
            "adapters/rabbitmq",
            "domain",
            "codec",
            "ports",
            "config",
            "telemetry",
        ],
    ),
    (
        "adapters/redis",
        &[
            "adapters/redis",
            "domain",
            "codec",
            "ports",
            "config",
            "telemetry",
        ],
    ),
    ("adapters/system", &["adapters/system", "domain", "ports"]),
    (
        "api",
        &["api", "domain", "codec", "ports", "config", "telemetry"],
    ),
    (
        "cli",
        &["cli", "domain", "codec", "ports", "config", "telemetry"],
    ),
];
/// A file past this many lines wants a reason.
const LINES_MAX: usize = 500;
/// Files that have one: path, and why.
const LONG_FILES: &[(&str, &str)] = &[];
/// What `domain` must not name: time, chance and I/O come in as values.
const IMPURE: &[&str] = &[
    "SystemTime::now",
    "Instant::now",
    "OffsetDateTime::now",
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "std::thread",
    "getrandom",
    "fastrand",
    "async fn",
];

struct Source {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<Source> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    collect(&root().join(folder), &mut paths);
    assert!(!paths.is_empty(), "no sources in {folder}");
    let read = |path: PathBuf| Source {
        path: path.strip_prefix(root()).unwrap().display().to_string(),
        text: fs::read_to_string(&path).unwrap(),
    };
    paths.into_iter().map(read).collect()
}

/// The part of a file before its unit tests, without comments.
fn code(source: &Source) -> String {
    let end = source.text.find("#[cfg(test)]\nmod tests {");
    let text = &source.text[..end.unwrap_or(source.text.len())];
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The layer that `path` is in: the longest that fits.
fn layer_of(path: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    let inside = path.strip_prefix("src/")?;
    let fits =
        |layer: &str| inside == format!("{layer}.rs") || inside.starts_with(&format!("{layer}/"));
    LAYERS
        .iter()
        .filter(|(layer, _)| fits(layer))
        .max_by_key(|(layer, _)| layer.len())
}

/// The modules of the crate that `code` names: `crate::a` and, for adapters, `crate::adapters::b`.
fn named_modules(code: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    code.match_indices("crate::")
        .map(|(at, prefix)| {
            let rest = &code[at + prefix.len()..];
            let first = word(rest);
            match rest.strip_prefix("adapters::") {
                Some(rest) => format!("adapters/{}", word(rest)),
                None => first,
            }
        })
        .filter(|module| module.starts_with(|c: char| c.is_lowercase()))
        .collect()
}

#[test]
fn layers_are_kept() {
    let mut broken = Vec::new();
    for source in sources("src") {
        let Some((layer, may_use)) = layer_of(&source.path) else {
            continue;
        };
        for module in named_modules(&code(&source)) {
            if !may_use.contains(&module.as_str()) {
                broken.push(format!(
                    "{}: `{layer}` may not use `{module}` (it may use {}). Move the code, or have it handed in as a value or a port.",
                    source.path,
                    may_use.join(", ")
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_pipeline_flows_one_way() {
    let stages = ["intake", "plan", "admit", "send", "settle", "record"];
    // Who hands on to whom; `record` reads what `send` made.
    let edges = [("intake", "plan"), ("intake", "settle"), ("record", "send")];
    let mut broken = Vec::new();
    for source in sources("src/pipeline") {
        let stage = source
            .path
            .trim_start_matches("src/pipeline/")
            .trim_end_matches(".rs");
        if !stages.contains(&stage) {
            continue;
        }
        for name in stages.iter().filter(|name| **name != stage) {
            let names_it = code(&source).contains(&format!("super::{name}::"));
            if names_it && !edges.contains(&(stage, name)) {
                broken.push(format!(
                    "{}: names `{name}`; stages hand on through `pipeline.rs`, or one way only",
                    source.path
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_domain_is_pure() {
    let mut broken = Vec::new();
    for source in sources("src/domain") {
        if is_test_file(&source.path) {
            continue;
        }
        let code = code(&source);
        for impure in IMPURE.iter().filter(|impure| code.contains(**impure)) {
            broken.push(format!(
                "{}: `domain` names `{impure}`; take the time, the chance or the bytes as an argument",
                source.path
            ));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let mut broken = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz/targets"] {
        for source in sources(folder) {
            if !source.text.starts_with("//!") {
                broken.push(format!(
                    "{}: begin with `//!`: what it is and why",
                    source.path
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn files_are_read_in_one_sitting() {
    let mut broken = Vec::new();
    for source in sources("src") {
        let lines = source.text.lines().count();
        let excused = LONG_FILES.iter().any(|(path, _)| *path == source.path);
        if lines > LINES_MAX && !excused && !is_test_file(&source.path) {
            broken.push(format!(
                "{}: {lines} lines; split it by nouns, or give a reason in LONG_FILES",
                source.path
            ));
        }
        if excused && lines <= LINES_MAX {
            broken.push(format!(
                "{}: {lines} lines need no excuse any more",
                source.path
            ));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn nothing_is_left_open() {
    // Put together here, so that this file does not find itself.
    let marks = ["todo", "unimplemented"].map(|word| format!("{word}!("));
    let notes = [
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
        ["#[ig", "nore"].concat(),
    ];
    let mut broken = Vec::new();
    for folder in ["src", "tests", "benches", "fuzz/targets"] {
        for source in sources(folder) {
            for mark in marks.iter().chain(&notes) {
                if source.text.contains(mark.as_str()) {
                    broken.push(format!(
                        "{}: contains `{mark}`; finish it or take it out",
                        source.path
                    ));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_adapters_and_their_users_know_io_crates() {
    let rules: &[(&str, &[&str])] = &[
        ("rusqlite", &["src/adapters/sqlite"]),
        ("lapin", &["src/adapters/rabbitmq"]),
        ("::redis", &["src/adapters/redis"]),
        ("reqwest", &["src/adapters/https", "src/cli/", "src/app/"]),
        ("hickory_resolver", &["src/adapters/https"]),
        ("axum", &["src/api", "src/app", "src/cli/receiver"]),
    ];
    let mut broken = Vec::new();
    for source in sources("src") {
        let code = code(&source);
        for (library, homes) in rules {
            // `crate::adapters::redis::` is ours, `::redis::` the library.
            let is_root = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric());
            let path = format!("{library}::");
            let mut places = code.match_indices(&path);
            let names_it = places.any(|(at, _)| is_root(at));
            if names_it && !homes.iter().any(|home| source.path.starts_with(home)) {
                broken.push(format!(
                    "{}: `{library}` belongs to {}",
                    source.path,
                    homes.join(", ")
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
