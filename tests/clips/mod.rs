//! The judge's calibration set: clips by seed, good ones and bad ones.

pub mod canvas;
pub mod demo;
pub mod failures;
pub mod scenes;
pub mod table;

use gguf_video::judge::{Expectations, Judge, Motion, Verdict};
use gguf_video::output::{Frame, Video, open, read};
use scenes::Scene;
use std::path::Path;

/// What a clip is, whatever the judge says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// A legitimate video: it must pass without a warning.
    Good,
    /// It may have been wanted: it must pass with a warning.
    Doubtful,
    /// It must fail.
    Bad,
}

/// A clip of the set, made when it is looked at.
pub struct Clip {
    pub name: String,
    pub class: Class,
    pub motion: Motion,
    frames: Box<dyn Fn() -> Shown>,
}

/// What a clip shows, and bits a pixel of its largest coded frame.
type Shown = (Vec<Frame>, Option<f64>);

impl Clip {
    pub fn new(name: String, class: Class, frames: impl Fn() -> Vec<Frame> + 'static) -> Self {
        let frames = Box::new(move || (frames(), None));
        Self { name, class, motion: Motion::Unknown, frames }
    }

    fn drawn(
        name: &str,
        class: Class,
        scene: Scene,
        (size, frames): ((usize, usize), usize),
        seed: u64,
    ) -> Self {
        let label = format!("{name}, {}x{}x{frames}", size.0, size.1);
        Self::new(label, class, move || {
            (0..frames).map(|time| scene(size, time as f32, seed).frame()).collect()
        })
    }

    pub fn frames(&self) -> Vec<Frame> {
        (self.frames)().0
    }

    /// The same after H.264.
    pub fn compressed(self) -> Self {
        let Self { name, class, motion, frames } = self;
        let frames = Box::new(move || {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("clip.mp4");
            write(&path, &frames().0);
            let mut seen = Vec::new();
            let contents = read(&path, &mut |frame| seen.push(frame.clone()));
            let contents = contents.unwrap_or_else(|e| panic!("{e}"));
            (seen, contents.bits_per_pixel())
        });
        Self { name: format!("{name}, H.264"), class, motion, frames }
    }

    pub fn judge(&self) -> Verdict {
        let mut judge = Judge::new(Expectations { motion: self.motion });
        let (frames, bits_per_pixel) = (self.frames)();
        frames.iter().for_each(|frame| judge.push(frame));
        judge.compressed(bits_per_pixel);
        judge.finish()
    }
}

/// Writes frames to a file of the kind that `path` names.
pub fn write(path: &Path, frames: &[Frame]) {
    let Frame { width, height, .. } = frames[0];
    let video = Video { width, height, fps: 16, frames: frames.len() };
    let mut sink = open(path, video).unwrap();
    frames.iter().for_each(|frame| sink.push(frame).unwrap());
    sink.finish().unwrap();
}

/// Frames of a clip that is long enough to have a course.
const COURSE: usize = 33;

/// All that formulas draw, at one size and length.
pub fn drawn(size: (usize, usize), frames: usize, seed: u64) -> Vec<Clip> {
    let shape = (size, frames);
    let mut clips = Vec::new();
    for (name, scene) in scenes::ALL {
        if name == "fade in" && frames < COURSE {
            continue; // Its first frames are black.
        }
        let mut clip = Clip::drawn(name, Class::Good, scene, shape, seed);
        if name.starts_with("still") {
            clip.motion = Motion::Still;
        }
        clips.push(clip);
    }
    clips.extend(
        failures::FRAMES.map(|(name, scene)| Clip::drawn(name, Class::Bad, scene, shape, seed)),
    );
    if frames >= COURSE {
        let of = |class| {
            move |(name, scene): &(&str, Scene)| Clip::drawn(name, class, *scene, shape, seed)
        };
        clips.extend(failures::CLIPS.iter().map(of(Class::Bad)));
        clips.extend(failures::DOUBTFUL.iter().map(of(Class::Doubtful)));
        let mut frozen = Clip::drawn("frozen, to move", Class::Bad, scenes::still, shape, seed);
        frozen.motion = Motion::Expected;
        clips.push(frozen);
    }
    clips
}
