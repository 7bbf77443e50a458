//! Carries out the locator's walk: names by DNS, questions over HTTP, memory on disk.
//!
//! ```text
//!   endpoint::hierarchy::locator ──Step──▶ this driver ──▶ cache
//!                    ▲                        │ one task for each question that is open
//!                    └───────handle_*──────── dns, http
//! ```

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use castgate_endpoint::hierarchy::address::DatabaseAddress;
use castgate_endpoint::hierarchy::feed;
use castgate_endpoint::hierarchy::locator::{self, Ask, Found, HopOutcome, ServiceTarget, Step, TaskId, Wanted};
use castgate_wire::registry::{Country, Protocol, ProtocolFilter, Server};
use thiserror::Error;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep_until;
use tracing::debug;

use crate::cache::CacheFolder;
use crate::dns::Dns;
use crate::http::Exchange;
use crate::tls::Trust;

/// Finds the tunnel servers of one place, as often as it is asked.
#[derive(Debug, Clone)]
pub struct Locator {
    roots: Vec<DatabaseAddress>,
    wanted: Wanted,
    local: Option<IpAddr>,
    on_behalf_of: Option<IpAddr>,
    dns: Dns,
    trust: Trust,
    cache: CacheFolder,
    from_roots: bool,
    /// Where this place is reached itself, if it serves others.
    own: Vec<SocketAddr>,
    /// Who feeds the servers of the last walk; clones share it.
    chains: Arc<Mutex<HashMap<SocketAddr, Vec<IpAddr>>>>,
}

/// Why no tunnel server was found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LocateError {
    /// The walk ended without servers.
    #[error(transparent)]
    Walk(#[from] locator::LocateError),
    /// There are servers, and all of them are this relay itself or are fed by it.
    #[error("the database names {0} tunnel servers, and all of them are this relay itself or are fed by it")]
    OnlyLoops(usize),
    /// There are servers, but none that a tunnel of ours reaches.
    #[error("the database names {0} tunnel servers, and none of them by an IPv4 address")]
    NoIpv4(usize),
}

impl LocateError {
    /// Whether the same databases failed in the same way, in whatever order they were asked.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Walk(one), Self::Walk(other)) => troubles(one) == troubles(other),
            (Self::NoIpv4(_), Self::NoIpv4(_)) | (Self::OnlyLoops(_), Self::OnlyLoops(_)) => true,
            (Self::Walk(_) | Self::NoIpv4(_) | Self::OnlyLoops(_), _) => false,
        }
    }
}

fn troubles(error: &locator::LocateError) -> BTreeSet<(String, String)> {
    let real = error.hops.iter().filter(|hop| hop.outcome != HopOutcome::Overtaken);
    real.map(|hop| (hop.asked.clone(), hop.outcome.to_string())).collect()
}

impl Locator {
    /// Asks these roots for servers that speak UMTP over UDP.
    #[must_use]
    pub fn new(roots: Vec<DatabaseAddress>, country: Option<Country>, dns: Dns, cache: CacheFolder) -> Self {
        let wanted = Wanted { country, protocol: ProtocolFilter::Only(Protocol::Udp) };
        Self {
            roots,
            wanted,
            local: None,
            on_behalf_of: None,
            dns,
            trust: Trust::system(),
            cache,
            from_roots: false,
            own: Vec::new(),
            chains: Arc::default(),
        }
    }

    /// Believes these certificates of databases over https instead of those that the system trusts.
    #[must_use]
    pub fn trusting(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Asks for AMT relays instead (RFC 7450).
    #[must_use]
    pub fn for_relays(mut self) -> Self {
        self.wanted.protocol = ProtocolFilter::Only(Protocol::Amt);
        self
    }

    /// Asks for servers of these protocols instead.
    #[must_use]
    pub fn for_protocol(mut self, protocol: ProtocolFilter) -> Self {
        self.wanted.protocol = protocol;
        self
    }

    /// Asks for somebody else's place. Databases that do not trust us as a proxy match our own address all the same.
    #[must_use]
    pub fn on_behalf_of(mut self, client: Option<IpAddr>) -> Self {
        self.on_behalf_of = client;
        self
    }

    /// Asks from this address, which is what the databases match; those of the other family are asked from any.
    #[must_use]
    pub fn from_address(mut self, local: Option<IpAddr>) -> Self {
        self.local = local;
        self
    }

    /// Starts every walk at the roots, whatever an earlier one has left; what it left is used only when no database answers.
    #[must_use]
    pub fn from_the_roots(mut self) -> Self {
        self.from_roots = true;
        self
    }

    /// For a relay that is reached at these addresses: passes over itself and whatever it feeds
    /// ([`castgate_endpoint::hierarchy::feed`]).
    #[must_use]
    pub fn for_relay_at(mut self, own: Vec<SocketAddr>) -> Self {
        self.own = own;
        self
    }

    /// Who feeds this server, nearest first, as the last walk was told.
    #[must_use]
    pub fn fed_by(&self, server: SocketAddr) -> Vec<IpAddr> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner).get(&server).cloned().unwrap_or_default()
    }

    /// The databases the walk starts at.
    #[must_use]
    pub fn roots(&self) -> &[DatabaseAddress] {
        &self.roots
    }

    /// Walks once.
    ///
    /// # Errors
    /// [`LocateError`] when no server was found; it tells every question that was asked.
    pub async fn locate(&self) -> Result<Found, LocateError> {
        let mut found = self.walk().await?;
        let named = found.servers.len();
        found.servers.retain(|server| feed::may_feed(server, &self.own));
        if found.servers.is_empty() {
            return Err(LocateError::OnlyLoops(named));
        }
        let chain = |server: &Server| (SocketAddr::new(server.address, server.port), server.fed_by.clone());
        *self.chains.lock().unwrap_or_else(PoisonError::into_inner) = found.servers.iter().map(chain).collect();
        Ok(found)
    }

    async fn walk(&self) -> Result<Found, LocateError> {
        let cache = self.cache.load(&self.roots, &self.wanted);
        let now = SystemTime::now().into();
        let mut walk = locator::Locator::new(self.roots.clone(), self.wanted.clone(), cache, seed(), now);
        if self.from_roots {
            walk = walk.from_the_roots();
        }
        let mut errands = Errands::default();
        loop {
            while let Some(step) = walk.poll(Instant::now()) {
                match step {
                    Step::ResolveService { id, name } => {
                        let dns = self.dns.clone();
                        errands.start(id, async move {
                            Outcome::Services(dns.services(&name).await.map_err(|error| error.to_string()))
                        });
                    }
                    Step::ResolveAddress { id, name } => {
                        let dns = self.dns.clone();
                        errands.start(id, async move {
                            Outcome::Addresses(dns.addresses(&name).await.map_err(|error| error.to_string()))
                        });
                    }
                    Step::Ask(question) => {
                        let (dns, trust) = (self.dns.clone(), self.trust.clone());
                        let from = (self.local, self.on_behalf_of);
                        errands.start(question.id, async move {
                            let answer = ask(&question, from, &dns, &trust).await;
                            debug!(database = %question.address, ?answer, "asked");
                            Outcome::Answer(answer)
                        });
                    }
                    Step::Found(found) => {
                        if !found.from_cache {
                            self.cache.store(&self.roots, &self.wanted, &found.cache);
                        }
                        return Ok(found);
                    }
                    Step::Failed(error) => return Err(error.into()),
                }
            }
            let next = walk.next_timeout();
            let head_start = async {
                match next {
                    Some(until) => sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                (id, outcome) = errands.next() => match outcome {
                    Outcome::Services(services) => walk.handle_service(id, services),
                    Outcome::Addresses(addresses) => walk.handle_addresses(id, addresses),
                    Outcome::Answer(answer) => walk.handle_answer(id, answer),
                },
                () = head_start => {}
            }
            errands.retain(|id| walk.awaits(id));
        }
    }

    /// Walks once and keeps what a UMTP tunnel can be built to.
    ///
    /// # Errors
    /// [`LocateError`] as [`locate`](Self::locate), or when all servers are named by IPv6 addresses.
    pub async fn servers(&self) -> Result<Vec<SocketAddrV4>, LocateError> {
        let found = self.locate().await?;
        let servers = ipv4_servers(&found);
        if servers.is_empty() { Err(LocateError::NoIpv4(found.servers.len())) } else { Ok(servers) }
    }

    /// Walks once and keeps the servers as they are named, of both families: for AMT relays.
    ///
    /// # Errors
    /// [`LocateError`] as [`locate`](Self::locate).
    pub async fn relays(&self) -> Result<Vec<SocketAddr>, LocateError> {
        let found = self.locate().await?;
        Ok(found.servers.iter().map(|server| SocketAddr::new(server.address, server.port)).collect())
    }
}

async fn ask(
    ask: &Ask,
    (local, on_behalf_of): (Option<IpAddr>, Option<IpAddr>),
    dns: &Dns,
    trust: &Trust,
) -> Result<locator::Answer, String> {
    let exchange = Exchange {
        scheme: ask.scheme,
        trust: Some(trust),
        peer: ask.address,
        authority: &ask.authority,
        target: &ask.target,
        local: local.filter(|local| local.is_ipv4() == ask.address.is_ipv4()),
        credentials: None,
        on_behalf_of,
    };
    let answer = exchange.run(dns).await.map_err(|error| error.to_string())?;
    Ok(locator::Answer { servers: answer.servers()?, tier: answer.matched })
}

/// What a task of a walk came to.
enum Outcome {
    Services(Result<Vec<ServiceTarget>, String>),
    Addresses(Result<Vec<IpAddr>, String>),
    Answer(Result<locator::Answer, String>),
}

/// The tasks of one walk; its end is theirs.
#[derive(Default)]
struct Errands {
    /// As many as the walk has open, which bounds them.
    tasks: JoinSet<(TaskId, Outcome)>,
    handles: Vec<(TaskId, AbortHandle)>,
}

impl Errands {
    fn start(&mut self, id: TaskId, errand: impl Future<Output = Outcome> + Send + 'static) {
        let handle = self.tasks.spawn(async move { (id, errand.await) });
        self.handles.push((id, handle));
    }

    /// The next result, for ever if nothing is open. Cancelling loses nothing.
    async fn next(&mut self) -> (TaskId, Outcome) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(done)) => return done,
                // Dropped by `retain`, or a panic: the walk would wait for it for ever.
                Some(Err(error)) => {
                    if let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Drops the tasks that are of no use any more.
    fn retain(&mut self, is_awaited: impl Fn(TaskId) -> bool) {
        self.handles.retain(|(id, handle)| {
            let keep = is_awaited(*id);
            if !keep {
                handle.abort();
            }
            keep
        });
    }
}

/// The servers of a walk in their order, without those that UMTP cannot reach.
#[must_use]
pub fn ipv4_servers(found: &Found) -> Vec<SocketAddrV4> {
    let ipv4 = |address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    };
    found.servers.iter().filter_map(|server| ipv4(SocketAddr::new(server.address, server.port))).collect()
}

/// Which member of a list is asked first differs from client to client; nothing depends on it being secret.
fn seed() -> u64 {
    let mut octets = [0; 8];
    match getrandom::fill(&mut octets) {
        Ok(()) => u64::from_ne_bytes(octets),
        Err(_) => u64::from(std::process::id()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_walk_goes_from_the_root_to_the_country_and_is_remembered() {
        let country = serve("200 OK", &entry("127.0.2.1:10100", 0)).await;
        let root = serve("200 OK", &entry(&country.to_string(), 1)).await;
        let folder = tempfile::tempdir().unwrap();
        let locator = locator(&[root], CacheFolder::at(folder.path()));
        let found = locator.locate().await.unwrap();
        let asked: Vec<_> = found.hops.iter().map(|hop| hop.asked.clone()).collect();
        assert_eq!(asked, [root.to_string(), country.to_string()]);
        assert_eq!(ipv4_servers(&found), ["127.0.2.1:10100".parse().unwrap()]);
        // The second walk starts at the country.
        assert_eq!(locator.locate().await.unwrap().hops.len(), 1);
    }

    #[tokio::test]
    async fn a_status_and_a_dead_root_are_told() {
        let refusing = serve("503 Service Unavailable", "").await;
        let error = locator(&[refusing], CacheFolder::none()).locate().await.unwrap_err();
        let LocateError::Walk(walk) = &error else { panic!("{error}") };
        assert_eq!(walk.hops[0].outcome, HopOutcome::Failed("answered 503 Service Unavailable".to_owned()));
        assert!(error.to_string().contains(&refusing.to_string()), "{error}");
    }

    #[tokio::test]
    async fn relays_are_asked_for_by_their_protocol_and_may_have_any_address() {
        let list = "<SERVERS><SERVER><ADDRESS>2001:db8::1</ADDRESS><PORT>2268</PORT><TYPE>0</TYPE><PROTOCOL>AMT</PROTOCOL></SERVER></SERVERS>";
        let root = serve("200 OK", list).await;
        let relays = locator(&[root], CacheFolder::none()).for_relays();
        assert_eq!(relays.relays().await, Ok(vec!["[2001:db8::1]:2268".parse().unwrap()]));
        assert!(locator(&[root], CacheFolder::none()).relays().await.is_err(), "UMTP is another protocol");
    }

    #[tokio::test]
    async fn a_relay_passes_over_itself_and_what_it_feeds_and_knows_who_feeds_the_others() {
        let entry = |address: &str, fed_by: &str| {
            format!(
                "<SERVER><ADDRESS>{address}</ADDRESS><PORT>10100</PORT><TYPE>0</TYPE><PROTOCOL>UDP</PROTOCOL>\
                 <FEDBY>{fed_by}</FEDBY></SERVER>"
            )
        };
        let (own, below) = (entry("192.0.2.1", "192.0.2.9"), entry("192.0.2.2", "192.0.2.8,192.0.2.1"));
        let other = entry("192.0.2.3", "192.0.2.9");
        let root = serve("200 OK", &format!("<SERVERS>{own}{below}{other}</SERVERS>")).await;
        let relay = locator(&[root], CacheFolder::none()).for_relay_at(vec!["192.0.2.1:10100".parse().unwrap()]);
        assert_eq!(relay.servers().await, Ok(vec!["192.0.2.3:10100".parse().unwrap()]));
        assert_eq!(relay.fed_by("192.0.2.3:10100".parse().unwrap()), ["192.0.2.9".parse::<IpAddr>().unwrap()]);

        let root = serve("200 OK", &format!("<SERVERS>{own}{below}</SERVERS>")).await;
        let relay = locator(&[root], CacheFolder::none()).for_relay_at(relay.own);
        assert_eq!(relay.servers().await, Err(LocateError::OnlyLoops(2)));
    }

    #[tokio::test]
    async fn servers_without_an_ipv4_address_are_no_use() {
        let root = serve("200 OK", &entry("[2001:db8::1]:10100", 0)).await;
        assert_eq!(locator(&[root], CacheFolder::none()).servers().await, Err(LocateError::NoIpv4(1)));
    }

    fn locator(roots: &[SocketAddr], cache: CacheFolder) -> Locator {
        let roots = roots.iter().map(|root| DatabaseAddress::of_socket(*root)).collect();
        Locator::new(roots, None, Dns::with_resolver("127.0.0.1:1").unwrap(), cache)
    }

    fn entry(address: &str, kind: u8) -> String {
        let address: SocketAddr = address.parse().unwrap();
        let protocol = if kind == 0 { "UDP" } else { "TCP" };
        format!(
            "<SERVERS><SERVER><ADDRESS>{}</ADDRESS><PORT>{}</PORT><TYPE>{kind}</TYPE><PROTOCOL>{protocol}</PROTOCOL></SERVER></SERVERS>",
            address.ip(),
            address.port()
        )
    }

    /// A database that answers everybody the same.
    async fn serve(status: &str, body: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4_096];
                let len = stream.read(&mut head).await.unwrap();
                assert!(head[..len].starts_with(b"GET /script/castgate.cgs?ACTION=QUERY&TYPE=TS"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }
}
