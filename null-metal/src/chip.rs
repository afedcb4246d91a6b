//! The two kinds of Apple chips that ggml treats differently.

/// What the null device pretends to be. Rates are published or derived figures; nothing here has
/// been measured on the hardware.
#[derive(Clone, Copy, Debug)]
pub struct Chip {
    /// As the hardware calls itself.
    pub name: &'static str,
    /// n of `MTLGPUFamilyApple<n>`.
    pub gpu_family: i32,
    /// Metal 4's matrix units.
    pub has_tensor: bool,
    /// `recommendedMaxWorkingSetSize`, in bytes.
    pub memory: usize,
    /// Peak operations a second in the matrix products that ggml's kernels use.
    pub flops: f64,
    /// Share of `flops` in matrix products.
    pub matmul: f64,
    /// Share of `flops` in fused attention.
    pub attention: f64,
    /// Bytes a second.
    pub bandwidth: f64,
}

/// The slowest chip that a full-size model is reasonable on, with 64 GB.
pub const M1_MAX: Chip = Chip {
    name: "Apple M1 Max",
    gpu_family: 7,
    has_tensor: false,
    memory: 48 << 30,
    flops: 10.4e12,
    matmul: 0.72,
    attention: 0.45,
    bandwidth: 400e9,
};

/// The first generation with matrix units, with 128 GB.
pub const M5_MAX: Chip = Chip {
    name: "Apple M5 Max",
    gpu_family: 10,
    has_tensor: true,
    memory: 96 << 30,
    flops: 60e12,
    matmul: 0.6,
    attention: 0.45,
    bandwidth: 614e9,
};
