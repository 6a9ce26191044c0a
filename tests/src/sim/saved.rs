//! Seeds that have found something in Sluice. They are run by every test.

/// A seed and what it found.
#[derive(Clone, Copy, Debug)]
pub struct Saved {
    /// The seed.
    pub seed: u64,
    /// What it found.
    pub found: &'static str,
}

/// All of them. A change of the simulator makes them other runs; what they found is then for the planted bugs to guard.
pub const SEEDS: &[Saved] = &[
    Saved {
        seed: 1021,
        found: "a control plane that was cut off answered a repeated write, and writes without effect, by its old state",
    },
    Saved {
        seed: 2111,
        found: "an event whose live message everybody missed was never read, and nobody could write any more",
    },
    Saved {
        seed: 2115,
        found: "ten readings of a copy that lagged, within milliseconds, were taken for a log that had lost events",
    },
    Saved {
        seed: 2156,
        found: "what a killed process had not synced was reported as durable after its restart",
    },
    Saved {
        seed: 1_795_414_209_292,
        found: "a database that had lost all it had before its first sync was served, and not the last known good copy",
    },
    Saved {
        seed: 1_795_426_930_712,
        found: "a log that had been trimmed was taken for one that had lost events, as the head that told so was lost",
    },
];
