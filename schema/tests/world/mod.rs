//! A state that files are applied to.

use serde_json::Value;
use sluice_schema::decide::{Command, Origin, Outcome, Plan, Refusal, decide, genesis};
use sluice_schema::declare;
use sluice_schema::entity::Workspace;
use sluice_schema::event::{Actor, EventId};
use sluice_schema::kind::RouterFlavor;
use sluice_schema::state::State;
use sluice_schema::version::{Epoch, Time};
use uuid::Uuid;

const START: u64 = 1_700_000_000;

pub(crate) struct World {
    pub(crate) state: State,
    /// Seconds.
    now: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let time = Time(START * 1_000_000);
        let epoch = Epoch(Uuid::from_u128(1));
        let first = genesis(epoch, EventId(Uuid::nil()), time, Actor::default());
        let applied = State::default().apply(&first.event, &first.encoded.bytes);
        Self {
            state: applied.unwrap().0,
            now: START,
        }
    }

    /// Applies a file: `+created ~updated -deleted =unchanged`, or the mistakes.
    pub(crate) fn apply(
        &mut self,
        text: &str,
        prune: bool,
    ) -> Result<String, Vec<declare::Mistake>> {
        self.now += 1;
        let document = declare::read(text)?;
        let plan = Plan {
            workspace: Workspace::DEFAULT,
            document,
            prune,
        };
        let origin = Origin {
            id: EventId(Uuid::from_u128(u128::from(self.now))),
            time: Time(self.now * 1_000_000),
            actor: Actor::default(),
            reason: None,
            request_id: None,
            trace: None,
            router_flavor: RouterFlavor::default(),
            seed: [7; 32],
        };
        match decide(&self.state, Command::Apply(Box::new(plan)), &origin) {
            Ok(decision) => {
                self.state = decision.state;
                let Outcome::Applied(applied) = decision.outcome else {
                    panic!("another outcome");
                };
                Ok(format!(
                    "+{} ~{} -{} ={}",
                    applied.created, applied.updated, applied.deleted, applied.unchanged
                ))
            }
            Err(Refusal::Mistaken(mistakes)) => Err(mistakes),
            Err(Refusal::Rejected(rejection)) => panic!("{}", rejection.message),
            Err(Refusal::Conflicting(conflicts)) => panic!("{conflicts:?}"),
        }
    }

    pub(crate) fn dump(&self) -> Value {
        declare::write(&self.state, &Workspace::DEFAULT)
    }

    /// Checks that a dump applied here changes nothing, and applied to an empty state makes the same.
    pub(crate) fn check_dump(&mut self, name: &str) {
        let dump = self.dump();
        let unchanged = format!("+0 ~0 -0 ={}", self.state.len());
        for text in [dump.to_string(), declare::to_yaml(&dump)] {
            let applied = self.apply(&text, true);
            assert_eq!(applied.as_deref(), Ok(unchanged.as_str()), "{name}\n{text}");
            let mut other = Self::new();
            other.now = self.now;
            if let Err(mistakes) = other.apply(&text, true) {
                let list: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                panic!("{name}: {}\n{text}", list.join("\n"));
            }
            assert_eq!(
                visible(&other.state),
                visible(&self.state),
                "{name}\n{text}"
            );
        }
    }
}

/// All bodies without the time of their last change.
fn visible(state: &State) -> Vec<(String, Value)> {
    let one = |(key, entry): (&sluice_schema::entity::Key, &sluice_schema::entity::Entry)| {
        let mut fields = entry.body.fields().unwrap();
        fields.remove("updated_at");
        (format!("{} {}", key.kind, key.id), Value::Object(fields))
    };
    state.iter().map(one).collect()
}

/// The warnings about a file.
#[allow(dead_code, reason = "not every test looks at them")]
pub(crate) fn warnings(text: &str) -> Vec<String> {
    match declare::read(text) {
        Ok(document) => document.warnings.iter().map(ToString::to_string).collect(),
        Err(_) => Vec::new(),
    }
}
