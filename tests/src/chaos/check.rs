//! What must be true once all is well again, whatever happened before: read from the log itself, and compared with
//! what the writers were told and what the replicas say.

use super::history::{Answer, History, What, Write};
use super::rig::{Rig, Target};
use super::writer::{COUNT, counters};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use sluice_replica::keys::TrustedKeys;
use sluice_replica::log::jetstream::{JetStream, Options, Role};
use sluice_replica::log::{Record, Source};
use sluice_replica::run::fold_log;
use sluice_schema::entity::Key;
use sluice_schema::event::{Event, Mutation, Mutations};
use sluice_schema::state::State;
use sluice_schema::version::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const LOG_PATIENCE: Duration = Duration::from_secs(60);
const PACE: Duration = Duration::from_millis(50);
const CLUSTER: &str = "main";

/// The log as it is, and what it folds to.
#[derive(Debug)]
pub struct Truth {
    /// Its records, from version 1.
    pub records: Vec<Record>,
    /// Their events.
    pub events: Vec<Event>,
    /// What they fold to.
    pub state: State,
}

/// What was found in a run that is as it must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The log's last version.
    pub version: u64,
    /// Acknowledged writes, all of them found.
    pub acknowledged: usize,
    /// Refused writes, none of them found.
    pub refused: usize,
    /// Writes of unknown outcome that were found, once.
    pub unknown_stored: usize,
    /// Writes of unknown outcome that were not found.
    pub unknown_absent: usize,
}

impl Truth {
    /// Reads the whole log, up to `last` at least, and verifies it: versions without a gap, the chain, the digests, and
    /// the signatures.
    ///
    /// # Errors
    /// If it cannot be read, or is not sound.
    pub fn read(brokers: Vec<String>, trusted: &TrustedKeys, last: u64) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (records, folded) = runtime.block_on(async {
            let source = connect(brokers).await?;
            let deadline = Instant::now() + LOG_PATIENCE;
            loop {
                match read_log(&source).await {
                    // A copy may be behind.
                    Ok(records) if records.len() as u64 >= last => {
                        return anyhow::Ok((records, fold_log(&source, trusted).await?));
                    }
                    Ok(records) if Instant::now() > deadline => {
                        bail!(
                            "the log holds {} records; {last} were applied",
                            records.len()
                        )
                    }
                    Err(error) if Instant::now() > deadline => return Err(error),
                    Ok(_) | Err(_) => tokio::time::sleep(PACE).await,
                }
            }
        })?;
        let mut state = State::default();
        let mut events = Vec::with_capacity(records.len());
        for (record, due) in records.iter().zip(1..) {
            ensure!(
                record.version == Version(due),
                "the log has version {} where {due} is due",
                record.version
            );
            let event = Event::decode(&record.event)?;
            state = state.apply(&event, &record.event)?.0;
            events.push(event);
        }
        ensure!(
            folded.cursor() == state.cursor() && folded.digest() == state.digest(),
            "the log folds to {:?} and to {:?}",
            folded.cursor(),
            state.cursor()
        );
        Ok(Self {
            records,
            events,
            state,
        })
    }

    /// The version, chain and digest after each event, as status pages show them.
    pub fn marks(&self) -> BTreeMap<u64, (String, String)> {
        let mark = |(record, event): (&Record, &Event)| {
            let chain = event.cursor(&record.event).chain;
            (
                record.version.0,
                (chain.to_string(), event.digest.to_string()),
            )
        };
        self.records.iter().zip(&self.events).map(mark).collect()
    }
}

/// A connection to the log that can only read.
///
/// # Errors
/// If the addresses cannot be right.
pub async fn connect(brokers: Vec<String>) -> Result<Source> {
    let source = JetStream::connect(Options {
        servers: brokers,
        cluster: CLUSTER.into(),
        ..Options::new(Role::DataPlane, "checker")
    });
    Ok(source.await?)
}

/// Everything the log holds, read as it is: the caller looks for holes.
///
/// # Errors
/// If it cannot be read now.
pub async fn read_log(source: &Source) -> Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    loop {
        let from = records
            .last()
            .map_or(Version::GENESIS, |last| last.version.next());
        let page = source.log.read(from).await?;
        let end = page.records.is_empty() || !page.more;
        records.extend(page.records);
        if end {
            return Ok(records);
        }
    }
}

/// Compares what the writers were told with the log. `before` is the last version from before they began.
///
/// # Errors
/// With the first broken promise.
pub fn check_history(history: &History, truth: &Truth, before: u64) -> Result<Summary> {
    let writes = history.writes();
    let mut stored: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for event in &truth.events {
        if let Some(id) = &event.request_id {
            stored.entry(id).or_default().push(event.version().0);
        }
    }
    let mut summary = Summary {
        version: truth.state.version().0,
        acknowledged: 0,
        refused: 0,
        unknown_stored: 0,
        unknown_absent: 0,
    };
    let mut asked: BTreeMap<u64, &Write> = BTreeMap::new();
    for write in &writes {
        let id = write.id.to_string();
        let found = stored.get(id.as_str()).map_or(&[][..], Vec::as_slice);
        match (&write.answer, found) {
            (Answer::Acknowledged(version), [at]) if at == version => summary.acknowledged += 1,
            (Answer::Refused(..), []) => summary.refused += 1,
            (Answer::Unknown(_), []) => summary.unknown_absent += 1,
            (Answer::Unknown(_), [_]) => summary.unknown_stored += 1,
            (Answer::Acknowledged(_), _) => {
                let name = write.what.name();
                let same: Vec<_> = writes.iter().filter(|o| o.what.name() == name).collect();
                bail!("acknowledged, but the log has it at {found:?}: {write:?} among {same:#?}")
            }
            (Answer::Refused(..), _) => {
                bail!("refused, but the log has it at {found:?}: {write:?}")
            }
            (Answer::Unknown(_), _) => bail!("stored more than once, at {found:?}: {write:?}"),
        }
        for version in found {
            asked.insert(*version, write);
        }
    }
    check_order(&writes)?;
    check_contents(truth, &asked, before)?;
    Ok(summary)
}

/// Two acknowledged writes never share a version, and one that began after another was acknowledged comes after it.
fn check_order(writes: &[Write]) -> Result<()> {
    let mut versions = BTreeSet::new();
    let mut acknowledged: Vec<(u64, &Write)> = Vec::new();
    for write in writes {
        if let Answer::Acknowledged(version) = write.answer {
            ensure!(
                versions.insert(version),
                "two acknowledged writes share version {version}: {write:?}"
            );
            acknowledged.push((version, write));
        }
    }
    let mut by_answer = acknowledged.clone();
    by_answer.sort_by_key(|(_, write)| write.answered);
    acknowledged.sort_by_key(|(_, write)| write.asked);
    let mut earlier = by_answer.into_iter().peekable();
    let mut highest = 0;
    for (version, write) in acknowledged {
        while let Some((done, _)) = earlier.next_if(|(_, other)| other.answered < write.asked) {
            highest = highest.max(done);
        }
        ensure!(
            version > highest,
            "version {highest} was acknowledged before this was asked for: {write:?}"
        );
    }
    Ok(())
}

/// Each event does what was asked for, and nothing was stored that nobody asked for. Folds a second time, by hand.
fn check_contents(truth: &Truth, asked: &BTreeMap<u64, &Write>, before: u64) -> Result<()> {
    let mut services: BTreeMap<Key, Map<String, Value>> = BTreeMap::new();
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for event in &truth.events {
        let version = event.version().0;
        let Mutations::Inline(mutations) = &event.mutations else {
            bail!("version {version} is a large transaction");
        };
        if version > before {
            let write = asked.get(&version);
            let write = write.with_context(|| format!("nobody asked for {event:?}"))?;
            let [mutation] = mutations.as_slice() else {
                bail!("more than was asked for by {write:?}: {event:?}");
            };
            let old = services.get(&mutation.key());
            check_content(write, mutation, old)
                .with_context(|| format!("{write:?} became {event:?}"))?;
            if let What::Increment { name, .. } = &write.what {
                *counted.entry(name.clone()).or_default() += 1;
            }
        }
        for mutation in mutations {
            match mutation.body() {
                Some(body) => services.insert(mutation.key(), body.fields()?),
                None => services.remove(&mutation.key()),
            };
        }
    }
    for name in counters() {
        let counter = services.values().find(|fields| fields["name"] == *name);
        let total = counter.map_or(0, |fields| fields[COUNT].as_u64().unwrap_or_default());
        let expected = 1 + counted.get(&name).copied().unwrap_or_default();
        ensure!(
            counter.is_none() || total == expected,
            "{name} is {total}, and should be {expected}"
        );
    }
    Ok(())
}

fn check_content(
    write: &Write,
    mutation: &Mutation,
    old: Option<&Map<String, Value>>,
) -> Result<()> {
    let id = write.id.to_string();
    let new = match mutation.body() {
        Some(body) => Some(body.fields()?),
        None => None,
    };
    if let Some(new) = &new {
        ensure!(new["tags"] == serde_json::json!([id]), "other tags");
    }
    let name =
        |fields: Option<&Map<String, Value>>| Some(fields?.get("name")?.as_str()?.to_owned());
    let count = |fields: Option<&Map<String, Value>>| fields?.get(COUNT)?.as_u64();
    let (was, is) = (name(old), name(new.as_ref()));
    let right = match &write.what {
        What::Create(name) => was.is_none() && is.as_ref() == Some(name),
        What::Update(name) => was.as_ref() == Some(name) && was == is,
        What::Delete(name) => was.as_ref() == Some(name) && is.is_none(),
        What::Increment { name, from } => {
            was.as_ref() == Some(name)
                && was == is
                && count(old) == Some(*from)
                && count(new.as_ref()) == Some(*from + 1)
        }
    };
    ensure!(right, "the entity is not what was asked for");
    Ok(())
}

/// Every replica holds the log's fold: data planes by their digest, control planes also entity by entity.
///
/// # Errors
/// With the first that does not.
pub fn check_replicas(rig: &Rig, truth: &Truth) -> Result<()> {
    let (digest, chain) = (truth.state.digest(), truth.state.chain());
    for target in rig.replicas() {
        let seen = rig.look(target)?;
        ensure!(
            seen.version == truth.state.version().0
                && seen.digest == digest.to_string()
                && seen.chain == chain.to_string(),
            "{target:?} holds {seen:?}, the log folds to {digest} at {}",
            truth.state.version()
        );
        if let Target::Control(number) = target {
            check_entities(rig, number, truth)?;
        }
    }
    let panics = rig.panics();
    ensure!(panics.is_empty(), "somebody panicked: {panics:?}");
    Ok(())
}

fn check_entities(rig: &Rig, number: usize, truth: &Truth) -> Result<()> {
    let own = |fields: &Value| {
        let name = fields["name"].as_str().unwrap_or_default().to_owned();
        (name, (fields["tags"].clone(), fields[COUNT].clone()))
    };
    let mut expected = BTreeMap::new();
    for (key, entry) in truth.state.iter() {
        if key.kind.as_str() == "service" {
            expected.extend([own(&Value::Object(entry.body.fields()?))]);
        }
    }
    let url = &rig.admin_urls()[number];
    let mut found = BTreeMap::new();
    let mut path = Some("/services?size=1000".to_owned());
    while let Some(next) = path {
        let page = rig.get(&format!("{url}{next}"))?;
        let data = page["data"].as_array().context("a page without data")?;
        found.extend(data.iter().map(own));
        path = page["next"].as_str().map(str::to_owned);
    }
    ensure!(
        found == expected,
        "control plane {number} shows {} services, the log folds to {}",
        found.len(),
        expected.len()
    );
    Ok(())
}
