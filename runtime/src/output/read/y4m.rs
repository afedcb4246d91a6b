//! YUV4MPEG2 of 8 bits, with the chroma that the sink writes (4:4:4) and that of other programs.
//!
//! Format: `yuv4mpeg(5)` of the mjpegtools.

use super::{Contents, LONGEST_SIDE, ReadError};
use crate::output::Frame;
use crate::output::yuv::{Matrix, frame_of_planes};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// A longer header line is none.
const LONGEST_LINE: u64 = 1024;

struct Header {
    width: usize,
    height: usize,
    /// Pixels that share a chroma sample, across and down; `None` without chroma.
    chroma: Option<(usize, usize)>,
    full_range: bool,
}

pub(super) fn read(
    path: &Path,
    file: File,
    push: &mut dyn FnMut(&Frame),
) -> Result<Contents, ReadError> {
    let mut file = BufReader::new(file);
    let first = line(&mut file, path)?.unwrap_or_default();
    let Header { width, height, chroma, full_range } =
        header(&first).map_err(|what| ReadError::malformed(path, what))?;
    let (columns, rows) = chroma.map_or((0, 0), |(x, y)| (width.div_ceil(x), height.div_ceil(y)));
    let mut bytes = vec![0; width * height + 2 * columns * rows];
    let mut contents = Contents::default();
    while let Some(line) = line(&mut file, path)? {
        if !line.starts_with("FRAME") {
            let what = format!("no frame where frame {} should begin", contents.frames);
            return Err(ReadError::malformed(path, what));
        }
        let mut got = 0;
        while got < bytes.len() {
            match file.read(&mut bytes[got..]).map_err(ReadError::io(path))? {
                0 => {
                    return Err(ReadError::CutOff {
                        path: path.to_owned(),
                        frame: contents.frames,
                        missing: (bytes.len() - got) as u64,
                    });
                }
                more => got += more,
            }
        }
        let (y, rest) = bytes.split_at(width * height);
        let (cb, cr) = rest.split_at(columns * rows);
        let planes = [(y, width), (cb, columns), (cr, columns)];
        let frame = frame_of_planes(
            (width, height),
            planes,
            chroma.unwrap_or((1, 1)),
            Matrix::of_size(width, height),
            full_range,
        );
        contents.add(&frame, path)?;
        push(&frame);
    }
    Ok(contents)
}

/// The next line without its end; `None` at the end of the file.
fn line(file: &mut impl BufRead, path: &Path) -> Result<Option<String>, ReadError> {
    let mut line = Vec::new();
    file.take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(ReadError::io(path))?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(String::from_utf8_lossy(&line).into_owned())),
        Some(_) => Err(ReadError::malformed(path, "a header line without an end")),
    }
}

fn header(line: &str) -> Result<Header, String> {
    let mut words = line.split(' ');
    if words.next() != Some("YUV4MPEG2") {
        return Err("it doesn't begin as YUV4MPEG2 does".into());
    }
    let (mut width, mut height, mut chroma, mut full_range) = (0, 0, "420jpeg", false);
    for word in words.filter(|word| !word.is_empty()) {
        let Some((tag, value)) = word.split_at_checked(1) else { continue };
        match tag {
            "W" => width = value.parse().unwrap_or(0),
            "H" => height = value.parse().unwrap_or(0),
            "C" => chroma = value,
            "X" if value == "COLORRANGE=FULL" => full_range = true,
            _ => {}
        }
    }
    if !(1..=LONGEST_SIDE).contains(&width) || !(1..=LONGEST_SIDE).contains(&height) {
        return Err("its header has no width and height that a video can have".into());
    }
    let chroma = match chroma {
        "444" => Some((1, 1)),
        "422" => Some((2, 1)),
        "420" | "420jpeg" | "420mpeg2" | "420paldv" => Some((2, 2)),
        "mono" => None,
        other => {
            return Err(format!(
                "its samples are C{other}; known are 8-bit C420, C422, C444, Cmono"
            ));
        }
    };
    Ok(Header { width, height, chroma, full_range })
}
