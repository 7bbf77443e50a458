//! Where databases run, and under which address they are registered.

use serde_json::{Value, json};

use crate::world::{World, announced, name, snapshot, titles};

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
    assert_eq!(fleet.databases[&name("isp")].node.as_deref(), Some("n3"));
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
    world.facts.database_nodes.insert(name("lower"), "n3".into());
    world
}
