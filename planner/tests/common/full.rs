//! One object of every kind with every field set and nothing wrong with it by itself.

use serde_json::{Value, json};

/// The full object of a kind.
pub fn object(kind: &str) -> Value {
    json!({
        "apiVersion": castgate_crds::API_VERSION, "kind": kind,
        "metadata": { "name": "full", "namespace": "castgate" }, "spec": spec(kind),
    })
}

fn spec(kind: &str) -> Value {
    let hierarchy = json!({
        "parents": [
            { "url": "http://tds.example.net", "credentialsSecretRef": { "name": "s" } },
            { "databaseRef": { "name": "d" }, "credentialsSecretRef": { "name": "s" } },
        ],
        "networks": ["192.0.2.0/24"], "country": "BE", "updateInterval": "300s",
    });
    let tolerations = json!([
        { "key": "example.net/pool", "operator": "Equal", "value": "tv", "effect": "NoSchedule" },
        { "operator": "Exists" },
    ]);
    let limits = json!({ "tunnels": 1, "channels": 1, "channelsPerTunnel": 1, "ttl": 1 });
    let timers = json!({ "joinTimeout": "60s", "idleTimeout": "120s", "cookieEpoch": "1h", "answerInterval": "500ms" });
    let umtp = json!({ "address": "192.0.2.1", "addressType": "InternalIP", "port": 10100 });
    let pool = json!({ "pool": "tv" });
    match kind {
        "ChannelBundle" => json!({ "channels": [
            { "name": "a", "group": "239.1.2.3", "source": "192.0.2.1", "port": 1, "pattern": "1Mbit", "send": true,
              "ttl": 3, "description": "text" },
            { "name": "b", "group": "239.1.2.3", "ports": { "first": 2, "last": 3 } },
            { "name": "c", "group": "239.1.2.3", "port": 1 },
        ] }),
        "TunnelAccount" => json!({
            "databaseRef": { "name": "d" }, "login": "me", "passwordSecretRef": { "name": "s", "key": "password" },
            "allow": { "types": ["TS"], "networks": ["192.0.2.0/24"], "countries": ["BE"], "sources": ["192.0.2.0/24"] },
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
                        { "serverRef": { "name": "a" }, "weight": 1 }, { "selector": { "pool": "tv" }, "weight": 0 },
                    ] },
                    "exclude": [{ "serverRef": { "name": "b" } }, { "selector": { "pool": "old" } }],
                },
                { "name": "rest", "assign": { "pools": [{ "serverRef": { "name": "b" } }] } },
            ],
        }),
        "TunnelDatabase" => json!({
            "http": { "address": "192.0.2.1", "port": 5632 }, "hierarchy": hierarchy, "updateInterval": "300s",
            "service": { "type": "NodePort", "nodePort": 30632 },
            "storage": { "size": "1Gi", "storageClassName": "fast" },
            "nodeSelector": pool, "tolerations": tolerations,
        }),
        "TunnelEndpoint" => json!({ "role": "Server", "ownerName": "brussels", "node": "n1.example.net" }),
        "TunnelRelay" => json!({
            "upstream": { "protocol": "AMT", "discovery": "Static", "servers": ["relay.example.net:2268"] },
            "umtp": umtp, "bundles": [{ "name": "b" }], "hierarchy": hierarchy, "workers": 1, "limits": limits,
            "timers": timers, "nodeSelector": pool, "tolerations": tolerations, "replicas": 1,
        }),
        "TunnelServer" => json!({
            "umtp": umtp, "interfaces": [{ "name": "eth0" }], "bundles": [{ "name": "b" }], "hierarchy": hierarchy,
            "loopCheck": "Endpoint", "workers": 1, "limits": limits, "timers": timers, "nodeSelector": pool,
            "tolerations": tolerations, "replicas": 1,
        }),
        kind => panic!("{kind} has no full object here"),
    }
}
