//! Databases above: one of ours, and strange ones made of bytes.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use castgate_agent::roles::database::Database;
use castgate_control::{Account, Allow, DatabaseSnapshot, EntryType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Far above what any of these takes: a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the database holds so many entries.
pub async fn becomes(database: &Database, wanted: usize) {
    let mut entries = database.entries();
    let seen = timeout(PATIENCE, entries.wait_for(|entries| *entries == wanted)).await;
    seen.unwrap_or_else(|_| panic!("{} entries, not {wanted}", database.report().entries)).unwrap();
}

/// A database of ours that knows login `be` with password `s3cret`, for BE and NL.
pub fn database(listen: &str) -> DatabaseSnapshot {
    let mut snapshot = DatabaseSnapshot::new(listen.parse().unwrap());
    let salt = SaltString::encode_b64(b"a salt for tests").unwrap();
    let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
    let account = Account {
        login: "be".to_owned(),
        password_hash: cheap.hash_password(b"s3cret", &salt).unwrap().to_string(),
        previous_password_hash: None,
        allow: Allow {
            types: vec![EntryType::TunnelServer],
            networks: vec!["134.0.0.0/8".parse().unwrap()],
            countries: vec!["BE".parse().unwrap(), "NL".parse().unwrap()],
            ..Allow::default()
        },
    };
    snapshot.accounts = vec![account];
    snapshot
}

/// A database that is not ours: it takes a request, waits, and says the same words each time.
pub struct Strange {
    pub address: SocketAddr,
    /// First line of every request.
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Strange {
    pub async fn start(wait: Duration, answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let heard = asked.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let heard = heard.clone();
                tokio::spawn(async move {
                    let (mut octets, mut part) = (Vec::new(), [0; 4096]);
                    while !octets.windows(4).any(|four| four == b"\r\n\r\n") {
                        match stream.read(&mut part).await {
                            Ok(0) | Err(_) => return,
                            Ok(length) => octets.extend_from_slice(&part[..length]),
                        }
                    }
                    let text = String::from_utf8_lossy(&octets);
                    heard.lock().unwrap().push(text.lines().next().unwrap_or_default().to_owned());
                    sleep(wait).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Self { address, asked, task }
    }

    /// How often it was asked for this action.
    pub fn asked(&self, action: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.contains(&format!("ACTION={action}"))).count()
    }
}

impl Strange {
    /// The first line of every request so far.
    pub fn lines(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Strange {
    fn drop(&mut self) {
        self.task.abort();
    }
}
