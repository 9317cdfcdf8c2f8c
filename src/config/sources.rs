//! From flags, environment, file and defaults to one written value per key, each with its origin.
//!
//! The strongest source wins: flags, then environment, then file, then defaults. Nothing is read from the process but
//! what [`Sources`] hands in, and nothing is interpreted here.
use super::error::{Origin, Problem};
use super::keys::{find, is_section, nearest, nearest_section, Key, CONFIG_ENV, KEYS};
use super::raw::{line_of, parse, Raw};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What the command line may say about the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Configuration file; otherwise RON_CONFIG, else ./configs/svc-wallet.toml, else /etc/ron/svc-wallet.toml; root looks there first.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key, whatever the file and the environment say; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

/// Everything that a configuration is made from.
pub struct Sources<'a> {
    /// The command line.
    pub flags: Flags,
    /// The environment: the value of a variable, if it is set. An empty one counts as not set.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Where a file is looked for if neither flag nor environment names one; the first that is there is read.
    pub files_default: &'a [&'a str],
}

impl Sources<'static> {
    /// The flags given, this process's environment, and the first of [`files_default`] that is there if no file is named.
    pub fn of_process(flags: Flags) -> Self {
        let env = &|name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self { flags, env, files_default: files_default() }
    }
}

/// Where a file is looked for if none is named: beside the sources, and where a server is installed. Root looks there first: in the working
/// directory anybody may have put one.
pub fn files_default() -> &'static [&'static str] {
    const HERE: &str = "./configs/svc-wallet.toml";
    const INSTALLED: &str = "/etc/ron/svc-wallet.toml";
    if rustix::process::geteuid().is_root() {
        &[INSTALLED, HERE]
    } else {
        &[HERE, INSTALLED]
    }
}

/// The first of these files that is there.
pub fn first_there(files: &[&str]) -> Option<PathBuf> {
    files.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The strongest written value of each key, and what was wrong on the way.
pub(super) struct Merged {
    /// Keys that have a value.
    pub values: BTreeMap<&'static str, (Raw, Origin)>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Where a file was looked for and none is.
    pub absent: Vec<String>,
    /// Unknown names, unreadable files, malformed flags.
    pub problems: Vec<Problem>,
    /// There is a file that could not be read, which is a problem: what has no value may have one in there.
    pub unread: bool,
}

/// Merges the sources, weakest first, so that each stronger one replaces what stands.
pub(super) fn merge(sources: &Sources<'_>) -> Merged {
    let (values, problems) = (BTreeMap::new(), Vec::new());
    let mut merged = Merged { values, file: None, absent: Vec::new(), problems, unread: false };
    for key in &KEYS {
        if let Some(default) = key.default {
            merged.values.insert(key.name, (Raw::Text(default.to_owned()), Origin::Default));
        }
    }
    let env = |name: &str| (sources.env)(name).filter(|value| !value.trim().is_empty());
    let named = sources.flags.config.clone().or_else(|| env(CONFIG_ENV).map(PathBuf::from));
    if let Some(path) = named.or_else(|| first_there(sources.files_default)) {
        match read(&path) {
            Ok(text) => merged.add_file(&path, &text),
            Err(message) => {
                merged.problem(path.display().to_string(), None, message);
                merged.unread = true;
            }
        }
        merged.file = Some(path);
    } else {
        merged.absent = sources.files_default.iter().map(|file| (*file).to_owned()).collect();
    }
    for key in &KEYS {
        if let Some((name, value)) = key.env.and_then(|name| env(name).map(|value| (name, value))) {
            merged.values.insert(key.name, (Raw::Text(value), Origin::Env(name)));
        }
    }
    for flag in &sources.flags.set {
        merged.add_flag(flag);
    }
    merged
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read ({error}); name another file with --config or {CONFIG_ENV}");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes; this is no configuration file"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text; save it as UTF-8".to_owned())
}

impl Merged {
    fn problem(&mut self, subject: String, origin: Option<Origin>, message: String) {
        self.problems.push(Problem { subject, origin, message });
    }

    /// Takes the values of a file with this text.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) {
        let at = |line| Origin::File { path: path.to_owned(), line };
        let document = match parse(text) {
            Ok(document) => document,
            Err((message, line)) => {
                self.unread = true;
                return self.problem(path.display().to_string(), Some(at(line)), message);
            }
        };
        for (section, value) in document {
            let origin = at(line_of(text, section.span().start));
            let section = section.into_inner();
            let Raw::Table(entries) = value else {
                let known = nearest(&section);
                let message = format!("stands outside a section; did you mean `{known}`? Keys are written under their [section]");
                self.problem(section, Some(origin), message);
                continue;
            };
            if !is_section(&section) {
                let message = format!("there is no such section; did you mean [{}]?", nearest_section(&section));
                self.problem(format!("[{section}]"), Some(origin), message);
                continue;
            }
            for (name, value) in entries {
                let origin = at(line_of(text, name.span().start));
                let full = format!("{section}.{}", name.into_inner());
                if let Some(key) = self.known(&full, &origin) {
                    self.values.insert(key.name, (value, origin));
                }
            }
        }
    }

    fn add_flag(&mut self, flag: &str) {
        let Some((name, value)) = flag.split_once('=') else {
            let message = "is not of the form section.key=value; write for example --set limits.inflight=2048".to_owned();
            return self.problem(format!("--set {flag}"), None, message);
        };
        if let Some(key) = self.known(name.trim(), &Origin::Flag) {
            self.values.insert(key.name, (Raw::Text(value.to_owned()), Origin::Flag));
        }
    }

    /// The key of this name; an unknown one is noted together with what was probably meant.
    fn known(&mut self, name: &str, origin: &Origin) -> Option<&'static Key> {
        let key = find(name);
        if key.is_none() {
            let message = format!("there is no such key; did you mean `{}`?", nearest(name));
            self.problem(name.to_owned(), Some(origin.clone()), message);
        }
        key
    }
}
