//! Snapshots: the state at a version as content-addressed chunks under a signed root.
//!
//! [`Root`] says what a snapshot is of and who vouches for it; [`Cutter`] makes one and writes only chunks that are new;
//! [`load()`] fetches only what differs from what is here; [`clean()`] removes what no kept root needs, [`verify()`] reads
//! all of one, [`found()`] begins a new life of the log with one. The tree itself is `sluice_schema::chunk`.

mod clean;
mod cut;
mod found;
mod load;
mod root;
mod verify;

pub use clean::{Cleaned, GRACE, ROOTS_KEPT, clean, clean_transactions};
pub use cut::{Cut, CutError, Cutter, fetch_tree};
pub use found::{FoundError, Founded, Terms, found};
pub use load::{LoadError, Part, load, load_state};
pub use root::{Charter, Root, RootError};
pub use verify::verify;
