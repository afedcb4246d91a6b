//! PNG images of a folder, in the order of the numbers in their names.

use super::{Contents, LONGEST_SIDE, ReadError};
use crate::output::Frame;
use png::{ColorType, Decoder, Transformations};
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

pub(super) fn read(folder: &Path, push: &mut dyn FnMut(&Frame)) -> Result<Contents, ReadError> {
    let mut images = Vec::new();
    for entry in fs::read_dir(folder).map_err(ReadError::io(folder))? {
        let path = entry.map_err(ReadError::io(folder))?.path();
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) {
            images.push(path);
        }
    }
    images.sort_by_key(|path| order(path));
    let mut contents = Contents::default();
    for path in images {
        let frame = image(&path)?;
        contents.add(&frame, &path)?;
        push(&frame);
    }
    Ok(contents)
}

/// Text and numbers of a name by turns, so that `frame_10` comes after `frame_9`.
fn order(path: &Path) -> (Vec<(String, u128)>, PathBuf) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (mut parts, mut text, mut digits) = (Vec::new(), String::new(), String::new());
    for c in name.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        if !digits.is_empty() {
            let number = digits.parse().unwrap_or(u128::MAX);
            parts.push((std::mem::take(&mut text), number));
            digits.clear();
        }
        text.push(c);
    }
    parts.push((text, digits.parse().unwrap_or_default()));
    (parts, path.to_owned())
}

/// An image of any colour type and depth, as 8-bit RGB; transparency is left out.
fn image(path: &Path) -> Result<Frame, ReadError> {
    let failed = |source| ReadError::Image { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(ReadError::io(path))?;
    let mut decoder = Decoder::new(BufReader::new(file));
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(failed)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    if width.max(height) > LONGEST_SIDE {
        return Err(ReadError::malformed(path, format!("{width}x{height} pixels are too many")));
    }
    let size = reader.output_buffer_size();
    let mut data = vec![0; size.ok_or_else(|| ReadError::malformed(path, "too large"))?];
    let info = reader.next_frame(&mut data).map_err(failed)?;
    data.truncate(info.buffer_size());
    let rgb = match info.color_type {
        ColorType::Rgb => data,
        ColorType::Rgba => data.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        ColorType::Grayscale => data.iter().flat_map(|&v| [v; 3]).collect(),
        ColorType::GrayscaleAlpha => data.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
        ColorType::Indexed => return Err(ReadError::malformed(path, "its palette is missing")),
    };
    Ok(Frame::new(width, height, rgb))
}

#[cfg(test)]
mod tests {
    use super::order;
    use std::path::Path;

    #[test]
    fn numbers_count_as_numbers() {
        let mut names = ["f_10.png", "f_9.png", "f_1.png", "f_010.png", "e_99.png"];
        names.sort_by_key(|name| order(Path::new(name)));
        assert_eq!(names, ["e_99.png", "f_1.png", "f_9.png", "f_010.png", "f_10.png"]);
    }
}
