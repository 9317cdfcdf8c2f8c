//! `ronctl dto lint`: the shapes of requests and replies that this version has, held against an OpenAPI document and golden vectors.
//!
//! Both are built in, so that an installed `ronctl` needs no sources; other copies are read from where the command line says.
use super::difference::Report;
use super::product::Product;
use super::schema::Document;
use super::{errors, replies, requests, vectors, Vectors};
use crate::control::SERVICE;
use crate::operator::context::{known_service, Context};
use crate::operator::exit::{Exit, Failure};
use crate::operator::output::{grouped, Style};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl dto lint svc-wallet
  ronctl dto lint svc-wallet --openapi gateway/openapi.yaml --vectors gateway/vectors
  ronctl --json dto lint svc-wallet

Needs no server and no configuration. Without options it checks the document and the vectors of this version, which are built in; with
them, copies that a gateway or a client was built against. Ends with 1 if anything differs, and tells for each difference the file, the place
in it, what it says, what this version does, and what to do.")]
pub struct Lint {
    /// The service: svc-wallet
    service: String,
    /// An OpenAPI document in place of the one that is built in
    #[arg(long, value_name = "FILE")]
    openapi: Option<PathBuf>,
    /// A directory with requests.json, receipts.json and errors.json in place of the vectors that are built in
    #[arg(long, value_name = "DIR")]
    vectors: Option<PathBuf>,
}

/// What is held against this version: the texts, with the names of their files.
#[derive(Clone, Debug)]
pub struct Copies {
    /// The OpenAPI document.
    pub openapi: (String, String),
    /// The vectors.
    pub vectors: Vectors,
}

impl Copies {
    /// Those of this version.
    pub fn built_in() -> Self {
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        Self {
            openapi: file("docs/openapi.yaml", include_str!("../../../docs/openapi.yaml")),
            vectors: Vectors {
                requests: file("tests/vectors/requests.json", include_str!("../../../tests/vectors/requests.json")),
                receipts: file("tests/vectors/receipts.json", include_str!("../../../tests/vectors/receipts.json")),
                errors: file("tests/vectors/errors.json", include_str!("../../../tests/vectors/errors.json")),
            },
        }
    }
}

/// Why nothing could be compared.
pub type Fault = Failure;

/// Holds the copies against this version.
///
/// # Errors
/// If the document is none at all, or the system gives no randomness for a key.
pub fn lint(copies: &Copies) -> Result<Report, Fault> {
    let (file, text) = &copies.openapi;
    let document = Document::read(file, text)
        .map_err(|fault| Failure::usage(format!("{file}: {fault}"), "name an OpenAPI document with --openapi"))?;
    let (mut report, mut product) = (Report::default(), Product::new()?);
    document.check_form(&mut report);
    requests::check(&document, &mut product, &mut report);
    replies::check(&document, &mut product, &mut report);
    errors::check(&document, &mut report);
    vectors::check(&copies.vectors, &mut product, &mut report);
    Ok(report)
}

impl Lint {
    /// Compares and tells.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        known_service(&self.service)?;
        let mut copies = Copies::built_in();
        if let Some(file) = &self.openapi {
            copies.openapi = read(file)?;
        }
        if let Some(directory) = &self.vectors {
            let file = |name: &str| read(&directory.join(name));
            copies.vectors =
                Vectors { requests: file("requests.json")?, receipts: file("receipts.json")?, errors: file("errors.json")? };
        }
        let report = lint(&copies)?;
        let ok = report.differences.is_empty();
        let output = &context.output;
        if output.json {
            let checked = json!({"schemas": report.schemas, "values": report.values, "vectors": report.vectors});
            output.value(&json!({"service": SERVICE, "ok": ok, "checked": checked, "differences": report.differences}))?;
            return Ok(if ok { Exit::Done } else { Exit::No });
        }
        for difference in &report.differences {
            output.line(&difference.to_string())?;
        }
        let count = |number: usize| grouped(number as u128);
        let looked_at =
            format!("{} schemas, {} values, {} vectors", count(report.schemas), count(report.values), count(report.vectors));
        let told = match report.differences.len() {
            0 => output.paint(Style::Good, &format!("{SERVICE}: no difference in {looked_at}")),
            1 => output.paint(Style::Bad, &format!("{SERVICE}: 1 difference in {looked_at}")),
            many => output.paint(Style::Bad, &format!("{SERVICE}: {} differences in {looked_at}", count(many))),
        };
        output.line(&told)?;
        Ok(if ok { Exit::Done } else { Exit::No })
    }
}

fn read(path: &Path) -> Result<(String, String), Failure> {
    let name = path.display().to_string();
    let failure = |fault: String| Failure::usage(format!("{name}: {fault}"), "name the copy that is to be checked");
    let size = std::fs::metadata(path).map_err(|fault| failure(fault.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(failure(format!("{size} bytes, and {FILE_BYTES_MAX} are the most that is read")));
    }
    let text = std::fs::read_to_string(path).map_err(|fault| failure(fault.to_string()))?;
    Ok((name, text))
}
