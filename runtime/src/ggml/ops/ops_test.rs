//! Every op on contiguous, narrowed and permuted inputs, against a naive loop. Long, because every op
//! has its loop here.

use crate::ggml::{
    Device, DeviceTensor, Executor, Family, Graph, HostTensor, Precision, Storage, Tensor, Work,
    conv3d, patch_order,
};

/// How a logical tensor lies in memory when it reaches an op.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Contiguous,
    Narrowed,
    Permuted,
}

const LAYOUTS: [Layout; 3] = [Layout::Contiguous, Layout::Narrowed, Layout::Permuted];

/// Row-major values in three dimensions.
#[derive(Clone, Debug)]
struct Cube {
    dims: [i64; 3],
    data: Vec<f32>,
}

impl Cube {
    fn new(dims: [i64; 3], f: impl Fn(i64, i64, i64) -> f32) -> Self {
        let [a, b, c] = dims;
        let mut data = Vec::new();
        for i in 0..a {
            for j in 0..b {
                data.extend((0..c).map(|k| f(i, j, k)));
            }
        }
        Self { dims, data }
    }

    /// Fixed values between -2 and 2 that repeat nowhere.
    fn noise(dims: [i64; 3], seed: u32) -> Self {
        let [_, b, c] = dims;
        Self::new(dims, |i, j, k| {
            let n = (((i * b + j) * c + k) as u32).wrapping_mul(2_654_435_761) ^ (seed * 40_503);
            let n = (n ^ (n >> 15)).wrapping_mul(2_246_822_519);
            (n >> 8) as f32 / (1 << 22) as f32 - 2.0
        })
    }

    fn at(&self, i: i64, j: i64, k: i64) -> f32 {
        let [_, b, c] = self.dims;
        self.data[((i * b + j) * c + k) as usize]
    }

    fn host(&self) -> HostTensor {
        HostTensor::new(self.dims, self.data.clone())
    }

    /// This cube as a tensor of `g` whose memory has `layout`.
    fn input<'g>(&self, g: &'g Graph, layout: Layout) -> Tensor<'g> {
        let [a, b, c] = self.dims;
        match layout {
            Layout::Contiguous => g.input(&self.host()),
            Layout::Narrowed => {
                let wide = Cube::new([a + 2, b + 3, c + 5], |i, j, k| {
                    let inside = (1..=a).contains(&i) && (2..b + 2).contains(&j);
                    if inside && (3..c + 3).contains(&k) {
                        self.at(i - 1, j - 2, k - 3)
                    } else {
                        f32::NAN
                    }
                });
                g.input(&wide.host()).narrow(0, 1..a + 1).narrow(1, 2..b + 2).narrow(2, 3..c + 3)
            }
            Layout::Permuted => {
                let turned = Cube::new([c, a, b], |k, i, j| self.at(i, j, k));
                g.input(&turned.host()).permute([1, 2, 0])
            }
        }
    }
}

/// The CPU, or the device of the backend that the environment names: `TEST_DEVICE=vulkan`.
fn device() -> Device {
    let Ok(wanted) = std::env::var("TEST_DEVICE") else { return Device::cpu() };
    let named = |d: &Device| format!("{:?}", d.family()).eq_ignore_ascii_case(&wanted);
    Device::all().into_iter().find(named).unwrap_or_else(|| panic!("no device `{wanted}`"))
}

fn executor(precision: Precision) -> Executor {
    Executor::new(device(), precision, 2).unwrap()
}

/// What GPUs may differ by, of the largest value: they round the operands of products to F16.
const GPU_TOLERANCE: f32 = 2e-3;

#[track_caller]
fn assert_close(got: &HostTensor, expected: &Cube, tolerance: f32, what: &str) {
    let [_, dims @ ..] = got.shape.full();
    assert_eq!(dims, expected.dims, "{what}");
    let largest = expected.data.iter().fold(1.0, |m: f32, e| m.max(e.abs()));
    let gpu = if device().family() == Family::Cpu { 0.0 } else { GPU_TOLERANCE * largest };
    for (i, (&g, &e)) in got.data.iter().zip(&expected.data).enumerate() {
        let close = (g - e).abs() <= (tolerance * e.abs().max(1.0)).max(gpu);
        assert!(close, "{what}: value {i} is {g}, expected {e}");
    }
}

/// Runs `op` on `inputs` in every layout, and compares with `expected`.
#[track_caller]
fn check_in<const N: usize>(
    precision: Precision,
    inputs: [&Cube; N],
    expected: &Cube,
    tolerance: f32,
    op: impl for<'g> Fn([Tensor<'g>; N]) -> Tensor<'g>,
) {
    check_on(executor(precision), inputs, expected, tolerance, op);
}

#[track_caller]
fn check_on<const N: usize>(
    mut exec: Executor,
    inputs: [&Cube; N],
    expected: &Cube,
    tolerance: f32,
    op: impl for<'g> Fn([Tensor<'g>; N]) -> Tensor<'g>,
) {
    for layout in LAYOUTS {
        let got = exec.compute(|g| op(inputs.map(|c| c.input(g, layout)))).unwrap();
        assert_close(&got, expected, tolerance, &format!("{layout:?}"));
    }
}

#[track_caller]
fn check<const N: usize>(
    inputs: [&Cube; N],
    expected: &Cube,
    tolerance: f32,
    op: impl for<'g> Fn([Tensor<'g>; N]) -> Tensor<'g>,
) {
    check_in(Precision::Native, inputs, expected, tolerance, op);
}

fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
}

/// The other GELU, which `gelu_tanh` must not be: 5e-4 away at most.
fn gelu_erf(x: f64) -> f64 {
    // The integral of the normal density, by Simpson's rule.
    let (steps, h) = (2000, x / 2000.0);
    let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let weight = |i| if i == 0 || i == steps { 1.0 } else { 2.0 + 2.0 * f64::from(i % 2) };
    let integral: f64 = (0..=steps).map(|i| weight(i) * density(f64::from(i) * h)).sum();
    x * (0.5 + integral * h / 3.0)
}

#[test]
fn gelu_is_the_tanh_variant() {
    let x = Cube::noise([3, 5, 33], 1);
    let map = |f: fn(f64) -> f64| Cube::new(x.dims, |i, j, k| f(f64::from(x.at(i, j, k))) as f32);
    let (expected, other) = (map(gelu_tanh), map(gelu_erf));
    check_in(Precision::Strict, [&x], &expected, 1e-6, |[x]| x.gelu_tanh());
    // An F16 table on the CPU.
    check([&x], &expected, 1e-3, |[x]| x.gelu_tanh());
    let apart = |a: &Cube, b: &Cube| {
        a.data.iter().zip(&b.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    let distance = apart(&expected, &other);
    assert!((1e-4..1e-3).contains(&distance), "the variants are {distance} apart");
}

#[test]
fn silu() {
    let x = Cube::noise([3, 5, 33], 2);
    let expected = Cube::new(x.dims, |i, j, k| x.at(i, j, k) / (1.0 + (-x.at(i, j, k)).exp()));
    check([&x], &expected, 1e-6, |[x]| x.silu());
}

#[test]
fn sums_and_products_broadcast_to_the_left() {
    let x = Cube::noise([3, 5, 34], 3);
    for dims in [[3, 5, 34], [1, 5, 34], [1, 1, 34], [3, 1, 34], [3, 5, 1]] {
        let y = Cube::noise(dims, 4);
        let pick = |i: i64, j: i64, k: i64| {
            y.at(i.min(dims[0] - 1), j.min(dims[1] - 1), k.min(dims[2] - 1))
        };
        let sum = Cube::new(x.dims, |i, j, k| x.at(i, j, k) + pick(i, j, k));
        check([&x, &y], &sum, 1e-6, |[x, y]| x + y);
        let product = Cube::new(x.dims, |i, j, k| x.at(i, j, k) * pick(i, j, k));
        check([&x, &y], &product, 1e-6, |[x, y]| x * y);
    }
    let affine = Cube::new(x.dims, |i, j, k| x.at(i, j, k) * 3.0 + 1.0);
    check([&x], &affine, 1e-6, |[x]| x * 3.0 + 1.0);
}

#[test]
#[should_panic(expected = "add: Tensor[2, 4] doesn't broadcast to Tensor[3, 4]")]
fn a_wrong_shape_panics_with_both() {
    let (x, y) = (HostTensor::zeros([3, 4]), HostTensor::zeros([2, 4]));
    let _ = executor(Precision::Native).compute(|g| g.input(&x) + g.input(&y));
}

#[test]
fn linear() {
    let (x, w) = (Cube::noise([2, 9, 48], 5), Cube::noise([1, 7, 48], 6));
    let dot = |i, j, o| (0..48).map(|k| f64::from(x.at(i, j, k) * w.at(0, o, k))).sum::<f64>();
    let expected = Cube::new([2, 9, 7], |i, j, o| dot(i, j, o) as f32);
    check([&x, &w], &expected, 1e-5, |[x, w]| x.linear(w.contiguous()));
}

#[test]
fn matmul_transposed() {
    // Dimensions of one have strides that mean nothing, and that ggml looks at.
    for [n, m, inner] in [[9, 5, 32], [1, 5, 32], [9, 1, 32], [9, 5, 1], [1, 1, 1]] {
        let (x, y) = (Cube::noise([3, n, inner], 7), Cube::noise([3, m, inner], 8));
        let product = |i, n, m, k| f64::from(x.at(i, n, k) * y.at(i, m, k));
        let expected = Cube::new([3, n, m], |i, n, m| {
            (0..inner).map(|k| product(i, n, m, k)).sum::<f64>() as f32
        });
        check([&x, &y], &expected, 1e-5, |[x, y]| x.matmul_transposed(y));
    }
}

#[test]
fn rows_of() {
    let table = Cube::noise([1, 6, 20], 9);
    let ids = [5, 0, 3, 3];
    let expected = Cube::new([1, 4, 20], |_, j, k| table.at(0, ids[j as usize].into(), k));
    check([&table], &expected, 0.0, |[t]| t.graph().indices(ids).rows_of(t.contiguous()));
}

#[test]
fn norms() {
    let x = Cube::noise([3, 4, 40], 10);
    let row = |i, j| (0..40).map(move |k| (i, j, k)).map(|(i, j, k)| f64::from(x.at(i, j, k)));
    let mean = |i, j| row(i, j).sum::<f64>() / 40.0;
    let var = |i, j| row(i, j).map(|v| (v - mean(i, j)).powi(2)).sum::<f64>() / 40.0;
    let square = |i, j| row(i, j).map(|v| v * v).sum::<f64>() / 40.0;
    let layer = Cube::new(x.dims, |i, j, k| {
        ((f64::from(x.at(i, j, k)) - mean(i, j)) / (var(i, j) + 1e-6).sqrt()) as f32
    });
    check([&x], &layer, 1e-5, |[x]| x.layer_norm(1e-6));
    let rms = Cube::new(x.dims, |i, j, k| {
        (f64::from(x.at(i, j, k)) / (square(i, j) + 1e-6).sqrt()) as f32
    });
    check([&x], &rms, 1e-5, |[x]| x.rms_norm(1e-6));
}

#[test]
fn rms_norm_of_zeros_is_zero() {
    let x = Cube::new([1, 2, 16], |_, _, _| 0.0);
    check([&x], &x, 0.0, |[x]| x.rms_norm(1e-24));
}

#[test]
fn softmax() {
    let (x, bias) = (Cube::noise([3, 4, 21], 11), Cube::noise([3, 4, 21], 12));
    let e = |i, j, k| f64::from(x.at(i, j, k) * 0.7 + bias.at(i, j, k)).exp();
    let expected =
        Cube::new(x.dims, |i, j, k| (e(i, j, k) / (0..21).map(|k| e(i, j, k)).sum::<f64>()) as f32);
    check([&x, &bias], &expected, 1e-6, |[x, b]| x.softmax(0.7, Some(b)));
}

/// `[N, H, D]` for q `[H, N, D]` and k, v `[H, M, D]`.
fn naive_attention(q: &Cube, k: &Cube, v: &Cube) -> Cube {
    let ([h, n, d], m) = (q.dims, k.dims[1]);
    let mut rows = Vec::new();
    for i in 0..n {
        for head in 0..h {
            let score =
                |j| (0..d).map(|c| f64::from(q.at(head, i, c) * k.at(head, j, c))).sum::<f64>();
            let weights: Vec<f64> = (0..m).map(|j| (score(j) / (d as f64).sqrt()).exp()).collect();
            let total: f64 = weights.iter().sum();
            rows.extend((0..d).map(|c| {
                let value = |j: i64| weights[j as usize] * f64::from(v.at(head, j, c));
                ((0..m).map(value).sum::<f64>() / total) as f32
            }));
        }
    }
    Cube { dims: [n, h, d], data: rows }
}

#[test]
fn attention() {
    for n in [1, 70] {
        let q = Cube::noise([2, n, 32], 13);
        let (k, v) = (Cube::noise([2, 37, 32], 14), Cube::noise([2, 37, 32], 15));
        let expected = naive_attention(&q, &k, &v);
        check([&q, &k, &v], &expected, 1e-5, |[q, k, v]| q.attention(k, v));
    }
}

#[test]
fn attention_in_chunks_of_rows() {
    let mut exec = executor(Precision::Native);
    let mut limits = exec.limits();
    limits.dispatch = limits.rates.seconds(Work::attention(10, 5, 16));
    assert_eq!(limits.attention_rows(5, 16), 10);
    exec.set_limits(limits);
    let q = Cube::noise([1, 33, 16], 16);
    let (k, v) = (Cube::noise([1, 5, 16], 17), Cube::noise([1, 5, 16], 18));
    let expected = naive_attention(&q, &k, &v);
    check_on(exec, [&q, &k, &v], &expected, 1e-5, |[q, k, v]| q.attention(k, v));
}

#[test]
fn rope() {
    let (x, start, dims) = (Cube::noise([6, 2, 32], 19), 12, 10);
    let positions = [0, 1, 2, 50, 7, 20];
    let expected = Cube::new(x.dims, |n, h, c| {
        if !(start..start + dims).contains(&c) {
            return x.at(n, h, c);
        }
        let j = (c - start) / 2;
        let theta = 10_000f64.powf(-2.0 * j as f64 / dims as f64);
        let (sin, cos) = (f64::from(positions[n as usize]) * theta).sin_cos();
        let (a, b) = (x.at(n, h, start + 2 * j), x.at(n, h, start + 2 * j + 1));
        let (a, b) = (f64::from(a), f64::from(b));
        (if (c - start) % 2 == 0 { a * cos - b * sin } else { a * sin + b * cos }) as f32
    });
    check([&x], &expected, 1e-5, |[x]| x.rope(x.graph().indices(positions), 12, 10, 10_000.0));
}

#[test]
fn views_and_copies() {
    let x = Cube::noise([4, 5, 6], 20);
    let turned = Cube::new([6, 4, 5], |a, b, c| x.at(b, c, a));
    check([&x], &turned, 0.0, |[x]| x.permute([2, 0, 1]));
    let part = Cube::new([2, 5, 3], |a, b, c| x.at(a + 1, b, c + 2));
    check([&x], &part, 0.0, |[x]| x.narrow(0, 1..3).narrow(2, 2..5));
    let flat = Cube { dims: [1, 20, 6], data: x.data.clone() };
    check([&x], &flat, 0.0, |[x]| x.reshape([20, 6]));
    let runs = Cube::new([4, 3, 18], |a, b, c| x.at(a, b + c / 6, c % 6));
    check([&x], &runs, 0.0, |[x]| x.windows(3));
    let thinned = Cube::new([2, 3, 6], |a, b, c| x.at(2 * a, 2 * b, c));
    check([&x], &thinned, 0.0, |[x]| x.every(1, 2).every(2, 2).contiguous());
    let y = Cube::noise([4, 2, 6], 21);
    let joined =
        Cube::new([4, 7, 6], |a, b, c| if b < 5 { x.at(a, b, c) } else { y.at(a, b - 5, c) });
    check([&x, &y], &joined, 0.0, |[x, y]| x.concat(y, 2));
    let set =
        Cube::new(
            x.dims,
            |a, b, c| {
                if (1..3).contains(&b) { y.at(a, b - 1, c) } else { x.at(a, b, c) }
            },
        );
    check([&x, &y], &set, 0.0, |[x, y]| (x + 0.0).set([0, 1, 0], y));
}

#[test]
fn images() {
    let x = Cube::noise([4, 5, 6], 22);
    let padded = Cube::new([7, 8, 6], |a, b, c| {
        if (2..6).contains(&a) && (1..6).contains(&b) { x.at(a - 2, b - 1, c) } else { 0.0 }
    });
    check([&x], &padded, 0.0, |[x]| x.pad_image([1, 2, 2, 1]));
    let doubled = Cube::new([8, 10, 6], |a, b, c| x.at(a / 2, b / 2, c));
    check([&x], &doubled, 0.0, |[x]| x.upsample_nearest_2x());
}

/// `w` is `[O, C, kt, kh, kw]`; `x` `[T, H, W, C]` is given with its last two dimensions as one.
fn naive_conv3d(x: &Cube, c: i64, w: &[f32], o: i64, [kt, kh, kw]: [i64; 3], stride: i64) -> Cube {
    let [t, h, wide] = x.dims;
    let [ot, oh, ow] = [t - kt + 1, (h - kh) / stride + 1, (wide / c - kw) / stride + 1];
    Cube::new([ot, oh, ow * o], |a, b, pixel| {
        let (column, output) = (pixel / o, pixel % o);
        let mut sum = 0.0;
        for channel in 0..c {
            for (i, tap) in (0..kt * kh * kw).enumerate() {
                let (dt, dh, dw) = (tap / (kh * kw), tap / kw % kh, tap % kw);
                let weight = w[((output * c + channel) * kt * kh * kw) as usize + i];
                sum += f64::from(
                    x.at(a + dt, stride * b + dh, (stride * column + dw) * c + channel) * weight,
                );
            }
        }
        sum as f32
    })
}

#[track_caller]
fn check_conv3d([t, h, w, c]: [i64; 4], o: i64, kernel: [i64; 3]) {
    let exec = executor(Precision::Native);
    check_conv3d_on(exec, Storage::F32, 1e-5, [t, h, w, c], o, kernel, 1);
}

#[track_caller]
fn check_conv3d_on(
    exec: Executor,
    storage: Storage,
    tolerance: f32,
    [t, h, w, c]: [i64; 4],
    o: i64,
    kernel: [i64; 3],
    stride: i64,
) {
    let x = Cube::noise([t, h, w * c], 23);
    let columns = c * kernel.iter().product::<i64>();
    let weight = Cube::noise([1, o, columns], 24);
    let expected = naive_conv3d(&x, c, &weight.data, o, kernel, stride);
    let ordered = HostTensor::new([o, columns], patch_order(&weight.data, [o, c], kernel));
    check_on(exec, [&x], &expected, tolerance, |[x]| {
        let weight = x.graph().input(&ordered).stored(storage);
        let frame = |i: i64| x.narrow(0, i..i + 1).reshape([h, w, c]);
        let result = |i: i64| {
            let frames: Vec<_> = (i..i + kernel[0]).map(frame).collect();
            let y = conv3d(&frames, weight, kernel, stride);
            let [oh, ow, o] = y.dims();
            y.reshape([1, oh, ow * o])
        };
        (1..expected.dims[0]).fold(result(0), |all, i| all.concat(result(i), 1))
    });
}

#[test]
fn conv3d_of_every_kernel_of_the_vae() {
    for kernel in [[3, 3, 3], [1, 3, 3], [3, 1, 1], [1, 1, 1]] {
        check_conv3d([4, 6, 7, 5], 3, kernel);
    }
}

/// As GPUs do it: patches and weights of F16.
#[test]
fn conv3d_of_half_precision_patches() {
    for kernel in [[3, 3, 3], [1, 3, 3], [3, 1, 1], [1, 1, 1]] {
        let exec = executor(Precision::Native);
        check_conv3d_on(exec, Storage::F16, 1e-2, [4, 6, 7, 5], 3, kernel, 1);
    }
}

#[test]
fn conv3d_in_bands_of_rows() {
    let (w, c, rows) = (40, 64, 20);
    let mut exec = executor(Precision::Native);
    let mut limits = exec.limits();
    limits.scratch = 38 * 9 * c * 4 * rows;
    exec.set_limits(limits);
    check_conv3d_on(exec, Storage::F32, 1e-5, [2, 2 * rows + 7, w, c], 2, [1, 3, 3], 1);
}

/// Of odd and even sides, in one piece and in bands of two rows.
#[test]
fn conv3d_with_a_stride() {
    let c = 5;
    for (sides, scratch) in [([7, 9], 1 << 20), ([8, 6], 1 << 20), ([17, 11], 2 * 5 * 9 * c * 4)] {
        let mut exec = executor(Precision::Native);
        let mut limits = exec.limits();
        limits.scratch = scratch;
        exec.set_limits(limits);
        let [h, w] = sides;
        check_conv3d_on(exec, Storage::F32, 1e-5, [2, h, w, c], 3, [1, 3, 3], 2);
    }
}

#[test]
fn a_state_is_read_before_it_is_written() {
    let mut exec = executor(Precision::Native);
    let (a, b) = (Cube::noise([1, 3, 8], 25), Cube::noise([1, 3, 8], 26));
    let state = |_| DeviceTensor::new(device(), [1, 3, 8], Storage::F32).unwrap();
    let [x, y] = [0, 1].map(state);
    exec.update(|g| {
        g.write(&x, g.input(&a.host()));
        g.write(&y, g.input(&b.host()));
    })
    .unwrap();
    // Swapped in one graph: each write sees what the other state was before.
    exec.update(|g| {
        g.write(&x, g.read(&y) + 1.0);
        g.write(&y, g.read(&x) + 2.0);
    })
    .unwrap();
    let plus = |c: &Cube, n: f32| Cube::new(c.dims, |i, j, k| c.at(i, j, k) + n);
    assert_close(&exec.compute(|g| g.read(&x)).unwrap(), &plus(&b, 1.0), 0.0, "x");
    assert_close(&exec.compute(|g| g.read(&y)).unwrap(), &plus(&a, 2.0), 0.0, "y");
}

#[test]
fn a_part_of_a_state_is_written() {
    let mut exec = executor(Precision::Native);
    let (a, b) = (Cube::noise([4, 5, 6], 28), Cube::noise([6, 2, 3], 29));
    let state = DeviceTensor::new(device(), [4, 5, 6], Storage::F32).unwrap();
    exec.update(|g| g.write(&state, g.input(&a.host()))).unwrap();
    // The value is a transposed view.
    exec.update(|g| g.write_at(&state, [0, 1, 2, 0], g.input(&b.host()).permute([1, 2, 0])))
        .unwrap();
    let expected = Cube::new(a.dims, |i, j, k| {
        let inside = (1..3).contains(&i) && (2..5).contains(&j);
        if inside { b.at(k, i - 1, j - 2) } else { a.at(i, j, k) }
    });
    assert_close(&exec.compute(|g| g.read(&state)).unwrap(), &expected, 0.0, "state");
}

#[test]
fn a_dry_run_books_what_a_real_one_takes() {
    let books = |device: Device| {
        device.forget_peak();
        let mut exec = Executor::new(device, Precision::Native, 1).unwrap();
        let state = DeviceTensor::new(device, [1, 300, 64], Storage::F16).unwrap();
        let a = Cube::noise([3, 100, 64], 30).host();
        exec.update(|g| g.write(&state, (g.input(&a) + 1.0).silu().reshape([1, 300, 64]))).unwrap();
        let sum = exec.compute(|g| g.indices([0, 299]).rows_of(g.read(&state)) * 2.0).unwrap();
        assert_eq!(sum.shape, [2, 64].into());
        let peak = device.peak_usage();
        drop((exec, state));
        assert_eq!(device.usage().working(), 0);
        (peak, sum.data.iter().all(|v| *v == 0.0))
    };
    let (real, zero) = books(device());
    assert!(real.states >= 300 * 64 * 2 && real.compute >= 300 * 64 * 4 && !zero, "{real:?}");
    assert_eq!(books(device().dry()), (real, true));
}

#[test]
fn half_precision_state_rounds() {
    let mut exec = executor(Precision::Native);
    let a = Cube::noise([1, 3, 8], 27);
    let state = DeviceTensor::new(device(), [1, 3, 8], Storage::F16).unwrap();
    exec.update(|g| g.write(&state, g.input(&a.host()))).unwrap();
    let read = exec.compute(|g| g.indices([0, 1, 2]).rows_of(g.read(&state))).unwrap();
    assert_close(&read, &a, 5e-4, "F16");
}
