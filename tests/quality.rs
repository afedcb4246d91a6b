//! Prints docs/quality.md: what each quantization does to the demo's clips, with and without an importance
//! matrix, mixed as published and of one type. `script/quality` calls it.

use e2e::clips::demo::{Demo, Order, PROMPTS};
use e2e::{open_model, quiet, repository};
use gguf_video::ggml::{Device, Precision};
use gguf_video::output::Frame;
use gguf_video::pipeline::{Collector, Machine, ModelFolder, Request, Silent, encode};
use std::path::{Path, PathBuf};
use to_gguf::{Job, Part, Recipe, Types};

const INTRODUCTION: &str = include_str!("quality.md");

/// Quantizations in the order of their sizes.
const QUANTS: [&str; 10] =
    ["Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_M", "Q2_K"];

/// Those that are published as mixtures.
const MIXED: [&str; 6] = ["Q5_K_M", "Q5_0", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K"];

/// Prompts for the importance matrix: none of those that are looked at.
const TAUGHT: [&str; 8] = [
    "a small green ball moving left on a navy background",
    "a big orange square growing on a black background",
    "the small blue triangle moving down over a gray background",
    "a big purple ring bouncing on a brown background",
    "the big white ball shrinking on a navy background",
    "a small cyan square moving up on a gray background",
    "one big red triangle standing still on a brown background",
    "a small yellow ring moving right over a black background",
];

const FRAMES: usize = 17;
const STEPS: usize = 20;

/// A row of the table.
struct Row {
    quant: &'static str,
    recipe: Recipe,
    imatrix: bool,
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let whole = converted(
        folder.path(),
        &Row { quant: "F32", recipe: Recipe::Published, imatrix: false },
        None,
    );
    let reference: Vec<Vec<Frame>> = clips(&whole.0);
    let matrix = taught(&whole.0, folder.path());

    let mut lines = Vec::new();
    for quant in QUANTS {
        for (recipe, imatrix) in [
            (Recipe::Uniform, false),
            (Recipe::Published, false),
            (Recipe::Published, true),
            (Recipe::Boundary, true),
        ] {
            if recipe == Recipe::Uniform && !MIXED.contains(&quant) {
                continue;
            }
            let row = Row { quant, recipe, imatrix };
            let (model, bytes, error) = converted(folder.path(), &row, imatrix.then_some(&matrix));
            let pairs = || reference.iter().zip(clips(&model)).collect::<Vec<_>>();
            let values: Vec<(f64, f64)> = pairs().iter().map(|(a, b)| compared(a, b)).collect();
            let mean = |of: fn(&(f64, f64)) -> f64| {
                values.iter().map(of).sum::<f64>() / values.len() as f64
            };
            let worst = values.iter().map(|v| v.0).fold(f64::INFINITY, f64::min);
            let recipe = match recipe {
                Recipe::Uniform => "one type",
                Recipe::Published => "published",
                Recipe::Boundary => "boundary",
            };
            lines.push(format!(
                "| {quant} | {recipe} | {} | {:.2} | {error:.4} | {:.1} | {worst:.1} | {:.4} |",
                if imatrix { "yes" } else { "" },
                bytes as f64 / 1e6,
                mean(|v| v.0),
                mean(|v| v.1)
            ));
        }
    }
    let table = "| quantization | recipe | imatrix | MB of an expert | error of its weights | PSNR, dB | lowest | SSIM |\n| --- | --- | --- | --- | --- | --- | --- | --- |";
    print(&format!("{}\n{table}\n{}", INTRODUCTION.trim_end(), lines.join("\n")));
}

#[expect(clippy::print_stdout, reason = "the page")]
fn print(page: &str) {
    println!("{page}");
}

/// The demo as `row` says, bytes of its high-noise expert, and the relative RMS error of its weights.
fn converted(folder: &Path, row: &Row, matrix: Option<&[PathBuf; 2]>) -> (ModelFolder, u64, f64) {
    let Row { quant, recipe, imatrix } = *row;
    let output = folder.join(format!("{quant}-{recipe:?}-{imatrix}"));
    let job = Job {
        name: "demo".into(),
        types: Types { recipe, ..Types::default() },
        imatrix_high: matrix.map(|[high, _]| high.clone()),
        imatrix_low: matrix.map(|[_, low]| low.clone()),
        ..Job::new(repository("demo/checkpoint"), &output, &[quant.parse().unwrap()])
    };
    let report = to_gguf::convert(&job, &mut quiet()).unwrap_or_else(|e| panic!("{e:#}"));
    let high = report.files.iter().find(|file| file.part == Part::HighNoise).unwrap();
    let (bytes, error) = (high.file_bytes, high.relative_rmse);
    (open_model(&output), bytes, error)
}

fn clips(model: &ModelFolder) -> Vec<Vec<Frame>> {
    let demo = Demo::new(model.clone(), 2);
    let order = |(prompt, seed)| Order { prompt, side: 128, frames: FRAMES, steps: STEPS, seed };
    PROMPTS.iter().map(|&of| demo.clip(order(of))).collect()
}

/// Importance matrices of both experts.
fn taught(model: &ModelFolder, folder: &Path) -> [PathBuf; 2] {
    let machine = Machine::on(Device::cpu(), Precision::Native, 2);
    let mut collector = Collector::default();
    for (seed, prompt) in TAUGHT.into_iter().enumerate() {
        let request = Request {
            prompt: prompt.into(),
            width: 128,
            height: 128,
            frames: FRAMES,
            steps: STEPS,
            guidance_scale: 4.0,
            guidance_scale_low: 4.0,
            flow_shift: 3.0,
            seed: 100 + seed as u64,
            ..Request::default()
        };
        let exec = &mut machine.executor(machine.text).unwrap();
        let conditions = encode(exec, model, &request, &mut Silent).unwrap();
        collector.clip(&machine, model, &request, &conditions, &mut Silent).unwrap();
    }
    let written = collector.write(&folder.join("matrix.gguf"), "eight prompts").unwrap();
    written.try_into().expect("two experts")
}

/// Peak signal-to-noise ratio in decibels, and structural similarity, both over all frames.
fn compared(a: &[Frame], b: &[Frame]) -> (f64, f64) {
    let (mut squares, mut count, mut similar) = (0.0, 0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let off = |(x, y): (&u8, &u8)| (f64::from(*x) - f64::from(*y)).powi(2);
        squares += a.rgb.iter().zip(&b.rgb).map(off).sum::<f64>();
        count += a.rgb.len();
        similar += ssim(a, b);
    }
    let psnr = 10.0 * (255.0 * 255.0 * count as f64 / squares.max(1e-9)).log10();
    (psnr, similar / a.len() as f64)
}

/// Of luma, in windows of 8x8 that overlap by half (Wang et al. 2004, "Image quality assessment: from error
/// visibility to structural similarity").
fn ssim(a: &Frame, b: &Frame) -> f64 {
    const SIDE: usize = 8;
    const C1: f64 = 6.5025;
    const C2: f64 = 58.5225;
    let luma = |frame: &Frame| -> Vec<f64> {
        let weigh =
            |p: &[u8]| 0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2]);
        frame.rgb.chunks_exact(3).map(weigh).collect()
    };
    let (x, y) = (luma(a), luma(b));
    let (mut sum, mut windows) = (0.0, 0);
    for top in (0..=a.height - SIDE).step_by(SIDE / 2) {
        for left in (0..=a.width - SIDE).step_by(SIDE / 2) {
            let places = (top..top + SIDE).flat_map(|r| (left..left + SIDE).map(move |c| (r, c)));
            let places: Vec<usize> = places.map(|(r, c)| r * a.width + c).collect();
            let n = places.len() as f64;
            let mean = |v: &[f64]| places.iter().map(|&i| v[i]).sum::<f64>() / n;
            let (mx, my) = (mean(&x), mean(&y));
            let moment = |v: &[f64], mv: f64, w: &[f64], mw: f64| {
                places.iter().map(|&i| (v[i] - mv) * (w[i] - mw)).sum::<f64>() / (n - 1.0)
            };
            let (vx, vy, vxy) =
                (moment(&x, mx, &x, mx), moment(&y, my, &y, my), moment(&x, mx, &y, my));
            sum += (2.0 * mx * my + C1) * (2.0 * vxy + C2)
                / ((mx * mx + my * my + C1) * (vx + vy + C2));
            windows += 1;
        }
    }
    sum / f64::from(windows)
}
