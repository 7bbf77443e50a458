//! A database with one account or two, and the folder that it lives in.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use castgate_agent::roles::database::Database;
use castgate_control::{Account, Allow, DatabaseSnapshot, EntryType};
use tempfile::TempDir;

use crate::raw_http::{Reply, basic, exchange, get};

pub const REGISTER: &str =
    "ACTION=REGISTER&TYPE=TS&SOURCE=134.184.1.24&PORT=10100&PROTOCOL=UDP&NETWORKS=134.184.1.0/24&COUNTRY=BE";
pub const BYE: &str = "ACTION=BYE&SOURCE=134.184.1.24&PORT=10100";
pub const BY_COUNTRY: &str = "ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP&COUNTRY=BE";
pub const QUERY: &str = "ACTION=QUERY&TYPE=TS&COUNTRY=BE";
/// What is sure to come is waited for so long.
pub const LONG: Duration = Duration::from_secs(20);

pub struct Room {
    pub database: Database,
    pub address: SocketAddr,
    pub state: TempDir,
}

impl Room {
    pub async fn new() -> Self {
        Self::start(snapshot(), TempDir::new().unwrap()).await
    }

    pub async fn start(snapshot: DatabaseSnapshot, state: TempDir) -> Self {
        let path: &Path = state.path();
        let database = Database::start(snapshot, path).await.unwrap();
        Self { address: database.local_address(), database, state }
    }

    pub async fn get(&self, pairs: &str, credentials: Option<&str>) -> Reply {
        get(self.address, pairs, credentials).await
    }

    pub async fn post(&self, target: &str, body: &str, header: &str) -> Reply {
        let length = body.len();
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{header}\r\n{body}"
        );
        exchange(self.address, request.as_bytes()).await
    }
}

pub fn snapshot() -> DatabaseSnapshot {
    let mut snapshot = DatabaseSnapshot::new("127.0.0.1:0".parse().unwrap());
    let allow = Allow {
        types: vec![EntryType::TunnelServer],
        networks: vec!["134.0.0.0/8".parse().unwrap(), "127.0.0.0/8".parse().unwrap()],
        countries: vec!["BE".parse().unwrap()],
        sources: vec!["134.184.0.0/16".parse().unwrap(), "10.0.0.0/8".parse().unwrap(), "127.0.0.0/8".parse().unwrap()],
        ..Allow::default()
    };
    let account = |login: &str| Account {
        login: login.to_owned(),
        password_hash: hash("s3cret"),
        previous_password_hash: None,
        allow: allow.clone(),
    };
    snapshot.accounts = vec![account("be"), account("fr")];
    snapshot
}

/// The cheapest hash there is: these tests are not about argon2.
pub fn hash(password: &str) -> String {
    let salt = SaltString::encode_b64(b"a salt for tests").unwrap();
    let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
    cheap.hash_password(password.as_bytes(), &salt).unwrap().to_string()
}

#[test]
pub fn credentials_are_coded_as_basic_wants_it() {
    assert_eq!(basic("Aladdin:open sesame"), "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n");
}
