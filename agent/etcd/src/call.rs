//! One request, whichever member answers it.
//!
//! ```text
//!   request ─▶ current member ──answer────────────────────────▶ done
//!                │  ▲ └─refusal that others would repeat──────▶ Refused
//!                │  └─token gone: once more with a new one
//!                └─no answer in time, no leader ─▶ next member; after a round a pause; until the time is up ─▶ Unreachable
//! ```
//! Who answered last is asked first. Every request here may be carried out twice without harm: what was changed is guarded by
//! revisions, a lease too many goes by itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status};

use crate::config::{Config, Identity, Login};
use crate::error::{EtcdError, Verdict, said};
use crate::proto::etcdserverpb::AuthenticateRequest;
use crate::proto::etcdserverpb::auth_client::AuthClient;

/// A member whose connection says nothing is tried with a ping. etcd cuts off who does so more often than every 5 s.
const PING: Duration = Duration::from_secs(10);
const PING_TIME: Duration = Duration::from_secs(5);
/// Wait after a round in which no member answered; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Longest answer that is taken at once. etcd's longest value has 1.5 MiB unless its operator raised that.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The client. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    members: Vec<Member>,
    /// Index of the member that is asked first.
    current: AtomicUsize,
    login: Option<Login>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
    config: Config,
}

/// One member of etcd.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) channel: Channel,
}

impl Client {
    /// Connects to nobody yet; call it within a runtime.
    ///
    /// # Errors
    /// [`EtcdError::Config`] with the field.
    pub fn new(config: Config) -> Result<Self, EtcdError> {
        if config.endpoints.is_empty() {
            return Err(EtcdError::Config("endpoints", "there are none".to_owned()));
        }
        let members = config.endpoints.iter().map(|name| member(name, &config)).collect::<Result<_, _>>()?;
        let login = config.login.clone();
        let shared = Shared { members, current: AtomicUsize::new(0), login, token: Mutex::default(), config };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn members(&self) -> usize {
        self.shared.members.len()
    }

    /// Who is asked first, and its index.
    pub(crate) fn current(&self) -> (usize, Member) {
        let index = self.shared.current.load(Ordering::Relaxed);
        (index, self.shared.members[index].clone())
    }

    /// The member failed: the next one is asked first, unless somebody found that out before.
    pub(crate) fn pass_over(&self, index: usize) {
        let next = (index + 1) % self.shared.members.len();
        let _ = self.shared.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A request as a member wants it: with our token, and refused at once by a member that has no leader.
    pub(crate) async fn request<T>(&self, member: &Member, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = self.token(member).await? {
            request.metadata_mut().insert("token", token);
        }
        Ok(request)
    }

    /// The next request shows a new token.
    pub(crate) fn forget_token(&self) {
        *self.shared.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn token(&self, member: &Member) -> Result<Option<MetadataValue<Ascii>>, Status> {
        let Some(Login { name, password }) = self.shared.login.clone() else { return Ok(None) };
        let known = self.shared.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if known.is_some() {
            return Ok(known);
        }
        let request = AuthenticateRequest { name, password };
        let answer = AuthClient::new(member.channel.clone()).authenticate(request).await;
        let token = match answer {
            Ok(answer) => answer.into_inner().token,
            // Nobody needs a login there (yet).
            Err(status) if status.message().contains("authentication is not enabled") => return Ok(None),
            Err(status) => return Err(status),
        };
        let mut token: MetadataValue<Ascii> =
            token.parse().map_err(|_| Status::unavailable("the token has characters that no header may have"))?;
        token.set_sensitive(true);
        *self.shared.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(Some(token))
    }

    /// Asks one member after the other. Returns the answer and who gave it.
    pub(crate) async fn call<M, T, F, Fut>(&self, message: M, send: F) -> Result<(T, String), EtcdError>
    where
        M: Clone,
        F: Fn(Channel, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let Config { request_time, call_time, .. } = *self.config();
        let end = Instant::now() + call_time;
        let mut pause = PAUSE_MIN;
        let (mut tried, mut renewed) = (0, false);
        loop {
            let (index, member) = self.current();
            let once = async {
                let request = self.request(&member, message.clone()).await?;
                send(member.channel.clone(), request).await
            };
            let time = request_time.min(end.saturating_duration_since(Instant::now()));
            let reason = match timeout(time, once).await {
                Ok(Ok(answer)) => return Ok((answer.into_inner(), member.name)),
                Ok(Err(status)) => match Verdict::of(&status) {
                    Verdict::NewToken if self.shared.login.is_some() && !renewed => {
                        renewed = true;
                        self.forget_token();
                        continue;
                    }
                    Verdict::NewToken | Verdict::Final => return Err(EtcdError::refused(&member.name, &status)),
                    Verdict::NextMember => said(&status),
                },
                Err(_) => format!("no answer within {} ms", time.as_millis()),
            };
            tracing::debug!(member = member.name, reason, "member of etcd passed over");
            self.pass_over(index);
            tried += 1;
            let round_is_over = tried % self.members() == 0;
            let wait = if round_is_over { pause } else { Duration::ZERO };
            if Instant::now() + wait >= end {
                return Err(EtcdError::Unreachable { member: member.name, reason });
            }
            if round_is_over {
                sleep(wait).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

fn member(name: &str, config: &Config) -> Result<Member, EtcdError> {
    let wrong = |reason: String| EtcdError::Config("endpoints", format!("{name}: {reason}"));
    let endpoint = Endpoint::from_shared(name.to_owned()).map_err(|error| wrong(error.to_string()))?;
    let secure = match endpoint.uri().scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong("begins neither with http:// nor with https://".to_owned())),
    };
    let endpoint =
        if secure { endpoint.tls_config(tls(config)?).map_err(|error| wrong(error.to_string()))? } else { endpoint };
    let channel = endpoint
        .connect_timeout(config.request_time)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING_TIME)
        .connect_lazy();
    Ok(Member { name: name.to_owned(), channel })
}

fn tls(config: &Config) -> Result<ClientTlsConfig, EtcdError> {
    const PEM: &str = "-----BEGIN ";
    let Some(ca) = config.ca.as_ref().filter(|ca| ca.contains(PEM)) else {
        return Err(EtcdError::Config("ca", "holds no certificate in PEM".to_owned()));
    };
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).timeout(config.request_time);
    if let Some(Identity { certificate, key }) = &config.identity {
        if !certificate.contains(PEM) || !key.contains(PEM) {
            return Err(EtcdError::Config("identity", "certificate and key are not both PEM".to_owned()));
        }
        tls = tls.identity(tonic::transport::Identity::from_pem(certificate, key));
    }
    Ok(tls)
}
