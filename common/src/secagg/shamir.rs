//! Shamir's secret sharing over the scalars of Curve25519.
//!
//! `threshold` shares give the secret back; fewer say nothing about it, because every candidate secret fits
//! them with exactly one polynomial. The field comes with the curve's crate, in constant time.

use curve25519_dalek::Scalar;
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::secret::{Secret, random_scalar};

/// One share for each of `xs`, any `threshold` of which give the secret back. No x may be 0: the share there
/// is the secret itself. A threshold of 0 counts as 1.
pub fn split(secret: &Secret, threshold: usize, xs: &[u32], rng: &mut impl CryptoRng) -> Vec<Secret> {
    debug_assert!(!xs.contains(&0), "the share at 0 is the secret");
    let random = (1..threshold).map(|_| random_scalar(rng));
    let coefficients: Zeroizing<Vec<_>> =
        Zeroizing::new(std::iter::once(secret.scalar()).chain(random).collect());
    xs.iter().map(|x| Secret::from(evaluate(&coefficients, *x))).collect()
}

/// The polynomial with these coefficients, the constant first, at x.
fn evaluate(coefficients: &[Scalar], x: u32) -> Scalar {
    let x = Scalar::from(x);
    coefficients.iter().rev().fold(Scalar::ZERO, |sum, coefficient| sum * x + coefficient)
}

/// The weights with which the shares at some x add up to the secret. They depend on nothing secret, so one
/// basis serves all secrets that were split at the same x.
#[derive(Clone, Debug)]
pub struct Basis(Vec<Scalar>);

impl Basis {
    /// For shares at `xs`, in this order; `None` when there are none, when one is 0, or when two are the
    /// same.
    pub fn new(xs: &[u32]) -> Option<Self> {
        let mut sorted = xs.to_vec();
        sorted.sort_unstable();
        let repeated = sorted.windows(2).any(|pair| pair[0] == pair[1]);
        if repeated || sorted.first().is_none_or(|least| *least == 0) {
            return None;
        }
        let points: Vec<_> = xs.iter().map(|x| Scalar::from(*x)).collect();
        // Lagrange at 0: the product of all other x_j over that of all x_j - x_i, as (product of all x) /
        // divisor.
        let mut weights: Vec<_> = points.iter().map(|point| divisor(point, &points)).collect();
        Scalar::invert_batch_alloc(&mut weights);
        let product: Scalar = points.iter().product();
        weights.iter_mut().for_each(|weight| *weight *= product);
        Some(Self(weights))
    }

    /// The secret behind these shares, one for each x in the order of [`Basis::new`]; `None` when there are
    /// more or fewer, or when one is not a canonical scalar. Too few for the threshold give a wrong secret,
    /// which only a commitment to the right one can tell.
    pub fn combine(&self, shares: &[Secret]) -> Option<Secret> {
        if shares.len() != self.0.len() {
            return None;
        }
        let mut sum = Zeroizing::new(Scalar::ZERO);
        for (weight, share) in self.0.iter().zip(shares) {
            *sum += weight * canonical(share)?;
        }
        Some(Secret::from(*sum))
    }
}

fn divisor(point: &Scalar, points: &[Scalar]) -> Scalar {
    points.iter().filter(|other| *other != point).map(|other| other - point).product::<Scalar>() * point
}

fn canonical(share: &Secret) -> Option<Scalar> {
    Scalar::from_canonical_bytes(*share.bytes()).into()
}

#[cfg(test)]
#[path = "tests/shamir.rs"]
mod tests;
