//! etcd as a peer: members on hosts of the lab, which can be killed and started again with what they had.

use crate::lab::{Host, Process, wait};
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

/// Where members talk to clients and to each other.
pub const CLIENT_PORT: u16 = 2_379;
const PEER_PORT: u16 = 2_380;
/// Names the program, for whoever keeps it elsewhere than `cargo xtask cluster tools`, which builds it.
const PROGRAM_VARIABLE: &str = "CASTGATE_ETCD";
/// Until a cluster has a leader, on a busy machine.
const START: Duration = Duration::from_secs(40);
const ANSWER: Duration = Duration::from_secs(5);

/// The members of one etcd.
#[derive(Debug)]
pub struct Etcd<'a> {
    members: Vec<Member<'a>>,
    arguments: Vec<String>,
    initial: String,
    secure: bool,
}

#[derive(Debug)]
struct Member<'a> {
    host: &'a Host,
    address: Ipv4Addr,
    process: Option<Process>,
}

impl<'a> Etcd<'a> {
    /// One member on each of these hosts, none of which runs yet. `arguments` are added to those of every member.
    ///
    /// # Errors
    /// When the program is not there.
    pub fn new(hosts: &[&'a Host], lan: &str, arguments: &[&str]) -> Result<Self> {
        program()?;
        let members: Vec<Member> =
            hosts.iter().map(|host| Member { host, address: host.address(lan), process: None }).collect();
        let peer = |member: &Member| format!("{}=http://{}:{PEER_PORT}", member.host.name(), member.address);
        let initial = members.iter().map(peer).collect::<Vec<_>>().join(",");
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let secure = arguments.iter().any(|argument| argument.starts_with("--cert-file"));
        Ok(Self { members, arguments, initial, secure })
    }

    /// Starts members by their numbers; those that run already stay.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(&mut self, numbers: impl IntoIterator<Item = usize>) -> Result<()> {
        for number in numbers {
            let scheme = if self.secure { "https" } else { "http" };
            let member = &mut self.members[number];
            if member.process.is_some() {
                continue;
            }
            let (name, address) = (member.host.name(), member.address);
            let (client, peer) =
                (format!("{scheme}://{address}:{CLIENT_PORT}"), format!("http://{address}:{PEER_PORT}"));
            let mut etcd = member.host.command(program()?);
            etcd.args(["--name", name, "--initial-cluster", &self.initial, "--logger", "zap", "--log-level", "warn"]);
            etcd.arg("--data-dir").arg(member.host.folder().join("etcd"));
            etcd.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            etcd.args(&self.arguments);
            member.process = Some(member.host.spawn("etcd", etcd)?);
        }
        Ok(())
    }

    /// Starts all and waits until they have a leader.
    ///
    /// # Errors
    /// When one does not start, or they do not get to it in time.
    pub fn start_all(&mut self) -> Result<()> {
        self.start(0..self.members.len())?;
        (0..self.members.len()).try_for_each(|number| self.wait_serving(number))
    }

    /// Waits until a member answers with what all have agreed on.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_serving(&self, number: usize) -> Result<()> {
        if self.secure {
            return self.members[number].host.wait_tcp(CLIENT_PORT, START);
        }
        let what = format!("an answer of the etcd on {}", self.members[number].host.name());
        let ask = || self.post(number, "/v3/kv/range", r#"{"key":"AA==","limit":"1"}"#).ok().map(drop);
        wait::until_every(Duration::from_millis(200), &what, START, ask)
    }

    /// Kills a member as a power cut would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.members[number].process.take().context("this member does not run")?.kill()
    }

    /// Where clients find the members.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        let scheme = if self.secure { "https" } else { "http" };
        self.members.iter().map(|member| format!("{scheme}://{}:{CLIENT_PORT}", member.address)).collect()
    }

    /// Asks a member by its JSON: `/v3/kv/compaction`, `{"revision":"7"}`.
    ///
    /// # Errors
    /// When it does not answer, or not with 200.
    pub fn post(&self, number: usize, path: &str, body: &str) -> Result<String> {
        let Member { host, address, .. } = &self.members[number];
        let (place, length) = (SocketAddr::from((*address, CLIENT_PORT)), body.len());
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {place}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        let exchange = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&place, ANSWER)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.write_all(request.as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = host.enter(exchange)?.with_context(|| format!("etcd at {place} does not answer"))?;
        ensure!(text.starts_with("HTTP/1.1 200 "), "etcd at {place} answers {text}");
        Ok(text)
    }
}

fn program() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || {
        from("CASTGATE_CACHE")
            .or_else(|| from("XDG_CACHE_HOME").map(|cache| cache.join("castgate-build")))
            .or_else(|| from("HOME").map(|home| home.join(".cache/castgate-build")))
    };
    let program = from(PROGRAM_VARIABLE).or_else(|| Some(cache()?.join("cluster/bin/etcd")));
    let program = program.context("neither CASTGATE_ETCD nor HOME says where etcd is")?;
    ensure!(program.is_file(), "{} is missing: `cargo xtask cluster tools` builds it", program.display());
    Ok(program)
}
