//! What must not be connected to, and is not: addresses in the URL, redirects, proxies.

use carillon::domain::address::EgressRule;

use crate::endpoints::{Untouched, answering};
use crate::harness::{AMPLE, answer, blocked_by, local, post, settings, transport};

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let elsewhere = Untouched::bind();
    for status in [301, 302, 307, 308] {
        let (address, count) = answering(format!(
            "HTTP/1.1 {status} Gone\r\nlocation: http://127.0.0.1:{}/\r\ncontent-length: 0\r\n\r\n",
            elsewhere.port()
        ))
        .await;
        let response = answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
        assert_eq!(response.status, status);
        assert_eq!(count.connections(), 1);
    }
    elsewhere.assert();
}

/// The environment belongs to the process, so this test runs itself in another one that
/// was started with proxies in its environment.
#[test]
fn proxies_of_the_environment_are_not_used() {
    const INNER: &str = "CARILLON_TEST_INNER";
    if std::env::var_os(INNER).is_none() {
        let proxy = Untouched::bind();
        let url = format!("http://127.0.0.1:{}", proxy.port());
        let mut inner = std::process::Command::new(std::env::current_exe().unwrap());
        inner.args([
            "--exact",
            "blocked::proxies_of_the_environment_are_not_used",
        ]);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            inner.env(name, &url).env(name.to_lowercase(), &url);
        }
        inner.env_remove("NO_PROXY").env_remove("no_proxy");
        let output = inner.env(INNER, "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let ran = String::from_utf8_lossy(&output.stdout);
        assert!(ran.contains("1 passed"), "{ran}");
        return proxy.assert();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (address, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
    });
}

#[tokio::test]
async fn addresses_in_the_url_are_blocked_in_every_spelling() {
    let inside = Untouched::bind();
    let port = inside.port();
    let default = transport(settings(&[]));
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "localhost.",
    ] {
        let exchange = post(&default, &format!("http://{host}:{port}/"), AMPLE).await;
        assert_eq!(blocked_by(&exchange), EgressRule::Loopback, "{host}");
        assert_eq!(exchange.timing.connect, None);
    }
    inside.assert();
}

#[tokio::test]
async fn a_denied_network_is_stronger_than_a_permitted_one() {
    let inside = Untouched::bind();
    let mut settings = settings(&["127.0.0.0/8"]);
    settings.rules.deny = vec!["127.0.0.1/32".parse().unwrap()];
    let url = format!("http://127.0.0.1:{}/", inside.port());
    let exchange = post(&transport(settings), &url, AMPLE).await;
    assert_eq!(blocked_by(&exchange), EgressRule::Denied);
    inside.assert();
}
