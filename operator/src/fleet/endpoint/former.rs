//! What a life of this replica before held. The pod of a replica that starts again keeps its name, so nobody takes its endpoints
//! over; agents come back and claim theirs, and those of agents that do not are written off here.

use std::collections::BTreeSet;
use std::time::Duration;

use castgate_crds::tunnel_endpoint::{StreamHolder, TunnelEndpoint};
use tracing::{debug, info};

use super::status::{is_lost, written_off};
use super::store::{Store, StoreError};
use super::{Objects, RETRY, Writer, wall_clock};

/// Time to come back: to notice that the stream is dead, and the longest wait between two tries.
const COMES_BACK: Duration = Duration::from_secs(30);

impl<S: Store, O: Objects> Writer<S, O> {
    /// Ends when every endpoint of a former life is claimed or written off.
    pub(super) async fn settle_former(&self) {
        tokio::time::sleep(COMES_BACK).await;
        while let Err(error) = self.write_off_former().await {
            debug!(%error, "endpoints of a former life cannot be written off");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn write_off_former(&self) -> Result<(), StoreError> {
        let agents = self.fleet.agents().into_iter().filter(|view| view.connected);
        let here: BTreeSet<_> =
            agents.map(|view| (view.identity.namespace.clone(), view.identity.endpoint())).collect();
        for place in self.objects.held(&self.replica) {
            if !here.contains(&place) {
                self.write_off(&place.0, &place.1).await?;
            }
        }
        Ok(())
    }

    async fn write_off(&self, namespace: &str, name: &str) -> Result<(), StoreError> {
        let Some(object) = self.store.read(namespace, name).await? else { return Ok(()) };
        let status = object.status.clone().unwrap_or_default();
        let holder = status.stream.clone().unwrap_or_default();
        if holder.replica != self.replica || is_lost(&status) {
            return Ok(());
        }
        let holder = StreamHolder { epoch: holder.epoch.saturating_add(1), ..holder };
        let status = Some(written_off(&status, holder, wall_clock()));
        self.store.replace_status(&TunnelEndpoint { status, ..object }).await?;
        self.metrics.endpoint_written();
        info!(namespace, endpoint = name, "its agent has not come back since this replica began again");
        Ok(())
    }
}
