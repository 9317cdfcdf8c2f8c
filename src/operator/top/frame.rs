//! One frame as text: blocks of names and values, in as many columns as the terminal has room for, cut to its width. Knows neither the
//! terminal nor the server.
use super::figures::{Counted, Figures, Quantiles};
use crate::operator::output::{bar, grouped, printable, Output, Style};
use crate::operator::status::drain_of;
use serde_json::Value;

/// Narrowest column, in characters, with the gap behind it.
const COLUMN_CHARS: usize = 41;
/// Most columns.
const COLUMNS_MAX: usize = 3;
/// Characters between two columns.
const GAP_CHARS: usize = 3;
/// Length of the bar of a core, in characters.
const BAR_CHARS: usize = 12;
/// Latency of the 95% that the service aims at, in seconds.
const TARGET_SECONDS: f64 = 0.15;
/// What the reasons of the dependencies are called on the page of readiness.
const DEPENDENCIES: [&str; 4] = ["ledger", "accounting", "policy", "registry"];

/// A name and what is said of it.
struct Row {
    name: String,
    value: String,
    style: Option<Style>,
}

/// Rows under a title.
struct Block {
    title: &'static str,
    rows: Vec<Row>,
}

/// Text with its style, and how many characters of the line it takes.
type Piece = (Option<Style>, String);

/// The frame, a line each. `gone` says why the server does not answer, if it does not; then the figures are the last that there were.
pub fn frame(output: &Output, figures: Option<&Figures>, gone: Option<&str>, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |pieces: Vec<Piece>| lines.push(painted(output, pieces, width));
    let Some(figures) = figures else {
        let why = gone.unwrap_or("nothing is known yet");
        add(vec![(Some(Style::Strong), "svc-wallet".to_owned())]);
        wrapped(why, width).into_iter().for_each(|line| add(vec![(Some(Style::Warning), line)]));
        return lines;
    };
    add(heading(figures, gone.is_some()));
    for (style, told) in troubles(figures, gone) {
        wrapped(&told, width).into_iter().for_each(|line| add(vec![(Some(style), line)]));
    }
    add(Vec::new());
    let columns = ((width + GAP_CHARS) / COLUMN_CHARS).clamp(1, COLUMNS_MAX);
    let column_chars = (width + GAP_CHARS) / columns - GAP_CHARS;
    let blocks = blocks(figures);
    let all: usize = blocks.iter().map(|block| block.rows.len() + 2).sum();
    let (mut laid, mut filled) = (vec![Vec::new()], 0);
    for block in blocks {
        let lines = block_lines(block, column_chars);
        // The next column begins where a part of all lines is reached, so that they end about level.
        if filled + lines.len() / 2 > all * laid.len() / columns && laid.len() < columns {
            laid.push(Vec::new());
        }
        filled += lines.len();
        laid.last_mut().expect("there is a column").extend(lines);
    }
    for at in 0..laid.iter().map(Vec::len).max().unwrap_or(0) {
        let mut pieces: Vec<Piece> = Vec::new();
        for (index, column) in laid.iter().enumerate() {
            let (cells, chars) = column.get(at).map_or((Vec::new(), 0), |cells: &Vec<Piece>| (cells.clone(), length(cells)));
            pieces.extend(cells);
            if index + 1 < laid.len() {
                pieces.push((None, " ".repeat(column_chars - chars.min(column_chars) + GAP_CHARS)));
            }
        }
        add(pieces);
    }
    lines
}

fn length(pieces: &[Piece]) -> usize {
    pieces.iter().map(|(_, text)| text.chars().count()).sum()
}

/// The pieces one behind the other, cut at this many characters.
fn painted(output: &Output, pieces: Vec<Piece>, width: usize) -> String {
    let (mut line, mut left) = (String::new(), width);
    for (style, text) in pieces {
        let cut: String = text.chars().take(left).collect();
        left -= cut.chars().count();
        match style {
            Some(style) if !cut.trim().is_empty() => line.push_str(&output.paint(style, &cut)),
            Some(_) | None => line.push_str(&cut),
        }
    }
    line.trim_end().to_owned()
}

/// A sentence over as many lines as it needs.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in printable(text).split_whitespace() {
        let line = lines.last_mut().expect("there is a line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines
}

fn heading(figures: &Figures, gone: bool) -> Vec<Piece> {
    let text = |name: &str| figures.version[name].as_str().map(printable).unwrap_or_else(|| "?".to_owned());
    let (word, style) = match (gone, figures.ready()) {
        (true, _) => ("no answer", Style::Bad),
        (false, true) => ("ready", Style::Good),
        (false, false) => ("not ready", Style::Bad),
    };
    let up = figures.up_seconds.map_or_else(String::new, |seconds| format!(", up {}", span(seconds)));
    vec![
        (Some(Style::Strong), format!("{} {}", text("name"), text("version"))),
        (None, " ".to_owned()),
        (Some(style), word.to_owned()),
        (Some(Style::Faint), format!(" at {}{up}", figures.asked)),
    ]
}

/// What has to be seen first, if anything has.
fn troubles(figures: &Figures, gone: Option<&str>) -> Vec<(Style, String)> {
    let mut found: Vec<(Style, String)> = gone.map(|why| (Style::Bad, why.to_owned())).into_iter().collect();
    let readiness = &figures.readiness;
    let flag = |name: &str| readiness[name] == Value::Bool(true);
    if gone.is_none() && !figures.ready() {
        let served = match (flag("reads"), flag("writes")) {
            (true, true) => "reads and writes are served",
            (true, false) => "reads are served, writes are not",
            (false, true) => "writes are served, reads are not",
            (false, false) => "nothing is served",
        };
        let drain = if flag("draining") { format!("; {}", drain_of(readiness)) } else { String::new() };
        found.push((Style::Bad, format!("not ready: {served}{drain}")));
        for name in readiness["missing"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let why = readiness["reasons"][name].as_str().map_or_else(String::new, |why| format!(": {why}"));
            found.push((Style::Bad, format!("{name} is missing{why}")));
        }
    }
    if flag("pressure") {
        let why = readiness["reasons"]["pressure"].as_str().unwrap_or("more work arrives than is done");
        found.push((Style::Warning, format!("under pressure: {why}")));
    }
    if figures.violations > 0.0 {
        found.push((Style::Bad, "the audit has found that what is served is not what the ledger says".to_owned()));
    }
    if let Some(active) = figures.faults_active.filter(|active| *active > 0.0) {
        found.push((Style::Warning, format!("faults are injected on purpose: {} active", number(Some(active)))));
    }
    found
}

fn row(name: impl Into<String>, value: impl Into<String>, style: Option<Style>) -> Row {
    Row { name: name.into(), value: value.into(), style }
}

fn blocks(figures: &Figures) -> Vec<Block> {
    let per_second = |counted: &Counted| row(&*counted.name, number(counted.per_second), None);
    let mut requests = vec![
        row("all a second", number(figures.requests_per_second), Some(Style::Strong)),
        row("5xx a second", number(figures.errors_per_second), bad_if(figures.errors_per_second)),
        row("in flight", number(figures.inflight), None),
        row("connections", number(figures.connections), None),
    ];
    requests.extend(figures.operations.iter().map(per_second));
    let Quantiles { p50, p95, p99 } = figures.latency;
    let late = p95.filter(|seconds| *seconds > TARGET_SECONDS).map(|_| Style::Warning);
    let latency =
        vec![row("p50", time(p50), None), row("p95", time(p95), late.or(Some(Style::Strong))), row("p99", time(p99), None)];
    let cores = figures.cores.iter().map(|core| {
        // A part has a fraction, and a bar has none.
        let busy = core.busy.map_or(0, |busy| (busy * 100.0).round() as u64);
        let replies = &core.replies;
        row(
            format!("core {}", replies.name),
            format!("{} {busy:>3}% {:>9}", bar(busy, 100, BAR_CHARS), number(replies.per_second)),
            None,
        )
    });
    let ledger = &figures.ledger;
    let missing =
        |name: &str| figures.readiness["missing"].as_array().is_some_and(|missing| missing.iter().any(|one| one == name));
    let there = |name: &str| if missing(name) { ("missing", Style::Bad) } else { ("there", Style::Good) };
    let (connection, style) = if missing("ledger") { ("missing", Style::Bad) } else { ("connected", Style::Good) };
    let ledger = vec![
        row("connection", connection, Some(style)),
        row("sequence", number(ledger.height), Some(Style::Strong)),
        row("audited through", number(ledger.audited), None),
        row("snapshot through", number(ledger.snapshot), None),
        row("commits a second", number(ledger.commits_per_second), None),
        row("entries in a commit", number(ledger.entries_per_commit), None),
        row("commit p50", time(ledger.commit.p50), None),
        row("commit p99", time(ledger.commit.p99), None),
        row("waiting", number(ledger.pending), None),
        row("connect errors", number(ledger.connect_errors), None),
    ];
    let mut readiness: Vec<Row> = DEPENDENCIES
        .iter()
        .map(|name| {
            let (word, style) = there(name);
            row(*name, word, Some(style))
        })
        .collect();
    for name in ["writes", "reads"] {
        let served = figures.readiness[name] == Value::Bool(true);
        readiness.push(row(name, if served { "served" } else { "refused" }, Some(if served { Style::Good } else { Style::Bad })));
    }
    let refusals = figures.refusals.iter().map(|refused| {
        let value = format!("{:>9} {:>11}", number(refused.per_second), number(Some(refused.total)));
        row(&*refused.name, value, refused.per_second.filter(|rate| *rate > 0.0).map(|_| Style::Warning))
    });
    let versions = &figures.versions;
    let versions = [("policy", versions.policy), ("registry", versions.registry), ("keyring", versions.keyring)];
    vec![
        Block { title: "REQUESTS", rows: requests },
        Block { title: "LATENCY", rows: latency },
        Block { title: "LEDGER", rows: ledger },
        Block { title: "READINESS", rows: readiness },
        Block { title: "CORES, busy, and replies a second", rows: cores.collect() },
        Block { title: "REFUSALS, a second and since the start", rows: refusals.collect() },
        Block { title: "VERSIONS", rows: versions.map(|(name, version)| row(name, number(version), None)).into() },
    ]
}

fn bad_if(value: Option<f64>) -> Option<Style> {
    value.filter(|value| *value > 0.0).map(|_| Style::Bad)
}

/// Title, rows with the value at the right edge, and an empty line.
fn block_lines(block: Block, chars: usize) -> Vec<Vec<Piece>> {
    let mut lines = vec![vec![(Some(Style::Name), block.title.chars().take(chars).collect())]];
    for Row { name, value, style } in block.rows {
        let value: String = value.chars().take(chars).collect();
        let room = chars - value.chars().count();
        let name: String = name.chars().take(room.saturating_sub(1)).collect();
        let space = " ".repeat(room - name.chars().count());
        lines.push(vec![(Some(Style::Faint), name), (None, space), (style, value)]);
    }
    lines.push(Vec::new());
    lines
}

/// A figure as people read it.
fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 100.0 || value.fract() == 0.0 => grouped(value.round().max(0.0) as u128),
        Some(value) => format!("{value:.1}"),
    }
}

/// A time in seconds as people read it.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.2} s"),
    }
}

fn span(seconds: f64) -> String {
    let seconds = seconds as u64;
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
