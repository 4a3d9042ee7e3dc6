//! A name server of the test's own, on a port of its own on loopback.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

/// What it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name, in lower case and with its last dot.
    pub name: String,
    /// For an IPv4 address; else for another record.
    pub is_a: bool,
    /// How many questions of this kind there were, this one included.
    pub asked: usize,
}

/// What it says.
pub enum Reply {
    /// Of these addresses those of the question's family, with a time to live of zero.
    Addresses(Vec<IpAddr>),
    /// The same, with a time to live of a minute.
    Lasting(Vec<IpAddr>),
    /// These records as they are.
    Records(Vec<Record>),
    /// An error code: 2 is SERVFAIL, 3 is NXDOMAIN.
    Code(u8),
    /// Nothing.
    Silence,
}

/// A record with a time to live of zero.
pub struct Record {
    name: String,
    data: Data,
}

enum Data {
    Address(IpAddr),
    Alias(String),
}

impl Record {
    /// `name` has `address`.
    pub fn address(name: &str, address: &str) -> Self {
        Self {
            name: name.to_owned(),
            data: Data::Address(address.parse().unwrap()),
        }
    }

    /// `name` stands for `other`.
    pub fn alias(name: &str, other: &str) -> Self {
        Self {
            name: name.to_owned(),
            data: Data::Alias(other.to_owned()),
        }
    }
}

/// These addresses, with a time to live of zero.
pub fn addresses<const N: usize>(addresses: [&str; N]) -> Reply {
    Reply::Addresses(addresses.map(|address| address.parse().unwrap()).to_vec())
}

/// A name server that answers, and what it was asked so far.
#[derive(Clone)]
pub struct NameServer {
    pub address: SocketAddr,
    questions: Arc<Mutex<Vec<Question>>>,
}

impl NameServer {
    pub fn questions(&self) -> Vec<Question> {
        self.questions.lock().unwrap().clone()
    }

    /// The names that it was asked for, each once.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.questions().into_iter().map(|q| q.name).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// A name server that answers each question with `reply`.
pub async fn name_server<R>(reply: R) -> NameServer
where
    R: Fn(&Question) -> Reply + Send + 'static,
{
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = NameServer {
        address: socket.local_addr().unwrap(),
        questions: Arc::default(),
    };
    let questions = Arc::clone(&server.questions);
    tokio::spawn(async move {
        let mut packet = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            let section = question_section(&packet[..length]);
            let asked = {
                let mut questions = questions.lock().unwrap();
                let mut asked = question(section);
                asked.asked += questions.iter().filter(|q| q.is_a == asked.is_a).count();
                questions.push(asked.clone());
                asked
            };
            if let Some(answer) = answer(&packet, section, &asked, reply(&asked)) {
                socket.send_to(&answer, peer).await.unwrap();
            }
        }
    });
    server
}

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const HEADER_BYTES: usize = 12;

/// The question section (RFC 1035 section 4.1.2): labels, type, class.
fn question_section(packet: &[u8]) -> &[u8] {
    let mut at = HEADER_BYTES;
    while packet[at] != 0 {
        at += 1 + usize::from(packet[at]);
    }
    &packet[HEADER_BYTES..at + 5]
}

fn question(section: &[u8]) -> Question {
    let (labels, rest) = section.split_at(section.len() - 4);
    let (mut name, mut at) = (String::new(), 0);
    while labels[at] != 0 {
        let end = at + 1 + usize::from(labels[at]);
        name.push_str(&String::from_utf8_lossy(&labels[at + 1..end]).to_lowercase());
        name.push('.');
        at = end;
    }
    Question {
        name,
        is_a: u16::from_be_bytes([rest[0], rest[1]]) == A,
        asked: 1,
    }
}

fn answer(packet: &[u8], section: &[u8], asked: &Question, reply: Reply) -> Option<Vec<u8>> {
    let of_family = |addresses: Vec<IpAddr>| -> Vec<Record> {
        let fit = addresses.into_iter().filter(|a| a.is_ipv4() == asked.is_a);
        let records = fit.map(|address| Record {
            name: asked.name.clone(),
            data: Data::Address(address),
        });
        records.collect()
    };
    let (code, records, ttl) = match reply {
        Reply::Addresses(addresses) => (0, of_family(addresses), 0),
        Reply::Lasting(addresses) => (0, of_family(addresses), 60),
        Reply::Records(records) => (0, records, 0),
        Reply::Code(code) => (code, Vec::new(), 0),
        Reply::Silence => return None,
    };
    let mut message = packet[..2].to_vec();
    // A response, recursion desired and available, one question.
    message.extend([0x81, 0x80 | code, 0, 1]);
    message.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    message.extend([0; 4]);
    message.extend(section);
    for record in records {
        let (kind, data) = match record.data {
            Data::Address(IpAddr::V4(v4)) => (A, v4.octets().to_vec()),
            Data::Address(IpAddr::V6(v6)) => (AAAA, v6.octets().to_vec()),
            Data::Alias(name) => (CNAME, labels(&name)),
        };
        message.extend(labels(&record.name));
        message.extend(kind.to_be_bytes());
        // The internet's class, the time to live.
        message.extend([0, 1, 0, 0, 0, ttl]);
        message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend(data);
    }
    Some(message)
}

/// A name as its labels, each behind its length, and the root.
fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
