//! `carillon verify`: checks the signatures of a captured request, and says what is wrong.
//!
//! The age of a signature and whether it fits are judged apart, so that an old capture
//! still shows whether the secret is the right one.

use std::path::PathBuf;

use clap::ArgGroup;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::output::{Look, Tone};
use super::{CliError, Globals, args, output};
use crate::domain::signature::{SignatureFault, SignedHeaders, VerificationKey};
use crate::domain::timestamp::UnixMillis;

pub mod captured;

use captured::Captured;

/// Check the signatures of a captured request
///
/// Every signature header that is present (webhook-signature, X-Leicbit-Signature) must
/// verify with one of the secrets; then the exit code is 0.
#[derive(Clone, Debug, clap::Args)]
#[command(group = ArgGroup::new("what").required(true).args(["request", "body"]))]
#[command(after_help = "\
Examples:
  carillon verify --secret whsec_… --request captured.http --at ignore
  carillon verify --secret whsec_… --body body.json \\
    --header 'webhook-id: msg_…' --header 'webhook-timestamp: 1772368200' \\
    --header 'webhook-signature: v1,…'

A captured request is its headers, a blank line, and the body, byte for byte. Many
editors end a file with a line break that the sender did not sign.")]
pub struct Args {
    /// A secret (whsec_… or 64 hex digits) or public key (whpk_…); may be repeated
    #[arg(long, value_name = "SECRET", required = true, value_delimiter = ',')]
    #[arg(env = "CARILLON_SECRET", hide_env_values = true)]
    pub secret: Vec<SecretString>,

    /// The raw HTTP request, `-` for standard input; the request line may be missing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["header", "body"])]
    pub request: Option<PathBuf>,

    /// A header of the request; may be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = args::header)]
    pub header: Vec<(String, String)>,

    /// The body of the request, `-` for standard input
    #[arg(long, value_name = "FILE", requires = "header")]
    pub body: Option<PathBuf>,

    /// How far the timestamp may be from the clock, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub tolerance: u64,

    /// The time to judge the age at: Unix seconds, RFC 3339, `now`, or `ignore`
    #[arg(long, value_name = "TIME", default_value = "now", value_parser = Judge::parse)]
    pub at: Judge,
}

/// When a signature's age is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// By the clock.
    Now,
    /// As if it were this time.
    At(UnixMillis),
    /// Not at all.
    Ignore,
}

impl Judge {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "now" => return Ok(Self::Now),
            "ignore" => return Ok(Self::Ignore),
            _ => {}
        }
        let seconds = text.parse::<i64>().ok();
        seconds
            .and_then(|seconds| Some(UnixMillis(seconds.checked_mul(1000)?)))
            .or_else(|| UnixMillis::parse_rfc3339(text))
            .map(Self::At)
            .ok_or_else(|| {
                let expected = "Unix seconds, a time such as 2026-03-01T12:30:00Z, now or ignore";
                format!("expected {expected}, found `{text}`")
            })
    }
}

/// Reads the secrets of `--secret`, without repeating a wrong one.
///
/// # Errors
/// [`CliError::Usage`] that says which one is wrong.
pub fn keys(secrets: &[SecretString]) -> Result<Vec<VerificationKey>, CliError> {
    let read = |(i, secret): (usize, &SecretString)| {
        VerificationKey::parse(secret.expose_secret().trim()).ok_or_else(|| {
            let expected = "whsec_ and base64, 64 hex digits, or whpk_ and base64, of 32 bytes";
            CliError::Usage(format!("--secret number {}: expected {expected}", i + 1))
        })
    };
    secrets.iter().enumerate().map(read).collect()
}

/// Checks and prints.
///
/// # Errors
/// [`CliError::Reported`] when a signature does not verify.
pub async fn run(args: Args, globals: &Globals) -> Result<(), CliError> {
    let keys = keys(&args.secret)?;
    let captured = read(&args).await?;
    let now = match args.at {
        Judge::At(at) => at,
        Judge::Now | Judge::Ignore => args::now(),
    };
    let tolerance = (args.at != Judge::Ignore).then_some(args.tolerance);
    let findings = examine(&captured, &keys, now, tolerance);
    if findings.is_empty() {
        let problem = "neither webhook-signature nor x-leicbit-signature is among the headers";
        return Err(CliError::Failed(format!("{problem}: nothing to check")));
    }
    let verified = findings.iter().all(Finding::verified);
    if globals.json {
        let signatures: Vec<Value> = findings.iter().map(Finding::json).collect();
        output::json(&json!({"verified": verified, "signatures": signatures}))?;
    } else {
        for finding in &findings {
            print(finding)?;
        }
    }
    if verified {
        Ok(())
    } else {
        Err(CliError::Reported)
    }
}

async fn read(args: &Args) -> Result<Captured, CliError> {
    if let Some(path) = &args.request {
        let bytes = args::read_input(path).await?;
        let place = path.display();
        return Captured::parse(&bytes)
            .map_err(|problem| CliError::Failed(format!("{place} is no request: {problem}")));
    }
    let body = match &args.body {
        Some(path) => args::read_input(path).await?,
        None => Vec::new(),
    };
    let lower = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
    let headers = args.header.iter().map(lower).collect();
    Ok(Captured { headers, body })
}

/// What was found about one signature header.
#[derive(Debug)]
struct Finding {
    /// `standard` or `leicbit`
    kind: &'static str,
    header: &'static str,
    /// Which key fits, counted from 1; or why none does.
    fit: Result<usize, SignatureFault>,
    /// Why it is not accepted although it fits: its age.
    age: Result<(), SignatureFault>,
    age_ignored: bool,
    signed_at: Option<UnixMillis>,
    now: UnixMillis,
    hint: Option<String>,
}

impl Finding {
    fn verified(&self) -> bool {
        self.fit.is_ok() && self.age.is_ok()
    }

    fn problem(&self) -> Option<String> {
        let faults = [self.fit.as_ref().err(), self.age.as_ref().err()];
        let faults: Vec<String> = faults.iter().flatten().map(ToString::to_string).collect();
        (!faults.is_empty()).then(|| faults.join("; and "))
    }

    fn json(&self) -> Value {
        json!({
            "kind": self.kind,
            "header": self.header,
            "verified": self.verified(),
            "key": self.fit.as_ref().ok(),
            "problem": self.problem(),
            "hint": self.hint,
            "signed_at": self.signed_at.map(|at| at.to_string()),
            "age_ignored": self.age_ignored,
        })
    }
}

/// Judges each signature header that is present. Without `tolerance`, any age will do.
fn examine(
    captured: &Captured,
    keys: &[VerificationKey],
    now: UnixMillis,
    tolerance: Option<u64>,
) -> Vec<Finding> {
    let headers = SignedHeaders {
        id: captured.header("webhook-id"),
        timestamp: captured.header("webhook-timestamp"),
        signature: captured.header("webhook-signature"),
        leicbit: captured.header("x-leicbit-signature"),
    };
    let leicbit = headers.leicbit.unwrap_or_default();
    let leicbit_at = leicbit.split(',').find_map(|p| p.trim().strip_prefix("t="));
    let standard: Check<'_> =
        &|key, body, tolerance| key.verify_standard(&headers, body, now, tolerance);
    let leicbit_check: Check<'_> =
        &|key, body, tolerance| key.verify_leicbit(leicbit, body, now, tolerance);
    let scene = Scene {
        captured,
        keys,
        now,
        tolerance,
    };
    let mut findings = Vec::new();
    if let Some(signatures) = headers.signature {
        let mut found = scene.find("standard", "webhook-signature", headers.timestamp, standard);
        if found.fit == Err(SignatureFault::NoMatch) && found.hint.is_none() {
            found.hint = wrong_kind_of_key(signatures, keys);
        }
        findings.push(found);
    }
    if headers.leicbit.is_some() {
        let header = "x-leicbit-signature";
        findings.push(scene.find("leicbit", header, leicbit_at, leicbit_check));
    }
    findings
}

type Check<'a> = &'a dyn Fn(&VerificationKey, &[u8], u64) -> Result<(), SignatureFault>;

/// What all signatures of one request are judged with.
struct Scene<'a> {
    captured: &'a Captured,
    keys: &'a [VerificationKey],
    now: UnixMillis,
    tolerance: Option<u64>,
}

impl Scene<'_> {
    fn find(
        &self,
        kind: &'static str,
        header: &'static str,
        timestamp: Option<&str>,
        check: Check<'_>,
    ) -> Finding {
        let fit = self.fit(&self.captured.body, check);
        // The timestamp is looked at first, so its fault shows whatever the key.
        let age = match (self.tolerance, self.keys.first(), &fit) {
            (Some(tolerance), Some(key), _) => check(key, &self.captured.body, tolerance),
            _ => Ok(()),
        };
        let age = match age {
            Err(fault @ SignatureFault::OutsideTolerance { .. }) => Err(fault),
            _ => Ok(()),
        };
        let hint = match fit {
            Err(SignatureFault::NoMatch) => self.body_hint(check),
            _ => None,
        };
        let seconds = timestamp.and_then(|text| text.parse::<i64>().ok());
        Finding {
            kind,
            header,
            fit,
            age,
            age_ignored: self.tolerance.is_none(),
            signed_at: seconds.and_then(|s| Some(UnixMillis(s.checked_mul(1000)?))),
            now: self.now,
            hint,
        }
    }

    /// The first key that fits, whatever the age.
    fn fit(&self, body: &[u8], check: Check<'_>) -> Result<usize, SignatureFault> {
        let mut fault = SignatureFault::NoMatch;
        for (i, key) in self.keys.iter().enumerate() {
            match check(key, body, u64::MAX) {
                Ok(()) => return Ok(i + 1),
                Err(found) => fault = found,
            }
        }
        Err(fault)
    }

    /// Whether the body would fit if saving it had not changed it.
    fn body_hint(&self, check: Check<'_>) -> Option<String> {
        let body = &self.captured.body;
        let fits = |body: &[u8]| self.fit(body, check).is_ok();
        let without = body.strip_suffix(b"\r\n").or(body.strip_suffix(b"\n"));
        if without.is_some_and(fits) {
            return Some(
                "it verifies without the line break at the end of the body, which was not \
                 signed: remove it (editors and `echo` add one; try `printf %s` or \
                 `truncate -s -1 FILE`)"
                    .to_owned(),
            );
        }
        if fits(&[body, b"\n".as_slice()].concat()) {
            return Some(
                "it verifies with a line break at the end of the body, which was lost".to_owned(),
            );
        }
        let declared = self
            .captured
            .header("content-length")?
            .parse::<usize>()
            .ok();
        let found = body.len();
        let declared = declared.filter(|declared| *declared != found)?;
        Some(format!(
            "content-length says {declared} bytes and the body has {found}: it is not the body \
             that was sent"
        ))
    }
}

fn wrong_kind_of_key(signatures: &str, keys: &[VerificationKey]) -> Option<String> {
    let all_of = |prefix: &str| signatures.split(' ').all(|one| one.starts_with(prefix));
    let public = |key: &VerificationKey| matches!(key, VerificationKey::Public(_));
    if all_of("v1a,") && !keys.iter().any(public) {
        let text = "it is an Ed25519 signature (v1a): check it with the public key, whpk_…";
        return Some(text.to_owned());
    }
    if all_of("v1,") && keys.iter().all(public) {
        let text = "it is an HMAC signature (v1): check it with the secret, whsec_… or hex";
        return Some(text.to_owned());
    }
    None
}

fn print(finding: &Finding) -> Result<(), CliError> {
    let look = Look::detect();
    let verdict = match (&finding.fit, finding.verified()) {
        (Ok(key), true) => look.paint(Tone::Good, &format!("verifies with secret {key}")),
        (Ok(_), false) => look.paint(Tone::Bad, "fits, but is not acceptable"),
        (Err(_), _) => look.paint(Tone::Bad, "does not verify"),
    };
    let signed_at = finding.signed_at.map_or(String::new(), |at| {
        let ignored = if finding.age_ignored {
            ", age ignored"
        } else {
            ""
        };
        format!("{}{ignored}", output::moment(at, finding.now))
    });
    output::line(&format!("{}: {verdict}", finding.header))?;
    let pairs = [
        ("  signed", signed_at),
        ("  problem", finding.problem().unwrap_or_default()),
        ("  hint", finding.hint.clone().unwrap_or_default()),
    ];
    output::fields(look, &pairs)
}

#[cfg(test)]
mod tests;
