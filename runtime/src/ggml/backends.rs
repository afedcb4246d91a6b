//! What this build of ggml is, and what its backends say of themselves: for reports.

use super::device::text;
use super::plugins;
use ggml_sys as sys;

/// ggml's version, and where its source came from: `0.26.0`, `llama-cpp-sys-2 0.1.161`.
pub fn version() -> (String, &'static str) {
    // SAFETY: a static string.
    (text(unsafe { sys::ggml_version() }), sys::SOURCE)
}

/// The commit of ggml's source; `unknown` where it came from a package.
pub fn commit() -> String {
    // SAFETY: a static string.
    text(unsafe { sys::ggml_commit() })
}

/// One of ggml's backends, which may have no device here.
#[derive(Clone, Debug)]
pub struct Backend {
    /// ggml's name: `CPU`, `MTL`, `CUDA`, `Vulkan`.
    pub name: String,
    /// Whether it came from a library beside the program, and not with it.
    pub library: bool,
    /// How many it found here.
    pub devices: usize,
    /// What it was built with or found: `AVX2` `1`, say. Most backends say little.
    pub features: Vec<(String, String)>,
}

impl Backend {
    /// Those that this program was built with, and those that it found as libraries.
    pub fn all() -> Vec<Self> {
        let libraries = plugins::load();
        // SAFETY: backends are registered for the whole program; indices are below the count, and
        // null is asked for nothing.
        unsafe {
            let all = (0..sys::ggml_backend_reg_count()).map(|i| sys::ggml_backend_reg_get(i));
            all.filter(|backend| !backend.is_null())
                .map(|backend| {
                    let name = text(sys::ggml_backend_reg_name(backend));
                    Self {
                        library: libraries.contains(&name),
                        devices: sys::ggml_backend_reg_dev_count(backend),
                        features: features(backend),
                        name,
                    }
                })
                .collect()
        }
    }
}

/// # Safety
/// `backend` is registered.
unsafe fn features(backend: sys::ggml_backend_reg_t) -> Vec<(String, String)> {
    let mut found = Vec::new();
    // SAFETY: by contract; ggml documents the function of this name to have this type, and its list
    // to be static and to end with a name that is null.
    unsafe {
        let function =
            sys::ggml_backend_reg_get_proc_address(backend, c"ggml_backend_get_features".as_ptr());
        let function: sys::ggml_backend_get_features_t = std::mem::transmute(function);
        let Some(function) = function else { return found };
        let mut feature = function(backend);
        while !feature.is_null() && !(*feature).name.is_null() {
            found.push((text((*feature).name), text((*feature).value)));
            feature = feature.add(1);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_built_in_and_knows_its_instructions() {
        let all = Backend::all();
        let cpu = all.iter().find(|backend| backend.name == "CPU").unwrap();
        assert!(!cpu.library && cpu.devices == 1, "{cpu:?}");
        assert!(cpu.features.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()));
        let expected = if cfg!(target_arch = "x86_64") { "SSE3" } else { "NEON" };
        assert!(cpu.features.iter().any(|(name, _)| name == expected), "{cpu:?}");
        let (version, source) = version();
        assert!(version.starts_with("0.") && source.contains(' '), "{version}, {source}");
    }
}
