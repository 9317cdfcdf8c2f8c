//! The console: one page that draws what the control port says, for whoever has a browser and nothing else.
//!
//! The page is whole in itself. Its policy lets the browser run the one script and the one style that are in it, by their hashes, and ask
//! nothing but this server; no form, no frame, no other origin. It only reads.
use super::page::PageReply;
use aws_lc_rs::digest::{digest, SHA256};
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use std::sync::OnceLock;

const PAGE: &str = include_str!("page.html");

/// What the page may do, as `Content-Security-Policy` says it.
fn policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| {
        let hash_of = |element| STANDARD.encode(digest(&SHA256, inside(PAGE, element).as_bytes()));
        format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            hash_of("script"),
            hash_of("style")
        )
    })
}

/// What stands in the one element of this name.
fn inside<'p>(page: &'p str, element: &str) -> &'p str {
    let (_, behind) = page.split_once(&format!("<{element}>")).expect("the page has a script and a style");
    behind.split_once(&format!("</{element}>")).expect("which end").0
}

/// The page.
pub(super) fn page() -> PageReply {
    PageReply { content_type: "text/html; charset=utf-8", content_policy: Some(policy()), ..PageReply::json(PAGE) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::names::METRICS;

    #[test]
    fn the_policy_allows_what_is_in_the_page_and_nothing_else() {
        assert!(policy().starts_with("default-src 'none'; script-src 'sha256-") && !policy().contains("unsafe"), "{}", policy());
        for element in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "one {element}, which the hash is of");
            assert!(inside(PAGE, element).len() > 1000);
        }
        // What a strict policy would block, or what would leave this server.
        for part in
            [" style=\"", " onclick", " onload", "http://", "https://", "//cdn", "@import", "url(", "innerHTML", "eval(", "src="]
        {
            let rest = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!rest.contains(part), "{part}");
        }
    }

    #[test]
    fn the_page_knows_the_metrics_and_the_names_that_there_are() {
        use crate::domain::{Op, Reason};
        let asked: Vec<&str> = PAGE.split('"').filter(|text| text.contains('_') && text.len() > 5).collect();
        let named = |part: &str| asked.iter().filter(move |text| text.starts_with(part)).copied().collect::<Vec<_>>();
        let found = ["wallet_", "http_", "ledger_", "request_", "policy_", "registry_", "keyring_", "process_", "rejected_"]
            .map(named)
            .concat();
        assert!(found.len() > 20, "{found:?}");
        for name in found {
            let base = ["_count", "_sum", "_bucket"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            // This one is there only where faults can be injected.
            assert!(base == "wallet_faults_active" || METRICS.iter().any(|metric| metric.name == base), "{name}");
        }
        for name in Op::ALL.map(Op::as_str).into_iter().chain(Reason::ALL.map(Reason::as_str)) {
            assert!(PAGE.contains(&format!("\"{name}\"")), "{name}");
        }
    }
}
