//! `--target-size`: the types that fill a size with the least error.
//!
//! Each matrix is quantized to every type in a sample of its rows. What an upgrade to a larger type
//! takes off the relative squared error, for each byte that it adds, says how worthwhile it is; the
//! best ones are bought while there is room. That is the greedy solution of the knapsack problem over
//! the convex hull of each matrix's choices, as in rate-distortion optimization (Shoham and Gersho
//! 1988).

use anyhow::{Context, Result, ensure};
use gguf::DType;
use rayon::prelude::*;

use super::Rule;
use crate::arch::{Role, Tensor, load};
use crate::plan::Batch;
use crate::quantize::{decode, encode};

/// Types to choose from where rows are whole blocks of 256.
const LADDER: [DType; 6] =
    [DType::Q2_K, DType::Q3_K, DType::Q4_K, DType::Q5_K, DType::Q6_K, DType::Q8_0];
/// And where they are whole blocks of 32 only.
const SHORT_LADDER: [DType; 3] = [DType::Q4_0, DType::Q5_0, DType::Q8_0];

/// Elements of a matrix that are quantized to learn the error.
const SAMPLE: u64 = 1 << 17;
/// Room for the metadata of a transformer.
const METADATA: u64 = 16 << 10;

/// A type that a matrix can have.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Choice {
    dtype: DType,
    bytes: u64,
    /// Relative squared error times the number of elements.
    error: f64,
}

/// Types for a model's tensors, so that the file takes no more than `target` bytes.
pub(crate) fn fit(
    batch: &Batch,
    kept: &[Option<DType>],
    rules: &[Rule],
    target: u64,
    threads: usize,
) -> Result<Vec<DType>> {
    let tensors = &batch.model.tensors;
    let given = |index: usize, tensor: &Tensor| {
        let rule = rules.iter().find(|rule| rule.matches(&tensor.name));
        match rule {
            Some(rule) if tensor.role != Role::Exact => {
                let fits = rule.dtype.row_bytes(tensor.row()).is_some();
                Some(if fits { rule.dtype } else { DType::F16 })
            }
            _ => kept[index],
        }
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.context("cannot start the threads")?;
    let choices = pool.install(|| {
        let one = |(index, tensor): (usize, &Tensor)| match given(index, tensor) {
            Some(dtype) => Ok(vec![Choice { dtype, bytes: bytes(tensor, dtype), error: 0.0 }]),
            None => measure(batch, index).map(hull),
        };
        tensors.par_iter().enumerate().map(one).collect::<Result<Vec<_>>>()
    })?;
    let header = |tensor: &Tensor| 64 + 8 * tensor.shape.len() as u64 + tensor.name.len() as u64;
    let headers = METADATA + tensors.iter().map(header).sum::<u64>();
    let chosen = choose(&choices, target.saturating_sub(headers)).map_err(|smallest| {
        anyhow::anyhow!(
            "--target-size of {:.2} MB: {} takes {:.2} MB at least",
            target as f64 / 1e6,
            batch.model.name,
            (smallest + headers) as f64 / 1e6
        )
    })?;
    Ok(choices.iter().zip(chosen).map(|(choices, at)| choices[at].dtype).collect())
}

fn bytes(tensor: &Tensor, dtype: DType) -> u64 {
    let row = tensor.row();
    let rows = tensor.elements() / row;
    // With the padding behind it.
    (rows * dtype.row_bytes(row).expect("chosen by the row")).next_multiple_of(32)
}

fn measure(batch: &Batch, index: usize) -> Result<Vec<Choice>> {
    let tensor = &batch.model.tensors[index];
    let row = tensor.row();
    let ladder: &[DType] = match row {
        _ if row.is_multiple_of(256) => &LADDER,
        _ if row.is_multiple_of(32) => &SHORT_LADDER,
        _ => {
            return Ok(vec![Choice {
                dtype: DType::F16,
                bytes: bytes(tensor, DType::F16),
                error: 0.0,
            }]);
        }
    };
    let rows = tensor.elements() / row;
    let sampled = (SAMPLE / row).clamp(1, rows);
    let merges = load(tensor)?;
    let (mut values, mut sample) = (Vec::new(), Vec::new());
    for n in 0..sampled {
        let first = n * rows / sampled * row;
        batch.model.values(tensor, &merges, first, row as usize, &mut values)?;
        let wrong = values.iter().position(|value| !value.is_finite());
        ensure!(wrong.is_none(), "tensor {:?} holds what is no weight", tensor.name);
        sample.extend_from_slice(&values);
    }
    let importance = batch.importance[index].as_deref();
    let (mut out, mut decoded) = (Vec::new(), Vec::new());
    let choice = |&dtype: &DType| {
        let length = dtype.row_bytes(sample.len() as u64).expect("whole rows");
        out.resize(length as usize, 0);
        encode(dtype, &sample, importance, &mut out);
        decode(dtype, &out, &mut decoded);
        let relative = relative_squares(&sample, &decoded, importance);
        Choice { dtype, bytes: bytes(tensor, dtype), error: relative * tensor.elements() as f64 }
    };
    Ok(ladder.iter().map(choice).collect())
}

fn relative_squares(values: &[f32], others: &[f32], importance: Option<&[f32]>) -> f64 {
    let (mut errors, mut squares) = (0f64, 0f64);
    for (at, (&x, &y)) in values.iter().zip(others).enumerate() {
        let weight = importance.map_or(1.0, |weights| f64::from(weights[at % weights.len()]));
        errors += weight * f64::from(x - y) * f64::from(x - y);
        squares += weight * f64::from(x) * f64::from(x);
    }
    if squares > 0.0 { errors / squares } else { 0.0 }
}

/// Leaves out what is no better than something smaller, and what lies above the line between its
/// neighbours: from choice to choice, each byte then buys less.
fn hull(choices: Vec<Choice>) -> Vec<Choice> {
    let mut hull: Vec<Choice> = Vec::new();
    for choice in choices {
        while let Some(&last) = hull.last() {
            let above = match hull.len().checked_sub(2).map(|n| hull[n]) {
                _ if choice.error >= last.error => break,
                Some(before) => gain(before, last) <= gain(last, choice),
                None => false,
            };
            if !above {
                break;
            }
            hull.pop();
        }
        if hull.last().is_none_or(|last| choice.error < last.error) {
            hull.push(choice);
        }
    }
    hull
}

/// Error that a byte takes away.
fn gain(from: Choice, to: Choice) -> f64 {
    (from.error - to.error) / (to.bytes - from.bytes) as f64
}

/// The position of the choice for each matrix; if even the smallest are too large, their bytes.
fn choose(choices: &[Vec<Choice>], room: u64) -> Result<Vec<usize>, u64> {
    let smallest: u64 = choices.iter().map(|choices| choices[0].bytes).sum();
    let mut left = room.checked_sub(smallest).ok_or(smallest)?;
    let mut chosen = vec![0; choices.len()];
    let mut open: Vec<usize> = (0..choices.len()).collect();
    loop {
        open.retain(|&n| {
            let next = choices[n].get(chosen[n] + 1);
            next.is_some_and(|next| next.bytes - choices[n][chosen[n]].bytes <= left)
        });
        let value = |n: usize| gain(choices[n][chosen[n]], choices[n][chosen[n] + 1]);
        // Of equal ones the first, on every machine.
        let Some(best) =
            open.iter().copied().reduce(|a, b| if value(b) > value(a) { b } else { a })
        else {
            return Ok(chosen);
        };
        left -= choices[best][chosen[best] + 1].bytes - choices[best][chosen[best]].bytes;
        chosen[best] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(points: &[(u64, f64)]) -> Vec<Choice> {
        let choice = |&(bytes, error)| Choice { dtype: DType::Q4_K, bytes, error };
        points.iter().map(choice).collect()
    }

    #[test]
    fn the_hull_leaves_out_what_is_dominated() {
        let kept = hull(choices(&[(1, 10.0), (2, 9.0), (3, 2.0), (4, 3.0), (5, 1.0)]));
        assert_eq!(kept, choices(&[(1, 10.0), (3, 2.0), (5, 1.0)]));
    }

    #[test]
    fn room_goes_where_it_takes_most_error_away() {
        let matrices = [
            choices(&[(10, 100.0), (20, 10.0), (30, 1.0)]),
            choices(&[(10, 50.0), (20, 20.0), (30, 5.0)]),
        ];
        assert_eq!(choose(&matrices, 19), Err(20));
        assert_eq!(choose(&matrices, 20), Ok(vec![0, 0]));
        assert_eq!(choose(&matrices, 39), Ok(vec![1, 0]));
        assert_eq!(choose(&matrices, 40), Ok(vec![1, 1]));
        assert_eq!(choose(&matrices, 50), Ok(vec![1, 2]));
        assert_eq!(choose(&matrices, 1000), Ok(vec![2, 2]));
    }

    /// Where steps are of one size, no other choice of the same size has less error: compared with
    /// all of them.
    #[test]
    fn no_choice_on_the_hull_is_better() {
        let points = |seed: u64| {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) % 50 + 1
            };
            let mut gains: Vec<u64> = (0..4).map(|_| next()).collect();
            gains.sort_by(|a, b| b.cmp(a));
            let mut error = 400.0;
            let points = gains.iter().enumerate().map(|(n, &gain)| {
                error -= gain as f64;
                (n as u64 * 10 + 20, error)
            });
            hull(choices(&[&[(10, 400.0)], &points.collect::<Vec<_>>()[..]].concat()))
        };
        let matrices: Vec<_> = (1..5).map(points).collect();
        let total = |at: &[usize]| -> (u64, f64) {
            let picked = matrices.iter().zip(at).map(|(choices, &n)| choices[n]);
            picked.fold((0, 0.0), |sum, choice| (sum.0 + choice.bytes, sum.1 + choice.error))
        };
        for room in (40..=200).step_by(10) {
            let (bytes, error) = total(&choose(&matrices, room).unwrap());
            let mut at = vec![0; matrices.len()];
            'all: loop {
                let other = total(&at);
                assert!(other.0 > bytes || other.1 >= error - 1e-9, "{room}: {at:?}");
                for n in 0..at.len() {
                    at[n] += 1;
                    if at[n] < matrices[n].len() {
                        continue 'all;
                    }
                    at[n] = 0;
                }
                break;
            }
        }
    }
}
