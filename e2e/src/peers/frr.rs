//! FRR as a peer: a host becomes a router that speaks PIM-SSM between its LANs and asks for members on each.

use crate::lab::{Host, Process, wait};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where Debian keeps the daemons.
const DAEMONS: &str = "/usr/lib/frr";
/// They give up their rights in favour of this user, whom their package made.
const USER: &str = "frr";
const START: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(20);
/// Between two looks at a table: each is a program that starts.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How a router asks for members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Querier {
    /// Between two General Queries.
    pub interval: Duration,
    /// How long members may take to answer.
    pub max_response: Duration,
}

/// A router that runs.
#[derive(Debug)]
pub struct Frr<'a> {
    host: &'a Host,
    folder: PathBuf,
    _zebra: Process,
    pim: Process,
}

/// The way of a channel through the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The LAN it comes from.
    pub from: String,
    /// The LANs it goes to.
    pub to: Vec<String>,
}

impl Default for Querier {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), max_response: Duration::from_secs(3) }
    }
}

impl<'a> Frr<'a> {
    /// Makes a router of a host, between these of its LANs, and waits until it has them.
    ///
    /// # Errors
    /// When a daemon does not start in time.
    pub fn start(host: &'a Host, lans: &[&str], querier: Querier) -> Result<Self> {
        let folder = host.folder().join("frr");
        std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        std::fs::write(folder.join("zebra.conf"), "frr defaults traditional\n").context("zebra.conf")?;
        std::fs::write(folder.join("pimd.conf"), configuration(lans, querier)).context("pimd.conf")?;
        host.namespace().set("ipv4/ip_forward", "1")?;
        let mut chown = Command::new("chown");
        let status = chown.args(["-R", &format!("{USER}:{USER}")]).arg(&folder).status().context("chown")?;
        ensure!(status.success(), "there is no user `{USER}`: its package is not installed");
        let zebra = daemon(host, &folder, "zebra")?;
        wait_socket(&folder, "zserv.api")?;
        let pim = daemon(host, &folder, "pimd")?;
        let router = Self { host, folder, _zebra: zebra, pim };
        wait_socket(&router.folder, "pimd.vty")?;
        // It has an interface when its kernel's table has it and it listens there.
        wait::until_every(LOOK_AGAIN, "interfaces of the router", START, || {
            let shown = router.show("show ip igmp interface json").ok()?;
            lans.iter().all(|lan| shown.get(lan).is_some_and(|lan| lan["state"] == "up")).then_some(())
        })
        .with_context(|| router.pim.stderr())?;
        Ok(router)
    }

    /// What it shows, for a command that ends in `json`.
    ///
    /// # Errors
    /// When it does not answer with JSON.
    pub fn show(&self, command: &str) -> Result<Value> {
        let mut vtysh = self.host.command("vtysh");
        vtysh.arg("--vty_socket").arg(&self.folder).args(["-d", "pimd", "-c", command]);
        let text = self.host.run("vtysh", vtysh, ANSWER)?;
        // Complaints about the machine's own configuration come first.
        let start = text.find('{').with_context(|| format!("`{command}` showed {text}"))?;
        serde_json::from_str(&text[start..]).with_context(|| format!("`{command}` showed {text}"))
    }

    /// The way of a channel, when there is one and somebody wants it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn path(&self, source: Ipv4Addr, group: Ipv4Addr) -> Result<Option<Way>> {
        Ok(path(&self.show("show ip mroute json")?, source, group))
    }

    /// Waits until a channel goes from one LAN to another.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_path(
        &self,
        (source, group): (Ipv4Addr, Ipv4Addr),
        from: &str,
        to: &str,
        longest: Duration,
    ) -> Result<()> {
        wait::until_every(LOOK_AGAIN, &format!("({source}, {group}) from {from} to {to}"), longest, || {
            let path = self.path(source, group).ok()??;
            (path.from == from && path.to == [to]).then_some(())
        })
        .with_context(|| format!("{:?}", self.show("show ip mroute json")))
    }

    /// Waits until a channel goes nowhere.
    ///
    /// # Errors
    /// When it still does.
    pub fn wait_no_path(&self, source: Ipv4Addr, group: Ipv4Addr, longest: Duration) -> Result<()> {
        wait::until_every(LOOK_AGAIN, &format!("no path of ({source}, {group})"), longest, || {
            self.path(source, group).ok()?.is_none().then_some(())
        })
        .with_context(|| format!("{:?}", self.show("show ip mroute json")))
    }

    /// The sources that members on a LAN asked for, in a group.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn sources(&self, lan: &str, group: Ipv4Addr) -> Result<Vec<Ipv4Addr>> {
        Ok(sources(&self.show("show ip igmp sources json")?, lan, group))
    }

    /// Whether members on a LAN asked for a group, from whichever source.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn has_group(&self, lan: &str, group: Ipv4Addr) -> Result<bool> {
        let shown = self.show("show ip igmp groups json")?;
        let groups = shown[lan]["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(groups.iter().any(|found| found["group"] == group.to_string()))
    }
}

fn configuration(lans: &[&str], querier: Querier) -> String {
    let mut text = String::from("frr defaults traditional\nip multicast-routing\n");
    // The unit of the longest response is a tenth of a second.
    let (interval, response) = (querier.interval.as_secs(), querier.max_response.as_millis() / 100);
    for lan in lans {
        write!(
            text,
            "interface {lan}\n ip pim\n ip igmp\n ip igmp version 3\n ip igmp query-interval {interval}\n \
             ip igmp query-max-response-time {response}\nexit\n"
        )
        .expect("a string takes everything");
    }
    text
}

fn daemon(host: &Host, folder: &Path, name: &str) -> Result<Process> {
    let mut command = host.command(Path::new(DAEMONS).join(name));
    command.arg("-f").arg(folder.join(format!("{name}.conf"))).arg("-i").arg(folder.join(format!("{name}.pid")));
    command.arg("-z").arg(folder.join("zserv.api")).arg("--vty_socket").arg(folder);
    // No port of its own for terminals; its log on standard output.
    command.args(["-P", "0", "-u", USER, "-g", USER, "--log", "stdout"]);
    host.spawn(name, command)
}

fn wait_socket(folder: &Path, name: &str) -> Result<()> {
    wait::until(&format!("the router's {name}"), START, || folder.join(name).exists().then_some(()))
}

fn path(shown: &Value, source: Ipv4Addr, group: Ipv4Addr) -> Option<Way> {
    let found = shown.get(group.to_string())?.get(source.to_string())?;
    let from = found["iif"].as_str()?.to_owned();
    let outgoing = found["oil"].as_object()?.iter();
    // An entry without this was pruned and only waits for its end.
    let to: Vec<String> = outgoing
        .filter(|(name, entry)| **name != from && entry["ttl"].as_u64().is_some_and(|ttl| ttl > 0))
        .map(|(name, _)| name.clone())
        .collect();
    (!to.is_empty()).then_some(Way { from, to })
}

fn sources(shown: &Value, lan: &str, group: Ipv4Addr) -> Vec<Ipv4Addr> {
    let found = &shown[lan][group.to_string()]["sources"];
    let found = found.as_array().map(Vec::as_slice).unwrap_or_default();
    found.iter().filter_map(|source| source["source"].as_str()?.parse().ok()).collect()
}
