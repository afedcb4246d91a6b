//! Prints docs/quality.md: what each quantization does to the demo's clips, with and without an importance
//! matrix, mixed as published and of one type. `script/quality` calls it.

use e2e::clips::demo::{Demo, Order, PROMPTS};
use e2e::{open_model, repository};
use gguf_video::ggml::{Device, Precision};
use gguf_video::output::Frame;
use gguf_video::pipeline::{Collector, Machine, ModelFolder, Request, Silent, encode};
use std::path::{Path, PathBuf};
use std::{fs, thread};
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

/// How an expert's matrices get their types.
#[derive(Clone, Copy, PartialEq)]
enum Mix {
    OneType,
    Published,
    Boundary,
    /// As many bytes as the published file of the name has, spent by measured error.
    Filled(u64),
}

impl Mix {
    fn name(self) -> &'static str {
        match self {
            Self::OneType => "one type",
            Self::Published => "published",
            Self::Boundary => "boundary",
            Self::Filled(_) => "filled",
        }
    }
}

/// A row of the table, and what came of it.
struct Row {
    quant: &'static str,
    mix: Mix,
    imatrix: bool,
    /// Bytes of the expert of the first steps.
    bytes: u64,
    /// Relative RMS error of its weights.
    error: f64,
    /// Over all clips, in decibels.
    psnr: f64,
    lowest: f64,
    ssim: f64,
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, ..) = converted(folder.path(), "F32", Mix::Published, None);
    let reference = clips(&whole);
    let matrix = taught(&whole, folder.path());

    let mut rows: Vec<Row> = Vec::new();
    for quant in QUANTS {
        let mixed = MIXED.contains(&quant);
        let mut published = 0;
        for (mix, imatrix) in [
            (Mix::OneType, false),
            (Mix::Published, false),
            (Mix::Published, true),
            (Mix::Boundary, true),
            (Mix::Filled(0), false),
        ] {
            let mix = match mix {
                Mix::OneType | Mix::Filled(_) if !mixed => continue,
                Mix::Filled(_) => Mix::Filled(published),
                mix => mix,
            };
            let (model, bytes, error) =
                converted(folder.path(), quant, mix, imatrix.then_some(&matrix));
            if mix == Mix::Published {
                published = bytes;
            }
            let shown = clips(&model);
            let values: Vec<(f64, f64)> =
                reference.iter().zip(&shown).map(|(a, b)| compared(a, b)).collect();
            let mean = |of: fn(&(f64, f64)) -> f64| {
                values.iter().map(of).sum::<f64>() / values.len() as f64
            };
            let row = Row {
                quant,
                mix,
                imatrix,
                bytes,
                error,
                psnr: mean(|v| v.0),
                lowest: values.iter().map(|v| v.0).fold(f64::INFINITY, f64::min),
                ssim: mean(|v| v.1),
            };
            progress(&row.line());
            rows.push(row);
        }
    }
    fs::write(repository("docs/quality.svg"), plot(&rows)).unwrap();
    let table = "| quantization | types | imatrix | MB of an expert | error of its weights | PSNR, dB | lowest | SSIM |\n| --- | --- | --- | --- | --- | --- | --- | --- |";
    let lines: Vec<String> = rows.iter().map(Row::line).collect();
    print(&format!("{}\n\n{table}\n{}", INTRODUCTION.trim_end(), lines.join("\n")));
}

impl Row {
    fn line(&self) -> String {
        format!(
            "| {} | {} | {} | {:.2} | {:.4} | {:.1} | {:.1} | {:.4} |",
            self.quant,
            self.mix.name(),
            if self.imatrix { "yes" } else { "" },
            self.bytes as f64 / 1e6,
            self.error,
            self.psnr,
            self.lowest,
            self.ssim
        )
    }
}

#[expect(clippy::print_stderr, reason = "what it waits for")]
fn progress(line: &str) {
    eprintln!("{line}");
}

#[expect(clippy::print_stdout, reason = "the page")]
fn print(page: &str) {
    println!("{page}");
}

/// The demo's files, bytes of its high-noise expert, and the relative RMS error of that expert's weights.
fn converted(
    folder: &Path,
    quant: &'static str,
    mix: Mix,
    matrix: Option<&[PathBuf; 2]>,
) -> (ModelFolder, u64, f64) {
    let output = folder.join(format!("{quant}-{}-{}", mix.name(), matrix.is_some()));
    let recipe = match mix {
        Mix::OneType => Recipe::Uniform,
        Mix::Boundary => Recipe::Boundary,
        Mix::Published | Mix::Filled(_) => Recipe::Published,
    };
    let job = Job {
        name: "demo".into(),
        types: Types { recipe, ..Types::default() },
        target_size: if let Mix::Filled(bytes) = mix { Some(bytes) } else { None },
        imatrix_high: matrix.map(|[high, _]| high.clone()),
        imatrix_low: matrix.map(|[_, low]| low.clone()),
        ..Job::new(repository("demo/checkpoint"), &output, &[quant.parse().unwrap()])
    };
    let report = to_gguf::convert(&job, &mut to_gguf::Silent).unwrap_or_else(|e| panic!("{e:#}"));
    let high = report.files.iter().find(|file| file.part == Part::HighNoise).unwrap();
    let (bytes, error) = (high.file_bytes, high.relative_rmse);
    (open_model(&output), bytes, error)
}

/// Clips of all prompts, each on one thread: their sum is what takes time.
fn clips(model: &ModelFolder) -> Vec<Vec<Frame>> {
    let clip = |(prompt, seed)| {
        let order = Order { prompt, side: 128, frames: FRAMES, steps: STEPS, seed };
        Demo::new(model.clone(), 1).clip(order)
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let each = PROMPTS.len().div_ceil(workers);
    thread::scope(|scope| {
        let start = |prompts: &'static [(&'static str, u64)]| {
            scope.spawn(move || prompts.iter().copied().map(clip).collect::<Vec<_>>())
        };
        let started: Vec<_> = PROMPTS.chunks(each).map(start).collect();
        started.into_iter().flat_map(|worker| worker.join().expect("clips")).collect()
    })
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
    let written = collector.write(&folder.join("matrix.gguf"), true, "eight prompts").unwrap();
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

/// Size against PSNR: a colour for each way of choosing types, a line through its sizes.
fn plot(rows: &[Row]) -> String {
    const SERIES: [(&str, bool, &str); 5] = [
        ("one type", false, "#888888"),
        ("published", false, "#1f77b4"),
        ("published", true, "#2ca02c"),
        ("boundary", true, "#d62728"),
        ("filled", false, "#9467bd"),
    ];
    let (width, height, left, bottom) = (760.0, 440.0, 60.0, 50.0);
    let range = |of: fn(&Row) -> f64| {
        let fold = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
        rows.iter().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), fold)
    };
    let megabytes = |row: &Row| row.bytes as f64 / 1e6;
    let ((x0, x1), (y0, y1)) = (range(|row| row.bytes as f64 / 1e6), range(|row| row.psnr));
    let x = |value: f64| left + 20.0 + (value - x0) / (x1 - x0) * (width - left - 60.0);
    let y =
        |value: f64| height - bottom - 15.0 - (value - y0) / (y1 - y0) * (height - bottom - 45.0);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <path d=\"M{left} 15V{base}H{width}\" fill=\"none\" stroke=\"black\"/>\n\
         <text x=\"{middle}\" y=\"{under}\" text-anchor=\"middle\">MB of an expert</text>\n\
         <text x=\"{left}\" y=\"12\">PSNR, dB</text>\n",
        base = height - bottom,
        middle = width / 2.0,
        under = height - 12.0,
    );
    for tick in (x0.ceil() as i64)..=(x1.floor() as i64) {
        let (at, under) = (x(tick as f64), height - bottom + 16.0);
        svg += &format!("<text x=\"{at:.1}\" y=\"{under}\" text-anchor=\"middle\">{tick}</text>\n");
    }
    for tick in ((y0 / 5.0).ceil() as i64)..=((y1 / 5.0).floor() as i64) {
        let (value, before) = (tick * 5, left - 6.0);
        let at = y(value as f64);
        svg += &format!("<text x=\"{before}\" y=\"{at:.1}\" text-anchor=\"end\">{value}</text>\n");
    }
    for (place, (mix, imatrix, colour)) in SERIES.into_iter().enumerate() {
        let mut of: Vec<&Row> =
            rows.iter().filter(|row| row.mix.name() == mix && row.imatrix == imatrix).collect();
        of.sort_by_key(|row| row.bytes);
        let points: Vec<String> =
            of.iter().map(|row| format!("{:.1},{:.1}", x(megabytes(row)), y(row.psnr))).collect();
        svg += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>\n",
            points.join(" ")
        );
        for (n, row) in of.iter().enumerate() {
            svg += &format!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>\n",
                x(megabytes(row)),
                y(row.psnr)
            );
            if mix == "published" && !imatrix {
                svg += &format!(
                    "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>\n",
                    x(megabytes(row)) + 7.0,
                    // Above and below by turns: neighbours are close.
                    y(row.psnr) + if n % 2 == 0 { 13.0 } else { -7.0 },
                    row.quant
                );
            }
        }
        let label = if imatrix { format!("{mix}, imatrix") } else { mix.to_owned() };
        svg += &format!(
            "<text x=\"{}\" y=\"{}\" fill=\"{colour}\">{label}</text>\n",
            left + 15.0,
            30 + 16 * place
        );
    }
    svg + "</svg>\n"
}
