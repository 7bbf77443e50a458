//! The fleet at one moment, and how it is said in one line.

use std::env;
use std::path::{Path, PathBuf};

use castgate_agent::report::{RegistrationReport, Report};
use castgate_planner::ClientHints;
use serde_json::{Value, json};

use super::own_client::ClientState;
use crate::reception::in_words;

/// Everything there is to show.
#[derive(Debug, Clone)]
pub(super) struct Status {
    /// One report an agent.
    pub(super) agents: Vec<Report>,
    /// The own client.
    pub(super) client: ClientState,
    /// What to type next.
    pub(super) line: Option<String>,
}

impl Status {
    /// Packets that the own client has received.
    pub(super) fn packets(&self) -> u64 {
        self.client.report.as_ref().map_or(0, |report| report.packets)
    }

    /// One line of stable form: `N packets, N lost, … ; N channels, N tunnels, N of N registrations`.
    pub(super) fn in_words(&self) -> String {
        let client = match &self.client.report {
            Some(report) if report.packets > 0 => in_words(report),
            _ if self.client.word.is_empty() => "0 packets".to_owned(),
            _ => format!("0 packets, {}", self.client.word),
        };
        let channels: usize = self.agents.iter().map(|agent| agent.channels.len()).sum();
        let tunnels: usize = self.agents.iter().map(|agent| agent.tunnels.len()).sum();
        let registrations: Vec<_> = self.registrations().collect();
        let registered = registrations.iter().filter(|(_, entry)| entry.state == "registered").count();
        let total = registrations.len();
        format!("{client}; {channels} channels, {tunnels} tunnels, {registered} of {total} registrations")
    }

    /// The same for a program.
    pub(super) fn as_json(&self) -> Value {
        json!({ "client": self.client.report, "agents": self.agents, "receive": self.line })
    }

    /// Every registration with the agent it belongs to.
    pub(super) fn registrations(&self) -> impl Iterator<Item = (&str, &RegistrationReport)> {
        self.agents.iter().flat_map(|agent| agent.registrations.iter().map(|entry| (agent.agent.as_str(), entry)))
    }
}

/// The line that receives the fleet's channel from another terminal; `None` when the fleet has none. `authority` is a file with the
/// certificates that vouch for the root.
pub(super) fn receive_line(hints: &ClientHints, authority: Option<&Path>) -> Option<String> {
    let channel = hints.channel?;
    let place = match (&hints.tds, hints.server) {
        (Some(tds), _) => {
            let authority = authority.map(|file| format!(" --tds-ca {}", quoted(&file.display().to_string())));
            format!("--tds {tds}{}", authority.unwrap_or_default())
        }
        (None, Some(server)) => format!("--server {server}"),
        (None, None) => return None,
    };
    let country = match (&hints.tds, hints.country) {
        (Some(_), Some(country)) => format!(" --country {country}"),
        _ => String::new(),
    };
    Some(format!("{} receive ham:ip:{channel} {place}{country}", program()))
}

/// How this program is called from a shell: by its name where the shell finds it, otherwise by its path.
fn program() -> String {
    let Ok(program) = env::current_exe() else { return "castgate".to_owned() };
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path).collect();
    called(&program, &folders, env::current_dir().ok().as_deref())
}

fn called(program: &Path, folders: &[PathBuf], here: Option<&Path>) -> String {
    let first = folders.iter().map(|folder| folder.join("castgate")).find(|file| file.is_file());
    if first.and_then(|file| file.canonicalize().ok()).is_some_and(|file| file == program) {
        return "castgate".to_owned();
    }
    let relative = here.and_then(|here| program.strip_prefix(here).ok());
    let shown = relative.unwrap_or(program).display().to_string();
    // A shell looks a bare word up in its folders, and takes a blank for an end.
    let shown = if shown.contains('/') { shown } else { format!("./{shown}") };
    quoted(&shown)
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    if word.contains([' ', '\'']) { format!("'{}'", word.replace('\'', r"'\''")) } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_the_root_and_the_country_or_else_the_server() {
        let mut hints = ClientHints {
            tds: Some("127.0.4.1:5632".to_owned()),
            tds_ca: None,
            country: Some("BE".parse().unwrap()),
            channel: Some("232.1.2.3@127.0.1.1:5004".parse().unwrap()),
            server: Some("127.0.2.1:10100".parse().unwrap()),
        };
        let line = receive_line(&hints, None).unwrap();
        assert!(line.ends_with(" receive ham:ip:232.1.2.3@127.0.1.1:5004 --tds 127.0.4.1:5632 --country BE"), "{line}");
        let line = receive_line(&hints, Some(Path::new("/my state/tds-ca.crt"))).unwrap();
        assert!(line.ends_with(" --tds 127.0.4.1:5632 --tds-ca '/my state/tds-ca.crt' --country BE"), "{line}");
        hints.tds = None;
        let line = receive_line(&hints, None).unwrap();
        assert!(line.ends_with("5004 --server 127.0.2.1:10100"), "{line}");
        hints.channel = None;
        assert_eq!(receive_line(&hints, None), None);
    }

    #[test]
    fn the_program_is_called_as_the_shell_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let program = folder.join("target/castgate");
        std::fs::create_dir(folder.join("target")).unwrap();
        std::fs::write(&program, "").unwrap();
        let found = [folder.join("target")];
        assert_eq!(called(&program, &found, None), "castgate");
        assert_eq!(called(&program, &[], Some(&folder)), "target/castgate");
        assert_eq!(called(&program, &[], Some(&folder.join("target"))), "./castgate");
        assert_eq!(called(Path::new("/a b/castgate"), &[], None), "'/a b/castgate'");
    }
}
