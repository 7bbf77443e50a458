//! Where etcd is, how it is trusted and who we are to it.

use std::fmt;
use std::time::Duration;

/// Time that one member has for one request.
const REQUEST_TIME: Duration = Duration::from_secs(2);
/// Time that all members together have for one request: enough for the election of a leader.
const CALL_TIME: Duration = Duration::from_secs(5);
/// A watch on which nothing came for so long, though it was asked for, is broken.
const SILENCE: Duration = Duration::from_secs(9);

/// How etcd is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `http://HOST:PORT` or `https://HOST:PORT` of each member.
    pub endpoints: Vec<String>,
    /// Certificates, as PEM, of whom members are vouched for by; for https.
    pub ca: Option<String>,
    /// What proves us to members that ask for it; for https.
    pub identity: Option<Identity>,
    /// User of an etcd where authentication is on.
    pub login: Option<Login>,
    /// Time that one member has for one request. 2 s.
    pub request_time: Duration,
    /// Time that all members together have for one request. 5 s.
    pub call_time: Duration,
    /// After how long without a sign of life a watch is taken elsewhere. 9 s.
    pub silence: Duration,
}

impl Config {
    /// These members, without TLS and login.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            ca: None,
            identity: None,
            login: None,
            request_time: REQUEST_TIME,
            call_time: CALL_TIME,
            silence: SILENCE,
        }
    }
}

/// A certificate and its key, both as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, then those that signed it.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// Without the key: it may end up in a log.
impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// User and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub name: String,
    /// The password.
    pub password: String,
}

/// Without the password: it may end up in a log.
impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.debug_struct("Login").field("name", &self.name).finish_non_exhaustive()
    }
}
