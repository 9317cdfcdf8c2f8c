//! What can be asked for: the kinds of faults, what they are done to, how long and how much; and what makes no sense.
use super::human;
use crate::worker::Share;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The words for the kinds of faults.
pub const KINDS: [&str; 3] = ["latency", "disconnect", "quota_storm"];
/// The words for the dependencies.
pub const DEPS: [&str; 4] = ["ron-ledger", "ron-accounting", "registry", "policy"];

/// How long a fault lasts unless something else is said, and at most.
const LASTS: Duration = Duration::from_secs(30);
const LASTS_MAX: Duration = Duration::from_secs(3_600);
const LASTS_MIN: Duration = Duration::from_millis(1);
/// How late something is unless something else is said, and at most, in milliseconds.
const LATE_MS: u64 = 200;
const LATE_MS_MAX: u64 = 10_000;
/// The share of the writes that a storm refuses unless something else is said, in thousandths.
const STORM_THOUSANDTHS: u16 = 500;

/// A fault as it is asked for on the admin socket; what is left out is as usual.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRequest {
    /// One of [`KINDS`].
    pub fault: String,
    /// One of [`DEPS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dep: Option<String>,
    /// How long it lasts, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// How late something is, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    /// Of all requests, above 0 and at most 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

/// What a fault is done to, if it is a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dep {
    Ledger,
    Accounting,
    Registry,
    Policy,
}

impl Dep {
    pub const ALL: [Dep; 4] = [Dep::Ledger, Dep::Accounting, Dep::Registry, Dep::Policy];

    pub fn as_str(self) -> &'static str {
        DEPS[self as usize]
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// This share of requests is so many milliseconds late.
    LateRequests { ms: u16, share: Share },
    /// This dependency is so many milliseconds late each time.
    Late { dep: Dep, ms: u16 },
    /// This dependency is out of reach.
    Disconnect { dep: Dep },
    /// This share of the writes is refused as if a quota were used up.
    QuotaStorm { share: Share },
}

/// A fault that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub kind: Kind,
    /// How long it lasts.
    pub lasts: Duration,
}

impl Spec {
    /// What is asked for, or why that is no fault and what to write instead.
    pub fn of(wanted: &FaultRequest) -> Result<Self, String> {
        let dep = wanted.dep.as_deref().map(dep_of).transpose()?;
        let lasts = wanted.for_ms.map_or(LASTS, Duration::from_millis);
        if !(LASTS_MIN..=LASTS_MAX).contains(&lasts) {
            return Err(format!("--for {} is out of range; choose up to {}", human(lasts), human(LASTS_MAX)));
        }
        let late_ms = || match wanted.ms.unwrap_or(LATE_MS) {
            ms @ 1..=LATE_MS_MAX => Ok(ms as u16),
            ms => Err(format!("--ms {ms} is out of range; choose from 1 to {LATE_MS_MAX}")),
        };
        let kind = match (wanted.fault.as_str(), dep) {
            ("latency", None) => Kind::LateRequests { ms: late_ms()?, share: share(wanted.rate, 1_000)? },
            ("latency", Some(_)) if wanted.rate.is_some() => {
                return Err(
                    "--rate is a share of requests, and a dependency is late each time: leave it out, or leave --dep out".into(),
                );
            }
            ("latency", Some(dep)) => Kind::Late { dep, ms: late_ms()? },
            (_, _) if wanted.ms.is_some() => {
                return Err("--ms says how late something is: it goes with --fault=latency alone".into());
            }
            ("disconnect", None) => {
                let deps = DEPS.join(", --dep=");
                return Err(format!("a disconnect is from a dependency: say which, --dep={deps}"));
            }
            ("disconnect", Some(_)) if wanted.rate.is_some() => {
                return Err(
                    "--rate is a share of requests, and a dependency is out of reach for all of them: leave it out".into()
                );
            }
            ("disconnect", Some(dep)) => Kind::Disconnect { dep },
            ("quota_storm", Some(dep)) => {
                return Err(format!("quotas are those of the wallet and not of {}: leave --dep out", dep.as_str()));
            }
            ("quota_storm", None) => Kind::QuotaStorm { share: share(wanted.rate, STORM_THOUSANDTHS)? },
            (other, _) => return Err(format!("there is no fault {other:?}; choose one of {}", KINDS.join(", "))),
        };
        Ok(Self { kind, lasts })
    }

    /// What is done, in a few words.
    pub fn describe(&self) -> String {
        match self.kind {
            Kind::LateRequests { ms, share } => format!("latency of {} of the requests by {ms} ms", percent(share)),
            Kind::Late { dep, ms } => format!("latency of {} by {ms} ms", dep.as_str()),
            Kind::Disconnect { dep } => format!("disconnect of {}", dep.as_str()),
            Kind::QuotaStorm { share } => format!("quota storm over {} of the writes", percent(share)),
        }
    }

    /// As it would be asked for.
    pub fn request(&self) -> FaultRequest {
        let (kind, dep, ms, share) = match self.kind {
            Kind::LateRequests { ms, share } => ("latency", None, Some(ms), Some(share)),
            Kind::Late { dep, ms } => ("latency", Some(dep), Some(ms), None),
            Kind::Disconnect { dep } => ("disconnect", Some(dep), None, None),
            Kind::QuotaStorm { share } => ("quota_storm", None, None, Some(share)),
        };
        FaultRequest {
            fault: kind.to_owned(),
            dep: dep.map(|dep| dep.as_str().to_owned()),
            for_ms: Some(self.lasts.as_millis() as u64),
            ms: ms.map(u64::from),
            rate: share.map(|share| f64::from(share.thousandths()) / 1_000.0),
        }
    }
}

fn dep_of(name: &str) -> Result<Dep, String> {
    let found = Dep::ALL.into_iter().find(|dep| dep.as_str() == name);
    found.ok_or_else(|| format!("there is no dependency {name:?}; choose one of {}", DEPS.join(", ")))
}

fn share(rate: Option<f64>, usual: u16) -> Result<Share, String> {
    let thousandths = rate.map_or(f64::from(usual), |rate| (rate * 1_000.0).round());
    let whole = (1.0..=1_000.0).contains(&thousandths).then_some(thousandths as u16);
    whole.and_then(Share::of_thousand).ok_or_else(|| {
        format!("--rate {} is out of range; choose a share of the requests from 0.001 to 1", rate.unwrap_or_default())
    })
}

fn percent(share: Share) -> String {
    let (whole, tenths) = (share.thousandths() / 10, share.thousandths() % 10);
    if tenths == 0 {
        format!("{whole}%")
    } else {
        format!("{whole}.{tenths}%")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(fault: &str, dep: &str) -> FaultRequest {
        FaultRequest { fault: fault.into(), dep: (!dep.is_empty()).then(|| dep.into()), ..FaultRequest::default() }
    }

    #[test]
    fn what_is_left_out_is_as_usual_and_what_is_told_can_be_asked_for() {
        let all = Share::ALL;
        let cases = [
            (wanted("latency", ""), Kind::LateRequests { ms: 200, share: all }, "latency of 100% of the requests by 200 ms"),
            (
                wanted("quota_storm", ""),
                Kind::QuotaStorm { share: Share::of_thousand(500).unwrap() },
                "quota storm over 50% of the writes",
            ),
            (wanted("latency", "policy"), Kind::Late { dep: Dep::Policy, ms: 200 }, "latency of policy by 200 ms"),
            (wanted("disconnect", "ron-ledger"), Kind::Disconnect { dep: Dep::Ledger }, "disconnect of ron-ledger"),
            (
                FaultRequest { rate: Some(0.0125), ms: Some(10_000), ..wanted("latency", "") },
                Kind::LateRequests { ms: 10_000, share: Share::of_thousand(13).unwrap() },
                "latency of 1.3% of the requests by 10000 ms",
            ),
        ];
        for (wanted, kind, told) in cases {
            let spec = Spec::of(&wanted).unwrap();
            assert_eq!((spec.kind, spec.lasts, spec.describe().as_str()), (kind, LASTS, told));
            assert_eq!(Spec::of(&spec.request()), Ok(spec));
        }
        for dep in DEPS {
            for fault in ["latency", "disconnect"] {
                assert!(Spec::of(&wanted(fault, dep)).unwrap().describe().contains(dep));
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_to_do() {
        let with = |ms, rate, for_ms, fault: &str, dep: &str| FaultRequest { ms, rate, for_ms, ..wanted(fault, dep) };
        let cases = [
            (wanted("earthquake", ""), "there is no fault \"earthquake\"; choose one of latency, disconnect, quota_storm"),
            (
                wanted("latency", "disk"),
                "there is no dependency \"disk\"; choose one of ron-ledger, ron-accounting, registry, policy",
            ),
            (wanted("disconnect", ""), "say which, --dep=ron-ledger, --dep=ron-accounting, --dep=registry, --dep=policy"),
            (wanted("quota_storm", "registry"), "quotas are those of the wallet and not of registry: leave --dep out"),
            (with(Some(5), None, None, "quota_storm", ""), "it goes with --fault=latency alone"),
            (with(Some(5), None, None, "disconnect", "policy"), "it goes with --fault=latency alone"),
            (with(None, Some(0.5), None, "latency", "policy"), "leave it out, or leave --dep out"),
            (with(None, Some(0.5), None, "disconnect", "policy"), "out of reach for all of them: leave it out"),
            (with(Some(0), None, None, "latency", ""), "--ms 0 is out of range; choose from 1 to 10000"),
            (with(Some(10_001), None, None, "latency", "policy"), "--ms 10001 is out of range"),
            (
                with(None, Some(0.0), None, "latency", ""),
                "--rate 0 is out of range; choose a share of the requests from 0.001 to 1",
            ),
            (with(None, Some(1.5), None, "quota_storm", ""), "--rate 1.5 is out of range"),
            (with(None, Some(f64::NAN), None, "quota_storm", ""), "is out of range"),
            (with(None, None, Some(0), "latency", ""), "--for 0s is out of range; choose up to 1h"),
            (with(None, None, Some(3_600_001), "latency", ""), "--for 1h 1ms is out of range"),
        ];
        for (wanted, expected) in cases {
            let told = Spec::of(&wanted).unwrap_err();
            assert!(told.contains(expected), "{expected:?} is missing from {told:?}");
        }
    }
}
