//! The options of a conversion.

use anyhow::{Context, Result, ensure};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::bar::Bar;
use super::{Outcome, json};
use crate::job::default_name;
use crate::report::Report;
use crate::{Job, Layout, Lora, Part, Quant, Recipe, Rule, Types, publish};

const TYPES: &str = "Types";
const LORAS: &str = "LoRAs";
const SOURCE: &str = "What the source doesn't say";

#[derive(Debug, clap::Args)]
#[group(id = "convert")]
pub(super) struct Args {
    /// The checkpoint: a folder in diffusers layout or of the original release, a .safetensors or
    /// a .gguf file
    source: PathBuf,

    /// The folder to write to; it is created if need be
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,

    /// What the block matrices become, with a file for each: F32, F16, BF16, Q8_0, Q6_K, Q5_K_M,
    /// Q5_K_S, Q5_1, Q5_0, Q4_K_M, Q4_K_S, Q4_1, Q4_0, IQ4_NL, IQ4_XS, Q3_K_L, Q3_K_M, Q3_K_S, Q2_K;
    /// Q5_K, Q4_K and Q3_K without a mixture
    #[arg(
        short,
        long,
        value_name = "TYPE",
        value_delimiter = ',',
        required_unless_present = "target_size",
        help_heading = TYPES,
        value_parser = QuantParser,
        hide_possible_values = true
    )]
    quant: Vec<Quant>,

    /// The same for the high-noise expert alone
    #[arg(long, value_name = "TYPE", value_delimiter = ',', help_heading = TYPES, value_parser = QuantParser, hide_possible_values = true)]
    quant_high: Vec<Quant>,

    /// The same for the low-noise expert alone
    #[arg(long, value_name = "TYPE", value_delimiter = ',', help_heading = TYPES, value_parser = QuantParser, hide_possible_values = true)]
    quant_low: Vec<Quant>,

    /// The same for the image encoder alone [default: F16; F32 if --quant is]
    #[arg(long, value_name = "TYPE", value_delimiter = ',', help_heading = TYPES, value_parser = QuantParser, hide_possible_values = true)]
    quant_image: Vec<Quant>,

    /// How types follow from --quant
    #[arg(long, value_enum, default_value_t, help_heading = TYPES)]
    recipe: RecipeName,

    /// The type of matrices whose names in the GGUF file match; the first match counts
    #[arg(long, value_name = "REGEX=TYPE", help_heading = TYPES)]
    tensor_type: Vec<Rule>,

    /// Choose types by measured error so that each transformer takes no more than this, such as
    /// 9.5GB; --quant is for the text encoder then (Q8_0 unless given)
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with_all = ["quant_high", "quant_low", "recipe"], help_heading = TYPES)]
    target_size: Option<u64>,

    /// How kernels of 3-D convolutions are stored: 5d, or fold4d for readers that stop at four
    /// dimensions
    #[arg(long, default_value_t, help_heading = TYPES, value_parser = layout(), hide_possible_values = true)]
    layout: Layout,

    /// A LoRA to merge before quantizing, with its strength
    #[arg(long, value_name = "FILE[:STRENGTH]", help_heading = LORAS)]
    lora: Vec<Lora>,

    /// The same for the high-noise expert alone
    #[arg(long, value_name = "FILE[:STRENGTH]", help_heading = LORAS)]
    lora_high: Vec<Lora>,

    /// The same for the low-noise expert alone
    #[arg(long, value_name = "FILE[:STRENGTH]", help_heading = LORAS)]
    lora_low: Vec<Lora>,

    /// An importance matrix, of llama.cpp or stable-diffusion.cpp
    #[arg(long, value_name = "FILE", help_heading = TYPES)]
    imatrix: Vec<PathBuf>,

    /// The same for the high-noise expert alone
    #[arg(long, value_name = "FILE", help_heading = TYPES)]
    imatrix_high: Option<PathBuf>,

    /// The same for the low-noise expert alone
    #[arg(long, value_name = "FILE", help_heading = TYPES)]
    imatrix_low: Option<PathBuf>,

    /// What the transformer in a file does [default: what the file or its name says]
    #[arg(long, value_enum, help_heading = SOURCE)]
    expert: Option<Expert>,

    /// tokenizer.json, or its folder, for a text encoder in a file
    #[arg(long, value_name = "PATH", help_heading = SOURCE)]
    tokenizer: Option<PathBuf>,

    /// How the files' names begin [default: the source's name less "-Diffusers" and its type]
    #[arg(long)]
    name: Option<String>,

    /// The licence for metadata and model card [default: that of the source's README.md]
    #[arg(long, help_heading = SOURCE)]
    license: Option<String>,

    /// Also write what a published model has: model card, SHA256SUMS, the VAE for ComfyUI (always
    /// written of HunyuanVideo)
    #[arg(long)]
    publish: bool,

    /// Only say what would be written
    #[arg(long)]
    dry_run: bool,

    /// Write the error of every tensor to this file, the largest first
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    errors: Option<PathBuf>,

    /// Print as JSON what was written, or would be
    #[arg(long)]
    json: bool,

    /// How many threads quantize [default: one for each processor]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// Replace files that exist
    #[arg(long)]
    force: bool,

    /// Keep files that an interrupted conversion finished, and write the others
    #[arg(long = "continue", conflicts_with = "force")]
    resume: bool,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum RecipeName {
    /// As in the files in circulation (city96; llama.cpp for the text encoder)
    #[default]
    Published,
    /// One type for all block matrices
    Uniform,
    /// As published, with Wan's first two and last three blocks two grades higher
    Boundary,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Expert {
    High,
    Low,
    Single,
}

/// Takes a type's name in upper or lower case; a wrong one is answered with the nearest.
#[derive(Clone)]
struct QuantParser;

impl QuantParser {
    fn names() -> PossibleValuesParser {
        PossibleValuesParser::new(Quant::ALL.iter().map(|quant| quant.name()))
    }
}

impl TypedValueParser for QuantParser {
    type Value = Quant;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Quant, clap::Error> {
        // What is near is told by the letters.
        let value = value.to_ascii_uppercase();
        let name = Self::names().parse_ref(command, argument, &value)?;
        Ok(name.parse().expect("a name of the list"))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names = Quant::ALL.iter().map(|quant| PossibleValue::new(quant.name()));
        Some(Box::new(names))
    }
}

pub(super) fn layout() -> impl TypedValueParser<Value = Layout> {
    PossibleValuesParser::new(["5d", "fold4d"])
        .map(|name| name.parse::<Layout>().expect("a name of the list"))
}

/// Bytes, as "9.5GB" or "800MB"; "GiB" and "MiB" are the binary ones.
fn size(text: &str) -> Result<u64, String> {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("GB", 1_000_000_000), ("MB", 1_000_000)];
    let parsed = units.iter().find_map(|&(unit, bytes)| {
        let number: f64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        (number > 0.0 && number.is_finite()).then_some((number * bytes as f64) as u64)
    });
    parsed.ok_or_else(|| format!("{text:?} is no size such as 9.5GB or 800MiB"))
}

impl TryFrom<Args> for Job {
    type Error = anyhow::Error;

    fn try_from(args: Args) -> Result<Job> {
        let source = args.source.display();
        let name = match &args.name {
            Some(name) => name.clone(),
            None => {
                ensure!(args.source.exists(), "{source}: no such file or folder");
                default_name(&args.source).with_context(|| {
                    format!("{source}: files can't be named after this; give --name")
                })?
            }
        };
        let plain = !name.is_empty()
            && !name.starts_with('.')
            && !name.contains(['/', '\\'])
            && !name.contains(char::is_control);
        ensure!(plain, "--name {name:?} can't begin a file's name");
        let threads = match args.threads {
            Some(threads) => threads.into(),
            None => thread::available_parallelism().context("cannot count the processors")?.get(),
        };
        let own = |quants: Vec<Quant>| (!quants.is_empty()).then_some(quants);
        let recipe = match args.recipe {
            RecipeName::Published => Recipe::Published,
            RecipeName::Uniform => Recipe::Uniform,
            RecipeName::Boundary => Recipe::Boundary,
        };
        if let Some(mixture) = args.quant.iter().find(|quant| quant.is_mixture()) {
            ensure!(
                recipe != Recipe::Uniform,
                "--recipe uniform: {mixture} names a mixture; its type alone is {}",
                mixture.dtype()
            );
        }
        let quants = match (&args.quant[..], args.target_size) {
            ([], Some(_)) => vec!["Q8_0".parse().expect("a known name")],
            (quants, _) => quants.to_vec(),
        };
        Ok(Job {
            quants,
            quants_high: own(args.quant_high),
            quants_low: own(args.quant_low),
            quants_image: own(args.quant_image),
            name,
            threads,
            force: args.force,
            resume: args.resume,
            types: Types { recipe, rules: args.tensor_type },
            target_size: args.target_size,
            layout: args.layout,
            loras: args.lora,
            loras_high: args.lora_high,
            loras_low: args.lora_low,
            imatrix: args.imatrix,
            imatrix_high: args.imatrix_high,
            imatrix_low: args.imatrix_low,
            part: args.expert.map(|expert| match expert {
                Expert::High => Part::HighNoise,
                Expert::Low => Part::LowNoise,
                Expert::Single => Part::Single,
            }),
            tokenizer: args.tokenizer,
            license: args.license,
            publish: args.publish,
            dry_run: args.dry_run,
            ..Job::new(args.source, args.output, &[])
        })
    }
}

/// Whether a file has errors of tensors, or nothing.
fn is_table(path: &Path) -> bool {
    let mut first = Vec::new();
    let begin = Report::ERRORS.as_bytes();
    let read = File::open(path).and_then(|f| f.take(begin.len() as u64).read_to_end(&mut first));
    read.is_ok() && (first.is_empty() || first == begin)
}

/// Converts with a progress bar, and stops where Ctrl-C (or a termination signal) says so.
pub(super) fn run(args: Args, quiet: bool) -> Result<Outcome> {
    let (errors, json) = (args.errors.clone(), args.json);
    let job = Job::try_from(args)?;
    if let Some(path) = &errors {
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        ensure!(
            folder.is_none_or(Path::is_dir),
            "--errors {}: the folder isn't there",
            path.display()
        );
        ensure!(
            !path.exists() || path.is_file() && is_table(path),
            "--errors {}: the file is there and has no errors of tensors; choose another name",
            path.display()
        );
    }
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    ctrlc::set_handler(move || raised.store(true, Ordering::Relaxed))
        .context("cannot listen for Ctrl-C")?;
    let report = crate::convert(&job, &mut Bar::new(stop, quiet))?;
    if let Some(path) = errors {
        publish::whole(&path, &report.errors())?;
    }
    let outcome = match json {
        true => Outcome::json(&json::report(&report), true),
        false => Outcome { warnings: report.warnings(), ..Outcome::fine(report) },
    };
    Ok(outcome)
}
