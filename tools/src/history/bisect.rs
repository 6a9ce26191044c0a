//! `sluice bisect`: the version that broke a request.
//!
//! The log is gone through once, from a state to the end, with the data plane's own router: a change costs microseconds to
//! take up, so that this is faster than building a router log2(n) times, and it sees every time the answer has changed.

use super::replay::{Mutation, Outcome, Replay, Request};
use super::{short_time, text};
use crate::admin::{Connection, encode};
use crate::say;
use anyhow::{Context, bail};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::Value;
use sluice_schema::version::Version;
use std::process::ExitCode;

const PAGE: u64 = 1000;
/// Changes of the answer that are shown.
const TURNS_SHOWN_MAX: usize = 20;
/// The exit status if no version broke it.
const EXIT_NOT_FOUND: u8 = 1;

const EXAMPLES: &str = "\
Examples:
  sluice bisect --request 'GET https://shop.example/cart' --expect checkout
  sluice bisect --request 'POST http://shop.example/pay' -H 'X-Beta: 1' --expect 404 --from 700 --to 812
  sluice bisect --request 'GET http://shop.example/' --expect 200

What is expected is a route (its name or id), or a status: 404 if no route shall fit, what a request-termination plugin or a
redirect to https answers, or 200 for whatever goes to an upstream (which is not asked). Plugins that look at who calls are
not run.

Exit status: 0 if a version that broke it is found, 1 if not.";

/// Arguments of `sluice bisect`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The request
    #[arg(long, value_name = "METHOD URL")]
    request: String,
    /// A header of it
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The route that it should belong to, or the status that it should be answered with
    #[arg(long, value_name = "ROUTE|STATUS")]
    expect: String,
    /// The first version to look at [default: the first that the log still tells]
    #[arg(long, value_name = "VERSION")]
    from: Option<u64>,
    /// The last version to look at [default: the newest]
    #[arg(long, value_name = "VERSION")]
    to: Option<u64>,
}

/// What is hoped for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Expected {
    Route(String),
    Status(u16),
}

/// The answer to a request that goes to an upstream, which is not asked.
const FORWARDED: u16 = 200;

impl Expected {
    fn parse(text: &str) -> Self {
        let status = text
            .parse()
            .ok()
            .filter(|status| (100..=599).contains(status));
        status.map_or_else(|| Self::Route(text.to_owned()), Self::Status)
    }

    fn holds(&self, outcome: &Outcome) -> bool {
        match self {
            Self::Status(status) => outcome.status.unwrap_or(FORWARDED) == *status,
            Self::Route(name) => {
                let is = |found: &Option<String>| found.as_deref() == Some(name);
                is(&outcome.route) || is(&outcome.id)
            }
        }
    }
}

/// A version at which the outcome became another one.
#[derive(Clone, Debug)]
struct Turn {
    version: u64,
    good: bool,
    outcome: Outcome,
    /// Nothing for the state that it begins with.
    event: Option<Value>,
}

/// Finds the version and names it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let request = Request::parse(&arguments.request, &arguments.headers)?;
    let expected = Expected::parse(&arguments.expect);
    let head = arguments.connection.get("/log/head")?;
    let earliest = head["history"]["earliest_state"].as_u64().unwrap_or(1);
    let newest = head["version"].as_u64().unwrap_or(0);
    let from = arguments.from.unwrap_or(earliest).max(1);
    let to = arguments.to.unwrap_or(newest);
    if from > to {
        bail!("there is nothing between version {from} and version {to}");
    }
    let search = Search {
        connection: &arguments.connection,
        request,
        expected,
        turns: Vec::new(),
    };
    let turns = search.run(from, to)?;
    report(&turns, from, to)
}

struct Search<'a> {
    connection: &'a Connection,
    request: Request,
    expected: Expected,
    turns: Vec<Turn>,
}

impl Search<'_> {
    fn run(mut self, from: u64, to: u64) -> anyhow::Result<Vec<Turn>> {
        let bar = crate::broker::bar("looking");
        bar.set_length(to - from);
        let mut replay = Replay::new();
        self.begin(&mut replay, from)?;
        self.go_on(&mut replay, from, to, &bar)?;
        bar.finish_and_clear();
        Ok(self.turns)
    }

    /// Takes up the state that it begins with.
    fn begin(&mut self, replay: &mut Replay, from: u64) -> anyhow::Result<()> {
        let mut mutations = Vec::new();
        let path = format!("/log/state?at={}", encode(&from.to_string()));
        self.connection.lines(&path, |entity| {
            mutations.push(Mutation::parse(&entity)?);
            Ok(())
        })?;
        replay.apply(Version(from), mutations);
        self.look(replay, from, None);
        Ok(())
    }

    /// Takes up event after event.
    fn go_on(
        &mut self,
        replay: &mut Replay,
        from: u64,
        to: u64,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let mut next = from + 1;
        while next <= to {
            let path = format!("/log/events?bodies=1&from={next}&to={to}&size={PAGE}");
            let page = self.connection.get(&path)?;
            let events = page["data"]
                .as_array()
                .context("the answer has no events")?;
            if events.is_empty() {
                bail!("version {next} is no longer in the log");
            }
            for event in events {
                let version = event["version"]
                    .as_u64()
                    .context("an event has no version")?;
                if version != next {
                    bail!("version {next} is no longer in the log");
                }
                let mutations = event["mutations"]
                    .as_array()
                    .context("an event has no changes")?;
                let mutations = mutations.iter().map(Mutation::parse);
                if replay.apply(Version(version), mutations.collect::<anyhow::Result<_>>()?) {
                    self.look(replay, version, Some(event));
                }
                next = version + 1;
                bar.inc(1);
            }
        }
        Ok(())
    }

    fn look(&mut self, replay: &Replay, version: u64, event: Option<&Value>) {
        let outcome = replay.find(&self.request);
        if self
            .turns
            .last()
            .is_some_and(|last| last.outcome == outcome)
        {
            return;
        }
        self.turns.push(Turn {
            version,
            good: self.expected.holds(&outcome),
            outcome,
            event: event.cloned(),
        });
    }
}

/// The last turn from good to bad.
fn culprit(turns: &[Turn]) -> Option<&Turn> {
    let pairs = turns.windows(2).rev();
    let mut broke = pairs.filter(|pair| pair[0].good && !pair[1].good);
    broke.next().map(|pair| &pair[1])
}

fn report(turns: &[Turn], from: u64, to: u64) -> anyhow::Result<ExitCode> {
    let skipped = turns.len().saturating_sub(TURNS_SHOWN_MAX);
    if skipped > 0 {
        say(&format!(
            "{skipped} earlier changes of the answer are not shown"
        ))?;
    }
    for turn in &turns[skipped..] {
        say(&line(turn))?;
    }
    let good_now = turns.last().is_some_and(|last| last.good);
    match (culprit(turns), good_now) {
        (Some(turn), good_now) => {
            let now = match good_now {
                true => format!("; it works again at version {to}"),
                false => String::new(),
            };
            say(&format!(
                "\nversion {} broke it{now}: sluice show {}",
                turn.version, turn.version
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        (None, true) => {
            say(&format!(
                "\nnothing broke it from version {from} to {to}: it works"
            ))?;
            Ok(ExitCode::from(EXIT_NOT_FOUND))
        }
        (None, false) => {
            say(&format!(
                "\nit did not work at any version from {from} to {to}"
            ))?;
            Ok(ExitCode::from(EXIT_NOT_FOUND))
        }
    }
}

/// `good   812  route checkout  by anna, 2026-11-23T10:00:00Z, "why"`
fn line(turn: &Turn) -> String {
    let sign = if turn.good { "good" } else { "bad " };
    let mut line = format!("{sign} {:>7}  {}", turn.version, turn.outcome.label());
    match &turn.event {
        None => line += "  (where it begins)",
        Some(event) => {
            let (actor, time) = (text(&event["actor"]["name"]), short_time(&event["time"]));
            line += &format!("  by {actor}, {time}");
            if let Some(reason) = event["reason"].as_str() {
                line += &format!(", \"{reason}\"");
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(goods: &[bool]) -> Vec<Turn> {
        let turn = |(version, good): (u64, &bool)| Turn {
            version,
            good: *good,
            outcome: Outcome {
                route: None,
                id: None,
                status: Some(404),
            },
            event: None,
        };
        (1..).zip(goods).map(turn).collect()
    }

    #[test]
    fn the_version_that_broke_it_is_the_last_one_that_did() {
        for (goods, expected) in [
            (&[true, false][..], Some(2)),
            (&[false, true, false, true, false], Some(5)),
            (&[true, false, true], Some(2)),
            (&[false, true], None),
            (&[false], None),
            (&[true], None),
        ] {
            let found = turns(goods);
            assert_eq!(
                culprit(&found).map(|turn| turn.version),
                expected,
                "{goods:?}"
            );
        }
    }

    #[test]
    fn a_number_is_a_status_and_everything_else_a_route() {
        assert_eq!(Expected::parse("404"), Expected::Status(404));
        assert_eq!(Expected::parse("4040"), Expected::Route("4040".to_owned()));
        assert_eq!(
            Expected::parse("checkout"),
            Expected::Route("checkout".to_owned())
        );
    }
}
