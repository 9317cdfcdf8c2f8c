//! What must hold of the parts of a snapshot, whatever bytes they are: what is accepted is written again as the same bytes.
//! `src/fuzzing.rs` feeds it.
use super::account::{encode, for_each_state};
use super::format::{Footer, Front};
use super::tail::AssetSums;
use crate::domain::{Account, AccountState, AssetValue, DayCount, Nonce, Payer, TokenId};

/// A byte for the part, then the records, the front or the footer of a snapshot.
pub(crate) fn records(input: &[u8]) {
    let [choice, bytes @ ..] = input else { return };
    let number = u64::from(choice / 3);
    match choice % 3 {
        0 => {
            let mut again = Vec::new();
            let each = &mut |state: &AccountState<'_>| {
                encode(state, &mut again);
                Ok(())
            };
            if for_each_state(bytes, 3, each).is_ok() {
                assert_eq!(again, bytes);
            }
        }
        1 => {
            if let Ok(front) = Front::decode(bytes, number) {
                assert_eq!(front.encode(), bytes);
            }
        }
        _ => {
            if let Ok(footer) = Footer::decode(bytes, number) {
                assert_eq!(footer.encode(), bytes);
            }
        }
    }
}

/// Inputs from which a fuzzer of [`records`] begins.
pub(crate) fn records_seeds() -> Vec<Vec<u8>> {
    let name = |text| Account::new(text).expect("a good name");
    let values = [AssetValue { asset: 0, free: u128::MAX - 1, held: 1 }, AssetValue { asset: 2, free: 0, held: 300 }];
    let payers = [Payer { asset: 2, account: name("alice") }, Payer { asset: 2, account: name("bob") }];
    let day_counts = [DayCount { token: TokenId([7; 16]), asset: 1, day: 20_000, spent: 70_000 }];
    let mut states = vec![0];
    let full =
        AccountState { name: name("e:1"), last_nonce: Nonce(9), values: &values, payers: &payers, day_counts: &day_counts };
    encode(&full, &mut states);
    encode(&AccountState { name: name("z"), last_nonce: Nonce(0), values: &[], payers: &[], day_counts: &[] }, &mut states);
    let sums = AssetSums { asset: "roc".into(), issued: 5, burned: 1, held: 2 };
    let front = Front { assets: vec![sums], peaks: crate::ledger::history::Peaks::new(3, vec![[1; 32], [2; 32]]) };
    let footer = Footer { blocks: vec![(8192, b"a".as_slice().into()), (12_288, b"b".as_slice().into())] };
    let parts = [(1 + 3 * 3, front.encode()), (2 + 3 * 2, footer.encode())];
    parts.into_iter().map(|(choice, bytes)| [&[choice], &bytes[..]].concat()).chain([states]).collect()
}
