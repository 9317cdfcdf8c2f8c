//! Rust sources as far as the rules of `architecture.rs` look at them: code without comments, literals and tests, its words
//! and signs, and the paths that it names. It knows no rule.

/// Replaces comments and the contents of literals by spaces; byte offsets and line feeds stay.
pub fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => text_end(bytes, at),
            b'r' if !is_word_before(bytes, at) => raw_text_end(bytes, at).unwrap_or(at),
            b'\'' => char_end(bytes, at).unwrap_or(at),
            _ => at,
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("whole literals and comments were replaced")
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    (from..bytes.len()).find(|at| bytes[*at..].starts_with(what)).unwrap_or(bytes.len())
}

fn block_comment_end(bytes: &[u8], from: usize) -> usize {
    let (mut depth, mut at) = (0, from);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn text_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn raw_text_end(bytes: &[u8], from: usize) -> Option<usize> {
    let hashes = bytes[from + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = from + 1 + hashes;
    (bytes.get(open) == Some(&b'"')).then(|| {
        let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
        (find(bytes, open + 1, &close) + close.len()).min(bytes.len())
    })
}

/// The end of a character literal; `None` for a lifetime.
fn char_end(bytes: &[u8], from: usize) -> Option<usize> {
    if bytes.get(from + 1) == Some(&b'\\') {
        return Some(find(bytes, from + 3, b"'") + 1);
    }
    let close = find(bytes, from + 1, b"'");
    let inner = std::str::from_utf8(bytes.get(from + 1..close)?).ok()?;
    (close < bytes.len() && inner.chars().count() == 1).then_some(close + 1)
}

fn is_word_before(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || (bytes[at - 1] == b'_'))
}

/// Blanks every item that stands under `#[cfg(test)]`.
pub fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    while let Some(start) = out.find(MARK) {
        let body = out[start..].find(['{', ';']).map_or(out.len(), |at| start + at);
        let mut depth = 0i32;
        let mut end = out.len();
        for (at, letter) in out[body..].char_indices() {
            depth += i32::from(letter == '{') - i32::from(letter == '}');
            if depth == 0 {
                end = body + at + letter.len_utf8();
                break;
            }
        }
        let blank: String = out[start..end].chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// A word or a sign of the code with the line on which it stands.
#[derive(Clone, Copy, PartialEq)]
pub struct Token<'a> {
    /// The word or sign itself.
    pub text: &'a str,
    /// Its line, from 1.
    pub line: usize,
}

pub fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
            let length = match first {
                _ if is_word(first) => rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                _ => first.len_utf8(),
            };
            tokens.push(Token { text: &rest[..length], line: index + 1 });
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Every path that the code names, with groups of `use` written out, and the line on which it ends.
pub fn paths(code: &str) -> Vec<(Vec<&str>, usize)> {
    let tokens = tokens(code);
    let (mut paths, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        at = path_at(&tokens, at, &[], &mut paths);
    }
    paths
}

/// Reads one path, or one branch of a group, and returns where it ends.
fn path_at<'a>(tokens: &[Token<'a>], from: usize, prefix: &[&'a str], paths: &mut Vec<(Vec<&'a str>, usize)>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let is_word = |at: usize| text(at).starts_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    if !is_word(from) {
        return from + 1;
    }
    if text(from) == "as" && !prefix.is_empty() {
        return from + 2;
    }
    let (mut path, mut at) = ([prefix, &[text(from)]].concat(), from + 1);
    while text(at) == "::" {
        if text(at + 1) == "{" {
            at += 2;
            while at < tokens.len() && text(at) != "}" {
                at = path_at(tokens, at, &path, paths);
            }
            return at + 1;
        }
        if !is_word(at + 1) && text(at + 1) != "*" {
            break;
        }
        path.push(text(at + 1));
        at += 2;
    }
    paths.push((path, tokens[at - 1].line));
    at
}
