//! `castgate tunnels`: who is connected where, and what he has joined, as the agents themselves tell it.

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::access::{Cluster, ClusterArgs};
use super::reports::{self, AgentReport, Asked};
use super::status::count_of;
use super::table::Table;

/// List the clients of each tunnel server's agents
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  castgate tunnels
  kubectl castgate tunnels brussels -n castgate
  castgate tunnels -A --json

Asks the agents in their pods, which takes the right to exec there. With --json it is one object an agent.")]
pub(crate) struct Args {
    #[arg(value_name = "SERVER", help = "Only those of this TunnelServer")]
    server: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Print JSON, one object an agent
    #[arg(long)]
    json: bool,
}

/// Asks and prints; an agent that does not answer is a line, and in the end a failure.
pub(crate) async fn run(args: Args) -> Result<()> {
    let cluster = Cluster::connect(&args.cluster).await?;
    let mut pods = reports::agent_pods(&cluster).await?;
    pods.retain(|pod| pod.role == "server" && args.server.as_ref().is_none_or(|name| pod.owner == *name));
    if pods.is_empty() {
        let whose = args.server.map_or_else(String::new, |name| format!(" of TunnelServer {name}"));
        bail!("no agent{whose} runs in {}: castgate status tells why", cluster.scope);
    }
    let asked = reports::ask_all(&cluster, pods).await;
    let text = if args.json { as_json(&asked)? } else { in_words(&asked) };
    write!(std::io::stdout(), "{text}").context("standard output is closed")?;
    match asked.iter().filter(|asked| asked.report.is_err()).count() {
        0 => Ok(()),
        silent => bail!("{} of {} did not answer", silent, count_of(asked.len(), "agent", "agents")),
    }
}

fn in_words(asked: &[Asked]) -> String {
    let mut table = Table::new(&["SERVER", "NODE", "CLIENT", "SINCE", "CHANNELS"]);
    let mut silent = Vec::new();
    let mut reports = Vec::new();
    let mut tunnels = 0;
    for Asked { pod, report } in asked {
        let server = format!("{}/{}", pod.namespace, pod.owner);
        let report = report.clone().and_then(|report| {
            serde_json::from_value::<AgentReport>(report).map_err(|error| format!("its report cannot be read: {error}"))
        });
        match report {
            Err(reason) => silent.push(format!("{server} on {} (pod {}): {reason}\n", pod.node, pod.name)),
            Ok(report) => {
                tunnels += report.tunnels.len();
                for tunnel in &report.tunnels {
                    let channels: Vec<_> = tunnel.channels.iter().map(|channel| report.name_of(channel)).collect();
                    table.row([
                        server.clone(),
                        pod.node.clone(),
                        tunnel.address.clone(),
                        age(tunnel.age_seconds),
                        if channels.is_empty() { "-".to_owned() } else { channels.join(", ") },
                    ]);
                }
                reports.push(report);
            }
        }
    }
    let listeners: Vec<_> =
        reports::listeners(&reports).into_iter().map(|(channel, count)| format!("{channel} {count}")).collect();
    let rows = if table.is_empty() { String::new() } else { table.render() + "\n" };
    let (tunnels, agents) = (count_of(tunnels, "tunnel", "tunnels"), count_of(reports.len(), "agent", "agents"));
    let listeners = if listeners.is_empty() { String::new() } else { format!("; {}", listeners.join(", ")) };
    format!("{rows}{tunnels} at {agents}{listeners}\n{}", silent.concat())
}

fn as_json(asked: &[Asked]) -> Result<String> {
    let mut text = String::new();
    for Asked { pod, report } in asked {
        let mut row = json!({"namespace": pod.namespace, "server": pod.owner, "node": pod.node, "pod": pod.name});
        match report {
            Ok(report) => {
                for field in ["agent", "listen", "tunnels"] {
                    row[field] = report.get(field).cloned().unwrap_or(Value::Null);
                }
            }
            Err(reason) => row["error"] = reason.as_str().into(),
        }
        text += &serde_json::to_string(&row)?;
        text += "\n";
    }
    Ok(text)
}

/// How long ago, in the largest unit that is not zero.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::reports::AgentPod;

    fn asked() -> Vec<Asked> {
        let pod = |name: &str, node: &str| AgentPod {
            namespace: "castgate".to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            role: "server".to_owned(),
            owner: "brussels".to_owned(),
            phase: "Running".to_owned(),
        };
        let report = json!({
            "agent": "castgate/ts-brussels@n1", "listen": "192.0.2.1:10100", "generation": 4,
            "channels": [{"name": "news", "channel": "232.1.2.3@10.1.0.10:5004", "tunnels": 2, "packets": 10, "bytes": 100}],
            "tunnels": [
                {"address": "198.51.100.7:40001", "channels": ["232.1.2.3@10.1.0.10:5004"], "age_seconds": 7},
                {"address": "198.51.100.8:40002", "channels": ["232.1.2.3@10.1.0.10:5004", "239.1.2.3:5004"], "age_seconds": 7300},
                {"address": "198.51.100.9:40003", "channels": [], "age_seconds": 90}
            ],
            "a_field_of_a_later_version": true
        });
        vec![
            Asked { pod: pod("ts-brussels-a", "n1"), report: Ok(report) },
            Asked { pod: pod("ts-brussels-b", "n2"), report: Err("no answer within 10 s".to_owned()) },
        ]
    }

    #[test]
    fn an_agent_that_does_not_answer_is_one_line() {
        let expected = "\
SERVER             NODE  CLIENT              SINCE  CHANNELS
castgate/brussels  n1    198.51.100.7:40001  7s     news
castgate/brussels  n1    198.51.100.8:40002  2h     news, 239.1.2.3:5004
castgate/brussels  n1    198.51.100.9:40003  1m     -

3 tunnels at 1 agent; 239.1.2.3:5004 1, news 2
castgate/brussels on n2 (pod ts-brussels-b): no answer within 10 s
";
        assert_eq!(in_words(&asked()), expected);
    }

    #[test]
    fn json_is_one_object_an_agent() {
        let text = as_json(&asked()).unwrap();
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0]["tunnels"][0]["address"], "198.51.100.7:40001");
        assert_eq!(rows[1]["error"], "no answer within 10 s");
        assert!(rows[0].get("error").is_none());
    }
}
