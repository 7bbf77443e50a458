//! A virtual machine in the place of a host of the lab, told what to do line by line.
//!
//! ```text
//!   host's namespace                                          qemu, in the same namespace
//!  ┌───────────────────────────────────────────────┐        ┌──────────────────────────────┐
//!  │ if "internet" ── bridge "br-0" ── TAP "tap-0" ┼────────┼─ eth0: the host's address    │
//!  │ if "sofa" ────── bridge "br-1" ── TAP "tap-1" ┼────────┼─ eth1                        │
//!  └───────────────────────────────────────────────┘        │ ttyS0 ─▶ console, for a look │
//!         test ◀── unix socket ─────────────────────────────┼▶ ttyS1: lines and answers    │
//!                                                           └──────────────────────────────┘
//! ```
//! Kernel and initrd come from `cargo xtask guest`; what runs in the machine is `e2e/guest/init`. There is no acceleration: it
//! stands after four to eight seconds, or thirty beside busy compilers.

use crate::lab::{Host, Process, scenario, wait};
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The emulator.
const QEMU: &str = "qemu-system-x86_64";
/// Names the folder that `cargo xtask guest` filled, for whoever keeps it elsewhere.
const FOLDER_VARIABLE: &str = "CASTGATE_GUEST";
/// Octets of its memory, in mebibytes: enough for the kernel, its initrd and a few thousand packets.
const MEMORY_MEBIBYTES: &str = "192";
/// On a machine that is busy with other things a tick of the clock comes late; the kernel would take that for broken hardware
/// (`no_timer_check`) and panic.
const KERNEL_PARAMETERS: &str =
    "console=ttyS0 quiet panic=-1 no_timer_check cryptomgr.notests mitigations=off random.trust_cpu=on net.ifnames=0";
/// Until it stands: 33 s is the worst that was seen, on two cores with a load of 12.
const BOOT: Duration = Duration::from_secs(90);
/// For one line and its answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a read blocks before the deadline is looked at.
const LOOK_UP: Duration = Duration::from_millis(100);
const READY: &str = "castgate-ready ";
const DONE: &str = "castgate-done ";

/// A machine that boots.
#[derive(Debug)]
pub(super) struct Booting<'a> {
    host: &'a Host,
    process: Process,
    listener: UnixListener,
}

/// A machine that stands.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    host: &'a Host,
    process: Mutex<Process>,
    control: Mutex<Control>,
}

/// What a host was before the machine took its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attachment {
    /// Its address in the LAN.
    pub(super) address: Ipv4Addr,
    /// Length of the LAN's prefix.
    pub(super) prefix_len: u8,
    /// Its default gateway, when that is in this LAN.
    pub(super) gateway: Option<Ipv4Addr>,
}

#[derive(Debug)]
struct Control {
    to: UnixStream,
    from: BufReader<UnixStream>,
}

/// Whether such a machine can run here; if not, the running test is counted as skipped, with the reason.
#[must_use]
pub fn require_machine() -> bool {
    if !scenario::require(QEMU) {
        return false;
    }
    let there = folder().is_some_and(|folder| folder.join("stamp").is_file());
    if !there {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        scenario::skip_named(test, "the machine whose kernel speaks AMT is not built (cargo xtask guest)");
    }
    there
}

impl<'a> Booting<'a> {
    /// Puts a machine in the place of a host: its network cards are the host's interfaces to these LANs, in this order.
    /// Gives what the host had there.
    pub(super) fn start(host: &'a Host, lans: &[&str]) -> Result<(Self, Vec<Attachment>)> {
        let folder = folder().context("nobody says where the cache is")?;
        let socket = own_socket(host)?;
        let listener = UnixListener::bind(&socket).context("the machine's control socket")?;
        listener.set_nonblocking(true).context("the machine's control socket")?;
        let mut qemu = host.command(QEMU);
        qemu.args(["-M", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "1", "-m", MEMORY_MEBIBYTES]);
        qemu.args(["-nodefaults", "-display", "none", "-no-reboot"]);
        qemu.arg("-kernel").arg(folder.join("vmlinuz")).arg("-initrd").arg(folder.join("initrd"));
        qemu.args(["-append", KERNEL_PARAMETERS]);
        // The console is the program's output, which is shown when a test fails.
        qemu.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        qemu.args(["-chardev", &format!("socket,id=control,path={}", socket.display()), "-serial", "chardev:control"]);
        let mut attachments = Vec::new();
        for (number, lan) in lans.iter().enumerate() {
            let attachment = take_over(host, lan, number)?;
            let [a, b, c, d] = attachment.address.octets();
            // Without the header that carries offloads: frames come and go as on a wire, checksums and all.
            qemu.args([
                "-netdev",
                &format!("tap,id=n{number},ifname=tap-{number},script=no,downscript=no,vnet_hdr=off"),
            ]);
            let card = format!("virtio-net-pci,netdev=n{number},romfile=,mac=52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
            qemu.args(["-device", &card]);
            attachments.push(attachment);
        }
        let process = host.spawn_reading("qemu", qemu, Stdio::null())?;
        Ok((Self { host, process, listener }, attachments))
    }

    /// Waits until it stands.
    pub(super) fn ready(mut self) -> Result<Machine<'a>> {
        let start = Instant::now();
        let stream = wait::until("qemu's control port", BOOT, || match self.listener.accept() {
            Ok((stream, _)) => Some(Ok(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock && !self.process.is_ended() => None,
            Err(error) => Some(Err(error)),
        })?
        .with_context(|| format!("qemu ended: {}", self.process.stderr().trim()))?;
        stream.set_nonblocking(false).context("the control port")?;
        stream.set_read_timeout(Some(LOOK_UP)).context("the control port")?;
        let from = BufReader::new(stream.try_clone().context("the control port")?);
        let mut control = Control { to: stream, from };
        loop {
            let line = control.line(start + BOOT).with_context(|| format!("machine on {}", self.host.name()))?;
            if line.contains(READY) {
                let (process, control) = (Mutex::new(self.process), Mutex::new(control));
                return Ok(Machine { host: self.host, process, control });
            }
        }
    }
}

impl<'a> Machine<'a> {
    /// The host in whose place it stands.
    pub(super) fn host(&self) -> &'a Host {
        self.host
    }

    /// Runs a line in the machine's shell and gives what it printed.
    pub(super) fn shell(&self, line: &str) -> Result<String> {
        let name = self.host.name();
        let mut control = self.control.lock().expect("nobody panics between a line and its answer");
        let asked = || format!("machine on {name}: `{line}`");
        control.to.write_all(format!("{line}\n").as_bytes()).with_context(asked)?;
        let deadline = Instant::now() + ANSWER;
        let mut printed = String::new();
        loop {
            let answer = control.line(deadline).with_context(asked)?;
            // What does not end in a newline stands before the mark.
            let Some(at) = answer.find(DONE) else {
                printed.push_str(&answer);
                printed.push('\n');
                continue;
            };
            printed.push_str(&answer[..at]);
            let status = answer[at + DONE.len()..].trim();
            ensure!(status == "0", "{} ended with {status}: {}", asked(), printed.trim());
            return Ok(printed);
        }
    }

    /// Kills it, as a power cut would.
    pub(super) fn kill(&self) -> Result<()> {
        self.process.lock().expect("nobody panics while he kills it").kill()
    }
}

impl Control {
    /// The next line without its end.
    fn line(&mut self, deadline: Instant) -> Result<String> {
        let mut line = Vec::new();
        loop {
            match self.from.read_until(b'\n', &mut line) {
                Ok(0) => bail!("it has ended"),
                Ok(_) if line.ends_with(b"\n") => {
                    return Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned());
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    ensure!(Instant::now() < deadline, "it does not answer in time");
                }
                Err(error) => return Err(error).context("its control port is broken"),
            }
        }
    }
}

/// Moves the host's interface to a LAN behind a bridge, with the machine's TAP on its other side.
fn take_over(host: &Host, lan: &str, number: usize) -> Result<Attachment> {
    let attachment = attachment(host, lan)?;
    let mut lines = format!("addr flush dev {lan}\n");
    write!(
        lines,
        "link add br-{number} type bridge mcast_snooping 0 stp_state 0\n\
         tuntap add dev tap-{number} mode tap\n\
         link set {lan} master br-{number}\n\
         link set tap-{number} master br-{number} up\n\
         link set br-{number} up\n"
    )
    .expect("a string takes everything");
    host.ip(&lines)?;
    Ok(attachment)
}

fn attachment(host: &Host, lan: &str) -> Result<Attachment> {
    let list = |words: &[&str]| -> Result<String> {
        let mut ip = host.command("ip");
        ip.args(words).args(["dev", lan]);
        host.run("ip", ip, Duration::from_secs(10))
    };
    let address = host.address(lan);
    let addresses = list(&["-o", "-4", "addr", "show"])?;
    let prefix_len = prefix_len(&addresses, address).with_context(|| format!("{} in {lan}", host.name()))?;
    Ok(Attachment { address, prefix_len, gateway: gateway(&list(&["-4", "route", "show", "default"])?) })
}

/// `2: sofa    inet 10.2.0.11/24 scope …`
fn prefix_len(addresses: &str, address: Ipv4Addr) -> Option<u8> {
    let mut words = addresses.split_whitespace();
    words.find_map(|word| word.strip_prefix(&format!("{address}/"))?.parse().ok())
}

/// `default via 10.2.0.1`
fn gateway(routes: &str) -> Option<Ipv4Addr> {
    routes.split_whitespace().skip_while(|word| *word != "via").nth(1)?.parse().ok()
}

/// A socket's path that nobody has; those of earlier machines on the host are gone with them.
fn own_socket(host: &Host) -> Result<PathBuf> {
    let folder = host.folder();
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let socket = folder.join("machine");
    std::fs::remove_file(&socket).ok();
    Ok(socket)
}

/// Where kernel and initrd lie.
fn folder() -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || {
        from("CASTGATE_CACHE")
            .or_else(|| from("XDG_CACHE_HOME").map(|cache| cache.join("castgate-build")))
            .or_else(|| from("HOME").map(|home| home.join(".cache/castgate-build")))
    };
    from(FOLDER_VARIABLE).or_else(|| Some(cache()?.join("guest")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ip_prints_tells_prefix_and_gateway() {
        let text = "2: sofa    inet 10.2.0.11/24 scope global sofa\\       valid_lft forever preferred_lft forever\n";
        assert_eq!(prefix_len(text, Ipv4Addr::new(10, 2, 0, 11)), Some(24));
        assert_eq!(prefix_len(text, Ipv4Addr::new(10, 2, 0, 1)), None);
        assert_eq!(gateway("default via 10.2.0.1 \n"), Some(Ipv4Addr::new(10, 2, 0, 1)));
        assert_eq!(gateway(""), None);
    }
}
