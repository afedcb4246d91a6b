//! Views, copies and rearrangements.

use crate::ggml::{Shape, Storage, Tensor};
use ggml_sys as sys;
use std::ops::Range;

impl<'g> Tensor<'g> {
    /// `torch.reshape`, by a copy where values aren't contiguous.
    ///
    /// # Panics
    /// Unless `to` has as many elements.
    #[track_caller]
    pub fn reshape(self, to: impl Into<Shape>) -> Self {
        let (x, to) = (self.contiguous(), to.into());
        assert_eq!(x.shape().elements(), to.elements(), "reshape: {x:?} to {to:?}");
        let [a, b, c, d] = to.to_ne();
        // SAFETY: the node is alive for `'g` and contiguous; the element counts agree.
        self.graph.node(|ctx| unsafe { sys::ggml_reshape_4d(ctx, x.raw.as_ptr(), a, b, c, d) })
    }

    /// `torch.permute`: dimension `i` of the result is dimension `order[i]` of `x`, counted from
    /// the outside of the `N` inner dimensions.
    #[track_caller]
    pub fn permute<const N: usize>(self, order: [usize; N]) -> Self {
        let _ = self.dims::<N>();
        // ggml wants, for each source axis (innermost 0), the axis it becomes.
        let mut axis = [0, 1, 2, 3];
        for (to, &from) in order.iter().enumerate() {
            axis[N - 1 - from] = (N - 1 - to) as i32;
        }
        let [a, b, c, d] = axis;
        // SAFETY: the node is alive for `'g`; ggml checks that the axes are a permutation.
        self.graph.node(|ctx| unsafe { sys::ggml_permute(ctx, self.raw.as_ptr(), a, b, c, d) })
    }

    /// `x[.., range, ..]` along `dim`, counted from the outside of the three inner dimensions.
    #[track_caller]
    pub fn narrow(self, dim: usize, range: Range<i64>) -> Self {
        assert!(dim < 3, "narrow: dimension {dim} of three");
        self.narrow4(dim + 1, range)
    }

    /// [`Tensor::narrow`] with `dim` counted from the outside of all four dimensions.
    #[track_caller]
    pub fn narrow4(self, dim: usize, range: Range<i64>) -> Self {
        // SAFETY: the node is alive for `'g`.
        let t = unsafe { self.raw.as_ref() };
        let (mut ne, nb, d) = (t.ne, t.nb, 3 - dim);
        let inside = 0 <= range.start && range.start < range.end && range.end <= ne[d];
        assert!(inside, "narrow: {range:?} of dimension {dim} of {self:?}");
        ne[d] = range.end - range.start;
        let offset = range.start as usize * nb[d];
        self.strided(ne, nb, offset)
    }

    /// `x[.., ::step, ..]` along `dim`, counted from the outside of all four dimensions.
    #[track_caller]
    pub fn every(self, dim: usize, step: i64) -> Self {
        if step == 1 {
            return self;
        }
        // SAFETY: the node is alive for `'g`.
        let t = unsafe { self.raw.as_ref() };
        let (mut ne, mut nb, d) = (t.ne, t.nb, 3 - dim);
        assert!(step > 0, "every: a step of {step} along dimension {dim} of {self:?}");
        (ne[d], nb[d]) = ((ne[d] + step - 1) / step, nb[d] * step as usize);
        self.strided(ne, nb, 0)
    }

    /// Overlapping runs of `width` neighbours along the second-innermost dimension of
    /// `[A, B, N, C]`, without a copy: `[A, B, N - width + 1, width · C]`.
    #[track_caller]
    pub fn windows(self, width: i64) -> Self {
        let x = self.contiguous();
        let [a, b, n, c] = x.shape().full();
        assert!(0 < width && width <= n, "windows: {width} of {n} in {x:?}");
        // SAFETY: the node is alive for `'g`.
        let nb = unsafe { x.raw.as_ref() }.nb;
        x.strided([width * c, n - width + 1, b, a], nb, 0)
    }

    /// The values `ne` steps of `nb` bytes apart, from `offset` on.
    #[track_caller]
    pub(super) fn strided(self, ne: [i64; 4], nb: [usize; 4], offset: usize) -> Self {
        let last = (0..4).map(|i| (ne[i] - 1) as usize * nb[i]).sum::<usize>();
        let x = self.raw.as_ptr();
        // SAFETY: the node is alive for `'g`.
        let (bytes, one) = unsafe { (sys::ggml_nbytes(x), sys::ggml_type_size((*x).type_)) };
        assert!(offset + last + one <= bytes, "view: {ne:?} by {nb:?} at {offset} of {self:?}");
        // `ggml_view_4d` takes views for packed, and would refuse overlapping ones: view one value,
        // then set sizes and strides, which is all that kernels look at.
        // SAFETY: as above; the view was checked to lie inside its source.
        self.graph.node(|ctx| unsafe {
            let view = sys::ggml_view_4d(ctx, x, 1, 1, 1, 1, nb[1], nb[2], nb[3], offset);
            ((*view).ne, (*view).nb) = (ne, nb);
            view
        })
    }

    /// This contiguous tensor with `values` stored from `at` (dimensions as in `values`, counted
    /// from the outside of the `N` inner ones). The result is the same memory: use it, not `self`.
    #[track_caller]
    pub fn set<const N: usize>(self, at: [i64; N], values: Tensor<'g>) -> Self {
        let values = values.dense_rows();
        let mut start = [0; 4];
        start[4 - N..].copy_from_slice(&at);
        // SAFETY: the node is alive for `'g`.
        let (ne, nb) = unsafe { (self.raw.as_ref().ne, self.raw.as_ref().nb) };
        // Not `ggml_set_inplace`, which keeps strides and offset in 31 bits.
        let target = self.part(start, values.shape());
        let stored = values.binary(target.raw, sys::ggml_cpy);
        self.graph.settle(stored.raw);
        stored.before(self.strided(ne, nb, 0))
    }

    /// A view of the `shape` that begins at `at`, of all four dimensions.
    #[track_caller]
    pub(in crate::ggml) fn part(self, at: [i64; 4], shape: Shape) -> Self {
        let (to, part) = (self.shape().full(), shape.full());
        let inside = (0..4).all(|i| at[i] >= 0 && at[i] + part[i] <= to[i]);
        assert!(inside, "part: {shape:?} at {at:?} of {self:?}");
        // SAFETY: the node is alive for `'g`.
        let nb = unsafe { self.raw.as_ref() }.nb;
        let offset = (0..4).map(|i| at[i] as usize * nb[3 - i]).sum::<usize>();
        self.strided(shape.to_ne(), nb, offset)
    }

    /// `next`, which is a view, with an edge that makes `self` come first: no kernel looks at a
    /// view's second source, but whatever orders nodes does.
    pub(in crate::ggml) fn before(self, next: Self) -> Self {
        // SAFETY: both nodes are alive for `'g`, and a graph is built by one thread.
        unsafe { (*next.raw.as_ptr()).src[1] = self.raw.as_ptr() };
        next
    }

    /// How this tensor's values are held: F32 or F16.
    #[track_caller]
    pub(super) fn storage(self) -> Storage {
        // SAFETY: the node is alive for `'g`.
        match unsafe { self.raw.as_ref() }.type_ {
            sys::GGML_TYPE_F32 => Storage::F32,
            sys::GGML_TYPE_F16 => Storage::F16,
            other => panic!("storage: ggml's type {other}"),
        }
    }

    /// The same values, held as `storage` does.
    #[track_caller]
    pub fn stored(self, storage: Storage) -> Self {
        if self.storage() == storage {
            return self;
        }
        // SAFETY: as above; ggml casts between F32 and F16.
        self.graph.node(|c| unsafe { sys::ggml_cast(c, self.raw.as_ptr(), storage.ggml_type()) })
    }

    /// `self` followed by `rhs` along `dim`, counted from the outside of all four dimensions.
    #[track_caller]
    pub fn concat(self, rhs: Tensor<'g>, dim: usize) -> Self {
        let (mut a, mut b) = (self.shape().full(), rhs.shape().full());
        (a[dim], b[dim]) = (0, 0);
        assert_eq!(a, b, "concat: {self:?} and {rhs:?} along {dim}");
        let (x, y) = (self.dense_rows().raw.as_ptr(), rhs.dense_rows().raw.as_ptr());
        // SAFETY: both nodes are alive for `'g`; the other dimensions agree.
        self.graph.node(|ctx| unsafe { sys::ggml_concat(ctx, x, y, 3 - dim as i32) })
    }

    /// Zeros around the two dimensions outside the innermost: `[A, H, W, C]` becomes
    /// `[A, H + top + bottom, W + left + right, C]`.
    #[track_caller]
    pub fn pad_image(self, [left, right, top, bottom]: [i32; 4]) -> Self {
        let x = self.dense_rows();
        // SAFETY: the node is alive for `'g`, with dense rows; paddings are not negative.
        self.graph.node(|ctx| unsafe {
            sys::ggml_pad_ext(ctx, x.raw.as_ptr(), 0, 0, left, right, top, bottom, 0, 0)
        })
    }

    /// Each pixel of `[A, H, W, C]` four times: `[A, 2H, 2W, C]` (nearest-exact, factor 2).
    #[track_caller]
    pub fn upsample_nearest_2x(self) -> Self {
        let [a, h, w, c] = self.shape().full();
        let wide = self.reshape([a * h, w, 1, c]).repeat([a * h, w, 2, c]);
        wide.reshape([1, a * h, 1, 2 * w * c]).repeat([1, a * h, 2, 2 * w * c]).reshape([
            a,
            2 * h,
            2 * w,
            c,
        ])
    }

    #[track_caller]
    fn repeat(self, to: impl Into<Shape>) -> Self {
        let (x, to) = (self.dense_rows(), to.into());
        let [a, b, c, d] = to.to_ne();
        let divides = x.shape().full().iter().zip(to.full()).all(|(&from, to)| to % from == 0);
        assert!(divides, "repeat: {x:?} to {to:?}");
        // SAFETY: the node is alive for `'g`; the sizes are multiples, as ggml asserts.
        self.graph.node(|ctx| unsafe { sys::ggml_repeat_4d(ctx, x.raw.as_ptr(), a, b, c, d) })
    }
}
