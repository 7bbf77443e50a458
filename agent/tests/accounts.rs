//! The file of accounts beside the configuration: taken when it changes, refused when it is wrong.

mod raw_http;
mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use castgate_agent::{Agent, Surroundings};
use castgate_control::{Account, AccountsFile, AgentSnapshot, Allow, DatabaseSnapshot, EntryType};
use support::program::Program;

#[tokio::test]
async fn an_edit_is_taken_without_restart_and_a_wrong_one_is_refused_with_a_sentence() {
    let room = Room::start("127.95.0.1:5632");
    assert_eq!(room.register("be:s3cret").await, 200);
    assert_eq!(room.register("nl:s3cret").await, 401);
    room.write(&accounts(&["be", "nl"]).to_yaml());
    room.program.wait_for("in force");
    assert_eq!(room.register("nl:s3cret").await, 200);

    let good = accounts(&["be", "nl"]).to_yaml();
    for (text, sentence) in [
        (good.replace("- TS", "- TX"), "accounts.yaml: accounts[0].allow.types: \"TX\" is neither TS nor TDS"),
        (good.replace("login: nl", "login: be"), "accounts.yaml: accounts[1].login: \"be\" is there twice"),
        // One that the configuration itself has.
        (good.replace("login: nl", "login: fixed"), "agent.yaml: database.accounts[2].login: \"fixed\" is there twice"),
        (good.replace("$argon2id$v=19$m=8", "$argon2id$nonsense$m=8"), "not a PHC string"),
        ("accounts: [".to_owned(), "accounts.yaml: "),
    ] {
        room.write(&text);
        let line = room.program.wait_for("refused");
        assert!(line.contains("WARN") && line.contains(sentence), "{line}");
        assert_eq!((room.register("be:s3cret").await, room.register("nl:s3cret").await), (200, 200), "{sentence}");
    }
    fs::remove_file(room.path()).unwrap();
    let line = room.program.wait_for("refused");
    assert!(line.contains("`castgate tds account` makes and edits this file"), "{line}");
    assert_eq!(room.register("nl:s3cret").await, 200);

    // The way back is open, for who is gone as well.
    room.write(&accounts(&["be"]).to_yaml());
    room.program.wait_for("in force");
    assert_eq!((room.register("be:s3cret").await, room.register("nl:s3cret").await), (200, 401));
}

#[tokio::test]
async fn an_agent_that_starts_beside_a_wrong_file_has_the_accounts_that_were_good() {
    let room = Room::start("127.96.0.1:5632");
    let directory = room.program.directory();
    room.write("accounts: 7\n");
    room.program.wait_for("refused");
    drop(room);
    let program = Program::start_in(directory);
    let line = program.wait_for("started with the last good snapshot");
    assert!(line.contains("accounts.yaml: accounts"), "{line}");
    let room = Room { program, listen: "127.96.0.1:5632".parse().unwrap() };
    assert_eq!(room.register("be:s3cret").await, 200);
    // It is watched although nothing of it was ever good to this process.
    room.write(&accounts(&["be", "nl"]).to_yaml());
    room.program.wait_for("in force");
    assert_eq!(room.register("nl:s3cret").await, 200);
}

#[tokio::test]
async fn a_snapshot_that_is_no_file_names_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut agent = Agent::idle(Surroundings::new(directory.path()));
    let error = agent.apply(snapshot("127.0.0.1:0")).await.unwrap_err().to_string();
    assert_eq!(error, "database.accountsFile: is for an agent whose snapshot is a file");
}

/// A database as a program, with its accounts in a file.
struct Room {
    program: Program,
    listen: SocketAddr,
}

impl Room {
    fn start(listen: &str) -> Self {
        let directory = std::sync::Arc::new(tempfile::tempdir().unwrap());
        fs::write(directory.path().join("agent.yaml"), snapshot(listen).to_yaml()).unwrap();
        fs::write(directory.path().join("accounts.yaml"), accounts(&["be"]).to_yaml()).unwrap();
        let program = Program::start_in(directory);
        program.wait_for("in force");
        Self { program, listen: listen.parse().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.program.directory().path().join("accounts.yaml")
    }

    /// Replaces the file in one step.
    fn write(&self, text: &str) {
        let fresh = self.path().with_extension("new");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.path()).unwrap();
    }

    /// The status that a REGISTER with these credentials gets.
    async fn register(&self, credentials: &str) -> u16 {
        // Each has an entry of its own: nobody takes over another's.
        let port = if credentials.starts_with("be:") { 10_100 } else { 10_101 };
        let pairs = format!("ACTION=REGISTER&TYPE=TS&SOURCE=127.0.2.1&PORT={port}&PROTOCOL=UDP&COUNTRY=BE");
        raw_http::get(self.listen, &pairs, Some(credentials)).await.status
    }
}

fn snapshot(listen: &str) -> AgentSnapshot {
    let mut database = DatabaseSnapshot::new(listen.parse().unwrap());
    database.accounts_file = Some("accounts.yaml".into());
    database.accounts = accounts(&["fixed"]).accounts;
    AgentSnapshot { agent: "demo/database".to_owned(), database: Some(database), ..AgentSnapshot::default() }
}

/// Accounts whose password is `s3cret`.
fn accounts(logins: &[&str]) -> AccountsFile {
    let salt = SaltString::encode_b64(b"a salt for tests").unwrap();
    let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
    let password_hash = cheap.hash_password(b"s3cret", &salt).unwrap().to_string();
    let account = |login: &&str| Account {
        login: (*login).to_owned(),
        password_hash: password_hash.clone(),
        previous_password_hash: None,
        allow: Allow {
            types: vec![EntryType::TunnelServer],
            networks: Vec::new(),
            countries: vec!["BE".parse().unwrap()],
            ..Allow::default()
        },
    };
    AccountsFile { changed_by: Some("a test".to_owned()), accounts: logins.iter().map(account).collect() }
}
