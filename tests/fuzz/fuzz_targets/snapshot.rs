//! The parts of a snapshot: its root, signed and not, and the nodes of its tree. The first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_replica::snapshot::Root;
use sluice_schema::chunk::{decode_inner, decode_leaf, encode_leaf};

fuzz_target!(|bytes: &[u8]| {
    let Some((which, content)) = bytes.split_first() else {
        return;
    };
    match which % 4 {
        0 => {
            let _ = Root::read(content);
        }
        1 => {
            if let Ok(root) = Root::decode(content) {
                assert!(Root::decode(&root.encode()).is_ok());
            }
        }
        2 => {
            let _ = decode_inner(content);
        }
        _ => {
            if let Ok(entities) = decode_leaf(content) {
                let again = decode_leaf(&encode_leaf(&entities));
                assert!(again.is_ok_and(|again| again == entities));
            }
        }
    }
});
