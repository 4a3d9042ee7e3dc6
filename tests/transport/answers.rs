//! Answers over HTTP/1.1: whole, late, broken, too long, and what is no HTTP at all.

use std::time::{Duration, Instant};

use carillon::domain::outcome::Failure;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::endpoints::{answering, endpoint, read_request};
use crate::harness::{AMPLE, GRACE, SHORT, answer, failure, local, post};

#[tokio::test]
async fn an_answer_comes_back_whole() {
    let (sent, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let (address, _) = endpoint(move |mut stream, _| {
        let sent = sent.clone();
        async move {
            sent.send(read_request(&mut stream).await.unwrap()).unwrap();
            let answer = b"HTTP/1.1 202 Accepted\r\nX-Seen: yes\r\ncontent-length: 5\r\n\r\nhello";
            stream.write_all(answer).await.unwrap();
            read_request(&mut stream).await;
        }
    })
    .await;
    let exchange = post(&local(), &format!("http://{address}/in?k=s3cret"), AMPLE).await;
    let timing = exchange.timing;
    let response = answer(exchange);
    assert_eq!(response.status, 202);
    assert_eq!(response.body, "hello");
    assert!(!response.body_cut);
    assert!(response.headers.contains(&("x-seen".into(), "yes".into())));
    assert_eq!(timing.dns, None);
    assert!(timing.connect.unwrap() <= timing.first_byte.unwrap());
    assert!(timing.first_byte.unwrap() <= timing.total);

    let request = String::from_utf8(seen.recv().await.unwrap()).unwrap();
    assert!(
        request.starts_with("POST /in?k=s3cret HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains("\r\ncontent-type: application/json\r\n"));
    assert!(request.contains("\r\nuser-agent: Carillon/test\r\n"));
    assert!(!request.contains("accept-encoding"));
    assert!(!request.contains("referer"));
    assert!(request.ends_with("\r\n\r\n{}"));
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let (address, count) = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let local = local();
    for number in 1..=50 {
        let exchange = post(&local, &format!("http://{address}/"), AMPLE).await;
        assert_eq!(exchange.timing.connect.is_some(), number == 1);
        assert_eq!(answer(exchange).body, "ok");
    }
    assert_eq!(count.connections(), 1);
}

#[tokio::test]
async fn no_answer_is_a_timeout() {
    let (address, _) = answering("").await;
    let begun = Instant::now();
    let exchange = post(&local(), &format!("http://{address}/?k=s3cret"), SHORT).await;
    assert_eq!(failure(&exchange), Failure::Timeout);
    assert!(exchange.detail.contains("400ms"), "{}", exchange.detail);
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < SHORT + GRACE);
    assert!(exchange.timing.connect.is_some());
    assert_eq!(exchange.timing.first_byte, None);
}

#[tokio::test]
async fn a_status_line_that_drips_is_a_timeout() {
    let (address, _) = endpoint(|mut stream, _| async move {
        read_request(&mut stream).await;
        let mut drip = tokio::time::interval(Duration::from_millis(50));
        for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" {
            drip.tick().await;
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    })
    .await;
    let begun = Instant::now();
    let exchange = post(&local(), &format!("http://{address}/"), SHORT).await;
    assert_eq!(failure(&exchange), Failure::Timeout);
    assert!(begun.elapsed() < SHORT + GRACE);
}

#[tokio::test]
async fn a_body_that_drips_leaves_the_answer() {
    let (address, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").await;
    let url = format!("http://{address}/");
    let begun = Instant::now();
    let response = answer(post(&local(), &url, SHORT).await);
    assert_eq!((response.status, response.body_cut), (200, true));
    assert_eq!(response.body, "abc");
    assert!(begun.elapsed() < SHORT + GRACE);

    // Its own limit holds where the whole timeout is far.
    let begun = Instant::now();
    assert!(answer(post(&local(), &url, AMPLE).await).body_cut);
    assert!(begun.elapsed() < AMPLE / 2);
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_the_answer() {
    let (address, _) = endpoint(|mut stream, _| async move {
        read_request(&mut stream).await;
        let part = b"HTTP/1.1 500 Oops\r\ncontent-length: 9\r\n\r\nabc";
        stream.write_all(part).await.unwrap();
    })
    .await;
    let response = answer(post(&local(), &format!("http://{address}/"), AMPLE).await);
    assert_eq!((response.status, response.body_cut), (500, true));
    assert_eq!(response.body, "abc");
}

#[tokio::test]
async fn a_connection_that_ends_is_closed() {
    let (at_once, _) = endpoint(|stream, _| async move { drop(stream) }).await;
    let (after_reading, _) = endpoint(|mut stream, _| async move {
        read_request(&mut stream).await;
    })
    .await;
    let (reset, _) = endpoint(|mut stream, _| async move {
        read_request(&mut stream).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let (in_the_head, _) = endpoint(|mut stream, _| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-a: ").await.unwrap();
    })
    .await;
    for address in [at_once, after_reading, reset, in_the_head] {
        let exchange = post(&local(), &format!("http://{address}/?k=s3cret"), AMPLE).await;
        assert_eq!(failure(&exchange), Failure::Closed, "{}", exchange.detail);
    }
}

#[tokio::test]
async fn nobody_listening_is_refused() {
    // A port that is taken, and where nobody listens.
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = taken.local_addr().unwrap().port();
    let exchange = post(
        &local(),
        &format!("http://127.0.0.1:{closed}/?k=s3cret"),
        AMPLE,
    )
    .await;
    assert_eq!(failure(&exchange), Failure::Refused);
}
