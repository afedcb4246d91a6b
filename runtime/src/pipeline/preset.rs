//! Sampling settings that go together.

use super::request::Request;
use super::sampler::SamplerKind;
use super::schedule::Spacing;
use crate::models::wan::Config;
use catalog::Variant;
use std::fmt;
use std::str::FromStr;

/// Settings by a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// What the model's official code samples with.
    Official,
    /// What diffusers samples with if nothing is said: the flow shift of the Hub's scheduler, and the
    /// pipeline's own steps and guidance.
    Hub,
    /// The official flow shift with half as many steps, the later half of them without guidance.
    Fast,
    /// Four steps without guidance, for step-distilled models (Lightning): Euler's for two experts, those
    /// of a consistency model for one, as their LoRAs were trained.
    Lightning4,
}

impl Preset {
    /// Every preset, in the order to list them.
    pub const ALL: [Self; 4] = [Self::Official, Self::Hub, Self::Fast, Self::Lightning4];

    /// As it is typed: `official`, `lightning4`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Official => "official",
            Self::Hub => "hub",
            Self::Fast => "fast",
            Self::Lightning4 => "lightning4",
        }
    }

    /// `request` with these settings for `variant`.
    pub fn apply(self, variant: &Variant, request: Request) -> Request {
        let official = Request {
            steps: variant.steps as usize,
            guidance_scale: variant.guidance_scale,
            guidance_scale_low: variant.guidance_scale_2,
            flow_shift: variant.flow_shift.into(),
            sampler: SamplerKind::UniPc,
            spacing: Spacing::Flow,
            guidance_until: None,
            ..request
        };
        match self {
            Self::Official => official,
            Self::Hub => Request {
                steps: 50,
                guidance_scale: 5.0,
                guidance_scale_low: 5.0,
                flow_shift: variant.hub_flow_shift.into(),
                ..official
            },
            Self::Fast => {
                let steps = official.steps / 2;
                Request { steps, guidance_until: Some(steps / 2), ..official }
            }
            Self::Lightning4 => Request {
                steps: 4,
                guidance_scale: 1.0,
                guidance_scale_low: 1.0,
                flow_shift: 5.0,
                sampler: match variant.boundary_ratio {
                    Some(_) => SamplerKind::Euler,
                    None => SamplerKind::Lcm,
                },
                spacing: Spacing::Distilled,
                ..official
            },
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no preset has.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("no preset is called {0:?}; there are official, hub, fast and lightning4")]
pub struct UnknownPreset(String);

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == name);
        found.ok_or_else(|| UnknownPreset(name.to_owned()))
    }
}

/// The registry's entry for a transformer: by the name in its file, or the nearest by its shape.
pub fn variant(config: &Config) -> &'static Variant {
    let named = Variant::named(&config.variant);
    let channels = (config.in_channels as u32, config.out_channels as u32);
    let two = config.boundary_ratio.is_some();
    let like = |v: &Variant| v.channels == channels && v.two_experts() == two;
    let near = || Variant::nearest(config.dim as u32, like);
    named.or_else(near).unwrap_or(&catalog::VARIANTS[0])
}
