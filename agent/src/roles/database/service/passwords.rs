//! Proves the password of a caller, and holds up those who guess.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use castgate_endpoint::hierarchy::accounts::{Check, PasswordCheck, Shown};
use castgate_wire::registry::Login;
use tokio::sync::Semaphore;

use super::Service;
use crate::http::rate::{Rate, host};
use crate::http::words::Failure;
use crate::roles::database::audit::Act;

/// Passwords checked at one time: each takes a core and tens of MiB.
const CHECKS_MAX: usize = 2;
/// Passwords that wait to be checked; beyond that a caller comes again later.
const CHECKS_WAITING_MAX: usize = 64;
/// Wrong passwords that an address may send in a minute.
const WRONG_PASSWORDS_PER_MINUTE: u32 = 60;
/// Wrong passwords that a login may get in a minute, from wherever: guessing with a thousand machines is no faster than with two.
const WRONG_PASSWORDS_PER_LOGIN: u32 = 120;
/// Logins remembered with the addresses from which their password was right; they are not held up by others who guess.
const GOOD_PLACES_MAX: usize = 16_384;

/// What is remembered of passwords right and wrong.
#[derive(Debug)]
pub(super) struct Passwords {
    wrong_from: Rate<IpAddr>,
    wrong_for_login: Rate<u64>,
    good_places: Mutex<GoodPlaces>,
    checks: Semaphore,
    waiting: AtomicUsize,
    hasher: RandomState,
}

/// Logins, each with an address from which it was proven; the oldest is forgotten first.
#[derive(Debug, Default)]
struct GoodPlaces {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl GoodPlaces {
    fn remember(&mut self, place: u64) {
        if self.known.insert(place) {
            self.order.push_back(place);
        }
        if self.order.len() > GOOD_PLACES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Passwords {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            wrong_from: Rate::new(WRONG_PASSWORDS_PER_MINUTE, now),
            wrong_for_login: Rate::new(WRONG_PASSWORDS_PER_LOGIN, now),
            good_places: Mutex::default(),
            checks: Semaphore::new(CHECKS_MAX),
            waiting: AtomicUsize::new(0),
            hasher: RandomState::new(),
        }
    }

    /// Whether this address may try once more; if not, when again.
    pub(super) fn look(&self, source: IpAddr, now: Instant) -> Result<(), Duration> {
        self.wrong_from.look(host(source), now)
    }

    /// Counts a wrong password. Whether there was room for it was looked at before; two at once may both have seen the last place.
    pub(super) fn wrong(&self, source: IpAddr, now: Instant) {
        let _ = self.wrong_from.take(host(source), now);
    }
}

impl Service {
    /// The login of the caller, whose password proved right.
    pub(super) async fn authenticate(&self, source: IpAddr, login: Option<Login>) -> Result<String, Failure> {
        let Login { login, password } = login.ok_or_else(Failure::unauthorized)?;
        let check = {
            let database = self.database();
            match database.accounts().check(&login, &password) {
                Check::Verified(shown) => {
                    database.accounts().note_use(&login, shown, SystemTime::now().into());
                    return Ok(login);
                }
                Check::Run(check) => check,
            }
        };
        let (now, passwords) = (Instant::now(), &self.passwords);
        passwords.look(source, now).map_err(Failure::too_many)?;
        let place = passwords.hasher.hash_one((&login, host(source)));
        let key = passwords.hasher.hash_one(&login);
        // Others who guess shall not lock the owner out: where it was right before, or where the account may come from at all,
        // only its own guesses count.
        let at_home = lock(&passwords.good_places).known.contains(&place) || {
            let database = self.database();
            let sources = database.accounts().account(&login).map(|account| account.allow().sources.as_slice());
            sources.is_some_and(|sources| sources.iter().any(|range| range.contains(&source)))
        };
        if !at_home {
            passwords.wrong_for_login.look(key, now).map_err(Failure::too_many)?;
        }
        let (check, shown) = self.run(check).await?;
        let wall = SystemTime::now().into();
        if self.database.write().unwrap_or_else(PoisonError::into_inner).accounts_mut().note(&check, shown, wall) {
            lock(&passwords.good_places).remember(place);
            return Ok(login);
        }
        passwords.wrong(source, now);
        let act = Act { action: "login", login: Some(&login), source: Some(source) };
        self.audit.write(act, "refused", "wrong password");
        let counted = passwords.wrong_for_login.take(key, now);
        if counted.and_then(|()| passwords.wrong_for_login.look(key, now)).is_err() {
            tracing::warn!(login, %source, "somebody guesses the password of this login");
            self.audit.write(act, "limited", "too many wrong passwords");
        }
        tracing::debug!(%source, login, "wrong login or password");
        Err(Failure::unauthorized())
    }

    /// Does the work of a check beside the threads that serve requests.
    async fn run(&self, check: PasswordCheck) -> Result<(PasswordCheck, Option<Shown>), Failure> {
        let _place =
            Place::take(&self.passwords.waiting).ok_or_else(|| Failure::busy("too many passwords to check"))?;
        let _turn = self.passwords.checks.acquire().await.expect("nobody closes the semaphore");
        self.counters.password_checks.fetch_add(1, Ordering::Relaxed);
        let done = tokio::task::spawn_blocking(move || {
            let shown = check.run();
            (check, shown)
        });
        done.await.map_err(|error| {
            tracing::error!(%error, "a password check panicked");
            Failure::busy("the password could not be checked")
        })
    }
}

/// A place among the passwords that wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        // On refusal the place is given back by dropping it.
        (waiting.fetch_add(1, Ordering::Relaxed) < CHECKS_WAITING_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole between any two statements that can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use castgate_endpoint::hierarchy::accounts::{Account, Allow};
    use castgate_endpoint::hierarchy::database::{Config, Database};
    use hyper::StatusCode;

    use super::super::tests::fresh;
    use super::*;

    #[tokio::test]
    async fn more_passwords_than_can_be_checked_are_sent_away() {
        let service = fresh(Database::new(Config::default(), Vec::new(), [7; 16]), 600, Vec::new());
        let waiting: Vec<Place<'_>> = std::iter::from_fn(|| Place::take(&service.passwords.waiting)).collect();
        assert_eq!(waiting.len(), CHECKS_WAITING_MAX);
        let Check::Run(check) = service.database().accounts().check("x", "y") else { panic!("nobody knows x") };
        let failure = service.run(check).await.unwrap_err();
        assert_eq!(failure.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(waiting);
        assert_eq!(service.passwords.waiting.load(Ordering::Relaxed), 0, "every place is given back");
    }

    #[tokio::test]
    async fn a_login_that_strangers_guess_is_slow_for_them_and_open_to_its_owner() {
        let hash = "$argon2id$v=19$m=8,t=1,p=1$YSBzYWx0IGZvciB0ZXN0cw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let allow = Allow { sources: vec!["10.0.0.0/8".parse().unwrap()], ..Allow::default() };
        let account = Account::new("be".to_owned(), hash.to_owned(), allow).unwrap();
        let service = fresh(Database::new(Config::default(), vec![account], [7; 16]), 600, Vec::new());
        let guess = async |source: [u8; 4]| {
            let login = Login { login: "be".to_owned(), password: "guess".to_owned() };
            service.authenticate(IpAddr::from(source), Some(login)).await.unwrap_err().status.as_u16()
        };
        for n in 0..WRONG_PASSWORDS_PER_LOGIN {
            let [.., high, low] = n.to_be_bytes();
            assert_eq!(guess([198, 51, high, low]).await, 401);
        }
        assert_eq!(guess([203, 0, 113, 1]).await, 429, "the guesses of all are counted together");
        assert_eq!(guess([10, 0, 0, 1]).await, 401, "where the owner is, he is heard");
        lock(&service.passwords.good_places)
            .remember(service.passwords.hasher.hash_one((&"be".to_owned(), IpAddr::from([203, 0, 113, 2]))));
        assert_eq!(guess([203, 0, 113, 2]).await, 401, "and where he was right before");
    }
}
