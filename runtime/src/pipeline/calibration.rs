//! How fast devices are, kept from one run to the next: what was measured in a moment, and how much
//! longer or shorter finished runs then took.

use super::home::Home;
use super::machine::Machine;
use super::whole_file::replace;
use crate::ggml::{ComputeError, Device, Precision, Rates};
use gguf::DType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// What a new observation counts against all before it.
const NEWEST: f64 = 0.5;
/// A run that took so many times as long, or as short, was disturbed or is no measure.
const CREDIBLE: f64 = 5.0;

/// Known speeds; kept in a file of the home folder.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    path: Option<PathBuf>,
    known: Known,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Known {
    /// By device, threads, precision and type of the weights.
    rates: BTreeMap<String, Rates>,
    /// Seconds that a part took for each second that the rates had promised, by device and part.
    pace: BTreeMap<String, f64>,
}

/// How a plan's seconds are known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Basis {
    /// Finished runs of this part on this device.
    Runs,
    /// The device did a little of each kind of work.
    Measured,
    /// What the device calls itself.
    Guessed,
}

impl Calibration {
    /// What is known in `home`, and where to keep more.
    pub fn load(home: &Home) -> Self {
        let path = home.calibration();
        let known = fs::read(&path).ok().and_then(|b| serde_json::from_slice(&b).ok());
        Self { path: Some(path), known: known.unwrap_or_default() }
    }

    /// Of `device` with weights as `weights` are: as measured before, or now.
    pub(super) fn rates(
        &mut self,
        machine: &Machine,
        device: Device,
        weights: DType,
    ) -> Result<Rates, ComputeError> {
        let Machine { precision, threads, .. } = *machine;
        let any = format!("{}, {threads} threads, {precision:?}, ", name(device));
        let key = format!("{any}{weights}");
        if let Some(rates) = self.known.rates.get(&key) {
            return Ok(*rates);
        }
        let others = self.known.rates.iter().find(|(key, _)| key.starts_with(&any));
        let other = others.map(|(_, rates)| *rates);
        let rates = Rates::measure(device, precision, threads, weights, other)?;
        self.known.rates.insert(key, rates);
        self.save();
        Ok(rates)
    }

    /// How much longer than promised `part` takes on `device`, if runs have shown it.
    pub(super) fn pace(&self, machine: &Machine, device: Device, part: &str) -> Option<f64> {
        self.known.pace.get(&pace_key(machine, device, part)).copied()
    }

    /// A finished run took `seconds` for `part`, where `promised` come of the rates alone.
    pub(super) fn learn(
        &mut self,
        machine: &Machine,
        device: Device,
        part: &str,
        promised: f64,
        seconds: f64,
    ) {
        let ratio = seconds / promised;
        if !(1.0 / CREDIBLE..CREDIBLE).contains(&ratio) {
            return;
        }
        let newest = |old: f64| old.powf(1.0 - NEWEST) * ratio.powf(NEWEST);
        let key = pace_key(machine, device, part);
        self.known.pace.entry(key).and_modify(|old| *old = newest(*old)).or_insert(ratio);
        self.save();
    }

    fn save(&self) {
        let Some(path) = &self.path else { return };
        if let Ok(bytes) = serde_json::to_vec_pretty(&self.known) {
            // It can be measured again.
            let _ = path.parent().map_or(Ok(()), fs::create_dir_all);
            let _ = replace(path, &bytes);
        }
    }
}

fn name(device: Device) -> String {
    format!("{} ({})", device.name(), device.description())
}

fn pace_key(machine: &Machine, device: Device, part: &str) -> String {
    let strict = if machine.precision == Precision::Strict { ", strict" } else { "" };
    format!("{}, {} threads{strict}, {part}", name(device), machine.threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_teach_and_nonsense_does_not() {
        let machine = Machine::on(Device::cpu(), Precision::Native, 1);
        let mut known = Calibration::default();
        assert_eq!(known.pace(&machine, machine.vae, "VAE"), None);
        known.learn(&machine, machine.vae, "VAE", 10.0, 20.0);
        known.learn(&machine, machine.vae, "VAE", 10.0, 900.0);
        known.learn(&machine, machine.vae, "VAE", 0.0, 1.0);
        assert_eq!(known.pace(&machine, machine.vae, "VAE"), Some(2.0));
        known.learn(&machine, machine.vae, "VAE", 10.0, 5.0);
        let pace = known.pace(&machine, machine.vae, "VAE").unwrap();
        assert!((pace - 1.0).abs() < 1e-9, "{pace}");
        assert_eq!(known.pace(&machine, machine.vae, "text encoder"), None);
    }
}
