//! Talking to the cluster as its users do: `kubectl`, `helm`, and our own `castgate`.

use super::{Cluster, Kind};
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

impl Cluster {
    /// A program that can reach the API server and finds it through `KUBECONFIG`.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        match &self.kind {
            Kind::Own(own) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", own.fabric.namespace().name()]).arg(program.as_ref());
                let path = std::env::var("PATH").unwrap_or_default();
                command.env("KUBECONFIG", self.layout.admin_config());
                command.env("PATH", format!("{}:{path}", own.tools.bin().display()));
                self.with_helm_folders(command)
            }
            Kind::Existing(_) => self.with_helm_folders(Command::new(program.as_ref())),
        }
    }

    /// `kubectl` with these arguments, to its end; gives what it printed.
    ///
    /// # Errors
    /// When it fails; with what it complained about.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        finish("kubectl", arguments, self.try_kubectl(arguments)?)
    }

    /// The same with a text on its standard input, such as a manifest for `apply -f -`.
    ///
    /// # Errors
    /// When it fails.
    pub fn kubectl_stdin(&self, arguments: &[&str], input: &str) -> Result<String> {
        finish("kubectl", arguments, self.try_kubectl_stdin(arguments, input)?)
    }

    /// The same for a test that wants it to fail.
    ///
    /// # Errors
    /// When it does not start.
    pub fn try_kubectl_stdin(&self, arguments: &[&str], input: &str) -> Result<Output> {
        feed(self.command("kubectl").args(arguments), input)
    }

    /// `kubectl` to its end, whatever that is.
    ///
    /// # Errors
    /// When it does not start.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<Output> {
        self.command("kubectl").args(arguments).stdin(Stdio::null()).output().context("kubectl does not start")
    }

    /// What `kubectl get … -o json` says.
    ///
    /// # Errors
    /// When it fails.
    pub fn get(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat())?;
        serde_json::from_str(&text).context("kubectl printed something other than JSON")
    }

    /// `helm` with these arguments, to its end; gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command("helm").args(arguments).stdin(Stdio::null()).output();
        finish("helm", arguments, output.context("helm does not start")?)
    }

    /// Helm keeps caches in the user's home; a test keeps them to itself.
    fn with_helm_folders(&self, mut command: Command) -> Command {
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(variable, self.layout.folder().join("helm").join(folder));
        }
        // What they print is read by tests: no colours.
        command.env("NO_COLOR", "1");
        command
    }
}

fn feed(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("kubectl does not start")?;
    let mut stdin = child.stdin.take().expect("standard input was piped");
    // One that ended early says why on its standard error.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    child.wait_with_output().context("kubectl cannot be waited for")
}

fn finish(program: &str, arguments: &[&str], output: Output) -> Result<String> {
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{program} {}`: {}", arguments.join(" "), complaint.trim());
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed something other than text"))
}
