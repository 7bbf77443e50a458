//! Somebody with one machine and no multicast around: the first command of the README.

use crate::{SOON, SSM_RULE};
use anyhow::{Context, Result, ensure};
use castgate_e2e::fleet::ServerConfig;
use castgate_e2e::lab::{Host, Process, Scenario};
use castgate_e2e::programs::program;
use castgate_e2e::receive::Receive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A machine with nothing but its loopback and an ordinary user.
const MACHINE: &str = "nowhere: machine 10.9.0.1/24";

/// A command of the ordinary user `nobody` on a host.
fn as_nobody(host: &Host, program_path: &Path) -> Command {
    let mut command = host.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--pdeathsig", "KILL"]).arg(program_path);
    command
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/one-machine")
}

/// The programs lie where an ordinary user may not look; a copy does not.
fn reachable(lab_folder: &Path, name: &str) -> Result<PathBuf> {
    let copy = lab_folder.join(name);
    std::fs::copy(program(name)?, &copy).with_context(|| format!("{name} cannot be copied"))?;
    Ok(copy)
}

fn state_folder(lab_folder: &Path) -> Result<PathBuf> {
    let folder = lab_folder.join("state");
    std::fs::create_dir_all(&folder)?;
    std::os::unix::fs::chown(&folder, Some(65_534), Some(65_534))?;
    Ok(folder)
}

#[test]
fn one_command_without_root_shows_a_channel_and_the_line_to_type_next() {
    Scenario::new(MACHINE).run(|lab| {
        let machine = lab.host("machine");
        let castgate = reachable(lab.folder(), "castgate")?;
        let example = copy_folder(&example(), &lab.folder().join("one-machine"))?;
        let state = state_folder(lab.folder())?;
        let mut up = as_nobody(machine, &castgate);
        up.arg("up")
            .arg("-f")
            .arg(&example)
            .arg("--state")
            .arg(&state)
            .env("HOME", &state)
            .env("XDG_CACHE_HOME", &state);
        let started = Instant::now();
        let mut up = machine.spawn("castgate up", up)?;

        let typed = up.wait_line("the line to type next", Duration::from_secs(5), |line| {
            let at = line.find("castgate receive ")?;
            Some(line[at..].trim().to_owned())
        })?;
        up.wait_line("packets", Duration::from_secs(10).saturating_sub(started.elapsed()), packets_in)?;

        // Exactly what was printed, word by word, as the same user.
        let words: Vec<&str> = typed.split_whitespace().skip(1).collect();
        let mut receive = as_nobody(machine, &castgate);
        receive.args(&words).args(["--for", "3s", "--json"]).env("HOME", &state).env("XDG_CACHE_HOME", &state);
        let text = machine.run("the typed line", receive, SOON)?;
        let total: serde_json::Value =
            serde_json::from_str(text.lines().last().context("the typed line printed nothing")?)?;
        ensure!(total["packets"].as_u64().is_some_and(|packets| packets > 50), "`{typed}` gave {total}");
        ensure!(total["lost"].as_u64() == Some(0), "`{typed}` gave {total}");

        let status = up.interrupt(SOON)?;
        ensure!(status.success(), "castgate up ended with {status}: {}", up.stderr());
        Ok(())
    });
}

/// A plain line that reports packets: a number above zero in front of the word.
fn packets_in(line: &str) -> Option<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let counts = words.windows(2).filter(|pair| pair[1].starts_with("packets"));
    counts
        .map(|pair| pair[0].replace([',', '_'], ""))
        .find_map(|count| count.parse().ok().filter(|n: &u64| *n > 0))
        .map(drop)
}

fn copy_folder(from: &Path, to: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(to.to_path_buf())
}

#[test]
fn on_one_machine_too_what_is_sent_upstream_comes_once_and_not_back() {
    const STUDIO: &str = "ham:ip:239.1.2.3:5004";
    Scenario::new(MACHINE).run(|lab| {
        let machine = lab.host("machine");
        let state = state_folder(lab.folder())?;
        let mut up = machine.command(program("castgate")?);
        up.arg("up").arg("-f").arg(example()).arg("--state").arg(&state);
        up.env("HOME", &state).env("XDG_CACHE_HOME", &state);
        let mut up = machine.spawn("castgate up", up)?;
        up.wait_line("packets", SOON, packets_in)?;
        // The example's own words: found through the root, everything on the loopback.
        let place = ["--tds", "127.0.4.1:5632", "--country", "BE"];
        let mut first = Receive::start(machine, STUDIO, &place)?;
        let mut second = Receive::start(machine, STUDIO, &place)?;
        machine.wait_member("239.1.2.3".parse()?, SOON)?;
        let mut command = machine.command(program("castgate")?);
        command.args(["send", STUDIO, "--input", "pattern:500kbit", "--for", "3s", "--json"]).args(place);
        command.env("HOME", &state).env("XDG_CACHE_HOME", &state);
        let text = machine.run("castgate send", command, SOON)?;
        let total: serde_json::Value = serde_json::from_str(text.lines().last().context("send printed nothing")?)?;
        let sent = total["packets"].as_u64().context("send counted nothing")?;
        for receive in [&mut first, &mut second] {
            receive.wait_packets(sent, SOON)?;
        }
        for receive in [first, second] {
            let total = receive.finish()?;
            ensure!(total.packets() == sent, "{sent} sent, {:?}", total.value());
            ensure!(total.lost() == 0 && total.duplicated() == 0, "{:?}", total.value());
            ensure!(total.value()["via"] == "umtp" && total.server() == "127.0.2.1:10100", "{:?}", total.value());
        }
        let status = up.interrupt(SOON)?;
        ensure!(status.success(), "castgate up ended with {status}: {}", up.stderr());
        Ok(())
    });
}

#[test]
fn a_fleet_that_was_asked_for_ten_seconds_ends_by_itself() {
    Scenario::new(MACHINE).run(|lab| {
        let machine = lab.host("machine");
        let state = state_folder(lab.folder())?;
        let mut up = machine.command(program("castgate")?);
        up.arg("up").arg("-f").arg(example()).arg("--state").arg(&state).args(["--for", "4s"]);
        up.env("HOME", &state).env("XDG_CACHE_HOME", &state);
        let mut up: Process = machine.spawn("castgate up", up)?;
        up.wait_line("packets", SOON, packets_in)?;
        let status = up.wait(SOON * 2)?;
        ensure!(status.success(), "castgate up ended with {status}: {}", up.stderr());
        Ok(())
    });
}

/// What is wrong in each case: the file, what it says, what it says then, and what the sentence must name.
const BAD: &[(&str, &str, &str, &[&str])] = &[
    ("20-server.yaml", "  bundles:", "  bundels:", &["brussels", "bundels"]),
    ("20-server.yaml", "- 127.0.0.0/8", "- 127.0.0.0/80", &["brussels", "networks", "127.0.0.0/80"]),
    ("40-channels.yaml", "group: 232.1.2.3", "group: 10.1.2.3", &["demo", "group", "10.1.2.3"]),
    ("40-channels.yaml", "group: 239.1.2.3", "group: 232.1.2.3\n      source: 127.0.1.1", &["demo", "port", "5004"]),
];

#[test]
fn a_bad_manifest_is_named_in_one_sentence_and_nothing_starts() {
    Scenario::new(MACHINE).run(|lab| {
        let machine = lab.host("machine");
        for (number, (file, good, bad, named)) in BAD.iter().enumerate() {
            let folder = copy_folder(&example(), &lab.folder().join(format!("bad-{number}")))?;
            let text = std::fs::read_to_string(folder.join(file))?;
            ensure!(text.contains(good), "{file} has no `{good}` that could be broken");
            std::fs::write(folder.join(file), text.replacen(good, bad, 1))?;
            for command in ["validate", "up"] {
                let mut castgate = machine.command(program("castgate")?);
                castgate.arg(command).arg("-f").arg(&folder).env("HOME", lab.folder());
                let mut castgate = machine.spawn(&format!("castgate {command}"), castgate)?;
                let status = castgate.wait(SOON)?;
                let complaint = castgate.stderr();
                ensure!(!status.success(), "`{bad}` was taken by castgate {command}");
                let sentence = complaint.lines().find(|line| line.contains(file)).unwrap_or_default();
                ensure!(named.iter().all(|word| sentence.contains(word)), "`{bad}`, castgate {command}: {complaint}");
                ensure!(!castgate.stdout().contains("packets"), "it started in part: {}", castgate.stdout());
            }
        }
        // The example itself is good.
        let mut castgate = machine.command(program("castgate")?);
        castgate.arg("validate").arg("-f").arg(example()).env("HOME", lab.folder());
        machine.run("castgate validate", castgate, SOON)?;
        Ok(())
    });
}

/// The agent's own file is checked the same way.
#[test]
fn an_agent_with_a_bad_snapshot_says_what_is_wrong_and_ends() {
    Scenario::new(MACHINE).run(|lab| {
        let machine = lab.host("machine");
        let config = lab.folder().join("bad.yaml");
        let snapshot = ServerConfig::new("10.9.0.1".parse()?, &["nowhere"]).permit(SSM_RULE).snapshot("machine");
        std::fs::write(&config, snapshot.replace("ports: 5004", "prots: 5004"))?;
        let mut agent = machine.command(program("castgate-agent")?);
        agent.arg("--config").arg(&config).arg("--state").arg(lab.folder().join("agent-state"));
        let mut agent = machine.spawn("castgate-agent", agent)?;
        let status = agent.wait(SOON)?;
        ensure!(!status.success() && agent.stderr().contains("prots"), "{status}: {}", agent.stderr());
        Ok(())
    });
}
