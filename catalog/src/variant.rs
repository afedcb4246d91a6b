//! The models, and what each is sampled with unless one says otherwise.
//!
//! Sources: `wan/configs/*.py` and `generate.py` of Wan 2.1 and 2.2, the README of Wan 2.1 for the
//! 1.3B, and the schedulers' and pipelines' configurations of the repositories in diffusers layout.

use gguf::Metadata;

use crate::Part;

/// Which images a model starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// None: text to video.
    None,
    /// The first frame, or none.
    MaybeFirst,
    /// The first frame.
    First,
    /// The first and the last frame.
    FirstAndLast,
    /// Videos and masks, which only VACE takes.
    Control,
}

/// A model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variant {
    /// The value of `wan.variant`.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// The publisher's repository in diffusers layout, which has the configurations.
    pub repository: Option<&'static str>,
    /// Which images it starts from.
    pub images: Images,
    /// Whether the features of an image encoder are part of it.
    pub image_encoder: bool,
    /// Two experts: timesteps at or above this share of 1000 are the high-noise one's.
    pub boundary_ratio: Option<f32>,
    /// `--sample_shift` of the official code. For `wan2.1-i2v-14b` it is 3 at 832 x 480.
    pub flow_shift: f32,
    /// `flow_shift` in the repository's scheduler.
    pub hub_flow_shift: f32,
    /// Of the only or the high-noise expert.
    pub guidance_scale: f32,
    /// Of the low-noise expert; as large as the other where there is none.
    pub guidance_scale_2: f32,
    /// Denoising steps.
    pub steps: u32,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Frames, 4n + 1.
    pub frames: u32,
    /// Frames a second.
    pub fps: u32,
    /// Channels of the transformer's width, which tells models apart that have the same tensors.
    pub dim: u32,
    /// Channels of the transformer's input and output.
    pub channels: (u32, u32),
}

impl Variant {
    /// The model of that name.
    pub fn named(name: &str) -> Option<&'static Variant> {
        VARIANTS.iter().find(|variant| variant.name == name)
    }

    /// Of the models that `fits` takes, the one that is nearest to `dim` channels wide, and the first
    /// of several: so a checkpoint that was made small for a test is some model, too.
    pub fn nearest(dim: u32, fits: impl Fn(&Variant) -> bool) -> Option<&'static Variant> {
        let fitting = VARIANTS.iter().filter(|variant| fits(variant));
        fitting.min_by_key(|variant| variant.dim.abs_diff(dim))
    }

    /// The family's version, with which the name begins: `wan2.2`.
    pub fn version(&self) -> &'static str {
        self.name.split('-').next().unwrap_or(self.name)
    }

    /// Whether it has a transformer for the first steps and another for the last.
    pub fn two_experts(&self) -> bool {
        self.boundary_ratio.is_some()
    }

    /// The guidance scale of a transformer.
    pub fn guidance_of(&self, part: Part) -> f32 {
        if part == Part::LowNoise { self.guidance_scale_2 } else { self.guidance_scale }
    }

    /// The metadata of a transformer that is sampled so.
    pub fn describe(
        &self,
        part: Part,
        boundary_ratio: Option<f32>,
        flow_shift: f32,
        metadata: &mut Metadata,
    ) {
        metadata.set("wan.variant", self.name);
        if let Some(boundary) = boundary_ratio {
            metadata.set("wan.boundary_ratio", boundary);
        }
        metadata.set("wan.flow_shift", flow_shift).set("wan.steps", self.steps);
        if let Some(expert) = part.expert() {
            metadata.set("wan.expert", expert);
        }
        metadata.set("wan.guidance_scale", self.guidance_of(part));
        if self.expand_timesteps() {
            metadata.set("wan.expand_timesteps", true);
        }
    }

    /// Whether every token has a timestep of its own, that of a given first frame being 0.
    pub fn expand_timesteps(&self) -> bool {
        self.images == Images::MaybeFirst
    }

    /// As model sites sort models.
    pub fn task(&self) -> &'static str {
        match self.images {
            Images::None | Images::Control => "text-to-video",
            Images::MaybeFirst | Images::First | Images::FirstAndLast => "image-to-video",
        }
    }
}

const A14B: Variant = Variant {
    name: "wan2.2-t2v-a14b",
    title: "Wan2.2 T2V A14B",
    repository: Some("Wan-AI/Wan2.2-T2V-A14B-Diffusers"),
    images: Images::None,
    image_encoder: false,
    boundary_ratio: Some(0.875),
    flow_shift: 12.0,
    hub_flow_shift: 3.0,
    guidance_scale: 4.0,
    guidance_scale_2: 3.0,
    steps: 40,
    size: (832, 480),
    frames: 81,
    fps: 16,
    dim: 5120,
    channels: (16, 16),
};

const WAN21: Variant = Variant {
    name: "wan2.1-t2v-14b",
    title: "Wan2.1 T2V 14B",
    repository: Some("Wan-AI/Wan2.1-T2V-14B-Diffusers"),
    boundary_ratio: None,
    flow_shift: 5.0,
    guidance_scale: 5.0,
    guidance_scale_2: 5.0,
    steps: 50,
    ..A14B
};

/// Every model that is known.
pub const VARIANTS: &[Variant] = &[
    A14B,
    Variant {
        name: "wan2.2-i2v-a14b",
        title: "Wan2.2 I2V A14B",
        repository: Some("Wan-AI/Wan2.2-I2V-A14B-Diffusers"),
        images: Images::First,
        boundary_ratio: Some(0.9),
        flow_shift: 5.0,
        guidance_scale: 3.5,
        guidance_scale_2: 3.5,
        channels: (36, 16),
        ..A14B
    },
    Variant {
        name: "wan2.2-ti2v-5b",
        title: "Wan2.2 TI2V 5B",
        repository: Some("Wan-AI/Wan2.2-TI2V-5B-Diffusers"),
        images: Images::MaybeFirst,
        hub_flow_shift: 5.0,
        size: (1280, 704),
        frames: 121,
        fps: 24,
        dim: 3072,
        channels: (48, 48),
        ..WAN21
    },
    Variant {
        name: "wan2.1-t2v-1.3b",
        title: "Wan2.1 T2V 1.3B",
        repository: Some("Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
        // Its README asks for 6 and a shift of 8 to 12; the code's own defaults are the 14B's.
        guidance_scale: 6.0,
        guidance_scale_2: 6.0,
        flow_shift: 8.0,
        dim: 1536,
        ..WAN21
    },
    WAN21,
    Variant {
        name: "wan2.1-i2v-14b",
        title: "Wan2.1 I2V 14B",
        repository: Some("Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"),
        images: Images::First,
        image_encoder: true,
        steps: 40,
        channels: (36, 16),
        ..WAN21
    },
    Variant {
        name: "wan2.1-flf2v-14b",
        title: "Wan2.1 FLF2V 14B",
        repository: Some("Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers"),
        images: Images::FirstAndLast,
        image_encoder: true,
        flow_shift: 16.0,
        hub_flow_shift: 16.0,
        size: (1280, 720),
        channels: (36, 16),
        ..WAN21
    },
    Variant {
        name: "wan2.2-vace-a14b",
        title: "Wan2.2 VACE A14B",
        repository: None,
        images: Images::Control,
        guidance_scale_2: 4.0,
        ..A14B
    },
    Variant {
        name: "wan2.1-vace-1.3b",
        title: "Wan2.1 VACE 1.3B",
        repository: Some("Wan-AI/Wan2.1-VACE-1.3B-diffusers"),
        images: Images::Control,
        flow_shift: 16.0,
        dim: 1536,
        ..WAN21
    },
    Variant {
        name: "wan2.1-vace-14b",
        title: "Wan2.1 VACE 14B",
        repository: Some("Wan-AI/Wan2.1-VACE-14B-diffusers"),
        images: Images::Control,
        flow_shift: 16.0,
        ..WAN21
    },
];
