//! A member of etcd made of closures.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use crate::proto::etcdserverpb::auth_server::{Auth, AuthServer};
use crate::proto::etcdserverpb::kv_server::{Kv, KvServer};
use crate::proto::etcdserverpb::lease_server::{Lease, LeaseServer};
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::watch_server::{Watch, WatchServer};
use crate::proto::etcdserverpb::*;

/// What is answered to a request; how many came before.
type Answer<Q, A> = Option<Box<dyn Fn(Q, usize) -> Result<A, Status> + Send + Sync>>;
type Talking = Box<dyn Fn(Talk) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What a member says; nothing: that it does not know the request.
#[derive(Default)]
pub struct Member {
    pub range: Answer<Request<RangeRequest>, RangeResponse>,
    pub txn: Answer<Request<TxnRequest>, TxnResponse>,
    pub grant: Answer<Request<LeaseGrantRequest>, LeaseGrantResponse>,
    pub revoke: Answer<Request<LeaseRevokeRequest>, LeaseRevokeResponse>,
    pub keep_alive: Answer<LeaseKeepAliveRequest, LeaseKeepAliveResponse>,
    pub authenticate: Answer<Request<AuthenticateRequest>, AuthenticateResponse>,
    pub watch: Option<Talking>,
    pub calls: AtomicUsize,
}

/// A member while it runs.
pub struct Running {
    pub url: String,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One watch, from the side of the member.
pub struct Talk {
    requests: Streaming<WatchRequest>,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
}

impl Talk {
    pub async fn hear(&mut self) -> RequestUnion {
        self.requests.message().await.unwrap().expect("the client asks").request_union.expect("for something")
    }

    pub async fn send(&mut self, answer: WatchResponse) {
        // The client may be gone: then nobody looks at what this member does.
        let _ = self.answers.send(Ok(answer)).await;
    }

    /// Takes a watch that is to begin at `start`, as a member whose newest revision is `revision`.
    pub async fn created(&mut self, start: i64, revision: i64) {
        let RequestUnion::CreateRequest(create) = self.hear().await else { panic!("no watch is asked for") };
        assert_eq!((create.key, create.range_end), (b"p/".to_vec(), b"p0".to_vec()));
        assert_eq!(create.start_revision, start);
        assert!(create.fragment);
        let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        self.send(WatchResponse { header, created: true, ..WatchResponse::default() }).await;
    }

    pub async fn pinged(&mut self) {
        assert!(matches!(self.hear().await, RequestUnion::ProgressRequest(_)));
    }

    /// Until the client goes.
    pub async fn stay(mut self) {
        while let Ok(Some(_)) = self.requests.message().await {}
    }
}

impl Member {
    pub fn with_range(
        answer: impl Fn(Request<RangeRequest>) -> Result<RangeResponse, Status> + Send + Sync + 'static,
    ) -> Self {
        Self { range: Some(Box::new(move |request, _| answer(request))), ..Self::default() }
    }

    pub fn with_watch<F>(talk: impl Fn(Talk) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { watch: Some(Box::new(move |with| Box::pin(talk(with)))), ..Self::default() }
    }

    pub async fn start(self) -> Running {
        self.start_with(None).await
    }

    pub async fn start_with(self, tls: Option<ServerTlsConfig>) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let member = Arc::new(self);
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let router = server
            .add_service(KvServer::from_arc(member.clone()).max_encoding_message_size(usize::MAX))
            .add_service(LeaseServer::from_arc(member.clone()))
            .add_service(AuthServer::from_arc(member.clone()))
            .add_service(WatchServer::from_arc(member));
        let task = tokio::spawn(async move {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Running { url, task }
    }

    fn answer<Q, A>(&self, answer: &Answer<Q, A>, request: Q) -> Result<Response<A>, Status> {
        let answer = answer.as_ref().ok_or_else(|| Status::unimplemented("this member does not know that"))?;
        answer(request, self.calls.load(Ordering::Relaxed)).map(Response::new)
    }
}

#[tonic::async_trait]
impl Kv for Member {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        self.answer(&self.range, request)
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.answer(&self.txn, request)
    }
}

#[tonic::async_trait]
impl Auth for Member {
    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        let answer = self.answer(&self.authenticate, request);
        self.calls.fetch_add(1, Ordering::Relaxed);
        answer
    }
}

#[tonic::async_trait]
impl Lease for Member {
    type LeaseKeepAliveStream = ReceiverStream<Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        self.answer(&self.grant, request)
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        self.answer(&self.revoke, request)
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let first = request.into_inner().message().await?.expect("one request");
        let (answers, receiver) = mpsc::channel(1);
        let answer = self.answer(&self.keep_alive, first)?.into_inner();
        answers.send(Ok(answer)).await.unwrap();
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[tonic::async_trait]
impl Watch for Member {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let talking = self.watch.as_ref().ok_or_else(|| Status::unimplemented("this member does not watch"))?;
        let (answers, receiver) = mpsc::channel(16);
        tokio::spawn(talking(Talk { requests: request.into_inner(), answers }));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
