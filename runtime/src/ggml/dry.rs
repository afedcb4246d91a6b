//! Buffers of no memory, for dry runs. Sizes, alignment and paddings are those of a device's own
//! buffers, so ggml lays tensors out as it would there; addresses are numbers and nothing more.

use super::Device;
use ggml_sys as sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_char, c_void};
use std::ptr::NonNull;

/// Where every buffer says that it begins: any address that is aligned for all devices.
const BASE: usize = 1 << 40;

type Kind = sys::ggml_backend_buffer_type;

/// The buffer type that `device` allocates from.
pub(super) fn buffer_type(device: Device) -> *mut Kind {
    // SAFETY: the device is registered for the program, and its buffer type with it.
    let real = unsafe { sys::ggml_backend_dev_buffer_type(device.as_ptr()) };
    if device.is_dry() { imitation(real) } else { real }
}

/// A buffer of `bytes` that no memory stands behind.
pub(super) fn buffer(device: Device, bytes: usize) -> NonNull<sys::ggml_backend_buffer> {
    assert!(device.is_dry());
    // SAFETY: `imitation` gives a valid type.
    let buffer = unsafe { alloc_buffer(buffer_type(device), bytes) };
    NonNull::new(buffer).expect("nothing is allocated, so nothing fails")
}

/// The dry twin of `real`, made once a thread and device: ggml keeps pointers to it.
fn imitation(real: *mut Kind) -> *mut Kind {
    thread_local! {
        static MADE: RefCell<HashMap<usize, *mut Kind>> = RefCell::default();
    }
    MADE.with_borrow_mut(|made| {
        *made.entry(real as usize).or_insert_with(|| {
            // SAFETY: a device's buffer type lives as long as the program.
            let device = unsafe { (*real).device };
            let iface = sys::ggml_backend_buffer_type_i {
                get_name: Some(name),
                alloc_buffer: Some(alloc_buffer),
                alloc_buffer_n: None,
                get_alignment: Some(alignment),
                get_max_size: Some(max_size),
                get_alloc_size: Some(alloc_size),
                get_alloc_size_n: None,
                is_host: None,
            };
            Box::leak(Box::new(Kind { iface, device, context: real.cast() }))
        })
    })
}

unsafe fn real(kind: *mut Kind) -> *mut Kind {
    // SAFETY: only called with a type that `imitation` made.
    unsafe { (*kind).context.cast() }
}

unsafe extern "C" fn name(_: *mut Kind) -> *const c_char {
    c"dry".as_ptr()
}

unsafe extern "C" fn alignment(kind: *mut Kind) -> usize {
    // SAFETY: see `real`.
    unsafe { sys::ggml_backend_buft_get_alignment(real(kind)) }
}

unsafe extern "C" fn max_size(kind: *mut Kind) -> usize {
    // SAFETY: see `real`.
    unsafe { sys::ggml_backend_buft_get_max_size(real(kind)) }
}

unsafe extern "C" fn alloc_size(kind: *mut Kind, tensor: *const sys::ggml_tensor) -> usize {
    // SAFETY: see `real`; the tensor is ggml's own argument.
    unsafe { sys::ggml_backend_buft_get_alloc_size(real(kind), tensor) }
}

unsafe extern "C" fn alloc_buffer(kind: *mut Kind, size: usize) -> *mut sys::ggml_backend_buffer {
    let iface = sys::ggml_backend_buffer_i {
        free_buffer: None,
        get_base: Some(base),
        init_tensor: None,
        memset_tensor: None,
        set_tensor: None,
        get_tensor: None,
        set_tensor_2d: None,
        get_tensor_2d: None,
        cpy_tensor: None,
        clear: Some(clear),
        reset: None,
    };
    // SAFETY: the buffer has no context; ggml copies the interface.
    unsafe { sys::ggml_backend_buffer_init(kind, iface, std::ptr::null_mut(), size) }
}

unsafe extern "C" fn base(_: *mut sys::ggml_backend_buffer) -> *mut c_void {
    BASE as *mut c_void
}

unsafe extern "C" fn clear(_: *mut sys::ggml_backend_buffer, _: u8) {}
