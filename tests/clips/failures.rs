//! What a broken run leaves: noise of every colour, nothing at all, and damaged pictures.

use super::canvas::{Canvas, Random, Rgb, grey, mix};
use super::scenes::{self, Scene};

type Size = (usize, usize);

/// New random numbers in every frame.
fn fresh(time: f32, seed: u64) -> Random {
    Random::new(seed * 100_000 + time as u64)
}

fn noise((width, height): Size, mut pixel: impl FnMut() -> Rgb) -> Canvas {
    Canvas { width, height, pixels: (0..width * height).map(|_| pixel()).collect() }
}

fn gaussian(size: Size, time: f32, seed: u64, deviation: f32) -> Canvas {
    let mut random = fresh(time, seed);
    noise(size, || std::array::from_fn(|_| 0.5 + deviation * random.normal()))
}

fn white(size: Size, time: f32, seed: u64) -> Canvas {
    gaussian(size, time, seed, 0.3)
}

fn faint(size: Size, time: f32, seed: u64) -> Canvas {
    gaussian(size, time, seed, 0.015)
}

fn dark(size: Size, time: f32, seed: u64) -> Canvas {
    gaussian(size, time, seed, 0.05).map(|p| p.map(|v| v - 0.42))
}

fn grey_noise(size: Size, time: f32, seed: u64) -> Canvas {
    let mut random = fresh(time, seed);
    noise(size, || grey(0.5 + 0.25 * random.normal()))
}

fn uniform(size: Size, time: f32, seed: u64) -> Canvas {
    let mut random = fresh(time, seed);
    noise(size, || std::array::from_fn(|_| random.uniform()))
}

fn frozen_noise(size: Size, _: f32, seed: u64) -> Canvas {
    white(size, 0.0, seed)
}

/// What is left of white noise when its smooth part is taken away.
fn blue(size: Size, time: f32, seed: u64) -> Canvas {
    let noise = gaussian(size, time, seed, 0.3);
    let smooth = blurred(&noise, 1);
    let high = noise.pixels.iter().zip(&smooth.pixels);
    let pixels = high.map(|(a, b)| std::array::from_fn(|c| 0.5 + 1.3 * (a[c] - b[c]))).collect();
    Canvas { pixels, ..noise }
}

/// The failure that this program was written after: blue noise, every channel at its end.
fn saturated_blue(size: Size, time: f32, seed: u64) -> Canvas {
    blue(size, time, seed).map(|p| p.map(|v| f32::from(v > 0.5)))
}

fn posterised(size: Size, time: f32, seed: u64) -> Canvas {
    white(size, time, seed).map(|p| p.map(|v| (v * 3.0).round() / 3.0))
}

/// Luma stays where it is.
fn chroma(size: Size, time: f32, seed: u64) -> Canvas {
    let mut random = fresh(time, seed);
    noise(size, || {
        let (cb, cr) = (0.2 * random.normal(), 0.2 * random.normal());
        [0.5 + 1.402 * cr, 0.5 - 0.344 * cb - 0.714 * cr, 0.5 + 1.772 * cb]
    })
}

fn one_channel(size: Size, time: f32, seed: u64) -> Canvas {
    let mut random = fresh(time, seed);
    noise(size, || [0.1, 0.15, 0.5 + 0.3 * random.normal()])
}

fn salt_and_pepper(size: Size, time: f32, seed: u64) -> Canvas {
    let mut random = fresh(time, seed);
    noise(size, || match random.uniform() {
        v if v < 0.1 => grey(0.0),
        v if v > 0.9 => grey(1.0),
        _ => grey(0.5),
    })
}

fn sparse_salt(size: Size, time: f32, seed: u64) -> Canvas {
    let mut random = fresh(time, seed);
    noise(size, || grey(f32::from(random.uniform() < 0.02)))
}

/// Rows and columns of independent brightness.
fn stripes(size: Size, time: f32, seed: u64) -> Canvas {
    let mut random = fresh(time, seed);
    let rows: Vec<f32> = (0..size.1).map(|_| 0.2 * random.normal()).collect();
    let columns: Vec<f32> = (0..size.0).map(|_| 0.2 * random.normal()).collect();
    let mut i = 0;
    noise(size, || {
        i += 1;
        grey(0.5 + rows[(i - 1) / size.0] + columns[(i - 1) % size.0])
    })
}

/// Means of squares of `2 · reach + 1` pixels, twice: nearly a Gaussian.
fn blurred(canvas: &Canvas, reach: usize) -> Canvas {
    let (w, h) = (canvas.width, canvas.height);
    let mut now = canvas.clone();
    for _ in 0..2 {
        for (step, lines, long) in [(1, h, w), (w, w, h)] {
            let old = now.pixels.clone();
            for line in 0..lines {
                let begin = if step == 1 { line * w } else { line };
                for i in 0..long {
                    let near = i.saturating_sub(reach)..(i + reach + 1).min(long);
                    let count = near.len() as f32;
                    let sum = near.fold([0.0; 3], |sum: Rgb, j| {
                        let p = old[begin + j * step];
                        std::array::from_fn(|c| sum[c] + p[c])
                    });
                    now.pixels[begin + i * step] = sum.map(|v| v / count);
                }
            }
        }
    }
    now
}

fn smooth(size: Size, time: f32, seed: u64, reach: usize) -> Canvas {
    let spread = 1.2 * (2 * reach + 1) as f32;
    blurred(&gaussian(size, time, seed, 0.25), reach).map(|p| p.map(|v| 0.5 + (v - 0.5) * spread))
}

fn blurred_1(size: Size, time: f32, seed: u64) -> Canvas {
    smooth(size, time, seed, 1)
}

fn blurred_2(size: Size, time: f32, seed: u64) -> Canvas {
    smooth(size, time, seed, 2)
}

/// Latents shown as they are: a colour for each 8×8 pixels.
fn raw_latents(size: Size, time: f32, seed: u64) -> Canvas {
    let mut random = fresh((time / 4.0).ceil(), seed);
    let (columns, rows) = (size.0.div_ceil(8), size.1.div_ceil(8));
    let cells: Vec<Rgb> = (0..columns * rows)
        .map(|_| std::array::from_fn(|_| 0.5 + 0.22 * random.normal()))
        .collect();
    let mut i = 0;
    noise(size, || {
        i += 1;
        let (x, y) = ((i - 1) % size.0, (i - 1) / size.0);
        cells[y / 8 * columns + x / 8]
    })
}

/// The picture is there for five frames of thirty-three and then drowns.
fn drowning(size: Size, time: f32, seed: u64) -> Canvas {
    if time < 5.0 { scenes::hills(size, time, seed) } else { white(size, time, seed) }
}

fn solid(size: Size, colour: Rgb) -> Canvas {
    Canvas::paint(size, |_, _| colour)
}

/// A solid colour, as a decoder rounds it.
fn dithered(size: Size, time: f32, seed: u64) -> Canvas {
    let mut random = fresh(time, seed);
    solid(size, [0.2, 0.4, 0.3]).map(|p| p.map(|v| v + random.between(-1.0, 1.0) / 255.0))
}

fn flash(size: Size, time: f32, seed: u64) -> Canvas {
    if time % 2.0 > 0.5 { solid(size, grey(0.0)) } else { scenes::hills(size, time, seed) }
}

fn strobe(size: Size, time: f32, seed: u64) -> Canvas {
    let light = if time % 2.0 > 0.5 { 0.55 } else { 1.15 };
    scenes::hills(size, time, seed).map(|p| p.map(|v| v * light))
}

/// The second half of the clip is missing.
fn half_black(size: Size, time: f32, seed: u64) -> Canvas {
    if time >= 2.0 { solid(size, grey(0.0)) } else { scenes::portrait(size, time, seed) }
}

/// Blocks of values that are no numbers, which conversion to bytes makes black.
fn blocks(scene: Scene, size: Size, time: f32, seed: u64, side: usize, share: f32) -> Canvas {
    let mut canvas = scene(size, time, seed);
    let mut random = Random::new(seed);
    let certain = if share > 0.0 { (size.1 / side / 2) * side } else { size.1 };
    for top in (0..size.1).step_by(side) {
        for left in (0..size.0).step_by(side) {
            if random.uniform() < share || (left, top) == (side, certain) {
                for y in top..(top + side).min(size.1) {
                    canvas.pixels[y * size.0 + left..y * size.0 + (left + side).min(size.0)]
                        .fill(grey(0.0));
                }
            }
        }
    }
    canvas
}

fn nan_blocks(size: Size, time: f32, seed: u64) -> Canvas {
    blocks(scenes::grain_4, size, time, seed, 16, 0.06)
}

fn nan_tiles(size: Size, time: f32, seed: u64) -> Canvas {
    blocks(scenes::hills, size, time, seed, 32, 0.15)
}

/// One frame of five.
fn nan_now_and_then(size: Size, time: f32, seed: u64) -> Canvas {
    let share = if time % 5.0 < 0.5 { 0.1 } else { 0.0 };
    blocks(scenes::foliage, size, time, seed, 16, share)
}

fn shuffled(scene: Scene, size: Size, time: f32, seed: u64, side: usize) -> Canvas {
    let canvas = scene(size, time, seed);
    let (columns, rows) = (size.0 / side, size.1 / side);
    let mut order: Vec<usize> = (0..columns * rows).collect();
    let mut random = Random::new(seed);
    for i in (1..order.len()).rev() {
        order.swap(i, (random.bits() % (i as u64 + 1)) as usize);
    }
    let mut out = canvas.clone();
    for (to, from) in order.into_iter().enumerate() {
        for y in 0..side {
            let place =
                |block: usize| (block / columns * side + y) * size.0 + block % columns * side;
            out.pixels[place(to)..][..side].copy_from_slice(&canvas.pixels[place(from)..][..side]);
        }
    }
    out
}

fn shuffled_8(size: Size, time: f32, seed: u64) -> Canvas {
    shuffled(scenes::hills, size, time, seed, 8)
}

fn shuffled_16(size: Size, time: f32, seed: u64) -> Canvas {
    shuffled(scenes::portrait, size, time, seed, 16)
}

/// Every second pixel too bright, as an upsampling layer leaves it when its weights are wrong.
fn lattice(size: Size, time: f32, seed: u64) -> Canvas {
    let mut canvas = scenes::portrait(size, time, seed);
    for (i, p) in canvas.pixels.iter_mut().enumerate() {
        let odd = (i % size.0 + i / size.0) % 2 == 1;
        *p = p.map(|v| v + if odd { 0.05 } else { -0.05 });
    }
    canvas
}

/// Colours that leave the gamut step by step.
fn burning(size: Size, time: f32, seed: u64) -> Canvas {
    let gain = 1.0 + time * 0.12;
    scenes::portrait(size, time, seed).map(|p| {
        let y = 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
        p.map(|v| 0.45 + (y - 0.45) * gain.sqrt() + (v - y) * gain)
    })
}

/// Damage that a person should look at, but may have wanted.
pub const DOUBTFUL: [(&str, Scene); 5] = [
    ("frozen", scenes::still),
    ("flickering", |size, time, seed| {
        let light = if time % 2.0 > 0.5 { 0.95 } else { 1.05 };
        scenes::hills(size, time, seed).map(|p| p.map(|v| v * light))
    }),
    ("gaining colour", |size, time, seed| {
        let gain = 0.6 + 0.02 * time;
        scenes::hills(size, time, seed).map(|p| {
            let y = 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
            p.map(|v| y + (v - y) * gain)
        })
    }),
    ("one noisy frame", |size, time, seed| {
        if time == 16.0 { white(size, time, seed) } else { scenes::hills(size, time, seed) }
    }),
    ("one black frame", |size, time, seed| {
        if time == 16.0 { solid(size, grey(0.0)) } else { scenes::hills(size, time, seed) }
    }),
];

/// By name, those that a single frame shows.
pub const FRAMES: [(&str, Scene); 31] = [
    ("white noise", white),
    ("faint noise", faint),
    ("dark noise", dark),
    ("grey noise", grey_noise),
    ("uniform noise", uniform),
    ("frozen noise", frozen_noise),
    ("blue noise", blue),
    ("saturated blue noise", saturated_blue),
    ("posterised noise", posterised),
    ("chroma noise", chroma),
    ("noise in one channel", one_channel),
    ("salt and pepper", salt_and_pepper),
    ("sparse salt", sparse_salt),
    ("stripes", stripes),
    ("blurred noise, 3 px", blurred_1),
    ("blurred noise, 5 px", blurred_2),
    ("raw latents", raw_latents),
    ("black", |size, _, _| solid(size, grey(0.0))),
    ("white", |size, _, _| solid(size, grey(1.0))),
    ("grey", |size, _, _| solid(size, grey(0.5))),
    ("green", |size, _, _| solid(size, [0.0, 0.53, 0.0])),
    ("dithered", dithered),
    ("vignetted noise", |size, time, seed| {
        let shade = Canvas::paint(size, |x, y| grey(0.12 * (1.0 - (x - 0.8).hypot(y - 0.5))));
        let noise = white(size, time, seed);
        let both = noise.pixels.iter().zip(&shade.pixels);
        Canvas { pixels: both.map(|(n, s)| mix(*n, grey(1.0), s[0])).collect(), ..noise }
    }),
    ("NaN blocks", nan_blocks),
    ("NaN tiles", nan_tiles),
    ("NaN now and then", nan_now_and_then),
    ("shuffled blocks, 8 px", shuffled_8),
    ("shuffled blocks, 16 px", shuffled_16),
    ("lattice", lattice),
    ("NaN blocks in foliage", |size, time, seed| {
        blocks(scenes::foliage, size, time, seed, 16, 0.3)
    }),
    ("noise over a picture", |size, time, seed| {
        let noise = gaussian(size, time, seed, 0.4);
        let both = noise.pixels.iter().zip(scenes::portrait(size, time, seed).pixels);
        Canvas { pixels: both.map(|(n, s)| mix(*n, s, 0.08)).collect(), ..noise }
    }),
];

/// Those that take a clip to see.
pub const CLIPS: [(&str, Scene); 5] = [
    ("drowning in noise", drowning),
    ("black every second frame", flash),
    ("strobe", strobe),
    ("black from frame 2", half_black),
    ("burning out", burning),
];
