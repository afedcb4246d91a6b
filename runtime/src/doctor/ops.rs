//! Every op of our graphs on a device, against the CPU in strict precision.

use super::cases::{Tested, all};
use super::compare::Difference;
use super::private::private;
use crate::ggml::{ComputeError, Device, Executor, HostTensor, Limits, Precision};
use serde::Serialize;

/// What one op came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// In every case within the tolerance of what the CPU computes.
    Pass,
    /// The device computed something else, or failed.
    Fail,
    /// The device has no kernel for it, or none that can be trusted: a run that needs it ends with
    /// an error before it computes.
    Refused,
}

/// One op of our graphs, all its cases taken together.
#[derive(Clone, Debug, Serialize)]
pub struct Op {
    /// `linear Q8_0`, `attention 128`.
    pub name: String,
    /// How many sizes and layouts were tried.
    pub cases: usize,
    /// Of the first case that gave no result, else of the worst difference.
    pub outcome: Outcome,
    /// The worst of all cases, in units of the result's root mean square; null if one gave no result.
    #[serde(flatten)]
    pub difference: Option<Difference>,
    /// What `rms` may be; `max` may be twenty times as much.
    pub tolerance: f64,
    /// Why it failed or was refused.
    pub reason: Option<String>,
}

/// All ops on one device.
#[derive(Debug, Serialize)]
pub struct SelfTest {
    /// ggml's short name: `CPU`, `MTL0`.
    pub device: String,
    /// Whether no op failed.
    pub passed: bool,
    /// Why there are no more ops: the device can't be opened.
    pub error: Option<String>,
    /// In the order in which they ran; with an `error`, as far as they did.
    pub ops: Vec<Op>,
}

impl SelfTest {
    /// Tests all ops on `device`; `heard` gets each as it ends.
    pub fn run(device: Device, threads: usize, heard: &mut dyn FnMut(&Op)) -> Self {
        Self::of(all(device.family()), device, threads, heard)
    }

    fn of(ops: Vec<Tested>, device: Device, threads: usize, heard: &mut dyn FnMut(&Op)) -> Self {
        let mut test = Self { device: device.name(), passed: false, error: None, ops: Vec::new() };
        match test.test(ops, device, threads, heard) {
            Ok(()) => test.passed = test.failed().is_empty(),
            Err(error) => test.error = Some(private(&error.to_string())),
        }
        test
    }

    fn test(
        &mut self,
        ops: Vec<Tested>,
        device: Device,
        threads: usize,
        heard: &mut dyn FnMut(&Op),
    ) -> Result<(), ComputeError> {
        let mut reference = executor(Device::cpu(), Precision::Strict, threads)?;
        let mut tested = executor(device, Precision::Native, threads)?;
        for op in ops {
            let result = op.run(&mut tested, &mut reference);
            heard(&result);
            if result.outcome == Outcome::Fail {
                // A backend that failed may refuse whatever comes next.
                tested = executor(device, Precision::Native, threads)?;
            }
            self.ops.push(result);
        }
        Ok(())
    }

    /// Names of the ops that failed.
    pub fn failed(&self) -> Vec<&str> {
        self.with(Outcome::Fail)
    }

    /// Names of the ops that the device doesn't have.
    pub fn refused(&self) -> Vec<&str> {
        self.with(Outcome::Refused)
    }

    fn with(&self, outcome: Outcome) -> Vec<&str> {
        self.ops.iter().filter(|op| op.outcome == outcome).map(|op| op.name.as_str()).collect()
    }
}

/// With so little scratch memory that convolutions and scores are cut into bands.
fn executor(
    device: Device,
    precision: Precision,
    threads: usize,
) -> Result<Executor, ComputeError> {
    let mut exec = Executor::new(device, precision, threads)?;
    exec.set_limits(Limits { scratch: 1 << 20, ..exec.limits() });
    Ok(exec)
}

impl Tested {
    fn run(self, tested: &mut Executor, reference: &mut Executor) -> Op {
        let mut op = Op {
            name: self.name,
            cases: self.cases.len(),
            outcome: Outcome::Pass,
            difference: Some(Difference::default()),
            tolerance: self.tolerance,
            reason: None,
        };
        for case in self.cases {
            match compared(case(tested), case(reference)) {
                Ok(new) => op.difference = op.difference.map(|worst| worst.or_worse(new)),
                Err((outcome, reason)) => {
                    return Op { outcome, difference: None, reason: Some(reason), ..op };
                }
            }
        }
        if !op.difference.is_some_and(|worst| worst.within(op.tolerance)) {
            op.outcome = Outcome::Fail;
            op.reason = Some("the result differs from the CPU's".into());
        }
        op
    }
}

fn compared(
    got: Result<HostTensor, ComputeError>,
    expected: Result<HostTensor, ComputeError>,
) -> Result<Difference, (Outcome, String)> {
    let failed = |why: String| (Outcome::Fail, private(&why));
    let got = got.map_err(|error| match error {
        ComputeError::Unsupported { why, .. } => (Outcome::Refused, why.to_owned()),
        other => failed(other.to_string()),
    })?;
    let expected = expected.map_err(|error| failed(format!("on the CPU: {error}")))?;
    Difference::between(&got.data, &expected.data).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::cases::noise;
    use crate::ggml::{Family, Storage};

    /// The CPU, or the device of the backend that the environment names: `TEST_DEVICE=vulkan`.
    fn device() -> Device {
        let Ok(wanted) = std::env::var("TEST_DEVICE") else { return Device::cpu() };
        let named = |d: &Device| format!("{:?}", d.family()).eq_ignore_ascii_case(&wanted);
        Device::all().into_iter().find(named).unwrap_or_else(|| panic!("no device `{wanted}`"))
    }

    /// On Vulkan those that `script/test-vulkan` has shaders for.
    #[test]
    fn every_op_passes() {
        let mut ops = all(device().family());
        if device().family() == Family::Vulkan {
            let types = [" F32", " F16", " Q8_0", " Q4_K"];
            let typed = |op: &Tested| op.name.starts_with("linear") || op.name.contains("rows");
            ops.retain(|op| !typed(op) || types.iter().any(|name| op.name.ends_with(name)));
        }
        let test = SelfTest::of(ops, device(), 2, &mut |_| ());
        let bad = test.ops.iter().filter(|op| op.outcome != Outcome::Pass).collect::<Vec<_>>();
        assert!(test.passed && bad.is_empty(), "{:?}, {bad:#?}", test.error);
        // Each tolerance tells a wrong result from rounding.
        assert!(test.ops.iter().all(|op| op.tolerance <= 0.02), "{:#?}", test.ops);
    }

    /// What a case gives if the tested device, and it alone, runs `wrong`.
    fn planted(
        wrong: impl Fn(&mut Executor) -> Result<HostTensor, ComputeError> + 'static,
        tolerance: f64,
    ) -> Op {
        let mut reference = executor(Device::cpu(), Precision::Strict, 1).unwrap();
        let mut tested = executor(Device::cpu(), Precision::Native, 1).unwrap();
        let turn = std::cell::Cell::new(true);
        let case = move |exec: &mut Executor| {
            if turn.replace(false) {
                return wrong(exec);
            }
            let (x, w) = (noise([64, 256], 1), noise([32, 256], 2));
            exec.compute(|g| g.input(&x).linear(g.input(&w)))
        };
        let op = Tested { name: "planted".into(), tolerance, cases: vec![Box::new(case)] };
        op.run(&mut tested, &mut reference)
    }

    #[test]
    fn a_wrong_result_is_seen() {
        let product = |exec: &mut Executor, factor: f32, shift: f32| {
            let (x, w) = (noise([64, 256], 1), noise([32, 256], 2));
            exec.compute(|g| g.input(&x).linear(g.input(&w)) * factor + shift)
        };
        assert_eq!(planted(move |e| product(e, 1.0, 0.0), 1e-5).outcome, Outcome::Pass);
        for (factor, shift) in [(1.1, 0.0), (1.0, 0.5), (0.0, 0.0), (f32::NAN, 0.0)] {
            let op = planted(move |e| product(e, factor, shift), 2e-2);
            assert_eq!(op.outcome, Outcome::Fail, "{op:?}");
            assert!(op.reason.is_some());
        }
    }

    #[test]
    fn what_a_device_lacks_is_no_failure() {
        let op = planted(
            |exec| exec.compute(|g| g.input(&noise([64, 32], 1)).stored(Storage::F16).silu()),
            1e-3,
        );
        assert_eq!(op.outcome, Outcome::Refused, "{op:?}");
        assert!(op.reason.unwrap().contains("F32"));
    }

    #[test]
    fn every_type_that_the_converter_writes_is_tested() {
        let names: Vec<_> = all(Family::Cpu).into_iter().map(|op| op.name).collect();
        for dtype in to_gguf::QUANTIZED {
            let name = format!("linear {dtype}");
            assert!(names.contains(&name), "no {name:?}");
        }
    }

    /// The tolerances of GPUs are no wider than what their rounding needs.
    #[test]
    fn tolerances_follow_the_weights_type() {
        let of = |family, name: &str| {
            let op = all(family).into_iter().find(|op| op.name == name).unwrap();
            op.tolerance
        };
        assert!(of(Family::Metal, "linear Q4_K") < of(Family::Cpu, "linear Q4_K"));
        assert!(of(Family::Cpu, "linear F32") < of(Family::Metal, "linear F32"));
        assert_eq!(of(Family::Metal, "permute"), 0.0);
    }
}
