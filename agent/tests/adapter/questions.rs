//! What an agent asks the adapter: where servers are, where entries belong, what a peer holds; and its unary goodbye.

use std::time::Duration;

use castgate_agent::roles::database::Database;
use castgate_control::{AdapterClient, AdapterPeers, PeersSnapshot, Protocol};
use castgate_rpc::v1::{
    ByeRequest, DiscoverRequest, Entry, LocateRequest, PathStep, Server, TransferEntry, TransferRequest, Whereabouts,
};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use crate::bed::{Bed, OTHER, SERVER, connected, discovery, entry, key, parent, signed, wide};
use crate::parents::{PATIENCE, Strange, becomes};
use crate::raw_http;

const ISP: &str = "134.184.0.0/16";

#[tokio::test]
async fn servers_are_located_from_the_root_down_for_the_client_who_wants_them() {
    let bed = Bed::new().await;
    let states = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let trusting = |snapshot: &mut castgate_control::DatabaseSnapshot| {
        snapshot.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    };
    let (root, isp) = (wide(&states[0], trusting).await, wide(&states[1], trusting).await);
    let port = isp.local_address().port();
    register(&root, &format!("TYPE=TDS&SOURCE=127.0.0.1&PORT={port}&NETWORKS={ISP}&COUNTRY=BE")).await;
    register(&isp, &format!("TYPE=TS&SOURCE=127.0.2.1&PORT=10100&PROTOCOL=UDP&NETWORKS={ISP}")).await;
    let client = AdapterClient {
        parents: Vec::new(),
        discovery: Some(discovery(root.local_address())),
        ..bed.client(SERVER, &[])
    };
    let adapter = bed.adapter(&[client]).await;
    let mut hierarchy = bed.hierarchy(&adapter).await;
    let question = LocateRequest {
        agent: SERVER.to_owned(),
        r#type: "TS".to_owned(),
        client: "134.184.1.1".to_owned(),
        country: "BE".to_owned(),
        ..LocateRequest::default()
    };
    let found = hierarchy.locate(signed(question.clone(), &key(SERVER))).await.unwrap().into_inner();
    let server = Server {
        r#type: "TS".to_owned(),
        address: "127.0.2.1".to_owned(),
        port: 10_100,
        protocol: "UDP".to_owned(),
        prefix_len: None,
        fed_by: Vec::new(),
        scheme: String::new(),
    };
    assert_eq!((found.servers.as_slice(), found.matched.as_str()), (&[server][..], "network"));

    // Nobody is for somebody elsewhere, and nobody who speaks another protocol is there.
    for question in [
        LocateRequest { client: "192.0.2.1".to_owned(), ..question.clone() },
        LocateRequest { protocol: "AMT".to_owned(), ..question.clone() },
    ] {
        let none = hierarchy.locate(signed(question, &key(SERVER))).await.unwrap().into_inner();
        assert!(none.servers.is_empty(), "{none:?}");
    }

    let question = LocateRequest { r#type: "TDS".to_owned(), network: "134.184.7.0/24".to_owned(), ..question };
    let found = hierarchy.locate(signed(question, &key(SERVER))).await.unwrap().into_inner();
    let database = Server {
        r#type: "TDS".to_owned(),
        address: "127.0.0.1".to_owned(),
        port: u32::from(port),
        protocol: "TCP".to_owned(),
        prefix_len: Some(16),
        fed_by: Vec::new(),
        scheme: String::new(),
    };
    assert_eq!(
        found.servers.iter().map(|one| Server { protocol: "TCP".to_owned(), ..one.clone() }).collect::<Vec<_>>(),
        [database]
    );
}

#[tokio::test]
async fn where_entries_belong_is_found_without_registering_them() {
    let bed = Bed::new().await;
    let states = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let (root, isp) = (wide(&states[0], |_| {}).await, wide(&states[1], |_| {}).await);
    let address = isp.local_address();
    register(&root, &format!("TYPE=TDS&SOURCE=127.0.0.1&PORT={}&NETWORKS={ISP}&COUNTRY=BE", address.port())).await;
    let client = AdapterClient {
        parents: Vec::new(),
        discovery: Some(discovery(root.local_address())),
        ..bed.client(SERVER, &[])
    };
    let adapter = bed.adapter(&[client, bed.client(OTHER, &[])]).await;
    let mut hierarchy = bed.hierarchy(&adapter).await;
    let server = entry("127.0.2.1:10100".parse().unwrap(), Some(Protocol::Udp), &["134.184.1.0/24"]);
    let peer = entry("127.0.9.9:5632".parse().unwrap(), None, &[ISP]);
    let entries: Vec<Entry> = [&server, &peer].map(Entry::from).to_vec();
    let question = DiscoverRequest { agent: SERVER.to_owned(), entries: entries.clone() };
    let found = hierarchy.discover(signed(question.clone(), &key(SERVER))).await.unwrap().into_inner().found;
    let path = vec![
        PathStep { members: vec![root.local_address().to_string()], matched: None },
        PathStep { members: vec![address.to_string()], matched: Some(16) },
    ];
    let whereabouts = |kind: &str, network: &str| Whereabouts {
        r#type: kind.to_owned(),
        network: network.to_owned(),
        country: "BE".to_owned(),
        path: path.clone(),
        ..Whereabouts::default()
    };
    let of_server = Whereabouts { register: vec![address.to_string()], ..whereabouts("TS", "134.184.1.0/24") };
    let of_peer = Whereabouts {
        register: vec![root.local_address().to_string()],
        peers: vec![address.to_string()],
        ..whereabouts("TDS", ISP)
    };
    assert_eq!(found, [of_server, of_peer]);
    assert_eq!((root.report().entries, isp.report().entries), (1, 0), "nothing was registered");

    // Without entries it proves the key; where parents are named there is nothing to discover.
    let empty = DiscoverRequest { agent: OTHER.to_owned(), entries: Vec::new() };
    assert!(hierarchy.discover(signed(empty, &key(OTHER))).await.unwrap().into_inner().found.is_empty());
    let named = DiscoverRequest { agent: OTHER.to_owned(), ..question.clone() };
    let refusal = hierarchy.discover(signed(named, &key(OTHER))).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert!(refusal.message().contains("are named: there is nothing to discover"), "{refusal:?}");

    root.stop().await;
    let found = hierarchy.discover(signed(question, &key(SERVER))).await.unwrap().into_inner().found;
    assert!(found[0].trouble.starts_with("no database to register with was found"), "{found:?}");
}

#[tokio::test]
async fn the_entries_of_a_peer_come_as_a_stream_that_ends_well_only_when_it_is_complete() {
    let bed = Bed::new().await;
    let state = TempDir::new().unwrap();
    let peer = wide(&state, |snapshot| {
        snapshot.peers = Some(PeersSnapshot::new(Vec::new(), "peer".to_owned(), "p33r".to_owned()));
    })
    .await;
    for n in 1..=150 {
        register(&peer, &format!("TYPE=TS&SOURCE=127.0.2.{n}&PORT=10100&PROTOCOL=UDP&NETWORKS=134.184.{n}.0/24")).await;
    }
    let address = peer.local_address().to_string();
    let peers = |members: Vec<String>, password: &str| AdapterPeers {
        members,
        login: "peer".to_owned(),
        password: password.to_owned(),
        ca: None,
    };
    let dead = "127.0.0.1:1".to_owned();
    let good = AdapterClient { peers: Some(peers(vec![dead, address.clone()], "p33r")), ..bed.client(SERVER, &[]) };
    let wrong = AdapterClient { peers: Some(peers(vec![address.clone()], "wrong")), ..bed.client(OTHER, &[]) };
    let adapter = bed.adapter(&[good, wrong, bed.client("castgate/none@node-3", &[])]).await;
    let mut hierarchy = bed.hierarchy(&adapter).await;
    let wanted = TransferRequest { agent: SERVER.to_owned(), ..TransferRequest::default() };
    let all = hierarchy.transfer(signed(wanted.clone(), &key(SERVER))).await.unwrap().into_inner();
    let (all, end) = drain(all).await;
    assert_eq!((all.len(), end.map(|status| status.code())), (150, None), "the first is dead, the second gives all");
    assert!(all.iter().all(|entry| entry.login == "be" && entry.networks.len() == 1));

    let some = TransferRequest { peer: address, network: "134.184.7.0/24".to_owned(), ..wanted.clone() };
    let (some, end) = drain(hierarchy.transfer(signed(some, &key(SERVER))).await.unwrap().into_inner()).await;
    assert_eq!((some.len(), end.map(|status| status.code())), (1, None));

    let refused = TransferRequest { agent: OTHER.to_owned(), ..wanted.clone() };
    let (none, end) = drain(hierarchy.transfer(signed(refused, &key(OTHER))).await.unwrap().into_inner()).await;
    let end = end.expect("it does not end well");
    assert!(none.is_empty() && end.code() == Code::Unavailable && end.message().contains("401"), "{end:?}");
    for (agent, peer, code) in
        [(SERVER, "192.0.2.1:5632", Code::NotFound), ("castgate/none@node-3", "", Code::FailedPrecondition)]
    {
        let wanted = TransferRequest { agent: agent.to_owned(), peer: peer.to_owned(), ..wanted.clone() };
        let status = hierarchy.transfer(signed(wanted, &key(agent))).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
    }
}

#[tokio::test]
async fn a_goodbye_in_one_call_takes_everything_back_and_ends_the_stream() {
    let bed = Bed::new().await;
    let adapter = bed.adapter(&[bed.client(SERVER, &["BE"])]).await;
    let (_requests, mut states) = bed.stream(SERVER, &adapter).await;
    becomes(&bed.database, 1).await;
    let mut hierarchy = bed.hierarchy(&adapter).await;
    let bye = ByeRequest { agent: SERVER.to_owned() };
    let answer = hierarchy.bye(signed(bye, &key(SERVER))).await.unwrap().into_inner();
    assert!(answer.complete);
    assert_eq!(bed.database.report().entries, 0, "answered after the databases have heard it");
    let end = loop {
        match states.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends with a reason"),
            Err(reason) => break reason,
        }
    };
    assert_eq!(end.code(), Code::Aborted);
    connected(&adapter, SERVER, false).await;
}

#[tokio::test]
async fn nobody_is_answered_without_his_own_key() {
    let bed = Bed::new().await;
    let adapter = bed.adapter(&[bed.client(SERVER, &["BE"]), bed.client(OTHER, &[])]).await;
    let mut hierarchy = bed.hierarchy(&adapter).await;
    for (shown, code) in [("x".repeat(64), Code::Unauthenticated), (key(OTHER), Code::PermissionDenied)] {
        let agent = SERVER.to_owned();
        let locate = LocateRequest { agent: agent.clone(), r#type: "TS".to_owned(), ..LocateRequest::default() };
        let discover = DiscoverRequest { agent: agent.clone(), entries: Vec::new() };
        let transfer = TransferRequest { agent: agent.clone(), ..TransferRequest::default() };
        let codes = [
            hierarchy.locate(signed(locate, &shown)).await.unwrap_err().code(),
            hierarchy.discover(signed(discover, &shown)).await.unwrap_err().code(),
            hierarchy.transfer(signed(transfer, &shown)).await.unwrap_err().code(),
            hierarchy.bye(signed(ByeRequest { agent }, &shown)).await.unwrap_err().code(),
        ];
        assert_eq!(codes, [code; 4]);
    }
    let wrong = LocateRequest { agent: SERVER.to_owned(), r#type: "TX".to_owned(), ..LocateRequest::default() };
    let status = hierarchy.locate(signed(wrong, &key(SERVER))).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "type: \"TX\" is not TS or TDS"));
}

#[tokio::test]
async fn an_agent_that_asks_too_much_at_one_time_is_sent_away_and_others_are_answered() {
    let bed = Bed::new().await;
    let silent = Strange::start(Duration::from_mins(1), "").await;
    let greedy = AdapterClient { parents: vec![parent(&silent.address.to_string())], ..bed.client(SERVER, &[]) };
    let adapter = bed.adapter(&[greedy, bed.client(OTHER, &[])]).await;
    let question = |agent: &str| {
        let agent = agent.to_owned();
        LocateRequest { agent, r#type: "TS".to_owned(), country: "BE".to_owned(), ..LocateRequest::default() }
    };
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..2 {
        // A connection carries as many at one time.
        let hierarchy = bed.hierarchy(&adapter).await;
        for _ in 0..20 {
            let (mut hierarchy, request) = (hierarchy.clone(), signed(question(SERVER), &key(SERVER)));
            asking.spawn(async move { hierarchy.locate(request).await.map(|_| ()).map_err(|status| status.code()) });
        }
    }
    let mut refused = 0;
    while refused < 8 {
        let answer = timeout(PATIENCE, asking.join_next()).await.expect("eight are sent away at once").unwrap();
        assert_eq!(answer.unwrap(), Err(Code::ResourceExhausted));
        refused += 1;
    }
    let mut hierarchy = bed.hierarchy(&adapter).await;
    let answer = hierarchy.locate(signed(question(OTHER), &key(OTHER))).await.unwrap().into_inner();
    assert!(answer.servers.is_empty() && asking.len() == 32);
}

async fn register(database: &Database, pairs: &str) {
    let pairs = format!("ACTION=REGISTER&{pairs}");
    let reply = raw_http::get(database.local_address(), &pairs, Some("be:s3cret")).await;
    assert_eq!(reply.status, 200, "{pairs}: {}", reply.body);
}

/// What comes, and how it ends when not well.
async fn drain(mut stream: Streaming<TransferEntry>) -> (Vec<TransferEntry>, Option<Status>) {
    let mut entries = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => return (entries, None),
            Err(status) => return (entries, Some(status)),
        }
    }
}
