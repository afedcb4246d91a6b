//! The ops that our graphs are made of, each in the layouts in which they use it, at sizes that
//! leave a part of a kernel's tile empty.
//!
//! A case is a function of an executor, run once on the device that is tested and once on the CPU in
//! strict precision, where every weight is widened to F32 and every function computed in F32. What
//! the two may differ by is what the device rounds: see [`Rounding`].

use crate::ggml::{
    ComputeError, DeviceTensor, Executor, Family, Graph, HostTensor, Kernel, Operand, Shape,
    Storage, Tensor, conv3d,
};
use gguf::DType;

pub(super) type Case = Box<dyn Fn(&mut Executor) -> Result<HostTensor, ComputeError>>;

/// One line of the report.
pub(super) struct Tested {
    pub(super) name: String,
    pub(super) tolerance: f64,
    pub(super) cases: Vec<Case>,
}

/// What a device does to values on their way through an op. A value that is rounded to `b` bits of
/// mantissa is off by 2⁻ᵇ/5 in the root mean square, and so is a sum of many products of such values:
/// 2e-4 for F16, 1.6e-3 for BF16. Two rounded operands make it 1.4 times as much; a tolerance is
/// three times what follows, or more where kernels add up in less than F32. A wrong op is off by
/// about 1.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounding {
    /// Values are moved.
    None,
    /// F32 all through: sums in another order, and other implementations of `exp`.
    F32,
    /// Operands in F16 or TF32; a table of F16, as the CPU has for GELU.
    F16,
    /// As F16, and sums over hundreds of keys in F16: 3.4e-3 on Mesa's llvmpipe.
    F16Sums,
    /// Sines and cosines of angles to 80: Metal and Vulkan promise 2⁻¹¹.
    Angles,
    Bf16,
    /// Activations as integers of 8 bits, a scale for 32 or 256 of them: off by 5e-3 and 7e-3.
    Integers,
}

impl Rounding {
    fn tolerance(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::F32 => 2e-5,
            Self::F16 | Self::Angles => 2e-3,
            Self::Bf16 => 6e-3,
            Self::F16Sums => 1e-2,
            Self::Integers => 2e-2,
        }
    }

    /// Of products with weights of `dtype`.
    fn of_weights(family: Family, dtype: DType) -> Self {
        match (family, dtype) {
            (Family::Cpu, DType::F32) => Self::F32,
            (_, DType::F32 | DType::F16) => Self::F16,
            (_, DType::BF16) => Self::Bf16,
            // Its kernels unpack weights to F16.
            (Family::Metal, _) => Self::F16,
            _ => Self::Integers,
        }
    }

    /// Of products of two activations, of keys and values, of convolutions.
    fn of_operands(family: Family) -> Self {
        if family == Family::Cpu { Self::F32 } else { Self::F16 }
    }
}

/// What `to-gguf` writes.
const TYPES: [DType; 15] = [
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::Q8_0,
    DType::Q6_K,
    DType::Q5_K,
    DType::Q5_1,
    DType::Q5_0,
    DType::Q4_K,
    DType::Q4_1,
    DType::Q4_0,
    DType::IQ4_NL,
    DType::IQ4_XS,
    DType::Q3_K,
    DType::Q2_K,
];

/// Channels of A14B, and a number of outputs that fills no tile.
const CHANNELS: i64 = 5120;
const OUTPUTS: i64 = 72;

/// Tokens.
const ROWS: i64 = 70;

const THETA: f32 = 10_000.0;

/// Values as of a normal distribution with variance 1, the same each time.
pub(super) fn noise(shape: impl Into<Shape>, seed: u32) -> HostTensor {
    let shape = shape.into();
    let mut state = seed.wrapping_mul(2_654_435_761) ^ 0x9e37_79b9;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..shape.elements()).map(|_| next() + next() + next()).collect();
    HostTensor::new(shape, values)
}

/// [`noise`] that keeps a product's results about as large as its inputs.
fn weight(shape: impl Into<Shape>, seed: u32) -> HostTensor {
    let shape = shape.into();
    let [.., columns] = shape.full();
    let scale = (columns as f32).sqrt().recip();
    let values: Vec<f32> = noise(shape, seed).data.iter().map(|v| v * scale).collect();
    HostTensor::new(shape, values)
}

/// A case of one graph with inputs of F32.
fn graph<const N: usize>(
    inputs: [HostTensor; N],
    build: impl for<'g> Fn(&'g Graph, [Tensor<'g>; N]) -> Tensor<'g> + 'static,
) -> Case {
    Box::new(move |exec| exec.compute(|g| build(g, inputs.each_ref().map(|input| g.input(input)))))
}

/// A case with what stays on the device, as weights and keys and values do, in `dtype` or as the
/// device wants its operands.
fn held<const N: usize, const M: usize>(
    inputs: [HostTensor; N],
    held: [HostTensor; M],
    dtype: Option<DType>,
    build: impl for<'g> Fn(&'g Graph, [Tensor<'g>; N], [Tensor<'g>; M]) -> Tensor<'g> + 'static,
) -> Case {
    Box::new(move |exec| {
        let (device, mut tensors) = (exec.device(), Vec::with_capacity(M));
        let dtype = dtype.unwrap_or_else(|| device.operands().dtype());
        for values in &held {
            tensors.push(DeviceTensor::holding(device, values, dtype)?);
        }
        exec.compute(|g| {
            let held = std::array::from_fn(|i| (&tensors[i]).in_graph(g));
            build(g, inputs.each_ref().map(|input| g.input(input)), held)
        })
    })
}

/// The whole table, with the tolerances of a device of `family`.
pub(super) fn all(family: Family) -> Vec<Tested> {
    let mut table = Vec::new();
    let mut op = |name: String, rounding: Rounding, cases: Vec<Case>| {
        table.push(Tested { name, tolerance: rounding.tolerance(), cases });
    };
    for dtype in TYPES {
        op(format!("linear {dtype}"), Rounding::of_weights(family, dtype), linear(dtype));
    }
    for dtype in TYPES {
        op(format!("get_rows {dtype}"), Rounding::F32, vec![get_rows(dtype)]);
    }
    let operands = Rounding::of_operands(family);
    let fused = if family == Family::Cpu { operands } else { Rounding::F16Sums };
    for head in [128, 64] {
        op(format!("attention {head}"), fused, attention(head));
    }
    op("attention with stored scores".into(), operands, stored_scores());
    op("matmul".into(), operands, matmul());
    for kernel in [[3, 3, 3], [1, 3, 3], [3, 1, 1], [1, 1, 1]] {
        let [t, h, w] = kernel;
        op(format!("conv3d {t}x{h}x{w}"), operands, vec![conv(kernel, 1)]);
    }
    op("conv3d 1x3x3, stride 2".into(), operands, vec![conv([1, 3, 3], 2)]);
    let angles = if family == Family::Cpu { Rounding::F32 } else { Rounding::Angles };
    op("rope".into(), angles, rope());
    op("layer_norm".into(), Rounding::F32, layer_norm());
    op("rms_norm".into(), Rounding::F32, rms_norm());
    op("softmax".into(), Rounding::F32, softmax());
    op("silu".into(), Rounding::F32, activation(|x| x.silu()));
    op("gelu_tanh".into(), Rounding::F16, activation(|x| x.gelu_tanh()));
    op("gelu_erf".into(), Rounding::F32, activation(|x| x.gelu_erf()));
    op("add".into(), Rounding::F32, broadcast(|x, y| x + y));
    op("mul".into(), Rounding::F32, broadcast(|x, y| x * y));
    op("scale".into(), Rounding::F32, activation(|x| x * 3.0 + 1.0));
    op("permute".into(), Rounding::None, permute());
    op("narrow".into(), Rounding::None, narrow());
    op("windows".into(), Rounding::None, windows());
    op("concat".into(), Rounding::None, concat());
    op("set".into(), Rounding::None, set());
    // GPUs may round the other way.
    let store = if family == Family::Cpu { Rounding::None } else { Rounding::F16 };
    op("store F16".into(), store, vec![store_half()]);
    op("write state".into(), operands, vec![write_state()]);
    op("pad_image".into(), Rounding::None, pad_image());
    op("upsample_nearest_2x".into(), Rounding::None, upsample());
    table
}

/// Rows of tokens, a single one (time and short prompts: another kernel on most backends), and a
/// piece of the residual stream.
fn linear(dtype: DType) -> Vec<Case> {
    let w = || weight([OUTPUTS, CHANNELS], 1);
    let of = |rows, seed| {
        held([noise([rows, CHANNELS], seed)], [w()], Some(dtype), |_, [x], [w]| x.linear(w))
    };
    let x = noise([ROWS + 13, CHANNELS], 4);
    let piece = held([x], [w()], Some(dtype), |_, [x], [w]| x.narrow(1, 13..ROWS + 13).linear(w));
    vec![of(ROWS, 2), of(1, 3), piece]
}

fn get_rows(dtype: DType) -> Case {
    let table = noise([40, 512], 5);
    held([], [table], Some(dtype), |g, [], [table]| g.indices([39, 0, 7, 7, 20]).rows_of(table))
}

/// Queries `[H, N, D]` as a permuted view of `[N, H, D]`, keys and values as they are kept.
fn attention(head: i64) -> Vec<Case> {
    let of = |queries: i64, keys: i64| {
        let heads = 3;
        let states = [noise([heads, keys, head], 6), noise([heads, keys, head], 7)];
        held([noise([queries, heads, head], 8)], states, None, |_, [q], [k, v]| {
            q.permute([1, 0, 2]).attention(k, v)
        })
    };
    // Of all tokens, of a prompt, of one query.
    vec![of(150, 530), of(ROWS, 512), of(1, 530)]
}

/// The text encoder's, with a bias, and the VAE's, of one wide head.
fn stored_scores() -> Vec<Case> {
    let heads = |seed| noise([ROWS, 4, 64], seed);
    let bias = noise([4, ROWS, ROWS], 12);
    let encoder = graph([heads(9), heads(10), heads(11), bias], |_, [q, k, v, bias]| {
        let [q, k, v] = [q, k, v].map(|x| x.permute([1, 0, 2]));
        q.scored_attention(k, v, 0.125, Some(bias))
    });
    let frame = graph([noise([1, 420, 3 * 384], 13)], |_, [qkv]| {
        let part = |i: i64| qkv.narrow(2, i * 384..(i + 1) * 384);
        part(0).scored_attention(part(1), part(2), (384f32).sqrt().recip(), None)
    });
    vec![encoder, frame]
}

fn matmul() -> Vec<Case> {
    let of = |n: i64, m: i64, k: i64| {
        graph([noise([3, n, k], 14), weight([3, m, k], 15)], |_, [x, y]| x.matmul_transposed(y))
    };
    vec![of(ROWS, 33, 64), of(1, 512, 128)]
}

/// Frames and weights as the VAE keeps them: in bands, for the executor gives little scratch memory.
fn conv(kernel: Kernel, stride: i64) -> Case {
    let [kt, kh, kw] = kernel;
    let ([h, w], inputs, outputs) = ([17, 22], 96, 100);
    let weights = weight([outputs, kt * kh * kw * inputs], 16);
    let frames: Vec<_> = (0..kt).map(|i| noise([h, w, inputs], 17 + i as u32)).collect();
    Box::new(move |exec| {
        let storage = exec.device().operands();
        let weights = DeviceTensor::holding(exec.device(), &weights, storage.dtype())?;
        exec.compute(|g| {
            let frames: Vec<_> = frames.iter().map(|f| g.input(f).stored(storage)).collect();
            conv3d(&frames, &weights, kernel, stride)
        })
    })
}

/// Frame, row and column of a token, each with its share of a head's channels.
fn rope() -> Vec<Case> {
    let place = |size: i32| (0..ROWS as i32).map(|i| i * 37 % size).collect::<Vec<_>>();
    let places = [place(21), place(45), place(80)];
    vec![graph([noise([ROWS, 3, 128], 20)], move |g, [x]| {
        let [frame, row, column] = places.each_ref().map(|p| g.indices(p.clone()));
        let x = x.rope(frame, 0, 44, THETA).rope(row, 44, 42, THETA);
        x.rope(column, 86, 42, THETA)
    })]
}

/// With the modulation that follows it, on a piece of the residual stream.
fn layer_norm() -> Vec<Case> {
    let inputs = [noise([ROWS + 9, CHANNELS], 21), noise([1, CHANNELS], 22)];
    let piece = graph(inputs, |_, [x, e]| {
        let x = x.narrow(1, 9..ROWS + 9) * 3.0 + 0.5;
        x.layer_norm(1e-6) * (e + 1.0) + e
    });
    vec![piece, graph([noise([3, 1536], 23)], |_, [x]| x.layer_norm(1e-6))]
}

/// Of tokens, and of a frame's pixels.
fn rms_norm() -> Vec<Case> {
    let tokens = graph([noise([ROWS, CHANNELS], 24), noise([CHANNELS], 25)], |_, [x, w]| {
        x.rms_norm(1e-6) * w
    });
    let pixels =
        graph([noise([17, 22, 96], 26), noise([96], 27)], |_, [x, w]| x.rms_norm(1e-24) * w);
    vec![tokens, pixels]
}

fn softmax() -> Vec<Case> {
    let bias = graph([noise([4, ROWS, 77], 28), noise([4, ROWS, 77], 29)], |_, [x, b]| {
        x.softmax(0.7, Some(b))
    });
    vec![bias, graph([noise([1, ROWS, 1560], 30)], |_, [x]| x.softmax(0.05, None))]
}

/// A function of each value, large and small, on packed and on narrowed rows.
fn activation(f: impl for<'g> Fn(Tensor<'g>) -> Tensor<'g> + Copy + 'static) -> Vec<Case> {
    let packed = graph([noise([ROWS, 1536], 31)], move |_, [x]| f(x * 3.0));
    let narrowed = graph([noise([5, ROWS, 200], 32)], move |_, [x]| f(x.narrow(2, 3..104)));
    vec![packed, narrowed]
}

/// As biases, gates and modulation do it: the same size, one row, one column, one plane.
fn broadcast(
    f: impl for<'g> Fn(Tensor<'g>, Tensor<'g>) -> Tensor<'g> + Copy + 'static,
) -> Vec<Case> {
    let of = |right: [i64; 3]| {
        graph([noise([3, ROWS, 130], 33), noise(right, 34)], move |_, [x, y]| f(x, y))
    };
    let mut cases: Vec<_> =
        [[3, ROWS, 130], [1, ROWS, 130], [1, 1, 130], [3, ROWS, 1]].map(of).into();
    let row = graph([noise([ROWS, 256], 35), noise([6, 256], 36)], move |_, [x, e]| {
        f(x, e.narrow(1, 2..3))
    });
    cases.push(row);
    cases
}

fn permute() -> Vec<Case> {
    let of = |order: [usize; 3]| {
        graph([noise([ROWS, 12, 128], 37)], move |_, [x]| x.permute(order).contiguous())
    };
    [[1, 0, 2], [0, 2, 1], [2, 0, 1]].map(of).into()
}

fn narrow() -> Vec<Case> {
    let input = || noise([9, ROWS, 130], 38);
    vec![
        graph([input()], |_, [x]| x.narrow(0, 2..7).contiguous()),
        graph([input()], |_, [x]| x.narrow(1, 3..50).contiguous()),
        graph([input()], |_, [x]| x.narrow(2, 1..98).contiguous()),
    ]
}

/// Neighbouring pixels, which a convolution gathers.
/// A token before others, and frames channel by channel in turn.
fn concat() -> Vec<Case> {
    let tokens = graph([noise([1, 320], 40), noise([ROWS, 320], 41)], |_, [x, y]| x.concat(y, 2));
    let frames = [noise([17, 22, 48, 1], 42), noise([17, 22, 48, 1], 43)];
    vec![tokens, graph(frames, |_, [x, y]| x.concat(y, 3))]
}

fn windows() -> Vec<Case> {
    vec![graph([noise([1, 17, 22, 48], 39)], |_, [x]| x.windows(3).contiguous())]
}

/// Pieces of rows and of columns into memory that was undefined.
fn set() -> Vec<Case> {
    vec![graph([noise([ROWS, 130], 40)], |g, [x]| {
        let out = g.uninitialized([ROWS, 260]).set([0, 130], x);
        let out = out.set([0, 0], x.narrow(1, 0..40));
        out.set([40, 0], x.narrow(1, 40..ROWS))
    })]
}

fn store_half() -> Case {
    graph([noise([ROWS, 12, 128], 41)], |_, [x]| {
        x.permute([1, 0, 2]).stored(Storage::F16).stored(Storage::F32)
    })
}

/// Keys of a piece of the tokens, turned on their way into the state of all.
fn write_state() -> Case {
    let (all, piece) = ([12, ROWS + 20, 128], noise([ROWS, 12, 128], 42));
    Box::new(move |exec| {
        let storage = exec.device().operands();
        let state = DeviceTensor::new(exec.device(), all, storage)?;
        exec.update(|g| g.write_at(&state, [0, 0, 20, 0], g.input(&piece).permute([1, 0, 2])))?;
        exec.compute(|g| g.read(&state).stored(Storage::F32))
    })
}

fn pad_image() -> Vec<Case> {
    let of = |sides: [i32; 4]| graph([noise([17, 22, 96], 43)], move |_, [x]| x.pad_image(sides));
    [[1, 1, 1, 1], [0, 0, 0, 1]].map(of).into()
}

fn upsample() -> Vec<Case> {
    vec![graph([noise([17, 22, 96], 44)], |_, [x]| x.upsample_nearest_2x())]
}
