//! The egress rules: which addresses a webhook request may connect to.
//!
//! A webhook URL is chosen by a customer, so anything that is not the public internet is
//! refused unless `egress.allow` names it: the special-purpose registries of IANA for
//! IPv4 and IPv6 (RFC 6890 and its successors), multicast, the address at which
//! Azure serves its instances, and all of IPv6 but 2000::/3, which alone is given out for the
//! public internet. IPv4 addresses mapped into IPv6 are judged as IPv4.
//! There is no setting that turns the rules off as a whole.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

use super::target::is_denied_port;

/// Which addresses are reachable.
#[derive(Clone, Debug, Default)]
pub struct EgressRules {
    /// Reachable although they are private or special.
    pub allow: Vec<IpNet>,
    /// Never reachable, on top of the built-in list; stronger than `allow`.
    pub deny: Vec<IpNet>,
}

/// Why a request may not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{target} is {}", rule.sentence())]
pub struct EgressRefusal {
    /// Where it was to go.
    pub target: Refused,
    /// The rule that says no.
    pub rule: EgressRule,
}

/// What is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This address.
    Address(IpAddr),
    /// This port, on every host.
    Port(u16),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Port(port) => write!(f, "port {port}"),
        }
    }
}

/// The rules that say no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EgressRule {
    /// `egress.deny` names it.
    Denied,
    /// "This network", unspecified.
    Unspecified,
    /// The machine itself.
    Loopback,
    /// Private use (RFC 1918), unique local (RFC 4193), shared (RFC 6598).
    Private,
    /// Link-local, where cloud metadata services live.
    LinkLocal,
    /// A cloud platform's own service.
    CloudService,
    /// Documentation, benchmarking, protocol assignments and other special purposes.
    Special,
    /// IPv6 that leads to IPv4 by translation or tunnel.
    Transition,
    /// Multicast and broadcast.
    Multicast,
    /// Reserved, or not given out yet.
    Reserved,
    /// A port on which no HTTP is expected.
    Port,
}

impl EgressRule {
    /// Every rule.
    pub const ALL: [Self; 11] = [
        Self::Denied,
        Self::Unspecified,
        Self::Loopback,
        Self::Private,
        Self::LinkLocal,
        Self::CloudService,
        Self::Special,
        Self::Transition,
        Self::Multicast,
        Self::Reserved,
        Self::Port,
    ];

    /// The rule in one word, for metrics and audit.
    pub fn code(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link_local",
            Self::CloudService => "cloud_service",
            Self::Special => "special",
            Self::Transition => "transition",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
            Self::Port => "port",
        }
    }

    /// What would let a request pass, as the end of a sentence.
    pub fn unless(self) -> &'static str {
        match self {
            Self::Denied => "as long as `egress.deny` names it",
            Self::Port => "whatever the address",
            _ => "unless `egress.allow` names it",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Denied => "denied by `egress.deny`",
            Self::Unspecified => "unspecified",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::CloudService => "a cloud platform's internal address",
            Self::Special => "a special-purpose address",
            Self::Transition => "an address that translates to IPv4",
            Self::Multicast => "a multicast or broadcast address",
            Self::Reserved => "a reserved address",
            Self::Port => "one on which no webhook listens",
        }
    }
}

impl EgressRules {
    /// Whether `address` may be connected to.
    ///
    /// # Errors
    /// [`EgressRefusal`] with the rule that says no.
    pub fn check(&self, address: IpAddr) -> Result<(), EgressRefusal> {
        let judged = address.to_canonical();
        let named = |nets: &[IpNet]| {
            nets.iter()
                .any(|net| net.contains(&address) || net.contains(&judged))
        };
        let target = Refused::Address(address);
        let refuse = |rule| Err(EgressRefusal { target, rule });
        if named(&self.deny) {
            return refuse(EgressRule::Denied);
        }
        if named(&self.allow) {
            return Ok(());
        }
        let rule = match judged {
            IpAddr::V4(v4) => rule_of_v4(v4),
            IpAddr::V6(v6) => rule_of_v6(v6),
        };
        rule.map_or(Ok(()), refuse)
    }

    /// Whether a request to `url` may be sent, as far as its text says: its port, an address in
    /// any notation (the parser has brought `127.1`, `0x7f.1`, `2130706433` and the like into
    /// one form), and `localhost`. Other names pass: they are judged by what they resolve to.
    ///
    /// # Errors
    /// [`EgressRefusal`] with the rule that says no.
    pub fn check_url(&self, url: &Url) -> Result<(), EgressRefusal> {
        if let Some(port) = url.port()
            && is_denied_port(port)
        {
            let (target, rule) = (Refused::Port(port), EgressRule::Port);
            return Err(EgressRefusal { target, rule });
        }
        match url.host() {
            Some(Host::Ipv4(address)) => self.check(address.into()),
            Some(Host::Ipv6(address)) => self.check(address.into()),
            Some(Host::Domain(name)) if is_localhost(name) => self.loopback().map(drop),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }

    /// The loopback addresses that are permitted. They are ours and not a stranger's
    /// answer, so permitting one family is enough.
    ///
    /// # Errors
    /// [`EgressRefusal`] when neither is.
    pub fn loopback(&self) -> Result<Vec<IpAddr>, EgressRefusal> {
        let both = [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        let permitted = both.iter().filter(|address| self.check(**address).is_ok());
        let permitted: Vec<_> = permitted.copied().collect();
        if permitted.is_empty() {
            self.check(both[0])?;
        }
        Ok(permitted)
    }
}

/// Whether a name is the machine's own (RFC 6761 section 6.3).
pub fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or(name);
    last.eq_ignore_ascii_case("localhost")
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// IANA IPv4 Special-Purpose Address Registry, multicast, and 168.63.129.16 (Azure).
const V4_RULES: &[(Ipv4Net, EgressRule)] = &[
    (v4(0, 0, 0, 0, 8), EgressRule::Unspecified),
    (v4(10, 0, 0, 0, 8), EgressRule::Private),
    (v4(100, 64, 0, 0, 10), EgressRule::Private),
    (v4(127, 0, 0, 0, 8), EgressRule::Loopback),
    (v4(168, 63, 129, 16, 32), EgressRule::CloudService),
    (v4(169, 254, 0, 0, 16), EgressRule::LinkLocal),
    (v4(172, 16, 0, 0, 12), EgressRule::Private),
    (v4(192, 0, 0, 0, 24), EgressRule::Special),
    (v4(192, 0, 2, 0, 24), EgressRule::Special),
    (v4(192, 31, 196, 0, 24), EgressRule::Special),
    (v4(192, 52, 193, 0, 24), EgressRule::Special),
    (v4(192, 88, 99, 0, 24), EgressRule::Transition),
    (v4(192, 168, 0, 0, 16), EgressRule::Private),
    (v4(192, 175, 48, 0, 24), EgressRule::Special),
    (v4(198, 18, 0, 0, 15), EgressRule::Special),
    (v4(198, 51, 100, 0, 24), EgressRule::Special),
    (v4(203, 0, 113, 0, 24), EgressRule::Special),
    (v4(224, 0, 0, 0, 4), EgressRule::Multicast),
    (v4(255, 255, 255, 255, 32), EgressRule::Multicast),
    (v4(240, 0, 0, 0, 4), EgressRule::Reserved),
];

/// IANA IPv6 Special-Purpose Address Registry, deprecated ranges included.
const V6_RULES: &[(Ipv6Net, EgressRule)] = &[
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), EgressRule::Unspecified),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), EgressRule::Loopback),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), EgressRule::Transition),
    (
        // IPv4-translated addresses (RFC 2765).
        v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96),
        EgressRule::Transition,
    ),
    (
        v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96),
        EgressRule::Transition,
    ),
    (
        v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48),
        EgressRule::Transition,
    ),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), EgressRule::Special),
    (v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64), EgressRule::Special),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), EgressRule::Special),
    (
        v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
        EgressRule::Special,
    ),
    (
        v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
        EgressRule::Transition,
    ),
    (
        v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48),
        EgressRule::Special,
    ),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), EgressRule::Special),
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), EgressRule::Special),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), EgressRule::Private),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), EgressRule::LinkLocal),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), EgressRule::Private),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), EgressRule::Multicast),
];

/// IANA IPv6 Address Space: global unicast. All else is reserved.
const V6_PUBLIC: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

fn rule_of_v4(address: Ipv4Addr) -> Option<EgressRule> {
    V4_RULES
        .iter()
        .find(|(net, _)| net.contains(&address))
        .map(|(_, rule)| *rule)
}

fn rule_of_v6(address: Ipv6Addr) -> Option<EgressRule> {
    let special = V6_RULES.iter().find(|(net, _)| net.contains(&address));
    special
        .map(|(_, rule)| *rule)
        .or((!V6_PUBLIC.contains(&address)).then_some(EgressRule::Reserved))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(address: &str) -> Option<EgressRule> {
        let rules = EgressRules::default();
        rules
            .check(address.parse().unwrap())
            .err()
            .map(|no| no.rule)
    }

    #[test]
    fn public_addresses_pass() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "168.63.129.15",
            "172.15.255.255",
            "172.32.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "::ffff:1.1.1.1",
        ] {
            assert_eq!(rule(address), None, "{address}");
        }
    }

    #[test]
    fn everything_else_is_refused_by_its_rule() {
        use EgressRule::*;
        for (address, expected) in [
            ("0.0.0.0", Unspecified),
            ("10.255.255.255", Private),
            ("100.64.0.1", Private),
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("168.63.129.16", CloudService),
            ("169.254.169.254", LinkLocal),
            ("172.31.255.255", Private),
            ("192.0.0.1", Special),
            ("192.168.0.1", Private),
            ("198.19.255.255", Special),
            ("203.0.113.7", Special),
            ("224.0.0.1", Multicast),
            ("240.0.0.1", Reserved),
            ("::", Unspecified),
            ("::1", Loopback),
            ("::7f00:1", Transition),
            ("::ffff:127.0.0.1", Loopback),
            ("::ffff:10.0.0.1", Private),
            ("64:ff9b::a00:1", Transition),
            ("2002:a00:1::", Transition),
            ("2001:db8::1", Special),
            ("2001::1", Special),
            ("3fff::1", Special),
            ("fd00::1", Private),
            ("fe80::1", LinkLocal),
            ("ff02::1", Multicast),
        ] {
            assert_eq!(rule(address), Some(expected), "{address}");
        }
    }

    #[test]
    fn deny_is_stronger_than_allow() {
        let rules = EgressRules {
            allow: vec!["10.0.0.0/8".parse().unwrap()],
            deny: vec![
                "10.1.0.0/16".parse().unwrap(),
                "1.1.1.0/24".parse().unwrap(),
            ],
        };
        let passes = |address: &str| rules.check(address.parse().unwrap()).is_ok();
        assert!(passes("10.0.0.1"));
        assert!(passes("::ffff:10.0.0.1"));
        assert!(!passes("10.1.0.1"));
        assert!(!passes("1.1.1.1"));
        assert!(!passes("::ffff:1.1.1.1"));
        assert!(!passes("127.0.0.1"));
    }
}
