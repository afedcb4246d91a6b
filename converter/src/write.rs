//! Carries a planned model to its files: one thread reads ahead, the pool encodes, another thread
//! writes behind.
//!
//! A tensor goes through in windows of bounded size, so that memory doesn't grow with the model; a
//! window is cut into pieces for the pool. Both are whole rows, or of longer rows whole blocks. Only
//! a piece is ever there as f32, and stays in its processor's cache until its blocks and their errors
//! are made.

use anyhow::{Result, anyhow, ensure};
use gguf::{DType, Writer};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use crate::arch::{Tensor, load, piece_len};
use crate::lora::Loaded;
use crate::measure::Sums;
use crate::plan::{Batch, Format, Plan};
use crate::quantize::encode_and_measure;
use crate::recipe::{BF16_LIMIT, F16_LIMIT};
use crate::safetensors_file::SafetensorsFile;
use crate::source::WINDOW;
use crate::{Interrupted, Progress};

/// What became of a file.
pub(crate) struct Measured {
    pub(crate) file_bytes: u64,
    /// The errors of its tensors, in order.
    pub(crate) tensors: Vec<Sums>,
}

enum Output {
    Gguf(Writer),
    Safetensors(SafetensorsFile),
}

impl Output {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Output::Gguf(writer) => Ok(writer.write(bytes)?),
            Output::Safetensors(file) => file.write(bytes),
        }
    }

    fn finish(self) -> Result<u64> {
        match self {
            Output::Gguf(writer) => {
                let bytes = writer.file_bytes();
                writer.finish()?;
                Ok(bytes)
            }
            Output::Safetensors(file) => {
                let bytes = file.file_bytes();
                file.finish()?;
                Ok(bytes)
            }
        }
    }
}

/// A part of a tensor: `len` elements from `first` on.
#[derive(Clone, Copy)]
struct Window<'a> {
    index: usize,
    tensor: &'a Tensor,
    first: u64,
    len: usize,
}

impl Window<'_> {
    fn source_bytes(&self) -> usize {
        self.tensor.source.dtype.bytes(self.len as u64) as usize
    }
}

fn windows(batch: &Batch) -> impl Iterator<Item = Window<'_>> {
    batch.model.tensors.iter().enumerate().flat_map(|(index, tensor)| {
        let (elements, piece) = (tensor.elements(), piece_len(tensor.row()));
        let step = WINDOW / piece * piece;
        (0..elements).step_by(step).map(move |first| {
            let len = (elements - first).min(step as u64) as usize;
            Window { index, tensor, first, len }
        })
    })
}

/// Writes the files of `plans`, which are of the batch, at their paths, whose folders exist.
pub(crate) fn write(
    batch: &Batch,
    plans: &[(&Plan, PathBuf)],
    pool: &ThreadPool,
    progress: &mut dyn Progress,
) -> Result<Vec<Measured>> {
    let create = |(plan, path): &(&Plan, PathBuf)| {
        let specs = batch.specs(plan);
        Ok(match &plan.format {
            Format::Gguf { metadata, .. } => Output::Gguf(Writer::create(path, metadata, specs)?),
            Format::Safetensors => Output::Safetensors(SafetensorsFile::create(path, &specs)?),
        })
    };
    let mut outputs = plans.iter().map(create).collect::<Result<Vec<_>>>()?;
    let Some((_, path)) = plans.first() else { return Ok(Vec::new()) };
    progress.begin(path, windows(batch).map(|window| window.source_bytes() as u64).sum());

    let mut measured = vec![vec![Sums::default(); batch.model.tensors.len()]; plans.len()];
    let outputs = thread::scope(|scope| -> Result<Vec<Output>> {
        // Two buffers go round on either side: one is read into or written from while the other is
        // encoded. Whichever end stops early drops its channels, which stops the others.
        let (put_free, free) = channel();
        let (put_full, full) = sync_channel(1);
        let (put_spare, spare) = channel();
        let (put_encoded, encoded) = sync_channel::<Encoded>(1);
        for _ in 0..2 {
            put_free.send(Vec::new()).expect("the other end is in this function");
            put_spare.send(Encoded::default()).expect("the other end is in this function");
        }
        let weights = &batch.model.weights;
        scope.spawn(move || {
            for window in windows(batch) {
                let Ok(mut buffer) = free.recv() else { return };
                let bytes = filled(&mut buffer, window.source_bytes());
                let read = weights.read(&window.tensor.source, window.first, bytes);
                if put_full.send(read.map(|()| buffer)).is_err() {
                    return;
                }
            }
        });
        let writer = scope.spawn(move || -> Result<Vec<Output>> {
            for encoded in encoded {
                for (output, &kind) in outputs.iter_mut().zip(&encoded.kind_of) {
                    output.write(&encoded.bytes[kind][..encoded.lens[kind]])?;
                }
                // The last window's buffer is wanted by nobody.
                let _ = put_spare.send(encoded);
            }
            Ok(outputs)
        });
        let mut tensor = TensorState::default();
        let mut encode = || -> Result<()> {
            for window in windows(batch) {
                let buffer = full.recv().expect("the reader sends every window or an error")?;
                if window.first == 0 {
                    tensor.begin(batch, plans, window.index)?;
                }
                // Without one the writer has ended, and says why.
                let Ok(mut encoded) = spare.recv() else { return Ok(()) };
                let source = &buffer[..window.source_bytes()];
                let sums = pool.install(|| tensor.encode(batch, &window, source, &mut encoded))?;
                for (measured, &kind) in measured.iter_mut().zip(&tensor.kind_of) {
                    let sum = &mut measured[window.index];
                    *sum = *sum + sums[kind];
                }
                encoded.kind_of.clone_from(&tensor.kind_of);
                if put_encoded.send(encoded).is_err() {
                    return Ok(());
                }
                if progress.advance(source.len() as u64).is_break() {
                    return Err(Interrupted.into());
                }
                // The reader may have read its last window and be gone.
                let _ = put_free.send(buffer);
            }
            Ok(())
        };
        let encoded = encode();
        drop(put_encoded);
        let outputs = writer.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        encoded.map(|()| outputs)
    })?;
    let finished = outputs
        .into_iter()
        .zip(measured)
        .map(|(output, tensors)| Ok(Measured { file_bytes: output.finish()?, tensors }));
    finished.collect()
}

/// A window's bytes on their way to the files.
#[derive(Default)]
struct Encoded {
    /// Of each type that one of the files wants; maybe more bytes than there are now.
    bytes: Vec<Vec<u8>>,
    lens: Vec<usize>,
    /// Of each file, the position of its type.
    kind_of: Vec<usize>,
}

/// The first `len` bytes of a buffer, which grows but never shrinks: each time that it grew again it
/// would be filled with zeros again.
fn filled(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}

/// The tensor on its way: what several files have in common is made once.
#[derive(Default)]
struct TensorState {
    /// Each type that one of the files wants, once.
    dtypes: Vec<DType>,
    /// Of each file, the position of its type.
    kind_of: Vec<usize>,
    merges: Vec<Loaded>,
}

impl TensorState {
    fn begin(&mut self, batch: &Batch, plans: &[(&Plan, PathBuf)], index: usize) -> Result<()> {
        let tensor = &batch.model.tensors[index];
        self.dtypes.clear();
        self.kind_of.clear();
        for (plan, _) in plans {
            let dtype = plan.dtypes[index];
            let known = self.dtypes.iter().position(|&known| known == dtype);
            self.kind_of.push(known.unwrap_or(self.dtypes.len()));
            if known.is_none() {
                self.dtypes.push(dtype);
            }
        }
        self.merges = load(tensor)?;
        let whole_rows = (piece_len(tensor.row()) as u64).is_multiple_of(tensor.row());
        ensure!(
            whole_rows || batch.importance[index].is_none(),
            "tensor {:?}: rows of {} are too long for importance weights",
            tensor.name,
            tensor.row()
        );
        Ok(())
    }

    /// Encodes a window to every type; returns the errors of each.
    fn encode(
        &self,
        batch: &Batch,
        window: &Window<'_>,
        source: &[u8],
        encoded: &mut Encoded,
    ) -> Result<Vec<Sums>> {
        let Window { index, tensor, first, len } = *window;
        let piece = piece_len(tensor.row());
        let bytes = |dtype: DType, elements: usize| {
            dtype.row_bytes(elements as u64).expect("windows and pieces are whole blocks") as usize
        };
        let pieces = len.div_ceil(piece);
        let mut parts: Vec<Vec<&mut [u8]>> = (0..pieces).map(|_| Vec::new()).collect();
        let kinds = encoded.bytes.len().max(self.dtypes.len());
        encoded.bytes.resize_with(kinds, Vec::new);
        encoded.lens = self.dtypes.iter().map(|&dtype| bytes(dtype, len)).collect();
        let buffers = encoded.bytes.iter_mut().zip(&encoded.lens);
        for (&dtype, (buffer, &len)) in self.dtypes.iter().zip(buffers) {
            let cut = filled(buffer, len).chunks_mut(bytes(dtype, piece));
            parts.iter_mut().zip(cut).for_each(|(part, bytes)| part.push(bytes));
        }
        let importance = batch.importance[index].as_deref();
        let (dtypes, merges) = (&self.dtypes, &self.merges);
        let source = source.par_chunks(tensor.source.dtype.bytes(piece as u64) as usize);
        let parts = source.zip(parts.into_par_iter()).enumerate();
        let sums = parts.map_init(
            || (Vec::new(), Vec::new()),
            |(values, decoded), (n, (source, parts))| {
                let start = first + (n * piece) as u64;
                tensor.source.decode(source, values);
                merges.iter().try_for_each(|merge| merge.add(start, values))?;
                check(values, dtypes).map_err(|(index, error)| {
                    let element = start + index as u64;
                    error.context(format!("tensor {:?}: element {element}", tensor.name))
                })?;
                let mut sums = Vec::new();
                for (&dtype, out) in dtypes.iter().zip(parts) {
                    let measured = encode_and_measure(dtype, values, importance, out, decoded);
                    // Scales that are fitted to large values may be larger than F16 can hold.
                    ensure!(
                        !dtype.is_quantized() || measured.is_finite(),
                        "tensor {:?}: elements from {start} on are too large for the scales of {dtype}: \
                         take F32, F16 or Q8_0 for it, by --tensor-type",
                        tensor.name
                    );
                    sums.push(measured);
                }
                Ok(sums)
            },
        );
        let sums = sums.collect::<Result<Vec<Vec<Sums>>>>()?;
        // In the order of the pieces, so that the number of threads changes nothing.
        let total = |kind: usize| sums.iter().map(|sums| sums[kind]).sum();
        Ok((0..dtypes.len()).map(total).collect())
    }
}

/// Refuses what one of the types can't hold: a model with such a value makes noise, or nothing.
fn check(values: &[f32], dtypes: &[DType]) -> Result<(), (usize, anyhow::Error)> {
    let limit = |dtype: DType| match dtype {
        DType::F32 => f32::INFINITY,
        DType::BF16 => BF16_LIMIT,
        // Blocks have scales in F16.
        _ => F16_LIMIT,
    };
    let least = |a: DType, b: DType| if limit(b) < limit(a) { b } else { a };
    let Some(dtype) = dtypes.iter().copied().reduce(least) else { return Ok(()) };
    let limit = limit(dtype);
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
