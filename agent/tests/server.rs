//! The tunnel server of an agent, seen by clients that speak UMTP octet for octet.

mod support;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use castgate_agent::{Agent, report::Report};
use castgate_control::AgentSnapshot;
use castgate_wire::umtp::{Channel, Command, Cookie, Trailer};
use socket2::{Domain, Socket, Type};
use support::{Net, PATIENCE, RawClient, SILENCE, is_joined, pattern_of, rule};

#[tokio::test]
async fn a_source_specific_channel_crosses_the_tunnel_whole_and_in_order() {
    let net = Net(61);
    let channel = net.ssm(1);
    let snapshot = AgentSnapshot { patterns: vec![pattern_of(channel)], ..net.snapshot(&[channel]) };
    let (agent, _state) = start(snapshot).await;

    let client = RawClient::connect(net.client(1), net.server());
    let first = client.first_of_pattern(channel);
    client.follow_pattern(channel, first, 100);

    let report = agent.report();
    let [carried] = &report.channels[..] else { panic!("one channel: {report:?}") };
    assert_eq!((carried.channel, carried.name.as_str(), carried.tunnels), (channel, &*rule(channel).name, 1));
    assert!(carried.packets >= 101 && carried.bytes == carried.packets * 1316, "{carried:?}");
    let [tunnel] = &report.tunnels[..] else { panic!("one tunnel: {report:?}") };
    assert_eq!((*tunnel.address.ip(), &tunnel.channels[..]), (net.client(1), &[channel][..]));
    assert!(report.patterns[0].packets >= 101);
    agent.stop().await;
    assert!(!is_joined(channel.group));
}

#[tokio::test]
async fn what_no_rule_permits_is_neither_joined_nor_forwarded() {
    let net = Net(62);
    let (agent, _state) = start(net.snapshot(&[net.asm(1)])).await;
    let client = RawClient::connect(net.client(1), net.server());
    let refused = [
        Channel::any_source(Ipv4Addr::new(224, 0, 0, 5), 5004),
        Channel::any_source(Ipv4Addr::new(192, 0, 2, 1), 5004),
        Channel { port: 5005, ..net.asm(1) },
        net.asm(2),
        net.ssm(1),
    ];
    for channel in refused {
        client.join(channel);
        client.data(channel, 16, b"nobody wants this");
    }
    // DATA with the right cookie, but without a join.
    client.data(net.asm(1), 16, b"too early");
    client.settle();
    let report = agent.report();
    assert_eq!((&report.channels[..], &report.tunnels[..]), (&[][..], &[][..]));
    assert!(!is_joined(net.asm(2).group) && !is_joined(net.ssm(1).group));
    assert!(dropped(&report, "not_permitted") >= 3 && dropped(&report, "link_local") >= 1, "{:?}", report.drops);
    assert!(dropped(&report, "not_multicast") >= 1, "{:?}", report.drops);

    // The same question, permitted: what was looked at above does show a join.
    client.join(net.asm(1));
    client.settle();
    assert_eq!(agent.report().tunnels.len(), 1);
    eventually("the kernel has joined", || is_joined(net.asm(1).group));
    agent.stop().await;
}

#[tokio::test]
async fn what_a_client_sends_reaches_the_others_and_the_network_once_and_never_himself() {
    let net = Net(63);
    let group = net.asm(1);
    let (agent, _state) = start(net.snapshot(&[group])).await;
    let native = listener(group);
    let clients = [1, 2, 3].map(|number| RawClient::connect(net.client(number), net.server()));
    for client in &clients {
        client.join(group);
        client.settle();
    }
    eventually("all three have it", || agent.report().channels.iter().any(|channel| channel.tunnels == 3));
    let [sender, others @ ..] = &clients;

    for payload in [&b"first"[..], b"second"] {
        sender.data(group, 9, payload);
        for other in others {
            let (trailer, received) = other.receive_data(group, PATIENCE).expect("the others get it");
            assert_eq!((received.as_slice(), trailer.ttl), (payload, 8));
            assert_eq!(other.receive_data(group, SILENCE), None, "once each");
        }
        let (received, from) = receive_native(&native, PATIENCE).expect("the network gets it");
        assert_eq!((received.as_slice(), *from.ip()), (payload, *net.server().ip()));
        assert_eq!(receive_native(&native, SILENCE), None, "once");
        assert_eq!(sender.receive_data(group, SILENCE), None, "nobody gets his own packets back");
    }

    // A native sender reaches all three, once each.
    native_sender(net.source()).send_to(b"native", (group.group, group.port)).unwrap();
    for client in &clients {
        assert_eq!(client.receive_data(group, PATIENCE).expect("native packets come down").1, b"native");
        assert_eq!(client.receive_data(group, SILENCE), None);
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_leave_ends_the_channel_for_its_client_alone_and_the_last_one_ends_it_natively() {
    let net = Net(72);
    let channel = net.ssm(1);
    let snapshot = AgentSnapshot { patterns: vec![pattern_of(channel)], ..net.snapshot(&[channel]) };
    let (agent, _state) = start(snapshot).await;
    let [leaver, stayer] = [1, 2].map(|number| RawClient::connect(net.client(number), net.server()));
    leaver.first_of_pattern(channel);
    let sequence = stayer.first_of_pattern(channel);

    leaver.leave(channel);
    eventually("it is silent", || leaver.receive_data(channel, SILENCE).is_none());
    stayer.follow_pattern(channel, sequence, 50);
    assert!(is_joined(channel.group));

    stayer.leave(channel);
    eventually("it is silent", || stayer.receive_data(channel, SILENCE).is_none());
    eventually("the kernel has left", || !is_joined(channel.group));
    assert_eq!(agent.report().tunnels.len(), 2, "the tunnels stay for a while");
    agent.stop().await;
}

#[tokio::test]
async fn a_channel_that_the_kernel_refuses_is_reported_and_taken_when_it_can_be() {
    let net = Net(69);
    let channel = net.asm(1);
    let (agent, _state) = start(net.snapshot(&[channel])).await;
    // A program that wants the port for itself alone.
    let greedy = UdpSocket::bind((channel.group, channel.port)).unwrap();
    let client = RawClient::connect(net.client(1), net.server());
    client.join(channel);
    eventually("it is said", || agent.report().channels.iter().any(|channel| !channel.not_joined.is_empty()));
    let refused = agent.report().channels.remove(0).not_joined.remove(0);
    assert!(refused.starts_with("lo: ") && refused.contains("in use"), "{refused}");

    drop(greedy);
    eventually("it is taken", || agent.report().channels.iter().all(|channel| channel.not_joined.is_empty()));
    native_sender(net.source()).send_to(b"native", (channel.group, channel.port)).unwrap();
    assert!(client.receive_data(channel, PATIENCE).is_some());
    agent.stop().await;
}

#[tokio::test]
async fn a_channel_withdrawn_by_a_new_snapshot_ends_and_the_others_go_on() {
    let net = Net(64);
    let (kept, withdrawn) = (net.ssm(1), net.ssm(2));
    let patterns = vec![pattern_of(kept), pattern_of(withdrawn)];
    let both = AgentSnapshot { patterns, ..net.snapshot(&[kept, withdrawn]) };
    let (mut agent, _state) = start(both.clone()).await;
    let client = RawClient::connect(net.client(1), net.server());
    client.first_of_pattern(withdrawn);
    client.first_of_pattern(kept);

    let mut one = both;
    one.server.as_mut().unwrap().channels.truncate(1);
    agent.apply(one).await.unwrap();
    client.settle();
    eventually("it is silent", || client.receive_data(withdrawn, SILENCE).is_none());
    client.join(withdrawn);
    assert_eq!(client.receive_data(withdrawn, SILENCE), None);
    assert!(client.receive_data(kept, PATIENCE).is_some());
    assert_eq!(agent.report().tunnels[0].channels, [kept]);
    agent.stop().await;
}

#[tokio::test]
async fn a_refused_snapshot_changes_nothing() {
    let net = Net(65);
    let channel = net.ssm(1);
    let snapshot = AgentSnapshot { patterns: vec![pattern_of(channel)], ..net.snapshot(&[channel]) };
    let (mut agent, _state) = start(snapshot.clone()).await;
    let client = RawClient::connect(net.client(1), net.server());
    let first = client.first_of_pattern(channel);

    let changed = |change: fn(&mut AgentSnapshot)| {
        let mut new = AgentSnapshot { generation: 9, ..snapshot.clone() };
        change(&mut new);
        new
    };
    let refused = [
        (changed(|new| new.server.as_mut().unwrap().interfaces = vec!["nosuch0".to_owned()]), "interface \"nosuch0\""),
        (changed(|new| new.server.as_mut().unwrap().listen = "192.0.2.1:10100".parse().unwrap()), "192.0.2.1:10100"),
        (
            changed(|new| new.server.as_mut().unwrap().channels[0].group = [10, 0, 0, 1].into()),
            "server.channels[0].group",
        ),
        (changed(|new| new.patterns[0].channel.source = Some([192, 0, 2, 1].into())), "192.0.2.1"),
        (changed(|new| new.patterns[0].interface = "nosuch0".to_owned()), "interface \"nosuch0\""),
    ];
    for (new, named) in refused {
        let refusal = agent.apply(new).await.unwrap_err().to_string();
        assert!(refusal.contains(named) && !refusal.contains('\n'), "{refusal}");
        assert_eq!(agent.report().generation, 0);
    }
    // A server that had to end for its successor comes back: the client joins anew, the pattern was never interrupted.
    assert!(client.first_of_pattern(channel) > first);
    agent.stop().await;
}

#[tokio::test]
async fn another_address_is_taken_while_the_pattern_goes_on() {
    let (net, moved) = (Net(66), SocketAddrV4::new(Ipv4Addr::new(127, 66, 2, 2), 10100));
    let channel = net.ssm(1);
    let mut snapshot = AgentSnapshot { patterns: vec![pattern_of(channel)], ..net.snapshot(&[channel]) };
    let (mut agent, _state) = start(snapshot.clone()).await;
    let client = RawClient::connect(net.client(1), net.server());
    client.first_of_pattern(channel);

    snapshot.server.as_mut().unwrap().listen = moved;
    agent.apply(snapshot).await.unwrap();
    eventually("the old address says goodbye", || {
        client.receive(SILENCE).is_some_and(|(trailer, _)| trailer.command == Command::TearDown)
    });
    RawClient::connect(net.client(2), moved).first_of_pattern(channel);
    assert!(agent.report().patterns[0].packets > 0);
    agent.stop().await;
}

#[tokio::test]
async fn a_stopped_agent_tears_every_tunnel_down() {
    let net = Net(67);
    let (agent, _state) = start(net.snapshot(&[net.asm(1)])).await;
    let clients = [1, 2].map(|number| RawClient::connect(net.client(number), net.server()));
    for client in &clients {
        client.join(net.asm(1));
        client.settle();
    }
    agent.stop().await;
    for client in &clients {
        assert_eq!(client.receive(PATIENCE).expect("a last word").0.command, Command::TearDown);
    }
    assert!(!is_joined(net.asm(1).group));
}

#[tokio::test]
async fn a_wrong_cookie_is_answered_once_and_with_no_more_than_was_sent() {
    let net = Net(68);
    let (agent, _state) = start(net.snapshot(&[net.asm(1)])).await;
    let client = RawClient::connect(net.client(1), net.server());
    let right = client.bare(Command::JoinGroup);
    let wrong = Cookie(!right.destination_cookie.0);
    // The answer to the first PROBE has just been given: the next one is due a second later.
    for _ in 0..5 {
        client.send(&Trailer { channel: net.asm(1), ttl: 9, destination_cookie: wrong, ..right }, &[]);
    }
    assert_eq!(client.receive(SILENCE), None);
    let report = agent.report();
    assert!(dropped(&report, "wrong_cookie") == 5 && report.tunnels.is_empty(), "{report:?}");
    agent.stop().await;
}

#[tokio::test]
async fn who_guesses_too_often_is_ignored_even_when_he_is_right_and_later_forgiven() {
    let net = Net(70);
    let mut snapshot = net.snapshot(&[net.asm(1)]);
    snapshot.server.as_mut().unwrap().timers.ignore_for_ms = 1_000.try_into().unwrap();
    let (agent, _state) = start(snapshot).await;
    let client = RawClient::connect(net.client(1), net.server());
    let right = Trailer { channel: net.asm(1), ttl: 9, ..client.bare(Command::JoinGroup) };
    for guess in 1..=20 {
        let wrong = Cookie(right.destination_cookie.0.wrapping_add(guess));
        client.send(&Trailer { destination_cookie: wrong, ..right }, &[]);
    }
    client.join(net.asm(1));
    eventually("all of it is counted", || {
        let report = agent.report();
        dropped(&report, "wrong_cookie") + dropped(&report, "ignored") == 21
    });
    assert!(dropped(&agent.report(), "ignored") >= 4, "{:?}", agent.report().drops);
    assert!(agent.report().tunnels.is_empty());
    eventually("he is forgiven", || {
        client.join(net.asm(1));
        agent.report().tunnels.len() == 1
    });
    agent.stop().await;
}

#[tokio::test]
async fn a_client_that_falls_silent_loses_its_channel_and_then_its_tunnel_and_others_see_nothing() {
    let net = Net(71);
    let channel = net.ssm(1);
    let mut snapshot = AgentSnapshot { patterns: vec![pattern_of(channel)], ..net.snapshot(&[channel]) };
    let timers = &mut snapshot.server.as_mut().unwrap().timers;
    timers.join_timeout_ms = 1_000.try_into().unwrap();
    timers.idle_timeout_ms = 2_000.try_into().unwrap();
    let (agent, _state) = start(snapshot).await;
    let [silent, alive] = [1, 2].map(|number| RawClient::connect(net.client(number), net.server()));
    silent.first_of_pattern(channel);
    let mut sequence = alive.first_of_pattern(channel);
    let tunnel_of = |number| {
        let tunnels = agent.report().tunnels;
        tunnels.into_iter().find(|tunnel| *tunnel.address.ip() == net.client(number))
    };
    assert_eq!(tunnel_of(1).unwrap().channels, [channel]);

    let mut go_on_until = |what: &str, happens: &dyn Fn() -> bool| {
        eventually(what, || {
            alive.join(channel);
            sequence = alive.follow_pattern(channel, sequence, 10);
            happens()
        });
    };
    go_on_until("its channel is gone", &|| tunnel_of(1).is_none_or(|tunnel| tunnel.channels.is_empty()));
    go_on_until("its tunnel is gone", &|| tunnel_of(1).is_none());
    assert_eq!(tunnel_of(2).unwrap().channels, [channel]);
    agent.stop().await;
}

async fn start(snapshot: AgentSnapshot) -> (Agent, tempfile::TempDir) {
    let state = tempfile::tempdir().unwrap();
    (Agent::start(snapshot, state.path()).await.unwrap(), state)
}

fn dropped(report: &Report, reason: &str) -> u64 {
    report.drops.get(reason).copied().unwrap_or(0)
}

/// A program beside us that listens to the group, as any well-mannered one does.
fn listener(channel: Channel) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((channel.group, channel.port)).into()).unwrap();
    socket.join_multicast_v4(&channel.group, &Ipv4Addr::LOCALHOST).unwrap();
    socket.into()
}

fn native_sender(address: Ipv4Addr) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    socket.set_multicast_ttl_v4(8).unwrap();
    socket.into()
}

fn receive_native(socket: &UdpSocket, timeout: std::time::Duration) -> Option<(Vec<u8>, SocketAddrV4)> {
    let mut buffer = [0; 2048];
    socket.set_read_timeout(Some(timeout)).unwrap();
    match socket.recv_from(&mut buffer).ok()? {
        (length, SocketAddr::V4(from)) => Some((buffer[..length].to_vec(), from)),
        (_, from) => panic!("{from} is no IPv4 address"),
    }
}

fn eventually(what: &str, mut happens: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !happens() {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
