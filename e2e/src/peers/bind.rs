//! BIND as a peer: `named` on a host, with zones that a test gives as text.

use crate::lab::{Host, Process};
use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Until it has read its zones.
const START: Duration = Duration::from_secs(30);

/// A zone: who it is for, and what stands in it below its SOA and NS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone<'a> {
    /// Such as `1.10.in-addr.arpa`, without the last dot.
    pub origin: &'a str,
    /// Lines of records: `10.0 IN AMTRELAY 10 0 1 192.0.2.2`.
    pub records: &'a str,
}

/// A name server that runs.
#[derive(Debug)]
pub struct Bind {
    process: Process,
    listen: SocketAddr,
}

impl Bind {
    /// Starts a name server for these zones at an address of the host, and waits until it answers.
    ///
    /// # Errors
    /// When it refuses a zone, with what it says about it, or does not start.
    pub fn start(host: &Host, listen: SocketAddr, zones: &[Zone]) -> Result<Self> {
        let folder = host.folder().join(format!("named-{}", listen.port()));
        std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let configuration = write_files(&folder, listen, zones)?;
        let mut named = host.command("named");
        // In the foreground, with its log on standard error and one thread.
        named.args(["-g", "-n", "1", "-c"]).arg(configuration);
        let mut process = host.spawn("named", named)?;
        process.wait_line("a start", START, |line| line.ends_with(" running").then_some(()))?;
        let log = process.stderr();
        let complaints: Vec<&str> = log.lines().filter(|line| is_complaint(line)).collect();
        if !complaints.is_empty() {
            bail!("named refuses a zone:\n{}", complaints.join("\n"));
        }
        Ok(Self { process, listen })
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// The running program.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// `zone 1.10.in-addr.arpa/IN: loading from master file 0.zone failed: bad …`, or a line of the file before it.
fn is_complaint(line: &str) -> bool {
    line.contains(".zone:") || line.contains("not loaded due to errors")
}

fn write_files(folder: &std::path::Path, listen: SocketAddr, zones: &[Zone]) -> Result<PathBuf> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok::<PathBuf, anyhow::Error>(path)
    };
    let (port, address) = (listen.port(), listen.ip());
    let [v4, v6] = match address {
        IpAddr::V4(_) => [address.to_string(), "none".to_owned()],
        IpAddr::V6(_) => ["none".to_owned(), address.to_string()],
    };
    let place = folder.display();
    // Nothing of the machine's own name server is read or written.
    let mut configuration = format!(
        "options {{\n directory \"{place}\"; pid-file \"{place}/pid\"; session-keyfile \"{place}/key\";\n \
         listen-on port {port} {{ {v4}; }}; listen-on-v6 port {port} {{ {v6}; }};\n \
         recursion no; dnssec-validation no; notify no;\n}};\ncontrols {{ }};\n"
    );
    for (number, Zone { origin, records }) in zones.iter().enumerate() {
        writeln!(configuration, "zone \"{origin}\" {{ type primary; file \"{number}.zone\"; }};")
            .expect("a string takes everything");
        let head = format!(
            "$ORIGIN {origin}.\n$TTL 60\n@ IN SOA ns.example. hostmaster.example. 1 3600 600 86400 60\n@ IN NS ns.example.\n"
        );
        write(&format!("{number}.zone"), &format!("{head}{records}\n"))?;
    }
    write("named.conf", &configuration)
}
