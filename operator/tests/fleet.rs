//! Agents on loopback: real TLS, real HTTP/2, a token for each, and an operator that knows their pods.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use castgate_control::{AgentSnapshot, ServerSnapshot};
use castgate_operator::fleet::{
    AUDIENCE, CachedReviews, Controller, Fleet, FleetService, Limits, PodFacts, Pods, ReviewError, Reviewed,
    TokenReviewer, serve,
};
use castgate_operator::observe::Metrics;
use castgate_operator::pki::{Authority, Lifetimes, ServingCert, ServingNames};
use castgate_rpc::v1::agent_report::Report;
use castgate_rpc::v1::fleet_client::FleetClient;
use castgate_rpc::v1::{AgentReport, AgentSnapshot as Message, Hello, State, Verdict};
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status, Streaming};

const SERVER_NAME: &str = "castgate-operator.castgate-system.svc";
/// Long enough for a slow machine, short enough for a person.
const SOON: Duration = Duration::from_secs(10);
/// What must not come is waited for that long.
const QUIET: Duration = Duration::from_millis(300);

#[tokio::test]
async fn an_agent_gets_exactly_its_snapshot_and_silence_when_it_has_it() {
    let operator = Operator::start(Limits::default()).await;
    operator.fleet.publish([snapshot("n1", 1), snapshot("n2", 1)].into());

    let mut agent = operator.agent("n1", "").await.expect("it is let in");
    let first = agent.snapshot().await;
    assert_eq!(first.agent, "isp/ts-edge@n1");
    agent.say(Report::Verdict(verdict(&first))).await;

    // It knows what it has: nothing comes, not even when everything is published again.
    let mut again = operator.agent("n1", &first.digest()).await.expect("it is let in again");
    operator.fleet.publish([snapshot("n1", 1), snapshot("n2", 2)].into());
    again.hears_nothing().await;

    operator.fleet.publish([snapshot("n1", 3), snapshot("n2", 2)].into());
    let second = again.snapshot().await;
    assert_eq!(second.server, snapshot("n1", 3).1.server);
    assert!(second.generation > first.generation);
    again.hears_nothing().await;
}

#[tokio::test]
async fn what_an_agent_says_is_known() {
    let operator = Operator::start(Limits::default()).await;
    operator.fleet.publish([snapshot("n1", 1)].into());
    let mut agent = operator.agent("n1", "").await.unwrap();
    let taken = agent.snapshot().await;
    agent.say(Report::Verdict(verdict(&taken))).await;
    let state = State { listen: "192.0.2.1:10000".to_owned(), tunnels: 3, ..State::default() };
    agent.say(Report::State(state)).await;
    operator
        .until(|fleet| {
            let view = fleet.agent("isp/ts-edge@n1").expect("it is here");
            view.digest == taken.digest() && view.state.is_some_and(|state| state.tunnels == 3)
        })
        .await;

    operator.fleet.publish([snapshot("n1", 2)].into());
    let refused = agent.snapshot().await;
    let refusal = "server.listen: in use".to_owned();
    agent.say(Report::Verdict(Verdict { generation: refused.generation, digest: taken.digest(), refusal })).await;
    operator
        .until(|fleet| fleet.agent("isp/ts-edge@n1").unwrap().refusal.as_deref() == Some("server.listen: in use"))
        .await;
    agent.hears_nothing().await;
    assert!(operator.metrics.text().contains(r#"castgate_tunnels{namespace="isp",server="edge"} 3"#));
}

#[tokio::test]
async fn the_second_stream_of_an_agent_ends_the_first() {
    let operator = Operator::start(Limits::default()).await;
    let mut first = operator.agent("n1", "").await.unwrap();
    let second = operator.agent("n1", "").await.unwrap();
    let end = timeout(SOON, first.snapshots.message()).await.expect("it is told").expect_err("it ended");
    assert_eq!((end.code(), end.message()), (Code::Aborted, "another stream has taken over"));
    assert!(operator.fleet.agent("isp/ts-edge@n1").unwrap().connected);
    drop(second);
    operator.until(|fleet| !fleet.agent("isp/ts-edge@n1").unwrap().connected).await;
}

#[tokio::test]
async fn strangers_get_no_snapshot() {
    let operator = Operator::start(Limits::default()).await;
    operator.fleet.publish([snapshot("n1", 1), snapshot("n2", 1)].into());
    for (token, node, code, reason) in [
        (None, "n1", Code::Unauthenticated, "no-token"),
        (Some("nonsense"), "n1", Code::Unauthenticated, "token"),
        (Some("token-of-n1-for-somebody-else"), "n1", Code::Unauthenticated, "audience"),
        (Some("token-of-n2"), "n1", Code::PermissionDenied, "hello"),
        (Some("token-of-n1-from-a-foreign-pod"), "n1", Code::PermissionDenied, "pod"),
        (Some("token-of-n3"), "n3", Code::Unavailable, "unknown-pod"),
        (Some("token-that-nobody-can-check"), "n1", Code::Unavailable, "review"),
    ] {
        let refusal = operator.call(token, node, "").await.map(|_| ()).expect_err("a stranger");
        assert_eq!(refusal.code(), code, "{token:?}: {refusal}");
        let counted = format!(r#"castgate_agent_refusals_total{{reason="{reason}"}} 1"#);
        assert!(operator.metrics.text().contains(&counted), "{counted}\n{}", operator.metrics.text());
    }
    assert!(operator.fleet.agents().is_empty());
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_a_hello_is_refused() {
    let operator = Operator::start(Limits::default()).await;
    let (reports, receiver) = mpsc::channel(4);
    reports.send(AgentReport { report: Some(Report::State(State::default())) }).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(receiver));
    request.metadata_mut().insert("authorization", "Bearer token-of-n1".parse().unwrap());
    let refusal = FleetClient::new(operator.channel().await).sync(request).await.map(|_| ()).expect_err("no hello");
    assert_eq!(refusal.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_frozen_agent_is_noticed() {
    let limits = Limits {
        keepalive_interval: Duration::from_millis(200),
        keepalive_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let operator = Operator::start(limits).await;
    let wire = Wire::start(operator.address).await;
    let channel = operator.channel_to(wire.address).await;
    let agent = Agent::call(channel, Some("token-of-n1"), "n1", "").await.unwrap();
    // An honest agent answers the questions of HTTP/2 and stays.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(operator.fleet.agent("isp/ts-edge@n1").unwrap().connected);

    // Not a FIN, not an RST: silence, as of a node that lost its network.
    let began = std::time::Instant::now();
    wire.cut.send_replace(true);
    operator.until(|fleet| !fleet.agent("isp/ts-edge@n1").unwrap().connected).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(agent);
}

#[test]
fn a_dead_node_is_noticed_within_twelve_seconds_by_default() {
    let Limits { keepalive_interval, keepalive_timeout, .. } = Limits::default();
    assert!(keepalive_interval + keepalive_timeout <= Duration::from_secs(12));
}

#[tokio::test]
async fn a_connection_that_never_shakes_hands_is_closed_and_nobody_waits_for_it() {
    let limits = Limits { handshake: Duration::from_millis(500), ..Limits::default() };
    let operator = Operator::start(limits).await;
    let mut silent = TcpStream::connect(operator.address).await.unwrap();
    operator.agent("n1", "").await.expect("others are served meanwhile");
    let mut nothing = [0; 1];
    let read = timeout(SOON, silent.read(&mut nothing)).await.expect("it is closed");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn a_report_that_is_too_large_ends_the_stream() {
    let operator = Operator::start(Limits { report_bytes_max: 64 * 1024, ..Limits::default() }).await;
    let mut agent = operator.agent("n1", "").await.unwrap();
    agent.say(Report::State(State { listen: "x".repeat(65 * 1024), ..State::default() })).await;
    operator.until(|fleet| !fleet.agent("isp/ts-edge@n1").unwrap().connected).await;
    let _ = agent.snapshots.message().await;
}

#[tokio::test]
async fn a_client_that_trusts_another_fleet_does_not_connect() {
    let operator = Operator::start(Limits::default()).await;
    let stranger = Authority::create(Timestamp::now(), &Lifetimes::default()).unwrap();
    assert!(connect(operator.address, &stranger.bundle()).await.is_err());
    // And without TLS there is nothing at all.
    let mut plain = TcpStream::connect(operator.address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, plain.read_to_end(&mut answer)).await.expect("it is closed");
    assert!(!answer.windows(4).any(|window| window == b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn the_certificate_turns_under_a_live_stream() {
    let operator = Operator::start(Limits::default()).await;
    let mut agent = operator.agent("n1", "").await.unwrap();
    let other = Authority::create(Timestamp::now(), &Lifetimes::default()).unwrap();
    assert!(operator.certificate.refresh(&other, Timestamp::now()).unwrap());
    assert!(connect(operator.address, &operator.authority.bundle()).await.is_err(), "new connections see the new one");
    assert!(connect(operator.address, &other.bundle()).await.is_ok());
    operator.fleet.publish([snapshot("n1", 1)].into());
    agent.snapshot().await;
}

/// An operator on loopback with pods on the nodes n1 and n2.
struct Operator {
    address: SocketAddr,
    authority: Authority,
    certificate: Arc<ServingCert>,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    task: JoinHandle<()>,
}

impl Operator {
    async fn start(limits: Limits) -> Self {
        let now = Timestamp::now();
        let authority = Authority::create(now, &Lifetimes::default()).unwrap();
        let names = ServingNames {
            dns_names: vec![SERVER_NAME.to_owned()],
            ips: Vec::new(),
            lifetime: Duration::from_hours(1),
        };
        let certificate = ServingCert::new(&authority, names, now).unwrap();
        let metrics = Arc::new(Metrics::new());
        let fleet = Fleet::new(Arc::clone(&metrics), 100);
        let reviewer = CachedReviews::new(Cluster);
        let service = FleetService::new(Arc::clone(&fleet), reviewer, Arc::new(Cluster), Arc::clone(&metrics));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shown = Arc::clone(&certificate);
        let task = tokio::spawn(async move {
            serve(listener, service, &shown, limits, std::future::pending()).await.expect("it serves");
        });
        Self { address, authority, certificate, fleet, metrics, task }
    }

    async fn channel(&self) -> Channel {
        self.channel_to(self.address).await
    }

    async fn channel_to(&self, address: SocketAddr) -> Channel {
        connect(address, &self.authority.bundle()).await.expect("the operator is there")
    }

    /// The agent of a node, with its own token.
    async fn agent(&self, node: &str, digest: &str) -> Result<Agent, Status> {
        self.call(Some(&format!("token-of-{node}")), node, digest).await
    }

    async fn call(&self, token: Option<&str>, node: &str, digest: &str) -> Result<Agent, Status> {
        Agent::call(self.channel().await, token, node, digest).await
    }

    /// Waits until something holds.
    async fn until(&self, holds: impl Fn(&Fleet) -> bool) {
        let mut changes = self.fleet.subscribe_changes();
        let wait = async {
            while !holds(&self.fleet) {
                changes.changed().await.expect("the fleet is there");
            }
        };
        timeout(SOON, wait).await.expect("it comes true soon");
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client that plays an agent.
struct Agent {
    reports: mpsc::Sender<AgentReport>,
    snapshots: Streaming<Message>,
}

impl Agent {
    async fn call(channel: Channel, token: Option<&str>, node: &str, digest: &str) -> Result<Self, Status> {
        let (reports, receiver) = mpsc::channel(4);
        let hello = Hello {
            agent: format!("isp/ts-edge@{node}"),
            node: node.to_owned(),
            version: "0.1.0".to_owned(),
            generation: 0,
            digest: digest.to_owned(),
        };
        reports.send(AgentReport { report: Some(Report::Hello(hello)) }).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(receiver));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let answer = timeout(SOON, FleetClient::new(channel).sync(request)).await.expect("an answer");
        Ok(Self { reports, snapshots: answer?.into_inner() })
    }

    async fn say(&self, report: Report) {
        self.reports.send(AgentReport { report: Some(report) }).await.expect("the stream lives");
    }

    async fn snapshot(&mut self) -> AgentSnapshot {
        let message = timeout(SOON, self.snapshots.message()).await.expect("a snapshot comes");
        let message = message.expect("the stream lives").expect("the stream goes on");
        let snapshot = AgentSnapshot::from_yaml(&message.document).expect("it can be read");
        assert_eq!(snapshot.generation, message.generation);
        snapshot
    }

    async fn hears_nothing(&mut self) {
        let heard = timeout(QUIET, self.snapshots.message()).await;
        assert!(heard.is_err(), "{heard:?}");
    }
}

async fn connect(address: SocketAddr, bundle: &str) -> Result<Channel, tonic::transport::Error> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(bundle)).domain_name(SERVER_NAME);
    Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?.connect().await
}

/// The cluster, as the API server and our index see it.
struct Cluster;

impl TokenReviewer for Cluster {
    fn review<'a>(&'a self, token: &'a str, _: &'a str) -> BoxFuture<'a, Result<Reviewed, ReviewError>> {
        let one = |value: &str| vec![value.to_owned()];
        let of = move |node: &str, pod: &str, audience: &str| Reviewed {
            username: "system:serviceaccount:isp:castgate-agent".to_owned(),
            audiences: one(audience),
            extra: BTreeMap::from([
                ("authentication.kubernetes.io/pod-name".to_owned(), one(pod)),
                ("authentication.kubernetes.io/pod-uid".to_owned(), one(&format!("uid-of-{pod}"))),
                ("authentication.kubernetes.io/node-name".to_owned(), one(node)),
            ]),
        };
        Box::pin(async move {
            match token {
                "token-of-n1" => Ok(of("n1", "ts-edge-n1", AUDIENCE)),
                "token-of-n2" => Ok(of("n2", "ts-edge-n2", AUDIENCE)),
                "token-of-n3" => Ok(of("n3", "ts-edge-n3", AUDIENCE)),
                "token-of-n1-for-somebody-else" => Ok(of("n1", "ts-edge-n1", "vault")),
                "token-of-n1-from-a-foreign-pod" => Ok(of("n1", "foreign", AUDIENCE)),
                "token-that-nobody-can-check" => Err(ReviewError::Unavailable("connection refused".to_owned())),
                _ => Err(ReviewError::Rejected("invalid token".to_owned())),
            }
        })
    }
}

impl Pods for Cluster {
    fn pod(&self, namespace: &str, name: &str) -> Option<PodFacts> {
        let (node, controller) = match (namespace, name) {
            ("isp", "ts-edge-n1") => ("n1", "ts-edge"),
            ("isp", "ts-edge-n2") => ("n2", "ts-edge"),
            ("isp", "foreign") => ("n1", "foreign"),
            _ => return None,
        };
        let labels = [
            ("app.kubernetes.io/name", "castgate"),
            ("app.kubernetes.io/component", "server"),
            ("castgate.dev/owner", "edge"),
        ];
        Some(PodFacts {
            uid: format!("uid-of-{name}"),
            node: Some(node.to_owned()),
            service_account: "castgate-agent".to_owned(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            controller: Some(Controller { kind: "DaemonSet".to_owned(), name: controller.to_owned() }),
        })
    }
}

/// A wire that can be cut without either end hearing of it.
struct Wire {
    address: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Wire {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, mut is_cut) = watch::channel(false);
        tokio::spawn(async move {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(to).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = is_cut.changed() => {}
            }
            // Both sockets stay open: nothing goes through, and nobody is told.
            std::future::pending::<()>().await;
        });
        Self { address, cut }
    }
}

fn snapshot(node: &str, content: u16) -> (String, AgentSnapshot) {
    let agent = format!("isp/ts-edge@{node}");
    let listen = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 10_000 + content);
    let server = ServerSnapshot::new(listen, vec!["lo".to_owned()]);
    (agent.clone(), AgentSnapshot { agent, server: Some(server), ..AgentSnapshot::default() })
}

fn verdict(snapshot: &AgentSnapshot) -> Verdict {
    Verdict { generation: snapshot.generation, digest: snapshot.digest(), refusal: String::new() }
}
