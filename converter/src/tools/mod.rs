//! Work on files that exist.

mod check;
mod diff;
mod diffusers;
mod inspect;
mod ours;
mod rewrap;
mod rules;
mod verify;

pub use check::{Consumer, Verdict, check};
pub use diff::{Compared, Difference, Kept, diff};
pub use inspect::{Inspection, inspect};
pub use rewrap::{Rewrap, rewrap};
pub use verify::{Problem, verify};
