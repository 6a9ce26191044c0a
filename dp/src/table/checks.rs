//! Compiled health checks.

use sluice_schema::kind::{ActiveChecks, Healthchecks, PassiveChecks};
use std::time::Duration;

/// Statuses are below this.
const STATUSES: u16 = 1024;

/// How the health of an upstream's targets is found out.
#[derive(Clone, PartialEq, Debug)]
pub struct Checks {
    /// By requests of our own.
    pub active: Option<Active>,
    /// By the requests that pass.
    pub passive: Option<Passive>,
    /// The upstream is usable while more than this share of weight is, in per cent.
    pub threshold: f64,
    /// Whether the health of targets counts at all.
    pub is_on: bool,
}

/// How many results in a row change a target's health. 0 is never.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Successes that make it healthy.
    pub successes: u8,
    /// Failed connections that make it unhealthy.
    pub tcp_failures: u8,
    /// Timeouts that do.
    pub timeouts: u8,
    /// Failed answers that do.
    pub http_failures: u8,
}

/// Judges answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passive {
    /// The limits.
    pub limits: Limits,
    /// Statuses of successes.
    pub healthy: Statuses,
    /// Statuses of failures.
    pub unhealthy: Statuses,
}

/// Asks targets.
#[derive(Clone, PartialEq, Debug)]
pub struct Active {
    /// What is spoken.
    pub protocol: ProbeProtocol,
    /// How answers are judged.
    pub judge: Passive,
    /// How long a target may take.
    pub timeout: Duration,
    /// Targets asked at a time, from 1.
    pub concurrency: usize,
    /// What is asked for.
    pub path: Box<str>,
    /// The server name in place of the target's.
    pub server_name: Option<Box<str>>,
    /// Whether the target's certificate must be valid.
    pub verify: bool,
    /// Sent along.
    pub headers: Box<[(Box<str>, Box<str>)]>,
    /// Between two checks of a healthy target; `None` is never.
    pub healthy_interval: Option<Duration>,
    /// Between two checks of an unhealthy target; `None` is never.
    pub unhealthy_interval: Option<Duration>,
}

/// How a target is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbeProtocol {
    /// A connection is enough.
    Tcp,
    /// HTTP/1.1.
    Http,
    /// The same over TLS.
    Https,
    /// gRPC's health protocol.
    Grpc,
    /// The same over TLS.
    Grpcs,
}

impl Checks {
    pub(super) fn compile(fields: &Healthchecks) -> Result<Self, String> {
        Ok(Self {
            active: Active::compile(&fields.active)?,
            passive: Passive::compile(&fields.passive),
            threshold: fields.threshold,
            is_on: fields.is_on(),
        })
    }
}

impl Passive {
    fn compile(fields: &PassiveChecks) -> Option<Self> {
        let (healthy, unhealthy) = (&fields.healthy, &fields.unhealthy);
        let limits = Limits {
            successes: healthy.successes,
            tcp_failures: unhealthy.tcp_failures,
            timeouts: unhealthy.timeouts,
            http_failures: unhealthy.http_failures,
        };
        (limits != Limits::default()).then(|| Self {
            limits,
            healthy: Statuses::new(&healthy.http_statuses),
            unhealthy: Statuses::new(&unhealthy.http_statuses),
        })
    }
}

impl Active {
    fn compile(fields: &ActiveChecks) -> Result<Option<Self>, String> {
        let (healthy, unhealthy) = (&fields.healthy, &fields.unhealthy);
        let healthy_interval = interval(healthy.interval)?;
        let unhealthy_interval = interval(unhealthy.interval)?;
        if healthy_interval.is_none() && unhealthy_interval.is_none() {
            return Ok(None);
        }
        let headers = fields.headers.iter().flatten();
        let headers = headers.flat_map(|(name, values)| {
            let pair = |value: &String| (name.as_str().into(), value.as_str().into());
            values.iter().map(pair)
        });
        Ok(Some(Self {
            protocol: ProbeProtocol::parse(&fields.kind)?,
            judge: Passive {
                limits: Limits {
                    successes: healthy.successes,
                    tcp_failures: unhealthy.tcp_failures,
                    timeouts: unhealthy.timeouts,
                    http_failures: unhealthy.http_failures,
                },
                healthy: Statuses::new(&healthy.http_statuses),
                unhealthy: Statuses::new(&unhealthy.http_statuses),
            },
            timeout: interval(fields.timeout)?.unwrap_or(Self::TIMEOUT_DEFAULT),
            concurrency: usize::try_from(fields.concurrency.max(1)).unwrap_or(usize::MAX),
            path: fields.http_path.as_str().into(),
            server_name: fields.https_sni.as_deref().map(Into::into),
            verify: fields.https_verify_certificate,
            headers: headers.collect(),
            healthy_interval,
            unhealthy_interval,
        }))
    }

    /// In place of a timeout of 0.
    const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
}

fn interval(seconds: f64) -> Result<Option<Duration>, String> {
    let interval = Duration::try_from_secs_f64(seconds)
        .map_err(|_| format!("{seconds} seconds are no interval"))?;
    Ok(Some(interval).filter(|interval| !interval.is_zero()))
}

impl ProbeProtocol {
    fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "tcp" => Self::Tcp,
            "http" => Self::Http,
            "https" => Self::Https,
            "grpc" => Self::Grpc,
            "grpcs" => Self::Grpcs,
            other => return Err(format!("targets cannot be checked by `{other}`")),
        })
    }

    /// Whether it is spoken over TLS.
    pub fn is_tls(self) -> bool {
        match self {
            Self::Https | Self::Grpcs => true,
            Self::Tcp | Self::Http | Self::Grpc => false,
        }
    }

    /// Whether it is spoken in HTTP/2.
    pub fn is_http2(self) -> bool {
        match self {
            Self::Grpc | Self::Grpcs => true,
            Self::Tcp | Self::Http | Self::Https => false,
        }
    }
}

/// A set of statuses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statuses([u64; STATUSES as usize / 64]);

impl Statuses {
    /// These; those from 1024 on do not exist.
    pub fn new(statuses: &[u16]) -> Self {
        let mut set = Self([0; STATUSES as usize / 64]);
        for status in statuses.iter().filter(|status| **status < STATUSES) {
            set.0[usize::from(status / 64)] |= 1 << (status % 64);
        }
        set
    }

    /// Whether this is one of them.
    pub fn contains(&self, status: u16) -> bool {
        let bits = self.0.get(usize::from(status / 64)).copied();
        bits.unwrap_or_default() & (1 << (status % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_statuses_holds_what_it_was_given() {
        let set = Statuses::new(&[100, 200, 999, 5000]);
        let held: Vec<u16> = (0..2000).filter(|status| set.contains(*status)).collect();
        assert_eq!(held, [100, 200, 999]);
    }

    #[test]
    fn checks_without_a_limit_or_an_interval_are_off() {
        let checks = Checks::compile(&Healthchecks::default()).unwrap();
        assert!(checks.active.is_none() && checks.passive.is_none() && !checks.is_on);
    }
}
