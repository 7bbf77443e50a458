//! `castgate tds account` beside a database that runs: every step is taken while registrations go on.

mod common;

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use castgate_agent::Surroundings;
use castgate_agent::service::{self, Settings, Source};
use castgate_control::AccountsFile;
use common::{LONG, castgate, run, stderr, stdout};
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn a_running_agent_takes_every_step_and_nobody_with_a_right_password_is_turned_away() {
    let bed = Bed::start("127.71.0.1:5632");
    let first = bed.password(&["add", "be", "--type", "TS", "--country", "BE", "--source", "127.0.0.0/8"]);
    bed.audited("be", "added", "account");
    assert!(bed.registers("be", &first).status.success());

    // The one with the password before goes on all the time; so does another account, made meanwhile.
    let old = Registering::start(&bed, "be", &first);
    let second = bed.password(&["rotate", "be"]);
    bed.audited("be", "changed", "password, previous password");
    assert_ne!(first, second);
    let new = Registering::start(&bed, "be", &second);
    let other = bed.password(&["add", "nl", "--type", "TS", "--country", "NL"]);
    bed.audited("nl", "added", "account");
    let wrong = bed.registers("nl", &other);
    assert!(stderr(&wrong).contains("may not register country BE"), "{}", stderr(&wrong));
    old.goes_on();
    new.goes_on();
    assert_eq!(old.stop(), 0);

    let listed = bed.listed("be");
    assert!(listed.contains("(two passwords: the one before was used last at 2"), "{listed}");
    assert!(!bed.listed("nl").contains("two passwords"));

    // A third password would take the first away.
    let hasty = bed.account(&["rotate", "be"]);
    assert!(!hasty.status.success() && stderr(&hasty).contains("`settle` it first"), "{}", stderr(&hasty));
    assert!(bed.account(&["settle", "be"]).status.success());
    bed.audited("be", "changed", "previous password");
    assert!(stderr(&bed.registers("be", &first)).contains("401"));
    new.goes_on();
    assert_eq!(new.stop(), 0);

    assert!(bed.account(&["remove", "be"]).status.success());
    bed.audited("be", "removed", "account");
    assert!(stderr(&bed.registers("be", &second)).contains("401"));
    let gone = run(&["tds", "query", "--tds", "127.71.0.1", "--country", "BE"]);
    assert!(stderr(&gone).contains("knows none"), "its entry went with it: {}", stdout(&gone));
}

#[test]
fn a_password_may_be_ones_own_and_is_never_shown() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("accounts.yaml");
    let file = path.to_str().unwrap();
    let add = |login: &str, password: &str| {
        let words = ["tds", "account", "add", login, "--type", "TDS", "--network", "10.0.0.0/8", "--password-stdin"];
        let mut command = castgate(&words);
        command.args(["--json", "--file", file]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let made = add("be", "correct horse\n");
    assert_eq!(stdout(&made).trim(), r#"{"added":true,"login":"be"}"#);
    let kept = AccountsFile::from_yaml(&fs::read_to_string(&path).unwrap()).unwrap();
    assert!(kept.accounts[0].password_hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    assert!(kept.changed_by.as_ref().is_some_and(|by| by.contains('@')), "{:?}", kept.changed_by);
    for (login, password, sentence) in [
        ("be", "x", "be is there already"),
        ("nl", "", "the password on standard input is empty"),
        ("nl", "a\nb", "control characters or more than one line"),
        ("n:l", "x", "\"n:l\" cannot be a login"),
    ] {
        let refused = add(login, password);
        let said = stderr(&refused);
        assert!(!refused.status.success() && said.contains(sentence) && said.lines().count() == 1, "{login}: {said}");
    }
    for (words, sentence) in [
        (&["rotate", "be", "--lost"][..], "be is not being rotated"),
        (&["rotate", "nl"], "there is no account nl"),
        (&["settle", "be"], "be has one password only"),
        (&["remove", "nl"], "there is no account nl"),
    ] {
        let said = stderr(&run(&[&["tds", "account"], words, &["--file", file]].concat()));
        assert!(said.contains(sentence), "{said}");
    }
    let of_system =
        ["tds", "account", "add", "as", "--type", "TS", "--as", "AS64500", "--strict-source", "--file", file];
    assert!(run(&of_system).status.success());
    let with = AccountsFile::from_yaml(&fs::read_to_string(&path).unwrap()).unwrap();
    let allow = &with.accounts.last().unwrap().allow;
    assert!(allow.asns == [64_500] && allow.strict_source, "{allow:?}");
    let line = stdout(&run(&["tds", "account", "list", "--file", file])).lines().last().unwrap().to_owned();
    assert_eq!(line, "as types TS as 64500 strict source");
    let none = run(&["tds", "account", "add", "no", "--type", "TS", "--as", "0", "--file", file]);
    assert!(stderr(&none).contains("is not the number of an Autonomous System, such as 64500"), "{}", stderr(&none));
    assert!(run(&["tds", "account", "remove", "as", "--file", file]).status.success());
    let listed = stdout(&run(&["tds", "account", "list", "--file", file]));
    assert_eq!(listed, "be types TDS networks 10.0.0.0/8\n");
    let row: Value =
        serde_json::from_str(&stdout(&run(&["tds", "account", "list", "--json", "--file", file]))).unwrap();
    assert_eq!((&row["login"], &row["rotating"], &row["types"][0]), (&"be".into(), &false.into(), &"TDS".into()));
    assert_eq!(fs::read_to_string(&path).unwrap(), kept.to_yaml(), "nobody changed it");
}

#[test]
fn a_new_password_that_was_lost_is_replaced_and_the_one_before_stays_good() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("accounts.yaml");
    let hashes = |words: &[&str]| {
        let output = castgate(&["tds", "account"]).args(words).arg("--file").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let account = AccountsFile::from_yaml(&fs::read_to_string(&path).unwrap()).unwrap().accounts.remove(0);
        (account.password_hash, account.previous_password_hash)
    };
    let (first, none) = hashes(&["add", "be", "--type", "TS"]);
    let (second, before) = hashes(&["rotate", "be"]);
    assert_eq!((none, before), (None, Some(first.clone())));
    let (third, before) = hashes(&["rotate", "be", "--lost"]);
    assert!(third != second && third != first);
    assert_eq!(before, Some(first), "the one in use stays good");
    assert_eq!(hashes(&["settle", "be"]), (third, None));
}

/// A database whose accounts are in a file, run as the agent's program runs it.
struct Bed {
    folder: TempDir,
    listen: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Bed {
    fn start(listen: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let config = folder.path().join("agent.yaml");
        let text = format!("agent: demo/database\ndatabase:\n  listen: {listen}\n  accountsFile: accounts.yaml\n");
        fs::write(&config, text).unwrap();
        fs::write(folder.path().join("accounts.yaml"), AccountsFile::default().to_yaml()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let settings = Settings {
            source: Source::File(config),
            surroundings: Surroundings::new(&folder.path().join("state")),
            socket: Some(folder.path().join("agent.sock")),
            report_interval: Duration::from_secs(5),
        };
        runtime.spawn(async { service::run(settings).await.expect("it runs") });
        let bed = Self { folder, listen: listen.parse().unwrap(), _runtime: runtime };
        eventually("the database answers", || std::net::TcpStream::connect(bed.listen).is_ok());
        bed
    }

    /// The line of `list` for a login, as the agent completes it.
    fn listed(&self, login: &str) -> String {
        let socket = self.folder.path().join("agent.sock");
        let output = self.account(&["list", "--socket", socket.to_str().unwrap()]);
        assert!(output.status.success(), "{}", stderr(&output));
        let text = stdout(&output);
        text.lines().find(|line| line.starts_with(login)).unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    fn accounts(&self) -> PathBuf {
        self.folder.path().join("accounts.yaml")
    }

    fn account(&self, words: &[&str]) -> Output {
        let accounts = self.accounts();
        castgate(&["tds", "account"]).args(words).arg("--file").arg(accounts).env("USER", "alice").output().unwrap()
    }

    /// The password that a command shows once.
    fn password(&self, words: &[&str]) -> String {
        let output = self.account(words);
        assert!(output.status.success(), "{}", stderr(&output));
        let password = stdout(&output).rsplit_once(' ').unwrap().1.trim().to_owned();
        let file = fs::read_to_string(self.accounts()).unwrap();
        assert!(!file.contains(&password), "it is nowhere else");
        password
    }

    fn registers(&self, login: &str, password: &str) -> Output {
        registers(self.listen, login, password)
    }

    /// Waits until the database has taken a change, which its audit log tells.
    fn audited(&self, login: &str, outcome: &str, about: &str) {
        let log = self.folder.path().join("state/audit.log");
        let is_it = |line: &Value| {
            line["action"] == "accounts"
                && (&line["login"], &line["outcome"], &line["about"]) == (&login.into(), &outcome.into(), &about.into())
                && line["by"].as_str().is_some_and(|by| by.contains("alice@"))
        };
        eventually(&format!("{login} {outcome}: {about}"), || audit(&log).iter().any(is_it));
    }
}

fn audit(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn registers(listen: SocketAddr, login: &str, password: &str) -> Output {
    let tds = format!("http://{listen}");
    let words = ["tds", "register", "--tds", &tds, "--login", login, "--source", "127.0.0.9", "--port", "10100"];
    let mut command = castgate(&words);
    command.args(["--protocol", "UDP", "--country", "BE"]).env("CASTGATE_PASSWORD", password).output().unwrap()
}

/// A server that registers again and again.
struct Registering {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    bad: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Registering {
    fn start(bed: &Bed, login: &str, password: &str) -> Self {
        let (stop, good, bad) = (Arc::<AtomicBool>::default(), Arc::default(), Arc::<AtomicUsize>::default());
        let (listen, login, password) = (bed.listen, login.to_owned(), password.to_owned());
        let (over, taken, refused) = (stop.clone(), Arc::<AtomicUsize>::clone(&good), bad.clone());
        let thread = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let output = registers(listen, &login, &password);
                let counter = if output.status.success() { &taken } else { &refused };
                counter.fetch_add(1, Ordering::Relaxed);
                if !output.status.success() {
                    eprintln!("{}", stderr(&output));
                }
            }
        });
        Self { stop, good, bad, thread: Some(thread) }
    }

    /// Waits until it was taken twice more: one of them began after now.
    fn goes_on(&self) {
        let before = self.good.load(Ordering::Relaxed);
        eventually("registrations go on", || self.good.load(Ordering::Relaxed) >= before + 2);
    }

    /// Ends it; how often it was turned away.
    fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.bad.load(Ordering::Relaxed)
    }
}

fn eventually(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !is() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
