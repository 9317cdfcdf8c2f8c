//! Where other parts are: addresses, sockets, directories, files. Nothing is opened or resolved here.
use super::raw::Raw;
use super::value::{text, Reading};
use crate::stream::Host;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the ledger is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerDep {
    /// Inside this process, with its files in this directory.
    Embedded(PathBuf),
    /// A daemon behind this unix socket.
    Unix(PathBuf),
}

/// Where the counters go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountingDep {
    /// Inside this process, with its files in this directory.
    Embedded(PathBuf),
    /// A daemon behind this unix socket.
    Unix(PathBuf),
}

/// Where the topology comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryDep {
    /// A file that is read at start.
    File(PathBuf),
    /// A registry service at this address, `http://host[:port][/path]`.
    Http(String),
}

/// Where the audit stream goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditSink {
    /// Nowhere.
    Off,
    /// Into files.
    File,
    /// Into files, and from there to whoever listens on this unix socket.
    Unix(PathBuf),
}

/// Where the key is that opens the keyring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kms {
    /// In a file; without a path in the one beside the keyring.
    File(Option<PathBuf>),
    /// In the credential of this name, handed over by systemd.
    Credential(String),
    /// In the variable of this name.
    Env(String),
}

/// Longest name of a credential or a variable, in bytes.
const KMS_NAME_BYTES_MAX: usize = 64;

/// Longest path that a unix socket address holds on Linux, in bytes; the last of its 108 ends the text.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// An IP address and a port.
pub fn address(raw: &Raw) -> Reading<SocketAddr> {
    let written = text(raw)?;
    written.parse().map_err(|_| {
        format!("{raw} is not an address; write an IP address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"")
    })
}

/// A path of a file.
pub fn path(raw: &Raw) -> Reading<PathBuf> {
    let written = text(raw)?;
    if written.contains("://") {
        return Err(format!("{raw} is a URL; write the path of a file"));
    }
    if written.contains('\0') {
        return Err(format!("{raw} has a zero byte; write the path of a file"));
    }
    Ok(PathBuf::from(written))
}

/// The path of a unix socket, with or without `unix://` before it.
pub fn socket(raw: &Raw) -> Reading<PathBuf> {
    let written = text(raw)?;
    match written.strip_prefix("unix:") {
        Some(rest) => unix(raw, rest),
        None => {
            let path = path(raw)?;
            fits_socket(raw, path)
        }
    }
}

/// Where the ledger is: `unix:///PATH` or `embedded:DIR`.
pub fn ledger(raw: &Raw) -> Reading<LedgerDep> {
    daemon(raw, LedgerDep::Embedded, LedgerDep::Unix)
}

/// Where the counters go: `unix:///PATH` or `embedded:DIR`.
pub fn accounting(raw: &Raw) -> Reading<AccountingDep> {
    daemon(raw, AccountingDep::Embedded, AccountingDep::Unix)
}

/// Where the audit stream goes: `off`, `file` or `unix:///PATH`.
pub fn audit_sink(raw: &Raw) -> Reading<AuditSink> {
    if let Raw::Bool(false) = raw {
        return Ok(AuditSink::Off);
    }
    match text(raw)? {
        "off" => Ok(AuditSink::Off),
        "file" => Ok(AuditSink::File),
        written => match written.strip_prefix("unix:") {
            Some(rest) => unix(raw, rest).map(AuditSink::Unix),
            None => Err(format!("{raw} is neither off, file nor unix:///PATH; write one of them")),
        },
    }
}

/// Where the topology comes from: `http://HOST[:PORT][/PATH]` or `file:PATH`.
pub fn registry(raw: &Raw) -> Reading<RegistryDep> {
    let written = text(raw)?;
    if let Some(file) = written.strip_prefix("file:") {
        let file = file.strip_prefix("//").unwrap_or(file);
        return path(&Raw::Text(file.to_owned()))
            .map(RegistryDep::File)
            .map_err(|_| format!("{raw} names no file; write file:PATH"));
    }
    if written.starts_with("http://") {
        let url = is_url(written).then(|| RegistryDep::Http(written.to_owned()));
        return url.ok_or_else(|| format!("{raw} is not an address of a registry; write http://HOST:PORT"));
    }
    Err(format!("{raw} is neither http://HOST:PORT nor file:PATH; write one of them"))
}

/// Where spans go: `off` or `http://HOST[:PORT][/PATH]`.
pub fn collector(raw: &Raw) -> Reading<Option<String>> {
    match raw {
        Raw::Bool(false) => return Ok(None),
        Raw::Text(text) if text.trim() == "off" => return Ok(None),
        _ => {}
    }
    let written = text(raw)?;
    let url = is_url(written).then(|| Some(written.to_owned()));
    url.ok_or_else(|| {
        format!("{raw} is neither off nor an address of a collector; write http://HOST:PORT, where the port is often 4318")
    })
}

/// Whether it has the form `http://HOST[:PORT][/PATH]`.
fn is_url(written: &str) -> bool {
    Host::of_url(written).is_some_and(|(_, path)| !path.contains(['?', '#']))
}

/// Where the key is that opens the keyring: `file`, `file:PATH`, `credential:NAME` or `env:NAME`.
pub fn kms(raw: &Raw) -> Reading<Kms> {
    let written = text(raw)?;
    let of = |letters: fn(u8) -> bool, name: &str| {
        let fits = (1..=KMS_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(letters) && !name.starts_with('.');
        fits.then(|| name.to_owned())
            .ok_or_else(|| format!("{raw} has no name of at most {KMS_NAME_BYTES_MAX} letters, digits, - _ ."))
    };
    if written == "file" {
        return Ok(Kms::File(None));
    }
    if let Some(file) = written.strip_prefix("file:") {
        let file = path(&Raw::Text(file.to_owned()));
        return file.map(|file| Kms::File(Some(file))).map_err(|_| format!("{raw} names no file; write file:PATH"));
    }
    if let Some(name) = written.strip_prefix("credential:") {
        return of(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'), name).map(Kms::Credential);
    }
    if let Some(name) = written.strip_prefix("env:") {
        return of(|byte| byte.is_ascii_alphanumeric() || byte == b'_', name).map(Kms::Env);
    }
    Err(format!("{raw} is neither file, file:PATH, credential:NAME nor env:NAME; write one of them"))
}

fn daemon<T>(raw: &Raw, embedded: fn(PathBuf) -> T, behind_socket: fn(PathBuf) -> T) -> Reading<T> {
    let written = text(raw)?;
    if let Some(directory) = written.strip_prefix("embedded:") {
        let directory = directory.strip_prefix("//").unwrap_or(directory);
        return path(&Raw::Text(directory.to_owned()))
            .map(embedded)
            .map_err(|_| format!("{raw} names no directory; write embedded:DIR"));
    }
    if let Some(rest) = written.strip_prefix("unix:") {
        return unix(raw, rest).map(behind_socket);
    }
    Err(format!("{raw} is neither unix:///PATH nor embedded:DIR; write one of them"))
}

/// `rest` is what follows `unix:`. Two slashes begin a host in a URL, so a third one has to begin the path.
fn unix(raw: &Raw, rest: &str) -> Reading<PathBuf> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if !path.starts_with('/') || path.contains('\0') {
        return Err(format!("{raw} names no absolute path; write unix:///PATH with three slashes"));
    }
    fits_socket(raw, PathBuf::from(path))
}

fn fits_socket(raw: &Raw, path: PathBuf) -> Reading<PathBuf> {
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_BYTES_MAX {
        return Err(format!("{raw} has {length} bytes; a unix socket's path has at most {SOCKET_PATH_BYTES_MAX}"));
    }
    Ok(path)
}

impl std::fmt::Display for LedgerDep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LedgerDep::Embedded(directory) => write!(f, "embedded:{}", directory.display()),
            LedgerDep::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl std::fmt::Display for AccountingDep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AccountingDep::Embedded(directory) => write!(f, "embedded:{}", directory.display()),
            AccountingDep::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl std::fmt::Display for AuditSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AuditSink::Off => f.write_str("off"),
            AuditSink::File => f.write_str("file"),
            AuditSink::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl std::str::FromStr for Kms {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        kms(&Raw::Text(text.to_owned()))
    }
}

impl std::fmt::Display for Kms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kms::File(None) => f.write_str("file"),
            Kms::File(Some(path)) => write!(f, "file:{}", path.display()),
            Kms::Credential(name) => write!(f, "credential:{name}"),
            Kms::Env(name) => write!(f, "env:{name}"),
        }
    }
}

impl std::fmt::Display for RegistryDep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RegistryDep::File(path) => write!(f, "file:{}", path.display()),
            RegistryDep::Http(url) => f.write_str(url),
        }
    }
}

/// The path of a socket that a daemon is to listen on, written as `unix:///PATH` or as a path alone.
///
/// # Errors
/// What to write instead.
pub fn socket_path(written: &str) -> Result<PathBuf, String> {
    let path = written.strip_prefix("unix://").unwrap_or(written);
    if path.contains("://") || path.contains('\0') || path.is_empty() || (path.len() < written.len() && !path.starts_with('/')) {
        return Err(format!("{written:?} is no socket; write unix:///PATH with three slashes"));
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn every_form_of_a_place_is_understood_and_shown_as_it_is_written() {
        for written in ["unix:///var/run/ron/ledger.sock", "embedded:./var/ledger", "embedded:/srv/ledger"] {
            assert_eq!(ledger(&of(written)).unwrap().to_string(), written);
            assert_eq!(accounting(&of(written)).unwrap().to_string(), written);
        }
        for written in
            ["http://svc-registry:8080", "http://[::1]:80/v1", "http://[::1]", "http://r", "file:./configs/registry.json"]
        {
            assert_eq!(registry(&of(written)).unwrap().to_string(), written);
        }
        for written in ["file", "file:/etc/ron/wallet.key", "credential:wallet.key", "env:WALLET_KEY"] {
            assert_eq!(kms(&of(written)).unwrap().to_string(), written);
        }
        assert_eq!(registry(&of("file:///etc/r.json")), Ok(RegistryDep::File("/etc/r.json".into())));
        assert_eq!(socket(&of("unix:///run/a.sock")), Ok("/run/a.sock".into()));
        assert_eq!(socket(&of("./var/a.sock")), Ok("./var/a.sock".into()));
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for bad in ["", "ledger", "unix:", "unix://var/run/x", "embedded:", "tcp://h:1", "/var/run/ledger.sock", "embedded://"] {
            assert!(ledger(&of(bad)).is_err(), "{bad:?}");
        }
        for bad in
            ["http://", "http://:80", "http://h:", "http://h:0", "http://h:70000", "https://h", "file:", "http://u@h", "h:80"]
        {
            assert!(registry(&of(bad)).is_err(), "{bad:?}");
        }
        for bad in [
            "",
            "aws",
            "file:",
            "credential:",
            "credential:../x",
            "credential:.x",
            "env:",
            "env:A-B",
            "env:A=B",
            "env:ä",
            "Env:A",
        ] {
            assert!(kms(&of(bad)).is_err(), "{bad:?}");
        }
        assert!(kms(&of(&format!("env:{}", "X".repeat(65)))).is_err());
        assert!(socket(&of(&"x".repeat(108))).is_err());
        assert!(socket(&of(&format!("unix:///{}", "x".repeat(107)))).is_err());
        for bad in ["localhost:8080", "8080", "127.0.0.1", "127.0.0.1:99999", "::1:80x"] {
            assert!(address(&of(bad)).is_err(), "{bad:?}");
        }
    }
}
