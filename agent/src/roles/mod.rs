//! What an agent can be. Each role knows its own part of the snapshot and no other role.
//!
//! Owns how a role goes from one part to the next, the same for all of them.

pub mod adapter;
pub mod database;
pub mod feeding;
pub mod front;
pub mod interface;
pub mod pattern;
pub mod peering;
pub mod registrar;
pub mod routes;
pub mod server;

use castgate_control::{AdapterSnapshot, DatabaseSnapshot, FrontSnapshot, RegistrarSnapshot, ServerSnapshot};

use crate::config::diff::Change;
use crate::surroundings::Surroundings;

/// A role while it runs.
pub(crate) trait Role: Sized {
    /// Its part of a snapshot.
    type Part;
    /// Why it does not run like that.
    type Error: std::error::Error;
    /// For messages.
    const NAME: &str;

    /// Begins. On error nothing is left running.
    async fn start(part: &Self::Part, around: &Surroundings) -> Result<Self, Self::Error>;

    /// Goes on with other values. On error it goes on with those it had.
    async fn apply(&mut self, part: &Self::Part) -> Result<(), Self::Error>;

    /// Says goodbye and ends.
    async fn stop(self);

    /// Whether the role can run twice for a moment, once as `old` and once as `new`.
    fn fits_beside(old: &Self::Part, new: &Self::Part) -> bool;
}

/// Takes a role from one part to another. On error it is as it was before.
pub(crate) async fn change<R: Role>(
    running: &mut Option<R>,
    change: Change,
    (old, new): (Option<&R::Part>, Option<&R::Part>),
    around: &Surroundings,
) -> Result<(), R::Error> {
    match (change, old, new) {
        (Change::Start, _, Some(new)) => *running = Some(R::start(new, around).await?),
        (Change::Restart, Some(old), Some(new)) if R::fits_beside(old, new) => {
            let fresh = R::start(new, around).await?;
            if let Some(before) = running.replace(fresh) {
                before.stop().await;
            }
        }
        (Change::Restart, old, Some(new)) => {
            if let Some(before) = running.take() {
                before.stop().await;
            }
            match R::start(new, around).await {
                Ok(fresh) => *running = Some(fresh),
                Err(error) => {
                    *running = start_again(old, around).await;
                    return Err(error);
                }
            }
        }
        (Change::Reconfigure, _, Some(new)) => match running {
            Some(running) => running.apply(new).await?,
            // It did not come back after an earlier refusal: another chance.
            None => *running = Some(R::start(new, around).await?),
        },
        (Change::Stop, ..) => {
            if let Some(before) = running.take() {
                before.stop().await;
            }
        }
        // As above: nothing changed, but it is missing.
        (Change::Keep, _, Some(new)) if running.is_none() => *running = Some(R::start(new, around).await?),
        (Change::Keep, ..) | (Change::Start | Change::Restart | Change::Reconfigure, _, None) => {}
    }
    Ok(())
}

/// What had to end for a successor that could not begin.
async fn start_again<R: Role>(old: Option<&R::Part>, around: &Surroundings) -> Option<R> {
    match R::start(old?, around).await {
        Ok(again) => Some(again),
        Err(error) => {
            tracing::error!(role = R::NAME, %error, "does not come back");
            None
        }
    }
}

impl Role for server::ServerRole {
    type Part = ServerSnapshot;
    type Error = server::ServerError;
    const NAME: &str = "server";

    async fn start(part: &ServerSnapshot, around: &Surroundings) -> Result<Self, Self::Error> {
        Self::start_telling(part, &around.feeding)
    }

    async fn apply(&mut self, part: &ServerSnapshot) -> Result<(), Self::Error> {
        self.apply(part)
    }

    async fn stop(self) {
        self.stop();
    }

    fn fits_beside(old: &ServerSnapshot, new: &ServerSnapshot) -> bool {
        let same_address = old.listen.ip() == new.listen.ip();
        let any_address = old.listen.ip().is_unspecified() || new.listen.ip().is_unspecified();
        old.listen.port() != new.listen.port() || !(same_address || any_address)
    }
}

impl Role for database::Database {
    type Part = DatabaseSnapshot;
    type Error = database::DatabaseError;
    const NAME: &str = "database";

    async fn start(part: &DatabaseSnapshot, around: &Surroundings) -> Result<Self, Self::Error> {
        // Large, and needed once: apart from the future of whoever starts it.
        Box::pin(Self::start_beside(part.clone(), &around.state_dir, around.peering.clone())).await
    }

    async fn apply(&mut self, part: &DatabaseSnapshot) -> Result<(), Self::Error> {
        // As above.
        Box::pin(self.apply(part.clone())).await
    }

    async fn stop(self) {
        self.stop().await;
    }

    /// There is one store, and only one may have it open.
    fn fits_beside(_old: &DatabaseSnapshot, _new: &DatabaseSnapshot) -> bool {
        false
    }
}

impl Role for registrar::Registrar {
    type Part = RegistrarSnapshot;
    type Error = registrar::RegistrarError;
    const NAME: &str = "registrar";

    async fn start(part: &RegistrarSnapshot, around: &Surroundings) -> Result<Self, Self::Error> {
        Self::start_following(part.clone(), around).await
    }

    async fn apply(&mut self, part: &RegistrarSnapshot) -> Result<(), Self::Error> {
        self.apply(part.clone()).await
    }

    async fn stop(self) {
        self.stop().await;
    }

    fn fits_beside(_old: &RegistrarSnapshot, _new: &RegistrarSnapshot) -> bool {
        false
    }
}

impl Role for adapter::Adapter {
    type Part = AdapterSnapshot;
    type Error = adapter::AdapterError;
    const NAME: &str = "adapter";

    async fn start(part: &AdapterSnapshot, around: &Surroundings) -> Result<Self, Self::Error> {
        Self::start(part.clone(), around).await
    }

    async fn apply(&mut self, part: &AdapterSnapshot) -> Result<(), Self::Error> {
        self.apply(part)
    }

    async fn stop(self) {
        self.stop().await;
    }

    /// Two would announce the same entries.
    fn fits_beside(_old: &AdapterSnapshot, _new: &AdapterSnapshot) -> bool {
        false
    }
}

impl Role for front::Front {
    type Part = FrontSnapshot;
    type Error = front::FrontError;
    const NAME: &str = "front";

    async fn start(part: &FrontSnapshot, around: &Surroundings) -> Result<Self, Self::Error> {
        Self::start(part, around).await
    }

    async fn apply(&mut self, part: &FrontSnapshot) -> Result<(), Self::Error> {
        self.apply(part)
    }

    async fn stop(self) {
        self.stop().await;
    }

    /// Two would show the same keys, and the second stream of an agent ends the first.
    fn fits_beside(_old: &FrontSnapshot, _new: &FrontSnapshot) -> bool {
        false
    }
}
