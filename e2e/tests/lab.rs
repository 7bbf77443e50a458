//! The lab itself: what it promises to the tests that stand on it.

use anyhow::{Context, Result, ensure};
use castgate_e2e::capture::Capture;
use castgate_e2e::lab::impair::{Impairment, Way};
use castgate_e2e::lab::{Lab, Scenario, wait};
use castgate_e2e::media;
use castgate_e2e::recorder::{Recorder, sender};
use std::net::{SocketAddrV4, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(10);

#[test]
fn multicast_crosses_a_lan_and_stops_at_a_router() {
    let topology = "
        studio: source 10.1.0.10/24, player 10.1.0.2/24, core 10.1.0.1/24
        other: core 10.3.0.1/24, stranger 10.3.0.2/24
        router core: studio
    ";
    Scenario::new(topology).run(|lab| {
        let asm = "239.1.2.3:5004".parse()?;
        let ssm = "232.1.2.3@10.1.0.10:5004".parse()?;
        let foreign = "232.1.2.3@10.1.0.11:5004".parse()?;
        let player = lab.host("player");
        let [any, specific, other] = [asm, ssm, foreign].map(|channel| Recorder::start(player, "studio", channel));
        let stranger = Recorder::start(lab.host("stranger"), "other", asm)?;
        let socket = sender(lab.host("source"), "studio")?;
        for number in 0..20_u8 {
            socket.send_to(&[number], "239.1.2.3:5004")?;
            socket.send_to(&[number], "232.1.2.3:5004")?;
        }
        let (any, specific) = (any?, specific?);
        any.wait_count(20, LONG)?;
        specific.wait_count(20, LONG)?;
        ensure!(specific.octets() == (0..20).collect::<Vec<u8>>());
        ensure!(other?.count() == 0, "a join of another source brought this one");
        ensure!(stranger.count() == 0, "multicast crossed a unicast router");
        ensure!(player.is_member("239.1.2.3".parse()?) && !player.is_member("239.1.2.4".parse()?));
        Ok(())
    });
}

#[test]
fn the_film_arrives_at_a_plain_socket_as_tshark_saw_it_leave_and_plays() {
    Scenario::new("studio: source 10.1.0.10/24, player 10.1.0.2/24").needs(&["ffmpeg", "ffprobe", "tshark"]).run(
        |lab| {
            let channel = "232.1.2.3@10.1.0.10:5004".parse()?;
            let recorder = Recorder::start(lab.host("player"), "studio", channel)?;
            let capture = Capture::start(lab.host("source"), "studio", "udp port 5004", lab.folder())?;
            let status = media::send(lab.host("source"), "studio", channel)?.wait(LONG * 2)?;
            ensure!(status.success(), "ffmpeg ended with {status}");
            recorder.wait_quiet(Duration::from_millis(300), LONG)?;
            let (heard, captured) = (recorder.heard(), capture.stop()?);
            ensure!(heard.len() > 400 && heard.len() == captured.len(), "{} of {}", heard.len(), captured.len());
            ensure!(heard.iter().zip(&captured).all(|(heard, captured)| {
                heard.payload == captured.payload && heard.from == captured.from && captured.ttl == 16
            }));
            let recording = lab.folder().join("recording.ts");
            std::fs::write(&recording, recorder.octets())?;
            media::check_plays(&recording)?;
            // A film that lacks its middle does not pass for a whole one.
            let octets = recorder.octets();
            let third = octets.len() / 3 / 188 * 188;
            std::fs::write(&recording, [&octets[..third], &octets[2 * third..]].concat())?;
            ensure!(media::check_plays(&recording).is_err(), "a third is missing and nobody noticed");
            Ok(())
        },
    );
}

#[test]
fn a_link_drops_and_doubles_exactly_what_it_says() {
    const SENT: u64 = 10_000;
    let topology = "
        internet: a 192.0.2.1/24, b 192.0.2.2/24
        link a internet: loss=2% duplicate=1% delay=5ms jitter=5ms seed=11
    ";
    Scenario::new(topology).run(|lab| {
        let here: SocketAddrV4 = "192.0.2.2:7000".parse()?;
        let recorder = Recorder::record(big_buffer(lab, here)?);
        let socket = lab.host("a").enter(|| UdpSocket::bind("192.0.2.1:0"))??;
        let link = lab.link("a", "internet");
        for number in 0..SENT {
            socket.send_to(&number.to_be_bytes(), here)?;
            if number % 50 == 0 {
                // As fast as the receiver takes it: a queue of the kernel that overflows is not the link's loss.
                wait::until("the link keeps up", LONG, || (link.counts(Way::Up).entered >= number).then_some(()))?;
            }
        }
        recorder.wait_quiet(Duration::from_millis(300), LONG)?;
        let counts = link.counts(Way::Up);
        ensure!(counts.entered == SENT && counts.refused == 0, "{counts:?}");
        ensure!((150..250).contains(&counts.dropped) && (60..140).contains(&counts.duplicated), "{counts:?}");
        let heard: Vec<u64> = recorder
            .heard()
            .iter()
            .map(|datagram| Ok(u64::from_be_bytes(datagram.payload.as_slice().try_into().context("eight octets")?)))
            .collect::<Result<_>>()?;
        ensure!(heard.len() as u64 == SENT - counts.dropped + counts.duplicated, "{} heard, {counts:?}", heard.len());
        ensure!(heard.windows(2).any(|pair| pair[1] < pair[0]), "jitter reordered nothing");
        // The journal knows each by name.
        let lost: Vec<u64> = link.pick(|passage| {
            let payload = passage.is_lost().then(|| passage.udp()).flatten()?.payload;
            Some(u64::from_be_bytes(payload.try_into().ok()?))
        });
        ensure!(lost.len() as u64 == counts.dropped && lost.iter().all(|number| !heard.contains(number)));
        Ok(())
    });
}

#[test]
fn a_link_can_be_cut_and_mended_and_limits_the_rate() {
    let topology = "
        internet: a 192.0.2.1/24, b 192.0.2.2/24
        link b internet: delay=1ms
    ";
    Scenario::new(topology).run(|lab| {
        let here: SocketAddrV4 = "192.0.2.2:7000".parse()?;
        let recorder = Recorder::record(big_buffer(lab, here)?);
        let socket = lab.host("a").enter(|| UdpSocket::bind("192.0.2.1:0"))??;
        socket.send_to(b"1", here)?;
        recorder.wait_count(1, LONG)?;
        let link = lab.link("b", "internet");
        link.set(&Impairment::cut());
        socket.send_to(b"2", here)?;
        wait::until("a drop", LONG, || (link.counts(Way::Down).dropped == 1).then_some(()))?;
        link.set(&"rate=1mbit".parse()?);
        for _ in 0..20 {
            socket.send_to(&[0; 1_208], here)?;
        }
        recorder.wait_count(21, LONG)?;
        let heard = recorder.heard();
        let took = heard[20].at.duration_since(heard[1].at);
        // 19 frames of 1250 octets at 1 Mbit/s; the thread of the recorder may be late by a little at either end.
        ensure!((140..=220).contains(&took.as_millis()), "{took:?} instead of 190 ms");
        Ok(())
    });
}

#[test]
fn a_nat_hides_its_lan_and_takes_other_ports_when_it_rebinds() {
    let topology = "
        internet: server 192.0.2.2/24, home 192.0.2.20/24
        sofa: home 10.2.0.1/24, client 10.2.0.11/24
        nat home: internet
    ";
    Scenario::new(topology).run(|lab| {
        let server = lab.host("server").enter(|| UdpSocket::bind("192.0.2.2:10100"))??;
        let client = lab.host("client").enter(|| UdpSocket::bind("10.2.0.11:4000"))??;
        server.set_read_timeout(Some(LONG))?;
        client.set_read_timeout(Some(LONG))?;
        let mut buffer = [0; 16];
        let mut seen = Vec::new();
        for round in 0..4_u8 {
            if round >= 2 {
                lab.rebind_nat("home")?;
            }
            client.send_to(&[round], "192.0.2.2:10100")?;
            let (_, from) = server.recv_from(&mut buffer)?;
            server.send_to(&[round + 10], from)?;
            ensure!(client.recv_from(&mut buffer)? == (1, "192.0.2.2:10100".parse()?) && buffer[0] == round + 10);
            seen.push(from);
        }
        ensure!(seen.iter().all(|from| from.ip() == lab.host("home").address("internet")), "{seen:?}");
        ensure!(seen[0] == seen[1] && seen[1] != seen[2] && seen[2] != seen[3], "{seen:?}");
        Ok(())
    });
}

#[test]
fn nothing_is_left_behind_after_success_failure_and_panic() {
    Scenario::new("bystander: x 10.0.0.1/24").run(|_| {
        let endings: [fn(&Lab) -> Result<()>; 3] =
            [|_| Ok(()), |_| anyhow::bail!("on purpose"), |_| panic!("on purpose")];
        for ending in endings {
            let names = std::sync::Mutex::new(Vec::new());
            let outcome = std::panic::catch_unwind(|| {
                let lab = Lab::build(SMALL)?;
                let sleeper = lab.host("a").spawn("sleep", sleep_command(&lab))?;
                names.lock().expect("fresh").extend(names_of(&lab));
                std::mem::forget(sleeper);
                ending(&lab)
            });
            let names = names.into_inner().expect("no panic held it");
            ensure!(names.len() == 4, "the lab stood: {outcome:?}");
            ensure!(!names.iter().any(|name| exists(name)), "left behind: {names:?}");
        }
        Ok(())
    });
}

#[test]
fn nothing_is_left_behind_after_ctrl_c_and_sigkill() {
    Scenario::new("bystander: x 10.0.0.1/24").run(|lab| {
        let file = lab.folder().join("small.lab");
        std::fs::write(&file, SMALL)?;
        for signal in [rustix::process::Signal::INT, rustix::process::Signal::KILL] {
            // A shell that starts us in the background has Ctrl-C ignored, and that is inherited.
            let mut program = Command::new("env");
            program.args(["--default-signal=INT", env!("CARGO_BIN_EXE_castgate-lab")]).arg(&file);
            let mut holder = lab.host("x").spawn_reading("castgate-lab", program, Stdio::null())?;
            holder.wait_line("ready", LONG, |line| line.starts_with("ready").then_some(()))?;
            let prefix = format!("castgate-{}-", holder.pid());
            let left = || namespaces().into_iter().filter(|name| name.starts_with(&prefix)).count();
            ensure!(left() == 4, "{} namespaces stand", left());
            holder.signal(signal)?;
            wait::until("the reaper's end", LONG, || (left() == 0).then_some(()))?;
        }
        Ok(())
    });
}

#[test]
fn a_later_run_sweeps_what_a_dead_one_could_not() {
    Scenario::new("bystander: x 10.0.0.1/24").run(|_| {
        // A process that is gone: its number is free or another's by now, its start time is nobody's.
        let mut gone = Command::new("true").spawn()?;
        let orphan = format!("castgate-{}-1-0-orphan", gone.id());
        gone.wait()?;
        let mine = Lab::build(SMALL)?;
        ensure!(Command::new("ip").args(["netns", "add", &orphan]).status()?.success());
        let other = Lab::build(SMALL)?;
        ensure!(!exists(&orphan), "the orphan is still there");
        ensure!(names_of(&mine).iter().chain(&names_of(&other)).all(|name| exists(name)), "a living lab was swept");
        Ok(())
    });
}

const SMALL: &str = "
    studio: a 10.1.0.1/24, b 10.1.0.2/24
    back: a 10.2.0.1/24
    link a studio: loss=1%
";

fn names_of(lab: &Lab) -> Vec<String> {
    let hosts = lab.hosts().map(|host| host.namespace().name().to_owned());
    hosts.chain(["studio", "back"].map(|lan| lab.lan(lan).name().to_owned())).collect()
}

fn sleep_command(lab: &Lab) -> Command {
    let mut command = lab.host("a").command("sleep");
    command.arg("1000");
    command
}

fn exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

fn namespaces() -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").expect("a lab stands, so the folder does");
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn big_buffer(lab: &Lab, address: SocketAddrV4) -> Result<UdpSocket> {
    let socket = lab.host("b").enter(|| UdpSocket::bind(address))??;
    socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
    Ok(socket)
}
