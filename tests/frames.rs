//! What a clip of the demo's world shows: one shaded shape over a plain background with a vertical
//! gradient. No learned judge: hues, positions and areas are measured.

use gguf_video::output::Frame;

/// sRGB values of the world's colours, before light and shade.
const COLOURS: [(&str, [f32; 3]); 8] = [
    ("red", [0.90, 0.13, 0.12]),
    ("orange", [0.98, 0.55, 0.10]),
    ("yellow", [0.97, 0.88, 0.15]),
    ("green", [0.15, 0.75, 0.22]),
    ("cyan", [0.10, 0.82, 0.88]),
    ("blue", [0.15, 0.30, 0.95]),
    ("purple", [0.60, 0.20, 0.85]),
    ("white", [0.96, 0.96, 0.96]),
];

/// The gradient of each background, at the top and at the bottom.
const BACKGROUNDS: [(&str, [f32; 3], [f32; 3]); 4] = [
    ("black", [0.02, 0.02, 0.03], [0.10, 0.10, 0.12]),
    ("gray", [0.42, 0.42, 0.44], [0.62, 0.62, 0.64]),
    ("navy", [0.03, 0.05, 0.20], [0.10, 0.16, 0.42]),
    ("brown", [0.22, 0.12, 0.05], [0.42, 0.27, 0.14]),
];

/// Pixels at a row's ends that no shape reaches.
const EDGE: usize = 4;
/// A pixel belongs to the shape if a channel is this far from its row's ends.
const MASK_LEVEL: f32 = 0.12;
/// A smaller shape is none.
const MIN_PIXELS: usize = 25;
/// Less saturated is white.
const WHITE_SATURATION: f32 = 0.35;

/// What one frame shows.
#[derive(Clone, Debug)]
pub struct Seen {
    pub background: &'static str,
    pub colour: &'static str,
    /// The shape's centre, in units of half the frame, from the middle; down is positive.
    pub centre: [f32; 2],
    /// The root of the shape's area, in pixels.
    pub size: f32,
}

/// Looks at a frame; `None` if there is no shape on it.
pub fn look(frame: &Frame) -> Option<Seen> {
    let (width, height) = (frame.width, frame.height);
    let at = |x: usize, y: usize| -> [f32; 3] {
        std::array::from_fn(|c| f32::from(frame.rgb[(y * width + x) * 3 + c]) / 255.0)
    };
    let edges: Vec<[f32; 3]> = (0..height)
        .map(|y| {
            let ends: Vec<usize> = (0..EDGE).chain(width - EDGE..width).collect();
            std::array::from_fn(|c| median(ends.iter().map(|&x| at(x, y)[c]).collect()))
        })
        .collect();
    let background = nearest(BACKGROUNDS.iter().map(|(name, top, low)| {
        let error = |(y, edge): (usize, &[f32; 3])| -> f32 {
            let ramp = (y as f32 + 0.5) / height as f32;
            (0..3).map(|c| (edge[c] - top[c] - (low[c] - top[c]) * ramp).abs()).sum()
        };
        (*name, edges.iter().enumerate().map(error).sum())
    }));

    let (mut pixels, mut centre) = (Vec::new(), [0.0; 2]);
    for (y, edge) in edges.iter().enumerate() {
        for x in 0..width {
            let pixel = at(x, y);
            if (0..3).any(|c| (pixel[c] - edge[c]).abs() > MASK_LEVEL) {
                pixels.push(pixel);
                centre[0] += (2.0 * x as f32 + 1.0) / width as f32 - 1.0;
                centre[1] += (2.0 * y as f32 + 1.0) / height as f32 - 1.0;
            }
        }
    }
    let count = pixels.len();
    (count >= MIN_PIXELS).then(|| Seen {
        background,
        colour: colour(&pixels),
        centre: centre.map(|v| v / count as f32),
        size: (count as f32).sqrt(),
    })
}

/// The nearest colour by the saturation-weighted mean hue.
fn colour(pixels: &[[f32; 3]]) -> &'static str {
    let mean: [f32; 3] =
        std::array::from_fn(|c| pixels.iter().map(|p| p[c]).sum::<f32>() / pixels.len() as f32);
    let (high, low) = extremes(mean);
    if (high - low) / high.max(1e-6) < WHITE_SATURATION {
        return "white";
    }
    let (mut sin, mut cos) = (0.0, 0.0);
    for &pixel in pixels {
        let (high, low) = extremes(pixel);
        let angle = hue(pixel).to_radians();
        (sin, cos) = (sin + (high - low) * angle.sin(), cos + (high - low) * angle.cos());
    }
    let mean_hue = sin.atan2(cos).to_degrees();
    nearest(COLOURS.iter().filter(|(name, _)| *name != "white").map(|(name, rgb)| {
        (*name, ((mean_hue - hue(*rgb) + 540.0).rem_euclid(360.0) - 180.0).abs())
    }))
}

fn hue([r, g, b]: [f32; 3]) -> f32 {
    let (high, low) = extremes([r, g, b]);
    let spread = (high - low).max(1e-6);
    let sixth = match high {
        h if h == r => (g - b) / spread,
        h if h == g => (b - r) / spread + 2.0,
        _ => (r - g) / spread + 4.0,
    };
    60.0 * sixth
}

fn extremes(rgb: [f32; 3]) -> (f32, f32) {
    (rgb.into_iter().fold(0.0, f32::max), rgb.into_iter().fold(1.0, f32::min))
}

fn median(mut values: Vec<f32>) -> f32 {
    values.sort_by(f32::total_cmp);
    values[values.len() / 2]
}

fn nearest(candidates: impl Iterator<Item = (&'static str, f32)>) -> &'static str {
    candidates.min_by(|a, b| a.1.total_cmp(&b.1)).expect("there are candidates").0
}

/// How the shape moves or grows from the first frame to the last, if it does so steadily.
pub fn motion(seen: &[Seen]) -> &'static str {
    let (first, last) = (&seen[0], &seen[seen.len() - 1]);
    let [dx, dy] = [0, 1].map(|i| last.centre[i] - first.centre[i]);
    let growth = (last.size / first.size).ln();
    let steady = |value: &dyn Fn(&Seen) -> f32, sign: f32| {
        seen.windows(2).all(|pair| (value(&pair[1]) - value(&pair[0])) * sign > 0.0)
    };
    if dx.abs().max(dy.abs()) > 0.5 {
        let axis = usize::from(dy.abs() > dx.abs());
        let by = [dx, dy][axis];
        if !steady(&|s| s.centre[axis], by.signum()) {
            return "moving unsteadily";
        }
        return match (axis, by > 0.0) {
            (0, true) => "moving right",
            (0, false) => "moving left",
            (_, true) => "moving down",
            (_, false) => "moving up",
        };
    }
    match growth {
        g if g > 0.3 && steady(&|s| s.size, 1.0) => "growing",
        g if g < -0.3 && steady(&|s| s.size, -1.0) => "shrinking",
        _ => "standing still",
    }
}
