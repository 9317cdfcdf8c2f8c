//! Which faults are active, until when, and what they come to together. It is told the time; nothing here waits, sleeps or logs.
use super::request::{Dep, Kind, Spec};
use crate::domain::UnixMs;
use crate::worker::Disturbed;
use serde_json::json;
use std::time::{Duration, Instant};

/// Faults that are active at once.
const ACTIVE_MAX: usize = 16;

/// One that is active.
#[derive(Clone, Debug)]
pub(super) struct Active {
    id: u64,
    pub spec: Spec,
    end: Instant,
    end_ms: UnixMs,
}

impl Active {
    /// What it is called.
    pub fn name(&self) -> String {
        format!("f-{}", self.id)
    }

    /// For whoever operates the server.
    pub fn to_json(&self, now: Instant) -> serde_json::Value {
        let asked = self.spec.request();
        json!({
            "id": self.name(),
            "fault": asked.fault,
            "dep": asked.dep,
            "ms": asked.ms,
            "rate": asked.rate,
            "what": self.spec.describe(),
            "for_ms": asked.for_ms,
            "left_ms": self.end.saturating_duration_since(now).as_millis() as u64,
            "end_ms": self.end_ms.0,
        })
    }
}

/// What is done to one dependency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OfDep {
    pub delay: Duration,
    pub cut: bool,
}

/// What all active faults come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    pub requests: Disturbed,
    deps: [OfDep; Dep::ALL.len()],
}

impl Effect {
    pub fn of(&self, dep: Dep) -> OfDep {
        self.deps[dep as usize]
    }
}

/// The active ones, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Set {
    active: Vec<Active>,
    /// How many there have been.
    count: u64,
    /// No more are taken.
    closed: bool,
}

impl Set {
    pub fn active(&self) -> &[Active] {
        &self.active
    }

    /// Adds one that begins now; refused if there are too many, or no more are taken.
    pub fn add(&mut self, spec: Spec, now: Instant, now_ms: UnixMs) -> Result<&Active, String> {
        if self.closed {
            return Err("the service ends; start it again".to_owned());
        }
        if self.active.len() >= ACTIVE_MAX {
            return Err(format!("{ACTIVE_MAX} faults are active, which is the most; end some with ronctl chaos clear"));
        }
        self.count += 1;
        let end_ms = UnixMs(now_ms.0.saturating_add(spec.lasts.as_millis() as u64));
        self.active.push(Active { id: self.count, spec, end: now + spec.lasts, end_ms });
        Ok(self.active.last().expect("just added"))
    }

    /// When the next one ends.
    pub fn next_end(&self) -> Option<Instant> {
        self.active.iter().map(|fault| fault.end).min()
    }

    /// Takes out those whose time is over.
    pub fn take_due(&mut self, now: Instant) -> Vec<Active> {
        let (due, left) = std::mem::take(&mut self.active).into_iter().partition(|fault| fault.end <= now);
        self.active = left;
        due
    }

    /// Takes out the one of this name.
    pub fn take(&mut self, name: &str) -> Option<Active> {
        let at = self.active.iter().position(|fault| fault.name() == name)?;
        Some(self.active.remove(at))
    }

    /// Takes out all of them.
    pub fn take_all(&mut self) -> Vec<Active> {
        std::mem::take(&mut self.active)
    }

    /// Takes out all of them for good.
    pub fn close(&mut self) -> Vec<Active> {
        self.closed = true;
        self.take_all()
    }

    /// What they come to: of several of one kind the strongest counts.
    pub fn effect(&self) -> Effect {
        let mut effect = Effect::default();
        for fault in &self.active {
            match fault.spec.kind {
                Kind::LateRequests { ms, share } => effect.requests.late = effect.requests.late.max(Some((ms, share))),
                Kind::QuotaStorm { share } => effect.requests.refused = effect.requests.refused.max(Some(share)),
                Kind::Late { dep, ms } => {
                    let of = &mut effect.deps[dep as usize];
                    of.delay = of.delay.max(Duration::from_millis(u64::from(ms)));
                }
                Kind::Disconnect { dep } => effect.deps[dep as usize].cut = true,
            }
        }
        effect
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Share;

    fn spec(kind: Kind, seconds: u64) -> Spec {
        Spec { kind, lasts: Duration::from_secs(seconds) }
    }

    #[test]
    fn each_ends_in_its_time_and_the_others_stay() {
        let (mut set, began, began_ms) = (Set::default(), Instant::now(), UnixMs(1_000));
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!(set.next_end().is_none() && set.take_due(began).is_empty() && set.effect() == Effect::default());
        for (dep, seconds) in [(Dep::Ledger, 30), (Dep::Registry, 10), (Dep::Ledger, 20)] {
            set.add(spec(Kind::Disconnect { dep }, seconds), began, began_ms).unwrap();
        }
        assert_eq!(set.next_end(), Some(at(10)));
        let shown = set.active()[1].to_json(at(4));
        assert_eq!((&shown["id"], &shown["left_ms"], &shown["end_ms"]), (&json!("f-2"), &json!(6_000), &json!(11_000)));
        assert!(set.take_due(at(9)).is_empty());
        assert_eq!(set.take_due(at(10)).iter().map(Active::name).collect::<Vec<_>>(), ["f-2"]);
        assert!(set.effect().of(Dep::Ledger).cut && !set.effect().of(Dep::Registry).cut);
        assert!(set.take("f-2").is_none() && set.take("f-1").is_some());
        assert!(set.effect().of(Dep::Ledger).cut, "the other one is still there");
        assert_eq!(set.take_due(at(3_600)).len(), 1);
        assert_eq!(set.effect(), Effect::default());
        // A name is never used again.
        let again = set.add(spec(Kind::Disconnect { dep: Dep::Policy }, 1), began, began_ms).unwrap();
        assert_eq!(again.name(), "f-4");
        assert_eq!(set.take_all().len(), 1);
    }

    #[test]
    fn of_several_the_strongest_counts() {
        let (mut set, now) = (Set::default(), Instant::now());
        let share = |thousandths| Share::of_thousand(thousandths).unwrap();
        for kind in [
            Kind::LateRequests { ms: 100, share: share(1_000) },
            Kind::LateRequests { ms: 300, share: share(10) },
            Kind::QuotaStorm { share: share(250) },
            Kind::QuotaStorm { share: share(750) },
            Kind::Late { dep: Dep::Ledger, ms: 50 },
            Kind::Late { dep: Dep::Ledger, ms: 40 },
            Kind::Late { dep: Dep::Policy, ms: 7 },
        ] {
            set.add(spec(kind, 1), now, UnixMs(0)).unwrap();
        }
        let effect = set.effect();
        assert_eq!(effect.requests, Disturbed { late: Some((300, share(10))), refused: Some(share(750)) });
        let delays = Dep::ALL.map(|dep| effect.of(dep).delay.as_millis());
        assert_eq!(delays, [50, 0, 0, 7]);
    }

    #[test]
    fn there_is_a_most() {
        let (mut set, now) = (Set::default(), Instant::now());
        let one = spec(Kind::Disconnect { dep: Dep::Ledger }, 1);
        for _ in 0..ACTIVE_MAX {
            set.add(one, now, UnixMs(0)).unwrap();
        }
        let refused = set.add(one, now, UnixMs(0)).map(Active::name).unwrap_err();
        assert!(refused.contains("16 faults are active") && refused.contains("chaos clear"), "{refused}");
        assert_eq!(set.close().len(), ACTIVE_MAX);
        assert!(set.add(one, now, UnixMs(0)).is_err_and(|why| why.contains("the service ends")), "nothing holds its end up");
    }
}
