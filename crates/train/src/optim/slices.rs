//! From tensors on the CPU to the numbers in them, which are changed in place.

#[cfg(feature = "flex")]
use burn::backend::{Flex, flex::FlexTensor};
use burn::tensor::{Int, Tensor};

/// Numbers of a part that one task works on, small enough for the caches.
pub(super) const PART: usize = 1 << 14;

/// What [`in_place`] gives back.
#[expect(clippy::large_enum_variant, reason = "handles that live for one match")]
pub(super) enum InPlace<const N: usize, const C: usize> {
    /// The tensors after the change.
    Changed([Tensor<2>; N], [Tensor<2, Int>; C]),
    /// The tensors as they were given, which lie on another device.
    Elsewhere([Tensor<2>; N], [Tensor<2, Int>; C], Tensor<2>),
}

/// Lets `work` change the numbers (f32) and codes (u8) of tensors, with those of another (f32)
/// before its eyes, if all lie in this machine's memory. A tensor that nobody else holds is not
/// copied.
#[cfg(feature = "flex")]
pub(super) fn in_place<const N: usize, const C: usize>(
    numbers: [Tensor<2>; N],
    codes: [Tensor<2, Int>; C],
    read: Tensor<2>,
    work: impl FnOnce([&mut [f32]; N], [&mut [u8]; C], &[f32]),
) -> InPlace<N, C> {
    if !is_cpu(&read) {
        return InPlace::Elsewhere(numbers, codes, read);
    }
    let mut numbers = numbers.map(primitive);
    let mut codes = codes.map(|codes| {
        whole(codes.try_into_primitive::<Flex>().expect("a tensor of the same device"))
    });
    let read = primitive(read);
    work(
        numbers.each_mut().map(FlexTensor::storage_mut),
        codes.each_mut().map(FlexTensor::storage_mut),
        read.storage(),
    );
    let codes = codes.map(Tensor::from_primitive::<Flex>);
    InPlace::Changed(numbers.map(Tensor::from_primitive::<Flex>), codes)
}

#[cfg(not(feature = "flex"))]
pub(super) fn in_place<const N: usize, const C: usize>(
    numbers: [Tensor<2>; N],
    codes: [Tensor<2, Int>; C],
    read: Tensor<2>,
    _: impl FnOnce([&mut [f32]; N], [&mut [u8]; C], &[f32]),
) -> InPlace<N, C> {
    InPlace::Elsewhere(numbers, codes, read)
}

/// What `look` makes of a tensor's numbers, if they lie in this machine's memory.
#[cfg(feature = "flex")]
pub(super) fn look<R>(tensor: &Tensor<2>, look: impl FnOnce(&[f32]) -> R) -> Option<R> {
    is_cpu(tensor).then(|| look(primitive(tensor.clone()).storage()))
}

#[cfg(not(feature = "flex"))]
pub(super) fn look<R>(_: &Tensor<2>, _: impl FnOnce(&[f32]) -> R) -> Option<R> {
    None
}

#[cfg(feature = "flex")]
fn is_cpu(tensor: &Tensor<2>) -> bool {
    #[cfg(test)]
    if test::TENSORS.get() {
        return false;
    }
    tensor.device() == burn::tensor::Device::flex()
}

/// Tests run the tensor operations on the CPU too.
#[cfg(all(test, feature = "flex"))]
pub(super) mod test {
    thread_local! {
        pub(in super::super) static TENSORS: std::cell::Cell<bool> =
            const { std::cell::Cell::new(false) };
    }
}

#[cfg(feature = "flex")]
fn primitive(tensor: Tensor<2>) -> FlexTensor {
    whole(tensor.try_into_primitive::<Flex>().expect("a tensor of the same device"))
}

/// A tensor that fills its memory in order: itself, or a copy of a view. Taken by value, so that
/// the handle that came in is gone and the memory has one owner.
#[cfg(feature = "flex")]
fn whole(tensor: FlexTensor) -> FlexTensor {
    tensor.to_contiguous()
}
