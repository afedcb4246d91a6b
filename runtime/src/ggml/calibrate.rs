//! What a device does in a second, measured in less than one: for saying how long a run will take.
//!
//! Graphs are not cut by it but by [`Rates::guess`], which is the same each time: so is a run's
//! arithmetic.

use super::{ComputeError, Device, DeviceTensor, Executor, Family, Precision, Rates, Tensor, Work};
use gguf::DType;
use std::time::Instant;

/// Seconds after which a measurement is trusted.
const ENOUGH: f64 = 0.02;

/// Of so many measurements the fastest counts.
const REPEATS: usize = 3;

/// Channels of an attention head.
const HEAD: i64 = 128;

/// Sizes that fill a device.
struct Sizes {
    rows: i64,
    keys: i64,
    channels: i64,
}

impl Rates {
    /// Of products with weights of the type `weights`, of attention, and of what lies between them
    /// in a transformer's block. The latter two are as in `other`, measured with other weights.
    pub fn measure(
        device: Device,
        precision: Precision,
        threads: usize,
        weights: DType,
        other: Option<Self>,
    ) -> Result<Self, ComputeError> {
        let Sizes { rows, keys, channels } = match device.family() {
            Family::Cpu => Sizes { rows: 256, keys: 1024, channels: 1536 },
            _ => Sizes { rows: 4096, keys: 8192, channels: 5120 },
        };
        let exec = &mut Executor::new(device, precision, threads)?;
        let x = &DeviceTensor::noise(device, [rows, channels], DType::F32)?;
        let weight = &DeviceTensor::noise(device, [channels, channels], timed_as(weights))?;
        let vector = &DeviceTensor::noise(device, [1, channels], DType::F32)?;
        let (work, seconds) = timed(exec, x, |y| y.linear(weight) + vector)?;
        let matmul = work.matmul / seconds;
        if let Some(other) = other {
            return Ok(Self { matmul, ..other });
        }
        let heads = channels / HEAD;
        let kv = &DeviceTensor::noise(device, [heads, keys, HEAD], device.operands().dtype())?;
        let (work, seconds) = timed(exec, x, |y| {
            let kv = y.graph().read(kv);
            let q = y.reshape([rows, heads, HEAD]).permute([1, 0, 2]);
            q.attention(kv, kv).reshape([rows, channels])
        })?;
        let attention = work.attention / seconds;
        let (work, seconds) =
            timed(exec, x, |y| y + (y.layer_norm(1e-6) * vector + vector) * vector)?;
        Ok(Self { matmul, attention, bandwidth: work.bytes / seconds })
    }
}

/// The type that stands for `weights`: ggml makes blocks of some types only with an importance matrix,
/// and of others not at all.
fn timed_as(weights: DType) -> DType {
    use DType::{BF16, F16, F32, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
    match weights {
        F32 | F16 | BF16 | Q2_K | Q3_K | Q4_0 | Q4_1 | Q4_K | Q5_0 | Q5_1 | Q5_K | Q6_K | Q8_0 => {
            weights
        }
        _ => Q4_K,
    }
}

/// What one graph of `layer` after `layer` did, and in how many seconds; as many layers as it takes to
/// be sure.
fn timed(
    exec: &mut Executor,
    x: &DeviceTensor,
    layer: impl for<'g> Fn(Tensor<'g>) -> Tensor<'g>,
) -> Result<(Work, f64), ComputeError> {
    let mut run = |layers: usize| {
        let (before, begin) = (exec.done().work, Instant::now());
        exec.update(|g| {
            let y = (0..layers).fold(g.read(x), |y, _| layer(y));
            g.write(x, y);
        })?;
        Ok::<_, ComputeError>((exec.done().work + before * -1.0, begin.elapsed().as_secs_f64()))
    };
    // The first graph of each kind loads kernels and takes memory.
    run(1)?;
    let (_, once) = run(1)?;
    let layers = (ENOUGH / once).ceil().clamp(2.0, 64.0) as usize;
    run(layers)?;
    // Whatever else the machine does only makes it slower.
    let (work, mut least) = run(layers)?;
    for _ in 1..REPEATS {
        least = least.min(run(layers)?.1);
    }
    Ok((work, least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_does_something_in_a_second() {
        for weights in [DType::F32, DType::Q8_0, DType::Q4_K, DType::IQ2_XXS, DType::Q8_K] {
            let rates = Rates::measure(Device::cpu(), Precision::Native, 1, weights, None).unwrap();
            for rate in [rates.matmul, rates.attention, rates.bandwidth] {
                assert!(rate > 1e6 && rate < 1e16, "{weights}: {rates:?}");
            }
        }
    }
}
