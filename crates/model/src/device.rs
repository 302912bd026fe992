//! One choice of the device for all programs.

use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;

use crate::error::Error;
pub use crate::kernel::cpu::memory::keep_freed_memory;

/// The environment variable that names the device where a program's `--device` does not.
pub const ENVIRONMENT: &str = "POSTTRAIN_DEVICE";

/// The devices compiled into this binary, as [`open`] takes them.
///
/// ```
/// assert!(posttrain_model::device::compiled_in().contains(&"flex"));
/// ```
pub fn compiled_in() -> Vec<&'static str> {
    let all = [
        ("flex", cfg!(feature = "flex")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("cuda", cfg!(feature = "cuda")),
    ];
    all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

/// The device of `--device` or, without it, of `POSTTRAIN_DEVICE`, or else the CPU if it is
/// compiled in, or else the first that is.
///
/// # Errors
/// Those of [`open`].
pub fn choose(argument: Option<&str>) -> Result<Device, Error> {
    let from_environment = std::env::var(ENVIRONMENT).ok().filter(|name| !name.is_empty());
    match argument.map(str::to_owned).or(from_environment) {
        Some(name) => open(&name),
        None => open(compiled_in().first().copied().unwrap_or("flex")),
    }
}

/// A device by name: `flex` (the CPU), `vulkan`, `wgpu` or `cuda`, the last three with a number behind
/// a colon where there are several: `cuda:1`, or `vulkan:1` for the second discrete GPU. `wgpu:cpu` is a software
/// device, which is never chosen by itself.
///
/// Where the feature `vulkan` is compiled in, software devices are refused: the SPIR-V that burn 0.22.1 writes for
/// devices without `VK_KHR_workgroup_memory_explicit_layout` declares shared memory as a pointer to itself, and
/// matrix products come out wrong. The WGSL of `wgpu` is right on the same devices.
///
/// ```
/// use posttrain_model::device;
/// device::open("flex")?;
/// let error = device::open("tpu").unwrap_err().to_string();
/// assert!(error.starts_with("device `tpu`: no such device; compiled in: flex"), "{error}");
/// # Ok::<(), posttrain_model::Error>(())
/// ```
///
/// # Errors
/// [`Error::Device`] for a name that is unknown, not compiled in, or of which the machine has none.
pub fn open(name: &str) -> Result<Device, Error> {
    let fail = |reason: &str| {
        let available = compiled_in().join(", ");
        Error::Device { name: name.into(), reason: reason.into(), available }
    };
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => (kind, Some(index)),
        None => (name, None),
    };
    if !["flex", "vulkan", "wgpu", "cuda"].contains(&kind) {
        return Err(fail("no such device"));
    }
    if !compiled_in().contains(&kind) {
        return Err(fail("not compiled in (enable the cargo feature of that name)"));
    }
    let adapter = match index.map(str::parse) {
        None => Adapter::Best,
        Some(Ok(number)) => Adapter::Number(number),
        Some(Err(_)) if index == Some("cpu") && ["vulkan", "wgpu"].contains(&kind) => {
            if cfg!(feature = "vulkan") {
                let reason =
                    "with the feature `vulkan` matrix products are wrong on software devices";
                return Err(fail(&format!(
                    "{reason}; use a build with `wgpu` and without `vulkan`"
                )));
            }
            Adapter::Software
        }
        Some(Err(_)) => return Err(fail("what follows the colon is not a number")),
    };
    match kind {
        #[cfg(feature = "flex")]
        "flex" if adapter == Adapter::Best => Ok(Device::flex()),
        #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
        "vulkan" | "wgpu" | "cuda" => {
            // A backend panics where there is no adapter of the kind that is asked for.
            std::panic::catch_unwind(|| gpu(kind, adapter))
                .ok()
                .flatten()
                .ok_or_else(|| fail("this machine has none"))
        }
        _ => Err(fail("it has no numbered adapters")),
    }
}

/// Which adapter of a kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Adapter {
    Best,
    Number(usize),
    Software,
}

#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
fn gpu(kind: &str, adapter: Adapter) -> Option<Device> {
    #[cfg(any(feature = "wgpu", feature = "vulkan"))]
    let selected = match adapter {
        Adapter::Software => burn::tensor::DeviceKind::Cpu,
        Adapter::Number(number) => burn::tensor::DeviceKind::DiscreteGpu(number),
        Adapter::Best => burn::tensor::DeviceKind::DefaultDevice,
    };
    let device = match (kind, adapter) {
        #[cfg(feature = "vulkan")]
        ("vulkan", _) => Device::vulkan(selected),
        #[cfg(feature = "wgpu")]
        ("wgpu", _) => Device::wgpu(selected),
        #[cfg(feature = "cuda")]
        ("cuda", Adapter::Best) => Device::cuda(0),
        #[cfg(feature = "cuda")]
        ("cuda", Adapter::Number(number)) => Device::cuda(number),
        _ => return None,
    };
    // The adapter is looked for when it is first used.
    let probe = burn::tensor::Tensor::<1>::from_data([1.0_f32], &device);
    (probe.into_scalar::<f32>() == 1.0).then_some(device)
}

/// A device's name for people: `flex`, `vulkan`...
pub fn name_of(device: &Device) -> String {
    if is_cpu(device) {
        return "flex".into();
    }
    let debug = format!("{device:?}").to_lowercase();
    let known = ["cuda", "vulkan", "wgpu"].into_iter().find(|name| debug.contains(name));
    known.map_or(debug.clone(), str::to_owned)
}

/// Whether a device is the CPU backend, with its own kernels.
pub(crate) fn is_cpu(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    {
        device.clone().inner() == Device::flex()
    }
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}

/// Runs work of many steps on a thread of rayon's pool, if the device is the CPU. There it takes part in
/// each operation and the other threads stay awake in between; from elsewhere each operation is handed
/// over to threads that have to be woken. A recipe's loop belongs in here.
///
/// One such work runs at a time: another thread's waits for its end, for a pool that runs both would
/// begin one in the middle of the other. Work must therefore not wait for other work of this kind.
///
/// ```
/// use posttrain_model::device;
///
/// let device = device::open("flex")?;
/// let sum = device::in_pool(&device, || (0..10).sum::<i32>());
/// assert_eq!(sum, 45);
/// # Ok::<(), posttrain_model::Error>(())
/// ```
pub fn in_pool<R: Send>(device: &Device, work: impl FnOnce() -> R + Send) -> R {
    static ONE: Mutex<()> = Mutex::new(());
    if !is_cpu(device) || rayon::current_thread_index().is_some() {
        return work();
    }
    // Whoever panicked left nothing behind the lock.
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    rayon::scope(|_| work())
}
