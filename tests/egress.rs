//! Which URLs may be written and which addresses may be connected to, line by line.
//!
//! `egress/addresses.tsv` and `egress/urls.tsv` were written from the specifications that they
//! name, each line with what is expected and why.

use std::collections::HashSet;
use std::net::IpAddr;

use carillon::domain::address::EgressRules;
use carillon::domain::target::EndpointUrl;

/// The lines of a corpus that say something, each with its number.
fn lines(corpus: &'static str) -> impl Iterator<Item = (usize, Vec<&'static str>)> {
    let numbered = corpus.lines().enumerate();
    let said = numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    said.map(|(index, line)| (index + 1, line.split('\t').collect()))
}

fn assert_all_right(wrong: &[String]) {
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_address_has_its_verdict() {
    let rules = EgressRules::default();
    let (mut seen, mut wrong) = (HashSet::new(), Vec::new());
    for (number, line) in lines(include_str!("egress/addresses.tsv")) {
        let [address, expected, why] = line[..] else {
            panic!("line {number}: three columns");
        };
        let parsed: IpAddr = address.parse().unwrap();
        seen.insert(address);
        let verdict = match rules.check(parsed) {
            Ok(()) => "public",
            Err(refusal) => refusal.rule.code(),
        };
        if verdict != expected {
            wrong.push(format!(
                "{number}: {address} is {verdict}, not {expected}: {why}"
            ));
        }
    }
    assert!(seen.len() >= 200, "{}", seen.len());
    assert_all_right(&wrong);
}

#[test]
fn every_url_has_its_verdict() {
    let rules = EgressRules::default();
    let (mut seen, mut wrong) = (HashSet::new(), Vec::new());
    for (number, line) in lines(include_str!("egress/urls.tsv")) {
        let [expected, url, why] = line[..] else {
            panic!("line {number}: three columns");
        };
        let text: String = serde_json::from_str(url).unwrap();
        seen.insert(url);
        let verdict = match EndpointUrl::parse(&text, None) {
            Err(refusal) => format!("refused:{}", refusal.rule.code()),
            Ok(url) => match rules.check_url(url.url()) {
                Ok(()) => "accepted".to_owned(),
                Err(refusal) => format!("blocked:{}", refusal.rule.code()),
            },
        };
        if verdict != expected {
            wrong.push(format!(
                "{number}: {url} is {verdict}, not {expected}: {why}"
            ));
        }
    }
    assert!(seen.len() >= 300, "{}", seen.len());
    assert_all_right(&wrong);
}

/// What is written is what is sent to: reading the text again, as another parser of the same
/// standard would, leads to the same host and port.
#[test]
fn a_url_that_passed_is_read_the_same_again() {
    for (number, line) in lines(include_str!("egress/urls.tsv")) {
        let text: String = serde_json::from_str(line[1]).unwrap();
        let Ok(url) = EndpointUrl::parse(&text, None) else {
            continue;
        };
        let again = EndpointUrl::parse(url.as_str(), None);
        assert_eq!(again.unwrap(), url, "line {number}");
    }
}
