//! What a shell and its reader want of `ronctl`: completions, and pages of the manual. Both follow from the command line as it is declared.
use super::context::Context;
use super::exit::{Exit, Failure};
use super::Cli;
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::Write;
use std::path::PathBuf;

const NAME: &str = "ronctl";

/// Arguments of `ronctl completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl completions bash > ~/.local/share/bash-completion/completions/ronctl
  ronctl completions zsh > \"${fpath[1]}/_ronctl\"
  ronctl completions fish > ~/.config/fish/completions/ronctl.fish")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub fn run(&self) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), NAME, &mut script);
        std::io::stdout().write_all(&script).map_err(|fault| Failure::output(&fault))?;
        Ok(Exit::Done)
    }
}

/// Arguments of `ronctl manual`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl manual --out /usr/local/share/man/man1
  ronctl manual --out ./man && man ./man/ronctl-policy-check.1

Each command has a page of its own. Pages that are there already are written anew.")]
pub struct Manual {
    /// The directory for the pages; it has to be there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Manual {
    /// Writes the pages.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let place = self.out.display();
        clap_mangen::generate_to(Cli::command(), &self.out).map_err(|fault| {
            Failure::internal(
                format!("{place}: the pages cannot be written: {fault}"),
                "name a directory that is there, with --out",
            )
        })?;
        context.output.line(&format!("wrote the pages of {NAME} to {place}"))?;
        Ok(Exit::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    /// The names of all commands, from the first word on.
    fn commands(command: &clap::Command, name: &str, found: &mut Vec<String>) {
        found.push(name.to_owned());
        command.get_subcommands().for_each(|one| commands(one, &format!("{name}-{}", one.get_name()), found));
    }

    #[test]
    fn every_shell_completes_every_command_and_every_command_has_a_page() {
        let mut names = Vec::new();
        commands(&Cli::command(), NAME, &mut names);
        assert!(names.contains(&"ronctl-policy-check".to_owned()) && names.len() > 40, "{names:?}");
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), NAME, &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(["policy", "reload", "completions"].iter().all(|word| script.contains(word)), "{shell}");
        }
        let place = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(Cli::command(), place.path()).unwrap();
        for name in names {
            let page = std::fs::read_to_string(place.path().join(format!("{name}.1"))).unwrap();
            assert!(page.contains(".SH SYNOPSIS"), "{name}");
        }
    }
}
