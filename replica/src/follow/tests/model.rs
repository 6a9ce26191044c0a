//! A model of the log, the snapshots, the network and the disk with every fault that passes, against the real state
//! machine.

use super::*;
use proptest::prelude::*;
use std::sync::LazyLock;

const EVENTS_MAX: usize = 40;
/// The versions of the later life: it is founded right after the last version of the first.
const LATER_FROM: u64 = EVENTS_MAX as u64 + 1;
const LATER_EVENTS: usize = 10;
const PAGE_RECORDS_MAX: usize = 4;
/// Answers in a row by copies that lag or have lost something: more of them would be a fork.
const LAGGING_MAX: usize = 5;
/// Rounds without faults after which the replica must be at the log's end.
const CALM_ROUNDS_MAX: usize = 300;

/// Something that is under way and fails.
#[derive(Clone, Copy, Debug)]
enum Failing {
    Read,
    Apply,
    Find,
    Load,
    /// The load: what was fetched is not what it should be.
    Spoilt,
    Refold,
}

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
    /// It is answered by a copy that has lost the first record of the answer.
    AnswerHoled,
    FinishApply,
    Fail(Failing),
    /// The store goes wrong without anybody noticing: whatever is applied diverges.
    Break,
    /// A control plane cuts a snapshot.
    Cut,
    /// An operator trims the log to where the newest snapshot stands for it.
    Trim,
    /// The search under way is answered by a copy that knows the newest snapshots, or does not.
    AnswerFind {
        stale: bool,
    },
    FinishLoad,
    FinishRefold,
    Head {
        lag: usize,
    },
    /// The log is made again: a later life, with a charter and a snapshot.
    Found,
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
        1 => Just(Step::AnswerHoled),
        2 => Just(Step::Fail(Failing::Read)),
        6 => Just(Step::FinishApply),
        2 => Just(Step::Fail(Failing::Apply)),
        1 => Just(Step::Break),
        2 => Just(Step::Cut),
        1 => Just(Step::Trim),
        6 => any::<bool>().prop_map(|stale| Step::AnswerFind { stale }),
        1 => Just(Step::Fail(Failing::Find)),
        4 => Just(Step::FinishLoad),
        1 => Just(Step::Fail(Failing::Load)),
        1 => Just(Step::Fail(Failing::Spoilt)),
        2 => Just(Step::FinishRefold),
        1 => Just(Step::Fail(Failing::Refold)),
        3 => (0_usize..4).prop_map(|lag| Step::Head { lag }),
        1 => Just(Step::Found),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Connect),
        6 => Just(Step::Tick),
    ]
}

/// What the log will hold in its first life, and in its second; signed once for all runs.
static FIRST: LazyLock<History> = LazyLock::new(|| History::new(EVENTS_MAX as u64));
static LATER: LazyLock<History> =
    LazyLock::new(|| History::founded(epoch(2), LATER_FROM, LATER_EVENTS as u64));

struct Model {
    life: &'static History,
    /// How many of the events of this life there are so far.
    length: usize,
    /// How many of them were trimmed.
    trimmed: usize,
    snapshots: Vec<Root>,
    follow: Follow,
    connected: bool,
    reading: Option<Version>,
    lagging: usize,
    applying: Option<Vec<Verified>>,
    finding: bool,
    loading: Option<Root>,
    refolding: bool,
    /// What the store holds.
    applied: Cursor,
    broken: bool,
    /// Where it went wrong last.
    broken_at: Option<Version>,
    /// Whether faults go on until they are believed.
    relentless: bool,
}

impl Model {
    fn new() -> Self {
        Self {
            life: &FIRST,
            length: 1,
            trimmed: 0,
            snapshots: Vec::new(),
            follow: Follow::new(Cursor::default(), key().trusted(), SyncMode::Incremental),
            connected: false,
            reading: None,
            lagging: 0,
            applying: None,
            finding: false,
            loading: None,
            refolding: false,
            applied: Cursor::default(),
            broken: false,
            broken_at: None,
            relentless: false,
        }
    }

    /// Feeds an input and checks what may never happen.
    fn feed(&mut self, input: Input) {
        for action in self.follow.step(input) {
            match action {
                Action::Read(from) => {
                    assert_eq!(self.reading.replace(from), None, "two reads at once");
                }
                Action::Apply(events) => self.begin_apply(events),
                Action::FindSnapshot => {
                    assert!(!self.is_changing(), "a search during a change");
                    self.finding = true;
                }
                Action::Load(root) => self.begin_load(*root),
                Action::Refold => {
                    assert!(!self.is_changing(), "two changes at once");
                    self.refolding = true;
                }
                Action::Alarm(Alarm::Fork(fork)) => self.check_fork(&fork),
                Action::Alarm(Alarm::Diverged(_)) => assert!(self.broken),
                Action::Alarm(Alarm::BadTail { .. } | Alarm::NewEpoch(_)) => {}
            }
        }
        let cursor = self.follow.cursor();
        assert_eq!(cursor, self.applied, "the cursor is not what was applied");
    }

    /// Whether something is under way beside which nothing else may be.
    fn is_changing(&self) -> bool {
        self.applying.is_some() || self.finding || self.loading.is_some() || self.refolding
    }

    fn begin_apply(&mut self, events: Vec<Verified>) {
        assert!(!self.is_changing(), "two changes at once");
        let mut at = self.applied;
        for verified in &events {
            let next = at.version.next();
            assert_eq!(verified.cursor.version, next, "applied twice or left out");
            assert!(at.version == Version::ZERO || verified.cursor.epoch == at.epoch);
            at = verified.cursor;
            assert_eq!(at, history(at).at(at.version.0), "not what was signed");
        }
        self.applying = Some(events);
    }

    fn begin_load(&mut self, root: Root) {
        assert!(!self.is_changing(), "two changes at once");
        let (own, other) = (self.applied, root.cursor);
        assert!(other == own || place(other) > place(own), "back in time");
        assert!(other != own || self.broken, "for nothing");
        let known = own.version > Version::ZERO;
        assert!(!known || other.epoch == own.epoch || root.chartered);
        // Its answer would come too late.
        self.reading = None;
        self.loading = Some(root);
    }

    /// Which forks the faults of this model can bring about.
    fn check_fork(&self, fork: &Fork) {
        match fork {
            Fork::Hole { .. } => {}
            Fork::Epoch { .. } => assert_eq!(self.life.first, LATER_FROM),
            Fork::Behind { .. } | Fork::Diverged { .. } if self.relentless => {}
            Fork::Chain { .. }
            | Fork::Behind { .. }
            | Fork::Founded { .. }
            | Fork::Untrusted { .. }
            | Fork::Diverged { .. } => panic!("a fork where there is none: {fork}"),
        }
    }

    fn move_to(&mut self, cursor: Cursor) {
        assert!(place(cursor) >= place(self.applied), "back in time");
        self.applied = cursor;
    }

    /// The log's end.
    fn end(&self) -> Cursor {
        self.life.cursors[self.length]
    }

    fn answer(&mut self, lag: usize, holed: bool) {
        let Some(from) = self.reading.take() else {
            return;
        };
        let poor = lag > 0 || holed;
        self.lagging = if poor { self.lagging + 1 } else { 0 };
        let (lag, holed) = match self.lagging > LAGGING_MAX && !self.relentless {
            true => (0, false),
            false => (lag, holed),
        };
        let visible = self.length.saturating_sub(lag).max(self.trimmed);
        let asked = usize::try_from(from.0.saturating_sub(self.life.first)).unwrap();
        let start = asked.max(self.trimmed);
        let end = visible.min(start + PAGE_RECORDS_MAX).max(start);
        let records = self.life.records.get(start..end).unwrap_or_default();
        let records = records.iter().skip(usize::from(holed)).cloned().collect();
        let more = visible > end;
        let begins_late = start > asked && start < end;
        let first = begins_late.then_some(Version(self.life.first + self.trimmed as u64));
        let page = Page {
            records,
            more,
            first,
        };
        self.feed(Input::Page { from, page });
    }

    fn finish_apply(&mut self) {
        let Some(events) = self.applying.take() else {
            return;
        };
        if self.broken {
            return self.feed(Input::Diverged(events[0].cursor.version));
        }
        self.move_to(events.last().unwrap().cursor);
        self.feed(Input::Applied);
    }

    fn answer_find(&mut self, stale: bool) {
        if std::mem::take(&mut self.finding) {
            let known = self.snapshots.len().saturating_sub(usize::from(stale));
            self.feed(Input::Snapshots(self.snapshots[..known].to_vec()));
        }
    }

    fn finish_load(&mut self) {
        if let Some(root) = self.loading.take() {
            self.broken = false;
            self.move_to(root.cursor);
            self.feed(Input::Loaded(root.cursor));
        }
    }

    fn finish_refold(&mut self) {
        if !std::mem::take(&mut self.refolding) {
            return;
        }
        let (own, end) = (self.applied, self.end());
        if own.version == Version::ZERO || own.epoch == end.epoch {
            self.broken = false;
            self.move_to(self.end());
            self.feed(Input::Refolded(self.end()));
        } else {
            let version = Version(self.life.first);
            self.feed(Input::RefoldForked(Fork::Epoch { version }));
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Append { delivered } => {
                if self.length < self.life.records.len() {
                    self.length += 1;
                    if delivered && self.connected {
                        self.feed(Input::Tail(self.life.records[self.length - 1].clone()));
                    }
                }
            }
            Step::Deliver(at) => {
                let record = self.life.records[at % self.length].clone();
                self.feed(Input::Tail(record));
            }
            Step::Forge(at) => {
                let record = FIRST.records[at].clone();
                self.feed(Input::Tail(signed_by_another(record)));
            }
            Step::Answer { lag } => self.answer(lag, false),
            Step::AnswerHoled => self.answer(0, true),
            Step::FinishApply => self.finish_apply(),
            // Once for each event: twice would be its author's fault.
            Step::Break => {
                let at = self.applied.version;
                self.broken |= self.broken_at.replace(at) != Some(at);
            }
            Step::Cut => self.cut(),
            Step::Trim => self.trim(),
            Step::AnswerFind { stale } => self.answer_find(stale),
            Step::FinishLoad => self.finish_load(),
            Step::FinishRefold => self.finish_refold(),
            Step::Fail(failing) => self.fail(failing),
            Step::Head { lag } => self.announce(lag),
            Step::Found => self.found(),
            Step::Disconnect => {
                self.connected = false;
                self.feed(Input::Disconnected);
            }
            Step::Connect => {
                self.connected = true;
                self.reading = None;
                self.feed(Input::Connected);
            }
            Step::Tick => self.feed(Input::Tick),
        }
    }

    /// What is under way fails, if it is under way.
    fn fail(&mut self, failing: Failing) {
        let failed = match failing {
            Failing::Read => self.reading.take().map(|_| Input::ReadFailed),
            Failing::Apply => self.applying.take().map(|_| Input::ApplyFailed),
            Failing::Find => std::mem::take(&mut self.finding).then_some(Input::FindFailed),
            Failing::Load => self.loading.take().map(|_| Input::LoadFailed),
            Failing::Spoilt => self.loading.take().map(|_| Input::LoadUseless),
            Failing::Refold => std::mem::take(&mut self.refolding).then_some(Input::RefoldFailed),
        };
        if let Some(input) = failed {
            self.feed(input);
        }
    }

    fn announce(&mut self, lag: usize) {
        let place = self.length.saturating_sub(lag).max(1);
        let first = self.life.first + self.trimmed as u64;
        let cursor = self.life.cursors[place];
        // Large enough to be worth it for nobody who can read.
        self.feed(Input::Head(head(cursor, first, None)));
    }

    fn cut(&mut self) {
        let root = match self.life.first {
            LATER_FROM => chartered(self.end()),
            _ => root(self.end()),
        };
        self.snapshots.push(root);
    }

    fn trim(&mut self) {
        if let Some(newest) = self.snapshots.last() {
            let before = (newest.cursor.version.0 + 1).saturating_sub(self.life.first);
            let before = usize::try_from(before).unwrap();
            self.trimmed = self.trimmed.max(before.min(self.length - 1));
        }
    }

    fn found(&mut self) {
        if self.life.first != LATER_FROM {
            (self.life, self.length, self.trimmed) = (&LATER, 1, 0);
            self.cut();
        }
    }

    /// Everything works from here on. No event is appended, so only heads tell what was lost.
    fn calm_down(&mut self) {
        self.take(&Step::Connect);
        for _ in 0..CALM_ROUNDS_MAX {
            if self.follow.phase() == Phase::Following && self.applied == self.end() {
                return;
            }
            self.announce(0);
            self.answer(0, false);
            self.finish_apply();
            self.answer_find(false);
            self.finish_load();
            self.finish_refold();
            self.feed(Input::Tick);
        }
    }
}

/// What never goes down.
fn place(cursor: Cursor) -> (Epoch, Version) {
    (cursor.epoch, cursor.version)
}

fn history(cursor: Cursor) -> &'static History {
    if cursor.epoch == epoch(1) {
        &FIRST
    } else {
        &LATER
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// I5, I6 and I8, as far as following goes.
    #[test]
    fn what_is_applied_goes_up_in_order_and_the_end_is_reached_once_faults_stop(
        steps in proptest::collection::vec(step(), 0..300),
    ) {
        let mut model = Model::new();
        steps.iter().for_each(|step| model.take(step));
        model.calm_down();
        prop_assert_eq!(model.follow.cursor(), model.end(), "{}", model.follow.phase());
        prop_assert_eq!(model.follow.phase(), Phase::Following);
    }

    /// Trouble that does not end is met at the pace of the ticks, however fast each question is answered.
    #[test]
    fn nothing_is_asked_without_end_between_two_ticks(
        steps in proptest::collection::vec(step(), 0..200),
        wrong in any::<[bool; 4]>(),
    ) {
        let mut model = Model::new();
        steps.iter().for_each(|step| model.take(step));
        model.take(&Step::Connect);
        let [holed, stale, spoiled, broken] = wrong;
        model.relentless = true;
        for _ in 0..100 {
            let mut answers = 0;
            while model.reading.is_some() || model.is_changing() {
                answers += 1;
                prop_assert!(answers < 100, "{}", model.follow.phase());
                model.broken |= broken;
                model.answer(0, holed);
                model.finish_apply();
                model.answer_find(stale);
                if spoiled {
                    model.fail(Failing::Spoilt);
                } else {
                    model.finish_load();
                }
                model.broken |= broken;
                if model.refolding && broken {
                    model.refolding = false;
                    let version = model.applied.version.next();
                    model.feed(Input::Diverged(version));
                }
                model.finish_refold();
            }
            model.announce(0);
            model.feed(Input::Tick);
        }
    }
}
