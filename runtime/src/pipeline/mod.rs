//! From a request to frames.

mod denoise;
mod generate;
mod model_folder;
pub mod noise;
mod progress;
mod request;
pub mod sampler;
pub mod schedule;

pub use denoise::{Experts, Prompts, Step};
pub use generate::{GenerateError, Timings, decode, encode, generate, noise as initial_noise};
pub use model_folder::{FolderError, ModelFolder, Places};
pub use progress::{Progress, Silent, Stage};
pub use request::{Request, RequestError};
