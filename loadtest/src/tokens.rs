//! The capability of the load: minted by `ronctl`, as an operator would.

use std::{fmt, path::Path, process::Command};

use crate::fault::Fault;

/// A bearer token. It is never printed.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Takes a token as it was typed or read from a file.
    ///
    /// # Errors
    /// [`Fault::Usage`] if it cannot stand in a header.
    pub fn new(text: &str) -> Result<Token, Fault> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Fault::Usage("the capability is empty, or has characters that a header cannot carry".into()));
        }
        Ok(Token(text.to_owned()))
    }

    /// The token itself, for the header.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(hidden)")
    }
}

/// Mints a capability for everything, with the keyring that the configuration names.
///
/// # Errors
/// [`Fault::MissingProgram`], or [`Fault::Program`] with what `ronctl` said.
pub fn mint(ronctl: &Path, config: &Path) -> Result<Token, Fault> {
    if !ronctl.exists() {
        return Err(Fault::MissingProgram { path: ronctl.to_owned() });
    }
    let output = Command::new(ronctl)
        .args(["cap", "mint", "--subject", "load", "--scopes", "wallet:*", "--ttl", "24h", "--config"])
        .arg(config)
        .output()
        .map_err(Fault::io(format!("starting {}", ronctl.display())))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Fault::Program { what: "ronctl cap mint".into(), cause: format!("{}: {said}", output.status) });
    }
    // The output is not shown: if it is nearly a capability, it is still a secret.
    Token::new(&String::from_utf8_lossy(&output.stdout))
        .map_err(|_| Fault::Program { what: "ronctl cap mint".into(), cause: "printed no capability".into() })
}
