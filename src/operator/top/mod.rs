//! `ronctl top`: a live view of one server in a terminal. Asks the control port for metrics and readiness, as a scraper would, and draws what
//! follows from the last few seconds.
//!
//! | file | role |
//! |---|---|
//! | `sample` | metrics at one moment; rates and quantiles between two |
//! | `figures` | what a frame is about |
//! | `frame` | a frame as lines of text |
//! | `screen` | the terminal, keys and signals |
mod figures;
mod frame;
mod sample;
mod screen;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use super::client::{Client, ClientError, Request};
use super::context::{unreachable, Context};
use super::exit::{Exit, Failure};
use super::output::rfc3339;
use crate::worker::unix_now;
use figures::Figures;
use sample::{Between, Sample};
use screen::{Ending, Screen, Woken};

/// Over how long rates and quantiles are taken, unless frames are further apart.
const WINDOW: Duration = Duration::from_secs(5);
/// Shortest and longest time between two frames.
const INTERVALS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(3600)];
/// Samples that are kept: those of the window at the shortest interval.
const SAMPLES_MAX: usize = 32;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ronctl top
  ronctl top --interval 5s
  ronctl top --once
  ronctl --config /etc/ron/svc-wallet.toml --json top --once

Shows rates by operation, latencies, the load of each core, the ledger, readiness, and refusals by reason, of the last 5 s. q or Ctrl-C ends it. A
server that goes away is asked again until it is back. --once prints one frame after one interval and ends with 0 if the server is ready, 1 if it is
not, 3 if it does not answer; the environment variable COLUMNS says how wide it is. With --json one object a line.")]
pub struct Top {
    /// Time between two frames, such as 2s or 500ms
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "2s")]
    interval: Duration,
    /// Print one frame and end
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let wanted = humantime::parse_duration(text).map_err(|fault| fault.to_string())?;
    let [least, most] = INTERVALS;
    let told = || format!("write a time from {} to {}", humantime::format_duration(least), humantime::format_duration(most));
    (least..=most).contains(&wanted).then_some(wanted).ok_or_else(told)
}

/// What is known of the server.
struct View {
    client: Client,
    samples: Vec<Sample>,
    readiness: Value,
    version: Value,
    window: Duration,
    /// Why it does not answer, and since when; nothing while it does.
    gone: Option<String>,
}

impl View {
    fn new(client: Client, interval: Duration) -> Self {
        // The pages are of about the time of their interval, not exactly.
        let window = WINDOW.max(interval * 2);
        Self { client, samples: Vec::new(), readiness: Value::Null, version: Value::Null, window, gone: None }
    }

    /// Asks once more.
    fn look(&mut self) -> Result<(), ClientError> {
        let metrics = self.client.exchange(&Request::get("/metrics"))?;
        let sample = Sample::read(&String::from_utf8_lossy(&metrics.body), Instant::now());
        if metrics.status != 200 || sample.sum("process_start_time_seconds", sample::EVERY).is_none() {
            let address = self.client.address().clone();
            return Err(ClientError::NotUnderstood { address, fault: "it has no metrics of a wallet" });
        }
        self.readiness = self.client.exchange(&Request::get("/readyz"))?.json();
        let restarted = self.samples.last().is_some_and(|last| !last.is_of_the_process_of(&sample));
        if restarted || self.version.is_null() {
            self.version = self.client.exchange(&Request::get("/version"))?.json();
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.remove(0);
        }
        self.samples.push(sample);
        Ok(())
    }

    /// The same; a server that does not answer is noted.
    fn refresh(&mut self) {
        match self.look() {
            Ok(()) => self.gone = None,
            Err(fault) if self.gone.is_none() => {
                let since = rfc3339(unix_now().0 / 1000 * 1000).unwrap_or_default();
                self.gone = Some(format!("no answer since {since}, and asked again and again: {fault}"));
            }
            Err(_) => {}
        }
    }

    fn figures(&self) -> Option<Figures> {
        let between = Between::last(&self.samples, self.window)?;
        let now = unix_now().0 as f64 / 1e3;
        Some(Figures::of(&self.client.address().to_string(), &between, &self.readiness, &self.version, now))
    }

    fn json(&self) -> Value {
        json!({"at": unix_now().0, "gone": self.gone, "figures": self.figures()})
    }
}

impl Top {
    /// Shows frames until it is ended, or one.
    pub fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let mut view = View::new(context.metrics(&context.config()?), self.interval);
        let ending = Ending::listen().map_err(|fault| Failure::internal(format!("signals cannot be received: {fault}"), ""))?;
        if self.once {
            return self.print_once(context, &mut view, &ending);
        }
        if context.output.json {
            loop {
                view.refresh();
                context.output.value(&view.json())?;
                if ending.wait(self.interval, false) == Woken::End {
                    return Ok(Exit::Done);
                }
            }
        }
        if !std::io::stdout().is_terminal() {
            return Err(Failure::usage(
                "standard output is no terminal",
                "print one frame with --once, or frames for programs with --json",
            ));
        }
        let screen = Screen::enter().map_err(|fault| Failure::output(&fault))?;
        loop {
            view.refresh();
            let (columns, rows) = screen::size();
            let lines = frame::frame(&context.output, view.figures().as_ref(), view.gone.as_deref(), columns);
            screen.draw(&lines, rows).map_err(|fault| Failure::output(&fault))?;
            if ending.wait(self.interval, screen.has_keys()) == Woken::End {
                return Ok(Exit::Done);
            }
        }
    }

    /// Rates need two looks.
    fn print_once(&self, context: &Context, view: &mut View, ending: &Ending) -> Result<Exit, Failure> {
        view.look().map_err(|fault| unreachable(&fault))?;
        if ending.wait(self.interval, false) == Woken::End {
            return Ok(Exit::No);
        }
        view.look().map_err(|fault| unreachable(&fault))?;
        let figures = view.figures().expect("there are samples");
        if context.output.json {
            context.output.value(&view.json())?;
        } else {
            let (columns, _) = screen::size();
            context.output.line(&frame::frame(&context.output, Some(&figures), None, columns).join("\n"))?;
        }
        Ok(if figures.ready() { Exit::Done } else { Exit::No })
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Address;
    use super::super::fake::{reply, Fake};
    use super::*;

    const METRICS: &str = "process_start_time_seconds 1000\nwallet_ledger_height 5\n";

    #[test]
    fn a_server_that_goes_away_is_said_and_goes_on_when_it_is_back() {
        let pages = |metrics: &str, version: bool| {
            let mut pages = vec![reply(200, "", metrics), reply(200, "", r#"{"ready":true}"#)];
            pages.extend(version.then(|| reply(200, "", r#"{"version":"1"}"#)));
            pages
        };
        let first = Fake::start(vec![pages(METRICS, true)]);
        let address = first.address;
        let mut view = View::new(Client::new(Address::Tcp(address), Duration::from_secs(5)), Duration::from_secs(1));
        view.refresh();
        assert_eq!((view.gone.as_deref(), view.figures().unwrap().ledger.height), (None, Some(5.0)));
        first.finish();
        view.refresh();
        let gone = view.gone.clone().unwrap();
        assert!(gone.starts_with("no answer since 20") && gone.contains("cannot connect to"), "{gone}");
        view.refresh();
        assert_eq!(view.gone.as_ref(), Some(&gone), "the time is that of the first miss");
        assert_eq!(view.figures().unwrap().ledger.height, Some(5.0), "what was last known stays");
        // Another process answers: the version is asked for again, and nothing is said across the restart.
        let second = Fake::start(vec![pages(&METRICS.replace("1000", "2000"), true)]);
        view.client = Client::new(Address::Tcp(second.address), Duration::from_secs(5));
        view.refresh();
        assert_eq!((view.gone.as_deref(), second.finish().len()), (None, 3));
    }

    #[test]
    fn what_is_no_wallet_is_told_from_one() {
        let other = Fake::start(vec![vec![reply(404, "", "{}")]]);
        let mut view = View::new(Client::new(Address::Tcp(other.address), Duration::from_secs(5)), Duration::from_secs(1));
        assert!(matches!(view.look(), Err(ClientError::NotUnderstood { .. })));
    }

    #[test]
    fn intervals_have_bounds() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "soon", "0s", "100ms", "2h"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
