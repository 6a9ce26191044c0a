//! What control planes and nodes say: heads, signed and not, keyrings and reports. The first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_replica::keys::{Keyring, TrustedKeys};
use sluice_replica::node::{Head, Report};

fuzz_target!(|bytes: &[u8]| {
    let Some((which, content)) = bytes.split_first() else {
        return;
    };
    let trusted = TrustedKeys::default();
    match which % 4 {
        0 => assert!(Head::open(content, &trusted).is_err()),
        1 => {
            let _ = Head::decode(content);
        }
        2 => assert!(Keyring::open(content, &trusted).is_err()),
        _ => {
            if let Ok(report) = Report::decode(content) {
                assert!(Report::decode(&report.encode()).is_ok_and(|again| again == report));
            }
        }
    }
});
