//! `sluice keys sign`: the next keyring.

use super::{check_name, read_control_planes, read_ring};
use crate::say;
use anyhow::{Context, bail, ensure};
use clap::Args;
use sluice_replica::files;
use sluice_replica::keys::{Entry, Keyring, PublicLine, Role, SigningKey, Standing, TrustedKeys};
use sluice_replica::process::now;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Arguments of `sluice keys sign`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The root key (secret)
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// Where to put the new keyring; may be the old one
    #[arg(long, value_name = "KEYRING")]
    out: PathBuf,
    /// The keyring in force, to go on from; without it this is the first one
    #[arg(long, value_name = "KEYRING")]
    from: Option<PathBuf>,
    /// Public key of another root that signed the keyring in force: after a change of roots
    #[arg(long, value_name = "FILE.pub", requires = "from")]
    from_root: Option<PathBuf>,
    /// Believe these control planes' keys (.pub) for everything; also makes a retired key active again
    #[arg(long, value_name = "FILE.pub", num_args = 1..)]
    add: Vec<PathBuf>,
    /// Believe what these keys have signed, but nothing new: their owners may not write any more
    #[arg(long, value_name = "ID|NAME", num_args = 1..)]
    retire: Vec<String>,
    /// Believe nothing these keys have signed, for ever. A .pub file names a key that is not in the keyring
    #[arg(long, value_name = "ID|NAME|FILE.pub", num_args = 1..)]
    revoke: Vec<String>,
    /// Why, kept with the keys that change
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
}

/// Makes the next keyring and says what is different in it.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let root = load_root(&arguments.root)?;
    let old = match &arguments.from {
        Some(path) => Some(open_old(path, &root, arguments.from_root.as_deref())?),
        None => None,
    };
    if old.is_none() && arguments.out.exists() {
        bail!(
            "'{}' is there already: name the keyring in force with --from, or another file with --out",
            arguments.out.display()
        );
    }
    let mut next = Next::after(old, &arguments.note);
    for path in &arguments.add {
        for line in read_control_planes(path)? {
            next.add(line)?;
        }
    }
    for key in &arguments.retire {
        next.retire(key)?;
    }
    for key in &arguments.revoke {
        next.revoke(key)?;
    }
    // A new root may sign what the old one had signed, as it is.
    ensure!(
        !next.told.is_empty() || arguments.from_root.is_some(),
        "nothing to do: say what is to change with --add, --retire or --revoke"
    );
    let ring = next.ring;
    let sealed = ring.seal(&root)?;
    write(&arguments.out, &sealed)?;
    say(&format!(
        "keyring {} signed by root {}",
        ring.serial,
        root.id()
    ))?;
    for line in &next.told {
        say(line)?;
    }
    if !ring
        .entries
        .iter()
        .any(|entry| entry.standing == Standing::Active)
    {
        eprintln!("warning: no key in it is active: unless one is pinned, nobody may write");
    }
    eprintln!(
        "wrote {}; give it to a running control plane (sluice keys publish), or put it as 'keyring' into trusted_keys of every replica",
        arguments.out.display()
    );
    Ok(())
}

/// A ring in the making.
struct Next {
    ring: Keyring,
    note: String,
    /// Keys that have been named: each once.
    touched: BTreeSet<String>,
    /// What is different, a line each.
    told: Vec<String>,
}

impl Next {
    fn after(old: Option<Keyring>, note: &str) -> Self {
        let (serial, entries) = old.map_or((0, Vec::new()), |old| (old.serial, old.entries));
        Self {
            ring: Keyring {
                serial: serial.saturating_add(1),
                made: now(),
                entries,
            },
            note: note.to_owned(),
            touched: BTreeSet::new(),
            told: Vec::new(),
        }
    }

    fn add(&mut self, line: PublicLine) -> anyhow::Result<()> {
        let (id, name) = (line.key.id(), &line.name);
        check_name(name)?;
        let known = self
            .ring
            .entries
            .iter()
            .position(|entry| entry.key == line.key);
        match known.map(|at| (at, self.ring.entries[at].standing)) {
            None => {
                if let Some(other) = self
                    .ring
                    .entries
                    .iter()
                    .find(|other| other.name == *name && other.standing == Standing::Active)
                {
                    eprintln!("note: key {} is also called {name}", other.key.id());
                }
                self.ring.entries.push(Entry {
                    key: line.key,
                    name: line.name.clone(),
                    standing: Standing::Active,
                    note: String::new(),
                });
                let at = self.ring.entries.len() - 1;
                self.set(at, Standing::Active, "added")
            }
            Some((at, Standing::Retired)) => self.set(at, Standing::Active, "active again"),
            Some((_, Standing::Active)) => bail!("key {id} ({name}) is active already"),
            Some((_, Standing::Revoked)) => {
                bail!("key {id} ({name}) is revoked, and stays so: make a new key")
            }
        }
    }

    fn retire(&mut self, named: &str) -> anyhow::Result<()> {
        let at = self.find(named)?;
        let entry = &self.ring.entries[at];
        match entry.standing {
            Standing::Active => self.set(at, Standing::Retired, "retired"),
            Standing::Retired => {
                bail!("key {} ({}) is retired already", entry.key.id(), entry.name)
            }
            Standing::Revoked => bail!(
                "key {} ({}) is revoked: a revoked key cannot be retired",
                entry.key.id(),
                entry.name
            ),
        }
    }

    fn revoke(&mut self, named: &str) -> anyhow::Result<()> {
        let mut places = Vec::new();
        if Path::new(named)
            .extension()
            .is_some_and(|ending| ending == "pub")
        {
            for line in read_control_planes(Path::new(named))? {
                check_name(&line.name)?;
                let known = self
                    .ring
                    .entries
                    .iter()
                    .position(|entry| entry.key == line.key);
                places.push(known.unwrap_or(self.ring.entries.len()));
                if known.is_none() {
                    self.ring.entries.push(Entry {
                        key: line.key,
                        name: line.name,
                        // Until the next lines.
                        standing: Standing::Active,
                        note: String::new(),
                    });
                }
            }
        } else {
            places.push(self.find(named)?);
        }
        for at in places {
            let entry = &self.ring.entries[at];
            match entry.standing {
                Standing::Active | Standing::Retired => {
                    self.set(at, Standing::Revoked, "revoked")?;
                }
                Standing::Revoked => {
                    bail!("key {} ({}) is revoked already", entry.key.id(), entry.name)
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, at: usize, standing: Standing, told: &str) -> anyhow::Result<()> {
        let entry = &mut self.ring.entries[at];
        let id = entry.key.id();
        entry.standing = standing;
        entry.note.clone_from(&self.note);
        self.told.push(format!("{told}: {id} ({})", entry.name));
        ensure!(
            self.touched.insert(id.clone()),
            "key {id} is named twice: do one thing at a time"
        );
        Ok(())
    }

    /// The key with this id or name. Of keys that share a name, only ids tell them apart.
    fn find(&self, named: &str) -> anyhow::Result<usize> {
        let entries = &self.ring.entries;
        if let Some(at) = entries.iter().position(|entry| entry.key.id() == named) {
            return Ok(at);
        }
        let with_name: Vec<usize> = (0..entries.len())
            .filter(|at| entries[*at].name == named)
            .collect();
        match with_name.as_slice() {
            [at] => Ok(*at),
            [] => {
                let known: Vec<String> = entries
                    .iter()
                    .map(|entry| format!("{} ({})", entry.key.id(), entry.name))
                    .collect();
                bail!(
                    "there is no key '{named}' in the keyring; it has: {}",
                    if known.is_empty() {
                        "none".to_owned()
                    } else {
                        known.join(", ")
                    }
                )
            }
            several => {
                let ids: Vec<String> = several.iter().map(|at| entries[*at].key.id()).collect();
                bail!(
                    "several keys are called '{named}': name one by its id: {}",
                    ids.join(", ")
                )
            }
        }
    }
}

/// The root key. What its `.pub` file calls a control plane's key is none.
fn load_root(path: &Path) -> anyhow::Result<SigningKey> {
    let root = SigningKey::load(path)?;
    let public = path.with_extension("pub");
    let lines = match public.exists() {
        true => PublicLine::load(&public)?,
        false => Vec::new(),
    };
    let is_other =
        |line: &PublicLine| line.key == root.public_key() && line.role == Role::ControlPlane;
    if lines.iter().any(is_other) {
        bail!(
            "'{}' is the key of a control plane: make a root key with `sluice keys root`",
            path.display()
        );
    }
    Ok(root)
}

fn open_old(path: &Path, root: &SigningKey, other: Option<&Path>) -> anyhow::Result<Keyring> {
    let sealed = read_ring(path)?;
    let mut roots = root.trusted_root();
    if let Some(other) = other {
        roots = roots.and(&TrustedKeys::load(other)?);
    }
    let opened = Keyring::open(&sealed, &roots);
    let (ring, _) = opened.with_context(|| {
        format!(
            "'{}' is not a keyring of this root (--from; --from-root names another root)",
            path.display()
        )
    })?;
    Ok(ring)
}

/// Puts the keyring in its place whole.
fn write(path: &Path, sealed: &[u8]) -> anyhow::Result<()> {
    path.file_name().context("--out names no file")?;
    let written = files::replace(path, sealed);
    written.with_context(|| format!("could not write '{}'", path.display()))
}
