//! The operator's command beside a server: in its directory, with its configuration, and without an environment.
use super::Server;
use serde_json::Value;
use std::process::{Command, Output, Stdio};

impl Server {
    /// What `ronctl` does with these words.
    pub fn ronctl(&self, arguments: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
        command.args(["--config", "svc-wallet.toml"]).args(arguments.split(' '));
        command.current_dir(self.directory()).env_clear().stdin(Stdio::null()).output().unwrap()
    }

    /// What it prints when it does what it is told.
    ///
    /// # Panics
    /// If it does not.
    pub fn ronctl_text(&self, arguments: &str) -> String {
        let output = self.ronctl(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same for programs.
    ///
    /// # Panics
    /// If it does not do what it is told.
    pub fn ronctl_json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.ronctl_text(&format!("--json {arguments}"))).unwrap()
    }
}
