//! What the judge says in the end.

use super::metric::{Measured, Metric};
use super::rules::{Condition, Kind};
use serde_json::{Value, json};
use std::fmt;
use std::ops::RangeInclusive;

/// The judgement of a clip.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Failures first.
    pub findings: Vec<Finding>,
    /// Of the clip as a whole.
    pub clip: Measured,
    /// Of every frame.
    pub frames: Vec<Measured>,
    /// The same as the rules saw them: each frame with those around it that are like it.
    pub judged: Vec<Measured>,
}

/// Something that is wrong with a clip.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// Whether the clip fails by it; else a person should look.
    pub failure: bool,
    /// The frames it was seen in, from 0.
    pub frames: Vec<RangeInclusive<usize>>,
    /// What was measured (over these frames, the mean), and the threshold it crossed.
    pub evidence: Vec<(Condition, f64)>,
}

impl Verdict {
    /// Whether nothing is wrong that a clip fails by.
    pub fn passed(&self) -> bool {
        !self.findings.iter().any(|finding| finding.failure)
    }

    /// `passed`, `passed with warnings` or `failed`.
    pub fn name(&self) -> &'static str {
        match (self.passed(), self.findings.is_empty()) {
            (true, true) => "passed",
            (true, false) => "passed with warnings",
            (false, _) => "failed",
        }
    }

    /// Least, mean and largest value of each metric that frames have.
    pub fn table(&self) -> impl Iterator<Item = (Metric, [f64; 3])> + '_ {
        Metric::ALL.iter().filter_map(|&metric| {
            let values: Vec<f64> = self.frames.iter().filter_map(|f| f.get(metric)).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let low = values.iter().copied().reduce(f64::min)?;
            Some((metric, [low, mean, values.iter().copied().reduce(f64::max)?]))
        })
    }

    /// All of it, for programs.
    pub fn to_json(&self) -> Value {
        let number = |(metric, value): (Metric, f64)| (metric.name().to_owned(), json!(value));
        json!({
            "verdict": self.name(),
            "passed": self.passed(),
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
            "clip": Value::Object(self.clip.iter().map(number).collect()),
            "frames": self.frames.iter()
                .map(|frame| Value::Object(frame.iter().map(number).collect()))
                .collect::<Vec<_>>(),
        })
    }
}

impl Finding {
    fn to_json(&self) -> Value {
        let evidence = |(condition, value): &(Condition, f64)| {
            json!({
                "metric": condition.metric.name(),
                "value": value,
                "threshold": condition.threshold,
                "bad": if condition.above { "above" } else { "below" },
            })
        };
        json!({
            "kind": self.kind.name(),
            "failure": self.failure,
            "frames": self.frames.iter().map(|r| json!([r.start(), r.end()])).collect::<Vec<_>>(),
            "why": self.kind.meaning(),
            "evidence": self.evidence.iter().map(evidence).collect::<Vec<_>>(),
        })
    }
}

/// `noise in frames 0-16: pixels have … (correlation_1 0.01, below 0.25)`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.frames.iter().map(range).collect();
        let one = matches!(self.frames.as_slice(), [range] if range.start() == range.end());
        let frames = if one { "frame" } else { "frames" };
        write!(f, "{} in {frames} {}: {}", self.kind, ranges.join(", "), self.kind.meaning())?;
        let evidence: Vec<String> = self.evidence.iter().map(measured).collect();
        write!(f, " ({})", evidence.join("; "))
    }
}

fn range(range: &RangeInclusive<usize>) -> String {
    match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

fn measured((condition, value): &(Condition, f64)) -> String {
    let side = if condition.above { "above" } else { "below" };
    let Condition { metric, threshold, .. } = condition;
    format!("{metric} {}, {side} {threshold}", rounded(*value))
}

/// Three digits, however large.
pub(crate) fn rounded(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.01 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
