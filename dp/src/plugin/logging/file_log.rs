//! `file-log`: a line of JSON per request at the end of a file of the node.
//!
//! Deviations: lines are written by a thread of their own in batches, so that a slow disk does not slow requests; while
//! the file cannot be written, lines wait in the queue. A file that has another name meanwhile is noticed with `reopen`
//! only, as in Kong. No `custom_fields_by_lua`.

use super::{Entry, LuaFields, warn_of_lua};
use crate::plugin::call::Caller;
use crate::plugin::queue::{Outlet, Outlets, Parameters, Sink, Undelivered};
use crate::plugin::{Change, Entity, Phases, Plugin, Record};
use bytes::Bytes;
use futures::future::BoxFuture;
use serde::Deserialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Lines written at a time.
const BATCH_MAX: usize = 1000;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    path: String,
    #[serde(default)]
    reopen: bool,
    #[serde(default)]
    custom_fields_by_lua: LuaFields,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct FileLog(Outlet);

impl Plugin for FileLog {
    const NAME: &'static str = "file-log";
    const PRIORITY: i32 = 9;
    const PHASES: Phases = Phases::LOG;
    type Config = Fields;
    type State = Outlets;

    fn compile(fields: Fields, entity: &Entity<'_>) -> Result<Self, String> {
        warn_of_lua(Self::NAME, &fields.custom_fields_by_lua);
        let parameters = Parameters {
            batch_max: BATCH_MAX,
            coalescing: Duration::ZERO,
            ..Parameters::default()
        };
        let place = Arc::new(Place {
            path: fields.path,
            reopen: fields.reopen,
            opened: Mutex::default(),
        });
        Ok(Self(Outlet::new(
            entity,
            Self::NAME,
            parameters,
            Lines(place),
        )))
    }

    fn changed(outlets: &Outlets, change: Change<'_, Self>) {
        outlets.changed(&change, |plugin| &plugin.0);
    }

    fn log(&self, record: &Record<'_>) {
        self.0
            .push(record.state::<Self>(), Entry::of(record).line(b"\n"));
    }
}

struct Lines(Arc<Place>);

struct Place {
    path: String,
    reopen: bool,
    opened: Mutex<Option<File>>,
}

impl Place {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        // A process may not be able to open its own pipes by name.
        match &*self.path {
            "/dev/stdout" => return write_all(io::stdout().lock(), bytes),
            "/dev/stderr" => return write_all(io::stderr().lock(), bytes),
            _ => {}
        }
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let file = opened.take().filter(|_| !self.reopen);
        let file = match file {
            Some(file) => file,
            None => OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path)?,
        };
        write_all(&file, bytes)?;
        *opened = Some(file);
        Ok(())
    }
}

fn write_all(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

impl Sink for Lines {
    fn deliver<'a>(
        &'a self,
        _: &'a Caller,
        batch: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), Undelivered>> {
        let (place, bytes) = (Arc::clone(&self.0), batch.concat());
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || place.write(&bytes)).await;
            match written {
                Ok(written) => written.map_err(Undelivered::later),
                Err(error) => Err(Undelivered::later(error)),
            }
        })
    }
}
