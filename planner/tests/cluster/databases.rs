//! Where databases run, who their peers are, and under which address they are registered.

use castgate_control::{EtcdSnapshot, PeersSnapshot, StoreSnapshot, TlsIdentity};
use castgate_planner::cluster::Fleet;
use serde_json::{Value, json};

use crate::common;
use crate::world::{World, announced, name, snapshot, titles, workload};

#[test]
fn a_database_answers_on_every_address_of_its_pod() {
    let fleet = World::isp().plan();
    let agent = snapshot(&fleet, "castgate/tdb-isp@n3");
    let database = agent.database.as_ref().unwrap();
    assert_eq!(database.listen.to_string(), "0.0.0.0:5632");
    let logins: Vec<_> = database.accounts.iter().map(|account| account.login.as_str()).collect();
    assert_eq!(logins, ["edge"]);
    assert!(database.accounts[0].password_hash.starts_with("$argon2id$"));
    assert!(agent.registrar.is_none(), "a root registers nowhere");
    assert!(database.peers.is_none(), "one alone has none");
    assert_eq!(fleet.databases[&name("isp")].nodes, [(0, "n3".to_owned())].into());
}

#[test]
fn a_database_whose_pod_has_no_node_yet_has_no_agent() {
    let mut world = World::isp();
    world.facts.database_nodes.clear();
    let fleet = world.plan();
    assert!(!fleet.snapshots.keys().any(|agent| agent.starts_with("castgate/tdb-")));
    assert!(titles(&fleet).contains(&"StatefulSet tdb-isp".to_owned()));
}

#[test]
fn a_policy_sends_clients_to_the_nodes_of_a_server_and_tells_their_load_in_steps() {
    let mut world = World::isp();
    let policy = |routes: Value| {
        json!({
            "apiVersion": "castgate.dev/v1alpha1", "kind": "TunnelAssignmentPolicy",
            "metadata": { "name": "p", "namespace": "castgate" },
            "spec": {
                "databaseRefs": [{ "name": "isp" }], "routeTable": routes,
                "rules": [{ "name": "all", "assign": { "pools": [{ "serverRef": { "name": "edge" } }] } }],
            },
        })
    };
    world.objects.push(policy(Value::Null));
    world.objects.last_mut().unwrap()["spec"].as_object_mut().unwrap().remove("routeTable");
    let owner = ("TunnelServer", name("edge"));
    let servers = |world: &World| {
        let fleet = world.plan();
        let snapshot = snapshot(&fleet, "castgate/tdb-isp@n3");
        let pool = &snapshot.database.as_ref().unwrap().policies[0].rules[0].pools[0];
        let shown = pool.servers.iter().map(|server| {
            assert!(server.registers, "its parent is this database");
            format!("{} {} {:?} {}", server.name, server.places[0].address, server.load_percent, server.down)
        });
        shown.collect::<Vec<_>>()
    };
    assert_eq!(servers(&world), ["edge@n1 10.77.0.11:10100 None false", "edge@n2 10.77.0.12:10100 None false"]);
    world.spec("TunnelServer")["limits"] = json!({ "tunnels": 1_000 });
    world.facts.tunnels.entry(owner.clone()).or_default().insert("n1".to_owned(), 499);
    world.carrying("edge", &["n1", "n2"]);
    world.node("n2").ready = false;
    let loaded = ["edge@n1 10.77.0.11:10100 Some(45) false", "edge@n2 10.77.0.12:10100 None true"];
    assert_eq!(servers(&world), loaded);
    world.facts.tunnels.entry(owner).or_default().insert("n1".to_owned(), 450);
    assert_eq!(servers(&world), loaded, "a database need not hear of every tunnel");

    *world.objects.last_mut().unwrap() = policy(json!({ "file": "/var/lib/rib.gz" }));
    let problems = world.judged().problems;
    let (_, said) = problems.first_key_value().unwrap();
    assert_eq!(
        said[0].to_string(),
        "TunnelAssignmentPolicy castgate/p: spec.routeTable.file: a database on a cluster cannot read /var/lib/rib.gz: use \
         configMapRef"
    );
    world.objects.pop();
    world.spec("TunnelDatabase")["routeTable"] = json!({ "file": "/var/lib/rib.gz" });
    let problems = world.judged().problems;
    let said: Vec<String> = problems.values().flatten().map(ToString::to_string).collect();
    let sentence = "spec.routeTable.file: a database on a cluster cannot read /var/lib/rib.gz: use configMapRef";
    assert!(said.iter().any(|said| said.ends_with(sentence)), "{said:?}");
}

#[test]
fn a_database_is_registered_where_clients_reach_it() {
    let service = |value: Value| json!({ "service": value });
    let table = [
        (service(json!({ "type": "NodePort", "nodePort": 30_632 })), Ok("10.77.0.13:30632")),
        (service(json!({ "type": "NodePort" })), Err("Service tdb-lower has no node port yet")),
        (
            json!({ "service": { "type": "NodePort", "nodePort": 30_632 }, "http": { "address": "192.0.2.9" } }),
            Ok("192.0.2.9:30632"),
        ),
        (
            service(json!({ "type": "LoadBalancer" })),
            Err(
                "the load balancer of Service tdb-lower has no address of version 4 yet: without spec.http.address it is what \
                 is registered",
            ),
        ),
        (
            json!({ "service": { "type": "LoadBalancer" }, "http": { "address": "192.0.2.9", "port": 80 } }),
            Ok("192.0.2.9:80"),
        ),
        (json!({ "http": { "address": "192.0.2.9" } }), Ok("192.0.2.9:5632")),
        (
            json!({}),
            Err(
                "no client outside reaches a Service of type ClusterIP, so there is no address to register with parents: \
                 choose spec.service.type NodePort or LoadBalancer, or name spec.http.address",
            ),
        ),
    ];
    for (spec, expected) in table {
        let world = lower(&spec);
        let fleet = world.plan();
        let problem = fleet.databases[&name("lower")].problem.clone();
        let entries = announced(&fleet).remove("castgate/tdb-lower@n3").unwrap_or_default();
        match expected {
            Ok(address) => assert_eq!((entries, problem), (vec![address.to_owned()], None), "{spec}"),
            Err(sentence) => assert_eq!((entries, problem), (vec![], Some(sentence.to_owned())), "{spec}"),
        }
        let serves = snapshot(&fleet, "castgate/tdb-lower@n3").database.is_some();
        assert!(serves, "it serves those who know it, registered or not");
    }
}

#[test]
fn what_kubernetes_gave_to_the_service_is_registered() {
    let mut world = lower(&json!({ "service": { "type": "NodePort" } }));
    world.facts.node_ports.insert(name("lower"), 31_000);
    assert_eq!(announced(&world.plan())["castgate/tdb-lower@n3"], ["10.77.0.13:31000"]);
    let mut world = lower(&json!({ "service": { "type": "LoadBalancer" } }));
    world.facts.load_balancers.insert(name("lower"), "192.0.2.77".parse().unwrap());
    assert_eq!(announced(&world.plan())["castgate/tdb-lower@n3"], ["192.0.2.77:5632"]);
}

#[test]
fn a_name_that_makes_no_pods_is_refused() {
    let long = "l".repeat(49);
    let mut world = World::isp();
    world.objects.push(json!({
        "apiVersion": "castgate.dev/v1alpha1", "kind": "TunnelDatabase",
        "metadata": { "name": long, "namespace": "castgate" }, "spec": {},
    }));
    let fleet = world.plan();
    let refused = fleet.databases[&name(&long)].refused.as_ref().unwrap();
    assert_eq!(refused.reason, "Invalid");
    assert_eq!(refused.message, "metadata.name: has 49 letters: on a cluster a TunnelDatabase has at most 48");
    assert!(!titles(&fleet).iter().any(|title| title.contains(&long)));
}

#[test]
fn replicas_are_each_others_peers_under_names_that_stay() {
    let fleet = replicated(3, &[(0, "n2"), (1, "n3"), (2, "n1")]).plan();
    for (node, others) in [("n2", [1, 2]), ("n3", [0, 2]), ("n1", [0, 1])] {
        let peers = peers(&fleet, node).unwrap();
        let names = others.map(|number| format!("tdb-isp-{number}.tdb-isp-pods.castgate.svc:5632"));
        assert_eq!(peers.members, names, "{node}");
        assert_eq!((peers.login.as_str(), peers.password.as_str(), peers.serve), ("castgate-peers", "made", true));
        assert_eq!(peers.hand_over_seconds.map(std::num::NonZeroU32::get), Some(10));
    }
    let stateful_set = &workload(&fleet, "StatefulSet tdb-isp")["spec"];
    assert_eq!(stateful_set["replicas"], 3);
    assert_eq!(stateful_set["persistentVolumeClaimRetentionPolicy"]["whenScaled"], "Delete");
    let pod = &stateful_set["template"]["spec"];
    let apart = &pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
    assert_eq!(apart["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(apart["labelSelector"]["matchLabels"]["castgate.dev/owner"], "isp");
    assert_eq!(pod["topologySpreadConstraints"][0]["whenUnsatisfiable"], "ScheduleAnyway");
    assert_eq!(workload(&fleet, "Service tdb-isp")["spec"]["sessionAffinity"], "ClientIP");
    let template = |fleet: &Fleet| workload(fleet, "StatefulSet tdb-isp")["spec"]["template"].clone();
    assert_eq!(template(&fleet), template(&World::isp().plan()), "to scale restarts no pod that is there");
}

#[test]
fn a_replica_that_goes_is_a_peer_until_it_is_gone() {
    let members = |world: &World, node| peers(&world.plan(), node).map(|peers| peers.members.len());
    let mut world = replicated(1, &[(0, "n1"), (1, "n2"), (2, "n3")]);
    assert_eq!((members(&world, "n1"), members(&world, "n3")), (Some(2), Some(2)), "they were told to go just now");
    world.pods("isp", &[(0, "n1"), (1, "n2")]);
    assert_eq!(members(&world, "n1"), Some(1));
    world.pods("isp", &[(0, "n1")]);
    assert_eq!(members(&world, "n1"), None);
}

#[test]
fn no_replica_begins_without_the_login_of_the_others() {
    let mut world = replicated(1, &[(0, "n1")]);
    world.objects.retain(|object| object["metadata"]["name"] != "tdb-isp-peers");
    let before = world.settle();
    world.spec("TunnelDatabase")["replicas"] = json!(2);
    world.pods("isp", &[(0, "n1"), (1, "n2")]);
    let fleet = world.plan();
    assert_eq!(snapshot(&fleet, "castgate/tdb-isp@n1"), snapshot(&before, "castgate/tdb-isp@n1"));
    assert!(!fleet.snapshots.contains_key("castgate/tdb-isp@n2"));
    let problem = fleet.databases[&name("isp")].problem.as_deref();
    assert_eq!(problem, Some("Secret castgate/tdb-isp-peers with the login of its replicas is not there yet"));
}

#[test]
fn peers_of_others_are_peers_beside_the_own_replicas_and_have_one_login_with_them() {
    let others = json!({ "addresses": ["tds.example.net"], "credentialsSecretRef": { "name": "edge-at-isp" } });
    let mut world = replicated(2, &[(0, "n1"), (1, "n2")]);
    world.spec("TunnelDatabase")["peers"] = others;
    let peers_of_first = peers(&world.plan(), "n1").unwrap();
    assert_eq!(peers_of_first.members, ["tdb-isp-1.tdb-isp-pods.castgate.svc:5632", "tds.example.net"]);
    assert_eq!(peers_of_first.login, "edge");
    let spec = world.spec("TunnelDatabase");
    spec["replicas"] = json!(1);
    spec["peers"]["serve"] = json!(false);
    world.pods("isp", &[(0, "n1")]);
    let alone = peers(&world.plan(), "n1").unwrap();
    assert_eq!(
        (alone.members, alone.serve, alone.hand_over_seconds),
        (vec!["tds.example.net".to_owned()], false, None)
    );
}

#[test]
fn replicas_with_a_certificate_are_named_and_believed_over_https_by_those_beside_and_below_them() {
    let mut world = replicated(2, &[(0, "n1"), (1, "n2")]);
    let pem = |what: &str| format!("-----BEGIN {what}-----\nAAAA\n-----END {what}-----\n");
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "isp-tls", "namespace": "castgate" },
        "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": pem("CERTIFICATE"), "tls.key": pem("PRIVATE KEY"), "ca.crt": pem("CERTIFICATE") },
    });
    world.objects.push(secret.clone());
    world.spec("TunnelDatabase")["http"]["tls"] = json!({ "secretRef": { "name": "isp-tls" } });
    let fleet = world.plan();
    let first = snapshot(&fleet, "castgate/tdb-isp@n1").database.as_ref().unwrap();
    assert_eq!(first.tls.as_ref().unwrap().key, pem("PRIVATE KEY"));
    let beside = peers(&fleet, "n1").unwrap();
    assert_eq!(beside.members, ["https://tdb-isp-1.tdb-isp-pods.castgate.svc:5632"]);
    assert_eq!(beside.ca, Some(pem("CERTIFICATE")));
    let adapter = snapshot(&fleet, "castgate/adapter@n3").adapter.as_ref().unwrap();
    let above = &adapter.clients[0].parents[0];
    assert_eq!(above.url, "https://tdb-isp-0.tdb-isp-pods.castgate.svc:5632");
    assert_eq!(above.ca, Some(pem("CERTIFICATE")));
    assert!(!snapshot(&fleet, "castgate/ts-edge@n1").to_yaml().contains("PRIVATE KEY"));

    // Renewed, the Secret is another snapshot.
    secret["stringData"]["tls.key"] = json!(pem("EC PRIVATE KEY"));
    *world.objects.last_mut().unwrap() = secret;
    let renewed = world.plan();
    let first = snapshot(&renewed, "castgate/tdb-isp@n1").database.as_ref().unwrap();
    assert_eq!(first.tls.as_ref().unwrap().key, pem("EC PRIVATE KEY"));
}

#[test]
fn every_replica_registers_its_own_node_and_an_address_for_all_is_registered_once() {
    let mut world = lower(&json!({ "service": { "type": "NodePort", "nodePort": 30_632 }, "replicas": 2 }));
    world.objects.push(peers_secret("tdb-lower-peers"));
    world.pods("lower", &[(0, "n3"), (1, "n1")]);
    let lower_only = |world: &World| {
        let mut all = announced(&world.plan());
        all.retain(|agent, entries| agent.starts_with("castgate/tdb-lower@") && !entries.is_empty());
        all.into_iter().collect::<Vec<_>>()
    };
    let entry = |node: &str, at: &str| (format!("castgate/tdb-lower@{node}"), vec![at.to_owned()]);
    assert_eq!(lower_only(&world), [entry("n1", "10.77.0.11:30632"), entry("n3", "10.77.0.13:30632")]);
    let lower = world.objects.iter_mut().find(|object| object["metadata"]["name"] == "lower").unwrap();
    lower["spec"]["service"] = json!({ "type": "LoadBalancer" });
    world.facts.load_balancers.insert(name("lower"), "192.0.2.77".parse().unwrap());
    assert_eq!(lower_only(&world), [entry("n3", "192.0.2.77:5632")]);
    world.pods("lower", &[(1, "n1")]);
    assert_eq!(lower_only(&world), [entry("n1", "192.0.2.77:5632")], "the next one does it for all");
}

#[test]
fn replicas_with_one_etcd_have_neither_volumes_nor_peers_and_one_address_for_the_fleet() {
    let fleet = with_etcd(3, &json!({})).plan();
    for node in ["n1", "n2", "n3"] {
        let database = snapshot(&fleet, &format!("castgate/tdb-isp@{node}")).database.clone().unwrap();
        assert_eq!(database.peers, None, "{node}");
        let StoreSnapshot::Etcd(etcd) = database.store else { panic!("{node} has a store of its own") };
        assert_eq!(
            *etcd,
            EtcdSnapshot { prefix: "/castgate/castgate/isp/".into(), ..etcd_at(&["http://etcd-0:2379"]) }
        );
    }
    assert_eq!(fleet.databases[&name("isp")].problem, None, "no login of replicas is waited for");
    let stateful_set = &workload(&fleet, "StatefulSet tdb-isp")["spec"];
    assert_eq!(stateful_set["replicas"], 3);
    assert_eq!(stateful_set["volumeClaimTemplates"], Value::Null);
    assert_eq!(stateful_set["persistentVolumeClaimRetentionPolicy"], Value::Null);
    let volumes = stateful_set["template"]["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.contains(&json!({ "name": "state", "emptyDir": {} })), "{volumes:?}");
    assert_eq!(workload(&fleet, "Service tdb-isp")["spec"]["sessionAffinity"], Value::Null);
    // A goodbye to a replica that goes would be one to all.
    let adapter = snapshot(&fleet, "castgate/adapter@n3").adapter.clone().unwrap();
    assert!(!adapter.clients.is_empty());
    for client in adapter.clients {
        let parents: Vec<_> = client.parents.iter().map(|parent| parent.url.as_str()).collect();
        assert_eq!(parents, ["http://tdb-isp.castgate.svc:5632"], "{}", client.agent);
    }
}

#[test]
fn an_etcd_is_reached_with_the_login_and_the_certificates_of_its_secrets() {
    let more = json!({
        "endpoints": ["https://etcd-0:2379"], "prefix": "/be/",
        "credentialsSecretRef": { "name": "edge-at-isp" }, "tlsSecretRef": { "name": "etcd" },
    });
    let mut world = with_etcd(1, &more);
    let pem = |what: &str| format!("-----BEGIN {what}-----");
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "etcd", "namespace": "castgate" },
        "stringData": { "ca.crt": pem("CERTIFICATE") },
    });
    let etcd = |world: &World| {
        let StoreSnapshot::Etcd(etcd) = snapshot(&world.plan(), "castgate/tdb-isp@n1").database.clone().unwrap().store
        else {
            panic!("it has a store of its own")
        };
        *etcd
    };
    world.objects.push(secret.clone());
    let login = EtcdSnapshot {
        prefix: "/be/".into(),
        ca: Some(pem("CERTIFICATE")),
        login: Some("edge".into()),
        password: Some("example-only-edge".into()),
        ..etcd_at(&["https://etcd-0:2379"])
    };
    assert_eq!(etcd(&world), login);
    secret["stringData"] =
        json!({ "ca.crt": pem("CERTIFICATE"), "tls.crt": pem("CERTIFICATE"), "tls.key": pem("PRIVATE KEY") });
    *world.objects.last_mut().unwrap() = secret;
    let identity = TlsIdentity { certificate: pem("CERTIFICATE"), key: pem("PRIVATE KEY") };
    assert_eq!(etcd(&world), EtcdSnapshot { identity: Some(identity), ..login });
}

#[test]
fn the_password_before_is_taken_as_long_as_its_secret_holds_it() {
    let mut world = World::isp();
    let secret = world.objects.iter_mut().find(|object| object["metadata"]["name"] == "edge-at-isp").unwrap();
    secret["stringData"]["previous"] = json!("the one before");
    let account = |world: &World| {
        let fleet = world.plan();
        snapshot(&fleet, "castgate/tdb-isp@n3").database.as_ref().unwrap().accounts[0].clone()
    };
    let rotating = account(&world);
    let previous = rotating.previous_password_hash.as_deref().unwrap();
    assert!(previous.starts_with("$argon2id$") && previous != rotating.password_hash);
    for none in ["", "example-only-edge"] {
        let secret = world.objects.iter_mut().find(|object| object["metadata"]["name"] == "edge-at-isp").unwrap();
        secret["stringData"]["previous"] = json!(none);
        assert_eq!(account(&world).previous_password_hash, None, "{none:?} is no other password");
    }
}

#[test]
fn the_example_of_a_hierarchy_is_a_plan_for_a_cluster() {
    let texts = common::folder("../examples/hierarchy/cluster");
    let mut world = World::of(texts.iter().map(|(_, text)| text.as_str()));
    world.facts.database_nodes.clear();
    world.pods("root", &[(0, "n1")]);
    world.pods("belgium", &[(0, "n2")]);
    assert_eq!(world.judged().problems, std::collections::BTreeMap::new());
    let fleet = world.plan();
    assert!(fleet.databases.values().all(|plan| plan.refused.is_none() && plan.problem.is_none()));
    assert!(fleet.servers.values().all(|plan| plan.refused.is_none() && plan.problems.is_empty()));
    let announced = announced(&fleet);
    assert_eq!(announced["castgate/tdb-belgium@n2"], ["10.77.0.12:30651"]);
    let ours = announced.keys().filter(|agent| agent.starts_with("castgate/ts-")).count();
    assert_eq!(ours, 2, "the ISP's adapter has no certificate here");
}

#[test]
fn the_example_with_an_etcd_is_a_plan_for_a_cluster() {
    let texts = common::folder("../examples/hierarchy/etcd");
    let mut world = World::of(texts.iter().map(|(_, text)| text.as_str()));
    world.facts.database_nodes.clear();
    world.pods("shared", &[(0, "n1"), (1, "n2"), (2, "n3")]);
    assert_eq!(world.judged().problems, std::collections::BTreeMap::new());
    let fleet = world.plan();
    assert!(fleet.databases.values().all(|plan| plan.refused.is_none() && plan.problem.is_none()));
    let databases = fleet.snapshots.values().filter_map(|snapshot| snapshot.database.as_ref());
    let stores: Vec<_> = databases.map(|database| &database.store).collect();
    assert_eq!(stores.len(), 3);
    assert!(stores.iter().all(|store| *store == stores[0] && !store.is_embedded()), "{stores:?}");
}

/// The ISP with a database of so many replicas, whose pods are here.
fn replicated(replicas: u32, pods: &[(u32, &str)]) -> World {
    let mut world = World::isp();
    world.spec("TunnelDatabase")["replicas"] = json!(replicas);
    world.objects.push(peers_secret("tdb-isp-peers"));
    world.pods("isp", pods);
    world
}

/// The ISP with a database of so many replicas, one on each node, that share an etcd.
fn with_etcd(replicas: u32, more: &Value) -> World {
    let mut world = World::isp();
    let spec = world.spec("TunnelDatabase");
    spec["replicas"] = json!(replicas);
    spec["store"] = json!({ "type": "Etcd", "endpoints": ["http://etcd-0:2379"] });
    for (field, value) in more.as_object().unwrap() {
        spec["store"][field] = value.clone();
    }
    let pods = [(0, "n1"), (1, "n2"), (2, "n3")];
    world.pods("isp", &pods[..usize::try_from(replicas).unwrap()]);
    world
}

fn etcd_at(endpoints: &[&str]) -> EtcdSnapshot {
    EtcdSnapshot::new(endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect())
}

/// What the operator made.
fn peers_secret(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": "castgate" },
        "stringData": { "login": "castgate-peers", "password": "made" },
    })
}

fn peers(fleet: &Fleet, node: &str) -> Option<PeersSnapshot> {
    snapshot(fleet, &format!("castgate/tdb-isp@{node}")).database.as_ref().unwrap().peers.clone()
}

/// The ISP with a second database on n3 that registers with somebody else's.
fn lower(spec: &Value) -> World {
    let mut world = World::isp();
    let mut object = json!({
        "apiVersion": "castgate.dev/v1alpha1", "kind": "TunnelDatabase",
        "metadata": { "name": "lower", "namespace": "castgate" }, "spec": spec,
    });
    object["spec"]["hierarchy"] = json!({
        "country": "BE",
        "parents": [{ "url": "http://tds.example.net", "credentialsSecretRef": { "name": "edge-at-isp" } }],
    });
    world.objects.push(object);
    world.pods("lower", &[(0, "n3")]);
    world
}
