//! The same bytes on every machine: the hash of every type's blocks for a fixed input, with and
//! without importance weights, as `fixtures/blocks.sha256` has them. `UPDATE_HASHES=1` writes that
//! file anew.

use gguf::DType;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::Path;
use to_gguf::{QUANTIZED, encode};

/// Columns and rows; of exact integers, so that no rounding of the input is in question.
const ROW: usize = 512;
const ROWS: usize = 96;

fn random(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as u32
    }
}

/// Sums of uniform numbers like those of weights, some columns larger; rows of zeros, of one value,
/// of very small and very large ones.
fn values() -> Vec<f32> {
    let mut random = random(7);
    let mut uniform = || (random() as i32 - (1 << 23)) as f32 / (1u32 << 27) as f32;
    let mut values: Vec<f32> = (0..ROW * ROWS)
        .map(|i| {
            let value = uniform() + uniform() + uniform();
            if (i % ROW).is_multiple_of(61) { value * 8.0 } else { value }
        })
        .collect();
    values[..ROW].fill(0.0);
    values[ROW..2 * ROW].fill(-0.375);
    values[2 * ROW..3 * ROW].iter_mut().for_each(|value| *value *= 2f32.powi(-24));
    values[3 * ROW..4 * ROW].iter_mut().for_each(|value| *value *= 2f32.powi(10));
    values
}

fn importance() -> Vec<f32> {
    let mut random = random(11);
    (0..ROW).map(|i| if i % 100 == 99 { 0.0 } else { (random() % 1000 + 1) as f32 / 8.0 }).collect()
}

#[test]
fn blocks_are_the_same_everywhere() {
    let (values, importance) = (values(), importance());
    let mut table = String::new();
    for &dtype in [DType::F16, DType::BF16].iter().chain(QUANTIZED) {
        for (weights, label) in [(None, "plain"), (Some(&importance[..]), "weighted")] {
            if label == "weighted" && !dtype.is_quantized() {
                continue;
            }
            let mut out = vec![0; dtype.row_bytes(values.len() as u64).unwrap() as usize];
            encode(dtype, &values, weights, &mut out);
            let hash: String =
                Sha256::digest(&out).iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(table, "{hash}  {dtype} {label}").unwrap();
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/blocks.sha256");
    if std::env::var_os("UPDATE_HASHES").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap();
    for (found, wanted) in table.lines().zip(wanted.lines()) {
        assert_eq!(found, wanted);
    }
    assert_eq!(table.lines().count(), wanted.lines().count());
}

/// A window or a number of threads must not show in a weighted file, either.
#[test]
fn rows_are_independent() {
    let (values, importance) = (values(), importance());
    for &dtype in QUANTIZED {
        let row = dtype.row_bytes(ROW as u64).unwrap() as usize;
        for weights in [None, Some(&importance[..])] {
            let mut whole = vec![0; row * ROWS];
            encode(dtype, &values, weights, &mut whole);
            let mut apart = vec![0; row * ROWS];
            for (values, out) in values.chunks(ROW).zip(apart.chunks_mut(row)) {
                encode(dtype, values, weights, out);
            }
            assert!(whole == apart, "{dtype}");
        }
    }
}
