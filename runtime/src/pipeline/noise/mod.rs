//! The Gaussian noise a seed stands for: that of PyTorch's CPU generator, so that a seed means the
//! same start here and in the reference pipelines.
//!
//! Reference: PyTorch 2, `aten/src/ATen/core/MT19937RNGEngine.h` (Matsumoto and Nishimura's
//! MT19937), `aten/src/ATen/core/DistributionsHelper.h` and
//! `aten/src/ATen/native/cpu/DistributionTemplates.h`: `normal_fill_AVX2`, and the scalar path for
//! fewer than 16 values. PyTorch without AVX2 takes other approximations of the logarithm, sine and
//! cosine; exact ones were seen to be 5e-7 off.

mod cephes;

use std::f64::consts::TAU;

const STATE: usize = 624;
const PERIOD: usize = 397;
/// Values that the vector path draws, and transforms, together.
const GROUP: usize = 16;

/// A source of standard normal values, equal to `torch.Generator().manual_seed(seed)`.
pub struct Generator {
    state: [u32; STATE],
    next: usize,
    /// The second value of the last pair of the scalar path, not handed out yet.
    pending: Option<f64>,
}

impl Generator {
    /// The generator at its start. As in the reference only the low 32 bits of `seed` count.
    pub fn new(seed: u64) -> Self {
        let mut state = [0; STATE];
        state[0] = seed as u32;
        for i in 1..STATE {
            let last: u32 = state[i - 1];
            state[i] = 1_812_433_253_u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: STATE, pending: None }
    }

    /// The next `n` values, as `torch.randn(n, generator=…)` draws them in `float32`. Values depend
    /// on `n`: ten values aren't the start of twenty.
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        if n < GROUP {
            return (0..n).map(|_| self.scalar_normal() as f32).collect();
        }
        let mut values: Vec<f32> = (0..n).map(|_| self.uniform_f32()).collect();
        for group in values.chunks_exact_mut(GROUP) {
            box_muller(group);
        }
        if !n.is_multiple_of(GROUP) {
            // The last group overlaps the one before it, and is drawn afresh.
            let group = &mut values[n - GROUP..];
            group.fill_with(|| self.uniform_f32());
            box_muller(group);
        }
        values
    }

    fn scalar_normal(&mut self) -> f64 {
        if let Some(value) = self.pending.take() {
            return value;
        }
        let (angle, radius) = (TAU * self.uniform_f64(), self.uniform_f64());
        let radius = (-2.0 * (-radius).ln_1p()).sqrt();
        self.pending = Some(radius * angle.sin());
        radius * angle.cos()
    }

    /// Uniform on [0, 1) with 24 random bits.
    fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() & 0xff_ffff) as f32 / (1 << 24) as f32
    }

    /// Uniform on [0, 1) with 53 random bits.
    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.next_u32());
        let bits = high << 32 | u64::from(self.next_u32());
        (bits & ((1 << 53) - 1)) as f64 / (1_u64 << 53) as f64
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == STATE {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..STATE {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % STATE] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + PERIOD) % STATE] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }
}

/// Turns 16 uniform values into 16 normal ones: value j is paired with value j + 8.
fn box_muller(group: &mut [f32]) {
    let (cosines, sines) = group.split_at_mut(GROUP / 2);
    for (a, b) in cosines.iter_mut().zip(sines) {
        let radius = (-2.0 * cephes::ln(1.0 - *a)).sqrt();
        let (sine, cosine) = cephes::sin_cos(TAU as f32 * *b);
        *a = radius * cosine;
        *b = radius * sine;
    }
}
