//! The index against what a list of the same events says.

use super::filter::Filter;
use super::index::{Before, Check, Digested, Index, LastTouch, Touched, name_hash};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_schema::entity::{Id, Key, KindName, Workspace};
use sluice_schema::version::{Chain, Epoch, Time, Version};
use uuid::Uuid;

const KINDS: [&str; 3] = ["service", "route", "unheard_of"];
const WORKSPACES: [&str; 2] = ["default", "team"];
const ACTORS: [&str; 3] = ["ann", "bob", ""];
const REASONS: [Option<&str>; 4] = [
    None,
    Some("Deploy 7"),
    Some("fix the deploy"),
    Some("other"),
];

fn key(kind: usize, workspace: usize, id: u128) -> Key {
    Key {
        kind: KindName::parse(KINDS[kind]).unwrap(),
        workspace: Workspace::parse(WORKSPACES[workspace]).unwrap(),
        id: Id(Uuid::from_u128(id)),
    }
}

/// Events of one life of the log, from a version on.
fn events(dice: &mut StdRng, first: u64, count: u64) -> Vec<Digested> {
    let mut chain = Chain::ZERO;
    let event = |version: u64| {
        let previous_chain = chain;
        chain = chain.extend(&version.to_le_bytes());
        let touches = (0..dice.random_range(0..4_u128)).map(|id| {
            let key = key(
                dice.random_range(0..3),
                dice.random_range(0..2),
                id * 2 + dice.random_range(0..2),
            );
            let name = format!("n{}", dice.random_range(0..4));
            Touched {
                names: vec![name_hash(key.kind.as_str(), key.workspace.as_str(), &name)],
                gone: dice.random_bool(0.2),
                key,
            }
        });
        Digested {
            version: Version(version),
            epoch: Epoch(Uuid::from_u128(1)),
            begins: version == 1,
            is_founding: false,
            previous_chain,
            chain,
            touches: touches.collect(),
            places: None,
            check: Check::of(&version.to_le_bytes()),
            // Clocks of several control planes go back now and then.
            time: Time(version * 10 + dice.random_range(0..30)),
            actor: ACTORS[dice.random_range(0..3)].to_owned(),
            reason: REASONS[dice.random_range(0..4)].map(str::to_owned),
        }
    };
    (first..first + count).map(event).collect()
}

fn index(events: &[Digested]) -> Index {
    let mut index = Index::default();
    for event in events {
        assert!(index.fits(event));
        index.push(event).unwrap();
    }
    index
}

fn all_keys() -> impl Iterator<Item = Key> {
    (0..3).flat_map(|kind| {
        (0..2).flat_map(move |workspace| (0..8).map(move |id| key(kind, workspace, id)))
    })
}

#[test]
fn an_entity_has_the_versions_that_touched_it() {
    for seed in 0..20 {
        let mut dice = StdRng::seed_from_u64(seed);
        let first = if seed % 2 == 0 { 1 } else { 77 };
        let events = events(&mut dice, first, 200);
        let index = index(&events);
        assert_eq!(
            (index.first(), index.last()),
            (Version(first), Version(first + 199))
        );
        let expected = if first == 1 {
            Before::Nothing
        } else {
            Before::Trimmed
        };
        assert_eq!(index.before(), expected, "seed {seed}");
        for key in all_keys() {
            let touched = |event: &&Digested| event.touches.iter().any(|one| one.key == key);
            let mut expected: Vec<Version> = events
                .iter()
                .filter(touched)
                .map(|event| event.version)
                .collect();
            expected.reverse();
            let found: Vec<Version> = index.versions(&key).collect();
            assert_eq!(found, expected, "seed {seed}");
            let at = Version(first + dice.random_range(0..200));
            let last = events.iter().rev().filter(|event| event.version <= at);
            let last =
                last.flat_map(|event| event.touches.iter().map(move |one| (event.version, one)));
            let expected = match last.into_iter().find(|(_, one)| one.key == key) {
                None => LastTouch::Before,
                Some((version, one)) if one.gone => LastTouch::Gone(version),
                Some((version, _)) => LastTouch::Put(version),
            };
            assert_eq!(index.last_touch(&key, at), expected, "seed {seed}");
        }
    }
}

#[test]
fn filters_select_what_they_say_forwards_and_backwards() {
    for seed in 0..200 {
        let mut dice = StdRng::seed_from_u64(seed);
        let events = events(&mut dice, 5, 120);
        let index = index(&events);
        let maybe = |dice: &mut StdRng| dice.random_bool(0.3);
        let filter = Filter {
            entity: maybe(&mut dice)
                .then(|| key(dice.random_range(0..3), 0, dice.random_range(0..8))),
            kind: maybe(&mut dice).then(|| KINDS[dice.random_range(0..3)].to_owned()),
            workspace: maybe(&mut dice).then(|| WORKSPACES[dice.random_range(0..2)].to_owned()),
            actor: maybe(&mut dice)
                .then(|| ["ann", "bob", "nobody"][dice.random_range(0..3)].to_owned()),
            reason: maybe(&mut dice).then(|| "deploy".to_owned()),
            since: maybe(&mut dice).then(|| Time(dice.random_range(0..1300))),
            until: maybe(&mut dice).then(|| Time(dice.random_range(0..1300))),
            from: Version(dice.random_range(0..130)),
            to: maybe(&mut dice).then(|| Version(dice.random_range(0..130))),
        };
        let accepts = |event: &&Digested| {
            let entity = filter
                .entity
                .as_ref()
                .is_none_or(|key| event.touches.iter().any(|one| one.key == *key));
            let alike = filter.kind.is_none() && filter.workspace.is_none()
                || event.touches.iter().any(|one| {
                    filter
                        .kind
                        .as_ref()
                        .is_none_or(|kind| kind == one.key.kind.as_str())
                        && filter
                            .workspace
                            .as_ref()
                            .is_none_or(|name| name == one.key.workspace.as_str())
                });
            let reason = event.reason.as_deref().unwrap_or_default().to_lowercase();
            entity
                && alike
                && filter
                    .actor
                    .as_ref()
                    .is_none_or(|actor| *actor == event.actor)
                && filter
                    .reason
                    .as_ref()
                    .is_none_or(|wanted| reason.contains(wanted))
                && filter.since.is_none_or(|since| event.time >= since)
                && filter.until.is_none_or(|until| event.time <= until)
                && event.version >= filter.from
                && filter.to.is_none_or(|to| event.version <= to)
        };
        let all: Vec<Version> = events
            .iter()
            .filter(accepts)
            .map(|event| event.version)
            .collect();
        let max = dice.random_range(1..40);
        let forwards: Vec<Version> = all.iter().copied().take(max).collect();
        let backwards: Vec<Version> = all.iter().rev().copied().take(max).collect();
        assert_eq!(
            index.select(&filter, false, max),
            forwards,
            "seed {seed}: {filter:?}"
        );
        assert_eq!(
            index.select(&filter, true, max),
            backwards,
            "seed {seed}: {filter:?}"
        );
    }
}

#[test]
fn what_lies_between_two_versions_is_what_was_touched_there() {
    let mut dice = StdRng::seed_from_u64(3);
    let events = events(&mut dice, 1, 100);
    let index = index(&events);
    for (after, until) in [(0, 100), (10, 20), (99, 100), (50, 50), (60, 40), (90, 500)] {
        let between = |event: &&Digested| event.version.0 > after && event.version.0 <= until;
        let touches = events
            .iter()
            .filter(between)
            .flat_map(|event| &event.touches);
        let mut expected: Vec<Key> = touches.map(|one| one.key.clone()).collect();
        expected.sort();
        expected.dedup();
        let mut found = index.touched(Version(after), Version(until));
        found.sort();
        assert_eq!(found, expected, "{after}..{until}");
    }
    let time = Time(505);
    let expected = events.iter().rfind(|event| event.time <= time);
    assert_eq!(index.at_time(time), expected.map(|event| event.version));
    assert_eq!(index.at_time(Time(0)), None);
}

#[test]
fn names_lead_to_all_that_ever_had_them_the_last_one_first() {
    let touch = |version: u64, id: u128, name: &str| Digested {
        touches: vec![Touched {
            key: key(0, 0, id),
            names: vec![name_hash("service", "default", name)],
            gone: false,
        }],
        ..events(&mut StdRng::seed_from_u64(0), version, 1).remove(0)
    };
    let mut index = Index::default();
    let mut chain = Chain::ZERO;
    for (version, id, name) in [(1, 1, "a"), (2, 2, "b"), (3, 1, "c"), (4, 3, "a")] {
        let event = touch(version, id, name);
        let event = Digested {
            previous_chain: chain,
            chain: chain.extend(&version.to_le_bytes()),
            ..event
        };
        chain = event.chain;
        index.push(&event).unwrap();
    }
    let ids = |name: &str| {
        let keys = index.named("service", "default", name).into_iter();
        keys.map(|key| key.id.0.as_u128()).collect::<Vec<_>>()
    };
    assert_eq!(
        (ids("a"), ids("b"), ids("c")),
        (vec![3, 1], vec![2], vec![1])
    );
    assert_eq!(ids("d"), []);
    assert!(index.named("route", "default", "a").is_empty());
}

#[test]
fn an_event_that_does_not_follow_does_not_fit_and_a_new_life_starts_over() {
    let mut dice = StdRng::seed_from_u64(4);
    let all = events(&mut dice, 1, 10);
    let mut index = index(&all[..5]);
    assert!(!index.fits(&all[6]));
    let forged = Digested {
        previous_chain: Chain::ZERO,
        ..all[5].clone()
    };
    assert!(!index.fits(&forged));
    let other = Digested {
        epoch: Epoch(Uuid::from_u128(2)),
        ..all[5].clone()
    };
    assert!(!index.fits(&other));
    let founding = Digested {
        begins: true,
        is_founding: true,
        touches: Vec::new(),
        ..other
    };
    assert!(index.fits(&founding));
    index.push(&founding).unwrap();
    assert_eq!((index.first(), index.last()), (Version(6), Version(6)));
    assert_eq!(
        (index.before(), index.earliest()),
        (Before::Founded, Version(6))
    );
    assert!(all_keys().all(|key| index.versions(&key).next().is_none()));
}
