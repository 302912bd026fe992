//! Linear layer, norm, rotation, gate.

use burn::backend::Flex;
use burn::tensor::{DType, Tensor, activation};

use super::{Any, BF16, Case, F32, any, ranked};
use crate::config::Activation;
use crate::kernel::{self, reference};

#[test]
fn linear() {
    for (x, w) in [
        ([1, 1, 1], [1, 1]),
        ([1, 1, 33], [7, 33]),
        ([2, 5, 100], [53, 100]),
        ([3, 47, 31], [97, 31]),
        ([1, 130, 64], [3, 64]),
    ] {
        let case = Case {
            name: "linear",
            shapes: &[&x, &w],
            kernel: &|x| any(kernel::linear(ranked::<3>(&x[0]), ranked(&x[1]))),
            plain: &|x| any(ranked::<3>(&x[0]).matmul(ranked::<2>(&x[1]).transpose().unsqueeze())),
            reference: &|x| reference::linear::<Flex>(x[0].clone(), x[1].clone()),
        };
        case.check();
        case.check_types(None);
        case.check_types_of(&[F32, BF16], F32);
        case.check_types_of(&[BF16, F32], BF16);
        case.check_types_of(&[F32, DType::F16], F32);
    }
}

#[test]
fn linear_of_a_matrix_and_of_rank_four() {
    let w = [5, 19];
    Case {
        name: "linear",
        shapes: &[&[11, 19], &w],
        kernel: &|x| any(kernel::linear(ranked::<2>(&x[0]), ranked(&x[1]))),
        plain: &|x| any(ranked::<2>(&x[0]).matmul(ranked::<2>(&x[1]).transpose())),
        reference: &|x| reference::linear::<Flex>(x[0].clone(), x[1].clone()),
    }
    .check();
    Case {
        name: "linear",
        shapes: &[&[2, 3, 7, 19], &w],
        kernel: &|x| any(kernel::linear(ranked::<4>(&x[0]), ranked(&x[1]))),
        plain: &|x| any(ranked::<4>(&x[0]).matmul(ranked::<2>(&x[1]).transpose().unsqueeze())),
        reference: &|x| reference::linear::<Flex>(x[0].clone(), x[1].clone()),
    }
    .check();
}

#[test]
fn rms_norm() {
    let forms = [
        ([1, 1, 1], 0.5, 0.0),
        ([2, 3, 37], 1e-5, 1.0),
        ([3, 29, 200], 0.1, 0.0),
        ([1, 3, 5000], 1e-6, 1.0),
        ([700, 1, 24], 1e-6, 0.0),
    ];
    for (shape, eps, offset) in forms {
        let plain = |x: &[Any]| {
            let x0 = ranked::<3>(&x[0]);
            let r = (x0.clone().powi_scalar(2).mean_dim(2) + eps).sqrt();
            any(x0 / r * (ranked::<1>(&x[1]) + offset).unsqueeze())
        };
        let case = Case {
            name: "rms_norm",
            shapes: &[&shape, &shape[2..]],
            kernel: &|x| any(kernel::rms_norm(ranked::<3>(&x[0]), ranked(&x[1]), eps, offset)),
            plain: &plain,
            reference: &|x| reference::rms_norm::<Flex>(x[0].clone(), x[1].clone(), eps, offset),
        };
        case.check();
        case.check_types(None);
    }
}

#[test]
fn rotary() {
    // The last rotate a part of the head alone.
    let forms = [
        ([1, 1, 1, 2], 1),
        ([2, 5, 3, 14], 7),
        ([1, 70, 2, 64], 32),
        ([2, 3, 4, 10], 3),
        ([1, 9, 1, 33], 16),
    ];
    for (shape, half) in forms {
        let [batch, time, _, dim] = shape;
        let plain = |x: &[Any]| {
            let whole = ranked::<4>(&x[0]);
            let [cos, sin] = [1, 2].map(|i| ranked::<2>(&x[i]).reshape([batch, time, 1, half]));
            let rest = whole.clone().slice_dim(3, 2 * half..dim);
            let turned = whole.slice_dim(3, 0..2 * half).reshape([batch, time, shape[2], 2, half]);
            let [a, b] = [0, 1].map(|i| turned.clone().narrow(3, i, 1).squeeze_dim::<4>(3));
            let first = a.clone() * cos.clone() - b.clone() * sin.clone();
            let parts = vec![first, a * sin + b * cos, rest];
            let parts = parts.into_iter().filter(|part| part.dims()[3] > 0).collect();
            any(Tensor::cat(parts, 3))
        };
        let case = Case {
            name: "rotary",
            shapes: &[&shape, &[batch * time, half], &[batch * time, half]],
            kernel: &|x| any(kernel::rotary(ranked(&x[0]), ranked(&x[1]), ranked(&x[2]))),
            plain: &plain,
            reference: &|x| reference::rotary::<Flex>(x[0].clone(), x[1].clone(), x[2].clone()),
        };
        case.check();
        case.check_types(None);
        case.check_types_of(&[BF16, F32, F32], BF16);
    }
}

#[test]
fn gated() {
    for shape in [[1, 1, 1], [2, 3, 37], [3, 50, 101]] {
        for act in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
            let plain = |x: &[Any]| {
                let g = ranked::<3>(&x[0]);
                let g = match act {
                    Activation::Silu => activation::silu(g),
                    Activation::Gelu => activation::gelu(g),
                    Activation::GeluTanh => activation::gelu_approximate(g),
                };
                any(g * ranked::<3>(&x[1]))
            };
            let case = Case {
                name: "gated",
                shapes: &[&shape, &shape],
                kernel: &|x| any(kernel::gated(ranked::<3>(&x[0]), ranked(&x[1]), act)),
                plain: &plain,
                reference: &|x| reference::gated::<Flex>(x[0].clone(), x[1].clone(), act),
            };
            case.check();
            case.check_types(None);
        }
    }
}
