//! What a clip looks like so far, at little cost: each latent's channels, projected to a colour.
//!
//! The projection is fitted to the VAE and to the clip at hand: the VAE decodes a piece of the clip, and
//! least squares find the affine map from its latents to the mean colours of the pixels that each
//! became. The piece is small, whatever the clip's size; the projection shows all of it.

use super::error::GenerateError;
use super::generate::to_frame;
use super::machine::Machine;
use super::model_folder::ModelFolder;
use super::request::FRAMES_MULTIPLE;
use crate::ggml::HostTensor;
use crate::models::wan::vae;
use crate::output::{ContactSheet, Frame, FrameSink, OutputError};
use std::ops::ControlFlow;
use std::path::Path;

/// Latents along a side of the piece that is decoded, at most.
const SIDE: i64 = 24;
/// Its latent frames: the first, which stands alone, and one that becomes four frames.
const FRAMES: i64 = 2;
/// Keeps a channel that colours nothing from being fitted to noise: of the mean square.
const RIDGE: f64 = 1e-3;

/// An affine map from latents to colours.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// Red, green and blue, between 0 and 1, for each channel.
    channels: Vec<[f64; 3]>,
    constant: [f64; 3],
}

impl Projection {
    /// Of clean `latents` `[C, F, H, W]`, as far as they are known.
    pub fn fit(
        machine: &Machine,
        folder: &ModelFolder,
        latents: &HostTensor,
    ) -> Result<Self, GenerateError> {
        let mut exec = machine.executor(machine.vae)?;
        let vae = vae::WanVae::open(&folder.vae, exec.device())?;
        let (piece, side) = (middle(latents), vae.config().spatial_factor() as usize);
        let mut decoding = vae.decode(&exec, piece.clone())?;
        let mut frames = Vec::new();
        let mut push = |video: HostTensor| {
            GenerateError::check_finite(&video.data, || "a decoded piece of the clip".into())?;
            frames.push(mean_colours(&to_frame(&video), side));
            Ok::<(), GenerateError>(())
        };
        let go_on = &mut || ControlFlow::Continue(());
        while decoding.next_frames(&mut exec, go_on, &mut push)? {}
        let first = frames[..1].iter();
        let groups = first.map(std::slice::from_ref).chain(frames[1..].chunks(FRAMES_MULTIPLE));
        Ok(Self::of(&piece, &groups.map(mean).collect::<Vec<_>>()))
    }

    /// Least squares by the normal equations. `colours`: one a latent, for each latent frame.
    fn of(latents: &HostTensor, colours: &[Vec<[f64; 3]>]) -> Self {
        let [channels, f, h, w] = latents.shape.full().map(|d| d as usize);
        let (plane, size) = (h * w, channels + 1);
        // Each row: the left side, then the three right sides.
        let mut rows = vec![vec![0.0; size + 3]; size];
        let mut terms = vec![1.0; size];
        for (frame, colours) in colours.iter().enumerate() {
            for (pixel, colour) in colours.iter().enumerate() {
                for (c, term) in terms[..channels].iter_mut().enumerate() {
                    *term = f64::from(latents.data[(c * f + frame) * plane + pixel]);
                }
                for (row, left) in rows.iter_mut().zip(&terms) {
                    let right = terms.iter().chain(colour);
                    row.iter_mut().zip(right).for_each(|(sum, right)| *sum += left * right);
                }
            }
        }
        for (i, row) in rows.iter_mut().enumerate().take(channels) {
            row[i] *= 1.0 + RIDGE;
        }
        let mut channels = solve(rows, size);
        let constant = channels.pop().expect("the constant is the last unknown");
        Self { channels, constant }
    }

    /// Frames of `latents` `[C, F, H, W]`, a square of `zoom`x`zoom` pixels for each latent.
    pub fn frames(&self, latents: &HostTensor, zoom: usize) -> Vec<Frame> {
        let [_, f, h, w] = latents.shape.full().map(|d| d as usize);
        let plane = h * w;
        let byte = |v: f64| (v.clamp(0.0, 1.0) * 255.0).round() as u8;
        let frame = |frame: usize| {
            let mut rgb = Vec::with_capacity(plane * zoom * zoom * 3);
            for y in 0..h {
                let row = rgb.len();
                for x in 0..w {
                    let add = |sum: [f64; 3], (c, weight): (usize, &[f64; 3])| {
                        let z = f64::from(latents.data[(c * f + frame) * plane + y * w + x]);
                        std::array::from_fn(|rgb| sum[rgb] + weight[rgb] * z)
                    };
                    let colour =
                        self.channels.iter().enumerate().fold(self.constant, add).map(byte);
                    (0..zoom).for_each(|_| rgb.extend(colour));
                }
                let row: Vec<u8> = rgb[row..].to_vec();
                (1..zoom).for_each(|_| rgb.extend_from_slice(&row));
            }
            Frame::new(w * zoom, h * zoom, rgb)
        };
        (0..f).map(frame).collect()
    }

    /// A row of frames as a picture about 160 pixels high.
    pub fn write(&self, latents: &HostTensor, path: &Path) -> Result<(), OutputError> {
        const COLUMNS: usize = 6;
        const HEIGHT: usize = 160;
        let [.., h, _] = latents.shape.full().map(|d| d as usize);
        let frames = self.frames(latents, (HEIGHT / h).max(1));
        let mut sheet = ContactSheet::create(path, COLUMNS, frames.len())?;
        frames.iter().try_for_each(|frame| sheet.push(frame))?;
        Box::new(sheet).finish()
    }
}

/// At most [`SIDE`]x[`SIDE`] latents from the middle of the first [`FRAMES`] latent frames.
fn middle(latents: &HostTensor) -> HostTensor {
    let [c, f, h, w] = latents.shape.full();
    let (frames, rows, columns) = (f.min(FRAMES), h.min(SIDE), w.min(SIDE));
    let (top, left) = ((h - rows) / 2, (w - columns) / 2);
    let mut values = Vec::with_capacity((c * frames * rows * columns) as usize);
    for channel in 0..c {
        for frame in 0..frames {
            for row in top..top + rows {
                let start = (((channel * f + frame) * h + row) * w + left) as usize;
                values.extend_from_slice(&latents.data[start..start + columns as usize]);
            }
        }
    }
    HostTensor::new([c, frames, rows, columns], values)
}

/// Of the same pixels of several frames.
fn mean(frames: &[Vec<[f64; 3]>]) -> Vec<[f64; 3]> {
    let at = |i: usize| {
        std::array::from_fn(|c| frames.iter().map(|f| f[i][c]).sum::<f64>() / frames.len() as f64)
    };
    (0..frames[0].len()).map(at).collect()
}

/// Of each latent's pixels, `side` along a side, between 0 and 1.
fn mean_colours(frame: &Frame, side: usize) -> Vec<[f64; 3]> {
    let (rows, columns) = (frame.height / side, frame.width / side);
    let mut colours = vec![[0.0; 3]; rows * columns];
    for (i, pixel) in frame.rgb.chunks_exact(3).enumerate() {
        let (y, x) = (i / frame.width / side, i % frame.width / side);
        for c in 0..3 {
            let share = 255.0 * (side * side) as f64;
            colours[y * columns + x][c] += f64::from(pixel[c]) / share;
        }
    }
    colours
}

/// Gauss-Jordan elimination with row pivots.
fn solve(mut rows: Vec<Vec<f64>>, size: usize) -> Vec<[f64; 3]> {
    for i in 0..size {
        let largest = |a: &usize, b: &usize| rows[*a][i].abs().total_cmp(&rows[*b][i].abs());
        let pivot = (i..size).max_by(largest).expect("there are rows left");
        rows.swap(i, pivot);
        let head = rows[i].clone();
        for (j, row) in rows.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            let factor = if head[i] == 0.0 { 0.0 } else { row[i] / head[i] };
            debug_assert!(j != i);
            (i..size + 3).for_each(|k| row[k] -= factor * head[k]);
        }
    }
    let unknown = |(i, row): (usize, &Vec<f64>)| {
        std::array::from_fn(|c| if row[i] == 0.0 { 0.0 } else { row[size + c] / row[i] })
    };
    rows.iter().enumerate().map(unknown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::noise::Generator;

    #[test]
    fn an_affine_map_is_found() {
        const PLANE: usize = 24 * 20;
        let latents = HostTensor::new([4, 2, 24, 20], Generator::new(0).normal(4 * 2 * PLANE));
        let truth = |frame: usize, pixel: usize| -> [f64; 3] {
            let z: [f64; 4] =
                std::array::from_fn(|c| f64::from(latents.data[(c * 2 + frame) * PLANE + pixel]));
            [0.5 + 0.1 * z[0], 0.4 - 0.2 * z[1] + 0.05 * z[0], 0.3 + 0.1 * z[3]]
        };
        let colours =
            [0, 1].map(|frame| (0..PLANE).map(|pixel| truth(frame, pixel)).collect::<Vec<_>>());
        let found = Projection::of(&latents, &colours);
        assert!((found.channels[1][1] + 0.2).abs() < 1e-3, "{found:?}");
        assert!((found.constant[0] - 0.5).abs() < 1e-3, "{found:?}");
        let frame = &found.frames(&latents, 2)[1];
        let [red, ..] = truth(1, 21);
        let expected = (red.clamp(0.0, 1.0) * 255.0).round();
        let got = frame.rgb[(2 * 40 + 2) * 3];
        assert!((f64::from(got) - expected).abs() <= 1.0, "{got} is not {expected}");
    }

    #[test]
    fn the_middle_is_in_the_middle() {
        let values: Vec<f32> = (0..3 * 3 * 30 * 26).map(|i| i as f32).collect();
        let piece = middle(&HostTensor::new([3, 3, 30, 26], values));
        assert_eq!(piece.shape.full(), [3, 2, 24, 24]);
        assert_eq!(piece.data[0], (3 * 26 + 1) as f32);
        assert_eq!(piece.data[24 * 24], (30 * 26 + 3 * 26 + 1) as f32);
    }
}
