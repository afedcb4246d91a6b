//! The program, the operating system, the processor and its memory.

use crate::ggml;
use crate::os::sysctl;
use serde::Serialize;

/// What was built.
#[derive(Debug, Serialize)]
pub struct Program {
    /// Of this program.
    pub version: &'static str,
    /// The instruction set that it was built for: `aarch64`, `x86_64`.
    pub target: &'static str,
    /// As ggml has it: `0.26.0`.
    pub ggml_version: String,
    /// The package that ggml's source came from.
    pub ggml_source: &'static str,
    /// `unknown` where the source came from a package.
    pub ggml_commit: String,
}

impl Program {
    /// Of the program that runs.
    pub fn read() -> Self {
        let (ggml_version, ggml_source) = ggml::version();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            target: std::env::consts::ARCH,
            ggml_version,
            ggml_source,
            ggml_commit: ggml::commit(),
        }
    }
}

/// What it runs on. What the system doesn't tell is null.
#[derive(Debug, Serialize)]
pub struct System {
    /// `macOS 15.5 Sequoia`, `Linux (Debian GNU/Linux 12)`.
    pub os: Option<String>,
    /// Its release: `24.5.0`.
    pub kernel: Option<String>,
    /// The brand of the first processor: `Apple M2 Max`.
    pub cpu: Option<String>,
    /// Cores that this process may use, hyperthreads counted.
    pub cores: usize,
    /// Of the machine.
    pub physical_cores: Option<usize>,
    /// RAM.
    pub memory_bytes: Option<u64>,
    /// RAM that programs can get before others are swapped out.
    pub available_memory_bytes: Option<u64>,
    /// Whether Rosetta translates the program; null where there is none.
    pub rosetta: Option<bool>,
    /// macOS: MB of RAM that the GPU may use; 0 is the system's own choice.
    pub iogpu_wired_limit_mb: Option<u64>,
}

impl System {
    /// As the operating system tells it now.
    pub fn read() -> Self {
        use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System as Told};
        let wanted = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let told = Told::new_with_specifics(wanted).ok();
        let cpu = told.as_ref().and_then(|t| t.cpus().first()).map(|cpu| cpu.brand().trim());
        let cpu = cpu.filter(|name| !name.is_empty()).map(str::to_owned);
        let translated = sysctl("sysctl.proc_translated");
        Self {
            os: Told::long_os_version().ok(),
            kernel: Told::kernel_version().ok(),
            cpu,
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            physical_cores: Told::physical_core_count().ok(),
            memory_bytes: told.as_ref().map(Told::total_memory),
            available_memory_bytes: told.as_ref().map(Told::available_memory),
            rosetta: translated.map(|value| value == "1"),
            iogpu_wired_limit_mb: sysctl("iogpu.wired_limit_mb").and_then(|v| v.parse().ok()),
        }
    }
}
