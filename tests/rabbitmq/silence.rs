//! What RabbitMQ does not say: a queue is deleted, and its consumer is not told.

use std::io;
use std::net::SocketAddr;

use carillon::ports::Parcel;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::harness::{
    PATIENCE, Place, event, number_of, put_events, put_patiently, take_events, until,
};
use crate::outages::address;

/// Class and method of `basic.cancel` (AMQP 0-9-1).
const BASIC_CANCEL: [u8; 4] = [0, 60, 0, 30];
/// A frame's type, channel and size; one octet ends it (AMQP 0-9-1, section 2.3.5).
const FRAME_HEAD_BYTES: usize = 7;
const METHOD_FRAME: u8 = 1;

/// Carries connections to RabbitMQ, and keeps to itself that a consumer is cancelled: it only
/// counts how often.
async fn discreet(target: SocketAddr) -> (SocketAddr, watch::Receiver<u32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (cancels, count) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, target, cancels.clone()));
        }
    });
    (addr, count)
}

async fn carry(
    mut client: TcpStream,
    target: SocketAddr,
    cancels: watch::Sender<u32>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    let (mut from_client, to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    tokio::select! {
        ended = tokio::io::copy(&mut from_client, &mut to_server) => ended.map(drop),
        ended = without_cancels(from_server, to_client, cancels) => ended,
    }
}

async fn without_cancels(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    cancels: watch::Sender<u32>,
) -> io::Result<()> {
    loop {
        let mut head = [0; FRAME_HEAD_BYTES];
        from.read_exact(&mut head).await?;
        let [kind, _, _, size @ ..] = head;
        let mut rest = vec![0; usize::try_from(u32::from_be_bytes(size)).unwrap() + 1];
        from.read_exact(&mut rest).await?;
        if kind == METHOD_FRAME && rest.starts_with(&BASIC_CANCEL) {
            cancels.send_modify(|count| *count += 1);
            continue;
        }
        to.write_all(&head).await?;
        to.write_all(&rest).await?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_is_not_told_of_its_end_begins_again() {
    let place = Place::shared().await;
    let target = address(&place.url);
    let (by, mut cancels) = discreet(target).await;
    let url = place.url.replace(&target.to_string(), &by.to_string());
    let (rabbit, plain) = (place.open_by(&url).await, place.plain().await);
    let queue = place.name("events");
    put_events(&rabbit, 0..1).await;
    let held = take_events(&rabbit, 1).await;

    plain.delete_queue(&queue).await;
    cancels.wait_for(|count| *count == 1).await.unwrap();
    // Another process declares it before this one looks.
    place.open().await;
    put_patiently(&rabbit, vec![Parcel::Event(event(1))]).await;
    let taken = take_events(&rabbit, 1).await.remove(0);
    assert_eq!(number_of(&taken), 1);
    taken.receipt.ack();

    plain.delete_queue(&queue).await;
    // Nobody else does.
    until("it is declared again", PATIENCE, async || {
        plain.try_size(&queue).await.is_some()
    })
    .await;
    put_patiently(&rabbit, vec![Parcel::Event(event(2))]).await;
    assert_eq!(number_of(&take_events(&rabbit, 1).await[0]), 2);
    drop(held);
}
