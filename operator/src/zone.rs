//! The AMTRELAY zones of the fleet (RFC 8777), served over DNS: who knows the source of a channel alone finds the relays next to it.
//!
//! ```text
//!   snapshots ──▶ planner::zone ──▶ Catalog, whole and new ──▶ Answers ◀── queries over UDP and TCP
//! ```
//! Every replica serves what its own turn has planned. Zones are for resolvers to be pointed at, by a delegation of the reverse
//! zones or as a forwarder's stub: nothing is looked up elsewhere, and no zone is given away whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use castgate_control::AgentSnapshot;
use castgate_planner::zone::{Name, Options, Zone, zone};
use hickory_server::net::runtime::{Time, TokioRuntimeProvider};
use hickory_server::proto::rr::rdata::{NS, NULL, SOA};
use hickory_server::proto::rr::{Name as DnsName, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType};
use jiff::Timestamp;
use tokio::net::{TcpListener, UdpSocket};

/// Type of AMTRELAY records (RFC 8777 §4).
const AMTRELAY: u16 = 260;
/// How long a TCP connection may be silent.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers of a connection that wait for their reader.
const TCP_ANSWERS: usize = 32;
/// When secondaries, if there were any, would look, look again and give up, in seconds.
const SOA_TIMES: (i32, i32, i32) = (3600, 600, 604_800);

/// Answers from whatever zones there are at the moment.
#[derive(Clone)]
pub struct Answers(Arc<ArcSwap<Catalog>>);

/// The zones of a fleet, and what they are made of.
pub struct Zones {
    origins: Vec<Name>,
    name_server: Name,
    options: Options,
    known: Option<Zone>,
    serial: u32,
    answers: Answers,
}

impl Zones {
    /// Empty zones of these names.
    ///
    /// # Errors
    /// When a name is none of the DNS, or there is none.
    pub fn new(origins: &[String], name_server: &str) -> anyhow::Result<Self> {
        let read = |text: &str| text.parse::<Name>().map_err(|error| anyhow::anyhow!("{text:?}: {error}"));
        anyhow::ensure!(!origins.is_empty(), "--zone is missing: the reverse zones of your sources");
        Ok(Self {
            origins: origins.iter().map(|origin| read(origin).context("--zone")).collect::<Result<_, _>>()?,
            name_server: read(name_server).context("--zone-name-server")?,
            options: Options::default(),
            known: None,
            serial: 0,
            answers: Answers(Arc::new(ArcSwap::from_pointee(Catalog::new()))),
        })
    }

    /// What answers from them.
    #[must_use]
    pub fn answers(&self) -> Answers {
        self.answers.clone()
    }

    /// Makes them anew when the fleet tells other relays or sources; whether it did. Serial numbers only grow.
    ///
    /// # Errors
    /// When a record does not fit; everything stays as it was.
    pub fn set(&mut self, snapshots: &BTreeMap<String, AgentSnapshot>, now: Timestamp) -> anyhow::Result<bool> {
        let next = zone(snapshots.values(), &self.options);
        if self.known.as_ref() == Some(&next) {
            return Ok(false);
        }
        for left_out in &next.left_out {
            tracing::warn!(left_out, "not in the AMTRELAY zones");
        }
        let serial = u32::try_from(now.as_second()).unwrap_or(u32::MAX).max(self.serial.saturating_add(1));
        let mut catalog = Catalog::new();
        for origin in &self.origins {
            let handler = self.handler(origin, &next, serial)?;
            let handler: Arc<dyn ZoneHandler> = Arc::new(handler);
            catalog.upsert(handler.origin().clone(), vec![handler]);
        }
        self.answers.0.store(Arc::new(catalog));
        self.serial = serial;
        let records = next.rows.len();
        self.known = Some(next);
        tracing::info!(serial, records, "AMTRELAY zones");
        Ok(true)
    }

    fn handler(
        &self,
        origin: &Name,
        zone: &Zone,
        serial: u32,
    ) -> anyhow::Result<InMemoryZoneHandler<TokioRuntimeProvider>> {
        let (apex, name_server) = (dns_name(origin)?, dns_name(&self.name_server)?);
        let ttl = self.options.ttl_seconds;
        let mut handler = InMemoryZoneHandler::empty(apex.clone(), ZoneType::Primary, AxfrPolicy::Deny);
        let hostmaster = DnsName::from_ascii("hostmaster")?.append_domain(&apex)?;
        let (refresh, retry, expire) = SOA_TIMES;
        let soa = SOA::new(name_server.clone(), hostmaster, serial, refresh, retry, expire, ttl);
        let mut put = |owner: DnsName, data: RData| {
            anyhow::ensure!(
                handler.upsert_mut(Record::from_rdata(owner.clone(), ttl, data), serial),
                "{owner} does not fit into zone {origin}"
            );
            Ok(())
        };
        put(apex.clone(), RData::SOA(soa))?;
        put(apex, RData::NS(NS(name_server)))?;
        for row in zone.rows.iter().filter(|row| row.is_within(origin)) {
            let rdata = NULL::with(row.record.to_vec());
            put(dns_name(&row.owner)?, RData::Unknown { code: RecordType::Unknown(AMTRELAY), rdata })?;
        }
        Ok(handler)
    }
}

fn dns_name(name: &Name) -> anyhow::Result<DnsName> {
    DnsName::from_ascii(name.as_str()).with_context(|| format!("{name} is no name of the DNS"))
}

#[async_trait::async_trait]
impl RequestHandler for Answers {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, response: R) -> ResponseInfo {
        self.0.load_full().handle_request::<R, T>(request, response).await
    }
}

/// Opens the sockets of a name server.
///
/// # Errors
/// When the address is not ours or taken.
pub async fn listen(address: SocketAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    Ok((UdpSocket::bind(address).await?, TcpListener::bind(address).await?))
}

/// Answers queries until a socket breaks.
///
/// # Errors
/// What broke it.
pub async fn serve((udp, tcp): (UdpSocket, TcpListener), answers: Answers) -> anyhow::Result<()> {
    let mut server = hickory_server::Server::new(answers);
    server.register_socket(udp);
    server.register_listener(tcp, TCP_TIMEOUT, TCP_ANSWERS);
    Ok(server.block_until_done().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(relays: &[&str]) -> BTreeMap<String, AgentSnapshot> {
        let agent = |relay: &&str| {
            let text = format!(
                "generation: 1
agent: lab/{relay}
server:
  listen: 192.0.2.1:10100
  interfaces: [lan]
  amt: {{ listen: [\"{relay}:2268\"] }}
  channels:
    - {{ name: news, group: 232.1.2.3, source: 10.1.0.10, ports: 5004 }}
"
            );
            ((*relay).to_owned(), AgentSnapshot::from_yaml(&text).unwrap())
        };
        relays.iter().map(agent).collect()
    }

    fn zones() -> Zones {
        Zones::new(&["1.10.in-addr.arpa".to_owned()], "ns.example.net").unwrap()
    }

    /// Asks as a resolver does, and gives the code of the answer and the data of its records.
    async fn ask(server: SocketAddr, name: &str, kind: u16) -> (u8, Vec<Vec<u8>>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut query = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label.as_bytes());
        }
        query.push(0);
        query.extend(kind.to_be_bytes());
        query.extend([0, 1]);
        socket.send_to(&query, server).await.unwrap();
        let mut answer = [0; 1500];
        let received = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut answer)).await;
        let length = received.expect("an answer").unwrap();
        let count = u16::from_be_bytes([answer[6], answer[7]]);
        let mut at = query.len();
        let mut data = Vec::new();
        for _ in 0..count {
            // A name, written whole or as a pointer.
            while answer[at] != 0 && answer[at] < 0xc0 {
                at += 1 + usize::from(answer[at]);
            }
            at += if answer[at] == 0 { 1 } else { 2 };
            let end = at + 10 + usize::from(u16::from_be_bytes([answer[at + 8], answer[at + 9]]));
            data.push(answer[at + 10..end].to_vec());
            at = end;
        }
        assert!(at <= length);
        (answer[3] & 0x0f, data)
    }

    #[tokio::test]
    async fn the_relays_next_to_a_source_are_told_and_others_as_soon_as_they_are_planned() {
        let mut zones = zones();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        assert!(zones.set(&fleet(&["192.0.2.1"]), now).unwrap());
        assert!(!zones.set(&fleet(&["192.0.2.1"]), now).unwrap(), "nothing has changed");
        // The port of UDP may be taken on TCP: another one then.
        let sockets = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let server = sockets.0.local_addr().unwrap();
        let serving = tokio::spawn(serve(sockets, zones.answers()));
        let name = "10.0.1.10.in-addr.arpa";
        assert_eq!(ask(server, name, AMTRELAY).await, (0, vec![vec![10, 0x81, 192, 0, 2, 1]]));
        assert_eq!(ask(server, "11.0.1.10.in-addr.arpa", AMTRELAY).await, (3, vec![]), "no such source");
        assert_eq!(ask(server, "10.0.2.10.in-addr.arpa", AMTRELAY).await.0, 5, "none of our zones");
        assert_eq!(ask(server, "1.10.in-addr.arpa", 252).await.1, Vec::<Vec<u8>>::new(), "AXFR is refused");

        assert!(zones.set(&fleet(&["192.0.2.2", "192.0.2.1"]), now).unwrap());
        let (code, mut data) = ask(server, name, AMTRELAY).await;
        data.sort();
        assert_eq!((code, data), (0, vec![vec![10, 0x81, 192, 0, 2, 1], vec![10, 0x81, 192, 0, 2, 2]]));
        assert_eq!(zones.serial, 1_700_000_001, "two versions within a second have two numbers");
        serving.abort();
    }

    #[test]
    fn names_that_are_none_are_refused_by_option() {
        let error = |origins: &[String], server: &str| format!("{:#}", Zones::new(origins, server).err().unwrap());
        assert!(error(&[], "ns.example.net").contains("--zone is missing"));
        assert!(error(&["a..b".to_owned()], "ns.example.net").starts_with("--zone: \"a..b\""));
        assert!(error(&["1.10.in-addr.arpa".to_owned()], "").starts_with("--zone-name-server"));
    }
}
