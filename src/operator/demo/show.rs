//! How a step of the demonstration looks on a screen.
use super::scene::{Asked, Check, Step};
use crate::operator::client::Reply;
use crate::operator::output::{Output, Style};

/// Columns before everything but headings.
const INDENT: usize = 4;
/// JSON up to this length stays on one line.
const ONE_LINE_BYTES_MAX: usize = 110;

/// The step with an empty line after it.
pub fn step(output: &Output, step: &Step) -> String {
    let mut lines = Vec::new();
    let number = output.paint(Style::Faint, &format!("{:>2}", step.number));
    lines.push(format!("{number}  {}", output.paint(Style::Strong, &step.title)));
    lines.extend(wrapped(&step.why, 96).into_iter().map(|line| indented(&line)));
    if let Some((asked, reply)) = &step.exchange {
        lines.push(String::new());
        lines.extend(request(output, asked));
        lines.push(String::new());
        lines.extend(answer(output, reply, step.same_as.as_deref()));
    }
    if !step.facts.is_empty() {
        lines.push(String::new());
        lines.extend(step.facts.iter().map(|fact| indented(fact)));
    }
    if !step.checks.is_empty() {
        lines.push(String::new());
        lines.extend(step.checks.iter().map(|known| check(output, known)));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// One expectation with its mark.
pub fn check(output: &Output, check: &Check) -> String {
    let mark = if check.held { output.paint(Style::Good, "✓") } else { output.paint(Style::Bad, "✗") };
    let text = if check.held { check.what.clone() } else { output.paint(Style::Bad, &check.what) };
    indented(&format!("{mark} {text}"))
}

fn request(output: &Output, asked: &Asked) -> Vec<String> {
    let mut head = format!("{} {}", output.paint(Style::Name, &asked.method), output.paint(Style::Strong, &asked.target));
    let token = asked.token.map_or("no token".to_owned(), |name| format!("token: {name}"));
    let key = asked.key.as_ref().map_or(String::new(), |key| format!(", Idempotency-Key: {key}"));
    head.push_str(&output.paint(Style::Faint, &format!("   ({token}{key})")));
    let mut lines = vec![indented(&head)];
    lines.extend(asked.body.as_ref().map(|body| json(output, body.as_bytes())));
    lines
}

fn answer(output: &Output, reply: &Reply, same_as: Option<&str>) -> Vec<String> {
    let style = if reply.status < 300 { Style::Good } else { Style::Warning };
    let status = output.paint(style, &format!("{} {}", reply.status, reason(reply.status)));
    let mut head = format!("{status}{}", output.paint(Style::Faint, &format!("   {}", elapsed(reply.elapsed))));
    if reply.header("idempotency-replayed") == Some("true") {
        head.push_str(&output.paint(Style::Faint, ", Idempotency-Replayed: true"));
    }
    // What was shown before is not shown again.
    let body = match same_as {
        Some(which) => indented(&output.paint(Style::Faint, &format!("(the {} bytes of {which})", reply.body.len()))),
        None => json(output, &reply.body),
    };
    vec![indented(&head), body]
}

/// A duration as people read it.
pub fn elapsed(duration: std::time::Duration) -> String {
    let micros = duration.as_micros();
    if micros < 1000 {
        format!("{micros} µs")
    } else if micros < 10_000 {
        format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
    } else {
        format!("{} ms", micros / 1000)
    }
}

fn json(output: &Output, bytes: &[u8]) -> String {
    let laid_out = output.pretty(bytes, INDENT);
    if bytes.len() > ONE_LINE_BYTES_MAX {
        return laid_out;
    }
    let joined: Vec<&str> = laid_out.lines().map(str::trim_start).collect();
    indented(&joined.join(" "))
}

fn indented(text: &str) -> String {
    format!("{}{text}", " ".repeat(INDENT))
}

/// The reason phrase of the statuses that the wallet uses.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "",
    }
}

/// Lines of at most `width` columns, broken between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PLAIN: Output = Output { json: false, colour: false, hints: false };

    #[test]
    fn a_step_reads_from_top_to_bottom() {
        let asked = Asked {
            method: "POST".to_owned(),
            target: "/v1/issue".to_owned(),
            token: Some("operator"),
            key: Some("k-1".to_owned()),
            body: Some(r#"{"to":"alice","asset":"roc"}"#.to_owned()),
        };
        let reply = Reply {
            status: 409,
            headers: Vec::new(),
            body: br#"{"code":"NONCE_CONFLICT"}"#.to_vec(),
            elapsed: Duration::from_micros(1234),
        };
        let shown = step(
            &PLAIN,
            &Step {
                number: 7,
                title: "Title".to_owned(),
                why: "Because.".to_owned(),
                exchange: Some((asked, reply)),
                same_as: None,
                facts: Vec::new(),
                checks: vec![Check::new("good", true), Check::new("bad", false)],
            },
        );
        let expected = "\u{20}7  Title\n    Because.\n\n    POST /v1/issue   (token: operator, Idempotency-Key: k-1)\n    \
                        { \"to\": \"alice\", \"asset\": \"roc\" }\n\n    409 Conflict   1.2 ms\n    { \"code\": \"NONCE_CONFLICT\" }\n\n    \
                        ✓ good\n    ✗ bad\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn long_json_takes_a_line_for_each_member() {
        let long = format!("{{\"a\":\"{}\",\"b\":1}}", "x".repeat(ONE_LINE_BYTES_MAX));
        assert_eq!(json(&PLAIN, long.as_bytes()).lines().count(), 4);
    }

    #[test]
    fn words_are_kept_whole() {
        assert_eq!(wrapped("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrapped("aaaaaaaa b", 5), ["aaaaaaaa", "b"]);
        assert!(wrapped("", 5).is_empty());
    }
}
