//! A film crosses the tunnel and is the same film at the other end.

use crate::{ASM, ASM_RULE, PATTERN, SOON, SSM, SSM_RULE, channel};
use anyhow::{Context, Result, ensure};
use castgate_e2e::capture::{Capture, Captured};
use castgate_e2e::fleet::{DATABASE_PORT, Fleet, HOME, ServerConfig, TUNNEL_PORT, on_air, start_server};
use castgate_e2e::lab::{Lab, Scenario, wait};
use castgate_e2e::media;
use castgate_e2e::programs::program;
use castgate_e2e::receive::Receive;
use castgate_e2e::recorder::{Datagram, Recorder};
use castgate_wire::umtp::Channel;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// Where the client puts the channel on the home LAN: a group of the home's own.
const AT_HOME: &str = "239.100.0.1:6000";

#[test]
fn a_viewer_behind_nat_records_a_source_specific_film_bit_for_bit() {
    Scenario::new(HOME).needs(&["ffmpeg", "ffprobe", "tshark"]).run(|lab| film(lab, SSM, SSM_RULE));
}

#[test]
fn a_viewer_behind_nat_records_an_any_source_film_bit_for_bit() {
    Scenario::new(HOME).needs(&["ffmpeg", "ffprobe", "tshark"]).run(|lab| film(lab, ASM, ASM_RULE));
}

#[test]
fn a_player_opens_the_film_over_http() {
    const PORT: u16 = 8_000;
    Scenario::new(HOME).needs(&["ffmpeg", "ffprobe"]).run(|lab| {
        let on_air: Channel = channel(SSM).parse()?;
        let _server = start_server(lab, lab.host("server"), &ServerConfig::home().permit(SSM_RULE))?;
        let server = format!("192.0.2.2:{TUNNEL_PORT}");
        let words = ["--via", "umtp", "--server", &server, "--output", &format!("http://:{PORT}")];
        let receive = Receive::start(lab.host("client"), SSM, &words)?;
        lab.host("client").wait_tcp(PORT, SOON)?;
        lab.host("server").wait_member(on_air.group, SOON)?;
        let recording = lab.folder().join("player.ts");
        let mut player = lab.host("player").command("ffmpeg");
        let url = format!("http://{}:{PORT}/", lab.host("client").address("sofa"));
        player.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-i", &url, "-c", "copy", "-f", "mpegts"]);
        player.arg(&recording);
        let mut player = lab.host("player").spawn("ffmpeg as a player", player)?;
        wait::until("the player's connection", SOON, || lab.host("player").has_connection_to(PORT).then_some(()))?;
        let status = media::send(lab.host("source"), "studio", on_air)?.wait(SOON * 2)?;
        ensure!(status.success(), "ffmpeg ended with {status}");
        // The end of the output is the end of the film for the player.
        let total = receive.finish()?;
        ensure!(total.packets() > 400, "{:?}", total.value());
        let status = player.wait(SOON)?;
        ensure!(status.success(), "the player ended with {status}");
        media::check_plays(&recording)
    });
}

#[test]
fn a_film_sent_from_a_file_through_the_tunnel_is_received_as_the_same_file() {
    const TALK: &str = "ham:ip:239.7.7.7:5004";
    Scenario::new(HOME).needs(&["ffmpeg", "ffprobe"]).run(|lab| {
        let rule = "group: 239.7.7.7, ports: 5004, send: true";
        let _server = start_server(lab, lab.host("server"), &ServerConfig::home().permit(rule))?;
        let server = format!("192.0.2.2:{TUNNEL_PORT}");
        let copy = lab.folder().join("copy.ts");
        let output = format!("file:{}", copy.display());
        let words = ["--via", "umtp", "--server", &server, "--output", &output];
        let mut receive = Receive::start(lab.host("client"), TALK, &words)?;
        lab.host("server").wait_member("239.7.7.7".parse()?, SOON)?;
        let film = media::film()?;
        let mut send = lab.host("second").command(program("castgate")?);
        send.args(["send", TALK, "--via", "umtp", "--server", &server, "--input", &format!("file:{}", film.display())]);
        let mut send = lab.host("second").spawn("castgate send", send)?;
        let status = send.wait(SOON * 2)?;
        ensure!(status.success(), "castgate send ended with {status}");
        let octets = std::fs::read(&film)?;
        let datagrams = octets.len().div_ceil(media::DATAGRAM_OCTETS) as u64;
        receive.wait_packets(datagrams, SOON)?;
        receive.finish()?;
        ensure!(std::fs::read(&copy)? == octets, "the copy is another file");
        media::check_plays(&copy)
    });
}

#[test]
fn a_viewer_in_the_studio_needs_no_tunnel() {
    Scenario::new(HOME).run(|lab| {
        let _on_air = on_air(lab, lab.host("source"), "studio", &[channel(PATTERN)])?;
        let words = ["--via", "native", "--interface", "studio"];
        let mut receive = Receive::start(lab.host("neighbour"), PATTERN, &words)?;
        receive.wait_packets(100, SOON)?;
        let total = receive.finish()?;
        ensure!(total.value()["via"] == "native" && total.lost() == 0, "{:?}", total.value());
        Ok(())
    });
}

fn film(lab: &Lab, name: &str, rule: &str) -> Result<()> {
    let on_air: Channel = channel(name).parse()?;
    let _fleet = Fleet::start(lab, &ServerConfig::home().permit(rule))?;
    let capture = Capture::start(lab.host("home"), "internet", &format!("udp port {TUNNEL_PORT}"), lab.folder())?;
    let in_the_studio = Recorder::start(lab.host("neighbour"), "studio", on_air)?;
    let at_home = Recorder::start(lab.host("player"), "sofa", AT_HOME.parse()?)?;

    // Only the root is known: which database and which server, the client finds out.
    let root = format!("{}:{DATABASE_PORT}", lab.host("root").address("internet"));
    let words = ["--via", "umtp", "--tds", &root, "--country", "BE", "--output", &format!("udp://{AT_HOME}")];
    let receive = Receive::start(lab.host("client"), name, &words)?;
    // The server is a member before the film starts: not one datagram may be missing.
    lab.host("server").wait_member(on_air.group, SOON)?;

    let mut ffmpeg = media::send(lab.host("source"), "studio", on_air)?;
    let status = ffmpeg.wait(Duration::from_secs(u64::from(media::SECONDS) + 15))?;
    ensure!(status.success(), "ffmpeg ended with {status}");
    at_home.wait_quiet(Duration::from_millis(500), SOON)?;

    let (sent, received) = (in_the_studio.heard(), at_home.heard());
    ensure!(sent.len() > 400, "{} datagrams in the studio", sent.len());
    ensure!(received.len() == sent.len(), "{} of {} datagrams at home", received.len(), sent.len());
    ensure!(in_the_studio.octets() == at_home.octets(), "the film changed on its way");
    let recording = lab.folder().join("recording.ts");
    std::fs::write(&recording, at_home.octets())?;
    media::check_plays(&recording)?;

    let report = receive.finish()?;
    ensure!(report.packets() == sent.len() as u64, "{:?}", report.value());
    ensure!(report.server() == format!("192.0.2.2:{TUNNEL_PORT}"), "{:?}", report.value());
    let server = SocketAddrV4::new(lab.host("server").address("internet"), TUNNEL_PORT);
    check_trailers(&capture.stop()?, server, lab.host("home").address("internet"), on_air, &sent)
}

/// Every datagram of the tunnel as tshark saw it, against octets that are put together here by hand
/// (draft-finlayson-umtp-09 §2): the product's own codec has no say.
fn check_trailers(
    captured: &[Captured],
    server: SocketAddrV4,
    home: Ipv4Addr,
    on_air: Channel,
    sent: &[Datagram],
) -> Result<()> {
    /// ffmpeg sends with 16; the tunnel carries one less.
    const TTL_IN_TUNNEL: u8 = 15;
    let (up, down): (Vec<&Captured>, Vec<&Captured>) = captured
        .iter()
        .filter(|datagram| datagram.from == server || datagram.to == server)
        .partition(|d| d.to == server);
    ensure!(up.iter().all(|datagram| datagram.from.ip() == &home), "the NAT let a private address out");
    let source_octets: Vec<u8> = on_air.source.map(|source| source.octets().to_vec()).unwrap_or_default();
    let flag = if on_air.source.is_some() { 0x80 } else { 0 };
    let place = [&on_air.group.octets()[..], &on_air.port.to_be_bytes()].concat();
    let command = |datagram: &Captured| datagram.payload.last().copied().unwrap_or_default() & 0x0f;

    // The first JOIN that brought data carries both cookies; DATA carries them the other way round.
    let join = up.iter().rev().find(|datagram| command(datagram) == 2).context("no JOIN_GROUP in the capture")?;
    let trailer = &join.payload[join.payload.len() - 12 - source_octets.len()..];
    let cookies = &trailer[source_octets.len()..source_octets.len() + 4];
    let expected_join = [&source_octets[..], cookies, &place, &[trailer[trailer.len() - 2], flag | 2]].concat();
    ensure!(trailer == expected_join, "JOIN_GROUP is {trailer:02x?}, not {expected_join:02x?}");
    let swapped = [&cookies[2..], &cookies[..2]].concat();

    let ack = down.iter().find(|datagram| command(datagram) == 6).context("no PROBE_ACK in the capture")?;
    ensure!(ack.payload[ack.payload.len() - 12..ack.payload.len() - 10] == swapped[..2], "the server's cookie changed");

    let data: Vec<&[u8]> = down.iter().filter(|d| command(d) == 1).map(|d| d.payload.as_slice()).collect();
    let end = [&source_octets[..], &swapped, &place, &[TTL_IN_TUNNEL, flag | 1][..]].concat();
    let expected: Vec<Vec<u8>> = sent.iter().map(|datagram| [&datagram.payload[..], &end].concat()).collect();
    ensure!(data.len() == expected.len(), "{} DATA for {} datagrams", data.len(), expected.len());
    for (number, (seen, wanted)) in data.iter().zip(&expected).enumerate() {
        ensure!(
            seen == wanted,
            "DATA {number} ends in {:02x?}, not {end:02x?}",
            &seen[seen.len().saturating_sub(16)..]
        );
    }
    Ok(())
}
