//! Taking a slice over from a snapshot, before what follows it in the ledger is replayed.
use super::accounts::Holding;
use super::window::HashedKey;
use super::{AssetIx, Shard};
use crate::domain::{AccountState, Asset, AssetValue, DayCount, Payer, Seq, UnixMs, UsedKey};

impl Shard {
    /// Begins with what a snapshot says of the whole ledger: its assets in the order of their numbers, each with the share of what
    /// was issued that this slice has to answer for, the entry after which it was taken, and how many accounts to expect here.
    /// Returns the assets by which [`Shard::restore`] knows them.
    pub fn begin_restore<'a>(
        &mut self,
        assets: impl Iterator<Item = (Asset<'a>, u128)>,
        height: Seq,
        accounts: usize,
    ) -> Vec<AssetIx> {
        assert!(self.accounts.len() == 0 && self.height == Seq(0), "a snapshot comes first");
        self.height = height;
        self.accounts.reserve(accounts);
        // The keys of issues are in the snapshot, those of debits are not: their nonces lead to the entries.
        self.debit_keys.begin_incomplete();
        assets
            .map(|(asset, issued)| {
                let ix = self.asset(asset);
                self.issued[usize::from(ix.0)] = issued;
                ix
            })
            .collect()
    }

    /// Takes over an account that lives here from a snapshot.
    pub fn restore(&mut self, state: &AccountState<'_>, assets: &[AssetIx]) {
        let account = self.accounts.find_or_create(state.name);
        let record = self.accounts.get_mut(account);
        (record.confirmed, record.reserved) = (state.last_nonce.0, state.last_nonce.0);
        let asset = |number: u16| assets[usize::from(number)];
        for AssetValue { asset: number, free, held } in state.values {
            *record.holding_mut(asset(*number)) = Holding { settled: *free, available: *free };
            if *held > 0 {
                self.escrows.find_or_create(account, asset(*number)).held = Holding { settled: *held, available: *held };
            }
        }
        for Payer { asset: number, account: payer } in state.payers {
            self.escrows.find_or_create(account, asset(*number)).restore_payer(payer.as_str());
        }
        for DayCount { token, asset: number, day, spent } in state.day_counts {
            self.ceilings.restore(*token, account, asset(*number), *day, *spent);
        }
    }

    /// Takes over a key that an issue to an account of this slice has used, from a snapshot and in the order of the entries.
    pub fn restore_key(&mut self, key: &UsedKey, now: UnixMs) {
        self.issue_keys.replay(HashedKey::new(key.id, &self.key_hasher), key.seq, key.used, now);
    }
}
