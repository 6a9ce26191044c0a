//! The keychain: the trusted keys of a running program, kept up to date.
//!
//! Keys change in two ways: the files an operator has pinned are looked at every two seconds, and a keyring may be
//! offered by whoever has one ([`Keychain::offer`]). The newest ring that was ever taken up is kept in the data
//! directory, so that an older one is refused also after a restart.

use super::file;
use super::pinned::{Found, Look, Pinned, RING_FILE, read_bounded};
use super::ring::RingError;
use super::trusted::TrustedKeys;
use super::{KeyError, file_error};
use crate::environment::Environment;
use crate::run::chain;
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The trusted keys of a running program. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Keychain {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pinned: Pinned,
    /// Where the ring is kept over restarts, if anywhere.
    kept: Option<PathBuf>,
    keys: watch::Sender<TrustedKeys>,
    /// Held while keys are changed, so that of two rings the newer one stays.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the files looked like when they were read.
    seen: Option<Look>,
    /// What was complained about last: once is enough.
    complaint: Option<String>,
    /// Whether the ring in force is not on disk yet.
    unsaved: bool,
}

impl Keychain {
    /// Reads what is pinned, and takes up the ring kept in `data_dir` if a pinned root still vouches for it. A ring that
    /// is damaged is moved aside.
    ///
    /// # Errors
    /// If what is pinned cannot be read, or is nothing.
    pub fn open(pinned: impl Into<Pinned>, data_dir: &Path) -> Result<Self, KeyError> {
        Self::begin(pinned.into(), Some(data_dir.join(RING_FILE)))
    }

    /// These keys, without any file: a ring that is offered is forgotten at the end.
    pub fn fixed(keys: TrustedKeys) -> Self {
        let (pinned, kept) = (Pinned::keys(keys.clone()), None);
        Self::new(pinned, kept, keys, State::default())
    }

    fn begin(pinned: Pinned, kept: Option<PathBuf>) -> Result<Self, KeyError> {
        let seen = Some(pinned.look()?);
        let found = pinned.load()?;
        let state = State {
            seen,
            ..State::default()
        };
        let keychain = Self::new(pinned, kept, TrustedKeys::default(), state);
        let mut state = keychain.lock();
        keychain.take_up(&mut state, found);
        drop(state);
        Ok(keychain)
    }

    fn new(pinned: Pinned, kept: Option<PathBuf>, keys: TrustedKeys, state: State) -> Self {
        let shared = Shared {
            pinned,
            kept,
            keys: watch::Sender::new(keys),
            state: Mutex::new(state),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The keys as of now.
    pub fn current(&self) -> TrustedKeys {
        self.shared.keys.borrow().clone()
    }

    /// The keys, now and whenever they change.
    pub fn watch(&self) -> watch::Receiver<TrustedKeys> {
        self.shared.keys.subscribe()
    }

    /// The ring in force, as its root has sealed it.
    pub fn ring(&self) -> Option<Bytes> {
        self.shared.keys.borrow().sealed_ring().cloned()
    }

    /// Takes up a newer ring: verifies it, keeps it in the data directory, and believes it from now on. `false` if it is
    /// the ring in force. Writes and syncs a small file, so not for a thread that must not wait. If the disk refuses, the
    /// ring is in force nevertheless, and keeping it is tried again.
    ///
    /// # Errors
    /// If no pinned root has signed it, it is malformed, or it is not newer than the ring in force.
    pub fn offer(&self, sealed: &[u8]) -> Result<bool, RingError> {
        let mut state = self.lock();
        let keys = self.current();
        if keys.sealed_ring().is_some_and(|held| held == sealed) {
            return Ok(false);
        }
        let newer = keys.with_ring(sealed)?;
        state.unsaved = true;
        self.keep(&mut state, &newer);
        self.publish(newer);
        Ok(true)
    }

    /// Looks at the files, and takes up what has changed. If they cannot be read as they are, the last good keys stay and
    /// it is said once. Gives back whether the keys are others now. [`Self::run`] calls it every two seconds.
    pub fn refresh(&self) -> bool {
        let mut state = self.lock();
        if state.unsaved {
            let keys = self.current();
            self.keep(&mut state, &keys);
        }
        let pinned = &self.shared.pinned;
        let read = pinned.look().and_then(|look| {
            let changed = state.seen.as_ref() != Some(&look);
            changed
                .then(|| pinned.load().map(|found| (look, found)))
                .transpose()
        });
        match read {
            Ok(None) => false,
            Ok(Some((look, found))) => {
                state.seen = Some(look);
                state.complaint = None;
                self.take_up(&mut state, found)
            }
            Err(error) => {
                complain(
                    &mut state,
                    "could not read the trusted keys; the last good ones stay",
                    &error,
                );
                false
            }
        }
    }

    /// Looks at the files from time to time until `shutdown`.
    pub async fn run(self, environment: Environment, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = tick.tick() => {}
            }
            let keychain = self.clone();
            if let Err(error) = environment.blocking(move || keychain.refresh()).await {
                tracing::error!(%error, "could not look at the trusted keys");
            }
        }
    }

    /// Joins what is pinned now with the newest ring there is. Gives back whether the keys are others now.
    fn take_up(&self, state: &mut State, found: Found) -> bool {
        let held = self.current();
        let mut keys = found.keys;
        if let Some(sealed) = held.sealed_ring() {
            match keys.with_ring(sealed) {
                Ok(same) => keys = same,
                Err(error) => complain(
                    state,
                    "the keyring in force is given up: its root is not pinned any more",
                    &error,
                ),
            }
        }
        // Its root may have been away for a moment, with the ring.
        if let Some(path) = &self.shared.kept
            && keys.has_root()
            && keys.ring().is_none()
        {
            keys = with_kept(keys, path);
        }
        if let Some(sealed) = found.ring
            && keys.sealed_ring().is_none_or(|held| held != &sealed)
        {
            match keys.with_ring(&sealed) {
                Ok(newer) => keys = newer,
                Err(error) => complain(
                    state,
                    "the keyring beside the trusted keys is not taken up",
                    &error,
                ),
            }
        }
        if keys.ring_serial() > 0 && keys.sealed_ring() != held.sealed_ring() {
            state.unsaved = true;
            self.keep(state, &keys);
        }
        self.publish(keys)
    }

    /// Keeps the ring for the next start.
    fn keep(&self, state: &mut State, keys: &TrustedKeys) {
        let (Some(path), Some(sealed)) = (&self.shared.kept, keys.sealed_ring()) else {
            state.unsaved = false;
            return;
        };
        match file::replace(path, sealed).map_err(file_error(path)) {
            Ok(()) => state.unsaved = false,
            Err(error) => complain(
                state,
                "could not keep the keyring for the next start; trying again",
                &error,
            ),
        }
    }

    fn publish(&self, keys: TrustedKeys) -> bool {
        self.shared.keys.send_if_modified(|known| {
            if *known == keys {
                return false;
            }
            tracing::info!(
                keyring = keys.ring_serial(),
                keys = keys.keys().count(),
                roots = keys.roots().count(),
                "the trusted keys have changed"
            );
            *known = keys;
            true
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says what is wrong, unless that was the last thing said.
fn complain(state: &mut State, what: &str, error: &dyn std::error::Error) {
    let complaint = format!("{what}: {}", chain(error));
    if state.complaint.as_ref() != Some(&complaint) {
        tracing::warn!("{complaint}");
        state.complaint = Some(complaint);
    }
}

/// These keys with the ring that was kept, if it is whole and a pinned root vouches for it.
fn with_kept(keys: TrustedKeys, path: &Path) -> TrustedKeys {
    let damage = match read_bounded(path) {
        Ok(None) => return keys,
        Ok(Some(sealed)) => match keys.with_ring(&sealed) {
            Ok(with_ring) => return with_ring,
            // Whole as far as we can tell; its root may be pinned again.
            Err(error @ (RingError::NoRoot | RingError::Stranger(_))) => {
                tracing::warn!(path = %path.display(), reason = %error, "the kept keyring is not taken up");
                return keys;
            }
            Err(
                error @ (RingError::TooLarge(_)
                | RingError::Codec(_)
                | RingError::Malformed(_)
                | RingError::Signature(_)
                | RingError::NotNewer { .. }
                | RingError::Twin { .. }),
            ) => chain(&error),
        },
        Err(error) => error.to_string(),
    };
    let moved: io::Result<PathBuf> = file::move_aside(path);
    match moved {
        Ok(aside) => {
            tracing::warn!(reason = damage, moved_to = %aside.display(), "the kept keyring is damaged; only pinned keys are believed until there is another");
        }
        Err(error) => {
            tracing::warn!(reason = damage, path = %path.display(), %error, "the kept keyring is damaged and cannot be moved aside");
        }
    }
    keys
}
