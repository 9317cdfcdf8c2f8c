//! Proves the order of checks, how headers, queries and paths are read, and what a call then holds.
use super::*;
use crate::access::{mint, Keyring, MintRequest};
use crate::domain::{Amount, Nonce, Reason};
use std::time::Duration;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const SPEND: &str = r#"{"from":"acct:a","to":"acct:b","asset":"roc","amount_minor":"42","nonce":7}"#;

struct Bench {
    keyring: Arc<Keyring>,
    tokens: TokenCache,
    policy: Policy,
    scratch: Scratch,
    /// What the last refusal said.
    told: String,
    _directory: tempfile::TempDir,
}

/// A request with what is usual; a test changes what it is about.
struct Ask<'a> {
    path: &'a str,
    query: Option<&'a str>,
    headers: Vec<(&'a str, &'a str)>,
    body: &'a str,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keyring = Arc::new(Keyring::open_or_create(&directory.path().join("keyring.json")).unwrap());
        let tokens = TokenCache::new(keyring.clone(), "svc-wallet", 16);
        let text = br#"{"version":1,"operations":["issue","transfer","burn","hold","capture"],
            "assets":{"roc":{"amount_max":{"transfer":"1000"}}}}"#;
        let policy = Policy::parse(text).unwrap();
        Self { keyring, tokens, policy, scratch: Scratch::default(), told: String::new(), _directory: directory }
    }

    fn authorization(&self, change: impl Fn(&mut MintRequest)) -> String {
        let mut request = MintRequest {
            subject: "alice".into(),
            scopes: vec!["wallet:*".into()],
            ttl: Duration::from_secs(60),
            audience: "svc-wallet".into(),
            ..MintRequest::default()
        };
        change(&mut request);
        format!("Bearer {}", mint(&self.keyring, &request, NOW).unwrap())
    }

    /// The call in words, or code, status and reason of the refusal.
    fn ask(&mut self, ask: &Ask<'_>) -> Outcome {
        let mut headers = IncomingHeaders::default();
        ask.headers.iter().for_each(|(name, value)| headers.observe(name.as_bytes(), value.as_bytes()));
        let mut body = ask.body.as_bytes().to_vec();
        let incoming = Incoming {
            route: Route::of_path(ask.path),
            path: ask.path,
            query: ask.query,
            headers,
            encoding: Ok(http::Encoding::Identity),
            limits: &http::Limits::default(),
            body: &mut body,
        };
        let outcome = interpret(incoming, &mut self.tokens, &self.policy, NOW, "corr-1", &mut self.scratch);
        outcome
            .map_err(|refusal| {
                self.told = refusal.message.into_owned();
                (refusal.code, refusal.reason)
            })
            .map(|call| match call {
                Call::Write { entry, allowance } => {
                    assert_eq!((entry.corr(), entry.ts()), ("corr-1", NOW));
                    let counted = (entry.counts_against_ceiling(), entry.counts_against_budget());
                    assert_eq!(counted, (allowance.daily_ceiling.is_some(), allowance.budget.is_some()));
                    let nonce = entry.nonce().map_or(0, |Nonce(nonce)| nonce);
                    format!(
                        "{} {} {} {nonce} {:?} {:?}",
                        entry.op().as_str(),
                        entry.owner(),
                        entry.key(),
                        allowance.daily_ceiling.map(Amount::minor_units),
                        allowance.budget.map(Amount::minor_units)
                    )
                }
                Call::Balance { account, asset } => format!("balance {account} {asset}"),
                Call::Seq { account } => format!("seq {account}"),
                Call::Tx { id, capability } => format!("tx {} {}", id.seq.0, capability.subject()),
                Call::History { question, of } => {
                    format!("{question:?} {:?}", of.map(|(id, capability)| (id.seq.0, capability.subject().to_owned())))
                }
                Call::SignedRoot => "signed root".to_owned(),
                Call::Totals { asset } => format!("totals {asset}"),
                Call::Entries { account, before, limit, capability } => {
                    format!("entries {account} {:?} {limit} {}", before.map(|before| before.0), capability.subject())
                }
            })
    }
}

fn spend<'a>(authorization: &'a str) -> Ask<'a> {
    Ask {
        path: "/v1/transfer",
        query: None,
        headers: vec![("Authorization", authorization), ("Content-Type", "application/json"), ("Idempotency-Key", "k-1")],
        body: SPEND,
    }
}

type Outcome = Result<String, (Code, Option<Reason>)>;

const BAD: Outcome = Err((Code::BadRequest, Some(Reason::BadRequest)));
const STRANGER: Outcome = Err((Code::Unauthorized, Some(Reason::Cap)));
const DENIED: Outcome = Err((Code::Forbidden, Some(Reason::Cap)));

#[test]
fn every_route_yields_its_call() {
    let mut bench = Bench::new();
    let all = bench.authorization(|_| {});
    let id = TxId { seq: crate::domain::Seq(9), check: 1 }.to_string();
    let tx = format!("/wallet/tx/{id}");
    let issue = r#"{"to":"acct:b","asset":"roc","amount_minor":"1"}"#;
    let burn = r#"{"from":"acct:a","asset":"roc","amount_minor":"1","seq":3}"#;
    for (path, query, body, expected) in [
        ("/v1/issue", None, issue, "issue acct:b k-1 0 None None"),
        ("/wallet/spend", None, SPEND, "transfer acct:a k-1 7 None None"),
        ("/v1/burn", None, burn, "burn acct:a k-1 3 None None"),
        ("/wallet/hold", None, SPEND, "hold acct:a k-1 7 None None"),
        ("/v1/capture", None, SPEND, "capture acct:a k-1 7 None None"),
        ("/v1/balance", Some("account=acct%3Aa&asset=roc"), "", "balance acct:a roc"),
        ("/wallet/seq", Some("account=acct:a"), "", "seq acct:a"),
        (tx.as_str(), None, "", "tx 9 alice"),
        ("/v1/accounts/acct%3Aa%2fb/entries", None, "", "entries acct:a/b None 50 alice"),
        ("/wallet/accounts/acct:a/b/entries", Some("cursor=18&limit=100"), "", "entries acct:a/b Some(18) 100 alice"),
    ] {
        let ask = Ask { path, query, body, ..spend(&all) };
        assert_eq!(bench.ask(&ask).as_deref(), Ok(expected), "{path}");
    }
}

#[test]
fn a_page_is_asked_for_by_an_account_in_the_path_a_limit_and_a_cursor() {
    let mut bench = Bench::new();
    let all = bench.authorization(|_| {});
    let page = |path, query| Ask { path, query, body: "", ..spend(&all) };
    for (query, what) in [
        ("limit=0", "limit: "),
        ("limit=101", "limit: "),
        ("limit=", "limit: "),
        ("limit=05", "limit: "),
        ("limit=+5", "limit: "),
        ("cursor=0", "cursor: "),
        ("cursor=", "cursor: "),
        ("cursor=x", "cursor: "),
        ("cursor=18446744073709551616", "cursor: "),
        ("cursor=1&cursor=1", "cursor: "),
        ("before=1", "unknown parameter"),
    ] {
        let ask = page("/v1/accounts/a/entries", Some(query));
        assert_eq!(bench.ask(&ask), BAD, "{query}");
        assert!(bench.told.starts_with(what), "{query}: {}", bench.told);
    }
    assert!(bench.ask(&page("/v1/accounts/a/entries", Some("cursor=18446744073709551615"))).is_ok());
    for path in ["/v1/accounts/a%2/entries", "/v1/accounts/a.b/entries", "/v1/accounts/%C3%A4/entries"] {
        assert_eq!(bench.ask(&page(path, None)), BAD, "{path}");
        assert!(bench.told.ends_with("in the path"), "{path}: {}", bench.told);
    }
    let narrow = bench.authorization(|request| request.accounts = vec!["acct:*".into()]);
    for (path, expected) in [("/v1/accounts/acct%3Aa/entries", true), ("/v1/accounts/other/entries", false)] {
        let ask = Ask { path, query: None, body: "", ..spend(&narrow) };
        assert_eq!(bench.ask(&ask).map_err(|_| ()), expected.then(|| "entries acct:a None 50 alice".to_owned()).ok_or(()));
    }
    let writer = bench.authorization(|request| request.scopes = vec!["wallet:transfer".into()]);
    assert_eq!(bench.ask(&Ask { path: "/v1/accounts/a/entries", body: "", ..spend(&writer) }), DENIED);
}

#[test]
fn the_order_of_checks_is_that_of_the_contract() {
    let mut bench = Bench::new();
    let reader = bench.authorization(|request| request.scopes = vec!["wallet:read".into()]);
    let narrow = bench.authorization(|request| request.accounts = vec!["acct:z".into()]);
    let all = bench.authorization(|_| {});
    // Each request has every fault of those that follow it, and one less than those before.
    let twice = [("Authorization", "Bearer a"), ("Authorization", "Bearer b")];
    assert_eq!(bench.ask(&Ask { headers: twice.into(), body: "{", ..spend("") }), BAD);
    assert_eq!(bench.ask(&Ask { body: "{", ..spend("Bearer nonsense") }), STRANGER);
    assert_eq!(bench.ask(&Ask { body: "{", ..spend(&reader) }), DENIED, "the scope is looked at before the shape");
    assert_eq!(bench.ask(&Ask { body: "{", ..spend(&narrow) }), BAD, "the shape before the other caveats");
    let foreign = SPEND.replace("roc", "usd").replace("42", "2000");
    assert_eq!(bench.ask(&Ask { body: &foreign, ..spend(&narrow) }), DENIED, "caveats before the policy");
    let policy = Err((Code::Forbidden, Some(Reason::Policy)));
    assert_eq!(bench.ask(&Ask { body: &foreign, ..spend(&all) }), policy);
    assert_eq!(bench.ask(&Ask { path: "/v1/release", ..spend(&all) }), policy, "an operation that the policy leaves out");
    let large = SPEND.replace("42", "1001");
    assert_eq!(bench.ask(&Ask { body: &large, ..spend(&all) }), Err((Code::LimitsExceeded, Some(Reason::Limits))));
    assert!(bench.ask(&spend(&all)).is_ok());
}

#[test]
fn capabilities_come_as_bearer_tokens() {
    let mut bench = Bench::new();
    let all = bench.authorization(|_| {});
    let token = all.strip_prefix("Bearer ").unwrap().to_string();
    for good in [format!("bearer {token}"), format!("BEARER   {token}"), format!("Bearer {token} ")] {
        assert!(bench.ask(&spend(&good)).is_ok(), "{good}");
    }
    for bad in [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        token.as_str(),
        &format!("Token {token}"),
        &format!("Bearer{token}"),
        &format!("Bearer\t{token}"),
        &format!("Bearer {token} {token}"),
        &format!("Bearer {token},{token}"),
        "Bearer é",
    ] {
        let outcome = bench.ask(&spend(bad));
        assert!(outcome == STRANGER || (bad.contains('é') && outcome == BAD), "{bad}");
    }
    assert_eq!(bench.ask(&Ask { headers: Vec::new(), ..spend("") }), STRANGER);
    let discharged = |value| {
        let mut ask = spend(&all);
        ask.headers.push(("X-Wallet-Discharge", value));
        ask
    };
    assert_eq!(bench.ask(&discharged("AAAA")), STRANGER);
    assert!(bench.ask(&discharged("")).is_ok());
}

#[test]
fn keys_and_content_types_are_read_as_written() {
    let mut bench = Bench::new();
    let all = bench.authorization(|_| {});
    let json = ("Content-Type", "application/json");
    let with_key = SPEND.replacen('{', r#"{"idempotency_key":"in-body","#, 1);
    let bad_key = SPEND.replacen('{', r#"{"idempotency_key":"","#, 1);
    let longest = "k".repeat(64);
    let too_long = "k".repeat(65);
    let authorization = ("Authorization", all.as_str());
    type Case<'a> = (Vec<(&'a str, &'a str)>, &'a str, Option<&'a str>);
    let cases: Vec<Case<'_>> = vec![
        (vec![json, ("Idempotency-Key", "a.b:C-1_")], SPEND, Some("a.b:C-1_")),
        (vec![json, ("Idempotency-Key", "\"quoted\"")], SPEND, Some("quoted")),
        (vec![json, ("X-Idempotency-Key", "x")], SPEND, Some("x")),
        (vec![json, ("Idempotency-Key", &longest)], SPEND, Some(&longest)),
        (vec![json], &with_key, Some("in-body")),
        (vec![json, ("Idempotency-Key", "header")], &with_key, Some("header")),
        (vec![("Content-Type", "Application/JSON; charset=utf-8"), ("Idempotency-Key", "k")], SPEND, Some("k")),
        (vec![("Content-Type", "application/json ;x"), ("Idempotency-Key", "k")], SPEND, Some("k")),
        (vec![json], SPEND, None),
        (vec![json, ("Idempotency-Key", "")], &with_key, None),
        (vec![json, ("Idempotency-Key", "\"\"")], SPEND, None),
        (vec![json, ("Idempotency-Key", "\"")], SPEND, None),
        (vec![json, ("Idempotency-Key", "\"open")], SPEND, None),
        (vec![json, ("Idempotency-Key", "a/b")], SPEND, None),
        (vec![json, ("Idempotency-Key", "a b")], SPEND, None),
        (vec![json, ("Idempotency-Key", "\"a\";p=1")], SPEND, None),
        (vec![json, ("Idempotency-Key", &too_long)], SPEND, None),
        (vec![json, ("Idempotency-Key", "a"), ("X-Idempotency-Key", "b")], SPEND, None),
        (vec![json, ("Idempotency-Key", "header")], &bad_key, None),
        (vec![json, ("Idempotency-Key", "k")], "", None),
        (vec![("Idempotency-Key", "k")], SPEND, None),
        (vec![("Content-Type", ""), ("Idempotency-Key", "k")], SPEND, None),
        (vec![("Content-Type", "text/plain"), ("Idempotency-Key", "k")], SPEND, None),
        (vec![("Content-Type", "application/jsonp"), ("Idempotency-Key", "k")], SPEND, None),
        (vec![("Content-Type", "application/x-www-form-urlencoded"), ("Idempotency-Key", "k")], SPEND, None),
        (vec![("Content-Type", "application/json, text/plain"), ("Idempotency-Key", "k")], SPEND, None),
    ];
    for (mut headers, body, key) in cases {
        let shown = format!("{headers:?}");
        headers.push(authorization);
        let expected =
            key.map(|key| format!("transfer acct:a {key} 7 None None")).ok_or((Code::BadRequest, Some(Reason::BadRequest)));
        assert_eq!(bench.ask(&Ask { headers, body, ..spend(&all) }), expected, "{shown} {body}");
    }
}

#[test]
fn queries_are_held_to_their_parameters() {
    let mut bench = Bench::new();
    let all = bench.authorization(|_| {});
    for (path, query) in [
        ("/v1/balance", None),
        ("/v1/balance", Some("")),
        ("/v1/balance", Some("account=acct:a")),
        ("/v1/balance", Some("asset=roc")),
        ("/v1/balance", Some("account=&asset=roc")),
        ("/v1/balance", Some("account=acct:a&asset=ROC")),
        ("/v1/balance", Some("account=a%20b&asset=roc")),
        ("/v1/balance", Some("account=a%&asset=roc")),
        ("/v1/balance", Some("account=%ff&asset=roc")),
        ("/v1/balance", Some("account=a&account=b&asset=roc")),
        ("/v1/balance", Some("account=a&asset=roc&at=1")),
        ("/v1/balance", Some("account=a;asset=roc")),
        ("/v1/seq", None),
        ("/v1/seq", Some("account=a&asset=roc")),
        ("/v1/seq", Some("account=a+b")),
        ("/v1/tx/tx_00000000000000000000000000", Some("x=1")),
        ("/v1/transfer", Some("x=1")),
    ] {
        assert_eq!(bench.ask(&Ask { path, query, ..spend(&all) }), BAD, "{path} {query:?}");
    }
    let unlisted = Ask { path: "/v1/balance", query: Some("account=a&asset=usd"), ..spend(&all) };
    assert_eq!(bench.ask(&unlisted), Err((Code::Forbidden, Some(Reason::Policy))));
    let unknown = Ask { path: "/v1/tx/tx_u", query: None, ..spend(&all) };
    assert_eq!(bench.ask(&unknown), Err((Code::NotFound, None)));
    let anonymous = Ask { path: "/v1/tx/tx_u", query: None, headers: Vec::new(), ..spend("") };
    assert_eq!(bench.ask(&anonymous), STRANGER, "a stranger does not learn which transactions exist");
}

#[test]
fn caveats_reach_the_fields_of_reads_and_writes() {
    let mut bench = Bench::new();
    let limited = bench.authorization(|request| {
        request.accounts = vec!["acct:a".into()];
        request.daily_ceiling = Some(500);
        request.budget = Some(900);
    });
    assert_eq!(bench.ask(&spend(&limited)).as_deref(), Ok("transfer acct:a k-1 7 Some(500) Some(900)"));
    let issue = Ask { path: "/v1/issue", body: r#"{"to":"acct:z","asset":"roc","amount_minor":"9"}"#, ..spend(&limited) };
    assert_eq!(bench.ask(&issue).as_deref(), Ok("issue acct:z k-1 0 None None"), "an issue debits nothing");
    for (path, query, denied) in [
        ("/v1/balance", "account=acct:a&asset=roc", false),
        ("/v1/balance", "account=acct:b&asset=roc", true),
        ("/v1/seq", "account=acct:a", false),
        ("/v1/seq", "account=acct:b", true),
    ] {
        let outcome = bench.ask(&Ask { path, query: Some(query), ..spend(&limited) });
        assert_eq!(outcome == DENIED, denied, "{path} {query}");
    }
    let small = bench.authorization(|request| request.max_amount = Some(41));
    assert_eq!(bench.ask(&spend(&small)), Err((Code::LimitsExceeded, Some(Reason::Limits))));
}

#[test]
fn a_request_is_the_same_whatever_its_key_and_its_spelling() {
    let mut bench = Bench::new();
    let all = bench.authorization(|_| {});
    let mut entry = |path: &str, key: &str, body: &str| {
        let mut headers = IncomingHeaders::default();
        headers.observe(b"Authorization", all.as_bytes());
        headers.observe(b"Content-Type", b"application/json");
        headers.observe(b"Idempotency-Key", key.as_bytes());
        let mut body = body.as_bytes().to_vec();
        let incoming = Incoming {
            route: Route::of_path(path),
            path,
            query: None,
            headers,
            encoding: Ok(http::Encoding::Identity),
            limits: &http::Limits::default(),
            body: &mut body,
        };
        match interpret(incoming, &mut bench.tokens, &bench.policy, NOW, key, &mut bench.scratch) {
            Ok(Call::Write { entry, .. }) => entry.bytes().to_vec(),
            other => panic!("{other:?}"),
        }
    };
    let first = entry("/v1/transfer", "k-1", SPEND);
    let same = [
        entry("/wallet/spend", "k-2", SPEND),
        entry("/v1/transfer", "k-1", &SPEND.replace("\"42\"", "42").replace("nonce", "seq")),
        entry("/v1/transfer", "k-1", &SPEND.replacen('{', r#"{"memo":null,"#, 1)),
    ];
    let others = [
        entry("/v1/hold", "k-1", SPEND),
        entry("/v1/transfer", "k-1", &SPEND.replace("42", "43")),
        entry("/v1/transfer", "k-1", &SPEND.replace(":7", ":8")),
        entry("/v1/transfer", "k-1", &SPEND.replace("acct:b", "acct:c")),
        entry("/v1/transfer", "k-1", &SPEND.replacen('{', r#"{"memo":"","#, 1)),
    ];
    let same_as_first = |bytes: &Vec<u8>| Entry::parse(&first).unwrap().0.same_request(&Entry::parse(bytes).unwrap().0);
    assert!(same.iter().all(same_as_first));
    assert!(!others.iter().any(same_as_first));
}

#[test]
fn a_receipt_may_be_read_by_who_has_a_part_in_it() {
    let mut bench = Bench::new();
    let all = bench.authorization(|_| {});
    let id = TxId { seq: crate::domain::Seq(9), check: 1 }.to_string();
    let path = format!("/v1/tx/{id}");
    let mut encoded = Vec::new();
    let draft = Draft {
        op: Op::Transfer,
        from: Account::new("acct:a"),
        to: Account::new("acct:b"),
        asset: Asset::new("roc").unwrap(),
        amount: Amount::new(1).unwrap(),
        nonce: Some(Nonce(1)),
        key: Key::new("k").unwrap(),
        memo: None,
        corr: "",
        token: Default::default(),
        ceiling: false,
        budget: false,
        daily_max: false,
        ts: NOW,
    };
    draft.encode(&mut encoded);
    let (entry, _) = Entry::parse(&encoded).unwrap();
    for (account, shown) in [("acct:a", true), ("acct:b", true), ("acct:c", false)] {
        let narrow = bench.authorization(|request| request.accounts = vec![account.into()]);
        let mut headers = IncomingHeaders::default();
        headers.observe(b"Authorization", narrow.as_bytes());
        let incoming = Incoming {
            route: Route::Tx,
            path: &path,
            query: None,
            headers,
            encoding: Ok(http::Encoding::Identity),
            limits: &http::Limits::default(),
            body: &mut [],
        };
        let call = interpret(incoming, &mut bench.tokens, &bench.policy, NOW, "", &mut bench.scratch).unwrap();
        let Call::Tx { capability, .. } = call else { panic!("{account}") };
        assert_eq!(may_read(&capability, &entry).is_ok(), shown, "{account}");
    }
    assert!(bench.ask(&Ask { path: &path, ..spend(&all) }).is_ok());
}
