//! What is shipped for systemd: the units fit the programs, and the files of configuration that they name can be used.
use super::{read, set};
use clap::Parser;
use std::collections::BTreeMap;
use svc_wallet::config::{Config, Flags, Sources};
use svc_wallet::{accountingd, ledgerd, registryd};

/// The settings of a unit, each with its last value.
fn unit(name: &str) -> BTreeMap<String, String> {
    let text = read(&format!("ops/systemd/{name}.service"));
    let lines = text.lines().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty());
    let pairs = lines.map(|line| line.split_once('=').unwrap_or_else(|| panic!("{name}: {line}")));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn path(name: &str) -> std::path::PathBuf {
    super::root().join(name)
}

#[test]
fn the_wallet_of_the_unit_can_be_configured_as_it_is_shipped() {
    let flags = Flags { config: Some(path("ops/systemd/svc-wallet.toml")), set: Vec::new() };
    let config = Config::load(&Sources { flags, env: &|_| None, files_default: &[] }).unwrap();
    config.supported().unwrap();
    let told: BTreeMap<_, _> = config.describe().into_iter().map(|one| (one.key, one.value)).collect();
    let unit = unit("svc-wallet");
    let (credential, _) = unit["LoadCredential"].split_once(':').unwrap();
    assert_eq!(told["security.kms"], format!("credential:{credential}"));
    let state = format!("/var/lib/{}/", unit["StateDirectory"]);
    for key in ["deps.ledger_sock", "deps.accounting_sock", "security.keyring", "security.revocations", "audit.path"] {
        let value = told[key].as_str().unwrap();
        assert!(value.trim_start_matches("embedded:").starts_with(&state), "{key}: {value} cannot be written to");
    }
    // The policy is where the operators' runbook has it, and each of those who install it brings it there.
    let policy = told["security.policy_file"].as_str().unwrap();
    assert!(read("configs/svc-wallet.example.toml").contains(&format!("policy_file = \"{policy}\"")));
    let (directory, _) = policy.rsplit_once('/').unwrap();
    assert!(read("ops/systemd/tmpfiles.d/ron.conf").contains(&format!("\nd {directory} 0750 root ron -\n")));
    assert!(read("RUNBOOK.md").contains(&format!(" ./configs/policy.json {policy}\n")));
    let below = policy.trim_start_matches("/etc/ron/");
    assert!(read("ops/debian/build").contains(&format!("\"{below}\": \"configs/policy.json\"")));
    assert!(read("ops/debian/postinst").contains(&format!(" {below} ")));
    let admin = told["bind.admin"].as_str().unwrap();
    assert!(admin.starts_with(&format!("/run/{}/", unit["RuntimeDirectory"])), "{admin}");
}

#[test]
fn the_daemon_of_the_unit_can_be_configured_as_it_is_shipped() {
    let args = ledgerd::Args { config: Some(path("ops/systemd/ron-ledger.toml")), ..ledgerd::Args::default() };
    let settings = ledgerd::Settings::of(&args).unwrap();
    let (wallet, daemon) = (unit("svc-wallet"), unit("ron-ledger"));
    assert!(settings.directory.starts_with(format!("/var/lib/{}", daemon["StateDirectory"])));
    assert!(settings.socket.starts_with(format!("/run/{}", daemon["RuntimeDirectory"])));
    let socket = format!("unix://{}", settings.socket.display());
    assert!(read("ops/systemd/svc-wallet.toml").contains(&socket), "the wallet is told where its daemon is");
    // A directory that two units share goes with the first that stops; and users are compared on the socket.
    assert_ne!(wallet["RuntimeDirectory"], daemon["RuntimeDirectory"]);
    assert_eq!((&wallet["User"], &wallet["RuntimeDirectoryMode"]), (&daemon["User"], &daemon["RuntimeDirectoryMode"]));
}

/// The program of a unit with its arguments.
fn command(name: &str) -> Vec<String> {
    unit(name)["ExecStart"].split(' ').map(str::to_owned).collect()
}

#[test]
fn the_daemons_of_the_units_understand_their_arguments() {
    let accounting = accountingd::Args::try_parse_from(command("ron-accounting")).unwrap();
    let unit = unit("ron-accounting");
    assert!(accounting.dir.starts_with(format!("/var/lib/{}", unit["StateDirectory"])));
    assert!(accounting.sock.starts_with(format!("/run/{}", unit["RuntimeDirectory"])));
    let socket = format!("unix://{}", accounting.sock.display());
    assert!(read("ops/systemd/svc-wallet.toml").contains(&socket), "the wallet is told where its daemon is");
    let registry = registryd::Args::try_parse_from(command("svc-registry")).unwrap();
    assert!(registry.file.starts_with("/etc/ron"));
    assert!(read("ops/systemd/svc-wallet.toml").contains(&format!("http://{}", registry.listen)));
}

#[test]
fn backups_are_made_as_the_runbook_makes_them() {
    let text = read("ops/systemd/ron-backup.service");
    let unit = unit("ron-backup");
    let directory = format!("/var/lib/{}", unit["StateDirectory"]);
    // What stands for the unit of systemd is written in the shell's own way.
    let shell = |line: &str| line.replace("$$", "$").replace("%%", "%").replace(&directory, "./var/backup");
    let commands = [&unit["ExecStart"], &unit["ExecStartPost"]]
        .map(|line| shell(line.trim_start_matches("/bin/sh -c '").trim_end_matches('\'')));
    let page = read("RUNBOOK.md");
    let [take, keep] = commands;
    let take =
        take.replace("; ", "\n").replace("/usr/local/bin/ronctl --config /etc/ron/svc-wallet.toml", "./target/release/ronctl");
    assert!(page.contains(&format!("\n{take}\n")) && page.contains(&format!("\n{keep}\n")), "{take}\n{keep}");
    assert!(
        read("ops/systemd/ron-backup.timer").contains("OnCalendar=daily") && !text.contains("[Install]"),
        "the timer starts it"
    );
}

#[test]
fn the_units_ask_for_what_the_programs_tell() {
    let keys = |name: &str| set(unit(name).into_keys());
    let told = read("src/control/supervisor.rs");
    for name in ["svc-wallet", "ron-ledger", "ron-accounting", "svc-registry"] {
        assert_eq!(unit(name)["Type"], "notify", "{name}");
        assert!(keys(name).contains("WatchdogSec"), "{name}");
    }
    assert!(told.contains("READY=1") && told.contains("WATCHDOG=1"));
    let (wallet, daemon) = (keys("svc-wallet"), keys("ron-ledger"));
    let not_shared = ["ExecReload", "LimitMEMLOCK", "LoadCredential", "RestartPreventExitStatus", "Wants", "After"];
    let only_there = wallet.difference(&daemon).cloned();
    assert_eq!(set(only_there), set(not_shared), "both are hardened alike");
    assert_eq!(keys("ron-accounting"), set(daemon.iter().filter(|key| *key != "TimeoutStartSec").cloned()), "so are the daemons");
    let state = ["StateDirectory", "StateDirectoryMode", "RuntimeDirectory", "RuntimeDirectoryMode", "WorkingDirectory"];
    let without = ["TimeoutStartSec", "PrivateNetwork", "IPAddressDeny"];
    let registry = keys("svc-registry");
    let missing = daemon.difference(&registry).cloned();
    assert_eq!(set(missing), set(state.into_iter().chain(without)), "the registry has a network and no state");
}
