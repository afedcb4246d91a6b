//! Latents to frames.

use super::Config;
use super::blocks::{AttentionBlock, Head, History, Resample, ResidualBlock};
use crate::ggml::{
    ComputeError, DeviceTensor, Executor, Graph, HostTensor, LoadError, Param, Scope, Storage,
    Tensor, Weights,
};
use crate::models::{ModelError, Tick, ticked};
use crate::nn::CausalConv3d;

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
    fn history(&self) -> Vec<i64> {
        match &self.layer {
            Layer::Input(conv) => vec![conv.inputs()],
            Layer::Residual(block) => block.history(),
            Layer::Attention(_) => vec![],
            Layer::Upsample(block) => block.history(),
            Layer::Output(head) => head.history(),
        }
    }

    /// The shape of the result for `[T, H, W, C]`.
    fn shape(&self, [t, h, w, _]: [i64; 4], first: bool) -> [i64; 4] {
        match &self.layer {
            Layer::Upsample(block) => [t * block.frames(first), 2 * h, 2 * w, self.outputs],
            _ => [t, h, w, self.outputs],
        }
    }

    fn forward<'g>(&self, x: Tensor<'g>, past: &mut impl History<'g>, first: bool) -> Tensor<'g> {
        match &self.layer {
            Layer::Input(conv) => conv.forward(past.extend(x)),
            Layer::Residual(block) => block.forward(x, past),
            Layer::Attention(block) => block.forward(x),
            Layer::Upsample(block) => block.forward(x, past, first),
            Layer::Output(head) => head.forward(x, past),
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

    /// Ticks of one latent frame.
    pub fn ticks(&self) -> u64 {
        self.stages.len() as u64
    }

    /// Starts to decode `latents` `[C, F, H, W]`, normalized as the denoiser has them.
    pub fn decode(
        &self,
        exec: &Executor,
        latents: HostTensor,
    ) -> Result<Decoding<'_>, ComputeError> {
        let [c, _, h, w] = latents.shape.full();
        assert_eq!(c, self.config.z_dim, "latents of {:?}", latents.shape);
        let mut shape = [1, h, w, c];
        let mut histories = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            let past = |c: i64, [_, h, w, _]: [i64; 4]| {
                DeviceTensor::new(exec.device(), [2, h, w, c], Storage::F32)
            };
            let states = stage.history().into_iter().map(|c| past(c, shape));
            histories.push(states.collect::<Result<_, _>>()?);
            shape = stage.shape(shape, true);
        }
        Ok(Decoding { vae: self, latents, histories, next: 0 })
    }
}

/// A clip on its way through the decoder, one latent frame at a time.
pub struct Decoding<'v> {
    vae: &'v WanVae,
    latents: HostTensor,
    /// For each stage, the last two input frames of each of its causal convolutions.
    histories: Vec<Vec<DeviceTensor>>,
    next: i64,
}

impl Decoding<'_> {
    /// Frames `[T, H, W, 3]` of the next latent frame, in [-1, 1]: one for the clip's first, then
    /// four each; `None` at the end.
    pub fn next_frames(
        &mut self,
        exec: &mut Executor,
        tick: Tick,
    ) -> Result<Option<HostTensor>, ComputeError> {
        let [_, frames, ..] = self.latents.shape.full();
        if self.next == frames {
            return Ok(None);
        }
        let (index, first) = (self.next, self.next == 0);
        self.next += 1;
        let latent = self.channels_last(index);
        let mut shape = latent.shape.full();
        let mut x = DeviceTensor::new(exec.device(), shape, Storage::F32)?;
        exec.update(|g| {
            let z = g.input(&latent) * &self.vae.std + &self.vae.mean;
            let z = self.vae.conv2.forward(z);
            g.write(&x, z.tap(format_args!("vae.post_quant_conv.{index}")));
        })?;
        for (stage, history) in self.vae.stages.iter().zip(&self.histories) {
            shape = stage.shape(shape, first);
            let y = DeviceTensor::new(exec.device(), shape, Storage::F32)?;
            exec.update(|g| {
                let mut past = Past { graph: g, states: history.iter() };
                let mut out = stage.forward(g.read(&x), &mut past, first);
                if let Some(name) = &stage.tap {
                    out = out.tap(format_args!("vae.decoder.{name}.{index}"));
                }
                g.write(&y, out);
            })?;
            x = y;
            ticked(tick)?;
        }
        let frames = exec.compute(|g| g.read(&x))?;
        let clamped: Vec<f32> = frames.data.iter().map(|v| v.clamp(-1.0, 1.0)).collect();
        Ok(Some(HostTensor::new(shape, clamped)))
    }

    /// Latent frame `index` as `[1, H, W, C]`.
    fn channels_last(&self, index: i64) -> HostTensor {
        let [c, f, h, w] = self.latents.shape.full();
        let (plane, f, index) = ((h * w) as usize, f as usize, index as usize);
        let value = |pixel, channel| self.latents.data[(channel * f + index) * plane + pixel];
        let pixels = (0..plane).flat_map(|p| (0..c as usize).map(move |ch| value(p, ch)));
        HostTensor::new([1, h, w, c], pixels.collect::<Vec<f32>>())
    }
}

/// The histories of a stage's convolutions, in the order in which it asks for them.
struct Past<'g, 's> {
    graph: &'g Graph,
    states: std::slice::Iter<'s, DeviceTensor>,
}

impl<'g> History<'g> for Past<'g, '_> {
    fn extend(&mut self, x: Tensor<'g>) -> Tensor<'g> {
        let state = self.states.next().expect("one state for each causal convolution");
        let all = self.graph.read(state).concat(x, 0);
        let [frames, ..] = all.shape().full();
        self.graph.write(state, all.narrow4(0, frames - 2..frames));
        all
    }
}
