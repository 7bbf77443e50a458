//! One object of every kind with every field set and nothing wrong with it by itself. Of a kind with fields that exclude each
//! other there are several.

use serde_json::{Value, json};

/// The full object of a kind.
pub fn object(kind: &str) -> Value {
    json!({
        "apiVersion": castgate_crds::API_VERSION, "kind": kind,
        "metadata": { "name": "full", "namespace": "castgate" }, "spec": spec(kind),
    })
}

/// The full objects of a kind: together they hold every field.
pub fn objects(kind: &str) -> Vec<Value> {
    let mut objects = vec![object(kind)];
    if object(kind)["spec"]["hierarchy"].is_object() {
        let mut object = object(kind);
        object["spec"]["hierarchy"] = json!({
            "discovery": {
                "roots": ["tds.example.net"], "credentialsSecretRef": { "name": "s" }, "caSecretRef": { "name": "s" },
                "role": "Peer",
            },
            "networks": ["192.0.2.0/24"], "asns": [64496], "routeTable": { "file": "/var/lib/routes.csv" },
            "country": "BE", "updateInterval": "300s",
        });
        objects.push(object);
    }
    if kind == "TunnelDatabase" {
        let mut object = object(kind);
        object["spec"].as_object_mut().expect("a spec has fields").remove("peers");
        object["spec"]["store"] = json!({
            "type": "Etcd", "endpoints": ["https://etcd-0.example.net:2379", "https://192.0.2.1:2379/"],
            "prefix": "/castgate/be/", "credentialsSecretRef": { "name": "s" }, "tlsSecretRef": { "name": "t" },
        });
        objects.push(object);
    }
    if matches!(kind, "TunnelAssignmentPolicy" | "TunnelDatabase") {
        let mut object = object(kind);
        object["spec"]["routeTable"] = json!({ "file": "/var/lib/routes.csv" });
        objects.push(object);
    }
    if kind == "TunnelRelay" {
        let ways = [
            json!({
                "discovery": "Hierarchy", "tds": ["tds.example.net:5632", "https://tds.example.org"],
                "caSecretRef": { "name": "s" }, "country": "BE",
            }),
            json!({ "discovery": "Hierarchy", "databaseRef": { "name": "d" } }),
            json!({ "discovery": "Driad", "driad": { "dnsSd": ["example.net"], "anycast": true } }),
            json!({ "discovery": "Anycast", "relays": ["192.52.193.1", "amt.example.net:2269"] }),
            json!({ "discovery": "Map", "map": [
                { "group": "232.0.0.0/8", "source": "192.0.2.0/24", "relays": ["192.0.2.7", "[2001:db8::1]:2268"] },
                { "source": "2001:db8::/32", "relays": ["2001:db8::1"] },
            ] }),
        ];
        objects.extend(ways.into_iter().map(|way| {
            let mut object = object(kind);
            object["spec"]["upstream"] = way;
            object
        }));
    }
    objects
}

fn spec(kind: &str) -> Value {
    let hierarchy = json!({
        "parents": [
            {
                "url": "https://tds.example.net", "credentialsSecretRef": { "name": "s" }, "caSecretRef": { "name": "s" },
            },
            { "databaseRef": { "name": "d" }, "credentialsSecretRef": { "name": "s" } },
        ],
        "networks": ["192.0.2.0/24"], "asns": [64496],
        "routeTable": { "configMapRef": { "name": "routes", "key": "routes.csv" } },
        "country": "BE", "updateInterval": "300s",
    });
    let tolerations = json!([
        { "key": "example.net/pool", "operator": "Equal", "value": "tv", "effect": "NoSchedule" },
        { "operator": "Exists" },
    ]);
    let limits = json!({ "tunnels": 1, "channels": 1, "channelsPerTunnel": 1, "ttl": 1 });
    let timers = json!({ "joinTimeout": "60s", "idleTimeout": "120s", "cookieEpoch": "1h", "answerInterval": "500ms" });
    let umtp = json!({ "address": "192.0.2.1", "addressType": "InternalIP", "port": 10100 });
    let pool = json!({ "pool": "tv" });
    let amt = json!({
        "port": 2268, "addresses": ["192.0.2.1", "2001:db8::1"], "ipv6": true,
        "anycast": { "addresses": ["192.52.193.1", "2001:3::1"], "table": 2268 }, "teardown": false, "mtu": 1400,
        "zeroChecksum": true, "limits": { "endpoints": 1, "groupsPerEndpoint": 1, "sourcesPerGroup": 1 },
        "timers": { "queryInterval": "125s", "queryResponseInterval": "10s", "robustness": 2 },
    });
    match kind {
        "ChannelBundle" => json!({ "channels": [
            { "name": "a", "group": "239.1.2.3", "source": "192.0.2.1", "port": 1, "pattern": "1Mbit", "send": true,
              "ttl": 3, "description": "text" },
            { "name": "b", "group": "239.1.2.3", "ports": { "first": 2, "last": 3 } },
            { "name": "c", "group": "239.1.2.3", "port": 1 },
            { "name": "d", "group": "ff3e::8000:1", "source": "2001:db8::1", "port": 1 },
        ] }),
        "TunnelAccount" => json!({
            "databaseRef": { "name": "d" }, "login": "me", "passwordSecretRef": { "name": "s", "key": "password", "previousKey": "previous" },
            "allow": { "types": ["TS"], "networks": ["192.0.2.0/24"], "asns": [64496], "countries": ["BE"],
                       "sources": ["192.0.2.0/24"], "strictSource": true },
        }),
        "TunnelAssignmentPolicy" => json!({
            "databaseRefs": [{ "name": "d" }],
            "rules": [
                {
                    "name": "evening",
                    "match": {
                        "networks": ["192.0.2.0/24"], "countries": ["BE"], "asns": [64496],
                        "timeWindow": { "from": "18:00", "to": "23:30", "zone": "Europe/Brussels" },
                    },
                    "assign": { "pools": [
                        { "serverRef": { "name": "a" }, "weight": 1, "maxLoadPercent": 80 },
                        { "selector": { "pool": "tv" }, "weight": 0 },
                    ] },
                    "exclude": [{ "serverRef": { "name": "b" } }, { "selector": { "pool": "old" } }],
                },
                { "name": "rest", "assign": { "pools": [{ "serverRef": { "name": "b" } }] } },
            ],
            "routeTable": { "configMapRef": { "name": "routes", "key": "routes.csv" } },
        }),
        "TunnelDatabase" => json!({
            "replicas": 3,
            "peers": {
                "addresses": ["http://tds.example.net", "192.0.2.9:5633"], "credentialsSecretRef": { "name": "s" },
                "caSecretRef": { "name": "s" }, "serve": true,
            },
            "http": { "address": "192.0.2.1", "port": 5632, "tls": { "secretRef": { "name": "s" } } }, "hierarchy": hierarchy,
            "updateInterval": "300s",
            "routeTable": { "configMapRef": { "name": "routes", "key": "routes.csv" } }, "strictSource": true,
            "regions": { "pool": ["BE", "NL"] },
            "service": { "type": "NodePort", "nodePort": 30632 },
            "store": { "type": "Embedded" }, "storage": { "size": "1Gi", "storageClassName": "fast" },
            "nodeSelector": pool, "tolerations": tolerations,
        }),
        "TunnelEndpoint" => json!({ "role": "Server", "ownerName": "brussels", "node": "n1.example.net" }),
        "TunnelRelay" => json!({
            "upstream": {
                "protocol": "AMT", "discovery": "Static", "servers": ["relay.example.net:2268"],
                "resolvers": ["192.0.2.53", "[2001:db8::53]:53"],
                "gateway": { "ipv6": true, "ecn": false, "timers": {
                    "initialTimeout": "1s", "maximumTimeout": "120s", "silence": "4s", "holdDown": "3m", "fullHoldDown": "10m",
                } },
            },
            "delivery": { "interfaces": [{ "name": "eth0" }], "tun": "amt0" },
            "umtp": umtp, "amt": amt, "bundles": [{ "name": "b" }], "hierarchy": hierarchy, "workers": 1, "limits": limits,
            "timers": timers, "nodeSelector": pool, "tolerations": tolerations, "replicas": 1,
        }),
        "TunnelServer" => json!({
            "umtp": umtp, "amt": amt, "interfaces": [{ "name": "eth0" }], "bundles": [{ "name": "b" }], "hierarchy": hierarchy,
            "loopCheck": "Endpoint", "workers": 1, "limits": limits, "timers": timers, "nodeSelector": pool,
            "tolerations": tolerations, "replicas": 1,
        }),
        kind => panic!("{kind} has no full object here"),
    }
}
