//! A declarative file: YAML or JSON that an operator hands in.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = sluice_schema::declare::read(text);
});
