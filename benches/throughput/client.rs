//! The bare client: a process that posts the same bodies, and does nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::ensure;
use bytes::Bytes;
use carillon::pipeline::send::USER_AGENT;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinSet;

use crate::load::{IN_FLIGHT_PER_ENDPOINT, Load, delivered_body, path};
use crate::process::{Process, when_told};

/// What the bare client is to do.
pub struct Job {
    /// The sink's URL.
    pub url: String,
    /// To how many of its paths.
    pub endpoints: u32,
    /// Requests in all.
    pub deliveries: u64,
}

/// Is the bare client.
pub async fn run(job: Job) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    when_told(post_all(&client, &job)).await
}

async fn post_all(client: &reqwest::Client, job: &Job) -> anyhow::Result<()> {
    let headers = headers()?;
    let body = Bytes::from(delivered_body());
    let mut loops = JoinSet::new();
    for endpoint in 0..job.endpoints {
        let url: reqwest::Url = format!("{}{}", job.url, path(endpoint)).parse()?;
        let left = Arc::new(AtomicU64::new(job.deliveries / u64::from(job.endpoints)));
        for _ in 0..IN_FLIGHT_PER_ENDPOINT {
            let (client, url, left) = (client.clone(), url.clone(), Arc::clone(&left));
            let (headers, body) = (headers.clone(), body.clone());
            loops.spawn(async move {
                while take_one(&left) {
                    let request = client.post(url.clone()).headers(headers.clone());
                    let response = request.body(body.clone()).send().await?;
                    ensure!(response.status() == 200, "{}", response.status());
                    // Read to its end, so that the connection is used again.
                    response.bytes().await?;
                }
                Ok(())
            });
        }
    }
    while let Some(ended) = loops.join_next().await {
        ended??;
    }
    Ok(())
}

fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
        .is_ok()
}

/// Headers with the names and sizes of a delivery's.
fn headers() -> anyhow::Result<HeaderMap> {
    let id = format!("msg_{}", "0".repeat(26));
    let signature = format!("v1,{}=", "0".repeat(43));
    let headers = [
        ("content-type", "application/json"),
        ("user-agent", USER_AGENT),
        ("webhook-id", &id),
        ("webhook-timestamp", "1700000000"),
        ("webhook-signature", &signature),
    ];
    let header = |(name, value): (&'static str, &str)| {
        Ok((HeaderName::from_static(name), HeaderValue::from_str(value)?))
    };
    headers.into_iter().map(header).collect()
}

/// Starts one, in a process of its own, that is ready to put `load` on the sink at `url`.
pub async fn start(load: &Load, url: &str) -> anyhow::Result<Process> {
    let (endpoints, deliveries) = (load.fan_out.to_string(), load.deliveries().to_string());
    let args = [
        "--client",
        url,
        "--endpoints",
        &endpoints,
        "--deliveries",
        &deliveries,
    ];
    let mut process = Process::start_self("the bare client", &args.map(str::to_owned))?;
    process.ready().await?;
    Ok(process)
}
