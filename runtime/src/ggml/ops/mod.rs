//! Operations on tensors, named as in PyTorch where they mean the same.
//!
//! Each checks in Rust what ggml would abort on, and panics with both shapes at the model's line:
//! a wrong shape is a mistake of the programmer, never of the user.

mod attention;
mod conv;
mod elementwise;
mod linear;
mod norm;
mod shape;

#[cfg(test)]
mod ops_test;

pub use conv::{Kernel, conv3d, patch_order};

use super::Tensor;
use super::graph::Node;
use ggml_sys as sys;
use std::ops::Range;

type UnaryOp =
    unsafe extern "C" fn(*mut sys::ggml_context, *mut sys::ggml_tensor) -> *mut sys::ggml_tensor;
type BinaryOp = unsafe extern "C" fn(
    *mut sys::ggml_context,
    *mut sys::ggml_tensor,
    *mut sys::ggml_tensor,
) -> *mut sys::ggml_tensor;

impl<'g> Tensor<'g> {
    #[track_caller]
    fn unary(self, f: UnaryOp) -> Self {
        // SAFETY: the node and its context are alive for `'g`; callers checked what `f` asserts.
        self.graph.node(|ctx| unsafe { f(ctx, self.raw.as_ptr()) })
    }

    #[track_caller]
    fn binary(self, rhs: Node, f: BinaryOp) -> Self {
        // SAFETY: both nodes and the context are alive for `'g`; callers checked what `f` asserts.
        self.graph.node(|ctx| unsafe { f(ctx, self.raw.as_ptr(), rhs.as_ptr()) })
    }

    /// This matrix product or attention, with sums of at least this precision.
    fn accumulated(self, least: sys::ggml_prec) -> Self {
        // SAFETY: the node is alive for `'g`.
        let taken = unsafe { sys::ggml_prec_set_acc(self.raw.as_ptr(), least) };
        assert!(taken, "accumulated: {self:?} has no sums");
        self
    }

    /// A tensor whose values lie densely in row-major order: itself, if they do.
    #[track_caller]
    pub fn contiguous(self) -> Self {
        let x = self.packed();
        // SAFETY: the node is alive for `'g`.
        if unsafe { sys::ggml_is_contiguous(x.raw.as_ptr()) } {
            return x;
        }
        x.unary(sys::ggml_cont)
    }

    /// A tensor whose innermost dimension is dense, which is what most kernels ask for.
    #[track_caller]
    fn dense_rows(self) -> Self {
        let x = self.packed();
        // SAFETY: the node is alive for `'g`.
        if unsafe { sys::ggml_is_contiguous_rows(x.raw.as_ptr()) } {
            return x;
        }
        x.unary(sys::ggml_cont)
    }

    /// [`Tensor::dense_rows`], beginning where the device's matrix products and attention can read.
    #[track_caller]
    fn operand(self) -> Self {
        let x = self.dense_rows();
        // SAFETY: the node is alive for `'g`; a tensor that is no view begins where memory does.
        let begin = unsafe { x.raw.as_ref() }.view_offs;
        if begin % self.graph.alignment == 0 { x } else { x.unary(sys::ggml_cont) }
    }

    /// [`Tensor::operand`], whose rows begin there, too.
    #[track_caller]
    fn operand_rows(self) -> Self {
        let x = self.operand();
        // SAFETY: as above.
        let [_, rows @ ..] = unsafe { x.raw.as_ref() }.nb;
        let fits = rows.iter().all(|stride| stride % self.graph.alignment == 0);
        if fits { x } else { x.unary(sys::ggml_cont) }
    }

    /// The same values with the packed stride in every dimension of one. Such a stride means
    /// nothing, but ggml's checks look at it, and a permuted one makes them abort.
    #[track_caller]
    fn packed(self) -> Self {
        // SAFETY: the node is alive for `'g`.
        let t = unsafe { self.raw.as_ref() };
        let mut nb = t.nb;
        // SAFETY: plain data in and out.
        let row = |n| unsafe { sys::ggml_row_size(t.type_, n) };
        if t.ne[0] == 1 {
            nb[0] = row(1);
        }
        for i in 1..4 {
            if t.ne[i] == 1 {
                nb[i] = if i == 1 { row(t.ne[0]) } else { nb[i - 1] * t.ne[i - 1] as usize };
            }
        }
        if nb == t.nb { self } else { self.strided(t.ne, nb, 0) }
    }
}

/// `0..n` in as few pieces of about equal length as `limit` allows.
fn pieces(n: i64, limit: i64) -> impl Iterator<Item = Range<i64>> {
    let count = (n + limit - 1) / limit;
    let length = (n + count - 1) / count;
    (0..n).step_by(length as usize).map(move |start| start..n.min(start + length))
}
