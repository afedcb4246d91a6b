//! What the end-to-end tests share: goldens, and comparisons that say where they fail.

pub mod clips;
pub mod frames;
#[cfg(not(target_os = "macos"))]
pub mod gate;
pub mod synthetic;

use gguf_video::ggml::{Device, HostTensor};
use gguf_video::pipeline::{ModelFolder, Places, choose_device};
use safetensors::{Dtype, SafeTensors};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// This package's folder: where cargo says at run time that it is, for a test may run on another machine
/// than the one that built it (`device/verify`).
fn package() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// A file of this package.
pub fn fixture(name: &str) -> PathBuf {
    package().join("fixtures").join(name)
}

/// The CPU, or the device that the environment names as `gguf-video run --device` does:
/// `TEST_DEVICE=vulkan`. One that is named has to be there.
pub fn device() -> Device {
    match std::env::var("TEST_DEVICE") {
        Ok(wanted) => choose_device(&wanted).unwrap_or_else(|e| panic!("TEST_DEVICE: {e}")),
        Err(_) => Device::cpu(),
    }
}

/// A file of the repository.
pub fn repository(name: &str) -> PathBuf {
    package().join("..").join(name)
}

/// The whole checkpoint of a folder of `fixtures`. All but `xs` hold only the components that are
/// their own; the others are `xs`'s, or those of the one other model with an image encoder.
pub fn checkpoint(name: &str) -> tempfile::TempDir {
    let whole = tempfile::tempdir().unwrap();
    let index = fs::read(fixture(name).join("model_index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let components = index.as_object().unwrap().iter();
    // A component is a library and a class, or two nulls where the model has none.
    let components = components.filter(|(_, value)| value[1].is_string()).map(|(name, _)| &**name);
    for file in ["model_index.json"].into_iter().chain(components) {
        let sources = [name, "xs", "wan2.1-i2v-14b"].map(|base| fixture(base).join(file));
        let source = sources.iter().find(|path| path.exists());
        let source = source.unwrap_or_else(|| panic!("{name}: no fixture has {file}"));
        let source = source.canonicalize().unwrap();
        std::os::unix::fs::symlink(source, whole.path().join(file)).unwrap();
    }
    whole
}

/// Converts a checkpoint as `to-gguf CHECKPOINT -o OUTPUT --quant QUANT` does, and opens the files.
pub fn converted(checkpoint: &Path, output: &Path, quant: &str) -> ModelFolder {
    let job = to_gguf::Job {
        name: "test".into(),
        threads: 2,
        ..to_gguf::Job::new(checkpoint, output, &[quant.parse().unwrap()])
    };
    to_gguf::convert(&job, &mut to_gguf::Silent).unwrap_or_else(|e| panic!("{e:#}"));
    open_model(output)
}

/// One part of a fixture as `to-gguf` converts it to F32: the file of `folder`.
pub fn converted_part(name: &str, folder: &str) -> (tempfile::TempDir, Arc<gguf::File>) {
    let (whole, output) = (checkpoint(name), tempfile::tempdir().unwrap());
    let job = to_gguf::Job {
        name: "test".into(),
        threads: 2,
        ..to_gguf::Job::new(whole.path(), output.path(), &["F32".parse().unwrap()])
    };
    to_gguf::convert(&job, &mut to_gguf::Silent).unwrap_or_else(|e| panic!("{e:#}"));
    let path = fs::read_dir(output.path().join(folder)).unwrap().next().unwrap().unwrap().path();
    (output, Arc::new(gguf::File::open(path).unwrap()))
}

pub fn open_model(folder: &Path) -> ModelFolder {
    let places = Places { folder: folder.to_owned(), ..Places::default() };
    ModelFolder::open(&places).unwrap_or_else(|e| panic!("{e}"))
}

/// Tensors that the reference computed, by name, and what it was asked for.
pub struct Golden {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    pub info: serde_json::Value,
}

impl Golden {
    /// `golden.safetensors` and `golden.json` of `folder`.
    pub fn open(folder: &Path) -> Self {
        Self::named(folder, "golden")
    }

    /// Another run of the same checkpoint: `NAME.safetensors` and `NAME.json` of `folder`.
    pub fn named(folder: &Path, name: &str) -> Self {
        let read = |extension: &str| {
            let path = folder.join(format!("{name}.{extension}"));
            fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let bytes = read("safetensors");
        let info = serde_json::from_slice(&read("json")).expect("JSON");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let values = |dtype, data: &[u8]| -> Vec<f64> {
            match dtype {
                Dtype::F32 => data
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes(b.try_into().unwrap()).into())
                    .collect(),
                Dtype::I64 => data
                    .chunks_exact(8)
                    .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64)
                    .collect(),
                // Pixels of eight bits.
                Dtype::U8 => data.iter().map(|&b| b.into()).collect(),
                other => panic!("a golden of {other:?}"),
            }
        };
        let tensors = file.tensors();
        let read = |(name, t): &(String, safetensors::tensor::TensorView<'_>)| {
            (name.clone(), (t.shape().to_vec(), values(t.dtype(), t.data())))
        };
        Self { tensors: tensors.iter().map(read).collect(), info }
    }

    /// Of a larger tensor, the values that the golden keeps: every n-th along each dimension.
    pub fn kept(&self, name: &str, value: &HostTensor) -> Vec<f32> {
        let Some(strides) = self.info["strides"][name].as_array() else {
            return value.data.to_vec();
        };
        let strides: Vec<i64> = strides.iter().map(|s| s.as_i64().unwrap()).collect();
        let shape = value.shape.full();
        let step = |dim: usize| (dim + strides.len()).checked_sub(4).map_or(1, |i| strides[i]);
        let along = |dim: usize| (0..shape[dim]).step_by(step(dim) as usize);
        let mut kept = Vec::new();
        for a in along(0) {
            for b in along(1) {
                for c in along(2) {
                    let row = ((a * shape[1] + b) * shape[2] + c) * shape[3];
                    kept.extend(along(3).map(|d| value.data[(row + d) as usize]));
                }
            }
        }
        kept
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    #[track_caller]
    pub fn values(&self, name: &str) -> &[f64] {
        &self.tensors.get(name).unwrap_or_else(|| panic!("no golden `{name}`")).1
    }

    #[track_caller]
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.tensors.get(name).unwrap_or_else(|| panic!("no golden `{name}`")).0
    }

    /// Frame `index` of `[C, T, H, W]`.
    pub fn frame(&self, name: &str, index: usize) -> Vec<f64> {
        let (shape, values) = &self.tensors[name];
        let [_, t, h, w] = shape[..] else { panic!("`{name}` has {shape:?}") };
        let frames = values.chunks_exact(h * w).enumerate().filter(|(i, _)| i % t == index);
        frames.flat_map(|(_, frame)| frame.iter().copied()).collect()
    }

    pub fn integers(&self, name: &str) -> Vec<i64> {
        self.values(name).iter().map(|&v| v as i64).collect()
    }

    /// `name` as the F32 tensor it is, of four dimensions at most.
    pub fn tensor<const N: usize>(&self, name: &str) -> HostTensor {
        let (shape, values) = &self.tensors[name];
        let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
        let shape: [i64; N] = shape.try_into().expect("so many dimensions");
        HostTensor::new(shape, values.iter().map(|&v| v as f32).collect::<Vec<f32>>())
    }
}

/// The largest difference relative to the largest expected value, and the cosine.
pub struct Distance {
    pub relative: f64,
    pub cosine: f64,
}

pub fn distance(got: &[f32], expected: &[f64]) -> Distance {
    assert_eq!(got.len(), expected.len(), "numbers of values");
    let (mut worst, mut largest, mut dot, mut g2, mut e2) = (0f64, 0f64, 0.0, 0.0, 0.0);
    for (&g, &e) in got.iter().zip(expected) {
        let g = f64::from(g);
        // A NaN is the worst of all.
        worst = if (g - e).is_nan() { f64::INFINITY } else { worst.max((g - e).abs()) };
        largest = largest.max(e.abs());
        (dot, g2, e2) = (dot + g * e, g2 + g * g, e2 + e * e);
    }
    Distance { relative: worst / largest.max(1e-30), cosine: dot / (g2 * e2).sqrt().max(1e-30) }
}

/// Compares tap by tap, in the order of the computation, and fails at the first that differs.
pub struct Comparison {
    tolerance: f64,
    worst: (f64, String),
    count: usize,
}

impl Comparison {
    pub fn new(tolerance: f64) -> Self {
        Self { tolerance, worst: (0.0, String::new()), count: 0 }
    }

    #[track_caller]
    pub fn check(&mut self, name: &str, got: &[f32], expected: &[f64]) {
        let Distance { relative, cosine } = distance(got, expected);
        assert!(
            relative <= self.tolerance,
            "`{name}` is the first tap that differs: {relative:.1e} of its largest value \
             (tolerance {:.0e}), cosine {cosine:.7}",
            self.tolerance
        );
        self.count += 1;
        if relative > self.worst.0 {
            self.worst = (relative, name.to_owned());
        }
    }

    /// A line for the log, and how many taps were compared.
    #[expect(clippy::print_stderr, reason = "shown by `cargo test -- --nocapture`")]
    pub fn finish(self, what: &str) -> usize {
        let (worst, name) = &self.worst;
        eprintln!("{what}: {} taps, worst {worst:.1e} at {name}", self.count);
        self.count
    }
}

/// What an executor's taps said since the last time, in order.
#[derive(Clone, Default)]
pub struct Taps(Rc<RefCell<Vec<(String, HostTensor)>>>);

impl Taps {
    pub fn observer(&self) -> impl FnMut(&str, HostTensor) + 'static {
        let taps = self.0.clone();
        move |name, value| taps.borrow_mut().push((name.to_owned(), value))
    }

    pub fn take(&self) -> Vec<(String, HostTensor)> {
        self.0.take()
    }

    /// The same of a VAE, whose taps come a frame `[H, W, C]` at a time: all frames of a name as one
    /// `[C, T, H, W]`.
    pub fn take_frames(&self) -> Vec<(String, HostTensor)> {
        let mut named: Vec<(String, Vec<HostTensor>)> = Vec::new();
        for (name, frame) in self.take() {
            match named.iter_mut().find(|(known, _)| *known == name) {
                Some((_, frames)) => frames.push(frame),
                None => named.push((name, vec![frame])),
            }
        }
        named.into_iter().map(|(name, frames)| (name, channels_first(&frames))).collect()
    }
}

/// Frames `[H, W, C]` as one `[C, T, H, W]`.
pub fn channels_first(frames: &[HostTensor]) -> HostTensor {
    let [h, w, c] = frames[0].shape.dims();
    let plane = |frame: &HostTensor, channel: usize| {
        frame.data.iter().skip(channel).step_by(c as usize).copied().collect::<Vec<f32>>()
    };
    let planes = (0..c as usize).flat_map(|ch| frames.iter().flat_map(move |f| plane(f, ch)));
    HostTensor::new([c, frames.len() as i64, h, w], planes.collect::<Vec<f32>>())
}
