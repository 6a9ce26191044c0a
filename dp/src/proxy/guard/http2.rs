//! The frames of HTTP/2 connections, counted by kind: answering those that carry no request costs more than sending
//! them (PING, SETTINGS and reset floods, CVE-2019-9512, -9513, -9515, CVE-2023-44487).

use tokio::time::Instant;

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
/// Frames without a request or a body that may come at once.
const CONTROLS_MAX: u64 = 1000;
/// What of them comes back: per second, and per so many bytes sent to the client. Clients measure a connection by
/// pings while they receive.
const CONTROLS_PER_SECOND: u64 = 20;
const BYTES_PER_CONTROL: u64 = 256;
/// Resets that come back per second. So many requests begun make up for one, too.
const RESETS_PER_SECOND: u64 = 10;
const REQUESTS_PER_RESET: u64 = 2;

/// What a client may take back.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Http2Budget {
    /// Requests taken back at once.
    pub(in super::super) resets_max: u32,
}

/// Why a connection is ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Flood {
    #[error("the client took back too many requests")]
    Resets,
    #[error("the client sent too many frames that carry nothing")]
    Controls,
}

/// Walks over the frames of one connection.
pub(super) struct Frames {
    /// Bytes to pass over: of the preface, or of a frame.
    skip: usize,
    head: [u8; HEAD_BYTES],
    have: usize,
    controls: u64,
    resets: u64,
    resets_max: u64,
    requests: u64,
    written: u64,
    refilled: Instant,
}

impl Frames {
    pub(super) fn new(budget: Http2Budget) -> Self {
        Self {
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            have: 0,
            controls: CONTROLS_MAX,
            resets: budget.resets_max.into(),
            resets_max: budget.resets_max.into(),
            requests: 0,
            written: 0,
            refilled: Instant::now(),
        }
    }

    /// Some bytes went to the client.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
        self.controls = (self.controls + self.written / BYTES_PER_CONTROL).min(CONTROLS_MAX);
        self.written %= BYTES_PER_CONTROL;
    }

    /// Looks at what was read.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD_BYTES - self.have).min(bytes.len());
            self.head[self.have..][..taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD_BYTES {
                self.have = 0;
                let [one, two, three, kind, flags, ..] = self.head;
                self.skip = usize::from(one) << 16 | usize::from(two) << 8 | usize::from(three);
                self.frame(kind, flags)?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, flags: u8) -> Result<(), Flood> {
        match kind {
            DATA if self.skip > 0 || flags & END_STREAM != 0 => Ok(()),
            HEADERS => {
                self.requests += 1;
                if self.requests.is_multiple_of(REQUESTS_PER_RESET) {
                    self.resets = (self.resets + 1).min(self.resets_max);
                }
                Ok(())
            }
            // Those are bounded by the head's size, these are never answered.
            CONTINUATION | WINDOW_UPDATE => Ok(()),
            RST_STREAM => {
                if self.resets == 0 {
                    self.refill();
                }
                self.resets = self.resets.checked_sub(1).ok_or(Flood::Resets)?;
                Ok(())
            }
            // Answers to ours.
            SETTINGS | PING if flags & ACK != 0 => Ok(()),
            _ => {
                if self.controls == 0 {
                    self.refill();
                }
                self.controls = self.controls.checked_sub(1).ok_or(Flood::Controls)?;
                Ok(())
            }
        }
    }

    fn refill(&mut self) {
        let seconds = self.refilled.elapsed().as_secs();
        if seconds > 0 {
            self.refilled = Instant::now();
            let controls = seconds.saturating_mul(CONTROLS_PER_SECOND);
            self.controls = self.controls.saturating_add(controls).min(CONTROLS_MAX);
            let resets = seconds.saturating_mul(RESETS_PER_SECOND);
            self.resets = self.resets.saturating_add(resets).min(self.resets_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![
            0,
            0,
            u8::try_from(payload).unwrap(),
            kind,
            flags,
            0,
            0,
            0,
            1,
        ];
        bytes.resize(HEAD_BYTES + payload, 0xff);
        bytes
    }

    /// After how many repetitions the connection ends; `None` if it does not.
    fn ends(resets_max: u32, frames: &[Vec<u8>], sent_per_round: usize) -> Option<(usize, Flood)> {
        let mut walk = Frames::new(Http2Budget { resets_max });
        walk.read(&[0; PREFACE_BYTES]).unwrap();
        for round in 0..5000 {
            for bytes in frames.iter().flat_map(|frame| frame.chunks(7)) {
                if let Err(flood) = walk.read(bytes) {
                    return Some((round, flood));
                }
            }
            walk.wrote(sent_per_round);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn what_brings_nothing_is_bounded() {
        let begin = frame(HEADERS, 5, 20);
        let reset = frame(RST_STREAM, 0, 4);
        let ping = frame(PING, 0, 8);
        assert_eq!(ends(100, &[begin.clone(), frame(DATA, 1, 50)], 0), None);
        assert_eq!(
            ends(100, &[begin.clone(), reset.clone()], 0),
            Some((200, Flood::Resets))
        );
        assert_eq!(
            ends(0, &[begin.clone(), reset.clone()], 0),
            Some((0, Flood::Resets))
        );
        let patient = [begin.clone(), begin, reset];
        assert_eq!(ends(1, &patient, 0), None, "one of two is taken back");
        // A pong is 17 bytes.
        assert!(matches!(
            ends(1, std::slice::from_ref(&ping), 17),
            Some((1000..1100, Flood::Controls))
        ));
        assert_eq!(
            ends(1, std::slice::from_ref(&ping), 300),
            None,
            "it measures what it receives"
        );
        assert_eq!(ends(1, &[frame(PING, ACK, 8)], 0), None);
        for kind in [2, SETTINGS, 200] {
            assert_eq!(
                ends(1, &[frame(kind, 0, 6)], 0),
                Some((1000, Flood::Controls))
            );
        }
        assert_eq!(
            ends(1, &[frame(DATA, 0, 0)], 0),
            Some((1000, Flood::Controls))
        );
    }
}
