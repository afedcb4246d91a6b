//! Latents to frames.

use super::Config;
use super::blocks::{AttentionBlock, Head, Resample, ResidualBlock};
use crate::ggml::{
    ComputeError, DeviceTensor, Executor, Graph, HostTensor, LoadError, Param, Scope, Storage,
    Tensor, Weights,
};
use crate::models::{ModelError, Tick, ticked};
use crate::nn::{CausalConv3d, History};
use std::ops::Range;

/// One graph's worth of the decoder.
enum Layer {
    /// `conv1`: latents to features.
    Input(CausalConv3d),
    Residual(ResidualBlock),
    Attention(AttentionBlock),
    Upsample(Resample),
    Output(Head),
}

struct Stage {
    layer: Layer,
    outputs: i64,
    /// What the parity test calls this stage's result.
    tap: Option<String>,
}

impl Stage {
    /// The convolutions that remember, in the order in which they do.
    fn causal(&self) -> Vec<&CausalConv3d> {
        match &self.layer {
            Layer::Input(conv) => vec![conv],
            Layer::Residual(block) => block.causal(),
            Layer::Attention(_) => vec![],
            Layer::Upsample(block) => block.causal(),
            Layer::Output(head) => head.causal(),
        }
    }

    /// How many frames come out for one that goes in.
    fn frames(&self, first: bool) -> usize {
        match &self.layer {
            Layer::Upsample(block) => block.frames(first),
            _ => 1,
        }
    }

    /// The shape of a resulting frame, for one of `[H, W, C]`.
    fn shape(&self, [h, w, _]: [i64; 3]) -> [i64; 3] {
        match &self.layer {
            Layer::Upsample(_) => [2 * h, 2 * w, self.outputs],
            _ => [h, w, self.outputs],
        }
    }

    fn forward<'g>(
        &self,
        x: Tensor<'g>,
        past: &mut impl History<'g>,
        first: bool,
    ) -> Vec<Tensor<'g>> {
        match &self.layer {
            Layer::Input(conv) => vec![conv.forward(x, past)],
            Layer::Residual(block) => vec![block.forward(x, past)],
            Layer::Attention(block) => vec![block.forward(x)],
            Layer::Upsample(block) => block.forward(x, past, first),
            Layer::Output(head) => vec![head.forward(x, past)],
        }
    }
}

/// `Decoder3d` as a list of stages.
fn decoder3d(w: &Scope<'_>, cfg: &Config) -> Result<Vec<Stage>, LoadError> {
    let levels = cfg.dim_mult.len();
    let dims: Vec<i64> = cfg.dim_mult.iter().rev().map(|m| m * cfg.base_dim).collect();
    let top = dims[0];
    let mut stages = Vec::new();
    let mut push = |layer, outputs, tap: Option<String>| {
        stages.push(Stage { layer, outputs, tap });
    };
    let conv1 = CausalConv3d::new(w.at("conv1"), [cfg.z_dim, top], [3, 3, 3])?;
    push(Layer::Input(conv1), top, Some("conv_in".into()));

    let middle = w.at("middle");
    push(Layer::Residual(ResidualBlock::new(middle.at(0), [top, top])?), top, None);
    push(Layer::Attention(AttentionBlock::new(middle.at(1), top)?), top, None);
    let last = ResidualBlock::new(middle.at(2), [top, top])?;
    push(Layer::Residual(last), top, Some("mid_block".into()));

    let mut upsamples = (0..).map(|i| w.at("upsamples").at(i));
    let mut upsample = || upsamples.next().expect("endless");
    let mut inputs = top;
    for (level, &outputs) in dims.iter().enumerate() {
        let end = level + 1 == levels;
        for i in 0..=cfg.num_res_blocks {
            let block = ResidualBlock::new(upsample(), [inputs, outputs])?;
            let tap = (end && i == cfg.num_res_blocks).then(|| format!("up_blocks.{level}"));
            push(Layer::Residual(block), outputs, tap);
            inputs = outputs;
        }
        if !end {
            let in_time = cfg.temporal_downsample[levels - 2 - level];
            let block = Resample::new(upsample(), outputs, in_time)?;
            inputs = outputs / 2;
            push(Layer::Upsample(block), inputs, Some(format!("up_blocks.{level}")));
        }
    }
    let head = Head::new(w.at("head"), [inputs, 3])?;
    push(Layer::Output(head), 3, Some("conv_out".into()));
    Ok(stages)
}

/// The decoder half of `WanVAE_`.
pub struct WanVae {
    /// `post_quant_conv`.
    conv2: CausalConv3d,
    mean: Param,
    std: Param,
    stages: Vec<Stage>,
    config: Config,
}

impl WanVae {
    /// Refuses a file with missing, misshapen or unknown tensors. The encoder's are known, and not
    /// needed to decode.
    pub fn new(weights: &Weights, config: Config) -> Result<Self, ModelError> {
        let (w, z) = (weights.root(), config.z_dim);
        w.at("encoder").skip();
        w.at("conv1").skip();
        let vae = Self {
            conv2: CausalConv3d::new(w.at("conv2"), [z, z], [1, 1, 1])?,
            mean: w.constant([z], config.latents_mean.clone())?,
            std: w.constant([z], config.latents_std.clone())?,
            stages: decoder3d(&w.at("decoder"), &config)?,
            config,
        };
        weights.expect_all_used()?;
        Ok(vae)
    }

    /// Ticks of a clip of so many latent frames.
    pub fn ticks(&self, latent_frames: u64) -> u64 {
        let of = |first| {
            let mut frames = 1;
            self.stages
                .iter()
                .map(|stage| {
                    let ticks = frames;
                    frames *= stage.frames(first) as u64;
                    ticks
                })
                .sum::<u64>()
        };
        of(true) + of(false) * (latent_frames - 1)
    }

    /// Starts to decode `latents` `[C, F, H, W]`, normalized as the denoiser has them.
    pub fn decode(
        &self,
        exec: &Executor,
        latents: HostTensor,
    ) -> Result<Decoding<'_>, ComputeError> {
        let [c, _, h, w] = latents.shape.full();
        assert_eq!(c, self.config.z_dim, "latents of {:?}", latents.shape);
        let stages = self.stages(exec, 0..self.stages.len(), [h, w, c])?;
        Ok(Decoding { stages, latents, next: 0 })
    }

    /// How many stages there are up to the end of the middle block: what comes after looks at a
    /// pixel's neighbours alone.
    pub(super) fn middle(&self) -> usize {
        let named = |stage: &Stage| stage.tap.as_deref() == Some("mid_block");
        1 + self.stages.iter().position(named).expect("every decoder has a middle block")
    }

    pub(super) fn count(&self) -> usize {
        self.stages.len()
    }

    /// Some of the stages, ready for frames `[H, W, C]` of a clip.
    pub(super) fn stages(
        &self,
        exec: &Executor,
        range: Range<usize>,
        shape: [i64; 3],
    ) -> Result<Stages<'_>, ComputeError> {
        let state = |shape: [i64; 3]| DeviceTensor::new(exec.device(), shape, Storage::F32);
        let input = state(shape)?;
        let (mut shape, mut results, mut places) = (shape, vec![input.clone()], Vec::new());
        for stage in &self.stages[range.clone()] {
            let slots = |conv: &CausalConv3d| {
                let remembered = conv.remembered([shape[0], shape[1]]);
                let slot =
                    || DeviceTensor::new(exec.device(), remembered, exec.device().operands());
                Ok([slot()?, slot()?])
            };
            let memory =
                stage.causal().into_iter().map(slots).collect::<Result<_, ComputeError>>()?;
            let to = stage.shape(shape);
            // A stage that changes no shape works in place.
            if to != shape {
                let frames = stage.frames(false);
                results = (0..frames).map(|_| state(to)).collect::<Result<_, _>>()?;
                shape = to;
            }
            places.push(Place { memory, turn: 0, results: results.clone() });
        }
        Ok(Stages { vae: self, first: range.start, input, places, fed: 0 })
    }

    /// Normalized `latents` `[H, W, C]` as the decoder's first convolution has them.
    pub(super) fn post_quant<'g>(&self, g: &'g Graph, latents: &HostTensor) -> Tensor<'g> {
        let z = g.input(latents) * &self.std + &self.mean;
        self.conv2.forward(z, &mut Forgetful)
    }
}

/// What a stage of one decoding keeps on the device.
struct Place {
    /// The last two frames of each causal convolution, taking turns.
    memory: Vec<[DeviceTensor; 2]>,
    /// How often the stage has remembered a frame.
    turn: usize,
    /// Where results go: in place, for stages that change no shape.
    results: Vec<DeviceTensor>,
}

/// A clip on its way through the decoder, one frame at a time: as soon as a stage has made a frame,
/// the frame goes all the way to its pixels.
pub struct Decoding<'v> {
    stages: Stages<'v>,
    latents: HostTensor,
    next: i64,
}

impl Decoding<'_> {
    /// Frames of the next latent frame, each `[H, W, 3]` in [-1, 1]: one for the clip's first, then
    /// four each; none at the end. `push` gets them as they appear.
    pub fn next_frames<E: From<ComputeError>>(
        &mut self,
        exec: &mut Executor,
        tick: Tick,
        push: &mut dyn FnMut(HostTensor) -> Result<(), E>,
    ) -> Result<bool, E> {
        let [_, frames, ..] = self.latents.shape.full();
        if self.next == frames {
            return Ok(false);
        }
        let index = self.next;
        self.next += 1;
        let latent = channels_last(&self.latents, index);
        let vae = self.stages.vae;
        let push = &mut |pixels: HostTensor| {
            let clamped: Vec<f32> = pixels.data.iter().map(|v| v.clamp(-1.0, 1.0)).collect();
            push(HostTensor::new(pixels.shape, clamped))
        };
        let name = format!("vae.post_quant_conv.{index}");
        self.stages.feed(exec, |g| vae.post_quant(g, &latent).tap(name), tick, push)?;
        Ok(true)
    }
}

/// Neighbouring stages and what they remember.
pub(super) struct Stages<'v> {
    vae: &'v WanVae,
    /// The number of the first.
    first: usize,
    input: DeviceTensor,
    places: Vec<Place>,
    /// Frames so far.
    fed: i64,
}

impl Stages<'_> {
    /// The next frame, which `start` makes; `push` gets what the last stage makes of it, in order.
    pub(super) fn feed<E: From<ComputeError>>(
        &mut self,
        exec: &mut Executor,
        start: impl for<'g> FnOnce(&'g Graph) -> Tensor<'g>,
        tick: Tick,
        push: &mut dyn FnMut(HostTensor) -> Result<(), E>,
    ) -> Result<(), E> {
        exec.update(|g| g.write(&self.input, start(g)))?;
        let index = self.fed;
        self.fed += 1;
        self.run(0, &self.input.clone(), index, exec, tick, push)
    }

    /// The stages from `at` on, for the frame in `x`.
    fn run<E: From<ComputeError>>(
        &mut self,
        at: usize,
        x: &DeviceTensor,
        index: i64,
        exec: &mut Executor,
        tick: Tick,
        push: &mut dyn FnMut(HostTensor) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(place) = self.places.get_mut(at) else {
            return push(exec.compute(|g| g.read(x))?);
        };
        let (first, stage) = (index == 0, &self.vae.stages[self.first + at]);
        let mut remembered = false;
        let storage = exec.device().operands();
        exec.update(|g| {
            let memory = place.memory.iter();
            let (turn, used) = (place.turn, &mut remembered);
            let mut past = Past { graph: g, storage, memory, turn, used };
            let outputs = stage.forward(g.read(x), &mut past, first);
            for (result, mut value) in place.results.iter().zip(outputs) {
                if let Some(name) = &stage.tap {
                    value = value.tap(format_args!("vae.decoder.{name}.{index}"));
                }
                g.write(result, value);
            }
        })?;
        place.turn += usize::from(remembered);
        ticked(tick)?;
        let results = place.results.clone();
        for result in &results[..stage.frames(first)] {
            self.run(at + 1, result, index, exec, tick, push)?;
        }
        Ok(())
    }
}

/// Frame `index` of latents `[C, F, H, W]` as `[H, W, C]`.
pub(super) fn channels_last(latents: &HostTensor, index: i64) -> HostTensor {
    let [c, f, h, w] = latents.shape.full();
    let (plane, f, index) = ((h * w) as usize, f as usize, index as usize);
    let value = |pixel, channel| latents.data[(channel * f + index) * plane + pixel];
    let pixels = (0..plane).flat_map(|p| (0..c as usize).map(move |ch| value(p, ch)));
    HostTensor::new([h, w, c], pixels.collect::<Vec<f32>>())
}

/// The memory of a stage's convolutions, in the order in which they ask for it. The frame that is
/// remembered takes the place of the oldest.
struct Past<'g, 's> {
    graph: &'g Graph,
    storage: Storage,
    memory: std::slice::Iter<'s, [DeviceTensor; 2]>,
    turn: usize,
    used: &'s mut bool,
}

impl<'g> History<'g> for Past<'g, '_> {
    fn push(&mut self, frame: Tensor<'g>) -> [Tensor<'g>; 3] {
        let slots = self.memory.next().expect("two slots for each causal convolution");
        let (oldest, newer) = (&slots[self.turn % 2], &slots[(self.turn + 1) % 2]);
        *self.used = true;
        // It is remembered when the graph ends: until then, too, it should be small.
        let frame = frame.stored(self.storage);
        self.graph.write(oldest, frame);
        [self.graph.read(oldest), self.graph.read(newer), frame]
    }
}

/// For convolutions over one frame.
struct Forgetful;

impl<'g> History<'g> for Forgetful {
    fn push(&mut self, _: Tensor<'g>) -> [Tensor<'g>; 3] {
        unreachable!("a kernel of one frame remembers nothing")
    }
}
