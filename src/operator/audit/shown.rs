//! A line of the stream as a person reads it. Programs get the line itself.
use crate::audit::Line;
use crate::operator::members::{readable, Members};
use crate::operator::output::{grouped, printable, rfc3339, Output, Style};

/// Members that every line has, or that are told before the others.
const COMMON: [&str; 5] = ["v", "n", "ts", "kind", "hash"];

/// What is printed for a line, without a line feed: the line itself for programs.
pub fn shown(output: &Output, line: &[u8]) -> Vec<u8> {
    let bare = line.strip_suffix(b"\n").unwrap_or(line);
    if output.json {
        return bare.to_vec();
    }
    match Line::read(bare) {
        Some(read) => text(output, &read, bare).into_bytes(),
        None => output.paint(Style::Bad, &printable(&String::from_utf8_lossy(bare))).into_bytes(),
    }
}

fn text(output: &Output, line: &Line<'_>, bare: &[u8]) -> String {
    let time = rfc3339(line.ts).unwrap_or_else(|| line.ts.to_string());
    let head = output.paint(Style::Faint, &format!("{:>8}  {time:<24}", line.n));
    if &*line.kind != "op" {
        let members = Members::read(bare).unwrap_or_default().0;
        let rest = members.iter().filter(|(name, _)| !COMMON.contains(&name.as_str()));
        let rest: Vec<String> = rest.map(|(name, value)| format!("{} {}", printable(name), readable(value))).collect();
        return format!("{head}  {}  {}", output.paint(Style::Strong, &line.kind), rest.join("  "));
    }
    let outcome = line.outcome.as_deref().unwrap_or("?");
    let style = if outcome == "accepted" { Style::Good } else { Style::Warning };
    let mut parts = vec![output.paint(style, outcome)];
    parts.extend(line.code.as_deref().map(printable));
    parts.push(line.op.as_deref().unwrap_or("?").to_owned());
    parts.extend(match (line.from.as_deref(), line.to.as_deref()) {
        (Some(from), Some(to)) => Some(format!("{from} -> {to}")),
        (Some(from), None) => Some(format!("from {from}")),
        (None, Some(to)) => Some(format!("to {to}")),
        (None, None) => None,
    });
    let amount = line.amount_minor.as_deref().map(|amount| amount.parse().map_or_else(|_| amount.to_owned(), grouped));
    parts.extend(amount.zip(line.asset.as_deref()).map(|(amount, asset)| format!("{amount} {asset}")));
    parts.extend(line.seq.map(|seq| format!("entry {}", grouped(u128::from(seq)))));
    parts.extend(line.nonce.map(|nonce| format!("nonce {nonce}")));
    let named =
        |name: &str, value: &Option<crate::audit::Text<'_>>| value.as_deref().map(|value| format!("{name} {}", printable(value)));
    parts.extend(named("key", &line.idem));
    parts.extend(named("subject", &line.subject));
    parts.extend(named("token", &line.token_id));
    parts.extend(named("corr", &line.corr_id));
    format!("{head}  {}", parts.join("  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Output = Output { json: false, colour: false, hints: false };

    #[test]
    fn operations_and_events_are_told_in_a_line() {
        let refused = br#"{"v":1,"n":7,"ts":1500,"kind":"op","outcome":"refused","code":"FORBIDDEN","op":"transfer","from":"a","to":"b","asset":"roc","amount_minor":"12345","nonce":3,"idem":"k-3","subject":"al\u001bice","corr_id":"c","hash":"00"}"#;
        let told = String::from_utf8(shown(&PLAIN, refused)).unwrap();
        assert_eq!(
            told,
            "       7  1970-01-01T00:00:01.5Z    refused  FORBIDDEN  transfer  a -> b  12_345 roc  nonce 3  key k-3  subject al\u{fffd}ice  corr c"
        );
        let event = b"{\"v\":1,\"n\":8,\"ts\":0,\"kind\":\"event\",\"event\":\"start\",\"ok\":true,\"hash\":\"00\"}\n";
        let told = String::from_utf8(shown(&PLAIN, event)).unwrap();
        assert!(told.ends_with("  event  event start  ok true"), "{told}");
        let json = Output { json: true, ..PLAIN };
        assert_eq!(shown(&json, event), event[..event.len() - 1]);
        assert_eq!(shown(&PLAIN, b"\x1b[2J"), "\u{fffd}[2J".as_bytes());
    }
}
