//! What a run was asked for, checked before anything is loaded.

use super::lora::Lora;
use super::sampler::SamplerKind;
use super::schedule::{Schedule, ScheduleError, Spacing};
use crate::models::wan::{self, vae};
use std::path::{Path, PathBuf};

/// Latents along a side of the transformer's patches.
const PATCH: usize = 2;
/// Frames of one latent frame, but for the first.
pub(super) const FRAMES_MULTIPLE: usize = 4;
/// Positions the transformer's rotary embedding was made for, on each axis.
const POSITIONS: usize = 1024;
/// Bytes of a prompt; the encoder sees 512 tokens, of 3 to 5 bytes.
const LONGEST_PROMPT: usize = 16 << 10;

/// A clip of as many latent frames as there are positions.
const MOST_FRAMES: usize = (POSITIONS - 1) * FRAMES_MULTIPLE + 1;
/// The models were trained at as many timesteps: more steps would only repeat them.
const MOST_STEPS: usize = 1000;

/// A complete, valid request.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Request {
    /// As it was typed: it is cleaned when it is encoded.
    pub prompt: String,
    /// What guidance leads away from.
    pub negative_prompt: String,
    /// Pixels in a row, a multiple of [`LatentGrid::size_multiple`].
    pub width: usize,
    /// Rows, a multiple of the same.
    pub height: usize,
    /// Frames, 4n + 1.
    pub frames: usize,
    /// Denoising steps, 1 to 1000.
    pub steps: usize,
    /// Of the high-noise expert, or the only one. 1 or less turns guidance off for both.
    pub guidance_scale: f32,
    /// Of the low-noise expert.
    pub guidance_scale_low: f32,
    /// Above 1, it spends more of the steps at high noise: [`Schedule::new`].
    pub flow_shift: f64,
    /// Of the noise, which is what torch's CPU generator makes of it.
    pub seed: u64,
    /// What turns velocities into the next latents.
    pub sampler: SamplerKind,
    /// Where noise levels lie before they are shifted.
    #[serde(default)]
    pub spacing: Spacing,
    /// Only so many steps are guided, where that is said.
    #[serde(default)]
    pub guidance_until: Option<usize>,
    /// What the clip begins with.
    #[serde(default)]
    pub image: Option<PathBuf>,
    /// What it ends with.
    #[serde(default)]
    pub last_image: Option<PathBuf>,
    /// In the order in which they are added.
    #[serde(default)]
    pub loras: Vec<Lora>,
}

/// Why no model, or not this one, makes such a clip.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum RequestError {
    #[error(
        "the size is {width}x{height}; both sides must be multiples of {multiple}, the nearest is {near_width}x{near_height}"
    )]
    Size { width: usize, height: usize, multiple: usize, near_width: usize, near_height: usize },
    #[error("the size is {width}x{height}; a side can't be longer than {longest}")]
    TooLarge { width: usize, height: usize, longest: usize },
    #[error("{frames} frames can't be made; frames come as 4n + 1, the nearest is {nearest}")]
    Frames { frames: usize, nearest: usize },
    #[error("{variant} makes videos of a prompt alone, and takes no --image")]
    NoImage { variant: String },
    #[error("{variant} makes videos of an image: give one with --image")]
    ImageNeeded { variant: String },
    #[error("{variant} takes no --last-image")]
    NoLastImage { variant: String },
    #[error("{variant} makes videos between two images: give the last with --last-image")]
    LastImageNeeded { variant: String },
    #[error("a clip of one frame would be the image itself; ask for --frames 5 or more")]
    OneFrame,
    #[error("{frames} frames are too many; the model knows positions for {MOST_FRAMES}")]
    TooManyFrames { frames: usize },
    #[error(
        "the prompt has {bytes} bytes, more than {LONGEST_PROMPT}; the model sees 512 tokens of it"
    )]
    Prompt { bytes: usize },
    #[error("the {what} is {value}; it must be {wanted}")]
    Number { what: &'static str, value: f64, wanted: &'static str },
}

/// What a VAE makes of a clip.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LatentGrid {
    /// Channels of a latent.
    pub channels: i64,
    /// Pixels along a side of what becomes of one latent.
    pub pixels: usize,
}

impl From<&vae::Config> for LatentGrid {
    fn from(config: &vae::Config) -> Self {
        Self { channels: config.z_dim, pixels: config.spatial_factor() as usize }
    }
}

impl LatentGrid {
    /// Pixels that a side must be a multiple of.
    pub fn size_multiple(self) -> usize {
        self.pixels * PATCH
    }

    /// Width and height of about `area` pixels in the shape of an image of `width` by `height`, as the
    /// reference pipelines' examples find them.
    pub fn sides(self, area: usize, (width, height): (usize, usize)) -> (usize, usize) {
        let (multiple, aspect) = (self.size_multiple(), height as f64 / width as f64);
        let side = |length: f64| (length.round() as usize / multiple).max(1) * multiple;
        (side((area as f64 / aspect).sqrt()), side((area as f64 * aspect).sqrt()))
    }
}

impl Request {
    /// Looks at size, frames and sampling settings.
    ///
    /// # Errors
    /// With the first that is out of its range.
    pub fn check(&self, grid: LatentGrid) -> Result<(), RequestError> {
        let Self { width, height, frames, .. } = *self;
        let multiple = grid.size_multiple();
        let longest = POSITIONS * multiple;
        if width.max(height) > longest {
            return Err(RequestError::TooLarge { width, height, longest });
        }
        let near = |side: usize| (side + multiple / 2).max(multiple) / multiple * multiple;
        let (near_width, near_height) = (near(width), near(height));
        if (near_width, near_height) != (width, height) {
            return Err(RequestError::Size { width, height, multiple, near_width, near_height });
        }
        if frames > MOST_FRAMES {
            return Err(RequestError::TooManyFrames { frames });
        }
        let nearest = frames.max(1).saturating_add(1) / FRAMES_MULTIPLE * FRAMES_MULTIPLE + 1;
        if nearest != frames {
            return Err(RequestError::Frames { frames, nearest });
        }
        let number = |what, value: f64, good: bool, wanted| {
            if good { Ok(()) } else { Err(RequestError::Number { what, value, wanted }) }
        };
        let (scale, low) = (f64::from(self.guidance_scale), f64::from(self.guidance_scale_low));
        let steps = (1..=MOST_STEPS).contains(&self.steps);
        number("number of steps", self.steps as f64, steps, "from 1 to 1000")?;
        number("guidance scale", scale, scale.is_finite(), "a number")?;
        number("guidance scale of the low-noise expert", low, low.is_finite(), "a number")?;
        let shift = self.flow_shift;
        number("flow shift", shift, shift.is_finite() && shift > 0.0, "above 0")?;
        let falls = self.schedule().is_ok();
        number("flow shift", shift, falls, "such that the noise falls with every step")
    }

    /// Whether the prompts are of a length that is worth cleaning.
    pub fn check_prompts(&self) -> Result<(), RequestError> {
        let long = [&self.prompt, &self.negative_prompt];
        match long.map(String::len).into_iter().find(|bytes| *bytes > LONGEST_PROMPT) {
            Some(bytes) => Err(RequestError::Prompt { bytes }),
            None => Ok(()),
        }
    }

    /// Whether a model takes the images that the clip is to begin and to end with.
    pub fn check_images(&self, model: &wan::Config) -> Result<(), RequestError> {
        let variant = || model.variant.clone();
        let (image, last) = (self.image.is_some(), self.last_image.is_some());
        let (takes, keeps) = (model.takes_image_latents(), model.expand_timesteps);
        if image && !takes && !keeps {
            return Err(RequestError::NoImage { variant: variant() });
        }
        if !image && takes {
            return Err(RequestError::ImageNeeded { variant: variant() });
        }
        if last && !takes {
            return Err(RequestError::NoLastImage { variant: variant() });
        }
        if !last && model.image_positions.is_some() {
            return Err(RequestError::LastImageNeeded { variant: variant() });
        }
        if image && self.frames == 1 {
            return Err(RequestError::OneFrame);
        }
        Ok(())
    }

    /// Sampling settings in a line.
    pub fn sampling(&self) -> String {
        let Self { steps, guidance_scale, guidance_scale_low, flow_shift, sampler, .. } = self;
        let until = match self.guidance_until {
            Some(step) if self.guided() => format!(" until step {step}"),
            _ => String::new(),
        };
        let guidance = match self.guided() {
            true => format!("guidance {guidance_scale} and {guidance_scale_low}{until}"),
            false => "no guidance".into(),
        };
        format!("{steps} steps, {guidance}, flow shift {flow_shift}, {sampler}")
    }

    /// What images are called in records.
    pub(super) const IMAGE: &str = "image";
    pub(super) const LAST_IMAGE: &str = "last_image";

    /// Files that the request names, and what they are called in records: `image`, `last_image`,
    /// `lora_0` and so on.
    pub fn files(&self) -> Vec<(String, &Path)> {
        let image = self.image.iter().map(|path| (Self::IMAGE.to_owned(), &**path));
        let last = self.last_image.iter().map(|path| (Self::LAST_IMAGE.to_owned(), &**path));
        let loras = self.loras.iter().enumerate();
        let loras = loras.map(|(i, lora)| (format!("lora_{i}"), &*lora.path));
        image.chain(last).chain(loras).collect()
    }

    /// One for the first frame, and one for every four after it.
    pub fn latent_frames(&self) -> usize {
        (self.frames - 1) / FRAMES_MULTIPLE + 1
    }

    /// The shape of the latents, `[C, F, H, W]`.
    pub fn latents(&self, grid: LatentGrid) -> [i64; 4] {
        let [h, w] = [self.height, self.width].map(|side| (side / grid.pixels) as i64);
        [grid.channels, self.latent_frames() as i64, h, w]
    }

    /// The noise levels of its steps.
    ///
    /// # Errors
    /// As [`Schedule::new`].
    pub fn schedule(&self) -> Result<Schedule, ScheduleError> {
        Schedule::new(self.steps, self.flow_shift, self.spacing)
    }

    /// Whether there are steps in which the denoiser runs a second time for the negative prompt.
    pub fn guided(&self) -> bool {
        self.passes(0) > 1
    }

    /// How often the denoiser runs in step `index`, from 0.
    pub fn passes(&self, index: usize) -> u64 {
        let guided = self.guidance_scale > 1.0 && self.guidance_until.is_none_or(|n| index < n);
        if guided { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::{LatentGrid, Request, RequestError};

    const GRID: LatentGrid = LatentGrid { channels: 16, pixels: 8 };

    fn request(width: usize, height: usize, frames: usize) -> Request {
        Request {
            prompt: String::new(),
            negative_prompt: String::new(),
            width,
            height,
            frames,
            steps: 20,
            guidance_scale: 4.0,
            guidance_scale_low: 3.0,
            flow_shift: 3.0,
            seed: 0,
            ..Request::default()
        }
    }

    #[test]
    fn sizes_and_frames_that_exist_pass() {
        for (width, height, frames) in [(16, 16, 1), (832, 480, 81), (1280, 720, 121)] {
            assert_eq!(request(width, height, frames).check(GRID), Ok(()));
        }
        assert_eq!(request(16, 16, 81).latent_frames(), 21);
    }

    #[test]
    fn others_are_refused_with_the_nearest_that_passes() {
        for (frames, nearest) in [(0, 1), (2, 1), (3, 5), (4, 5), (80, 81), (82, 81), (83, 85)] {
            let error = request(16, 16, frames).check(GRID);
            assert_eq!(error, Err(RequestError::Frames { frames, nearest }));
        }
        assert!(matches!(
            request(16, 16, usize::MAX).check(GRID),
            Err(RequestError::Frames { .. } | RequestError::TooManyFrames { .. })
        ));
        assert!(request(usize::MAX, 16, 5).check(GRID).is_err());
        let error = request(850, 7, 5).check(GRID).unwrap_err();
        assert!(error.to_string().ends_with("the nearest is 848x16"), "{error}");
        assert!(matches!(request(16400, 16, 5).check(GRID), Err(RequestError::TooLarge { .. })));
        assert!(matches!(
            request(16, 16, 4097).check(GRID),
            Err(RequestError::TooManyFrames { .. })
        ));
    }

    #[test]
    fn a_prompt_has_a_length() {
        let long =
            |bytes: usize| Request { prompt: "&amp;".repeat(bytes / 5), ..request(16, 16, 5) };
        assert_eq!(long(10_000).check_prompts(), Ok(()));
        assert_eq!(long(20_000).check_prompts(), Err(RequestError::Prompt { bytes: 20_000 }));
    }

    #[test]
    fn numbers_that_make_no_video_are_refused() {
        let base = request(16, 16, 5);
        for bad in [
            Request { steps: 0, ..base.clone() },
            Request { guidance_scale: f32::NAN, ..base.clone() },
            Request { flow_shift: 0.0, ..base.clone() },
            // Of all steps, the noise levels are the same number.
            Request { flow_shift: 3e38, ..base.clone() },
            Request { steps: 10_000_000_000, ..base.clone() },
        ] {
            assert!(matches!(bad.check(GRID), Err(RequestError::Number { .. })), "{bad:?}");
        }
    }
}
