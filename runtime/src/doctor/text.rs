//! The report for people: short enough to paste.

use super::{Backends, Disk, Op, Outcome, Program, SelfTest, System};
use std::fmt::{self, Display, Formatter, Write};

/// Columns of text.
const WIDTH: usize = 100;

/// The number with three digits, and a letter for its thousands.
fn short(n: f64) -> String {
    let (n, unit) = match n {
        n if n >= 1e12 => (n / 1e12, "T"),
        n if n >= 1e9 => (n / 1e9, "G"),
        n => (n / 1e6, "M"),
    };
    if n >= 100.0 { format!("{n:.0} {unit}") } else { format!("{n:.1} {unit}") }
}

fn told(value: Option<&String>) -> &str {
    value.map_or("unknown", String::as_str)
}

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { version, target, ggml_version, ggml_source, ggml_commit } = self;
        write!(f, "program   gguf-video {version} for {target}, ggml {ggml_version}")?;
        writeln!(f, " of {ggml_source}, commit {ggml_commit}")
    }
}

impl Display for System {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (os, kernel) = (told(self.os.as_ref()), told(self.kernel.as_ref()));
        writeln!(f, "system    {os}, kernel {kernel}")?;
        write!(f, "computer  {}, {} cores", told(self.cpu.as_ref()), self.cores)?;
        if let Some(cores) = self.physical_cores {
            write!(f, " ({cores} physical)")?;
        }
        let known = |bytes: Option<u64>| {
            bytes.map_or("unknown".into(), |b| format!("{}B", short(b as f64)))
        };
        let [all, free] = [self.memory_bytes, self.available_memory_bytes].map(known);
        writeln!(f, ", RAM {all}, of it available {free}")?;
        if self.rosetta == Some(true) {
            let advice = "build the program for aarch64: Metal is slow or missing this way";
            writeln!(f, "warning   Rosetta translates this program; {advice}")?;
        }
        if let Some(limit) = self.iogpu_wired_limit_mb {
            let limit = match limit {
                0 => "the system's default".into(),
                limit => format!("{limit} MB"),
            };
            writeln!(f, "GPU limit iogpu.wired_limit_mb: {limit}")?;
        }
        Ok(())
    }
}

impl Display for Backends {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for backend in &self.backends {
            let origin = if backend.library { "loaded" } else { "built in" };
            let features = backend.features.iter().map(|(name, value)| match value.as_str() {
                "1" => name.clone(),
                value => format!("{name}={value}"),
            });
            let features = features.collect::<Vec<_>>().join(" ");
            let devices = backend.devices;
            let text = format!("{}, {origin}, {devices} device(s): {features}", backend.name);
            wrapped(f, "backend", text.trim_end_matches([':', ' ']))?;
        }
        for why in &self.refused_backends {
            writeln!(f, "refused   {why}")?;
        }
        for device in &self.devices {
            let [total, free] =
                [device.memory_bytes.total, device.memory_bytes.free].map(|b| short(b as f64));
            let what = if device.is_metal() { "recommended working set" } else { "memory" };
            let (name, description) = (&device.name, &device.description);
            writeln!(f, "device    {name}: {description}, {what} {total}B, {free}B free")?;
            if device.is_metal() {
                let how = "sudo sysctl iogpu.wired_limit_mb=MB";
                writeln!(f, "          `{how}` changes it until the next restart")?;
            }
            match (&device.rates, &device.rates_error) {
                (Some(rates), _) => {
                    let [products, attention, bytes] =
                        [rates.matmul_flops, rates.attention_flops, rates.bytes].map(short);
                    let products = format!("{products}FLOP of Q8_0 products");
                    write!(f, "          measured in a second: {products}, {attention}FLOP of ")?;
                    writeln!(f, "attention, {bytes}B of the rest")?;
                }
                (None, error) => writeln!(f, "          not measured: {}", told(error.as_ref()))?,
            }
        }
        // Without the names of ggml's functions, and in as few lines as it takes.
        let said = self.log.iter().map(|line| {
            let line = line.split_once(": ").map_or(line.as_str(), |(_, said)| said);
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        });
        match said.collect::<Vec<_>>().join("; ").as_str() {
            "" => Ok(()),
            said => wrapped(f, "log", said),
        }
    }
}

/// `2.1e-4`, and `0` of nothing.
fn scientific(n: f64) -> String {
    if n == 0.0 { "0".into() } else { format!("{n:.1e}") }
}

/// `text` in lines of [`WIDTH`], under `label`.
fn wrapped(f: &mut Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    let mut line = format!("{label:<9}");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            writeln!(f, "{line}")?;
            line = format!("{:<9}", "");
        }
        write!(line, " {word}")?;
    }
    writeln!(f, "{line}")
}

impl Display for Disk {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [tested, free, total] =
            [self.tested_bytes, self.free_bytes, self.total_bytes].map(|b| short(b as f64));
        let [write, read] = [self.write_bytes_per_second, self.read_bytes_per_second].map(short);
        let cache = if self.cache_bypassed { "" } else { " (perhaps from memory)" };
        write!(f, "disk      {free}B of {total}B free; a file of {tested}B: {write}B a second ")?;
        writeln!(f, "written and synchronized, {read}B read{cache}")
    }
}

impl SelfTest {
    /// What stands above the ops.
    pub fn heading(device: &str) -> String {
        let title = format!("self-test of {device}, against the CPU in strict precision");
        format!("{title}\n  {:<28}{:>9}{:>9}  tolerance", "op", "rms", "max")
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "  {:<28}", self.name)?;
        match self.difference {
            Some(d) => write!(f, "{:>9}{:>9}", scientific(d.rms), scientific(d.max))?,
            None => write!(f, "{:>9}{:>9}", "-", "-")?,
        }
        let tolerance = scientific(self.tolerance);
        let outcome = match self.outcome {
            Outcome::Pass => "  ok",
            Outcome::Fail => "  FAIL",
            Outcome::Refused => "  refused",
        };
        write!(f, "{tolerance:>11}{outcome}")?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

/// What the test comes to, in a sentence.
impl Display for SelfTest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (device, failed, refused) = (&self.device, self.failed(), self.refused());
        if let Some(error) = &self.error {
            return write!(f, "{device} can't be tested: {error}");
        }
        if failed.is_empty() {
            write!(f, "{device} computes right: {} ops", self.ops.len() - refused.len())?;
        } else {
            let names = failed.join(", ");
            write!(f, "{device} computes wrong: {names}; don't trust its videos")?;
        }
        if !refused.is_empty() {
            let names = refused.join(", ");
            write!(f, "; it doesn't have: {names}; a run that needs them ends with an error")?;
        }
        Ok(())
    }
}
