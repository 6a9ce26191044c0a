//! Commands in, mutations or errors out, in one line each; and every decision folded as a replica folds it.

mod apply;
mod expressions;
mod fold;
mod kinds;
mod restore;
mod seals;
mod workspaces;
mod write;

use super::*;
use crate::declare;
use crate::entity::{Id, Workspace};
use crate::event::Mutation;
use crate::kind::Kind;
use serde_json::{Map, Value, json};
use uuid::Uuid;

const START: u64 = 1_700_000_000;

/// Ids that are given in tests are small numbers.
fn id(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}

/// A state that commands are decided on, and the fold of what was decided.
struct World {
    state: State,
    folded: State,
    /// Seconds.
    now: u64,
    router_flavor: RouterFlavor,
}

impl World {
    fn new() -> Self {
        let time = Time(START * 1_000_000);
        let first = genesis(
            Epoch(Uuid::from_u128(1)),
            EventId(Uuid::nil()),
            time,
            Actor::default(),
        );
        let state = State::default()
            .apply(&first.event, &first.encoded.bytes)
            .unwrap()
            .0;
        Self {
            folded: state.clone(),
            state,
            now: START,
            router_flavor: RouterFlavor::default(),
        }
    }

    /// A world in which these requests were accepted.
    fn with(requests: &[(&str, Value)]) -> Self {
        let mut world = Self::new();
        for (request, body) in requests {
            let answer = world.request(request, body.clone(), None);
            assert!(answer.starts_with("created"), "{request}: {answer}");
        }
        world
    }

    fn decide(&mut self, command: Command) -> Result<Decision, Refusal> {
        self.now += 1;
        let version = self.state.version().0;
        let origin = Origin {
            id: EventId(Uuid::from_u128(u128::from(version))),
            time: Time(self.now * 1_000_000),
            actor: Actor::default(),
            reason: None,
            request_id: None,
            trace: None,
            seed: [u8::try_from(self.now % 251).unwrap(); 32],
            router_flavor: self.router_flavor,
        };
        let before = (self.state.cursor(), self.state.digest());
        let decision = decide(&self.state, command, &origin)?;
        assert_eq!((self.state.cursor(), self.state.digest()), before);
        self.follow(&decision);
        Ok(decision)
    }

    /// Takes up a decision, and checks that a replica comes to the same.
    fn follow(&mut self, decision: &Decision) {
        if let Some(Proposal {
            event,
            encoded,
            cursor,
            ..
        }) = &decision.event
        {
            let read = Event::decode(&encoded.bytes).unwrap();
            assert_eq!(read, *event);
            self.folded = self.folded.apply(&read, &encoded.bytes).unwrap().0;
            assert_eq!(self.folded.cursor(), *cursor);
        }
        self.state = decision.state.clone();
        self.state.check_invariants();
        self.folded.check_invariants();
        assert_eq!(self.folded.cursor(), self.state.cursor());
        assert_eq!(self.folded.digest(), self.state.digest());
        assert!(self.folded.iter().eq(self.state.iter()));
    }

    /// `METHOD kind[/name[/kind[/name]]]`, answered in one line.
    fn request(&mut self, request: &str, body: Value, if_match: Option<u64>) -> String {
        let (method, path) = request.split_once(' ').unwrap();
        let segments: Vec<&str> = path.split('/').collect();
        let (scope, own) = segments.split_at(segments.len().saturating_sub(1) / 2 * 2);
        let kind = Kind::from_entity(own[0]).unwrap();
        let scope = scope.first().map(|parent| {
            let parent = Kind::from_entity(parent).unwrap();
            let (field, _) = kind
                .schema()
                .foreign()
                .find(|(_, to)| to.kind == parent)
                .unwrap();
            Scope {
                field,
                parent,
                selector: Selector::parse(scope[1]),
            }
        });
        let selector = || Selector::parse(own[1]);
        let action = match method {
            "POST" => Action::Create,
            "PUT" => Action::Replace(selector()),
            "PATCH" => Action::Update(selector()),
            "DELETE" => Action::Delete(selector()),
            _ => panic!("{method}"),
        };
        let body = body.as_object().cloned().unwrap_or_default();
        let at = |version| Precondition::at(crate::version::Version(version));
        let precondition = if_match.map(at).unwrap_or_default();
        let write = Write {
            kind,
            workspace: Workspace::DEFAULT,
            scope,
            action,
            body,
            precondition,
        };
        let decided = self.decide(Command::Write(Box::new(write)));
        told(decided)
    }

    fn apply_file(&mut self, text: &str, prune: bool) -> String {
        let document = match declare::read(text) {
            Ok(document) => document,
            Err(mistakes) => return told(Err(Refusal::Mistaken(mistakes))),
        };
        let plan = Plan {
            workspace: Workspace::DEFAULT,
            document,
            prune,
        };
        let decided = self.decide(Command::Apply(Box::new(plan)));
        told(decided)
    }

    fn dump(&self) -> String {
        declare::write(&self.state, &Workspace::DEFAULT).to_string()
    }

    /// The fields of an entity named by its id.
    fn fields(&self, kind: Kind, number: u128) -> Map<String, Value> {
        let id = Id(Uuid::from_u128(number));
        let entry = self.state.entity(kind, &Workspace::DEFAULT, id);
        entry
            .unwrap_or_else(|| panic!("no {} {number}", kind.name()))
            .body
            .fields()
            .unwrap()
    }

    #[track_caller]
    fn check(&mut self, request: &str, body: Value, expected: &str) -> &mut Self {
        assert_eq!(self.request(request, body, None), expected, "{request}");
        self
    }

    #[track_caller]
    fn check_if(&mut self, version: u64, request: &str, body: Value, expected: &str) -> &mut Self {
        assert_eq!(
            self.request(request, body, Some(version)),
            expected,
            "{request}"
        );
        self
    }

    #[track_caller]
    fn check_apply(&mut self, text: &str, expected: &str) -> &mut Self {
        assert_eq!(self.apply_file(text, false), expected, "{text}");
        self
    }

    #[track_caller]
    fn check_prune(&mut self, text: &str, expected: &str) -> &mut Self {
        assert_eq!(self.apply_file(text, true), expected, "{text}");
        self
    }
}

/// `created: put service 1, ...` or the error.
fn told(decided: Result<Decision, Refusal>) -> String {
    match decided {
        Ok(decision) => {
            let outcome = match decision.outcome {
                Outcome::Created(_) => "created".into(),
                Outcome::Updated(_) => "updated".into(),
                Outcome::Deleted => "deleted".into(),
                Outcome::Applied(Applied {
                    created,
                    updated,
                    deleted,
                    unchanged,
                }) => {
                    format!("+{created} ~{updated} -{deleted} ={unchanged}")
                }
            };
            match decision.event {
                Some(proposal) => format!("{outcome}: {}", mutations(&proposal.event)),
                None => outcome,
            }
        }
        Err(Refusal::Rejected(rejection)) => {
            format!("{} {}", rejection.code.http_status(), rejection.message)
        }
        Err(Refusal::Conflicting(conflicts)) => conflicts
            .iter()
            .map(|conflict| format!("{} {:?}", conflict.key.kind, conflict.reason))
            .collect::<Vec<_>>()
            .join("\n"),
        Err(Refusal::Mistaken(mistakes)) => mistakes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

fn mutations(event: &Event) -> String {
    let Mutations::Inline(mutations) = &event.mutations else {
        panic!("a large event")
    };
    let one = |mutation: &Mutation| {
        let key = mutation.key();
        let verb = if mutation.body().is_some() {
            "put"
        } else {
            "delete"
        };
        match key.id.0.as_u128() {
            number if number < 1000 => format!("{verb} {} {number}", key.kind),
            _ => format!("{verb} {}", key.kind),
        }
    };
    mutations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Service 1 `a`, its route 2 `r`, consumer 3 `u`, and a plugin of each.
fn gateway() -> World {
    World::with(&[
        (
            "POST services",
            json!({"id": id(1), "name": "a", "host": "a.internal"}),
        ),
        (
            "POST routes",
            json!({"id": id(2), "name": "r", "paths": ["/r"], "service": {"id": id(1)}}),
        ),
        (
            "POST consumers",
            json!({"id": id(3), "username": "u", "custom_id": "u-1"}),
        ),
        (
            "POST plugins",
            json!({"id": id(4), "name": "key-auth", "service": {"id": id(1)}}),
        ),
        (
            "POST plugins",
            json!({"id": id(5), "name": "key-auth", "route": {"id": id(2)}}),
        ),
        (
            "POST plugins",
            json!({"id": id(6), "name": "rate-limiting", "route": {"id": id(2)}, "consumer": {"id": id(3)}, "config": {"minute": 5, "policy": "local"}}),
        ),
        (
            "POST keyauth_credentials",
            json!({"id": id(7), "key": "k", "consumer": {"id": id(3)}}),
        ),
    ])
}
