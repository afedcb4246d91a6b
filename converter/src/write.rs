//! Carries a planned model to its file: one thread reads ahead, the pool encodes, this one writes.
//!
//! A tensor goes through in windows of bounded size, so that memory doesn't grow with the model; a
//! window is cut into pieces for the pool. Both sizes are whole blocks of every type.

use anyhow::{Result, anyhow};
use gguf::{DType, Writer};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::path::Path;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use crate::arch::Tensor;
use crate::plan::Plan;
use crate::quantize::encode;
use crate::recipe::{BF16_LIMIT, F16_LIMIT};
use crate::source::WINDOW;
use crate::{Interrupted, Progress};

/// Elements that a thread encodes at once: as f32 they stay in its cache.
const PIECE: usize = 1 << 16;

/// A part of a tensor: `len` elements from `first` on.
#[derive(Clone, Copy)]
struct Window<'a> {
    tensor: &'a Tensor,
    dtype: DType,
    first: u64,
    len: usize,
}

impl Window<'_> {
    fn source_bytes(&self) -> usize {
        self.len * self.tensor.source.dtype.bytes()
    }
}

fn windows(plan: &Plan) -> impl Iterator<Item = Window<'_>> {
    plan.model.tensors.iter().zip(&plan.dtypes).flat_map(|(tensor, &dtype)| {
        let elements = tensor.elements();
        (0..elements).step_by(WINDOW).map(move |first| {
            let len = (elements - first).min(WINDOW as u64) as usize;
            Window { tensor, dtype, first, len }
        })
    })
}

/// Writes the file at `path`, whose folder exists; returns its bytes.
pub(crate) fn write(
    plan: &Plan,
    path: &Path,
    pool: &ThreadPool,
    progress: &mut dyn Progress,
) -> Result<u64> {
    let mut writer = Writer::create(path, &plan.metadata, plan.specs())?;
    progress.begin(path, windows(plan).map(|window| window.source_bytes() as u64).sum());
    thread::scope(|scope| -> Result<()> {
        // Two buffers go round: one is read into while the other is encoded. Whichever end stops
        // early drops its channels, which stops the other.
        let (put_free, free) = channel();
        let (put_full, full) = sync_channel(1);
        for _ in 0..2 {
            put_free.send(Vec::new()).expect("the other end is in this function");
        }
        let weights = &plan.model.weights;
        scope.spawn(move || {
            for window in windows(plan) {
                let Ok(mut buffer) = free.recv() else { return };
                buffer.resize(window.source_bytes(), 0);
                let read = weights.read(&window.tensor.source, window.first, &mut buffer);
                if put_full.send(read.map(|()| buffer)).is_err() {
                    return;
                }
            }
        });
        let mut encoded = Vec::new();
        for window in windows(plan) {
            let buffer = full.recv().expect("the reader sends every window or an error")?;
            pool.install(|| encode_window(&window, &buffer, &mut encoded))?;
            writer.write(&encoded)?;
            if progress.advance(buffer.len() as u64).is_break() {
                return Err(Interrupted.into());
            }
            // The reader may have read its last window and be gone.
            let _ = put_free.send(buffer);
        }
        Ok(())
    })?;
    let bytes = writer.file_bytes();
    writer.finish()?;
    Ok(bytes)
}

fn encode_window(window: &Window<'_>, source: &[u8], encoded: &mut Vec<u8>) -> Result<()> {
    let Window { tensor, dtype, first, len } = *window;
    let bytes = |elements: usize| {
        dtype.row_bytes(elements as u64).expect("windows and pieces are whole blocks") as usize
    };
    encoded.resize(bytes(len), 0);
    let pieces = source.par_chunks(PIECE * tensor.source.dtype.bytes());
    let pieces = pieces.zip(encoded.par_chunks_mut(bytes(PIECE))).enumerate();
    pieces.try_for_each_init(Vec::new, |values, (piece, (source, encoded))| {
        tensor.source.dtype.decode(source, values);
        check(values, dtype).map_err(|(index, error)| {
            let element = first + (piece * PIECE + index) as u64;
            error.context(format!("tensor {:?}: element {element}", tensor.name))
        })?;
        encode(dtype, values, encoded);
        Ok(())
    })
}

/// Refuses what the type can't hold: a model with such a value makes noise, or nothing.
fn check(values: &[f32], dtype: DType) -> Result<(), (usize, anyhow::Error)> {
    let limit = match dtype {
        DType::F32 => f32::INFINITY,
        DType::BF16 => BF16_LIMIT,
        // Blocks have scales in F16.
        _ => F16_LIMIT,
    };
    let fine = |value: &f32| value.abs() < limit;
    // All of them, without a branch for each; NaN isn't fine, either.
    if values.iter().fold(true, |all, value| all & fine(value)) {
        return Ok(());
    }
    let index = values.iter().position(|value| !fine(value)).expect("one value failed above");
    let value = values[index];
    let error = if value.abs() < BF16_LIMIT {
        anyhow!("{value} is beyond the range of {dtype}; --quant BF16 or F32 holds it")
    } else {
        anyhow!("{value} is no weight; the checkpoint is damaged")
    };
    Err((index, error))
}
