//! What computing costs, and what a device does in a second: the cost model by which long
//! operations are cut, and by which a run's time is guessed before anything has been measured.

use super::graph::Node;
use super::{Device, Family};
use ggml_sys as sys;
use std::ops::{Add, AddAssign, Mul};

/// Arithmetic and memory traffic, by the three rates that devices have for them.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Work {
    /// Floating-point operations in matrix products.
    pub matmul: f64,
    /// Floating-point operations in fused attention.
    pub attention: f64,
    /// Bytes that all other operations read and write.
    pub bytes: f64,
}

impl Work {
    /// `torch.nn.functional.linear` of `rows` rows.
    pub fn linear(rows: i64, inputs: i64, outputs: i64) -> Self {
        Self { matmul: 2.0 * rows as f64 * inputs as f64 * outputs as f64, ..Self::default() }
    }

    /// Attention of `rows` queries to `keys` keys, all heads together `channels` wide.
    pub fn attention(rows: i64, keys: i64, channels: i64) -> Self {
        Self { attention: 4.0 * rows as f64 * keys as f64 * channels as f64, ..Self::default() }
    }

    /// # Safety
    /// `node` and its sources are alive.
    pub(super) unsafe fn of(node: Node) -> Self {
        // SAFETY: by contract.
        let (t, a, b) = unsafe {
            let t = node.as_ref();
            (t, t.src[0].as_ref(), t.src[1].as_ref())
        };
        let elements = |t: &sys::ggml_tensor| t.ne.iter().map(|&n| n as f64).product::<f64>();
        // SAFETY: types of live tensors are ggml's own.
        let bytes = |t: &sys::ggml_tensor| unsafe {
            elements(t) * sys::ggml_type_size(t.type_) as f64 / sys::ggml_blck_size(t.type_) as f64
        };
        match (t.op, a, b) {
            (
                sys::GGML_OP_NONE
                | sys::GGML_OP_VIEW
                | sys::GGML_OP_RESHAPE
                | sys::GGML_OP_PERMUTE
                | sys::GGML_OP_TRANSPOSE,
                ..,
            ) => Self::default(),
            (sys::GGML_OP_MUL_MAT, Some(a), _) => {
                Self { matmul: 2.0 * elements(t) * a.ne[0] as f64, ..Self::default() }
            }
            (sys::GGML_OP_FLASH_ATTN_EXT, Some(q), Some(k)) => {
                Self { attention: 4.0 * elements(q) * k.ne[1] as f64, ..Self::default() }
            }
            // A copy's second source is its result.
            (sys::GGML_OP_CPY, Some(a), _) => {
                Self { bytes: bytes(a) + bytes(t), ..Self::default() }
            }
            (sys::GGML_OP_GET_ROWS, ..) => Self { bytes: 2.0 * bytes(t), ..Self::default() },
            (_, a, b) => Self {
                bytes: bytes(t) + a.map_or(0.0, bytes) + b.map_or(0.0, bytes),
                ..Self::default()
            },
        }
    }
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            matmul: self.matmul + other.matmul,
            attention: self.attention + other.attention,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Mul<f64> for Work {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self {
            matmul: self.matmul * times,
            attention: self.attention * times,
            bytes: self.bytes * times,
        }
    }
}

/// What a device does in a second.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Rates {
    /// Operations in matrix products.
    pub matmul: f64,
    /// Operations in fused attention.
    pub attention: f64,
    /// Bytes.
    pub bandwidth: f64,
}

/// GPUs of Apple's chips: generation, tier, peak TFLOP/s, GB/s. Peaks are the F32
/// multiply-add rates that are commonly quoted; from the M5 on those of its matrix units.
const APPLE: [(u32, &str, f64, f64); 17] = [
    (1, "", 2.6, 68.0),
    (1, "Pro", 5.2, 200.0),
    (1, "Max", 10.4, 400.0),
    (1, "Ultra", 21.2, 800.0),
    (2, "", 3.6, 100.0),
    (2, "Pro", 6.8, 200.0),
    (2, "Max", 13.6, 400.0),
    (2, "Ultra", 27.2, 800.0),
    (3, "", 3.5, 100.0),
    (3, "Pro", 6.4, 150.0),
    (3, "Max", 14.1, 400.0),
    (3, "Ultra", 28.2, 819.0),
    (4, "", 4.3, 120.0),
    (4, "Pro", 9.2, 273.0),
    (4, "Max", 18.4, 546.0),
    (5, "", 15.0, 153.0),
    (5, "Max", 60.0, 614.0),
];

/// Shares of the peaks that ggml's Metal kernels reach: its matrix product is good, its fused
/// attention works on eight query rows at a time and waits for keys and values.
const METAL_SHARES: [f64; 3] = [0.72, 0.45, 0.7];

impl Rates {
    /// A guess from what the device calls itself. Finished runs know better.
    pub fn guess(device: Device, threads: usize) -> Self {
        match device.family() {
            Family::Cpu => {
                let threads = threads as f64;
                Self { matmul: 50e9 * threads, attention: 48e9 * threads, bandwidth: 20e9 }
            }
            Family::Metal => Self::apple(&device.description()),
            Family::Cuda => Self { matmul: 190e12, attention: 68e12, bandwidth: 2e12 },
            Family::Vulkan | Family::Other => {
                Self { matmul: 5e12, attention: 2e12, bandwidth: 200e9 }
            }
        }
    }

    /// Of a chip named like `Apple M2 Max`; of the smallest one, if it can't be told.
    fn apple(description: &str) -> Self {
        let mut words = description.split(' ').filter(|word| *word != "Apple");
        let generation = words.next().and_then(|w| w.strip_prefix('M')?.parse::<u32>().ok());
        let tier = words.next().unwrap_or("");
        // A chip newer than this table is at least as fast as the newest in it.
        let known = generation.map(|g| g.min(APPLE[APPLE.len() - 1].0));
        let (.., tflops, gb) = APPLE
            .iter()
            .rev()
            .filter(|(g, ..)| known.is_some_and(|known| *g <= known))
            .find(|(_, t, ..)| *t == tier)
            .copied()
            .unwrap_or(APPLE[0]);
        let [matmul, attention, bandwidth] = METAL_SHARES;
        let (flops, bytes) = (tflops * 1e12, gb * 1e9);
        Self { matmul: matmul * flops, attention: attention * flops, bandwidth: bandwidth * bytes }
    }

    /// How long `work` takes if one kind of it is done after the other.
    pub fn seconds(&self, work: Work) -> f64 {
        work.matmul / self.matmul + work.attention / self.attention + work.bytes / self.bandwidth
    }
}

/// Where the graphs cut long operations.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limits {
    /// By which times are reckoned: [`Rates::guess`], so that a run is cut the same way each time.
    pub rates: Rates,
    /// Seconds that one operation may take: a display's watchdog ends what blocks it for long.
    pub dispatch: f64,
    /// Seconds that one graph may take: it is also how long Ctrl-C may have to wait.
    pub submission: f64,
    /// Bytes of the largest intermediate in a block of a transformer.
    pub intermediate: i64,
    /// Bytes of a convolution's gathered patches, and of the scores of attention that stores them.
    pub scratch: i64,
}

impl Limits {
    /// For `device`, by what it calls itself; `threads` are the CPU's, others don't look at them.
    pub fn of(device: Device, threads: usize) -> Self {
        let rates = Rates::guess(device, threads);
        match device.family() {
            // Nothing watches a CPU. Patches that stay in its cache are multiplied faster.
            Family::Cpu => Self {
                rates,
                dispatch: 10.0,
                submission: 10.0,
                intermediate: 256 << 20,
                scratch: 8 << 20,
            },
            // Large pieces: each unpacks the weights once more. Half of this would save an H200 0.3 GB of
            // 19 at 832x480x81 and 0.8 of 21 at 1280x720x81, which then takes 2.9 % longer.
            Family::Cuda => Self { intermediate: 512 << 20, ..Self::gpu(rates) },
            _ => Self::gpu(rates),
        }
    }

    fn gpu(rates: Rates) -> Self {
        let (dispatch, submission) = (0.5, 2.0);
        Self { rates, dispatch, submission, intermediate: 256 << 20, scratch: 128 << 20 }
    }

    /// Query rows of one attention node: never as many as Metal's kernel would abort at.
    pub fn attention_rows(&self, keys: i64, channels: i64) -> i64 {
        let row = self.rates.seconds(Work::attention(1, keys, channels));
        rows(self.dispatch / row).min(32_768)
    }

    /// Rows of one graph that does `row` for each, with `bytes` of its largest intermediate.
    pub fn graph_rows(&self, row: Work, bytes: i64) -> i64 {
        rows(self.submission / self.rates.seconds(row)).min(self.intermediate / bytes).max(1)
    }
}

/// A number of rows that suits matrix tiles, where there are enough.
fn rows(most: f64) -> i64 {
    let most = most.clamp(1.0, 1e9) as i64;
    if most > 64 { most / 64 * 64 } else { most }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chips_are_told_by_their_names() {
        let of = |name| Rates::apple(name).matmul / METAL_SHARES[0] / 1e12;
        for (name, tflops) in [
            ("Apple M1 Max", 10.4),
            ("Apple M3 Ultra", 28.2),
            ("Apple M4", 4.3),
            // No M4 Ultra is known, but it is no slower than the last Ultra that is.
            ("Apple M4 Ultra", 28.2),
            ("Apple M9 Max", 60.0),
            ("Apple Paravirtual device", 2.6),
        ] {
            assert!((of(name) - tflops).abs() < 1e-9, "{name}: {}", of(name));
        }
    }

    /// The M1 Max at 1280x720 and 81 frames: 75,600 tokens of 5120 channels.
    #[test]
    fn attention_is_cut_to_half_a_second() {
        let limits = Limits {
            rates: Rates::apple("Apple M1 Max"),
            dispatch: 0.5,
            submission: 2.0,
            intermediate: 256 << 20,
            scratch: 128 << 20,
        };
        let rows = limits.attention_rows(75_600, 5120);
        let seconds = |rows| limits.rates.seconds(Work::attention(rows, 75_600, 5120));
        assert!(seconds(rows) <= 0.5 && seconds(rows + 128) > 0.5, "{rows} rows");
    }
}
