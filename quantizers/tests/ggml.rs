//! Bit for bit what ggml makes, with every set of instructions that this processor has.
#![expect(unsafe_code, reason = "the reference is C")]

use gguf::DType;
use quantizers::{InstructionSet, QUANTIZED, quantize};
use std::ptr;

/// Columns: whole super-blocks, an odd number of them. Rows: not as many as fill the lanes.
const ROW: usize = 3 * 256;
const ROWS: usize = 7;

/// ggml's blocks.
fn reference(dtype: DType, values: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let row = importance.map_or(values.len(), <[f32]>::len);
    let mut out = vec![0; dtype.row_bytes(values.len() as u64).unwrap() as usize];
    // SAFETY: ggml reads whole rows of `values`, and `row` weights if there are any; it writes as
    // many bytes as blocks of them have.
    let written = unsafe {
        ggml_sys::ggml_quantize_chunk(
            dtype.id() as ggml_sys::ggml_type,
            values.as_ptr(),
            out.as_mut_ptr().cast(),
            0,
            (values.len() / row) as i64,
            row as i64,
            importance.map_or(ptr::null(), <[f32]>::as_ptr),
        )
    };
    assert_eq!(written, out.len(), "{dtype}");
    if importance.is_none() || dtype == DType::Q8_0 {
        defined(dtype, values, &mut out);
    }
    out
}

/// A scale may be so small that its inverse is infinite. C doesn't define which codes ggml makes then;
/// on x86-64, and so for us, they are zero.
fn defined(dtype: DType, values: &[f32], blocks: &mut [u8]) {
    let (steps, scales) = match dtype {
        DType::Q8_0 => (127.0, 2),
        DType::Q4_0 => (8.0, 2),
        DType::Q5_0 => (16.0, 2),
        DType::Q4_1 => (15.0, 4),
        DType::Q5_1 => (31.0, 4),
        _ => return,
    };
    let blocks = blocks.chunks_mut(dtype.block_bytes() as usize);
    for (x, block) in values.chunks(dtype.block_len() as usize).zip(blocks) {
        let of = |f: fn(f32, f32) -> f32| x.iter().copied().reduce(f).unwrap();
        let (min, max) = (of(f32::min), of(f32::max));
        let range = if scales == 4 { max - min } else { max.max(-min) };
        if range > 0.0 && (1.0 / (range / steps)).is_infinite() {
            block[scales..].fill(0);
        }
    }
}

/// What the blocks stand for.
fn decoded(dtype: DType, blocks: &[u8], len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    // SAFETY: it reads the blocks of `len` values and writes those; a vector of bytes is aligned as
    // the allocator aligns everything, for more than two bytes.
    unsafe {
        let traits = ggml_sys::ggml_get_type_traits(dtype.id() as ggml_sys::ggml_type);
        let to_float = (*traits).to_float.expect("every type of weights has one");
        to_float(blocks.as_ptr().cast(), values.as_mut_ptr(), len as i64);
    }
    values
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 32) as u32
    }

    /// From -1 to 1.
    fn uniform(&mut self) -> f32 {
        self.bits() as i32 as f32 / i32::MAX as f32
    }

    /// About normal, as weights are.
    fn normal(&mut self) -> f32 {
        (0..4).map(|_| self.uniform()).sum::<f32>() * 0.8
    }
}

/// Values of one kind each.
fn cases() -> Vec<(&'static str, Vec<f32>)> {
    let mut random = Random(1);
    let mut make = |f: &mut dyn FnMut(&mut Random, usize) -> f32| -> Vec<f32> {
        (0..ROW * ROWS).map(|i| f(&mut random, i)).collect()
    };
    // Every magnitude that a value may have and that weights may have in the same block.
    let any = |random: &mut Random| {
        let value = f32::from_bits(random.bits());
        if value.abs() < 65520.0 { value } else { value.to_bits() as f32 / u32::MAX as f32 }
    };
    vec![
        ("weights", make(&mut |random, _| random.normal() * 0.03)),
        ("uniform", make(&mut |random, _| random.uniform())),
        ("outliers", {
            make(&mut |random, i| random.normal() * if i.is_multiple_of(61) { 8.0 } else { 0.1 })
        }),
        ("one-sided", make(&mut |random, _| random.normal().abs() + 0.5)),
        ("negative", make(&mut |random, _| -random.normal().abs() - 0.5)),
        ("ramps", make(&mut |_, i| (i % 256) as f32 - 100.0)),
        ("small integers", make(&mut |random, _| (random.bits() % 9) as f32 - 4.0)),
        ("constant", make(&mut |_, i| [0.375, -0.375, 1e-3][i / 256 % 3])),
        ("zeros", make(&mut |_, _| 0.0)),
        ("zeros of both signs", make(&mut |random, _| [0.0, -0.0][random.bits() as usize % 2])),
        (
            "few values",
            make(&mut |random, _| if random.bits() % 40 == 0 { random.normal() } else { 0.0 }),
        ),
        ("one value a block", make(&mut |_, i| if i % 256 == 77 { -3.0 } else { 0.0 })),
        (
            "rows of other sizes",
            make(&mut |random, i| random.normal() * 10f32.powi((i / 256 % 9) as i32 - 5)),
        ),
        (
            "sub-blocks of other sizes",
            make(&mut |random, i| random.normal() * 4f32.powi((i / 16 % 11) as i32 - 8)),
        ),
        ("denormal", make(&mut |random, _| f32::from_bits(random.bits() & 0x807f_ffff))),
        ("nearly denormal", make(&mut |random, _| random.normal() * 1e-37)),
        ("tiny", make(&mut |random, _| random.normal() * 1e-16)),
        ("huge", make(&mut |random, _| random.uniform() * 65500.0)),
        ("any", make(&mut |random, _| any(random))),
        ("trained", trained()),
        (
            "as BF16",
            make(&mut |random, _| f32::from_bits((random.normal() * 0.02).to_bits() & 0xffff_0000)),
        ),
    ]
}

/// Values of a matrix of the demo.
fn trained() -> Vec<f32> {
    let path = "../demo/checkpoint/transformer/diffusion_pytorch_model-00002-of-00004.safetensors";
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    // From the end, where matrices are.
    let values = bytes[8 + header..].rchunks_exact(4).take(ROWS * ROW);
    values.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Weights of one kind each.
fn importances() -> Vec<(&'static str, Option<Vec<f32>>)> {
    let mut random = Random(2);
    let mut make = |f: &mut dyn FnMut(&mut Random, usize) -> f32| -> Option<Vec<f32>> {
        Some((0..ROW).map(|i| f(&mut random, i)).collect())
    };
    vec![
        ("plain", None),
        ("ones", make(&mut |_, _| 1.0)),
        ("some", make(&mut |random, _| random.normal().powi(2))),
        ("wide", make(&mut |random, _| 10f32.powf(random.uniform() * 6.0))),
        (
            "some none",
            make(&mut |random, i| if i % 100 > 60 { 0.0 } else { random.uniform().abs() }),
        ),
    ]
}

#[test]
fn blocks_are_ggmls() {
    let importances = importances();
    for (case, values) in cases() {
        for (weighted, importance) in &importances {
            for &dtype in QUANTIZED {
                let wanted = reference(dtype, &values, importance.as_deref());
                for set in InstructionSet::available() {
                    let mut found = vec![0xaa; wanted.len()];
                    quantize(set, dtype, &values, importance.as_deref(), &mut found);
                    let block = dtype.block_bytes() as usize;
                    let pairs = wanted.chunks(block).zip(found.chunks(block));
                    let differ: Vec<_> = pairs.enumerate().filter(|(_, (a, b))| a != b).collect();
                    if let Some((n, (wanted, found))) = differ.first() {
                        let len = dtype.block_len() as usize;
                        panic!(
                            "{case}, {weighted}, {dtype}, {set:?}: {} blocks differ, first {n}:\n\
                             {wanted:?}\n{found:?}\n{:?}",
                            differ.len(),
                            &values[n * len..][..len]
                        );
                    }
                }
            }
        }
    }
}

/// Callers refuse these; whatever becomes of them, it becomes so without a panic.
#[test]
fn what_is_no_weight_does_no_harm() {
    let mut random = Random(3);
    let values: Vec<f32> = (0..ROW * ROWS).map(|_| f32::from_bits(random.bits())).collect();
    assert!(values.iter().any(|value| value.is_nan()));
    for &dtype in QUANTIZED {
        let mut out = vec![0; dtype.row_bytes(values.len() as u64).unwrap() as usize];
        for set in InstructionSet::available() {
            for importance in [None, Some(&values[..ROW])] {
                quantize(set, dtype, &values, importance, &mut out);
            }
            for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
                quantize(set, dtype, &vec![special; values.len()], None, &mut out);
            }
        }
    }
}

#[test]
fn errors_are_those_of_the_blocks() {
    let importances = importances();
    for (case, values) in cases() {
        for (weighted, importance) in &importances[..3] {
            for &dtype in QUANTIZED {
                let mut blocks = reference(dtype, &values, importance.as_deref());
                let sets = InstructionSet::available().into_iter();
                let mut errors = sets
                    .map(|set| quantize(set, dtype, &values, importance.as_deref(), &mut blocks));
                let first = errors.next().unwrap();
                assert!(errors.all(|other| other == first), "{case}, {dtype}");
                let decoded = decoded(dtype, &blocks, values.len());
                let pairs =
                    || values.iter().zip(&decoded).map(|(&x, &y)| (f64::from(x), f64::from(y)));
                if decoded.iter().any(|value| !value.is_finite()) {
                    // The fit of a minimum to huge values may be too much for F16.
                    assert!(!first.error_squares.is_finite(), "{case}, {weighted}, {dtype}");
                    continue;
                }
                let close = |found: f64, wanted: f64, of: f64| {
                    let near = (found - wanted).abs() <= 1e-6 * of + 1e-40;
                    assert!(near, "{case}, {weighted}, {dtype}: {found} {wanted}");
                };
                let squares = pairs().map(|(x, _)| x * x).sum();
                close(first.squares, squares, squares);
                let decoded_squares = pairs().map(|(_, y)| y * y).sum();
                close(first.decoded_squares, decoded_squares, decoded_squares);
                let error_squares = pairs().map(|(x, y)| (x - y) * (x - y)).sum();
                close(first.error_squares, error_squares, squares);
                let largest = values.iter().zip(&decoded).map(|(x, y)| (x - y).abs());
                assert_eq!(
                    first.largest,
                    largest.fold(0.0, f32::max),
                    "{case}, {weighted}, {dtype}"
                );
            }
        }
    }
}
