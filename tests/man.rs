//! The manual pages that `make man` writes: one for each command, none without its parts.

use std::collections::BTreeMap;

use clap::{Command, CommandFactory as _};

#[allow(dead_code, reason = "its `main` writes the pages to a folder")]
#[path = "../examples/man.rs"]
mod man;

/// The names of all commands, as the pages have them.
fn names(command: &Command, name: &str, found: &mut Vec<String>) {
    found.push(format!("{name}.1"));
    for below in command.get_subcommands() {
        names(below, &format!("{name}-{}", below.get_name()), found);
    }
}

#[test]
fn every_command_has_a_page() {
    let pages: BTreeMap<_, _> = man::pages().unwrap().into_iter().collect();
    let mut expected = Vec::new();
    names(&carillon::cli::Cli::command(), "carillon", &mut expected);
    expected.sort();
    assert!(expected.len() > 30, "{expected:?}");
    assert_eq!(pages.keys().cloned().collect::<Vec<_>>(), expected);
}

#[test]
fn no_page_is_empty_and_examples_keep_their_lines() {
    for (name, page) in man::pages().unwrap() {
        assert!(page.is_ascii(), "{name}");
        for part in [
            ".TH",
            ".SH NAME",
            ".SH SYNOPSIS",
            ".SH DESCRIPTION",
            "\\-\\-json",
        ] {
            assert!(page.contains(part), "{name} has no {part}:\n{page}");
        }
        let description = page.split(".SH DESCRIPTION\n").nth(1).unwrap();
        let description = description.split(".SH").next().unwrap();
        assert!(description.trim().len() > 10, "{name}: {description}");
        let lines = |of: &str| page.lines().filter(|line| *line == of).count();
        assert_eq!(lines(".nf"), lines(".fi"), "{name}");
        if name == "carillon-subscriptions-apply.1" {
            assert!(page.contains("\n    \\- id: sub_AcmeAlerts\n"), "{page}");
            assert!(page.contains("\\-\\-prune"), "{page}");
        }
    }
}
