//! The agent as a program whose snapshots come from an operator on loopback.

mod fleet;
mod support;

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use castgate_control::AgentSnapshot;
use castgate_rpc::v1::Verdict;
use castgate_wire::umtp::Channel;
use fleet::{Authority, Operator};
use rustix::process::Signal;
use support::program::Program;
use support::{Net, PATIENCE, RawClient, pattern_of};

const NAME: &str = "castgate/ts-test@node-1";

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_kept_and_answered_with_its_digest() {
    let net = Net(101);
    let channel = net.ssm(1);
    let (authority, place) = (Authority::new(), Place::new("a token\n"));
    place.trust(&authority);
    let mut operator = Operator::start(&authority, "127.0.0.1:0", "127.0.0.1").await;
    let mut program = place.launch(&operator.url());

    let (hello, token) = operator.hello().await;
    assert_eq!((hello.agent.as_str(), hello.node.as_str(), hello.generation), (NAME, "node-1", 0));
    assert_eq!((hello.digest.as_str(), token.as_str()), ("", "Bearer a token"));
    assert_eq!(hello.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(program.ask("live"), (true, "works".to_owned()));
    assert_eq!(program.ask("ready"), (false, "castgate-agent: has no snapshot yet".to_owned()));

    let snapshot = snapshot(net, 5, &[channel]);
    operator.give(&snapshot);
    assert_eq!(operator.verdict().await, Verdict { generation: 5, digest: snapshot.digest(), refusal: String::new() });
    let state = operator.state(|state| state.generation == 5).await;
    assert_eq!(state.listen, net.server().to_string());
    assert_eq!(program.ask("ready"), (true, "runs as generation 5 says".to_owned()));
    assert_eq!(program.ask("snapshot-digest"), (true, snapshot.digest()));
    let client = RawClient::connect(net.client(1), net.server());
    client.first_of_pattern(channel);
    let state = operator.state(|state| state.tunnels == 1 && state.channels.len() == 1).await;
    assert_eq!((state.channels[0].channel.as_str(), state.channels[0].tunnels), (&*channel.to_string(), 1));
    let (yes, report) = program.ask("report");
    assert!(yes && report.starts_with(r#"{"generation":5,"agent":"castgate/ts-test@node-1""#), "{report}");
    assert_eq!(place.last_good(), snapshot);

    // Without roles it stands by, and that is no error.
    let nothing = AgentSnapshot { generation: 6, agent: NAME.to_owned(), ..AgentSnapshot::default() };
    operator.give(&nothing);
    assert_eq!(operator.verdict().await, Verdict { generation: 6, digest: nothing.digest(), refusal: String::new() });
    assert_eq!(operator.state(|state| state.generation == 6).await.listen, "");
    assert!(program.ask("ready").0);
    program.signal(Signal::TERM);
    assert!(program.wait().success());
    assert!(!place.directory.path().join("agent.sock").exists(), "it tidies up");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_answered_with_the_reason_and_the_one_before_goes_on() {
    let net = Net(102);
    let channel = net.ssm(1);
    let (authority, place) = (Authority::new(), Place::new("t"));
    place.trust(&authority);
    let mut operator = Operator::start(&authority, "127.0.0.1:0", "127.0.0.1").await;
    let good = snapshot(net, 1, &[channel]);
    operator.give(&good);
    let _program = place.launch(&operator.url());
    assert_eq!(operator.verdict().await.refusal, "");
    let client = RawClient::connect(net.client(1), net.server());
    let mut sequence = client.first_of_pattern(channel);

    let text = good.to_yaml();
    let refused = [
        ("ttl: 63", "ttl: 300", "server.limits.ttl: 300 is not in 1..=255"),
        ("- lo", "- nosuch0", "server.interfaces: interface \"nosuch0\" does not exist"),
        ("castgate/ts-test@node-1", "castgate/ts-test@node-2", "agent: is castgate/ts-test@node-2, and this is "),
    ];
    for (generation, (good_words, bad_words, reason)) in (2..).zip(refused) {
        assert!(text.contains(good_words), "{good_words} is not in {text}");
        operator.give_text(generation, &text.replace(good_words, bad_words));
        let verdict = operator.verdict().await;
        assert!(verdict.refusal.starts_with(reason), "{verdict:?}");
        assert_eq!((verdict.generation, verdict.digest), (generation, good.digest()));
        sequence = client.follow_pattern(channel, sequence, 20);
        assert_eq!(place.last_good(), good);
    }
    // The way back is open.
    let more = snapshot(net, 9, &[channel, net.ssm(2)]);
    operator.give(&more);
    // Meanwhile the second one above may have been tried again; it is forgotten by now.
    while operator.verdict().await != (Verdict { generation: 9, digest: more.digest(), refusal: String::new() }) {}
    client.follow_pattern(channel, sequence, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_is_opened_again_and_nothing_is_disturbed() {
    let net = Net(103);
    let channel = net.ssm(1);
    let (authority, place) = (Authority::new(), Place::new("first"));
    place.trust(&authority);
    let mut operator = Operator::start(&authority, "127.0.0.1:0", "127.0.0.1").await;
    let good = snapshot(net, 4, &[channel]);
    operator.give(&good);
    let program = place.launch(&operator.url());
    assert_eq!(operator.hello().await.1, "Bearer first");
    assert_eq!(operator.verdict().await.refusal, "");
    let client = RawClient::connect(net.client(1), net.server());
    let sequence = client.first_of_pattern(channel);

    // The kubelet has replaced the token meanwhile.
    fs::write(place.directory.path().join("token"), "second").unwrap();
    operator.cut();
    let (hello, token) = operator.hello().await;
    assert_eq!((hello.generation, hello.digest, token.as_str()), (4, good.digest(), "Bearer second"));
    // Whole state comes at once, and no verdict: nothing was sent to judge.
    let state = operator.next(|seen| Some(format!("{:?}", seen.report))).await;
    assert!(state.starts_with("State"), "{state}");

    // An operator that refuses us, then one that is gone, then a new one at the same place.
    operator.refuse(Some(tonic::Status::unauthenticated("the token is of another audience"))).await;
    operator.cut();
    program.wait_for("the token is of another audience");
    let address = operator.address.to_string();
    operator.vanish().await;
    let mut operator = Operator::start(&authority, &address, "127.0.0.1").await;
    assert_eq!(operator.hello().await.0.digest, good.digest());
    client.follow_pattern(channel, sequence, 50);
    assert!(program.ask("ready").0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_operator_an_agent_starts_with_its_last_good_snapshot() {
    let net = Net(104);
    let channel = net.ssm(1);
    let (authority, place) = (Authority::new(), Place::new("t"));
    place.trust(&authority);
    let mut operator = Operator::start(&authority, "127.0.0.1:0", "127.0.0.1").await;
    let good = snapshot(net, 7, &[channel]);
    operator.give(&good);
    let program = place.launch(&operator.url());
    assert_eq!(operator.verdict().await.refusal, "");
    let client = RawClient::connect(net.client(1), net.server());
    let sequence = client.first_of_pattern(channel);
    let url = operator.url();
    let address = operator.address.to_string();
    operator.vanish().await;
    // Nobody gives snapshots, and the client does not notice.
    program.wait_for("no stream from the operator");
    client.follow_pattern(channel, sequence, 50);

    // Killed, started again: the same client is served again.
    drop(program);
    let program = place.launch(&url);
    program.wait_for("started with the last good snapshot");
    assert_eq!(program.ask("snapshot-digest"), (true, good.digest()));
    let client = RawClient::connect(net.client(2), net.server());
    let sequence = client.first_of_pattern(channel);
    // The operator comes back and has nothing to say.
    let mut operator = Operator::start(&authority, &address, "127.0.0.1").await;
    operator.give(&good);
    let hello = operator.hello().await.0;
    assert_eq!((hello.generation, hello.digest), (7, good.digest()));
    client.follow_pattern(channel, sequence, 50);

    // A state directory that was another agent's is of no use.
    drop(program);
    let other = Place { directory: place.directory.clone(), name: "castgate/ts-test@node-9" };
    let program = other.launch(&url);
    program.wait_for("of castgate/ts-test@node-1, not of castgate/ts-test@node-9");
    assert_eq!(operator.hello().await.0.digest, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_believed_whom_the_bundle_does_not_vouch_for_or_who_has_another_name() {
    let net = Net(105);
    let (authority, stranger, place) = (Authority::new(), Authority::new(), Place::new("secret"));
    place.trust(&stranger);
    let operator = Operator::start(&authority, "127.0.0.1:0", "127.0.0.1").await;
    operator.give(&snapshot(net, 1, &[]));
    let program = place.launch(&operator.url());
    let line = program.wait_for("no stream from the operator");
    assert!(line.contains("invalid peer certificate"), "{line}");
    assert!(!program.ask("ready").0);

    // Another name, vouched for by the right one.
    let address = operator.address.to_string();
    operator.vanish().await;
    let operator = Operator::start(&authority, &address, "operator.example").await;
    place.trust(&authority);
    program.wait_for("not valid for name");
    operator.vanish().await;

    // Both are right: the bundle is read anew at each connect. It may hold several, while the fleet changes its authority.
    let mut operator = Operator::start(&authority, &address, "127.0.0.1").await;
    fs::write(place.directory.path().join("ca.crt"), format!("{}{}", stranger.pem, authority.pem)).unwrap();
    operator.give(&snapshot(net, 1, &[]));
    assert_eq!(operator.hello().await.1, "Bearer secret");
    assert_eq!(operator.verdict().await.refusal, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_for_a_moment_is_tried_again() {
    let net = Net(106);
    let (authority, place) = (Authority::new(), Place::new("t"));
    place.trust(&authority);
    let mut operator = Operator::start(&authority, "127.0.0.1:0", "127.0.0.1").await;
    let taken = std::net::UdpSocket::bind(net.server()).unwrap();
    operator.give(&snapshot(net, 1, &[net.ssm(1)]));
    let program = place.launch(&operator.url());
    let verdict = operator.verdict().await;
    assert!(verdict.refusal.contains(&net.server().to_string()), "{verdict:?}");
    assert_eq!(verdict.digest, "");
    assert!(!program.ask("ready").0);
    drop(taken);
    let deadline = Instant::now() + PATIENCE + PATIENCE;
    while !operator.verdict().await.refusal.is_empty() {
        assert!(Instant::now() < deadline, "it does not try again");
    }
    RawClient::connect(net.client(1), net.server()).first_of_pattern(net.ssm(1));
}

#[test]
fn one_source_of_snapshots_is_needed_and_a_wrong_one_is_named() {
    let place = Place::new("t");
    let url = "https://127.0.0.1:1";
    let cases: [(&[&str], &str); 4] = [
        (&[], "one of --config and --control is needed"),
        (&["--config", "x", "--control", url], "--config and --control exclude each other"),
        (&["--control", url, "--node", "n"], "--name is needed beside --control"),
        (&["--control", "http://127.0.0.1:1"], "is not https://HOST:PORT"),
    ];
    for (arguments, sentence) in cases {
        let mut program = Program::launch(place.directory.clone(), arguments);
        assert!(!program.wait().success());
        program.wait_for(sentence);
    }
    let program = Program::launch(place.directory.clone(), &[]);
    let (yes, said) = program.ask("live");
    assert!(!yes && said.contains("agent.sock: "), "{said}");
}

/// What an agent finds on its disk.
struct Place {
    directory: Arc<tempfile::TempDir>,
    name: &'static str,
}

impl Place {
    fn new(token: &str) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        fs::write(directory.path().join("token"), token).unwrap();
        Self { directory, name: NAME }
    }

    fn trust(&self, authority: &Authority) {
        fs::write(self.directory.path().join("ca.crt"), &authority.pem).unwrap();
    }

    fn launch(&self, url: &str) -> Program {
        let at = |name: &str| self.directory.path().join(name).to_str().unwrap().to_owned();
        let (token, ca) = (at("token"), at("ca.crt"));
        let arguments = ["--control", url, "--name", self.name, "--node", "node-1", "--token", &token, "--ca", &ca];
        Program::launch(self.directory.clone(), &[&arguments[..], &["--report-interval", "200ms"]].concat())
    }

    fn last_good(&self) -> AgentSnapshot {
        let text = fs::read_to_string(self.directory.path().join("state/last-good.yaml")).unwrap();
        AgentSnapshot::from_yaml(&text).unwrap()
    }
}

fn snapshot(net: Net, generation: u64, channels: &[Channel]) -> AgentSnapshot {
    let patterns = channels.iter().map(|channel| pattern_of(*channel)).collect();
    AgentSnapshot { generation, agent: NAME.to_owned(), patterns, ..net.snapshot(channels) }
}
