//! From a request to frames.

mod denoise;
mod error;
mod generate;
mod model_folder;
pub mod noise;
mod progress;
mod request;
pub mod sampler;
pub mod schedule;

pub use denoise::{Experts, Prompts, Step, initial_noise};
pub use error::GenerateError;
pub use generate::{Timings, decode, encode, generate};
pub use model_folder::{FolderError, ModelFolder, Places};
pub use progress::{Progress, Silent, Stage};
pub use request::{Request, RequestError};
