//! `ronctl chaos inject`: the server does something wrong on purpose, for a time.
use super::line;
use crate::control::{Action, FaultRequest, FAULT_DEPS, FAULT_KINDS};
use crate::operator::context::Context;
use crate::operator::exit::{Exit, Failure};
use std::time::Duration;

/// The only program that faults are injected into.
const TARGET: &str = "svc-wallet";

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl chaos inject --target svc-wallet --fault=latency
  ronctl chaos inject --target svc-wallet --fault=latency --ms 50 --rate 0.1 --for 2m
  ronctl chaos inject --target svc-wallet --fault=latency --dep=ron-ledger --ms 100
  ronctl chaos inject --target svc-wallet --fault=disconnect --dep=ron-ledger
  ronctl chaos inject --target svc-wallet --fault=quota_storm --rate 0.2

What it does:
  latency                a share of the requests is late by --ms; with --dep each commit, flush, question or reading of that dependency is
  disconnect --dep=...   ron-ledger: writes get 503, reads go on; ron-accounting: the counters fall behind; registry: no question for the
                         topology is answered; policy: no policy can be read, the one in force stays
  quota_storm            a share of the writes gets 429 BUSY with Retry-After, as if a quota were used up

The server does so only if its configuration has faults.allowed = true. Every fault ends by itself, also if this command or whoever ran it is
gone, at the latest when the server ends. Nothing that was acknowledged is lost by one. Ends with 2 if it is refused.")]
pub struct Inject {
    /// The program; svc-wallet is the only one
    #[arg(long, value_name = "PROGRAM", default_value = TARGET, value_parser = [TARGET])]
    target: String,
    /// What goes wrong
    #[arg(long, value_parser = FAULT_KINDS)]
    fault: String,
    /// With which dependency; without it with requests
    #[arg(long, value_parser = FAULT_DEPS)]
    dep: Option<String>,
    /// How long, such as 30s, 2m or 1h, which is the most [default: 30s]
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// How late, in milliseconds, up to 10000 [default: 200]
    #[arg(long)]
    ms: Option<u64>,
    /// Which share of the requests, above 0 and at most 1 [default: 1 for latency, 0.5 for quota_storm]
    #[arg(long)]
    rate: Option<f64>,
}

impl Inject {
    /// Asks the server.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let config = context.config()?;
        let request = FaultRequest {
            fault: self.fault.clone(),
            dep: self.dep.clone(),
            for_ms: self.lasts.map(|lasts| u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX)),
            ms: self.ms,
            rate: self.rate,
        };
        let body = serde_json::to_string(&request).expect("a request has only texts and numbers");
        let injected = context.ask_server(&config, Action::InjectFault, &body)?;
        if context.output.json {
            context.output.value(&injected)?;
            return Ok(Exit::Done);
        }
        context.output.line(&line(&injected))?;
        context.output.hint("end it before its time with: ronctl chaos clear");
        Ok(Exit::Done)
    }
}
