//! One run: three control planes and five data planes around one broker, and everything that happens to them.

use super::broker::{Broker, Damage};
use super::clients::{Clients, Size};
use super::dice::Dice;
use super::disk::End;
use super::network::Network;
use super::node::{Common, Node, Role};
use super::schedule::{Action, CALM, Profile, storm};
use super::trace::{Trace, note};
use super::truth::Truth;
use sluice_replica::follow::Phase;
use sluice_replica::keys::{SigningKey, TrustedKeys};
use sluice_replica::log::{Interest, TailItem};
use sluice_replica::node::Head;
use sluice_replica::planted::Bug;
use sluice_replica::run::Status;
use sluice_replica::snapshot::{Root, verify};
use sluice_schema::version::Version;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const CONTROLS: usize = 3;
const DATAS: usize = 5;
/// Longer than a copy may lag before a replica believes what it says.
const LAG_MAX_MS: u64 = 1200;
/// After the last fault everybody must agree within this.
const SETTLE_MAX: Duration = Duration::from_secs(60);
const SETTLE_PACE: Duration = Duration::from_millis(200);
/// What is left of a damaged log needs no longer than this to be understood.
const DAMAGED_SETTLE: Duration = Duration::from_secs(15);

/// The end of a fault.
#[derive(Clone, Copy, Debug)]
enum Mend {
    Wire(usize),
    Broker,
    Weather,
    Lag,
    Room(usize),
    Start(usize),
}

/// A run.
#[derive(Debug)]
pub(crate) struct World {
    dice: Dice,
    pub(crate) trace: Trace,
    truth: Truth,
    network: Network,
    nodes: Vec<Node>,
    pub(crate) clients: Clients,
    attacker: SigningKey,
    trusted: TrustedKeys,
    profile: Profile,
    mends: BTreeMap<(Instant, u64), Mend>,
    mend_count: u64,
}

impl World {
    /// The world of a seed, with everything running.
    pub(crate) fn new(seed: u64, focus: Option<Bug>, trace: &Trace) -> Self {
        let mut dice = Dice::new(seed, 1);
        let mut profile = Profile::draw(&mut dice);
        if let Some(bug) = focus {
            profile.focus(bug);
        }
        let keys: Vec<SigningKey> = (0..CONTROLS).map(signing_key).collect();
        let trusted = keys
            .iter()
            .skip(1)
            .fold(keys[0].trusted(), |all, key| all.and(&key.trusted()))
            .remembering();
        let truth = Truth::new(
            trace.clone(),
            keys.iter().map(|key| key.id().to_owned()).collect(),
        );
        let broker = Broker::new(seed, trace.clone(), truth.clone());
        let network = Network::new(seed, CONTROLS + DATAS + 1, broker, trace.clone());
        network.set_weather(CALM);
        let common = Common {
            seed,
            network: network.clone(),
            trace: trace.clone(),
            truth: truth.clone(),
            trusted: trusted.clone(),
        };
        let role = |client: usize| match keys.get(client) {
            Some(key) => (format!("cp{client}"), Role::Control(key.clone())),
            None => (format!("dp{}", client - CONTROLS), Role::Data),
        };
        let mut nodes: Vec<Node> = (0..CONTROLS + DATAS)
            .map(|client| {
                let (name, role) = role(client);
                Node::new(&common, client, name, role)
            })
            .collect();
        nodes.iter_mut().for_each(Node::start);
        Self {
            dice,
            trace: trace.clone(),
            clients: Clients::new(trace.clone(), truth.clone()),
            truth,
            network,
            nodes,
            attacker: SigningKey::from_seed([99; 32]),
            trusted,
            profile,
            mends: BTreeMap::new(),
            mend_count: 0,
        }
    }

    /// All steps, then the end of all faults and the last checks. Stops at the first promise that is not kept.
    pub(crate) async fn run(&mut self) {
        for step in 1..=self.profile.steps {
            self.trace.step(step);
            let action = self.profile.next(&mut self.dice);
            self.act(action);
            let pace = self.dice.milliseconds(0, self.profile.pace_max_ms);
            sleep(pace).await;
            self.mend_due();
            self.look();
            if self.trace.first_broken().is_some() {
                return;
            }
        }
        self.trace.step(self.profile.steps + 1);
        self.settle().await;
    }

    #[allow(clippy::too_many_lines, reason = "a table: what each action does")]
    fn act(&mut self, action: Action) {
        match action {
            Action::Repeat => self.repeat(),
            Action::Write => {
                // Some come together, and are appended together.
                let control = self.dice.index(CONTROLS);
                let count = match self.dice.chance(self.profile.burst) {
                    true => self.dice.between(2, 5),
                    false => 1,
                };
                (0..count).for_each(|_| self.write_by(control));
            }
            Action::Wait => {
                let wait = self.dice.milliseconds(0, 3000);
                self.later(wait, None);
            }
            Action::Kill => self.end(End::Kill),
            Action::PowerCut => self.end(End::PowerCut),
            Action::Stop => {
                let node = self.any();
                note!(self.trace, "{}: asked to stop", self.nodes[node].name);
                self.nodes[node].ask_to_stop();
            }
            Action::Start => {
                let down = |node: &usize| !self.nodes[*node].runs();
                let down: Vec<usize> = (0..self.nodes.len()).filter(down).collect();
                if let Some(node) = self.dice.pick(&down) {
                    self.nodes[*node].start();
                }
            }
            Action::Cut | Action::CutSilently => {
                let (node, silently) = (self.any(), action == Action::CutSilently);
                note!(
                    self.trace,
                    "{}: cut off{}",
                    self.nodes[node].name,
                    if silently { " silently" } else { "" }
                );
                self.network.cut(node, silently);
                let wait = self.dice.milliseconds(10, 9000);
                self.later(wait, Some(Mend::Wire(node)));
            }
            Action::BrokerDown => self.stop_broker(),
            Action::Weather => {
                let weather = storm(&mut self.dice);
                note!(self.trace, "network: {weather:?}");
                self.network.set_weather(weather);
                let wait = self.dice.milliseconds(100, 8000);
                self.later(wait, Some(Mend::Weather));
            }
            Action::Lag => {
                let lag = self.dice.milliseconds(10, LAG_MAX_MS);
                note!(self.trace, "broker: copies lag by up to {lag:?}");
                self.network.broker(|broker| broker.lag_max = lag);
                let wait = self.dice.milliseconds(100, 8000);
                self.later(wait, Some(Mend::Lag));
            }
            Action::Snapshot | Action::Trim => {
                let control = self.dice.index(CONTROLS);
                self.snapshot(control, action == Action::Trim);
                // Several may cut at the same time.
                if action == Action::Snapshot && self.dice.chance(4000) {
                    (0..CONTROLS)
                        .filter(|other| *other != control)
                        .for_each(|other| self.snapshot(other, false));
                }
            }
            Action::DiskFull
            | Action::DiskUnreadable
            | Action::DiskCrash
            | Action::DiskFlip
            | Action::DiskCopy
            | Action::DiskRestore
            | Action::DiskWipe => {
                self.act_on_disk(action);
            }
            Action::BrokerCopy => self.network.broker(Broker::keep_copy),
            Action::BrokerDamage => self.damage_broker(),
            Action::ForgeEvent | Action::ForgeHead | Action::Replay | Action::ForgeAppend => {
                self.attack(action)
            }
        }
    }

    fn any(&mut self) -> usize {
        self.dice.index(self.nodes.len())
    }

    /// Lets time pass before the next step, or ends a fault after a while.
    fn later(&mut self, wait: Duration, mend: Option<Mend>) {
        if let Some(mend) = mend {
            self.mend_count += 1;
            self.mends
                .insert((Instant::now() + wait, self.mend_count), mend);
        }
    }

    fn repeat(&mut self) {
        let control = self.dice.index(CONTROLS);
        let node = &self.nodes[control];
        if let (Some(core), Some(gone)) = (node.core(), node.gone()) {
            self.clients.repeat(&mut self.dice, &node.name, core, &gone);
        }
    }

    fn write_by(&mut self, control: usize) {
        let node = &self.nodes[control];
        let (Some(core), Some(gone)) = (node.core(), node.gone()) else {
            return;
        };
        let large = match () {
            () if std::mem::take(&mut self.profile.wide) => Size::Wide,
            () if std::mem::take(&mut self.profile.large) => Size::Large,
            () => Size::Usual,
        };
        let token = self
            .clients
            .write(&mut self.dice, &node.name, core, &gone, large);
        // An impatient client asks two control planes at once.
        let other = &self.nodes[self.dice.index(CONTROLS)];
        if self.dice.chance(self.profile.twice)
            && let (Some(core), Some(gone)) = (other.core(), other.gone())
        {
            self.clients.again(token, &other.name, core, &gone);
        }
    }

    /// Somebody asks a control plane for a snapshot, or to trim the log.
    fn snapshot(&mut self, control: usize, trim: bool) {
        let Some(core) = self.nodes[control].core() else {
            return;
        };
        let (snapshots, trace) = (core.snapshots.clone(), self.trace.clone());
        let name = self.nodes[control].name.clone();
        let newest = snapshots
            .newest()
            .map_or(Version::ZERO, |root| root.cursor.version);
        let before = Version(newest.0.saturating_sub(self.dice.below(4)) + self.dice.below(3));
        tokio::spawn(async move {
            let said = match trim {
                true => format!(
                    "trim before {before}: {:?}",
                    snapshots.trim(before).await.map(|trimmed| trimmed.first)
                ),
                false => format!(
                    "snapshot: {:?}",
                    snapshots.cut().await.map(|cut| cut.root.cursor.version)
                ),
            };
            note!(trace, "{name}: {said}");
        });
    }

    fn end(&mut self, end: End) {
        let node = self.any();
        self.nodes[node].end(end);
        if self.dice.chance(7000) {
            let wait = self.dice.milliseconds(0, 4000);
            self.later(wait, Some(Mend::Start(node)));
        }
    }

    fn stop_broker(&mut self) {
        note!(self.trace, "broker: killed");
        self.network.set_up(false);
        let wait = self.dice.milliseconds(50, 6000);
        self.later(wait, Some(Mend::Broker));
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the caller has picked these out"
    )]
    fn act_on_disk(&mut self, action: Action) {
        let at = self.any();
        let node = &mut self.nodes[at];
        match action {
            Action::DiskFull => {
                note!(self.trace, "{}: disk full", node.name);
                node.troubled = true;
                node.disk.set_full(true);
                let wait = self.dice.milliseconds(50, 5000);
                self.later(wait, Some(Mend::Room(at)));
            }
            Action::DiskUnreadable => {
                note!(self.trace, "{}: disk does not answer", node.name);
                node.disk.set_unreadable(true);
                let wait = self.dice.milliseconds(50, 5000);
                self.later(wait, Some(Mend::Room(at)));
            }
            Action::DiskCrash => {
                node.troubled = true;
                node.disk.crash_after(self.dice.below(6));
            }
            Action::DiskCopy => node.disk.keep_copy(),
            Action::DiskFlip => {
                node.end(if self.dice.chance(5000) {
                    End::Kill
                } else {
                    End::PowerCut
                });
                if self.dice.chance(5000) {
                    node.flip(true);
                }
                node.flip(false);
                node.start();
            }
            Action::DiskRestore => {
                node.end(End::Kill);
                node.restore();
                node.start();
            }
            _ => {
                node.end(End::Kill);
                node.wipe();
            }
        }
    }

    fn damage_broker(&mut self) {
        const ALL: [Damage; 9] = [
            Damage::LostTail,
            Damage::Rollback,
            Damage::Recreated,
            Damage::FlippedEvent,
            Damage::FlippedSignature,
            Damage::Hole,
            Damage::FlippedChunk,
            Damage::LostChunk,
            Damage::LostRoot,
        ];
        self.stop_broker();
        let Some(damage) = self.dice.pick(&ALL) else {
            return;
        };
        self.network.broker(|broker| broker.suffer(*damage));
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the caller has picked these out"
    )]
    fn attack(&mut self, action: Action) {
        let forged = self.network.broker(|broker| broker.forge(&self.attacker));
        let item = match action {
            Action::ForgeHead => self.network.last_head().and_then(|message| {
                let trusted = (0..CONTROLS).map(|control| signing_key(control).trusted());
                let head = trusted
                    .into_iter()
                    .find_map(|trusted| Head::open(&message, &trusted).ok())?;
                let version = Version(head.version.0 + self.dice.below(20));
                Some(TailItem::Head(
                    Head { version, ..head }.seal(&self.attacker),
                ))
            }),
            Action::ForgeEvent => forged.map(TailItem::Record),
            Action::Replay => self.network.old_message(),
            _ => forged.map(|record| {
                TailItem::Record(self.network.broker(|broker| broker.append_forged(record)))
            }),
        };
        if let Some(item) = item
            && self.network.is_up()
        {
            note!(self.trace, "attack: {action:?}");
            self.network.spread(&item);
        }
    }

    fn mend_due(&mut self) {
        while let Some(first) = self.mends.first_entry()
            && first.key().0 <= Instant::now()
        {
            let mend = first.remove();
            self.mend(mend);
        }
    }

    fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Wire(client) => self.network.heal(client),
            Mend::Broker => self.network.set_up(true),
            Mend::Weather => self.network.set_weather(CALM),
            Mend::Lag => self
                .network
                .broker(|broker| broker.lag_max = Duration::ZERO),
            Mend::Room(node) => {
                self.nodes[node].disk.set_full(false);
                self.nodes[node].disk.set_unreadable(false);
            }
            Mend::Start(node) => self.nodes[node].start(),
        }
    }

    /// After each step: what everybody shows, and whose process has ended.
    fn look(&mut self) {
        let damaged = self.truth.lock().damaged();
        for node in &mut self.nodes {
            node.look();
            if let Some(Status {
                phase: Phase::Forked(fork),
                last_error,
                ..
            }) = node.status()
                && !damaged
            {
                let name = &node.name;
                self.trace.broken(
                    "I8",
                    format!("{name} does not follow a log that is whole: {fork} ({last_error:?})"),
                );
            }
            if node.disk.has_crashed() || node.has_ended() {
                node.end(End::Kill);
            }
        }
    }

    /// All faults end; after a while everybody agrees, if the log is whole.
    async fn settle(&mut self) {
        note!(self.trace, "all faults end");
        while let Some((_, mend)) = self.mends.pop_first() {
            self.mend(mend);
        }
        (0..self.nodes.len()).for_each(|client| self.network.heal(client));
        self.network.set_up(true);
        let deadline = Instant::now() + SETTLE_MAX;
        let damaged_deadline = Instant::now() + DAMAGED_SETTLE;
        while self.trace.first_broken().is_none() {
            self.nodes.iter_mut().for_each(Node::start);
            sleep(SETTLE_PACE).await;
            self.look();
            let damaged = self.truth.lock().damaged();
            let agreed = self.clients.pending() == 0 && self.differing().is_none();
            let understood =
                damaged && Instant::now() > damaged_deadline && self.clients.pending() == 0;
            if understood || (agreed && !damaged) || (damaged && Instant::now() > deadline) {
                break;
            }
            if Instant::now() > deadline {
                self.trace.broken(
                    "I8",
                    self.differing()
                        .unwrap_or_else(|| "writes have no answer".into()),
                );
            }
        }
        if self.truth.lock().damaged() {
            self.check_forked();
        }
        if self.clients.pending() > 0 {
            self.trace.broken(
                "I12",
                format!("{} writes have no answer", self.clients.pending()),
            );
        }
        self.clients.check_denied();
        self.check_snapshots().await;
    }

    /// Every snapshot that is kept is whole.
    async fn check_snapshots(&self) {
        let damaged = self.truth.lock().damaged() || self.truth.lock().chunks_damaged;
        if damaged || self.trace.first_broken().is_some() {
            return;
        }
        let source = self.network.connect(self.nodes.len());
        // Without a subscription nobody is told that there is a connection.
        let _tail = source.log.tail(Interest::Follow).await;
        let stored = match source.chunks.roots().await {
            Ok(stored) => stored,
            Err(error) => {
                let what = format!("snapshots cannot be listed: {error}");
                return self.trace.broken("I8", what);
            }
        };
        for root in Root::open_all(&stored, &self.trusted) {
            if let Err(error) = verify(&*source.chunks, &root, |_, _| {}).await {
                let version = root.cursor.version;
                let what = format!("the snapshot of version {version} is not whole: {error}");
                self.trace.broken("I13", what);
            }
        }
    }

    /// Who is not where the log ends, or does not know that it is.
    fn differing(&self) -> Option<String> {
        let tip = self.truth.lock().tip();
        self.nodes.iter().find_map(|node| {
            let (name, cursor) = (&node.name, node.cursor());
            let Some(status) = node.status() else {
                return Some(format!("{name} does not run"));
            };
            let differs =
                cursor != tip || status.phase != Phase::Following || status.seen != tip.version;
            let error = status.last_error.unwrap_or_default();
            differs.then(|| {
                let (phase, seen) = (status.phase, status.seen);
                format!(
                    "{name} is at {}, has seen {seen} ({phase}; {error}), the log is at {}",
                    cursor.version, tip.version
                )
            })
        })
    }

    /// The log was damaged: who is not at its end says why.
    fn check_forked(&self) {
        let end = self.network.broker(|broker| broker.end());
        let tip = self.truth.lock().tip();
        let forked = |node: &Node| {
            let phase = node.status().map(|status| status.phase);
            matches!(phase, None | Some(Phase::Forked(_)))
        };
        // Whoever holds all that is whole need not know what follows, if nobody is left to tell.
        let nobody_tells = self.nodes.iter().take(CONTROLS).all(forked);
        for node in &self.nodes {
            let Some(status) = node.status() else {
                continue;
            };
            let (name, cursor) = (&node.name, node.cursor());
            let forked = matches!(status.phase, Phase::Forked(_));
            let all_there_is = nobody_tells && cursor == tip;
            if Some(cursor) != end && !forked && !all_there_is {
                let (version, phase) = (cursor.version, status.phase);
                let end = end.map_or(Version::ZERO, |end| end.version);
                self.trace.broken("I1", format!("the log was damaged and ends at {end}; {name} is at {version} and says: {phase}"));
            }
        }
    }
}

fn signing_key(number: usize) -> SigningKey {
    let mut seed = [7; 32];
    seed[0] = u8::try_from(number).unwrap_or(0);
    SigningKey::from_seed(seed)
}
