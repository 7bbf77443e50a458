//! Names to addresses, for the locator's walk and for a server that is named by hand; AMTRELAY, PTR and SRV for whoever looks
//! for AMT relays.
//!
//! The name servers are those of `/etc/resolv.conf`, or the one that `CASTGATE_RESOLVER=ADDRESS[:PORT]` names. What is
//! an address already needs no resolver, so a host without DNS still reaches whatever is named by address.

mod name;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use castgate_endpoint::hierarchy::address::{DEFAULT_PORT, DatabaseAddress, Place, SERVICE};
use castgate_endpoint::hierarchy::locator::ServiceTarget;
use castgate_wire::amtrelay;
use castgate_wire::membership::Family;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use thiserror::Error;

/// The environment variable that names the resolver.
pub const RESOLVER_VARIABLE: &str = "CASTGATE_RESOLVER";

/// Turns names into addresses.
#[derive(Debug, Clone, Default)]
pub struct Dns {
    /// None: those of the system.
    resolvers: Vec<SocketAddr>,
}

/// Why a name led to no address.
#[derive(Debug, Error)]
pub enum DnsError {
    /// `CASTGATE_RESOLVER` does not hold an address.
    #[error("{RESOLVER_VARIABLE} is {0:?}, which is not ADDRESS or ADDRESS:PORT")]
    Variable(String),
    /// No resolver could be set up.
    #[error("no name server can be asked for {name}: {error}")]
    Resolver {
        /// The name that was to be looked up.
        name: String,
        /// What failed.
        error: NetError,
    },
    /// No name.
    #[error("{0:?} is no name of the DNS")]
    Name(String),
    /// There is no such name, or nothing of an address at it.
    #[error("the name {0} has no address")]
    NoAddress(String),
    /// There is no such name, or no service record at it.
    #[error("the name {0} has no service record")]
    NoService(String),
    /// Nobody could tell.
    #[error("the name {name} was not found: {error}")]
    Lookup {
        /// The name.
        name: String,
        /// What the resolver said.
        error: NetError,
    },
    /// The name has only addresses of another family.
    #[error("the name {0} has no IPv4 address, and UMTP knows no other")]
    NoIpv4(String),
    /// Not `HOST:PORT`.
    #[error("{0:?} is not HOST:PORT, for example 192.0.2.1:10100")]
    Form(String),
}

impl Dns {
    /// Reads `CASTGATE_RESOLVER`.
    ///
    /// # Errors
    /// [`DnsError::Variable`] when it holds something else than an address.
    pub fn from_environment() -> Result<Self, DnsError> {
        match std::env::var(RESOLVER_VARIABLE) {
            Ok(text) if !text.is_empty() => Self::with_resolver(&text),
            _ => Ok(Self::default()),
        }
    }

    /// Asks the resolver `ADDRESS[:PORT]` and no other.
    ///
    /// # Errors
    /// [`DnsError::Variable`] when the text is no address.
    pub fn with_resolver(text: &str) -> Result<Self, DnsError> {
        let bare = |text: &str| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
        let resolver = text.parse().or_else(|_| bare(text)).map_err(|_| DnsError::Variable(text.to_owned()))?;
        Ok(Self::of(vec![resolver]))
    }

    /// Asks these and no others; those of the system when there are none.
    #[must_use]
    pub fn of(resolvers: Vec<SocketAddr>) -> Self {
        Self { resolvers }
    }

    /// The SRV records of a service; an error also when the name has none.
    ///
    /// # Errors
    /// [`DnsError`] when there is no resolver or no such record.
    pub async fn services(&self, name: &str) -> Result<Vec<ServiceTarget>, DnsError> {
        match self.resolver(name)?.srv_lookup(rooted(name)).await {
            Ok(lookup) => Ok(lookup.answers().iter().filter_map(|record| service(&record.data)).collect()),
            Err(error) if error.is_no_records_found() => Err(DnsError::NoService(plain(name))),
            Err(error) => Err(DnsError::Lookup { name: plain(name), error }),
        }
    }

    /// The same of a name of any octets, as those of instances are; none is no error.
    ///
    /// # Errors
    /// [`DnsError`] when there is no resolver, or it does not answer.
    pub async fn instance(&self, name: &str) -> Result<Vec<ServiceTarget>, DnsError> {
        self.records(name, RecordType::SRV, service).await
    }

    /// The addresses of a host. A name may be one that this system knows alone, such as that of a Service in a cluster: the
    /// system's search list counts as it does for every other program here.
    ///
    /// # Errors
    /// [`DnsError`] when there is no resolver or no address.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, DnsError> {
        match self.resolver(name)?.lookup_ip(name).await {
            Ok(lookup) => Ok(lookup.iter().collect()),
            Err(error) if error.is_no_records_found() => Err(DnsError::NoAddress(plain(name))),
            Err(error) => Err(DnsError::Lookup { name: plain(name), error }),
        }
    }

    /// The addresses of a host that are of one family, found like [`addresses`](Self::addresses); none is no error.
    ///
    /// # Errors
    /// [`DnsError`] when there is no resolver, or it does not answer.
    pub async fn addresses_of(&self, name: &str, family: Family) -> Result<Vec<IpAddr>, DnsError> {
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let address = |data: &RData| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        self.records(name, kind, address).await
    }

    /// The data of the AMTRELAY records of a name (RFC 8777 §4), as they are on the wire; none is no error. CNAME and DNAME are
    /// followed.
    ///
    /// # Errors
    /// [`DnsError`] when there is no resolver, or it does not answer.
    pub async fn amt_relays(&self, name: &str) -> Result<Vec<Vec<u8>>, DnsError> {
        let data = |data: &RData| match data {
            RData::Unknown { code, rdata } if u16::from(*code) == amtrelay::TYPE => Some(rdata.anything.clone()),
            _ => None,
        };
        self.records(name, RecordType::Unknown(amtrelay::TYPE), data).await
    }

    /// The names that the PTR records of a name hold; none is no error.
    ///
    /// # Errors
    /// [`DnsError`] when there is no resolver, or it does not answer.
    pub async fn names(&self, name: &str) -> Result<Vec<String>, DnsError> {
        let target = |data: &RData| match data {
            RData::PTR(target) => Some(name::text(&target.0)),
            _ => None,
        };
        self.records(name, RecordType::PTR, target).await
    }

    /// What there is of one type at a name, CNAMEs followed.
    async fn records<T>(
        &self,
        name: &str,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Result<Vec<T>, DnsError> {
        let mut query = name::parse(name).ok_or_else(|| DnsError::Name(name.to_owned()))?;
        // Hosts alone are looked for in the system's search list; whoever knows the whole name says so by a dot at the end.
        query.set_fqdn(name.ends_with('.') || !matches!(kind, RecordType::A | RecordType::AAAA));
        match self.resolver(name)?.lookup(query, kind).await {
            Ok(lookup) => Ok(lookup.answers().iter().filter_map(|record| pick(&record.data)).collect()),
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => Ok(Vec::new()),
            Err(error) => Err(DnsError::Lookup { name: plain(name), error }),
        }
    }

    /// The IPv4 addresses of `HOST:PORT`, which is how a tunnel server is named by hand.
    ///
    /// # Errors
    /// [`DnsError`] when the text is no `HOST:PORT` or the name leads nowhere.
    pub async fn servers(&self, text: &str) -> Result<Vec<SocketAddrV4>, DnsError> {
        let form = || DnsError::Form(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(form)?;
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return Ok(vec![SocketAddrV4::new(address, port)]);
        }
        if host.starts_with('[') {
            return Err(DnsError::NoIpv4(text.to_owned()));
        }
        if host.is_empty() || host.contains([':', '/', ' ']) {
            return Err(form());
        }
        let ipv4 = |address| match address {
            IpAddr::V4(address) => Some(SocketAddrV4::new(address, port)),
            IpAddr::V6(_) => None,
        };
        let servers: Vec<_> = self.addresses(host).await?.into_iter().filter_map(ipv4).collect();
        if servers.is_empty() { Err(DnsError::NoIpv4(host.to_owned())) } else { Ok(servers) }
    }

    /// The addresses of a tunnel database with what the `Host` field of a request there says, best first. For one request
    /// by hand; the walk of [`crate::Locator`] looks names up step by step.
    ///
    /// # Errors
    /// [`DnsError`] when the name leads nowhere.
    pub async fn databases(&self, database: &DatabaseAddress) -> Result<Vec<(SocketAddr, String)>, DnsError> {
        let (name, port) = match &database.place {
            Place::Socket(address) => return Ok(vec![(*address, database.authority())]),
            Place::Name { name, port } => (name, *port),
            Place::Service(name) => {
                let mut targets = self.services(&format!("{SERVICE}.{name}")).await.unwrap_or_default();
                targets.sort_by_key(|target| (target.priority, std::cmp::Reverse(target.weight)));
                let mut found = Vec::new();
                for ServiceTarget { port, target, .. } in targets {
                    // One dead target must not hide the others.
                    let addresses = self.addresses(&rooted(&target)).await.unwrap_or_default();
                    let target = target.trim_end_matches('.');
                    found.extend(
                        addresses.into_iter().map(|ip| (SocketAddr::new(ip, port), format!("{target}:{port}"))),
                    );
                }
                if !found.is_empty() {
                    return Ok(found);
                }
                (name, DEFAULT_PORT)
            }
        };
        let addresses = self.addresses(name).await?;
        Ok(addresses.into_iter().map(|ip| (SocketAddr::new(ip, port), database.authority())).collect())
    }

    fn resolver(&self, name: &str) -> Result<TokioResolver, DnsError> {
        let server = |address: &SocketAddr| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            server.connections.iter_mut().for_each(|connection| connection.port = address.port());
            server
        };
        let built = if self.resolvers.is_empty() {
            TokioResolver::builder_tokio().and_then(ResolverBuilder::build)
        } else {
            let config = ResolverConfig::from_name_servers(self.resolvers.iter().map(server).collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build()
        };
        built.map_err(|error| DnsError::Resolver { name: name.to_owned(), error })
    }
}

fn service(data: &RData) -> Option<ServiceTarget> {
    match data {
        RData::SRV(service) => Some(ServiceTarget {
            priority: service.priority,
            weight: service.weight,
            port: service.port,
            target: name::text(&service.target),
        }),
        _ => None,
    }
}

/// The name as people write it.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_owned()
}

/// The name as DNS takes it without trying search domains.
fn rooted(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UdpSocket;
    use tokio::task::JoinHandle;

    #[test]
    fn the_resolver_is_an_address_with_or_without_port() {
        assert_eq!(Dns::with_resolver("127.0.0.9").unwrap().resolvers, ["127.0.0.9:53".parse().unwrap()]);
        assert_eq!(Dns::with_resolver("127.0.0.9:5353").unwrap().resolvers, ["127.0.0.9:5353".parse().unwrap()]);
        assert!(matches!(Dns::with_resolver("resolver"), Err(DnsError::Variable(_))));
    }

    #[tokio::test]
    async fn a_server_is_host_and_port() {
        let dns = Dns::with_resolver("127.0.0.1:1").unwrap();
        assert_eq!(dns.servers("127.0.2.1:10100").await.unwrap(), ["127.0.2.1:10100".parse().unwrap()]);
        for text in ["127.0.2.1", ":10100", "127.0.2.1:0", "::1:10100", "a b:1"] {
            assert!(matches!(dns.servers(text).await, Err(DnsError::Form(_))), "{text}");
        }
        assert!(matches!(dns.servers("[::1]:10100").await, Err(DnsError::NoIpv4(_))));
    }

    #[tokio::test]
    async fn the_named_resolver_is_asked_for_service_and_address() {
        let (dns, answering) = asking().await;
        let services = dns.services("_castgate._tcp.example.org").await.unwrap();
        let expected = ServiceTarget { priority: 1, weight: 2, port: 5632, target: "tds.example.org.".to_owned() };
        assert_eq!(services, [expected]);
        assert_eq!(dns.addresses("tds.example.org").await.unwrap(), ["127.0.4.1".parse::<IpAddr>().unwrap()]);
        let database = dns.databases(&"example.org".parse().unwrap()).await.unwrap();
        assert_eq!(database, [("127.0.4.1:5632".parse().unwrap(), "tds.example.org:5632".to_owned())]);
        answering.abort();
    }

    #[tokio::test]
    async fn a_dead_target_of_a_service_does_not_hide_those_of_lower_priority() {
        let (dns, answering) = asking().await;
        let mut services = dns.services("_castgate._tcp.several.org").await.unwrap();
        services.sort_by_key(|service| service.priority);
        assert_eq!((services[0].target.as_str(), services[0].priority, services.len()), ("dead.several.org.", 1, 2));
        let database = dns.databases(&"several.org".parse().unwrap()).await.unwrap();
        assert_eq!(database, [("127.0.4.1:5633".parse().unwrap(), "tds.several.org:5633".to_owned())]);

        // The walk does so, too, and asks those that have an address.
        let roots = vec!["several.org".parse().unwrap()];
        let error = crate::Locator::new(roots, None, dns, crate::CacheFolder::none()).locate().await.unwrap_err();
        let crate::LocateError::Walk(walk) = error else { panic!("{error}") };
        let asked: Vec<&str> = walk.hops.iter().map(|hop| hop.asked.as_str()).collect();
        assert_eq!(asked, ["_castgate._tcp.several.org", "dead.several.org", "tds.several.org", "127.0.4.1:5633"]);
        answering.abort();
    }

    #[tokio::test]
    async fn what_is_not_there_is_said_in_a_sentence() {
        let (dns, answering) = asking().await;
        let error = dns.addresses("dead.example.org.").await.unwrap_err();
        assert_eq!(error.to_string(), "the name dead.example.org has no address");
        let error = dns.services("_castgate._tcp.nothing.org").await.unwrap_err();
        assert_eq!(error.to_string(), "the name _castgate._tcp.nothing.org has no service record");
        answering.abort();
    }

    /// What asks a name server of ours, and its task.
    async fn asking() -> (Dns, JoinHandle<()>) {
        let name_server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dns = Dns::with_resolver(&name_server.local_addr().unwrap().to_string()).unwrap();
        (dns, tokio::spawn(answer_queries(name_server)))
    }

    /// A name server that knows one service and one address and has nothing else, and another service of two targets, of which
    /// the first has no address.
    async fn answer_queries(socket: UdpSocket) {
        let mut query = [0; 512];
        loop {
            let (len, from) = socket.recv_from(&mut query).await.unwrap();
            let question_end = query[12..len].iter().position(|octet| *octet == 0).unwrap() + 12 + 5;
            let kind = query[question_end - 3];
            let asks_about = |label: &[u8]| query[12..len].windows(label.len()).any(|part| part == label);
            let data: Vec<Vec<u8>> = match kind {
                1 if asks_about(b"dead") => Vec::new(),
                1 => vec![vec![127, 0, 4, 1]],
                33 if asks_about(b"nothing") => Vec::new(),
                33 if asks_about(b"several") => vec![
                    [&[0, 2, 0, 0, 0x16, 0x01][..], b"\x03tds\x07several\x03org\0"].concat(),
                    [&[0, 1, 0, 0, 0x16, 0x00][..], b"\x04dead\x07several\x03org\0"].concat(),
                ],
                33 => vec![[&[0, 1, 0, 2, 0x16, 0x00][..], b"\x03tds\x07example\x03org\0"].concat()],
                _ => Vec::new(),
            };
            let mut answer = query[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, u8::try_from(data.len()).unwrap(), 0, 0, 0, 0]);
            answer.extend(&query[12..question_end]);
            for data in data {
                answer.extend([0xc0, 0x0c, 0, kind, 0, 1, 0, 0, 0, 60]);
                answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
                answer.extend(data);
            }
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}
