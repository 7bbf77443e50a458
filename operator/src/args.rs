//! The operator's options: read once, each also from the environment, as a chart sets them.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;

/// Watches the custom resources of castgate.dev and runs the agents that they describe.
///
/// Every replica watches and serves agents; the one that holds the Lease writes.
#[derive(Debug, Clone, Parser)]
#[command(name = "castgate-operator", version, max_term_width = 110)]
#[command(
    after_help = "Example: castgate-operator --namespace castgate-system --pod $HOSTNAME --agent-image example.net/agent:1"
)]
pub struct Args {
    /// Namespace of the operator itself: its Lease and its certificate authority are there.
    #[arg(long, env = "CASTGATE_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: String,
    /// Name of this replica's pod.
    #[arg(long, env = "CASTGATE_POD", value_name = "POD")]
    pub pod: String,
    /// Namespace to watch; again for another one; none: all.
    #[arg(
        long = "watch-namespace",
        env = "CASTGATE_WATCH_NAMESPACES",
        value_name = "NAMESPACE",
        value_delimiter = ','
    )]
    pub watch_namespaces: Vec<String>,
    /// Image of the agents.
    #[arg(long, env = "CASTGATE_AGENT_IMAGE", value_name = "IMAGE")]
    pub agent_image: String,
    /// When nodes fetch that image: Always, `IfNotPresent` or Never; by default what Kubernetes thinks.
    #[arg(long, env = "CASTGATE_AGENT_IMAGE_PULL_POLICY", value_name = "POLICY")]
    pub agent_image_pull_policy: Option<String>,
    /// Secret with which nodes fetch that image; again for another one.
    #[arg(
        long = "agent-image-pull-secret",
        env = "CASTGATE_AGENT_IMAGE_PULL_SECRETS",
        value_name = "SECRET",
        value_delimiter = ','
    )]
    pub agent_image_pull_secrets: Vec<String>,
    /// Priority class of agents.
    #[arg(long, env = "CASTGATE_AGENT_PRIORITY_CLASS", value_name = "NAME")]
    pub agent_priority_class: Option<String>,
    /// What agents log.
    #[arg(long, env = "CASTGATE_AGENT_LOG", value_name = "FILTER", default_value = "info")]
    pub agent_log: String,
    /// Where agents reach the operator; its certificate names that host.
    #[arg(
        long,
        env = "CASTGATE_CONTROL_ENDPOINT",
        value_name = "URL",
        default_value = "https://castgate-operator.castgate-system.svc:8443"
    )]
    pub control_endpoint: String,
    /// Where agents are served (gRPC over TLS).
    #[arg(long, env = "CASTGATE_LISTEN_GRPC", value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    pub listen_grpc: SocketAddr,
    /// Where metrics and probes are served (HTTP).
    #[arg(long, env = "CASTGATE_LISTEN_HTTP", value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub listen_http: SocketAddr,
    /// Where the AMTRELAY zones are served (DNS over UDP and TCP); none: nowhere.
    #[arg(long, env = "CASTGATE_LISTEN_DNS", value_name = "ADDRESS", requires = "zones")]
    pub listen_dns: Option<SocketAddr>,
    /// Reverse zone of sources that is served, such as `2.0.192.in-addr.arpa`; again for another one.
    #[arg(long = "zone", id = "zones", env = "CASTGATE_ZONES", value_name = "NAME", value_delimiter = ',')]
    pub zones: Vec<String>,
    /// Name server that these zones name: where they are delegated to.
    #[arg(
        long,
        env = "CASTGATE_ZONE_NAME_SERVER",
        value_name = "NAME",
        default_value = "castgate-zone.castgate-system.svc"
    )]
    pub zone_name_server: String,
    /// Name of the Lease.
    #[arg(long, env = "CASTGATE_LEASE", value_name = "NAME", default_value = "castgate-operator")]
    pub lease: String,
    /// How long an object that is deleted waits for its registrations to be taken back.
    #[arg(long, env = "CASTGATE_WITHDRAW_TIMEOUT", value_name = "SPAN", default_value = "20s", value_parser = span)]
    pub withdraw_timeout: Duration,
    /// What is logged, as in `info` or `castgate_operator=debug`.
    #[arg(long, env = "CASTGATE_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// Log as one JSON object a line.
    #[arg(long, env = "CASTGATE_LOG_JSON")]
    pub log_json: bool,
    /// Where traces and logs are sent as OTLP (gRPC), such as `http://collector:4317`; none: nowhere.
    #[arg(long, env = "CASTGATE_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

fn span(text: &str) -> Result<Duration, String> {
    castgate_crds::units::TimeSpan::new(text).parse().map_err(|error| error.to_string())
}

impl Args {
    /// The host that the operator's certificate has to name.
    ///
    /// # Errors
    /// When the endpoint is not `https://HOST:PORT`.
    pub fn control_host(&self) -> Result<&str, String> {
        let authority = self.control_endpoint.strip_prefix("https://");
        let host = authority.map(|rest| rest.split([':', '/']).next().unwrap_or_default()).unwrap_or_default();
        if host.is_empty() {
            return Err(format!("--control-endpoint {:?} is not https://HOST:PORT", self.control_endpoint));
        }
        Ok(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_options_are_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_host_of_the_endpoint_is_what_the_certificate_names() {
        let args = |endpoint: &str| {
            let words = ["o", "--namespace", "s", "--pod", "p", "--agent-image", "i", "--control-endpoint", endpoint];
            Args::try_parse_from(words).unwrap()
        };
        assert_eq!(
            args("https://castgate-operator.castgate-system.svc:8443").control_host().unwrap(),
            "castgate-operator.castgate-system.svc"
        );
        assert!(args("http://plain:1").control_host().unwrap_err().contains("--control-endpoint"));
    }
}
