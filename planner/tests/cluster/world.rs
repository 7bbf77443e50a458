//! A small cluster to plan onto, as texts and as few lines as possible.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use castgate_control::{AgentSnapshot, TlsIdentity};
use castgate_crds::placement::TaintEffect;
use castgate_planner::cluster::{
    AdapterFacts, Facts, Fleet, Metas, NamespaceFacts, NodeFacts, ObjectMeta, ServerPlan, Taint, Workload, fleet,
};
use castgate_planner::{Judged, ObjectName, judge};
use serde_json::Value;

use crate::common;

/// Manifests and facts; planned by [`World::plan`].
#[derive(Debug, Clone)]
pub struct World {
    pub objects: Vec<Value>,
    /// Names of objects that somebody deleted.
    pub deleting: BTreeSet<&'static str>,
    /// Names of objects that still have registrations to take back.
    pub finalized: BTreeSet<&'static str>,
    pub facts: Facts,
}

impl World {
    /// The example of an ISP on three nodes, two of them labelled for tunnels, with its adapter and its database running.
    pub fn isp() -> Self {
        let texts = common::folder("../examples/isp");
        let mut world = Self::of(texts.iter().map(|(_, text)| text.as_str()));
        for name in ["n1", "n2"] {
            world.node(name).labels.insert("castgate.dev/tunnels".into(), "true".into());
        }
        world
    }

    /// These manifests on three nodes: n1 to n3, at 10.77.0.11 to 10.77.0.13.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let objects = texts.into_iter().flat_map(|text| {
            let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
            documents.into_iter().filter(|document| !document.is_null())
        });
        let mut facts = Facts::default();
        for number in 1..=3 {
            let node = NodeFacts {
                ready: true,
                internal_ip: Some(Ipv4Addr::new(10, 77, 0, 10 + number)),
                ..NodeFacts::default()
            };
            facts.nodes.insert(format!("n{number}"), node);
        }
        let enforce = Some("privileged".to_owned());
        facts.namespaces.insert("castgate".into(), NamespaceFacts { enforce, terminating: false });
        let tls = TlsIdentity { certificate: "a certificate".into(), key: "its key".into() };
        facts.adapters.insert("castgate".into(), AdapterFacts { tls, agents_key: b"secret".to_vec() });
        facts.adapter_nodes.insert("castgate".into(), "n3".into());
        facts.database_nodes.insert(name("isp"), [(0, "n3".into())].into());
        Self { objects: objects.collect(), deleting: BTreeSet::new(), finalized: BTreeSet::new(), facts }
    }

    pub fn node(&mut self, name: &str) -> &mut NodeFacts {
        self.facts.nodes.get_mut(name).unwrap()
    }

    pub fn taint(&mut self, node: &str, key: &str, effect: TaintEffect) {
        self.node(node).taints.push(Taint { key: key.into(), value: String::new(), effect });
    }

    /// Where the pods of a database are, by their numbers.
    pub fn pods(&mut self, database: &str, nodes: &[(u32, &str)]) {
        let nodes = nodes.iter().map(|(number, node)| (*number, (*node).to_owned()));
        self.facts.database_nodes.insert(name(database), nodes.collect());
    }

    /// Nodes that carry tunnels of a server now.
    pub fn carrying(&mut self, server: &str, nodes: &[&str]) {
        self.facts.active.insert(("TunnelServer", name(server)), nodes.iter().map(|node| (*node).to_owned()).collect());
    }

    /// The spec of the only object of a kind.
    pub fn spec(&mut self, kind: &str) -> &mut Value {
        let object = self.objects.iter_mut().find(|object| object["kind"] == kind);
        &mut object.unwrap_or_else(|| panic!("there is no {kind}"))["spec"]
    }

    pub fn judged(&self) -> Judged {
        judge(self.objects.iter().cloned())
    }

    /// Uids are made of kind and name.
    pub fn metas(&self) -> Metas {
        let mut metas = Metas::new();
        for object in &self.objects {
            let kind = match object["kind"].as_str() {
                Some("TunnelServer") => "TunnelServer",
                Some("TunnelRelay") => "TunnelRelay",
                Some("TunnelDatabase") => "TunnelDatabase",
                _ => continue,
            };
            let [name, namespace] = ["name", "namespace"].map(|key| object["metadata"][key].as_str().unwrap());
            let meta = ObjectMeta {
                uid: format!("uid-of-{}-{name}", kind.to_lowercase()),
                generation: 1,
                deleting: self.deleting.contains(name),
                registers: self.finalized.contains(name),
            };
            metas.insert((kind, ObjectName { namespace: namespace.into(), name: name.into() }), meta);
        }
        metas
    }

    pub fn plan(&self) -> Fleet {
        let planned = fleet(&self.judged(), &self.metas(), &self.facts);
        for (agent, snapshot) in &planned.snapshots {
            assert_eq!(agent, &snapshot.agent);
            snapshot.check().unwrap_or_else(|error| panic!("{agent}: {error}"));
        }
        planned
    }

    /// Plans, and takes the plan for what runs then.
    pub fn settle(&mut self) -> Fleet {
        let planned = self.plan();
        self.facts.previous = planned.snapshots.clone();
        self.facts.active = planned
            .servers
            .iter()
            .map(|(owner, plan)| (owner.clone(), plan.active.iter().cloned().collect()))
            .collect();
        planned
    }
}

pub fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "castgate".into(), name: name.into() }
}

pub fn server<'a>(fleet: &'a Fleet, server: &str) -> &'a ServerPlan {
    &fleet.servers[&("TunnelServer", name(server))]
}

pub fn relay<'a>(fleet: &'a Fleet, relay: &str) -> &'a ServerPlan {
    &fleet.servers[&("TunnelRelay", name(relay))]
}

pub fn snapshot<'a>(fleet: &'a Fleet, agent: &str) -> &'a AgentSnapshot {
    let known = || fleet.snapshots.keys().collect::<Vec<_>>();
    fleet.snapshots.get(agent).unwrap_or_else(|| panic!("{agent} is not among {:?}", known()))
}

/// Workloads as `Kind name`.
pub fn titles(fleet: &Fleet) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let title = |workload: &Workload| {
        format!("{} {}", text(&workload.object["kind"]), text(&workload.object["metadata"]["name"]))
    };
    fleet.workloads.iter().map(title).collect()
}

pub fn workload<'a>(fleet: &'a Fleet, title: &str) -> &'a Value {
    let position = titles(fleet).iter().position(|other| other == title);
    &fleet.workloads[position.unwrap_or_else(|| panic!("{title} is not among {:?}", titles(fleet)))].object
}

/// By agent, what its adapter announces for it.
pub fn announced(fleet: &Fleet) -> BTreeMap<String, Vec<String>> {
    let adapters = fleet.snapshots.values().filter_map(|snapshot| snapshot.adapter.as_ref());
    let clients = adapters.flat_map(|adapter| &adapter.clients);
    clients
        .map(|client| {
            let entries =
                client.entries.iter().map(|entry| SocketAddr::new(entry.source, entry.port.get()).to_string());
            (client.agent.clone(), entries.collect())
        })
        .collect()
}
