//! Auditing: is what a log or an archive holds what trusted keys have signed, without a gap, from beginning to end?
//!
//! [`audit()`] walks every record and every snapshot, with the memory of one of them and the folded state. It asks no more
//! of a log than reading. What it finds is a [`Report`]; only a log that cannot be read is an error.
//!
//! A log may have had several lives. What is wrong in one that a later, chartered life has replaced is told, but the log
//! is good: that is what the later life was founded for.

mod read;
mod report;
mod walk;

pub use read::Copies;
pub use report::{Checked, Doubt, Fault, Life, Report, Wrong};
pub use walk::audit;
