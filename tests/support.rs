//! What the end-to-end tests share: goldens, and comparisons that say where they fail.

use gguf_video::ggml::HostTensor;
use safetensors::{Dtype, SafeTensors};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A file of this package.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A file of the repository.
pub fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Tensors that the reference computed, by name.
pub struct Golden(BTreeMap<String, (Vec<usize>, Vec<f64>)>);

impl Golden {
    pub fn open(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
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
                other => panic!("a golden of {other:?}"),
            }
        };
        let tensors = file.tensors();
        let read = |(name, t): &(String, safetensors::tensor::TensorView<'_>)| {
            (name.clone(), (t.shape().to_vec(), values(t.dtype(), t.data())))
        };
        Self(tensors.iter().map(read).collect())
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    #[track_caller]
    pub fn values(&self, name: &str) -> &[f64] {
        &self.0.get(name).unwrap_or_else(|| panic!("no golden `{name}`")).1
    }

    pub fn integers(&self, name: &str) -> Vec<i64> {
        self.values(name).iter().map(|&v| v as i64).collect()
    }

    /// `name` as the F32 tensor it is, of four dimensions at most.
    pub fn tensor<const N: usize>(&self, name: &str) -> HostTensor {
        let (shape, values) = &self.0[name];
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
}
