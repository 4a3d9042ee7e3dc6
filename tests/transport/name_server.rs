//! A name server of the test's own, on a port of its own on loopback.

use std::net::{IpAddr, SocketAddr};

use tokio::net::UdpSocket;

/// What the name server says.
pub enum Reply {
    /// These addresses, with a time to live of zero.
    Addresses(Vec<IpAddr>),
    /// These addresses, with a time to live of a minute.
    Lasting(Vec<IpAddr>),
    /// An error code: 2 is SERVFAIL, 3 is NXDOMAIN.
    Code(u8),
    /// Nothing.
    Silence,
}

/// A name server that answers the questions for A and AAAA records of any name:
/// `reply` is asked with the number of A questions so far, from 1, and the addresses of
/// the right family are sent.
pub async fn name_server<R>(reply: R) -> SocketAddr
where
    R: Fn(usize) -> Reply + Send + 'static,
{
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut asked = 0;
        let mut packet = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            let question = question(&packet[..length]);
            asked += usize::from(question_type(question) == A);
            if let Some(answer) = answer(&packet, question, &reply(asked.max(1))) {
                socket.send_to(&answer, peer).await.unwrap();
            }
        }
    });
    address
}

const A: u16 = 1;
const HEADER_BYTES: u8 = 12;

/// The question section (RFC 1035 section 4.1.2): labels, type, class.
fn question(packet: &[u8]) -> &[u8] {
    let mut at = usize::from(HEADER_BYTES);
    while packet[at] != 0 {
        at += 1 + usize::from(packet[at]);
    }
    &packet[usize::from(HEADER_BYTES)..at + 5]
}

fn question_type(question: &[u8]) -> u16 {
    let at = question.len() - 4;
    u16::from_be_bytes([question[at], question[at + 1]])
}

fn answer(packet: &[u8], question: &[u8], reply: &Reply) -> Option<Vec<u8>> {
    let (code, addresses, ttl) = match reply {
        Reply::Addresses(addresses) => (0, addresses.as_slice(), 0),
        Reply::Lasting(addresses) => (0, addresses.as_slice(), 60),
        Reply::Code(code) => (*code, [].as_slice(), 0),
        Reply::Silence => return None,
    };
    let wanted: Vec<_> = addresses
        .iter()
        .filter(|address| address.is_ipv4() == (question_type(question) == A))
        .collect();
    let mut message = packet[..2].to_vec();
    // A response, recursion desired and available, one question.
    message.extend([
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::try_from(wanted.len()).unwrap(),
    ]);
    message.extend([0; 4]);
    message.extend(question);
    for address in wanted {
        let bytes = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        // The question's name, its type and class, the time to live.
        message.extend([0xc0, HEADER_BYTES]);
        message.extend(&question[question.len() - 4..]);
        message.extend([0, 0, 0, ttl, 0, u8::try_from(bytes.len()).unwrap()]);
        message.extend(bytes);
    }
    Some(message)
}
