//! Importance matrices of a transformer: for each input channel of each matrix, how large its values
//! are in practice. Quantizers weigh errors by them.
//!
//! The file is llama.cpp's (`tools/imatrix`, the GGUF format): for each matrix the sums of squares
//! `NAME.in_sum2` and the number of rows `NAME.counts`.

use super::conditions::Conditions;
use super::denoise::{Checkpoint, Experts, Step};
use super::error::GenerateError;
use super::machine::Machine;
use super::model_folder::ModelFolder;
use super::progress::Progress;
use super::request::Request;
use gguf::{DType, Metadata, TensorSpec, Writer};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What one matrix was multiplied with.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sums {
    rows: u64,
    /// Of each channel's squares.
    squares: Vec<f64>,
}

/// Sums of all matrices of one transformer, by name.
type Matrices = BTreeMap<String, Sums>;

/// Gathers importance while clips are denoised.
#[derive(Default)]
pub struct Collector {
    /// Of the high-noise expert, or the only one, and of the low-noise expert.
    experts: Rc<RefCell<[Matrices; 2]>>,
    clips: u32,
}

impl Collector {
    /// Denoises one clip and keeps what its matrices saw.
    pub fn clip(
        &mut self,
        machine: &Machine,
        folder: &ModelFolder,
        request: &Request,
        conditions: &Conditions,
        progress: &mut dyn Progress,
    ) -> Result<(), GenerateError> {
        let (high, low) = (folder.transformer.clone(), folder.transformer_2.clone());
        let experts = Experts::new(high, low)?;
        let timesteps = request.schedule()?.timesteps;
        let own = |step: usize| {
            timesteps.get(step).map_or(0, |timestep| usize::from(experts.is_low(*timestep)))
        };
        // An expert is loaded, and looks at the prompt, after the step before its first.
        let at_work = Rc::new(RefCell::new(own(0)));
        let mut exec = machine.executor(machine.transformer)?;
        let (all, which) = (self.experts.clone(), at_work.clone());
        exec.observe_squares(move |name, rows, squares| {
            let sums = &mut all.borrow_mut()[*which.borrow()];
            let sums = sums.entry(name.to_owned()).or_default();
            sums.rows += rows;
            sums.squares.resize(squares.len(), 0.0);
            sums.squares
                .iter_mut()
                .zip(squares)
                .for_each(|(sum, square)| *sum += f64::from(*square));
        });
        let start = Checkpoint::start(request, folder.latent_grid()?);
        let mut next = |step: &Step<'_>, _: &mut dyn Progress| {
            *at_work.borrow_mut() = own(step.index + 1);
            Ok(())
        };
        experts.denoise(&mut exec, request, conditions, start, progress, &mut next)?;
        self.clips += 1;
        Ok(())
    }

    /// The files that [`Collector::write`] may write: `path`, or of `two` experts two files beside it,
    /// with `-HighNoise` and `-LowNoise` in their names.
    pub fn files(path: &Path, two: bool) -> Vec<PathBuf> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let extension = path.extension().unwrap_or("gguf".as_ref()).to_string_lossy();
        let labels = if two { &["-HighNoise", "-LowNoise"][..] } else { &[""] };
        let file = |label| path.with_file_name(format!("{stem}{label}.{extension}"));
        labels.iter().map(file).collect()
    }

    /// Writes what was gathered so far in the place of [`Collector::files`], of each expert that had a
    /// step. `dataset` says what the clips showed.
    pub fn write(
        &self,
        path: &Path,
        two: bool,
        dataset: &str,
    ) -> Result<Vec<PathBuf>, gguf::Error> {
        let experts = self.experts.borrow();
        let files = experts.iter().zip(Self::files(path, two));
        let mut written = Vec::new();
        for (matrices, file) in files.filter(|(matrices, _)| !matrices.is_empty()) {
            self.write_one(matrices, &file, dataset)?;
            written.push(file);
        }
        Ok(written)
    }

    fn write_one(
        &self,
        matrices: &Matrices,
        path: &Path,
        dataset: &str,
    ) -> Result<(), gguf::Error> {
        let mut metadata = Metadata::new();
        metadata
            .set("general.type", "imatrix")
            .set("imatrix.datasets", vec![dataset.to_owned()])
            .set("imatrix.chunk_count", self.clips)
            .set("imatrix.chunk_size", 1u32);
        let spec = |name: String, values: usize| TensorSpec {
            name,
            shape: vec![1, values as u64],
            dtype: DType::F32,
        };
        let specs = matrices.iter().flat_map(|(name, sums)| {
            [spec(format!("{name}.in_sum2"), sums.squares.len()), spec(format!("{name}.counts"), 1)]
        });
        let mut writer = Writer::create(path, &metadata, specs.collect())?;
        for sums in matrices.values() {
            let squares: Vec<u8> =
                sums.squares.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect();
            writer.write(&squares)?;
            writer.write(&(sums.rows as f32).to_le_bytes())?;
        }
        writer.finish()?;
        Ok(())
    }
}
