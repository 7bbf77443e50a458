//! A small operator: the service `Fleet` on loopback, with a certificate authority of its own.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use castgate_control::AgentSnapshot;
use castgate_rpc::v1::agent_report::Report;
use castgate_rpc::v1::fleet_server::{Fleet, FleetServer};
use castgate_rpc::v1::{AgentReport, AgentSnapshot as Document, Hello, State, Verdict};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// More than any answer on one machine takes, however busy it is.
const PATIENCE: Duration = Duration::from_secs(30);

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, as PEM.
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority of a test");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for a name or an address, and its key, as PEM.
    pub fn vouch_for(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A running operator. Dropped, it is gone without a word.
pub struct Operator {
    pub address: SocketAddr,
    desk: Arc<Desk>,
    seen: mpsc::UnboundedReceiver<Seen>,
    cut: watch::Sender<u64>,
    task: JoinHandle<()>,
}

/// What an agent sent, and with which token its stream began.
#[derive(Debug)]
pub struct Seen {
    pub token: String,
    pub report: Report,
}

struct Desk {
    snapshot: watch::Sender<Document>,
    seen: mpsc::UnboundedSender<Seen>,
    cut: watch::Receiver<u64>,
    refuse: Mutex<Option<Status>>,
}

impl Operator {
    /// Listens; the certificate names `name`.
    pub async fn start(authority: &Authority, address: &str, name: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = mpsc::unbounded_channel();
        let (cut, cuts) = watch::channel(0);
        let (snapshot, _) = watch::channel(Document::default());
        let desk = Arc::new(Desk { snapshot, seen: sender, cut: cuts, refuse: Mutex::default() });
        let (certificate, key) = authority.vouch_for(name);
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        let server = Server::builder().tls_config(tls).unwrap().add_service(FleetServer::from_arc(desk.clone()));
        let task =
            tokio::spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
        Self { address, desk, seen, cut, task }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Gives this snapshot to every stream, now and later.
    pub fn give(&self, snapshot: &AgentSnapshot) {
        self.give_text(snapshot.generation, &snapshot.to_yaml());
    }

    pub fn give_text(&self, generation: u64, text: &str) {
        self.desk.snapshot.send_replace(Document { generation, document: text.to_owned() });
    }

    /// Ends every stream.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// From now on streams are refused, or no longer.
    pub async fn refuse(&self, status: Option<Status>) {
        *self.desk.refuse.lock().await = status;
    }

    /// The next report of that kind; others are forgotten.
    pub async fn next<T>(&mut self, wanted: impl Fn(Seen) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = wanted(self.seen.recv().await.expect("the operator lives")) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the agent says so")
    }

    pub async fn hello(&mut self) -> (Hello, String) {
        self.next(|Seen { token, report }| match report {
            Report::Hello(hello) => Some((hello, token)),
            _ => None,
        })
        .await
    }

    pub async fn verdict(&mut self) -> Verdict {
        self.next(|seen| match seen.report {
            Report::Verdict(verdict) => Some(verdict),
            _ => None,
        })
        .await
    }

    pub async fn state(&mut self, wanted: impl Fn(&State) -> bool) -> State {
        self.next(|seen| match seen.report {
            Report::State(state) if wanted(&state) => Some(state),
            _ => None,
        })
        .await
    }

    /// Ends at once, connections included.
    pub async fn vanish(self) {
        self.cut();
        self.task.abort();
        let address = self.address;
        drop(self);
        // Until its sockets are closed a successor cannot listen.
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tonic::async_trait]
impl Fleet for Desk {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<Document, Status>> + Send>>;

    async fn sync(&self, request: Request<Streaming<AgentReport>>) -> Result<Response<Self::SyncStream>, Status> {
        if let Some(status) = self.refuse.lock().await.clone() {
            return Err(status);
        }
        let token = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let token = token.unwrap_or_default();
        let mut reports = request.into_inner();
        let first = reports.message().await?.and_then(|report| report.report);
        let Some(Report::Hello(hello)) = first else { return Err(Status::invalid_argument("no Hello")) };
        let mut digest = hello.digest.clone();
        let _ = self.seen.send(Seen { token: token.clone(), report: Report::Hello(hello) });
        let (documents, answers) = mpsc::channel(4);
        let (mut snapshot, mut cut) = (self.snapshot.subscribe(), self.cut.clone());
        let seen = self.seen.clone();
        snapshot.mark_changed();
        cut.mark_unchanged();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    report = reports.message() => match report {
                        Ok(Some(AgentReport { report: Some(report) })) => {
                            if let Report::Verdict(verdict) = &report {
                                digest.clone_from(&verdict.digest);
                            }
                            let _ = seen.send(Seen { token: token.clone(), report });
                        }
                        _ => return,
                    },
                    Ok(()) = snapshot.changed() => {
                        let document = snapshot.borrow_and_update().clone();
                        // Silent when equal; what cannot even be read is given all the same.
                        let equal = AgentSnapshot::from_yaml(&document.document).is_ok_and(|new| new.digest() == digest);
                        if !document.document.is_empty() && !equal && documents.send(Ok(document)).await.is_err() {
                            return;
                        }
                    }
                    _ = cut.changed() => return,
                }
            }
        });
        let answers = tokio_stream::wrappers::ReceiverStream::new(answers);
        Ok(Response::new(Box::pin(answers.map(|document| document))))
    }
}
