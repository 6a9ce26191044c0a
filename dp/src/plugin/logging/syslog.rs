//! `syslog`: a message of JSON per request to the system's log.
//!
//! Deviations: no `custom_fields_by_lua`.

use super::{Entry, LuaFields, Severities, warn_of_lua};
use crate::access_log::Date;
use crate::plugin::call::Caller;
use crate::plugin::queue::{Outlet, Outlets, Parameters, Sink, Undelivered};
use crate::plugin::{Change, Entity, Phases, Plugin, Record};
use bytes::Bytes;
use futures::future::BoxFuture;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio::net::UnixDatagram;

/// The socket of the system's log.
const SOCKET: &str = "/dev/log";
/// The numbers of facilities are their places here.
const FACILITIES: [&str; 12] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp",
];
/// The number of `local0`; `local1` to `local7` follow.
const LOCAL: u8 = 16;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    #[serde(flatten)]
    severities: Severities,
    #[serde(default = "user")]
    facility: String,
    #[serde(default)]
    custom_fields_by_lua: LuaFields,
}

fn user() -> String {
    "user".into()
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct Syslog {
    outlet: Outlet,
    severities: Severities,
    facility: u8,
}

impl Plugin for Syslog {
    const NAME: &'static str = "syslog";
    const PRIORITY: i32 = 4;
    const PHASES: Phases = Phases::LOG;
    type Config = Fields;
    type State = Outlets;

    fn compile(fields: Fields, entity: &Entity<'_>) -> Result<Self, String> {
        warn_of_lua(Self::NAME, &fields.custom_fields_by_lua);
        let facility = facility(&fields.facility).ok_or("the facility is not known")?;
        let sink = Socket(SOCKET.into());
        Ok(Self {
            outlet: Outlet::new(entity, Self::NAME, Parameters::default(), sink),
            severities: fields.severities,
            facility,
        })
    }

    fn changed(outlets: &Outlets, change: Change<'_, Self>) {
        outlets.changed(&change, |plugin| &plugin.outlet);
    }

    fn log(&self, record: &Record<'_>) {
        let Some(severity) = self.severities.of(record.status) else {
            return;
        };
        let priority = self.facility << 3 | severity as u8;
        let time = Date::of(SystemTime::now()).bsd();
        let mut message = format!("<{priority}>{time} kong: ").into_bytes();
        message.extend(Entry::of(record).json());
        self.outlet.push(record.state::<Self>(), message);
    }
}

fn facility(name: &str) -> Option<u8> {
    if let Some(number) = name.strip_prefix("local") {
        let number = number.parse::<u8>().ok().filter(|number| *number < 8)?;
        return Some(LOCAL + number);
    }
    let place = FACILITIES.iter().position(|known| *known == name)?;
    u8::try_from(place).ok()
}

/// A datagram for each entry.
struct Socket(PathBuf);

impl Sink for Socket {
    fn deliver<'a>(
        &'a self,
        _: &'a Caller,
        batch: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), Undelivered>> {
        Box::pin(async { send(&self.0, batch).await.map_err(Undelivered::later) })
    }
}

async fn send(path: &Path, batch: &[Bytes]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    for entry in batch {
        socket.send(entry).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facilities_have_the_numbers_of_syslog() {
        let check = |name, number| assert_eq!(facility(name), number, "{name}");
        check("kern", Some(0));
        check("user", Some(1));
        check("ftp", Some(11));
        check("local0", Some(16));
        check("local7", Some(23));
        check("local8", None);
        check("x", None);
    }

    #[tokio::test]
    async fn messages_go_to_the_socket_one_by_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        send(&path, &["<14>a".into(), "<14>b".into()])
            .await
            .unwrap();
        let mut buffer = [0; 64];
        for expected in ["<14>a", "<14>b"] {
            let bytes = server.recv(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..bytes], expected.as_bytes());
        }
        drop(server);
        assert!(send(&path, &["c".into()]).await.is_err());
    }
}
