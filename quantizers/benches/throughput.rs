//! Weights a second that one core quantizes, of ours and of ggml's C code compiled for this processor,
//! by turns. `script/quantizing` builds that and keeps what this prints.
//!
//! `cargo bench -p quantizers -- LIBRARY [TYPE...]`: the library is ggml's `ggml-base`.
#![expect(unsafe_code, reason = "the reference is C")]
#![expect(clippy::print_stdout, reason = "a program that prints a table")]

use gguf::DType;
use libloading::{Library, Symbol};
use nix::time::{ClockId, clock_gettime};
use quantizers::{InstructionSet, QUANTIZED, quantize};
use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

/// What a thread works on at once in the converter: 64 Ki values.
const ROW: usize = 4096;
const ROWS: usize = 16;
/// Turns of each, of which the best one counts: others work on this machine, too.
const TURNS: usize = 7;
const TURN: Duration = Duration::from_millis(40);

type Chunk = unsafe extern "C" fn(u32, *const f32, *mut c_void, i64, i64, i64, *const f32) -> usize;

/// Time that this thread had a core.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has this clock").into()
}

/// Millions of weights a second.
fn turn(mut work: impl FnMut()) -> f64 {
    let (begin, mut runs) = (now(), 0);
    while now() - begin < TURN {
        work();
        runs += 1;
    }
    (runs * ROW * ROWS) as f64 / (now() - begin).as_secs_f64() / 1e6
}

/// About normal, as weights are.
fn weights() -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 32) as i32 as f32 / i32::MAX as f32
    };
    (0..ROW * ROWS).map(|_| (uniform() + uniform() + uniform() + uniform()) * 0.02).collect()
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(path) = arguments.next() else {
        println!("throughput: give the library to compare with, as script/quantizing does");
        return;
    };
    let only: Vec<String> = arguments.collect();
    // SAFETY: it is ggml's library, and the function's signature is that of its header.
    let library = unsafe { Library::new(path).expect("the library is there") };
    // SAFETY: as above.
    let chunk: Symbol<'_, Chunk> =
        unsafe { library.get(b"ggml_quantize_chunk").expect("ggml's library has it") };

    let sets = InstructionSet::available();
    let names: Vec<_> = sets.iter().map(|set| format!("{set:?}")).collect();
    println!("| type | importance | ggml | {} |", names.join(" | "));
    println!("|---|---|---|{}", "---|".repeat(sets.len()));
    let values = weights();
    let importance: Vec<f32> = (0..ROW).map(|i| (i % 37 + 1) as f32 / 8.0).collect();
    for &dtype in QUANTIZED {
        if !only.is_empty() && !only.iter().any(|name| name == dtype.name()) {
            continue;
        }
        for weights in [None, Some(&importance[..])] {
            if dtype == DType::Q8_0 && weights.is_some() {
                continue;
            }
            let mut out = vec![0; dtype.row_bytes(values.len() as u64).unwrap() as usize];
            let mut reference = out.clone();
            let mut theirs = 0f64;
            let mut ours = vec![0f64; sets.len()];
            for _ in 0..TURNS {
                theirs = theirs.max(turn(|| {
                    // SAFETY: `values` has the rows, `weights` as many as a row has columns, and
                    // `reference` room for the blocks.
                    unsafe {
                        chunk(
                            dtype.id(),
                            values.as_ptr(),
                            reference.as_mut_ptr().cast(),
                            0,
                            ROWS as i64,
                            ROW as i64,
                            weights.map_or(ptr::null(), <[f32]>::as_ptr),
                        )
                    };
                }));
                for (&set, best) in sets.iter().zip(&mut ours) {
                    let work = || {
                        quantize(set, dtype, &values, weights, &mut out);
                    };
                    *best = best.max(turn(work));
                }
            }
            let ours: Vec<_> =
                ours.iter().map(|ours| format!("{ours:.0} ({:.1}x)", ours / theirs)).collect();
            let weighted = if weights.is_some() { "with" } else { "without" };
            println!("| {dtype} | {weighted} | {theirs:.1} | {} |", ours.join(" | "));
        }
    }
}
