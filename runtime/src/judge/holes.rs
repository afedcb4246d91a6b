//! Rectangles that lost their content. A value that is no number becomes 0 when it becomes a byte,
//! and kernels fail by tiles: what stays is a rectangle of one value, on a grid of 8 pixels, with a
//! hard edge to a picture that goes on around it.

use crate::output::Frame;

/// The grid: pixels of a latent cell's side.
const TILE: usize = 8;
/// What values become that are no numbers, too large, or zero.
const EMPTY: [u8; 3] = [0, 255, 128];
/// Compression may move a value so far.
const TOLERANCE: u8 = 4;
/// Pixels at a tile's edge that compression gives the colour of what is beside it.
const EDGE: usize = 2;
/// A hard edge is a step of so many levels.
const STEP: u8 = 24;
/// The share of a hole's edge that is hard.
const HARD: f64 = 0.8;
/// How much the picture around a hole varies: around a rectangle that somebody drew it often doesn't.
const AROUND: u8 = 24;
/// Fewer tiles are no hole.
const FEWEST: usize = 4;

/// The share of the frame that holes take.
pub(super) fn holes(frame: &Frame) -> f64 {
    let (columns, rows) = (frame.width / TILE, frame.height / TILE);
    let mut lost = 0;
    for value in EMPTY {
        let mut empty: Vec<bool> =
            (0..columns * rows).map(|i| is_empty(frame, i % columns, i / columns, value)).collect();
        for start in 0..empty.len() {
            if empty[start] {
                let area = connected(&mut empty, columns, start);
                if area.len() >= FEWEST && is_hole(frame, &area, (columns, rows), value) {
                    lost += area.len();
                }
            }
        }
    }
    (lost * TILE * TILE) as f64 / (frame.width * frame.height) as f64
}

fn is_empty(frame: &Frame, column: usize, row: usize, value: u8) -> bool {
    let inside = EDGE..TILE - EDGE;
    inside.clone().all(|y| {
        let row = &frame.rgb[((row * TILE + y) * frame.width + column * TILE) * 3..];
        let pixels = &row[inside.start * 3..inside.end * 3];
        pixels.iter().all(|v| v.abs_diff(value) <= TOLERANCE)
    })
}

/// The tiles that hang together with `start`; they are taken from `empty`.
fn connected(empty: &mut [bool], columns: usize, start: usize) -> Vec<usize> {
    let (mut area, mut open) = (Vec::new(), vec![start]);
    empty[start] = false;
    while let Some(tile) = open.pop() {
        area.push(tile);
        let (column, rows) = (tile % columns, empty.len() / columns);
        let sides = [
            (column > 0).then(|| tile - 1),
            (column + 1 < columns).then(|| tile + 1),
            (tile >= columns).then(|| tile - columns),
            (tile / columns + 1 < rows).then(|| tile + columns),
        ];
        for next in sides.into_iter().flatten() {
            if std::mem::replace(&mut empty[next], false) {
                open.push(next);
            }
        }
    }
    area
}

fn is_hole(frame: &Frame, area: &[usize], (columns, rows): (usize, usize), value: u8) -> bool {
    let inside: std::collections::HashSet<usize> = area.iter().copied().collect();
    let at = |tile: &usize| (tile % columns, tile / columns);
    let touches = |of: &dyn Fn((usize, usize)) -> bool| area.iter().any(|tile| of(at(tile)));
    let across = touches(&|(x, _)| x == 0) && touches(&|(x, _)| x + 1 == columns);
    let down = touches(&|(_, y)| y == 0) && touches(&|(_, y)| y + 1 == rows);
    if across || down {
        return false; // Bars, and the ground that everything else is on.
    }
    let green = |x: usize, y: usize| frame.rgb[(y * frame.width + x) * 3 + 1];
    let (mut edge, mut hard, mut low, mut high) = (0, 0, 255, 0);
    let mut see = |x: usize, y: usize| {
        let outside = &frame.rgb[(y * frame.width + x) * 3..][..3];
        edge += 1;
        if outside.iter().any(|v| v.abs_diff(value) >= STEP) {
            hard += 1;
            (low, high) = (green(x, y).min(low), green(x, y).max(high));
        }
    };
    for tile in area {
        let (column, row) = at(tile);
        let (left, top) = (column * TILE, row * TILE);
        for i in 0..TILE {
            if column > 0 && !inside.contains(&(tile - 1)) {
                see(left - 1, top + i);
            }
            if left + TILE < frame.width && (column + 1 == columns || !inside.contains(&(tile + 1)))
            {
                see(left + TILE, top + i);
            }
            if row > 0 && !inside.contains(&(tile - columns)) {
                see(left + i, top - 1);
            }
            if top + TILE < frame.height && (row + 1 == rows || !inside.contains(&(tile + columns)))
            {
                see(left + i, top + TILE);
            }
        }
    }
    edge > 0 && f64::from(hard) >= HARD * f64::from(edge) && high - low >= AROUND
}
