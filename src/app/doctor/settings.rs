//! What the configuration alone tells: tokens, keys, and how open the doors are.

use ipnet::IpNet;
use secrecy::ExposeSecret as _;

use crate::cli::doctor::Check;
use crate::config::{Config, Loaded, TOKEN_CHARS_ADVISED};

/// Fewer different characters than these are no random token.
const TOKEN_KINDS_MIN: usize = 10;
/// Inside addresses that a wide network may hold without beginning or ending there.
const INSIDE: [&str; 5] = [
    "10.0.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.0.1",
];
/// The keys that have a check of their own: what is warned of is not told twice.
const TOLD_ELSEWHERE: [&str; 2] = ["http.admin_token", "secrets.keys"];

/// What is to be said of the settings.
pub(super) fn checks(loaded: &Loaded) -> Vec<Check> {
    let config = &loaded.config;
    vec![
        configuration(loaded),
        admin_token(config),
        keys(config),
        egress(config),
    ]
}

fn configuration(loaded: &Loaded) -> Check {
    let name = "configuration";
    let from = match &loaded.sources.file {
        Some(file) => format!("{} and the environment", file.display()),
        None => "the environment and the defaults".to_owned(),
    };
    let warnings = loaded.warnings.iter();
    let warnings = warnings.filter(|warning| !TOLD_ELSEWHERE.contains(&warning.key));
    let warnings: Vec<String> = warnings.map(ToString::to_string).collect();
    if warnings.is_empty() {
        return Check::ok(name, format!("{from}: valid"));
    }
    let detail = format!("{from}: valid, but {}", warnings.join("; "));
    Check::warning(
        name,
        detail,
        "`carillon config reference` says what it does",
    )
}

fn admin_token(config: &Config) -> Check {
    let (name, listen) = ("admin token", config.http.listen);
    let make = "`openssl rand -hex 32` makes one";
    let Some(token) = &config.http.admin_token else {
        let detail = format!("none: whoever is on this machine may do everything at {listen}");
        let advice = format!("set `http.admin_token`; {make}");
        return Check::warning(name, detail, advice);
    };
    let token = token.expose_secret();
    let chars = token.chars().count();
    let kinds: std::collections::BTreeSet<char> = token.chars().collect();
    let advice = format!("take one of at least {TOKEN_CHARS_ADVISED} random characters; {make}");
    if chars < TOKEN_CHARS_ADVISED {
        return Check::warning(name, format!("it has {chars} characters"), advice);
    }
    if kinds.len() < TOKEN_KINDS_MIN {
        let detail = format!("it has {} different characters", kinds.len());
        return Check::warning(name, detail, advice);
    }
    match listen.ip().to_canonical().is_loopback() {
        true => Check::ok(name, format!("set; the API listens on {listen}")),
        false => Check::warning(
            name,
            format!("set; the API listens on {listen}, where others can reach it without TLS"),
            "have it behind a proxy that ends TLS, or on a network that nobody else reads",
        ),
    }
}

fn keys(config: &Config) -> Check {
    let name = "encryption";
    match config.secrets.keys.iter().count() {
        0 => Check::warning(
            name,
            "`secrets.keys` is not set: signing secrets are stored as they are",
            "make a key with `openssl rand -base64 32`, set `secrets.keys = [\"1:<key>\"]`, restart, \
             and run `carillon secrets rotate`",
        ),
        1 => Check::ok(name, "signing secrets are encrypted with 1 key"),
        n => Check::ok(name, format!("the first of {n} keys encrypts, all decrypt")),
    }
}

fn egress(config: &Config) -> Check {
    let name = "egress";
    let inside: Vec<String> = config
        .egress
        .allow
        .iter()
        .filter(|network| is_inside(network))
        .map(ToString::to_string)
        .collect();
    let mut found = Vec::new();
    let mut advice = Vec::new();
    if !inside.is_empty() {
        let networks = inside.join(", ");
        found.push(format!("webhooks may go to {networks}, which are inside"));
        advice.push("name single addresses in `egress.allow`, and only what customers may reach");
    }
    if !config.egress.require_https {
        found.push("`egress.require_https` is false: webhooks may go over plain HTTP".to_owned());
        advice.push("set `egress.require_https = true` where every customer has HTTPS");
    }
    if found.is_empty() {
        return Check::ok(name, "public addresses alone, over HTTPS alone");
    }
    Check::warning(name, found.join("; "), advice.join("; "))
}

/// Whether a network has addresses that are refused unless it is named.
fn is_inside(network: &IpNet) -> bool {
    let rules = crate::domain::address::EgressRules::default();
    let ends = [network.network(), network.broadcast()];
    let holds = |address: &&str| {
        let address = address.parse::<std::net::IpAddr>();
        address.is_ok_and(|address| network.contains(&address))
    };
    ends.into_iter().any(|end| rules.check(end).is_err()) || INSIDE.iter().any(holds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    fn config(settings: &[(&str, &str)]) -> Loaded {
        let settings = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let none = tempfile::NamedTempFile::new().unwrap();
        Config::load(Some(none.path()), settings).unwrap()
    }

    fn verdict(check: &Check) -> (Verdict, String) {
        (check.verdict, check.detail.clone())
    }

    #[test]
    fn a_token_is_long_and_random() {
        let token = |token: &str| {
            let loaded = config(&[("CARILLON_HTTP__ADMIN_TOKEN", token)]);
            verdict(&admin_token(&loaded.config))
        };
        let (random, half) = ("0123456789abcdef0123456789ABCDEF", "0123456789abcdef");
        assert_eq!(token(random).0, Verdict::Ok);
        let (short, detail) = token(half);
        assert_eq!(short, Verdict::Warning);
        assert!(detail.contains("16") && !detail.contains(half), "{detail}");
        assert_eq!(token(&"ab".repeat(20)).0, Verdict::Warning);
        let none = admin_token(&config(&[]).config);
        assert_eq!(none.verdict, Verdict::Warning);
        let open = config(&[
            ("CARILLON_HTTP__ADMIN_TOKEN", random),
            ("CARILLON_HTTP__LISTEN", "0.0.0.0:8080"),
        ]);
        assert_eq!(admin_token(&open.config).verdict, Verdict::Warning);
    }

    #[test]
    fn networks_inside_are_named() {
        let allow = |networks: &str| {
            let loaded = config(&[
                ("CARILLON_EGRESS__ALLOW", networks),
                ("CARILLON_EGRESS__REQUIRE_HTTPS", "true"),
            ]);
            verdict(&egress(&loaded.config))
        };
        assert_eq!(allow("[]").0, Verdict::Ok);
        assert_eq!(allow("[\"8.8.8.0/24\", \"2001:4860::/32\"]").0, Verdict::Ok);
        for inside in ["10.1.0.0/16", "8.0.0.0/5", "0.0.0.0/0", "::/0", "fd00::/8"] {
            let (found, detail) = allow(&format!("[\"8.8.8.8\", \"{inside}\"]"));
            assert_eq!(found, Verdict::Warning, "{inside}");
            assert!(
                detail.contains(inside) && !detail.contains("8.8.8.8"),
                "{detail}"
            );
        }
        let plain = egress(&config(&[]).config);
        assert!(plain.detail.contains("require_https"), "{plain:?}");
    }

    #[test]
    fn keys_are_counted_and_what_is_unwise_is_named() {
        let key = |id: &str| format!("\"{id}:{}=\"", "A".repeat(43));
        let two = format!("[{}, {}]", key("a"), key("b"));
        let loaded = config(&[("CARILLON_SECRETS__KEYS", &two)]);
        assert_eq!(keys(&loaded.config).verdict, Verdict::Ok);
        assert!(keys(&loaded.config).detail.contains("2 keys"));
        assert_eq!(keys(&config(&[]).config).verdict, Verdict::Warning);
        assert_eq!(configuration(&config(&[])).verdict, Verdict::Ok);
        let short = config(&[("CARILLON_HTTP__ADMIN_TOKEN", "short")]);
        let told = configuration(&short);
        assert_eq!(
            (short.warnings.len(), told.verdict),
            (1, Verdict::Ok),
            "told by its own check"
        );
        let wider = config(&[("CARILLON_EGRESS__ALLOW", "[\"9.9.9.9/24\"]")]);
        let told = configuration(&wider);
        assert_eq!(told.verdict, Verdict::Warning);
        assert!(told.detail.contains("9.9.9.0/24"), "{told:?}");
    }
}
