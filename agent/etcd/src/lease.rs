//! Leases: what goes by itself when nobody keeps it.

use tokio_stream::once;
use tonic::{Request, Response, Status};

use crate::call::Client;
use crate::error::EtcdError;
use crate::kv::nothing_came;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::lease_client::LeaseClient;

impl Client {
    /// A new lease of so many seconds; returns its number and how many seconds it got, which may be more.
    ///
    /// # Errors
    /// [`EtcdError`]
    pub async fn grant(&self, seconds: u32) -> Result<(i64, i64), EtcdError> {
        let request = pb::LeaseGrantRequest { ttl: seconds.into(), id: 0 };
        let (answer, member) =
            self.call(request, async |channel, request| LeaseClient::new(channel).lease_grant(request).await).await?;
        if !answer.error.is_empty() {
            return Err(EtcdError::Refused { member, reason: answer.error });
        }
        if answer.id == 0 || answer.ttl <= 0 {
            return Err(EtcdError::Nonsense(member));
        }
        Ok((answer.id, answer.ttl))
    }

    /// Ends a lease, and with it every key that goes with it. Whether it was there makes no difference.
    ///
    /// # Errors
    /// [`EtcdError`]
    pub async fn revoke(&self, lease: i64) -> Result<(), EtcdError> {
        let request = pb::LeaseRevokeRequest { id: lease };
        let outcome =
            self.call(request, async |channel, request| match LeaseClient::new(channel).lease_revoke(request).await {
                Err(status) if status.code() == tonic::Code::NotFound => {
                    Ok(Response::new(pb::LeaseRevokeResponse::default()))
                }
                outcome => outcome,
            });
        outcome.await.map(drop)
    }

    /// The lease lives for its whole time again; how many seconds that is. `None`: there is no such lease (any more).
    ///
    /// # Errors
    /// [`EtcdError`]
    pub async fn keep_alive(&self, lease: i64) -> Result<Option<i64>, EtcdError> {
        let request = pb::LeaseKeepAliveRequest { id: lease };
        let (answer, _) = self
            .call(request, async |channel, request: Request<pb::LeaseKeepAliveRequest>| {
                let request = request.map(once);
                match LeaseClient::new(channel).lease_keep_alive(request).await {
                    Ok(answer) => first(answer).await,
                    Err(status) => Err(status),
                }
            })
            .await?;
        Ok(Some(answer.ttl).filter(|seconds| *seconds > 0))
    }
}

async fn first<T>(answer: Response<tonic::Streaming<T>>) -> Result<Response<T>, Status> {
    let message = answer.into_inner().message().await?;
    message.map(Response::new).ok_or_else(nothing_came)
}
