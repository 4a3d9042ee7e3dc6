//! `carillon listen`: a receiver that checks signatures, prints what comes in, and
//! misbehaves on request.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::StatusCode;
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::mpsc;

use super::output::Look;
use super::receiver::{
    Behaviour, Counts, Received, Receiver, ReceiverSettings, Reply, TlsIdentity,
};
use super::{CliError, Globals, args, output, verify};

mod print;

use print::Printer;

/// Requests that wait to be printed; what comes on top is counted and not printed.
const WAITING_MAX: usize = 1024;

/// Receive webhooks, check their signatures, print them
///
/// Runs until Ctrl-C, or until --count requests came in.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  carillon listen --secret whsec_…
  carillon listen --status 503 --delay 2s        an endpoint in trouble
  carillon listen --fail-rate 0.3 --quiet        one request in three gets a 500
  carillon listen --tls-self-signed              for format leicbit, which needs https")]
pub struct Args {
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    pub listen: SocketAddr,
    /// A secret (whsec_… or 64 hex digits) or public key (whpk_…); may be repeated
    #[arg(long, value_name = "SECRET", value_delimiter = ',')]
    #[arg(env = "CARILLON_SECRET", hide_env_values = true)]
    pub secret: Vec<SecretString>,
    /// How far a signature's timestamp may be from the clock, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub tolerance: u64,
    /// Exit after so many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Answer with this status
    #[arg(long, default_value = "200", value_parser = status, help_heading = "Behaviour")]
    pub status: StatusCode,
    /// Wait so long before answering, such as 2s
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "0s",
        help_heading = "Behaviour"
    )]
    #[arg(value_parser = args::duration)]
    pub delay: Duration,
    /// Answer this share of requests with 500, at random: 0 to 1
    #[arg(
        long,
        value_name = "SHARE",
        default_value = "0",
        help_heading = "Behaviour"
    )]
    #[arg(value_parser = share)]
    pub fail_rate: f64,

    /// Serve HTTPS with this certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "TLS")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "TLS")]
    pub tls_key: Option<PathBuf>,
    /// Serve HTTPS with a new certificate; the one to trust (`egress.ca_file`) is written
    /// to FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    #[arg(
        default_missing_value = "carillon-listen-ca.pem",
        conflicts_with = "tls_cert"
    )]
    #[arg(help_heading = "TLS")]
    pub tls_self_signed: Option<PathBuf>,

    /// Print bodies in full
    #[arg(long, conflicts_with = "quiet", help_heading = "Output")]
    pub body: bool,
    /// Print nothing but the counts at the end
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,
}

fn status(text: &str) -> Result<StatusCode, String> {
    let code = text
        .parse::<u16>()
        .ok()
        .filter(|code| (200..600).contains(code));
    code.and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| format!("expected a status from 200 to 599, found `{text}`"))
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| format!("expected a number from 0 to 1, found `{text}`"))
}

/// Receives until it is told to stop, and prints.
///
/// # Errors
/// When the address cannot be listened on, or a secret or certificate is not usable.
pub async fn run(args: Args, globals: &Globals) -> Result<(), CliError> {
    let tls = tls_identity(&args)?;
    let (sender, requests) = mpsc::channel(WAITING_MAX);
    let left_out = Arc::new(AtomicU64::new(0));
    let mut requests = Requests {
        channel: requests,
        left_out: Arc::clone(&left_out),
    };
    let settings = ReceiverSettings {
        listen: args.listen,
        tls,
        keys: verify::keys(&args.secret)?,
        tolerance_s: args.tolerance,
        behaviour: Behaviour::Steady {
            status: args.status,
            delay: args.delay,
            fail_rate: args.fail_rate,
        },
        observer: Some(Arc::new(move |received, reply: &Reply| {
            // A reader that lags does not slow the endpoint; the counts stay right.
            if sender.try_send((received, reply.status)).is_err() {
                left_out.fetch_add(1, Relaxed);
            }
        })),
        ..ReceiverSettings::default()
    };
    let receiver = Receiver::start(settings)
        .await
        .map_err(|error| CliError::io(&format!("cannot listen on {}", args.listen), &error))?;
    greet(&receiver, &args);
    let printed = print_until_told(&mut requests, &args, globals.json).await;
    let counts = receiver.stop().await;
    printed?;
    let left_out = requests.left_out.load(Relaxed);
    if left_out > 0 && !args.quiet {
        output::note(&format!("{left_out} of them came too fast to be printed"));
    }
    summary(&counts, &args, globals.json)
}

fn tls_identity(args: &Args) -> Result<Option<TlsIdentity>, CliError> {
    if let (Some(certificates), Some(key)) = (&args.tls_cert, &args.tls_key) {
        let identity = TlsIdentity::from_pem_files(certificates, key);
        return identity
            .map(Some)
            .map_err(|error| CliError::Failed(format!("--tls-cert, --tls-key: {error}")));
    }
    let Some(path) = &args.tls_self_signed else {
        return Ok(None);
    };
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    let ip = args.listen.ip();
    if !ip.is_loopback() && !ip.is_unspecified() {
        names.push(ip.to_string());
    }
    let failed = |error| CliError::io("--tls-self-signed", &error);
    let (identity, trusted) = TlsIdentity::self_signed(names).map_err(failed)?;
    std::fs::write(path, pem(&trusted))
        .map_err(|error| CliError::io(&path.display().to_string(), &error))?;
    let path = std::path::absolute(path).unwrap_or_else(|_| Path::new(path).to_owned());
    output::note(&format!(
        "certificate to trust: {path}\n  CARILLON_EGRESS__CA_FILE={path} carillon serve",
        path = path.display()
    ));
    Ok(Some(identity))
}

/// A certificate in PEM (RFC 7468).
pub fn pem(der: &[u8]) -> String {
    let encoded = BASE64.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: every place is between characters.
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text + "-----END CERTIFICATE-----\n"
}

fn greet(receiver: &Receiver, args: &Args) {
    let checks = match args.secret.len() {
        0 => "signatures are not checked (--secret)".to_owned(),
        n => format!("checking with {}", output::count(n as u64, "secret")),
    };
    output::note(&format!("listening on {}; {checks}", receiver.url()));
    if receiver.local_addr().ip().is_loopback() {
        output::note(
            "Carillon only delivers here when egress.allow has this address: \
             CARILLON_EGRESS__ALLOW='[\"127.0.0.0/8\"]'",
        );
    }
}

/// Requests to print, and how many found no room among them.
struct Requests {
    channel: mpsc::Receiver<(Received, StatusCode)>,
    left_out: Arc<AtomicU64>,
}

impl Requests {
    /// Whether `count` requests came in, of which `seen` were taken out here.
    fn reached(&self, count: Option<u64>, seen: u64) -> bool {
        let left_out = self.left_out.load(Relaxed);
        count.is_some_and(|count| {
            seen >= count || (seen + left_out >= count && self.channel.is_empty())
        })
    }
}

async fn print_until_told(
    requests: &mut Requests,
    args: &Args,
    as_json: bool,
) -> Result<(), CliError> {
    let mut printer = Printer::new(Look::detect(), args.body);
    let mut seen = 0;
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    while !requests.reached(args.count, seen) {
        let (received, status) = tokio::select! {
            request = requests.channel.recv() => match request {
                Some(request) => request,
                None => return Ok(()),
            },
            _ = &mut stop => return Ok(()),
        };
        seen += 1;
        let resend = printer.remember(&received);
        if args.quiet {
            continue;
        }
        if as_json {
            let document = print::json_line(&received, status, resend);
            output::line(&document.to_string())?;
        } else {
            output::write(printer.text(&received, status, resend).as_bytes())?;
        }
    }
    Ok(())
}

fn summary(counts: &Counts, args: &Args, as_json: bool) -> Result<(), CliError> {
    if as_json {
        return output::line(
            &json!({
                "requests": counts.requests,
                "acknowledged": counts.acknowledged,
                "verified": counts.verified,
                "unverified": counts.unverified,
                "body_bytes": counts.body_bytes,
            })
            .to_string(),
        );
    }
    let mut text = format!(
        "{} received, {} answered with 2xx",
        output::count(counts.requests, "request"),
        counts.acknowledged
    );
    if !args.secret.is_empty() {
        let Counts {
            verified,
            unverified,
            ..
        } = counts;
        text.push_str(&format!(", {verified} verified, {unverified} not"));
    }
    output::line(&text)
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn the_certificate_to_trust_is_written_as_pem() {
        let (_, trusted) = TlsIdentity::self_signed(["localhost"]).unwrap();
        let read = CertificateDer::from_pem_slice(pem(&trusted).as_bytes()).unwrap();
        assert_eq!(read, trusted);
    }

    #[test]
    fn status_and_share_have_ranges() {
        assert_eq!(status("503"), Ok(StatusCode::SERVICE_UNAVAILABLE));
        assert!(
            ["0", "100", "600", "x"]
                .iter()
                .all(|text| status(text).is_err())
        );
        assert_eq!(share("0.3"), Ok(0.3));
        assert!(
            ["-1", "1.1", "NaN", ""]
                .iter()
                .all(|text| share(text).is_err())
        );
    }
}
