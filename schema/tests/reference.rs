//! The reference pages say what the descriptors say.
//!
//! `UPDATE_REFERENCE=1 cargo test -p sluice-schema --test reference` writes them anew.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

use sluice_schema::reference;
use std::fs;
use std::path::PathBuf;

#[test]
fn the_reference_pages_are_made_from_the_descriptors() {
    #[expect(clippy::disallowed_methods, reason = "how tests take settings")]
    let update = std::env::var("UPDATE_REFERENCE").is_ok_and(|value| value == "1");
    for (name, page) in [
        ("kinds.md", reference::kinds()),
        ("plugins.md", reference::plugins()),
    ] {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
        let path = directory.join(name);
        if update {
            fs::write(&path, &page).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == page,
            "docs/reference/{name} is stale: \
             UPDATE_REFERENCE=1 cargo test -p sluice-schema --test reference"
        );
    }
}
