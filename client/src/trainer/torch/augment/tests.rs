//! Each transform against its definition, pixel by pixel, and what is drawn against its bounds.

use proptest::prelude::*;

use super::draw::Rectangle;
use super::*;
use crate::trainer::torch::values;

const SIZE: usize = 7;

/// An image of three channels without any regularity.
fn image() -> Tensor {
    let values: Vec<f32> =
        (0..3 * SIZE * SIZE).map(|at| ((at * 37 + at * at * 11) % 101) as f32 / 100.0).collect();
    Tensor::from_slice(&values).view([3, SIZE as i64, SIZE as i64])
}

/// The pixel, or black outside.
fn at(image: &[f32], channel: usize, y: i64, x: i64) -> f64 {
    let size = SIZE as i64;
    let inside = (0..size).contains(&y) && (0..size).contains(&x);
    if inside { f64::from(image[channel * SIZE * SIZE + (y * size + x) as usize]) } else { 0.0 }
}

/// Between the four pixels around, whose centres are at whole numbers.
fn between(pixel: impl Fn(i64, i64) -> f64, y: f64, x: f64) -> f64 {
    let (top, left) = (y.floor(), x.floor());
    let (down, right) = (y - top, x - left);
    let (top, left) = (top as i64, left as i64);
    (1.0 - down) * ((1.0 - right) * pixel(top, left) + right * pixel(top, left + 1))
        + down * ((1.0 - right) * pixel(top + 1, left) + right * pixel(top + 1, left + 1))
}

/// `found` is what `expected` says of each channel, row and column.
fn check(found: &Tensor, expected: impl Fn(&[f32], usize, i64, i64) -> f64) {
    let (before, after) = (values(&image()).unwrap(), values(found).unwrap());
    assert_eq!(after.len(), before.len());
    for (place, found) in after.iter().enumerate() {
        let (channel, y, x) = (place / (SIZE * SIZE), place / SIZE % SIZE, place % SIZE);
        let expected = expected(&before, channel, y as i64, x as i64);
        assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected} at {channel} {y} {x}");
    }
}

#[test]
fn flips_and_moves() {
    let last = SIZE as i64 - 1;
    check(&flipped(&image(), Axis::Width).unwrap(), |image, c, y, x| at(image, c, y, last - x));
    check(&flipped(&image(), Axis::Height).unwrap(), |image, c, y, x| at(image, c, last - y, x));
    for (down, right) in [(2, -3), (-1, 0), (0, 20), (-20, 9), (0, 0)] {
        check(&moved(&image(), down, right).unwrap(), |image, c, y, x| at(image, c, y - down, x - right));
    }
}

#[test]
fn a_rotation_is_against_the_clock() {
    let last = SIZE as i64 - 1;
    check(&rotated(&image(), 90.0).unwrap(), |image, c, y, x| at(image, c, x, last - y));
    for degrees in [-33.0_f64, 12.5, 170.0] {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let middle = last as f64 / 2.0;
        check(&rotated(&image(), degrees).unwrap(), |image, c, y, x| {
            // Upwards and to the right from the middle; turned with the clock to where it was.
            let (up, right) = (middle - y as f64, x as f64 - middle);
            let (old_up, old_right) = (up * cos - right * sin, right * cos + up * sin);
            between(|y, x| at(image, c, y, x), middle - old_up, middle + old_right)
        });
    }
}

#[test]
fn a_crop_is_scaled_to_the_whole() {
    for part in [
        Rectangle { top: 1, left: 2, height: 4, width: 3 },
        Rectangle { top: 0, left: 0, height: 7, width: 7 },
        Rectangle { top: 6, left: 6, height: 1, width: 1 },
    ] {
        check(&resized_crop(&image(), part).unwrap(), |image, c, y, x| {
            let from =
                |place: i64, length: i64| ((place as f64 + 0.5) * length as f64 / SIZE as f64 - 0.5).max(0.0);
            let pixel = |y: i64, x: i64| {
                at(image, c, part.top + y.min(part.height - 1), part.left + x.min(part.width - 1))
            };
            between(pixel, from(y, part.height), from(x, part.width))
        });
    }
}

#[test]
fn colours() {
    let grey = |image: &[f32], y, x| {
        0.2989 * at(image, 0, y, x) + 0.587 * at(image, 1, y, x) + 0.114 * at(image, 2, y, x)
    };
    let mean = |image: &[f32]| {
        let places = (0..SIZE as i64).flat_map(|y| (0..SIZE as i64).map(move |x| (y, x)));
        places.map(|(y, x)| grey(image, y, x)).sum::<f64>() / (SIZE * SIZE) as f64
    };
    for factor in [0.0, 0.6, 1.0, 1.7] {
        let mix = |own: f64, other: f64| (factor * own + (1.0 - factor) * other).clamp(0.0, 1.0);
        check(&brightness(&image(), factor).unwrap(), |image, c, y, x| mix(at(image, c, y, x), 0.0));
        check(&contrast(&image(), factor).unwrap(), |image, c, y, x| mix(at(image, c, y, x), mean(image)));
        check(&saturation(&image(), factor).unwrap(), |image, c, y, x| {
            mix(at(image, c, y, x), grey(image, y, x))
        });
    }
}

#[test]
fn what_is_erased_is_black() {
    let part = Rectangle { top: 2, left: 1, height: 3, width: 4 };
    check(&erased(&image(), part).unwrap(), |image, c, y, x| {
        let inside = (2..5).contains(&y) && (1..5).contains(&x);
        if inside { 0.0 } else { at(image, c, y, x) }
    });
}

proptest! {
    #[test]
    fn what_is_drawn_fits(seed: u64, size in 1i64..300, least in 0.01f64..1.0, strength in 0.0f64..3.0) {
        let mut random = seed::stream(seed, &[]);
        let inside = |part: Rectangle| {
            part.top >= 0 && part.left >= 0 && part.top + part.height <= size && part.left + part.width <= size
        };
        let crop = crop_of(&mut random, size, Share { least, most: 1.0 });
        prop_assert!(inside(crop) && crop.height > 0 && crop.width > 0);
        if size > 50 {
            let share = (crop.height * crop.width) as f64 / (size * size) as f64;
            prop_assert!(share > least - 0.03 && share <= 1.0, "{share}");
        }
        prop_assert!(inside(erased_of(&mut random, size)));
        let factor = around_one(&mut random, strength);
        prop_assert!(factor >= 0.0 && (factor - 1.0).abs() <= strength.max(1.0));
    }
}

fn augment(asked: Augmentation, kind: Examples) -> Augment {
    Augment { asked, kind }
}

fn batch(values: Tensor) -> Batch {
    Batch { values, real: None }
}

/// Four times the same image, as bytes.
fn four() -> Batch {
    let bytes = (image() * 255.0).round().to_kind(Kind::Uint8);
    batch(bytes.view([1, 1, 3, SIZE as i64, SIZE as i64]).repeat([4, 1, 1, 1, 1]))
}

#[test]
fn images_differ_within_a_batch_and_not_between_attempts() {
    let asked = Augmentation {
        horizontal_flip: 0.5,
        vertical_flip: 0.5,
        rotation: 20.0,
        crop: Some([0.3, 1.0]),
        crop_padding: 0,
        brightness: 0.3,
        contrast: 0.3,
        saturation: 0.3,
        erasing: 0.5,
        noise: 0.05,
        token_masking: 0.0,
        mixup: 0.0,
    };
    let augment = augment(asked, Examples::Images);
    let once = augment.apply(four(), 7).unwrap().values;
    assert_eq!(once.size(), [4, 1, 3, SIZE as i64, SIZE as i64]);
    assert!(once.min().double_value(&[]) >= 0.0 && once.max().double_value(&[]) <= 1.0);
    assert_ne!(once.get(0), once.get(1));
    assert_eq!(augment.apply(four(), 7).unwrap().values, once);
    assert_ne!(augment.apply(four(), 8).unwrap().values, once);
}

#[test]
fn images_of_which_nothing_is_asked_are_as_they_were() {
    let same = augment(Augmentation::default(), Examples::Images).apply(four(), 7).unwrap().values;
    let expected = four().values.to_kind(Kind::Float) / 255.0;
    assert_eq!(same, expected);
    let always = Augmentation { horizontal_flip: 1.0, ..Augmentation::default() };
    let flipped = augment(always, Examples::Images).apply(four(), 7).unwrap().values;
    assert_eq!(flipped, expected.flip([4]));
}

#[test]
fn noise_of_a_table_is_on_numbers_that_are_there() {
    let spec = RunSpec::parse(
        "run.toml",
        r#"
        name = "noise"
        rounds = 1
        [model]
        architecture = "mlp"
        [task]
        type = "tabular-classification"
        dataset = "d"
        label = "l"
        labels = ["a", "b"]
        features = [
            { column = "c", type = "categorical", categories = ["x", "y"] },
            { column = "n", type = "numeric" },
            { column = "m", type = "numeric" },
        ]
        [training.augmentation]
        noise = 0.5
        "#,
    );
    let spec = spec.unwrap();
    let augment = Augment::new(&spec, None, Device::Cpu).unwrap().unwrap();
    let row = [0.0_f32, 1.0, 2.0, 0.0, 0.0, 1.0];
    let rows = Tensor::from_slice(&row).repeat([4000]).view([4000, 1, 6]);
    let found = augment.apply(batch(rows.shallow_clone()), 3).unwrap().values;
    let change = (found - rows).view([4000, 6]);
    for (column, std) in [0.0, 0.0, 0.5, 0.0, 0.0, 0.0].into_iter().enumerate() {
        let found = change.select(1, column as i64).std(false).double_value(&[]);
        assert!((found - std).abs() < 0.03, "{found} in column {column}");
    }
}

#[test]
fn tokens_are_masked_but_for_special_ones() {
    let special = Tensor::from_slice(&[true, true, false, false, true, false]);
    let asked = Augmentation { token_masking: 0.3, ..Augmentation::default() };
    let augment = augment(asked, Examples::Texts { mask: 4, special });
    let ids = Tensor::from_slice(&[0_i64, 2, 3, 5, 1]).repeat([2000]).view([2000, 5]);
    let found = augment.apply(batch(ids.shallow_clone()), 3).unwrap().values;
    let changed = found.ne_tensor(&ids);
    for (place, share) in [0.0, 0.3, 0.3, 0.3, 0.0].into_iter().enumerate() {
        let found = changed.select(1, place as i64).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        assert!((found - share).abs() < 0.04, "{found} at {place}");
    }
    assert_eq!(found.masked_select(&changed).eq(4).all().int64_value(&[]), 1);
}

#[test]
fn a_batch_is_mixed_in_pairs_by_shares_of_the_beta_distribution() {
    let asked = Augmentation { mixup: 0.4, ..Augmentation::default() };
    let augment = augment(asked, Examples::Rows { numbers: Tensor::from_slice(&[1.0_f32, 0.0]) });
    let rows = Tensor::from_slice(&[1.0_f32, 0.0, 0.0, 1.0, 5.0, 0.0, -3.0, 0.0, 0.5, 0.0]).view([5, 1, 2]);
    let (mut sum, mut squares) = (0.0, 0.0);
    for seed in 0..4000 {
        let Mix { share, partners } = augment.mix(5, seed).unwrap();
        let mut all = partners.clone();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
        if seed < 20 {
            let found = values(&augment.apply(batch(rows.shallow_clone()), seed).unwrap().values).unwrap();
            let before = values(&rows).unwrap();
            for (at, found) in found.into_iter().enumerate() {
                let other = before[2 * partners[at / 2] + at % 2];
                let expected = share * f64::from(before[at]) + (1.0 - share) * f64::from(other);
                assert!((f64::from(found) - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
        sum += share / 4000.0;
        squares += share * share / 4000.0;
    }
    // Mean and variance of Beta(0.4, 0.4): 1/2 and 1 / (4 (2 * 0.4 + 1)).
    assert!((sum - 0.5).abs() < 0.02, "{sum}");
    assert!((squares - sum * sum - 1.0 / 7.2).abs() < 0.005, "{squares}");
    assert_eq!(augment.mix(5, 7), augment.mix(5, 7));
}
