//! The layers of an encoder or a decoder, a graph each, and a clip's way through them: one frame at a
//! time. As soon as a stage has made a frame, the frame goes all the way to the end.

use super::blocks::{AttentionBlock, Head, ResidualBlock};
use super::resample::Resample;
use super::shortcut::Shortcut;
use crate::ggml::{
    ComputeError, DeviceTensor, Executor, Graph, HostTensor, LoadError, Scope, Storage, Tensor,
};
use crate::models::{Tick, ticked};
use crate::nn::{CausalConv3d, History};
use std::ops::Range;

/// One graph's worth.
pub(super) enum Layer {
    /// `conv1`: pixels or latents to features.
    Input(CausalConv3d),
    Residual(ResidualBlock),
    Attention(AttentionBlock),
    Resample(Resample),
    /// `head`: features to pixels or to the moments of latents.
    Output(Head),
}

pub(super) struct Stage {
    layer: Layer,
    /// Channels of the result.
    outputs: i64,
    /// What the parity test calls this stage's result.
    tap: Option<String>,
}

/// Neighbouring stages to whose result their input is added, resized as they resize it:
/// `Down_ResidualBlock` and `Up_ResidualBlock` of Wan 2.2.
struct Block {
    stages: Range<usize>,
    shortcut: Shortcut,
}

/// `Encoder3d` or `Decoder3d`.
pub(super) struct Network {
    /// Before every tap's name.
    name: &'static str,
    /// Frames that the reference feeds at once, after the first, which goes alone: taps are numbered so.
    chunk: i64,
    stages: Vec<Stage>,
    blocks: Vec<Block>,
}

impl Stage {
    /// The shapes of the frames that convolutions remember, in the order in which they do, for
    /// frames of `[H, W]`.
    fn remembered(&self, size: [i64; 2]) -> Vec<[i64; 3]> {
        match &self.layer {
            Layer::Input(conv) => vec![conv.remembered(size)],
            Layer::Residual(block) => block.remembered(size),
            Layer::Attention(_) => vec![],
            Layer::Resample(block) => block.remembered(size),
            Layer::Output(head) => head.remembered(size),
        }
    }

    /// How many frames come out when frame `index` of the clip goes in.
    fn frames(&self, index: u64) -> usize {
        match &self.layer {
            Layer::Resample(block) => block.frames(index),
            _ => 1,
        }
    }

    /// The shape of a resulting frame, for one of `[H, W, C]`.
    fn shape(&self, [h, w, _]: [i64; 3]) -> [i64; 3] {
        let [h, w] = match &self.layer {
            Layer::Resample(block) => block.size([h, w]),
            _ => [h, w],
        };
        [h, w, self.outputs]
    }

    fn forward<'g>(
        &self,
        x: Tensor<'g>,
        past: &mut impl History<'g>,
        index: u64,
    ) -> Vec<Tensor<'g>> {
        match &self.layer {
            Layer::Input(conv) => vec![conv.forward(x, past)],
            Layer::Residual(block) => vec![block.forward(x, past)],
            Layer::Attention(block) => vec![block.forward(x)],
            Layer::Resample(block) => block.forward(x, past, index),
            Layer::Output(head) => vec![head.forward(x, past)],
        }
    }
}

impl Network {
    pub(super) fn new(name: &'static str, chunk: i64) -> Self {
        Self { name, chunk, stages: Vec::new(), blocks: Vec::new() }
    }

    pub(super) fn push(&mut self, layer: Layer, outputs: i64, tap: Option<String>) {
        self.stages.push(Stage { layer, outputs, tap });
    }

    /// `middle`: residual block, attention, residual block.
    pub(super) fn push_middle(&mut self, w: &Scope<'_>, dim: i64) -> Result<(), LoadError> {
        self.push(Layer::Residual(ResidualBlock::new(w.at(0), [dim, dim])?), dim, None);
        self.push(Layer::Attention(AttentionBlock::new(w.at(1), dim)?), dim, None);
        let last = ResidualBlock::new(w.at(2), [dim, dim])?;
        self.push(Layer::Residual(last), dim, Some("mid_block".into()));
        Ok(())
    }

    /// Calls the last stage's result `tap`.
    pub(super) fn name_last(&mut self, tap: String) {
        self.stages.last_mut().expect("a stage").tap = Some(tap);
    }

    /// Adds `shortcut` around the stages from `first` to the last so far.
    pub(super) fn close(&mut self, first: usize, shortcut: Shortcut) {
        self.blocks.push(Block { stages: first..self.count(), shortcut });
    }

    pub(super) fn count(&self) -> usize {
        self.stages.len()
    }

    /// How many stages there are up to the end of the middle block.
    pub(super) fn middle(&self) -> usize {
        let named = |stage: &Stage| stage.tap.as_deref() == Some("mid_block");
        1 + self.stages.iter().position(named).expect("there is a middle block")
    }

    /// Ticks of a clip of which so many frames go in.
    pub(super) fn ticks(&self, frames: u64) -> u64 {
        let (mut frames, mut ticks) = (frames, 0);
        for stage in &self.stages {
            ticks += frames;
            frames = (0..frames).map(|index| stage.frames(index) as u64).sum();
        }
        ticks
    }

    /// Some of the stages, ready for frames `[H, W, C]` of a clip.
    pub(super) fn start(
        &self,
        exec: &Executor,
        range: Range<usize>,
        shape: [i64; 3],
    ) -> Result<Stages<'_>, ComputeError> {
        let device = exec.device();
        let state = |shape: [i64; 3]| DeviceTensor::new(device, shape, Storage::F32);
        let input = state(shape)?;
        let (mut shape, mut results) = (shape, vec![input.clone()]);
        let (mut places, mut kept) = (Vec::new(), Vec::new());
        for number in range.clone() {
            let stage = &self.stages[number];
            if let Some(block) = self.blocks.iter().find(|block| block.stages.start == number) {
                let [count, h, w, c] = block.shortcut.kept(shape);
                let frames = (0..count).map(|_| state([h, w, c])).collect::<Result<_, _>>()?;
                kept.push(Kept { block, frames });
            }
            let slots = |shape: [i64; 3]| -> Result<_, ComputeError> {
                let slot = || DeviceTensor::new(device, shape, device.operands());
                Ok([slot()?, slot()?])
            };
            let memory = stage.remembered([shape[0], shape[1]]).into_iter().map(slots);
            let memory = memory.collect::<Result<_, _>>()?;
            let to = stage.shape(shape);
            // A stage that changes no shape works in place.
            if to != shape {
                // All later frames are like the second or the third.
                let most = stage.frames(1).max(stage.frames(2));
                results = (0..most).map(|_| state(to)).collect::<Result<_, _>>()?;
                shape = to;
            }
            places.push(Place { memory, turn: 0, fed: 0, results: results.clone() });
        }
        Ok(Stages { network: self, first: range.start, input, places, kept, fed: 0 })
    }
}

/// What a stage of one clip keeps on the device.
struct Place {
    /// The last two frames of each causal convolution, taking turns.
    memory: Vec<[DeviceTensor; 2]>,
    /// How often the stage has remembered a frame.
    turn: usize,
    /// Frames so far.
    fed: u64,
    /// Where results go: in place, for stages that change no shape.
    results: Vec<DeviceTensor>,
}

/// What a block's shortcut has of the last frames that came to the block, taking turns.
struct Kept<'n> {
    block: &'n Block,
    frames: Vec<DeviceTensor>,
}

/// Neighbouring stages and what they remember of a clip.
pub(super) struct Stages<'n> {
    network: &'n Network,
    /// The number of the first.
    first: usize,
    input: DeviceTensor,
    places: Vec<Place>,
    kept: Vec<Kept<'n>>,
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
        let chunk = (self.fed + self.network.chunk - 1) / self.network.chunk;
        self.fed += 1;
        self.run(0, &self.input.clone(), chunk, exec, tick, push)
    }

    /// The stages from `at` on, for the frame in `x`.
    fn run<E: From<ComputeError>>(
        &mut self,
        at: usize,
        x: &DeviceTensor,
        chunk: i64,
        exec: &mut Executor,
        tick: Tick,
        push: &mut dyn FnMut(HostTensor) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(place) = self.places.get_mut(at) else {
            return push(exec.compute(|g| g.read(x))?);
        };
        let (number, index) = (self.first + at, place.fed);
        let stage = &self.network.stages[number];
        let of_block = |end: fn(&Range<usize>) -> usize| {
            self.kept.iter().find(move |kept| end(&kept.block.stages) == number)
        };
        let (begins, ends) = (of_block(|r| r.start), of_block(|r| r.end - 1));
        let mut remembered = false;
        let storage = exec.device().operands();
        exec.update(|g| {
            let x = g.read(x);
            let entered = begins.map(|kept| {
                let entered = kept.block.shortcut.keep(x);
                g.write(kept.frame(index), entered);
                entered
            });
            let memory = place.memory.iter();
            let (turn, used) = (place.turn, &mut remembered);
            let mut past = Past { graph: g, storage, memory, turn, used };
            let mut outputs = stage.forward(x, &mut past, index);
            if let Some(kept) = ends {
                // What a stage writes, it can't read.
                let now = entered.unwrap_or_else(|| g.read(kept.frame(index)));
                let before = g.read(kept.frame(index + 1));
                outputs = kept.block.shortcut.add(outputs, now, before);
            }
            for (result, mut value) in place.results.iter().zip(outputs) {
                if let Some(name) = &stage.tap {
                    value = value.tap(format_args!("{}.{name}.{chunk}", self.network.name));
                }
                g.write(result, value);
            }
        })?;
        place.turn += usize::from(remembered);
        place.fed += 1;
        ticked(tick)?;
        let results = place.results.clone();
        for result in &results[..stage.frames(index)] {
            self.run(at + 1, result, chunk, exec, tick, push)?;
        }
        Ok(())
    }
}

impl Kept<'_> {
    /// Where frame `index` is; of the frame before it, if two are kept, the other place.
    fn frame(&self, index: u64) -> &DeviceTensor {
        &self.frames[index as usize % self.frames.len()]
    }
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
pub(super) struct Forgetful;

impl<'g> History<'g> for Forgetful {
    fn push(&mut self, _: Tensor<'g>) -> [Tensor<'g>; 3] {
        unreachable!("a kernel of one frame remembers nothing")
    }
}
