//! What fits which Mac, for whoever has no files yet to ask `gguf-video plan` about. The bytes are those that
//! the Metal gate counts; `tests/macs.rs` counts them again.

use catalog::Variant;
use std::fmt;

/// A Mac, and what to convert for it.
#[derive(Clone, Copy, Debug)]
pub struct Mac {
    /// Its memory in GB, as Apple counts: of 2^30 bytes.
    pub memory: u64,
    /// Whether it goes for all that have more, too.
    pub and_up: bool,
    /// `wan.variant` of the model.
    pub variant: &'static str,
    /// What `to-gguf --quant` is given.
    pub quant: &'static str,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Frames, 4n + 1.
    pub frames: u32,
    /// The most bytes that a run holds, text encoder and VAE included, each in its turn.
    pub most: u64,
    /// Whether that is with both experts, so that none is loaded again.
    pub both: bool,
}

impl Mac {
    /// Bytes that macOS lets a GPU have (`recommendedMaxWorkingSetSize`): two thirds of the memory, or
    /// three quarters from 36 GB on.
    pub fn gpu_bytes(&self) -> u64 {
        let bytes = self.memory << 30;
        if self.memory < 36 { bytes / 3 * 2 } else { bytes / 4 * 3 }
    }
}

const A14B: Mac = Mac {
    memory: 24,
    and_up: false,
    variant: "wan2.2-t2v-a14b",
    quant: "Q4_K_M",
    width: 832,
    height: 480,
    frames: 81,
    most: 12_900_000_000,
    both: false,
};

/// From the smallest on.
pub const MACS: [Mac; 7] = [
    Mac {
        memory: 16,
        variant: "wan2.2-ti2v-5b",
        quant: "Q8_0",
        width: 1280,
        height: 704,
        frames: 121,
        most: 7_700_000_000,
        ..A14B
    },
    Mac { memory: 16, quant: "Q3_K_S", frames: 49, most: 8_900_000_000, ..A14B },
    A14B,
    Mac { memory: 32, quant: "Q6_K", width: 1280, height: 720, most: 17_800_000_000, ..A14B },
    Mac { memory: 48, quant: "Q8_0", width: 1280, height: 720, most: 21_200_000_000, ..A14B },
    Mac {
        memory: 64,
        quant: "Q8_0",
        width: 1280,
        height: 720,
        most: 42_500_000_000,
        both: true,
        ..A14B
    },
    Mac {
        memory: 96,
        and_up: true,
        quant: "F16",
        width: 1280,
        height: 720,
        most: 68_800_000_000,
        both: true,
        ..A14B
    },
];

/// A row of a Markdown table.
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, variant, quant, width, height, frames, most, .. } = *self;
        let title = Variant::named(variant).expect("a model of the registry").title;
        let (up, both) = (
            if self.and_up { " and up" } else { "" },
            if self.both { ", both experts at once" } else { "" },
        );
        let gb = |bytes: u64| bytes as f64 / 1e9;
        write!(
            f,
            "| {memory} GB{up} | {title} | {quant} | {width}x{height}, {frames} | {:.1} of {:.1} GB{both} |",
            gb(most),
            gb(self.gpu_bytes())
        )
    }
}
