//! What `verify` advises about a damaged ledger, done: it helps, and costs no entry.
use super::tests::{flip, ledger, start, verified, SEGMENT};
use crate::domain::Seq;
use crate::ledger::mark::EPOCH_NAME;
use crate::ledger::sample::open;
use crate::ledger::witness::WITNESS_NAME;
use crate::ledger::Storage;

/// What is advised about a damaged `epoch` helps, with every entry.
#[test]
fn a_damaged_epoch_that_is_moved_aside_costs_nothing() {
    for keeps_witness in [true, false] {
        let storage = ledger(1);
        flip(&storage, EPOCH_NAME, 33);
        assert!(start(&storage).is_err() && verified(&storage).is_err());
        storage.remove(EPOCH_NAME).unwrap();
        if !keeps_witness {
            storage.remove(WITNESS_NAME).unwrap();
        }
        let report = verified(&storage).unwrap();
        assert_eq!((report.head, report.remarks.len()), (Seq(20), usize::from(!keeps_witness)));
        assert_eq!(start(&storage).unwrap(), (Some(Seq(14)), Seq(20)));
        open(&storage, SEGMENT).unwrap().0.close().unwrap();
        assert_eq!(verified(&storage).unwrap().remarks, []);
    }
}
