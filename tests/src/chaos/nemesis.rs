//! What goes wrong, and how it is made good again. Each draw follows from the run's seed.

use super::fault::{Fault, Way};
use super::rig::{Rig, Target};
use anyhow::Result;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::fmt;
use std::time::Duration;

/// The wires that are cut, held or slowed down.
const WIRES: [(&str, Fault); 7] = [
    ("cut", Fault::CUT),
    ("half-open", Fault::HALF_OPEN),
    ("deaf", Fault::DEAF),
    ("mute", Fault::MUTE),
    (
        "slow",
        Fault {
            down: Way::Trickle(20_000),
            ..Fault::NONE
        },
    ),
    (
        "very slow",
        Fault {
            down: Way::Trickle(2_000),
            ..Fault::NONE
        },
    ),
    ("late", Fault::both(Way::Delay(Duration::from_millis(50)))),
];

/// One thing that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nemesis {
    /// `kill -9`; started again at the end.
    Kill(Target),
    /// SIGSTOP; SIGCONT at the end.
    Freeze(Target),
    /// A partition, or a bad connection, between a program and all brokers, or a broker and all programs.
    Wire(Target, &'static str, Fault),
}

impl Nemesis {
    /// To whom it happens.
    pub fn target(self) -> Target {
        match self {
            Self::Kill(target) | Self::Freeze(target) | Self::Wire(target, _, _) => target,
        }
    }

    /// Whether they begin anew after it.
    pub fn ends_a_life(self) -> bool {
        match self {
            Self::Kill(_) => true,
            Self::Freeze(_) | Self::Wire(..) => false,
        }
    }

    /// Kills one of everybody, with equal chances for brokers, control planes and data planes.
    pub fn draw_kill(random: &mut StdRng, rig: &Rig) -> Self {
        Self::Kill(draw_target(random, rig))
    }

    /// Freezes or cuts off one of everybody.
    pub fn draw_fault(random: &mut StdRng, rig: &Rig) -> Self {
        let target = draw_target(random, rig);
        if random.random_range(0..3) == 0 {
            return Self::Freeze(target);
        }
        let at = random.random_range(0..WIRES.len());
        let (name, fault) = WIRES[at];
        Self::Wire(target, name, fault)
    }

    /// Freezes or kills the broker that leads the log's stream, or another one if there is no telling.
    pub fn draw_broker(random: &mut StdRng, rig: &Rig) -> Self {
        let any = random.random_range(0..rig.broker_urls().len());
        let leads = random.random_bool(0.7);
        let number = rig.leader().filter(|_| leads).unwrap_or(any);
        match random.random_bool(0.5) {
            true => Self::Kill(Target::Broker(number)),
            false => Self::Freeze(Target::Broker(number)),
        }
    }

    /// Makes it go wrong.
    ///
    /// # Errors
    /// If the target is not there.
    pub fn begin(self, rig: &mut Rig) -> Result<()> {
        match self {
            Self::Kill(target) => rig.kill(target),
            Self::Freeze(target) => rig.freeze(target)?,
            Self::Wire(target, _, fault) => rig.wire(target, fault),
        }
        Ok(())
    }

    /// Makes it good.
    ///
    /// # Errors
    /// If the target does not start again.
    pub fn end(self, rig: &mut Rig) -> Result<()> {
        match self {
            Self::Kill(target) => rig.restart(target),
            Self::Freeze(target) => rig.thaw(target),
            Self::Wire(target, _, _) => {
                rig.wire(target, Fault::NONE);
                Ok(())
            }
        }
    }

    /// Its name, for tables: what happens to which kind of process.
    pub fn name(self) -> String {
        match self {
            Self::Kill(target) => format!("kill {}", target.kind()),
            Self::Freeze(target) => format!("freeze {}", target.kind()),
            Self::Wire(target, name, _) => format!("{name} wire of {}", target.kind()),
        }
    }
}

impl fmt::Display for Nemesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(target) => write!(f, "kill {target:?}"),
            Self::Freeze(target) => write!(f, "freeze {target:?}"),
            Self::Wire(target, name, _) => write!(f, "{name} wire of {target:?}"),
        }
    }
}

fn draw_target(random: &mut StdRng, rig: &Rig) -> Target {
    let all = rig.targets();
    let kinds = [
        Target::Broker(0).kind(),
        Target::Control(0).kind(),
        Target::Data(0).kind(),
    ];
    let kind = kinds[random.random_range(0..kinds.len())];
    let some: Vec<_> = all
        .iter()
        .copied()
        .filter(|target| target.kind() == kind)
        .collect();
    let chosen = some.choose(random).or(all.first()).copied();
    chosen.unwrap_or(Target::Broker(0))
}
