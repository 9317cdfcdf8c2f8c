//! The words of the wallet on one connection.
use super::{request, Client, Reply, Request};

/// A connection and a token.
pub struct Wallet {
    pub client: Client,
    pub token: String,
}

/// The body of a transfer, with amounts in `roc`.
pub fn body(from: &str, to: &str, amount: u128, nonce: u64) -> String {
    format!(r#"{{"from":"{from}","to":"{to}","asset":"roc","amount_minor":"{amount}","nonce":{nonce}}}"#)
}

impl Wallet {
    pub fn new(client: Client, token: String) -> Self {
        Self { client, token }
    }

    /// A write as it is sent.
    pub fn write(&self, path: &str, key: &str, body: &str) -> Request {
        request("POST", path).token(&self.token).key(key).json(body)
    }

    /// A read as it is sent.
    pub fn read(&self, target: &str) -> Request {
        request("GET", target).token(&self.token)
    }

    /// A transfer as it is sent.
    pub fn transfer(&self, from: &str, to: &str, amount: u128, nonce: u64, key: &str) -> Request {
        self.write("/v1/transfer", key, &body(from, to, amount, nonce))
    }

    pub fn post(&mut self, path: &str, key: &str, body: &str) -> Reply {
        let request = self.write(path, key, body);
        self.client.call(&request)
    }

    pub fn get(&mut self, target: &str) -> Reply {
        let request = self.read(target);
        self.client.call(&request)
    }

    /// Creates value; the key is made of the account, so that each account is issued to once.
    pub fn issue(&mut self, account: &str, amount: u128) -> Reply {
        let body = format!(r#"{{"to":"{account}","asset":"roc","amount_minor":"{amount}"}}"#);
        let key: String = account.replace('/', ".").chars().take(50).collect();
        self.post("/v1/issue", &format!("issue-{key}"), &body).ok()
    }

    pub fn spend(&mut self, from: &str, to: &str, amount: u128, nonce: u64, key: &str) -> Reply {
        let request = self.transfer(from, to, amount, nonce, key);
        self.client.call(&request)
    }

    /// The balance in `roc`.
    pub fn balance(&mut self, account: &str) -> u128 {
        let reply = self.get(&format!("/v1/balance?account={account}&asset=roc")).ok();
        reply.json()["amount_minor"].as_str().expect("an amount is a string").parse().expect("an amount is a number")
    }

    /// The last confirmed nonce and the next one.
    pub fn seq(&mut self, account: &str) -> (u64, u64) {
        let json = self.get(&format!("/v1/seq?account={account}")).ok().json();
        (json["last_nonce"].as_u64().unwrap(), json["next_nonce"].as_u64().unwrap())
    }

    /// The receipt of a transaction, read back.
    pub fn tx(&mut self, txid: &str) -> Reply {
        self.get(&format!("/v1/tx/{txid}"))
    }
}

impl Reply {
    /// The transaction id of a receipt.
    pub fn txid(&self) -> String {
        self.json()["txid"].as_str().unwrap_or_else(|| panic!("no txid: {self}")).to_owned()
    }
}
