//! `castgate explain`: which servers a client would get from the databases of some manifests, tier by tier, and why.
//!
//! Nothing runs: the databases are those of the agents, filled with what the servers of the manifests would register.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use castgate_agent::roles::routes::read_routes;
use castgate_control::{AgentSnapshot, DatabaseSnapshot, EntryType, Registration, RouteTable, RoutesSnapshot};
use castgate_endpoint::hierarchy::clock::UnixMillis;
use castgate_endpoint::hierarchy::database::{Caller, Config, Considered, Database, Explanation, Tier};
use castgate_planner::{DatabaseUrl, Machine};
use castgate_wire::registry::{Country, ProtocolFilter, Query, Register, Server};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::manifests;

/// Databases asked one after the other before a walk is given up: no hierarchy is that deep.
const HOPS_MAX: usize = 16;

/// Say which servers a client would get, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  castgate explain --client 10.20.0.7 --country BE -f examples/policy

Nothing is started and nobody is asked: every server of the manifests counts as registered, with no load.
Servers that find their databases from roots (spec.hierarchy.discovery) are left out, because that needs answers.")]
pub(crate) struct Args {
    /// Address of the client, as its database sees it
    #[arg(long, value_name = "IP")]
    client: IpAddr,
    /// Country that the client names, two letters of ISO 3166 [default: none]
    #[arg(long, value_name = "CC")]
    country: Option<Country>,
    /// Look at this policy alone
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Moment of the question, as 2026-11-27T18:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// File or folder of manifests; again for several
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR", required = true)]
    files: Vec<PathBuf>,
    /// Report as one JSON object
    #[arg(long)]
    json: bool,
}

/// One database of the manifests.
struct Known {
    name: String,
    database: Database,
}

/// The databases by where they answer, and who is where.
#[derive(Default)]
struct Model {
    databases: BTreeMap<SocketAddr, Known>,
    names: BTreeMap<SocketAddr, String>,
    /// What would not work.
    remarks: Vec<String>,
}

/// Plans, fills the databases, asks from the roots down.
pub(crate) fn run(args: &Args) -> Result<()> {
    let files = manifests::read(&args.files)?;
    let plan = castgate_planner::load(files).and_then(|objects| castgate_planner::plan(&objects, &Machine::default()));
    let plan = match plan {
        Ok(plan) => plan,
        Err(problems) => {
            eprintln!("{problems}");
            bail!("the manifests have {} problems", problems.iter().count());
        }
    };
    let wall = match args.at {
        Some(at) => UnixMillis(u64::try_from(at.as_millisecond()).context("--at: is before 1970")?),
        None => SystemTime::now().into(),
    };
    let now = Instant::now();
    let model = Model::new(&plan.agents, args.policy.as_deref(), now, wall)?;
    let query = Query {
        entry_type: EntryType::TunnelServer,
        country: args.country,
        protocol: ProtocolFilter::All,
        network: None,
    };
    let caller = Caller { address: args.client.to_canonical(), asked_at: None };
    let roots: Vec<SocketAddr> = plan.roots.iter().filter_map(|root| root.parse().ok()).collect();
    let hops = model.walk(&roots, |database| database.explain(now, wall, caller, &query))?;
    if args.json {
        println!("{}", model.to_json(args, &hops));
    } else {
        print!("{}", model.to_text(&hops));
    }
    match hops.last() {
        Some((_, explanation)) if explanation.answer.tier.is_some() => Ok(()),
        _ => bail!("{} gets no server", args.client),
    }
}

type Hop = (SocketAddr, Explanation);

impl Model {
    fn new(agents: &[AgentSnapshot], policy: Option<&str>, now: Instant, wall: UnixMillis) -> Result<Self> {
        let mut model = Self::default();
        let mut known_policies = BTreeSet::new();
        for agent in agents {
            let Some(snapshot) = &agent.database else { continue };
            known_policies.extend(snapshot.policies.iter().map(|policy| policy.name.clone()));
            let at = reachable(snapshot.listen);
            let database = database(snapshot, policy).with_context(|| agent.agent.clone())?;
            let name = title(&agent.agent);
            model.names.insert(at, name.clone());
            model.databases.insert(at, Known { name, database });
        }
        if let Some(policy) = policy.filter(|policy| !known_policies.contains(*policy)) {
            bail!("no database of these manifests keeps to a TunnelAssignmentPolicy {policy}");
        }
        for agent in agents {
            model.register(agent, now, wall);
        }
        Ok(model)
    }

    /// Does what the registrar of an agent would do.
    fn register(&mut self, agent: &AgentSnapshot, now: Instant, wall: UnixMillis) {
        let Some(registrar) = &agent.registrar else { return };
        let name = title(&agent.agent);
        if registrar.discovery.is_some() {
            self.remarks.push(format!("{name} finds its databases from roots: it is left out"));
        }
        let routes = registrar.systems.as_ref().map(|systems| &systems.routes);
        let resolved =
            routes.map(read_table).transpose().and_then(|file| Ok(registrar.clone().resolve(file.flatten())?));
        let registrar = match resolved {
            Ok(registrar) => registrar,
            Err(error) => return self.remarks.push(format!("{name} would not register: {error:#}")),
        };
        for Registration { entry_type, source, port, protocol, networks, country, scheme } in &registrar.entries {
            self.names.entry(SocketAddr::new(*source, port.get())).or_insert_with(|| name.clone());
            let register = Register {
                source: *source,
                port: port.get(),
                entry_type: *entry_type,
                protocol: protocol.clone(),
                networks: networks.clone(),
                country: *country,
                fed_by: Vec::new(),
                scheme: *scheme,
            };
            for parent in &registrar.parents {
                let at = parent.url.parse::<DatabaseUrl>().ok();
                let at = at.and_then(|url| Some(SocketAddr::new(url.host().parse().ok()?, url.port())));
                let Some(known) = at.and_then(|at| self.databases.get_mut(&at)) else {
                    self.remarks
                        .push(format!("{name} registers with {}, which is not part of these manifests", parent.url));
                    continue;
                };
                if let Err(refusal) = known.database.register(now, wall, &parent.login, &register) {
                    self.remarks.push(format!("{} would refuse {name}: {refusal}", known.name));
                }
            }
        }
        self.remarks.dedup();
    }

    /// Asks the first root, then the first database that is named, and so on.
    fn walk(&self, roots: &[SocketAddr], ask: impl Fn(&Database) -> Explanation) -> Result<Vec<Hop>> {
        let mut hops: Vec<Hop> = Vec::new();
        let mut next = roots.iter().copied().find(|root| self.databases.contains_key(root));
        if next.is_none() {
            bail!("the manifests have no TunnelDatabase that is a root");
        }
        while let Some(at) = next.take() {
            let Some(known) = self.databases.get(&at) else { break };
            let explanation = ask(&known.database);
            let below =
                explanation.answer.servers.iter().filter(|server| server.entry_type == EntryType::TunnelDatabase);
            let below = below.map(|server| SocketAddr::new(server.address, server.port));
            next =
                below.into_iter().find(|place| hops.len() < HOPS_MAX && hops.iter().all(|(asked, _)| asked != place));
            hops.push((at, explanation));
        }
        Ok(hops)
    }

    fn to_text(&self, hops: &[Hop]) -> String {
        let mut text = String::new();
        for remark in &self.remarks {
            let _ = writeln!(text, "note: {remark}");
        }
        for (at, Explanation { considered, answer }) in hops {
            let _ = writeln!(text, "{}", self.shown(*at));
            for Considered { tier, notes } in considered {
                for (index, (depth, note)) in notes.iter().enumerate() {
                    let word = if index == 0 { tier.word() } else { "" };
                    let _ = writeln!(text, "  {word:<8} {}{note}", "  ".repeat(*depth));
                }
            }
            let Some(tier) = answer.tier else {
                let _ = writeln!(text, "  => nobody");
                continue;
            };
            for server in &answer.servers {
                let _ = writeln!(text, "  => {tier}: {}", self.entry(server));
            }
        }
        text
    }

    fn to_json(&self, args: &Args, hops: &[Hop]) -> Value {
        let rows = |servers: &[Server]| servers.iter().map(|server| self.entry(server)).collect::<Vec<_>>();
        let hop = |(at, Explanation { considered, answer }): &Hop| {
            let tiers = considered.iter().map(|Considered { tier, notes }| {
                let notes: Vec<_> = notes.iter().map(|(_, note)| note).collect();
                json!({ "tier": tier.word(), "notes": notes })
            });
            json!({
                "database": self.names.get(at), "address": at, "tiers": tiers.collect::<Vec<_>>(),
                "match": answer.tier.map(Tier::word), "servers": rows(&answer.servers),
            })
        };
        json!({
            "client": args.client, "country": args.country.map(|country| country.to_string()),
            "databases": hops.iter().map(hop).collect::<Vec<_>>(), "remarks": self.remarks,
        })
    }

    /// As `TS 127.0.2.1:10100 UDP (TunnelServer castgate/brussels)`.
    fn entry(&self, server: &Server) -> String {
        let at = SocketAddr::new(server.address, server.port);
        let protocol = server.protocol.as_ref().map(|protocol| format!(" {protocol}")).unwrap_or_default();
        let name = self.names.get(&at).map(|name| format!(" ({name})")).unwrap_or_default();
        format!("{} {at}{protocol}{name}", server.entry_type)
    }

    fn shown(&self, at: SocketAddr) -> String {
        let name = self.names.get(&at).map(String::as_str).unwrap_or_default();
        format!("{name} at {at}")
    }
}

/// The database of a snapshot, with its accounts and policies and nobody in it.
fn database(snapshot: &DatabaseSnapshot, policy: Option<&str>) -> Result<Database> {
    let table = match &snapshot.routes {
        Some(routes) => read_table(routes)?.map_or_else(|| routes.compile(), |table| Ok(Some(table)))?,
        None => None,
    };
    let accounts = snapshot.compile_accounts(table.as_ref())?;
    let regions = Arc::new(snapshot.compile_regions()?);
    let config = Config { own: vec![reachable(snapshot.listen)], regions, ..Config::default() };
    // Whatever the key, a policy draws the same.
    let mut database = Database::new(config, accounts, [0; 16]);
    let chosen = snapshot.policies.iter().filter(|known| policy.is_none_or(|name| known.name == name));
    let mut policies = Vec::new();
    for policy in chosen {
        let table = policy.routes.as_ref().map(read_table).transpose()?.flatten();
        policies.push(policy.compile(table)?);
    }
    database.set_policies(policies);
    Ok(database)
}

/// The route table of a file; `None` where it is no file.
fn read_table(routes: &RoutesSnapshot) -> Result<Option<Arc<RouteTable>>> {
    let Some(file) = &routes.file else { return Ok(None) };
    let table = read_routes(file).with_context(|| format!("route table {}", file.display()))?;
    Ok(Some(Arc::new(table)))
}

/// The object that an agent works for: `castgate/ts-brussels` works for `TunnelServer castgate/brussels`.
fn title(agent: &str) -> String {
    let kinds = [("tdb", "TunnelDatabase"), ("ts", "TunnelServer"), ("tr", "TunnelRelay")];
    let title = agent.split_once('/').and_then(|(namespace, workload)| {
        let (short, name) = workload.split_once('-')?;
        let (_, kind) = kinds.iter().find(|(known, _)| *known == short)?;
        Some(format!("{kind} {namespace}/{name}"))
    });
    title.unwrap_or_else(|| agent.to_owned())
}

fn reachable(listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() { SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listen.port()) } else { listen }
}
