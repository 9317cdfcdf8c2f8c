//! How `ronctl` speaks: colour only where a person looks at it, tables, JSON as the server ordered it.
//!
//! Results go to standard output, remarks and failures to standard error. A reader that went away (`| head`) is no fault.
//! This file does not know what any command does.
use std::io::{ErrorKind, IsTerminal, Write};

use super::exit::Failure;
use crate::domain::misleads;
use serde_json::{json, Value};

/// What a piece of text is, for the choice of its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A heading, or the value that was asked for.
    Strong,
    /// Of minor interest.
    Faint,
    /// As it should be.
    Good,
    /// Worth a look.
    Warning,
    /// Not as it should be.
    Bad,
    /// A name: of a field, a method, a step.
    Name,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Style::Strong => "1",
            Style::Faint => "2",
            Style::Good => "32",
            Style::Warning => "33",
            Style::Bad => "31",
            Style::Name => "36",
        }
    }
}

/// Where and how a command prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Print JSON for programs instead of text for people.
    pub json: bool,
    /// Colour standard output.
    pub colour: bool,
    /// Standard error is a terminal: hints and progress make sense there.
    pub hints: bool,
}

impl Output {
    /// Looks at the two streams and at `NO_COLOR` (<https://no-color.org>: any value but the empty one).
    pub fn detect(json: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = !json && !no_color && std::io::stdout().is_terminal();
        Self { json, colour, hints: std::io::stderr().is_terminal() }
    }

    /// Text in the colour of a style, or as it is.
    pub fn paint(&self, style: Style, text: &str) -> String {
        if self.colour {
            format!("\x1b[{}m{text}\x1b[0m", style.code())
        } else {
            text.to_owned()
        }
    }

    /// Writes text and a line feed to standard output.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush());
        match written {
            Err(fault) if fault.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(fault) => Err(Failure::output(&fault)),
            Ok(()) => Ok(()),
        }
    }

    /// Writes a value as one line of JSON to standard output.
    pub fn value(&self, value: &Value) -> Result<(), Failure> {
        self.line(&value.to_string())
    }

    /// Writes a remark to standard error, if a person sees it there. Whether that works does not matter to the result.
    pub fn hint(&self, text: &str) {
        if self.hints && !self.json {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Overwrites the current line of standard error, if it is a terminal; an empty text removes it.
    pub fn progress(&self, text: &str) {
        if self.hints && !self.json {
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
        }
    }

    /// Writes a failure to standard error, as text or as JSON.
    pub fn failure(&self, failure: &Failure) {
        self.failure_with(failure, json!({}));
    }

    /// The same, with the members of another object beside `error` for programs.
    pub fn failure_with(&self, failure: &Failure, mut members: Value) {
        let text = if self.json {
            members["error"] = json!({"exit": failure.exit as u8, "message": failure.message, "next": failure.next});
            members.to_string()
        } else {
            format!("ronctl: {failure}")
        };
        // If standard error is gone, the exit code still tells.
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Names and values, one pair a line, values aligned.
    pub fn fields(&self, rows: &[(&str, String)]) -> String {
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut lines = Vec::with_capacity(rows.len());
        for (name, value) in rows {
            let padding = " ".repeat(width - name.chars().count());
            lines.push(format!("{}{padding}  {value}", self.paint(Style::Faint, name)));
        }
        lines.join("\n")
    }

    /// JSON text with one member a line, in the order in which it came, each line behind `indent` spaces. Text that is no
    /// JSON is returned as it is, made safe for a terminal.
    pub fn pretty(&self, json: &[u8], indent: usize) -> String {
        match std::str::from_utf8(json) {
            Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => self.reindent(text, indent),
            Ok(_) | Err(_) => format!("{}{}", " ".repeat(indent), printable(&String::from_utf8_lossy(json))),
        }
    }

    /// Lays out well-formed JSON anew without reading it into values, which would lose the order of its members.
    fn reindent(&self, text: &str, indent: usize) -> String {
        let mut out = " ".repeat(indent);
        let mut depth = 0usize;
        let mut rest = text.trim();
        while let Some(first) = rest.chars().next() {
            let mut taken = first.len_utf8();
            match first {
                '{' | '[' => {
                    out.push(first);
                    let inside = rest[1..].trim_start();
                    if inside.starts_with(['}', ']']) {
                        out.push_str(&inside[..1]);
                        rest = &inside[1..];
                        continue;
                    }
                    depth += 1;
                    new_line(&mut out, indent, depth);
                }
                '}' | ']' => {
                    depth = depth.saturating_sub(1);
                    new_line(&mut out, indent, depth);
                    out.push(first);
                }
                ',' => {
                    out.push(',');
                    new_line(&mut out, indent, depth);
                }
                ':' => out.push_str(": "),
                '"' => {
                    taken = string_length(rest);
                    let is_name = rest[taken..].trim_start().starts_with(':');
                    let style = if is_name { Style::Name } else { Style::Good };
                    out.push_str(&self.paint(style, &printable(&rest[..taken])));
                }
                space if space.is_ascii_whitespace() => {}
                _ => {
                    taken = rest.find([',', '}', ']', ' ', '\n', '\r', '\t']).unwrap_or(rest.len());
                    out.push_str(&self.paint(Style::Warning, &rest[..taken]));
                }
            }
            rest = &rest[taken..];
        }
        out
    }
}

fn new_line(out: &mut String, indent: usize, depth: usize) {
    out.push('\n');
    out.push_str(&" ".repeat(indent + 2 * depth));
}

/// Bytes of the JSON string at the start of `text`, both quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Replaces control characters and those that change the direction of others, so that text from elsewhere can neither steer a terminal nor
/// show itself as something else.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if misleads(c) && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// A number with thin groups of three digits, as people read it: `1_234_567`.
pub fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push('_');
        }
        out.push(digit);
    }
    out
}

/// A moment in milliseconds since the Unix epoch as people read it; `None` if the year has no four digits.
pub fn rfc3339(unix_ms: u64) -> Option<String> {
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok()?;
    time.format(&time::format_description::well_known::Rfc3339).ok()
}

/// How much of a whole is done, as a bar of `width` characters.
pub fn bar(done: u64, whole: u64, width: usize) -> String {
    let filled = (u128::from(done.min(whole)) * width as u128 / u128::from(whole.max(1))) as usize;
    format!("[{}{}]", "#".repeat(filled), ".".repeat(width - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Output = Output { json: false, colour: false, hints: false };
    const COLOURED: Output = Output { json: false, colour: true, hints: false };

    #[test]
    fn json_keeps_its_order_and_its_text() {
        let cases = [
            (r#"{"b":1,"a":[true,null],"c":{}}"#, "{\n  \"b\": 1,\n  \"a\": [\n    true,\n    null\n  ],\n  \"c\": {}\n}"),
            (r#"{"q":"a\"b,:{}","n":-1.5e3}"#, "{\n  \"q\": \"a\\\"b,:{}\",\n  \"n\": -1.5e3\n}"),
            ("[ ]", "[]"),
            ("\"x\"", "\"x\""),
            ("7", "7"),
        ];
        for (text, expected) in cases {
            assert_eq!(PLAIN.pretty(text.as_bytes(), 0), expected, "{text}");
        }
        assert_eq!(PLAIN.pretty(br#"{"a":1}"#, 4), "    {\n      \"a\": 1\n    }");
    }

    #[test]
    fn laid_out_json_is_the_same_json() {
        let text = r#"{"a":[[],{},[1,2,{"b":"\\\""}]],"ä":"π","e":""}"#;
        let again: serde_json::Value = serde_json::from_str(&PLAIN.pretty(text.as_bytes(), 3)).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).unwrap());
    }

    #[test]
    fn what_is_no_json_is_shown_without_its_control_characters() {
        assert_eq!(PLAIN.pretty(b"<html>\x1b[2J", 2), "  <html>\u{fffd}[2J");
        assert_eq!(PLAIN.pretty(b"{\"a\":", 0), "{\"a\":");
        assert_eq!(PLAIN.pretty(&[0xff], 0), "\u{fffd}");
    }

    #[test]
    fn colour_is_there_only_when_asked_for() {
        assert_eq!(PLAIN.paint(Style::Bad, "x"), "x");
        assert_eq!(COLOURED.paint(Style::Bad, "x"), "\x1b[31mx\x1b[0m");
        assert!(!PLAIN.pretty(br#"{"a":"b"}"#, 0).contains('\x1b'));
        assert!(COLOURED.pretty(br#"{"a":"b"}"#, 0).contains("\x1b[36m\"a\"\x1b[0m: \x1b[32m\"b\"\x1b[0m"));
    }

    #[test]
    fn fields_are_aligned() {
        let text = PLAIN.fields(&[("a", "1".to_owned()), ("long", "2".to_owned())]);
        assert_eq!(text, "a     1\nlong  2");
    }

    #[test]
    fn digits_are_grouped_from_the_right() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1_000"), (1_234_567, "1_234_567")] {
            assert_eq!(grouped(number), expected);
        }
    }

    #[test]
    fn moments_are_written_as_people_read_them() {
        assert_eq!(rfc3339(1_500).as_deref(), Some("1970-01-01T00:00:01.5Z"));
        assert_eq!(rfc3339(u64::MAX), None);
    }

    #[test]
    fn a_bar_is_as_long_as_what_is_done() {
        for (done, whole, expected) in [(0, 0, "[....]"), (0, 9, "[....]"), (1, 2, "[##..]"), (9, 9, "[####]"), (10, 9, "[####]")]
        {
            assert_eq!(bar(done, whole, 4), expected, "{done} of {whole}");
        }
    }
}
