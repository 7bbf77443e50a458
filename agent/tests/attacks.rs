//! The database role under attack: what its bounds are for. Real sockets on loopback; what else is refused is in `database.rs`.

mod raw_http;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use castgate_agent::roles::database::Database;
use castgate_control::{Account, Allow, DatabaseSnapshot, EntryType, PeersSnapshot};
use raw_http::{Reply, basic};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

const QUERY: &str = "ACTION=QUERY&TYPE=TS&COUNTRY=BE";
const REGISTER: &str = "ACTION=REGISTER&TYPE=TS&SOURCE=10.0.0.1&PORT=10100&PROTOCOL=UDP&COUNTRY=BE";
/// Where the honest ones are.
const HONEST: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Longer than an honest answer takes on a busy machine, and shorter than any time that an attacker can make others wait.
const PROMPT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_thousand_that_drip_their_requests_disturb_nobody_and_are_all_cut_off() {
    castgate_agent::limits::raise_open_files();
    let room = Room::start(snapshot()).await;
    // As many for each address as the database takes, and two more; together they take all places that there are.
    let mut drips = tokio::task::JoinSet::new();
    for number in 0..1_040_u16 {
        let from = Ipv4Addr::new(127, 66, 0, 1 + u8::try_from(number / 130).unwrap());
        let mut stream = connect(from, room.address).await;
        stream.write_all(b"GET /script/castgate.cgs?").await.unwrap();
        drips.spawn(async move {
            let start = tokio::time::Instant::now();
            loop {
                // One octet at a time, without end: no wait for a next one is long.
                let mut octet = [0];
                tokio::select! {
                    _ = stream.read(&mut octet) => return start.elapsed(),
                    () = sleep(Duration::from_millis(900)) => {
                        if stream.write_all(b"x").await.is_err() {
                            return start.elapsed();
                        }
                    }
                }
            }
        });
    }
    for _ in 0..20 {
        let answer = timeout(PROMPT, room.get(HONEST, QUERY, "")).await.expect("others are answered at once");
        assert_eq!(answer.status, 200);
    }
    // From here on time jumps to the next timer whenever nothing else is to be done.
    tokio::time::pause();
    let mut ended = 0;
    while let Some(drip) = drips.join_next().await {
        let life = drip.unwrap();
        assert!(life < Duration::from_secs(30), "{life:?}");
        ended += 1;
    }
    assert_eq!(ended, 1_040);
    tokio::time::resume();
    assert_eq!(room.get(Ipv4Addr::new(127, 66, 0, 1), QUERY, "").await.status, 200, "and all places are free again");
}

#[tokio::test]
async fn a_line_or_a_body_without_end_is_refused_with_the_status_for_it() {
    let room = Room::start(snapshot()).await;
    for (len, status) in [(8 * 1024, 414), (64 * 1024, 414), (66 * 1024, 414), (1 << 20, 431)] {
        let answer = room.get(HONEST, &format!("{QUERY}&X={}", "x".repeat(len)), "").await;
        assert_eq!(answer.status, status, "{len}");
    }
    let fields = format!("X-Long: {}\r\n", "x".repeat(1 << 20));
    assert_eq!(room.get(HONEST, QUERY, &fields).await.status, 431);
    let many = (0..1_000).fold(String::new(), |fields, n| fields + &format!("X-{n}: y\r\n"));
    assert_eq!(room.get(HONEST, QUERY, &many).await.status, 431);
    // Announced or not, it is read no further than a mebibyte.
    let body = "x".repeat((1 << 20) + 1);
    let announced = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let in_parts = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for rest in [announced, in_parts] {
        let request = format!("POST /script/castgate.cgs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{rest}");
        assert_eq!(raw_http::exchange(room.address, request.as_bytes()).await.status, 413);
    }
    assert_eq!(room.get(HONEST, QUERY, "").await.status, 200);
}

#[tokio::test]
async fn a_peer_that_sends_bombs_costs_its_own_entries_alone() {
    let lol = |level: usize| format!("<!ENTITY l{level} \"{}\">", format!("&l{};", level - 1).repeat(10));
    let entities: String = (1..10).map(lol).collect();
    let laughs = format!("<!DOCTYPE SERVERS [<!ENTITY l0 \"lol\">{entities}]><SERVERS>&l9;</SERVERS>");
    let external =
        "<!DOCTYPE SERVERS [<!ENTITY x SYSTEM \"file:///etc/hostname\">]><SERVERS><SERVER>&x;</SERVER></SERVERS>";
    let deep = format!("<SERVERS>{}", "<X>".repeat((1 << 20) / 3));
    let wide = format!("<SERVERS><SERVER><LOGIN>{}", "x".repeat(4 << 20));
    for bomb in [laughs, external.to_owned(), deep, wide] {
        let peer = answer_everybody(bomb.clone()).await;
        let mut peers = PeersSnapshot::new(vec![peer.to_string()], "peer".to_owned(), "p33r".to_owned());
        peers.wait_seconds = NonZeroU32::MIN;
        let before = resident_bytes();
        let room = Room::start(DatabaseSnapshot { peers: Some(peers), ..snapshot() }).await;
        let serving = async {
            while room.get(HONEST, QUERY, "").await.status != 200 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), serving).await.expect("it goes on without this peer");
        let shown: String = bomb.chars().take(60).collect();
        assert_eq!(room.database.report().entries, 0, "{shown}");
        // A billion laughs would be three gigabytes.
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "{shown}: {grown}");
    }
}

#[tokio::test]
async fn whoever_guesses_a_login_is_held_up_and_written_down_and_its_owner_and_others_are_not() {
    let room = Room::start(snapshot()).await;
    let owner = basic("be:s3cret");
    assert_eq!(room.get(HONEST, REGISTER, &owner).await.status, 200);
    let (mut wrong, mut held_up) = (0, 0);
    // No address guesses more often than it may; all together do.
    for number in 0..220_u8 {
        let from = Ipv4Addr::new(127, 67, 0, number / 55);
        let guess = room.get(from, REGISTER, &basic(&format!("be:guess{number}"))).await;
        match guess.status {
            401 => wrong += 1,
            429 => {
                assert!(guess.field("retry-after").is_some());
                held_up += 1;
            }
            status => panic!("{status}: {guess:?}"),
        }
    }
    assert!(wrong >= 120 && held_up > 0 && wrong + held_up == 220, "{wrong} {held_up}");
    assert_eq!(room.get(HONEST, REGISTER, &owner).await.status, 200, "the owner is heard");
    let other = REGISTER.replace("10.0.0.1", "10.0.0.2");
    assert_eq!(
        room.get(Ipv4Addr::new(127, 67, 0, 0), &other, &basic("fr:s3cret")).await.status,
        200,
        "and so are others"
    );
    let audit = std::fs::read_to_string(room.state.path().join("audit.log")).unwrap();
    let guesses = |outcome: &str| {
        let of_login =
            audit.lines().filter(|line| line.contains("\"action\":\"login\"") && line.contains("\"login\":\"be\""));
        of_login.filter(|line| line.contains("\"source\":\"127.67.0.") && line.contains(outcome)).count()
    };
    assert_eq!(guesses("\"outcome\":\"refused\""), wrong, "each guess that was looked at is written down");
    assert!(guesses("\"outcome\":\"limited\"") > 0, "and that there were too many");
    assert!(!audit.contains("guess1"), "without what was guessed");
}

#[tokio::test]
async fn a_stranger_that_names_another_source_is_still_itself() {
    let room =
        Room::start(DatabaseSnapshot { requests_per_minute_max: NonZeroU32::new(6).unwrap(), ..snapshot() }).await;
    let local = "ACTION=REGISTER&TYPE=TS&SOURCE=10.0.0.1&PORT=10100&PROTOCOL=UDP&NETWORKS=134.184.0.0/16";
    assert_eq!(room.get(HONEST, local, &basic("be:s3cret")).await.status, 200);
    let stranger = Ipv4Addr::new(127, 68, 0, 1);
    let mut statuses = Vec::new();
    for field in [
        "X-Forwarded-For: 134.184.0.1\r\n",
        "Forwarded: for=134.184.0.1\r\n",
        "X-Forwarded-For: 134.184.0.1, 127.0.0.1\r\n",
    ] {
        for _ in 0..3 {
            let answer = room.get(stranger, QUERY, field).await;
            assert_ne!(answer.field("x-castgate-match"), Some("network"), "{field}");
            statuses.push(answer.status);
        }
    }
    assert!(statuses[..6].iter().all(|status| *status == 200), "{statuses:?}");
    assert!(statuses[6..].contains(&429), "another name is not another bucket: {statuses:?}");
}

struct Room {
    database: Database,
    address: SocketAddr,
    state: TempDir,
}

impl Room {
    async fn start(snapshot: DatabaseSnapshot) -> Self {
        let state = TempDir::new().unwrap();
        let database = Database::start(snapshot, state.path()).await.unwrap();
        Self { address: database.local_address(), database, state }
    }

    async fn get(&self, from: Ipv4Addr, pairs: &str, fields: &str) -> Reply {
        let request =
            format!("GET /script/castgate.cgs?{pairs} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
        raw_http::exchange_from(IpAddr::V4(from), self.address, request.as_bytes()).await
    }
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// A peer that sends this body to everybody.
async fn answer_everybody(body: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4_096];
            let _ = stream.read(&mut head).await;
            // Whoever hangs up in the middle has understood.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await;
            let _ = stream.write_all(body.as_bytes()).await;
        }
    });
    address
}

/// A database with two accounts, whose owners live elsewhere than any guest of these tests.
fn snapshot() -> DatabaseSnapshot {
    let mut snapshot = DatabaseSnapshot::new("127.0.0.1:0".parse().unwrap());
    let account = |login: &str| Account {
        login: login.to_owned(),
        password_hash: hash("s3cret"),
        previous_password_hash: None,
        allow: Allow {
            types: vec![EntryType::TunnelServer],
            networks: vec!["134.0.0.0/8".parse().unwrap()],
            countries: vec!["BE".parse().unwrap()],
            sources: vec!["10.0.0.0/8".parse().unwrap()],
            ..Allow::default()
        },
    };
    snapshot.accounts = vec![account("be"), account("fr")];
    snapshot
}

/// The cheapest hash there is: these tests are not about argon2.
fn hash(password: &str) -> String {
    let salt = SaltString::encode_b64(b"a salt for tests").unwrap();
    let cheap = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
    cheap.hash_password(password.as_bytes(), &salt).unwrap().to_string()
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
