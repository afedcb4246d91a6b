//! Scenes that are legitimate videos and look like trouble to a careless judge. Long, because a list
//! of forty of them is one thing.

use super::canvas::{Canvas, Random, Rgb, bumps, fractal, grey, mix};

/// A picture of a scene: its size, the time in frames, a seed.
pub type Scene = fn((usize, usize), f32, u64) -> Canvas;

/// Octaves down to about two pixels.
fn octaves((_, height): (usize, usize)) -> u32 {
    (height as f32 / 4.0).log2().round().clamp(3.0, 7.0) as u32
}

fn landscape(size: (usize, usize), shift: f32, time: f32, seed: u64) -> Canvas {
    let (s, n) = (seed as u32 * 97, octaves(size));
    Canvas::paint(size, |x, y| {
        let (far, near) = (x + shift * 0.4, x + shift);
        let ridge = 0.35 + 0.25 * fractal(far * 2.0, 0.0, 4, 0.5, s);
        let meadow = 0.62 + 0.2 * fractal(near * 1.5, 3.0, 4, 0.5, s + 20);
        if y > meadow {
            let blades = fractal(near * 6.0, y * 6.0, n, 0.7, s + 40);
            mix([0.10, 0.22, 0.05], [0.45, 0.62, 0.20], (blades - 0.25) * 2.0)
        } else if y > ridge {
            let rock = fractal(far * 4.0, y * 4.0, n, 0.55, s + 60);
            mix([0.22, 0.25, 0.34], [0.52, 0.52, 0.56], rock)
        } else {
            let cloud = fractal((x + 0.02 * time) * 2.0, y * 4.0, 5, 0.5, s + 80);
            let sky = mix([0.30, 0.52, 0.86], [0.78, 0.86, 0.95], y * 2.0);
            mix(sky, grey(0.97), ((cloud - 0.55) * 4.0).clamp(0.0, 0.9))
        }
    })
}

/// Hills under clouds, the camera moving slowly.
pub fn hills(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    landscape(size, 0.02 * time, time, seed)
}

/// The camera moves a fifth of the height in a frame.
pub fn fast_pan(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    landscape(size, 0.2 * time, 0.0, seed)
}

/// Nothing moves at all.
pub fn still(size: (usize, usize), _: f32, seed: u64) -> Canvas {
    landscape(size, 0.0, 0.0, seed)
}

/// Grain on a landscape, from fine film to a phone at night.
pub fn grain_4(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    hills(size, time, seed).grain(4.0, seed * 1000 + time as u64)
}

pub fn grain_12(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    hills(size, time, seed).grain(12.0, seed * 1000 + time as u64)
}

pub fn grain_30(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    hills(size, time, seed).grain(30.0, seed * 1000 + time as u64)
}

/// Grain of every channel for itself.
pub fn colour_grain(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let mut random = Random::new(seed * 1000 + time as u64);
    portrait(size, time, seed).map(|p| p.map(|v| v + random.normal() * 14.0 / 255.0))
}

/// Fog that drifts, a few trees hardly seen, a little grain.
pub fn fog(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let s = seed as u32 * 31;
    let canvas = Canvas::paint(size, |x, y| {
        let haze = fractal(x * 1.3 + 0.01 * time, y * 1.3, 5, 0.45, s);
        let trunk = ((x * 5.0 + 0.4 * bumps(y * 3.0, 1.0, s)).fract() - 0.5).abs();
        let tree = (0.12 - trunk).max(0.0) * 0.6 * bumps(x * 5.0, 0.0, s + 9);
        grey(0.62 + 0.10 * haze + 0.05 * y - tree)
    });
    canvas.grain(2.0, seed * 1000 + time as u64)
}

/// Fog and nothing else.
pub fn thick_fog(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let s = seed as u32 * 31;
    let canvas = Canvas::paint(size, |x, y| {
        grey(0.66 + 0.06 * fractal(x * 1.1 + 0.01 * time, y * 1.1, 4, 0.45, s))
    });
    canvas.grain(1.5, seed * 1000 + time as u64)
}

/// A street at night: lit windows, a lamp, a noisy sensor.
pub fn night(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let mut random = Random::new(seed);
    let mut canvas = Canvas::paint(size, |x, y| {
        let roof = 0.35 + 0.2 * bumps((x * 4.0).floor(), 0.0, seed as u32);
        if y > roof { [0.015, 0.015, 0.02] } else { [0.03, 0.03, 0.055] }
    });
    for _ in 0..24 {
        let place = (random.between(0.0, canvas.aspect()), random.between(0.5, 0.95));
        let warm = [random.between(0.5, 0.9), 0.55, 0.25];
        canvas.stamp(
            place,
            0.03,
            warm,
            |x, y| {
                if x.abs() < 0.012 && y.abs() < 0.018 { 0.8 } else { 0.0 }
            },
        );
    }
    let lamp = (0.2 + 0.015 * time, 0.4);
    canvas.stamp(lamp, 0.25, [1.0, 0.85, 0.6], |x, y| 0.02 / (x * x + y * y + 0.02) * 0.9 - 0.2);
    canvas.grain(2.5, seed * 1000 + time as u64)
}

/// Stars that turn slowly; most of the picture is black.
pub fn stars(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let mut random = Random::new(seed);
    let mut canvas = Canvas::paint(size, |_, y| [0.004, 0.004, 0.012 + 0.01 * y]);
    let unit = 1.0 / size.1 as f32;
    for _ in 0..160 {
        let (x, y) = (random.between(-0.2, canvas.aspect()), random.between(0.0, 1.0));
        let bright = random.uniform().powi(3);
        canvas.disc((x + 0.004 * time, y), unit * (0.5 + bright), grey(0.25 + 0.75 * bright));
    }
    canvas
}

fn paper(size: (usize, usize), time: f32, seed: u64, pieces: usize, side: f32) -> Canvas {
    let mut random = Random::new(seed);
    let mut canvas =
        Canvas::paint(size, |x, y| mix([0.16, 0.10, 0.28], [0.45, 0.22, 0.30], y + 0.2 * x));
    for _ in 0..pieces {
        let (x, y) = (random.between(0.0, canvas.aspect()), random.between(-0.2, 1.2));
        let (speed, sway) = (random.between(0.008, 0.02), random.between(0.0, 6.3));
        let (turn, spin) = (random.between(0.0, 6.3), random.between(-0.25, 0.25));
        let colour = [random.uniform(), random.uniform(), random.uniform()];
        let size = side * random.between(0.6, 1.4);
        let y = (y + 0.2 + speed * time).rem_euclid(1.4) - 0.2;
        let x = x + 0.02 * (sway + 0.2 * time).sin();
        let (sin, cos) = (turn + spin * time).sin_cos();
        let flat = 0.3 + 0.7 * (sway + 0.3 * time).cos().abs();
        canvas.stamp((x, y), size * 1.2, colour, |dx, dy| {
            let (u, v) = (dx * cos + dy * sin, dy * cos - dx * sin);
            f32::from(u.abs() < size * 0.8 && v.abs() < size * 0.5 * flat)
        });
    }
    canvas
}

/// Paper that falls and turns.
pub fn confetti(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    paper(size, time, seed, 220, 0.025)
}

/// So much of it that little else is seen.
pub fn dense_confetti(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    paper(size, time, seed, 900, 0.03)
}

/// Waves towards the horizon, and the light on them.
pub fn water(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let mut random = Random::new(seed);
    let waves: Vec<[f32; 4]> = (0..14)
        .map(|i| {
            let k = 5.0 * 1.3_f32.powi(i);
            let angle = random.between(-0.9, 0.9);
            [k * angle.sin(), k * angle.cos(), random.between(0.0, 6.3), 1.0 / k]
        })
        .collect();
    Canvas::paint(size, |x, y| {
        let depth = 0.35 / (y + 0.12);
        let (u, v) = ((x - 0.7) * depth * 3.0, depth * 6.0);
        let (mut slope, mut height) = (0.0, 0.0);
        for [kx, ky, phase, strong] in &waves {
            let a = kx * u + ky * v + phase + time * 0.12 * (kx.hypot(*ky)).sqrt();
            height += strong * a.sin();
            slope += strong * ky * a.cos();
        }
        let shine = (slope * 0.12).clamp(-1.0, 1.0);
        let base = mix([0.05, 0.22, 0.30], [0.35, 0.60, 0.68], 0.5 + 0.5 * shine + 0.2 * height);
        mix(base, grey(1.0), ((shine - 0.45) * 2.0).clamp(0.0, 0.8))
    })
}

/// A texture with the spectrum of natural scenes, passing by.
pub fn pink_texture(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let (s, n) = (seed as u32 * 53, octaves(size) + 1);
    Canvas::paint(size, |x, y| {
        let v = fractal(x * 2.0 + 0.02 * time, y * 2.0, n, 0.5, s);
        let tint = fractal(x * 2.0 + 0.02 * time, y * 2.0, n, 0.5, s + 100);
        [v, 0.5 * v + 0.5 * tint, tint].map(|v| 0.5 + (v - 0.5) * 1.6)
    })
}

/// Rougher than nature: leaves of a hedge, close.
pub fn foliage(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let (s, n) = (seed as u32 * 57, octaves(size) + 1);
    Canvas::paint(size, |x, y| {
        let sway = 0.01 * (0.4 * time + 4.0 * y).sin();
        let v = fractal((x + sway) * 3.0, y * 3.0, n, 0.72, s);
        mix([0.02, 0.08, 0.02], [0.55, 0.75, 0.25], (v - 0.3) * 2.4)
    })
}

/// Overlapping stones of many sizes: the dead leaves model.
pub fn pebbles(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let mut random = Random::new(seed);
    let mut canvas = Canvas::paint(size, |_, _| grey(0.2));
    for _ in 0..900 {
        let (x, y) = (random.between(-0.1, canvas.aspect() + 0.4), random.between(-0.1, 1.1));
        let radius = 0.014 / random.between(0.09, 1.0).sqrt();
        let shade = random.between(0.25, 0.85);
        let warm = random.between(0.85, 1.0);
        canvas.disc((x - 0.01 * time, y), radius, [shade, shade * warm, shade * warm * 0.92]);
    }
    canvas
}

/// A wall of bricks, lit from one side.
pub fn bricks(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let (s, n) = (seed as u32, octaves(size));
    Canvas::paint(size, |x, y| {
        let (x, row) = (x + 0.006 * time, (y * 12.0).floor());
        let column = x * 5.0 + 0.5 * (row % 2.0);
        let (u, v) = (column.fract(), (y * 12.0).fract());
        let light = 0.75 + 0.25 * (x * 0.7).cos();
        let rough = 0.2 * (fractal(x * 12.0, y * 12.0, n - 2, 0.6, s) - 0.5);
        if u < 0.05 || v < 0.12 {
            return grey((0.62 + rough) * light);
        }
        let shade = bumps(column.floor() + 0.5, row + 0.5, s + 3);
        mix([0.42, 0.16, 0.11], [0.66, 0.30, 0.20], shade).map(|c| (c + rough) * light)
    })
}

/// Rockets on a black sky.
pub fn fireworks(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let mut random = Random::new(seed);
    let mut canvas = Canvas::paint(size, |_, _| grey(0.0));
    for burst in 0..5 {
        let age = time - 5.0 * burst as f32 + 6.0;
        let place = (random.between(0.2, canvas.aspect() - 0.2), random.between(0.2, 0.6));
        let colour = [random.between(0.4, 1.0), random.between(0.2, 1.0), random.uniform()];
        for _ in 0..70 {
            let (angle, speed) = (random.between(0.0, 6.3), random.between(0.3, 1.0));
            if (0.0..22.0).contains(&age) {
                let way = speed * 0.35 * (1.0 - (-0.15 * age).exp());
                let (x, y) = (place.0 + way * angle.cos(), place.1 + way * angle.sin());
                let fade = 1.0 - age / 22.0;
                canvas.disc((x, y + 0.0004 * age * age), 0.007, colour.map(|c| c * fade));
            }
        }
    }
    canvas
}

fn falling(
    mut canvas: Canvas,
    time: f32,
    seed: u64,
    flakes: usize,
    long: f32,
    speed: f32,
) -> Canvas {
    let mut random = Random::new(seed);
    let unit = 1.0 / canvas.height as f32;
    for _ in 0..flakes {
        let (x, y) = (random.between(0.0, canvas.aspect()), random.uniform());
        let near = random.between(0.5, 1.5);
        let y = (y + speed * near * time).rem_euclid(1.1) - 0.05;
        let radius = (0.0045 * near).max(0.7 * unit);
        canvas.stamp((x, y), radius.max(long), grey(0.93), |dx, dy| {
            let d = dx.hypot((dy.abs() - long).max(0.0));
            0.85 * ((radius - d) / unit + 0.5).clamp(0.0, 1.0)
        });
    }
    canvas
}

/// Snow before a dark wood.
pub fn snow(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let wood = night(size, 0.0, seed + 1).map(|p| p.map(|v| v * 2.0 + 0.06));
    falling(wood, time, seed, 350, 0.0, 0.012)
}

/// Rain over hills.
pub fn rain(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let dim = still(size, 0.0, seed).map(|p| mix(grey(0.35), p, 0.45));
    falling(dim, time, seed, 260, 0.03, 0.09)
}

/// A checkerboard that scrolls.
pub fn checkers(size: (usize, usize), time: f32, _: u64) -> Canvas {
    Canvas::paint(size, |x, y| {
        let odd = ((x * 8.0 + 0.1 * time).floor() + (y * 8.0).floor()).rem_euclid(2.0);
        if odd > 0.5 { grey(0.96) } else { grey(0.0) }
    })
}

/// Rows of letters on paper, scrolling.
pub fn text(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let unit = 1.0 / size.1 as f32;
    let letter = (7.0 * unit).max(0.02);
    Canvas::paint(size, |x, y| {
        let y = y + unit * time;
        let (column, line) = ((x / letter).floor(), (y / (letter * 1.8)).floor());
        let (u, v) = ((x / letter).fract(), (y / (letter * 1.8)).fract());
        let glyph = bumps(column, line, seed as u32);
        let stroke = bumps(column * 7.0 + (u * 4.0).floor(), line * 9.0 + (v * 7.0).floor(), 5);
        let inside = glyph > 0.2 && u < 0.8 && v < 0.6 && x > 0.08;
        if inside && stroke > 0.5 { grey(0.1) } else { [0.97, 0.97, 0.94] }
    })
}

/// Flat shapes: a bar chart that grows.
pub fn chart(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    Canvas::paint(size, |x, y| {
        let bar = (x * 6.0).floor();
        let high = 0.2 + 0.6 * bumps(bar, 0.0, seed as u32) * (0.4 + 0.6 * (time / 20.0).min(1.0));
        let inside = (x * 6.0).fract() > 0.25 && 1.0 - y < high && y < 0.92;
        let colours = [[0.20, 0.45, 0.80], [0.90, 0.50, 0.15], [0.25, 0.65, 0.35]];
        if inside { colours[bar.rem_euclid(3.0) as usize] } else { grey(1.0) }
    })
}

/// A face out of soft ellipses, close to a camera that is held by hand.
pub fn portrait(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let aspect = size.0 as f32 / size.1 as f32;
    let (dx, dy) = (0.006 * (0.5 * time).sin(), 0.004 * (0.37 * time).cos());
    let s = seed as u32;
    let blob = move |x: f32, y: f32, cx: f32, cy: f32, rx: f32, ry: f32| {
        let d = ((x - aspect / 2.0 - cx - dx) / rx).hypot((y - cy - dy) / ry);
        1.0 / (1.0 + ((d - 1.0) * 18.0).exp())
    };
    Canvas::paint(size, move |x, y| {
        let mut p: Rgb = mix([0.30, 0.34, 0.38], [0.16, 0.18, 0.24], y);
        p = mix(p, [0.20, 0.12, 0.08], blob(x, y, 0.0, 0.40, 0.27, 0.33));
        let skin = mix([0.92, 0.72, 0.60], [0.62, 0.42, 0.34], (x - aspect / 2.0 + 0.3) * 1.2);
        p = mix(p, skin, blob(x, y, 0.0, 0.48, 0.20, 0.28));
        p = mix(p, [0.25, 0.30, 0.50], blob(x, y, 0.0, 1.08, 0.45, 0.28));
        for side in [-0.08, 0.08] {
            p = mix(p, grey(0.95), blob(x, y, side, 0.44, 0.035, 0.018));
            p = mix(p, [0.15, 0.10, 0.08], blob(x, y, side, 0.44, 0.014, 0.016));
        }
        p = mix(p, [0.70, 0.32, 0.32], blob(x, y, 0.0, 0.63, 0.06, 0.018));
        let pores = 0.03 * (bumps(x * 60.0, y * 60.0, s) - 0.5);
        p.map(|v| v + pores)
    })
}

/// A ball on a plain ground, as the demo draws.
pub fn ball(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let mut canvas = Canvas::paint(size, |_, y| mix(grey(0.42), grey(0.62), y));
    let colour = [[0.90, 0.13, 0.12], [0.15, 0.30, 0.95], [0.97, 0.88, 0.15]][seed as usize % 3];
    let middle = canvas.aspect() / 2.0;
    canvas.disc((middle - 0.3 + 0.018 * time, 0.5), 0.1, colour);
    canvas
}

/// One colour into another, and nothing else.
pub fn gradient(size: (usize, usize), time: f32, _: u64) -> Canvas {
    Canvas::paint(size, |x, y| {
        mix([0.95, 0.55, 0.30], [0.20, 0.25, 0.55], 0.6 * y + 0.15 * x + 0.004 * time)
    })
}

pub fn fade_out(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let left = (1.0 - time / 24.0).clamp(0.0, 1.0);
    hills(size, time, seed).map(|p| p.map(|v| v * left))
}

pub fn fade_in(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let here = ((time - 3.0) / 16.0).clamp(0.0, 1.0);
    portrait(size, time, seed).map(|p| p.map(|v| v * here))
}

pub fn fade_to_white(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let here = ((time - 8.0) / 20.0).clamp(0.0, 1.0);
    hills(size, time, seed).map(|p| mix(p, grey(1.0), here))
}

/// Another scene every six frames.
pub fn cuts(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let shots: [Scene; 5] = [hills, night, portrait, water, snow];
    shots[(time / 6.0) as usize % 5](size, time, seed)
}

/// Two flashes light up the night.
pub fn lightning(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let flash = f32::from([5.0, 6.0, 19.0].contains(&time));
    rain(size, time, seed).map(|p| p.map(|v| v * 0.3 + 0.55 * flash * (0.3 + v)))
}

/// Black bars above and below.
pub fn letterbox(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let scene = hills(size, time, seed).grain(5.0, seed * 1000 + time as u64);
    let bars = Canvas::paint(size, |_, y| grey(f32::from((0.125..0.875).contains(&y))));
    let shown = scene.pixels.iter().zip(&bars.pixels).map(|(p, m)| mix(grey(0.0), *p, m[0]));
    Canvas { pixels: shown.collect(), ..bars }
}

/// A room with a television that shows nothing but static.
pub fn television(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let mut random = Random::new(seed * 1000 + time as u64);
    let mut canvas = portrait(size, 0.0, seed).map(|p| p.map(|v| v * 0.5));
    let unit = canvas.height as f32;
    for row in (0.15 * unit) as usize..(0.5 * unit) as usize {
        for column in (0.1 * unit) as usize..(0.5 * unit) as usize {
            canvas.pixels[row * size.0 + column] = grey(random.uniform());
        }
    }
    canvas
}

/// Cloth with a pattern of blotches, carried past.
pub fn camouflage(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let s = seed as u32 * 71;
    Canvas::paint(size, |x, y| {
        let (x, y) = (x + 0.008 * time, y + 0.003 * time);
        let colours = [[0.22, 0.25, 0.13], [0.45, 0.42, 0.28], [0.30, 0.20, 0.12]];
        let levels = [0, 1].map(|i| fractal(x * 4.0, y * 4.0, 3, 0.5, s + 50 * i) > 0.5);
        let thread = 0.04 * (bumps(x * 90.0, y * 90.0, s) - 0.5);
        let light = 0.8 + 0.4 * bumps(x, y, s + 7);
        let cloth = if levels[0] { colours[0] } else { colours[1 + usize::from(levels[1])] };
        cloth.map(|v| v * light + thread)
    })
}

/// Lights out of focus.
pub fn bokeh(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let mut random = Random::new(seed);
    let mut canvas = Canvas::paint(size, |_, y| [0.05, 0.04, 0.08 + 0.05 * y]);
    for _ in 0..45 {
        let (x, y) = (random.between(-0.1, canvas.aspect() + 0.1), random.between(0.0, 1.0));
        let colour = [random.between(0.5, 1.0), random.between(0.2, 0.9), random.between(0.1, 0.8)];
        let (radius, strong) = (random.between(0.04, 0.10), random.between(0.2, 0.6));
        canvas.stamp((x + 0.004 * time, y), radius, colour, |dx, dy| {
            strong * ((1.0 - dx.hypot(dy) / radius) * 8.0).clamp(0.0, 1.0)
        });
    }
    canvas.grain(2.0, seed * 1000 + time as u64)
}

/// A square code on a leaflet: modules of eight pixels on the grid of latents.
pub fn square_code(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    let unit = size.1 as f32;
    Canvas::paint(size, |x, y| {
        let (column, row) = ((x * unit / 8.0).floor(), (y * unit / 8.0).floor());
        let quiet = column < 1.0 || row < 1.0 || row > unit / 8.0 - 2.0;
        let dark = bumps(column + 0.01, row + 0.01, seed as u32) > 0.5;
        grey(if dark && !quiet { 0.08 } else { 0.92 } + 0.002 * time)
    })
}

pub fn bricks_with_grain(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    bricks(size, time, seed).grain(10.0, seed * 1000 + time as u64)
}

pub fn pebbles_with_grain(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    pebbles(size, time, seed).grain(12.0, seed * 1000 + time as u64)
}

pub fn fog_with_grain(size: (usize, usize), time: f32, seed: u64) -> Canvas {
    fog(size, time, seed).grain(6.0, seed * 1000 + time as u64 + 500)
}

/// By name, all of them.
pub const ALL: [(&str, Scene); 42] = [
    ("camouflage", camouflage),
    ("bokeh", bokeh),
    ("square code", square_code),
    ("bricks with grain", bricks_with_grain),
    ("pebbles with grain", pebbles_with_grain),
    ("fog with grain", fog_with_grain),
    ("hills", hills),
    ("fast pan", fast_pan),
    ("grain 4", grain_4),
    ("grain 12", grain_12),
    ("grain 30", grain_30),
    ("colour grain", colour_grain),
    ("fog", fog),
    ("thick fog", thick_fog),
    ("night", night),
    ("stars", stars),
    ("confetti", confetti),
    ("dense confetti", dense_confetti),
    ("water", water),
    ("1/f texture", pink_texture),
    ("foliage", foliage),
    ("pebbles", pebbles),
    ("bricks", bricks),
    ("fireworks", fireworks),
    ("snow", snow),
    ("rain", rain),
    ("checkers", checkers),
    ("text", text),
    ("chart", chart),
    ("portrait", portrait),
    ("ball", ball),
    ("gradient", gradient),
    ("fade out", fade_out),
    ("fade in", fade_in),
    ("fade to white", fade_to_white),
    ("cuts", cuts),
    ("lightning", lightning),
    ("letterbox", letterbox),
    ("television", television),
    ("still", still),
    ("still fog", |size, _, seed| thick_fog(size, 0.0, seed)),
    ("still text", |size, _, seed| text(size, 0.0, seed)),
];
