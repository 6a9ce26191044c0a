//! An event, as the log holds it. What can be decoded comes back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_schema::event::Event;
use sluice_schema::state::State;

fuzz_target!(|bytes: &[u8]| {
    let Ok(event) = Event::decode(bytes) else {
        return;
    };
    let again = Event::decode(&event.encode().bytes);
    assert!(again.is_ok_and(|again| again == event));
    // Refused or applied, but judged.
    let _ = State::default().apply(&event, bytes);
});
