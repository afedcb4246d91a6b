//! Clips that the demo checkpoint makes, whole and broken.

use super::canvas::Random;
use super::{Class, Clip};
use gguf_video::ggml::{Device, HostTensor, Precision};
use gguf_video::output::Frame;
use gguf_video::pipeline::noise::Generator;
use gguf_video::pipeline::{
    Checkpoint, Experts, Machine, ModelFolder, Progress, Request, Silent, Step, decode, encode,
};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

/// What the demo is asked for: pixels of a side, frames, steps, seed.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    pub prompt: &'a str,
    pub side: usize,
    pub frames: usize,
    pub steps: usize,
    pub seed: u64,
}

impl Order<'_> {
    fn request(&self) -> Request {
        Request {
            prompt: self.prompt.into(),
            negative_prompt: String::new(),
            width: self.side,
            height: self.side,
            frames: self.frames,
            steps: self.steps,
            guidance_scale: 4.0,
            guidance_scale_low: 4.0,
            flow_shift: 3.0,
            seed: self.seed,
            ..Request::default()
        }
    }
}

/// A model of the demo's kind on the CPU.
pub struct Demo {
    machine: Machine,
    folder: ModelFolder,
}

impl Demo {
    pub fn new(folder: ModelFolder, threads: usize) -> Self {
        Self { machine: Machine::on(Device::cpu(), Precision::Native, threads), folder }
    }

    /// The latents after every step; the last ones are clean.
    pub fn denoise(&self, order: Order<'_>) -> Vec<HostTensor> {
        let request = order.request();
        let exec = &mut self.machine.executor(self.machine.text).unwrap();
        let prompts = encode(exec, &self.folder, &request, &mut Silent).unwrap();
        let experts =
            Experts::new(self.folder.transformer.clone(), self.folder.transformer_2.clone());
        let exec = &mut self.machine.executor(self.machine.transformer).unwrap();
        let mut steps = Vec::new();
        let mut keep = |step: &Step<'_>, _: &mut dyn Progress| {
            steps.push(step.latents.clone());
            Ok(())
        };
        let start = Checkpoint::start(&request, self.folder.latent_grid().unwrap());
        let experts = experts.unwrap();
        experts.denoise(exec, &request, &prompts, start, &mut Silent, &mut keep).unwrap();
        steps
    }

    /// Latents `[C, F, H, W]` as the VAE shows them.
    pub fn decode(&self, latents: HostTensor) -> Vec<Frame> {
        let frames = (latents.shape.full()[1] as usize - 1) * 4 + 1;
        let mut shown = Vec::new();
        let mut push = |frame: &Frame| {
            shown.push(frame.clone());
            Ok(())
        };
        let exec = &mut self.machine.executor(self.machine.vae).unwrap();
        decode(exec, &self.folder, latents, frames, &mut Silent, &mut push).unwrap();
        shown
    }

    pub fn clip(&self, order: Order<'_>) -> Vec<Frame> {
        self.decode(self.denoise(order).pop().expect("a step"))
    }
}

/// Standard normal latents of `frames` frames of `width`×`height` pixels.
pub fn noise((width, height): (usize, usize), frames: usize, seed: u64) -> HostTensor {
    let shape = [16, (frames as i64 - 1) / 4 + 1, height as i64 / 8, width as i64 / 8];
    let count = shape.iter().product::<i64>() as usize;
    HostTensor::new(shape, Generator::new(seed).normal(count))
}

/// Prompts that the checkpoint knows, and seeds that it draws well.
pub const PROMPTS: [(&str, u64); 4] = [
    ("a big red ball moving right on a black background", 0),
    ("the small yellow square standing still on a gray background", 22),
    ("a big yellow triangle shrinking on a brown background", 20),
    ("a big blue ring moving up on a black background", 16),
];

/// Noise in latents at which nothing is decided: twice what is there of the picture.
const UNDECIDED: f32 = 2.0 / 3.0;

/// What `order` shows after each early step.
pub fn undecided(demo: &Rc<Demo>, order: Order<'_>) -> Vec<Clip> {
    let schedule = order.request().schedule().unwrap();
    let early = |step: usize| schedule.sigmas[step + 1] >= UNDECIDED - 1e-4;
    let latents = demo.denoise(order).into_iter().enumerate();
    let clip = |(step, latents): (usize, HostTensor)| {
        let demo = demo.clone();
        let Order { side, frames, steps, seed, .. } = order;
        let name = format!(
            "undecided latents, step {} of {steps}, seed {seed}, {side}x{side}x{frames}",
            step + 1
        );
        Clip::new(name, Class::Bad, move || demo.decode(latents.clone()))
    };
    latents.filter(|(step, _)| early(*step)).map(clip).collect()
}

/// What `order` shows in the end.
pub fn finished(demo: &Rc<Demo>, quant: &str, order: Order<'static>) -> Clip {
    let demo = demo.clone();
    let Order { side, frames, seed, .. } = order;
    let name = format!("demo, {quant}, seed {seed}, {side}x{side}x{frames}");
    Clip::new(name, Class::Good, move || demo.clip(order))
}

/// Latents that are noise, through the VAE.
pub fn decoded_noise(demo: &Rc<Demo>, size: (usize, usize), frames: usize, seed: u64) -> Clip {
    let demo = demo.clone();
    let name = format!("decoded N(0,1), {}x{}x{frames}, seed {seed}", size.0, size.1);
    Clip::new(name, Class::Bad, move || demo.decode(noise(size, frames, seed)))
}

/// The demo with its experts in the wrong order.
pub fn swapped(folder: &ModelFolder) -> ModelFolder {
    ModelFolder {
        transformer: folder.transformer_2.clone().expect("two experts"),
        transformer_2: Some(folder.transformer.clone()),
        ..folder.clone()
    }
}

/// A copy of the checkpoint in which the values of one part's matrices lie in random order.
pub fn shuffled(checkpoint: &Path, part: &str, copy: &Path) {
    for entry in fs::read_dir(checkpoint).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
            continue;
        }
        let folder = copy.join(entry.file_name());
        fs::create_dir(&folder).unwrap();
        for file in fs::read_dir(entry.path()).unwrap() {
            let file = file.unwrap();
            let mut bytes = fs::read(file.path()).unwrap();
            let weights = file.path().extension().is_some_and(|e| e == "safetensors");
            if weights && entry.file_name() == part {
                shuffle(&mut bytes);
            }
            fs::write(folder.join(file.file_name()), bytes).unwrap();
        }
    }
}

fn shuffle(bytes: &mut [u8]) {
    let (header, metadata) = SafeTensors::read_metadata(bytes).unwrap();
    let mut random = Random::new(1);
    let tensors: BTreeMap<_, _> = metadata.tensors().into_iter().collect();
    for info in tensors.values().filter(|info| info.shape.len() > 1) {
        let (begin, end) = info.data_offsets;
        let size = (end - begin) / info.shape.iter().product::<usize>();
        let data = &mut bytes[8 + header + begin..8 + header + end];
        for i in (1..data.len() / size).rev() {
            let j = (random.bits() % (i as u64 + 1)) as usize;
            (0..size).for_each(|byte| data.swap(i * size + byte, j * size + byte));
        }
    }
}
