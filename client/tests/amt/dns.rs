//! A name server in a thread with a table of records, who follows no CNAME himself.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::thread;

use castgate_client::Dns;

pub const A: u16 = 1;
pub const CNAME: u16 = 5;
pub const PTR: u16 = 12;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;
pub const AMTRELAY: u16 = 260;

/// A name, a type, and the data of one record.
pub type Record = (&'static str, u16, Vec<u8>);

/// Starts one; it ends with the test's process.
pub fn serve(records: Vec<Record>) -> Dns {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dns = Dns::with_resolver(&socket.local_addr().unwrap().to_string()).unwrap();
    let mut table: HashMap<(String, u16), Vec<Vec<u8>>> = HashMap::new();
    for (name, kind, data) in records {
        table.entry((name.to_owned(), kind)).or_default().push(data);
    }
    thread::spawn(move || {
        let mut query = [0; 1_232];
        while let Ok((len, from)) = socket.recv_from(&mut query) {
            let answer = answer(&table, &query[..len]);
            socket.send_to(&answer, from).unwrap();
        }
    });
    dns
}

/// A name as it stands in a record.
pub fn name(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for label in text.trim_end_matches('.').split('.') {
        octets.push(u8::try_from(label.len()).unwrap());
        octets.extend(label.bytes());
    }
    octets.push(0);
    octets
}

fn answer(table: &HashMap<(String, u16), Vec<Vec<u8>>>, query: &[u8]) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|octet| *octet == 0).unwrap() + 1;
    let mut labels = Vec::new();
    let mut rest = &query[12..end];
    while let [len @ 1..=u8::MAX, after @ ..] = rest {
        let (label, after) = after.split_at((*len).into());
        labels.push(String::from_utf8(label.to_ascii_lowercase()).unwrap());
        rest = after;
    }
    let asked = labels.join(".");
    let kind = u16::from_be_bytes([query[end], query[end + 1]]);
    let of = |kind| table.get(&(asked.clone(), kind)).map(|data| (kind, data));
    let found = of(CNAME).or_else(|| of(kind));
    let is_known = table.keys().any(|(known, _)| *known == asked);
    let count = found.map_or(0, |(_, data)| data.len());
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, if is_known { 0x80 } else { 0x83 }, 0, 1]);
    answer.extend(u16::try_from(count).unwrap().to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(&query[12..end + 4]);
    for (kind, data) in found.iter().flat_map(|(kind, data)| data.iter().map(move |data| (*kind, data))) {
        answer.extend([0xc0, 0x0c]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 60]);
        answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        answer.extend(data);
    }
    answer
}
