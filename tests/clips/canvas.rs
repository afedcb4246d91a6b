//! Pictures by formula: a canvas of numbers, random numbers by seed, and fields of noise.

use gguf_video::output::Frame;

/// Red, green and blue from 0 to 1.
pub type Rgb = [f32; 3];

/// A picture in the making.
#[derive(Clone)]
pub struct Canvas {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<Rgb>,
}

impl Canvas {
    /// Every pixel by its place, in units of the height: `(0, 0)` is the upper left corner.
    pub fn paint((width, height): (usize, usize), of: impl Fn(f32, f32) -> Rgb) -> Self {
        let unit = 1.0 / height as f32;
        let at =
            |i: usize| of(((i % width) as f32 + 0.5) * unit, ((i / width) as f32 + 0.5) * unit);
        Self { width, height, pixels: (0..width * height).map(at).collect() }
    }

    /// Width over height.
    pub fn aspect(&self) -> f32 {
        self.width as f32 / self.height as f32
    }

    pub fn map(mut self, mut of: impl FnMut(Rgb) -> Rgb) -> Self {
        self.pixels.iter_mut().for_each(|p| *p = of(*p));
        self
    }

    /// Blends `colour` into the pixels near `(x, y)` by `cover` (0 to 1) of their distance to it.
    pub fn stamp(
        &mut self,
        (x, y): (f32, f32),
        reach: f32,
        colour: Rgb,
        cover: impl Fn(f32, f32) -> f32,
    ) {
        let side = self.height as f32;
        let range = |middle: f32, end: usize| {
            let low = ((middle - reach) * side).floor().max(0.0) as usize;
            low..(((middle + reach) * side).ceil().max(0.0) as usize).min(end)
        };
        for row in range(y, self.height) {
            for column in range(x, self.width) {
                let share = cover((column as f32 + 0.5) / side - x, (row as f32 + 0.5) / side - y);
                let pixel = &mut self.pixels[row * self.width + column];
                *pixel = mix(*pixel, colour, share.clamp(0.0, 1.0));
            }
        }
    }

    pub fn disc(&mut self, place: (f32, f32), radius: f32, colour: Rgb) {
        let sharp = self.height as f32;
        self.stamp(place, radius + 1.0 / sharp, colour, |x, y| (radius - x.hypot(y)) * sharp + 0.5);
    }

    /// Gaussian grain of so many levels of 255, new in each frame.
    pub fn grain(self, levels: f32, seed: u64) -> Self {
        let mut random = Random::new(seed);
        self.map(|p| {
            let by = random.normal() * levels / 255.0;
            p.map(|v| v + by)
        })
    }

    pub fn frame(&self) -> Frame {
        let byte = |v: &f32| (v.clamp(0.0, 1.0) * 255.0).round() as u8;
        Frame::new(self.width, self.height, self.pixels.iter().flatten().map(byte).collect())
    }
}

pub fn mix(a: Rgb, b: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|c| a[c] + (b[c] - a[c]) * share)
}

pub fn grey(v: f32) -> Rgb {
    [v; 3]
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 24) as f32
    }

    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f32::consts::TAU * self.uniform()).cos()
    }
}

/// A smooth field from 0 to 1 with bumps of about one unit: values on a lattice, blended.
pub fn bumps(x: f32, y: f32, seed: u32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let corner = |dx: i32, dy: i32| -> f32 {
        let mut h = (left as i32 + dx) as u32;
        h = h.wrapping_mul(0x85eb_ca6b) ^ ((top as i32 + dy) as u32).wrapping_mul(0xc2b2_ae35);
        h = (h ^ seed.wrapping_mul(0x27d4_eb2f)).wrapping_mul(0x9e37_79b1);
        h = (h ^ (h >> 15)).wrapping_mul(0x85eb_ca77);
        h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae3d);
        (h ^ (h >> 16)) as f32 / u32::MAX as f32
    };
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (tx, ty) = (ease(x - left), ease(y - top));
    let row = |dy: i32| corner(0, dy) + (corner(1, dy) - corner(0, dy)) * tx;
    row(0) + (row(1) - row(0)) * ty
}

/// Fractal Brownian motion: octaves of [`bumps`], each `fall` as strong as the one before. 0.5 has
/// the 1/f amplitude of natural scenes.
pub fn fractal(x: f32, y: f32, octaves: u32, fall: f32, seed: u32) -> f32 {
    let (mut sum, mut weight, mut total) = (0.0, 1.0, 0.0);
    for octave in 0..octaves {
        let scale = (1_u32 << octave) as f32;
        sum += weight * bumps(x * scale, y * scale, seed + octave);
        (total, weight) = (total + weight, weight * fall);
    }
    sum / total
}
