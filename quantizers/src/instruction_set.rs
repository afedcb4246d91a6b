//! Which instructions the quantizers are compiled for, several times over; the processor decides
//! when the program runs.

/// A set of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// What every processor of the target has: SSE2 on x86-64, NEON on 64-bit ARM, and nothing for
    /// vectors elsewhere.
    Baseline,
    /// AVX2 and the rest of x86-64-v3.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 as from Ice Lake on.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl InstructionSet {
    /// Those that this processor has, the best last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "there is more on x86-64 only")]
        let mut sets = vec![Self::Baseline];
        #[cfg(target_arch = "x86_64")]
        {
            let level = fearless_simd::Level::new();
            sets.extend(level.as_avx2().map(|_| Self::Avx2));
            sets.extend(level.as_avx512().map(|_| Self::Avx512));
        }
        sets
    }

    /// The best that this processor has.
    pub fn best() -> Self {
        *Self::available().last().expect("the baseline is always there")
    }
}

/// Runs `$op` with the token of `$set` as `$simd`.
macro_rules! run {
    ($set:expr, $simd:ident => $op:expr) => {{
        use fearless_simd::Level;
        match $set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => {
                let $simd = Level::new().as_avx512().expect("a processor with AVX-512");
                $op
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => {
                let $simd = Level::new().as_avx2().expect("a processor with AVX2");
                $op
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Baseline => {
                let $simd = Level::new().as_sse2().expect("SSE2 is part of x86-64");
                $op
            }
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Baseline => {
                let $simd = Level::new().as_neon().expect("NEON is part of the target");
                $op
            }
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            InstructionSet::Baseline => {
                let Level::Fallback($simd) = Level::baseline() else {
                    unreachable!("the target has no vectors that are known")
                };
                $op
            }
        }
    }};
}
pub(crate) use run;
