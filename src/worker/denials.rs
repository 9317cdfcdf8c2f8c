//! What a core logs of requests that were denied for want of authority: why, which the client is not told, and whose capability it was.
//!
//! Invariants: at most so many lines in a second, and each says how many were left out before it; no line has anything of a token but
//! its id, and that, its subject and its key only if its signature was right.
use super::connection::Meta;
use crate::access::{token_id_text, Capability};
use crate::domain::{Reason, Refusal};

/// Lines of one core in one second.
const LINES_MAX: u32 = 10;

/// Counts the lines of the second at hand.
#[derive(Debug, Default)]
pub struct Denials {
    second: u64,
    lines: u32,
    left_out: u64,
}

impl Denials {
    /// Whether there may be a line at this time, and if so how many were left out since the last one.
    fn admit(&mut self, now_ms: u64) -> Option<u64> {
        let second = now_ms / 1000;
        if second != self.second {
            (self.second, self.lines) = (second, 0);
        }
        if self.lines == LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }

    /// Logs a refusal if it is one for want of authority. `holder` is whose capability it was, if its signature was right; the policy
    /// in force has this version.
    pub fn log(&mut self, now_ms: u64, meta: &Meta, refusal: &Refusal, holder: Option<&Capability>, policy_version: u64) {
        if !matches!(refusal.status, 401 | 403) {
            return;
        }
        let Some(left_out) = self.admit(now_ms) else { return };
        let reason = refusal.reason.map_or("none", Reason::as_str);
        let cause = refusal.why.map_or(&*refusal.message, |why| why.as_str());
        tracing::info!(
            event = "denied",
            corr_id = meta.corr.as_str(),
            route = meta.route.as_str(),
            reason,
            cause,
            token_id = holder.map(|holder| token_id_text(holder.token())),
            subject = holder.map(Capability::subject),
            key_id = holder.map(Capability::key_id),
            policy_version,
            left_out,
            "a capability does not allow a request, or there is none"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_next_one_says_what_was_left_out() {
        let mut denials = Denials::default();
        let told: Vec<_> = (0..LINES_MAX + 5).map(|_| denials.admit(1_999)).collect();
        assert!(told[..LINES_MAX as usize].iter().all(|left_out| *left_out == Some(0)));
        assert!(told[LINES_MAX as usize..].iter().all(Option::is_none));
        assert_eq!([denials.admit(2_000), denials.admit(2_000)], [Some(5), Some(0)]);
        // A clock that is set back begins a new second as well.
        assert_eq!(denials.admit(0), Some(0));
    }
}
