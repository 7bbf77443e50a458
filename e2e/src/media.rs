//! The channel of the tests: colour bars, a tone, H.264 in an MPEG transport stream, made here by ffmpeg.

use crate::lab::{Host, Process};
use anyhow::{Context, Result, ensure};
use castgate_wire::umtp::Channel;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Part of the file's name: another recipe is another file.
const RECIPE: u32 = 1;
/// Seven transport packets: what every sender of MPEG-TS over UDP puts into a datagram.
pub const DATAGRAM_OCTETS: usize = 1_316;
/// How long the film lasts.
pub const SECONDS: u32 = 5;

/// The film as a file, made at its first use and kept for later runs.
///
/// # Errors
/// When ffmpeg fails.
pub fn film() -> Result<PathBuf> {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = cache()?;
    let film = folder.join(format!("colour-bars-{RECIPE}.ts"));
    if !film.exists() {
        std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let draft = folder.join(format!("draft-{}.ts", std::process::id()));
        let output = Command::new("ffmpeg")
            .args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y"])
            .args(["-f", "lavfi", "-i", "smptehdbars=size=640x360:rate=25"])
            .args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"])
            .args(["-t", &SECONDS.to_string(), "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-b:v", "800k"])
            .args(["-c:a", "aac", "-b:a", "96k", "-f", "mpegts", "-muxrate", "1500k"])
            .arg(&draft)
            .output()
            .context("ffmpeg does not start")?;
        ensure!(output.status.success(), "ffmpeg makes no film: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(&draft, &film).context("the film cannot be kept")?;
    }
    Ok(film)
}

/// Starts ffmpeg on a host: it sends the film once, in real time, to a channel.
///
/// # Errors
/// When there is no film or ffmpeg does not start.
pub fn send(host: &Host, lan: &str, channel: Channel) -> Result<Process> {
    let mut ffmpeg = host.command("ffmpeg");
    ffmpeg.args(["-nostdin", "-hide_banner", "-loglevel", "warning", "-re", "-i"]).arg(film()?).args([
        "-c",
        "copy",
        "-f",
        "mpegts",
        "-muxrate",
        "1500k",
        &format!(
            "udp://{}:{}?pkt_size={DATAGRAM_OCTETS}&ttl=16&localaddr={}",
            channel.group,
            channel.port,
            host.address(lan)
        ),
    ]);
    host.spawn("ffmpeg", ffmpeg)
}

/// Asks ffprobe whether a recording plays: video and sound of the film, from start to end, without a decoding error.
///
/// # Errors
/// One sentence with what does not play.
pub fn check_plays(recording: &Path) -> Result<()> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-show_entries", "stream=codec_name,nb_read_frames", "-of", "csv=p=0"])
        .arg(recording)
        .output()
        .context("ffprobe does not start")?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && complaints.trim().is_empty(), "ffprobe: {}", complaints.trim());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let frames = |codec: &str| -> Option<u32> {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(codec)?.strip_prefix(','))?;
        line.trim_end_matches(',').parse().ok()
    };
    let (video, sound) = (frames("h264").context("no H.264 in it")?, frames("aac").context("no AAC in it")?);
    ensure!(video >= SECONDS * 25 - 2, "{video} frames of video");
    ensure!(sound >= SECONDS * 46 - 8, "{sound} frames of sound");
    Ok(())
}

/// A folder that outlives the tests but not `cargo clean`.
fn cache() -> Result<PathBuf> {
    Ok(crate::programs::target_directory()?.join("tmp/castgate-media"))
}
