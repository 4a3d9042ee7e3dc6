//! Keeps what Carillon is built from within `deny.toml`, with nothing installed but cargo:
//! licences, sources, what is banned, and that no version is left open.
//!
//! Licences are those of the packages for this platform, as cargo has no others at hand; the
//! rest looks at every platform, in `Cargo.lock`. `make audit` asks cargo-deny about all of it,
//! and about advisories.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};
use toml::Table;

/// What a `Cargo.lock` writes before the address of a registry.
const REGISTRY: &str = "registry+";
/// Older packages write `/` for `OR`, and names that SPDX has replaced since.
const LENIENT: ParseMode = ParseMode {
    allow_slash_as_or_operator: true,
    allow_deprecated: true,
    ..ParseMode::STRICT
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn table(file: &str) -> Table {
    let text = fs::read_to_string(root().join(file)).unwrap();
    text.parse().unwrap()
}

/// The texts of the array `section.key` of `deny.toml`; of tables, their `crate`.
fn policy(section: &str, key: &str) -> Vec<String> {
    let deny = table("deny.toml");
    let items = deny[section][key].as_array().unwrap();
    let text = |item: &toml::Value| {
        item.get("crate")
            .unwrap_or(item)
            .as_str()
            .map(str::to_owned)
    };
    items.iter().map(|item| text(item).unwrap()).collect()
}

/// What `program` prints, run in the crate's folder.
fn output(program: &str, arguments: &[&str]) -> Vec<u8> {
    // Cargo says which cargo and rustc it is run with.
    let path = std::env::var(program.to_uppercase()).unwrap_or_else(|_| program.to_owned());
    let mut command = Command::new(path);
    let ran = command.args(arguments).current_dir(root()).output();
    let ran = ran.unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program} {arguments:?}: {told}");
    ran.stdout
}

/// What cargo knows of each package that a build for this platform takes in.
fn packages() -> Vec<Value> {
    let host = String::from_utf8(output("rustc", &["--print", "host-tuple"])).unwrap();
    let platform = ["--filter-platform", host.trim()];
    let offline = ["metadata", "--locked", "--offline", "--format-version=1"];
    let known = output("cargo", &[&offline[..], &platform[..]].concat());
    let mut known: Value = serde_json::from_slice(&known).unwrap();
    let Value::Array(packages) = known["packages"].take() else {
        panic!("cargo metadata lists no packages");
    };
    assert!(packages.len() > 100, "{}", packages.len());
    packages
}

/// The packages of every platform: name, version, and where from.
fn locked() -> Vec<(String, String, Option<String>)> {
    let lock = table("Cargo.lock");
    let packages = lock["package"].as_array().unwrap();
    let text = |package: &toml::Value, key: &str| package.get(key)?.as_str().map(str::to_owned);
    let entry = |package: &toml::Value| {
        let [name, version] = ["name", "version"].map(|key| text(package, key).unwrap());
        (name, version, text(package, "source"))
    };
    packages.iter().map(entry).collect()
}

fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Why a package with this `license` may not be used; `None` when it may.
fn licence_fault(license: Option<&str>, allowed: &[Licensee]) -> Option<String> {
    let Some(license) = license else {
        return Some("names no licence".to_owned());
    };
    match Expression::parse_mode(license, LENIENT) {
        Err(error) => Some(format!("`{license}` is no licence: {}", error.reason)),
        Ok(terms) => {
            let is_met = terms.evaluate(|term| allowed.iter().any(|one| one.satisfies(term)));
            (!is_met).then(|| format!("`{license}` asks for one that is not allowed"))
        }
    }
}

fn licences(names: &[impl AsRef<str>]) -> Vec<Licensee> {
    let read = |name: &_| Licensee::parse(AsRef::as_ref(name)).unwrap();
    names.iter().map(read).collect()
}

#[test]
fn every_licence_is_allowed() {
    let allowed = licences(&policy("licenses", "allow"));
    let mut broken = Vec::new();
    for package in packages() {
        if let Some(fault) = licence_fault(package["license"].as_str(), &allowed) {
            broken.push(format!(
                "{} {}: {fault}; do without it, or add the licence to `licenses.allow` in deny.toml if it suits a binary under Apache-2.0",
                package["name"], package["version"]
            ));
        }
    }
    assert_none(&broken);
}

#[test]
fn licence_expressions_are_read_whole() {
    let allowed = licences(&["MIT", "ISC"]);
    let is_allowed = |license| licence_fault(license, &allowed).is_none();
    for met in ["MIT", "MIT/GPL-3.0", "(MIT OR Zlib) AND ISC"] {
        assert!(is_allowed(Some(met)), "{met}");
    }
    for not_met in [
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "MIT WITH LLVM-exception",
        "(MIT OR ISC) AND Zlib",
        "Free for all",
        "",
    ] {
        assert!(!is_allowed(Some(not_met)), "{not_met}");
    }
    assert!(!is_allowed(None));
}

#[test]
fn everything_comes_from_the_registry() {
    let registries = policy("sources", "allow-registry");
    let mut broken = Vec::new();
    for (name, version, source) in locked() {
        let place = source.as_deref().unwrap_or("a path");
        let is_known = place
            .strip_prefix(REGISTRY)
            .is_some_and(|registry| registries.iter().any(|known| known == registry));
        let is_ours = source.is_none() && name == env!("CARGO_PKG_NAME");
        if !is_known && !is_ours {
            broken.push(format!(
                "{name} {version} comes from {place}; take a release from {}",
                registries.join(" or ")
            ));
        }
    }
    assert_none(&broken);
}

#[test]
fn nothing_banned_is_taken_in() {
    let banned = policy("bans", "deny");
    assert!(!banned.is_empty());
    let broken: Vec<_> = locked()
        .into_iter()
        .filter(|(name, ..)| banned.contains(name))
        .map(|(name, version, _)| {
            format!("{name} {version} is banned by deny.toml, which says why; `cargo tree --target all -i {name}` says who asks for it")
        })
        .collect();
    assert_none(&broken);
}

#[test]
fn no_version_is_left_open() {
    let packages = packages();
    let own = |package: &&Value| package["name"] == env!("CARGO_PKG_NAME");
    let dependencies = packages.iter().find(own).unwrap()["dependencies"].as_array();
    let is_open = |one: &&Value| one["req"] == "*" || one["source"].is_null();
    let open = dependencies.unwrap().iter().filter(is_open);
    let advice = "give it a version, and no path, in Cargo.toml";
    let broken: Vec<_> = open
        .map(|one| format!("{}: {advice}", one["name"]))
        .collect();
    assert_none(&broken);
}
