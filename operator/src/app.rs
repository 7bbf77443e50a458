//! Wires the operator together and runs it until a signal or the loss of the Lease.
//!
//! ```text
//!   World ──changed──▶ conductor ──turn──▶ Reconciler ──▶ snapshots ──▶ Fleet ══▶ agents
//!     ▲                   ▲  ▲                 └──▶ authority ──▶ ServingCert
//!     └── watches         │  └── Lease: leads or follows
//!                         └── Fleet: an agent came, went or said something new
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use castgate_planner::cluster::Settings;
use jiff::Timestamp;
use kube::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::args::Args;
use crate::fleet::{self, AUDIENCE, CachedReviews, Fleet, FleetService, KubeReviewer, KubeStore, Limits, Pace, Writer};
use crate::lease;
use crate::lookup::Lookup;
use crate::observe::{self, Format, Health, LogOptions, Logs, Metrics};
use crate::pki::{Authority, Lifetimes, ServingCert, ServingNames};
use crate::reconcile::{Place, Reconciler};
use crate::watch::World;
use crate::zone::{self, Answers, Zones};

/// Changes that come together are looked at together.
const SETTLE: Duration = Duration::from_millis(100);
/// How long the certificate that agents see is good.
const SERVING_LIFE: Duration = Duration::from_hours(24);
/// Agents that one replica serves at most: each costs it a connection and a few tens of kilobytes.
const AGENTS_MAX: usize = 10_000;
/// How long a token of an agent is good; the kubelet renews it in time.
const TOKEN_SECONDS: u32 = 3600;

/// Runs the operator.
///
/// # Errors
/// One sentence on what cannot be begun, or on the loss of the Lease.
pub async fn run(args: Args) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow!("a second provider of cryptography"))?;
    let logs = Logs::begin(&LogOptions {
        format: if args.log_json { Format::Json } else { Format::Text },
        filter: args.log.clone(),
        otlp_endpoint: args.otlp_endpoint.clone(),
        instance: args.pod.clone(),
    })?;
    let outcome = operate(&args, &logs).await;
    if let Err(error) = &outcome {
        tracing::error!(error = format!("{error:#}"), "the operator ends");
    }
    logs.finish().await;
    outcome
}

async fn operate(args: &Args, logs: &Logs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("no signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no signals")?;
    let control_host = args.control_host().map_err(anyhow::Error::msg)?.to_owned();
    let metrics = Arc::new(Metrics::new());
    let health = Arc::new(Health::default());
    health.set("watches", false);
    health.set("agents", false);
    let listener =
        TcpListener::bind(args.listen_http).await.with_context(|| format!("--listen-http {}", args.listen_http))?;
    tokio::spawn(observe::serve(listener, metrics.clone(), health.clone(), logs.level()));

    let client = Client::try_default().await.context("no way to the API server")?;
    let (world, mut watches) = World::watch(&client, &args.watch_namespaces, &args.namespace);
    tokio::select! {
        listed = world.wait_until_listed() => listed.map_err(anyhow::Error::msg)?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    health.set("watches", true);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "everything listed");

    let fleet = Fleet::new(metrics.clone(), AGENTS_MAX);
    let (authority, trusted) = watch::channel(None);
    let leadership = lease::stand(client.clone(), &args.namespace, &args.lease, &args.pod).await?;
    let zones = args.listen_dns.map(|_| Zones::new(&args.zones, &args.zone_name_server)).transpose()?;
    let mut dns = tokio::spawn(serve_zones(args.listen_dns, zones.as_ref().map(Zones::answers)));
    let conductor = Conductor {
        reconciler: Reconciler::new(client.clone(), world.clone(), place(args), metrics.clone()),
        world: world.clone(),
        fleet: fleet.clone(),
        authority,
        zones,
    };
    let mut conductor = tokio::spawn(conductor.conduct(leadership.leads.clone()));
    let mut agents =
        tokio::spawn(serve_agents(args.clone(), client, world, fleet, trusted, control_host, health.clone(), metrics));
    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        lost = leadership.lost() => Err(lost),
        ended = &mut conductor => Err(anyhow!("the conductor ended: {ended:?}")),
        ended = &mut agents => match ended {
            Ok(Err(error)) => Err(error),
            other => Err(anyhow!("agents are no longer served: {other:?}")),
        },
        ended = &mut dns => match ended {
            Ok(Err(error)) => Err(error),
            other => Err(anyhow!("the zones are no longer served: {other:?}")),
        },
        Some(ended) = watches.join_next() => Err(anyhow!("a watch ended: {ended:?}")),
    };
    tracing::info!("stopping");
    conductor.abort();
    agents.abort();
    dns.abort();
    leadership.release().await;
    outcome
}

fn place(args: &Args) -> Place {
    Place {
        namespace: args.namespace.clone(),
        pod: args.pod.clone(),
        withdraw_timeout: args.withdraw_timeout,
        lifetimes: Lifetimes::default(),
        settings: Settings {
            agent_image: args.agent_image.clone(),
            image_pull_policy: args.agent_image_pull_policy.clone(),
            image_pull_secrets: args.agent_image_pull_secrets.clone(),
            control_endpoint: args.control_endpoint.clone(),
            token_audience: AUDIENCE.to_owned(),
            token_seconds: TOKEN_SECONDS,
            agent_log: args.agent_log.clone(),
            priority_class: args.agent_priority_class.clone(),
        },
    }
}

/// Turns whenever something changed.
struct Conductor {
    reconciler: Reconciler,
    world: World,
    fleet: Arc<Fleet>,
    authority: watch::Sender<Option<Arc<Authority>>>,
    /// For DRIAD, where they are served.
    zones: Option<Zones>,
}

impl Conductor {
    async fn conduct(mut self, mut leads: watch::Receiver<bool>) {
        let mut news = self.world.changes();
        loop {
            // What changes from here on is for the next turn.
            news.mark_unchanged();
            let lead = *leads.borrow_and_update();
            let turn = self.reconciler.turn(lead).await;
            if let Some(zones) = &mut self.zones
                && let Err(error) = zones.set(&turn.snapshots, Timestamp::now())
            {
                tracing::error!(%error, "the AMTRELAY zones stay as they were");
            }
            self.fleet.publish(turn.snapshots);
            self.authority.send_if_modified(|known| {
                let changed = *known != turn.authority;
                *known = turn.authority;
                changed
            });
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                changed = leads.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(turn.again) => {}
            }
            tokio::time::sleep(SETTLE).await;
        }
    }
}

/// Serves the zones where that is asked for; waits for ever where it is not.
async fn serve_zones(address: Option<SocketAddr>, answers: Option<Answers>) -> anyhow::Result<()> {
    let (Some(address), Some(answers)) = (address, answers) else { return std::future::pending().await };
    let sockets = zone::listen(address).await.with_context(|| format!("--listen-dns {address}"))?;
    tracing::info!(%address, "the AMTRELAY zones are served");
    zone::serve(sockets, answers).await
}

#[expect(clippy::too_many_arguments, reason = "called once, to wire what was made above")]
async fn serve_agents(
    args: Args,
    client: Client,
    world: World,
    fleet: Arc<Fleet>,
    mut trusted: watch::Receiver<Option<Arc<Authority>>>,
    control_host: String,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    let first = trusted.wait_for(Option::is_some).await.context("nobody looks for the authority")?.clone();
    let Some(authority) = first else { bail!("the authority came and went") };
    let names = ServingNames { dns_names: vec![control_host], ips: Vec::new(), lifetime: SERVING_LIFE };
    let certificate = ServingCert::new(&authority, names, Timestamp::now())?;
    let listener =
        TcpListener::bind(args.listen_grpc).await.with_context(|| format!("--listen-grpc {}", args.listen_grpc))?;
    let lookup = Arc::new(Lookup(world));
    let reviews = CachedReviews::new(KubeReviewer::new(client.clone()));
    let store = Arc::new(KubeStore::new(client, metrics.clone()));
    let writer = Writer::new(fleet.clone(), store, lookup.clone(), metrics.clone(), Pace::default(), args.pod.clone());
    let service = FleetService::new(fleet, reviews, lookup, metrics);
    // Some more than agents: one that comes back may be there before its old connection is given up.
    let limits = Limits { connections: AGENTS_MAX + AGENTS_MAX / 10, ..Limits::default() };
    let served = fleet::serve(listener, service, &certificate, limits, std::future::pending());
    health.set("agents", true);
    tracing::info!(address = %args.listen_grpc, "agents are served");
    // All three end together when the task is dropped: no stream ends while the writer still looks.
    tokio::select! {
        ended = served => ended.context("--listen-grpc"),
        ended = keep_certificate(&certificate, trusted) => ended,
        () = writer.run() => bail!("endpoints are no longer written"),
    }
}

/// Issues another certificate whenever the authority turned or half the life of the one in force is over.
async fn keep_certificate(
    certificate: &ServingCert,
    mut trusted: watch::Receiver<Option<Arc<Authority>>>,
) -> anyhow::Result<()> {
    loop {
        let now = Timestamp::now();
        let authority = trusted.borrow_and_update().clone();
        if let Some(authority) = authority
            && let Err(error) = certificate.refresh(&authority, now)
        {
            tracing::error!(%error, "no new certificate; the one before stays");
        }
        let rest = Duration::try_from(now.duration_until(certificate.renewal())).unwrap_or_default();
        tokio::select! {
            changed = trusted.changed() => changed.context("nobody looks for the authority any more")?,
            () = tokio::time::sleep(rest.max(Duration::from_secs(1))) => {}
        }
    }
}
