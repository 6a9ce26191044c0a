//! What is believed of whom, and for how long.

use super::*;
use crate::log::Signature;
use sluice_schema::version::{Chain, Time};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32])
}

fn root() -> SigningKey {
    key(100)
}

fn line(key: &SigningKey, role: Role) -> String {
    format!("{}\n", key.public(role, "name"))
}

fn ring(serial: u64, entries: &[(&SigningKey, Standing)]) -> Keyring {
    let entries = entries.iter().map(|(key, standing)| Entry {
        key: key.public_key(),
        name: format!("cp-{}", &key.id()[..4]),
        standing: *standing,
        note: String::new(),
    });
    Keyring {
        serial,
        made: Time(1_700_000_000_000_000),
        entries: entries.collect(),
    }
}

fn sealed(serial: u64, entries: &[(&SigningKey, Standing)]) -> bytes::Bytes {
    ring(serial, entries).seal(&root()).unwrap()
}

/// What is believed of a key: its events, heads, snapshots, and whether it may append.
fn belief(trusted: &TrustedKeys, key: &SigningKey) -> [bool; 4] {
    let chain = Chain::ZERO.extend(b"event");
    [
        trusted.verifies_event(chain, &key.sign_event(chain)),
        trusted.verifies_head(b"head", &key.sign_head(b"head")),
        trusted.verifies_snapshot(b"root", &key.sign_snapshot(b"root")),
        trusted.may_sign(key.id()),
    ]
}

const ALL: [bool; 4] = [true; 4];
const PAST: [bool; 4] = [true, false, true, false];
const NOTHING: [bool; 4] = [false; 4];

#[test]
fn a_key_is_made_once_and_its_public_half_verifies_what_it_signs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys/cp.key");
    let (key, made) = SigningKey::load_or_create(&path, "cp-1").unwrap();
    let (again, made_again) = SigningKey::load_or_create(&path, "cp-1").unwrap();
    assert!(made && !made_again);
    assert_eq!(key.id(), again.id());
    let trusted = TrustedKeys::load(&directory.path().join("keys")).unwrap();
    assert_eq!(trusted.names().collect::<Vec<_>>(), [(key.id(), "cp-1")]);

    let chain = Chain::ZERO.extend(b"event");
    let mut signature = key.sign_event(chain);
    assert!(trusted.verifies_event(chain, &signature));
    assert!(!trusted.verifies_event(chain.extend(b"x"), &signature));
    assert!(!trusted.verifies_head(&chain.0.0, &signature));
    let other = SigningKey::from_seed([1; 32]).sign_event(chain);
    assert!(!trusted.verifies_event(chain, &other));
    signature.bytes[5] ^= 1;
    assert!(!trusted.verifies_event(chain, &signature));
}

#[test]
fn a_secret_is_its_owners_alone_and_shows_nowhere() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    for (name, make) in [
        ("cp.key", SigningKey::create as fn(&Path, &str) -> _),
        ("root.key", SigningKey::create_root),
    ] {
        let path = directory.path().join(name);
        let key: SigningKey = make(&path, "x").unwrap();
        let secret = fs::read_to_string(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.id()));
        let public = fs::read_to_string(path.with_extension("pub")).unwrap();
        assert!(!public.contains(secret.trim()));
        assert_eq!(SigningKey::load(&path).unwrap().id(), key.id());
        assert!(
            make(&path, "x").is_err(),
            "a key must not be replaced by accident"
        );
    }
    let lines = PublicLine::load(&directory.path().join("root.pub")).unwrap();
    assert_eq!(lines[0].role, Role::Root);
}

#[test]
fn files_that_are_not_keys_are_refused_with_their_line() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(
        TrustedKeys::load(directory.path()),
        Err(KeyError::Empty { .. })
    ));
    let path = directory.path().join("bad.pub");
    fs::write(&path, "# a comment\n\ned25519 !!! x\n").unwrap();
    assert!(matches!(
        TrustedKeys::load(directory.path()),
        Err(KeyError::Public { line: 3, .. })
    ));
    // A key that verifies anything, for anybody.
    let weak = "ed25519 AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= weak\n";
    fs::write(&path, weak).unwrap();
    assert!(TrustedKeys::load(directory.path()).is_err());
}

#[test]
fn after_a_rotation_the_old_keys_events_are_believed_and_its_heads_are_not() {
    let (a, b) = (key(1), key(2));
    let trusted = root().trusted_root();
    assert_eq!(belief(&trusted, &a), NOTHING);
    let one = trusted
        .with_ring(&sealed(1, &[(&a, Standing::Active)]))
        .unwrap();
    assert_eq!((belief(&one, &a), belief(&one, &b)), (ALL, NOTHING));
    let two = one
        .with_ring(&sealed(
            2,
            &[(&a, Standing::Retired), (&b, Standing::Active)],
        ))
        .unwrap();
    assert_eq!((belief(&two, &a), belief(&two, &b)), (PAST, ALL));
    let three = two
        .with_ring(&sealed(
            9,
            &[(&a, Standing::Revoked), (&b, Standing::Active)],
        ))
        .unwrap();
    assert_eq!((belief(&three, &a), belief(&three, &b)), (NOTHING, ALL));
    assert_eq!(three.ring_serial(), 9);
}

#[test]
fn a_rings_word_goes_for_pinned_keys_and_only_for_those_it_names() {
    let (pinned, other) = (key(1), key(2));
    let trusted = pinned
        .trusted()
        .and(&other.trusted())
        .and(&root().trusted_root());
    for (serial, standing, expected) in [
        (1, Standing::Active, ALL),
        (2, Standing::Retired, PAST),
        (3, Standing::Revoked, NOTHING),
    ] {
        let trusted = trusted
            .with_ring(&sealed(serial, &[(&pinned, standing)]))
            .unwrap();
        assert_eq!(belief(&trusted, &pinned), expected, "{standing}");
        assert_eq!(belief(&trusted, &other), ALL);
    }
}

#[test]
fn a_root_signs_rings_and_charters_and_nothing_else() {
    let (a, root) = (key(1), root());
    let trusted = root.trusted_root().and(&a.trusted());
    assert_eq!(belief(&trusted, &root), NOTHING);
    assert!(trusted.verifies_charter(b"charter", &root.sign_charter(b"charter")));
    assert!(!trusted.verifies_charter(b"charter", &a.sign_charter(b"charter")));
    assert!(!trusted.verifies_charter(b"charter", &root.sign_ring(b"charter")));
    // Where no root is pinned, control planes must do.
    let without = a.trusted();
    assert!(without.verifies_charter(b"charter", &a.sign_charter(b"charter")));
    assert!(!without.verifies_charter(b"charter", &root.sign_charter(b"charter")));
}

#[test]
fn a_ring_that_is_old_or_strange_is_refused() {
    let a = key(1);
    let trusted = root().trusted_root();
    let two = trusted
        .with_ring(&sealed(2, &[(&a, Standing::Revoked)]))
        .unwrap();
    let error = |trusted: &TrustedKeys, sealed: &[u8]| trusted.with_ring(sealed).unwrap_err();
    let active = [(&a, Standing::Active)];
    assert!(matches!(
        error(&two, &sealed(1, &active)),
        RingError::NotNewer { serial: 1, held: 2 }
    ));
    assert!(matches!(
        error(&two, &sealed(2, &active)),
        RingError::Twin { serial: 2 }
    ));
    let by_stranger = ring(3, &active).seal(&key(66)).unwrap();
    assert!(matches!(error(&two, &by_stranger), RingError::Stranger(_)));
    let by_control_plane = ring(3, &active).seal(&a).unwrap();
    assert!(matches!(
        error(&two.clone().and(&a.trusted()), &by_control_plane),
        RingError::Stranger(_)
    ));
    assert!(matches!(
        error(&a.trusted(), &sealed(3, &active)),
        RingError::NoRoot
    ));
    assert!(matches!(
        error(&two, &vec![0; RING_BYTES_MAX + 1]),
        RingError::TooLarge(_)
    ));
    assert!(matches!(error(&two, b"SlK\x01"), RingError::Codec(_)));
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_sealed_ring_is_refused() {
    let whole = sealed(
        1,
        &[(&key(1), Standing::Active), (&key(2), Standing::Retired)],
    );
    let trusted = root().trusted_root();
    assert!(trusted.with_ring(&whole).is_ok());
    for at in 0..whole.len() {
        assert!(
            trusted.with_ring(&whole[..at]).is_err(),
            "cut after {at} bytes"
        );
        for bit in 0..8 {
            let mut flipped = whole.to_vec();
            flipped[at] ^= 1 << bit;
            assert!(
                trusted.with_ring(&flipped).is_err(),
                "byte {at} bit {bit} of {whole:?}"
            );
        }
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(trusted.with_ring(&longer).is_err());
}

#[test]
fn a_ring_that_makes_no_sense_is_neither_made_nor_read() {
    let (a, root) = (key(1), root());
    let good = ring(1, &[(&a, Standing::Active)]);
    let mut twice = good.clone();
    twice.entries.push(good.entries[0].clone());
    let mut spaced = good.clone();
    spaced.entries[0].name = "two words".into();
    let mut escaped = good.clone();
    escaped.entries[0].note = "\u{1b}[31mred".into();
    let zero = Keyring {
        serial: 0,
        ..good.clone()
    };
    for bad in [twice, spaced, escaped, zero] {
        assert!(
            matches!(bad.seal(&root), Err(RingError::Malformed(_))),
            "{bad:?}"
        );
    }
    let (read, signer) = Keyring::open(&good.seal(&root).unwrap(), &root.trusted_root()).unwrap();
    assert_eq!((read, signer.as_str()), (good, root.id()));
}

/// The bytes of a ring as docs/reference/log-format.md describes them. If this fails, rings that exist cannot be read
/// any more.
#[test]
fn a_ring_sealed_by_the_first_release_stays_readable() {
    let golden = include_str!("golden/ring_v1.hex");
    let made = Keyring {
        serial: 7,
        made: Time(1_700_000_000_000_000),
        entries: vec![
            Entry {
                key: key(1).public_key(),
                name: "cp-1".into(),
                standing: Standing::Active,
                note: String::new(),
            },
            Entry {
                key: key(2).public_key(),
                name: "cp-2".into(),
                standing: Standing::Revoked,
                note: "laptop stolen".into(),
            },
        ],
    };
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    assert_eq!(hex(&made.seal(&root()).unwrap()), golden.trim());
    let bytes: Vec<u8> = (0..golden.trim().len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&golden[at..at + 2], 16).unwrap())
        .collect();
    assert_eq!(
        Keyring::open(&bytes, &root().trusted_root()).unwrap().0,
        made
    );
}

#[test]
fn what_was_verified_is_remembered_but_not_what_is_believed() {
    let a = key(1);
    let trusted = root().trusted_root().remembering();
    let one = trusted
        .with_ring(&sealed(1, &[(&a, Standing::Active)]))
        .unwrap();
    let chain = Chain::ZERO.extend(b"event");
    let good = a.sign_event(chain);
    for _ in 0..2 {
        assert!(one.verifies_event(chain, &good));
        assert!(!one.verifies_event(chain.extend(b"x"), &good));
        let forged = Signature {
            bytes: [7; 64],
            ..good.clone()
        };
        assert!(!one.verifies_event(chain, &forged));
    }
    let two = one
        .with_ring(&sealed(2, &[(&a, Standing::Revoked)]))
        .unwrap();
    assert!(!two.verifies_event(chain, &good));
}

/// A directory of trusted keys and a data directory.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("trusted")).unwrap();
        Self { directory }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.directory.path().join(name);
        file::replace(&path, content.as_ref()).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.directory.path().join(name)).unwrap();
    }

    fn open(&self) -> Keychain {
        let trusted = self.directory.path().join("trusted");
        Keychain::open(Pinned::files(trusted), &self.directory.path().join("data")).unwrap()
    }
}

#[test]
fn a_new_public_key_is_believed_without_a_restart() {
    let (a, b) = (key(1), key(2));
    let place = Place::new();
    place.write("trusted/a.pub", line(&a, Role::ControlPlane));
    let keychain = place.open();
    let mut watch = keychain.watch();
    assert!(!keychain.refresh());
    assert_eq!(belief(&keychain.current(), &b), NOTHING);

    place.write("trusted/b.pub", line(&b, Role::ControlPlane));
    assert!(keychain.refresh() && !keychain.refresh());
    assert_eq!(belief(&keychain.current(), &b), ALL);
    assert!(watch.has_changed().unwrap());
    assert!(watch.borrow_and_update().may_sign(b.id()));

    place.remove("trusted/a.pub");
    assert!(keychain.refresh());
    assert_eq!(belief(&keychain.current(), &a), NOTHING);
}

#[test]
fn keys_that_cannot_be_read_leave_the_last_good_ones_in_force() {
    let (a, b) = (key(1), key(2));
    let place = Place::new();
    place.write("trusted/a.pub", line(&a, Role::ControlPlane));
    let keychain = place.open();
    // Half written.
    place.write("trusted/b.pub", &line(&b, Role::ControlPlane)[..20]);
    assert!(!keychain.refresh());
    assert_eq!(belief(&keychain.current(), &a), ALL);
    place.write("trusted/b.pub", line(&b, Role::ControlPlane));
    assert!(keychain.refresh());
    assert_eq!(belief(&keychain.current(), &b), ALL);
    // Nobody at all would be believed: certainly not what somebody wants.
    place.remove("trusted/a.pub");
    place.remove("trusted/b.pub");
    assert!(!keychain.refresh());
    assert_eq!(belief(&keychain.current(), &a), ALL);
    fs::remove_dir(place.directory.path().join("trusted")).unwrap();
    assert!(!keychain.refresh());
    assert_eq!(belief(&keychain.current(), &a), ALL);
}

#[test]
fn a_ring_beside_the_keys_is_taken_up_and_an_older_one_is_not() {
    let (a, root) = (key(1), root());
    let place = Place::new();
    place.write("trusted/root.pub", line(&root, Role::Root));
    let keychain = place.open();
    assert_eq!(keychain.current().ring_serial(), 0);
    place.write("trusted/keyring", sealed(2, &[(&a, Standing::Active)]));
    assert!(keychain.refresh());
    assert_eq!(belief(&keychain.current(), &a), ALL);
    place.write("trusted/keyring", sealed(3, &[(&a, Standing::Revoked)]));
    assert!(keychain.refresh());
    assert_eq!(belief(&keychain.current(), &a), NOTHING);
    for bad in [sealed(2, &[(&a, Standing::Active)]).to_vec(), vec![1, 2, 3]] {
        place.write("trusted/keyring", bad);
        assert!(!keychain.refresh());
        assert_eq!(keychain.current().ring_serial(), 3);
    }
    // Also not after a restart, nor without the file.
    assert_eq!(place.open().current().ring_serial(), 3);
    place.remove("trusted/keyring");
    assert_eq!(place.open().current().ring_serial(), 3);
}

#[test]
fn an_offered_ring_is_verified_published_and_kept() {
    let a = key(1);
    let place = Place::new();
    place.write("trusted/root.pub", line(&root(), Role::Root));
    let keychain = place.open();
    let two = sealed(2, &[(&a, Standing::Active)]);
    let watch = keychain.watch();
    assert!(keychain.offer(&two).unwrap());
    assert!(!keychain.offer(&two).unwrap(), "it is in force already");
    assert!(watch.has_changed().unwrap());
    assert_eq!(keychain.ring().unwrap(), two);
    assert!(matches!(
        keychain.offer(&sealed(1, &[(&a, Standing::Active)])),
        Err(RingError::NotNewer { .. })
    ));
    let again = place.open();
    assert_eq!(again.ring().unwrap(), two);
    assert!(again.offer(&sealed(1, &[])).is_err());
}

#[test]
fn a_damaged_kept_ring_is_moved_aside_and_the_pinned_keys_are_used() {
    let (a, pinned) = (key(1), key(2));
    let place = Place::new();
    place.write("trusted/root.pub", line(&root(), Role::Root));
    place.write("trusted/cp.pub", line(&pinned, Role::ControlPlane));
    let whole = sealed(2, &[(&a, Standing::Active)]);
    let mut flipped = whole.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [flipped, whole[..9].to_vec(), Vec::new()] {
        place.write("data/keyring", damaged);
        let keychain = place.open();
        assert_eq!(keychain.current().ring_serial(), 0);
        assert_eq!(belief(&keychain.current(), &pinned), ALL);
        let data = place.directory.path().join("data");
        assert!(!data.join("keyring").exists() && data.join("keyring.damaged").exists());
        assert!(keychain.offer(&whole).unwrap());
        assert_eq!(place.open().current().ring_serial(), 2);
    }
}

#[test]
fn a_root_that_is_not_pinned_any_more_takes_its_ring_along_and_brings_it_back() {
    let a = key(1);
    let place = Place::new();
    place.write("trusted/root.pub", line(&root(), Role::Root));
    place.write("trusted/cp.pub", line(&key(2), Role::ControlPlane));
    let keychain = place.open();
    keychain
        .offer(&sealed(5, &[(&a, Standing::Active)]))
        .unwrap();
    place.remove("trusted/root.pub");
    assert!(keychain.refresh());
    assert_eq!(belief(&keychain.current(), &a), NOTHING);
    place.write("trusted/root.pub", line(&root(), Role::Root));
    assert!(keychain.refresh());
    assert_eq!(keychain.current().ring_serial(), 5);
}

#[test]
fn a_ring_that_the_disk_refuses_is_in_force_and_kept_later() {
    let a = key(1);
    let place = Place::new();
    place.write("trusted/root.pub", line(&root(), Role::Root));
    // A file where the data directory should be.
    place.write("data", "");
    let keychain = place.open();
    keychain
        .offer(&sealed(1, &[(&a, Standing::Revoked)]))
        .unwrap();
    assert_eq!(keychain.current().ring_serial(), 1);
    assert!(!keychain.refresh());
    place.remove("data");
    assert!(!keychain.refresh());
    assert_eq!(place.open().current().ring_serial(), 1);
}

#[test]
fn a_control_planes_own_key_is_its_own_word_only_while_no_root_is_pinned() {
    let place = Place::new();
    let keys = place.directory.path().join("keys");
    let path = keys.join("cp.key");
    let own = SigningKey::create(&path, "cp-1").unwrap();
    let data = place.directory.path().join("data");
    let open = |pinned: Pinned| Keychain::open(pinned.with_own(&own, &path), &data).unwrap();
    let beside = open(Pinned::beside(&path));
    assert_eq!(belief(&beside.current(), &own), ALL);
    assert_eq!(beside.current().names().next(), Some((own.id(), "cp-1")));

    // The `.pub` beside the key was made by the program itself: it does not say that others believe it.
    place.write("keys/root.pub", line(&root(), Role::Root));
    assert!(beside.refresh());
    assert_eq!(belief(&beside.current(), &own), NOTHING);
    beside
        .offer(&sealed(1, &[(&own, Standing::Active)]))
        .unwrap();
    assert_eq!(belief(&beside.current(), &own), ALL);
    beside.offer(&sealed(2, &[])).unwrap();
    assert_eq!(belief(&beside.current(), &own), NOTHING);
    // Pinned by an operator elsewhere, it is.
    place.write("trusted/root.pub", line(&root(), Role::Root));
    place.write("trusted/cp-1.pub", line(&own, Role::ControlPlane));
    let elsewhere = open(Pinned::files(place.directory.path().join("trusted")));
    assert_eq!(belief(&elsewhere.current(), &own), ALL);
}

#[test]
fn keys_without_files_take_up_rings_too() {
    let a = key(1);
    let keychain = Keychain::fixed(root().trusted_root());
    assert!(
        keychain
            .offer(&sealed(1, &[(&a, Standing::Active)]))
            .unwrap()
    );
    assert!(!keychain.refresh());
    assert_eq!(belief(&keychain.current(), &a), ALL);
    assert!(!keychain.offer(&keychain.ring().unwrap()).unwrap());
}
