//! The egress rules judge any address as the standard library classes it: what is not the public
//! internet is refused by its own rule, IPv4 in IPv6 is judged as its IPv4, and `egress.deny` and
//! `egress.allow` reach exactly their networks.
//!
//! Input: 4 bytes of an IPv4 address or 16 of an IPv6 address; behind them, perhaps, a prefix
//! length and whether it is allowed or denied.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use carillon::domain::address::{EgressRule, EgressRules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some((bytes, rest)) = input.split_first_chunk::<16>() {
        let address = Ipv6Addr::from(*bytes);
        judge_v6(address);
        named_networks(address.into(), rest);
    }
    if let Some((bytes, rest)) = input.split_first_chunk::<4>() {
        let address = Ipv4Addr::from(*bytes);
        judge_v4(address);
        named_networks(address.into(), rest);
    }
});

fn rule(address: impl Into<IpAddr>) -> Option<EgressRule> {
    let judged = EgressRules::default().check(address.into());
    judged.err().map(|refusal| refusal.rule)
}

fn judge_v4(address: Ipv4Addr) {
    let rule_v4 = rule(address);
    let [a, b, ..] = address.octets();
    let is_shared = a == 100 && b & 0xc0 == 64;
    let is = |rule| rule_v4 == Some(rule);
    assert_eq!(is(EgressRule::Unspecified), a == 0, "{address}");
    assert_eq!(is(EgressRule::Loopback), address.is_loopback(), "{address}");
    assert_eq!(
        is(EgressRule::Private),
        address.is_private() || is_shared,
        "{address}"
    );
    assert_eq!(
        is(EgressRule::LinkLocal),
        address.is_link_local(),
        "{address}"
    );
    let to_many = address.is_multicast() || address.is_broadcast();
    assert_eq!(is(EgressRule::Multicast), to_many, "{address}");
    assert_eq!(is(EgressRule::Reserved), a >= 240 && !to_many, "{address}");
    assert!(
        !address.is_documentation() || is(EgressRule::Special),
        "{address}"
    );
    assert!(address != Ipv4Addr::new(168, 63, 129, 16) || is(EgressRule::CloudService));

    assert_eq!(rule(address.to_ipv6_mapped()), rule_v4, "{address} mapped");
    // What leads to IPv4 in another way is refused, whatever the IPv4 address.
    let [a, b, c, d] = address.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    for other in [
        address.to_ipv6_compatible(),
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
        Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, !high, !low),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
    ] {
        assert!(rule(other).is_some(), "{other}");
    }
}

fn judge_v6(address: Ipv6Addr) {
    if let Some(mapped) = address.to_ipv4_mapped() {
        assert_eq!(rule(address), rule(mapped), "{address}");
        return;
    }
    let rule_v6 = rule(address);
    let is = |rule| rule_v6 == Some(rule);
    let first = address.segments()[0];
    let is_site_local = first & 0xffc0 == 0xfec0;
    assert_eq!(
        is(EgressRule::Unspecified),
        address.is_unspecified(),
        "{address}"
    );
    assert_eq!(is(EgressRule::Loopback), address.is_loopback(), "{address}");
    let is_private = address.is_unique_local() || is_site_local;
    assert_eq!(is(EgressRule::Private), is_private, "{address}");
    let is_link_local = address.is_unicast_link_local();
    assert_eq!(is(EgressRule::LinkLocal), is_link_local, "{address}");
    assert_eq!(
        is(EgressRule::Multicast),
        address.is_multicast(),
        "{address}"
    );
    let is_documentation = address.segments()[..2] == [0x2001, 0xdb8]
        || first == 0x3fff && address.segments()[1] < 0x1000;
    assert!(!is_documentation || is(EgressRule::Special), "{address}");
    // Only 2000::/3 is given out for the public internet.
    assert!(first & 0xe000 == 0x2000 || rule_v6.is_some(), "{address}");
}

/// `egress.allow` and `egress.deny` against the same told in shifts.
fn named_networks(address: IpAddr, rest: &[u8]) {
    let [length, which, other @ ..] = rest else {
        return;
    };
    let network = match address {
        IpAddr::V4(_) => other.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
        IpAddr::V6(_) => other.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)),
    };
    // Without a network of its own: that of the address.
    let network = network.unwrap_or(address);
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length = u32::from(*length) % (bits + 1);
    let Ok(named) = format!("{network}/{length}").parse() else {
        return;
    };
    let contains = same_prefix(network, address, length);
    let mut rules = EgressRules::default();
    let usual = rules.check(address).is_ok();
    let is_denied = which % 2 == 0;
    if is_denied {
        rules.deny.push(named);
        assert_eq!(
            rules.check(address).is_ok(),
            usual && !contains,
            "{address} {named}"
        );
        rules.allow.push(named);
        assert_eq!(
            rules.check(address).is_ok(),
            usual && !contains,
            "{address} {named}"
        );
    } else {
        rules.allow.push(named);
        assert_eq!(
            rules.check(address).is_ok(),
            usual || contains,
            "{address} {named}"
        );
    }
}

fn same_prefix(a: IpAddr, b: IpAddr, length: u32) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= length,
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= length,
        _ => false,
    }
}
