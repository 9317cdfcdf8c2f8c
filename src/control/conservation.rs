//! The check that no value appeared or vanished: per asset, what was issued less what was burned is what the accounts hold.
//!
//! Made once, when the cores' slices have been rebuilt from the ledger. Issues and burns are summed up here while the ledger is
//! read, from the entries alone; the balances come from the slices, which applied the same entries by their own rules and dealt
//! them to the cores. A difference is a defect of the program or of the ledger, and a service that has one must not spend.
use super::rebuild::Sums;
use crate::domain::{Entry, Op};
use crate::ledger::snapshot::AssetSums;
use std::collections::BTreeMap;

/// What was issued and burned of one asset, and what its accounts hold, in minor units.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    issued: Sum,
    burned: Sum,
    held: Sum,
}

/// A sum that remembers that it left 128 bits.
#[derive(Clone, Copy, Debug)]
struct Sum(Option<u128>);

impl Default for Sum {
    fn default() -> Self {
        Self(Some(0))
    }
}

impl Sum {
    fn add(&mut self, amount: Option<u128>) {
        self.0 = self.0.zip(amount).and_then(|(sum, amount)| sum.checked_add(amount));
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(sum) => sum.fmt(f),
            None => f.write_str("more than 128 bits"),
        }
    }
}

/// The totals of every asset.
#[derive(Debug, Default)]
pub(super) struct Conservation(BTreeMap<Box<str>, Totals>);

impl Conservation {
    /// Begins with what a snapshot says was issued and burned.
    pub fn begin(assets: &[AssetSums]) -> Self {
        let totals =
            |sums: &AssetSums| Totals { issued: Sum(Some(sums.issued)), burned: Sum(Some(sums.burned)), held: Sum::default() };
        Self(assets.iter().map(|sums| (sums.asset.as_str().into(), totals(sums))).collect())
    }

    /// Takes note of an entry of the ledger.
    pub fn note(&mut self, entry: &Entry<'_>) {
        let amount = Some(entry.amount().minor_units());
        match entry.op() {
            Op::Issue => self.totals(entry.asset().as_str()).issued.add(amount),
            Op::Burn => self.totals(entry.asset().as_str()).burned.add(amount),
            Op::Transfer | Op::Hold | Op::Capture | Op::Release => {}
        }
    }

    fn totals(&mut self, asset: &str) -> &mut Totals {
        if !self.0.contains_key(asset) {
            self.0.insert(asset.into(), Totals::default());
        }
        self.0.get_mut(asset).expect("just inserted")
    }

    /// Compares with what the accounts of every core hold.
    ///
    /// # Errors
    /// What does not add up, and what to do.
    pub fn check(mut self, cores: &[Sums]) -> Result<(), String> {
        for (asset, sum) in cores.iter().flatten() {
            self.totals(asset).held.add(*sum);
        }
        for (asset, Totals { issued, burned, held }) in &self.0 {
            let expected = issued.0.zip(burned.0).and_then(|(issued, burned)| issued.checked_sub(burned));
            if expected.is_none() || expected != held.0 {
                return Err(format!(
                    "value is not conserved: {issued} {asset} issued less {burned} burned are not the {held} on all accounts; \
                     nothing is served. Copy the ledger directory away, run ronctl ledger verify, and report a defect"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Account, Amount, Asset, CoreId, Draft, Key, Nonce, Seq, TokenId, UnixMs};
    use crate::engine::Engine;
    use crate::ring::Ring;
    use crate::shard::{Budgets, Settings};

    fn entry(op: Op, from: &str, to: &str, amount: u128, nonce: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let draft = Draft {
            op,
            from: op.debits().then(|| Account::new(from).unwrap()),
            to: op.credits().then(|| Account::new(to).unwrap()),
            asset: Asset::new("roc").unwrap(),
            amount: Amount::new(amount).unwrap(),
            nonce: op.debits().then_some(Nonce(nonce)),
            key: Key::new(["k0", "k1", "k2"][nonce as usize]).unwrap(),
            memo: None,
            corr: "corr",
            token: TokenId([4; 16]),
            ceiling: false,
            budget: false,
            daily_max: false,
            ts: UnixMs(1_700_000_000_000),
        };
        draft.encode(&mut bytes);
        bytes
    }

    /// Three cores after these entries, and the totals after those of them that `noted` lets through.
    fn after(entries: &[Vec<u8>], noted: impl Fn(usize) -> bool) -> (Conservation, Vec<Sums>) {
        let ring = Ring::new(3);
        let settings = Settings { hash_seeds: [1, 2, 3, 4], idempotency_ttl_ms: 1_000, keys_max: 1_024 };
        let mut engines: Vec<Engine> =
            (0..3).map(|core| Engine::new(CoreId(core), ring, settings, &Budgets::default())).collect();
        let mut totals = Conservation::default();
        for (index, bytes) in entries.iter().enumerate() {
            let entry = Entry::parse(bytes).unwrap().0;
            let seq = Seq(index as u64 + 1);
            engines.iter_mut().for_each(|engine| engine.replay(&entry, seq, UnixMs(1_700_000_000_000)).unwrap());
            if noted(index) {
                totals.note(&entry);
            }
        }
        let sums = |engine: &Engine| engine.shard().sums().into_iter().map(|(asset, sum)| (asset.into(), sum)).collect();
        (totals, engines.iter().map(sums).collect())
    }

    #[test]
    fn value_that_moves_is_conserved_and_a_lost_issue_or_burn_is_noticed() {
        let entries = [
            entry(Op::Issue, "", "alice", 100, 0),
            entry(Op::Transfer, "alice", "bob", 30, 1),
            entry(Op::Hold, "alice", "escrow", 50, 2),
            entry(Op::Burn, "bob", "", 5, 1),
        ];
        let (totals, engines) = after(&entries, |_| true);
        assert_eq!(totals.check(&engines), Ok(()));
        for lost in [0, 3] {
            let (totals, engines) = after(&entries, |index| index != lost);
            let told = totals.check(&engines).unwrap_err();
            assert!(told.contains("on all accounts") && told.contains("roc"), "{told}");
        }
        let (_, engines) = after(&entries, |_| true);
        assert!(Conservation::default().check(&engines).unwrap_err().contains("0 roc issued less 0 burned are not the 95"));
        assert_eq!(Conservation::default().check(&[]), Ok(()));
    }
}
