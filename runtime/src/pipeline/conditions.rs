//! What a clip is conditioned on, as encoders left it.

use crate::ggml::HostTensor;
use crate::models::{Context, Timesteps};
use std::sync::Arc;

/// Everything that steers the denoiser.
#[derive(Clone)]
pub struct Conditions {
    /// Hidden states of the prompt, `[N, C]`.
    pub positive: HostTensor,
    /// Of the negative prompt; only for guided runs.
    pub negative: Option<HostTensor>,
    /// Nothing, for a clip that prompts alone describe.
    pub images: Images,
}

/// What became of the images that a clip begins and ends with; what a model doesn't take isn't there.
#[derive(Clone, Default)]
pub struct Images {
    /// An image encoder's features, `[M, C]`.
    pub features: Option<HostTensor>,
    /// Further channels of the input, `[4 + C, F, H, W]`: the mask of given frames, then their latents.
    pub channels: Option<HostTensor>,
    /// The clip's first latent frame, `[C, 1, H, W]`, which stays as it is.
    pub first_frame: Option<HostTensor>,
}

impl Conditions {
    /// Of a clip that prompts alone describe.
    pub fn prompts(positive: HostTensor, negative: Option<HostTensor>) -> Self {
        Self { positive, negative, images: Images::default() }
    }

    /// Without the negative prompt.
    pub fn context(&self) -> Context<'_> {
        Context { text: &self.positive, image: self.images.features.as_ref() }
    }

    /// The negative prompt with the same images; None for runs without guidance.
    pub fn negative_context(&self) -> Option<Context<'_>> {
        let image = self.images.features.as_ref();
        self.negative.as_ref().map(|text| Context { text, image })
    }
}

impl Images {
    /// What the denoiser is told at a step.
    pub fn timesteps(&self, timestep: f32) -> Timesteps {
        match self.first_frame {
            Some(_) => Timesteps { clip: timestep, first_frame: 0.0 },
            None => timestep.into(),
        }
    }

    /// What the denoiser sees of `latents` `[C, F, H, W]`.
    pub fn input(&self, latents: &HostTensor) -> HostTensor {
        let Some(channels) = &self.channels else { return latents.clone() };
        let ([c, f, h, w], [more, ..]) = (latents.shape.full(), channels.shape.full());
        assert_eq!(channels.shape.full(), [more, f, h, w], "image latents beside {latents:?}");
        let both: Arc<[f32]> = latents.data.iter().chain(&*channels.data).copied().collect();
        HostTensor::new([c + more, f, h, w], both)
    }

    /// `latents` `[C, F, H, W]` with the given frame in its place.
    pub fn keep_frame(&self, latents: HostTensor) -> HostTensor {
        match &self.first_frame {
            Some(frame) => with_first_frame(&latents, |c, i| frame.data[c * frame_len(frame) + i]),
            None => latents,
        }
    }

    /// A `velocity` `[C, F, H, W]` that leaves the given frame alone: samplers keep it where it is.
    pub fn rest_frame(&self, velocity: HostTensor) -> HostTensor {
        match &self.first_frame {
            Some(_) => with_first_frame(&velocity, |_, _| 0.0),
            None => velocity,
        }
    }
}

/// Values of one frame of one channel.
fn frame_len(tensor: &HostTensor) -> usize {
    let [_, _, h, w] = tensor.shape.full();
    (h * w) as usize
}

/// `of` gives values of the first frame by channel and place.
fn with_first_frame(tensor: &HostTensor, of: impl Fn(usize, usize) -> f32) -> HostTensor {
    let [c, f, ..] = tensor.shape.full().map(|d| d as usize);
    let frame = frame_len(tensor);
    let mut values = tensor.data.to_vec();
    for channel in 0..c {
        let start = channel * f * frame;
        values[start..start + frame].iter_mut().enumerate().for_each(|(i, v)| *v = of(channel, i));
    }
    HostTensor::new(tensor.shape, values)
}
