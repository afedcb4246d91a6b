//! What makes a frame or a clip bad: conditions on metrics, all of which must hold.
//!
//! The thresholds lie between the good and the bad clips of the calibration set;
//! `docs/judge.md` says how far from either.

use super::metric::{Measured, Metric};
use std::fmt;

/// A metric on one side of a threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// What is looked at.
    pub metric: Metric,
    /// Whether it must be above the threshold, or below.
    pub above: bool,
    /// Where the line is.
    pub threshold: f64,
    /// Whether a metric that couldn't be measured counts as on the bad side.
    pub unknown: bool,
}

const fn above(metric: Metric, threshold: f64) -> Condition {
    Condition { metric, above: true, threshold, unknown: false }
}

const fn below(metric: Metric, threshold: f64) -> Condition {
    Condition { metric, above: false, threshold, unknown: false }
}

/// A metric that the clip is too short for.
const fn unmeasured(metric: Metric) -> Condition {
    Condition { metric, above: false, threshold: f64::NEG_INFINITY, unknown: true }
}

impl Condition {
    /// Whether `measured` is on the bad side.
    pub fn holds(&self, measured: &Measured) -> bool {
        measured.get(self.metric).map_or(self.unknown, |value| {
            if self.above { value > self.threshold } else { value < self.threshold }
        })
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Pixels that know nothing of their neighbours: white or blue noise.
    Noise,
    /// Smooth noise: neighbours agree, but nothing is larger than a few pixels.
    ColouredNoise,
    /// What a VAE makes of latents that are noise.
    UndecidedLatents,
    /// Blocks that have nothing to do with the blocks beside them.
    Mosaic,
    /// One solid colour.
    Flat,
    /// Solid frames between pictures.
    Dropout,
    /// Rectangles without content, as values leave them that are no numbers.
    Holes,
    /// A pattern of every second pixel, row or column.
    Lattice,
    /// Brightness that goes up and down from frame to frame.
    Flicker,
    /// Nothing moves.
    Frozen,
    /// Colours run into their limits.
    BurntOut,
    /// Colours get stronger and stronger.
    SaturationDrift,
    /// The file holds less than its frames should need.
    SmallFile,
}

impl Kind {
    /// As it is written in reports: `undecided-latents`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::ColouredNoise => "coloured-noise",
            Self::UndecidedLatents => "undecided-latents",
            Self::Mosaic => "mosaic",
            Self::Flat => "flat",
            Self::Dropout => "dropout",
            Self::Holes => "holes",
            Self::Lattice => "lattice",
            Self::Flicker => "flicker",
            Self::Frozen => "frozen",
            Self::BurntOut => "burnt-out",
            Self::SaturationDrift => "saturation-drift",
            Self::SmallFile => "small-file",
        }
    }

    /// What it means, for somebody who has never heard of metrics.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Noise => "pixels have nothing to do with their neighbours: this is noise",
            Self::ColouredNoise => "smooth noise without anything in it larger than a few pixels",
            Self::UndecidedLatents => {
                "blotches of the size of a latent cell: the denoising hasn't decided what to show"
            }
            Self::Mosaic => "blocks that don't fit the blocks beside them",
            Self::Flat => "one solid colour and nothing on it",
            Self::Dropout => "solid frames between pictures, without a fade",
            Self::Holes => {
                "empty rectangles in the picture, as values leave them that are no numbers"
            }
            Self::Lattice => "a pattern of every second pixel, row or column over the picture",
            Self::Flicker => "the brightness goes up and down from frame to frame",
            Self::Frozen => "nothing moves from the first frame to the last",
            Self::BurntOut => "colours run into their limits towards the end",
            Self::SaturationDrift => "colours get stronger from the first frame to the last",
            Self::SmallFile => "the file is much smaller than such frames need",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The calibration set has no smaller clips. There a picture's own structures are as small as those of
/// smooth noise: what is told by their size is only reported.
const LEAST_SIDE: usize = 128;

/// Conditions that together mean trouble.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// What they mean.
    pub kind: Kind,
    /// All of them hold in a bad frame or clip.
    pub all: &'static [Condition],
    /// Whether a clip of usual size fails by it, or is only reported.
    pub fails: bool,
    /// The share of the frames that it must catch to be a finding at all.
    pub least: f64,
}

impl Rule {
    /// Whether a clip of `side` pixels on its shorter side fails by this rule.
    pub fn fails_at(&self, side: usize) -> bool {
        let scale = [Kind::ColouredNoise, Kind::UndecidedLatents, Kind::Mosaic];
        self.fails && (side >= LEAST_SIDE || !scale.contains(&self.kind))
    }

    /// Whether the frame or clip is bad by this rule.
    pub fn catches(&self, measured: &Measured) -> bool {
        self.all.iter().all(|condition| condition.holds(measured))
    }
}

/// A frame is one solid colour if fewer pixels are off it.
pub(super) const FLAT: Condition = below(Metric::Deviating, 0.0005);

/// Latents are undecided in all of a clip; a frame of it may look like that by chance.
const WHOLE: f64 = 0.4;

/// What is asked of every frame.
pub const FRAME_RULES: &[Rule] = &[
    Rule {
        kind: Kind::Noise,
        all: &[
            above(Metric::Deviating, 0.0005),
            below(Metric::Correlation1, 0.25),
            below(Metric::Share8, 0.05),
        ],
        fails: true,
        least: 0.0,
    },
    Rule {
        kind: Kind::ColouredNoise,
        all: &[
            above(Metric::Deviating, 0.0005),
            below(Metric::Kurtosis, 4.6),
            below(Metric::Correlation8, 0.64),
        ],
        fails: true,
        least: 0.0,
    },
    Rule {
        kind: Kind::UndecidedLatents,
        all: &[
            above(Metric::Correlation2, 0.82),
            below(Metric::Correlation8, 0.83),
            below(Metric::Heterogeneity, 1.2),
            below(Metric::Coherence, 0.3),
        ],
        fails: true,
        least: WHOLE,
    },
    // A frame alone must look more like noise.
    Rule {
        kind: Kind::UndecidedLatents,
        all: &[
            above(Metric::Correlation2, 0.85),
            below(Metric::Correlation8, 0.6),
            below(Metric::Heterogeneity, 0.75),
            unmeasured(Metric::Coherence),
        ],
        fails: true,
        least: WHOLE,
    },
    Rule {
        kind: Kind::Mosaic,
        all: &[
            above(Metric::Colours, 24.0),
            above(Metric::Share8, 0.9),
            above(Metric::Correlation8, -0.3),
            below(Metric::Correlation8, 0.6),
            below(Metric::Correlation16, 0.3),
        ],
        fails: true,
        least: 0.0,
    },
    Rule { kind: Kind::Holes, all: &[above(Metric::Holes, 0.002)], fails: true, least: 0.0 },
    Rule { kind: Kind::Lattice, all: &[above(Metric::Lattice, 4.0)], fails: true, least: 0.0 },
];

/// What is asked of the clip as a whole.
pub const CLIP_RULES: &[Rule] = &[
    Rule { kind: Kind::Flat, all: &[above(Metric::FlatShare, 0.6)], fails: true, least: 0.0 },
    Rule {
        kind: Kind::Dropout,
        all: &[above(Metric::Dropouts, 0.0), below(Metric::FlatShare, 0.6)],
        fails: false,
        least: 0.0,
    },
    Rule { kind: Kind::Flicker, all: &[above(Metric::Flicker, 20.0)], fails: true, least: 0.0 },
    Rule {
        kind: Kind::Flicker,
        all: &[above(Metric::Flicker, 4.0), below(Metric::Flicker, 20.0)],
        fails: false,
        least: 0.0,
    },
    Rule {
        kind: Kind::BurntOut,
        all: &[
            above(Metric::ClippedGain, 0.2),
            below(Metric::ClippedJump, 0.15),
            above(Metric::ContrastGain, 0.6),
            above(Metric::SaturationGain, 1.15),
        ],
        fails: true,
        least: 0.0,
    },
    Rule {
        kind: Kind::SmallFile,
        all: &[below(Metric::BitsPerPixel, 0.03)],
        fails: false,
        least: 0.0,
    },
    Rule {
        kind: Kind::SaturationDrift,
        all: &[above(Metric::SaturationGain, 1.4), above(Metric::SaturationTrend, 0.9)],
        fails: false,
        least: 0.0,
    },
];

/// Frozen clips are failures only where motion was asked for.
pub(super) const FROZEN: [Condition; 2] =
    [below(Metric::LargestChange, 0.05), above(Metric::Frames, 4.0)];
