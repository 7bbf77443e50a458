//! The agents of the tests: snapshots as an operator would write them by hand, started in the lab.
//!
//! ```text
//!   studio: source ── server          root database ◀── registers ── country database ◀── registers ── server
//!                       │                    ▲ asks                      ▲ asks
//!   internet: ──────────┴── root ── country ─┴── home (NAT) ── sofa: client ── player
//! ```

use crate::lab::{Host, Lab, Process};
use crate::programs::program;
use crate::registry;
use anyhow::{Context, Result, ensure};
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

/// The lab of most tests: a studio, an internet, a home behind NAT.
pub const HOME: &str = "
    studio:   source 10.1.0.10/24, server 10.1.0.2/24, neighbour 10.1.0.20/24
    internet: server 192.0.2.2/24, root 192.0.2.10/24, country 192.0.2.11/24, home 192.0.2.20/24
    sofa:     home 10.2.0.1/24, client 10.2.0.11/24, second 10.2.0.12/24, player 10.2.0.13/24
    nat home: internet
";

/// Where a database listens.
pub const DATABASE_PORT: u16 = 5_632;
/// Where a tunnel server listens.
pub const TUNNEL_PORT: u16 = 10_100;
/// Of every pattern channel: 95 datagrams a second.
pub const PATTERN_RATE: u32 = 1_000_000;
/// How long an agent of a debug build may take to stand.
const START: Duration = Duration::from_secs(10);

/// Passwords and what the databases keep of them: argon2id at the least cost there is, since these guard nothing.
const COUNTRY_PASSWORD: &str = "secret-of-the-country";
const COUNTRY_HASH: &str = "$argon2id$v=19$m=64,t=1,p=1$c291bnRyeXNhbHQ$Jc5n0/b5Ilw+xndFIKRKZBLcchuD88d/SPgbs74M2xo";
const SERVER_PASSWORD: &str = PASSWORD;
const SERVER_HASH: &str = PASSWORD_HASH;
/// A password for accounts of tests.
pub const PASSWORD: &str = "secret-of-the-server";
/// What a database keeps of [`PASSWORD`].
pub const PASSWORD_HASH: &str =
    "$argon2id$v=19$m=64,t=1,p=1$c2VydmVyc2FsdA$9fX1hPzcpIfmDt+THMxcoS+HZd7z7EUkYWm62sV8XtQ";

/// One `castgate-agent`, which can be killed and started again with the same state.
#[derive(Debug)]
pub struct Agent<'a> {
    host: &'a Host,
    config: PathBuf,
    state: PathBuf,
    resolver: Option<SocketAddr>,
    process: Process,
}

/// Root database, country database and a tunnel server that found its place below them.
#[derive(Debug)]
pub struct Fleet<'a> {
    /// The root database.
    pub root: Agent<'a>,
    /// The database of Belgium.
    pub country: Agent<'a>,
    /// The tunnel server.
    pub server: Agent<'a>,
}

/// A tunnel server's snapshot in the making.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    address: Ipv4Addr,
    interfaces: String,
    channels: Vec<String>,
    server_lines: Vec<String>,
    registers: bool,
    interval_seconds: u32,
}

impl<'a> Agent<'a> {
    /// Starts an agent on a host with this snapshot.
    ///
    /// # Errors
    /// When the program is not built or does not start.
    pub fn start(lab: &Lab, host: &'a Host, snapshot: &str) -> Result<Self> {
        Self::start_named(lab, host, host.name(), snapshot)
    }

    /// The same for a further agent of the host: its files have another name.
    ///
    /// # Errors
    /// When the program is not built or does not start.
    pub fn start_named(lab: &Lab, host: &'a Host, name: &str, snapshot: &str) -> Result<Self> {
        Self::start_with(lab, host, name, snapshot, None)
    }

    /// Starts an agent that asks this name server.
    ///
    /// # Errors
    /// When the program is not built or does not start.
    pub fn start_resolving(lab: &Lab, host: &'a Host, resolver: SocketAddr, snapshot: &str) -> Result<Self> {
        Self::start_with(lab, host, host.name(), snapshot, Some(resolver))
    }

    fn start_with(lab: &Lab, host: &'a Host, name: &str, snapshot: &str, resolver: Option<SocketAddr>) -> Result<Self> {
        let config = lab.folder().join(format!("{name}.yaml"));
        let state = lab.folder().join(format!("{name}-state"));
        std::fs::write(&config, snapshot).context("the snapshot cannot be written")?;
        let process = run(host, &config, &state, resolver)?;
        Ok(Self { host, config, state, resolver, process })
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again after its end, with the same files.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.process = run(self.host, &self.config, &self.state, self.resolver)?;
        Ok(())
    }

    /// Makes it forget everything that it kept, after its end: as if its disk were lost.
    ///
    /// # Errors
    /// When it still runs, or its files cannot be removed.
    pub fn forget(&mut self) -> Result<()> {
        ensure!(self.process.is_ended(), "a running agent forgets nothing");
        match std::fs::remove_dir_all(&self.state) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("the state is not removed")
            }
            _ => Ok(()),
        }
    }

    /// Replaces its snapshot while it runs, in one step as an editor does.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn rewrite(&self, snapshot: &str) -> Result<()> {
        let draft = self.config.with_extension("draft");
        std::fs::write(&draft, snapshot).context("the snapshot cannot be written")?;
        std::fs::rename(&draft, &self.config).context("the snapshot cannot be replaced")
    }

    /// The running program.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn run(host: &Host, config: &PathBuf, state: &PathBuf, resolver: Option<SocketAddr>) -> Result<Process> {
    let mut command = host.command(program("castgate-agent")?);
    command.arg("--config").arg(config).arg("--state").arg(state);
    if let Some(resolver) = resolver {
        command.env("CASTGATE_RESOLVER", resolver.to_string());
    }
    host.spawn("castgate-agent", command)
}

impl<'a> Fleet<'a> {
    /// Starts the three in a lab with the hosts `root`, `country` and `server`; returns when the root leads to the server.
    ///
    /// # Errors
    /// When one does not stand in time.
    pub fn start(lab: &'a Lab, server: &ServerConfig) -> Result<Self> {
        Self::start_with(lab, server, 300)
    }

    /// The same with another update interval of the databases.
    ///
    /// # Errors
    /// When one does not stand in time.
    pub fn start_with(lab: &'a Lab, server: &ServerConfig, interval_seconds: u32) -> Result<Self> {
        let root = Agent::start(lab, lab.host("root"), &root_snapshot(lab, interval_seconds))?;
        lab.host("root").wait_tcp(DATABASE_PORT, START)?;
        let country = Agent::start(lab, lab.host("country"), &country_snapshot(lab, interval_seconds))?;
        lab.host("country").wait_tcp(DATABASE_PORT, START)?;
        let server_host = lab.host("server");
        let mut config = server.clone();
        config.registers = true;
        config.interval_seconds = interval_seconds;
        let server = start_server(lab, server_host, &config)?;
        let fleet = Self { root, country, server };
        let asker = lab.host("home");
        let country_address = lab.host("country").address("internet").to_string();
        registry::wait_listed(asker, fleet_root(lab), "TS", "BE", &country_address, START)?;
        registry::wait_listed(asker, fleet_country(lab), "TS", "BE", &config.address.to_string(), START)?;
        Ok(fleet)
    }
}

/// Starts a tunnel server alone and waits until it listens.
///
/// # Errors
/// When it does not stand in time.
pub fn start_server<'a>(lab: &Lab, host: &'a Host, config: &ServerConfig) -> Result<Agent<'a>> {
    let mut agent = Agent::start(lab, host, &config.snapshot(host.name()))?;
    if let Err(error) = host.wait_udp(TUNNEL_PORT, START) {
        anyhow::bail!("{error:#}; the agent said: {}", agent.process().stderr());
    }
    Ok(agent)
}

/// Puts pattern channels on air from a host, by an agent that does nothing else: no server's death ends them.
///
/// # Errors
/// When the agent does not start.
pub fn on_air<'a>(lab: &Lab, host: &'a Host, lan: &str, channels: &[&str]) -> Result<Agent<'a>> {
    let mut snapshot = format!("generation: 1\nagent: lab/{}\npatterns:\n", host.name());
    for channel in channels {
        let _ =
            writeln!(snapshot, "  - {{ channel: \"{channel}\", rateBitsPerSecond: {PATTERN_RATE}, interface: {lan} }}");
    }
    Agent::start(lab, host, &snapshot)
}

/// Where the root database of a lab answers.
#[must_use]
pub fn fleet_root(lab: &Lab) -> SocketAddr {
    SocketAddr::from((lab.host("root").address("internet"), DATABASE_PORT))
}

/// Where the country database of a lab answers.
#[must_use]
pub fn fleet_country(lab: &Lab) -> SocketAddr {
    SocketAddr::from((lab.host("country").address("internet"), DATABASE_PORT))
}

fn root_snapshot(lab: &Lab, interval_seconds: u32) -> String {
    let listen = fleet_root(lab);
    format!(
        "generation: 1
agent: lab/root
database:
  listen: {listen}
  updateIntervalSeconds: {interval_seconds}
  accounts:
    - {{ login: country, passwordHash: \"{COUNTRY_HASH}\", allow: {{ types: [TDS], countries: [BE] }} }}
"
    )
}

fn country_snapshot(lab: &Lab, interval_seconds: u32) -> String {
    let (listen, root) = (fleet_country(lab), fleet_root(lab));
    let address = listen.ip();
    format!(
        "generation: 1
agent: lab/country
database:
  listen: {listen}
  updateIntervalSeconds: {interval_seconds}
  accounts:
    - {{ login: server, passwordHash: \"{SERVER_HASH}\", allow: {{ types: [TS], countries: [BE] }} }}
registrar:
  entries:
    - {{ type: TDS, source: {address}, port: {DATABASE_PORT}, country: BE }}
  parents:
    - {{ url: \"http://{root}\", login: country, password: \"{COUNTRY_PASSWORD}\" }}
  intervalSeconds: {interval_seconds}
"
    )
}

impl ServerConfig {
    /// A server that listens at an address of the internet and takes channels on these interfaces.
    #[must_use]
    pub fn new(address: Ipv4Addr, interfaces: &[&str]) -> Self {
        Self {
            address,
            interfaces: interfaces.join(", "),
            channels: Vec::new(),
            server_lines: Vec::new(),
            registers: false,
            interval_seconds: 300,
        }
    }

    /// The server of [`HOME`].
    #[must_use]
    pub fn home() -> Self {
        Self::new(Ipv4Addr::new(192, 0, 2, 2), &["studio"])
    }

    /// Permits a channel: `group: 232.1.2.3, source: 10.1.0.10, ports: 5004`.
    #[must_use]
    pub fn permit(mut self, rule: &str) -> Self {
        let number = self.channels.len();
        self.channels.push(format!("    - {{ name: channel-{number}, {rule} }}\n"));
        self
    }

    /// A further line of the server role: `timers: { joinTimeoutMs: 20000 }`.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.server_lines.push(format!("  {line}\n"));
        self
    }

    /// Announces itself at the country database of the lab.
    #[must_use]
    pub fn registered(mut self, interval_seconds: u32) -> Self {
        self.registers = true;
        self.interval_seconds = interval_seconds;
        self
    }

    /// Where its tunnels end.
    #[must_use]
    pub fn listen(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, TUNNEL_PORT)
    }

    /// The snapshot as a file's text.
    #[must_use]
    pub fn snapshot(&self, name: &str) -> String {
        let Self { address, interfaces, channels, server_lines, registers, interval_seconds } = self;
        let mut text = format!(
            "generation: 1\nagent: lab/{name}\nserver:\n  listen: {}\n  interfaces: [{interfaces}]\n{}  channels:\n{}",
            self.listen(),
            server_lines.concat(),
            channels.concat()
        );
        if *registers {
            let _ = write!(
                text,
                "registrar:
  entries:
    - {{ type: TS, source: {address}, port: {TUNNEL_PORT}, protocol: UDP, country: BE }}
  parents:
    - {{ url: \"http://192.0.2.11:{DATABASE_PORT}\", login: server, password: \"{SERVER_PASSWORD}\" }}
  intervalSeconds: {interval_seconds}
"
            );
        }
        text
    }
}
