//! A table of tokens and requests, put to a running server from the outside: who asks, with which caveats, for what, and what the answer
//! has to be. Afterwards every account has exactly what the permitted rows have moved, so that nothing else took effect.
//!
//! The table is in `tests/capabilities/table.txt`. Tokens are made as an issuer makes them, then narrowed or spoiled with the macaroon
//! library alone. Each write carries the nonce with which it would be accepted, and a key of its own.
#![allow(clippy::unwrap_used)] // Helpers of tests may fail as loudly as tests do.
mod support;

use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use base64::Engine as _;
use macaroon::{Format, Macaroon, MacaroonKey};
use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{eventually, request, Reply, Request, Server};
use svc_wallet::access::{attenuate, inspect, mint, Keyring, MintRequest};
use svc_wallet::domain::UnixMs;

const TABLE: &str = include_str!("capabilities/table.txt");
/// Rows that the table has at least.
const ROWS_MIN: usize = 120;
const FUNDS: u128 = 1_000_000;
const THIRD: [u8; 32] = [9; 32];
const OTHER: [u8; 32] = [8; 32];

struct Row {
    line: usize,
    who: &'static str,
    caveats: Vec<&'static str>,
    request: &'static str,
    answer: &'static str,
}

fn rows() -> Vec<Row> {
    let lines = TABLE.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [who, caveats, request, answer] = cells[..] else { panic!("line {}: not four cells", number + 1) };
            let caveats = caveats.split(" ; ").map(str::trim).filter(|caveat| !caveat.is_empty()).collect();
            Row { line: number + 1, who, caveats, request, answer }
        })
        .collect()
}

fn now() -> UnixMs {
    UnixMs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

/// A keyring with these keys, of which the first signs.
fn keyring(path: &Path, keys: &[(&str, u8)]) -> Keyring {
    let shown: Vec<String> =
        keys.iter().map(|(id, byte)| format!(r#"{{"id":"{id}","secret":"{}"}}"#, STANDARD.encode([*byte; 32]))).collect();
    let text = format!(r#"{{"version":1,"active":"{}","keys":[{}]}}"#, keys[0].0, shown.join(","));
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    Keyring::open(path).unwrap()
}

fn minted(keyring: &Keyring, subject: &str, at: UnixMs) -> String {
    let wanted = MintRequest {
        subject: subject.to_owned(),
        scopes: vec!["wallet:*".to_owned()],
        ttl: Duration::from_secs(900),
        audience: "svc-wallet".to_owned(),
        ..MintRequest::default()
    };
    mint(keyring, &wanted, at).unwrap()
}

fn text(macaroon: &Macaroon) -> String {
    macaroon.serialize(Format::V2).unwrap().trim_end_matches('=').to_owned()
}

fn narrowed<'c>(token: &str, caveats: impl IntoIterator<Item = &'c String>) -> Macaroon {
    let mut macaroon = Macaroon::deserialize(token).unwrap();
    caveats.into_iter().for_each(|caveat| macaroon.add_first_party_caveat(caveat.as_str().into()));
    macaroon
}

/// `now+600s` in a caveat is that moment.
fn dated(caveat: &str) -> String {
    let Some((before, after)) = caveat.split_once("now") else { return caveat.to_owned() };
    let seconds: i64 = after.strip_suffix('s').unwrap().parse().unwrap();
    let moment = time::OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    format!("{before}{}", moment.format(&time::format_description::well_known::Rfc3339).unwrap())
}

fn binary(token: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token).unwrap()
}

fn changed(token: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = binary(token);
    change(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn place_of(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).unwrap()
}

fn ronctl(server: &Server, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    let output = command.arg("--config").arg(server.path("svc-wallet.toml")).args(arguments).current_dir(server.directory());
    let output = output.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The issuers of the table.
struct Issuers {
    own: Keyring,
    older: Keyring,
    leaked: Keyring,
    retired: Keyring,
    unknown: Keyring,
    foreign: Keyring,
    revoked: String,
    taken_back: String,
    /// A token of the key that is retired, which was used while it was not.
    used_before: String,
    /// The token of the row before.
    same: String,
}

impl Issuers {
    /// What stands in `Authorization` and in `X-Wallet-Discharge`.
    fn headers(&mut self, row: &Row) -> (Option<String>, Option<String>) {
        let own: Vec<String> =
            row.caveats.iter().filter(|caveat| !caveat.starts_with("says ")).map(|caveat| dated(caveat)).collect();
        let says: Vec<String> = row.caveats.iter().filter_map(|caveat| caveat.strip_prefix("says ")).map(dated).collect();
        assert!(says.is_empty() || row.who == "discharged", "line {}: nobody says that", row.line);
        if row.who.contains("discharge") || row.who.contains("bound") {
            let (token, discharges) = self.with_third_party(row.who, &own, &says);
            return (Some(format!("Bearer {token}")), Some(discharges).filter(|list| !list.is_empty()));
        }
        let parent = match row.who {
            "older" => minted(&self.older, "table", now()),
            "unknown key" => minted(&self.unknown, "table", now()),
            "foreign key" => minted(&self.foreign, "table", now()),
            "revoked key" => minted(&self.leaked, "table", now()),
            "retired key" => minted(&self.retired, "table", now()),
            "used before" => self.used_before.clone(),
            "revoked subject" => minted(&self.own, "mallory", now()),
            "revoked" => self.revoked.clone(),
            "taken back" => self.taken_back.clone(),
            "long ago" => minted(&self.own, "table", UnixMs(now().0 - 86_400_000)),
            "the same" => self.same.clone(),
            _ => minted(&self.own, "table", now()),
        };
        let whole = narrowed(&parent, &own);
        let token = text(&whole);
        let authorization = match row.who {
            "none" => return (None, None),
            "empty" => "Bearer ".to_owned(),
            "basic" => "Basic YWxpY2U6cGFzc3dvcmQ=".to_owned(),
            "words" => "Bearer let me in".to_owned(),
            "jwt" => "Bearer eyJhbGciOiJIUzI1NiJ9.e30.AAAA".to_owned(),
            who => format!(
                "Bearer {}",
                match who {
                    "attenuated" => attenuate(&parent, &MintRequest::default(), &own, now()).unwrap(),
                    "padded" => format!("{token}{}", "=".repeat((4 - token.len() % 4) % 4)),
                    "version 1" => whole.serialize(Format::V1).unwrap(),
                    "json" => whole.serialize(Format::V2JSON).unwrap(),
                    "standard base64" => {
                        // Until its spelling differs from the other alphabet's.
                        let differs = |token: &String| STANDARD_NO_PAD.encode(binary(token)) != *token;
                        let tokens = std::iter::repeat_with(|| minted(&self.own, "table", now()));
                        STANDARD_NO_PAD.encode(binary(&tokens.take(1000).find(differs).unwrap()))
                    }
                    "cut by one" => token[..token.len() - 1].to_owned(),
                    "cut in half" => token[..token.len() / 2].to_owned(),
                    "lengthened" => changed(&token, |bytes| bytes.push(0)),
                    "flip signature" => changed(&token, |bytes| *bytes.last_mut().unwrap() ^= 1),
                    // Byte 10 is inside the random id.
                    "flip identifier" => changed(&token, |bytes| bytes[10] ^= 0x10),
                    "flip caveat" => changed(&token, |bytes| {
                        let at = place_of(bytes, b"wallet:*");
                        bytes[at] ^= 0x20;
                    }),
                    // The body of the wider token under the signature of the narrower one, and the other way round.
                    "stripped" => changed(&parent, |bytes| {
                        let body = bytes.len() - 32;
                        let signature = binary(&token);
                        bytes[body..].copy_from_slice(&signature[signature.len() - 32..]);
                    }),
                    "swapped" => changed(&token, |bytes| {
                        let body = bytes.len() - 32;
                        let signature = binary(&parent);
                        bytes[body..].copy_from_slice(&signature[signature.len() - 32..]);
                    }),
                    "oversized" => text(&narrowed(&parent, &[format!("account = *,{}", "a".repeat(4000))])),
                    "crowded" => text(&narrowed(&parent, &vec!["asset = roc".to_owned(); 65])),
                    _ => token.clone(),
                }
            ),
        };
        self.same = token;
        (Some(authorization), None)
    }

    /// A token that needs a discharge, and what is sent as one.
    fn with_third_party(&self, who: &str, own: &[String], says: &[String]) -> (String, String) {
        let (third, other) = (MacaroonKey::from(THIRD), MacaroonKey::from(OTHER));
        let mut token = narrowed(&minted(&self.own, "table", now()), &[]);
        token.add_third_party_caveat("https://kyc", &third, "customer 17".into());
        if who == "discharged twice" {
            token.add_third_party_caveat("https://bank", &other, "limit 3".into());
        }
        let discharge = |key: &MacaroonKey, id: &str| {
            let mut discharge = Macaroon::create(Some("https://kyc".into()), key, id.into()).unwrap();
            says.iter().for_each(|caveat| discharge.add_first_party_caveat(caveat.as_str().into()));
            discharge
        };
        let mut good = discharge(&third, "customer 17");
        if who == "bound before" {
            token.bind(&mut good);
        }
        own.iter().for_each(|caveat| token.add_first_party_caveat(caveat.as_str().into()));
        let bound = |mut discharge: Macaroon| {
            token.bind(&mut discharge);
            text(&discharge)
        };
        let discharges = match who {
            "discharged" => bound(good),
            "discharged twice" => [bound(discharge(&other, "limit 3")), bound(good)].join(" "),
            "not discharged" => String::new(),
            "not bound" | "bound before" => text(&good),
            "wrong discharge" => bound(discharge(&third, "customer 18")),
            "other's discharge" => bound(discharge(&other, "customer 17")),
            "repeated discharge" => [bound(good.clone()), bound(good)].join(","),
            "stray discharge" => [bound(good), bound(discharge(&other, "limit 3"))].join(","),
            "flip discharge" => changed(&bound(good), |bytes| *bytes.last_mut().unwrap() ^= 1),
            other => panic!("{other} has no discharges"),
        };
        (text(&token), discharges)
    }
}

/// What the accounts have and which nonce comes next, as the permitted rows leave it.
#[derive(Default)]
struct Books {
    values: BTreeMap<(String, String), u128>,
    nonces: BTreeMap<String, u64>,
    txid: String,
}

/// A write of the table.
struct Write {
    from: Option<String>,
    to: Option<String>,
    asset: String,
    amount: u128,
}

impl Books {
    /// The request of a row, and what it does if it is permitted.
    fn request(&self, row: &Row) -> (Request, Option<Write>) {
        let mut words = row.request.split(' ');
        let verb = words.next().unwrap();
        let given: BTreeMap<&str, &str> = words.map(|word| word.split_once('=').unwrap()).collect();
        let read = match verb {
            "balance" => Some("/v1/balance?account=acct:a&asset=roc".to_owned()),
            "seq" => Some("/v1/seq?account=acct:a".to_owned()),
            "tx" => Some(format!("/v1/tx/{}", self.txid)),
            "entries" => Some("/v1/accounts/acct:a/entries".to_owned()),
            "totals" => Some("/v1/assets/roc/totals".to_owned()),
            "root" => Some("/v1/ledger/root".to_owned()),
            "proof" => Some(format!("/v1/tx/{}/proof", self.txid)),
            "consistency" => Some("/v1/ledger/consistency?from=1&to=2".to_owned()),
            _ => None,
        };
        if let Some(target) = read {
            assert!(given.is_empty());
            return (request("GET", &target), None);
        }
        let (path, from, to) = match verb {
            "spend" => ("/wallet/spend", Some("acct:a"), Some("acct:b")),
            "transfer" => ("/v1/transfer", Some("acct:a"), Some("acct:b")),
            "hold" => ("/v1/hold", Some("acct:a"), Some("escrow:1")),
            "capture" => ("/v1/capture", Some("escrow:1"), Some("acct:b")),
            "release" => ("/v1/release", Some("escrow:1"), Some("acct:a")),
            "burn" => ("/v1/burn", Some("acct:a"), None),
            "issue" => ("/v1/issue", None, Some("acct:a")),
            other => panic!("line {}: {other} is no request of the table", row.line),
        };
        let to = given.get("to").copied().or(to).map(str::to_owned);
        let asset = (*given.get("asset").unwrap_or(&"roc")).to_owned();
        let amount = given.get("amount").map_or(100, |amount| amount.parse().unwrap());
        let from = from.map(str::to_owned);
        let mut members = Vec::new();
        if let Some(from) = &from {
            members.push(format!(r#""from":"{from}","nonce":{}"#, self.nonces.get(from).unwrap_or(&0) + 1));
        }
        members.extend(to.iter().map(|to| format!(r#""to":"{to}""#)));
        members.push(format!(r#""asset":"{asset}","amount_minor":"{amount}""#));
        let body = format!("{{{}}}", members.join(","));
        let request = request("POST", path).key(&format!("row-{}", row.line)).json(body);
        (request, Some(Write { from, to, asset, amount }))
    }

    fn settle(&mut self, write: &Write) {
        if let Some(from) = &write.from {
            *self.nonces.entry(from.clone()).or_default() += 1;
            *self.values.get_mut(&(from.clone(), write.asset.clone())).unwrap() -= write.amount;
        }
        if let Some(to) = &write.to {
            *self.values.entry((to.clone(), write.asset.clone())).or_default() += write.amount;
        }
    }
}

/// A server with three keys, one that was retired, and some revocations, and everything that the table speaks about.
fn prepared() -> (Server, Issuers, Books) {
    let mut server = Server::prepared(&[("security.clock_leeway", "60s"), ("runtime.cores", "1")]);
    let keys = [("k-own", 1), ("k-older", 2), ("k-leaked", 3), ("k-retired", 6)];
    let own = keyring(&server.path("wallet.keyring"), &keys);
    let other = |name: &str, key: (&str, u8)| keyring(&server.path(name), &[key]);
    let mut issuers = Issuers {
        older: other("older", keys[1]),
        leaked: other("leaked", keys[2]),
        retired: other("retired", keys[3]),
        unknown: other("unknown", ("k-gone", 4)),
        foreign: other("foreign", ("k-own", 5)),
        revoked: minted(&own, "table", now()),
        taken_back: minted(&own, "table", now()),
        used_before: String::new(),
        same: String::new(),
        own,
    };
    issuers.used_before = minted(&issuers.retired, "table", now());
    server.launch();
    let mut wallet = support::Wallet::new(server.connect(), minted(&issuers.own, "admin", now()));
    let mut books = Books::default();
    let fund = [("acct:a", "roc"), ("acct:a", "ron"), ("escrow:1", "roc")];
    for (number, (account, asset)) in fund.into_iter().enumerate() {
        let body = format!(r#"{{"to":"{account}","asset":"{asset}","amount_minor":"{FUNDS}"}}"#);
        wallet.post("/v1/issue", &format!("fund-{number}"), &body).ok();
        books.values.insert((account.to_owned(), asset.to_owned()), FUNDS);
    }
    for (path, to, key) in [("/v1/hold", "escrow:1", "hold"), ("/v1/transfer", "acct:b", "first")] {
        let nonce = books.nonces.get("acct:a").unwrap_or(&0) + 1;
        let receipt = wallet.post(path, key, &support::body("acct:a", to, 100_000, nonce)).ok();
        books.txid = receipt.txid();
        let asset = "roc".to_owned();
        books.settle(&Write { from: Some("acct:a".into()), to: Some(to.into()), asset, amount: 100_000 });
    }
    let id_of = |token: &str| inspect(token).unwrap().token_id;
    let [revoked, taken_back] = [id_of(&issuers.revoked), id_of(&issuers.taken_back)];
    for what in [["--token-id", &revoked], ["--token-id", &taken_back], ["--subject", "mallory"], ["--key-id", "k-leaked"]] {
        ronctl(&server, &["cap", "revoke", what[0], what[1], "--reason", "a test"]);
    }
    ronctl(&server, &["cap", "revoke", "--undo", "--token-id", &taken_back]);
    server.connect().call(&request("GET", "/v1/seq?account=acct:a").token(&issuers.used_before)).ok();
    ronctl(&server, &["kms", "retire", "k-retired"]);
    server.metric_reaches("wallet_revocations", 3.0);
    // The page is a second behind what is in force at most; the last change is seen when the one before it has gone.
    let mut client = server.connect();
    let probe = |token: &str| request("GET", "/v1/seq?account=acct:a").token(token);
    let leaked = minted(&issuers.leaked, "table", now());
    eventually("the revocations are in force", || {
        let refused =
            [&issuers.revoked, &leaked, &issuers.used_before].iter().all(|token| client.call(&probe(token)).status == 401);
        (refused && client.call(&probe(&issuers.taken_back)).status == 200).then_some(())
    });
    issuers.same = issuers.taken_back.clone();
    (server, issuers, books)
}

#[test]
fn every_row_of_the_table_is_answered_as_it_says_and_nothing_else_happens() {
    let (server, mut issuers, mut books) = prepared();
    let rows = rows();
    assert!(rows.len() >= ROWS_MIN, "{} rows", rows.len());
    let mut client = server.connect();
    let (mut permitted, mut unauthorized) = (0, Vec::new());
    let mut wrong = Vec::new();
    for row in &rows {
        let (authorization, discharges) = issuers.headers(row);
        let (mut request, write) = books.request(row);
        if let Some(value) = &authorization {
            request = request.header("Authorization", value);
        }
        if let Some(value) = &discharges {
            request = request.header("X-Wallet-Discharge", value);
        }
        let request = request.header("X-Corr-ID", "table");
        // Sums and roots may be a moment behind, and no row asks for a refusal with 503; a write may be repeated as it is.
        let reply = eventually("an answer", || Some(client.call(&request)).filter(|reply| reply.status != 503));
        let told = if reply.status == 200 { "200".to_owned() } else { format!("{} {}", reply.status, reply.code()) };
        if told != row.answer {
            wrong.push(format!("line {}: {} {:?} {}: {told}, not {}", row.line, row.who, row.caveats, row.request, row.answer));
        }
        permitted += usize::from(reply.status == 200);
        if let (200, Some(write)) = (reply.status, &write) {
            books.settle(write);
        }
        if reply.status == 401 {
            unauthorized.push(reply);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(permitted > 60 && unauthorized.len() > 40, "{permitted} of {}", rows.len());
    // Whoever tries tokens learns the same from all of them.
    let bare = |reply: &Reply| (reply.body.clone(), reply.header("WWW-Authenticate").map(str::to_owned));
    assert!(unauthorized.iter().all(|reply| bare(reply) == bare(&unauthorized[0])), "{}", unauthorized[0]);
    let mut wallet = support::Wallet::new(server.connect(), minted(&issuers.own, "admin", now()));
    for ((account, asset), value) in &books.values {
        let reply = wallet.get(&format!("/v1/balance?account={account}&asset={asset}")).ok();
        assert_eq!(reply.json()["amount_minor"], value.to_string(), "{account} {asset}");
    }
    for (account, nonce) in &books.nonces {
        assert_eq!(wallet.seq(account).0, *nonce, "{account}");
    }
    let log = server.log();
    assert!(log.contains("\"event\":\"denied\"") && !log.contains(&issuers.revoked), "no token is in the log");
}
