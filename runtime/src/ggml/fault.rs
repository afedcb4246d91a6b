//! Devices that go wrong on purpose, for tests of what notices it.

use super::ComputeError;
use super::graph::Write;
use ggml_sys as sys;

/// What a device does wrong in one graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// One value of what the graph writes is NaN before it runs: whoever reads it computes NaN.
    NotANumber,
    /// It reports success, and half of the values that it wrote are others: finite ones.
    Garbage,
    /// It is gone.
    Lost,
}

/// Asked before each graph, with the names of what it writes under guard.
pub type Planted = Box<dyn FnMut(&[&str]) -> Option<Fault>>;

/// # Safety
/// The graph that `writes` belong to is allocated.
pub(super) unsafe fn before(
    planted: &mut Option<Planted>,
    writes: &[Write],
) -> Result<Option<Fault>, ComputeError> {
    let names: Vec<&str> = writes.iter().filter_map(|w| w.guard.as_deref()).collect();
    let fault = planted.as_mut().and_then(|ask| ask(&names));
    match fault {
        Some(Fault::Lost) => {
            return Err(ComputeError::Reported("the device was removed".into()));
        }
        Some(Fault::NotANumber) => {
            let nan = f32::NAN;
            for Write { target, .. } in writes.iter().filter(|w| w.guard.is_some()) {
                // SAFETY: the target is a view of a state, F32 as guarded values are.
                unsafe {
                    let value = (&raw const nan).cast();
                    sys::ggml_backend_tensor_set(target.as_ptr(), value, 0, size_of::<f32>());
                }
            }
        }
        Some(Fault::Garbage) | None => {}
    }
    Ok(fault)
}

/// # Safety
/// The graph that `writes` belong to has been computed.
pub(super) unsafe fn after(fault: Option<Fault>, writes: &[Write]) {
    if fault != Some(Fault::Garbage) {
        return;
    }
    for Write { target, .. } in writes {
        // SAFETY: the target is a view of a state, whose rows are dense; its first half is read and
        // written within its bounds.
        unsafe {
            let bytes = sys::ggml_nbytes(target.as_ptr()) / 8 * 4;
            let mut values = vec![0u8; bytes];
            sys::ggml_backend_tensor_get(target.as_ptr(), values.as_mut_ptr().cast(), 0, bytes);
            values.chunks_exact_mut(4).for_each(|value| value.swap(0, 1));
            values.reverse();
            values.chunks_exact_mut(4).for_each(|value| value.reverse());
            sys::ggml_backend_tensor_set(target.as_ptr(), values.as_ptr().cast(), 0, bytes);
        }
    }
}
