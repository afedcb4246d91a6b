//! Judges the whole calibration set and prints docs/judge.md: `calibrate-judge [SHEETS]`, where
//! SHEETS is a folder for a contact sheet of every clip. `script/calibrate-judge` calls it.

use e2e::clips::demo::{self, Demo, Order};
use e2e::clips::table::Table;
use e2e::clips::{Class, Clip, drawn};
use e2e::{converted, repository};
use gguf_video::output::{ContactSheet, FrameSink};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use to_gguf::Quant;

const INTRODUCTION: &str = include_str!("clips/judge.md");

/// What drawn clips are made at: size, frames, seed, and whether they go through H.264.
const SHAPES: [((usize, usize), usize, u64, bool); 6] = [
    ((128, 128), 33, 1, false),
    ((128, 128), 33, 2, true),
    ((128, 128), 1, 3, false),
    ((256, 144), 5, 4, false),
    ((832, 480), 5, 6, false),
    ((832, 480), 1, 7, true),
];

#[derive(Default)]
struct Run {
    table: Table,
    sheets: Option<PathBuf>,
}

impl Run {
    #[expect(clippy::print_stderr, reason = "what went wrong, when it does")]
    fn judge(&mut self, clip: Clip) {
        if let Some(folder) = &self.sheets {
            let name: String =
                clip.name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
            let path = folder.join(format!("{:?}-{name}.png", clip.class));
            let frames = clip.frames();
            let mut sheet = Box::new(ContactSheet::create(&path, 5, frames.len()).unwrap());
            frames.iter().for_each(|frame| sheet.push(frame).unwrap());
            FrameSink::finish(sheet).unwrap();
        }
        let errors = self.table.errors().len();
        self.table.add(&clip, &clip.judge());
        if let Some(error) = self.table.errors().get(errors) {
            eprintln!("wrong: {error}");
        }
    }

    fn drawn(&mut self) {
        for (size, frames, seed, compressed) in SHAPES {
            for clip in drawn(size, frames, seed) {
                self.judge(if compressed { clip.compressed() } else { clip });
            }
        }
    }

    fn demo(&mut self) {
        let models = tempfile::tempdir().unwrap();
        let checkpoint = repository("demo/checkpoint");
        let make = |checkpoint: &Path, name: &str, quant: &str| {
            Rc::new(Demo::new(converted(checkpoint, &models.path().join(name), quant), 1))
        };
        let order = |(prompt, seed), side, frames| Order { prompt, side, frames, steps: 20, seed };
        for (number, quant) in Quant::ALL.iter().enumerate() {
            let quant = quant.to_string();
            let demo = make(&checkpoint, &quant, &quant);
            let prompt = demo::PROMPTS[number % demo::PROMPTS.len()];
            self.judge(demo::finished(&demo, &quant, order(prompt, 128, 9)));
        }
        let demo = make(&checkpoint, "whole", "F32");
        for prompt in &demo::PROMPTS[..2] {
            self.judge(demo::finished(&demo, "F32", order(*prompt, 128, 1)));
            for clip in demo::undecided(&demo, order(*prompt, 128, 5)) {
                self.judge(clip);
            }
        }
        self.judge(demo::finished(&demo, "F32", order(demo::PROMPTS[0], 128, 17)).compressed());
        for (seed, (size, frames)) in
            [((128, 128), 5), ((128, 128), 1), ((256, 144), 1), ((128, 128), 9), ((192, 128), 5)]
                .into_iter()
                .enumerate()
        {
            self.judge(demo::decoded_noise(&demo, size, frames, seed as u64));
        }
        self.judge(demo::decoded_noise(&demo, (128, 128), 5, 9).compressed());
        let (part, broken) = ("transformer_2", models.path().join("broken"));
        std::fs::create_dir(&broken).unwrap();
        demo::shuffled(&checkpoint, part, &broken);
        let demo = make(&broken, part, "F32");
        let order = order(demo::PROMPTS[0], 128, 5);
        let name = format!("shuffled weights of {part}, 128x128x5");
        self.judge(Clip::new(name, Class::Bad, move || demo.clip(order)));
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the page, and what is wrong")]
fn main() {
    let sheets = std::env::args().nth(1).map(PathBuf::from);
    let part = |judge: fn(&mut Run)| {
        let mut run = Run { sheets: sheets.clone(), ..Run::default() };
        judge(&mut run);
        run.table
    };
    let table = std::thread::scope(|scope| {
        let drawn = scope.spawn(|| part(Run::drawn));
        let mut table = part(Run::demo);
        table.merge(drawn.join().expect("the drawn clips"));
        table
    });
    println!("{INTRODUCTION}\n{}", table.page().trim_end());
    if !table.errors().is_empty() {
        eprintln!("{} clips were judged wrongly", table.errors().len());
        std::process::exit(1);
    }
}
