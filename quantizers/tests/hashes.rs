//! The same bytes on every machine, with every set of instructions: the hash of every type's blocks for a fixed
//! input, with and without importance weights, as `fixtures/blocks.sha256` has them. `UPDATE_HASHES=1` writes
//! that file anew. Nothing here needs ggml: `script/test-arm64 hashes` doesn't build it.

use gguf::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use quantizers::{InstructionSet, QUANTIZED, quantize};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::Path;

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

fn encode(
    set: InstructionSet,
    dtype: DType,
    values: &[f32],
    importance: Option<&[f32]>,
) -> Vec<u8> {
    match dtype {
        DType::F16 => {
            let mut halves = vec![f16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            halves.iter().flat_map(|half| half.to_le_bytes()).collect()
        }
        DType::BF16 => {
            let mut halves = vec![bf16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            halves.iter().flat_map(|half| half.to_le_bytes()).collect()
        }
        _ => {
            let mut out = vec![0; dtype.row_bytes(values.len() as u64).unwrap() as usize];
            quantize(set, dtype, values, importance, &mut out);
            out
        }
    }
}

fn table(set: InstructionSet) -> String {
    let (values, importance) = (values(), importance());
    let mut table = String::new();
    for &dtype in [DType::F16, DType::BF16].iter().chain(QUANTIZED) {
        for (weights, label) in [(None, "plain"), (Some(&importance[..]), "weighted")] {
            if label == "weighted" && !dtype.is_quantized() {
                continue;
            }
            let out = encode(set, dtype, &values, weights);
            let hash: String =
                Sha256::digest(&out).iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(table, "{hash}  {dtype} {label}").unwrap();
        }
    }
    table
}

#[test]
fn blocks_are_the_same_everywhere() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/blocks.sha256");
    if std::env::var_os("UPDATE_HASHES").is_some() {
        std::fs::write(&path, table(InstructionSet::best())).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap();
    for set in InstructionSet::available() {
        let table = table(set);
        for (found, wanted) in table.lines().zip(wanted.lines()) {
            assert_eq!(found, wanted, "{set:?}");
        }
        assert_eq!(table.lines().count(), wanted.lines().count());
    }
}

/// A window or a number of threads must not show in a weighted file, either.
#[test]
fn rows_are_independent() {
    let (values, importance) = (values(), importance());
    for &dtype in QUANTIZED {
        let row = dtype.row_bytes(ROW as u64).unwrap() as usize;
        for weights in [None, Some(&importance[..])] {
            let whole = encode(InstructionSet::best(), dtype, &values, weights);
            let mut apart = vec![0; row * ROWS];
            for (values, out) in values.chunks(ROW).zip(apart.chunks_mut(row)) {
                quantize(InstructionSet::best(), dtype, values, weights, out);
            }
            assert!(whole == apart, "{dtype}");
        }
    }
}
