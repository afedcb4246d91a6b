//! Shapes in PyTorch order, outermost first. ggml stores them innermost first; the flip happens
//! here and nowhere else.

use std::fmt;

/// Up to four dimensions, padded with ones on the outside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape([i64; 4]);

impl Shape {
    pub(super) fn from_ne(ne: [i64; 4]) -> Self {
        Self([ne[3], ne[2], ne[1], ne[0]])
    }

    pub(super) fn to_ne(self) -> [i64; 4] {
        [self.0[3], self.0[2], self.0[1], self.0[0]]
    }

    /// The product of all dimensions.
    pub fn elements(self) -> usize {
        self.0.iter().product::<i64>() as usize
    }

    /// All four, the outer ones 1 where fewer were given.
    pub fn full(self) -> [i64; 4] {
        self.0
    }

    /// The innermost `N` dimensions; panics if an outer one isn't 1.
    #[track_caller]
    pub fn dims<const N: usize>(self) -> [i64; N] {
        let (outer, inner) = self.0.split_at(4 - N);
        assert!(outer.iter().all(|&d| d == 1), "{self:?} has more than {N} dimensions");
        inner.try_into().expect("N of four")
    }
}

impl<const N: usize> From<[i64; N]> for Shape {
    fn from(dims: [i64; N]) -> Self {
        const { assert!(N <= 4) };
        let mut full = [1; 4];
        full[4 - N..].copy_from_slice(&dims);
        Self(full)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.0.iter().position(|&d| d != 1).unwrap_or(3);
        f.debug_list().entries(&self.0[first..]).finish()
    }
}
