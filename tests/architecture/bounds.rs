//! Every constant that bounds a queue, a buffer, a loop or a wait stands in the tables of `docs/CONCURRENCY.md`. Such a constant is
//! known by its name, or by being a time; `docs.rs` holds the values in the tables to the sources.
use super::code::tokens;
use super::{sources, Source};
use std::collections::BTreeSet;
use std::path::Path;

/// Constants that are named like bounds and are none: sizes that a format fixes, and the last date that HTTP can write.
const FORMAT_SIZES: [&str; 40] = [
    "ACKNOWLEDGED_BYTES",
    "BATCH_HEAD_BYTES",
    "BLOCK_BYTES",
    "BLOCK_HEAD_BYTES",
    "BUDGET_BYTES",
    "CHECK_BYTES",
    "ED25519_PUBLIC_BYTES",
    "ED25519_SIGNATURE_BYTES",
    "ENDING_BYTES",
    "ENTRY_BYTES_MAX",
    "ENTRY_HEAD_BYTES",
    "FRAME_HEAD_BYTES",
    "HEAD_BYTES",
    "HTTP_DATE_BYTES",
    "INLINE_BYTES",
    "KEY_BYTES",
    "MARK_BYTES",
    "MESSAGE_BYTES",
    "ML_DSA_65_PUBLIC_BYTES",
    "ML_DSA_65_SIGNATURE_BYTES",
    "ML_KEM_768_CIPHERTEXT_BYTES",
    "ML_KEM_768_PRIVATE_BYTES",
    "NODE_BYTES",
    "PAIR_BYTES",
    "PEAK_BYTES",
    "PRIVATE_BYTES",
    "RECORD_HEAD_BYTES",
    "SALT_BYTES",
    "SECRET_BYTES",
    "SECTION_HEAD_BYTES",
    "SECTOR_BYTES",
    "SEED_BYTES",
    "SEGMENT_HEAD_BYTES",
    "SHARED_BYTES",
    "SIGNED_BYTES",
    "TAG_BYTES",
    "TEXT_BYTES",
    "UNIX_SECONDS_MAX",
    "USED_KEY_BYTES",
    "X25519_BYTES",
];

/// Constants of a file that bound something, by their names or because they are times.
fn bounds(source: &Source) -> Vec<&str> {
    const ENDINGS: [&str; 6] = ["_MAX", "_CAP", "_BYTES", "PATIENCE", "EVERY", "_PAUSE"];
    const NUMBERS: [&str; 10] = ["u8", "u16", "u32", "u64", "u128", "usize", "i32", "i64", "f64", "Duration"];
    let tokens = tokens(&source.code);
    let declared = tokens.windows(4).filter_map(|window| {
        let [keyword, name, colon, kind] = window else { return None };
        let number = keyword.text == "const" && colon.text == ":" && NUMBERS.contains(&kind.text);
        number.then_some((name.text, kind.text))
    });
    let bounds = declared.filter(|(name, kind)| *kind == "Duration" || ENDINGS.iter().any(|ending| name.ends_with(ending)));
    bounds.map(|(name, _)| name).filter(|name| !FORMAT_SIZES.contains(name)).collect()
}

#[test]
fn every_bound_is_in_the_tables_of_bounds() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONCURRENCY.md")).expect("a page");
    let rows = page.lines().filter(|line| line.starts_with("| `")).map(|line| line.split('`').collect::<Vec<_>>());
    let listed: BTreeSet<(&str, &str)> = rows.filter(|row| row.len() > 5).map(|row| (row[1], row[5])).collect();
    let sources = sources();
    let product = sources.iter().filter(|source| source.path.starts_with("src/") && !source.is_test);
    let found: Vec<(&str, &str)> =
        product.flat_map(|source| bounds(source).into_iter().map(|name| (name, source.path.as_str()))).collect();
    assert!(found.len() > 90, "the bounds were not found");
    let missing: Vec<_> = found.into_iter().filter(|bound| !listed.contains(bound)).collect();
    assert!(missing.is_empty(), "not in docs/CONCURRENCY.md: {missing:?}");
    let example = Source::new(
        "src/a/a.rs",
        "//! x\nconst A_MAX: u8 = 1;\npub const B: Duration = C;\nconst D: u8 = 1;\nconst E_MAX: &str = \"\";\n",
    );
    assert_eq!(bounds(&example), ["A_MAX", "B"]);
}
