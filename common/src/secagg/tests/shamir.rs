use proptest::prelude::*;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha20Rng;

use super::*;

fn secret(byte: u8) -> Secret {
    let mut bytes = [byte; 32];
    bytes[31] = 0;
    Secret::new(bytes)
}

#[test]
fn the_shares_are_golden() {
    let coefficients = [secret(1).scalar(), Scalar::from(5u32), Scalar::from(7u32)];
    let shares = [1, 2, 3, 4].map(|x| Secret::from(evaluate(&coefficients, x)));
    for (share, low) in shares.iter().zip([0x0d, 0x27, 0x4f, 0x85]) {
        let mut expected = *secret(1).bytes();
        expected[0] = low;
        assert_eq!(share.bytes(), &expected);
    }
    for xs in [[1, 2, 3], [1, 2, 4], [4, 1, 3], [2, 3, 4]] {
        let chosen = xs.map(|x| shares[x as usize - 1].clone());
        assert_eq!(Basis::new(&xs).unwrap().combine(&chosen), Some(secret(1)));
    }
}

#[test]
fn what_is_no_basis_is_refused() {
    assert!(Basis::new(&[]).is_none());
    assert!(Basis::new(&[1, 0]).is_none());
    assert!(Basis::new(&[1, 2, 1]).is_none());
}

#[test]
fn what_is_no_share_is_refused() {
    let basis = Basis::new(&[1, 2]).unwrap();
    assert_eq!(basis.combine(&[secret(1)]), None);
    assert_eq!(basis.combine(&[secret(1), Secret::new([0xff; 32])]), None);
}

/// The value at `at` of the least polynomial through these points, the slow and plain way.
fn interpolate(points: &[(u32, Scalar)], at: u32) -> Scalar {
    let at = Scalar::from(at);
    let term = |i: usize, (x, y): &(u32, Scalar)| {
        let others = points.iter().enumerate().filter(|(j, _)| *j != i);
        others.fold(*y, |product, (_, (other, _))| {
            let other = Scalar::from(*other);
            product * (at - other) * (Scalar::from(*x) - other).invert()
        })
    };
    points.iter().enumerate().map(|(i, point)| term(i, point)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_threshold_of_shares_gives_the_secret_back(
        sites in 1usize..20, threshold in 1usize..20, extra in 0usize..20, seed: u64,
    ) {
        let threshold = threshold.min(sites);
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let secret = Secret::random_scalar(&mut rng);
        let xs: Vec<u32> = (1..=sites as u32).collect();
        let shares = split(&secret, threshold, &xs, &mut rng);
        let mut chosen: Vec<_> = xs.into_iter().zip(shares).collect();
        chosen.shuffle(&mut rng);
        chosen.truncate((threshold + extra).min(sites));
        let (xs, shares): (Vec<_>, Vec<_>) = chosen.into_iter().unzip();
        prop_assert_eq!(Basis::new(&xs).unwrap().combine(&shares), Some(secret));
    }

    /// Fewer shares than the threshold, with any secret at all, lie on exactly one polynomial of the right
    /// degree. Its other coefficients are as likely as any, so the shares say nothing about the secret.
    #[test]
    fn one_share_too_few_fits_every_secret(threshold in 2usize..12, seed: u64) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let xs: Vec<u32> = (1..=threshold as u32 + 3).collect();
        let [truth, candidate] = [(); 2].map(|()| Secret::random_scalar(&mut rng));
        let shares = split(&truth, threshold, &xs, &mut rng);
        let known: Vec<_> = xs.iter().copied().zip(&shares).take(threshold - 1).collect();
        let with = |secret: &Secret| {
            let mut points = vec![(0, secret.scalar())];
            points.extend(known.iter().map(|(x, share)| (*x, share.scalar())));
            points
        };
        let rest = |secret: &Secret| -> Vec<_> {
            xs[threshold - 1..].iter().map(|x| Secret::from(interpolate(&with(secret), *x))).collect()
        };
        prop_assert_eq!(&rest(&truth), &shares[threshold - 1..]);

        // With the candidate in the truth's place, the shares that were not seen would be others, and would
        // with those that were seen give back the candidate.
        let imagined = rest(&candidate);
        for (at, share) in imagined.iter().enumerate() {
            let x = xs[threshold - 1 + at];
            let (mut at, mut seen): (Vec<_>, Vec<_>) = known.iter().map(|(x, s)| (*x, (*s).clone())).unzip();
            at.push(x);
            seen.push(share.clone());
            prop_assert_eq!(Basis::new(&at).unwrap().combine(&seen), Some(candidate.clone()));
        }
    }
}
