//! What surrounds a program besides log and disk: the wall clock, chance, and threads for work that blocks.
//!
//! Everything that follows or writes the log asks for them here and nowhere else, so that a simulator can put others
//! in their place and repeat a run exactly. Time that passes is tokio's, which a simulator can pause.

use crate::process;
use rand::RngCore;
use sluice_schema::version::Time;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinError;
use uuid::Uuid;

/// Where the wall clock and chance come from.
pub trait Surroundings: Send + Sync + Debug {
    /// The time of day.
    fn now(&self) -> Time;

    /// Fills `bytes` with chance.
    fn fill(&self, bytes: &mut [u8]);

    /// Whether work that blocks gets a thread of its own. A simulator has none: such work is done where it is asked for.
    fn threads(&self) -> bool;

    /// How long work that blocks takes where it has no thread, on tokio's clock.
    fn work_takes(&self) -> Duration {
        Duration::ZERO
    }
}

/// The surroundings, cheap to clone.
#[derive(Clone, Debug)]
pub struct Environment(Arc<dyn Surroundings>);

impl Environment {
    /// Surroundings of one's own.
    pub fn new(surroundings: Arc<dyn Surroundings>) -> Self {
        Self(surroundings)
    }

    /// The operating system's.
    pub fn system() -> Self {
        Self(Arc::new(System))
    }

    /// The time of day.
    pub fn now(&self) -> Time {
        self.0.now()
    }

    /// 32 bytes of chance.
    pub fn seed(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill(&mut bytes);
        bytes
    }

    /// A number from 0 up to, not including, 1.
    pub fn fraction(&self) -> f64 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    }

    /// A random UUID (v4).
    pub fn random_uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.0.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// A UUID that orders by time (v7).
    pub fn ordered_uuid(&self) -> Uuid {
        let mut bytes = [0; 10];
        self.0.fill(&mut bytes);
        uuid::Builder::from_unix_timestamp_millis(self.now().0 / 1000, &bytes).into_uuid()
    }

    /// Does work that blocks.
    ///
    /// # Errors
    /// If the work panics.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        if self.0.threads() {
            tokio::task::spawn_blocking(work).await
        } else {
            let takes = self.0.work_takes();
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            Ok(work())
        }
    }
}

#[derive(Debug)]
struct System;

impl Surroundings for System {
    fn now(&self) -> Time {
        process::now()
    }

    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }

    fn threads(&self) -> bool {
        true
    }
}
