//! A cluster that stays until it is told to go, for trying things by hand. `cargo xtask cluster …` builds what it needs first.

use anyhow::{Context, Result, bail, ensure};
use castgate_e2e::cluster::{Cluster, Node, runner};
use castgate_e2e::programs::program;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const HELP: &str = "\
A Kubernetes of several nodes on this machine; one at a time, as root.

    up [NODES] [IMAGE.tar]...           starts it (3 nodes unless said otherwise) and returns
    down                                removes it and everything in it
    status                              where it is and what its nodes do
    tools                               (xtask) only builds the cluster's programs
    kubectl|helm|castgate ARGUMENTS...  against it; any other program: `run PROGRAM ARGUMENTS...`
    load IMAGE.tar...                   gives every node these images
    volumes NAME...                     makes volumes for claims without a storage class
    enter NODE PROGRAM ARGUMENTS...     on a node
    host NAME ADDRESS PROGRAM...        on a host beside the nodes (10.77.0.100 to 10.77.0.250), made when it is not there
    cut|mend|freeze|thaw|kill|boot NODE
    api stop|start
";

/// How long `up` and `down` may take.
const LONGEST: Duration = Duration::from_mins(3);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("castgate-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<ExitCode> {
    match arguments {
        ["up", rest @ ..] => up(rest),
        ["serve", nodes, images @ ..] => serve(nodes, images),
        ["down"] => down(),
        ["status"] => status(&Cluster::kept()?),
        ["castgate", rest @ ..] => become_program(Cluster::kept()?.command(program("castgate")?), rest),
        [program @ ("kubectl" | "helm"), rest @ ..] | ["run", program, rest @ ..] => {
            become_program(Cluster::kept()?.command(program), rest)
        }
        ["load", images @ ..] => {
            let cluster = Cluster::kept()?;
            images.iter().try_for_each(|image| cluster.load(Path::new(image)))?;
            Ok(ExitCode::SUCCESS)
        }
        ["volumes", names @ ..] => Cluster::kept()?.make_volumes(names).map(|()| ExitCode::SUCCESS),
        ["enter", node, program, rest @ ..] => become_program(Cluster::kept()?.node(node).command(program)?, rest),
        ["host", name, address, rest @ ..] => {
            let host =
                Cluster::kept()?.host(name, address.parse().with_context(|| format!("`{address}` is no address"))?)?;
            let (program, rest) = rest.split_first().unwrap_or((&"bash", &[]));
            let mut command = Command::new("ip");
            command.args(["netns", "exec", host.namespace().name(), program]);
            become_program(command, rest)
        }
        [action @ ("cut" | "mend" | "freeze" | "thaw" | "kill" | "boot"), node] => {
            act(action, Cluster::kept()?.node(node)).map(|()| ExitCode::SUCCESS)
        }
        ["api", "stop"] => Cluster::kept()?.stop_api_server().map(|()| ExitCode::SUCCESS),
        ["api", "start"] => Cluster::kept()?.start_api_server().map(|()| ExitCode::SUCCESS),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("unknown command `{}`\n\n{HELP}", arguments.join(" ")),
    }
}

fn act(action: &str, node: &Node) -> Result<()> {
    match action {
        "cut" => node.cut(),
        "mend" => node.mend(),
        "freeze" => node.freeze(),
        "thaw" => node.thaw(),
        "kill" => node.kill(),
        _ => node.boot(),
    }
}

/// Starts a process that holds the cluster, and waits until that stands.
fn up(arguments: &[&str]) -> Result<ExitCode> {
    if let Ok(cluster) = Cluster::kept() {
        bail!("a cluster is up: {}", cluster.folder().display());
    }
    let (nodes, images) = match arguments {
        [number, images @ ..] if number.parse::<u8>().is_ok() => (*number, images),
        images => ("3", images),
    };
    std::fs::remove_file(runner::pointer()).ok();
    let log = runner::pointer().with_extension("log");
    let file = std::fs::File::create(&log).with_context(|| format!("{} cannot be made", log.display()))?;
    let mut serve = Command::new(std::env::current_exe().context("this program does not know where it lies")?);
    serve.args(["serve", nodes]).args(images).process_group(0).stdin(Stdio::null());
    serve.stdout(file.try_clone().context("a log has two writers")?).stderr(file);
    let mut child = serve.spawn().context("the cluster's process does not start")?;
    let start = Instant::now();
    while !runner::pointer().exists() {
        if let Some(ended) = child.try_wait().context("the cluster's process cannot be watched")? {
            bail!("it did not come up ({ended}): {}", std::fs::read_to_string(&log).unwrap_or_default());
        }
        ensure!(start.elapsed() < LONGEST, "it did not come up within {LONGEST:?}: {}", log.display());
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("up after {:.1} s", start.elapsed().as_secs_f32());
    status(&Cluster::kept()?)
}

/// Holds the cluster until somebody ends this process; the reaper does the rest.
fn serve(nodes: &str, images: &[&str]) -> Result<ExitCode> {
    let images: Vec<PathBuf> = images.iter().map(PathBuf::from).collect();
    let cluster = Cluster::up(nodes.parse().context("the number of nodes")?, &images)?;
    std::fs::write(cluster.folder().join("owner"), std::process::id().to_string()).context("owner")?;
    let unfinished = runner::pointer().with_extension("new");
    std::fs::write(&unfinished, cluster.folder().display().to_string()).context("the pointer cannot be written")?;
    std::fs::rename(&unfinished, runner::pointer()).context("the pointer cannot be written")?;
    loop {
        std::thread::park();
    }
}

fn down() -> Result<ExitCode> {
    let folder = Cluster::kept()?.folder().to_path_buf();
    let owner = std::fs::read_to_string(folder.join("owner")).context("nobody holds this cluster")?;
    let owner = owner.trim().parse().ok().and_then(rustix::process::Pid::from_raw).context("owner is no process")?;
    rustix::process::kill_process(owner, rustix::process::Signal::TERM).context("its process cannot be ended")?;
    let start = Instant::now();
    while folder.exists() {
        ensure!(start.elapsed() < LONGEST, "{} is still there", folder.display());
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::remove_file(runner::pointer()).ok();
    println!("down after {:.1} s", start.elapsed().as_secs_f32());
    Ok(ExitCode::SUCCESS)
}

fn status(cluster: &Cluster) -> Result<ExitCode> {
    println!("nodes       {}", cluster.node_states()?);
    println!("folder      {}", cluster.folder().display());
    println!("KUBECONFIG  {}", cluster.folder().join("pki/admin.conf").display());
    if let Some(fabric) = cluster.fabric() {
        println!("inside      ip netns exec {} …", fabric.name());
    }
    Ok(ExitCode::SUCCESS)
}

fn become_program(mut command: Command, arguments: &[&str]) -> Result<ExitCode> {
    Err(command.args(arguments).exec()).with_context(|| format!("{} does not start", command.get_program().display()))
}
