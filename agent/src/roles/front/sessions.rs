//! What is registered through a front: one stream to the service behind for each login, with the entries of its owner.
//!
//! ```text
//!   REGISTER ─▶ entry, for two intervals ─▶ Register stream ─▶ the service: registered, refused, or not yet
//!   BYE, or nothing for two intervals ─▶ gone from the stream; the last one ends it
//! ```
//! Owns entries and their time. Whether they may be there is the service's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use castgate_control::{AdapterRef, EntryType, Registration};
use castgate_wire::registry::Bye;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::report::RegistrationReport;
use crate::roles::feeding::Feeding;
use crate::roles::peering::Peering;
use crate::roles::registrar::{Through, entry_name};
use crate::surroundings::Surroundings;

/// Logins at one time: each is a connection.
const SESSIONS_MAX: usize = 1_024;
/// Entries of one login.
const ENTRIES_MAX: usize = 1_024;
/// Time that the service and the databases above it have for one entry; then the caller comes again.
const ANSWER_TIME: Duration = Duration::from_secs(8);

/// Everybody who has something registered here.
#[derive(Debug)]
pub(super) struct Sessions {
    around: Surroundings,
    sessions: Mutex<HashMap<String, Session>>,
}

#[derive(Debug)]
struct Session {
    /// The service, and the password of the login, which is its key there.
    adapter: AdapterRef,
    through: Through,
    /// Who feeds the relays among them, as the last of them said.
    feeding: Feeding,
    /// The password was right when it was last proven, and nothing speaks against it since.
    is_proven: bool,
    entries: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    registration: Registration,
    until: Instant,
}

/// What came of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Some database has it.
    Registered,
    /// Nobody takes it, and why.
    Refused(String),
    /// Nobody has answered yet, or there is no room.
    NotYet(String),
}

impl Sessions {
    pub(super) fn new(around: &Surroundings) -> Self {
        Self { around: around.clone(), sessions: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this password was right for what is registered under the login.
    pub(super) fn knows(&self, login: &str, password: &str) -> bool {
        // Digests: how long it takes to compare says nothing about the password.
        let digest = |text: &str| Sha256::digest(text);
        let sessions = self.lock();
        let session = sessions.get(login).filter(|session| session.is_proven);
        session.is_some_and(|session| digest(&session.adapter.key) == digest(password))
    }

    /// Holds an entry, and the chain that feeds it, for two of these intervals, and waits for what becomes of it. Login and password are proven.
    pub(super) async fn register(
        &self,
        endpoint: String,
        (login, password): (&str, &str),
        (registration, fed_by): (Registration, Vec<IpAddr>),
        interval: Duration,
    ) -> Outcome {
        let Registration { entry_type, source, port, protocol, .. } = &registration;
        let name = entry_name(*entry_type, *source, port, protocol.as_ref());
        let held = self.hold(endpoint, (login, password), (registration, fed_by), interval);
        let Some((number, mut answered, mut reports)) = held else {
            return Outcome::NotYet("too much is registered through this front".to_owned());
        };
        let decided = async {
            loop {
                let is_answered = *answered.borrow_and_update() >= number;
                let outcome = outcome(&reports.borrow_and_update(), &name);
                match outcome {
                    Some(outcome) if is_answered => return outcome,
                    _ => {}
                }
                let changed = tokio::select! {
                    changed = answered.changed() => changed,
                    changed = reports.changed() => changed,
                };
                if changed.is_err() {
                    return Outcome::NotYet("it was taken back meanwhile".to_owned());
                }
            }
        };
        if let Ok(outcome) = timeout(ANSWER_TIME, decided).await {
            return outcome;
        }
        // Perhaps the service knows the login no longer: the next request finds out.
        if let Some(session) = self.lock().get_mut(login) {
            session.is_proven = false;
        }
        Outcome::NotYet("nobody above has answered yet".to_owned())
    }

    fn hold(
        &self,
        endpoint: String,
        (login, password): (&str, &str),
        (registration, fed_by): (Registration, Vec<IpAddr>),
        interval: Duration,
    ) -> Option<(u64, watch::Receiver<u64>, watch::Receiver<Vec<RegistrationReport>>)> {
        let adapter = AdapterRef { endpoint, key: password.to_owned() };
        let until = Instant::now() + interval * 2;
        let mut sessions = self.lock();
        let Some(session) = sessions.get_mut(login) else {
            if sessions.len() >= SESSIONS_MAX {
                return None;
            }
            let (peering, feeding) = (Peering::default(), Feeding::default());
            feeding.set(fed_by);
            let around =
                Surroundings { agent: login.to_owned(), peering, feeding: feeding.clone(), ..self.around.clone() };
            let through = Through::start_for(adapter.clone(), vec![registration.clone()], &around);
            let waits_for = (1, through.answered(), through.reports());
            let entries = vec![Held { registration, until }];
            sessions.insert(login.to_owned(), Session { adapter, through, feeding, is_proven: true, entries });
            return Some(waits_for);
        };
        if registration.entry_type == EntryType::TunnelServer {
            session.feeding.set(fed_by);
        }
        session.is_proven = true;
        let is_same_key = std::mem::replace(&mut session.adapter, adapter.clone()) == adapter;
        let known = session.entries.iter().position(|held| same(&held.registration, &registration));
        let is_known = match known {
            Some(at) => {
                let held = &mut session.entries[at];
                held.until = until;
                std::mem::replace(&mut held.registration, registration.clone()) == registration
            }
            None if session.entries.len() >= ENTRIES_MAX => return None,
            None => {
                session.entries.push(Held { registration, until });
                false
            }
        };
        let number = if is_known && is_same_key { 0 } else { session.tell() };
        Some((number, session.through.answered(), session.through.reports()))
    }

    /// Takes entries back; how many there were.
    pub(super) async fn bye(&self, login: &str, bye: &Bye) -> usize {
        let (gone, last) = {
            let mut sessions = self.lock();
            let Some(session) = sessions.get_mut(login) else { return 0 };
            let gone = session.keep(|held| !is_meant(bye, &held.registration));
            (gone, if session.entries.is_empty() { sessions.remove(login) } else { None })
        };
        if let Some(Session { through, .. }) = last {
            through.stop().await;
        }
        gone
    }

    /// Goes over to another service.
    pub(super) fn move_to(&self, endpoint: &str) {
        for session in self.lock().values_mut().filter(|session| session.adapter.endpoint != endpoint) {
            endpoint.clone_into(&mut session.adapter.endpoint);
            session.tell();
        }
    }

    /// Drops what was not refreshed.
    pub(super) fn expire(&self, now: Instant) {
        let mut sessions = self.lock();
        for session in sessions.values_mut() {
            session.keep(|held| held.until > now);
        }
        for (login, Session { through, .. }) in sessions.extract_if(|_, session| session.entries.is_empty()) {
            tracing::info!(login, "no longer refreshed, taken back");
            tokio::spawn(through.stop());
        }
    }
}

impl Session {
    /// Says what is left to the service; the number of what was said.
    fn tell(&mut self) -> u64 {
        let registrations = self.entries.iter().map(|held| held.registration.clone()).collect();
        self.through.apply(self.adapter.clone(), registrations)
    }

    /// Drops the others; how many there were. Without any left it is for the caller to say goodbye.
    fn keep(&mut self, wanted: impl Fn(&Held) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(wanted);
        let gone = before - self.entries.len();
        if gone > 0 && !self.entries.is_empty() {
            self.tell();
        }
        gone
    }
}

/// What the databases say of an entry; `None` while it may become better.
fn outcome(reports: &[RegistrationReport], name: &str) -> Option<Outcome> {
    let of_it = || reports.iter().filter(|report| report.entry == name);
    if of_it().any(|report| report.state == "registered") {
        return Some(Outcome::Registered);
    }
    if of_it().any(|report| report.state != "refused") {
        return None;
    }
    let refusal = of_it().next()?.last_refusal.clone();
    Some(Outcome::Refused(refusal.unwrap_or_else(|| "it is refused".to_owned())))
}

/// The key of an entry in a database.
fn same(one: &Registration, other: &Registration) -> bool {
    let key = |entry: &Registration| (entry.entry_type, entry.source, entry.port, entry.protocol.clone());
    key(one) == key(other)
}

fn is_meant(bye: &Bye, entry: &Registration) -> bool {
    let Bye { source, port, entry_type, protocol, strict: _ } = bye;
    (*source, *port) == (entry.source, entry.port.get())
        && entry_type.is_none_or(|wanted| wanted == entry.entry_type)
        && protocol.as_ref().is_none_or(|wanted| Some(wanted) == entry.protocol.as_ref())
}

#[cfg(test)]
mod tests {
    use castgate_control::Protocol;

    use super::*;

    #[test]
    fn an_entry_is_what_the_best_of_the_databases_says() {
        let report = |entry: &str, state: &str, refusal: Option<&str>| RegistrationReport {
            parent: "db".to_owned(),
            entry: entry.to_owned(),
            state: state.to_owned(),
            last_refusal: refusal.map(ToOwned::to_owned),
        };
        let refused = report("a", "refused", Some("403: no"));
        assert_eq!(outcome(&[], "a"), None);
        assert_eq!(outcome(&[report("b", "registered", None)], "a"), None);
        assert_eq!(outcome(&[report("a", "trying", Some("late"))], "a"), None);
        assert_eq!(outcome(&[refused.clone(), report("a", "trying", None)], "a"), None);
        assert_eq!(outcome(std::slice::from_ref(&refused), "a"), Some(Outcome::Refused("403: no".to_owned())));
        assert_eq!(outcome(&[refused, report("a", "registered", None)], "a"), Some(Outcome::Registered));
    }

    #[test]
    fn a_bye_means_what_it_names() {
        let entry = Registration {
            entry_type: EntryType::TunnelServer,
            source: "192.0.2.1".parse().unwrap(),
            port: 10_100.try_into().unwrap(),
            protocol: Some(Protocol::Udp),
            networks: Vec::new(),
            country: None,
            scheme: castgate_control::Scheme::Http,
        };
        let bye = Bye { source: entry.source, port: 10_100, entry_type: None, protocol: None, strict: false };
        assert!(is_meant(&bye, &entry));
        assert!(is_meant(&Bye { protocol: Some(Protocol::Udp), ..bye.clone() }, &entry));
        assert!(!is_meant(&Bye { protocol: Some(Protocol::Tcp), ..bye.clone() }, &entry));
        assert!(!is_meant(&Bye { entry_type: Some(EntryType::TunnelDatabase), ..bye.clone() }, &entry));
        assert!(!is_meant(&Bye { port: 10_101, ..bye }, &entry));
    }
}
