//! Whatever a customer writes as a URL: an accepted one is read again as the same, its host is
//! what its text says, and none whose host is a literal address passes the egress rules unless
//! the standard library, too, takes it for a public one.
//!
//! Input: the URL's text.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use carillon::domain::address::{EgressRules, is_localhost};
use carillon::domain::target::{EndpointUrl, is_denied_port};
use libfuzzer_sys::fuzz_target;
use url::{Host, Url};

fuzz_target!(|text: &str| {
    let https_only = EndpointUrl::parse(text, Some("of the format"));
    let Ok(accepted) = EndpointUrl::parse(text, None) else {
        assert!(https_only.is_err(), "{text:?}");
        return;
    };
    let url = accepted.url();
    assert_eq!(https_only.is_ok(), url.scheme() == "https", "{text:?}");
    reads_the_same(text, &accepted);
    keeps_the_rules(url);
    let passes = EgressRules::default().check_url(url).is_ok();
    match url.host() {
        Some(Host::Ipv4(address)) => assert!(!passes || is_public(address.into()), "{text:?}"),
        Some(Host::Ipv6(address)) => assert!(!passes || is_public(address.into()), "{text:?}"),
        Some(Host::Domain(name)) => {
            assert!(!is_localhost(name) || !passes, "{text:?}");
            assert!(!is_an_address_to_some(name), "{text:?}");
        }
        None => panic!("without a host: {text:?}"),
    }
});

fn reads_the_same(text: &str, accepted: &EndpointUrl) {
    let shown = accepted.as_str();
    for again in [
        EndpointUrl::parse(shown, None),
        EndpointUrl::parse_stored(shown),
        EndpointUrl::parse_stored(text),
    ] {
        let again =
            again.unwrap_or_else(|refusal| panic!("{text:?} shown as {shown:?}: {refusal}"));
        assert_eq!(&again, accepted, "{text:?}");
        assert_eq!(again.as_str(), shown, "{text:?}");
    }
}

fn keeps_the_rules(url: &Url) {
    assert!(matches!(url.scheme(), "http" | "https"), "{url}");
    assert!(
        url.username().is_empty() && url.password().is_none(),
        "{url}"
    );
    assert_eq!(url.fragment(), None, "{url}");
    assert!(!url.port().is_some_and(is_denied_port), "{url}");
    assert!(url.as_str().bytes().all(|b| b.is_ascii_graphic()), "{url}");
}

fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_documentation())
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast())
        }
    }
}

/// Whether a resolver might read the name as an address in one of its old notations.
fn is_an_address_to_some(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").or(last.strip_prefix("0X"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.parse::<Ipv4Addr>().is_ok()
        || is_number(last)
        || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}
