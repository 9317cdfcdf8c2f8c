//! The query of a read: the parameters that it has, each once, and no other.
//!
//! Values may be percent-encoded; `+` stands for itself, as nothing that is asked for here holds a space.
use crate::domain::{Code, Refusal};

/// The values of the parameters, still encoded, in the order in which they are named. All of them are needed.
pub(super) fn parameters<'q, const N: usize>(query: Option<&'q str>, names: [&'static str; N]) -> Result<[&'q str; N], Refusal> {
    let values = given(query, names)?;
    let mut complete = [""; N];
    for (index, place) in complete.iter_mut().enumerate() {
        *place = values[index].ok_or_else(|| bad(format!("{}: missing in the query", names[index])))?;
    }
    Ok(complete)
}

/// As [`parameters`], of a query that may leave any of them out.
pub(super) fn given<'q, const N: usize>(
    query: Option<&'q str>,
    names: [&'static str; N],
) -> Result<[Option<&'q str>; N], Refusal> {
    let mut values = [None; N];
    for pair in query.unwrap_or("").split('&').filter(|_| query.is_some_and(|query| !query.is_empty())) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(index) = names.iter().position(|known| *known == name) else {
            return Err(unknown(&names));
        };
        if values[index].replace(value).is_some() {
            return Err(bad(format!("{}: given more than once in the query; send it once", names[index])));
        }
    }
    Ok(values)
}

/// Resolves `%` and two hex digits; `None` for a `%` without them, or if the result is not UTF-8. `buffer` is used only if
/// there is something to resolve.
pub(super) fn decoded<'a>(value: &'a str, buffer: &'a mut Vec<u8>) -> Option<&'a str> {
    if !value.contains('%') {
        return Some(value);
    }
    buffer.clear();
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            buffer.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit()?, digit()?);
        buffer.push((high << 4 | low) as u8);
    }
    std::str::from_utf8(buffer).ok()
}

fn unknown(names: &[&str]) -> Refusal {
    if names.is_empty() {
        return bad("this route takes no query; leave it out");
    }
    bad(format!("unknown parameter in the query; this route knows {}", names.join(" and ")))
}

fn bad(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_in_any_order_once_and_alone() {
        let both = |query| parameters(Some(query), ["account", "asset"]);
        assert_eq!(both("account=a&asset=roc"), Ok(["a", "roc"]));
        assert_eq!(both("asset=roc&account=a%2Fb"), Ok(["a%2Fb", "roc"]));
        assert_eq!(both("asset=&account="), Ok(["", ""]));
        for bad in
            ["", "account=a", "account=a&asset=r&x=1", "account=a&account=a&asset=r", "account=a&asset=r&", "&", "Account=a"]
        {
            assert_eq!(both(bad).unwrap_err().status, 400, "{bad:?}");
        }
        let optional = |query| given(query, ["limit", "cursor"]);
        assert_eq!(optional(None), Ok([None, None]));
        assert_eq!(optional(Some("cursor=7")), Ok([None, Some("7")]));
        assert!(optional(Some("cursor=7&cursor=7")).is_err() && optional(Some("page=2")).is_err());
        assert_eq!(parameters(None, []), Ok([]));
        assert_eq!(parameters(Some(""), []), Ok([]));
        assert!(parameters(Some("x"), []).is_err());
        assert!(parameters(None, ["account"]).is_err());
    }

    #[test]
    fn percent_encoding_is_resolved_or_refused() {
        for (value, expected) in [
            ("acct:a", Some("acct:a")),
            ("acct%3aa%2Fb", Some("acct:a/b")),
            ("a+b", Some("a+b")),
            ("%41", Some("A")),
            ("%2541", Some("%41")),
            ("%C3%A4", Some("ä")),
            ("%", None),
            ("%4", None),
            ("a%4", None),
            ("%zz", None),
            ("%+1", None),
            ("%ff", None),
        ] {
            assert_eq!(decoded(value, &mut Vec::new()), expected, "{value:?}");
        }
    }
}
