//! What one request costs on its way through the API: a spend with a known token, its receipt, and the two JSON parsers on the
//! same body. `cargo bench --bench api`.
#![allow(missing_docs)] // criterion_group makes a public function.

use criterion::{criterion_group, criterion_main, BatchSize, Criterion, Throughput};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use svc_wallet::access::{mint, Keyring, MintRequest, Policy, TokenCache};
use svc_wallet::api::{interpret, reply, Call, Incoming, IncomingHeaders, Route, Scratch};
use svc_wallet::domain::{Entry, LogId, Seq, UnixMs};
use svc_wallet::http::{Encoding, Limits};

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const BODY: &[u8] = br#"{"from":"acct:000017","to":"svc:storage","asset":"roc","amount_minor":"125000","nonce":4711}"#;

/// The fields as a derived reader would see them, for the comparison only.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Derived<'a> {
    from: &'a str,
    to: &'a str,
    asset: &'a str,
    amount_minor: &'a str,
    nonce: u64,
    idempotency_key: Option<&'a str>,
    memo: Option<&'a str>,
}

struct Bench {
    keyring: Arc<Keyring>,
    tokens: TokenCache,
    policy: Policy,
    authorization: String,
    limits: Limits,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let keyring = Arc::new(Keyring::open_or_create(&directory.path().join("keyring.json")).expect("a keyring"));
        let authorization = format!("Bearer {}", mint(&keyring, &Self::request(), NOW).expect("a token"));
        let policy = br#"{"version":1,"operations":["transfer"],"assets":{"roc":{},"ron":{}}}"#;
        let policy = Policy::parse(policy).expect("a policy");
        let tokens = TokenCache::new(keyring.clone(), "svc-wallet", 1024);
        Self { keyring, tokens, policy, authorization, limits: Limits::default(), _directory: directory }
    }

    fn request() -> MintRequest {
        MintRequest {
            subject: "bench".into(),
            scopes: vec!["wallet:*".into()],
            ttl: Duration::from_secs(900),
            audience: "svc-wallet".into(),
            accounts: vec!["acct:*".into()],
            assets: vec!["roc".into()],
            max_amount: Some(1_000_000),
            ..MintRequest::default()
        }
    }

    /// Tokens that are as long as each other, of so many holders.
    fn others(&self, count: usize) -> Vec<String> {
        let token = |number: usize| {
            let request = MintRequest { subject: format!("holder-{number:04}"), ..Self::request() };
            mint(&self.keyring, &request, NOW).expect("a token")
        };
        (0..count).map(token).collect()
    }

    fn call<'a>(&'a mut self, body: &'a mut [u8], scratch: &'a mut Scratch) -> Call<'a> {
        let mut headers = IncomingHeaders::default();
        headers.observe(b"Host", b"127.0.0.1:8080");
        headers.observe(b"Authorization", self.authorization.as_bytes());
        headers.observe(b"Content-Type", b"application/json");
        headers.observe(b"Idempotency-Key", b"spend-4711");
        let incoming = Incoming {
            route: Route::Transfer,
            path: "/v1/transfer",
            query: None,
            headers,
            encoding: Ok(Encoding::Identity),
            limits: &self.limits,
            body,
        };
        interpret(incoming, &mut self.tokens, &self.policy, NOW, "corr-4711", scratch).expect("a permitted spend")
    }
}

fn requests(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    let mut scratch = Scratch::default();
    let mut body = BODY.to_vec();
    let mut group = criterion.benchmark_group("api");
    group.throughput(Throughput::Elements(1));
    group.bench_function("interpret a spend, token known", |bencher| {
        bencher.iter(|| {
            body.copy_from_slice(BODY);
            matches!(black_box(bench.call(&mut body, &mut scratch)), Call::Write { .. })
        });
    });
    let token = bench.authorization.trim_start_matches("Bearer ").to_string();
    let keyring = bench.keyring.clone();
    group.bench_function("verify a token, known", |bencher| {
        let mut cache = TokenCache::new(keyring.clone(), "svc-wallet", 1024).with_revocations(Arc::default());
        bencher.iter(|| cache.verify(black_box(token.as_bytes()), None, NOW).is_ok());
    });
    for holders in [2, 1000] {
        group.bench_function(format!("verify a token, known, of {holders} holders in turn"), |bencher| {
            let mut cache = TokenCache::new(keyring.clone(), "svc-wallet", 1024).with_revocations(Arc::default());
            let tokens = bench.others(holders);
            let mut turn = tokens.iter().cycle();
            bencher.iter(|| cache.verify(black_box(turn.next().expect("endless").as_bytes()), None, NOW).is_ok());
        });
    }
    group.bench_function("refuse a token with a wrong signature", |bencher| {
        let mut cache = TokenCache::new(keyring.clone(), "svc-wallet", 1024);
        let forged = format!("{}AAAA", &token[..token.len() - 4]);
        bencher.iter(|| cache.verify(black_box(forged.as_bytes()), None, NOW).is_err());
    });
    group.bench_function("verify a token, not known", |bencher| {
        let cache = || TokenCache::new(keyring.clone(), "svc-wallet", 1);
        bencher.iter_batched_ref(cache, |cache| cache.verify(token.as_bytes(), None, NOW).is_ok(), BatchSize::SmallInput);
    });
    let Call::Write { entry, .. } = bench.call(&mut body, &mut scratch) else { panic!("a spend is a write") };
    let encoded = entry.bytes().to_vec();
    let mut out = Vec::with_capacity(4096);
    group.bench_function("write a receipt", |bencher| {
        let (entry, _) = Entry::parse(&encoded).expect("encoded above");
        bencher.iter(|| {
            out.clear();
            reply::receipt(&mut out, LogId([7; 16]), black_box(&entry), Seq(123_456), &[0xab; 32]);
            out.len()
        });
    });
    group.finish();
}

fn parsers(criterion: &mut Criterion) {
    let mut body = BODY.to_vec();
    let mut group = criterion.benchmark_group("json");
    group.throughput(Throughput::Bytes(BODY.len() as u64));
    group.bench_function("simd-json tape, reused buffers", |bencher| {
        let mut buffers = simd_json::Buffers::default();
        let mut kept = simd_json::Tape(Vec::new());
        bencher.iter(|| {
            body.copy_from_slice(BODY);
            let mut tape = std::mem::replace(&mut kept, simd_json::Tape(Vec::new())).reset();
            simd_json::fill_tape(&mut body, &mut buffers, &mut tape).expect("JSON");
            let nodes = tape.0.len();
            kept = tape.reset();
            nodes
        });
    });
    group.bench_function("simd-json serde, reused buffers", |bencher| {
        let mut buffers = simd_json::Buffers::default();
        bencher.iter(|| {
            body.copy_from_slice(BODY);
            let read: Derived<'_> = simd_json::serde::from_slice_with_buffers(&mut body, &mut buffers).expect("JSON");
            weight(&read)
        });
    });
    group.bench_function("serde_json", |bencher| {
        bencher.iter(|| weight(&serde_json::from_slice(black_box(BODY)).expect("JSON")));
    });
    group.finish();
}

/// Uses every field, so that no parser is spared one.
fn weight(read: &Derived<'_>) -> u64 {
    let texts = [Some(read.from), Some(read.to), Some(read.asset), Some(read.amount_minor), read.idempotency_key, read.memo];
    texts.into_iter().flatten().map(|text| text.len() as u64).sum::<u64>() + read.nonce
}

criterion_group!(benches, requests, parsers);
criterion_main!(benches);
