//! What one frame says about itself: the statistics that tell a picture from noise.

use super::holes::holes;
use super::metric::{Measured, Metric};
use super::planes::{Plane, Planes, halved};
use crate::output::Frame;

/// A grid of cells with a shorter side has too few neighbours.
const FEWEST_CELLS: usize = 4;
/// The side of the blocks whose gradients are compared.
const BLOCK: usize = 16;
/// Levels that a pixel of a solid frame may be off.
const SOLID: u8 = 4;
/// Levels that compression may be off the darkest and the brightest.
const LIMIT: u8 = 2;
/// Levels that are too dark to have a colour.
const DARK: usize = 16;

/// Everything about `frame` that needs no other frame; `planes` are its own.
pub(super) fn measure(frame: &Frame, planes: &Planes) -> Measured {
    let mut measured = Measured::default();
    measured.set(Metric::Luma, planes[0].mean());
    measured.set(Metric::Contrast, planes[0].variance().sqrt());
    colours(frame, &mut measured);
    scales(planes, &mut measured);
    if frame.width.min(frame.height) > 2 {
        measured.set(Metric::Lattice, lattice(&planes[0]));
    }
    measured.set(Metric::Holes, holes(frame));
    measured
}

/// Moran's I and the variance that is left, at cells of 1, 2, 4, … pixels.
fn scales(planes: &Planes, measured: &mut Measured) {
    use Metric::{Correlation1, Correlation2, Correlation8, Correlation16, Share8, Share16};
    let total: f64 = planes.iter().map(Plane::variance).sum();
    let mut cells = planes.clone();
    for (correlation, share) in [
        (Some(Correlation1), None),
        (Some(Correlation2), None),
        (None, None),
        (Some(Correlation8), Some(Share8)),
        (Some(Correlation16), Some(Share16)),
    ] {
        if cells[0].width.min(cells[0].height) < FEWEST_CELLS {
            break;
        }
        if let Some(metric) = correlation {
            measured.set(metric, moran(&cells));
        }
        if let Some(metric) = share {
            let variance: f64 = cells.iter().map(Plane::variance).sum();
            measured.set(metric, variance / total.max(1e-9));
        }
        match correlation {
            Some(Correlation1) => measured.set(Metric::Kurtosis, kurtosis(&cells[0])),
            Some(Correlation2) => {
                let fine = measured.get(Metric::Kurtosis).unwrap_or_default();
                measured.set(Metric::Kurtosis, kurtosis(&cells[0]).max(fine));
                measured.set(Metric::Heterogeneity, heterogeneity(&cells[0]));
            }
            _ => {}
        }
        cells = halved(&cells);
    }
}

/// Moran's I with weights for the four nearest neighbours, of three planes together: 0 for
/// independent values, 1 for smooth ones.
///
/// Source: Moran, "Notes on continuous stochastic phenomena", Biometrika 1950.
fn moran(planes: &Planes) -> f64 {
    let (mut together, mut variance) = (0.0, 0.0);
    for plane in planes {
        let mean = plane.mean();
        let off = |v: f32| f64::from(v) - mean;
        let (mut products, mut pairs) = (0.0, 0);
        for row in plane.rows() {
            products += row.windows(2).map(|p| off(p[0]) * off(p[1])).sum::<f64>();
            pairs += row.len() - 1;
        }
        let below = plane.data.iter().zip(&plane.data[plane.width..]);
        products += below.map(|(&a, &b)| off(a) * off(b)).sum::<f64>();
        pairs += plane.data.len() - plane.width;
        together += products / pairs as f64;
        variance += plane.variance();
    }
    if variance < 1e-9 { 1.0 } else { together / variance }
}

/// Of the differences between neighbours: of pixels and, where grain hides them, of 2×2 pixels. Natural scenes are far above the 3 of Gaussian values.
///
/// Source: Huang and Mumford, "Statistics of natural images and models", CVPR 1999.
fn kurtosis(plane: &Plane) -> f64 {
    let across = plane.rows().flat_map(|row| row.windows(2).map(|p| p[1] - p[0]));
    let down = plane.data.iter().zip(&plane.data[plane.width..]).map(|(a, b)| b - a);
    let (mut squares, mut fourths, mut count) = (0.0, 0.0, 0);
    for d in across.chain(down) {
        let square = f64::from(d).powi(2);
        (squares, fourths, count) = (squares + square, fourths + square * square, count + 1);
    }
    let (variance, fourth) = (squares / f64::from(count), fourths / f64::from(count));
    // Without a difference there is nothing Gaussian.
    if variance < 1e-6 { 1e6 } else { fourth / variance.powi(2) }
}

/// Standard deviation of the logarithm of a block's mean squared gradient: noise is the same
/// everywhere, scenes aren't.
///
/// Source: the variance field of Ruderman, "The statistics of natural images", Network 1994.
fn heterogeneity(plane: &Plane) -> f64 {
    let side = BLOCK.min(plane.width / 4).min(plane.height / 4).max(2);
    let mut logs = Vec::new();
    for top in (0..=plane.height - side).step_by(side) {
        for left in (0..=plane.width - side).step_by(side) {
            let mut energy = 0.0;
            for y in top..top + side - 1 {
                for x in left..left + side - 1 {
                    let v = plane.at(x, y);
                    let (dx, dy) = (plane.at(x + 1, y) - v, plane.at(x, y + 1) - v);
                    energy += f64::from(dx * dx + dy * dy);
                }
            }
            // A quarter of a level squared is what rounding to bytes adds, and more.
            logs.push((energy / ((side - 1) * (side - 1)) as f64 + 0.25).ln());
        }
    }
    let mean = logs.iter().sum::<f64>() / logs.len() as f64;
    (logs.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / logs.len() as f64).sqrt()
}

/// How far every second pixel, row, or column is off its neighbours: the largest of three medians,
/// for a real pattern would be the same all over the picture.
///
/// Source: Odena, Dumoulin, Olah, "Deconvolution and checkerboard artifacts", Distill 2016.
fn lattice(plane: &Plane) -> f64 {
    // Every third row has all parities.
    let rows = (1..plane.height - 1).step_by(3);
    let mut patterns = [(); 3].map(|()| Vec::new());
    for y in rows {
        for x in 1..plane.width - 1 {
            let v = plane.at(x, y);
            let across = v - (plane.at(x - 1, y) + plane.at(x + 1, y)) / 2.0;
            let down = v - (plane.at(x, y - 1) + plane.at(x, y + 1)) / 2.0;
            let sign = |odd: usize| if odd.is_multiple_of(2) { 0.5 } else { -0.5 };
            patterns[0].push(across * sign(x));
            patterns[1].push(down * sign(y));
            patterns[2].push((across + down) / 2.0 * sign(x + y));
        }
    }
    let median = |mut values: Vec<f32>| {
        let middle = values.len() / 2;
        f64::from(values.select_nth_unstable_by(middle, f32::total_cmp).1.abs())
    };
    patterns.map(median).into_iter().fold(0.0, f64::max)
}

fn colours(frame: &Frame, measured: &mut Measured) {
    let pixels = || frame.rgb.chunks_exact(3);
    let count = pixels().len() as f64;
    let mut levels = [[0_usize; 256]; 3];
    let mut seen = vec![false; 1 << 18];
    let (mut strengths, mut largest, mut clipped) = ([0_usize; 256], 0.0, 0);
    for p in pixels() {
        for (levels, &v) in levels.iter_mut().zip(p) {
            levels[usize::from(v)] += 1;
            clipped += usize::from(v <= LIMIT || v >= 255 - LIMIT);
        }
        let six = |v: u8| usize::from(v >> 2);
        seen[six(p[0]) << 12 | six(p[1]) << 6 | six(p[2])] = true;
        let (low, high) = (p[0].min(p[1]).min(p[2]), p[0].max(p[1]).max(p[2]));
        // In the dark, rounding makes colours of nothing.
        let strength = 255 * usize::from(high - low) / (usize::from(high) + DARK);
        strengths[strength] += 1;
        largest += f64::from(high);
    }
    let medians = levels.map(|levels| quantile(&levels, 0.5) as u8);
    let off = |p: &&[u8]| p.iter().zip(medians).any(|(v, median)| v.abs_diff(median) > SOLID);
    measured.set(Metric::Deviating, pixels().filter(off).count() as f64 / count);
    measured.set(Metric::Colours, seen.iter().filter(|&&there| there).count() as f64);
    if largest / count > 2.0 * DARK as f64 {
        measured.set(Metric::Saturation, quantile(&strengths, 0.9) as f64 / 255.0);
    }
    measured.set(Metric::Clipped, clipped as f64 / (3.0 * count));
}

/// The first value that is not exceeded by `share` of those counted.
fn quantile(counts: &[usize; 256], share: f64) -> usize {
    let wanted = share * counts.iter().sum::<usize>() as f64;
    let mut sum = 0;
    let over = |&count: &usize| {
        sum += count;
        sum as f64 >= wanted
    };
    counts.iter().position(over).unwrap_or(255)
}
