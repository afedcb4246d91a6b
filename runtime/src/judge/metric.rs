//! What is measured, by name; `docs/judge.md` has the formulas and where they come from.

use std::fmt;

macro_rules! metrics {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A number that a frame or a clip has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Metric { $($(#[$doc])* $name,)* }

        impl Metric {
            /// Every metric, frames' first.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As it is written in reports: `correlation_8`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

metrics! {
    /// Mean luma, in levels from 0 to 255.
    Luma = "luma",
    /// Standard deviation of luma, in levels.
    Contrast = "contrast",
    /// Share of pixels with a channel more than four levels off the channel's median.
    Deviating = "deviating",
    /// Distinct colours with six bits a channel.
    Colours = "colours",
    /// Ninth decile of a pixel's largest channel less its smallest, of the largest; not of the dark.
    Saturation = "saturation",
    /// Share of values within two levels of 0 or 255.
    Clipped = "clipped",
    /// Moran's I of pixels.
    Correlation1 = "correlation_1",
    /// Moran's I of the means of 2×2 pixels.
    Correlation2 = "correlation_2",
    /// Moran's I of the means of 8×8 pixels.
    Correlation8 = "correlation_8",
    /// Moran's I of the means of 16×16 pixels.
    Correlation16 = "correlation_16",
    /// Variance of the means of 8×8 pixels, of the pixels' variance.
    Share8 = "share_8",
    /// Variance of the means of 16×16 pixels, of the pixels' variance.
    Share16 = "share_16",
    /// Kurtosis of the differences between neighbouring pixels: 3 where they are Gaussian.
    Kurtosis = "kurtosis",
    /// Standard deviation, between blocks, of the logarithm of the gradient's energy.
    Heterogeneity = "heterogeneity",
    /// Share of the variance in blocks that the frame four before explains once it has moved.
    Coherence = "coherence",
    /// Mean absolute difference in luma from the frame before, in levels.
    Change = "change",
    /// Share of the frame in black, white or mid-grey rectangles with hard edges on a grid of 8.
    Holes = "holes",
    /// Amplitude of a pattern of every second pixel, row or column, in levels.
    Lattice = "lattice",
    /// Frames of the clip.
    Frames = "frames",
    /// Share of frames that are one solid colour.
    FlatShare = "flat_share",
    /// Solid frames between two pictures, without a fade.
    Dropouts = "dropouts",
    /// Amplitude of a brightness that goes up and down from frame to frame, in levels.
    Flicker = "flicker",
    /// Largest `change` of any frame, in levels.
    LargestChange = "largest_change",
    /// Gain in clipped values from the clip's first quarter to its last.
    ClippedGain = "clipped_gain",
    /// Largest gain in clipped values from a frame to the next.
    ClippedJump = "clipped_jump",
    /// Contrast of the clip's last quarter, of that of its first.
    ContrastGain = "contrast_gain",
    /// Saturation of the clip's last quarter, of that of its first.
    SaturationGain = "saturation_gain",
    /// Correlation of saturation with time.
    SaturationTrend = "saturation_trend",
    /// Largest coded frame, in bits a pixel, of a compressed file.
    BitsPerPixel = "bits_per_pixel",
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Values by metric; one that couldn't be measured isn't there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured([Option<f64>; Metric::ALL.len()]);

impl Measured {
    /// The value, if the frame or clip has it: a clip of one frame has no motion.
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.0[metric as usize]
    }

    pub(super) fn set(&mut self, metric: Metric, value: f64) {
        self.0[metric as usize] = Some(value);
    }

    /// The metrics that are there.
    pub fn iter(&self) -> impl Iterator<Item = (Metric, f64)> + '_ {
        Metric::ALL.iter().filter_map(|&metric| Some((metric, self.get(metric)?)))
    }
}
