//! Whether frames are a video: the last gate before anybody says "done".
//!
//! Frames are pushed as they appear; each leaves its [`Metric`]s behind, and at the end the
//! [`FRAME_RULES`] and [`CLIP_RULES`] say what is wrong. Nothing is learned: every metric has a
//! formula and a source, every threshold a place between the good and the bad clips of the
//! calibration set. `docs/judge.md` has them all, and what the judge can't see.

mod holes;
mod metric;
mod planes;
mod rules;
mod spatial;
mod temporal;
mod verdict;

use crate::output::Frame;
use planes::{Planes, planes};
use std::collections::VecDeque;
use std::ops::RangeInclusive;

pub use metric::{Measured, Metric};
pub use rules::{CLIP_RULES, Condition, FRAME_RULES, Kind, Rule};
pub(crate) use verdict::rounded;
pub use verdict::{Finding, Verdict};

/// Frames between the two that motion is looked for in: those of one latent frame.
const LAG: usize = 4;
/// Frames around each one whose metrics are averaged, against chance.
const WINDOW: usize = 2;
/// A finding in a smaller share of the frames is a warning.
const FAILING_SHARE: f64 = 0.05;
/// The shortest clip whose course is looked at.
const COURSE: usize = 8;
/// A solid frame next to one of so much contrast came without a fade.
const ABRUPT: f64 = 12.0;

/// Whether the clip was meant to move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Motion {
    /// Nobody said: a clip that stands still is reported, and passes.
    #[default]
    Unknown,
    /// A clip that stands still fails.
    Expected,
    /// A clip that stands still is what was wanted.
    Still,
}

/// What is known of a clip before it is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expectations {
    /// Whether it should move.
    pub motion: Motion,
}

/// Looks at one clip, frame by frame. It keeps numbers of every frame, and a reduced picture of
/// four.
#[derive(Default)]
pub struct Judge {
    expectations: Expectations,
    frames: Vec<Measured>,
    /// Pixels of the shortest side.
    side: usize,
    /// Luma of the last frame.
    last: Vec<u8>,
    /// Cells of the last [`LAG`] frames.
    recent: VecDeque<Planes>,
    /// Bytes of the largest coded frame, over the pixels of one.
    bits_per_pixel: Option<f64>,
}

impl Judge {
    /// A judge that has seen nothing.
    pub fn new(expectations: Expectations) -> Self {
        Self { expectations, ..Self::default() }
    }

    /// Looks at the next frame.
    pub fn push(&mut self, frame: &Frame) {
        let side = frame.width.min(frame.height);
        self.side = if self.frames.is_empty() { side } else { self.side.min(side) };
        let planes = planes(frame);
        let mut measured = spatial::measure(frame, &planes);
        let cells = temporal::cells(&planes);
        if self.recent.len() == LAG
            && let Some(before) = self.recent.pop_front()
            && before[0].data.len() == cells[0].data.len()
            && let Some(coherence) = temporal::coherence(&before, &cells)
        {
            measured.set(Metric::Coherence, coherence);
        }
        self.recent.push_back(cells);
        let luma: Vec<u8> = planes[0].data.iter().map(|v| v.round() as u8).collect();
        if self.last.len() == luma.len() {
            let off: u64 =
                self.last.iter().zip(&luma).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
            measured.set(Metric::Change, off as f64 / luma.len() as f64);
        }
        self.last = luma;
        self.frames.push(measured);
    }

    /// How many bits a pixel the largest coded frame has, if the clip came from a compressed file.
    pub fn compressed(&mut self, bits_per_pixel: Option<f64>) {
        self.bits_per_pixel = bits_per_pixel;
    }

    /// The judgement of all that was pushed.
    pub fn finish(mut self) -> Verdict {
        // The first frames have nothing before them, but what comes of them.
        for index in 0..self.frames.len().min(LAG) {
            let later = self.frames.get(index + LAG).and_then(|f| f.get(Metric::Coherence));
            let later = later.or_else(|| self.frames.last()?.get(Metric::Coherence));
            if let Some(coherence) = later {
                self.frames[index].set(Metric::Coherence, coherence);
            }
        }
        let clip = self.clip();
        let around: Vec<Measured> = (0..self.frames.len()).map(|i| self.around(i)).collect();
        let mut findings: Vec<Finding> =
            FRAME_RULES.iter().filter_map(|rule| in_frames(rule, self.side, &around)).collect();
        let found = |rule: &Rule, failure| {
            self.of_clip(rule.kind, rule.all, failure, &clip, self.frames_of(rule.kind))
        };
        findings.extend(CLIP_RULES.iter().filter_map(|rule| found(rule, rule.fails)));
        let every = || whole(self.frames.len());
        if self.expectations.motion != Motion::Still {
            let failure = self.expectations.motion == Motion::Expected;
            findings.extend(self.of_clip(Kind::Frozen, &rules::FROZEN, failure, &clip, every()));
        }
        findings.sort_by_key(|finding| !finding.failure);
        Verdict { findings, clip, frames: self.frames, judged: around }
    }

    /// The metrics of frame `index`, averaged over its like among its neighbours: noise next to a
    /// picture isn't a bit of either.
    fn around(&self, index: usize) -> Measured {
        let get = |i: usize, metric| self.frames[i].get(metric).unwrap_or_default();
        let like = |i: &usize| {
            let far = |metric| (get(*i, metric) - get(index, metric)).abs();
            far(Metric::Correlation1) < 0.1 && far(Metric::Correlation8) < 0.25
        };
        let near = index.saturating_sub(WINDOW)..(index + WINDOW + 1).min(self.frames.len());
        let near: Vec<usize> = near.filter(like).collect();
        let mut mean = Measured::default();
        for &metric in Metric::ALL {
            let values: Vec<f64> =
                near.iter().filter_map(|&i| self.frames[i].get(metric)).collect();
            if !values.is_empty() {
                mean.set(metric, values.iter().sum::<f64>() / values.len() as f64);
            }
        }
        // What is in one frame alone counts there alone.
        for metric in [Metric::Holes, Metric::Deviating] {
            if let Some(value) = self.frames[index].get(metric) {
                mean.set(metric, value);
            }
        }
        mean
    }

    fn of_clip(
        &self,
        kind: Kind,
        all: &[Condition],
        failure: bool,
        clip: &Measured,
        frames: Vec<RangeInclusive<usize>>,
    ) -> Option<Finding> {
        all.iter().all(|condition| condition.holds(clip)).then(|| Finding {
            kind,
            failure,
            frames,
            evidence: all.iter().filter_map(|c| Some((*c, clip.get(c.metric)?))).collect(),
        })
    }

    /// The frames that a finding about the clip is about.
    fn frames_of(&self, kind: Kind) -> Vec<RangeInclusive<usize>> {
        match kind {
            Kind::Flat => {
                let flat: Vec<usize> = (0..self.frames.len()).filter(|&i| self.flat(i)).collect();
                ranges(&flat)
            }
            Kind::Dropout => ranges(&self.dropouts()),
            _ => whole(self.frames.len()),
        }
    }

    fn flat(&self, index: usize) -> bool {
        rules::FLAT.holds(&self.frames[index])
    }

    /// Solid frames that a picture goes before and another one follows, without a fade.
    fn dropouts(&self) -> Vec<usize> {
        let picture = |i: usize| {
            self.frames.get(i).is_some_and(|f| f.get(Metric::Contrast).is_some_and(|c| c > ABRUPT))
        };
        let flat: Vec<usize> = (0..self.frames.len()).filter(|&i| self.flat(i)).collect();
        ranges(&flat)
            .into_iter()
            .filter(|run| *run.start() > 0 && picture(run.start() - 1) && picture(run.end() + 1))
            .flatten()
            .collect()
    }

    fn clip(&self) -> Measured {
        let mut clip = Measured::default();
        let frames = self.frames.len();
        let series = |metric| -> Vec<f64> {
            self.frames.iter().filter_map(|frame| frame.get(metric)).collect()
        };
        let flat = (0..frames).filter(|&i| self.flat(i)).count();
        clip.set(Metric::Frames, frames as f64);
        clip.set(Metric::FlatShare, flat as f64 / frames.max(1) as f64);
        clip.set(Metric::Dropouts, self.dropouts().len() as f64);
        if let Some(largest) = series(Metric::Change).into_iter().reduce(f64::max) {
            clip.set(Metric::LargestChange, largest);
        }
        if frames >= COURSE {
            clip.set(Metric::Flicker, flicker(&series(Metric::Luma)));
            let clipped = series(Metric::Clipped);
            let (first, last) = ends(&clipped);
            let jump = clipped.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
            clip.set(Metric::ClippedGain, last - first);
            clip.set(Metric::ClippedJump, jump);
            let (first, last) = ends(&series(Metric::Contrast));
            clip.set(Metric::ContrastGain, last / first.max(1.0));
            // Frames in the dark have none.
            let saturation = series(Metric::Saturation);
            if saturation.len() >= COURSE {
                let (first, last) = ends(&saturation);
                clip.set(Metric::SaturationGain, last / first.max(0.05));
                clip.set(Metric::SaturationTrend, trend(&saturation));
            }
        }
        if let Some(bits) = self.bits_per_pixel {
            clip.set(Metric::BitsPerPixel, bits);
        }
        clip
    }
}

/// The frames that a rule catches.
fn in_frames(rule: &Rule, side: usize, frames: &[Measured]) -> Option<Finding> {
    let caught: Vec<usize> = (0..frames.len()).filter(|&i| rule.catches(&frames[i])).collect();
    if caught.is_empty() || (caught.len() as f64) < rule.least * frames.len() as f64 {
        return None;
    }
    let few = (caught.len() as f64) < FAILING_SHARE * frames.len() as f64;
    let evidence = rule.all.iter().filter_map(|condition| {
        let of = |&i: &usize| frames[i].get(condition.metric);
        let values: Vec<f64> = caught.iter().filter_map(of).collect();
        (!values.is_empty()).then(|| (*condition, values.iter().sum::<f64>() / values.len() as f64))
    });
    Some(Finding {
        kind: rule.kind,
        failure: rule.fails_at(side) && !few,
        evidence: evidence.collect(),
        frames: ranges(&caught),
    })
}

/// Twice the median step of a series of means, where one step up follows one down: what is left of
/// a curve that only rises, or jumps once, is nothing.
fn flicker(means: &[f64]) -> f64 {
    let bend: Vec<f64> = means.windows(3).map(|w| w[1] - (w[0] + w[2]) / 2.0).collect();
    let mut turns: Vec<f64> = bend
        .windows(2)
        .map(|w| if w[0] * w[1] < 0.0 { w[0].abs().min(w[1].abs()) } else { 0.0 })
        .collect();
    turns.sort_by(f64::total_cmp);
    turns.get(turns.len() / 2).copied().unwrap_or_default()
}

/// Means of the first quarter and of the last.
fn ends(series: &[f64]) -> (f64, f64) {
    let quarter = (series.len() / 4).max(1);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    (mean(&series[..quarter]), mean(&series[series.len() - quarter..]))
}

/// Pearson's correlation of a series with time.
fn trend(series: &[f64]) -> f64 {
    let count = series.len() as f64;
    let mean = series.iter().sum::<f64>() / count;
    let (mut together, mut square, mut times) = (0.0, 0.0, 0.0);
    for (i, value) in series.iter().enumerate() {
        let (time, off) = (i as f64 - (count - 1.0) / 2.0, value - mean);
        (together, square, times) =
            (together + time * off, square + off * off, times + time * time);
    }
    if square < 1e-12 { 0.0 } else { together / (square * times).sqrt() }
}

fn whole(frames: usize) -> Vec<RangeInclusive<usize>> {
    if frames == 0 { Vec::new() } else { vec![0..=frames - 1] }
}

/// Rising indices as runs.
fn ranges(indices: &[usize]) -> Vec<RangeInclusive<usize>> {
    let mut runs: Vec<RangeInclusive<usize>> = Vec::new();
    for &index in indices {
        match runs.last_mut() {
            Some(run) if *run.end() + 1 == index => *run = *run.start()..=index,
            _ => runs.push(index..=index),
        }
    }
    runs
}
