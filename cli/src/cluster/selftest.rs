//! `castgate selftest`: joins a channel through the cluster's own tunnels, as a client would. `helm test` runs it in a pod.
//!
//! ```text
//!   bundle castgate-selftest (a pattern) ──named by──▶ TunnelServer ──▶ its agents ══tunnel══▶ here: enough packets?
//!          └── taken back, with its name in the server, whatever happened: failure, SIGTERM
//! ```
//! With a channel named, nothing is written.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use castgate_client::{GroupName, ReceiverSettings, Report, Servers, TunnelSettings, Via};
use futures::{StreamExt as _, stream::FuturesUnordered};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::access::{BUNDLES, Cluster, ClusterArgs, ENDPOINTS, Resource, SERVERS, Scope};
use super::fleet::{Endpoint, Fleet, Server};
use crate::reception::{Reception, in_words};
use crate::stop::Stop;

/// Name of our bundle, of its channel, and of the field manager that owns both.
const OURS: &str = "castgate-selftest";
/// An administratively scoped group (RFC 2365) that leaves no site.
const GROUP: &str = "239.255.83.67";
const PORT: u16 = 50_083;
const RATE: &str = "100pps";
/// So many packets are a channel and no accident.
const PACKETS: u64 = 10;
/// A join that was too early, before the agent knew the channel, is made anew after this time.
const ROUND: Duration = Duration::from_secs(3);
/// Between two looks at servers that the operator has not looked at yet.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How long the other agents may take after the first one delivered.
const GRACE: Duration = Duration::from_secs(3);

/// Join a channel through the tunnels of a cluster, as `helm test` does
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  castgate selftest -n castgate
  castgate selftest -n castgate --server brussels --channel ham:ip:232.1.2.3@192.0.2.10:5004 --seconds 10

Without --channel it applies a ChannelBundle of its own and names it in the server, and takes both back in the end.
Run it where clients are, or in a pod: it joins at the addresses of the server's agents.")]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[arg(long, value_name = "NAME", help = "TunnelServer to join at [default: the first that is Ready]")]
    server: Option<String>,
    #[arg(long, value_name = "NAME", help = "Channel that is carried already: ham:ip:GROUP[@SOURCE]:PORT")]
    channel: Option<GroupName>,
    /// How long the first packets may take
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// Succeeds when packets came through a tunnel.
pub(crate) async fn run(args: Args) -> Result<()> {
    let mut stop = Stop::after(None)?;
    let cluster = Cluster::connect(&args.cluster).await?;
    let Scope::One(namespace) = &cluster.scope else { bail!("name one namespace by -n: one server is tested") };
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let fleet = tokio::select! {
        fleet = look(&cluster, args.server.as_deref(), namespace, until) => fleet?,
        () = stop.wait() => bail!("told to stop before a server was Ready"),
    };
    let server = choose(&fleet.servers, args.server.as_deref(), namespace)?;
    let agents = agents(&fleet.endpoints, server)?;
    println!("{} has agents at {}", server.title(), list(&agents));
    let Some(channel) = args.channel else {
        let planted = Planted { cluster: &cluster, namespace, server: &server.metadata.name };
        let channel = format!("ham:ip:{GROUP}:{PORT}").parse()?;
        let test = async {
            planted.plant().await?;
            hear(channel, agents, until).await
        };
        let outcome = tokio::select! {
            outcome = test => outcome,
            () = stop.wait() => Err(anyhow!("told to stop before enough packets came")),
        };
        let removed = planted.remove().await;
        return outcome.and(removed);
    };
    tokio::select! {
        outcome = hear(channel, agents, until) => outcome,
        () = stop.wait() => bail!("told to stop before enough packets came"),
    }
}

/// Servers and agents, once a server may be tested; whoever is on the way to that gets the time of the test.
async fn look(cluster: &Cluster, name: Option<&str>, namespace: &str, until: Instant) -> Result<Fleet> {
    loop {
        let fleet = Fleet::decode(cluster.list(SERVERS).await?, Vec::new(), Vec::new(), cluster.list(ENDPOINTS).await?);
        let is_pending = choose(&fleet.servers, name, namespace).is_err() && fleet.servers.iter().any(is_pending);
        if !is_pending || Instant::now() >= until {
            return Ok(fleet);
        }
        sleep(ASK_AGAIN).await;
    }
}

/// Whether it may be ready in a moment: its readiness is not about what it is now, or agents are on their way to an operator that
/// started anew.
fn is_pending(server: &Server) -> bool {
    server.trouble().is_some_and(|(reason, _)| matches!(reason.as_str(), "Reconciling" | "Unseen" | "NotReady"))
}

/// The server to test.
fn choose<'a>(servers: &'a [Server], name: Option<&str>, namespace: &str) -> Result<&'a Server> {
    let Some(name) = name else {
        return servers.iter().find(|server| server.is_ready()).ok_or_else(|| {
            anyhow!("no TunnelServer is Ready in namespace {namespace}: apply one, or wait for it, and test again")
        });
    };
    let server = servers.iter().find(|server| server.metadata.name == name);
    let server = server.ok_or_else(|| anyhow!("there is no TunnelServer {name} in namespace {namespace}"))?;
    match server.trouble() {
        None => Ok(server),
        Some((reason, message)) => bail!("TunnelServer {} is not Ready: {reason}, {message}", server.title()),
    }
}

/// Where its agents listen.
fn agents(endpoints: &[Endpoint], server: &Server) -> Result<Vec<SocketAddrV4>> {
    let of_server = |endpoint: &&Endpoint| {
        endpoint.spec.role == "Server"
            && endpoint.spec.owner_name == server.metadata.name
            && endpoint.metadata.namespace == server.metadata.namespace
    };
    let carrying = endpoints.iter().filter(of_server).filter(|endpoint| endpoint.status.active && endpoint.is_ready());
    let mut agents = Vec::new();
    for endpoint in carrying {
        let address = endpoint.status.address.as_deref().unwrap_or_default();
        agents.push(address.parse().with_context(|| format!("{} has the address {address:?}", endpoint.title()))?);
    }
    if agents.is_empty() {
        bail!("no agent of TunnelServer {} carries tunnels", server.title());
    }
    Ok(agents)
}

/// Joins at each agent; one that delivers is enough, since not every site of a server hears every source.
async fn hear(channel: GroupName, agents: Vec<SocketAddrV4>, until: Instant) -> Result<()> {
    let mut listening: FuturesUnordered<_> =
        agents.into_iter().map(|agent| async move { (agent, hear_at(channel, agent, until).await) }).collect();
    let mut heard = false;
    let mut silent = Vec::new();
    let mut patience = until;
    while !listening.is_empty() {
        tokio::select! {
            next = listening.next() => match next {
                Some((agent, Ok(report))) => {
                    println!("{agent}: {}", in_words(&report));
                    patience = if heard { patience } else { until.min(Instant::now() + GRACE) };
                    heard = true;
                }
                Some((agent, Err(error))) => {
                    println!("{agent}: {error:#}");
                    silent.push(format!("{agent}: {error:#}"));
                }
                None => break,
            },
            () = sleep_until(patience), if heard => {
                println!("{} of the agents delivered nothing so far", listening.len());
                break;
            }
        }
    }
    if heard { Ok(()) } else { bail!("{channel} did not come through any tunnel: {}", silent.join("; ")) }
}

/// Joins at one agent, and again when nothing comes, until there are enough packets or no time is left.
async fn hear_at(channel: GroupName, agent: SocketAddrV4, until: Instant) -> Result<Report> {
    loop {
        let tunnel = TunnelSettings { servers: Servers::Fixed(vec![agent]), local: None, silence: None };
        let settings =
            ReceiverSettings { name: channel, via: Via::Umtp, interface: None, tunnel: Some(tunnel), amt: None };
        let round = until.min(Instant::now() + ROUND);
        let mut reception = Reception::open(settings, Vec::new(), std::time::Instant::now()).await?;
        let mut outcome = Ok(());
        while outcome.is_ok() && reception.report().packets < PACKETS {
            match timeout_at(round, reception.turn()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => outcome = Err(error.to_string()),
                Err(_) => outcome = Err(reception.silence_reason()),
            }
        }
        let report = reception.report();
        reception.close().await?;
        match outcome {
            Ok(()) => return Ok(report),
            Err(reason) if Instant::now() >= until => bail!("{} packets of {PACKETS}: {reason}", report.packets),
            // It may have lost its server at once: the next round starts when this one would have ended.
            Err(_) => sleep_until(round).await,
        }
    }
}

/// Our bundle, and its name in the server.
struct Planted<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    server: &'a str,
}

impl Planted<'_> {
    async fn plant(&self) -> Result<()> {
        let description = "A pattern that castgate selftest joins. It is removed when the test ends.";
        let channel = json!({"name": OURS, "group": GROUP, "port": PORT, "pattern": RATE, "description": description});
        let bundle = self.apply(BUNDLES, OURS, json!({"spec": {"channels": [channel]}})).await;
        bundle.context("cannot apply the ChannelBundle of the test")?;
        let named = self.apply(SERVERS, self.server, json!({"spec": {"bundles": [{"name": OURS}]}})).await;
        named.with_context(|| format!("cannot name the bundle of the test in TunnelServer {}", self.server))
    }

    /// Takes both back; what is not there needs no taking back.
    async fn remove(&self) -> Result<()> {
        let unnamed = self.apply(SERVERS, self.server, json!({})).await;
        let unnamed =
            unnamed.with_context(|| format!("cannot take the bundle of the test out of TunnelServer {}", self.server));
        let request = http::Request::delete(self.path(BUNDLES, OURS)).body(Vec::new())?;
        let deleted = match self.cluster.client.request::<Value>(request).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop).context("cannot delete the ChannelBundle of the test"),
        };
        unnamed.and(deleted)
    }

    /// Server-side apply with a field manager of our own: what others wrote stays, and ours goes when we name it no more.
    async fn apply(&self, resource: Resource, name: &str, rest: Value) -> Result<()> {
        let mut object = rest;
        object["apiVersion"] = castgate_crds::API_VERSION.into();
        object["kind"] = resource.kind.into();
        object["metadata"] = json!({"name": name, "namespace": self.namespace});
        let request = http::Request::patch(format!("{}?fieldManager={OURS}&force=true", self.path(resource, name)))
            .header(http::header::CONTENT_TYPE, "application/apply-patch+yaml")
            .body(serde_json::to_vec(&object)?)?;
        self.cluster.client.request::<Value>(request).await?;
        Ok(())
    }

    fn path(&self, resource: Resource, name: &str) -> String {
        format!("/{}/namespaces/{}/{}/{name}", resource.api, self.namespace, resource.plural)
    }
}

fn list(addresses: &[SocketAddrV4]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fleet::tests::isp;

    #[test]
    fn the_first_server_that_is_ready_is_tested() {
        let mut fleet = isp();
        fleet.servers.reverse();
        assert_eq!(choose(&fleet.servers, None, "castgate").unwrap().metadata.name, "brussels");
        assert!(choose(&fleet.servers, Some("ghent"), "castgate").unwrap_err().to_string().contains("NoNodes"));
        assert!(
            choose(&fleet.servers, Some("paris"), "castgate")
                .unwrap_err()
                .to_string()
                .contains("no TunnelServer paris")
        );
        let none = choose(&[], None, "castgate").unwrap_err().to_string();
        assert_eq!(none, "no TunnelServer is Ready in namespace castgate: apply one, or wait for it, and test again");
    }

    #[test]
    fn only_agents_that_carry_tunnels_are_joined_at() {
        let fleet = isp();
        let agents = agents(&fleet.endpoints, &fleet.servers[0]).unwrap();
        assert_eq!(agents, ["192.0.2.1:10100".parse::<SocketAddrV4>().unwrap()]);
    }

    #[tokio::test]
    async fn a_channel_that_does_not_come_is_a_failure() {
        let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(address) = nobody.local_addr().unwrap() else { panic!("an IPv4 address") };
        let channel = "ham:ip:239.1.2.3:5004".parse().unwrap();
        let error = hear(channel, vec![address], Instant::now() + Duration::from_millis(200)).await.unwrap_err();
        assert!(error.to_string().starts_with("ham:ip:239.1.2.3:5004 did not come through any tunnel"), "{error}");
    }
}
