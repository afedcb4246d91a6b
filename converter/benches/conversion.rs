//! Processor seconds of whole conversions of a BF16 checkpoint with the shapes of Wan 2.1 1.3B, which is read
//! from the disk, and the seconds of a program that only reads and writes as much. For `script/quantizing`.
//!
//! `cargo bench -p to-gguf -- FOLDER TYPE...`: the folder takes the checkpoint and the files.
#![expect(clippy::print_stdout, reason = "a program that prints a table")]

use half::bf16;
use half::slice::HalfFloatSliceExt;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

const LAYERS: usize = 30;
/// Times that each conversion runs.
const ROUNDS: usize = 3;
/// Names, shapes of A14B, and names of the original code, as the tests have them.
const TENSORS: &str = include_str!("../tests/fixtures/wan.tsv");

fn shape(shape: &str) -> Vec<usize> {
    let smaller = |size: usize| match size {
        5120 => 1536,
        30720 => 6 * 1536,
        13824 => 8960,
        other => other,
    };
    shape.split('x').map(|size| smaller(size.parse().expect("a size"))).collect()
}

fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut tensors = Vec::new();
    for line in TENSORS.lines() {
        let mut columns = line.split('\t');
        let (_, dims, name) = (columns.next(), columns.next(), columns.next());
        let (dims, name) = (dims.expect("a shape"), name.expect("a name"));
        let copies = if name.starts_with("blocks.0.") { LAYERS } else { 1 };
        for n in 0..copies {
            tensors.push((name.replacen("blocks.0.", &format!("blocks.{n}."), 1), shape(dims)));
        }
    }
    tensors
}

/// Writes values that are about normal, as weights are.
fn write(path: &Path) {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    let tensors = tensors();
    for (name, shape) in &tensors {
        let begin = end;
        end += 2 * shape.iter().product::<usize>();
        let entry =
            serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    let mut file = BufWriter::new(File::create(path).expect("a file"));
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("room");
    file.write_all(&header).expect("room");
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 32) as i32 as f32 / i32::MAX as f32
    };
    let mut left = end / 2;
    while left > 0 {
        let len = left.min(1 << 20);
        let normal = |_| (uniform() + uniform() + uniform()) * 0.02;
        let values: Vec<f32> = (0..len).map(normal).collect();
        let mut halves = vec![bf16::ZERO; len];
        halves.convert_from_f32_slice(&values);
        for half in halves {
            file.write_all(&half.to_le_bytes()).expect("room");
        }
        left -= len;
    }
    file.into_inner().expect("room").sync_all().expect("room");
}

/// Drops what the system has of a file in memory.
#[cfg(target_os = "linux")]
fn forget(path: &Path) {
    let file = File::open(path).expect("it is there");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("Linux has it");
}

/// Other systems keep it: what is read may come from memory there.
#[cfg(not(target_os = "linux"))]
fn forget(_: &Path) {}

/// Seconds of reading all of `source` and writing `bytes` at the same time, and nothing else.
fn disk(source: &Path, bytes: u64, path: &Path) -> f64 {
    const PIECE: usize = 4 << 20;
    forget(source);
    let begin = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::open(source).expect("it is there");
            let mut buffer = vec![0; PIECE];
            while file.read(&mut buffer).expect("the disk reads") > 0 {}
        });
        let mut file = File::create(path).expect("a file");
        let piece: Vec<u8> = (0..PIECE).map(|i| ((i * i) >> 7) as u8).collect();
        let mut left = bytes as usize;
        while left > 0 {
            let len = left.min(PIECE);
            file.write_all(&piece[..len]).expect("room");
            left -= len;
        }
        file.sync_all().expect("room");
    });
    let seconds = begin.elapsed().as_secs_f64();
    fs::remove_file(path).expect("ours");
    seconds
}

fn seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(folder) = arguments.next() else {
        println!("conversion: give a folder, as script/quantizing does");
        return;
    };
    let source = Path::new(&folder).join("wan2.1-t2v-1.3b.safetensors");
    if !source.exists() {
        write(&source);
    }
    let gb = fs::metadata(&source).expect("it is there").len() as f64 / 1e9;
    println!(
        "| type | read GB | written GB | CPU seconds | of these in the kernel | seconds | of the disk alone |"
    );
    println!("|---|---|---|---|---|---|---|");
    for quant in arguments {
        // By turns; of each the fastest, which the system's own work disturbed least.
        let runs: Vec<Run> = (0..ROUNDS).map(|_| Run::of(&source, &quant)).collect();
        let run = runs.iter().min_by(|a, b| a.wall.total_cmp(&b.wall)).expect("some rounds");
        let alone = runs.iter().map(|run| run.alone).fold(f64::INFINITY, f64::min);
        let Run { written, user, kernel, wall, .. } = run;
        let (written, all) = (*written as f64 / 1e9, user + kernel);
        println!(
            "| {quant} | {gb:.2} | {written:.2} | {all:.1} | {kernel:.1} | {wall:.1} | {alone:.1} |"
        );
    }
}

/// A conversion, and the disk by itself right after it, in seconds.
struct Run {
    written: u64,
    user: f64,
    kernel: f64,
    wall: f64,
    alone: f64,
}

impl Run {
    fn of(source: &Path, quant: &str) -> Self {
        let output = source.with_file_name("out");
        forget(source);
        let used = || getrusage(UsageWho::RUSAGE_CHILDREN).expect("every system has it");
        let (before, begin) = (used(), Instant::now());
        let converted = Command::new(env!("CARGO_BIN_EXE_to-gguf"))
            .arg(source)
            .arg("-o")
            .arg(&output)
            .args(["--quant", quant, "--threads", "2"])
            .output()
            .expect("it runs");
        assert!(converted.status.success(), "{converted:?}");
        let (after, wall) = (used(), begin.elapsed().as_secs_f64());
        let files = fs::read_dir(&output).expect("a folder");
        let bytes = files.map(|file| file.expect("a file").metadata().expect("its size").len());
        let written = bytes.sum();
        fs::remove_dir_all(&output).expect("ours");
        Run {
            written,
            user: seconds(after.user_time()) - seconds(before.user_time()),
            kernel: seconds(after.system_time()) - seconds(before.system_time()),
            wall,
            alone: disk(source, written, &source.with_file_name("copy")),
        }
    }
}
