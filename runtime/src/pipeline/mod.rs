//! From a request to frames.

mod denoise;
mod error;
mod generate;
mod load;
mod machine;
mod model_folder;
pub mod noise;
mod plan;
mod progress;
mod request;
pub mod sampler;
pub mod schedule;

pub use denoise::{Experts, Prompts, Step, initial_noise};
pub use error::GenerateError;
pub use generate::{Timings, decode, encode, generate};
pub use machine::{DeviceError, Machine, choose_device};
pub use model_folder::{FolderError, ModelFolder, Places};
pub use plan::{Part, Plan, Speed};
pub use progress::{Progress, Silent, Stage};
pub use request::{Request, RequestError};
