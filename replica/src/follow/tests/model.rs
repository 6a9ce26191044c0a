//! A model of the log, the network and the disk with every fault that passes, against the real state machine.

use super::*;
use proptest::prelude::*;
use std::sync::LazyLock;

const EVENTS_MAX: usize = 40;
const PAGE_RECORDS_MAX: usize = 4;
/// Rounds without faults after which the replica must be at the log's end.
const CALM_ROUNDS_MAX: usize = 300;

/// One thing that happens. The numbers choose among what is possible, in the moment it happens.
#[derive(Clone, Debug)]
enum Step {
    /// The log grows by one event, and the tail delivers it or loses it.
    Append {
        delivered: bool,
    },
    /// The tail delivers an older event again, or late.
    Deliver(usize),
    /// The tail delivers a forged message.
    Forge(usize),
    /// The read under way is answered by a copy that lags by so many events.
    Answer {
        lag: usize,
    },
    FailRead,
    FinishApply,
    FailApply,
    Diverge,
    FinishRebuild,
    FailRebuild,
    Head {
        lag: usize,
    },
    Disconnect,
    Connect,
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any::<bool>().prop_map(|delivered| Step::Append { delivered }),
        4 => (0..EVENTS_MAX).prop_map(Step::Deliver),
        1 => (0..EVENTS_MAX).prop_map(Step::Forge),
        6 => (0_usize..6).prop_map(|lag| Step::Answer { lag }),
        2 => Just(Step::FailRead),
        6 => Just(Step::FinishApply),
        2 => Just(Step::FailApply),
        1 => Just(Step::Diverge),
        2 => Just(Step::FinishRebuild),
        1 => Just(Step::FailRebuild),
        3 => (0_usize..4).prop_map(|lag| Step::Head { lag }),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Connect),
        4 => Just(Step::Tick),
    ]
}

/// What the log will hold; signed once for all runs.
static FULL: LazyLock<History> = LazyLock::new(|| History::new(EVENTS_MAX as u64));

struct Model {
    full: &'static History,
    /// How many of the events the log holds so far.
    length: usize,
    follow: Follow,
    connected: bool,
    reading: Option<Version>,
    applying: Option<Vec<Verified>>,
    rebuilding: bool,
    /// What the store holds.
    applied: Vec<Cursor>,
    repaired: Option<Version>,
}

impl Model {
    fn new() -> Self {
        Self {
            full: &FULL,
            length: 1,
            follow: Follow::new(Cursor::default(), key().trusted(), SyncMode::Incremental),
            connected: false,
            reading: None,
            applying: None,
            rebuilding: false,
            applied: Vec::new(),
            repaired: None,
        }
    }

    /// Feeds an input and checks what may never happen.
    fn feed(&mut self, input: Input) {
        for action in self.follow.step(input) {
            match action {
                Action::Read(from) => self.reading = Some(from),
                Action::Apply(events) => {
                    assert!(
                        self.applying.is_none() && !self.rebuilding,
                        "two changes at once"
                    );
                    let first = place(events[0].cursor.version);
                    assert_eq!(first, self.applied.len() + 1, "applied twice or left out");
                    for (offset, verified) in events.iter().enumerate() {
                        assert_eq!(verified.cursor, self.full.cursors[first + offset]);
                    }
                    self.applying = Some(events);
                }
                Action::Rebuild => {
                    assert!(
                        self.applying.is_none() && !self.rebuilding,
                        "two changes at once"
                    );
                    self.rebuilding = true;
                }
                Action::Alarm(Alarm::Fork(fork)) => panic!("a fork where there is none: {fork}"),
                Action::Alarm(Alarm::BadTail { .. } | Alarm::Diverged(_)) => {}
            }
        }
        let cursor = self.applied.last().copied().unwrap_or_default();
        assert_eq!(
            self.follow.cursor(),
            cursor,
            "the cursor is not what was applied"
        );
    }

    fn answer(&mut self, lag: usize) {
        let Some(from) = self.reading.take() else {
            return;
        };
        let visible = self.length.saturating_sub(lag);
        let start = place(from) - 1;
        let end = visible.min(start + PAGE_RECORDS_MAX).max(start);
        let records = self
            .full
            .records
            .get(start..end)
            .unwrap_or_default()
            .to_vec();
        let more = visible > end;
        self.feed(Input::Page {
            from,
            page: Page { records, more },
        });
    }

    fn finish_apply(&mut self) {
        let Some(events) = self.applying.take() else {
            return;
        };
        self.applied
            .extend(events.iter().map(|verified| verified.cursor));
        self.feed(Input::Applied);
    }

    fn finish_rebuild(&mut self) {
        if std::mem::take(&mut self.rebuilding) {
            self.applied = self.full.cursors[1..=self.length].to_vec();
            self.feed(Input::Rebuilt(self.full.cursors[self.length]));
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Append { delivered } if self.length < EVENTS_MAX => {
                self.length += 1;
                if delivered && self.connected {
                    self.feed(Input::Tail(self.full.records[self.length - 1].clone()));
                }
            }
            Step::Append { .. } => {}
            Step::Deliver(at) => {
                self.feed(Input::Tail(self.full.records[at % self.length].clone()));
            }
            Step::Forge(at) => {
                self.feed(Input::Tail(signed_by_another(
                    self.full.records[at].clone(),
                )));
            }
            Step::Answer { lag } => self.answer(lag),
            Step::FailRead => {
                if self.reading.take().is_some() {
                    self.feed(Input::ReadFailed);
                }
            }
            Step::FinishApply => self.finish_apply(),
            Step::FailApply => {
                if self.applying.take().is_some() {
                    self.feed(Input::ApplyFailed);
                }
            }
            Step::Diverge => self.diverge(),
            Step::FinishRebuild => self.finish_rebuild(),
            Step::FailRebuild => {
                if std::mem::take(&mut self.rebuilding) {
                    self.feed(Input::RebuildFailed);
                }
            }
            Step::Head { lag } => {
                let version = self.length.saturating_sub(lag).max(1);
                self.feed(Input::Head(self.full.head(version as u64)));
            }
            Step::Disconnect => {
                self.connected = false;
                self.feed(Input::Disconnected);
            }
            Step::Connect => {
                self.connected = true;
                self.feed(Input::Connected);
            }
            Step::Tick => self.feed(Input::Tick),
        }
    }

    /// The store was wrong before an event, once each: the rebuild repairs it.
    fn diverge(&mut self) {
        let Some(events) = &self.applying else { return };
        let version = events[0].cursor.version;
        if self.repaired != Some(version) {
            self.repaired = Some(version);
            self.applying = None;
            self.feed(Input::Diverged(version));
        }
    }

    /// Everything works from here on. No event is appended, so only heads tell what was lost.
    fn calm_down(&mut self) {
        self.take(&Step::Connect);
        for _ in 0..CALM_ROUNDS_MAX {
            if self.follow.phase() == Phase::Following && self.applied.len() == self.length {
                return;
            }
            self.take(&Step::Head { lag: 0 });
            self.answer(0);
            self.finish_apply();
            self.finish_rebuild();
            self.feed(Input::Tick);
        }
    }
}

fn place(version: Version) -> usize {
    usize::try_from(version.0).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// I5 and I8, as far as following goes.
    #[test]
    fn every_event_is_applied_once_in_order_and_the_end_is_reached_once_faults_stop(
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut model = Model::new();
        steps.iter().for_each(|step| model.take(step));
        model.calm_down();
        prop_assert_eq!(model.follow.cursor(), model.full.cursors[model.length]);
        prop_assert_eq!(model.follow.phase(), Phase::Following);
    }
}
