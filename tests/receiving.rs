//! docs/receiving.md: its examples are the files of examples/receiving, and each takes what
//! Carillon signs and refuses what it did not, for the reason that it should.
//!
//! Python and Node.js must be there; Go and PHP are used when they are. The Rust example is
//! part of this test, and built by cargo as the example `verify`.

// All of this file is tests and their parts: what cannot be read is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;
use std::{env, fs};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use carillon::domain::signature::{SECRETS_MAX, Secret, Secrets, SigningKeys};
use carillon::domain::subscription::Signing;
use carillon::domain::timestamp::UnixMillis;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

#[allow(dead_code, reason = "its `main` is for the command line")]
#[path = "../examples/receiving/verify.rs"]
mod verify;

const EXAMPLES: [&str; 5] = [
    "verify.py",
    "verify.mjs",
    "verify.go",
    "verify.php",
    "verify.rs",
];
/// When the requests are signed, in Unix seconds.
const SIGNED: i64 = 1_772_368_200;
/// How far a timestamp may be from the clock, as the page says.
const TOLERANCE: i64 = 300;
const ID: &str = "msg_0123456789abcdef0123456789abcdef";
const BODY: &str =
    r#"{"type":"scan.finished","timestamp":"2026-03-01T12:30:00Z","data":{"n":1.10}}"#;

/// Of so many runs that one process does, one is done by a process of its own too.
const RUNS_EACH: usize = 25;
const PYTHON_DRIVER: &str = r#"
import base64, contextlib, io, json, sys, traceback
sys.path.insert(0, sys.argv[1])
import verify
runs, said = json.load(sys.stdin), []
for run in runs:
    sys.stdin = io.TextIOWrapper(io.BytesIO(base64.b64decode(run["input"])))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = verify.main(*run["arguments"])
        except Exception:
            code = traceback.print_exc()
    said.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(said))
"#;
const NODE_DRIVER: &str = r#"
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
const path = process.argv.at(-1);
process.argv.length = 1;
const { main } = await import(pathToFileURL(path));
const [log, error] = [console.log, console.error];
const said = JSON.parse(readFileSync(0, "utf8")).map(({ arguments: given, input }) => {
  let [code, out, err] = [null, "", ""];
  console.log = (line) => { out += `${line}\n`; };
  console.error = (line) => { err += `${line}\n`; };
  try {
    code = main(given, () => Buffer.from(input, "base64").toString("utf8"));
  } catch (thrown) {
    err += thrown.stack;
  }
  return [code, out, err];
});
[console.log, console.error] = [log, error];
console.log(JSON.stringify(said));
"#;

const NO_MATCH: &str = "no signature matches";
const STALE: &str = "timestamp outside tolerance";
const MALFORMED_SECRET: &str = "malformed secret";
const NOT_CAPTURED: &str = "not a captured request";

/// A request, who checks it with what, and what that is to say.
struct Case {
    name: String,
    format: &'static str,
    secret: String,
    /// What the example is told to be the time; `None` leaves it the clock.
    now: Option<i64>,
    input: Vec<u8>,
    /// The reasons it may give; none: it takes the request.
    reasons: Vec<String>,
}

/// What an example said.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    code: Option<i32>,
    out: String,
    err: String,
}

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn example(name: &str) -> PathBuf {
    file("examples/receiving").join(name)
}

fn secret(n: u8) -> Secret {
    Secret::new([n; 32])
}

fn whsec(n: u8) -> String {
    secret(n).to_whsec().to_string()
}

fn hex(n: u8) -> String {
    secret(n).to_hex().to_string()
}

/// Keys of a rotation: the first is the current one, the others sign too for a second more.
fn keys(secrets: &[u8], signing: Signing) -> SigningKeys {
    let until = UnixMillis((SIGNED + 1) * 1000);
    let secrets = Secrets {
        current: secret(secrets[0]),
        previous: secrets[1..].iter().map(|n| (secret(*n), until)).collect(),
    };
    SigningKeys::new(&secrets, signing)
}

/// The headers of a request as Carillon signs it, as a JSON object.
fn signed_by(keys: &SigningKeys, at: i64, body: &str) -> Value {
    let now = UnixMillis(at * 1000);
    json!({
        "content-type": "application/json",
        "webhook-id": ID,
        "webhook-timestamp": at.to_string(),
        "webhook-signature": keys.standard(ID, now, body.as_bytes()),
        "x-leicbit-signature": keys.leicbit(now, body.as_bytes()),
    })
}

fn signed(secrets: &[u8], body: &str) -> Value {
    signed_by(&keys(secrets, Signing::HmacSha256), SIGNED, body)
}

fn captured(headers: &Value, body: &str) -> Vec<u8> {
    json!({ "headers": headers, "body": body })
        .to_string()
        .into_bytes()
}

/// The cases of one format.
struct Cases {
    format: &'static str,
    /// The header that holds the signatures, and the one that holds the timestamp.
    signature: &'static str,
    timestamp: &'static str,
    /// The form of a secret that the format shows.
    show: fn(u8) -> String,
    all: Vec<Case>,
}

impl Cases {
    fn standard() -> Self {
        Self {
            format: "standard",
            signature: "webhook-signature",
            timestamp: "webhook-timestamp",
            show: whsec,
            all: Vec::new(),
        }
    }

    fn leicbit() -> Self {
        Self {
            format: "leicbit",
            signature: "x-leicbit-signature",
            timestamp: "x-leicbit-signature",
            show: hex,
            all: Vec::new(),
        }
    }

    fn add(&mut self, name: &str, secret: &str, input: Vec<u8>, reasons: &[&str]) -> &mut Case {
        self.all.push(Case {
            name: format!("{}: {name}", self.format),
            format: self.format,
            secret: secret.to_owned(),
            now: Some(SIGNED),
            input,
            reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
        });
        self.all.last_mut().unwrap()
    }

    fn takes(&mut self, name: &str, headers: &Value, body: &str) -> &mut Case {
        let secret = (self.show)(1);
        self.add(name, &secret, captured(headers, body), &[])
    }

    fn refuses(&mut self, name: &str, headers: &Value, body: &str, reason: &str) -> &mut Case {
        let secret = (self.show)(1);
        self.add(name, &secret, captured(headers, body), &[reason])
    }

    /// The same headers with another value of one; `null` takes it away.
    fn with(&self, headers: &Value, name: &str, value: Value) -> Value {
        let mut headers = headers.clone();
        if value.is_null() {
            headers.as_object_mut().unwrap().remove(name);
        } else {
            headers[name] = value;
        }
        headers
    }

    /// The value of the header that holds the signatures.
    fn signatures(&self, headers: &Value) -> String {
        headers[self.signature].as_str().unwrap().to_owned()
    }

    fn of_both(&mut self) {
        self.bodies();
        self.rotations();
        self.times();
        self.headers();
        self.secrets();
        self.garbage();
    }

    fn bodies(&mut self) {
        let long = format!(r#"{{"data":"{}"}}"#, "0123456789abcdef".repeat(20_000));
        let bodies = [
            ("plain", BODY),
            ("empty", ""),
            (
                "beyond ASCII",
                r#"{"name":"Müller 🔔 \u00fc","other":"例え"}"#,
            ),
            ("white space and zeros", " {\r\n\t\"a\" : \"\u{0}\" }\n"),
            ("long", &long),
        ];
        for (name, body) in bodies {
            let headers = signed(&[1], body);
            self.takes(&format!("the body is {name}"), &headers, body);
            let changed = format!("{body} ");
            let name = format!("the body is {name}, and another");
            self.refuses(&name, &headers, &changed, NO_MATCH);
        }
        let headers = signed(&[1], BODY);
        let rewritten = BODY.replace("1.10", "1.1");
        self.refuses("parsed and written again", &headers, &rewritten, NO_MATCH);
    }

    fn rotations(&mut self) {
        let during = signed(&[2, 1], BODY);
        self.takes("a rotation, by the one before", &during, BODY);
        self.takes("a rotation, by the new one", &during, BODY)
            .secret = (self.show)(2);
        self.refuses("a rotation, by a stranger", &during, BODY, NO_MATCH)
            .secret = (self.show)(3);
        let many: Vec<u8> = (1..=u8::try_from(SECRETS_MAX).unwrap()).rev().collect();
        self.takes("as many as can sign", &signed(&many, BODY), BODY);

        let rotated = keys(&[2, 1], Signing::HmacSha256);
        let after = signed_by(&rotated, SIGNED + 1, BODY);
        self.refuses("the overlap is over", &after, BODY, NO_MATCH);
        self.takes("the overlap is over, by the new one", &after, BODY)
            .secret = (self.show)(2);
    }

    fn times(&mut self) {
        let headers = signed(&[1], BODY);
        for away in [TOLERANCE, -TOLERANCE] {
            let name = format!("the clock is {away} s away");
            self.takes(&name, &headers, BODY).now = Some(SIGNED + away);
            let away = away + away.signum();
            let name = format!("the clock is {away} s away");
            self.refuses(&name, &headers, BODY, STALE).now = Some(SIGNED + away);
        }
        let seconds = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let now = i64::try_from(seconds).unwrap();
        let by_clock = keys(&[1], Signing::HmacSha256);
        let fresh = signed_by(&by_clock, now, BODY);
        self.takes("by the clock", &fresh, BODY).now = None;
        let old = signed_by(&by_clock, now - 2 * TOLERANCE, BODY);
        self.refuses("old by the clock", &old, BODY, STALE).now = None;

        let malformed = format!("malformed header {}", self.timestamp);
        let value = headers[self.timestamp].as_str().unwrap();
        let seconds = SIGNED.to_string();
        let odd = [
            "x",
            "-1",
            "1772368200.0",
            "+1772368200",
            " 1772368200",
            "1772368200\n",
            "0x69a3dc88",
            "1e9",
            "٣",
            "9999999999999",
            "99999999999999999999999999",
        ];
        for odd in odd {
            let value = json!(value.replace(&seconds, odd));
            let headers = self.with(&headers, self.timestamp, value);
            let name = format!("the timestamp is {odd:?}");
            self.refuses(&name, &headers, BODY, &malformed);
        }
        let value = json!(value.replace(&seconds, &(SIGNED + 1).to_string()));
        let headers = self.with(&headers, self.timestamp, value);
        self.refuses("dated anew", &headers, BODY, NO_MATCH);
    }

    fn headers(&mut self) {
        let headers = signed(&[1], BODY);
        let names = headers.as_object().unwrap().iter();
        let upper: serde_json::Map<_, _> = names
            .map(|(name, value)| (name.to_ascii_uppercase(), value.clone()))
            .collect();
        self.takes("names in upper case", &Value::Object(upper), BODY);

        let missing = format!("missing header {}", self.signature);
        for value in [Value::Null, json!(""), json!(7), json!(["v1,x"])] {
            let headers = self.with(&headers, self.signature, value.clone());
            let name = format!("the signature is {value}");
            self.refuses(&name, &headers, BODY, &missing);
        }
        self.refuses("there are no headers", &json!({}), BODY, {
            if self.format == "standard" {
                "missing header webhook-id"
            } else {
                &missing
            }
        });
    }

    fn secrets(&mut self) {
        let input = captured(&signed(&[1], BODY), BODY);
        let stranger = (self.show)(9);
        self.add("of another", &stranger, input.clone(), &[NO_MATCH]);
        let other_form = if self.format == "standard" {
            hex
        } else {
            whsec
        };
        let short = [
            format!("whsec_{}", BASE64.encode([1; 31])),
            "01".repeat(31),
            format!("whpk_{}", BASE64.encode([1; 33])),
        ];
        let odd = [
            "",
            "whsec_",
            "whpk_",
            "whsec_%%%",
            "ü",
            "\n",
            "whsec_AQEB\n",
        ];
        let odd = odd.iter().map(|odd| (*odd).to_owned());
        let near = [other_form(1), format!(" {}", (self.show)(1))];
        let unusual = odd.chain(short).chain(near);
        for unusual in unusual {
            let name = format!("the secret is {unusual:?}");
            self.add(&name, &unusual, input.clone(), &[MALFORMED_SECRET]);
        }
    }

    fn garbage(&mut self) {
        let deep = "[".repeat(100_000);
        let garbage: [&[u8]; 12] = [
            b"",
            b"{",
            b"null",
            b"7",
            b"[]",
            b"{}",
            b"\xff\xfe",
            deep.as_bytes(),
            br#"{"headers":null,"body":""}"#,
            br#"{"headers":{}}"#,
            br#"{"headers":{},"body":null}"#,
            br#"{"headers":{},"body":7}"#,
        ];
        let secret = (self.show)(1);
        for garbage in garbage {
            let shown = String::from_utf8_lossy(&garbage[..garbage.len().min(40)]);
            let name = format!("the input is {shown:?}");
            self.add(&name, &secret, garbage.to_vec(), &[NOT_CAPTURED]);
        }
        // Some readers of JSON refuse these, others read something else.
        let whole = String::from_utf8(captured(&signed(&[1], BODY), BODY)).unwrap();
        let half = whole.replacen("scan", r"\ud800", 1);
        let reasons = [NOT_CAPTURED, NO_MATCH];
        self.add("half of a surrogate pair", &secret, half.into(), &reasons);
        let mut broken = whole.into_bytes();
        let at = broken.windows(4).position(|four| four == b"scan").unwrap();
        broken[at] = 0xff;
        self.add("not UTF-8", &secret, broken, &reasons);
    }

    /// What the signatures of the standard format may be instead.
    fn of_standard(&mut self) {
        let headers = signed(&[1], BODY);
        for name in ["webhook-id", "webhook-timestamp"] {
            for value in [Value::Null, json!("")] {
                let case = format!("{name} is {value}");
                let headers = self.with(&headers, name, value);
                let reason = format!("missing header {name}");
                self.refuses(&case, &headers, BODY, &reason);
            }
        }
        let other = self.with(
            &headers,
            "webhook-id",
            json!("msg_ffffffffffffffffffffffffff"),
        );
        self.refuses("of another message", &other, BODY, NO_MATCH);

        let good = self.signatures(&headers);
        let (_, encoded) = good.split_once(',').unwrap();
        let among = format!("v2,{encoded} v1,AAAA  v1 {good} v1a,{encoded}");
        let among = self.with(&headers, self.signature, json!(among));
        self.takes("among others", &among, BODY);
        let raw = BASE64.decode(encoded).unwrap();
        self.refuse_signatures(&[
            encoded.to_owned(),
            "v1".to_owned(),
            "v1,".to_owned(),
            ",".to_owned(),
            " ".to_owned(),
            format!("v1,{}", &encoded[..20]),
            format!("v1,{encoded}{encoded}"),
            format!("v1,{}", BASE64.encode(&raw[..16])),
            format!("v1,{}", hex::encode(&raw)),
            format!("v2,{encoded}"),
            format!("v1a,{encoded}"),
            format!("V1,{encoded}"),
            format!("v1={encoded}"),
            "v1,ü".to_owned(),
            "v1,\u{0}".to_owned(),
            "v1,%%% ".repeat(5_000),
        ]);
    }

    /// What `X-Leicbit-Signature` may be instead.
    fn of_leicbit(&mut self) {
        let headers = signed(&[1], BODY);
        let good = self.signatures(&headers);
        let (first, digits) = good.split_once(",v1=").unwrap();
        let among = format!("{first},v0={digits},,v1=,v1=00,v1={digits},x");
        let among = self.with(&headers, self.signature, json!(among));
        self.takes("among others", &among, BODY);
        let malformed = "malformed header x-leicbit-signature";
        let values = [
            digits.to_owned(),
            "t=".to_owned(),
            format!("t=,v1={digits}"),
            format!("v1={digits},{first}"),
            format!("T{},v1={digits}", &first[1..]),
            ",".repeat(5_000),
            "ü".to_owned(),
        ];
        for value in values {
            let name = format!("the signature is {value:.60}");
            let headers = self.with(&headers, self.signature, json!(value));
            self.refuses(&name, &headers, BODY, malformed);
        }
        // Keyed with the bytes that the hex text stands for: not what Carillon does.
        let mac = Hmac::<Sha256>::new_from_slice(&[1; 32]).unwrap();
        let mac = mac.chain_update(format!("{SIGNED}{BODY}")).finalize();
        self.refuse_signatures(&[
            first.to_owned(),
            format!("{first},"),
            format!("{first},v1="),
            format!("{first},v1={}", &digits[..32]),
            format!("{first},v1={digits}00"),
            format!("{first},v2={digits}"),
            format!("{first},{digits}"),
            format!("{first},v1=ü"),
            format!("{first},v1={}", hex::encode(mac.into_bytes())),
            format!("{first}{}", ",v1=00".repeat(5_000)),
        ]);
    }

    fn refuse_signatures(&mut self, values: &[String]) {
        let headers = signed(&[1], BODY);
        for value in values {
            let name = format!("the signature is {value:.60}");
            let headers = self.with(&headers, self.signature, json!(value));
            self.refuses(&name, &headers, BODY, NO_MATCH);
        }
    }

    /// Key pairs: `v1a`, checked with the public key.
    fn of_key_pairs(&mut self) {
        let public = |n: u8| secret(n).public_key();
        let headers = signed_by(&keys(&[1], Signing::Ed25519), SIGNED, BODY);
        self.takes("a key pair", &headers, BODY).secret = public(1);
        let unlike = self.refuses("a key pair, another body", &headers, "{}", NO_MATCH);
        unlike.secret = public(1);
        let other = self.refuses("a key pair of another", &headers, BODY, NO_MATCH);
        other.secret = public(2);
        let old = self.refuses("a key pair, long ago", &headers, BODY, STALE);
        (old.secret, old.now) = (public(1), Some(SIGNED + TOLERANCE + 1));
        let during = signed_by(&keys(&[2, 1], Signing::Ed25519), SIGNED, BODY);
        for n in [1, 2] {
            let name = format!("a rotation of key pairs, by the one of {n}");
            self.takes(&name, &during, BODY).secret = public(n);
        }
        let good = self.signatures(&headers);
        let other_version = format!("v2a,{}", &good[4..]);
        let values = [
            &good[..40],
            &good[4..],
            &other_version,
            "v1a,",
            "v1a,ü",
            "v1a,%%%",
        ];
        for value in values {
            let name = format!("the signature of a key pair is {value:.60}");
            let headers = self.with(&headers, self.signature, json!(value));
            self.refuses(&name, &headers, BODY, NO_MATCH).secret = public(1);
        }
        // A public key is known to all, so an HMAC made with it shows nothing.
        let bytes = BASE64.decode(&public(1)["whpk_".len()..]).unwrap();
        let known = Secrets::only(Secret::new(bytes.try_into().unwrap()));
        let forged = signed_by(&SigningKeys::new(&known, Signing::HmacSha256), SIGNED, BODY);
        let case = self.refuses("an HMAC with a public key", &forged, BODY, NO_MATCH);
        case.secret = public(1);
    }
}

/// Every case; those of key pairs where an example can check them.
fn cases(with_key_pairs: bool) -> Vec<Case> {
    let (mut standard, mut leicbit) = (Cases::standard(), Cases::leicbit());
    standard.of_both();
    standard.of_standard();
    if with_key_pairs {
        standard.of_key_pairs();
    }
    leicbit.of_both();
    leicbit.of_leicbit();
    standard.all.into_iter().chain(leicbit.all).collect()
}

/// One run of an example: its arguments, and what comes on its standard input.
type Run = (Vec<String>, Vec<u8>);

/// Has an example judge every case, and compares.
fn judge(language: &str, with_key_pairs: bool, example: impl Fn(&[Run]) -> Vec<Verdict>) {
    let cases = cases(with_key_pairs);
    let taken = cases.iter().filter(|case| case.reasons.is_empty()).count();
    assert!(taken > 20 && cases.len() - taken > 120, "{}", cases.len());
    let of_case = |case: &Case| {
        let mut arguments = vec![case.format.to_owned(), case.secret.clone()];
        arguments.extend(case.now.map(|now| now.to_string()));
        (arguments, case.input.clone())
    };
    let usages: [&[&str]; 5] = [
        &[],
        &["standard"],
        &["constructor", "whsec_x"],
        &["leicbit", "x", "soon"],
        &["leicbit", "x", "1", "2"],
    ];
    let of_usage = |usage: &&[&str]| {
        let arguments = usage.iter().map(|text| (*text).to_owned());
        (arguments.collect(), b"{}".to_vec())
    };
    let runs: Vec<Run> = cases.iter().map(of_case).collect();
    let runs: Vec<Run> = runs
        .into_iter()
        .chain(usages.iter().map(of_usage))
        .collect();
    let verdicts = example(&runs);
    assert_eq!(verdicts.len(), runs.len());
    let (of_cases, of_usages) = verdicts.split_at(cases.len());

    let mut wrong = Vec::new();
    for (case, verdict) in cases.iter().zip(of_cases) {
        let verdict_is = |code, out: &str, err: &str| {
            verdict.code == Some(code) && verdict.out == out && verdict.err == err
        };
        let right = match case.reasons.as_slice() {
            [] => verdict_is(0, "valid", ""),
            reasons => reasons.iter().any(|reason| verdict_is(1, "", reason)),
        };
        if !right {
            let (name, expected) = (&case.name, &case.reasons);
            wrong.push(format!("{name}: expected {expected:?}, found {verdict:?}"));
        }
    }
    for (usage, verdict) in usages.iter().zip(of_usages) {
        if verdict.code != Some(2) || !verdict.err.contains("standard|leicbit SECRET") {
            wrong.push(format!("{usage:?}: expected the usage, found {verdict:?}"));
        }
    }
    let count = wrong.len();
    assert!(
        wrong.is_empty(),
        "{language}: {count} wrong:\n{}",
        wrong.join("\n")
    );
}

/// Runs a program once for each run.
fn run_each(program: &[OsString], runs: &[Run]) -> Vec<Verdict> {
    let run = |(arguments, input): &Run| run(program, arguments, input);
    runs.iter().map(run).collect()
}

/// Has one process of a language that starts slowly do all runs, by the `main` of the example:
/// `driver` reads them from its standard input. Every so often the example itself has to say the same.
fn drive(driver: &[OsString], program: &[OsString], runs: &[Run]) -> Vec<Verdict> {
    let described = runs
        .iter()
        .map(|(arguments, input)| json!({ "arguments": arguments, "input": BASE64.encode(input) }));
    let described = Value::from_iter(described).to_string();
    let done = run(driver, &[], described.as_bytes());
    assert_eq!(done.code, Some(0), "{}", done.err);
    let said: Vec<(Option<i32>, String, String)> = serde_json::from_str(&done.out).unwrap();
    let verdict = |(code, out, err): (_, String, String)| Verdict {
        code,
        out: out.trim_end().to_owned(),
        err: err.trim_end().to_owned(),
    };
    let verdicts: Vec<Verdict> = said.into_iter().map(verdict).collect();
    for (i, (arguments, input)) in runs.iter().enumerate().step_by(RUNS_EACH) {
        assert_eq!(verdicts[i], run(program, arguments, input), "{arguments:?}");
    }
    verdicts
}

/// Runs a program with what came on its standard input.
fn run(program: &[OsString], arguments: &[String], input: &[u8]) -> Verdict {
    let mut child = Command::new(&program[0])
        .args(&program[1..])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that ends before it has read all, as with wrong usage, is judged by what it says.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    Verdict {
        code: output.status.code(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

/// Whether `program` is there and ends well.
fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[allow(
    clippy::explicit_write,
    reason = "told even when the test passes: the harness keeps what `eprintln!` says to itself"
)]
fn left_out(what: &str, why: &str) {
    writeln!(io::stderr(), "left out: {what}, as {why}").unwrap();
}

#[test]
fn the_page_shows_the_examples_as_they_are() {
    let page = fs::read_to_string(file("docs/receiving.md")).unwrap();
    let marks = page.matches("<!-- example: ").count();
    assert_eq!(marks, EXAMPLES.len(), "an example is not run here");
    for name in EXAMPLES {
        let mark = format!("<!-- example: examples/receiving/{name} -->\n```");
        let mut found = page.split(&mark).skip(1);
        let block = found.next().unwrap_or_else(|| panic!("no {mark}"));
        let (_language, block) = block.split_once('\n').unwrap();
        let (shown, _) = block.split_once("\n```\n").unwrap();
        let text = fs::read_to_string(example(name)).unwrap();
        let same = format!("{shown}\n") == text;
        assert!(
            same,
            "copy examples/receiving/{name} into docs/receiving.md"
        );
    }
}

#[test]
fn the_python_example() {
    // The interpreter itself: what `python3` starts may be a script that takes longer than it.
    let found = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output();
    let found = found.expect("the Python example needs `python3` to be tested");
    let python = String::from_utf8(found.stdout).unwrap().trim().to_owned();
    let with_key_pairs = works(&python, &["-c", "import cryptography"]);
    if !with_key_pairs {
        left_out("Ed25519 in Python", "`cryptography` is not installed");
    }
    // Nothing is written beside the example.
    let program = [
        python.clone().into(),
        "-B".into(),
        example("verify.py").into(),
    ];
    let folder = file("examples/receiving").into();
    let driver = [
        python.into(),
        "-B".into(),
        "-c".into(),
        PYTHON_DRIVER.into(),
        folder,
    ];
    judge("Python", with_key_pairs, |runs| {
        drive(&driver, &program, runs)
    });
}

#[test]
fn the_node_example() {
    let found = works("node", &["--version"]);
    assert!(found, "the Node.js example needs `node` to be tested");
    let program = ["node".into(), example("verify.mjs").into()];
    let driver = [
        "node".into(),
        "--input-type=module".into(),
        "--eval".into(),
        NODE_DRIVER.into(),
        example("verify.mjs").into(),
    ];
    judge("Node.js", true, |runs| drive(&driver, &program, runs));
}

#[test]
fn the_go_example() {
    if !works("go", &["version"]) {
        return left_out("the Go example", "there is no `go`");
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("receiving-go");
    let program = folder.join("verify");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(example("verify.go"))
        .env("GOCACHE", folder.join("cache"))
        .env("GOPATH", folder.join("path"))
        .env("GO111MODULE", "off")
        .env("GOTOOLCHAIN", "local")
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{err}");
    let program = [program.into()];
    judge("Go", true, |runs| run_each(&program, runs));
}

#[test]
fn the_php_example() {
    if !works("php", &["--version"]) {
        return left_out("the PHP example", "there is no `php`");
    }
    let sodium = "exit(extension_loaded('sodium') ? 0 : 1);";
    let with_key_pairs = works("php", &["-r", sodium]);
    if !with_key_pairs {
        left_out("Ed25519 in PHP", "the extension sodium is not installed");
    }
    let program = ["php".into(), example("verify.php").into()];
    judge("PHP", with_key_pairs, |runs| run_each(&program, runs));
}

#[test]
fn the_rust_example() {
    let clock = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let run = |(arguments, input): &Run| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (code, out, err) = match verify::run(&arguments, input, clock) {
            Ok(()) => (0, "valid", String::new()),
            Err((code, reason)) => (i32::from(code), "", reason),
        };
        Verdict {
            code: Some(code),
            out: out.to_owned(),
            err,
        }
    };
    judge("Rust", true, |runs| runs.iter().map(run).collect());
}
